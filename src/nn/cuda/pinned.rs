//! Bytes of the host on their way to a device: two buffers of pinned memory in turn, one of which is filled while the other is
//! copied.

use candle_core::cuda_backend::cudarc::driver::PinnedHostSlice;
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{Result, Tensor};

use super::{device_of, slice_of};

pub struct Ring {
    buffers: [PinnedHostSlice<u8>; 2],
    next: usize,
}

impl Ring {
    /// For so many bytes at a time.
    ///
    /// # Errors
    /// There is no memory left.
    pub fn new(device: &CudaDevice, bytes: usize) -> Result<Self> {
        // Safety: `send` has a buffer written before it is read.
        let buffer = || unsafe { device.cuda_stream().context().alloc_pinned::<u8>(bytes) }.w();
        Ok(Self { buffers: [buffer()?, buffer()?], next: 0 })
    }

    /// Puts what `fill` writes, all of a buffer, into the memory of `into`, behind everything that was asked of its device
    /// before. Waits only where the bytes of the call before the last are not there yet.
    ///
    /// # Errors
    /// `into` is smaller, or the device has failed.
    pub fn send(&mut self, into: &Tensor, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        self.next = 1 - self.next;
        let buffer = &mut self.buffers[self.next];
        let mut place = slice_of::<u8>(into)?;
        if place.len() < buffer.len() {
            candle_core::bail!("{} bytes do not fit {:?}", buffer.len(), into.shape());
        }
        fill(buffer.as_mut_slice().w()?);
        device_of(into)?.cuda_stream().memcpy_htod(buffer, &mut *place).w()
    }
}
