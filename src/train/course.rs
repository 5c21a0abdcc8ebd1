//! Where a trial stands: pure arithmetic over its phases. Two trials share a history for as long as their courses agree.

use crate::augmentation::Augmentation;
use crate::phase::Phase;
use crate::plan::cost::{AVERAGED, steps};
use crate::recipe::{Budget, ClassWeights, Decay, KeepWeights, Metric, Schedule};

/// The phases of a trial, with their lengths on a training set.
#[derive(Clone, Debug)]
pub struct Course {
    legs: Vec<Leg>,
    pub early_stop: Option<usize>,
    pub keep_best: bool,
    /// What tells the best evaluation.
    pub metric: Metric,
    /// Augmented views that epochs take turns with, instead of new ones.
    pub views: Option<usize>,
    /// The last share of the last leg, over which weights are averaged.
    pub average: f64,
}

#[derive(Clone, Debug)]
struct Leg {
    phase: Phase,
    /// The phase without what decides its length and its rates: what any one of its steps does.
    manner: Phase,
    steps: usize,
    evaluations: usize,
    per_epoch: usize,
}

/// A place on a course.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub leg: usize,
    /// Within the leg.
    pub step: usize,
}

/// What a step is.
#[derive(Clone, Debug, PartialEq)]
pub struct Now {
    /// Of the head and of the backbone, with the schedule.
    pub lr: f64,
    pub backbone_lr: f64,
    /// Whether validation is read after it.
    pub evaluates: bool,
    /// Whether it is the last of its leg.
    pub ends: bool,
}

/// Which training images a step reads, and how they are changed: equal draws are equal batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw<'a> {
    pub leg: usize,
    pub epoch: usize,
    /// Number of the batch within the epoch.
    pub within: usize,
    pub batch: usize,
    pub augment: &'a [Augmentation],
    pub views: Option<usize>,
}

impl Course {
    /// The course of `phases` on so many training images.
    pub fn new(phases: &[Phase], images: usize, early_stop: Option<usize>, keep: KeepWeights, metric: Metric) -> Self {
        let leg = |phase: &Phase| {
            let (steps, evaluations) = steps(phase, images);
            let manner = Phase {
                budget: Budget::Steps(0),
                schedule: Schedule::Constant,
                warmup: 0.0,
                // The base rates bear on a step only where the decay is measured by them.
                lr: if phase.decay == Decay::OverLr { phase.lr } else { 0.0 },
                backbone_lr: if phase.decay == Decay::OverLr { phase.backbone_lr } else { 0.0 },
                ..phase.clone()
            };
            Leg { phase: phase.clone(), manner, steps, evaluations, per_epoch: images.div_ceil(phase.batch) }
        };
        Self {
            legs: phases.iter().map(leg).collect(),
            early_stop,
            keep_best: keep == KeepWeights::Best,
            metric,
            views: None,
            average: 0.0,
        }
    }

    pub fn legs(&self) -> usize {
        self.legs.len()
    }

    pub fn phase(&self, leg: usize) -> &Phase {
        &self.legs[leg].phase
    }

    /// Steps of a leg.
    pub fn steps(&self, leg: usize) -> usize {
        self.legs[leg].steps
    }

    /// Passes over the training images within the leg once `steps` are done.
    pub fn epochs(&self, leg: usize, steps: usize) -> f64 {
        steps as f64 / self.legs[leg].per_epoch as f64
    }

    pub fn now(&self, place: Place) -> Now {
        let leg = &self.legs[place.leg];
        let factor = factor(&leg.phase, place.step, leg.steps);
        Now {
            lr: leg.phase.lr * factor,
            backbone_lr: leg.phase.backbone_lr * factor,
            evaluates: leg.evaluates(place.step + 1),
            ends: place.step + 1 == leg.steps,
        }
    }

    /// Whether the weights after the step here are among those that are averaged: at even parts of the last share of the last leg,
    /// the last step among them.
    pub fn averages(&self, place: Place) -> bool {
        if self.average == 0.0 || place.leg + 1 < self.legs.len() {
            return false;
        }
        let steps = self.legs[place.leg].steps;
        let tail = ((self.average * steps as f64).round() as usize).max(1);
        let points = AVERAGED.min(tail);
        let within = (place.step + 1 + tail).saturating_sub(steps);
        within > 0 && within * points / tail > (within - 1) * points / tail
    }

    pub fn draw(&self, place: Place) -> Draw<'_> {
        let leg = &self.legs[place.leg];
        Draw {
            leg: place.leg,
            epoch: place.step / leg.per_epoch,
            within: place.step % leg.per_epoch,
            batch: leg.phase.batch,
            augment: &leg.phase.augment,
            views: self.views,
        }
    }

    /// Whether a step here does the same to the same weights on another course.
    pub fn agrees(&self, other: &Self, place: Place) -> bool {
        let (own, others) = (self.legs.get(place.leg), other.legs.get(place.leg));
        let same_keeping = self.views == other.views
            && self.early_stop == other.early_stop
            && self.keep_best == other.keep_best
            && self.metric == other.metric;
        same_keeping
            && own.zip(others).is_some_and(|(own, others)| own.manner == others.manner)
            && self.now(place) == other.now(place)
    }

    /// Whether two courses read the same batches from beginning to end.
    pub fn reads_alike(&self, other: &Self) -> bool {
        let alike = |(own, others): (&Leg, &Leg)| {
            own.steps == others.steps
                && own.evaluations == others.evaluations
                && own.phase.batch == others.phase.batch
                && own.phase.augment == others.phase.augment
        };
        self.views == other.views && self.legs.len() == other.legs.len() && self.legs.iter().zip(&other.legs).all(alike)
    }
}

impl Leg {
    /// Whether validation is read after `done` steps: at the ends of epochs, or at even parts of a budget in steps.
    fn evaluates(&self, done: usize) -> bool {
        match self.phase.budget {
            Budget::Epochs(_) => done.is_multiple_of(self.per_epoch),
            Budget::Steps(_) => done * self.evaluations / self.steps > (done - 1) * self.evaluations / self.steps,
        }
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
        Schedule::Cosine => 0.5 * (1.0 + libm::cos(std::f64::consts::PI * part)),
        Schedule::Step { at, factor } => {
            let done = step as f64 / total as f64;
            libm::pow(*factor, at.iter().filter(|point| done >= **point).count() as f64)
        }
    }
}

/// What a phase takes of the labels; `balanced` is how much each class counts where classes are balanced.
pub fn targets<'a>(phase: &Phase, balanced: &'a [f64]) -> crate::nn::loss::Targets<'a> {
    let class_weights = (phase.class_weights == ClassWeights::Balanced).then_some(balanced);
    crate::nn::loss::Targets { smoothing: phase.label_smoothing, class_weights }
}

/// images / (classes x images of the class); a class without training images counts nothing.
pub fn balanced(labels: impl Iterator<Item = u32>, classes: usize) -> Vec<f64> {
    let mut counts = vec![0usize; classes];
    labels.for_each(|label| counts[label as usize] += 1);
    let whole = counts.iter().sum::<usize>() as f64 / classes as f64;
    counts.into_iter().map(|count| if count > 0 { whole / count as f64 } else { 0.0 }).collect()
}
