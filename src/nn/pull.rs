//! The pull of parameters back to where they started, as a gradient beside their own.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::buffer::{self, with};
use super::kernel::on_every_path;

/// Numbers of one task.
const TASK: usize = 16_384;

/// What pulls parameters back to where they started: L2-SP (Li, Grandvalet and Davoine, 2018).
#[derive(Clone, Debug)]
pub struct Pull {
    pub strength: f64,
    /// Per layer, its tensors at the start; empty where nothing pulls.
    pub to: Vec<Vec<Tensor>>,
}

impl Pull {
    /// Adds to the gradient of parameter `(layer, which)`, in place, that of strength / 2 times its squared distance from
    /// where it started.
    ///
    /// # Errors
    /// The shapes differ.
    pub fn add(&self, (layer, which): (usize, usize), parameter: &Tensor, gradient: &Tensor) -> Result<()> {
        self.to[layer].get(which).map_or(Ok(()), |start| pull(gradient, parameter, start, self.strength))
    }
}

fn pull(gradient: &Tensor, parameter: &Tensor, start: &Tensor, strength: f64) -> Result<()> {
    if gradient.shape() != parameter.shape() || gradient.shape() != start.shape() {
        candle_core::bail!("a gradient of {:?} does not fit {:?}", gradient.shape(), parameter.shape());
    }
    #[cfg(feature = "cuda")]
    if gradient.device().is_cuda() {
        return super::cuda::optim::pull(gradient, parameter, start, strength);
    }
    let strength = strength as f32;
    with([parameter, start], |[parameter, start]| {
        buffer::in_place(gradient, |gradient| {
            let parts = gradient.par_chunks_mut(TASK).zip(parameter.par_chunks(TASK)).zip(start.par_chunks(TASK));
            parts.for_each(|((g, w), start)| pull_part(g, w, start, strength));
        })
    })?
}

on_every_path! {
    fn pull_part(gradient: &mut [f32], w: &[f32], start: &[f32], strength: f32) {
        let _ = FUSED;
        for (g, (w, start)) in gradient.iter_mut().zip(w.iter().zip(start)) {
            *g += strength * (*w - *start);
        }
    }
}
