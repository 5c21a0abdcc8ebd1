//! Probabilities that say how often answers are right: what has come to its end is calibrated on validation, before it is scored.

use super::Floor;
use crate::nn::temperature::temperature;
use crate::recipe::Calibrate;
use crate::train::learner::{Learner, logits};
use crate::train::record::{History, Part};

impl Floor<'_> {
    /// Chooses temperatures on validation, and divides logits by them. Where validation images are learned from, the temperature is
    /// that of the first training.
    pub(super) fn calibrate(&mut self, ended: &mut Vec<Learner>) -> anyhow::Result<()> {
        let asks = |history: &History| self.stages[history.trials[0]].calibrate == Calibrate::Temperature;
        // Heads that ask for none are read once less.
        let mut apart = Vec::new();
        for learner in ended.iter_mut() {
            if let Learner::Bank { bank, feed } = learner
                && !bank.heads.iter().all(|head| asks(&head.history))
            {
                apart.extend(bank.take(|head| asks(&head.history))?.map(|bank| Learner::Bank { bank, feed: *feed }));
            }
        }
        ended.extend(apart);
        let which: Vec<usize> = (0..ended.len()).filter(|index| asks(ended[*index].first())).collect();
        let class = |sample: &u32| self.manifest.samples[*sample as usize].class;
        let labels: Vec<u32> = self.split.val.iter().map(class).collect();
        for learner in which {
            let learner = &mut ended[learner];
            let trials: Vec<usize> = learner.histories().iter().map(|history| self.ids[history.trials[0]]).collect();
            let chosen: Vec<Option<f64>> = match &self.part {
                Part::Again(left) => {
                    trials.iter().map(|trial| left.get(trial).and_then(|left| left.record.temperature)).collect()
                }
                Part::Only | Part::First => {
                    let rows = logits(learner, &self.split.val, &mut self.inputs, &mut self.spent)?;
                    let of = |rows: Vec<f32>| temperature(&rows, &labels, self.manifest.classes.len());
                    // Logits that are no numbers diverge with their scores.
                    let finite = |rows: &Vec<f32>| rows.iter().all(|logit| logit.is_finite());
                    let rows = rows.into_iter().map(|rows| Some(rows).filter(finite).map(of).transpose());
                    rows.collect::<candle_core::Result<_>>()?
                }
            };
            for (index, temperature) in chosen.into_iter().enumerate() {
                match (learner as &mut Learner, temperature) {
                    (_, None) => {}
                    (Learner::Lane { lane, .. }, Some(temperature)) => lane.cool(temperature)?,
                    (Learner::Bank { bank, .. }, Some(temperature)) => bank.cool(index, temperature)?,
                }
            }
        }
        Ok(())
    }
}
