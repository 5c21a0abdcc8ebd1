//! Operators that move numbers without computing much: addition, zero padding, concatenation, the parameter-free
//! shortcut, dropout. Images are [n, height, width, channels].

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::activation::{Activation, hold};
use super::buffer::{self, tensor, with};
use super::kernel::on_every_path;

/// Numbers of one task.
const TASK: usize = 16_384;

/// activation(left + right), of one shape.
///
/// # Errors
/// The shapes differ.
pub fn add(left: &Tensor, right: &Tensor, activation: Activation) -> Result<Tensor> {
    if left.shape() != right.shape() {
        bail!("cannot add {:?} and {:?}", left.shape(), right.shape());
    }
    #[cfg(feature = "cuda")]
    if left.device().is_cuda() {
        return super::cuda::join::add(left, right, activation);
    }
    let (low, high) = activation.bounds();
    let mut sum = buffer::take(left.elem_count());
    with([left, right], |[left, right]| {
        sum.par_chunks_mut(TASK)
            .zip(left.par_chunks(TASK))
            .zip(right.par_chunks(TASK))
            .for_each(|((sum, left), right)| add_all(left, right, low, high, sum));
    })?;
    tensor(sum, left.shape().clone())
}

on_every_path! {
    fn add_all(left: &[f32], right: &[f32], low: f32, high: f32, sum: &mut [f32]) {
        let _ = FUSED;
        for (sum, (left, right)) in sum.iter_mut().zip(left.iter().zip(right)) {
            *sum = hold(left + right, low, high);
        }
    }
}

/// x [n, h, w, c] with zeros around: top, bottom, left, right.
///
/// # Errors
/// x is no image.
pub fn pad(x: &Tensor, padding: [usize; 4]) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::join::pad(x, padding);
    }
    let (rows, columns) = (height + padding[0] + padding[1], width + padding[2] + padding[3]);
    let mut y = buffer::zeros(images * rows * columns * channels);
    with([x], |[x]| {
        let x = x.par_chunks(height * width * channels);
        y.par_chunks_mut(rows * columns * channels).zip(x).for_each(|(y, x)| {
            for (row, from) in x.chunks_exact(width * channels).enumerate() {
                let at = (row + padding[0]) * columns + padding[2];
                y[at * channels..][..from.len()].copy_from_slice(from);
            }
        });
    })?;
    tensor(y, (images, rows, columns, channels))
}

/// The gradient of `pad`'s input: the inside of `dy`.
///
/// # Errors
/// `dy` is smaller than the padding.
pub fn unpad(dy: &Tensor, padding: [usize; 4]) -> Result<Tensor> {
    let (images, rows, columns, channels) = dy.dims4()?;
    if rows <= padding[0] + padding[1] || columns <= padding[2] + padding[3] {
        bail!("{rows} x {columns} pixels are no more than the padding {padding:?}");
    }
    let (height, width) = (rows - padding[0] - padding[1], columns - padding[2] - padding[3]);
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::join::unpad(dy, padding, height, width);
    }
    let mut dx = buffer::take(images * height * width * channels);
    with([dy], |[dy]| {
        for (row, into) in dx.chunks_exact_mut(width * channels).enumerate() {
            let at = (row / height * rows + row % height + padding[0]) * columns + padding[2];
            into.copy_from_slice(&dy[at * channels..][..into.len()]);
        }
    })?;
    tensor(dx, (images, height, width, channels))
}

/// Images of one size, their channels one after the other.
///
/// # Errors
/// The sizes differ, or there are none.
pub fn concat(parts: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else { bail!("nothing to concatenate") };
    let (images, height, width, _) = first.dims4()?;
    let mut channels = 0;
    for part in parts {
        if part.dims()[..3] != [images, height, width] {
            bail!("cannot concatenate {:?} and {:?}", first.shape(), part.shape());
        }
        channels += part.dim(3)?;
    }
    #[cfg(feature = "cuda")]
    if first.device().is_cuda() {
        return super::cuda::join::concat(parts, channels);
    }
    let mut y = buffer::take(images * height * width * channels);
    let mut start = 0;
    for part in parts {
        let own = part.dim(3)?;
        with([*part], |[part]| {
            y.par_chunks_mut(channels).zip(part.par_chunks(own)).with_min_len(1024).for_each(|(y, part)| {
                y[start..start + own].copy_from_slice(part);
            });
        })?;
        start += own;
    }
    tensor(y, (images, height, width, channels))
}

/// The gradient of one part of `concat`: `channels` channels from `first` on.
///
/// # Errors
/// There are fewer channels.
pub fn part(dy: &Tensor, first: usize, channels: usize) -> Result<Tensor> {
    let (images, height, width, all) = dy.dims4()?;
    if first + channels > all {
        bail!("there are no channels {first}..{} of {all}", first + channels);
    }
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::join::part(dy, first, channels);
    }
    let mut dx = buffer::take(images * height * width * channels);
    with([dy], |[dy]| {
        dx.par_chunks_mut(channels).zip(dy.par_chunks(all)).with_min_len(1024).for_each(|(dx, dy)| {
            dx.copy_from_slice(&dy[first..first + channels]);
        });
    })?;
    tensor(dx, (images, height, width, channels))
}

