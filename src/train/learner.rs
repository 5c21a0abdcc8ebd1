//! Who trains at each step of a group: a network, or a bank of linear heads; one step of all that read the same batch, and
//! their scores in one pass over what they read.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::abreast::{self, Probe, turn};
use super::bank::{self, Bank};
use super::course::{Course, Draw};
use super::descent::Relative;
use super::evaluate::{self, BATCH};
use super::inputs::Inputs;
use super::kept;
use super::lane::{Lane, Lesson};
use super::record::{History, Spent};
use crate::data::Manifest;
use crate::model::weights::Weights;
use crate::nn::buffer;
use crate::nn::loss::{Answers, Labels, answers};
use crate::outcome::{Ending, Predictions, Scores};
use crate::plan::cost::MEASURED;
use crate::plan::stage::Train;
use crate::seed::{Stream, stream};

pub enum Learner {
    Lane { lane: Box<Lane>, feed: usize },
    Bank { bank: Bank, feed: usize },
}

impl Learner {
    /// What the trials of one of its histories have trained, on the CPU.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn weights(&self, history: usize) -> anyhow::Result<Weights> {
        match self {
            Self::Lane { lane, .. } => Ok(lane.network.weights()?),
            Self::Bank { bank, .. } => {
                let [weight, bias] = bank.params(history)?;
                Ok(kept::head(weight.to_device(&Device::Cpu)?, bias.to_device(&Device::Cpu)?))
            }
        }
    }
}

/// What is read in a round, and who pays for it.
pub struct Reading<'a> {
    pub inputs: &'a mut Inputs,
    pub spent: &'a mut Spent,
    /// Whether lanes are faster together, by the first trial of each set of them.
    pub probes: &'a mut BTreeMap<usize, Probe>,
}

/// What all trials of a group have in common.
pub struct Common<'a> {
    pub courses: &'a [Course],
    pub manifest: &'a Manifest,
    pub balanced: &'a [f64],
    pub stage: &'a Train,
}

/// One step of all learners that read the same batch.
pub fn learn_all(
    learners: &mut [Learner],
    which: &[usize],
    draw: &Draw,
    reading: &mut Reading,
    common: &Common,
) -> anyhow::Result<()> {
    if draw.within == 0 {
        measure(learners, which, draw, reading, common)?;
    }
    let read = Read::new(learners, which, draw, reading, common)?;
    let (feeds, xs, lesson) = (&read.feeds, &read.xs, read.lesson(common));
    let mut left = which.to_vec();
    while let Some(first) = left.first().copied() {
        let start = std::time::Instant::now();
        let with = |other: &usize| *other == first || learners[first].abreast(&learners[*other], common.courses);
        let set: Vec<usize> = left.iter().copied().filter(with).collect();
        left.retain(|index| !set.contains(index));
        let place = feeds.binary_search(&learners[first].feed()).map_err(|_| anyhow::anyhow!("a feed was not read"))?;
        for index in &set {
            let learner = &learners[*index];
            reading.spent.add(&learner.trials(), 0.0, learner.step_macs() * read.labels.len() as f64);
        }
        let mut trials = learners[first].trials();
        match &mut learners[first] {
            Learner::Bank { bank, .. } => {
                let turn = |history: &History| {
                    let course = &common.courses[history.trials[0]];
                    bank::Turn { course, now: course.now(history.place) }
                };
                let turns: Vec<bank::Turn> = bank.heads.iter().map(|head| turn(&head.history)).collect();
                bank.learn(&xs[place], lesson.labels, lesson.balanced, &turns)?;
            }
            Learner::Lane { .. } => {
                let mut lanes = lanes(learners, &set);
                trials = lanes.iter().flat_map(|lane| lane.history.trials.iter().copied()).collect();
                let probe = reading.probes.entry(trials[0]).or_default();
                abreast::learn(&mut lanes, &xs[place], &lesson, common, probe)?;
            }
        }
        reading.spent.add(&trials, start.elapsed().as_secs_f64(), 0.0);
    }
    buffer::recycle_batch(read.xs);
    Ok(())
}

