//! Batch normalisation (Ioffe and Szegedy, 2015) with the activation behind it: with stored statistics, or with those
//! of the batch. Images are [n, height, width, channels].

mod columns;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use columns::{moments, widened};

use super::activation::{Activation, hold};
use super::buffer::{self, tensor, with};
use super::kernel::{madd, on_every_path};

pub(super) use columns::{block, column_sums, fold, tasks};

/// What a batch norm owns, each `[channels]`.
#[derive(Clone, Debug)]
pub struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub running_mean: Tensor,
    pub running_var: Tensor,
}

/// How running statistics follow those of the batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Follow {
    /// running <- (1 - momentum) running + momentum batch. PyTorch's 0.1 is Keras' 0.9.
    pub momentum: f64,
    /// The variance with n - 1 in its denominator (PyTorch 2) or with n (Keras 3).
    pub unbiased: bool,
}

/// What the backward pass needs of a forward pass with batch statistics: per channel, mean and 1 / sqrt(var + eps), and the
/// scale and the shift that normalise.
#[derive(Debug)]
pub struct Statistics {
    pub mean: Tensor,
    pub inverse: Tensor,
    pub scale: Tensor,
    pub shift: Tensor,
    /// The memory of all of them, where they share it.
    pub whole: Option<Tensor>,
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Some(whole) = self.whole.take() {
            // Memory that cannot be kept is freed like any other.
            let _ = buffer::recycle(whole);
        }
    }
}

/// y = activation((x - running_mean) / sqrt(running_var + eps) * weight + bias), as one scale and one shift.
///
/// # Errors
/// The shapes differ.
pub fn stored(norm: &Norm, eps: f64, x: &Tensor, activation: Activation) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let known = super::cuda::norm::stored(norm, eps)?;
        return affine(x, &known.scale, &known.shift, activation);
    }
    let [scale, shift] = stored_affine(norm, eps)?;
    affine(x, &scale, &shift, activation)
}

/// weight / sqrt(running_var + eps), and what is added to x times that; each [channels].
fn stored_affine(norm: &Norm, eps: f64) -> Result<[Tensor; 2]> {
    let scale = norm.weight.div(&(&norm.running_var + eps)?.sqrt()?)?;
    let shift = norm.bias.sub(&norm.running_mean.mul(&scale)?)?;
    Ok([scale, shift])
}

/// A convolution's weights [out, ...] and bias with the stored statistics behind it folded in: one product for both.
///
/// # Errors
/// The shapes differ.
pub fn folded(norm: &Norm, eps: f64, w: &Tensor, bias: Option<&Tensor>) -> Result<[Tensor; 2]> {
    #[cfg(feature = "cuda")]
    if w.device().is_cuda() {
        return super::cuda::norm::folded(norm, eps, w, bias);
    }
    let [scale, shift] = stored_affine(norm, eps)?;
    let shift = match bias {
        Some(bias) => shift.add(&bias.mul(&scale)?)?,
        None => shift,
    };
    let mut scaled = buffer::take(w.elem_count());
    with([w, &scale], |[w, scale]| {
        let size = w.len() / scale.len();
        for ((into, w), scale) in scaled.chunks_exact_mut(size).zip(w.chunks_exact(size)).zip(scale) {
            into.iter_mut().zip(w).for_each(|(into, w)| *into = w * scale);
        }
    })?;
    Ok([tensor(scaled, w.shape().clone())?, shift])
}

/// activation(x * scale + shift).
fn affine(x: &Tensor, scale: &Tensor, shift: &Tensor, activation: Activation) -> Result<Tensor> {
    let (_, _, _, channels) = x.dims4()?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::norm::affine(x, scale, shift, activation);
    }
    let (low, high) = activation.bounds();
    let mut y = buffer::take(x.elem_count());
    with([x, scale, shift], |[x, scale, shift]| {
        let (scale, shift) = (widened(scale), widened(shift));
        let task = tasks(channels);
        y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| affine_rows(x, &scale, &shift, low, high, y));
    })?;
    tensor(y, x.shape().clone())
}

on_every_path! {
    fn affine_rows(x: &[f32], scale: &[f32], shift: &[f32], low: f32, high: f32, y: &mut [f32]) {
        for (y, x) in y.chunks_mut(scale.len()).zip(x.chunks(scale.len())) {
            let (scale, shift) = (&scale[..x.len()], &shift[..x.len()]);
            for (index, y) in y.iter_mut().enumerate() {
                *y = hold(madd::<FUSED>(x[index], scale[index], shift[index]), low, high);
            }
        }
    }
}

