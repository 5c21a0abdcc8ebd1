//! Images on their way to a CUDA device: bytes go through pinned memory while the device is still at work on the batch before,
//! and become numbers there.

use std::cell::RefCell;

use candle_core::cuda_backend::cudarc::driver::PinnedHostSlice;
use candle_core::cuda_backend::{CudaDevice, CudaStorage, DeviceId, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{DType, Device, Result, Storage, Tensor};

use super::{Threads, at, count, empty, int, launch};

/// Two buffers in turn: one is filled while the other is copied. The driver waits where a copy is not done yet.
#[derive(Default)]
struct Ring {
    device: Option<DeviceId>,
    buffers: [Option<PinnedHostSlice<u8>>; 2],
    next: usize,
}

thread_local! {
    static RING: RefCell<Ring> = RefCell::default();
}

impl Ring {
    /// The next buffer, of at least so many bytes.
    fn buffer(&mut self, device: &CudaDevice, bytes: usize) -> Result<&mut PinnedHostSlice<u8>> {
        if self.device != Some(device.id()) {
            *self = Self { device: Some(device.id()), ..Self::default() };
        }
        self.next = 1 - self.next;
        let place = &mut self.buffers[self.next];
        if place.as_ref().is_none_or(|buffer| buffer.len() < bytes) {
            // Safety: whoever takes the buffer writes what is read of it.
            *place = Some(unsafe { device.cuda_stream().context().alloc_pinned(bytes) }.w()?);
        }
        match place {
            Some(buffer) => Ok(buffer),
            None => candle_core::bail!("no buffer for images"),
        }
    }
}

/// Bytes on the device; `fill` writes them.
fn staged(device: &CudaDevice, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<Tensor> {
    RING.with_borrow_mut(|ring| {
        let buffer = ring.buffer(device, bytes)?;
        fill(&mut buffer.as_mut_slice().w()?[..bytes]);
        let all = buffer.len();
        // Safety: all of it is written before it is read, as far as it is read.
        let mut on_device = unsafe { device.alloc::<u8>(all)? };
        device.cuda_stream().memcpy_htod(buffer, &mut on_device).w()?;
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(on_device, device.clone()));
        Ok(Tensor::from_storage(storage, all, BackpropOp::none(), false))
    })
}

/// Images [n, 3, height, width] of RGB bytes that `fill` writes, image by image and row by row. `planes` says for each plane
/// which byte of a pixel it takes, and the scale and the shift: byte * scale + shift, the numbers that a CPU computes.
///
/// # Errors
/// The device has no memory left.
pub fn images(
    device: &Device,
    [n, height, width]: [usize; 3],
    planes: [(usize, f32, f32); 3],
    fill: impl FnOnce(&mut [u8]),
) -> Result<Tensor> {
    let (cuda, pixels) = (device.as_cuda_device()?, height * width);
    let bytes = staged(cuda, 3 * n * pixels, fill)?;
    let of = |pick: fn((usize, f32, f32)) -> f32| Tensor::from_slice(&planes.map(pick), 3, device);
    let (scale, shift) = (of(|plane| plane.1)?, of(|plane| plane.2)?);
    let y = empty(cuda, DType::F32, (n, 3, height, width))?;
    let all = y.elem_count();
    let [red, green, blue] = planes.map(|plane| int(plane.0));
    let args = [count(all)?, int(pixels), at(&bytes)?, at(&scale)?, at(&shift)?, red, green, blue, at(&y)?];
    launch(cuda, "normalise", Threads::Each(all), &args)?;
    Ok(y)
}
