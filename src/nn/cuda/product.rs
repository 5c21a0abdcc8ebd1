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

    fn side(&self) -> Result<Side> {
        Ok(Side { place: place(self.tensor)?, turned: self.turned })
    }
}

/// A factor by its place, as it lies in memory or as the transpose of what lies there.
#[derive(Clone, Copy)]
pub struct Side {
    pub place: u64,
    pub turned: bool,
}

impl Side {
    /// Its place, what cuBLAS is to do with it, and the length of its rows in memory; `rows` x `columns` as a factor.
    fn operand(self, rows: usize, columns: usize) -> (*const c_void, sys::cublasOperation_t, i32) {
        match self.turned {
            false => (self.place as *const c_void, sys::cublasOperation_t::CUBLAS_OP_N, columns as i32),
            true => (self.place as *const c_void, sys::cublasOperation_t::CUBLAS_OP_T, rows as i32),
        }
    }
}

/// Products of one shape.
pub struct Many {
    pub count: usize,
    /// Numbers from one left factor to the next, from one right factor, and from one result.
    pub steps: [usize; 3],
    /// Whether results are added to what is there.
    pub adds: bool,
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
    let one = Many { count: 1, steps: [0; 3], adds: false };
    // Safety: the factors and the result have the sizes that are named, which was checked.
    unsafe { run(device, (left.side()?, right.side()?), place(&y)?, [m, n, k], [of, dtype], &one)? };
    Ok(y)
}

/// Products of factors [m, k] and [k, n] into `into`, each in one order of sums for one shape; the types are those of the factors
/// and of the results. Whoever names the places has made them large enough.
pub fn products(
    device: &CudaDevice,
    factors: (Side, Side),
    into: u64,
    shape: [usize; 3],
    types: [DType; 2],
    many: &Many,
) -> Result<()> {
    // Safety: as said.
    unsafe { run(device, factors, into, shape, types, many) }
}

/// Runs cuBLAS, which counts columns first: it is asked for the transpose, the product of the transposes in the other order.
/// The types are those of the factors and of the result.
///
/// # Safety
/// All places have as many numbers as the shapes and the steps say.
unsafe fn run(
    device: &CudaDevice,
    (left, right): (Side, Side),
    into: u64,
    [m, n, k]: [usize; 3],
    [of, to]: [DType; 2],
    many: &Many,
) -> Result<()> {
    let compute = match of == DType::F32 && gemm_reduced_precision_f32() {
        true => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        false => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
    };
    let (one, more) = (1f32, if many.adds { 1f32 } else { 0f32 });
    let (first, first_op, first_row) = right.operand(k, n);
    let (second, second_op, second_row) = left.operand(m, k);
    let [second_step, first_step, step] = many.steps.map(|step| step as i64);
    // Safety: the caller's.
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
            first_step,
            second,
            data_type(of)?,
            second_row,
            second_step,
            (&raw const more).cast(),
            into as *mut c_void,
            data_type(to)?,
            n as i32,
            step,
            many.count as i32,
            compute,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
        )
        .w()
    }
}
