//! What happens during a sweep, in order, told to whoever listens: the store, the progress line.

use crate::outcome::{Failure, Outcome, Progress};

/// Jobs are told by their index in the queue, slots by their number.
#[derive(Debug)]
pub enum Event {
    /// Jobs that run together have started.
    Started {
        jobs: Vec<usize>,
    },
    /// Of a group, named by its jobs that still run.
    Progress {
        jobs: Vec<usize>,
        progress: Progress,
    },
    Finished {
        job: usize,
        outcome: Box<Outcome>,
    },
    Failed {
        job: usize,
        failure: Failure,
        again: bool,
    },
    /// Will never run: something that it needs has failed.
    Blocked {
        job: usize,
    },
}
