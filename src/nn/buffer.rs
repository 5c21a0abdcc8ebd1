//! The memory of tensors that are done with, kept for the next ones: training asks for the same sizes at every step,
//! and fresh memory costs a page fault for each 4 kB. One store for each thread that runs networks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Shape, Storage, Tensor};

#[derive(Default)]
struct Store {
    /// Free vectors by capacity.
    free: BTreeMap<usize, Vec<Vec<f32>>>,
}

thread_local! {
    static STORE: RefCell<Store> = RefCell::default();
}

/// Numbers below this count are not worth keeping.
const SMALL: usize = 1024;

/// `count` numbers of any value, from memory that was given back if some fits.
pub fn take(count: usize) -> Vec<f32> {
    STORE.with_borrow_mut(|store| {
        // A vector of more than twice the size would be wasted on this.
        let fit = store.free.range(count..=2 * count).next().map(|(capacity, _)| *capacity);
        let Some(capacity) = fit else { return vec![0.0; count] };
        let kept = store.free.get_mut(&capacity);
        let found = kept.and_then(Vec::pop);
        if store.free.get(&capacity).is_some_and(Vec::is_empty) {
            store.free.remove(&capacity);
        }
        match found {
            Some(mut vector) => {
                vector.resize(count, 0.0);
                vector
            }
            None => vec![0.0; count],
        }
    })
}

/// `count` zeros.
pub fn zeros(count: usize) -> Vec<f32> {
    let mut vector = take(count);
    vector.fill(0.0);
    vector
}

/// Keeps the memory of a vector.
pub fn keep(vector: Vec<f32>) {
    STORE.with_borrow_mut(|store| {
        if vector.capacity() >= SMALL {
            store.free.entry(vector.capacity()).or_default().push(vector);
        }
    });
}

/// Keeps the memory of a tensor that nobody reads any more. On CPU, whoever still holds a copy of it gets an error from then
/// on, never other numbers; what runs on a GPU runs here as well.
///
/// # Errors
/// None that can be met: the tensor is plain f32.
pub fn recycle(tensor: Tensor) -> Result<()> {
    if tensor.device().is_cpu() && tensor.dtype() == candle_core::DType::F32 {
        tensor.inplace_op1(&Empty)?;
        return Ok(());
    }
    #[cfg(feature = "cuda")]
    super::cuda::memory::keep(tensor);
    Ok(())
}

/// Keeps the memory of tensors that nobody reads any more, as far as they are on a GPU; some may be one.
pub fn recycle_batch(tensors: Vec<Tensor>) {
    #[cfg(feature = "cuda")]
    super::cuda::memory::keep_each(tensors);
    #[cfg(not(feature = "cuda"))]
    drop(tensors);
}

/// Runs a pass that gives back all that it takes: what comes of it is a copy. On a GPU in memory that only such passes have,
/// of which tensors of up to `most` bytes are kept for the next pass.
///
/// # Errors
/// Those of `work`.
pub fn pass(device: &candle_core::Device, most: usize, work: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return Ok(super::cuda::memory::pass(most, || Ok(vec![work()?]))?.remove(0));
    }
    let _ = (device, most);
    work()
}

/// Frees what is kept.
pub fn release() {
    STORE.with_borrow_mut(|store| store.free.clear());
    #[cfg(feature = "cuda")]
    {
        super::cuda::memory::release();
        super::cuda::pinned::release();
    }
}

/// Runs `work` over the numbers of a CPU tensor, in place: whoever shares its memory sees the new ones.
///
/// # Errors
/// The tensor is not contiguous f32, or its memory was given back.
pub(super) fn in_place(tensor: &Tensor, work: impl FnOnce(&mut [f32])) -> Result<()> {
    tensor.inplace_op1(&Change(Cell::new(Some(work))))
}

struct Change<F>(Cell<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        "in place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(vector), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("only contiguous f32 tensors are changed in place");
        };
        let Some(numbers) = vector.get_mut(start..end) else {
            candle_core::bail!("a tensor is changed after its memory was given back");
        };
        if let Some(work) = self.0.take() {
            work(numbers);
        }
        Ok(())
    }
}

/// Takes the numbers out of a storage.
struct Empty;

impl InplaceOp1 for Empty {
    fn name(&self) -> &'static str {
        "recycle"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        if let CpuStorage::F32(vector) = storage {
            keep(std::mem::take(vector));
        }
        Ok(())
    }
}

/// Runs `work` over the numbers of contiguous f32 tensors on CPU.
pub(super) fn with<R, const N: usize>(tensors: [&Tensor; N], work: impl FnOnce([&[f32]; N]) -> R) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let (Storage::Cpu(cpu), Some((start, end))) = (&**storage, layout.contiguous_offsets()) else {
            candle_core::bail!("a CPU operator needs contiguous tensors on the CPU");
        };
        let Some(numbers) = cpu.as_slice::<f32>()?.get(start..end) else {
            candle_core::bail!("a tensor is read after its memory was given back");
        };
        *slice = numbers;
    }
    Ok(work(slices))
}

/// A CPU tensor of `values`.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &candle_core::Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_a_forgotten_copy_fails_loudly() {
        release();
        let tensor = tensor(take(5000), 5000).expect("5000 numbers");
        let copy = tensor.clone();
        let before = with([&tensor], |[numbers]| numbers.as_ptr()).expect("a tensor on the CPU");
        recycle(tensor).expect("a tensor on the CPU");
        assert!(with([&copy], |_| ()).unwrap_err().to_string().contains("given back"));
        let again = take(4000);
        assert_eq!((again.as_ptr(), again.len()), (before, 4000));
        assert_eq!(take(100).len(), 100);
    }
}
