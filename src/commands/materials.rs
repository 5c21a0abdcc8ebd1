//! The materials that verbs name: weight files and architectures, looked up as experiments look them up.

use std::path::{Path, PathBuf};

use super::Usage;
use super::devices::Devices;
use crate::cli::{Common, Seen};
use crate::device::{PRECISIONS, Precision};
use crate::frame::Resize;
use crate::model::arch::{Arch, NAMES, family, prepares_images};
use crate::model::catalogue::{self, Known, identify};
use crate::model::sketch::Sketch;
use crate::model::vit::twin;
use crate::model::weights::file::WeightFile;
use crate::model::weights::{fit, recognised};
use crate::preprocess::{PREPROCESSES, Preprocess};
use crate::recipe::word;
use crate::value::Value;

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
            let get = known.url().map_or_else(String::new, |_| {
                format!("`tl-sweep weights get {} --weights '{}'`, or ", known.name, folder.display())
            });
            format!("{get}{}, or name the folder with --weights or TL_SWEEP_WEIGHTS", known.how_to_get(folder))
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
    if let Some(arch) = found.as_ref().filter(|_| known.is_none())
        && let Some(twin) = twin(&arch.name)
    {
        let name = &arch.name;
        return Err(Usage(format!(
            "'{}' fits {name} (OpenAI's weights) and {twin} (LAION's, DataComp's and others), which differ in an activation that no \
             tensor tells: say which with --arch, or as FILE=ARCH to `rank`",
            path.display()
        ))
        .into());
    }
    Ok(found.map(|arch| Arch { input: input.unwrap_or(arch.input), ..arch }))
}

/// A network, and how images come before it.
pub struct Prepared {
    pub arch: Arch,
    pub weights: PathBuf,
    pub preprocess: Preprocess,
    pub resize: Resize,
    pub precision: Precision,
}

/// Reads what a verb was told of weights, and adds what comes with known ones.
///
/// # Errors
/// The weights are not here or fit no network, their preprocessing is not known, or a word is none that is accepted.
pub fn prepared(asked: &Seen, devices: &Devices, common: &Common) -> anyhow::Result<Prepared> {
    let rounding = Value::Text(asked.precision.clone());
    let precision = word(&rounding, PRECISIONS).map_err(|error| Usage(format!("--precision: {error}")))?;
    devices.allow(&[rounding])?;
    let weights = weights(&asked.from, common)?;
    let known = identify(&weights)?.known;
    let arch = arch_of(&weights, known, asked.arch.as_deref(), asked.input, asked.width)?.ok_or_else(|| {
        Usage(format!("'{}' fits none of the known architectures: say which with --arch", asked.from))
    })?;
    let fits = WeightFile::open(&weights).and_then(|file| fit(&file, &arch, "features"));
    fits.map_err(|error| Usage(format!("{error:#}")))?;
    let preprocess = preprocess(asked, &arch, known)?;
    let resize = match (&asked.resize, known) {
        (Some(text), _) => Resize::parse(text).map_err(Usage)?,
        (None, known) => known.map_or(Resize::WHOLE, |known| known.resize),
    };
    Ok(Prepared { arch, weights, preprocess, resize, precision })
}

/// Comes with a known file; for another it must be said.
fn preprocess(asked: &Seen, arch: &Arch, known: Option<&Known>) -> anyhow::Result<Preprocess> {
    match (&asked.preprocess, known) {
        (Some(text), _) if prepares_images(&arch.name) && *text != Preprocess::None.to_string() => Err(Usage(format!(
            "--preprocess: {} prepares images itself, in its first layers: with '{text}' they would be prepared twice",
            arch.name
        ))
        .into()),
        (Some(text), _) => Ok(Preprocess::parse(text).map_err(|error| Usage(format!("--preprocess: {error}")))?),
        (None, Some(known)) => Ok(known.preprocess),
        (None, None) if prepares_images(&arch.name) => Ok(Preprocess::None),
        (None, None) => {
            let usual = family(&arch.name).map_or_else(String::new, |family| {
                format!("; {} is usually prepared as '{}'", arch.name, family.preprocess)
            });
            Err(Usage(format!(
                "the catalogue does not know '{}': say with --preprocess how its inputs were prepared ({PREPROCESSES}){usual}",
                asked.from
            ))
            .into())
        }
    }
}
