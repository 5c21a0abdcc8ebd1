//! Batch normalisation (Ioffe and Szegedy, 2015): with stored statistics, or with those of the batch.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{composed, tensor, with};

/// What a batch norm owns, each `[channels]`.
#[derive(Clone, Debug)]
pub struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub running_mean: Tensor,
    pub running_var: Tensor,
}

/// What the backward pass needs of a forward pass with batch statistics: per channel, mean and 1 / sqrt(var + eps).
#[derive(Clone, Debug)]
pub struct Statistics {
    pub mean: Tensor,
    pub inverse: Tensor,
}

/// y = (x - running_mean) / sqrt(running_var + eps) * weight + bias, as one scale and one shift.
///
/// # Errors
/// The shapes differ.
pub fn stored(norm: &Norm, eps: f64, x: &Tensor) -> Result<Tensor> {
    let scale = scale(norm, eps)?;
    let shift = norm.bias.sub(&norm.running_mean.mul(&scale)?)?;
    affine(x, &scale, &shift)
}

/// weight / sqrt(running_var + eps), [channels].
fn scale(norm: &Norm, eps: f64) -> Result<Tensor> {
    norm.weight.div(&(&norm.running_var + eps)?.sqrt()?)
}

fn affine(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    if !x.device().is_cpu() {
        let shape = (1, channels, 1, 1);
        return x.broadcast_mul(&scale.reshape(shape)?)?.broadcast_add(&shift.reshape(shape)?);
    }
    let mut y = vec![0.0; x.elem_count()];
    with([x, scale, shift], |[x, scale, shift]| {
        let planes = y.par_chunks_mut(height * width).zip(x.par_chunks(height * width));
        planes.enumerate().for_each(|(index, (y, x))| {
            let (scale, shift) = (scale[index % channels], shift[index % channels]);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x * scale + shift);
        });
    })?;
    tensor(y, x.shape().clone())
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
    learn: bool,
) -> Result<(Tensor, Option<[Tensor; 2]>)> {
    let scale = scale(norm, eps)?;
    let dx = affine(dy, &scale, &scale.zeros_like()?)?;
    if !learn {
        return Ok((dx, None));
    }
    let inverse = (&norm.running_var + eps)?.sqrt()?.recip()?;
    let [dweight, dbias] = sums(x, dy, &norm.running_mean, &inverse)?;
    Ok((dx, Some([dweight, dbias])))
}

/// Per channel: the sums of dy * (x - mean) * inverse and of dy.
fn sums(x: &Tensor, dy: &Tensor, mean: &Tensor, inverse: &Tensor) -> Result<[Tensor; 2]> {
    let (_, channels, height, width) = x.dims4()?;
    if !x.device().is_cpu() {
        let shape = (1, channels, 1, 1);
        let normal = x.broadcast_sub(&mean.reshape(shape)?)?.broadcast_mul(&inverse.reshape(shape)?)?;
        return Ok([normal.mul(dy)?.sum((0, 2, 3))?, dy.sum((0, 2, 3))?]);
    }
    let both: Vec<(f32, f32)> = with([x, dy, mean, inverse], |[x, dy, mean, inverse]| {
        let channel = |channel: usize| {
            let (mut products, mut plain) = (0f64, 0f64);
            for start in (channel * height * width..x.len()).step_by(channels * height * width) {
                let (x, dy) = (&x[start..][..height * width], &dy[start..][..height * width]);
                products += lanes(x, dy, |x, dy| dy * (x - mean[channel]));
                plain += lanes(x, dy, |_, dy| dy);
            }
            ((products * f64::from(inverse[channel])) as f32, plain as f32)
        };
        (0..channels).into_par_iter().map(channel).collect()
    })?;
    let (products, plain) = both.into_iter().unzip();
    Ok([tensor(products, channels)?, tensor(plain, channels)?])
}

/// The sum of `term` over pairs, in sixteen lanes (vector code without a change of order), plane by plane.
fn lanes(left: &[f32], right: &[f32], term: impl Fn(f32, f32) -> f32) -> f64 {
    let mut sums = [0f32; 16];
    let (left_chunks, right_chunks) = (left.chunks_exact(16), right.chunks_exact(16));
    let tail: f64 =
        left_chunks.remainder().iter().zip(right_chunks.remainder()).map(|(l, r)| f64::from(term(*l, *r))).sum();
    for (left, right) in left_chunks.zip(right_chunks) {
        for lane in 0..16 {
            sums[lane] += term(left[lane], right[lane]);
        }
    }
    tail + sums.iter().map(|sum| f64::from(*sum)).sum::<f64>()
}

