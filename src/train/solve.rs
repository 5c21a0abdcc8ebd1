//! Linear heads that are solved instead of trained: logistic regression along a path of strengths, ridge regression, and
//! linear discriminant analysis.
//! The strength is chosen on validation; test is read once, with the head that was chosen. And those that stay as they start.

use anyhow::Context;
use candle_core::Tensor;

use super::course::targets;
use super::evaluate::{self, BATCH};
use super::kept::{self, keep};
use super::source::Source;
use super::{Group, Shelf};
use crate::data::Manifest;
use crate::data::split::{Split, split};
use crate::exec::{Encoder, Network, Parts};
use crate::model::freezing::CODES;
use crate::model::init;
use crate::model::weights::Weights;
use crate::nn::activation::Activation;
use crate::nn::discriminant::Discriminant;
use crate::nn::linear;
use crate::nn::loss::answers;
use crate::nn::solve::{Head, Logistic, Ridge};
use crate::nn::temperature::temperature;
use crate::outcome::{Ending, Outcome, Point, Predictions, Progress, Scores, TrialOutcome};
use crate::phase::Phase;
use crate::plan::stage::{Encoded, Train, Work};
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
    let mut codes = Codes::new(stage, work, shelf)?;
    let sets = Sets::read(&mut codes, &split, &manifest)?;
    let mut path =
        Path { stage, sets: &sets, balanced: Vec::new(), curve: Vec::new(), passes: 0, products: 0, best: None };
    path.balanced = super::course::balanced(sets.train.labels.iter().copied(), manifest.classes.len());
    match phase(stage).optimizer {
        Optimizer::None => {
            let [weight, bias] =
                shelf.named_head(stage, work)?.context("a head without a start that is not trained")?;
            path.given(Head { weight: weight.to_device(&shelf.device)?, bias: bias.to_device(&shelf.device)? })?;
        }
        _ => path.run(tell)?,
    }
    shelf.warn(codes.encoder.as_ref().and_then(Encoder::warning));
    let (curve, passes) = (std::mem::take(&mut path.curve), path.passes);
    let chosen = path.best.take().context("a path without strengths")?;
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
    let (whole, _) = stage.network().map_err(anyhow::Error::msg)?;
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

/// Where the codes of images come from: an encoding, or the frozen network itself.
struct Codes {
    source: Source,
    encoder: Option<Encoder>,
    device: candle_core::Device,
    macs: f64,
}

impl Codes {
    fn new(stage: &Train, work: &Work, shelf: &mut Shelf) -> anyhow::Result<Self> {
        let (whole, _) = stage.network().map_err(anyhow::Error::msg)?;
        let device = shelf.device.clone();
        if let Some(encode) = work.encode.as_ref().filter(|encode| encode.images == Encoded::All) {
            let cut = whole.find(&encode.cut).with_context(|| format!("no layer '{}'", encode.cut))?;
            let features = shelf.features(encode, work)?;
            let source = Source::Features { features, shape: whole.layers[cut].shape, views: None };
            let above = whole.above(cut);
            let flat = above.find(CODES).map(|flat| above.truncate(flat));
            let network = flat.map(|graph| Network::new(graph, &Weights::default(), &device)).transpose()?;
            return Ok(Self { source, encoder: network.map(Encoder::new), device, macs: 0.0 });
        }
        let mut weights = shelf.weights(&stage.backbone, work)?.map_or_else(Weights::default, |own| (*own).clone());
        if weights.0.is_empty() {
            weights = init::fresh(&whole, 0, stage.seed, stage.replicate as u64)?;
        }
        let flat = whole.find(CODES).with_context(|| format!("no layer '{CODES}'"))?;
        let mut network = Network::new(whole.truncate(flat), &weights, &device)?;
        network.frozen = network.graph.layers.len();
        let packed = shelf.packed(stage.data, stage.backbone.frame())?;
        let source = Source::Images { packed, preprocess: stage.backbone.preprocess };
        Ok(Self { source, encoder: Some(Encoder::new(network)), device, macs: 0.0 })
    }

