//! Layer norms on CUDA.

use candle_core::{DType, Result, Tensor};

use super::{Strips, Threads, at, count, device_of, empty, int, launch, launch_of, memory};

/// As `nn::layer_norm::forward`.
pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let (rows, channels) = rows_of(x, weight);
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    count(x.elem_count())?;
    let args = [count(rows)?, int(channels), (eps as f32).into(), at(x)?, at(weight)?, at(bias)?, at(&y)?];
    launch_of(device_of(x)?, "layer_norm", x.dtype(), Threads::Rows(rows), &args)?;
    Ok(y)
}

/// As `nn::layer_norm::backward`.
pub fn backward(x: &Tensor, weight: &Tensor, eps: f64, dy: &Tensor) -> Result<(Tensor, [Tensor; 2])> {
    let (rows, channels) = rows_of(x, weight);
    let device = device_of(x)?;
    let dx = empty(device, x.dtype(), x.shape())?;
    let found = empty(device, DType::F32, (rows, 2))?;
    count(x.elem_count())?;
    let places = [at(x)?, at(dy)?, at(weight)?, at(&dx)?, at(&found)?];
    let mut args = vec![count(rows)?, int(channels), (eps as f32).into()];
    args.extend(places);
    launch_of(device, "layer_norm_gradient", x.dtype(), Threads::Rows(rows), &args)?;
    let by = Strips::new(rows, channels, x.dtype(), &[at(x)?, at(dy)?]);
    let parts = empty(device, DType::F32, (2, by.strips, channels))?;
    let mut args = vec![count(rows)?, int(channels), count(by.strip)?, int(by.lot), at(x)?, at(dy)?];
    args.extend([at(&found)?, at(&parts)?]);
    launch_of(device, "layer_norm_sums", x.dtype(), Threads::Strips(by, 1), &args)?;
    let own = [empty(device, DType::F32, channels)?, empty(device, DType::F32, channels)?];
    for (which, sums) in own.iter().enumerate() {
        let args = [int(by.strips), int(channels), at(&parts.get(which)?)?, at(sums)?];
        launch(device, "sum_strips", Threads::Channels(channels), &args)?;
    }
    memory::keep(found);
    memory::keep(parts);
    Ok((dx, own))
}

fn rows_of(x: &Tensor, weight: &Tensor) -> (usize, usize) {
    let channels = weight.elem_count();
    (x.elem_count() / channels, channels)
}
