//! Windows of maps on CUDA, and merged patches.

use candle_core::{DType, Result, Tensor};

use super::{Arg, Threads, at, count, device_of, empty, int, launch_of};
use crate::nn::window_attention::Cut;

/// As `nn::window_attention::biases`.
pub fn biases(table: &Tensor, cut: &Cut, apart: f32, scale: f32) -> Result<Tensor> {
    let (device, pixels) = (device_of(table)?, cut.pixels());
    let rows = empty(device, DType::F32, (cut.kinds(), cut.heads, pixels, pixels))?;
    let n = rows.elem_count();
    let [down, right] = cut.shifts;
    let mut args = vec![count(n)?];
    args.extend([cut.side, cut.heads, down, right].map(int));
    args.extend([apart.into(), scale.into(), at(table)?, at(&rows)?]);
    launch_of(device, "window_biases", DType::F32, Threads::Each(n), &args)?;
    Ok(rows)
}

/// The windows of a map, [n, windows, pixels, channels] one after the other.
pub fn apart(x: &Tensor, cut: &Cut) -> Result<Tensor> {
    turned("windows_apart", x, cut)
}

/// The map whose windows these are.
pub fn together(x: &Tensor, cut: &Cut) -> Result<Tensor> {
    turned("windows_together", x, cut)
}

fn turned(name: &str, x: &Tensor, cut: &Cut) -> Result<Tensor> {
    let (n, channels) = (x.elem_count(), x.dim(3)?);
    let y = empty(device_of(x)?, x.dtype(), n)?;
    let [down, right] = cut.shifts;
    let mut args = vec![count(n)?];
    args.extend([cut.height, cut.width, channels, cut.side, down, right].map(int));
    args.extend([at(x)?, at(&y)?]);
    launch_of(device_of(x)?, name, x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(y)
}

/// The pixels of every square of two side by side, of maps `width` pixels wide, or back.
pub fn merged(x: &Tensor, [width, channels]: [usize; 2], forward: bool) -> Result<Tensor> {
    let n = x.elem_count();
    let y = empty(device_of(x)?, x.dtype(), n)?;
    let args = [count(n)?, int(width), int(channels), Arg::Int(i32::from(!forward)), at(x)?, at(&y)?];
    launch_of(device_of(x)?, "merged", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(y)
}
