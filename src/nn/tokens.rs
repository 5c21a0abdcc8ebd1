//! Rows of tokens, as transformers read them: [n, tokens, 1, channels]. Learned tokens that are put among an image's own, positions
//! that are added to them, and one that is taken out.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};

/// Numbers of one task.
const TASK: usize = 4096;

/// Images [n, height, width, c] as rows of tokens, pixel by pixel, with the `learned` ones [1, count, c] in front of token `at`:
/// [n, height x width + count, 1, c].
///
/// # Errors
/// The shapes do not fit.
pub fn insert(x: &Tensor, learned: &Tensor, at: usize) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let (_, count, own) = learned.dims3()?;
    if own != channels || at > height * width {
        bail!("tokens of {:?} do not fit into {:?} at {at}", learned.shape(), x.shape());
    }
    let shape = (images, height * width + count, 1, channels);
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::tokens::insert(x, learned, at, shape.1)?.reshape(shape);
    }
    let (size, before) = (height * width * channels, at * channels);
    let mut y = buffer::take(images * shape.1 * channels);
    with([x, learned], |[x, learned]| {
        y.par_chunks_mut(shape.1 * channels).zip(x.par_chunks(size)).for_each(|(y, x)| {
            y[..before].copy_from_slice(&x[..before]);
            y[before..before + learned.len()].copy_from_slice(learned);
            y[before + learned.len()..].copy_from_slice(&x[before..]);
        });
    })?;
    tensor(y, shape)
}

/// The gradients of `insert`: of the images, [n, tokens - count, 1, c], and of the learned tokens.
///
/// # Errors
/// The shapes do not fit.
pub fn insert_backward(dy: &Tensor, at: usize, count: usize) -> Result<[Tensor; 2]> {
    let (images, tokens, _, channels) = dy.dims4()?;
    if at + count > tokens {
        bail!("{count} tokens at {at} are not in {:?}", dy.shape());
    }
    let (inner, own) = ((images, tokens - count, 1, channels), (1, count, channels));
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        let [dx, dlearned] = super::cuda::tokens::insert_backward(dy, at, count)?;
        return Ok([dx.reshape(inner)?, dlearned.reshape(own)?]);
    }
    let (size, before, width) = (tokens * channels, at * channels, count * channels);
    let mut dx = buffer::take(images * inner.1 * channels);
    let dlearned = with([dy], |[dy]| {
        dx.par_chunks_mut(size - width).zip(dy.par_chunks(size)).for_each(|(dx, dy)| {
            dx[..before].copy_from_slice(&dy[..before]);
            dx[before..].copy_from_slice(&dy[before + width..]);
        });
        over_images(dy, size, before, width)
    })?;
    Ok([tensor(dx, inner)?, tensor(dlearned, own)?])
}

/// x [n, tokens, 1, c] plus `positions` [1, tokens, c]. The gradient of x is that of the sum.
///
/// # Errors
/// The shapes do not fit.
pub fn place(x: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    if positions.dims() != [1, height * width, channels] {
        bail!("positions of {:?} do not fit {:?}", positions.shape(), x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::tokens::place(x, positions);
    }
    let size = x.elem_count() / images;
    let mut y = buffer::take(x.elem_count());
    with([x, positions], |[x, positions]| {
        y.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| {
            y.iter_mut().zip(x.iter().zip(positions)).for_each(|(y, (x, position))| *y = x + position);
        });
    })?;
    tensor(y, x.shape().clone())
}

/// The gradient of positions [1, tokens, c]: sums over the images.
///
/// # Errors
/// Only those of the device.
pub fn place_gradient(dy: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = dy.dims4()?;
    let shape = (1, height * width, channels);
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::norm::column_sums(&dy.reshape((images, height * width * channels))?)?.reshape(shape);
    }
    let size = dy.elem_count() / images;
    tensor(with([dy], |[dy]| over_images(dy, size, 0, size))?, shape)
}

/// `count` tokens of every image [n, tokens, 1, c] from token `at` on: [n, count, 1, c].
///
/// # Errors
/// There are no such tokens.
pub fn take(x: &Tensor, at: usize, count: usize) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    if at + count > height * width {
        bail!("{count} tokens from {at} on are not in {:?}", x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::tokens::take(x, at, count);
    }
    let mut y = buffer::take(images * count * channels);
    with([x], |[x]| {
        for (y, x) in y.chunks_exact_mut(count * channels).zip(x.chunks_exact(height * width * channels)) {
            y.copy_from_slice(&x[at * channels..][..y.len()]);
        }
    })?;
    tensor(y, (images, count, 1, channels))
}

/// The gradient of `take` from that of what was taken [n, height, width, c]: zeros for all others of the `tokens`,
/// [n, tokens, 1, c].
///
/// # Errors
/// There are no such tokens.
pub fn take_backward(dy: &Tensor, at: usize, tokens: usize) -> Result<Tensor> {
    let (images, height, width, channels) = dy.dims4()?;
    let count = height * width;
    if at + count > tokens {
        bail!("{count} tokens from {at} on are not among {tokens}");
    }
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::tokens::take_backward(dy, at, tokens);
    }
    let mut dx = buffer::zeros(images * tokens * channels);
    with([dy], |[dy]| {
        for (dx, dy) in dx.chunks_exact_mut(tokens * channels).zip(dy.chunks_exact(count * channels)) {
            dx[at * channels..][..dy.len()].copy_from_slice(dy);
        }
    })?;
    tensor(dx, (images, tokens, 1, channels))
}

/// Sums over images of `size` numbers each, of the `width` numbers from `first` on, in the order of the images.
fn over_images(x: &[f32], size: usize, first: usize, width: usize) -> Vec<f32> {
    let mut sums = buffer::take(width);
    sums.par_chunks_mut(TASK).enumerate().for_each(|(task, sums)| {
        let mut total = vec![0f64; sums.len()];
        for image in x.chunks_exact(size) {
            let own = &image[first + task * TASK..][..total.len()];
            total.iter_mut().zip(own).for_each(|(total, x)| *total += f64::from(*x));
        }
        sums.iter_mut().zip(total).for_each(|(sum, total)| *sum = total as f32);
    });
    sums
}
