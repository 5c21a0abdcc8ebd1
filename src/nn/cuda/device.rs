//! A CUDA device as the operators use it: its memory, its stream, and how products round.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cublas::sys::{cublasGetProperty, libraryPropertyType as Property};
use candle_core::cuda_backend::cudarc::driver::{CudaContext, result, sys};
use candle_core::cuda_backend::{CudaDevice, WrapErr, set_gemm_reduced_precision_bf16, set_gemm_reduced_precision_f32};
use candle_core::{Device, Error, Result};

use super::alone::alone;
use super::{device_of, loading, product};
use crate::device::Precision;
use crate::nn::PRODUCT_SPACE;

/// What GPUs compute, apart from NVIDIA's libraries: raised with every change of their numbers, as `key::ENGINE` is with those
/// of all devices.
const REVISION: u32 = 3;

/// Devices whose threads have ended, by their indices, with all that was made for them: the next thread takes one. Giving their
/// handles back would wait for the whole device, and fail while another thread's stream captures.
static IDLE: Mutex<Vec<(usize, Device)>> = Mutex::new(Vec::new());

/// The devices of a thread.
#[derive(Default)]
struct Opened(Vec<(usize, Device)>);

impl Drop for Opened {
    fn drop(&mut self) {
        for (_, device) in &self.0 {
            // What the thread has asked for may still use the handles. A device that has failed says so at its next use.
            let _ = device.as_cuda_device().map(|cuda| cuda.cuda_stream().synchronize());
        }
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.0);
    }
}

thread_local! {
    static OPENED: RefCell<Opened> = RefCell::default();
}

/// The device of an index as this thread opened it, one that waits for a thread, or another one.
fn opened(index: usize) -> Result<Device> {
    let known = OPENED.with_borrow(|opened| opened.0.iter().find(|own| own.0 == index).cloned());
    if let Some((_, device)) = known {
        return Ok(device);
    }
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let waits = idle.iter().rposition(|own| own.0 == index).map(|place| idle.remove(place).1);
    drop(idle);
    // The stream of either is that of the thread which asks.
    let device = waits.map_or_else(|| alone(|| Device::new_cuda(index)), Ok)?;
    OPENED.with_borrow_mut(|opened| opened.0.push((index, device.clone())));
    Ok(device)
}

/// Opens the device of an index for this thread: one stream, whose freed memory is kept for the next tensors.
///
/// # Errors
/// There is no such device, it refuses a context, or a library is missing.
pub fn open(index: usize) -> Result<Device> {
    loading::load().map_err(Error::msg)?;
    let device = opened(index)?;
    let cuda = device.as_cuda_device()?;
    // Safety: all work of this process runs on the one stream of this thread, in order; no event needs to say so.
    unsafe { cuda.disable_event_tracking() };
    keep_memory(cuda.cuda_stream().context())?;
    product::prepare(cuda)?;
    Ok(device)
}

/// The index by which CUDA knows the device of a UUID as the driver's management library writes it, `GPU-` or, for an
/// instance of a divided one, `MIG-`, and 32 digits in five groups: the two may count devices in different orders.
///
/// # Errors
/// There is no such device among those that CUDA_VISIBLE_DEVICES shows, the driver fails, or a library is missing.
pub fn index_of(uuid: &str) -> Result<usize> {
    loading::load().map_err(Error::msg)?;
    let digits = |text: &str| text.trim_start_matches("GPU-").trim_start_matches("MIG-").replace('-', "");
    result::init().w()?;
    for index in 0..result::device::get_count().w()? {
        let own = result::device::get_uuid(result::device::get(index).w()?).w()?;
        if own.bytes.iter().map(|byte| format!("{:02x}", *byte as u8)).collect::<String>() == digits(uuid) {
            return Ok(index as usize);
        }
    }
    candle_core::bail!("CUDA shows others to this process: CUDA_VISIBLE_DEVICES={uuid} shows it")
}

