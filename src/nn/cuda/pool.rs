//! Pooling on CUDA: gradients are gathered pixel by pixel, so that nothing is added in an order of chance.

use candle_core::{Result, Tensor};

use super::{Arg, Threads, at, count, device_of, empty, int, launch_of};
use crate::nn::pool::{Reduce, Windows};

fn reduction(reduce: Reduce) -> Arg {
    Arg::Int(match reduce {
        Reduce::Max => 0,
        Reduce::Avg => 1,
        Reduce::AvgPadded => 2,
    })
}

/// The windows down and along images of `height` x `width`, as the kernels take them; `outs` windows each way.
fn axes(windows: &Windows, height: usize, width: usize, outs: [usize; 2]) -> Vec<Arg> {
    let (moved, grid) = match windows {
        Windows::Moved(pool) => ([pool.kernel, pool.stride], 0),
        Windows::Grid(grid) => ([1, 1], *grid),
    };
    let padding = match windows {
        Windows::Moved(pool) => pool.padding,
        Windows::Grid(_) => [0; 4],
    };
    let axis = |side: usize, outs: usize, before: usize, after: usize| {
        [side, outs, moved[0], moved[1], before, after, grid].map(int)
    };
    [axis(height, outs[0], padding[0], padding[1]), axis(width, outs[1], padding[2], padding[3])].concat()
}

/// As `nn::pool::forward`, for `outs` windows down and along.
pub fn forward(windows: &Windows, reduce: Reduce, x: &Tensor, outs: [usize; 2]) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let y = empty(device_of(x)?, x.dtype(), (images, outs[0], outs[1], channels))?;
    let n = y.elem_count();
    let mut args = vec![count(n)?, int(channels), reduction(reduce)];
    args.extend(axes(windows, height, width, outs));
    args.extend([at(x)?, at(&y)?]);
    launch_of(device_of(x)?, "pool", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(y)
}

/// As `nn::pool::max_backward`.
pub fn max_backward(windows: &Windows, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (_, height, width, channels) = x.dims4()?;
    let dx = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = dx.elem_count();
    let mut args = vec![count(n)?, int(channels)];
    args.extend(axes(windows, height, width, [y.dim(1)?, y.dim(2)?]));
    args.extend([at(x)?, at(y)?, at(dy)?, at(&dx)?]);
    launch_of(device_of(x)?, "max_gradient", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(dx)
}

/// As `nn::pool::avg_backward`, `shape` (n, height, width, channels).
pub fn avg_backward(
    windows: &Windows,
    reduce: Reduce,
    shape: (usize, usize, usize, usize),
    dy: &Tensor,
) -> Result<Tensor> {
    let (_, height, width, channels) = shape;
    let dx = empty(device_of(dy)?, dy.dtype(), shape)?;
    let n = dx.elem_count();
    let mut args = vec![count(n)?, int(channels), reduction(reduce)];
    args.extend(axes(windows, height, width, [dy.dim(1)?, dy.dim(2)?]));
    args.extend([at(dy)?, at(&dx)?]);
    launch_of(device_of(dy)?, "mean_gradient", dy.dtype(), Threads::lots(n, dy.dtype()), &args)?;
    Ok(dx)
}
