//! The lines between the main process and a worker: one JSON value each, in order.

use serde::{Deserialize, Serialize};

use crate::outcome::{Failure, Outcome, Progress};
use crate::plan::stage::Work;

/// Main process to worker.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub job: usize,
    pub work: Work,
}

/// Worker to main process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// The device is open; orders may come.
    Ready,
    Progress {
        job: usize,
        progress: Progress,
    },
    Finished {
        job: usize,
        outcome: Box<Outcome>,
    },
    Failed {
        job: usize,
        failure: Failure,
    },
    /// The device cannot be used at all.
    NoDevice(Failure),
}
