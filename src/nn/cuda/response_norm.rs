//! Global response normalisation on CUDA.

use candle_core::{DType, Result, Tensor};

use super::{Threads, at, count, device_of, empty, int, launch_of, memory};

/// As `nn::response_norm::forward`, `squares` [n, 1, 1, c] the sums over pixels of x * x.
pub fn forward(x: &Tensor, squares: Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let (device, dtype) = (device_of(x)?, x.dtype());
    let factors = empty(device, dtype, squares.shape())?;
    let y = empty(device, dtype, x.shape())?;
    let args = [count(images)?, int(channels), (eps as f32).into(), at(&squares)?, at(weight)?, at(&factors)?];
    launch_of(device, "response_factors", dtype, Threads::Rows(images), &args)?;
    let n = x.elem_count();
    let args = [count(n)?, int(channels), int(height * width), at(x)?, at(&factors)?, at(bias)?, at(&y)?];
    launch_of(device, "response_norm", dtype, Threads::Each(n), &args)?;
    memory::keep(squares);
    memory::keep(factors);
    Ok(y)
}

/// The gradient of x, and what each image adds to that of the weights, [n, 1, 1, c] in f32; `along` is the sums of x * dy.
pub fn backward(
    x: &Tensor,
    squares: Tensor,
    along: Tensor,
    weight: &Tensor,
    eps: f64,
    dy: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let (images, height, width, channels) = x.dims4()?;
    let (device, dtype) = (device_of(x)?, x.dtype());
    let [factors, pulls] = [empty(device, dtype, squares.shape())?, empty(device, dtype, squares.shape())?];
    let toward = empty(device, DType::F32, squares.shape())?;
    let dx = empty(device, dtype, x.shape())?;
    let mut args = vec![count(images)?, int(channels), (eps as f32).into()];
    args.extend([at(&squares)?, at(&along)?, at(weight)?, at(&factors)?, at(&pulls)?, at(&toward)?]);
    launch_of(device, "response_slopes", dtype, Threads::Rows(images), &args)?;
    let n = x.elem_count();
    let mut args = vec![count(n)?, int(channels), int(height * width)];
    args.extend([at(x)?, at(dy)?, at(&factors)?, at(&pulls)?, at(&dx)?]);
    launch_of(device, "response_norm_gradient", dtype, Threads::Each(n), &args)?;
    [squares, along, factors, pulls].into_iter().for_each(memory::keep);
    Ok((dx, toward))
}