/// Gradients of `stored`: of x, and with `learn` of weight and bias.
///
/// # Errors
/// The shapes differ.
pub fn stored_backward(
    norm: &Norm,
    eps: f64,
    x: &Tensor,
    dy: &Tensor,
    activation: Activation,
    learn: bool,
) -> Result<(Tensor, Option<[Tensor; 2]>)> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        use super::cuda::norm::{gradient, parameters, stored};
        let known = stored(norm, eps)?;
        let dx = gradient(x, dy, &known, None, activation)?;
        let own = learn.then(|| parameters(x, dy, &known, activation)).transpose()?;
        return Ok((dx, own.map(|[dweight, dbias, _]| [dweight, dbias])));
    }
    let [scale, shift] = stored_affine(norm, eps)?;
    let inverse = (&norm.running_var + eps)?.sqrt()?.recip()?;
    let zeros = scale.zeros_like()?;
    let dx = gradient(x, dy, [&scale, &shift, &norm.running_mean, &zeros, &zeros], activation)?;
    if !learn {
        return Ok((dx, None));
    }
    Ok((dx, Some(sums(x, dy, [&scale, &shift, &norm.running_mean, &inverse], activation)?)))
}

/// scale * (dy - shift_back - (x - mean) * slope), where dy passes only where the activation did.
fn gradient(
    x: &Tensor,
    dy: &Tensor,
    [scale, shift, mean, slope, back]: [&Tensor; 5],
    activation: Activation,
) -> Result<Tensor> {
    let (_, _, _, channels) = x.dims4()?;
    let (low, high) = activation.bounds();
    let mut dx = buffer::take(x.elem_count());
    with([x, dy, scale, shift, mean, slope, back], |[x, dy, scale, shift, mean, slope, back]| {
        let [scale, shift, mean, slope, back] = [scale, shift, mean, slope, back].map(widened);
        let task = tasks(channels);
        dx.par_chunks_mut(task).zip(x.par_chunks(task)).zip(dy.par_chunks(task)).for_each(|((dx, x), dy)| {
            gradient_rows(x, dy, &scale, &shift, &mean, &slope, &back, low, high, dx);
        });
    })?;
    tensor(dx, x.shape().clone())
}

on_every_path! {
    fn gradient_rows(x: &[f32], dy: &[f32], scale: &[f32], shift: &[f32], mean: &[f32], slope: &[f32], back: &[f32], low: f32, high: f32, dx: &mut [f32]) {
        let wide = scale.len();
        for ((dx, x), dy) in dx.chunks_mut(wide).zip(x.chunks(wide)).zip(dy.chunks(wide)) {
            let count = dx.len();
            let (x, dy, scale, shift) = (&x[..count], &dy[..count], &scale[..count], &shift[..count]);
            let (mean, slope, back) = (&mean[..count], &slope[..count], &back[..count]);
            for index in 0..count {
                let y = madd::<FUSED>(x[index], scale[index], shift[index]);
                let passed = if y > low && y < high { dy[index] } else { 0.0 };
                dx[index] = scale[index] * (passed - back[index] - (x[index] - mean[index]) * slope[index]);
            }
        }
    }
}

/// Per channel: the sums of dy * (x - mean) * inverse and of dy, where dy passes only where the activation did.
fn sums(
    x: &Tensor,
    dy: &Tensor,
    [scale, shift, mean, inverse]: [&Tensor; 4],
    activation: Activation,
) -> Result<[Tensor; 2]> {
    let (_, _, _, channels) = x.dims4()?;
    let (low, high) = activation.bounds();
    let both = with([x, dy, scale, shift, mean], |[x, dy, scale, shift, mean]| {
        let [scale, shift, mean] = [scale, shift, mean].map(widened);
        let task = tasks(channels);
        let parts: Vec<[Vec<f64>; 2]> = x
            .par_chunks(task)
            .zip(dy.par_chunks(task))
            .map(|(x, dy)| {
                let mut total = [vec![0f64; channels], vec![0f64; channels]];
                let (mut products, mut plain) = (vec![0f32; scale.len()], vec![0f32; scale.len()]);
                for (x, dy) in x.chunks(block(channels)).zip(dy.chunks(block(channels))) {
                    products.fill(0.0);
                    plain.fill(0.0);
                    sum_rows(x, dy, &scale, &shift, &mean, low, high, &mut products, &mut plain);
                    fold(&products, &mut total[0]);
                    fold(&plain, &mut total[1]);
                }
                total
            })
            .collect();
        let mut total = [vec![0f64; channels], vec![0f64; channels]];
        for part in &parts {
            for (total, part) in total.iter_mut().zip(part) {
                total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
            }
        }
        total
    })?;
    let [products, plain] = both.map(|sums| sums.into_iter().map(|sum| sum as f32).collect::<Vec<f32>>());
    Ok([tensor(products, channels)?.mul(inverse)?, tensor(plain, channels)?])
}

