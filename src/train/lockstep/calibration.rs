//! Probabilities that say how often answers are right: what has come to its end is calibrated on validation, before it is scored.

use super::Floor;
use super::ends::part;
use crate::nn::temperature::temperature;
use crate::recipe::Calibrate;
use crate::train::learner::{Learner, logits};
use crate::train::record::{History, Part};

impl Floor<'_> {
    /// Divides logits by temperatures, where trials ask for it.
    pub(super) fn calibrate(&mut self, ended: &mut Vec<Learner>) -> anyhow::Result<()> {
        let stages = self.stages;
        let asks = |history: &History| stages[history.trials[0]].calibrate == Calibrate::Temperature;
        // Heads that ask for none are read once less.
        part(ended, asks)?;
        for learner in ended.iter_mut().filter(|learner| asks(learner.first())) {
            let chosen = self.temperatures(learner)?;
            match learner {
                Learner::Bank { bank, .. } => bank.cool(&chosen)?,
                Learner::Lane { lane, .. } => {
                    for temperature in chosen.into_iter().flatten() {
                        lane.cool(temperature)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Of each history of a learner the temperature that validation chooses; where validation images are learned from, the one of
    /// the first training. None where logits are no numbers: they diverge with their scores.
    fn temperatures(&mut self, learner: &Learner) -> anyhow::Result<Vec<Option<f64>>> {
        if let Part::Again(left) = &self.part {
            let of = |history: &History| left.get(&self.ids[history.trials[0]])?.record.temperature;
            return Ok(learner.histories().into_iter().map(of).collect());
        }
        let class = |sample: &u32| self.manifest.samples[*sample as usize].class;
        let labels: Vec<u32> = self.split.val.iter().map(class).collect();
        let classes = self.manifest.classes.len();
        let of = |rows: Vec<f32>| match rows.iter().all(|logit| logit.is_finite()) {
            true => temperature(&rows, &labels, classes).map(Some),
            false => Ok(None),
        };
        let rows = logits(learner, &self.split.val, &mut self.inputs, &mut self.spent)?;
        Ok(rows.into_iter().map(of).collect::<candle_core::Result<_>>()?)
    }
}
