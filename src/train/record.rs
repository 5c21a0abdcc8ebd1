//! What a history of training leaves: its curve, how it ended, and at last the scores of the trials that share it.

use std::collections::BTreeMap;

use super::course::{Course, Place};
use crate::data::Manifest;
use crate::data::split::Split;
use crate::outcome::{Ending, Point, Predictions, Scores, TrialOutcome};

/// One history, and the trials that have it in common so far.
#[derive(Clone, Debug)]
pub struct History {
    /// Positions in the group.
    pub trials: Vec<usize>,
    pub place: Place,
    pub record: Record,
    /// The answers of the last evaluation, where the weights are still those that gave them.
    pub latest: Option<(Predictions, Scores)>,
}

impl History {
    /// Notes that the logits are divided by a temperature from now on: no answer was read of these weights yet.
    pub fn cooled(&mut self, temperature: f64) {
        self.record.temperature = Some(temperature);
        self.latest = None;
    }
}

/// Which training of a trial this is.
pub enum Part {
    /// Training images; validation and test are read.
    Only,
    /// Training images; validation is read, and test is left to the second.
    First,
    /// Training and validation images; only test is read. With what the first left.
    Again(BTreeMap<usize, Left>),
}

/// What the first of two trainings leaves of a trial.
pub struct Left {
    pub record: Record,
    pub val: (Predictions, Scores),
    pub seconds: f64,
    pub macs: f64,
}

/// The last answers of a trial.
#[derive(Clone, Debug)]
pub struct Finals {
    pub val: (Predictions, Scores),
    /// None of a trial that is not tested.
    pub test: Option<(Predictions, Scores)>,
    /// On the test images of other datasets.
    pub shifted: Predictions,
}

/// What each trial of a group has taken: its own part, and its share of what it had in common with others.
pub struct Spent {
    pub seconds: Vec<f64>,
    /// Multiply-accumulates.
    pub macs: Vec<f64>,
}

impl Spent {
    pub fn new(trials: usize) -> Self {
        Self { seconds: vec![0.0; trials], macs: vec![0.0; trials] }
    }

    /// Divides what was taken among the trials that it was for.
    pub fn add(&mut self, trials: &[usize], seconds: f64, macs: f64) {
        let share = 1.0 / trials.len().max(1) as f64;
        for trial in trials {
            self.seconds[*trial] += seconds * share;
            self.macs[*trial] += macs * share;
        }
    }
}

#[derive(Clone, Debug)]
pub struct Record {
    curve: Vec<Point>,
    /// Of this leg.
    leg_curve: usize,
    /// Since the last evaluation.
    losses: Vec<f64>,
    steps: usize,
    stopped_early: bool,
    pub ending: Ending,
    pub trainable: usize,
    pub frozen: usize,
    /// What the logits were divided by in the end, if they were.
    pub temperature: Option<f64>,
    /// The strength with which the head was solved that training started from.
    pub lambda: Option<f64>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            curve: Vec::new(),
            leg_curve: 0,
            losses: Vec::new(),
            steps: 0,
            stopped_early: false,
            ending: Ending::Finished,
            trainable: 0,
            frozen: usize::MAX,
            temperature: None,
            lambda: None,
        }
    }
}

impl Record {
    /// Of a training that starts from a head solved with such a strength, if it does.
    pub fn starting(lambda: Option<f64>) -> Self {
        Self { lambda, ..Self::default() }
    }

    /// Notes the loss of a step; one that is not finite is the end.
    pub fn step(&mut self, loss: f64) {
        self.steps += 1;
        self.losses.push(loss);
        if !loss.is_finite() {
            self.ending = Ending::Diverged;
        }
    }

    pub fn last_loss(&self) -> f64 {
        self.losses.last().copied().unwrap_or(0.0)
    }

    /// Notes an evaluation; true where patience is over.
    pub fn evaluation(&mut self, course: &Course, place: Place, val: Scores) -> bool {
        let train_loss = self.losses.iter().sum::<f64>() / self.losses.len() as f64;
        self.losses.clear();
        if !val.loss.is_finite() {
            self.ending = Ending::Diverged;
            return false;
        }
        self.curve.push(Point {
            step: self.steps,
            epoch: course.epochs(place.leg, place.step + 1),
            lr: course.now(place).lr,
            train_loss,
            val,
        });
        let over = patience_is_over(&self.curve[self.leg_curve..], course.early_stop);
        self.stopped_early |= over;
        over
    }

    /// Begins the next leg.
    pub fn next_leg(&mut self) {
        self.leg_curve = self.curve.len();
        self.losses.clear();
    }

    /// The record of a trial that was trained again: the curve is the first training's, the end that of both.
    pub fn and(mut self, again: &Self) -> Self {
        self.steps += again.steps;
        self.ending = again.ending;
        self
    }

    /// What the trial leaves, with its last answers where it has any.
    pub fn outcome(self, finals: Option<Finals>, split: &Split, manifest: &Manifest) -> TrialOutcome {
        let mut trial = TrialOutcome {
            ending: self.ending,
            steps: self.steps,
            curve: self.curve,
            val: None,
            test: None,
            val_predictions: Default::default(),
            test_predictions: Default::default(),
            shifted_predictions: Default::default(),
            at_chance: false,
            under_trained: false,
            stopped_early: self.stopped_early,
            trainable: self.trainable,
            frozen: self.frozen,
            lambda: self.lambda,
            temperature: self.temperature,
        };
        let Some(finals) = finals else { return trial };
        let ((val_predictions, val), (test_predictions, test)) = (finals.val, finals.test.unzip());
        trial.val_predictions = val_predictions;
        trial.test_predictions = test_predictions.unwrap_or_default();
        trial.shifted_predictions = finals.shifted;
        if !(val.loss.is_finite() && test.is_none_or(|test| test.loss.is_finite())) {
            trial.ending = Ending::Diverged;
            return trial;
        }
        (trial.val, trial.test) = (Some(val), test);
        trial.at_chance = test.is_some_and(|test| at_chance(test.accuracy, split, manifest));
        trial.under_trained = !trial.stopped_early && under_trained(&trial.curve);
        trial
    }
}

/// Whether the last `patience` evaluations brought no lower validation loss than those before.
fn patience_is_over(curve: &[Point], patience: Option<usize>) -> bool {
    let Some(patience) = patience.filter(|patience| curve.len() > *patience) else { return false };
    let (before, last) = curve.split_at(curve.len() - patience);
    let least = |points: &[Point]| points.iter().map(|point| point.val.loss).fold(f64::INFINITY, f64::min);
    least(last) >= least(before)
}

/// No better than always naming the largest class, within two standard errors of a proportion.
pub fn at_chance(accuracy: f64, split: &Split, manifest: &Manifest) -> bool {
    let mut counts = vec![0usize; manifest.classes.len()];
    split.test.iter().for_each(|sample| counts[manifest.samples[*sample as usize].class as usize] += 1);
    let images = split.test.len().max(1) as f64;
    let majority = counts.into_iter().max().unwrap_or(0) as f64 / images;
    accuracy <= majority + 2.0 * (majority * (1.0 - majority) / images).sqrt()
}

/// The validation loss fell by more than 1% between nine tenths of the steps and the end.
fn under_trained(curve: &[Point]) -> bool {
    let Some(last) = curve.last() else { return false };
    let before = curve.iter().rfind(|point| point.step * 10 <= last.step * 9);
    before.is_some_and(|before| last.val.loss < 0.99 * before.val.loss)
}
