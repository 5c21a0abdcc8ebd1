//! Batch norm and sums over channels on CUDA.

use candle_core::{DType, Result, Tensor};

use super::{Arg, Strips, Threads, at, at_some, count, device_of, empty, int, launch, launch_of, memory};
use crate::nn::activation::Activation;
use crate::nn::norm::{Follow, Norm, Statistics};

/// Rows and channels of images, or of vectors.
fn rows_of(x: &Tensor) -> Result<(usize, usize)> {
    let channels = x.dim(x.rank() - 1)?;
    Ok((x.elem_count() / channels, channels))
}

/// Rows of one tensor [rows, channels] as tensors `[channels]`.
fn each_row<const N: usize>(found: &Tensor) -> Result<[Tensor; N]> {
    let rows = (0..N).map(|row| found.get(row)).collect::<Result<Vec<_>>>()?;
    Ok(rows.try_into().expect("as many as were asked for"))
}

/// activation(x * scale + shift), both `[channels]` in f32.
pub fn affine(x: &Tensor, scale: &Tensor, shift: &Tensor, activation: Activation) -> Result<Tensor> {
    let (low, high) = activation.bounds();
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = x.elem_count();
    let channels = int(scale.elem_count());
    let args = [count(n)?, channels, at(x)?, at(scale)?, at(shift)?, at(&y)?, low.into(), high.into()];
    launch_of(device_of(x)?, "affine", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(y)
}

/// Adds up strips [strips, channels].
pub(super) fn sum_strips(parts: Tensor) -> Result<Tensor> {
    let (strips, channels) = parts.dims2()?;
    let sums = empty(device_of(&parts)?, DType::F32, channels)?;
    let args = [int(strips), int(channels), at(&parts)?, at(&sums)?];
    launch(device_of(&parts)?, "sum_strips", Threads::Channels(channels), &args)?;
    memory::keep(parts);
    Ok(sums)
}

/// The sum of every channel, in f32.
pub fn column_sums(x: &Tensor) -> Result<Tensor> {
    let (rows, channels) = rows_of(x)?;
    column_sums_by(x, Strips::new(rows, channels, x.dtype(), &[at(x)?]))
}

/// The same; a channel's sum does not depend on how many channels there are.
pub fn column_sums_singly(x: &Tensor) -> Result<Tensor> {
    let (rows, channels) = rows_of(x)?;
    column_sums_by(x, Strips::singly(rows, channels))
}

fn column_sums_by(x: &Tensor, by: Strips) -> Result<Tensor> {
    let (rows, channels) = rows_of(x)?;
    let parts = empty(device_of(x)?, DType::F32, (by.strips, channels))?;
    let args = [count(rows)?, int(channels), count(by.strip)?, int(by.lot), at(x)?, at(&parts)?];
    launch_of(device_of(x)?, "column_sums", x.dtype(), Threads::Strips(by, 1), &args)?;
    sum_strips(parts)
}

/// As `nn::activation::backward`, with the sum of what passes for every channel, in f32.
pub fn pass_sums(y: &Tensor, dy: &Tensor, activation: Activation) -> Result<[Tensor; 2]> {
    let (low, high) = activation.bounds();
    let (rows, channels) = rows_of(y)?;
    let device = device_of(y)?;
    let dx = empty(device, y.dtype(), y.shape())?;
    let places = [at(y)?, at(dy)?, at(&dx)?];
    let by = Strips::new(rows, channels, y.dtype(), &places);
    let parts = empty(device, DType::F32, (by.strips, channels))?;
    let mut args = vec![count(rows)?, int(channels), count(by.strip)?, int(by.lot)];
    args.extend(places);
    args.extend([low.into(), high.into(), at(&parts)?]);
    launch_of(device, "pass_sums", y.dtype(), Threads::Strips(by, 1), &args)?;
    Ok([dx, sum_strips(parts)?])
}

/// The batch's statistics, and the running mean and variance that follow them.
pub fn batch(norm: &Norm, eps: f64, follow: Follow, x: &Tensor) -> Result<(Statistics, [Tensor; 2])> {
    let (rows, channels) = rows_of(x)?;
    let device = device_of(x)?;
    let by = Strips::new(rows, channels, x.dtype(), &[at(x)?]);
    let parts = empty(device, DType::F32, (2 * by.strips, channels))?;
    let args = [count(rows)?, int(channels), count(by.strip)?, int(by.lot), at(x)?, at(&parts)?];
    launch_of(device, "strip_moments", x.dtype(), Threads::Strips(by, 1), &args)?;
    let found = empty(device, DType::F32, (4, channels))?;
    let moved = [empty(device, DType::F32, channels)?, empty(device, DType::F32, channels)?];
    let correction = if follow.unbiased { rows as f64 / (rows - 1) as f64 } else { 1.0 };
    let mut args = vec![count(rows)?, int(channels), count(by.strip)?, int(by.strips), at(&parts)?];
    for tensor in [&norm.weight, &norm.bias, &norm.running_mean, &norm.running_var] {
        args.push(at(tensor)?);
    }
    args.extend([eps, follow.momentum, correction].map(|number| Arg::Float(number as f32)));
    args.extend([at(&found)?, at(&moved[0])?, at(&moved[1])?]);
    launch(device, "batch_norm", Threads::Channels(channels), &args)?;
    memory::keep(parts);
    let [mean, inverse, scale, shift] = each_row(&found)?;
    Ok((Statistics { mean, inverse, scale, shift, whole: Some(found) }, moved))
}

/// The weights [out, ...] and the bias of a convolution with the batch norm behind it folded in.
pub fn folded(norm: &Norm, eps: f64, w: &Tensor, bias: Option<&Tensor>) -> Result<[Tensor; 2]> {
    let (device, known) = (device_of(w)?, stored(norm, eps)?);
    let (n, channels) = (w.elem_count(), norm.weight.elem_count());
    let (weights, shift) = (empty(device, DType::F32, w.shape())?, empty(device, DType::F32, channels)?);
    let args = [count(n)?, int(n / channels), at(w)?, at(&known.scale)?, at(&weights)?];
    launch(device, "fold_weights", Threads::Each(n), &args)?;
    let args = [int(channels), at_some(bias)?, at(&known.scale)?, at(&known.shift)?, at(&shift)?];
    launch(device, "fold_bias", Threads::Each(channels), &args)?;
    Ok([weights, shift])
}

/// Of statistics that stand still: the scale, the shift and 1 / sqrt(variance + eps).
pub fn stored(norm: &Norm, eps: f64) -> Result<Statistics> {
    let channels = norm.weight.elem_count();
    let found = empty(device_of(&norm.weight)?, DType::F32, (3, channels))?;
    let mut args = vec![int(channels)];
    for tensor in [&norm.weight, &norm.bias, &norm.running_mean, &norm.running_var] {
        args.push(at(tensor)?);
    }
    args.extend([Arg::Float(eps as f32), at(&found)?]);
    launch(device_of(&norm.weight)?, "stored_norm", Threads::Each(channels), &args)?;
    let [scale, shift, inverse] = each_row(&found)?;
    Ok(Statistics { mean: norm.running_mean.clone(), inverse, scale, shift, whole: Some(found) })
}

/// The gradients of weight and bias, and [2, channels] what goes back through the batch's statistics to x.
pub fn parameters(x: &Tensor, dy: &Tensor, known: &Statistics, activation: Activation) -> Result<[Tensor; 3]> {
    let (low, high) = activation.bounds();
    let (rows, channels) = rows_of(x)?;
    let device = device_of(x)?;
    let by = Strips::new(rows, channels, x.dtype(), &[at(x)?, at(dy)?]);
    let parts = empty(device, DType::F32, (2 * by.strips, channels))?;
    let mut args = vec![count(rows)?, int(channels), count(by.strip)?, int(by.lot), at(x)?, at(dy)?];
    args.extend([at(&known.scale)?, at(&known.shift)?, at(&known.mean)?, low.into(), high.into(), at(&parts)?]);
    launch_of(device, "norm_sums", x.dtype(), Threads::Strips(by, 1), &args)?;
    let (dweight, dbias) = (empty(device, DType::F32, channels)?, empty(device, DType::F32, channels)?);
    let through = empty(device, DType::F32, (2, channels))?;
    let mut args = vec![count(rows)?, int(channels), int(by.strips), at(&parts)?];
    args.extend([at(&known.scale)?, at(&known.inverse)?, at(&dweight)?, at(&dbias)?, at(&through)?]);
    launch(device, "norm_parameters", Threads::Channels(channels), &args)?;
    memory::keep(parts);
    Ok([dweight, dbias, through])
}

/// scale * dy - back - (x - mean) * slope, where dy passes only where the activation did; `through` [2, channels] is the slope
/// and the constant.
pub fn gradient(
    x: &Tensor,
    dy: &Tensor,
    known: &Statistics,
    through: Option<Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (low, high) = activation.bounds();
    let dx = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = x.elem_count();
    let mut args = vec![count(n)?, int(known.scale.elem_count()), at(x)?, at(dy)?];
    args.extend([at(&known.scale)?, at(&known.shift)?, at(&known.mean)?]);
    args.extend(match &through {
        Some(through) => [at(&through.get(0)?)?, at(&through.get(1)?)?],
        None => [Arg::Pointer(0); 2],
    });
    args.extend([low.into(), high.into(), at(&dx)?]);
    launch_of(device_of(x)?, "norm_gradient", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    if let Some(through) = through {
        memory::keep(through);
    }
    Ok(dx)
}
