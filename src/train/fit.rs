//! The epoch loop: one phase of training on a network.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::evaluate::evaluate;
use super::source::{Change, Source};
use crate::data::Manifest;
use crate::data::batch::order;
use crate::data::split::Split;
use crate::exec::{Mode, Network, Tape};
use crate::nn::buffer;
use crate::nn::loss::{Targets, cross_entropy};
use crate::nn::optim::{Rule, State, Step, clip};
use crate::outcome::Progress;
use crate::outcome::{Ending, Point};
use crate::plan::cost::steps;
use crate::recipe::{Budget, ClassWeights, Decay, Metric, Optimizer, Phase, Schedule};
use crate::seed::{Stream, stream};

/// What a phase trains on, and which random streams it draws from.
pub struct Setting<'a> {
    pub source: &'a Source,
    pub manifest: &'a Manifest,
    pub split: &'a Split,
    pub seed: u64,
    pub replicate: u64,
    /// Number of the phase: each has an order and dropout of its own.
    pub phase: u64,
    /// Layers from this index on are the head's.
    pub head: usize,
    pub early_stop: Option<usize>,
    pub metric: Metric,
    /// Keep the weights of the best evaluation and put them back at the end.
    pub keep_best: bool,
}

/// How a phase went.
pub struct Fit {
    pub ending: Ending,
    pub steps: usize,
    pub curve: Vec<Point>,
    pub stopped_early: bool,
}

/// Trains `network` for one phase. Frozen layers and the batch-norm policy are the network's own.
pub fn fit(
    network: &mut Network,
    phase: &Phase,
    setting: &Setting,
    tell: &mut dyn FnMut(Progress),
) -> anyhow::Result<Fit> {
    let train = &setting.split.train;
    let per_epoch = train.len().div_ceil(phase.batch);
    let (total, evaluations) = steps(phase, train.len());
    let weights = (phase.class_weights == ClassWeights::Balanced).then(|| balanced(train, setting.manifest));
    let mut states = BTreeMap::new();
    network.own()?;
    let mut fit = Fit { ending: Ending::Finished, steps: 0, curve: Vec::new(), stopped_early: false };
    let (mut losses, mut epoch_order) = (Vec::new(), Vec::new());
    let mut best: Option<(f64, Vec<Vec<candle_core::Tensor>>)> = None;
    for step in 0..total {
        let (epoch, within) = (step / per_epoch, step % per_epoch);
        let stream_epoch = setting.phase << 32 | epoch as u64;
        if within == 0 {
            epoch_order = order(train, setting.seed, setting.replicate, stream_epoch);
        }
        let samples = &epoch_order[within * phase.batch..((within + 1) * phase.batch).min(train.len())];
        let change =
            Change { list: &phase.augment, seed: setting.seed, replicate: setting.replicate, epoch: stream_epoch };
        let x = setting.source.changed(samples, &change, &network.device)?;
        let labels: Vec<u32> = samples.iter().map(|sample| setting.manifest.samples[*sample as usize].class).collect();
        let factor = factor(phase, step, total);
        let mut dropout = stream(setting.seed, Stream::Dropout, &[setting.replicate, setting.phase, step as u64]);
        let mut tape = network.forward(&x, Mode::Train(&mut dropout))?;
        let targets = Targets { smoothing: phase.label_smoothing, class_weights: weights.as_deref() };
        let loss = cross_entropy(&tape.result()?, &labels, targets)?;
        fit.steps = step + 1;
        if !loss.mean.is_finite() {
            fit.ending = Ending::Diverged;
            return Ok(fit);
        }
        learn(network, &mut tape, loss.gradient, &mut states, &Rates { phase, factor, head: setting.head })?;
        network.follow(tape);
        losses.push(loss.mean);
        if evaluates(phase, step + 1, total, evaluations, per_epoch) {
            let (_, val) = evaluate(network, setting.source, &setting.split.val, setting.manifest)?;
            let train_loss = losses.iter().sum::<f64>() / losses.len() as f64;
            losses.clear();
            if !val.loss.is_finite() {
                fit.ending = Ending::Diverged;
                return Ok(fit);
            }
            fit.curve.push(Point {
                step: step + 1,
                epoch: (step + 1) as f64 / per_epoch as f64,
                lr: phase.lr * factor,
                train_loss,
                val,
            });
            if setting.keep_best && best.as_ref().is_none_or(|(score, _)| val.of(setting.metric) > *score) {
                best = Some((val.of(setting.metric), network.snapshot()?));
            }
            tell(Progress { step: step + 1, steps: total, loss: train_loss, accuracy: Some(val.accuracy) });
            if patience_is_over(&fit.curve, setting.early_stop) {
                fit.stopped_early = true;
                break;
            }
        } else if step % 16 == 0 {
            tell(Progress { step: step + 1, steps: total, loss: loss.mean, accuracy: None });
        }
    }
    if let Some((_, params)) = best {
        network.params = params;
    }
    if !finite(network)? {
        fit.ending = Ending::Diverged;
    }
    Ok(fit)
}

