//! `weights list` and `weights inspect FILE`: which weight files are known, and what a file holds.

use std::path::Path;

use super::export::{ONNX, form};
use super::materials::{self, weight_file};
use super::{Exit, Usage, print, table_style};
use crate::cli::{Common, Look, Names};
use crate::model::arch::Arch;
use crate::model::catalogue::{KNOWN, Known, identify};
use crate::model::trained::Opened;
use crate::model::weights::export;
use crate::model::weights::file::WeightFile;
use crate::model::weights::{Fitted, Weights};
use crate::report::table::table;
use crate::train::{self, Form};

pub fn list(common: &Common) -> anyhow::Result<Exit> {
    let folder = materials::folder(common);
    for known in KNOWN.iter() {
        let width = if known.width == 1.0 { String::new() } else { format!(" x {}", known.width) };
        let here = weight_file(&format!("{}{}", known.name, known.ending), &folder).is_some();
        print(&format!(
            "{}{}\n    {}{width}, {} pixels, inputs as {}; images: {}\n    {}\n    {}\n",
            known.name,
            if here { "  (here)" } else { "" },
            known.arch,
            known.input,
            known.preprocess,
            known.resize,
            known.lineage,
            known.source(),
        ))?;
    }
    print(&format!(
        "{} known files; looked for in '{}' (--weights names another folder). `tl-sweep weights get NAME` fetches those that \
         have an address. Any other file works with `arch` and `preprocess`.",
        KNOWN.len(),
        folder.display()
    ))?;
    Ok(Exit::Complete)
}

pub fn inspect(look: &Look, common: &Common) -> anyhow::Result<Exit> {
    let path = materials::weights(&look.file, common)?;
    let identity = identify(&path)?;
    let file = WeightFile::open(&path).map_err(usage)?;
    print(&format!("{}: {}, {} bytes", path.display(), file.format.name(), identity.bytes))?;
    print(&format!("sha256 {}\nmd5 {}", identity.sha256, identity.md5))?;
    match identity.known {
        Some(known) => print(&described(known))?,
        None => print("not in the catalogue: an experiment must say `arch` and `preprocess` under [backbone]")?,
    }
    let Some(arch) = arch_of(look, &path, identity.known)? else {
        let row =
            |stored: &crate::model::weights::file::Stored| vec![stored.name.clone(), format!("{:?}", stored.shape)];
        let body: Vec<Vec<String>> = file.stored.iter().map(row).collect();
        print(&table(table_style(), &["in the file", "shape"], &body))?;
        return Err(Usage(format!(
            "'{}' fits none of the known architectures; --arch names one to compare it with",
            look.file
        ))
        .into());
    };
    let (_, fitted) = Weights::whole(&path, &arch).map_err(usage)?;
    print(&tensors(&file, &fitted))?;
    print(&verdict(&file, &fitted, &arch))?;
    Ok(Exit::Complete)
}

/// Writes a file under the names of a framework.
pub fn convert(look: &Look, names: Option<Names>, out: &Path, common: &Common) -> anyhow::Result<Exit> {
    let path = materials::weights(&look.file, common)?;
    let names = match form(out, names)? {
        Form::Onnx => return for_onnx(&path, out),
        Form::Tensors(Some(names)) => names,
        Form::Tensors(None) => {
            return Err(Usage("say whose names the tensors are to have: --names keras or torch".to_owned()).into());
        }
    };
    let arch = arch_of(look, &path, identify(&path)?.known)?
        .ok_or_else(|| Usage(format!("'{}' fits none of the known architectures: say which with --arch", look.file)))?;
    let tensors = export::convert(&path, &arch, names, out).map_err(usage)?;
    print(&format!("{}: {tensors} tensors of {} under the names of {}", out.display(), arch.name, names.word()))?;
    Ok(Exit::Complete)
}

/// What `export` wrote, as a file that answers pixels.
fn for_onnx(path: &Path, out: &Path) -> anyhow::Result<Exit> {
    let [tensors, numbers] = train::reformed(Opened::read(path).map_err(usage)?, out).map_err(usage)?;
    print(&format!("{}: {tensors} tensors, {numbers} numbers", out.display()))?;
    print(ONNX)?;
    Ok(Exit::Complete)
}

fn arch_of(look: &Look, path: &Path, known: Option<&Known>) -> anyhow::Result<Option<Arch>> {
    materials::arch_of(path, known, look.arch.as_deref(), look.input, look.width)
}

/// What a file holds is what a person gave.
fn usage(error: anyhow::Error) -> Usage {
    Usage(format!("{error:#}"))
}

fn described(known: &Known) -> String {
    format!(
        "known as {}: {}\n{}\ninputs: {} pixels, prepared as {}; images: {}",
        known.name,
        known.lineage,
        known.source(),
        known.input,
        known.preprocess,
        known.resize
    )
}

fn tensors(file: &WeightFile, fitted: &Fitted) -> String {
    let row = |placed: &crate::model::weights::placing::Placed| {
        let stored = &file.stored[placed.stored];
        vec![
            stored.name.clone(),
            format!("{:?}", stored.shape),
            format!("{}.{}", fitted.graph.layers[placed.layer].name, placed.param),
            format!("{:?}", placed.shape),
            placed.said(),
        ]
    };
    let mut placed: Vec<_> = fitted.found.placed.iter().collect();
    placed.sort_by_key(|placed| placed.layer);
    let body: Vec<Vec<String>> = placed.into_iter().map(row).collect();
    table(table_style(), &["in the file", "shape", "in the network", "shape", "change"], &body)
}

fn verdict(file: &WeightFile, fitted: &Fitted, arch: &Arch) -> String {
    let (graph, found) = (&fitted.graph, &fitted.found);
    let width = if arch.width == 1.0 { String::new() } else { format!(" x {}", arch.width) };
    let mut lines = vec![format!(
        "fits {}{width}: {} of {} tensors in their place, {}; {} left out",
        arch.name,
        found.placed.len(),
        file.stored.len(),
        found.how,
        found.left_out.len()
    )];
    let counters = found.left_out.iter().filter(|(_, why)| why == "a counter").count();
    if counters > 0 {
        lines.push(format!("  left out: {counters} counters (num_batches_tracked)"));
    }
    lines.extend(
        found
            .left_out
            .iter()
            .filter(|(_, why)| why != "a counter")
            .map(|(name, why)| format!("  left out: {name}: {why}")),
    );
    if !found.zero.is_empty() {
        lines
            .push(format!("  not in the file: {} biases of queries and values, which are zero then", found.zero.len()));
    }
    let classes = graph.layers.last().map_or(0, |layer| layer.shape[0]);
    lines.push(match fitted.headless {
        true => "no classifier: a head is always new".to_owned(),
        false if classes == 1001 => {
            "1001 classes: the first is the background, so labels are shifted by one".to_owned()
        }
        false => format!("classifier of {classes} classes; a transfer replaces it by a new head"),
    });
    lines.join("\n")
}
