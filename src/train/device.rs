//! The devices that stages run on: opens them, and tells what a build can do with GPUs.

use candle_core::Device as CandleDevice;

use super::on_pool;
use crate::device::{Device, Precision};
use crate::outcome::{Failure, FailureClass};

/// Opens the device that tensors live on: its worker sees one GPU, whose index counts as CUDA counts.
///
/// # Errors
/// The device is not there, or this build cannot use it.
pub fn open_device(device: Device) -> Result<CandleDevice, Failure> {
    match device {
        Device::Cpu => Ok(CandleDevice::Cpu),
        Device::Cuda(index) => cuda::open(index).map_err(|error| unusable(&device.to_string(), &error)),
    }
}

/// Does `work` in this process: on the GPU of a UUID, whose stream belongs to the thread that opens it, or without one on
/// the CPU, where the operators' own threads do it. Its products round as asked for.
///
/// # Errors
/// The device is not there, or this build cannot use it; within, those of `work`.
pub fn on_device<R: Send>(
    gpu: Option<&str>,
    precision: Precision,
    work: impl FnOnce(CandleDevice) -> anyhow::Result<R> + Send,
) -> Result<anyhow::Result<R>, Failure> {
    let Some(uuid) = gpu else { return Ok(on_pool(move || work(CandleDevice::Cpu))) };
    let index = cuda::index_of(uuid).map_err(|error| unusable(uuid, &error))?;
    let device = open_device(Device::Cuda(index))?;
    let _rounding = crate::nn::round(precision);
    Ok(work(device))
}

fn unusable(device: &str, error: &str) -> Failure {
    Failure {
        class: FailureClass::Device,
        message: format!("{device} cannot be used: {error}; `tl-sweep doctor` shows what is missing"),
    }
}

/// What a build without CUDA says of every GPU.
#[cfg(not(feature = "cuda"))]
pub const WITHOUT: &str = "this program was built without CUDA: build it with `cargo build --release --features cudnn` (or `cuda`, without cuDNN) where the CUDA toolkit is installed";

#[cfg(feature = "cuda")]
mod cuda {
    use super::CandleDevice;
    use crate::nn::cuda::{device, loading};

    pub use crate::nn::cuda::device::libraries;
    pub use crate::nn::cuda::target::{built_for, runs_on};

    pub fn open(index: usize) -> Result<CandleDevice, String> {
        device::open(index).map_err(|error| error.to_string())
    }

    pub fn index_of(uuid: &str) -> Result<usize, String> {
        device::index_of(uuid).map_err(|error| error.to_string())
    }

    pub fn obstacle() -> Option<String> {
        loading::load().err()
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use super::{CandleDevice, WITHOUT};

    pub fn obstacle() -> Option<String> {
        Some(WITHOUT.to_owned())
    }

    pub fn open(_: usize) -> Result<CandleDevice, String> {
        Err(WITHOUT.to_owned())
    }

    pub fn index_of(_: &str) -> Result<usize, String> {
        Err(WITHOUT.to_owned())
    }

    pub fn libraries() -> String {
        String::new()
    }

    pub fn built_for() -> String {
        "the CPU".to_owned()
    }

    /// The obstacle keeps from all of them, whatever they are.
    pub fn runs_on(_: (u32, u32)) -> bool {
        true
    }
}

/// What keeps this program from every GPU, with its cure: it was built without CUDA, or a library is missing.
pub fn obstacle() -> Option<String> {
    cuda::obstacle()
}

/// What computes on a GPU, our own operators and NVIDIA's libraries, with their versions, each behind a `-`; nothing where there
/// is an obstacle.
pub fn cuda_libraries() -> String {
    cuda::libraries()
}

/// The compute capabilities that this build runs on, in words.
pub fn built_for() -> String {
    cuda::built_for()
}

/// Whether this build runs on GPUs of a compute capability, major and minor.
pub fn runs_on(capability: (u32, u32)) -> bool {
    cuda::runs_on(capability)
}
