//! Rotary positions of patches (Su et al., 2021), as DINOv3 has them: queries and keys are turned by angles that follow from where a
//! patch's centre lies, so that how much tokens weigh each other depends on the way between them. Tokens of no patch stand still.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};
use super::kernel::on_every_path;
use super::{conv, join};

/// How the tokens of a row are turned.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    pub heads: usize,
    /// Tokens in front of the patches.
    pub skip: usize,
    /// Cosines and sines, [patches, depth / 2, 2]: what `table` gives.
    pub table: &'a Tensor,
}

/// Cosine and sine of every angle of `side` x `side` patches, row by row, for heads of `depth` numbers: [patches, depth / 2, 2].
/// The first half of a patch's angles is 2 pi y / base^(4 i / depth), the other the same of x, with centres between -1 and 1 (DINOv3,
/// Siméoni et al., 2025; Hugging Face's transformers 5.24 has the same).
pub fn table(side: usize, depth: usize, base: f64) -> Vec<f32> {
    let centre = |at: usize| 2.0 * (at as f64 + 0.5) / side as f64 - 1.0;
    let periods: Vec<f64> = (0..depth / 4).map(|i| libm::pow(base, 4.0 * i as f64 / depth as f64)).collect();
    let mut table = Vec::with_capacity(side * side * depth);
    for patch in 0..side * side {
        for at in [centre(patch / side), centre(patch % side)] {
            for period in &periods {
                let angle = std::f64::consts::TAU * at / period;
                table.extend([libm::cos(angle) as f32, libm::sin(angle) as f32]);
            }
        }
    }
    table
}

/// Numbers of a head, of queries, keys and values x [n, tokens, 1, 3 x channels].
fn depth(x: &Tensor, turn: &Turn) -> Result<usize> {
    let (_, height, width, numbers) = x.dims4()?;
    let (patches, half, _) = turn.table.dims3()?;
    if height * width != turn.skip + patches || numbers != 3 * turn.heads * 2 * half {
        let (heads, shape) = (turn.heads, turn.table.shape());
        bail!("angles of {shape:?} do not fit {:?} with {heads} heads behind {} tokens", x.shape(), turn.skip);
    }
    Ok(2 * half)
}

/// Queries and keys of patches turned, of x [n, tokens, 1, 3 x channels] as `attention` reads it. Before that `biases` of queries
/// and of values, `channels` each, are added to all tokens; keys have none.
///
/// # Errors
/// The shapes do not fit.
pub fn forward(x: &Tensor, biases: [&Tensor; 2], turn: &Turn) -> Result<Tensor> {
    let depth = depth(x, turn)?;
    let channels = turn.heads * depth;
    if biases.iter().any(|bias| bias.dims() != [channels]) {
        bail!("biases of {:?} do not fit {channels} channels", biases.map(Tensor::shape));
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::rotary::turned(x, Some(biases), turn, depth);
    }
    let row = 3 * channels;
    let size = row * x.dim(1)? * x.dim(2)?;
    let mut y = buffer::take(x.elem_count());
    with([x, turn.table, biases[0], biases[1]], |[x, table, of_queries, of_values]| {
        y.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| {
            for (token, (y, x)) in y.chunks_exact_mut(row).zip(x.chunks_exact(row)).enumerate() {
                let [queries, rest] = [&x[..channels], &x[channels..]];
                let (own, keys) = y.split_at_mut(channels);
                let (keys, values) = keys.split_at_mut(channels);
                plus(queries, of_queries, own);
                keys.copy_from_slice(&rest[..channels]);
                plus(&rest[channels..], of_values, values);
                if let Some(patch) = token.checked_sub(turn.skip) {
                    let angles = &table[patch * depth..][..depth];
                    turn_all(own, angles, 1.0);
                    turn_all(keys, angles, 1.0);
                }
            }
        });
    })?;
    tensor(y, x.shape().clone())
}

/// The gradient of x, which is that of y turned back.
///
/// # Errors
/// The shapes do not fit.
pub fn backward(dy: &Tensor, turn: &Turn) -> Result<Tensor> {
    let depth = depth(dy, turn)?;
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::rotary::turned(dy, None, turn, depth);
    }
    let channels = turn.heads * depth;
    let row = 3 * channels;
    let size = row * dy.dim(1)? * dy.dim(2)?;
    let mut dx = buffer::take(dy.elem_count());
    with([dy, turn.table], |[dy, table]| {
        dx.par_chunks_mut(size).zip(dy.par_chunks(size)).for_each(|(dx, dy)| {
            dx.copy_from_slice(dy);
            for (patch, row) in dx.chunks_exact_mut(row).skip(turn.skip).enumerate() {
                turn_all(&mut row[..2 * channels], &table[patch * depth..][..depth], -1.0);
            }
        });
    })?;
    tensor(dx, dy.shape().clone())
}

/// The gradients of the biases of queries and of values, from that of x.
///
/// # Errors
/// Only those of the device.
pub fn bias_gradients(dx: &Tensor) -> Result<[Tensor; 2]> {
    let sums = conv::bias_gradient(dx)?;
    let channels = sums.elem_count() / 3;
    let sums = sums.reshape((1, 1, 1, 3 * channels))?;
    let part = |which: usize| join::part(&sums, which * channels, channels)?.reshape(channels);
    Ok([part(0)?, part(2)?])
}

on_every_path! {
    fn plus(x: &[f32], bias: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(x.iter().zip(bias)).for_each(|(y, (x, bias))| *y = x + bias);
    }
}

on_every_path! {
    /// Every head's numbers of one token: i and i + depth / 2 are a point in a plane. Nothing is fused, so that turning back undoes it
    /// alike on all paths.
    fn turn_all(heads: &mut [f32], angles: &[f32], sign: f32) {
        let _ = FUSED;
        for head in heads.chunks_exact_mut(angles.len()) {
            let (first, second) = head.split_at_mut(angles.len() / 2);
            for ((a, b), angle) in first.iter_mut().zip(second).zip(angles.chunks_exact(2)) {
                let (cos, sin) = (angle[0], angle[1] * sign);
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}
