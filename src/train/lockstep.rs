//! Trials that run side by side, step by step: what they read is made once, what they have in common is trained once, and
//! linear heads train as one. A trial on its own is a group of one.

mod calibration;
mod ends;

use std::collections::BTreeMap;

use super::abreast::Probe;
use super::course::{Course, Draw, Place, balanced};
use super::inputs::Inputs;
use super::lane::Lane;
use super::learner::{Common, Learner, Reading, learn_all, scores};
use super::lineup::Lineup;
use super::record::{Left, Part, Spent};
use super::{Group, Shelf, all_params};
use crate::data::Manifest;
use crate::data::split::{Split, split};
use crate::exec::Network;
use crate::outcome::{Ending, Outcome, Progress};
use crate::plan::stage::{Train, Work};
use crate::recipe::Calibrate;

/// Runs trials that share data and replicate to their outcomes.
pub fn run(stages: &[&Train], group: &mut Group, shelf: &mut Shelf) -> anyhow::Result<()> {
    train(stages, group, shelf, true).map(drop)
}

/// Runs one trial and returns its network above the shared cut as well.
pub fn alone(stage: &Train, work: &Work, shelf: &mut Shelf) -> anyhow::Result<(Outcome, Network)> {
    let mut outcome = None;
    let mut hear = |told| {
        if let super::Told::Done(_, done) = told {
            outcome = Some(*done);
        }
    };
    let mut group = Group { works: vec![work], hear: &mut hear };
    let network = train(&[stage], &mut group, shelf, false)?;
    outcome.zip(network).ok_or_else(|| anyhow::anyhow!("the trial left no network"))
}

/// Trains once, and where validation images are to be learned from as well, once more. Returns the last network, if it is
/// one of its own.
fn train(stages: &[&Train], group: &mut Group, shelf: &mut Shelf, banks: bool) -> anyhow::Result<Option<Network>> {
    let ids: Vec<usize> = (0..stages.len()).collect();
    let part = if stages[0].refit { Part::First } else { Part::Only };
    let mut floor = Floor::new(stages, ids, part, &group.works, shelf, banks)?;
    floor.run(group, shelf)?;
    if floor.left.is_empty() {
        return Ok(floor.network);
    }
    let left = std::mem::take(&mut floor.left);
    let ids: Vec<usize> = left.keys().copied().collect();
    let again: Vec<&Train> = ids.iter().map(|id| stages[*id]).collect();
    let mut floor = Floor::new(&again, ids, Part::Again(left), &group.works, shelf, banks)?;
    floor.run(group, shelf)?;
    Ok(floor.network)
}

struct Floor<'a> {
    stages: &'a [&'a Train],
    /// Their places in the group.
    ids: Vec<usize>,
    part: Part,
    left: BTreeMap<usize, Left>,
    courses: Vec<Course>,
    manifest: std::rc::Rc<Manifest>,
    split: Split,
    balanced: Vec<f64>,
    inputs: Inputs,
    learners: Vec<Learner>,
    spent: Spent,
    probes: BTreeMap<usize, Probe>,
    rounds: usize,
    network: Option<Network>,
}

