//! Products of maps with numbers of channels and of images, on CUDA.

use candle_core::{Result, Tensor};

use super::{Threads, at, count, device_of, empty, int, launch_of};

/// As `nn::gate::scale`.
pub fn scale(x: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let (_, height, width, channels) = x.dims4()?;
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = x.elem_count();
    let args = [count(n)?, int(channels), int(height * width), at(x)?, at(gate)?, at(&y)?];
    launch_of(device_of(x)?, "gated", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(y)
}

/// As `nn::gate::gate_gradient`.
pub fn gate_gradient(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let sums = empty(device_of(x)?, x.dtype(), (images, 1, 1, channels))?;
    let args = [int(channels), int(height * width), at(x)?, at(dy)?, at(&sums)?];
    launch_of(device_of(x)?, "gate_gradient", x.dtype(), Threads::ByImage { images, channels }, &args)?;
    Ok(sums)
}

/// As `nn::gate::images`, `mask` f32 on the device.
pub fn images(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = x.elem_count();
    let args = [count(n)?, int(n / mask.elem_count()), at(x)?, at(mask)?, at(&y)?];
    launch_of(device_of(x)?, "kept_images", x.dtype(), Threads::Each(n), &args)?;
    Ok(y)
}
