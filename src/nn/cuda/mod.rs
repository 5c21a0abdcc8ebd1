//! The operators on CUDA devices: products by cuBLAS, convolutions by cuDNN where the feature `cudnn` is built in, and
//! kernels of our own (`kernels`) for what candle and cuDNN's wrappers have not got. Images are
//! [n, height, width, channels], as on CPU; numbers are f32, or bf16 with f32 for everything that is kept per channel.

pub(super) mod activation;
mod alone;
pub(super) mod attention;
pub(super) mod attention_pool;
pub(super) mod conv;
#[cfg(feature = "cudnn")]
mod cudnn;
pub(super) mod curve;
pub mod device;
pub(super) mod gate;
pub(super) mod heads;
pub(super) mod join;
pub(super) mod layer_norm;
pub mod letter;
pub mod loading;
pub mod loss;
pub mod memory;
pub(super) mod norm;
pub(super) mod optim;
pub(super) mod pinned;
pub mod pixels;
pub(super) mod pool;
pub(super) mod product;
pub mod recording;
pub(super) mod response_norm;
pub(super) mod rotary;
mod space;
pub(super) mod swiglu;
pub mod target;
pub(super) mod tokens;
pub(super) mod unit_norm;
pub(super) mod window_attention;
mod winograd;

pub use gate::images;
pub use join::{copied, dropout, put};

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, DeviceId, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{DType, Result, Shape, Storage, Tensor, bail};
use half::bf16;

/// The kernels, compiled for the GPU that this build is for.
mod compiled {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// Threads of a block.
const BLOCK: u32 = 256;
/// Blocks at most: threads go on to the numbers that are left.
const MOST_BLOCKS: u32 = 1 << 16;
/// Blocks that sum over rows, at most: enough for every multiprocessor of the largest GPU to have several.
const MOST_STRIPS: usize = 1024;

/// An argument of a kernel.
#[derive(Clone, Copy)]
enum Arg {
    Pointer(u64),
    Count(u32),
    Int(i32),
    Float(f32),
    Double(f64),
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

/// The threads that run a kernel.
#[derive(Clone, Copy)]
enum Threads {
    /// One for each number.
    Each(usize),
    /// Blocks of channels, strips of rows, and layers of both.
    Strips(Strips, usize),
    /// What strips gave, summed for each channel.
    Channels(usize),
    /// Tiles of rows and columns of results.
    Tiles(usize, usize),
    /// For each image, 32 channels side by side and 8 threads for each.
    ByImage { images: usize, channels: usize },
    /// For each row, 32 threads.
    Rows(usize),
    /// One block.
    Block,
}

impl Threads {
    /// One for each lot of 16 bytes.
    fn lots(count: usize, dtype: DType) -> Self {
        Self::Each(count.div_ceil(lot(dtype)))
    }

    fn config(self) -> LaunchConfig {
        let (grid_dim, block_dim) = match self {
            Self::Each(count) => {
                let blocks = count.div_ceil(BLOCK as usize).clamp(1, MOST_BLOCKS as usize);
                ((blocks as u32, 1, 1), (BLOCK, 1, 1))
            }
            Self::Strips(by, layers) => {
                ((by.blocks as u32, by.strips as u32, layers as u32), (by.wide as u32, by.lanes as u32, 1))
            }
            Self::Channels(channels) => ((channels.div_ceil(32) as u32, 1, 1), (32, 32, 1)),
            Self::Tiles(rows, columns) => {
                let tiles = |numbers: usize| numbers.div_ceil(heads::TILE) as u32;
                ((tiles(columns), tiles(rows), 1), (BLOCK, 1, 1))
            }
            Self::ByImage { images, channels } => ((channels.div_ceil(32) as u32, images as u32, 1), (32, 8, 1)),
            Self::Rows(rows) => ((rows.div_ceil(8).max(1) as u32, 1, 1), (32, 8, 1)),
            Self::Block => ((1, 1, 1), (BLOCK, 1, 1)),
        };
        LaunchConfig { grid_dim, block_dim, shared_mem_bytes: 0 }
    }
}

/// Numbers of 16 bytes, which one instruction reads.
fn lot(dtype: DType) -> usize {
    16 / dtype.size_in_bytes()
}

/// How rows of channels are summed. It follows from shapes and types, and so does the order of sums; only a tensor that does
/// not begin at 16 bytes, as a part of another may, is summed singly.
#[derive(Clone, Copy)]
struct Strips {
    /// Channels of a thread.
    lot: usize,
    /// Lots and rows of a block, side by side.
    wide: usize,
    lanes: usize,
    /// Blocks that the channels take.
    blocks: usize,
    /// Rows of a strip, and strips.
    strip: usize,
    strips: usize,
}

impl Strips {
    /// For `rows` rows of contiguous tensors whose places are `at`.
    fn new(rows: usize, channels: usize, dtype: DType, at: &[Arg]) -> Self {
        let level = at.iter().all(|at| matches!(at, Arg::Pointer(at) if at.is_multiple_of(16)));
        let lot = lot(dtype);
        if level && channels.is_multiple_of(lot) { Self::of(rows, channels, lot) } else { Self::singly(rows, channels) }
    }

