//! ReLU and ReLU6 on CUDA.

use candle_core::{Result, Tensor};

use super::{Threads, at, count, device_of, empty, launch_of};
use crate::nn::activation::Activation;

/// As `nn::activation::forward`.
pub fn forward(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let (low, high) = activation.bounds();
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = x.elem_count();
    let args = [count(n)?, at(x)?, at(&y)?, low.into(), high.into()];
    launch_of(device_of(x)?, "hold_all", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(y)
}

/// As `nn::activation::backward`.
pub fn backward(y: &Tensor, dy: &Tensor, activation: Activation) -> Result<Tensor> {
    let (low, high) = activation.bounds();
    let dx = empty(device_of(y)?, y.dtype(), y.shape())?;
    let n = y.elem_count();
    let args = [count(n)?, at(y)?, at(dy)?, at(&dx)?, low.into(), high.into()];
    launch_of(device_of(y)?, "pass", y.dtype(), Threads::lots(n, y.dtype()), &args)?;
    Ok(dx)
}

/// activation(x + bias) in place, bias `[channels]` for rows of so many numbers.
pub fn add_bias(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<()> {
    let (low, high) = activation.bounds();
    let n = x.elem_count();
    let none = super::Arg::Pointer(0);
    let channels = super::int(bias.elem_count());
    let args = [count(n)?, channels, at(x)?, none, at(bias)?, at(x)?, low.into(), high.into()];
    launch_of(device_of(x)?, "affine", x.dtype(), Threads::lots(n, x.dtype()), &args)
}

/// activation(x) in place.
pub fn apply(x: &Tensor, activation: Activation) -> Result<()> {
    let (low, high) = activation.bounds();
    let n = x.elem_count();
    let args = [count(n)?, at(x)?, at(x)?, low.into(), high.into()];
    launch_of(device_of(x)?, "hold_all", x.dtype(), Threads::lots(n, x.dtype()), &args)
}
