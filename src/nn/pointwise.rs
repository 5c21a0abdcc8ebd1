//! A linear layer over the channels of every pixel: a convolution of one tap, with weights as those of a linear layer, [out, in].
//! Only the gradient of its weights is its own: it is a sum over very many pixels, between very many channels.

use candle_core::{Result, Tensor};

use super::activation::Activation;
use super::buffer::{tensor, with};
use super::conv::{self, Conv, Ready};
use super::gemm::gradient;

/// The convolution that it is.
const ONE: Conv = Conv { kernel: [1, 1], stride: 1, dilation: 1, padding: [0; 4], groups: 1 };

fn kernel(w: &Tensor) -> Result<Tensor> {
    let (out, channels) = w.dims2()?;
    w.reshape((out, channels, 1, 1))
}

/// Its weights packed, for images [height, width, channels].
///
/// # Errors
/// The shapes do not fit.
pub fn ready(image: [usize; 3], w: &Tensor) -> Result<Ready> {
    Ready::new(&ONE, image, &kernel(w)?)
}

/// y = x w^T + bias; x [n, height, width, in], w [out, in], bias `[out]` if there is one.
///
/// # Errors
/// The shapes do not fit.
pub fn forward(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    conv::forward(&ONE, x, &kernel(w)?, bias, Activation::Linear)
}

/// The gradient of the input where `want_dx`, and of w where the input `x` is given.
///
/// # Errors
/// The shapes do not fit.
pub fn backward(x: Option<&Tensor>, w: &Tensor, dy: &Tensor, want_dx: bool) -> Result<[Option<Tensor>; 2]> {
    let (images, height, width, _) = dy.dims4()?;
    let (out, channels) = w.dims2()?;
    let shape = [images, height, width, channels];
    let of_device = if w.device().is_cuda() { x } else { None };
    let [dx, dw] = conv::backward(&ONE, shape, of_device, &kernel(w)?, dy, want_dx)?;
    let Some(x) = x else { return Ok([dx, None]) };
    let dw = match dw {
        Some(dw) => dw.reshape((out, channels))?,
        None => tensor(with([x, dy], |[x, dy]| gradient(dy, out, x, channels))?, (out, channels))?,
    };
    Ok([dx, Some(dw)])
}