    /// The codes of samples: [n, numbers].
    fn of(&mut self, samples: &[u32]) -> anyhow::Result<Tensor> {
        let mut parts = Vec::new();
        for samples in samples.chunks(BATCH) {
            let x = self.source.batch(samples, &self.device)?;
            let codes = match &self.encoder {
                Some(encoder) => {
                    let graph = &encoder.network.graph;
                    self.macs += graph.total_macs() as f64 * samples.len() as f64;
                    encoder.features(&x, &[graph.last()], Parts::Alike)?.remove(0)
                }
                None => x,
            };
            parts.push(codes.flatten_from(1)?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }
}

/// Codes and classes of one part of the data.
struct Set {
    samples: Vec<u32>,
    x: Tensor,
    labels: Vec<u32>,
    classes: usize,
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
        let mut set = |samples: &[u32]| {
            let labels = samples.iter().map(|sample| manifest.samples[*sample as usize].class).collect();
            let (samples, x) = (samples.to_vec(), codes.of(samples)?);
            anyhow::Ok(Set { samples, x, labels, classes: manifest.classes.len() })
        };
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

impl Set {
    /// What a head gives; the answers of a regression count as logits.
    fn logits(&self, head: &Head) -> candle_core::Result<Tensor> {
        linear::forward(&self.x, &head.weight, &head.bias, Activation::Linear)
    }

    /// What a head's logits are to be divided by; nothing where they are no numbers, and diverge with their scores.
    fn temperature(&self, head: &Head) -> anyhow::Result<Option<f64>> {
        let logits = self.logits(head)?.flatten_all()?.to_vec1::<f32>()?;
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Ok(None);
        }
        Ok(Some(temperature(&logits, &self.labels, self.classes)?))
    }

    /// Answers and scores of a head.
    fn scores(&self, head: &Head) -> anyhow::Result<(Predictions, Scores)> {
        let logits = self.logits(head)?;
        let found = answers(&logits, &self.labels, 1)?;
        Ok(evaluate::close(vec![found], 1, &self.samples, &self.labels, self.classes)?.remove(0))
    }

    fn with(&self, other: &Self) -> anyhow::Result<Self> {
        let samples = [self.samples.as_slice(), &other.samples].concat();
        let labels = [self.labels.as_slice(), &other.labels].concat();
        Ok(Self { samples, x: Tensor::cat(&[&self.x, &other.x], 0)?, labels, classes: self.classes })
    }
}

/// A head with its logits divided by a temperature.
fn cooled(head: Head, temperature: Option<f64>) -> candle_core::Result<Head> {
    let Some(temperature) = temperature else { return Ok(head) };
    let [weight, bias] = [&head.weight, &head.bias].map(|param| param.affine(1.0 / temperature, 0.0));
    Ok(Head { weight: weight?, bias: bias? })
}

/// The only one: a head that is solved has no phases.
fn phase(stage: &Train) -> &Phase {
    &stage.phases[0]
}

/// What has a formula for the head of each strength.
enum Closed {
    Ridge(Ridge),
    Lda(Discriminant),
}

impl Closed {
    /// None of what is solved by iteration.
    fn new(optimizer: Optimizer, set: &Set, class_weights: Option<&[f64]>) -> candle_core::Result<Option<Self>> {
        let Set { x, labels, classes, .. } = set;
        Ok(match optimizer {
            Optimizer::Ridge => Some(Self::Ridge(Ridge::new(x, labels, *classes, class_weights)?)),
            Optimizer::Lda => Some(Self::Lda(Discriminant::new(x, labels, *classes, class_weights)?)),
            _ => None,
        })
    }

    fn head(&self, lambda: f64) -> candle_core::Result<Head> {
        match self {
            Self::Ridge(ridge) => ridge.head(lambda),
            Self::Lda(discriminant) => discriminant.head(lambda),
        }
    }
}

/// The strengths, from the strongest to the weakest; each starts where the one before ended.
struct Path<'a> {
    stage: &'a Train,
    sets: &'a Sets,
    balanced: Vec<f64>,
    curve: Vec<Point>,
    /// Over the training images.
    passes: usize,
    /// Rows times the head, or times what becomes its gradient.
    products: usize,
    best: Option<Chosen>,
}

struct Chosen {
    /// None of a head that was given.
    lambda: Option<f64>,
    score: f64,
    head: Head,
    converged: bool,
}

/// Adds to a curve what can be drawn: what is no number diverges, and has no place in the store.
fn draw(curve: &mut Vec<Point>, point: Point) {
    if point.train_loss.is_finite() && point.val.loss.is_finite() {
        curve.push(point);
    }
}

impl Path<'_> {
    fn run(&mut self, tell: &mut dyn FnMut(Progress)) -> anyhow::Result<()> {
        let phase = phase(self.stage);
        let mut strengths = phase.lambda.clone();
        strengths.sort_by(|one, other| other.total_cmp(one));
        let train = &self.sets.train;
        let targets = targets(phase, &self.balanced);
        let mut logistic = Logistic::new(&train.x, &train.labels, train.classes, targets)?;
        let closed = Closed::new(phase.optimizer, train, targets.class_weights)?;
        for (index, lambda) in strengths.iter().enumerate() {
            let (head, converged, passes) = match &closed {
                // The factorisation is the one pass.
                Some(closed) => (closed.head(*lambda)?, true, usize::from(index == 0)),
                None => {
                    let solved = logistic.solve(*lambda)?;
                    (solved.head, solved.converged, solved.passes)
                }
            };
            self.passes += passes;
            self.products += 2 * passes * train.labels.len() + train.labels.len() + self.sets.val.labels.len();
            let (_, val) = self.sets.val.scores(&head)?;
            let (_, own) = train.scores(&head)?;
            let point = Point { step: index + 1, epoch: self.passes as f64, lr: *lambda, train_loss: own.loss, val };
            draw(&mut self.curve, point);
            let score = val.of(self.stage.metric);
            tell(Progress { step: index + 1, steps: strengths.len(), loss: own.loss, accuracy: Some(val.accuracy) });
            // On a tie the stronger one stays: it is the simpler model.
            if self.best.as_ref().is_none_or(|best| score > best.score) {
                self.best = Some(Chosen { lambda: Some(*lambda), score, head, converged });
            }
        }
        Ok(())
    }

