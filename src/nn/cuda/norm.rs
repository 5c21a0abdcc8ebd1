//! Batch norm and sums over channels on CUDA.

use candle_core::{DType, Result, Tensor};

use super::{Arg, Threads, at, at_some, count, device_of, empty, int, launch, launch_of, strips};
use crate::nn::activation::Activation;

/// Rows and channels of images, or of vectors.
fn rows_of(x: &Tensor) -> Result<(usize, usize)> {
    let channels = x.dim(x.rank() - 1)?;
    Ok((x.elem_count() / channels, channels))
}

/// activation(x * scale + shift), both `[channels]` in f32.
pub fn affine(x: &Tensor, scale: &Tensor, shift: &Tensor, activation: Activation) -> Result<Tensor> {
    let (low, high) = activation.bounds();
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = x.elem_count();
    let channels = int(scale.elem_count());
    let args = [count(n)?, channels, at(x)?, at(scale)?, at(shift)?, at(&y)?, low.into(), high.into()];
    launch_of(device_of(x)?, "affine", x.dtype(), Threads::Each(n), &args)?;
    Ok(y)
}

/// scale * (dy - back - (x - mean) * slope), where dy passes only where the activation did.
pub fn gradient(
    x: &Tensor,
    dy: &Tensor,
    [scale, shift, mean, slope, back]: [&Tensor; 5],
    activation: Activation,
) -> Result<Tensor> {
    let (low, high) = activation.bounds();
    let dx = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = x.elem_count();
    let mut args = vec![count(n)?, int(scale.elem_count()), at(x)?, at(dy)?];
    for tensor in [scale, shift, mean, slope, back] {
        args.push(at(tensor)?);
    }
    args.extend([low.into(), high.into(), at(&dx)?]);
    launch_of(device_of(x)?, "norm_gradient", x.dtype(), Threads::Each(n), &args)?;
    Ok(dx)
}

/// Adds up strips [strips, channels], times `factor` `[channels]` where there is one.
pub(super) fn sum_strips(parts: &Tensor, factor: Option<&Tensor>) -> Result<Tensor> {
    let (strips, channels) = parts.dims2()?;
    let sums = empty(device_of(parts)?, DType::F32, channels)?;
    let args = [int(strips), int(channels), at(parts)?, at_some(factor)?, at(&sums)?];
    launch(device_of(parts)?, "sum_strips", Threads::Each(channels), &args)?;
    Ok(sums)
}

/// Per channel: the sums of dy * (x - mean) * inverse and of dy, where dy passes only where the activation did.
pub fn sums(
    x: &Tensor,
    dy: &Tensor,
    [scale, shift, mean, inverse]: [&Tensor; 4],
    activation: Activation,
) -> Result<[Tensor; 2]> {
    let (low, high) = activation.bounds();
    let (rows, channels) = rows_of(x)?;
    let (strip, strips) = strips(rows);
    let parts = || empty(device_of(x)?, DType::F32, (strips, channels));
    let (products, plain) = (parts()?, parts()?);
    let mut args = vec![count(rows)?, int(channels), count(strip)?, at(x)?, at(dy)?];
    args.extend([at(scale)?, at(shift)?, at(mean)?, low.into(), high.into(), at(&products)?, at(&plain)?]);
    let threads = Threads::Strips { channels, strips, layers: 1 };
    launch_of(device_of(x)?, "norm_sums", x.dtype(), threads, &args)?;
    Ok([sum_strips(&products, Some(inverse))?, sum_strips(&plain, None)?])
}

/// The sum of every channel, in f32.
pub fn column_sums(x: &Tensor) -> Result<Tensor> {
    let (rows, channels) = rows_of(x)?;
    let (strip, strips) = strips(rows);
    let parts = empty(device_of(x)?, DType::F32, (strips, channels))?;
    let args = [count(rows)?, int(channels), count(strip)?, at(x)?, at(&parts)?];
    let threads = Threads::Strips { channels, strips, layers: 1 };
    launch_of(device_of(x)?, "column_sums", x.dtype(), threads, &args)?;
    sum_strips(&parts, None)
}

/// Mean and biased variance of every channel, in f32.
pub fn moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, channels) = rows_of(x)?;
    let (strip, strips) = strips(rows);
    let device = device_of(x)?;
    let parts = || empty(device, DType::F32, (strips, channels));
    let (means, squares) = (parts()?, parts()?);
    let head = [count(rows)?, int(channels), count(strip)?];
    let threads = Threads::Strips { channels, strips, layers: 1 };
    let args: Vec<Arg> = head.into_iter().chain([at(x)?, at(&means)?, at(&squares)?]).collect();
    launch_of(device, "strip_moments", x.dtype(), threads, &args)?;
    let (mean, variance) = (empty(device, DType::F32, channels)?, empty(device, DType::F32, channels)?);
    let rest = [int(strips), at(&means)?, at(&squares)?, at(&mean)?, at(&variance)?];
    let args: Vec<Arg> = head.into_iter().chain(rest).collect();
    launch(device, "join_moments", Threads::Each(channels), &args)?;
    Ok((mean, variance))
}
