//! Pinned memory between the host and a device, so that copies wait for nobody. To the device: two buffers in turn, one of
//! which is filled while the other is copied. From it: a buffer for each tensor that is on its way.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaStream, DeviceRepr, PinnedHostSlice, ValidAsZeroBits, sys::CU_MEMHOSTALLOC_WRITECOMBINED,
    sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC,
};
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{Result, Tensor};

use super::{device_of, slice_of};

/// Memory that the host reads through its caches.
const CACHED: u32 = 0;

/// Pinned memory, and when the last copy that reads or writes it is over. cudarc's own event of such memory says nothing here: it
/// is recorded only where cudarc keeps several streams in order, which nobody asks of it (`device::open`).
struct Buffer<T> {
    memory: PinnedHostSlice<T>,
    copied: CudaEvent,
}

impl<T: DeviceRepr + ValidAsZeroBits> Buffer<T> {
    fn new(device: &CudaDevice, count: usize, kind: u32) -> Result<Self> {
        let stream = device.cuda_stream();
        let copied = stream.context().new_event(Some(CU_EVENT_BLOCKING_SYNC)).w()?;
        // Safety: whoever makes it has it written before it is read.
        let memory = unsafe { stream.context().alloc_pinned_with_flags(count, kind) }.w()?;
        Ok(Self { memory, copied })
    }

    /// Notes that a copy was asked of a stream.
    fn is_under_way(&self, stream: &CudaStream) -> Result<()> {
        self.copied.record(stream).w()
    }

    /// The numbers, once no copy is under way.
    fn numbers(&self) -> Result<&[T]> {
        self.copied.synchronize().w()?;
        self.memory.as_slice().w()
    }

    fn numbers_mut(&mut self) -> Result<&mut [T]> {
        self.copied.synchronize().w()?;
        self.memory.as_mut_slice().w()
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        // No copy may find the memory gone. A device that has failed says so at its next use.
        let _ = self.copied.synchronize();
    }
}

pub struct Ring {
    buffers: [Buffer<u8>; 2],
    next: usize,
}

impl Ring {
    /// For so many bytes at a time.
    ///
    /// # Errors
    /// There is no memory left.
    pub fn new(device: &CudaDevice, bytes: usize) -> Result<Self> {
        // Only ever written by the host; `send` has a buffer written before it is read.
        let buffer = || Buffer::new(device, bytes, CU_MEMHOSTALLOC_WRITECOMBINED);
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
        if place.len() < buffer.memory.len() {
            candle_core::bail!("{} bytes do not fit {:?}", buffer.memory.len(), into.shape());
        }
        fill(buffer.numbers_mut()?);
        let stream = device_of(into)?.cuda_stream();
        stream.memcpy_htod(&buffer.memory, &mut *place).w()?;
        buffer.is_under_way(&stream)
    }
}

/// A device, and a count of numbers.
type Size = (DeviceId, usize);

thread_local! {
    /// Buffers that nobody waits for.
    static FREE: RefCell<HashMap<Size, Vec<Buffer<f32>>>> = RefCell::default();
}

/// The numbers of a tensor on their way to the host.
pub struct Coming {
    size: Size,
    buffer: Buffer<f32>,
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
            // The copy writes all of it before it is read.
            None => Buffer::new(device, size.1, CACHED)?,
        };
        let stream = device.cuda_stream();
        stream.memcpy_dtoh(&*slice_of::<f32>(tensor)?, &mut buffer.memory).w()?;
        buffer.is_under_way(&stream)?;
        Ok(Self { size, buffer })
    }

    /// Waits for the numbers, though for nothing that was asked of the device behind them, and hands them to `work`.
    ///
    /// # Errors
    /// The device has failed.
    pub fn read<R>(self, work: impl FnOnce(&[f32]) -> R) -> Result<R> {
        let result = work(self.buffer.numbers()?);
        FREE.with_borrow_mut(|free| free.entry(self.size).or_default().push(self.buffer));
        Ok(result)
    }
}

/// Gives the buffers of this thread back to the system.
pub fn release() {
    FREE.with_borrow_mut(HashMap::clear);
}
