//! Rows of tokens on CUDA.

use candle_core::{Result, Tensor};

use super::{Arg, Threads, at, count, device_of, empty, launch_of, memory, norm};

/// As `nn::tokens::insert`, for images that become `tokens` long.
pub fn insert(x: &Tensor, learned: &Tensor, before: usize, tokens: usize) -> Result<Tensor> {
    let (images, .., channels) = x.dims4()?;
    let y = empty(device_of(x)?, x.dtype(), (images, tokens, 1, channels))?;
    let n = y.elem_count();
    let sizes = [n, x.elem_count() / images, before * channels, learned.elem_count()].map(count);
    let mut args: Vec<Arg> = sizes.into_iter().collect::<Result<_>>()?;
    args.extend([at(x)?, at(learned)?, at(&y)?]);
    launch_of(device_of(x)?, "inserted", x.dtype(), Threads::Each(n), &args)?;
    Ok(y)
}

/// As `nn::tokens::insert_backward`.
pub fn insert_backward(dy: &Tensor, before: usize, inserted: usize) -> Result<[Tensor; 2]> {
    let (_, tokens, _, channels) = dy.dims4()?;
    let (first, width) = (before * channels, inserted * channels);
    let dx = part(dy, tokens * channels - width, [0, first, width])?;
    let own = part(dy, width, [first, width, 0])?;
    let sums = norm::column_sums(&own)?;
    memory::keep(own);
    Ok([dx, sums])
}

/// As `nn::tokens::take`.
pub fn take(x: &Tensor, token: usize, taken: usize) -> Result<Tensor> {
    let (images, .., channels) = x.dims4()?;
    let size = taken * channels;
    part(x, size, [token * channels, size, 0])?.reshape((images, taken, 1, channels))
}

/// As `nn::tokens::take_backward`.
pub fn take_backward(dy: &Tensor, token: usize, tokens: usize) -> Result<Tensor> {
    let (images, height, width, channels) = dy.dims4()?;
    let dx = empty(device_of(dy)?, dy.dtype(), (images, tokens, 1, channels))?;
    let n = dx.elem_count();
    let sizes = [n, height * width * channels, tokens * channels, token * channels].map(count);
    let mut args: Vec<Arg> = sizes.into_iter().collect::<Result<_>>()?;
    args.extend([at(dy)?, at(&dx)?]);
    launch_of(device_of(dy)?, "alone_in", dy.dtype(), Threads::Each(n), &args)?;
    Ok(dx)
}

/// As `nn::tokens::place`.
pub fn place(x: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    let n = x.elem_count();
    let args = [count(n)?, count(positions.elem_count())?, at(x)?, at(positions)?, at(&y)?];
    launch_of(device_of(x)?, "positioned", x.dtype(), Threads::Each(n), &args)?;
    Ok(y)
}

/// `size` numbers of every image: those from `first` on, without `skip` of them behind the first `before`.
fn part(x: &Tensor, size: usize, [first, before, skip]: [usize; 3]) -> Result<Tensor> {
    let images = x.dim(0)?;
    let y = empty(device_of(x)?, x.dtype(), (images, size))?;
    let n = images * size;
    let sizes = [n, size, x.elem_count() / images, first, before, skip].map(count);
    let mut args: Vec<Arg> = sizes.into_iter().collect::<Result<_>>()?;
    args.extend([at(x)?, at(&y)?]);
    launch_of(device_of(x)?, "without", x.dtype(), Threads::Each(n), &args)?;
    Ok(y)
}
