//! How trials of a lock-step group end: their last scores, and the outcomes that are told.

use super::Floor;
use crate::outcome::{Ending, Outcome, Predictions, Scores};
use crate::train::abreast::Probe;
use crate::train::kept::keep;
use crate::train::learner::{Learner, scores};
use crate::train::record::{Finals, History, Left, Part, Record};
use crate::train::{Group, Shelf};

/// What was read of a history's last answers; nothing where it diverged.
#[derive(Clone, Default)]
struct Last {
    val: Option<(Predictions, Scores)>,
    test: Option<(Predictions, Scores)>,
    shifted: Predictions,
}

/// Parts banks in which some heads are so and others are not.
pub(super) fn part(learners: &mut Vec<Learner>, is_so: impl Fn(&History) -> bool) -> anyhow::Result<()> {
    let mut apart = Vec::new();
    for learner in learners.iter_mut() {
        if let Learner::Bank { bank, feed } = learner
            && !bank.heads.iter().all(|head| is_so(&head.history))
        {
            apart.extend(bank.take(|head| is_so(&head.history))?.map(|bank| Learner::Bank { bank, feed: *feed }));
        }
    }
    learners.extend(apart);
    Ok(())
}

impl Floor<'_> {
    /// Final scores on validation and, once, on test; the outcomes are told.
    pub(super) fn finish(&mut self, ended: Vec<Learner>, group: &mut Group, shelf: &mut Shelf) -> anyhow::Result<()> {
        let mut finished = Vec::new();
        shelf.warn(self.inputs.warning());
        for learner in ended {
            if let Learner::Lane { lane, .. } = &learner {
                shelf.warn(lane.warning());
            }
            match learner {
                Learner::Bank { mut bank, feed } => {
                    bank.check()?;
                    let diverged = bank.take(|head| head.history.record.ending == Ending::Diverged)?;
                    for head in diverged.into_iter().flat_map(|bank| bank.heads) {
                        self.close(&head.history, Last::default(), group, shelf)?;
                    }
                    if !bank.heads.is_empty() {
                        finished.push(Learner::Bank { bank, feed });
                    }
                }
                Learner::Lane { lane, .. } if lane.history.record.ending == Ending::Diverged => {
                    self.close(&lane.history, Last::default(), group, shelf)?;
                    self.network = Some(lane.network);
                }
                lane => finished.push(lane),
            }
        }
        if finished.is_empty() {
            return Ok(());
        }
        self.calibrate(&mut finished)?;
        // Heads whose scores are known are not read because others in their bank are.
        part(&mut finished, |history| history.latest.is_some())?;
        let learners: Vec<&Learner> = finished.iter().collect();
        let again = matches!(self.part, Part::Again(_));
        let (inputs, spent, manifest) = (&mut self.inputs, &mut self.spent, &self.manifest);
        let mut of = |learners: &[&Learner], samples: &[u32]| -> anyhow::Result<Vec<(Predictions, Scores)>> {
            Ok(scores(learners, samples, inputs, manifest, spent)?.into_iter().flatten().collect())
        };
        // A leg ends with an evaluation, and what is kept of an earlier one has its scores: only what was made of several, and what
        // was cooled, is scored once more.
        let is_known = |learner: &&&Learner| learner.histories().iter().all(|history| history.latest.is_some());
        let stale: Vec<&Learner> = learners.iter().filter(|learner| !is_known(learner)).copied().collect();
        let mut found = if again || stale.is_empty() { Vec::new() } else { of(&stale, &self.split.val)? }.into_iter();
        let mut scored = Vec::new();
        for learner in learners.iter().filter(|_| !again) {
            for history in learner.histories() {
                let own = if is_known(&learner) { history.latest.clone() } else { found.next() };
                scored.push(own.ok_or_else(|| anyhow::anyhow!("validation was not read"))?);
            }
        }
        let mut val = (!again).then(|| scored.into_iter());
        let mut read = |samples: &[u32]| of(&learners, samples);
        let only_val = matches!(self.part, Part::First);
        // Trials that are not tested run with none that are.
        let untested = only_val || self.stages[0].untested;
        let mut test = if untested { None } else { Some(read(&self.split.test)?.into_iter()) };
        let none = untested || self.split.shifted.is_empty();
        let mut shifted = if none { None } else { Some(read(&self.split.shifted)?.into_iter()) };
        for learner in &learners {
            for (index, history) in learner.histories().into_iter().enumerate() {
                if !only_val {
                    for trial in &history.trials {
                        keep(group.works[self.ids[*trial]], || learner.weights(index))?;
                    }
                }
                let next = |list: &mut Option<std::vec::IntoIter<_>>| list.as_mut().and_then(Iterator::next);
                let shifted = next(&mut shifted).map_or_else(Predictions::default, |(answers, _)| answers);
                self.close(history, Last { val: next(&mut val), test: next(&mut test), shifted }, group, shelf)?;
            }
        }
        drop(learners);
        if let Some(Learner::Lane { lane, .. }) = finished.pop() {
            self.network = Some(lane.network);
        }
        Ok(())
    }

    /// Tells the outcomes of the trials of a history, or keeps them for their second training.
    fn close(&mut self, history: &History, last: Last, group: &mut Group, shelf: &mut Shelf) -> anyhow::Result<()> {
        for trial in &history.trials {
            let Last { val, test, shifted } = last.clone();
            let mut record = history.record.clone();
            // Without finite numbers on validation there is nothing to train again.
            let mut val = if matches!(self.part, Part::First) {
                let finite = val.filter(|(_, scores)| scores.loss.is_finite());
                record.ending = if finite.is_some() { record.ending } else { Ending::Diverged };
                finite
            } else {
                val
            };
            if matches!(self.part, Part::First)
                && let Some(val) = val.take()
            {
                let (seconds, macs) = (self.spent.seconds[*trial], self.spent.macs[*trial]);
                self.left.insert(self.ids[*trial], Left { record, val, seconds, macs });
                continue;
            }
            if let Part::Again(left) = &mut self.part
                && let Some(left) = left.remove(&self.ids[*trial])
            {
                self.spent.add(&[*trial], left.seconds, left.macs);
                val = Some(left.val);
                record = left.record.and(&record);
            }
            // A second training that diverged has left nothing to test.
            let finals = val.filter(|_| test.is_some() || self.stages[*trial].untested);
            let finals = finals.map(|val| Finals { val, test, shifted });
            let outcome = self.outcome(*trial, record, finals, shelf);
            group.done(self.ids[*trial], outcome, shelf);
        }
        Ok(())
    }

    fn outcome(&self, trial: usize, record: Record, finals: Option<Finals>, shelf: &Shelf) -> Outcome {
        let course = &self.courses[trial];
        let steps: usize = (0..course.legs()).map(|leg| course.steps(leg)).sum();
        let left = record.outcome(finals, &self.split, &self.manifest);
        Outcome {
            seconds: self.spent.seconds[trial],
            macs: self.spent.macs[trial],
            numerics: shelf.places.numerics.clone(),
            part: (left.steps as f64 / steps as f64).min(1.0),
            trial: Some(left),
            warnings: Vec::new(),
            group: self.stages.len(),
            abreast: self.probes.get(&trial).and_then(Probe::ratio),
        }
    }
}
