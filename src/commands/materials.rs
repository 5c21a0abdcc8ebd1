//! The materials that verbs name: weight files and architectures, looked up as experiments look them up.

use std::path::{Path, PathBuf};

use super::Usage;
use crate::cli::Common;
use crate::model::arch::{Arch, NAMES, family};
use crate::model::catalogue::{self, Known};
use crate::model::sketch::Sketch;
use crate::model::weights::file::WeightFile;
use crate::model::weights::recognised;

/// Endings that a name without one may have.
const ENDINGS: &[&str] = &["", ".safetensors", ".h5", ".weights.h5", ".keras", ".pth", ".pt", ".th"];

/// A weight file by its path, or by its name in the folder of weights.
pub fn weight_file(name: &str, folder: &Path) -> Option<PathBuf> {
    let inside = ENDINGS.iter().map(|ending| folder.join(format!("{name}{ending}")));
    std::iter::once(PathBuf::from(name)).chain(inside).find(|path| path.is_file())
}

/// Where weights are looked up.
pub fn weights_folder(common: &Common, data: &Path) -> PathBuf {
    common.weights.clone().unwrap_or_else(|| data.join("weights"))
}

/// What to do about weights that are not there.
pub fn how_to_get_weights(name: &str, folder: &Path) -> String {
    let names: Vec<&str> = catalogue::KNOWN.iter().map(|known| known.name).collect();
    let is = |known: &&catalogue::Known| known.name == name || format!("{}{}", known.name, known.ending) == name;
    match catalogue::KNOWN.iter().find(is) {
        Some(known) => {
            format!("{}, or name the folder with --weights or TL_SWEEP_WEIGHTS", known.how_to_get(folder))
        }
        None => match crate::spelling::nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean '{near}'? `tl-sweep weights list` lists the known ones"),
            None => "a file (.h5, .weights.h5, .keras, .safetensors, .pth), \"random\", \"pretrain\", or a name that `tl-sweep weights list` prints; --weights names the folder".to_owned(),
        },
    }
}

/// A weight file that a verb names.
///
/// # Errors
/// It is neither here nor in the folder of weights; says how to get it.
pub fn weights(name: &str, common: &Common) -> anyhow::Result<PathBuf> {
    let folder = folder(common);
    weight_file(name, &folder).ok_or_else(|| {
        let help = how_to_get_weights(name, &folder);
        Usage(format!("there are no weights '{name}' here, nor in '{}': {help}", folder.display())).into()
    })
}

/// Where a verb looks for weights.
pub fn folder(common: &Common) -> PathBuf {
    weights_folder(common, common.data.as_deref().unwrap_or(Path::new(".")))
}

/// An architecture by its name, or of a file of one's own.
///
/// # Errors
/// There is none of that name, or the file is wrong.
pub fn arch(name: &str, input: Option<usize>, width: f64) -> anyhow::Result<Arch> {
    if name.ends_with(".toml") {
        let own = Sketch::read(Path::new(name)).map_err(Usage)?;
        let input = input.unwrap_or(own.input);
        return Ok(Arch { name: own.name.clone(), input, width, own: Some(Box::new(own)) });
    }
    let family = family(name).ok_or_else(|| {
        let near = crate::spelling::nearest(name, NAMES.iter().copied())
            .map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
        Usage(format!(
            "there is no architecture '{name}'{near}; there are {}, or a .toml of your own",
            NAMES.join(", ")
        ))
    })?;
    Ok(Arch::new(name, input.unwrap_or(family.default_input), width))
}

/// The architecture of a weight file: the one asked for, that of a known file, or the one that it fits.
///
/// # Errors
/// As `arch`, or the file cannot be read.
pub fn arch_of(
    path: &Path,
    known: Option<&Known>,
    asked: Option<&str>,
    input: Option<usize>,
    width: f64,
) -> anyhow::Result<Option<Arch>> {
    if let Some(name) = asked {
        return arch(name, input, width).map(Some);
    }
    let found = match known {
        Some(known) => Some(Arch::new(known.arch, known.input, known.width)),
        None => recognised(&WeightFile::open(path).map_err(|error| Usage(format!("{error:#}")))?),
    };
    Ok(found.map(|arch| Arch { input: input.unwrap_or(arch.input), ..arch }))
}
