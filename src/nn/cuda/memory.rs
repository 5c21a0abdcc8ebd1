//! The memory of tensors that are done with, kept for the next ones of the same size: training asks for the same sizes at
//! every step, and the driver's own pool takes its time over large ones and makes streams wait for each other (on an H200 5 us
//! for a small tensor and one stream, 130 us with 16 streams). One store for each thread, which has one stream.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{DType, Storage, Tensor};

use super::device_of;
use crate::nn::LARGEST_KEPT;

/// A size: the device, the type and the count of numbers.
type Size = (DeviceId, DType, usize);

#[derive(Default)]
struct Store {
    free: HashMap<Size, Vec<Tensor>>,
    /// Tensors of each size that were made and have not come back: no more than those are kept.
    out: HashMap<Size, usize>,
}

thread_local! {
    static STORE: RefCell<Store> = RefCell::default();
}

/// A tensor of so many numbers of any value, if one was given back. What is made instead is counted.
pub(super) fn take(device: &CudaDevice, dtype: DType, count: usize) -> Option<Tensor> {
    if count * dtype.size_in_bytes() > LARGEST_KEPT {
        return None;
    }
    STORE.with_borrow_mut(|store| {
        let size = (device.id(), dtype, count);
        *store.out.entry(size).or_default() += 1;
        store.free.get_mut(&size).and_then(Vec::pop)
    })
}

/// Keeps the memory of a tensor that nobody reads any more. A part of a larger one is just dropped.
pub fn keep(tensor: Tensor) {
    let Ok(device) = device_of(&tensor) else { return };
    let size = (device.id(), tensor.dtype(), tensor.elem_count());
    if !is_whole(&tensor) {
        return;
    }
    STORE.with_borrow_mut(|store| {
        if let Some(out) = store.out.get_mut(&size).filter(|out| **out > 0) {
            *out -= 1;
            store.free.entry(size).or_default().push(tensor);
        }
    });
}

/// Whether a tensor is all of its memory, in order.
fn is_whole(tensor: &Tensor) -> bool {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { return false };
    let bytes = match tensor.dtype() {
        DType::F32 => storage.as_cuda_slice::<f32>().map(|slice| slice.num_bytes()),
        DType::F64 => storage.as_cuda_slice::<f64>().map(|slice| slice.num_bytes()),
        DType::BF16 => storage.as_cuda_slice::<half::bf16>().map(|slice| slice.num_bytes()),
        DType::U32 => storage.as_cuda_slice::<u32>().map(|slice| slice.num_bytes()),
        _ => return false,
    };
    layout.contiguous_offsets().is_some_and(|(start, _)| start == 0)
        && bytes.is_ok_and(|bytes| bytes == tensor.elem_count() * tensor.dtype().size_in_bytes())
}

/// Gives what is kept back to the driver's pool.
pub fn release() {
    STORE.with_borrow_mut(|store| *store = Store::default());
}
