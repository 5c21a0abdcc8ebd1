//! The trial: its phases one after another, then validation and test, test exactly once.

use std::collections::HashSet;

use super::Shelf;
use super::evaluate::evaluate;
use super::fit::{Fit, Setting, fit};
use super::source::Source;
use crate::data::Manifest;
use crate::data::split::{Split, split};
use crate::exec::Network;
use crate::model::graph::{Graph, Op};
use crate::model::init;
use crate::model::weights::Weights;
use crate::outcome::Progress;
use crate::outcome::{Ending, Outcome, Point, TrialOutcome};
use crate::plan::cost;
use crate::plan::facts::Counts;
use crate::plan::stage::Train;
use crate::plan::stage::Work;
use crate::recipe::{KeepWeights, Phase};

pub fn run(stage: &Train, work: &Work, shelf: &mut Shelf, tell: &mut dyn FnMut(Progress)) -> anyhow::Result<Outcome> {
    trained(stage, work, shelf, tell).map(|(outcome, _)| outcome)
}

/// Runs a trial and returns the whole network's weights beside its outcome: what lies below a shared cut is as it was.
pub fn with_weights(stage: &Train, work: &Work, shelf: &mut Shelf) -> anyhow::Result<(Outcome, Graph, Weights)> {
    let (whole, _) = stage.network().map_err(anyhow::Error::msg)?;
    let (outcome, network) = trained(stage, work, shelf, &mut |_| ())?;
    let mut weights = shelf.weights(&stage.backbone, work)?.map_or_else(Weights::default, |weights| (*weights).clone());
    weights.0.extend(network.weights()?.0);
    let own: HashSet<String> = (0..whole.layers.len())
        .flat_map(|layer| whole.params(layer).into_iter().map(move |param| (layer, param.name)))
        .map(|(layer, param)| format!("{}.{param}", whole.layers[layer].name))
        .collect();
    weights.0.retain(|name, _| own.contains(name));
    Ok((outcome, whole, weights))
}

fn trained(
    stage: &Train,
    work: &Work,
    shelf: &mut Shelf,
    tell: &mut dyn FnMut(Progress),
) -> anyhow::Result<(Outcome, Network)> {
    let manifest = shelf.manifest(stage.data)?;
    let split = split(&manifest, stage.per_class, stage.seed, stage.replicate as u64).map_err(anyhow::Error::msg)?;
    let (mut network, source, start) = prepare(stage, work, shelf)?;
    let head = network.graph.layers.iter().position(|layer| layer.block == "head").unwrap_or(0);
    let (mut curve, mut steps, mut stopped_early, mut ending) = (Vec::new(), 0, false, Ending::Finished);
    let (mut trainable, mut frozen_count) = (0, usize::MAX);
    for (index, phase) in stage.phases.iter().enumerate() {
        enter(&mut network, stage, phase, start)?;
        let fixed = network.frozen_hash()?;
        let setting = Setting {
            source: &source,
            manifest: &manifest,
            split: &split,
            seed: stage.seed,
            replicate: stage.replicate as u64,
            phase: index as u64,
            head,
            early_stop: stage.early_stop,
            metric: stage.metric,
            keep_best: stage.keep_weights == KeepWeights::Best,
        };
        let Fit { ending: how, steps: done, curve: points, stopped_early: stopped } =
            fit(&mut network, phase, &setting, tell)?;
        anyhow::ensure!(network.frozen_hash()? == fixed, "frozen weights moved during training");
        curve.extend(points.into_iter().map(|point| Point { step: point.step + steps, ..point }));
        steps += done;
        stopped_early |= stopped;
        let counted = count(&network);
        trainable = counted.max(trainable);
        frozen_count = frozen_count.min(all_params(stage)?.saturating_sub(counted));
        if how == Ending::Diverged {
            ending = how;
            break;
        }
    }
    let mut trial = TrialOutcome {
        ending,
        steps,
        curve,
        val: None,
        test: None,
        val_predictions: Default::default(),
        test_predictions: Default::default(),
        at_chance: false,
        under_trained: false,
        stopped_early,
        trainable,
        frozen: frozen_count,
    };
    if ending == Ending::Finished {
        score(&mut trial, &network, &source, &split, &manifest)?;
    }
    let counts = Counts { train: split.train.len(), val: split.val.len(), test: split.test.len() };
    let cost = cost::trial(stage, counts).map_err(anyhow::Error::msg)?;
    let macs = if work.encode.is_some() { cost.shared } else { cost.alone };
    let numerics = shelf.numerics.to_owned();
    Ok((Outcome { seconds: 0.0, macs, numerics, trial: Some(trial), warnings: Vec::new() }, network))
}

