//! Rotary positions on CUDA.

use candle_core::{Result, Tensor};

use super::{Threads, at, at_some, count, device_of, empty, int, launch_of};
use crate::nn::rotary::Turn;

/// As `nn::rotary::forward`; without biases as `nn::rotary::backward`, which turns back.
pub fn turned(x: &Tensor, biases: Option<[&Tensor; 2]>, turn: &Turn, depth: usize) -> Result<Tensor> {
    let (_, height, width, _) = x.dims4()?;
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    let pairs = x.elem_count() / 2;
    count(x.elem_count())?;
    let [of_queries, of_values] = [0, 1].map(|which| biases.map(|biases| biases[which]));
    let sign = if biases.is_some() { 1.0f32 } else { -1.0 };
    let sizes = [height * width, turn.skip, turn.heads, depth / 2].map(int);
    let mut args = vec![count(pairs)?];
    args.extend(sizes);
    args.extend([sign.into(), at(turn.table)?, at_some(of_queries)?, at_some(of_values)?, at(x)?, at(&y)?]);
    launch_of(device_of(x)?, "rotary", x.dtype(), Threads::Each(pairs), &args)?;
    Ok(y)
}