    /// A head that nobody trains.
    fn given(&mut self, head: Head) -> anyhow::Result<()> {
        self.products += self.sets.train.labels.len() + self.sets.val.labels.len();
        let (_, val) = self.sets.val.scores(&head)?;
        let (_, own) = self.sets.train.scores(&head)?;
        let score = val.of(self.stage.metric);
        draw(&mut self.curve, Point { step: 0, epoch: 0.0, lr: 0.0, train_loss: own.loss, val });
        self.best = Some(Chosen { lambda: None, score, head, converged: true });
        Ok(())
    }

    /// The chosen strength once more, on training and validation images.
    fn refitted(&mut self, chosen: &Chosen) -> anyhow::Result<Head> {
        let phase = phase(self.stage);
        let lambda = chosen.lambda.context("a head that was given has no strength")?;
        let both = self.sets.train.with(&self.sets.val)?;
        let balanced = super::course::balanced(both.labels.iter().copied(), both.classes);
        let targets = targets(phase, &balanced);
        if let Some(closed) = Closed::new(phase.optimizer, &both, targets.class_weights)? {
            self.products += 2 * both.labels.len();
            return Ok(closed.head(lambda)?);
        }
        let mut logistic = Logistic::new(&both.x, &both.labels, both.classes, targets)?;
        logistic.start_from(&chosen.head)?;
        let solved = logistic.solve(lambda)?;
        self.products += 2 * solved.passes * both.labels.len();
        Ok(solved.head)
    }
}