/// At the beginning of an epoch: the ratios of those lanes whose layers' rates follow from them.
fn measure(
    learners: &mut [Learner],
    which: &[usize],
    draw: &Draw,
    reading: &mut Reading,
    common: &Common,
) -> anyhow::Result<()> {
    let follows = |index: &usize| match &learners[*index] {
        Learner::Lane { lane, .. } => {
            !lane.course_of(common.courses).phase(lane.history.place.leg).layer_rates.is_even()
        }
        Learner::Bank { .. } => false,
    };
    let which: Vec<usize> = which.iter().copied().filter(follows).collect();
    if which.is_empty() {
        return Ok(());
    }
    let mut found: BTreeMap<usize, Relative> = BTreeMap::new();
    for within in 0..reading.inputs.batches(draw).min(MEASURED) {
        let read = Read::new(learners, &which, &Draw { within, ..draw.clone() }, reading, common)?;
        for index in &which {
            let start = std::time::Instant::now();
            let learner = &learners[*index];
            if let Learner::Lane { lane, feed } = learner {
                let (x, lesson) = read.of(*feed, common)?;
                let mut turn = turn(lane, common);
                // Masks of its own: those of the steps of this epoch are theirs.
                let (leg, place) = (lane.history.place.leg as u64, u64::MAX - (draw.epoch * MEASURED + within) as u64);
                let path = [common.stage.replicate as u64, leg, place];
                turn.dropout = stream(common.stage.seed, Stream::Dropout, &path);
                lane.measure(x, &lesson, &mut turn, found.entry(*index).or_default())?;
            }
            let macs = learner.step_macs() * read.labels.len() as f64;
            reading.spent.add(&learner.trials(), start.elapsed().as_secs_f64(), macs);
        }
        buffer::recycle_batch(read.xs);
    }
    for (index, relative) in found {
        if let Learner::Lane { lane, .. } = &mut learners[index] {
            lane.rate(&relative);
        }
    }
    Ok(())
}

/// A batch as learners read it.
struct Read {
    feeds: Vec<usize>,
    /// One for each feed.
    xs: Vec<Tensor>,
    labels: Vec<u32>,
    /// Of the images that they are mixed with, and the share of their own.
    others: Option<(Vec<u32>, f64)>,
}

impl Read {
    fn new(
        learners: &[Learner],
        which: &[usize],
        draw: &Draw,
        reading: &mut Reading,
        common: &Common,
    ) -> anyhow::Result<Self> {
        let start = std::time::Instant::now();
        let batch = reading.inputs.batch(draw)?;
        let class = |sample: &u32| common.manifest.samples[*sample as usize].class;
        let labels: Vec<u32> = batch.samples.iter().map(class).collect();
        let mut feeds: Vec<usize> = which.iter().map(|index| learners[*index].feed()).collect();
        feeds.sort_unstable();
        feeds.dedup();
        let before = reading.inputs.macs;
        let xs = reading.inputs.learned(&feeds, &batch)?;
        let trials: Vec<usize> = which.iter().flat_map(|index| learners[*index].trials()).collect();
        reading.spent.add(&trials, start.elapsed().as_secs_f64(), reading.inputs.macs - before);
        let others = batch.mix.as_ref().map(|mix| (mix.others(&labels), mix.share()));
        Ok(Self { feeds, xs, labels, others })
    }

    fn lesson<'a>(&'a self, common: &Common<'a>) -> Lesson<'a> {
        let mixed = self.others.as_ref().map(|(others, share)| (others.as_slice(), *share));
        Lesson { labels: Labels { own: &self.labels, mixed }, balanced: common.balanced }
    }

    /// What one feed gives, and what is learned from it.
    fn of<'a>(&'a self, feed: usize, common: &Common<'a>) -> anyhow::Result<(&'a Tensor, Lesson<'a>)> {
        let place = self.feeds.binary_search(&feed).map_err(|_| anyhow::anyhow!("a feed was not read"))?;
        Ok((&self.xs[place], self.lesson(common)))
    }
}

fn lanes<'a>(learners: &'a mut [Learner], which: &[usize]) -> Vec<&'a mut Lane> {
    let chosen = learners.iter_mut().enumerate().filter(|(index, _)| which.contains(index));
    let lane = |(_, learner): (usize, &'a mut Learner)| match learner {
        Learner::Lane { lane, .. } => Some(&mut **lane),
        Learner::Bank { .. } => None,
    };
    chosen.filter_map(lane).collect()
}

/// Scores of all networks of some learners on samples, in one pass over what they read.
pub fn scores(
    learners: &[&Learner],
    samples: &[u32],
    inputs: &mut Inputs,
    manifest: &Manifest,
    spent: &mut Spent,
) -> anyhow::Result<Vec<Vec<(Predictions, Scores)>>> {
    let (start, before) = (std::time::Instant::now(), inputs.macs);
    let mut feeds: Vec<usize> = learners.iter().map(|learner| learner.feed()).collect();
    feeds.sort_unstable();
    feeds.dedup();
    let truth: Vec<u32> = samples.iter().map(|sample| manifest.samples[*sample as usize].class).collect();
    let mut batches: Vec<Vec<Answers>> = learners.iter().map(|_| Vec::new()).collect();
    for (samples, truth) in samples.chunks(BATCH).zip(truth.chunks(BATCH)) {
        let xs = inputs.evaluated(&feeds, samples)?;
        for (learner, batches) in learners.iter().zip(&mut batches) {
            let place = feeds.binary_search(&learner.feed()).map_err(|_| anyhow::anyhow!("a feed was not read"))?;
            let logits = learner.infer(&xs[place])?;
            batches.push(answers(&logits, truth, learner.heads())?);
            buffer::recycle_batch(vec![logits]);
        }
        buffer::recycle_batch(xs);
    }
    let closed = |(learner, batches): (&&Learner, Vec<Answers>)| {
        Ok(evaluate::close(batches, learner.heads(), samples, &truth, manifest.classes.len())?)
    };
    let found = learners.iter().zip(batches).map(closed).collect::<anyhow::Result<Vec<_>>>()?;
    let trials: Vec<usize> = learners.iter().flat_map(|learner| learner.trials()).collect();
    spent.add(&trials, start.elapsed().as_secs_f64(), inputs.macs - before);
    for learner in learners {
        spent.add(&learner.trials(), 0.0, learner.forward_macs() * samples.len() as f64);
    }
    Ok(found)
}

