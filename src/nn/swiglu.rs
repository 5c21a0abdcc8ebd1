//! SwiGLU (Shazeer, 2020): a map times the SiLU of another one.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};
use super::curve::sigmoid;
use super::kernel::on_every_path;

/// Numbers of one task.
const TASK: usize = 16_384;

/// silu(gate) * x, elementwise, any shape.
///
/// # Errors
/// The shapes differ.
pub fn forward(gate: &Tensor, x: &Tensor) -> Result<Tensor> {
    if gate.shape() != x.shape() {
        bail!("a gate of {:?} does not fit {:?}", gate.shape(), x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::swiglu::forward(gate, x);
    }
    let mut y = buffer::take(x.elem_count());
    with([gate, x], |[gate, x]| {
        let of_task = gate.par_chunks(TASK).zip(x.par_chunks(TASK));
        y.par_chunks_mut(TASK).zip(of_task).for_each(|(y, (gate, x))| products(gate, x, y));
    })?;
    tensor(y, x.shape().clone())
}

/// The gradients of the gate and of x.
///
/// # Errors
/// The shapes differ.
pub fn backward(gate: &Tensor, x: &Tensor, dy: &Tensor) -> Result<[Tensor; 2]> {
    if gate.shape() != x.shape() || x.shape() != dy.shape() {
        bail!("a gradient of {:?} does not fit {:?} and {:?}", dy.shape(), gate.shape(), x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::swiglu::backward(gate, x, dy);
    }
    let (mut dgate, mut dx) = (buffer::take(x.elem_count()), buffer::take(x.elem_count()));
    with([gate, x, dy], |[gate, x, dy]| {
        let of_task = gate.par_chunks(TASK).zip(x.par_chunks(TASK)).zip(dy.par_chunks(TASK));
        let found = dgate.par_chunks_mut(TASK).zip(dx.par_chunks_mut(TASK));
        found.zip(of_task).for_each(|((dgate, dx), ((gate, x), dy))| slopes(gate, x, dy, dgate, dx));
    })?;
    Ok([tensor(dgate, x.shape().clone())?, tensor(dx, x.shape().clone())?])
}

on_every_path! {
    fn products(gate: &[f32], x: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(gate.iter().zip(x)).for_each(|(y, (gate, x))| *y = gate * sigmoid(*gate) * x);
    }
}

on_every_path! {
    fn slopes(gate: &[f32], x: &[f32], dy: &[f32], dgate: &mut [f32], dx: &mut [f32]) {
        let _ = FUSED;
        for ((dgate, dx), ((gate, x), dy)) in dgate.iter_mut().zip(dx).zip(gate.iter().zip(x).zip(dy)) {
            let part = sigmoid(*gate);
            *dgate = dy * x * (part * (1.0 + gate * (1.0 - part)));
            *dx = dy * (gate * part);
        }
    }
}
