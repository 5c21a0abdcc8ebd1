//! `--budget`: what a sweep may still start, so that it ends in the time that it was given.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::jobs::{Jobs, What};

/// A time, and how well the forecast of what has run has held.
pub struct Budget {
    given: Duration,
    start: Instant,
    /// Seconds that finished jobs were to take, and took.
    foreseen: Cell<f64>,
    took: Cell<f64>,
}

/// The forecast is believed as if so many seconds of it had come true already.
const TRUST: f64 = 10.0;

impl Budget {
    /// From now on.
    pub fn new(given: Duration) -> Self {
        Self { given, start: Instant::now(), foreseen: Cell::new(TRUST), took: Cell::new(TRUST) }
    }

    /// Whether jobs that are to take so many seconds of one slot end in time, by what others have taken so far.
    pub fn fits(&self, seconds: f64) -> bool {
        self.fits_after(self.start.elapsed(), seconds)
    }

    fn fits_after(&self, elapsed: Duration, seconds: f64) -> bool {
        let pace = self.took.get() / self.foreseen.get();
        elapsed.as_secs_f64() + pace * seconds <= self.given.as_secs_f64()
    }

    /// Notes what a job was to take, and took.
    pub fn learn(&self, foreseen: f64, took: f64) {
        self.foreseen.set(self.foreseen.get() + foreseen);
        self.took.set(self.took.get() + took);
    }

    /// What is said where it ends a sweep, with the jobs that wait.
    pub fn spent(&self, waiting: usize) -> String {
        format!(
            "what is left of {} is too short for any of the {waiting} stages that wait",
            humantime::format_duration(self.given)
        )
    }
}

/// What a sweep would have run at the end of its budget, by the forecast.
pub struct Reach {
    given: Duration,
    pub trials: usize,
    /// Trials that are to run in all.
    pub of: usize,
    /// Replicates of all cells among them.
    pub replicates: usize,
}

impl Reach {
    /// For slots whose work is done in the time of so many.
    pub fn of(given: Duration, jobs: &Jobs, slots: f64) -> Self {
        let (mut before, mut trials, mut of) = (0.0, 0, 0);
        let mut replicates = usize::MAX;
        for job in &jobs.list {
            let fits = before / slots + job.seconds <= given.as_secs_f64();
            before += if fits { job.seconds } else { 0.0 };
            if let What::Trial { replicate, .. } = job.what {
                of += 1;
                trials += usize::from(fits);
                replicates = if fits { replicates } else { replicates.min(replicate) };
            }
        }
        Self { given, trials, of, replicates }
    }

    pub fn told(&self) -> String {
        let given = humantime::format_duration(self.given);
        let all = match (self.trials == self.of, self.replicates) {
            (true, _) => String::new(),
            (_, 0) => ": not one replicate of all cells".to_owned(),
            (_, 1) => ": the first replicate of all cells, at least".to_owned(),
            (_, count) => format!(": the first {count} replicates of all cells, at least"),
        };
        format!("in {given}: about {} of the {} trials that are to run{all}", self.trials, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_is_given_less_to_do() {
        let budget = Budget::new(Duration::from_secs(100));
        let fits = |elapsed: u64, seconds: f64| budget.fits_after(Duration::from_secs(elapsed), seconds);
        assert!(fits(0, 99.0) && !fits(0, 101.0) && fits(60, 39.0) && !fits(60, 41.0) && !fits(101, 0.0));
        // 30 seconds were foreseen, 70 it took; with the ten of trust, all takes twice as long.
        budget.learn(30.0, 70.0);
        assert!(fits(0, 49.0) && !fits(0, 51.0) && fits(60, 19.0) && !fits(60, 21.0));
    }
}
