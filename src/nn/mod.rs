//! Operators and their gradients on candle tensors. Each takes what it needs and returns new tensors: nothing
//! here knows of graphs, training or files. Images are [n, height, width, channels], so that vectors run along the
//! channels. On CPU the operators are our own loops; elsewhere they are composed of candle's own (`composed`), which
//! is also what the tests compare with.

use candle_core::Result;
use rayon::prelude::*;

pub mod activation;
pub mod buffer;
pub mod composed;
pub mod conv;
mod gemm;
pub mod join;
mod kernel;
pub mod layout;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod optim;
pub mod pool;
pub mod solve;

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
