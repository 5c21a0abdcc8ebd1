//! The memory that convolutions work in, one after the other: the largest that one of this thread has asked for.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{DType, Result, Tensor};

use super::fresh;

thread_local! {
    static SPACES: RefCell<HashMap<DeviceId, Tensor>> = RefCell::default();
}

/// Memory of at least so many bytes: that of the convolution before, where it is large enough. What is in it is nobody's: who
/// takes it reads only what he wrote. The next one runs behind this one, on the same stream.
pub fn take(device: &CudaDevice, bytes: usize) -> Result<Tensor> {
    SPACES.with_borrow_mut(|spaces| match spaces.get(&device.id()) {
        Some(space) if space.elem_count() >= bytes => Ok(space.clone()),
        _ => {
            spaces.remove(&device.id());
            let space = fresh(device, DType::U8, &bytes.into())?;
            spaces.insert(device.id(), space.clone());
            Ok(space)
        }
    })
}

/// The bytes that this thread keeps.
pub fn bytes() -> usize {
    SPACES.with_borrow(|spaces| spaces.values().map(Tensor::elem_count).max().unwrap_or(0))
}

/// The memory itself.
pub fn all() -> Vec<Tensor> {
    SPACES.with_borrow(|spaces| spaces.values().cloned().collect())
}

/// Gives it back.
pub fn give_back() {
    SPACES.with_borrow_mut(HashMap::clear);
}
