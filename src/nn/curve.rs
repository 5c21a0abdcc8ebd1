//! SiLU and the sigmoid, forward and backward. Nothing is fused and no system's `exp` is asked: all paths give the same bits. A
//! NaN stays a NaN.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};
use super::kernel::on_every_path;

/// Numbers of one task.
const TASK: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// x / (1 + e^-x).
    Silu,
    /// 1 / (1 + e^-x).
    Sigmoid,
}

/// Beyond it e^x leaves the numbers of f32.
const FARTHEST: f32 = 87.0;
/// ln 2 in two parts, the first with zeros at its end (Cody and Waite, 1980).
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Added to a number below 2^22 it rounds that to a whole one, which stands in the last bits.
const TO_WHOLE: f32 = 12_582_912.0;
/// 1/n! from n = 7 down to 0: the rest is below 2^-27 where |r| <= ln 2 / 2.
const TAYLOR: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// 1 / (1 + e^-x).
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    // What is no number stays none: `clamp` would do as well, but not in one instruction.
    let x = if x < -FARTHEST { -FARTHEST } else { x };
    let x = if x > FARTHEST { FARTHEST } else { x };
    let whole = -x * std::f32::consts::LOG2_E + TO_WHOLE;
    let count = whole - TO_WHOLE;
    let rest = -x - count * LN_2[0] - count * LN_2[1];
    let mut sum = TAYLOR[0];
    for term in &TAYLOR[1..] {
        sum = sum * rest + term;
    }
    1.0 / (1.0 + sum * f32::from_bits(whole.to_bits().wrapping_add(127) << 23))
}

on_every_path! {
    fn sigmoids(x: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = sigmoid(*x));
    }
}

on_every_path! {
    fn silus(x: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * sigmoid(*x));
    }
}

on_every_path! {
    fn sigmoid_slopes(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let _ = FUSED;
        for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
            let y = sigmoid(*x);
            *dx = dy * (y * (1.0 - y));
        }
    }
}

on_every_path! {
    fn silu_slopes(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let _ = FUSED;
        for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
            let part = sigmoid(*x);
            *dx = dy * (part * (1.0 + x * (1.0 - part)));
        }
    }
}

/// Elementwise, any shape.
///
/// # Errors
/// Only those of the device.
pub fn forward(x: &Tensor, curve: Curve) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::curve::forward(x, curve);
    }
    let mut y = buffer::take(x.elem_count());
    with([x], |[x]| {
        y.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(y, x)| match curve {
            Curve::Silu => silus(x, y),
            Curve::Sigmoid => sigmoids(x, y),
        });
    })?;
    tensor(y, x.shape().clone())
}

/// The gradient of the input x, from x: SiLU's output alone does not say which of two inputs it was.
///
/// # Errors
/// The shapes differ.
pub fn backward(x: &Tensor, dy: &Tensor, curve: Curve) -> Result<Tensor> {
    if x.shape() != dy.shape() {
        bail!("a gradient of shape {:?} does not fit {:?}", dy.shape(), x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::curve::backward(x, dy, curve);
    }
    let mut dx = buffer::take(x.elem_count());
    with([x, dy], |[x, dy]| {
        dx.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).zip(dy.par_chunks(TASK)).for_each(
            |((dx, x), dy)| match curve {
                Curve::Silu => silu_slopes(x, dy, dx),
                Curve::Sigmoid => sigmoid_slopes(x, dy, dx),
            },
        );
    })?;
    tensor(dx, x.shape().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sigmoid_is_right_to_the_last_places() {
        let worst = (-800_000..800_000).map(|at| {
            let x = at as f32 * 1e-4;
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            ((f64::from(sigmoid(x)) - exact) / exact).abs() / f64::from(f32::EPSILON)
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst <= 2.0, "{worst} units");
    }

    #[test]
    fn the_ends_hold_and_no_number_stays_none() {
        assert_eq!([sigmoid(f32::INFINITY), sigmoid(1e30), sigmoid(0.0), sigmoid(-0.0)], [1.0, 1.0, 0.5, 0.5]);
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-37 && sigmoid(f32::NAN).is_nan());
    }
}
