//! Operators and their gradients on candle tensors. Each takes what it needs and returns new tensors: nothing
//! here knows of graphs, training or files. Images are [n, height, width, channels], so that vectors run along the
//! channels. On CPU the operators are our own loops; on CUDA devices they are those of `cuda`.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, PoisonError};

use candle_core::{DType, Device, Result};
use rayon::prelude::*;

use crate::device::Precision;

pub mod activation;
pub mod attention;
pub mod attention_pool;
pub mod buffer;
pub mod causal;
pub mod coming;
pub mod conv;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod curve;
pub mod discriminant;
mod exponential;
pub mod gate;
mod gemm;
pub mod join;
mod kernel;
pub mod layer_norm;
pub mod layout;
pub mod libraries;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod optim;
pub mod pointwise;
pub mod pool;
pub mod probe;
pub mod pull;
pub mod response_norm;
pub mod rotary;
pub mod separable;
pub mod solve;
pub mod swiglu;
pub mod temperature;
pub mod tokens;
pub mod transferability;
pub mod unit_norm;
pub mod window_attention;

thread_local! {
    static PRECISION: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// How the process rounds, and how many threads ask for it: cuBLAS' handles take it from one place.
static ROUNDING: (Mutex<(Precision, usize)>, Condvar) = (Mutex::new((Precision::F32, 0)), Condvar::new());

/// Products of this thread round as asked for while this is held.
#[must_use]
pub struct Rounding(());

/// How products of this thread round from here on; on CPU they are f32 whatever is said. Waits for threads that round
/// otherwise.
pub fn round(precision: Precision) -> Rounding {
    let (state, changed) = &ROUNDING;
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let busy = |state: &mut (Precision, usize)| state.1 > 0 && state.0 != precision;
    let mut state = changed.wait_while(state, busy).unwrap_or_else(PoisonError::into_inner);
    *state = (precision, state.1 + 1);
    PRECISION.set(precision);
    #[cfg(feature = "cuda")]
    cuda::device::round(precision);
    Rounding(())
}

impl Drop for Rounding {
    fn drop(&mut self) {
        let (state, changed) = &ROUNDING;
        state.lock().unwrap_or_else(PoisonError::into_inner).1 -= 1;
        PRECISION.set(Precision::F32);
        changed.notify_all();
    }
}

/// The numbers that images and activations are on `device`.
pub fn numbers(device: &Device) -> DType {
    if device.is_cuda() && PRECISION.get() == Precision::Bf16 { DType::BF16 } else { DType::F32 }
}

/// Bytes of a device's memory that are free, and all that it has.
///
/// # Errors
/// It is no CUDA device, or does not answer.
pub fn memory(device: &Device) -> Result<(usize, usize)> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return cuda::device::memory(device);
    }
    candle_core::bail!("{device:?} has no memory of its own")
}

/// Bytes of the largest tensor whose device memory is kept for the next one of its size.
pub const LARGEST_KEPT: usize = 1 << 27;

/// Bytes that a GPU's products work in: what NVIDIA recommends for compute capability 9.0 (cuBLAS 13, `cublasSetWorkspace`).
pub const PRODUCT_SPACE: usize = 1 << 25;

/// Gives memory that is kept for later tensors back to whoever needs it.
pub fn give_back(device: &Device) {
    buffer::release();
    // A context that is broken says so at its next use.
    #[cfg(feature = "cuda")]
    let _ = cuda::device::trim(device, 0);
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}

/// Does `work` for each of the items, on all threads of the pool; the results in their order.
///
/// # Errors
/// The first that occurs.
pub fn each<I: Sync, R: Send>(items: &[I], work: impl Fn(&I) -> Result<R> + Send + Sync) -> Result<Vec<R>> {
    items.par_iter().map(work).collect()
}

/// Does `work` on a thread of the pool that the operators run on, so that one thread does all of it and none is woken for
/// every operator.
pub fn on_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

/// Does `work` with one thread for all operators in it.
///
/// # Errors
/// The system gives no thread.
pub fn one_thread<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(candle_core::Error::wrap)?;
    Ok(pool.install(work))
}