/// images / (classes x images of the class); a class without training images counts nothing.
fn balanced(train: &[u32], manifest: &Manifest) -> Vec<f64> {
    let mut counts = vec![0usize; manifest.classes.len()];
    train.iter().for_each(|sample| counts[manifest.samples[*sample as usize].class as usize] += 1);
    let whole = train.len() as f64 / counts.len() as f64;
    counts.into_iter().map(|count| if count > 0 { whole / count as f64 } else { 0.0 }).collect()
}

/// Whether validation is read after `done` steps: at the ends of epochs, or at even parts of a budget in steps.
fn evaluates(phase: &Phase, done: usize, total: usize, evaluations: usize, per_epoch: usize) -> bool {
    match phase.budget {
        Budget::Epochs(_) => done.is_multiple_of(per_epoch),
        Budget::Steps(_) => done * evaluations / total > (done - 1) * evaluations / total,
    }
}

/// What the base rates are multiplied by at a step of the sealed budget.
fn factor(phase: &Phase, step: usize, total: usize) -> f64 {
    let warm = (phase.warmup * total as f64).round() as usize;
    if step < warm {
        return (step + 1) as f64 / warm as f64;
    }
    let part = (step - warm) as f64 / (total - warm).max(1) as f64;
    match &phase.schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * part).cos()),
        Schedule::Step { at, factor } => {
            let done = step as f64 / total as f64;
            factor.powi(at.iter().filter(|point| done >= **point).count() as i32)
        }
    }
}

/// What decides how far a step goes.
struct Rates<'a> {
    phase: &'a Phase,
    /// Of the schedule, at this step.
    factor: f64,
    /// Layers from this index on are the head's.
    head: usize,
}

impl Rates<'_> {
    fn of(&self, layer: usize) -> Step {
        let phase = self.phase;
        let base = if layer >= self.head { phase.lr } else { phase.backbone_lr };
        let (coupled_decay, decoupled_decay) = match phase.decay {
            Decay::Coupled => (phase.weight_decay, 0.0),
            Decay::Decoupled => (0.0, phase.weight_decay),
            Decay::OverLr => (if base > 0.0 { phase.weight_decay / base } else { 0.0 }, 0.0),
        };
        Step { lr: base * self.factor, coupled_decay, decoupled_decay }
    }
}

/// The backward pass and one optimiser step on every parameter that trains. A layer steps as soon as its gradients are
/// there, so that they never all take memory at once.
fn learn(
    network: &mut Network,
    tape: &mut Tape,
    dy: Tensor,
    states: &mut BTreeMap<(usize, usize), State>,
    rates: &Rates,
) -> candle_core::Result<()> {
    let rule = match rates.phase.optimizer {
        Optimizer::Sgd { momentum, nesterov } => Rule::Sgd { momentum, nesterov },
        Optimizer::Adamw => Rule::Adam,
    };
    let mut moved = Vec::new();
    let mut step = |layer: usize, gradients: Vec<Tensor>| {
        for (which, gradient) in gradients.into_iter().enumerate() {
            let state = states.entry((layer, which)).or_default();
            let stepped = state.step(rule, rates.of(layer), &network.params[layer][which], &gradient)?;
            moved.push((layer, which, stepped));
            buffer::recycle(gradient)?;
        }
        Ok(())
    };
    match rates.phase.clip {
        None => network.backward_into(tape, dy, &mut step)?,
        Some(limit) => {
            // The norm is that of all gradients: they are all needed before the first step.
            let mut gradients = network.backward(tape, dy)?;
            clip(gradients.0.iter_mut().flatten(), limit)?;
            let layers = gradients.0.iter_mut().map(std::mem::take).enumerate();
            layers.filter(|(_, own)| !own.is_empty()).try_for_each(|(layer, own)| step(layer, own))?;
        }
    }
    for (layer, which, stepped) in moved {
        network.params[layer][which] = stepped;
    }
    Ok(())
}

/// Whether the last `patience` evaluations brought no lower validation loss than those before.
fn patience_is_over(curve: &[Point], patience: Option<usize>) -> bool {
    let Some(patience) = patience.filter(|patience| curve.len() > *patience) else { return false };
    let (before, last) = curve.split_at(curve.len() - patience);
    let least = |points: &[Point]| points.iter().map(|point| point.val.loss).fold(f64::INFINITY, f64::min);
    least(last) >= least(before)
}

fn finite(network: &Network) -> candle_core::Result<bool> {
    for tensor in network.params.iter().flatten() {
        if !tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_finite()) {
            return Ok(false);
        }
    }
    Ok(true)
}
