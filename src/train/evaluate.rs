//! Predictions and scores, counted batch by batch.

use crate::nn::loss::log_probability;
use crate::outcome::{Predictions, Scores, score};

/// Images of one pass. Results do not depend on it.
pub const BATCH: usize = 64;

/// The answers of one network so far.
#[derive(Default)]
pub struct Tally {
    found: Predictions,
    truth: Vec<u32>,
    loss: f64,
}

impl Tally {
    /// Counts one row of logits.
    pub fn row(&mut self, logits: &[f32], class: u32) {
        let best = (0..logits.len()).fold(0, |best, class| if logits[class] > logits[best] { class } else { best });
        let log_probability = log_probability(logits, class as usize);
        self.loss -= log_probability;
        self.truth.push(class);
        self.found.predicted.push(best as u16);
        self.found.probability.push(log_probability.exp() as f32);
    }

    /// Answers and scores; the loss is not finite where some row was not.
    pub fn close(mut self, samples: &[u32], classes: usize) -> (Predictions, Scores) {
        let loss = self.loss / samples.len().max(1) as f64;
        let scores = score(&self.found.predicted, &self.truth, classes, loss);
        self.found.samples = samples.to_vec();
        (self.found, scores)
    }
}
