//! SwiGLU on CUDA.

use candle_core::{Result, Tensor};

use super::{Threads, at, count, device_of, empty, launch_of};

/// As `nn::swiglu::forward`.
pub fn forward(gate: &Tensor, x: &Tensor) -> Result<Tensor> {
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = x.elem_count();
    let args = [count(n)?, at(gate)?, at(x)?, at(&y)?];
    launch_of(device_of(x)?, "swiglu", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(y)
}

/// As `nn::swiglu::backward`.
pub fn backward(gate: &Tensor, x: &Tensor, dy: &Tensor) -> Result<[Tensor; 2]> {
    let found = [empty(device_of(x)?, x.dtype(), x.shape())?, empty(device_of(x)?, x.dtype(), x.shape())?];
    let n = x.elem_count();
    let args = [count(n)?, at(gate)?, at(x)?, at(dy)?, at(&found[0])?, at(&found[1])?];
    launch_of(device_of(x)?, "swiglu_gradient", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(found)
}
