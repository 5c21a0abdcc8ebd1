//! The lines between the main process and a worker: one JSON value each, in order.

use serde::{Deserialize, Serialize};

use crate::outcome::{Failure, Outcome, Progress};
use crate::plan::stage::Work;

/// Main process to worker: stages that run together.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Which of the worker's lanes runs it.
    pub lane: usize,
    pub jobs: Vec<usize>,
    /// One for each job.
    pub works: Vec<Work>,
}

/// Worker to main process: a line, and the lane that says it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Said {
    pub lane: usize,
    pub line: Line,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// The device is open; orders may come.
    Ready,
    /// Of the order that runs.
    Progress(Progress),
    Finished {
        job: usize,
        outcome: Box<Outcome>,
    },
    /// The order is done: nothing more comes of it. What has not finished has failed.
    Done {
        failure: Option<Failure>,
    },
    /// The device cannot be used at all.
    NoDevice(Failure),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Point, Predictions, Scores};

    /// serde_json's ordinary way of reading takes the third of them for its neighbour.
    #[test]
    fn numbers_keep_their_last_bit_on_the_way() {
        for loss in [0.1, 0.021544346900318832, 1.3446238297435633, f64::MIN_POSITIVE, 1.0 + f64::EPSILON, 1e300 / 3.0]
        {
            let said = Said { lane: 0, line: Line::Progress(Progress { step: 1, steps: 2, loss, accuracy: None }) };
            let line = serde_json::to_string(&said).expect("a line");
            let heard: Said = serde_json::from_str(&line).expect("the same line");
            let Line::Progress(progress) = heard.line else { panic!("another line") };
            assert_eq!(progress.loss.to_bits(), loss.to_bits(), "{line}");
        }
    }

    #[test]
    fn what_has_diverged_can_be_told() {
        for loss in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let progress = Progress { step: 17, steps: 20, loss, accuracy: None };
            let line = serde_json::to_string(&progress).expect("a line");
            assert!(serde_json::from_str::<Progress>(&line).expect("the same line").loss.is_nan(), "{line}");
            let scores = Scores { loss, ..Scores::default() };
            let point = Point { step: 1, epoch: 0.1, lr: 0.1, train_loss: loss, val: scores };
            let line = serde_json::to_string(&point).expect("a line");
            let heard: Point = serde_json::from_str(&line).expect("the same line");
            assert!(heard.train_loss.is_nan() && heard.val.loss.is_nan(), "{line}");
        }
        let probability = vec![f32::NAN, 0.25];
        let confidence = vec![f32::NAN, 0.75];
        let found = Predictions { samples: vec![0, 1], predicted: vec![1, 1], probability, confidence };
        let line = serde_json::to_string(&found).expect("a line");
        let heard: Predictions = serde_json::from_str(&line).expect("the same line");
        assert!(heard.probability[0].is_nan() && heard.probability[1] == 0.25, "{line}");
    }
}
