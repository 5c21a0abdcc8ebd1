//! Pinned memory between the host and a device, so that copies wait for nobody. To the device: two buffers in turn, one of
//! which is filled while the other is copied. From it: a buffer for each tensor that is on its way.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::cuda_backend::cudarc::driver::PinnedHostSlice;
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
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

/// Memory that the host reads through its caches; that of a `Ring` is only ever written.
const CACHED: u32 = 0;

/// A device, and a count of numbers.
type Size = (DeviceId, usize);

thread_local! {
    /// Buffers that nobody waits for.
    static FREE: RefCell<HashMap<Size, Vec<PinnedHostSlice<f32>>>> = RefCell::default();
}

/// The numbers of a tensor on their way to the host.
pub struct Coming {
    size: Size,
    buffer: PinnedHostSlice<f32>,
}

impl Coming {
    /// Asks for the numbers of a contiguous f32 tensor, behind everything that was asked of its device before.
    ///
    /// # Errors
    /// There is no memory left, or the device has failed.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let device = device_of(tensor)?;
        let size = (device.id(), tensor.elem_count());
        let mut buffer = match FREE.with_borrow_mut(|free| free.get_mut(&size).and_then(Vec::pop)) {
            Some(buffer) => buffer,
            // Safety: the copy writes all of it before it is read.
            None => unsafe { device.cuda_stream().context().alloc_pinned_with_flags(size.1, CACHED) }.w()?,
        };
        device.cuda_stream().memcpy_dtoh(&*slice_of::<f32>(tensor)?, &mut buffer).w()?;
        Ok(Self { size, buffer })
    }

    /// Waits for the numbers, though for nothing that was asked of the device behind them, and hands them to `work`.
    ///
    /// # Errors
    /// The device has failed.
    pub fn read<R>(self, work: impl FnOnce(&[f32]) -> R) -> Result<R> {
        let result = work(self.buffer.as_slice().w()?);
        FREE.with_borrow_mut(|free| free.entry(self.size).or_default().push(self.buffer));
        Ok(result)
    }
}

/// Gives the buffers of this thread back to the system.
pub fn release() {
    FREE.with_borrow_mut(HashMap::clear);
}
