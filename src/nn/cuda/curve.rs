//! SiLU, GELU in three ways, the sigmoid and their likes of straight lines on CUDA.

use candle_core::{Result, Tensor};

use super::{Arg, Threads, at, count, device_of, empty, launch_of};
use crate::nn::curve::Curve;

/// Which one a kernel is to compute.
fn which(curve: Curve) -> Arg {
    Arg::Int(match curve {
        Curve::Sigmoid => 0,
        Curve::Silu => 1,
        Curve::Gelu => 2,
        Curve::QuickGelu => 3,
        Curve::GeluTanh => 4,
        Curve::HardSigmoid => 5,
        Curve::HardSwish => 6,
    })
}

/// As `nn::curve::forward`.
pub fn forward(x: &Tensor, curve: Curve) -> Result<Tensor> {
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = x.elem_count();
    let args = [count(n)?, which(curve), at(x)?, at(&y)?];
    launch_of(device_of(x)?, "curve", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(y)
}

/// As `nn::curve::backward`.
pub fn backward(x: &Tensor, dy: &Tensor, curve: Curve) -> Result<Tensor> {
    let dx = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = x.elem_count();
    let args = [count(n)?, which(curve), at(x)?, at(dy)?, at(&dx)?];
    launch_of(device_of(x)?, "slope", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(dx)
}
