//! A trained network as a weight file: the trial is run again, which gives the same bits, and its weights are written.

use std::path::Path;

use anyhow::Context;

use super::{Shelf, trial};
use crate::data::split::split;
use crate::model::graph::Framework;
use crate::model::trained::{FACT, Trained};
use crate::model::weights::export::{exported, named, write};
use crate::outcome::Outcome;
use crate::plan::stage::{Stage, Train, Work};

/// What was written.
pub struct Exported {
    pub outcome: Outcome,
    pub tensors: usize,
    pub numbers: usize,
}

/// Whether a trial's network can have the names of a framework: to be asked before it is trained.
///
/// # Errors
/// It has the names of another framework only.
pub fn exportable(work: &Work, names: Option<Framework>) -> anyhow::Result<()> {
    let Stage::Train(stage) = &work.stage else { anyhow::bail!("only trials can be exported") };
    let (graph, _) = stage.network().map_err(anyhow::Error::msg)?;
    named(&graph, names.unwrap_or(graph.framework)).map(drop)
}

/// Runs a trial and writes its backbone and head under the names of a framework; facts about it go into the file.
///
/// # Errors
/// The trial fails, the framework has no such network, or writing fails.
pub fn export(
    work: &Work,
    shelf: &mut Shelf,
    names: Option<Framework>,
    out: &Path,
    facts: &[(String, String)],
) -> anyhow::Result<Exported> {
    let Stage::Train(stage) = &work.stage else { anyhow::bail!("only trials can be exported") };
    let (outcome, graph, weights) = trial::with_weights(stage, work, shelf)?;
    let tensors = exported(&graph, &weights, names.unwrap_or(graph.framework))?;
    let mut all: Vec<(String, String)> = facts.to_vec();
    let model = serde_json::to_string(&trained(stage, shelf)?)?;
    all.extend([
        (FACT.to_owned(), model),
        ("arch".to_owned(), stage.backbone.arch.name.clone()),
        ("width".to_owned(), stage.backbone.arch.width.to_string()),
        ("input".to_owned(), stage.backbone.arch.input.to_string()),
        ("preprocess".to_owned(), stage.backbone.preprocess.word().to_owned()),
        ("tap".to_owned(), stage.backbone.tap.clone()),
        ("format".to_owned(), names.unwrap_or(graph.framework).word().to_owned()),
    ]);
    write(out, &tensors, all.into_iter().collect())?;
    let numbers = tensors.iter().map(|tensor| tensor.values.len()).sum();
    Ok(Exported { outcome, tensors: tensors.len(), numbers })
}

/// What answers to images depend on beside the tensors.
fn trained(stage: &Train, shelf: &mut Shelf) -> anyhow::Result<Trained> {
    let manifest = shelf.manifest(stage.data)?;
    let split = split(&manifest, stage.per_class, stage.seed, stage.replicate as u64).map_err(anyhow::Error::msg)?;
    let last = stage.phases.last().context("a trial without phases")?;
    let backbone = &stage.backbone;
    Ok(Trained {
        arch: backbone.arch.clone(),
        preprocess: backbone.preprocess,
        resize: backbone.resize,
        tap: backbone.tap.clone(),
        pool: stage.pool,
        head: stage.head.clone(),
        frozen: stage.frozen(last).map_err(anyhow::Error::msg)?,
        precision: stage.precision,
        classes: manifest.classes.clone(),
        seen: split.train.iter().chain(&split.val).map(|index| manifest.samples[*index as usize].content).collect(),
    })
}
