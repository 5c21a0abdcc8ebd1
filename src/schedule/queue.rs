//! The queue: a plain value that says which jobs are next, alone or in groups. No threads, no clock, no processes.

use std::collections::HashMap;

use crate::key::Key;

/// A stage to run, and the stages that must be done before it.
#[derive(Clone, Debug)]
pub struct Job {
    pub key: Key,
    pub needs: Vec<Key>,
    /// Jobs of one bond may run as a group: they share work. A decision of the queue, which stands in no key.
    pub bond: Option<Key>,
    /// Multiply-accumulates, by which groups are cut so that every slot has something to do.
    pub macs: f64,
    /// Memory that the job takes beside others in its group.
    pub bytes: f64,
    /// Whether all of its bond cost what one costs, so that nothing is won by cutting the group.
    pub whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Waiting,
    Running,
    Done,
    Failed,
    /// Something that it needs has failed.
    Blocked,
}

/// What bounds a group.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub slots: usize,
    /// Memory of one slot.
    pub bytes: f64,
}

/// Attempts that a job gets when its worker dies: a second one, alone with a fresh process.
const ATTEMPTS: usize = 2;

pub struct Queue {
    jobs: Vec<Job>,
    limits: Limits,
    states: Vec<State>,
    /// Attempts of each job on its own.
    attempts: Vec<usize>,
    /// The largest group that a job may run in: halved when one fails.
    largest: Vec<usize>,
    /// The size of the group that a job runs in.
    group: Vec<usize>,
    by_key: HashMap<Key, usize>,
    bonds: HashMap<Key, Vec<usize>>,
    /// All jobs before this one have been started, so that a long queue is not searched from its start each time.
    first: usize,
    open: usize,
    waiting_macs: f64,
}

impl Queue {
    /// Jobs run in this order where their needs allow it. A need that is not a job here is there already.
    pub fn new(jobs: Vec<Job>, limits: Limits) -> Self {
        let by_key = jobs.iter().enumerate().map(|(index, job)| (job.key, index)).collect();
        let mut bonds: HashMap<Key, Vec<usize>> = HashMap::new();
        for (index, job) in jobs.iter().enumerate() {
            if let Some(bond) = job.bond {
                bonds.entry(bond).or_default().push(index);
            }
        }
        let count = jobs.len();
        Self {
            limits,
            states: vec![State::Waiting; count],
            attempts: vec![0; count],
            largest: vec![usize::MAX; count],
            group: vec![0; count],
            by_key,
            bonds,
            first: 0,
            open: count,
            waiting_macs: jobs.iter().map(|job| job.macs).sum(),
            jobs,
        }
    }

    pub fn state(&self, job: usize) -> State {
        self.states[job]
    }

    /// Starts the first job that can run and `may` start, and those that may run with it: as many as fit the memory, leave the
    /// other slots their part of what waits, and `may` start together. Empty where nothing can run.
    pub fn start(&mut self, may: impl Fn(&[usize]) -> bool) -> Vec<usize> {
        while self.first < self.jobs.len() && self.states[self.first] != State::Waiting {
            self.first += 1;
        }
        let mut waiting = self.first..self.jobs.len();
        let Some(first) = waiting.find(|job| self.can_run(*job) && may(&[*job])) else { return Vec::new() };
        let fair = self.waiting_macs / self.limits.slots.max(1) as f64;
        let mut group = vec![first];
        let (mut macs, mut bytes) = (self.jobs[first].macs, self.jobs[first].bytes);
        let bonded = self.jobs[first].bond.and_then(|bond| self.bonds.get(&bond)).map_or(&[][..], Vec::as_slice);
        for other in bonded.iter().copied().filter(|other| *other > first && self.can_run(*other)) {
            let job = &self.jobs[other];
            let most = group.iter().map(|member| self.largest[*member]).min().unwrap_or(1).min(self.largest[other]);
            // A group may pass its part by half a job, so that two slots do not leave a third round for one.
            let unfair = !job.whole && macs + job.macs / 2.0 > fair;
            let full = group.len() >= most || bytes + job.bytes > self.limits.bytes || unfair;
            if full {
                break;
            }
            group.push(other);
            if !may(&group) {
                group.pop();
                break;
            }
            (macs, bytes) = (macs + job.macs, bytes + job.bytes);
        }
        self.waiting_macs -= macs;
        for member in &group {
            self.states[*member] = State::Running;
            self.group[*member] = group.len();
            self.attempts[*member] += usize::from(group.len() == 1);
        }
        group
    }

    fn can_run(&self, job: usize) -> bool {
        self.states[job] == State::Waiting && self.needs(job).all(|need| self.states[need] == State::Done)
    }