on_every_path! {
    fn sum_rows(x: &[f32], dy: &[f32], scale: &[f32], shift: &[f32], mean: &[f32], low: f32, high: f32, products: &mut [f32], plain: &mut [f32]) {
        let wide = scale.len();
        for (x, dy) in x.chunks(wide).zip(dy.chunks(wide)) {
            let count = x.len();
            let (dy, scale, shift, mean) = (&dy[..count], &scale[..count], &shift[..count], &mean[..count]);
            let (products, plain) = (&mut products[..count], &mut plain[..count]);
            for index in 0..count {
                let y = madd::<FUSED>(x[index], scale[index], shift[index]);
                let passed = if y > low && y < high { dy[index] } else { 0.0 };
                products[index] = madd::<FUSED>(passed, x[index] - mean[index], products[index]);
                plain[index] += passed;
            }
        }
    }
}

/// Normalises with the mean and (biased) variance of the batch, and moves the running statistics towards them.
/// Returns y, what backward needs, and the new norm.
///
/// # Errors
/// There is only one value per channel, so that no variance exists.
pub fn batch(
    norm: &Norm,
    eps: f64,
    follow: Follow,
    x: &Tensor,
    activation: Activation,
) -> Result<(Tensor, Statistics, Norm)> {
    let (images, height, width, channels) = x.dims4()?;
    let count = images * height * width;
    if count < 2 {
        candle_core::bail!(
            "one image with maps of one pixel has no variance for a batch norm in training: another `batch`, or a larger `input`, \
             leaves more values per channel"
        );
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let (statistics, [running_mean, running_var]) = super::cuda::norm::batch(norm, eps, follow, x)?;
        let y = affine(x, &statistics.scale, &statistics.shift, activation)?;
        return Ok((y, statistics, Norm { running_mean, running_var, ..norm.clone() }));
    }
    let (mean, variance) = moments(x, channels)?;
    let inverse = (&variance + eps)?.sqrt()?.recip()?;
    let scale = norm.weight.mul(&inverse)?;
    let shift = norm.bias.sub(&mean.mul(&scale)?)?;
    let y = affine(x, &scale, &shift, activation)?;
    let statistics = Statistics { mean, inverse, scale, shift, whole: None };
    let correction = if follow.unbiased { count as f64 / (count - 1) as f64 } else { 1.0 };
    let moved = |old: &Tensor, new: &Tensor| (old * (1.0 - follow.momentum))?.add(&(new * follow.momentum)?);
    let updated = Norm {
        running_mean: moved(&norm.running_mean, &statistics.mean)?,
        running_var: moved(&norm.running_var, &(&variance * correction)?)?,
        ..norm.clone()
    };
    Ok((y, statistics, updated))
}

/// What `batch` gave, from what it saved: the same bits.
///
/// # Errors
/// The shapes differ.
pub fn batch_again(statistics: &Statistics, x: &Tensor, activation: Activation) -> Result<Tensor> {
    affine(x, &statistics.scale, &statistics.shift, activation)
}

/// Gradients of `batch`: of x, weight and bias. Statistics are part of what is differentiated.
///
/// # Errors
/// The shapes differ.
pub fn batch_backward(
    statistics: &Statistics,
    x: &Tensor,
    dy: &Tensor,
    activation: Activation,
) -> Result<(Tensor, [Tensor; 2])> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        use super::cuda::norm::{gradient, parameters};
        let [dweight, dbias, through] = parameters(x, dy, statistics, activation)?;
        return Ok((gradient(x, dy, statistics, Some(through), activation)?, [dweight, dbias]));
    }
    let Statistics { mean, inverse, scale, shift, .. } = statistics;
    let (images, height, width, _) = x.dims4()?;
    let share = 1.0 / (images * height * width) as f64;
    let [dweight, dbias] = sums(x, dy, [scale, shift, mean, inverse], activation)?;
    let slope = (inverse.mul(&dweight)? * share)?;
    let dx = gradient(x, dy, [scale, shift, mean, &slope, &(&dbias * share)?], activation)?;
    Ok((dx, [dweight, dbias]))
}
