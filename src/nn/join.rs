//! Operators that move numbers without computing much: zero padding, concatenation, the parameter-free shortcut, dropout.

use candle_core::{Result, Tensor};

use super::{composed, tensor, with};

/// x [n, c, h, w] with zeros around: top, bottom, left, right.
///
/// # Errors
/// x is no image.
pub fn pad(x: &Tensor, padding: [usize; 4]) -> Result<Tensor> {
    composed::pad(x, padding)?.contiguous()
}

/// The gradient of `pad`'s input: the inside of `dy`.
///
/// # Errors
/// `dy` is smaller than the padding.
pub fn unpad(dy: &Tensor, padding: [usize; 4]) -> Result<Tensor> {
    let (_, _, height, width) = dy.dims4()?;
    let rows = dy.narrow(2, padding[0], height - padding[0] - padding[1])?;
    rows.narrow(3, padding[2], width - padding[2] - padding[3])?.contiguous()
}

/// Every `stride`-th pixel, and zeros on both sides up to `channels` channels.
///
/// # Errors
/// x has more channels than that.
pub fn shortcut(x: &Tensor, stride: usize, channels: usize) -> Result<Tensor> {
    let (_, from, height, width) = x.dims4()?;
    let picks = |side: usize| Tensor::arange_step(0u32, side as u32, stride as u32, x.device());
    let small = x.index_select(&picks(height)?, 2)?.index_select(&picks(width)?, 3)?;
    let before = (channels - from) / 2;
    small.pad_with_zeros(1, before, channels - from - before)?.contiguous()
}

/// The gradient of `shortcut`'s input, of shape `shape` [n, c, h, w].
///
/// # Errors
/// The shapes do not fit.
pub fn shortcut_backward(dy: &Tensor, stride: usize, shape: (usize, usize, usize, usize)) -> Result<Tensor> {
    let (images, channels, height, width) = shape;
    let before = (dy.dim(1)? - channels) / 2;
    let inner = dy.narrow(1, before, channels)?.contiguous()?;
    if !dy.device().is_cpu() {
        let zeros = Tensor::zeros(shape, dy.dtype(), dy.device())?;
        let mut grads = composed::gradients(&[&zeros], dy, |inputs| shortcut(&inputs[0], stride, dy.dim(1)?))?;
        return grads.pop().ok_or_else(|| candle_core::Error::Msg("one input has one gradient".to_owned()));
    }
    let (rows, columns) = (height.div_ceil(stride), width.div_ceil(stride));
    let mut dx = vec![0.0; images * channels * height * width];
    with([&inner], |[inner]| {
        for (index, row) in inner.chunks_exact(columns).enumerate() {
            let (plane, y) = (index / rows, index % rows);
            let into = &mut dx[(plane * height + y * stride) * width..][..width];
            row.iter().enumerate().for_each(|(x, value)| into[x * stride] = *value);
        }
    })?;
    tensor(dx, shape)
}

/// The sum of two tensors of one shape.
///
/// # Errors
/// The shapes differ.
pub fn add(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    if !left.device().is_cpu() {
        return left.add(right);
    }
    if left.shape() != right.shape() {
        candle_core::bail!("cannot add {:?} and {:?}", left.shape(), right.shape());
    }
    let sum = with([left, right], |[left, right]| left.iter().zip(right).map(|(left, right)| left + right).collect())?;
    tensor(sum, left.shape().clone())
}

/// x times a mask of zeros and 1 / (1 - p), drawn on the host.
///
/// # Errors
/// The mask has another number of elements.
pub fn dropout(x: &Tensor, mask: &[f32]) -> Result<Tensor> {
    let mask = Tensor::from_slice(mask, x.shape(), x.device())?;
    x.mul(&mask)
}
