//! Products of a map with one number for each channel of each image (squeeze-and-excitation), or for each image (stochastic
//! depth). Images are [n, height, width, channels].

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};
use super::kernel::{madd, on_every_path};

/// Pixels whose products are added before they join the sum.
const BLOCK: usize = 64;

/// x [n, h, w, c] times `gate` [n, 1, 1, c].
///
/// # Errors
/// The shapes do not fit.
pub fn scale(x: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    if gate.dims() != [images, 1, 1, channels] {
        bail!("a gate of {:?} does not fit {:?}", gate.shape(), x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::gate::scale(x, gate);
    }
    let size = height * width * channels;
    let mut y = buffer::take(x.elem_count());
    with([x, gate], |[x, gate]| {
        let of_image = x.par_chunks(size).zip(gate.par_chunks(channels));
        y.par_chunks_mut(size).zip(of_image).for_each(|(y, (x, gate))| times(x, gate, y));
    })?;
    tensor(y, x.shape().clone())
}

/// The gradient of the gate [n, 1, 1, c]: sums over an image's pixels of x * dy. That of x is `scale(dy, gate)`.
///
/// # Errors
/// The shapes differ.
pub fn gate_gradient(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    if x.shape() != dy.shape() {
        bail!("a gradient of shape {:?} does not fit {:?}", dy.shape(), x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::gate::gate_gradient(x, dy);
    }
    let size = height * width * channels;
    let mut sums = buffer::zeros(images * channels);
    with([x, dy], |[x, dy]| {
        let of_image = x.par_chunks(size).zip(dy.par_chunks(size));
        sums.par_chunks_mut(channels).zip(of_image).for_each(|(sums, (x, dy))| {
            let mut block = vec![0.0; channels];
            for (x, dy) in x.chunks(BLOCK * channels).zip(dy.chunks(BLOCK * channels)) {
                block.fill(0.0);
                add_products(x, dy, &mut block);
                sums.iter_mut().zip(&block).for_each(|(sum, part)| *sum += part);
            }
        });
    })?;
    tensor(sums, (images, 1, 1, channels))
}

/// x [n, ...] times a number for each of the n images, drawn on the host.
///
/// # Errors
/// There is another number of them.
pub fn images(x: &Tensor, mask: &[f32]) -> Result<Tensor> {
    let count = x.dim(0)?;
    if mask.len() != count {
        bail!("a mask of {} does not fit {count} images", mask.len());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::gate::images(x, &Tensor::from_slice(mask, count, x.device())?);
    }
    let size = x.elem_count() / count;
    let mut y = buffer::take(x.elem_count());
    with([x], |[x]| {
        y.par_chunks_mut(size).zip(x.par_chunks(size)).zip(mask).for_each(|((y, x), mask)| {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x * mask);
        });
    })?;
    tensor(y, x.shape().clone())
}

on_every_path! {
    fn times(x: &[f32], gate: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        for (y, x) in y.chunks_exact_mut(gate.len()).zip(x.chunks_exact(gate.len())) {
            y.iter_mut().zip(x.iter().zip(gate)).for_each(|(y, (x, gate))| *y = x * gate);
        }
    }
}

on_every_path! {
    fn add_products(x: &[f32], dy: &[f32], sums: &mut [f32]) {
        for (x, dy) in x.chunks_exact(sums.len()).zip(dy.chunks_exact(sums.len())) {
            sums.iter_mut().zip(x.iter().zip(dy)).for_each(|(sum, (x, dy))| *sum = madd::<FUSED>(*x, *dy, *sum));
        }
    }
}
