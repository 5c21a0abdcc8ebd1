//! Products of matrices by cuBLAS, into kept memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;

use candle_core::cuda_backend::cudarc::cublas::{result::gemm_strided_batched_ex, sys};
use candle_core::cuda_backend::{CudaDevice, WrapErr, gemm_reduced_precision_f32};
use candle_core::{DType, Result, Tensor, bail};

use super::{device_of, empty, fresh, place};
use crate::nn::PRODUCT_SPACE;

thread_local! {
    /// What the handles of this thread work in, by the device's number: memory of cuBLAS' own would be made anew in every recording.
    static SPACES: RefCell<HashMap<usize, Tensor>> = RefCell::default();
}

/// What recordings of this thread work in beside tensors.
pub fn workspaces() -> Vec<Tensor> {
    SPACES.with_borrow(|spaces| spaces.values().cloned().collect())
}

/// Gives cuBLAS memory to work in, before its first product.
pub fn prepare(device: &CudaDevice) -> Result<()> {
    SPACES.with_borrow_mut(|spaces| {
        let ordinal = device.cuda_stream().context().ordinal();
        let space = match spaces.get(&ordinal) {
            Some(space) => space.clone(),
            None => fresh(device, DType::U8, &PRODUCT_SPACE.into())?,
        };
        // Safety: the memory lives as long as the thread, which has the handle and one stream.
        unsafe {
            sys::cublasSetWorkspace_v2(*device.cublas_handle().handle(), place(&space)? as *mut c_void, PRODUCT_SPACE)
        }
        .result()
        .w()?;
        spaces.insert(ordinal, space);
        Ok(())
    })
}

/// A factor, as it lies in memory or as the transpose of what lies there.
pub struct Factor<'a> {
    tensor: &'a Tensor,
    turned: bool,
}

impl<'a> Factor<'a> {
    pub fn of(tensor: &'a Tensor) -> Self {
        Self { tensor, turned: false }
    }

    pub fn turned(tensor: &'a Tensor) -> Self {
        Self { tensor, turned: true }
    }

    /// Its place, what cuBLAS is to do with it, and the length of its rows in memory; `rows` x `columns` as a factor.
    fn operand(&self, rows: usize, columns: usize) -> Result<(*const c_void, sys::cublasOperation_t, i32)> {
        let place = place(self.tensor)?;
        Ok(match self.turned {
            false => (place as *const c_void, sys::cublasOperation_t::CUBLAS_OP_N, columns as i32),
            true => (place as *const c_void, sys::cublasOperation_t::CUBLAS_OP_T, rows as i32),
        })
    }
}

fn data_type(dtype: DType) -> Result<sys::cudaDataType> {
    match dtype {
        DType::F32 => Ok(sys::cudaDataType::CUDA_R_32F),
        DType::BF16 => Ok(sys::cudaDataType::CUDA_R_16BF),
        other => bail!("products are of f32 and bf16, not of {other:?}"),
    }
}

/// left [m, k] times right [k, n] as [m, n] of `dtype`, in one order of sums for one shape; sums are f32. Factors are f32 or
/// bf16 both.
pub fn product(left: &Factor, right: &Factor, [m, n, k]: [usize; 3], dtype: DType) -> Result<Tensor> {
    let of = left.tensor.dtype();
    if right.tensor.dtype() != of || left.tensor.elem_count() != m * k || right.tensor.elem_count() != k * n {
        bail!("{:?} and {:?} are no factors of {m} x {n} over {k}", left.tensor, right.tensor);
    }
    let device = device_of(left.tensor)?;
    let y = empty(device, dtype, (m, n))?;
    let into = place(&y)?;
    let compute = match of == DType::F32 && gemm_reduced_precision_f32() {
        true => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        false => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
    };
    let (one, zero) = (1f32, 0f32);
    // cuBLAS counts columns first: it is asked for the transpose, the product of the transposes in the other order.
    let (first, first_op, first_row) = right.operand(k, n)?;
    let (second, second_op, second_row) = left.operand(m, k)?;
    // Safety: the factors and the result have the sizes that are named, which was checked.
    unsafe {
        gemm_strided_batched_ex(
            *device.cublas_handle().handle(),
            first_op,
            second_op,
            n as i32,
            m as i32,
            k as i32,
            (&raw const one).cast(),
            first,
            data_type(of)?,
            first_row,
            0,
            second,
            data_type(of)?,
            second_row,
            0,
            (&raw const zero).cast(),
            into as *mut c_void,
            data_type(dtype)?,
            n as i32,
            0,
            1,
            compute,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
        )
        .w()?;
    }
    Ok(y)
}
