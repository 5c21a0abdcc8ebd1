//! The pretrain stage: a source model from random weights, kept as a weight file.

use anyhow::Context;

use super::course::{Course, Place, balanced};
use super::evaluate::{self, BATCH};
use super::lane::{Lane, Lesson, Turn};
use super::record::{History, Record};
use super::source::{Change, Source};
use super::{Group, Shelf};
use crate::data::batch::order;
use crate::data::mix::Mix;
use crate::data::split::{Split, split};
use crate::exec::Network;
use crate::key::Key;
use crate::model::init;
use crate::nn::loss::{Labels, answers};
use crate::outcome::{Ending, Outcome, Progress, Scores};
use crate::phase::Phase;
use crate::plan::stage::Pretrain;
use crate::recipe::{BatchNorm, KeepWeights, Metric};
use crate::seed::{Stream, stream};

/// Runs the stage that has place `index` in its group.
pub fn run(index: usize, stage: &Pretrain, group: &mut Group, shelf: &mut Shelf) -> anyhow::Result<()> {
    let start = std::time::Instant::now();
    let macs = train(stage, shelf, &mut |progress| group.tell(progress))?;
    let seconds = start.elapsed().as_secs_f64();
    let numerics = shelf.places.numerics.clone();
    let outcome =
        Outcome { seconds, macs, numerics, trial: None, warnings: Vec::new(), group: 1, abreast: None, part: 1.0 };
    group.done(index, outcome, shelf);
    Ok(())
}

/// Makes a source model whose file is gone or damaged.
pub fn again(stage: &Pretrain, shelf: &mut Shelf) -> anyhow::Result<()> {
    train(stage, shelf, &mut |_| ()).map(drop)
}

/// A source model that is none.
#[derive(Debug)]
pub struct Diverged {
    steps: usize,
    /// Its losses in training are finite: what validation reads, running statistics, has not followed.
    learned: bool,
}

impl std::error::Error for Diverged {}

impl std::fmt::Display for Diverged {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { steps, learned } = self;
        match learned {
            false => write!(f, "pretraining diverged after {steps} steps: lower `lr` under [pretrain]"),
            true => write!(
                f,
                "after {steps} steps of pretraining the loss on validation is not finite: running statistics have not followed yet; \
                 more `steps`, or a lower `lr`, under [pretrain]"
            ),
        }
    }
}

/// What the source model learns from.
struct Lessons<'a> {
    stage: &'a Pretrain,
    source: Source,
    split: Split,
    /// Of all samples.
    classes: Vec<u32>,
    balanced: Vec<f64>,
}

/// Trains and writes the model; returns the multiply-accumulates.
fn train(stage: &Pretrain, shelf: &mut Shelf, tell: &mut dyn FnMut(Progress)) -> anyhow::Result<f64> {
    let graph = stage.arch.graph(stage.classes).map_err(anyhow::Error::msg)?;
    let weights = init::fresh(&graph, 0, stage.seed, 0)?;
    let manifest = shelf.manifest(stage.data)?;
    let split = split(&manifest, None, stage.seed, 0).map_err(anyhow::Error::msg).context("the source dataset")?;
    let source = Source::Images { packed: shelf.packed(stage.data, stage.frame())?, preprocess: stage.preprocess };
    let classes: Vec<u32> = manifest.samples.iter().map(|sample| sample.class).collect();
    let balanced = balanced(split.train.iter().map(|sample| classes[*sample as usize]), stage.classes);
    let lessons = Lessons { stage, source, split, classes, balanced };
    let phase = Phase { batch_norm: BatchNorm::Train, ..stage.phase.clone() };
    let images = lessons.split.train.len();
    let course = Course::new(std::slice::from_ref(&phase), images, None, KeepWeights::Last, Metric::Accuracy);
    let params = graph.total_params();
    let history = History { trials: vec![0], place: Place::default(), record: Record::default(), latest: None };
    let mut lane = Lane::new(Network::new(graph, &weights, &shelf.device)?, 0, history);
    lane.enter(&phase, 0, params)?;
    let (mut epoch, mut read) = (Vec::new(), 0);
    let steps = course.steps(0);
    for step in 0..steps {
        lane.history.place.step = step;
        read += lessons.step(&mut lane, &course, &mut epoch)?;
        // Validation decides nothing here, and reading all of it costs as much as many steps: once is enough.
        let last = if step + 1 == steps { Some(lessons.evaluate(&lane)?) } else { None };
        if last.is_some() || step % 16 == 0 {
            lane.settle()?;
            let loss = lane.history.record.last_loss();
            tell(Progress { step: step + 1, steps, loss, accuracy: last.map(|scores| scores.accuracy) });
        }
        let learned = lane.history.record.ending == Ending::Finished;
        if !learned || last.is_some_and(|scores| !scores.loss.is_finite()) {
            anyhow::bail!(Diverged { steps: step + 1, learned });
        }
    }
    let [forward, learning] = lane.macs;
    let macs = learning * read as f64 + forward * lessons.split.val.len() as f64;
    lane.leave(0.0, 1.0)?;
    shelf.warn(lane.warning());
    lane.network.weights()?.write(&shelf.places.model(Key::of("pretrain", stage)))?;
    Ok(macs)
}

impl Lessons<'_> {
    /// One step; returns how many images it read.
    fn step(&self, lane: &mut Lane, course: &Course, epoch: &mut Vec<u32>) -> anyhow::Result<usize> {
        let place = lane.history.place;
        let draw = course.draw(place);
        if draw.within == 0 {
            *epoch = order(&self.split.train, self.stage.seed, 0, draw.epoch as u64);
        }
        let samples = &epoch[draw.within * draw.batch..((draw.within + 1) * draw.batch).min(epoch.len())];
        let (seed, epoch) = (self.stage.seed, draw.epoch as u64);
        let mut rng = stream(seed, Stream::Mix, &[0, epoch, draw.within as u64]);
        let mix = Mix::drawn(draw.augment, samples.len(), self.stage.frame().side, &mut rng);
        let change = Change { list: draw.augment, seed, replicate: 0, epoch, mix: mix.as_ref() };
        let x = self.source.changed(samples, &change, &lane.network.device)?;
        let labels: Vec<u32> = samples.iter().map(|sample| self.classes[*sample as usize]).collect();
        let dropout = stream(self.stage.seed, Stream::Dropout, &[0, 0, place.step as u64]);
        let others = mix.as_ref().map(|mix| (mix.others(&labels), mix.share()));
        let mixed = others.as_ref().map(|(others, share)| (others.as_slice(), *share));
        let lesson = Lesson { labels: Labels { own: &labels, mixed }, balanced: &self.balanced };
        lane.learn(&x, &lesson, &mut Turn { phase: course.phase(0), now: course.now(place), dropout })?;
        Ok(samples.len())
    }

    fn evaluate(&self, lane: &Lane) -> anyhow::Result<Scores> {
        let samples = &self.split.val;
        let truth: Vec<u32> = samples.iter().map(|sample| self.classes[*sample as usize]).collect();
        let mut batches = Vec::new();
        for (samples, truth) in samples.chunks(BATCH).zip(truth.chunks(BATCH)) {
            let logits = lane.infer(&self.source.batch(samples, &lane.network.device)?)?;
            batches.push(answers(&logits, truth, 1)?);
        }
        Ok(evaluate::close(batches, 1, samples, &truth, self.stage.classes)?.remove(0).1)
    }
}
