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