/// The logits of all networks of a learner for samples, row by row for each.
pub fn logits(
    learner: &Learner,
    samples: &[u32],
    inputs: &mut Inputs,
    spent: &mut Spent,
) -> anyhow::Result<Vec<Vec<f32>>> {
    let (start, before) = (std::time::Instant::now(), inputs.macs);
    let mut found = vec![Vec::new(); learner.heads()];
    for samples in samples.chunks(BATCH) {
        let xs = inputs.evaluated(&[learner.feed()], samples)?;
        let logits = learner.infer(&xs[0])?;
        let rows = logits.flatten_all()?.to_vec1::<f32>()?;
        let classes = logits.dim(1)? / learner.heads();
        for (place, own) in rows.chunks_exact(classes).enumerate() {
            found[place % learner.heads()].extend_from_slice(own);
        }
        buffer::recycle_batch(vec![logits]);
        buffer::recycle_batch(xs);
    }
    let macs = inputs.macs - before + learner.forward_macs() * samples.len() as f64;
    spent.add(&learner.trials(), start.elapsed().as_secs_f64(), macs);
    Ok(found)
}

impl Learner {
    pub fn feed(&self) -> usize {
        match self {
            Self::Lane { feed, .. } | Self::Bank { feed, .. } => *feed,
        }
    }

    /// Whether two networks may take a step together.
    fn abreast(&self, other: &Self, courses: &[Course]) -> bool {
        match (self, other) {
            (Self::Lane { lane, feed }, Self::Lane { lane: others, feed: others_feed }) => {
                feed == others_feed && abreast::fit(lane, others, courses)
            }
            _ => false,
        }
    }

    pub fn first(&self) -> &History {
        match self {
            Self::Lane { lane, .. } => &lane.history,
            Self::Bank { bank, .. } => &bank.heads[0].history,
        }
    }

    pub fn histories(&self) -> Vec<&History> {
        match self {
            Self::Lane { lane, .. } => vec![&lane.history],
            Self::Bank { bank, .. } => bank.heads.iter().map(|head| &head.history).collect(),
        }
    }

    pub fn trials(&self) -> Vec<usize> {
        self.histories().into_iter().flat_map(|history| history.trials.iter().copied()).collect()
    }

    pub fn draw<'a>(&self, courses: &'a [Course]) -> Draw<'a> {
        let history = self.first();
        courses[history.trials[0]].draw(history.place)
    }

    pub fn evaluates(&self, courses: &[Course]) -> bool {
        let history = self.first();
        // All heads of a bank read alike; a diverged first one does not speak for the others.
        let diverged = matches!(self, Self::Lane { .. }) && history.record.ending == Ending::Diverged;
        !diverged && courses[history.trials[0]].now(history.place).evaluates
    }

    /// Heads whose logits stand side by side.
    fn heads(&self) -> usize {
        match self {
            Self::Lane { .. } => 1,
            Self::Bank { bank, .. } => bank.heads.len(),
        }
    }

    /// Notes the losses that a device still owes.
    pub fn settle(&mut self) -> candle_core::Result<()> {
        match self {
            Self::Lane { lane, .. } => lane.settle(),
            Self::Bank { bank, .. } => bank.settle(),
        }
    }

    /// Whether what comes behind this step needs to know how the steps went: an evaluation, or the end of the leg.
    pub fn is_due(&self, courses: &[Course]) -> bool {
        let due = |history: &&History| {
            let (course, place) = (&courses[history.trials[0]], history.place);
            course.now(place).evaluates || place.step + 1 == course.steps(place.leg)
        };
        self.histories().iter().any(due)
    }

    /// Multiply-accumulates of a step for one image, of all networks.
    fn step_macs(&self) -> f64 {
        match self {
            Self::Lane { lane, .. } => lane.macs[1],
            Self::Bank { bank, .. } => 3.0 * bank.macs() * bank.heads.len() as f64,
        }
    }

    /// Of a forward pass.
    fn forward_macs(&self) -> f64 {
        match self {
            Self::Lane { lane, .. } => lane.macs[0],
            Self::Bank { bank, .. } => bank.macs() * bank.heads.len() as f64,
        }
    }

    pub fn infer(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Lane { lane, .. } => lane.infer(x),
            Self::Bank { bank, .. } => bank.infer(x),
        }
    }
}