/// Normalises with the mean and (biased) variance of the batch, and moves the running statistics towards them by
/// `momentum`, with the unbiased variance, as PyTorch 2 does. Returns y, what backward needs, and the new norm.
///
/// # Errors
/// There is only one value per channel, so that no variance exists.
pub fn batch(norm: &Norm, eps: f64, momentum: f64, x: &Tensor) -> Result<(Tensor, Statistics, Norm)> {
    let (images, channels, height, width) = x.dims4()?;
    let count = images * height * width;
    if count < 2 {
        candle_core::bail!("batch norm in training needs more than one value per channel");
    }
    let (mean, variance) = moments(x, count)?;
    let inverse = (&variance + eps)?.sqrt()?.recip()?;
    let scale = norm.weight.mul(&inverse)?;
    let y = affine(x, &scale, &norm.bias.sub(&mean.mul(&scale)?)?)?;
    let unbiased = (&variance * (count as f64 / (count - 1) as f64))?;
    let moved = |old: &Tensor, new: &Tensor| (old * (1.0 - momentum))?.add(&(new * momentum)?);
    let updated = Norm {
        running_mean: moved(&norm.running_mean, &mean)?,
        running_var: moved(&norm.running_var, &unbiased)?,
        ..norm.clone()
    };
    debug_assert_eq!(mean.elem_count(), channels);
    Ok((y, Statistics { mean, inverse }, updated))
}

fn moments(x: &Tensor, count: usize) -> Result<(Tensor, Tensor)> {
    let (_, channels, height, width) = x.dims4()?;
    if !x.device().is_cpu() {
        let mean = x.mean_keepdim((0, 2, 3))?;
        let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim((0, 2, 3))?;
        return Ok((mean.flatten_all()?, variance.flatten_all()?));
    }
    let both: Vec<(f32, f32)> = with([x], |[x]| {
        let channel = |channel: usize| {
            let starts = || (channel * height * width..x.len()).step_by(channels * height * width);
            let planes = || starts().map(|start| &x[start..][..height * width]);
            let mean = planes().map(|plane| lanes(plane, plane, |x, _| x)).sum::<f64>() / count as f64;
            let centre = mean as f32;
            let variance = planes().map(|plane| lanes(plane, plane, |x, _| (x - centre) * (x - centre))).sum::<f64>();
            (centre, (variance / count as f64) as f32)
        };
        (0..channels).into_par_iter().map(channel).collect()
    })?;
    let (means, variances) = both.into_iter().unzip();
    Ok((tensor(means, channels)?, tensor(variances, channels)?))
}

/// Gradients of `batch`: of x, weight and bias. Statistics are part of what is differentiated.
///
/// # Errors
/// The shapes differ.
pub fn batch_backward(
    norm: &Norm,
    eps: f64,
    statistics: &Statistics,
    x: &Tensor,
    dy: &Tensor,
) -> Result<(Tensor, [Tensor; 2])> {
    if !x.device().is_cpu() {
        let grads = composed::gradients(&[x, &norm.weight, &norm.bias], dy, |inputs| {
            composed::batch_norm(&inputs[0], &inputs[1], &inputs[2], eps)
        })?;
        let [dx, dweight, dbias] = [grads[0].clone(), grads[1].clone(), grads[2].clone()];
        return Ok((dx, [dweight, dbias]));
    }
    let (images, channels, height, width) = x.dims4()?;
    let [dweight, dbias] = sums(x, dy, &statistics.mean, &statistics.inverse)?;
    let count = (images * height * width) as f32;
    let mut dx = vec![0.0; x.elem_count()];
    let operands = [x, dy, &norm.weight, &statistics.mean, &statistics.inverse, &dweight, &dbias];
    with(operands, |[x, dy, weight, mean, inverse, dweight, dbias]| {
        let planes =
            dx.par_chunks_mut(height * width).zip(x.par_chunks(height * width)).zip(dy.par_chunks(height * width));
        planes.enumerate().for_each(|(index, ((dx, x), dy))| {
            let c = index % channels;
            let (scale, slope, shift) = (weight[c] * inverse[c], inverse[c] * dweight[c] / count, dbias[c] / count);
            for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
                *dx = scale * (dy - shift - (x - mean[c]) * slope);
            }
        });
    })?;
    Ok((tensor(dx, x.shape().clone())?, [dweight, dbias]))
}
