//! The lines between the main process and a worker: one JSON value each, in order.

use serde::{Deserialize, Serialize};

use crate::outcome::{Failure, Outcome, Progress};
use crate::plan::stage::Work;

/// Main process to worker: stages that run together.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub jobs: Vec<usize>,
    /// One for each job.
    pub works: Vec<Work>,
}

/// Worker to main process.
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