/// The network above the shared cut, its inputs, and how many layers of the whole network lie at or below the cut.
fn prepare(stage: &Train, work: &Work, shelf: &mut Shelf) -> anyhow::Result<(Network, Source, usize)> {
    let (whole, backbone_layers) = stage.network().map_err(anyhow::Error::msg)?;
    let mut weights = match shelf.weights(&stage.backbone, work)? {
        Some(weights) => (*weights).clone(),
        None => Weights::default(),
    };
    let fresh_from = if weights.0.is_empty() { 0 } else { backbone_layers };
    weights.0.extend(init::fresh(&whole, fresh_from, stage.seed, stage.replicate as u64)?.0);
    match &work.encode {
        Some(encode) => {
            let cut = whole.find(&encode.cut).ok_or_else(|| anyhow::anyhow!("no layer '{}'", encode.cut))?;
            let shape = whole.layers[cut].shape;
            let features = shelf.features(encode, work)?;
            Ok((Network::new(whole.above(cut), &weights, &shelf.device)?, Source::Features { features, shape }, cut))
        }
        None => {
            let packed = shelf.packed(stage.data, stage.backbone.frame())?;
            let source = Source::Images { packed, preprocess: stage.backbone.preprocess };
            Ok((Network::new(whole, &weights, &shelf.device)?, source, 0))
        }
    }
}

/// Freezes and sets policies for a phase; `start` layers of the whole network lie below this one's input.
fn enter(network: &mut Network, stage: &Train, phase: &Phase, start: usize) -> anyhow::Result<()> {
    network.frozen = stage.frozen(phase).map_err(anyhow::Error::msg)?.saturating_sub(start);
    network.batch_norm = phase.batch_norm;
    for layer in &mut network.graph.layers {
        if layer.name == "head.dropout" {
            layer.op = Op::Dropout(phase.dropout);
        }
    }
    Ok(())
}

/// Numbers that train.
fn count(network: &Network) -> usize {
    network.trainable().iter().map(|(layer, which)| network.params[*layer][*which].elem_count()).sum()
}

fn all_params(stage: &Train) -> anyhow::Result<usize> {
    let (whole, _) = stage.network().map_err(anyhow::Error::msg)?;
    Ok((0..whole.layers.len()).map(|index| whole.param_count(index)).sum())
}

/// Final numbers on validation and, once, on test.
fn score(
    trial: &mut TrialOutcome,
    network: &Network,
    source: &Source,
    split: &Split,
    manifest: &Manifest,
) -> anyhow::Result<()> {
    let (predictions, val) = evaluate(network, source, &split.val, manifest)?;
    trial.val_predictions = predictions;
    trial.val = Some(val);
    let (predictions, test) = evaluate(network, source, &split.test, manifest)?;
    trial.test_predictions = predictions;
    if !(val.loss.is_finite() && test.loss.is_finite()) {
        trial.ending = Ending::Diverged;
        trial.val = None;
        return Ok(());
    }
    trial.test = Some(test);
    trial.at_chance = at_chance(test.accuracy, split, manifest);
    trial.under_trained = !trial.stopped_early && under_trained(&trial.curve, trial.steps);
    Ok(())
}

/// No better than always naming the largest class, within two standard errors of a proportion.
fn at_chance(accuracy: f64, split: &Split, manifest: &Manifest) -> bool {
    let mut counts = vec![0usize; manifest.classes.len()];
    split.test.iter().for_each(|sample| counts[manifest.samples[*sample as usize].class as usize] += 1);
    let images = split.test.len().max(1) as f64;
    let majority = counts.into_iter().max().unwrap_or(0) as f64 / images;
    accuracy <= majority + 2.0 * (majority * (1.0 - majority) / images).sqrt()
}

/// The validation loss fell by more than 1% between nine tenths of the steps and the end.
fn under_trained(curve: &[Point], steps: usize) -> bool {
    let before = curve.iter().rfind(|point| point.step * 10 <= steps * 9);
    match (before, curve.last()) {
        (Some(before), Some(last)) => last.val.loss < 0.99 * before.val.loss,
        _ => false,
    }
}
