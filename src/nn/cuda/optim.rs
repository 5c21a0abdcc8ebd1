//! Optimiser steps and clipping on CUDA, in the parameters' own memory.

use candle_core::{DType, Result, Tensor};

use super::{Arg, Threads, at, count, device_of, empty, int, launch};

/// SGD as of `nn::optim`: decay that is coupled, shrink of the parameter, rate, momentum.
pub fn sgd(w: &Tensor, velocity: &Tensor, gradient: &Tensor, numbers: [f32; 4], nesterov: bool) -> Result<()> {
    let n = w.elem_count();
    let mut args = vec![count(n)?, at(w)?, at(velocity)?, at(gradient)?];
    args.extend(numbers.map(Arg::Float));
    args.push(Arg::Int(i32::from(nesterov)));
    launch(device_of(w)?, "sgd", Threads::Each(n), &args)
}

/// AdamW as of `nn::optim`: decay that is coupled, shrink, rate, scale of the second moment, both betas, epsilon.
pub fn adam(w: &Tensor, [first, second]: [&Tensor; 2], gradient: &Tensor, numbers: [f32; 7]) -> Result<()> {
    let n = w.elem_count();
    let mut args = vec![count(n)?, at(w)?, at(first)?, at(second)?, at(gradient)?];
    args.extend(numbers.map(Arg::Float));
    launch(device_of(w)?, "adam", Threads::Each(n), &args)
}

/// A head's kind of step, five numbers of it, and its memories: what the kernel reads of it.
pub type HeadNumbers = ([f32; 6], [Option<Tensor>; 2]);

/// A step of all heads of [heads x out, ...] in one launch; `betas` and epsilon of AdamW.
pub fn step_heads(
    heads: &[HeadNumbers],
    w: &Tensor,
    gradient: &Tensor,
    [beta, second, epsilon]: [f32; 3],
) -> Result<()> {
    let (n, device) = (w.elem_count(), w.device());
    let numbers: Vec<f32> = heads.iter().flat_map(|(numbers, _)| *numbers).collect();
    let mut memories = Vec::with_capacity(2 * heads.len());
    for memory in heads.iter().flat_map(|(_, memories)| memories) {
        memories.push(match super::at_some(memory.as_ref())? {
            Arg::Pointer(at) => at as i64,
            _ => 0,
        });
    }
    let numbers = Tensor::from_vec(numbers, 6 * heads.len(), device)?;
    let memories = Tensor::from_vec(memories, 2 * heads.len(), device)?;
    let mut args = vec![count(n)?, int(n / heads.len()), at(&numbers)?, at(&memories)?, at(w)?, at(gradient)?];
    args.extend([beta, second, epsilon].map(Arg::Float));
    launch(device_of(w)?, "step_heads", Threads::Each(n), &args)
}

/// Scales gradients in place so that their global norm is at most `limit`; nothing is read back.
pub fn clip(gradients: &[&mut Tensor], limit: f64) -> Result<()> {
    let Some(first) = gradients.first() else { return Ok(()) };
    let device = device_of(first)?;
    let sums = empty(device, DType::F64, gradients.len())?;
    for (index, gradient) in gradients.iter().enumerate() {
        let args = [count(gradient.elem_count())?, at(gradient)?, at(&sums.narrow(0, index, 1)?)?];
        launch(device, "squares", Threads::Block, &args)?;
    }
    for gradient in gradients {
        let n = gradient.elem_count();
        let args = [count(n)?, at(gradient)?, int(gradients.len()), at(&sums)?, Arg::Double(limit)];
        launch(device, "clip", Threads::Each(n), &args)?;
    }
    Ok(())
}

/// Whether all numbers of f32 tensors are finite: one answer for all of them.
pub fn all_finite(tensors: &[&Tensor]) -> Result<bool> {
    let Some(first) = tensors.first() else { return Ok(true) };
    let device = device_of(first)?;
    let flag = Tensor::zeros(1, DType::U32, first.device())?;
    for tensor in tensors {
        let tensor = tensor.contiguous()?;
        let n = tensor.elem_count();
        launch(device, "not_finite", Threads::Each(n), &[count(n)?, at(&tensor)?, at(&flag)?])?;
    }
    Ok(flag.to_vec1::<u32>()?[0] == 0)
}
