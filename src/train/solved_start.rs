//! The head that a trial starts from, where it is solved on the features of the untrained network and made as sure as it is right
//! on validation (Guo et al., 2017): computed once by a worker for all trials that start from it.

use std::rc::Rc;
use std::time::Instant;

use candle_core::Tensor;

use super::Shelf;
use super::coded::{Codes, cooled};
use super::path::{How, Path};
use crate::data::split::split;
use crate::model::weights::Weights;
use crate::nn::solve::Head;
use crate::plan::stage::{Train, Work};

/// A head that was solved, and what that took.
pub struct SolvedHead {
    /// On training images.
    first: Head,
    /// On validation images too, where trials train again on both.
    again: Option<Head>,
    /// The strength that validation chose.
    pub lambda: Option<f64>,
    pub seconds: f64,
    /// Multiply-accumulates.
    pub macs: f64,
}

impl SolvedHead {
    /// Weights and biases at the beginning of a trial's first or second training, in memory of their own: numbers that train
    /// change where they lie.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn params(&self, again: bool) -> candle_core::Result<[Tensor; 2]> {
        let head = self.again.as_ref().filter(|_| again).unwrap_or(&self.first);
        Ok([head.weight.copy()?, head.bias.copy()?])
    }

    pub fn bytes(&self) -> usize {
        let bytes = |head: &Head| 4 * (head.weight.elem_count() + head.bias.elem_count());
        bytes(&self.first) + self.again.as_ref().map_or(0, bytes)
    }
}

/// The head that a trial starts from, and whether it was solved just now; none of a trial whose head is not solved. `weights` are
/// what its network starts from.
///
/// # Errors
/// Pixels or features cannot be read.
pub fn head(
    stage: &Train,
    work: &Work,
    weights: &Weights,
    shelf: &mut Shelf,
) -> anyhow::Result<Option<(Rc<SolvedHead>, bool)>> {
    let Some(key) = stage.solved_start_key().map_err(anyhow::Error::msg)? else { return Ok(None) };
    if let Some(known) = shelf.solved_heads.get(&key) {
        return Ok(Some((known.clone(), false)));
    }
    let head = Rc::new(solved(stage, work, weights, shelf)?);
    shelf.put_head(key, head.clone());
    Ok(Some((head, true)))
}

fn solved(stage: &Train, work: &Work, weights: &Weights, shelf: &mut Shelf) -> anyhow::Result<SolvedHead> {
    let begin = Instant::now();
    let (Some(start), Some(phase)) = (&stage.solved_start, stage.phases.first()) else {
        anyhow::bail!("a trial that starts from no solution")
    };
    let manifest = shelf.manifest(stage.data)?;
    let split = split(&manifest, stage.per_class, stage.seed, stage.replicate as u64).map_err(anyhow::Error::msg)?;
    let mut codes = Codes::new(stage, work, weights, shelf)?;
    let (train, val) = (codes.set(&split.train, &manifest)?, codes.set(&split.val, &manifest)?);
    shelf.warn(codes.warning());
    let how = How { optimizer: start.optimizer, strengths: &start.lambda, phase, metric: stage.metric };
    let mut path = Path::new(how, &train, &val);
    path.run(&mut |_| ())?;
    let chosen = path.chosen()?;
    let again = if stage.refit { Some(path.refitted(&chosen)?) } else { None };
    // Solutions answer images that they have seen with certainty, by large weights; the first image that they then fail on would
    // send gradients as large into what was learned before.
    let temperature = val.temperature(&chosen.head)?;
    let products = path.products + val.labels.len();
    let macs = codes.macs + products as f64 * chosen.head.weight.elem_count() as f64;
    let again = again.map(|head| cooled(head, temperature)).transpose()?;
    let (first, lambda) = (cooled(chosen.head, temperature)?, chosen.lambda);
    Ok(SolvedHead { first, again, lambda, seconds: begin.elapsed().as_secs_f64(), macs })
}
