//! Attention of one learned token over all tokens of an image (the pooling of Lee et al., 2019, which SigLIP has before its head:
//! Zhai et al., 2023). Each head's weights are computed again in the backward pass.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::attention::{self, Sizes};
use super::buffer::{self, tensor, with};
use super::kernel::{add_lanes, madd, on_every_path};

/// Of queries [n, 1, 1, channels] and of keys and values side by side, [n, height, width, 2 x channels].
fn sizes(queries: &Tensor, keys: &Tensor, heads: usize) -> Result<Sizes> {
    let (images, height, width, numbers) = keys.dims4()?;
    let channels = numbers / 2;
    if queries.dims() != [images, 1, 1, channels] || numbers % 2 != 0 || heads == 0 || channels % heads != 0 {
        bail!("queries of {:?} with {heads} heads do not fit keys and values {:?}", queries.shape(), keys.shape());
    }
    Ok(Sizes { images, tokens: height * width, heads, depth: channels / heads })
}

/// What the token of every image takes from the others: queries [n, 1, 1, channels], keys and values [n, height, width, 2 x channels]
/// to [n, 1, 1, channels].
///
/// # Errors
/// The shapes do not fit.
pub fn forward(queries: &Tensor, keys: &Tensor, heads: usize) -> Result<Tensor> {
    let sizes = sizes(queries, keys, heads)?;
    #[cfg(feature = "cuda")]
    if keys.device().is_cuda() {
        return super::cuda::attention_pool::forward(queries, keys, &sizes);
    }
    let (channels, depth) = (sizes.channels(), sizes.depth);
    let mut y = buffer::zeros(sizes.images * channels);
    with([queries, keys], |[queries, keys]| {
        let image = sizes.tokens * 2 * channels;
        y.par_chunks_mut(depth).zip(queries.par_chunks(depth)).enumerate().for_each(|(unit, (y, query))| {
            let rows = &keys[unit / heads * image..][..image];
            let first = unit % heads * depth;
            let weights = weights(&sizes, rows, first, query);
            add_rows(rows, 2 * channels, channels + first, &weights, y);
            buffer::keep(weights);
        });
    })?;
    tensor(y, queries.shape().clone())
}

/// The gradients of queries, and of keys and values.
///
/// # Errors
/// The shapes do not fit.
pub fn backward(queries: &Tensor, keys: &Tensor, dy: &Tensor, heads: usize) -> Result<[Tensor; 2]> {
    let sizes = sizes(queries, keys, heads)?;
    if dy.shape() != queries.shape() {
        bail!("a gradient of {:?} does not fit {:?}", dy.shape(), queries.shape());
    }
    #[cfg(feature = "cuda")]
    if keys.device().is_cuda() {
        return super::cuda::attention_pool::backward(queries, keys, dy, &sizes);
    }
    let channels = sizes.channels();
    let (row, image) = (2 * channels, sizes.tokens * 2 * channels);
    let mut dqueries = buffer::zeros(sizes.images * channels);
    let mut dkeys = buffer::take(keys.elem_count());
    with([queries, keys, dy], |[queries, keys, dy]| {
        let given = queries.par_chunks(channels).zip(dy.par_chunks(channels)).zip(keys.par_chunks(image));
        let found = dqueries.par_chunks_mut(channels).zip(dkeys.par_chunks_mut(image));
        found.zip(given).for_each(|((dquery, dkeys), ((query, dy), keys))| {
            for first in (0..channels).step_by(sizes.depth) {
                let own = first..first + sizes.depth;
                let (query, dy) = (&query[own.clone()], &dy[own.clone()]);
                let weights = weights(&sizes, keys, first, query);
                let mut slopes = buffer::take(sizes.tokens);
                dots(keys, row, channels + first, dy, &mut slopes);
                attention::softmax_gradient(&weights, &mut slopes, sizes.tokens, sizes.tokens, sizes.scale());
                add_rows(keys, row, first, &slopes, &mut dquery[own]);
                spread(dkeys, row, first, &slopes, query);
                spread(dkeys, row, channels + first, &weights, dy);
                buffer::keep(weights);
                buffer::keep(slopes);
            }
        });
    })?;
    Ok([tensor(dqueries, queries.shape().clone())?, tensor(dkeys, keys.shape().clone())?])
}

/// What a head's query weighs the tokens with.
fn weights(sizes: &Sizes, rows: &[f32], first: usize, query: &[f32]) -> Vec<f32> {
    let mut scores = buffer::take(sizes.tokens);
    dots(rows, 2 * sizes.channels(), first, query, &mut scores);
    attention::softmax(&mut scores, sizes.tokens, sizes.tokens, sizes.scale());
    scores
}

on_every_path! {
    /// The product of a vector with a part of every row.
    fn dots(rows: &[f32], row: usize, first: usize, vector: &[f32], into: &mut [f32]) {
        for (into, own) in into.iter_mut().zip(rows.chunks_exact(row)) {
            let mut lanes = [0f32; 16];
            for (own, vector) in own[first..][..vector.len()].chunks(16).zip(vector.chunks(16)) {
                for (lane, (own, number)) in lanes.iter_mut().zip(own.iter().zip(vector)) {
                    *lane = madd::<FUSED>(*own, *number, *lane);
                }
            }
            *into = add_lanes(&lanes);
        }
    }
}

on_every_path! {
    /// Adds a part of every row, times its weight.
    fn add_rows(rows: &[f32], row: usize, first: usize, weights: &[f32], sum: &mut [f32]) {
        for (weight, own) in weights.iter().zip(rows.chunks_exact(row)) {
            sum.iter_mut().zip(&own[first..]).for_each(|(sum, own)| *sum = madd::<FUSED>(*weight, *own, *sum));
        }
    }
}

on_every_path! {
    /// Puts a vector, times its weight, into a part of every row.
    fn spread(rows: &mut [f32], row: usize, first: usize, weights: &[f32], vector: &[f32]) {
        let _ = FUSED;
        for (weight, own) in weights.iter().zip(rows.chunks_exact_mut(row)) {
            own[first..].iter_mut().zip(vector).for_each(|(own, number)| *own = weight * number);
        }
    }
}
