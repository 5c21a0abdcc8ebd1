//! ReLU and ReLU6, forward and backward. A NaN stays a NaN, so that a diverged network shows.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};
use super::kernel::on_every_path;

/// Numbers of one task.
const TASK: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Linear,
    Relu,
    Relu6,
}

impl Activation {
    /// The bounds between which the function is the identity.
    pub(super) fn bounds(self) -> (f32, f32) {
        match self {
            Self::Linear => (f32::NEG_INFINITY, f32::INFINITY),
            Self::Relu => (0.0, f32::INFINITY),
            Self::Relu6 => (0.0, 6.0),
        }
    }
}

/// `value` held between the bounds; NaN passes.
#[inline(always)]
pub(super) fn hold(value: f32, low: f32, high: f32) -> f32 {
    let value = if value < low { low } else { value };
    if value > high { high } else { value }
}

/// In place, on this thread.
pub(super) fn apply(values: &mut [f32], activation: Activation) {
    let (low, high) = activation.bounds();
    if activation != Activation::Linear {
        hold_all(values, low, high);
    }
}

on_every_path! {
    fn hold_all(values: &mut [f32], low: f32, high: f32) {
        let _ = FUSED;
        values.iter_mut().for_each(|value| *value = hold(*value, low, high));
    }
}

on_every_path! {
    fn hold_into(x: &[f32], low: f32, high: f32, y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = hold(*x, low, high));
    }
}

on_every_path! {
    /// dy where y lies between the bounds, zero elsewhere.
    fn pass(y: &[f32], dy: &[f32], low: f32, high: f32, dx: &mut [f32]) {
        let _ = FUSED;
        for (dx, (y, dy)) in dx.iter_mut().zip(y.iter().zip(dy)) {
            *dx = if *y > low && *y < high { *dy } else { 0.0 };
        }
    }
}

/// Elementwise, any shape.
///
/// # Errors
/// Only those of the device.
pub fn forward(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if activation == Activation::Linear {
        return Ok(x.clone());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::activation::forward(x, activation);
    }
    let (low, high) = activation.bounds();
    let mut y = buffer::take(x.elem_count());
    with([x], |[x]| {
        y.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(y, x)| hold_into(x, low, high, y));
    })?;
    tensor(y, x.shape().clone())
}

/// The gradient of the input, from the output: nothing passes where the output is at a bound.
///
/// # Errors
/// The shapes differ.
pub fn backward(y: &Tensor, dy: &Tensor, activation: Activation) -> Result<Tensor> {
    if activation == Activation::Linear {
        return Ok(dy.clone());
    }
    if y.shape() != dy.shape() {
        candle_core::bail!("a gradient of shape {:?} does not fit {:?}", dy.shape(), y.shape());
    }
    #[cfg(feature = "cuda")]
    if y.device().is_cuda() {
        return super::cuda::activation::backward(y, dy, activation);
    }
    let (low, high) = activation.bounds();
    let mut dx = buffer::take(y.elem_count());
    with([y, dy], |[y, dy]| {
        dx.par_chunks_mut(TASK).zip(y.par_chunks(TASK)).zip(dy.par_chunks(TASK)).for_each(|((dx, y), dy)| {
            pass(y, dy, low, high, dx);
        });
    })?;
    tensor(dx, y.shape().clone())
}