/// Freed memory stays with the process: the driver would return it to the system at every synchronisation, and training
/// asks for the same sizes at every step.
fn keep_memory(context: &CudaContext) -> Result<()> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut most = u64::MAX;
    let mut pool = std::ptr::null_mut();
    // Safety: both calls write what they are given addresses of; the pool is the device's own.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result().w()?;
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, threshold, (&raw mut most).cast()).result().w()
    }
}

/// Gives kept memory back to the device, but for `left` bytes.
///
/// # Errors
/// The context is broken.
pub fn trim(device: &Device, left: usize) -> Result<()> {
    let Device::Cuda(cuda) = device else { return Ok(()) };
    super::space::give_back();
    shrink(cuda, left)
}

/// The same without what convolutions work in. What was freed is free once the device is done with it.
pub(super) fn shrink(device: &CudaDevice, left: usize) -> Result<()> {
    let stream = device.cuda_stream();
    if !stream.context().has_async_alloc() {
        return Ok(());
    }
    stream.synchronize().w()?;
    let mut pool = std::ptr::null_mut();
    // Safety: the pool is the device's own; what is in use is not given back.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, stream.context().cu_device()).result().w()?;
        sys::cuMemPoolTrimTo(pool, left).result().w()
    }
}

/// The most bytes that tensors have taken at one time since the last call of this function.
///
/// # Errors
/// The context is broken.
pub fn peak(device: &Device) -> Result<u64> {
    let Device::Cuda(cuda) = device else { return Ok(0) };
    let stream = cuda.cuda_stream();
    if !stream.context().has_async_alloc() {
        return Ok(0);
    }
    stream.synchronize().w()?;
    let (mut pool, mut most, mut none) = (std::ptr::null_mut(), 0u64, 0u64);
    let high = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    // Safety: the calls write what they are given addresses of.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, stream.context().cu_device()).result().w()?;
        sys::cuMemPoolGetAttribute(pool, high, (&raw mut most).cast()).result().w()?;
        sys::cuMemPoolSetAttribute(pool, high, (&raw mut none).cast()).result().w()?;
    }
    Ok(most)
}

/// What computes, our own operators and the libraries, with their versions, each behind a `-`; nothing where one is missing.
pub fn libraries() -> String {
    if loading::load().is_err() {
        return String::new();
    }
    let mut version = [0; 3];
    let parts = [Property::MAJOR_VERSION, Property::MINOR_VERSION, Property::PATCH_LEVEL];
    for (part, number) in parts.into_iter().zip(&mut version) {
        // Safety: it writes one number. What cannot be told stays 0.
        unsafe { cublasGetProperty(part, number) };
    }
    let cublas = format!("-ops{REVISION}-cublas{}", version.map(|number| number.to_string()).join("."));
    #[cfg(feature = "cudnn")]
    return format!("{cublas}-cudnn{}", super::cudnn::version());
    #[cfg(not(feature = "cudnn"))]
    cublas
}

/// Bytes that this thread keeps for products and convolutions to work in, and the most that one takes for the moment.
pub fn workspace() -> (usize, usize) {
    let (kept, moment) = super::conv::workspace();
    (kept + PRODUCT_SPACE, moment)
}

/// Bytes that are free, and all that the device has.
///
/// # Errors
/// The context is broken.
pub fn memory(device: &Device) -> Result<(usize, usize)> {
    let Device::Cuda(cuda) = device else { candle_core::bail!("{device:?} is no CUDA device") };
    cuda.cuda_stream().context().mem_get_info().w()
}

/// Waits until everything that was asked of the device is done.
///
/// # Errors
/// Some of it has failed.
pub fn synchronise(tensor: &candle_core::Tensor) -> Result<()> {
    device_of(tensor)?.cuda_stream().synchronize().w()
}

/// How products of this process round from here on.
pub fn round(precision: Precision) {
    set_gemm_reduced_precision_f32(precision == Precision::Tf32);
    // Sums of bf16 products stay f32.
    set_gemm_reduced_precision_bf16(false);
}
