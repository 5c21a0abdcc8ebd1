//! Work that is asked of a device again and again: recorded once as a graph of the driver's, and asked for as one from then
//! on. A launch costs the host some 4 us and a convolution 60, and a training step has hundreds of them; a graph takes one call.
//! NVIDIA, CUDA C++ Programming Guide, "CUDA Graphs": what a stream captures is what it would have run, in the same order.

use std::sync::Arc;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaStream, sys};
use candle_core::{Device, Result, Tensor, bail};

use super::alone::alone;
use super::{memory, product, space};

/// What was recorded, and the memory that it works in.
pub struct Recording {
    graph: CudaGraph,
    _memory: Vec<Tensor>,
}

impl Recording {
    /// Records what `work` asks of the device of this thread; none of it runs. `work` must have run before, `within` memory of
    /// its own, so that it finds all of that again, and must not wait for the device, make memory or read the host's: such a
    /// recording is refused.
    ///
    /// # Errors
    /// Those of `work`, and refusals; nothing of the recording is left.
    pub fn of<R>(device: &Device, work: impl FnOnce() -> Result<R>) -> Result<(Self, R)> {
        let stream = device.as_cuda_device()?.cuda_stream();
        let (found, mut taken, graph) = alone(|| memory::within(usize::MAX, || captured(&stream, work)))?;
        let recorded = found.and_then(|found| match checked(graph) {
            Ok(graph) => Ok((graph, found)),
            Err(error) => {
                // What was made in a refused recording was never there: giving it back fails, and that is no later call's fault.
                drop(found);
                let _ = stream.context().check_err();
                Err(error)
            }
        });
        let (graph, found) = recorded?;
        taken.extend(space::all());
        taken.extend(product::workspaces());
        Ok((Self { graph, _memory: taken }, found))
    }

    /// Runs what was recorded, behind everything that was asked of the device before.
    ///
    /// # Errors
    /// The device has failed.
    pub fn run(&self) -> Result<()> {
        self.graph.launch().w()
    }
}

/// What `work` asks of a stream, captured; what it returns, and the memory that it took.
type Captured<R> = (Result<R>, Vec<Tensor>, Result<Option<CudaGraph>>);

fn captured<R>(stream: &Arc<CudaStream>, work: impl FnOnce() -> Result<R>) -> Result<Captured<R>> {
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).w()?;
    let (found, taken) = memory::recorded(work);
    // A stream that captures does so until it is told to end, whatever has failed: also where giving memory back has, which the
    // context would say in the place of ending.
    let given_back = stream.context().check_err();
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
    Ok((found, taken, given_back.and(graph).w()))
}

/// Only kernels, and what moves or sets the device's own memory: a copy from the host would read where it read the first time,
/// and memory that is made in a graph is nobody's to foresee.
fn checked(graph: Result<Option<CudaGraph>>) -> Result<CudaGraph> {
    let Some(graph) = graph? else { bail!("the driver has recorded nothing") };
    for (node, kind) in nodes(&graph)? {
        // As in NVIDIA's CUgraphNodeType.
        match kind {
            0 | 2 | 5 => {}
            1 if is_inside(node)? => {}
            1 => bail!("a recorded step copies from or to the host"),
            10 | 11 => bail!("a recorded step makes memory"),
            other => bail!("a recorded step has a node of kind {other}"),
        }
    }
    Ok(graph)
}

fn nodes(graph: &CudaGraph) -> Result<Vec<(sys::CUgraphNode, u32)>> {
    let mut count = 0;
    // Safety: the driver writes the count, then as many nodes, then each one's kind.
    unsafe {
        sys::cuGraphGetNodes(graph.cu_graph(), std::ptr::null_mut(), &mut count).result().w()?;
        let mut nodes = vec![std::ptr::null_mut(); count];
        sys::cuGraphGetNodes(graph.cu_graph(), nodes.as_mut_ptr(), &mut count).result().w()?;
        let kind = |node: sys::CUgraphNode| {
            let mut kind = 0u32;
            sys::cuGraphNodeGetType(node, (&raw mut kind).cast()).result().w()?;
            Ok((node, kind))
        };
        nodes.into_iter().map(kind).collect()
    }
}

/// Whether a copy is from the device's memory to the device's memory.
fn is_inside(node: sys::CUgraphNode) -> Result<bool> {
    let mut copy = std::mem::MaybeUninit::<sys::CUDA_MEMCPY3D>::zeroed();
    let at = copy.as_mut_ptr();
    // Safety: the driver writes the copy's parameters; kinds of memory are read as plain numbers, whatever they are.
    let sides = unsafe {
        sys::cuGraphMemcpyNodeGetParams(node, at).result().w()?;
        let kinds =
            [&raw const (*at).srcMemoryType, &raw const (*at).dstMemoryType].map(|kind| kind.cast::<u32>().read());
        [(kinds[0], (*at).srcDevice), (kinds[1], (*at).dstDevice)]
    };
    for (kind, place) in sides {
        // A place that the driver was given without its kind is called unified.
        let kind = if kind == sys::CUmemorytype::CU_MEMORYTYPE_UNIFIED as u32 { kind_of(place)? } else { kind };
        if kind != sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as u32 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Of which kind the memory of a place is.
fn kind_of(place: u64) -> Result<u32> {
    let mut kind = 0u32;
    let what = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
    // Safety: the driver writes one number.
    unsafe { sys::cuPointerGetAttribute((&raw mut kind).cast(), what, place) }.result().w()?;
    Ok(kind)
}