    fn needs(&self, job: usize) -> impl Iterator<Item = usize> + '_ {
        self.jobs[job].needs.iter().filter_map(|key| self.by_key.get(key).copied())
    }

    pub fn finished(&mut self, job: usize) {
        self.states[job] = State::Done;
        self.open -= 1;
    }

    /// Notes a failure. One of a group is tried again in a group of half the size, until the culprit stands alone; alone,
    /// a job whose worker died gets another attempt. True where it is tried again.
    pub fn failed(&mut self, job: usize, worker_died: bool) -> bool {
        let grouped = self.group[job] > 1;
        if grouped {
            self.largest[job] = self.group[job].div_ceil(2);
        }
        let again = grouped || worker_died && self.attempts[job] < ATTEMPTS;
        if again {
            self.states[job] = State::Waiting;
            self.waiting_macs += self.jobs[job].macs;
        } else {
            self.states[job] = State::Failed;
            self.open -= 1;
        }
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
                self.open -= 1;
                self.waiting_macs -= self.jobs[job].macs;
                found.push(job);
            }
        }
        found
    }

    /// Whether nothing waits or runs.
    pub fn is_over(&self) -> bool {
        self.open == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::of_bytes(name.as_bytes())
    }

    fn job(name: &str, needs: &[&str], bond: Option<&str>) -> Job {
        let needs = needs.iter().map(|need| key(need)).collect();
        Job { key: key(name), needs, bond: bond.map(key), macs: 1.0, bytes: 1.0, whole: false }
    }

    fn always(_: &[usize]) -> bool {
        true
    }

    fn queue(jobs: &[(&str, &[&str])]) -> Queue {
        let jobs = jobs.iter().map(|(name, needs)| job(name, needs, None)).collect();
        Queue::new(jobs, Limits { slots: 1, bytes: 100.0 })
    }

    fn bonded(count: usize, slots: usize, bytes: f64) -> Queue {
        let jobs = (0..count).map(|index| job(&index.to_string(), &[], Some("tap"))).collect();
        Queue::new(jobs, Limits { slots, bytes })
    }

    #[test]
    fn a_job_waits_for_what_it_needs_and_others_go_first() {
        let mut queue = queue(&[("source", &[]), ("probe", &["source"]), ("scratch", &[])]);
        assert_eq!(queue.start(always), [0]);
        assert_eq!(queue.start(always), [2]);
        assert!(queue.start(always).is_empty());
        queue.finished(0);
        assert_eq!(queue.start(always), [1]);
    }

    #[test]
    fn a_need_that_is_no_job_is_there_already() {
        let mut queue = queue(&[("probe", &["stored"])]);
        assert_eq!(queue.start(always), [0]);
    }

    #[test]
    fn a_dead_worker_costs_a_second_attempt_and_then_the_job() {
        let mut queue = queue(&[("trial", &[]), ("above", &["trial"]), ("top", &["above"])]);
        assert_eq!(queue.start(always), [0]);
        assert!(queue.failed(0, true));
        assert_eq!(queue.start(always), [0]);
        assert!(!queue.failed(0, true));
        assert_eq!(queue.block(), [1, 2]);
        assert!(queue.is_over());
    }

    #[test]
    fn an_ordinary_failure_is_not_tried_again() {
        let mut queue = queue(&[("trial", &[])]);
        queue.start(always);
        assert!(!queue.failed(0, false));
        assert_eq!(queue.state(0), State::Failed);
    }

    #[test]
    fn a_group_leaves_the_other_slots_their_part_and_fits_the_memory() {
        let mut two_slots = bonded(8, 2, 100.0);
        assert_eq!(two_slots.start(always), [0, 1, 2, 3]);
        assert_eq!(two_slots.start(always), [4, 5]);
        assert_eq!(two_slots.start(always), [6]);
        assert_eq!(bonded(8, 1, 3.0).start(always), [0, 1, 2]);
        let one_pass = (0..4).map(|index| Job { whole: true, ..job(&index.to_string(), &[], Some("pass")) });
        assert_eq!(Queue::new(one_pass.collect(), Limits { slots: 2, bytes: 100.0 }).start(always), [0, 1, 2, 3]);
    }

    #[test]
    fn what_may_not_start_is_passed_over_and_groups_end_where_they_may() {
        let mut one = queue(&[("long", &[]), ("short", &[]), ("above", &["long"])]);
        let short = |jobs: &[usize]| jobs == [1];
        assert_eq!(one.start(short), [1]);
        assert!(one.start(short).is_empty() && !one.is_over());
        assert_eq!(one.start(always), [0]);
        assert_eq!(bonded(8, 1, 100.0).start(|jobs| jobs.len() <= 3), [0, 1, 2]);
    }

    #[test]
    fn a_group_that_fails_is_halved_until_the_culprit_stands_alone() {
        let mut queue = bonded(5, 1, 100.0);
        let mut sizes = Vec::new();
        while !queue.is_over() {
            let group = queue.start(always);
            sizes.push(group.len());
            for job in &group {
                // Job 3 breaks every group that it is in.
                if group.contains(&3) {
                    {
                        queue.failed(*job, false);
                    }
                } else {
                    queue.finished(*job)
                }
            }
        }
        assert_eq!(sizes, [5, 3, 2, 1, 1]);
        let states: Vec<State> = (0..5).map(|job| queue.state(job)).collect();
        assert_eq!(states, [State::Done, State::Done, State::Done, State::Failed, State::Done]);
    }

    proptest::proptest! {
        /// Whatever fails: every job ends, none runs twice at a time, and one that no fault touched is done.
        #[test]
        fn every_job_ends_whatever_fails(
            bonds in proptest::collection::vec(0..4usize, 1..30),
            culprits in proptest::collection::vec(proptest::bool::ANY, 30),
            slots in 1..4usize,
        ) {
            let jobs = bonds.iter().enumerate().map(|(index, bond)| job(&index.to_string(), &[], Some(&format!("bond {bond}"))));
            let mut queue = Queue::new(jobs.collect(), Limits { slots, bytes: 8.0 });
            for _ in 0..1000 {
                if queue.is_over() {
                    break;
                }
                let group = queue.start(always);
                proptest::prop_assert!(!group.is_empty());
                let breaks = group.iter().any(|job| culprits[*job]);
                for job in group {
                    if breaks { { queue.failed(job, true); } } else { queue.finished(job) }
                }
            }
            proptest::prop_assert!(queue.is_over());
            for (job, culprit) in culprits.iter().enumerate().take(bonds.len()) {
                let expected = if *culprit { State::Failed } else { State::Done };
                proptest::prop_assert_eq!(queue.state(job), expected);
            }
        }
    }
}
