//! How many trials run side by side on a GPU where nobody says: as many streams as do more together, which is measured, and as
//! memory has room for.

use std::collections::HashSet;

use super::jobs::{self, Jobs, What};
use super::world::World;
use crate::plan::Plan;
use crate::plan::stage::Work;
use crate::train;
use crate::train::pace::Subject;

/// Numbers of streams that are tried in turn: with ResNet-20 on an H200, 8 give 2.9 times the trials of one, and 16 no more
/// (benches/gpu.md).
const TRIED: [usize; 3] = [2, 4, 8];
/// Twice the streams are worth their memory where they do so many times the work.
const WORTH: f64 = 1.1;
/// The part of free memory that all streams may take together.
const PART: f64 = 0.5;

/// Sets the streams of GPUs by the largest stage that is to run, unless `asked` says how many; and what they are worth.
///
/// # Errors
/// The process that measures the GPU cannot be started.
pub fn settle(plan: &Plan, jobs: &Jobs, asked: Option<usize>, world: &mut World) -> anyhow::Result<()> {
    let count = world.devices.count();
    let Some(free) = world.devices.memory(count) else { return Ok(()) };
    let works = works(plan, jobs, world);
    let subject = largest(&works);
    let gain = |lanes: usize| subject.as_ref().map_or(Ok(1.0), |subject| world.rates.gain(lanes, subject));
    let bytes: Option<Vec<usize>> = works.iter().map(|work| train::device_bytes(work, None).ok()).collect();
    let (lanes, worth) = match (asked, bytes) {
        (Some(asked), _) => (asked, gain(asked)?),
        // What cannot be told is taken to be large; running it says what is wrong with it.
        (None, bytes) => streams(room(bytes.as_deref(), free), gain)?,
    };
    (world.facts.slots, world.gain) = (count * lanes, worth);
    Ok(())
}

/// Streams that there is memory for.
fn room(stages: Option<&[usize]>, free: f64) -> usize {
    let largest = stages.map_or(f64::INFINITY, |stages| stages.iter().copied().max().unwrap_or(0).max(1) as f64);
    (PART * free / largest) as usize
}

/// How many, of at most `room`, and how much more they do together than one.
fn streams(room: usize, gain: impl Fn(usize) -> anyhow::Result<f64>) -> anyhow::Result<(usize, f64)> {
    let (mut lanes, mut worth) = (1, 1.0);
    for more in TRIED.into_iter().take_while(|more| *more <= room) {
        let found = gain(more)?;
        if found < WORTH * worth {
            break;
        }
        (lanes, worth) = (more, found);
    }
    Ok((lanes, worth))
}

/// What the stage with the largest step does.
pub fn largest(works: &[Work]) -> Option<Subject> {
    let macs = |work: &&Work| train::device_macs(work).unwrap_or(0.0);
    let largest = works.iter().max_by(|one, other| macs(one).total_cmp(&macs(other)));
    largest.and_then(|work| Subject::of(&work.stage).ok())
}

/// The stages that are to run, one of each shape.
pub fn works(plan: &Plan, jobs: &Jobs, world: &World) -> Vec<Work> {
    let mut seen = HashSet::new();
    let own = |what: &What| match what {
        What::Shared(work) => Some((**work).clone()),
        What::Trial { cell, .. } => {
            let cell = &plan.cells[*cell];
            seen.insert(cell.shape()).then(|| jobs::trial_work(plan, cell, 0, world, &jobs.kept).ok())?
        }
    };
    jobs.list.iter().map(|job| &job.what).filter_map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_as_many_as_do_more_together_and_as_have_room() {
        let of = |room: usize, gains: [f64; 3]| {
            let gain =
                |lanes: usize| Ok(gains[TRIED.iter().position(|tried| *tried == lanes).expect("a tried number")]);
            streams(room, gain).expect("no process")
        };
        assert_eq!(of(100, [1.6, 2.4, 2.9]), (8, 2.9));
        assert_eq!(of(7, [1.6, 2.4, 2.9]), (4, 2.4));
        assert_eq!(of(100, [1.6, 1.7, 2.9]), (2, 1.6), "what does not pay at once is not gone beyond");
        assert_eq!(of(100, [1.0, 1.0, 1.0]), (1, 1.0), "a large network fills the GPU alone");
        assert_eq!(of(1, [1.6, 2.4, 2.9]), (1, 1.0));
        assert_eq!([room(Some(&[1 << 28, 1 << 20]), 8.0 * f64::from(1 << 28)), room(None, 1e12)], [4, 0]);
    }
}
