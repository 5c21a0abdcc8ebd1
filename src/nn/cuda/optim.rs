//! Optimiser steps and clipping on CUDA, in the parameters' own memory.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Result, Tensor};

use super::{Arg, Threads, at, count, device_of, empty, int, launch, launch_several, memory, place};

/// Parameters of one launch, as in `kernels/optimisers.cuh`.
const TOGETHER: usize = 32;
/// Numbers of a parameter that is worth a launch of its own.
const ALONE: usize = 1 << 17;

/// One parameter's step, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    /// The parameter, two memories (the second may be missing), the gradient, and the numbers, where the device was told them.
    places: [u64; 5],
    numbers: [f32; 6],
    count: u32,
    unused: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entries([Entry; TOGETHER]);

// Safety: plain numbers, laid out as the kernel's struct.
unsafe impl DeviceRepr for Entries {}

/// Steps that wait to be taken in one launch.
#[derive(Default)]
pub struct Waiting {
    entries: Vec<Entry>,
    /// What the entries' addresses are of.
    held: Vec<Tensor>,
    /// Whether somebody else reads the gradients; else their memory is kept for others.
    lent: bool,
}

impl Waiting {
    /// Of gradients that somebody else goes on reading.
    pub fn of_lent() -> Self {
        Self { lent: true, ..Self::default() }
    }

    /// Adds the step of a parameter, with its numbers or by those that `told` holds; `constants` are both betas and epsilon of
    /// AdamW.
    pub fn add(
        &mut self,
        w: &Tensor,
        gradient: Tensor,
        (numbers, memories): HeadNumbers,
        told: Option<&Tensor>,
        constants: [f32; 3],
    ) -> Result<()> {
        let at = |tensor: Option<&Tensor>| tensor.map_or(Ok(0), place);
        let places = [place(w)?, at(memories[0].as_ref())?, at(memories[1].as_ref())?, place(&gradient)?, at(told)?];
        let count = u32::try_from(w.elem_count()).map_err(candle_core::Error::wrap)?;
        self.entries.push(Entry { places, numbers, count, unused: 0 });
        self.held.push(gradient);
        if self.entries.len() == TOGETHER || w.elem_count() >= ALONE {
            self.take(device_of(w)?, constants)
        } else {
            Ok(())
        }
    }

    /// Takes all steps that wait.
    pub fn take(&mut self, device: &CudaDevice, constants: [f32; 3]) -> Result<()> {
        let Some(most) = self.entries.iter().map(|entry| entry.count).max() else { return Ok(()) };
        let mut all = Entries::default();
        all.0[..self.entries.len()].copy_from_slice(&self.entries);
        launch_several(device, "step_several", &all, (self.entries.len(), most), &constants)?;
        self.entries.clear();
        let held = std::mem::take(&mut self.held);
        if !self.lent {
            held.into_iter().for_each(memory::keep);
        }
        Ok(())
    }

    /// The device of what waits.
    pub fn device(&self) -> Option<candle_core::Device> {
        self.held.first().map(|tensor| tensor.device().clone())
    }
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
        memories.push(memory.as_ref().map_or(Ok(0), place)? as i64);
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

/// Adds strength times (w - start) to a gradient, in place.
pub fn pull(gradient: &Tensor, w: &Tensor, start: &Tensor, strength: f64) -> Result<()> {
    let n = gradient.elem_count();
    let args = [count(n)?, at(gradient)?, at(w)?, at(start)?, Arg::Float(strength as f32)];
    launch(device_of(gradient)?, "pull", Threads::Each(n), &args)
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
