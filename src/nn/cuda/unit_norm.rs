//! Every pixel's channels over their length, on CUDA.

use candle_core::{Result, Tensor};

use super::{Threads, at, count, device_of, empty, int, launch_of};
use crate::nn::unit_norm::LEAST;

/// As `nn::unit_norm::forward`.
pub fn forward(x: &Tensor) -> Result<Tensor> {
    let (rows, channels) = rows_of(x)?;
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    count(x.elem_count())?;
    let args = [count(rows)?, int(channels), LEAST.into(), at(x)?, at(&y)?];
    launch_of(device_of(x)?, "unit_norm", x.dtype(), Threads::Rows(rows), &args)?;
    Ok(y)
}

/// As `nn::unit_norm::backward`.
pub fn backward(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (rows, channels) = rows_of(x)?;
    let dx = empty(device_of(x)?, x.dtype(), x.shape())?;
    count(x.elem_count())?;
    let args = [count(rows)?, int(channels), LEAST.into(), at(x)?, at(dy)?, at(&dx)?];
    launch_of(device_of(x)?, "unit_norm_gradient", x.dtype(), Threads::Rows(rows), &args)?;
    Ok(dx)
}

fn rows_of(x: &Tensor) -> Result<(usize, usize)> {
    let channels = x.dim(x.rank() - 1)?;
    Ok((x.elem_count() / channels, channels))
}
