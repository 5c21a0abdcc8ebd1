//! Numbers of a tensor on their way to the host: asked for at once, waited for when they are read, so that a device is at work
//! on the next batch while the host writes down this one.

use candle_core::{Result, Tensor};

use super::buffer;

pub enum Coming {
    /// Contiguous, on CPU.
    Here(Tensor),
    #[cfg(feature = "cuda")]
    Owed(super::cuda::pinned::Coming),
}

impl Coming {
    /// The numbers of an f32 tensor of any shape, in order.
    ///
    /// # Errors
    /// There is no memory left, or its device has failed.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.contiguous()?;
        #[cfg(feature = "cuda")]
        if tensor.device().is_cuda() {
            return Ok(Self::Owed(super::cuda::pinned::Coming::of(&tensor)?));
        }
        Ok(Self::Here(tensor))
    }

    /// Hands the numbers to `work`.
    ///
    /// # Errors
    /// The device has failed.
    pub fn read<R>(self, work: impl FnOnce(&[f32]) -> R) -> Result<R> {
        match self {
            Self::Here(tensor) => buffer::with([&tensor], |[numbers]| work(numbers)),
            #[cfg(feature = "cuda")]
            Self::Owed(coming) => coming.read(work),
        }
    }
}
