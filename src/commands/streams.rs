//! How many trials run side by side on a GPU where nobody says: small ones do not fill it, large ones fill it alone.

use std::collections::HashSet;

use super::jobs::{self, Jobs, What};
use super::world::World;
use crate::plan::Plan;
use crate::plan::stage::Work;
use crate::train;
use crate::train::pace::Subject;

/// Streams of a GPU at most: with ResNet-20 on an H200, 8 give 2.9 times the trials of one, and 16 no more (benches/gpu.md).
const MOST: usize = 8;
/// Multiply-accumulates of a step that leaves room for others. An H200 does some 10^14 a second where it is filled, and a step of
/// a small network takes a millisecond for its launches alone.
const SMALL: f64 = 1e11;
/// The part of free memory that all streams may take together.
const PART: f64 = 0.5;

/// Sets the streams of GPUs by the largest stage that is to run, unless `asked` says how many; and what they are worth.
///
/// # Errors
/// The GPU's pace cannot be measured.
pub fn settle(plan: &Plan, jobs: &Jobs, asked: Option<usize>, world: &mut World) -> anyhow::Result<()> {
    let count = world.devices.count();
    let Some(free) = world.devices.memory(count) else { return Ok(()) };
    let works = works(plan, jobs, world);
    let known = |work: &Work| Some((train::device_bytes(work, None).ok()?, train::device_macs(work).ok()?));
    let stages: Option<Vec<(usize, f64)>> = works.iter().map(known).collect();
    // What cannot be told is taken to be large; running it says what is wrong with it.
    let lanes = asked.unwrap_or_else(|| stages.as_deref().map_or(1, |stages| streams(stages, free)));
    world.facts.slots = count * lanes;
    let macs = |work: &&Work| train::device_macs(work).unwrap_or(0.0);
    let largest = works.iter().max_by(|one, other| macs(one).total_cmp(&macs(other)));
    world.gain = match largest.and_then(|work| Subject::of(&work.stage).ok()) {
        Some(subject) => world.rates.gain(lanes, &subject)?,
        None => 1.0,
    };
    Ok(())
}

/// Streams for stages of so many bytes and multiply-accumulates of a step, in so much free memory.
fn streams(stages: &[(usize, f64)], free: f64) -> usize {
    let most = stages.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0).max(1) as f64;
    let small = stages.iter().all(|(_, macs)| *macs < SMALL);
    if small { ((PART * free / most) as usize).clamp(1, MOST) } else { 1 }
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
    use super::streams;

    #[test]
    fn small_stages_share_a_gpu_as_far_as_its_memory_goes() {
        let small = (1 << 28, 2e10);
        assert_eq!(streams(&[small, (1 << 20, 1e6)], 1e11), 8);
        assert_eq!(streams(&[small], 8.0 * f64::from(1 << 28)), 4);
        assert_eq!(streams(&[small], 1e6), 1);
        assert_eq!(streams(&[small, (1 << 30, 1e12)], 1e11), 1);
    }
}
