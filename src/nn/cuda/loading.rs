//! Lets a build with CUDA start without CUDA. candle and cudarc call NVIDIA's functions by name, which would have the system
//! load all libraries before the program begins; here each of those names is a jump to an address that `load` fills in. A
//! name that is missing in the lists is linked to its library as before: the build then starts only where that is.
//!
//! The names are hidden: NVIDIA's libraries find each other's functions, not these.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::nn::libraries;

#[cfg(target_arch = "x86_64")]
macro_rules! to_address {
    () => {
        "jmp qword ptr [rip + {addresses} + {at}]"
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! to_address {
    () => {
        "adrp x16, {addresses} + {at}\nldr x16, [x16, :lo12:{addresses} + {at}]\nbr x16"
    };
}

/// A function of that name, which goes on where the address says.
macro_rules! jump {
    ($name:ident, $address:expr) => {
        std::arch::global_asm!(
            concat!(".globl ", stringify!($name)), concat!(".hidden ", stringify!($name)),
            concat!(".type ", stringify!($name), ",@function"), concat!(stringify!($name), ":"),
            to_address!(),
            addresses = sym ADDRESSES, at = const 8 * ($address as usize),
        );
    };
}

/// Functions that are jumps, by library: more than one build calls, for it depends on how it is optimised which are left.
macro_rules! functions {
    ($($library:literal: $($name:ident)*;)*) => {
        #[allow(non_camel_case_types, clippy::enum_variant_names)]
        #[derive(Clone, Copy)]
        enum Function { $($($name,)*)* Nothing, Never, All }

        $($(jump!($name, Function::$name);)*)*

        /// Of each library its functions.
        const FUNCTIONS: &[(&str, &[(&str, Function)])] =
            &[$(($library, &[$((stringify!($name), Function::$name)),*]),)*];
    };
}

functions! {
    "cuda":
        cuCtxDestroy_v2 cuCtxGetCurrent cuCtxSetCurrent cuCtxSynchronize cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount
        cuDeviceGetDefaultMemPool cuDeviceGetName cuDeviceGetUuid_v2 cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain
        cuDeviceTotalMem_v2 cuDriverGetVersion cuEventCreate cuEventDestroy_v2 cuEventQuery cuEventRecord
        cuEventSynchronize cuFuncGetAttribute cuFuncSetAttribute cuGetErrorName cuGetErrorString cuGraphDestroy
        cuGraphExecDestroy cuGraphGetNodes cuGraphInstantiateWithFlags cuGraphLaunch cuGraphMemcpyNodeGetParams
        cuGraphNodeGetType cuInit cuLaunchCooperativeKernel cuLaunchKernel cuMemAllocAsync cuMemAllocHost_v2 cuMemAlloc_v2
        cuMemFreeAsync cuMemFreeHost cuMemFree_v2 cuMemGetInfo_v2 cuMemHostAlloc cuMemPoolGetAttribute
        cuMemPoolSetAttribute cuMemPoolTrimTo cuMemcpyDtoDAsync_v2 cuMemcpyDtoD_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoH_v2
        cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2 cuMemcpyPeerAsync cuMemsetD8Async cuMemsetD8_v2 cuModuleGetFunction
        cuModuleGetGlobal_v2 cuModuleLoad cuModuleLoadData cuModuleUnload cuPointerGetAttribute cuProfilerStart cuProfilerStop
        cuStreamBeginCapture_v2 cuStreamCreate cuStreamDestroy_v2 cuStreamEndCapture cuStreamIsCapturing cuStreamSynchronize
        cuStreamWaitEvent;
    "curand":
        curandCreateGenerator curandDestroyGenerator curandGenerateNormal curandGenerateNormalDouble curandGenerateUniform
        curandGenerateUniformDouble curandSetGeneratorOffset curandSetPseudoRandomGeneratorSeed curandSetStream;
    "cublas":
        cublasCreate_v2 cublasDestroy_v2 cublasGemmEx cublasGemmStridedBatchedEx cublasGetProperty cublasSetMathMode
        cublasSetStream_v2 cublasSetWorkspace_v2;
    "cudnn":
        cudnnConvolutionBackwardData cudnnConvolutionBackwardFilter cudnnConvolutionForward cudnnCreate
        cudnnCreateConvolutionDescriptor cudnnCreateFilterDescriptor cudnnCreateTensorDescriptor cudnnDestroy
        cudnnDestroyConvolutionDescriptor cudnnDestroyFilterDescriptor cudnnDestroyTensorDescriptor
        cudnnGetConvolutionBackwardDataAlgorithm_v7 cudnnGetConvolutionBackwardDataWorkspaceSize
        cudnnGetConvolutionBackwardFilterAlgorithm_v7 cudnnGetConvolutionBackwardFilterWorkspaceSize
        cudnnGetConvolutionForwardAlgorithm_v7 cudnnGetConvolutionForwardWorkspaceSize cudnnGetVersion
        cudnnSetConvolution2dDescriptor cudnnSetConvolutionGroupCount cudnnSetConvolutionMathType
        cudnnSetConvolutionNdDescriptor cudnnSetFilter4dDescriptor cudnnSetFilterNdDescriptor cudnnSetStream
        cudnnSetTensor4dDescriptor cudnnSetTensor4dDescriptorEx cudnnSetTensorNdDescriptor;
}

/// CUDA's runtime, which nothing here calls but candle's quantised products, and nothing calls those: they are not made
/// known to it when the program begins, and a launch of one ends the program.
macro_rules! runtime {
    ($does:ident: $($name:ident)*) => { $(jump!($name, Function::$does);)* };
}

runtime! { Nothing:
    __cudaRegisterFatBinary __cudaRegisterFatBinaryEnd __cudaRegisterFunction __cudaRegisterVar __cudaUnregisterFatBinary
}
runtime! { Never:
    __cudaGetKernel __cudaLaunchKernel __cudaLaunchKernel_ptsz __cudaPopCallConfiguration __cudaPushCallConfiguration
    cudaFree cudaFreeAsync_ptsz cudaFuncSetAttribute cudaGetDevice cudaLaunchKernel_ptsz cudaMallocAsync_ptsz
    cudaMemsetAsync_ptsz
}

/// Where the functions are.
static ADDRESSES: [AtomicPtr<()>; Function::All as usize] = {
    let mut all = [const { AtomicPtr::new(not_loaded as *mut ()) }; Function::All as usize];
    all[Function::Nothing as usize] = AtomicPtr::new(nothing as *mut ());
    all[Function::Never as usize] = AtomicPtr::new(never as *mut ());
    all
};

extern "C" fn not_loaded() -> ! {
    panic!("NVIDIA's libraries were called before they were loaded")
}

extern "C" fn nothing() -> usize {
    0
}

extern "C" fn never() -> ! {
    panic!("a kernel of candle was launched that is no part of this program")
}

/// Loads the libraries, once.
///
/// # Errors
/// One is missing, or is older than this build wants it.
pub fn load() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(|| FUNCTIONS.iter().try_for_each(|(library, functions)| fill(library, functions))).clone()
}

fn fill(library: &str, functions: &[(&str, Function)]) -> Result<(), String> {
    // A build without cuDNN calls none of its functions.
    let Some(found) = libraries::named(library) else { return Ok(()) };
    let Ok((library, place)) = &found.here else { return Err(found.missing().unwrap_or_default()) };
    for (name, function) in functions {
        // Safety: the symbol is read as an address only; its callers know what it is.
        let address = unsafe { library.get::<*mut ()>(*name) };
        let Some(address) = address.ok().and_then(|symbol| unsafe { symbol.try_as_raw_ptr() }) else {
            let place = place.as_ref().map_or_else(|| found.name.clone(), |path| path.display().to_string());
            return Err(format!("{place} is too old, it has no {name}: install a newer one"));
        };
        ADDRESSES[*function as usize].store(address.cast(), Ordering::Release);
    }
    Ok(())
}
