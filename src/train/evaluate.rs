//! Predictions and scores, counted batch by batch.

use crate::nn::loss::{Answer, Answers};
use crate::outcome::{Predictions, Scores, score};

/// Images of one pass. Results do not depend on it.
pub const BATCH: usize = 64;

/// The answers of one network so far.
#[derive(Clone, Default)]
struct Tally {
    found: Predictions,
    truth: Vec<u32>,
    loss: f64,
}

impl Tally {
    /// Counts the answer to an image of a class.
    fn count(&mut self, answer: Answer, class: u32) {
        self.loss -= answer.label;
        self.truth.push(class);
        self.found.predicted.push(answer.class as u16);
        self.found.probability.push(libm::exp(answer.label) as f32);
        self.found.confidence.push(libm::exp(answer.top) as f32);
    }

    fn close(mut self, samples: &[u32], classes: usize) -> (Predictions, Scores) {
        let loss = self.loss / samples.len().max(1) as f64;
        let scores = score(&self.found.predicted, &self.truth, classes, loss);
        self.found.samples = samples.to_vec();
        (self.found, scores)
    }
}

/// Answers and scores of several heads, from their answers to batches of `samples` in their order, whose classes `truth`
/// tells. A loss is not finite where some row's was not.
///
/// # Errors
/// The device has failed.
pub fn close(
    batches: Vec<Answers>,
    heads: usize,
    samples: &[u32],
    truth: &[u32],
    classes: usize,
) -> candle_core::Result<Vec<(Predictions, Scores)>> {
    let mut tallies = vec![Tally::default(); heads];
    let mut rows = truth.iter();
    for batch in batches {
        for (own, class) in batch.read()?.chunks_exact(heads).zip(&mut rows) {
            tallies.iter_mut().zip(own).for_each(|(tally, answer)| tally.count(*answer, *class));
        }
    }
    Ok(tallies.into_iter().map(|tally| tally.close(samples, classes)).collect())
}
