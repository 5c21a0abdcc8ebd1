//! Networks of a group that take a step on the same batch: their first layers run as one product where that is faster here.
//! Both ways give the same bits, so the first steps of a group are the measurement.

use std::time::Instant;

use candle_core::Tensor;

use super::course::Course;
use super::lane::{Lane, Lesson, Turn};
use super::learner::Common;
use crate::exec::{Front, Network};
use crate::seed::{Stream, stream};

/// Steps that each way is tried before the faster one is kept.
const TRIES: usize = 6;
/// How much faster the steps must be together: less is noise.
pub const WORTH: f64 = 0.97;

/// What was measured of one set of networks.
#[derive(Default)]
pub struct Probe {
    tried: usize,
    /// The least seconds of a network's step for each image: apart, together.
    best: [Option<f64>; 2],
}

impl Probe {
    /// Whether the next step is taken together.
    fn together(&self) -> bool {
        self.ratio().map_or(self.tried % 2 == 1, |ratio| ratio < WORTH)
    }

    /// What a step together takes of the time that it takes apart, once both ways have been tried.
    pub fn ratio(&self) -> Option<f64> {
        match self.best {
            [Some(apart), Some(together)] if self.tried >= 2 * TRIES => Some(together / apart),
            _ => None,
        }
    }

    fn note(&mut self, together: bool, seconds: f64) {
        let best = &mut self.best[usize::from(together)];
        *best = Some(best.map_or(seconds, |best| best.min(seconds)));
        self.tried += 1;
    }
}

/// Whether two networks have the same first layers to train, and nothing that needs all gradients of one at once.
pub fn fit(one: &Lane, other: &Lane, courses: &[Course]) -> bool {
    let clips = |lane: &Lane| lane.course_of(courses).phase(lane.history.place.leg).clip.is_some();
    let (own, others) = (&one.network, &other.network);
    own.frozen == others.frozen
        && own.selected == others.selected
        && own.batch_norm == others.batch_norm
        && own.graph.alike(&others.graph)
        && !clips(one)
        && !clips(other)
}

/// One step of lanes that fit each other, on `x`.
///
/// # Errors
/// The shapes do not fit, or a label is beyond the classes.
pub fn learn(
    lanes: &mut [&mut Lane],
    x: &Tensor,
    lesson: &Lesson,
    common: &Common,
    probe: &mut Probe,
) -> anyhow::Result<()> {
    let mut turns: Vec<Turn> = lanes.iter().map(|lane| turn(lane, common)).collect();
    let front = if lanes.len() > 1 { Front::of(&lanes[0].network) } else { None };
    let together = probe.together();
    let start = Instant::now();
    match &front {
        Some(front) if together => learn_together(lanes, front, x, lesson, &mut turns)?,
        _ => {
            for (lane, turn) in lanes.iter_mut().zip(&mut turns) {
                lane.learn(x, lesson, turn)?;
            }
        }
    }
    if front.is_some() {
        probe.note(together, start.elapsed().as_secs_f64() / (lanes.len() * x.dim(0)?) as f64);
    }
    Ok(())
}

fn learn_together(
    lanes: &mut [&mut Lane],
    front: &Front,
    x: &Tensor,
    lesson: &Lesson,
    turns: &mut [Turn],
) -> anyhow::Result<()> {
    let networks: Vec<&Network> = lanes.iter().map(|lane| &lane.network).collect();
    let ahead = front.forward(&networks, x)?;
    let (mut going, mut pending) = (Vec::new(), Vec::new());
    for (place, (lane, turn)) in lanes.iter_mut().zip(turns.iter_mut()).enumerate() {
        if let Some(own) = lane.learn_from(&ahead[place], lesson, turn)? {
            going.push(place);
            pending.push(own);
        }
    }
    let Some(input) = ahead.first().filter(|_| !going.is_empty()) else { return Ok(()) };
    let networks: Vec<&Network> = going.iter().map(|place| &lanes[*place].network).collect();
    let gradients = front.backward(&networks, input, &pending)?;
    for (place, own) in going.into_iter().zip(gradients) {
        lanes[place].follow(own, &turns[place])?;
    }
    Ok(())
}

/// How a lane learns at its place: its phase, its rates, and the chance of its dropout.
pub fn turn<'a>(lane: &Lane, common: &Common<'a>) -> Turn<'a> {
    let (course, place) = (lane.course_of(common.courses), lane.history.place);
    let path = [common.stage.replicate as u64, place.leg as u64, place.step as u64];
    let dropout = stream(common.stage.seed, Stream::Dropout, &path);
    Turn { phase: course.phase(place.leg), now: course.now(place), dropout }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_way_is_kept_and_a_tie_is_none() {
        for (together, kept) in [(0.5, true), (0.99, false), (2.0, false)] {
            let mut probe = Probe::default();
            for _ in 0..2 * TRIES {
                let way = probe.together();
                probe.note(way, if way { together } else { 1.0 });
            }
            assert_eq!(probe.together(), kept, "{together}");
        }
    }
}
