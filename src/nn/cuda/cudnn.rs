//! Convolutions by cuDNN, images and weights with the channels last. Algorithms come from cuDNN's own table for the shape,
//! never from timing, and only those that repeat bit for bit are taken.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cudnn::result::get_version;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as DataAlgo, cudnnConvolutionBwdFilterAlgo_t as FilterAlgo,
    cudnnConvolutionFwdAlgo_t as ForwardAlgo, cudnnConvolutionMode_t as Mode, cudnnMathType_t as MathType,
    cudnnTensorFormat_t as Format,
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, CudnnError,
    FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaDevice, DeviceId, gemm_reduced_precision_f32};
use candle_core::{DType, Result, Storage, Tensor, WithDType, bail};
use half::bf16;

use super::alone::alone;
use super::{device_of, empty, join, memory, slice_of, space};
use crate::nn::conv::{Conv, Sizes};

/// What an algorithm is chosen for: the convolution, the sizes, and whether products round.
type Case = (DeviceId, Conv3, [usize; 7], bool);
/// Convolution as plain numbers, to look it up.
type Conv3 = ([usize; 2], usize, usize, [usize; 4], usize);

/// An algorithm, if there is one that repeats, and the bytes that it works in.
type Choice<A> = Option<(A, usize)>;

#[derive(Default)]
struct Kept {
    f32: HashMap<Case, Rc<Shapes<f32>>>,
    bf16: HashMap<Case, Rc<Shapes<bf16>>>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// Goes with its device, which one thread has.
struct Handle(Arc<Cudnn>);

// Safety: NVIDIA, cuDNN 9, "Thread Safety": any thread may use a handle, one at a time.
unsafe impl Send for Handle {}

/// As devices, handles stay for the next thread.
static HANDLES: Mutex<Vec<(DeviceId, Handle)>> = Mutex::new(Vec::new());

fn handle_of(device: &CudaDevice) -> std::result::Result<Arc<Cudnn>, CudnnError> {
    let handles = || HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = handles().iter().find(|known| known.0 == device.id()).map(|known| known.1.0.clone());
    if let Some(known) = known {
        return Ok(known);
    }
    let made = alone(|| Cudnn::new(device.cuda_stream()))?;
    handles().push((device.id(), Handle(made.clone())));
    Ok(made)
}

/// A number that cuDNN computes with; sums are f32.
trait Number: CudnnDataType + CudaDType + DeviceRepr + WithDType {
    const ONE: Self;
    const ZERO: Self;

    /// The convolutions of such numbers that were run before.
    fn known(kept: &mut Kept) -> &mut HashMap<Case, Rc<Shapes<Self>>>;
}

impl Number for f32 {
    const ONE: Self = 1.0;
    const ZERO: Self = 0.0;

    fn known(kept: &mut Kept) -> &mut HashMap<Case, Rc<Shapes<Self>>> {
        &mut kept.f32
    }
}

impl Number for bf16 {
    const ONE: Self = Self::ONE;
    const ZERO: Self = Self::ZERO;

    fn known(kept: &mut Kept) -> &mut HashMap<Case, Rc<Shapes<Self>>> {
        &mut kept.bf16
    }
}

/// The descriptors of one convolution, and the algorithms that were chosen for it.
struct Shapes<T> {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<T>,
    w: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
    forward: OnceCell<Choice<ForwardAlgo>>,
    data: OnceCell<Choice<DataAlgo>>,
    filter: OnceCell<Choice<FilterAlgo>>,
}

impl<T: Number> Shapes<T> {
    /// The padding of `conv` is the same on opposite sides.
    fn of(device: &CudaDevice, conv: &Conv, sizes: &Sizes) -> std::result::Result<Rc<Self>, CudnnError> {
        let [high, wide] = conv.kernel;
        let case = (
            device.id(),
            (conv.kernel, conv.stride, conv.dilation, conv.padding, conv.groups),
            [sizes.images, sizes.channels, sizes.height, sizes.width, sizes.out, high, wide],
            T::DTYPE == DType::F32 && !gemm_reduced_precision_f32(),
        );
        KEPT.with_borrow_mut(|kept| {
            if let Some(shapes) = T::known(kept).get(&case) {
                return Ok(shapes.clone());
            }
            let handle = handle_of(device)?;
            let shapes = Rc::new(Self::new(&handle, conv, sizes, case.3)?);
            T::known(kept).insert(case, shapes.clone());
            Ok(shapes)
        })
    }

