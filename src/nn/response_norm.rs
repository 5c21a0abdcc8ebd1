//! Global response normalisation (Woo et al., 2023: ConvNeXt V2): a channel is raised by how strong it is in its image, beside the
//! other channels. Images are [n, height, width, channels].

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};
use super::conv::bias_gradient;
use super::gate::gate_gradient;
use super::kernel::{madd, on_every_path};

/// Per image, of sums of squares: each channel's length, the mean of all of them with eps, and lengths over that mean.
struct Strength {
    lengths: Vec<f32>,
    mean: f32,
    shares: Vec<f32>,
}

impl Strength {
    fn new(squares: &[f32], eps: f32) -> Self {
        let lengths: Vec<f32> = squares.iter().map(|sum| sum.sqrt()).collect();
        let sum: f64 = lengths.iter().map(|length| f64::from(*length)).sum();
        let mean = (sum / lengths.len() as f64) as f32 + eps;
        let shares = lengths.iter().map(|length| length / mean).collect();
        Self { lengths, mean, shares }
    }

    /// What a channel is multiplied with.
    fn factors(&self, weight: &[f32]) -> Vec<f32> {
        self.shares.iter().zip(weight).map(|(share, weight)| 1.0 + weight * share).collect()
    }

    /// The gradient of lengths, over the lengths: what comes to x through them is x times that. `along` is the sum of x dy.
    fn pulls(&self, weight: &[f32], along: &[f32]) -> Vec<f32> {
        let slopes: Vec<f32> = weight.iter().zip(along).map(|(weight, along)| weight * along).collect();
        let all: f64 =
            slopes.iter().zip(&self.lengths).map(|(slope, length)| f64::from(*slope) * f64::from(*length)).sum();
        let common = (all / (f64::from(self.mean) * f64::from(self.mean) * self.lengths.len() as f64)) as f32;
        let pull = |(slope, length): (&f32, &f32)| {
            // A channel of zeros has no direction.
            if *length > 0.0 { (slope / self.mean - common) / length } else { 0.0 }
        };
        slopes.iter().zip(&self.lengths).map(pull).collect()
    }
}

on_every_path! {
    fn raised(x: &[f32], factors: &[f32], bias: &[f32], y: &mut [f32]) {
        for (y, x) in y.chunks_exact_mut(bias.len()).zip(x.chunks_exact(bias.len())) {
            for ((y, x), (factor, bias)) in y.iter_mut().zip(x).zip(factors.iter().zip(bias)) {
                *y = madd::<FUSED>(*x, *factor, *bias);
            }
        }
    }
}

on_every_path! {
    fn gradients(x: &[f32], dy: &[f32], factors: &[f32], pulls: &[f32], dx: &mut [f32]) {
        let rows = x.chunks_exact(pulls.len()).zip(dy.chunks_exact(pulls.len()));
        for (dx, (x, dy)) in dx.chunks_exact_mut(pulls.len()).zip(rows) {
            for ((dx, (x, dy)), (factor, pull)) in dx.iter_mut().zip(x.iter().zip(dy)).zip(factors.iter().zip(pulls)) {
                *dx = madd::<FUSED>(*x, *pull, dy * factor);
            }
        }
    }
}

/// y = x + weight * (x * n) + bias, with n = |x| / (mean over channels of |x| + eps), |x| the length of a channel over the image.
/// weight and bias `[channels]`.
///
/// # Errors
/// The shapes differ.
pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let size = fitting(x, weight)?;
    let squares = gate_gradient(x, x)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::response_norm::forward(x, squares, weight, bias, eps);
    }
    let mut y = buffer::take(x.elem_count());
    with([x, &squares, weight, bias], |[x, squares, weight, bias]| {
        let of_image = x.par_chunks(size).zip(squares.par_chunks(weight.len()));
        y.par_chunks_mut(size).zip(of_image).for_each(|(y, (x, squares))| {
            raised(x, &Strength::new(squares, eps as f32).factors(weight), bias, y);
        });
    })?;
    tensor(y, x.shape().clone())
}

/// The gradients of x, and of weight and bias.
///
/// # Errors
/// The shapes differ.
pub fn backward(x: &Tensor, weight: &Tensor, eps: f64, dy: &Tensor) -> Result<(Tensor, [Tensor; 2])> {
    let size = fitting(x, weight)?;
    let (squares, along) = (gate_gradient(x, x)?, gate_gradient(x, dy)?);
    let dbias = bias_gradient(dy)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let (dx, toward) = super::cuda::response_norm::backward(x, squares, along, weight, eps, dy)?;
        return Ok((dx, [bias_gradient(&toward)?, dbias]));
    }
    let channels = weight.elem_count();
    let (mut dx, mut toward) = (buffer::take(x.elem_count()), vec![0f32; squares.elem_count()]);
    with([x, &squares, &along, weight, dy], |[x, squares, along, weight, dy]| {
        let of_image = x.par_chunks(size).zip(dy.par_chunks(size));
        let sums = squares.par_chunks(channels).zip(along.par_chunks(channels));
        let found = dx.par_chunks_mut(size).zip(toward.par_chunks_mut(channels));
        found.zip(of_image.zip(sums)).for_each(|((dx, toward), ((x, dy), (squares, along)))| {
            let strength = Strength::new(squares, eps as f32);
            gradients(x, dy, &strength.factors(weight), &strength.pulls(weight, along), dx);
            let each = toward.iter_mut().zip(strength.shares.iter().zip(along));
            each.for_each(|(toward, (share, along))| *toward = share * along);
        });
    })?;
    let toward = tensor(toward, squares.shape().clone())?;
    Ok((tensor(dx, x.shape().clone())?, [bias_gradient(&toward)?, dbias]))
}

/// Numbers of an image, if weights of its channels are there.
fn fitting(x: &Tensor, weight: &Tensor) -> Result<usize> {
    let (_, height, width, channels) = x.dims4()?;
    if weight.dims() != [channels] {
        bail!("a response norm of {:?} does not fit {:?}", weight.shape(), x.shape());
    }
    Ok(height * width * channels)
}
