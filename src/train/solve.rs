//! Linear heads that are solved instead of trained, along a path of strengths: the strength is chosen on validation, and test is
//! read once, with the head that was chosen. And those that stay as they start.

use std::rc::Rc;

use anyhow::Context;

use super::coded::{Codes, Set, cooled};
use super::kept::{self, keep};
use super::path::{How, Path};
use super::{Group, Shelf};
use crate::data::Manifest;
use crate::data::split::{Split, split};
use crate::model::init;
use crate::nn::solve::Head;
use crate::outcome::{Ending, Outcome, Predictions, Progress, TrialOutcome};
use crate::phase::Phase;
use crate::plan::stage::{Train, Work};
use crate::recipe::{Calibrate, Optimizer};

/// Runs the trial that has place `index` in its group.
pub fn run(index: usize, stage: &Train, group: &mut Group, shelf: &mut Shelf) -> anyhow::Result<()> {
    let work = group.works[index];
    let (outcome, head) = solved(stage, work, shelf, &mut |progress| group.tell(progress))?;
    keep(work, || Ok(kept::head(head.weight, head.bias)))?;
    group.done(index, outcome, shelf);
    Ok(())
}

/// The outcome of a trial, and the head that test was read with.
///
/// # Errors
/// Pixels, weights or features cannot be read.
pub fn solved(
    stage: &Train,
    work: &Work,
    shelf: &mut Shelf,
    tell: &mut dyn FnMut(Progress),
) -> anyhow::Result<(Outcome, Head)> {
    let start = std::time::Instant::now();
    let manifest = shelf.manifest(stage.data)?;
    let split = split(&manifest, stage.per_class, stage.seed, stage.replicate as u64).map_err(anyhow::Error::msg)?;
    let (whole, _) = stage.network().map_err(anyhow::Error::msg)?;
    let weights = match shelf.weights(&stage.backbone, work)? {
        Some(weights) => weights,
        None => Rc::new(init::fresh(&whole, 0, stage.seed, stage.replicate as u64)?),
    };
    let mut codes = Codes::new(stage, work, &weights, shelf)?;
    let sets = Sets::read(&mut codes, &split, &manifest)?;
    // The only one: a head that is solved has no phases.
    let phase: &Phase = &stage.phases[0];
    let how = How { optimizer: phase.optimizer, strengths: &phase.lambda, phase, metric: stage.metric };
    let mut path = Path::new(how, &sets.train, &sets.val);
    match phase.optimizer {
        Optimizer::None => {
            let [weight, bias] =
                shelf.named_head(stage, work)?.context("a head without a start that is not trained")?;
            path.given(Head { weight: weight.to_device(&shelf.device)?, bias: bias.to_device(&shelf.device)? })?;
        }
        _ => path.run(tell)?,
    }
    shelf.warn(codes.warning());
    let (curve, passes) = (std::mem::take(&mut path.curve), path.passes);
    let chosen = path.chosen()?;
    let temperature = match stage.calibrate {
        Calibrate::Temperature => {
            path.products += sets.val.labels.len();
            sets.val.temperature(&chosen.head)?
        }
        Calibrate::None => None,
    };
    let again = stage.refit && chosen.lambda.is_some();
    let head = cooled(if again { path.refitted(&chosen)? } else { chosen.head.clone() }, temperature)?;
    path.products += sets.scored_last();
    let (val_predictions, val) = sets.val.scores(&cooled(chosen.head, temperature)?)?;
    let (test_predictions, test) = sets.test.scores(&head)?;
    let shifted = sets.shifted.as_ref().map(|set| set.scores(&head)).transpose()?;
    let all: usize = whole.total_params();
    let learned = if chosen.lambda.is_some() { 1 } else { 0 };
    let trainable = learned * (head.weight.elem_count() + head.bias.elem_count());
    let finite = val.loss.is_finite() && test.loss.is_finite();
    let trial = TrialOutcome {
        ending: if finite { Ending::Finished } else { Ending::Diverged },
        steps: passes,
        curve,
        val: finite.then_some(val),
        test: finite.then_some(test),
        at_chance: finite && super::record::at_chance(test.accuracy, &split, &manifest),
        val_predictions,
        test_predictions,
        shifted_predictions: shifted.map_or_else(Predictions::default, |(answers, _)| answers),
        // What did not converge has not been solved.
        under_trained: !chosen.converged,
        stopped_early: false,
        trainable,
        frozen: all.saturating_sub(trainable),
        lambda: chosen.lambda,
        temperature,
    };
    let outcome = Outcome {
        seconds: start.elapsed().as_secs_f64(),
        macs: codes.macs + path.products as f64 * head.weight.elem_count() as f64,
        numerics: shelf.places.numerics.clone(),
        trial: Some(trial),
        warnings: Vec::new(),
        group: 1,
        abreast: None,
        part: 1.0,
    };
    Ok((outcome, head))
}

struct Sets {
    train: Set,
    val: Set,
    test: Set,
    /// Of other datasets.
    shifted: Option<Set>,
}

impl Sets {
    fn read(codes: &mut Codes, split: &Split, manifest: &Manifest) -> anyhow::Result<Self> {
        let mut set = |samples: &[u32]| codes.set(samples, manifest);
        let shifted = if split.shifted.is_empty() { None } else { Some(set(&split.shifted)?) };
        Ok(Self { train: set(&split.train)?, val: set(&split.val)?, test: set(&split.test)?, shifted })
    }

    /// Images that the last head answers.
    fn scored_last(&self) -> usize {
        [Some(&self.val), Some(&self.test), self.shifted.as_ref()]
            .into_iter()
            .flatten()
            .map(|set| set.labels.len())
            .sum()
    }
}