    fn of(rows: usize, channels: usize, lot: usize) -> Self {
        let lots = channels / lot;
        let wide = lots.next_power_of_two().min(32);
        let (lanes, blocks) = ((BLOCK as usize / wide).min(32), lots.div_ceil(wide));
        let strip = rows.div_ceil((MOST_STRIPS / blocks).max(1)).max(8 * lanes);
        Self { lot, wide, lanes, blocks, strip, strips: rows.div_ceil(strip) }
    }

    /// Each channel by a thread: a channel's sum does not depend on how many stand beside it.
    fn singly(rows: usize, channels: usize) -> Self {
        let (wide, lanes) = (32, BLOCK as usize / 32);
        let strip = rows.div_ceil(256).max(8 * lanes);
        Self { lot: 1, wide, lanes, blocks: channels.div_ceil(wide), strip, strips: rows.div_ceil(strip) }
    }
}

thread_local! {
    /// Kernels that were launched before: looking one up again asks the driver.
    static KERNELS: RefCell<HashMap<(DeviceId, String), Rc<CudaFunction>>> = RefCell::default();
}

fn kernel(device: &CudaDevice, name: &str) -> Result<Rc<CudaFunction>> {
    KERNELS.with_borrow_mut(|known| {
        let key = (device.id(), name.to_owned());
        if let Some(found) = known.get(&key) {
            return Ok(found.clone());
        }
        let found = Rc::new(device.get_or_load_custom_func(name, "tl-sweep", compiled::KERNELS)?.into_cuda_function());
        known.insert(key, found.clone());
        Ok(found)
    })
}

/// Runs a kernel of `kernels.cu` on the device's stream.
fn launch(device: &CudaDevice, name: &str, threads: Threads, args: &[Arg]) -> Result<()> {
    let function = kernel(device, name)?;
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&function);
    for arg in args {
        match arg {
            Arg::Pointer(value) => builder.arg(value),
            Arg::Count(value) => builder.arg(value),
            Arg::Int(value) => builder.arg(value),
            Arg::Float(value) => builder.arg(value),
            Arg::Double(value) => builder.arg(value),
        };
    }
    // Safety: callers pass what the kernel of that name takes; the tensors live until the call returns, and their memory is
    // given back in the order of the same stream.
    unsafe { builder.launch(threads.config()) }.w()?;
    Ok(())
}

/// Runs a kernel for several tensors in one launch: `all` of them, of which the first `entries` are there, with `most` numbers
/// in the largest, and more numbers for all.
fn launch_several<T: DeviceRepr>(
    device: &CudaDevice,
    name: &str,
    all: &T,
    (entries, most): (usize, u32),
    more: &[f32],
) -> Result<()> {
    let mut config = Threads::Each(most as usize).config();
    config.grid_dim.1 = entries as u32;
    let (function, stream) = (kernel(device, name)?, device.cuda_stream());
    let mut builder = stream.launch_builder(&function);
    builder.arg(all);
    more.iter().for_each(|number| _ = builder.arg(number));
    // Safety: callers name places and sizes of tensors that live until the call returns, as of `launch`.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// Runs the kernel's version for numbers of `dtype`.
fn launch_of(device: &CudaDevice, name: &str, dtype: DType, threads: Threads, args: &[Arg]) -> Result<()> {
    let ending = match dtype {
        DType::F32 => "f32",
        DType::BF16 => "bf16",
        other => bail!("{name} runs on f32 and bf16, not on {other:?}"),
    };
    launch(device, &format!("{name}_{ending}"), threads, args)
}

/// Where a contiguous tensor's numbers lie on its device.
fn place(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cuda(storage), Some((start, _))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("a CUDA operator needs contiguous tensors on the device, not {:?}", tensor.shape());
    };
    let stream = storage.device.cuda_stream();
    let start = (start * tensor.dtype().size_in_bytes()) as u64;
    Ok(start
        + match tensor.dtype() {
            DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
            DType::F64 => storage.as_cuda_slice::<f64>()?.device_ptr(&stream).0,
            DType::BF16 => storage.as_cuda_slice::<bf16>()?.device_ptr(&stream).0,
            DType::U32 => storage.as_cuda_slice::<u32>()?.device_ptr(&stream).0,
            DType::U8 => storage.as_cuda_slice::<u8>()?.device_ptr(&stream).0,
            DType::I64 => storage.as_cuda_slice::<i64>()?.device_ptr(&stream).0,
            other => bail!("no kernel reads {other:?}"),
        })
}

/// The memory of a contiguous tensor as cudarc's calls take it, in numbers of `T`.
fn slice_of<T: DeviceRepr>(tensor: &Tensor) -> Result<ManuallyDrop<CudaSlice<T>>> {
    let count = tensor.elem_count() * tensor.dtype().size_in_bytes() / size_of::<T>();
    // Safety: the memory is the tensor's, whose readers and writers run in the order of one stream; it is not freed through this.
    let slice = unsafe { device_of(tensor)?.cuda_stream().upgrade_device_ptr::<T>(place(tensor)?, count) };
    Ok(ManuallyDrop::new(slice))
}

/// The same, as an argument.
fn at(tensor: &Tensor) -> Result<Arg> {
    Ok(Arg::Pointer(place(tensor)?))
}

/// Where an optional tensor lies; nothing is the null pointer.
fn at_some(tensor: Option<&Tensor>) -> Result<Arg> {
    tensor.map_or(Ok(Arg::Pointer(0)), at)
}

/// A number of things that a kernel counts in 31 bits.
fn count(number: usize) -> Result<Arg> {
    if number >= 1 << 31 {
        bail!("{number} numbers in one tensor are more than 31 bits can count: take a smaller batch");
    }
    Ok(Arg::Count(number as u32))
}

fn int(number: usize) -> Arg {
    Arg::Int(number as i32)
}

/// A tensor whose numbers a kernel is about to write.
fn empty(device: &CudaDevice, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    if let Some(kept) = memory::take(device, dtype, shape.elem_count())? {
        return kept.reshape(shape);
    }
    let made = fresh(device, dtype, &shape)?;
    memory::made(&made)?;
    Ok(made)
}

/// Memory of its own.
fn fresh(device: &CudaDevice, dtype: DType, shape: &Shape) -> Result<Tensor> {
    allocated(device, dtype, shape).or_else(|error| {
        // What is kept may be what is missing.
        memory::release();
        device::shrink(device, 0).map_err(|_| error)?;
        allocated(device, dtype, shape)
    })
}

fn allocated(device: &CudaDevice, dtype: DType, shape: &Shape) -> Result<Tensor> {
    let count = shape.elem_count();
    // Safety: whoever asks for it writes all of it before anybody reads it.
    let storage = unsafe {
        match dtype {
            DType::F32 => CudaStorage::wrap_cuda_slice(device.alloc::<f32>(count)?, device.clone()),
            DType::F64 => CudaStorage::wrap_cuda_slice(device.alloc::<f64>(count)?, device.clone()),
            DType::BF16 => CudaStorage::wrap_cuda_slice(device.alloc::<bf16>(count)?, device.clone()),
            DType::U32 => CudaStorage::wrap_cuda_slice(device.alloc::<u32>(count)?, device.clone()),
            DType::U8 => CudaStorage::wrap_cuda_slice(device.alloc::<u8>(count)?, device.clone()),
            other => bail!("no kernel writes {other:?}"),
        }
    };
    Ok(Tensor::from_storage(Storage::Cuda(storage), shape.clone(), BackpropOp::none(), false))
}

/// The device of a tensor.
fn device_of(tensor: &Tensor) -> Result<&CudaDevice> {
    match tensor.device() {
        candle_core::Device::Cuda(device) => Ok(device),
        other => bail!("a CUDA operator was given a tensor on {other:?}"),
    }
}