/// Tensors of one shape [rows, ...] one below the other.
///
/// # Errors
/// There are none, or their shapes differ.
pub fn stack(parts: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else { bail!("nothing to stack") };
    if parts.iter().any(|part| part.shape() != first.shape()) {
        bail!("only tensors of one shape are stacked");
    }
    if first.device().is_cuda() {
        // One tensor would be itself: whoever stacks gets memory of its own.
        return if parts.len() == 1 { first.copy() } else { Tensor::cat(parts, 0) };
    }
    let own = first.elem_count();
    let mut all = buffer::take(own * parts.len());
    for (part, into) in parts.iter().zip(all.chunks_exact_mut(own)) {
        with([*part], |[part]| into.copy_from_slice(part))?;
    }
    let mut shape = first.dims().to_vec();
    shape[0] *= parts.len();
    tensor(all, shape)
}

/// The tensors that were stacked, each [rows, ...].
///
/// # Errors
/// `all` has no such number of rows.
pub fn unstack(all: &Tensor, parts: usize) -> Result<Vec<Tensor>> {
    let rows = all.dim(0)?;
    if parts == 0 || !rows.is_multiple_of(parts) {
        bail!("{rows} rows are not those of {parts} tensors");
    }
    let own = rows / parts;
    if all.device().is_cuda() {
        return (0..parts).map(|part| all.narrow(0, part * own, own)?.copy()).collect();
    }
    let mut shape = all.dims().to_vec();
    shape[0] = own;
    let copy = |from: &[f32]| {
        let mut part = buffer::take(from.len());
        part.copy_from_slice(from);
        tensor(part, shape.clone())
    };
    with([all], |[all]| all.chunks_exact(all.len() / parts).map(copy).collect())?
}

/// Every `stride`-th pixel, and zeros on both sides up to `channels` channels.
///
/// # Errors
/// x has more channels than that.
pub fn shortcut(x: &Tensor, stride: usize, channels: usize) -> Result<Tensor> {
    let (images, height, width, from) = x.dims4()?;
    if channels < from {
        bail!("a shortcut cannot drop channels: {from} to {channels}");
    }
    let before = (channels - from) / 2;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::join::shortcut(x, stride, channels);
    }
    let (rows, columns) = (height.div_ceil(stride), width.div_ceil(stride));
    let mut y = buffer::zeros(images * rows * columns * channels);
    with([x], |[x]| {
        for (index, pixel) in y.chunks_exact_mut(channels).enumerate() {
            let (image, row, column) = (index / (rows * columns), index / columns % rows, index % columns);
            let at = (image * height + row * stride) * width + column * stride;
            pixel[before..before + from].copy_from_slice(&x[at * from..][..from]);
        }
    })?;
    tensor(y, (images, rows, columns, channels))
}

/// The gradient of `shortcut`'s input, of shape `shape` [n, h, w, c].
///
/// # Errors
/// The shapes do not fit.
pub fn shortcut_backward(dy: &Tensor, stride: usize, shape: [usize; 4]) -> Result<Tensor> {
    let [images, height, width, channels] = shape;
    let (all, before) = (dy.dim(3)?, (dy.dim(3)?.saturating_sub(channels)) / 2);
    let (rows, columns) = (height.div_ceil(stride), width.div_ceil(stride));
    if dy.dims() != [images, rows, columns, all] {
        bail!("a gradient of {:?} does not fit a shortcut from {shape:?}", dy.shape());
    }
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::join::shortcut_backward(dy, stride, shape);
    }
    let mut dx = buffer::zeros(images * height * width * channels);
    with([dy], |[dy]| {
        for (index, pixel) in dy.chunks_exact(all).enumerate() {
            let (image, row, column) = (index / (rows * columns), index / columns % rows, index % columns);
            let at = (image * height + row * stride) * width + column * stride;
            dx[at * channels..][..channels].copy_from_slice(&pixel[before..before + channels]);
        }
    })?;
    tensor(dx, &shape)
}

/// x times a mask of zeros and 1 / (1 - p), drawn on the host.
///
/// # Errors
/// The mask has another number of elements.
pub fn dropout(x: &Tensor, mask: &[f32]) -> Result<Tensor> {
    if mask.len() != x.elem_count() {
        bail!("a mask of {} does not fit {:?}", mask.len(), x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::join::dropout(x, &Tensor::from_slice(mask, mask.len(), x.device())?);
    }
    let mut y = buffer::take(mask.len());
    with([x], |[x]| y.iter_mut().zip(x.iter().zip(mask)).for_each(|(y, (x, mask))| *y = x * mask))?;
    tensor(y, x.shape().clone())
}
