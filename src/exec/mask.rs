//! What dropout and stochastic depth let through: which layers drop, and how their masks are drawn and applied.

use candle_core::{Result, Tensor};

use super::Network;
use crate::model::graph::Op;
#[cfg(feature = "cuda")]
use crate::nn;
use crate::nn::{gate, join};
use crate::seed::Rng;

/// What a dropout has let through: zeros and 1 / (1 - p).
pub(super) enum Mask {
    Drawn(Vec<f32>),
    #[cfg(feature = "cuda")]
    Told(Tensor),
}

impl Mask {
    /// x times the mask: a number for each of its own, or for each image.
    pub(super) fn over(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Drawn(mask) if mask.len() < x.elem_count() => gate::images(x, mask),
            Self::Drawn(mask) => join::dropout(x, mask),
            #[cfg(feature = "cuda")]
            Self::Told(mask) if mask.elem_count() < x.elem_count() => nn::cuda::images(x, mask),
            #[cfg(feature = "cuda")]
            Self::Told(mask) => nn::cuda::dropout(x, mask),
        }
    }
}

/// With what probability a layer drops, and how many numbers its mask has for so many images; nothing if it drops nothing.
pub(super) fn drops(network: &Network, index: usize, images: usize) -> Option<(f64, usize)> {
    let layer = &network.graph.layers[index];
    let (p, count) = match layer.op {
        Op::Dropout(p) => (p, images * layer.shape.iter().product::<usize>()),
        Op::DropPath(p) => (p, images),
        _ => return None,
    };
    // What is frozen is as in an evaluation.
    (p > 0.0 && network.is_active(index)).then_some((p, count))
}

/// A mask of so many numbers.
pub(super) fn drawn(p: f64, count: usize, rng: &mut Rng) -> Vec<f32> {
    let keep = (1.0 / (1.0 - p)) as f32;
    (0..count).map(|_| if rng.chance(p) { 0.0 } else { keep }).collect()
}
