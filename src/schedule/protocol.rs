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
}
