//! Attention of one token over all others, on CUDA. What a head weighs them with is f32 whatever its numbers are.

use candle_core::{DType, Result, Tensor};

use super::{Arg, Threads, at, count, device_of, empty, int, launch, launch_of, memory};
use crate::nn::attention::Sizes;

/// The product of each head's vector [n, channels] with its keys or its values: [n, heads, tokens].
fn dots(vectors: &Tensor, rows: &Tensor, values: bool, sizes: &Sizes) -> Result<Tensor> {
    let n = sizes.images * sizes.heads * sizes.tokens;
    let found = empty(device_of(rows)?, DType::F32, n)?;
    let mut args = vec![count(n)?];
    args.extend(shape(sizes, values));
    args.extend([at(vectors)?, at(rows)?, at(&found)?]);
    launch_of(device_of(rows)?, "pool_dots", rows.dtype(), Threads::Each(n), &args)?;
    Ok(found)
}

/// Keys or values, each times its weight, in one sum for each head: [n, channels].
fn sums(weights: &Tensor, rows: &Tensor, values: bool, sizes: &Sizes, like: &Tensor) -> Result<Tensor> {
    let n = sizes.images * sizes.channels();
    let y = empty(device_of(rows)?, rows.dtype(), like.shape())?;
    let mut args = vec![count(n)?];
    args.extend(shape(sizes, values));
    args.extend([at(weights)?, at(rows)?, at(&y)?]);
    launch_of(device_of(rows)?, "pool_sums", rows.dtype(), Threads::Each(n), &args)?;
    Ok(y)
}

fn shape(sizes: &Sizes, values: bool) -> [Arg; 4] {
    [int(sizes.tokens), int(sizes.heads), int(sizes.depth), int(usize::from(values))]
}

fn weights(queries: &Tensor, keys: &Tensor, sizes: &Sizes) -> Result<Tensor> {
    let found = dots(queries, keys, false, sizes)?;
    let rows = sizes.images * sizes.heads;
    let args = [count(rows)?, int(sizes.tokens), sizes.scale().into(), at(&found)?, at(&found)?];
    launch(device_of(keys)?, "softmax_f32", Threads::Rows(rows), &args)?;
    Ok(found)
}

/// As `nn::attention_pool::forward`.
pub fn forward(queries: &Tensor, keys: &Tensor, sizes: &Sizes) -> Result<Tensor> {
    let weights = weights(queries, keys, sizes)?;
    let y = sums(&weights, keys, true, sizes, queries)?;
    memory::keep(weights);
    Ok(y)
}

/// As `nn::attention_pool::backward`.
pub fn backward(queries: &Tensor, keys: &Tensor, dy: &Tensor, sizes: &Sizes) -> Result<[Tensor; 2]> {
    let weights = weights(queries, keys, sizes)?;
    let slopes = dots(dy, keys, true, sizes)?;
    let rows = sizes.images * sizes.heads;
    let mut args = vec![count(rows)?, int(sizes.tokens), sizes.scale().into(), at(&weights)?];
    args.extend([at(&slopes)?, at(&slopes)?]);
    launch(device_of(keys)?, "softmax_gradient_f32", Threads::Rows(rows), &args)?;
    let dqueries = sums(&slopes, keys, false, sizes, queries)?;
    let dkeys = empty(device_of(keys)?, keys.dtype(), keys.shape())?;
    let n = keys.elem_count();
    let mut args = vec![count(n)?];
    args.extend([sizes.tokens, sizes.heads, sizes.depth].map(int));
    args.extend([at(&slopes)?, at(&weights)?, at(queries)?, at(dy)?, at(&dkeys)?]);
    launch_of(device_of(keys)?, "pool_spread", keys.dtype(), Threads::Each(n), &args)?;
    memory::keep(weights);
    memory::keep(slopes);
    Ok([dqueries, dkeys])
}
