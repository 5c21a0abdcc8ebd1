//! `weights list` and `weights inspect FILE`: which weight files are known, and what a file holds.

use std::path::Path;

use serde_json::{Value, json};

use super::export::{ONNX, form};
use super::materials::{self, weight_file};
use super::{Exit, Usage, print, print_json, table_style};
use crate::cli::{Answer, Common, Look, Names};
use crate::model::arch::Arch;
use crate::model::catalogue::{Identity, KNOWN, Known, identify};
use crate::model::graph::Graph;
use crate::model::trained::Opened;
use crate::model::weights::export;
use crate::model::weights::file::WeightFile;
use crate::model::weights::placing::Placed;
use crate::model::weights::{Fitted, Weights};
use crate::report::table::table;
use crate::train::{self, Form};

pub fn list(format: Answer, common: &Common) -> anyhow::Result<Exit> {
    let folder = materials::folder(common);
    let here = |known: &Known| weight_file(&format!("{}{}", known.name, known.ending), &folder);
    if format == Answer::Json {
        let one = |known: &Known| {
            let mut told = json(known);
            told["here"] = here(known).map(|path| path.display().to_string()).into();
            told
        };
        let all: Vec<Value> = KNOWN.iter().map(one).collect();
        print_json(&json!({"version": 1, "folder": folder.display().to_string(), "weights": all}))?;
        return Ok(Exit::Complete);
    }
    for known in KNOWN.iter() {
        let width = if known.width == 1.0 { String::new() } else { format!(" x {}", known.width) };
        print(&format!(
            "{}{}\n    {}{width}, {} pixels, inputs as {}; images: {}\n    {}\n    {}\n",
            known.name,
            if here(known).is_some() { "  (here)" } else { "" },
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

pub fn inspect(look: &Look, format: Answer, common: &Common) -> anyhow::Result<Exit> {
    let path = materials::weights(&look.file, common)?;
    let identity = identify(&path)?;
    let file = WeightFile::open(&path).map_err(usage)?;
    if format == Answer::Json {
        return inspected(look, &path, &identity, &file);
    }
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

/// The same as `inspect` prints, for machines.
fn inspected(look: &Look, path: &Path, identity: &Identity, file: &WeightFile) -> anyhow::Result<Exit> {
    let arch = arch_of(look, path, identity.known)?;
    let fitted = arch.as_ref().map(|arch| Weights::whole(path, arch)).transpose().map_err(usage)?;
    let fitted = fitted.map(|(_, fitted)| fitted);
    let stored: Vec<Value> =
        file.stored.iter().map(|stored| json!({"name": stored.name, "shape": stored.shape})).collect();
    let placed = |placed: &Placed, graph: &Graph| {
        json!({
            "name": file.stored[placed.stored].name,
            "layer": graph.layers[placed.layer].name,
            "param": placed.param,
            "shape": placed.shape,
            "change": placed.said(),
        })
    };
    let fit = arch.as_ref().zip(fitted.as_ref()).map(|(arch, Fitted { graph, found, headless })| {
        let left_out = |(name, why): &(String, String)| json!({"name": name, "why": why});
        json!({
            "arch": arch.name,
            "width": arch.width,
            "placed": found.placed.iter().map(|one| placed(one, graph)).collect::<Vec<_>>(),
            "left_out": found.left_out.iter().map(left_out).collect::<Vec<_>>(),
            "classes": if *headless { None } else { graph.layers.last().map(|layer| layer.shape[0]) },
        })
    });
    print_json(&json!({
        "version": 1,
        "file": path.display().to_string(),
        "format": file.format.name(),
        "bytes": identity.bytes,
        "sha256": identity.sha256,
        "md5": identity.md5,
        "known": identity.known.map(json),
        "tensors": stored,
        "fits": fit,
    }))?;
    Ok(if fit.is_some() { Exit::Complete } else { Exit::BadExperiment })
}

/// A known file.
fn json(known: &Known) -> Value {
    json!({
        "name": known.name,
        "arch": known.arch,
        "width": known.width,
        "input": known.input,
        "preprocess": known.preprocess.to_string(),
        "resize": known.resize.to_string(),
        "lineage": known.lineage,
        "source": known.source(),
        "url": known.url(),
    })
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
    let row = |placed: &Placed| {
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
