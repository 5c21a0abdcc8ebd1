//! A trained network as a file of weights or of ONNX: what was kept of the trial, or the trial run again, which gives the same bits.

use std::path::Path;

use anyhow::Context;

use super::predict::likeliest;
use super::source::Source;
use super::{Shelf, onnx, trial};
use crate::data::split::split;
use crate::exec::{AT_ONCE, Encoder, Network, Parts};
use crate::model::graph::{Framework, Graph};
use crate::model::trained::{FACT, Opened, Trained};
use crate::model::weights::Weights;
use crate::model::weights::export::{exported, named, write};
use crate::nn::loss::log_probabilities;
use crate::outcome::Outcome;
use crate::plan::stage::{Stage, Train, Work};

/// What was written.
pub struct Exported {
    pub origin: Origin,
    pub tensors: usize,
    pub numbers: usize,
    /// Whether what was added to dense layers is part of them in the file.
    pub merged: bool,
}

/// Where it comes from, to be compared with what the store holds.
pub enum Origin {
    /// The trial has run again.
    Again(Box<Outcome>),
    /// It was kept: what it answers to the test images, in the order of the split, and the part of them that is right.
    Kept { predicted: Vec<u16>, accuracy: f64 },
}

/// Whether a trial's network can be written so: to be asked before it is trained.
///
/// # Errors
/// It has the names of another framework only, or ONNX has no such network.
pub fn exportable(work: &Work, form: Form) -> anyhow::Result<()> {
    let Stage::Train(stage) = &work.stage else { anyhow::bail!("only trials can be exported") };
    let (graph, _) = stage.network().map_err(anyhow::Error::msg)?;
    let Form::Tensors(names) = form else { return onnx::possible(&graph) };
    named(&graph, names.unwrap_or(graph.framework)).map(drop)
}

/// What is written of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Its tensors, under the names of a framework, or of its own.
    Tensors(Option<Framework>),
    /// From pixels to probabilities, for runtimes of ONNX.
    Onnx,
}

/// Writes a trial's backbone and head; facts about it go into the file. What was kept of it is taken, otherwise it is run.
///
/// # Errors
/// The trial fails, the framework has no such network, or writing fails.
pub fn export(
    work: &Work,
    shelf: &mut Shelf,
    form: Form,
    out: &Path,
    facts: &[(String, String)],
) -> anyhow::Result<Exported> {
    let Stage::Train(stage) = &work.stage else { anyhow::bail!("only trials can be exported") };
    let (outcome, mut graph, mut weights) = trial::with_weights(stage, work, shelf)?;
    let mut trained = trained(stage, shelf)?;
    let origin = match outcome {
        Some(outcome) => Origin::Again(Box::new(outcome)),
        None => answered(stage, &trained, &graph, &weights, shelf)?,
    };
    // Names of a framework are asked for by those who load the file there, where nothing is added.
    let merges = form != Form::Tensors(None) && trained.lora.is_some();
    if merges {
        (trained, graph, weights) = trained.merged(&graph, weights)?;
        trained.frozen = stage.frozen_of_plain().map_err(anyhow::Error::msg)?;
    }
    let Form::Tensors(names) = form else {
        onnx::write(out, &trained, &graph, &weights, facts)?;
        let numbers = weights.0.values().map(|tensor| tensor.elem_count()).sum();
        return Ok(Exported { origin, tensors: weights.0.len(), numbers, merged: merges });
    };
    let tensors = exported(&graph, &weights, names.unwrap_or(graph.framework))?;
    let mut all: Vec<(String, String)> = facts.to_vec();
    let model = serde_json::to_string(&trained)?;
    all.extend([
        (FACT.to_owned(), model),
        ("arch".to_owned(), stage.backbone.arch.name.clone()),
        ("width".to_owned(), stage.backbone.arch.width.to_string()),
        ("input".to_owned(), stage.backbone.arch.input.to_string()),
        ("preprocess".to_owned(), stage.backbone.preprocess.to_string()),
        ("tap".to_owned(), stage.backbone.tap.clone()),
        ("format".to_owned(), names.unwrap_or(graph.framework).word().to_owned()),
    ]);
    write(out, &tensors, all.into_iter().collect())?;
    let numbers = tensors.iter().map(|tensor| tensor.values.len()).sum();
    Ok(Exported { origin, tensors: tensors.len(), numbers, merged: merges })
}

/// What a network answers to the trial's test images.
fn answered(
    stage: &Train,
    trained: &Trained,
    graph: &Graph,
    weights: &Weights,
    shelf: &mut Shelf,
) -> anyhow::Result<Origin> {
    let manifest = shelf.manifest(stage.data)?;
    let split = split(&manifest, stage.per_class, stage.seed, stage.replicate as u64).map_err(anyhow::Error::msg)?;
    let source = Source::Images { packed: shelf.packed(stage.data, trained.frame())?, preprocess: trained.preprocess };
    let mut network = Network::new(graph.clone(), weights, &shelf.device)?;
    (network.frozen, network.seam) = (trained.frozen, trained.seam);
    let encoder = Encoder::new(network);
    let (mut predicted, mut right) = (Vec::with_capacity(split.test.len()), 0);
    for samples in split.test.chunks(AT_ONCE) {
        let x = source.batch(samples, &shelf.device)?;
        let logits = encoder.features(&x, &[graph.last()], Parts::Alike)?.remove(0);
        for (sample, row) in samples.iter().zip(log_probabilities(&logits.flatten_from(1)?)?) {
            let answer = likeliest(&row);
            right += usize::from(manifest.samples[*sample as usize].class as usize == answer);
            predicted.push(answer as u16);
        }
    }
    Ok(Origin::Kept { accuracy: right as f64 / predicted.len().max(1) as f64, predicted })
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
        white: manifest.white,
        tap: backbone.tap.clone(),
        pool: stage.pool,
        head: stage.head.clone(),
        frozen: stage.frozen(last).map_err(anyhow::Error::msg)?,
        seam: stage.seam().map_err(anyhow::Error::msg)?,
        lora: stage.lora().map_err(anyhow::Error::msg)?,
        precision: stage.precision,
        classes: manifest.classes.clone(),
        seen: split.train.iter().chain(&split.val).map(|index| manifest.samples[*index as usize].content).collect(),
    })
}

/// Writes the network of a file that `export` wrote, with its facts, for runtimes of ONNX. Returns its tensors and their numbers.
///
/// # Errors
/// ONNX has no such network, or writing fails.
pub fn reformed(opened: Opened, out: &Path) -> anyhow::Result<[usize; 2]> {
    let Opened { model, graph, weights, facts } = opened;
    let (model, graph, weights) = model.merged(&graph, weights)?;
    let own = ["trial", "experiment"].iter().filter_map(|key| Some(((*key).to_owned(), facts.get(*key)?.clone())));
    onnx::write(out, &model, &graph, &weights, &own.collect::<Vec<_>>())?;
    Ok([weights.0.len(), weights.0.values().map(|tensor| tensor.elem_count()).sum()])
}
