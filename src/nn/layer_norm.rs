//! Layer normalisation (Ba, Kiros and Hinton, 2016) over the channels of every pixel. Images are [n, height, width, channels]. A
//! pixel's numbers depend on nothing beside it, and what a pixel's statistics are is computed again in the backward pass.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};
use super::kernel::{add_lanes, madd, on_every_path};
use super::norm::{block, fold, tasks};

/// The sum of what `of` makes of each number, in sixteen lanes: AVX-512, AVX2 and NEON give the same bits.
#[inline(always)]
fn sum(x: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for x in whole {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane += of(*x);
        }
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += of(*x));
    add_lanes(&lanes)
}

/// The mean, and 1 / sqrt(variance + eps) with n in the variance's denominator.
#[inline(always)]
fn statistics(x: &[f32], eps: f32) -> [f32; 2] {
    let count = x.len() as f32;
    let mean = sum(x, |x| x) / count;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / count;
    [mean, 1.0 / (variance + eps).sqrt()]
}

on_every_path! {
    fn normalised(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) {
        let channels = weight.len();
        for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            let [mean, inverse] = statistics(x, eps);
            for ((y, x), (weight, bias)) in y.iter_mut().zip(x).zip(weight.iter().zip(bias)) {
                *y = madd::<FUSED>((x - mean) * inverse, *weight, *bias);
            }
        }
    }
}

on_every_path! {
    /// dx of rows; what they add to the gradients of weight and bias is added to those.
    fn gradients(x: &[f32], dy: &[f32], weight: &[f32], eps: f32, dx: &mut [f32], dweight: &mut [f32], dbias: &mut [f32]) {
        let channels = weight.len();
        let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
        for (dx, (x, dy)) in dx.chunks_exact_mut(channels).zip(rows) {
            let [mean, inverse] = statistics(x, eps);
            let (mut plain, mut along) = ([0f32; 16], [0f32; 16]);
            for start in (0..channels).step_by(16) {
                let end = (start + 16).min(channels);
                let parts = dy[start..end].iter().zip(&weight[start..end]).zip(&x[start..end]);
                for ((plain, along), ((dy, weight), x)) in plain.iter_mut().zip(&mut along).zip(parts) {
                    let slope = dy * weight;
                    *plain += slope;
                    *along = madd::<FUSED>(slope, (x - mean) * inverse, *along);
                }
            }
            let count = channels as f32;
            let (plain, along) = (add_lanes(&plain) / count, add_lanes(&along) / count);
            for index in 0..channels {
                let (at, dy) = ((x[index] - mean) * inverse, dy[index]);
                dx[index] = inverse * (dy * weight[index] - plain - at * along);
                dweight[index] = madd::<FUSED>(dy, at, dweight[index]);
                dbias[index] += dy;
            }
        }
    }
}

/// y = (x - mean) / sqrt(variance + eps) * weight + bias; weight and bias `[channels]`.
///
/// # Errors
/// The shapes differ.
pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let channels = fitting(x, weight)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::layer_norm::forward(x, weight, bias, eps);
    }
    let mut y = buffer::take(x.elem_count());
    with([x, weight, bias], |[x, weight, bias]| {
        let task = tasks(channels);
        let parts = y.par_chunks_mut(task).zip(x.par_chunks(task));
        parts.for_each(|(y, x)| normalised(x, weight, bias, eps as f32, y));
    })?;
    tensor(y, x.shape().clone())
}

/// The gradients of x, and of weight and bias.
///
/// # Errors
/// The shapes differ.
pub fn backward(x: &Tensor, weight: &Tensor, eps: f64, dy: &Tensor) -> Result<(Tensor, [Tensor; 2])> {
    let channels = fitting(x, weight)?;
    if x.shape() != dy.shape() {
        bail!("a gradient of shape {:?} does not fit {:?}", dy.shape(), x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::layer_norm::backward(x, weight, eps, dy);
    }
    let mut dx = buffer::take(x.elem_count());
    let totals = with([x, weight, dy], |[x, weight, dy]| {
        let (task, block) = (tasks(channels), block(channels));
        let parts = dx.par_chunks_mut(task).zip(x.par_chunks(task).zip(dy.par_chunks(task)));
        let of_task = |(dx, (x, dy)): (&mut [f32], (&[f32], &[f32]))| {
            let mut totals = [vec![0f64; channels], vec![0f64; channels]];
            let (mut dweight, mut dbias) = (vec![0f32; channels], vec![0f32; channels]);
            for (dx, (x, dy)) in dx.chunks_mut(block).zip(x.chunks(block).zip(dy.chunks(block))) {
                dweight.fill(0.0);
                dbias.fill(0.0);
                gradients(x, dy, weight, eps as f32, dx, &mut dweight, &mut dbias);
                fold(&dweight, &mut totals[0]);
                fold(&dbias, &mut totals[1]);
            }
            totals
        };
        let parts: Vec<[Vec<f64>; 2]> = parts.map(of_task).collect();
        let mut totals = [vec![0f64; channels], vec![0f64; channels]];
        for (total, part) in parts.iter().flat_map(|parts| [0, 1].map(|which| (which, &parts[which]))) {
            totals[total].iter_mut().zip(part).for_each(|(total, part)| *total += part);
        }
        totals
    })?;
    let [dweight, dbias] = totals.map(|total| total.into_iter().map(|sum| sum as f32).collect::<Vec<f32>>());
    Ok((tensor(dx, x.shape().clone())?, [tensor(dweight, channels)?, tensor(dbias, channels)?]))
}

/// The number of channels, if weights of so many are there.
fn fitting(x: &Tensor, weight: &Tensor) -> Result<usize> {
    let channels = x.dim(x.rank() - 1)?;
    if weight.dims() != [channels] {
        bail!("a layer norm of {:?} does not fit {:?}", weight.shape(), x.shape());
    }
    Ok(channels)
}
