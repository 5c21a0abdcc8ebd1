//! The two layouts of images: as planes, [n, channels, height, width], in files, features and PyTorch's flattened
//! vectors; and channels last, [n, height, width, channels], inside networks.

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};

/// [n, channels, height, width] to [n, height, width, channels].
///
/// # Errors
/// x has not four dimensions.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    channels_last_as(x, x.dtype())
}

/// The same, rounded to `dtype` on the way: f32, or bf16 on a GPU.
///
/// # Errors
/// x has not four dimensions.
pub fn channels_last_as(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let (images, channels, height, width) = x.dims4()?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::join::turn(x, images, channels, height * width, dtype)?
            .reshape((images, height, width, channels));
    }
    let x = x.to_dtype(dtype)?;
    let y = with([&x], |[x]| turned(x, images, channels, height * width))?;
    tensor(y, (images, height, width, channels))
}

/// x as numbers of `dtype`, f32 or bf16: itself, or in memory of its own.
///
/// # Errors
/// Only those of the device.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::join::cast(x, dtype);
    }
    x.to_dtype(dtype)
}

/// [n, height, width, channels] to [n, channels, height, width].
///
/// # Errors
/// x has not four dimensions.
pub fn planes(x: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::join::turn(x, images, height * width, channels, x.dtype())?
            .reshape((images, channels, height, width));
    }
    let y = with([x], |[x]| turned(x, images, height * width, channels))?;
    tensor(y, (images, channels, height, width))
}

/// Three planes, the commonest image.
fn interleave(x: &[f32], y: &mut [f32]) {
    let (red, rest) = x.split_at(x.len() / 3);
    let (green, blue) = rest.split_at(red.len());
    for (pixel, ((red, green), blue)) in y.chunks_exact_mut(3).zip(red.iter().zip(green).zip(blue)) {
        pixel.copy_from_slice(&[*red, *green, *blue]);
    }
}

/// Each image's [rows][columns] as [columns][rows], in squares that stay in the cache.
fn turned(x: &[f32], images: usize, rows: usize, columns: usize) -> Vec<f32> {
    const SIDE: usize = 16;
    let mut y = buffer::take(images * rows * columns);
    if y.is_empty() {
        return y;
    }
    y.par_chunks_mut(rows * columns).zip(x.par_chunks(rows * columns)).for_each(|(y, x)| {
        if rows == 3 {
            return interleave(x, y);
        }
        for top in (0..rows).step_by(SIDE) {
            for left in (0..columns).step_by(SIDE) {
                for row in top..(top + SIDE).min(rows) {
                    for column in left..(left + SIDE).min(columns) {
                        y[column * rows + row] = x[row * columns + column];
                    }
                }
            }
        }
    });
    y
}
