//! Attention in which a token sees those before it and itself (Vaswani et al., 2017; CLIP reads texts so). Forward only, on the CPU:
//! texts are short, and read once.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::attention::Sizes;
use super::buffer::{self, tensor, with};
use super::exponential::exponential;

/// y [n, tokens, 1, channels] of x [n, tokens, 1, 3 x channels]: queries, keys and values side by side, each head by head.
///
/// # Errors
/// The input cannot be cut so.
pub fn forward(x: &Tensor, heads: usize) -> Result<Tensor> {
    let sizes = Sizes::of(x, heads)?;
    let (row, channels) = (3 * sizes.channels(), sizes.channels());
    let mut y = buffer::take(sizes.images * sizes.tokens * channels);
    with([x], |[x]| {
        let of_text = y.par_chunks_mut(sizes.tokens * channels).zip(x.par_chunks(sizes.tokens * row));
        of_text.for_each(|(y, x)| {
            for (token, y) in y.chunks_exact_mut(channels).enumerate() {
                for head in 0..heads {
                    let part = head * sizes.depth..(head + 1) * sizes.depth;
                    attend(x, token, part.start, &sizes, &mut y[part]);
                }
            }
        });
    })?;
    tensor(y, (sizes.images, sizes.tokens, 1, channels))
}

/// One head's answer for a token; its numbers begin at `first` of queries, of keys and of values.
fn attend(x: &[f32], token: usize, first: usize, sizes: &Sizes, y: &mut [f32]) {
    let (channels, depth) = (sizes.channels(), sizes.depth);
    let part = |token: usize, kind: usize| &x[(3 * token + kind) * channels + first..][..depth];
    let query = part(token, 0);
    let score = |key: &[f32]| query.iter().zip(key).map(|(query, key)| query * key).sum::<f32>() * sizes.scale();
    let scores: Vec<f32> = (0..=token).map(|other| score(part(other, 1))).collect();
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = scores.iter().map(|score| exponential(score - most)).collect();
    let all: f32 = weights.iter().sum();
    y.fill(0.0);
    for (other, weight) in weights.iter().enumerate() {
        y.iter_mut().zip(part(other, 2)).for_each(|(y, value)| *y += weight / all * value);
    }
}
