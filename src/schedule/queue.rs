//! The queue: a plain value that says which job is next. No threads, no clock, no processes.

use std::collections::HashMap;

use crate::key::Key;

/// A stage to run, and the stages that must be done before it.
#[derive(Clone, Debug)]
pub struct Job {
    pub key: Key,
    pub needs: Vec<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Waiting,
    Running {
        slot: usize,
    },
    Done,
    Failed,
    /// Something that it needs has failed.
    Blocked,
}

/// Attempts that a job gets when its worker dies: a second one, alone with a fresh process.
const ATTEMPTS: usize = 2;

pub struct Queue {
    jobs: Vec<Job>,
    states: Vec<State>,
    attempts: Vec<usize>,
    by_key: HashMap<Key, usize>,
    /// All jobs before this one have been started, so that a long queue is not searched from its start each time.
    first: usize,
}

impl Queue {
    /// Jobs run in this order where their needs allow it. A need that is not a job here is there already.
    pub fn new(jobs: Vec<Job>) -> Self {
        let by_key = jobs.iter().enumerate().map(|(index, job)| (job.key, index)).collect();
        Self { states: vec![State::Waiting; jobs.len()], attempts: vec![0; jobs.len()], by_key, jobs, first: 0 }
    }

    pub fn state(&self, job: usize) -> State {
        self.states[job]
    }

    /// Starts the first job that can run, on `slot`.
    pub fn next(&mut self, slot: usize) -> Option<usize> {
        while self.first < self.jobs.len() && self.states[self.first] != State::Waiting {
            self.first += 1;
        }
        let job = (self.first..self.jobs.len()).find(|job| self.states[*job] == State::Waiting && self.ready(*job))?;
        self.states[job] = State::Running { slot };
        self.attempts[job] += 1;
        Some(job)
    }

    fn ready(&self, job: usize) -> bool {
        self.needs(job).all(|need| self.states[need] == State::Done)
    }

    fn needs(&self, job: usize) -> impl Iterator<Item = usize> + '_ {
        self.jobs[job].needs.iter().filter_map(|key| self.by_key.get(key).copied())
    }

    pub fn finished(&mut self, job: usize) {
        self.states[job] = State::Done;
    }

    /// Notes a failure. A job whose worker died waits for its next attempt, if it has one: then this is true.
    pub fn failed(&mut self, job: usize, worker_died: bool) -> bool {
        let again = worker_died && self.attempts[job] < ATTEMPTS;
        self.states[job] = if again { State::Waiting } else { State::Failed };
        self.first = self.first.min(job);
        again
    }

    /// Jobs that can never run now, newly found.
    pub fn block(&mut self) -> Vec<usize> {
        let mut found = Vec::new();
        for job in 0..self.jobs.len() {
            let stuck = self.states[job] == State::Waiting
                && self.needs(job).any(|need| matches!(self.states[need], State::Failed | State::Blocked));
            if stuck {
                self.states[job] = State::Blocked;
                found.push(job);
            }
        }
        found
    }

    /// Whether nothing waits or runs.
    pub fn is_over(&self) -> bool {
        !self.states.iter().any(|state| matches!(state, State::Waiting | State::Running { .. }))
    }

    pub fn running(&self) -> usize {
        self.states.iter().filter(|state| matches!(state, State::Running { .. })).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::of_bytes(name.as_bytes())
    }

    fn queue(jobs: &[(&str, &[&str])]) -> Queue {
        Queue::new(
            jobs.iter()
                .map(|(name, needs)| Job { key: key(name), needs: needs.iter().map(|need| key(need)).collect() })
                .collect(),
        )
    }

    #[test]
    fn a_job_waits_for_what_it_needs_and_others_go_first() {
        let mut queue = queue(&[("source", &[]), ("probe", &["source"]), ("scratch", &[])]);
        assert_eq!(queue.next(0), Some(0));
        assert_eq!(queue.next(1), Some(2));
        assert_eq!(queue.next(2), None);
        queue.finished(0);
        assert_eq!(queue.next(2), Some(1));
    }

    #[test]
    fn a_need_that_is_no_job_is_there_already() {
        let mut queue = queue(&[("probe", &["stored"])]);
        assert_eq!(queue.next(0), Some(0));
    }

    #[test]
    fn a_dead_worker_costs_a_second_attempt_and_then_the_job() {
        let mut queue = queue(&[("trial", &[]), ("above", &["trial"]), ("top", &["above"])]);
        assert_eq!(queue.next(0), Some(0));
        assert!(queue.failed(0, true));
        assert_eq!(queue.next(0), Some(0));
        assert!(!queue.failed(0, true));
        assert_eq!(queue.block(), [1, 2]);
        assert!(queue.is_over());
    }

    #[test]
    fn an_ordinary_failure_is_not_tried_again() {
        let mut queue = queue(&[("trial", &[])]);
        queue.next(0);
        assert!(!queue.failed(0, false));
        assert_eq!(queue.state(0), State::Failed);
    }
}