    fn new(cudnn: &Arc<Cudnn>, conv: &Conv, sizes: &Sizes, exact: bool) -> std::result::Result<Self, CudnnError> {
        let both = |number: usize| [number as i32; 2];
        let padding = [conv.padding[0] as i32, conv.padding[2] as i32];
        let (stride, dilation) = (both(conv.stride), both(conv.dilation));
        let mut descriptor = cudnn.create_conv2d::<f32>(padding, stride, dilation, Mode::CUDNN_CROSS_CORRELATION)?;
        descriptor.set_group_count(conv.groups as i32)?;
        // Without being told so, cuDNN multiplies bf16 outside of the tensor cores: 240 times slower on an H200.
        descriptor.set_math_type(match T::DTYPE {
            DType::F32 if exact => MathType::CUDNN_FMA_MATH,
            DType::F32 => MathType::CUDNN_DEFAULT_MATH,
            _ => MathType::CUDNN_TENSOR_OP_MATH,
        })?;
        let last = Format::CUDNN_TENSOR_NHWC;
        let dims = |numbers: [usize; 4]| numbers.map(|number| number as i32);
        let [high, wide] = conv.kernel;
        Ok(Self {
            conv: descriptor,
            x: cudnn.create_4d_tensor(last, dims([sizes.images, sizes.channels, sizes.height, sizes.width]))?,
            w: cudnn.create_4d_filter(last, dims([sizes.out, sizes.group_in, high, wide]))?,
            y: cudnn.create_4d_tensor(last, dims([sizes.images, sizes.out, sizes.out_height, sizes.out_width]))?,
            forward: OnceCell::new(),
            data: OnceCell::new(),
            filter: OnceCell::new(),
        })
    }
}

/// The library's version.
pub fn version() -> String {
    // NVIDIA, cuDNN 9, cudnn_version.h: CUDNN_MAJOR * 10000 + CUDNN_MINOR * 100 + CUDNN_PATCHLEVEL.
    let number = get_version();
    format!("{}.{}.{}", number / 10000, number / 100 % 100, number % 100)
}

/// The convolution as cuDNN has it: what is not the same on opposite sides is padded first.
fn even(conv: &Conv) -> Option<Conv> {
    let [top, bottom, left, right] = conv.padding;
    (top != bottom || left != right).then_some(Conv { padding: [0; 4], ..*conv })
}

/// The sizes of a convolution whose image has the padding already.
fn padded(conv: &Conv, sizes: &Sizes) -> Sizes {
    let [top, bottom, left, right] = conv.padding;
    Sizes { height: sizes.height + top + bottom, width: sizes.width + left + right, ..*sizes }
}

/// y [n, out height, out width, out], for weights [out, height, width, channels]; nothing where no algorithm fits.
pub fn forward(conv: &Conv, sizes: &Sizes, x: &Tensor, rows: &Tensor) -> Result<Option<Tensor>> {
    if let Some(bare) = even(conv) {
        let x = join::pad(x, conv.padding)?;
        let y = forward(&bare, &padded(conv, sizes), &x, rows);
        memory::keep(x);
        return y;
    }
    match x.dtype() {
        DType::BF16 => forward_of::<bf16>(conv, sizes, x, rows),
        _ => forward_of::<f32>(conv, sizes, x, rows),
    }
}

fn forward_of<T: Number>(conv: &Conv, sizes: &Sizes, x: &Tensor, rows: &Tensor) -> Result<Option<Tensor>> {
    let device = device_of(x)?;
    let shapes = Shapes::<T>::of(device, conv, sizes)?;
    let product = ConvForward { conv: &shapes.conv, x: &shapes.x, w: &shapes.w, y: &shapes.y };
    let find = || {
        let algorithm = product.pick_algorithm().ok()?;
        Some((algorithm, product.get_workspace_size(algorithm).ok()?))
    };
    let Some((algorithm, bytes)) = *shapes.forward.get_or_init(find) else { return Ok(None) };
    let shape = (sizes.images, sizes.out_height, sizes.out_width, sizes.out);
    written(device, shape, bytes, |y, workspace| {
        with::<T, _>([x, rows], |[x, rows]| {
            // Safety: the descriptors are those of the tensors' shapes and numbers.
            unsafe { product.launch(algorithm, workspace, (T::ONE, T::ZERO), &x, &rows, y) }
        })
    })
    .map(Some)
}

/// The gradient of x; nothing where no algorithm repeats.
pub fn input_gradient(conv: &Conv, sizes: &Sizes, rows: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
    if let Some(bare) = even(conv) {
        let dx = input_gradient(&bare, &padded(conv, sizes), rows, dy)?;
        let inner = |dx: Tensor| {
            let inner = join::unpad(&dx, conv.padding, sizes.height, sizes.width);
            memory::keep(dx);
            inner
        };
        return dx.map(inner).transpose();
    }
    match dy.dtype() {
        DType::BF16 => input_gradient_of::<bf16>(conv, sizes, rows, dy),
        _ => input_gradient_of::<f32>(conv, sizes, rows, dy),
    }
}

fn input_gradient_of<T: Number>(conv: &Conv, sizes: &Sizes, rows: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
    let device = device_of(dy)?;
    let shapes = Shapes::<T>::of(device, conv, sizes)?;
    let product = ConvBackwardData { conv: &shapes.conv, dx: &shapes.x, w: &shapes.w, dy: &shapes.y };
    let find = || {
        // NVIDIA, cuDNN 9, cudnnConvolutionBackwardData: algorithm 0 is the one that does not repeat.
        let algorithm = match product.pick_algorithm().ok()? {
            DataAlgo::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0 => DataAlgo::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
            other => other,
        };
        Some((algorithm, product.get_workspace_size(algorithm).ok()?))
    };
    let Some((algorithm, bytes)) = *shapes.data.get_or_init(find) else { return Ok(None) };
    written(device, sizes.input_shape(), bytes, |dx, workspace| {
        with::<T, _>([rows, dy], |[rows, dy]| {
            // Safety: the descriptors are those of the tensors' shapes and numbers.
            unsafe { product.launch(algorithm, workspace, (T::ONE, T::ZERO), dx, &rows, &dy) }
        })
    })
    .map(Some)
}

/// The gradient of the weights [out, height, width, channels]; nothing where no algorithm repeats.
pub fn weight_gradient(conv: &Conv, sizes: &Sizes, x: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
    if let Some(bare) = even(conv) {
        let x = join::pad(x, conv.padding)?;
        let dw = weight_gradient(&bare, &padded(conv, sizes), &x, dy);
        memory::keep(x);
        return dw;
    }
    match x.dtype() {
        DType::BF16 => weight_gradient_of::<bf16>(conv, sizes, x, dy),
        _ => weight_gradient_of::<f32>(conv, sizes, x, dy),
    }
}

fn weight_gradient_of<T: Number>(conv: &Conv, sizes: &Sizes, x: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
    let device = device_of(x)?;
    let shapes = Shapes::<T>::of(device, conv, sizes)?;
    let product = ConvBackwardFilter { conv: &shapes.conv, x: &shapes.x, dw: &shapes.w, dy: &shapes.y };
    let find = || {
        // NVIDIA, cuDNN 9, cudnnConvolutionBackwardFilter: algorithms 0 and 3 do not repeat.
        let algorithm = match product.pick_algorithm().ok()? {
            FilterAlgo::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0 | FilterAlgo::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3 => {
                FilterAlgo::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1
            }
            other => other,
        };
        Some((algorithm, product.get_workspace_size(algorithm).ok()?))
    };
    let Some((algorithm, bytes)) = *shapes.filter.get_or_init(find) else { return Ok(None) };
    let shape = (sizes.out, conv.kernel[0], conv.kernel[1], sizes.group_in);
    written(device, shape, bytes, |dw, workspace| {
        with::<T, _>([x, dy], |[x, dy]| {
            // Safety: the descriptors are those of the tensors' shapes and numbers.
            unsafe { product.launch(algorithm, workspace, (T::ONE, T::ZERO), &x, dw, &dy) }
        })
    })
    .map(Some)
}

/// A tensor that `write` writes, in a workspace of so many bytes.
fn written<T: Number>(
    device: &CudaDevice,
    shape: impl Into<candle_core::Shape>,
    bytes: usize,
    write: impl FnOnce(&mut CudaSlice<T>, Option<&mut CudaSlice<u8>>) -> Result<std::result::Result<(), CudnnError>>,
) -> Result<Tensor> {
    let result = empty(device, T::DTYPE, shape)?;
    let mut numbers = slice_of::<T>(&result)?;
    // cuDNN reads of it only what it wrote.
    let space = if bytes > 0 { Some(space::take(device, bytes)?) } else { None };
    let mut workspace = space.as_ref().map(slice_of::<u8>).transpose()?;
    write(&mut numbers, workspace.as_deref_mut())??;
    Ok(result)
}

/// Runs `work` over the numbers of two contiguous tensors on the device.
fn with<T: Number, R>(tensors: [&Tensor; 2], work: impl FnOnce([CudaView<T>; 2]) -> R) -> Result<R> {
    let [(one, one_layout), (two, two_layout)] = tensors.map(Tensor::storage_and_layout);
    match (&*one, &*two, one_layout.contiguous_offsets(), two_layout.contiguous_offsets()) {
        (Storage::Cuda(one), Storage::Cuda(two), Some((start, end)), Some((other_start, other_end))) => {
            let one = one.as_cuda_slice::<T>()?.slice(start..end);
            let two = two.as_cuda_slice::<T>()?.slice(other_start..other_end);
            Ok(work([one, two]))
        }
        _ => bail!("cuDNN needs contiguous tensors on the device"),
    }
}
