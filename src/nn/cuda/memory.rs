//! The memory of tensors that are done with, kept for the next ones of the same size: training asks for the same sizes at
//! every step, and the driver's own pool takes its time over large ones and makes streams wait for each other (on an H200 5 us
//! for a small tensor and one stream, 130 us with 16 streams). One store for each thread, which has one stream.
//!
//! Steps and evaluations have a part of it of their own (`within`), out of which nothing is carried: a step that was recorded
//! works in the same places at every launch, and nobody else may have left anything there.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{DType, Result, Storage, Tensor, bail};

use super::{device_of, join, place};
use crate::nn::LARGEST_KEPT;

/// A size: the device, the type and the count of numbers.
type Size = (DeviceId, DType, usize);

/// Free memory, by size.
type Free = HashMap<Size, Vec<Tensor>>;

#[derive(Default)]
struct Store {
    free: Free,
    /// Tensors of each size that were made and have not come back: no more than those are kept.
    out: HashMap<Size, usize>,
    /// That of passes.
    own: Free,
    /// What the pass of the moment has taken and not given back, by its place; nothing where none runs.
    taken: Option<HashMap<u64, Tensor>>,
    /// Bytes of the largest tensor that the pass keeps.
    most: usize,
    /// Whether the last pass has asked for a larger one.
    beyond: bool,
    /// All that was taken since a recording began.
    recorded: Option<Vec<Tensor>>,
}

thread_local! {
    static STORE: RefCell<Store> = RefCell::default();
}

impl Store {
    /// A size that is kept.
    fn size(&self, device: &CudaDevice, dtype: DType, count: usize) -> Option<Size> {
        let most = if self.taken.is_some() { self.most } else { LARGEST_KEPT };
        (count * dtype.size_in_bytes() <= most).then(|| (device.id(), dtype, count))
    }
}

/// A tensor of so many numbers of any value, if one was given back. What is made instead is counted.
///
/// # Errors
/// A step is recorded, and asks for memory that it did not work in before.
pub(super) fn take(device: &CudaDevice, dtype: DType, count: usize) -> Result<Option<Tensor>> {
    STORE.with_borrow_mut(|store| {
        let Some(size) = store.size(device, dtype, count) else {
            store.beyond = true;
            if store.recorded.is_some() {
                bail!("a recorded step works in memory that is kept, and {count} numbers are more than that");
            }
            return Ok(None);
        };
        if store.taken.is_none() {
            *store.out.entry(size).or_default() += 1;
            return Ok(store.free.get_mut(&size).and_then(Vec::pop));
        }
        let found = store.own.get_mut(&size).and_then(Vec::pop);
        match (&found, &mut store.recorded) {
            (Some(tensor), Some(recorded)) => recorded.push(tensor.clone()),
            (None, Some(_)) => bail!("a recorded step asks for {count} numbers that it did not work in before"),
            _ => {}
        }
        if let Some(tensor) = &found {
            note(store, tensor)?;
        }
        Ok(found)
    })
}

/// Notes a tensor that was made for the pass of the moment, if one runs.
pub(super) fn made(tensor: &Tensor) -> Result<()> {
    STORE.with_borrow_mut(|store| note(store, tensor))
}

fn note(store: &mut Store, tensor: &Tensor) -> Result<()> {
    let is_kept = store.size(device_of(tensor)?, tensor.dtype(), tensor.elem_count()).is_some();
    if let Some(taken) = store.taken.as_mut().filter(|_| is_kept) {
        taken.insert(place(tensor)?, tensor.clone());
    }
    Ok(())
}

/// Keeps the memory of a tensor that nobody reads any more. A part of a larger one is just dropped.
pub fn keep(tensor: Tensor) {
    let Ok(device) = device_of(&tensor) else { return };
    if !is_whole(&tensor) {
        return;
    }
    let size = (device.id(), tensor.dtype(), tensor.elem_count());
    STORE.with_borrow_mut(|store| match &mut store.taken {
        Some(taken) => {
            let own = place(&tensor).ok().and_then(|place| taken.remove(&place));
            store.own.entry(size).or_default().extend(own);
        }
        None => {
            if let Some(out) = store.out.get_mut(&size).filter(|out| **out > 0) {
                *out -= 1;
                store.free.entry(size).or_default().push(tensor);
            }
        }
    });
}

/// Keeps the memory of tensors, some of which may share it.
pub fn keep_each(mut tensors: Vec<Tensor>) {
    tensors.retain(|tensor| tensor.device().is_cuda());
    tensors.sort_by_key(|tensor| place(tensor).unwrap_or_default());
    tensors.dedup_by_key(|tensor| place(tensor).unwrap_or_default());
    tensors.into_iter().for_each(keep);
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
        DType::U8 => storage.as_cuda_slice::<u8>().map(|slice| slice.num_bytes()),
        _ => return false,
    };
    layout.contiguous_offsets().is_some_and(|(start, _)| start == 0)
        && bytes.is_ok_and(|bytes| bytes == tensor.elem_count() * tensor.dtype().size_in_bytes())
}

/// A pass runs while this is held.
struct Pass;

impl Drop for Pass {
    fn drop(&mut self) {
        STORE.with_borrow_mut(|store| {
            // Nothing is carried out of a pass: what nobody gave back is free as well.
            for tensor in store.taken.take().into_iter().flat_map(HashMap::into_values) {
                if let Ok(device) = device_of(&tensor) {
                    let size = (device.id(), tensor.dtype(), tensor.elem_count());
                    store.own.entry(size).or_default().push(tensor);
                }
            }
        });
    }
}

/// Runs a pass in memory of its own kind, and returns copies of what it gives. Tensors of up to `most` bytes are kept for the
/// next pass.
///
/// # Errors
/// Those of `work`, and that a pass runs within another one.
pub fn pass(most: usize, work: impl FnOnce() -> Result<Vec<Tensor>>) -> Result<Vec<Tensor>> {
    // Behind a pass nobody has written to its memory yet.
    within(most, work)?.iter().map(join::copied).collect()
}

/// Runs a pass in memory of its own kind. What `work` returns may lie in it until the next pass.
pub(super) fn within<R>(most: usize, work: impl FnOnce() -> Result<R>) -> Result<R> {
    STORE.with_borrow_mut(|store| match store.taken.replace(HashMap::new()) {
        Some(outer) => {
            store.taken = Some(outer);
            bail!("a pass runs within another one")
        }
        None => {
            (store.most, store.beyond) = (most, false);
            Ok(())
        }
    })?;
    let _pass = Pass;
    work()
}

/// Whether all that the last pass worked in is kept for the next one.
pub fn is_kept() -> bool {
    STORE.with_borrow(|store| !store.beyond)
}

/// Runs `work` without making memory; returns what it took as well.
pub(super) fn recorded<R>(work: impl FnOnce() -> Result<R>) -> (Result<R>, Vec<Tensor>) {
    STORE.with_borrow_mut(|store| store.recorded = Some(Vec::new()));
    let found = work();
    (found, STORE.with_borrow_mut(|store| store.recorded.take()).unwrap_or_default())
}

/// Gives what is kept back to the driver's pool.
pub fn release() {
    STORE.with_borrow_mut(|store| {
        store.free.clear();
        store.out.clear();
        store.own.clear();
    });
}