impl<'a> Floor<'a> {
    fn new(
        stages: &'a [&'a Train],
        ids: Vec<usize>,
        part: Part,
        works: &[&Work],
        shelf: &mut Shelf,
        banks: bool,
    ) -> anyhow::Result<Self> {
        let first = stages[0];
        let manifest = shelf.manifest(first.data)?;
        let mut split =
            split(&manifest, first.per_class, first.seed, first.replicate as u64).map_err(anyhow::Error::msg)?;
        if matches!(part, Part::Again(_)) {
            split.train.extend(&split.val);
            split.train.sort_unstable();
        }
        let labels = split.train.iter().map(|sample| manifest.samples[*sample as usize].class);
        let course = |stage: &&Train| {
            let mut course =
                Course::new(&stage.phases, split.train.len(), stage.early_stop, stage.keep_weights, stage.metric);
            (course.views, course.average) = (stage.views, stage.average);
            course
        };
        let mut floor = Self {
            stages,
            courses: stages.iter().map(course).collect(),
            balanced: balanced(labels, manifest.classes.len()),
            inputs: Inputs::new(first, split.train.clone(), shelf.device.clone()),
            learners: Vec::new(),
            spent: Spent::new(stages.len()),
            probes: BTreeMap::new(),
            rounds: 0,
            network: None,
            left: BTreeMap::new(),
            manifest,
            split,
            part,
            ids,
        };
        let works: Vec<&Work> = floor.ids.iter().map(|id| works[*id]).collect();
        let again = matches!(floor.part, Part::Again(_));
        let lineup = Lineup::new(stages, &floor.courses, &works, again, &mut floor.inputs, shelf)?;
        for (trial, [seconds, macs]) in lineup.took().enumerate() {
            floor.spent.add(&[trial], seconds, macs);
        }
        floor.learners = lineup.learners(shelf, banks)?;
        Ok(floor)
    }

    fn run(&mut self, group: &mut Group, shelf: &mut Shelf) -> anyhow::Result<()> {
        while !self.learners.is_empty() {
            self.round(group, shelf)?;
        }
        Ok(())
    }

    /// One step of everybody, evaluations, and what has come to its end.
    fn round(&mut self, group: &mut Group, shelf: &mut Shelf) -> anyhow::Result<()> {
        self.part()?;
        let draws: Vec<Draw> = self.learners.iter().map(|learner| learner.draw(&self.courses)).collect();
        let mut done: Vec<bool> = vec![false; draws.len()];
        for first in 0..draws.len() {
            if done[first] {
                continue;
            }
            let same: Vec<usize> = (first..draws.len()).filter(|other| draws[*other] == draws[first]).collect();
            same.iter().for_each(|index| done[*index] = true);
            learn_all(
                &mut self.learners,
                &same,
                &draws[first],
                &mut Reading { inputs: &mut self.inputs, spent: &mut self.spent, probes: &mut self.probes },
                &Common {
                    courses: &self.courses,
                    manifest: &self.manifest,
                    balanced: &self.balanced,
                    stage: self.stages[0],
                },
            )?;
        }
        drop(draws);
        for learner in self.learners.iter_mut().filter(|learner| learner.is_due(&self.courses)) {
            learner.settle()?;
        }
        self.averages()?;
        let accuracy = self.evaluations()?;
        self.tell(group, accuracy);
        self.rounds += 1;
        self.advance(group, shelf)
    }

    /// Lanes whose trials go different ways from here on are forked; each enters its next leg.
    fn part(&mut self) -> anyhow::Result<()> {
        let (courses, stages) = (&self.courses, self.stages);
        let frozen =
            |trial: usize, leg: usize| stages[trial].frozen(courses[trial].phase(leg)).map_err(anyhow::Error::msg);
        let mut index = 0;
        while index < self.learners.len() {
            if let Learner::Lane { lane, feed } = &mut self.learners[index] {
                let (place, first, feed) = (lane.history.place, lane.history.trials[0], *feed);
                let mut others = Vec::new();
                for trial in &lane.history.trials {
                    let agrees = courses[first].agrees(&courses[*trial], place);
                    if !agrees || place.step == 0 && frozen(first, place.leg)? != frozen(*trial, place.leg)? {
                        others.push(*trial);
                    }
                }
                let fork = if others.is_empty() { None } else { Some(lane.fork(others)?) };
                if place.step == 0 {
                    lane.enter(courses[first].phase(place.leg), frozen(first, place.leg)?, all_params(stages[first])?)?;
                    if lane.history.trials.iter().any(|trial| End::of(stages, courses, *trial, place.leg).share < 1.0) {
                        lane.begin()?;
                    }
                }
                self.learners.extend(fork.map(|fork| Learner::Lane { lane: Box::new(fork), feed }));
            }
            index += 1;
        }
        Ok(())
    }

    /// Takes weights into the means of those that end as one.
    fn averages(&mut self) -> anyhow::Result<()> {
        let courses = &self.courses;
        for learner in &mut self.learners {
            let start = std::time::Instant::now();
            let mut trials = Vec::new();
            match learner {
                Learner::Lane { lane, .. } if lane.history.record.ending == Ending::Finished => {
                    let place = lane.history.place;
                    trials.extend(lane.history.trials.iter().copied().filter(|trial| courses[*trial].averages(place)));
                    let mut shares: Vec<f64> = trials.iter().map(|trial| courses[*trial].average).collect();
                    shares.sort_by(f64::total_cmp);
                    shares.dedup();
                    shares.into_iter().try_for_each(|share| lane.average(share))?;
                }
                Learner::Lane { .. } => {}
                Learner::Bank { bank, .. } => {
                    for head in 0..bank.heads.len() {
                        let history = &bank.heads[head].history;
                        if courses[history.trials[0]].averages(history.place) {
                            trials.extend(history.trials.iter().copied());
                            bank.average(head)?;
                        }
                    }
                }
            }
            if !trials.is_empty() {
                self.spent.add(&trials, start.elapsed().as_secs_f64(), 0.0);
            }
        }
        Ok(())
    }

    /// Reads validation for everybody whose step asks for it. Returns an accuracy to tell.
    fn evaluations(&mut self) -> anyhow::Result<Option<f64>> {
        let courses = &self.courses;
        let due: Vec<usize> =
            (0..self.learners.len()).filter(|index| self.learners[*index].evaluates(courses)).collect();
        // What is learned from tells nothing.
        if due.is_empty() || matches!(self.part, Part::Again(_)) {
            return Ok(None);
        }
        let learners: Vec<&Learner> = due.iter().map(|index| &self.learners[*index]).collect();
        let found = scores(&learners, &self.split.val, &mut self.inputs, &self.manifest, &mut self.spent)?;
        let mut told = None;
        for (index, scores) in due.into_iter().zip(found) {
            match &mut self.learners[index] {
                Learner::Lane { lane, .. } => {
                    let course = &self.courses[lane.history.trials[0]];
                    let val = scores[0].1;
                    told = told.or(Some(val.accuracy));
                    let place = lane.history.place;
                    if lane.history.record.evaluation(course, place, val) {
                        lane.history.place.step = course.steps(place.leg) - 1;
                    }
                    let finished = lane.history.record.ending == Ending::Finished;
                    if !course.keep_best || finished && lane.keep_best(val.of(course.metric))? {
                        lane.history.latest = scores.into_iter().next();
                    }
                }
                Learner::Bank { bank, .. } => {
                    for (head, (answers, val)) in scores.into_iter().enumerate() {
                        told = told.or(Some(val.accuracy));
                        let history = &mut bank.heads[head].history;
                        let course = &self.courses[history.trials[0]];
                        if history.record.ending == Ending::Diverged {
                            continue;
                        }
                        let place = history.place;
                        let over = history.record.evaluation(course, place, val);
                        bank.heads[head].stops = over;
                        let finished = bank.heads[head].history.record.ending == Ending::Finished;
                        if !course.keep_best || finished && bank.keep_best(head, val.of(course.metric))? {
                            let scored_now = course.average == 0.0;
                            bank.heads[head].history.latest = scored_now.then_some((answers, val));
                        }
                    }
                }
            }
        }
        Ok(told)
    }

    fn tell(&self, group: &mut Group, accuracy: Option<f64>) {
        if accuracy.is_none() && !self.rounds.is_multiple_of(16) {
            return;
        }
        let Some(learner) = self.learners.first() else { return };
        let history = learner.first();
        let course = &self.courses[history.trials[0]];
        let before: usize = (0..history.place.leg).map(|leg| course.steps(leg)).sum();
        let steps = (0..course.legs()).map(|leg| course.steps(leg)).sum();
        let step = before + history.place.step + 1;
        group.tell(Progress { step, steps, loss: history.record.last_loss(), accuracy });
    }

    /// Moves everybody on; legs end, trials are scored and leave.
    fn advance(&mut self, group: &mut Group, shelf: &mut Shelf) -> anyhow::Result<()> {
        let mut ended: Vec<Learner> = Vec::new();
        for learner in std::mem::take(&mut self.learners) {
            match learner {
                Learner::Lane { mut lane, feed } => {
                    let course = lane.course_of(&self.courses);
                    let (place, over) = (lane.history.place, lane.history.record.ending == Ending::Diverged);
                    if !over && place.step + 1 == course.steps(place.leg) {
                        for (lane, end) in self.by_end(lane)? {
                            self.end_leg(lane, end, feed, &mut ended)?;
                        }
                        continue;
                    }
                    lane.history.place.step += 1;
                    if over { &mut ended } else { &mut self.learners }.push(Learner::Lane { lane, feed });
                }
                Learner::Bank { mut bank, feed } => {
                    let courses = &self.courses;
                    let gone = bank.take(|head| {
                        let place = head.history.place;
                        head.stops
                            || head.history.record.ending == Ending::Diverged
                            || place.step + 1 == courses[head.history.trials[0]].steps(place.leg)
                    })?;
                    ended.extend(gone.map(|bank| Learner::Bank { bank, feed }));
                    bank.heads.iter_mut().for_each(|head| head.history.place.step += 1);
                    if !bank.heads.is_empty() {
                        self.learners.push(Learner::Bank { bank, feed });
                    }
                }
            }
        }
        self.finish(ended, group, shelf)
    }

    /// A lane at the end of a leg, in as many as there are ends to which its trials come; each with its own.
    fn by_end(&self, mut lane: Box<Lane>) -> anyhow::Result<Vec<(Box<Lane>, End)>> {
        let leg = lane.history.place.leg;
        let end = |trial: usize| End::of(self.stages, &self.courses, trial, leg);
        let mut lanes = Vec::new();
        loop {
            let own = end(lane.history.trials[0]);
            let others: Vec<usize> = lane.history.trials.iter().copied().filter(|trial| end(*trial) != own).collect();
            if others.is_empty() {
                lanes.push((lane, own));
                return Ok(lanes);
            }
            let fork = lane.fork(others)?;
            lanes.push((lane, own));
            lane = Box::new(fork);
        }
    }

    /// Ends a leg; the lane goes on to its next one, or has come to its end.
    fn end_leg(&mut self, mut lane: Box<Lane>, end: End, feed: usize, ended: &mut Vec<Learner>) -> anyhow::Result<()> {
        lane.leave(end.average, end.share)?;
        lane.history.record.next_leg();
        let over = lane.history.record.ending == Ending::Diverged || self.split_at_end(&mut lane, feed, ended)?;
        lane.history.place = Place { leg: lane.history.place.leg + 1, step: 0 };
        if over { ended } else { &mut self.learners }.push(Learner::Lane { lane, feed });
        Ok(())
    }

    /// At the end of a leg: trials without another leg leave the lane. True if that is all of them.
    fn split_at_end(&self, lane: &mut Lane, feed: usize, ended: &mut Vec<Learner>) -> anyhow::Result<bool> {
        let next = lane.history.place.leg + 1;
        let over: Vec<usize> =
            lane.history.trials.iter().copied().filter(|trial| self.courses[*trial].legs() == next).collect();
        if over.len() == lane.history.trials.len() {
            return Ok(true);
        }
        if !over.is_empty() {
            ended.push(Learner::Lane { lane: Box::new(lane.fork(over)?), feed });
        }
        Ok(false)
    }
}

/// What becomes of a trial at the end of a leg.
#[derive(Clone, Copy, PartialEq)]
struct End {
    /// The last share of the leg over which weights are averaged.
    average: f64,
    /// How far of the way from where the leg began it goes.
    share: f64,
    calibrate: Calibrate,
}

impl End {
    /// Only of its last leg a trial takes anything but the last weights as they are.
    fn of(stages: &[&Train], courses: &[Course], trial: usize, leg: usize) -> Self {
        let Train { average, interpolate, calibrate, .. } = *stages[trial];
        match leg + 1 == courses[trial].legs() {
            true => Self { average, share: interpolate, calibrate },
            false => Self { average: 0.0, share: 1.0, calibrate: Calibrate::None },
        }
    }
}
