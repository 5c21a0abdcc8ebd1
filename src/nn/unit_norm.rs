//! Every pixel's channels over their length (PyTorch 2's `F.normalize`, Keras 3's `UnitNormalization`): where CLIP compares images
//! with texts. Images are [n, height, width, channels].

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};
use super::kernel::{add_lanes, madd, on_every_path};
use super::norm::tasks;

/// What lengths are at least: that of PyTorch.
pub(super) const LEAST: f32 = 1e-12;

/// The sum of products, in sixteen lanes: AVX-512, AVX2 and NEON give the same bits.
#[inline(always)]
fn dot<const FUSED: bool>(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    for (x, y) in x.chunks(16).zip(y.chunks(16)) {
        for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane = madd::<FUSED>(*x, *y, *lane);
        }
    }
    add_lanes(&lanes)
}

on_every_path! {
    fn units(x: &[f32], channels: usize, y: &mut [f32]) {
        for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            let inverse = 1.0 / dot::<FUSED>(x, x).sqrt().max(LEAST);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x * inverse);
        }
    }
}

on_every_path! {
    fn gradients(x: &[f32], dy: &[f32], channels: usize, dx: &mut [f32]) {
        let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
        for (dx, (x, dy)) in dx.chunks_exact_mut(channels).zip(rows) {
            let length = dot::<FUSED>(x, x).sqrt();
            let inverse = 1.0 / length.max(LEAST);
            // What has no length has no direction that could turn.
            let along = if length > LEAST { dot::<FUSED>(x, dy) * inverse * inverse } else { 0.0 };
            dx.iter_mut().zip(x.iter().zip(dy)).for_each(|(dx, (x, dy))| *dx = (dy - x * along) * inverse);
        }
    }
}

/// y = x / max(|x|, 1e-12).
///
/// # Errors
/// Only those of the device.
pub fn forward(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::unit_norm::forward(x);
    }
    let channels = x.dim(x.rank() - 1)?;
    let mut y = buffer::take(x.elem_count());
    with([x], |[x]| {
        let task = tasks(channels);
        y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| units(x, channels, y));
    })?;
    tensor(y, x.shape().clone())
}

/// The gradient of x: (dy - y (y dy)) / |x|.
///
/// # Errors
/// The shapes differ.
pub fn backward(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    if x.shape() != dy.shape() {
        bail!("a gradient of shape {:?} does not fit {:?}", dy.shape(), x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::unit_norm::backward(x, dy);
    }
    let channels = x.dim(x.rank() - 1)?;
    let mut dx = buffer::take(x.elem_count());
    with([x, dy], |[x, dy]| {
        let task = tasks(channels);
        let parts = dx.par_chunks_mut(task).zip(x.par_chunks(task).zip(dy.par_chunks(task)));
        parts.for_each(|(dx, (x, dy))| gradients(x, dy, channels, dx));
    })?;
    tensor(dx, x.shape().clone())
}
