//! Predictions and scores of a network on a set of samples.

use super::source::Source;
use crate::data::Manifest;
use crate::exec::Network;
use crate::nn::loss::log_softmax;
use crate::outcome::{Predictions, Scores, score};

/// Images of one pass. Results do not depend on it.
const BATCH: usize = 64;

/// Answers and scores on `samples`; the loss is not finite where the network's outputs are not.
pub fn evaluate(
    network: &Network,
    source: &Source,
    samples: &[u32],
    manifest: &Manifest,
) -> anyhow::Result<(Predictions, Scores)> {
    let truth: Vec<u32> = samples.iter().map(|sample| manifest.samples[*sample as usize].class).collect();
    let mut found = Predictions { samples: samples.to_vec(), ..Predictions::default() };
    let mut total = 0.0;
    for (samples, truth) in samples.chunks(BATCH).zip(truth.chunks(BATCH)) {
        let logits = network.infer(&source.batch(samples, &network.device)?)?;
        for (row, class) in logits.to_vec2::<f32>()?.iter().zip(truth) {
            let best = (0..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best });
            let log_probability = log_softmax(row)[*class as usize];
            total -= log_probability;
            found.predicted.push(best as u16);
            found.probability.push(log_probability.exp() as f32);
        }
    }
    let loss = total / samples.len().max(1) as f64;
    let scores = score(&found.predicted, &truth, manifest.classes.len(), loss);
    Ok((found, scores))
}
