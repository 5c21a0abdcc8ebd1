//! One sweep: feeds the slots from the queue, and turns what the workers say into events.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::Event;
use super::pool::{Heard, Pool};
use super::protocol::Line;
use super::queue::Queue;
use crate::outcome::{Failure, FailureClass};
use crate::plan::stage::Work;

/// How a person has asked the sweep to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    No,
    /// Nothing new starts; what runs is finished.
    Cleanly,
    AtOnce,
}

/// How a sweep ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing waits any more.
    Complete,
    Stopped,
    /// None of what waits may start any more.
    Spent,
    NoDevice(String),
    /// Nothing more can be written, as a stage found; what ran beside it has finished.
    DiskFull(String),
}

/// A slot dies so often in a row only if every worker does: then the sweep cannot go on.
const DEATHS: usize = 5;

/// Runs the queue's jobs, whose work `work` gives, until nothing is left, nothing that is left may start, or a stop is asked
/// for. `may_start` says of jobs that would start together whether they may.
///
/// # Errors
/// A worker cannot be started, or `listen` fails (the store cannot be written).
pub fn sweep(
    queue: &mut Queue,
    pool: &mut Pool,
    work: impl Fn(usize) -> anyhow::Result<Work>,
    stop: impl Fn() -> Stop,
    may_start: impl Fn(&[usize]) -> bool,
    mut listen: impl FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<End> {
    let mut idle = Vec::new();
    let mut busy: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut deaths = 0;
    let mut full: Option<String> = None;
    (0..pool.slots()).try_for_each(|slot| pool.start(slot))?;
    while !queue.is_over() {
        match stop() {
            Stop::AtOnce => {
                pool.end(true);
                return Ok(End::Stopped);
            }
            Stop::Cleanly if busy.is_empty() => return Ok(End::Stopped),
            Stop::Cleanly => {}
            Stop::No if full.is_some() => {
                if let Some(message) = full.take_if(|_| busy.is_empty()) {
                    pool.end(false);
                    return Ok(End::DiskFull(message));
                }
            }
            Stop::No => {
                feed(queue, pool, &mut idle, &mut busy, &work, &may_start, &mut listen)?;
                // Where nothing runs, what waits could start: it needs nothing that is still to come.
                if busy.is_empty() && !idle.is_empty() {
                    pool.end(false);
                    return Ok(End::Spent);
                }
            }
        }
        let Some((slot, heard)) = pool.hear(Duration::from_millis(200)) else { continue };
        match heard {
            Heard::Line(Line::Ready) => idle.push(slot),
            Heard::Line(Line::Progress(progress)) => {
                let jobs = busy.get(&slot).cloned().unwrap_or_default();
                listen(Event::Progress { jobs, progress })?;
            }
            Heard::Line(Line::NoDevice(failure)) => return Ok(End::NoDevice(failure.message)),
            Heard::Line(Line::Finished { job, outcome }) => {
                queue.finished(job);
                listen(Event::Finished { job, outcome })?;
                busy.entry(slot).or_default().retain(|running| *running != job);
                deaths = 0;
            }
            Heard::Line(Line::Done { failure }) => {
                idle.push(slot);
                if let Some(failure) = failure.as_ref().filter(|failure| failure.class == FailureClass::DiskFull) {
                    // No fault of what ran, and all others would meet it.
                    full.get_or_insert_with(|| failure.message.clone());
                } else if let Some(failure) = failure {
                    fail(queue, busy.remove(&slot).unwrap_or_default(), &failure, false, &mut listen)?;
                }
                busy.remove(&slot);
            }
            Heard::Gone(how) => {
                idle.retain(|other| *other != slot);
                deaths += 1;
                let failure =
                    Failure { class: FailureClass::Killed, message: format!("the worker process ended: {how}") };
                fail(queue, busy.remove(&slot).unwrap_or_default(), &failure, true, &mut listen)?;
                anyhow::ensure!(deaths < DEATHS * pool.slots(), "workers die as soon as they start ({how})");
                if stop() == Stop::No {
                    pool.start(slot)?;
                }
            }
        }
    }
    pool.end(false);
    Ok(End::Complete)
}

/// Notes that jobs of one group have failed, and what can never run for that.
fn fail(
    queue: &mut Queue,
    jobs: Vec<usize>,
    failure: &Failure,
    died: bool,
    listen: &mut impl FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for job in jobs {
        let again = queue.failed(job, died);
        listen(Event::Failed { job, failure: failure.clone(), again })?;
    }
    for job in queue.block() {
        listen(Event::Blocked { job })?;
    }
    Ok(())
}

fn feed(
    queue: &mut Queue,
    pool: &mut Pool,
    idle: &mut Vec<usize>,
    busy: &mut BTreeMap<usize, Vec<usize>>,
    work: &impl Fn(usize) -> anyhow::Result<Work>,
    may_start: &impl Fn(&[usize]) -> bool,
    listen: &mut impl FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    idle.sort_unstable();
    while let Some(slot) = idle.first().copied() {
        let jobs = queue.start(may_start);
        if jobs.is_empty() {
            break;
        }
        let works = jobs.iter().map(|job| work(*job)).collect::<anyhow::Result<_>>()?;
        pool.order(slot, jobs.clone(), works);
        listen(Event::Started { jobs: jobs.clone() })?;
        idle.remove(0);
        busy.insert(slot, jobs);
    }
    Ok(())
}
