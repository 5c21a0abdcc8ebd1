//! Operators and their gradients on candle tensors. Each takes what it needs and returns new tensors: nothing
//! here knows of graphs, training or files. On CPU they are our own loops; elsewhere they are composed of candle's
//! own operators (`composed`), which is also what the tests compare with.

pub mod activation;
pub mod composed;
pub mod conv;
pub mod join;
mod kernel;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod optim;
mod pack;
pub mod pool;

use candle_core::{Result, Storage, Tensor};

/// Runs `work` over the numbers of contiguous f32 tensors on CPU.
pub(crate) fn with<R, const N: usize>(tensors: [&Tensor; N], work: impl FnOnce([&[f32]; N]) -> R) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let (Storage::Cpu(cpu), Some((start, end))) = (&**storage, layout.contiguous_offsets()) else {
            candle_core::bail!("a CPU operator needs contiguous tensors on the CPU");
        };
        *slice = &cpu.as_slice::<f32>()?[start..end];
    }
    Ok(work(slices))
}

/// A CPU tensor of `values`.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &candle_core::Device::Cpu)
}
