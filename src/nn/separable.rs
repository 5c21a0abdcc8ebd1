//! Depthwise convolutions with a convolution of one pixel behind each (Sifre, 2014; Chollet, 2017), as one layer. What stands between
//! the two is computed again in the backward pass. Images are [n, height, width, channels].

use candle_core::{Result, Tensor};

use super::activation::Activation;
use super::buffer::recycle;
use super::conv::{self, Conv};

/// The convolution of one pixel behind a depthwise one.
const BEHIND: Conv = Conv { kernel: [1, 1], stride: 1, dilation: 1, padding: [0; 4], groups: 1 };

/// y = (x * depthwise) * pointwise: the first [channels, 1, height, width], each channel alone whatever `conv` says of groups, the
/// second [out, channels, 1, 1].
///
/// # Errors
/// As `conv::forward`.
pub fn forward(conv: &Conv, x: &Tensor, [depthwise, pointwise]: [&Tensor; 2]) -> Result<Tensor> {
    let alone = Conv { groups: x.dim(3)?, ..*conv };
    let between = conv::forward(&alone, x, depthwise, None, Activation::Linear)?;
    let y = conv::forward(&BEHIND, &between, pointwise, None, Activation::Linear)?;
    recycle(between)?;
    Ok(y)
}

/// The gradients of x, where `want_dx`, and of both kernels, if they learn.
///
/// # Errors
/// As `conv::backward`.
pub fn backward(
    conv: &Conv,
    x: &Tensor,
    [depthwise, pointwise]: [&Tensor; 2],
    dy: &Tensor,
    [want_dx, learn]: [bool; 2],
) -> Result<(Option<Tensor>, Option<[Tensor; 2]>)> {
    let (images, height, width, channels) = x.dims4()?;
    let (_, out_height, out_width, _) = dy.dims4()?;
    let alone = Conv { groups: channels, ..*conv };
    let between = if learn { Some(conv::forward(&alone, x, depthwise, None, Activation::Linear)?) } else { None };
    let shape = [images, out_height, out_width, channels];
    let [slope, of_pointwise] = conv::backward(&BEHIND, shape, between.as_ref(), pointwise, dy, true)?;
    between.map_or(Ok(()), recycle)?;
    let Some(slope) = slope else { candle_core::bail!("a gradient that was asked for is not there") };
    let x_learnt = learn.then_some(x);
    let [dx, of_depthwise] =
        conv::backward(&alone, [images, height, width, channels], x_learnt, depthwise, &slope, want_dx)?;
    recycle(slope)?;
    Ok((dx, of_depthwise.zip(of_pointwise).map(|(depthwise, pointwise)| [depthwise, pointwise])))
}
