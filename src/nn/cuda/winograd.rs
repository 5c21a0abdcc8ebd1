//! Large convolutions of 3x3 and stride 1 in f32, by Winograd's F(4x4, 3x3): of each tile of 4 x 4 outputs the 6 x 6 inputs
//! are transformed, and each of the 36 places is a product of matrices over all tiles. By cuDNN's older interface, with images
//! whose channels are last, VGG19 took 2.4 times PyTorch's time in f32, and less than that in TF32 and bf16 (benches/gpu.md):
//! those stay there.

use candle_core::cuda_backend::{CudaDevice, gemm_reduced_precision_f32};
use candle_core::{DType, Result, Tensor};

use super::product::{Many, Side, products};
use super::{Arg, Threads, at, count, device_of, empty, int, launch, place, space};
use crate::nn::conv::{Conv, PLACES, Sizes, Tiling};

/// The tiling of a convolution of such numbers, where this is the way to run it.
pub fn tiling(conv: &Conv, sizes: &Sizes, dtype: DType) -> Option<Tiling> {
    (dtype == DType::F32 && !gemm_reduced_precision_f32()).then(|| Tiling::of(conv, sizes))?
}

/// Where transformed numbers lie, in the memory that convolutions work in.
struct Places {
    _space: Tensor,
    /// Transformed weights [36, out, channels], or the parts of their gradient [36, parts, out, channels].
    weights: u64,
    /// Tiles of the input [36, tiles, channels], and behind them those of the output [36, tiles, out].
    tiles: u64,
}

impl Places {
    fn of(device: &CudaDevice, tiling: &Tiling, parts: usize) -> Result<Self> {
        let space = space::take(device, tiling.bytes())?;
        let weights = place(&space)?;
        Ok(Self { weights, tiles: weights + 4 * (parts * tiling.weights) as u64, _space: space })
    }
}

/// Images that are transformed at once.
struct Lot<'a> {
    device: &'a CudaDevice,
    tiling: &'a Tiling,
    sizes: &'a Sizes,
    first: usize,
    images: usize,
}

impl Lot<'_> {
    fn all<'a>(device: &'a CudaDevice, tiling: &'a Tiling, sizes: &'a Sizes) -> impl Iterator<Item = Lot<'a>> {
        (0..sizes.images).step_by(tiling.images).map(move |first| {
            let images = tiling.images.min(sizes.images - first);
            Lot { device, tiling, sizes, first, images }
        })
    }

    /// The lot's part of images of all.
    fn of(&self, images: &Tensor) -> Result<Arg> {
        at(&images.narrow(0, self.first, self.images)?)
    }

    fn tiles(&self) -> usize {
        self.images * self.tiling.down * self.tiling.across
    }

    /// Where the tiles of the output begin.
    fn outputs(&self, places: &Places) -> u64 {
        places.tiles + 4 * (PLACES * self.tiles() * self.sizes.channels) as u64
    }

    /// Transforms between the tiles at `tiles` and `images` of so many channels and pixels.
    fn transform(&self, name: &str, channels: usize, pixels: &[usize], images: [Arg; 2]) -> Result<()> {
        let n = self.tiles() * channels;
        let mut args = vec![count(n)?, int(self.tiling.down), int(self.tiling.across), int(channels)];
        args.extend(pixels.iter().copied().map(int));
        args.extend(images);
        launch(self.device, name, Threads::Each(n), &args)
    }

    fn inputs(&self, conv: &Conv, x: &Tensor, places: &Places) -> Result<()> {
        let Sizes { height, width, channels, .. } = *self.sizes;
        let pixels = [height, width, conv.padding[0], conv.padding[2]];
        self.transform("winograd_inputs", channels, &pixels, [self.of(x)?, Arg::Pointer(places.tiles)])
    }
}

/// y [n, out height, out width, out] of x [n, height, width, channels], for weights [out, channels, 3, 3].
pub fn forward(conv: &Conv, sizes: &Sizes, tiling: &Tiling, x: &Tensor, w: &Tensor) -> Result<Tensor> {
    convolve(conv, sizes, tiling, x, w, false)
}

/// The gradient of x, which is the convolution of dy with the weights turned around; nothing where another way is faster.
pub fn input_gradient(conv: &Conv, sizes: &Sizes, w: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
    let Some(around) = conv.turned_around() else { return Ok(None) };
    let sizes = sizes.turned_around();
    let Some(tiling) = tiling(&around, &sizes, dy.dtype()) else { return Ok(None) };
    convolve(&around, &sizes, &tiling, dy, w, true).map(Some)
}

/// The convolution, with the weights as they are or, where the gradient of an input is wanted, turned around: they are
/// [channels, out, 3, 3] then.
fn convolve(conv: &Conv, sizes: &Sizes, tiling: &Tiling, x: &Tensor, w: &Tensor, around: bool) -> Result<Tensor> {
    let device = device_of(x)?;
    let y = empty(device, DType::F32, (sizes.images, sizes.out_height, sizes.out_width, sizes.out))?;
    let places = Places::of(device, tiling, 1)?;
    let n = w.elem_count() / 9;
    let args = [count(n)?, Arg::Int(around.into()), at(w)?, Arg::Pointer(places.weights)];
    launch(device, "winograd_weights", Threads::Each(n), &args)?;
    for lot in Lot::all(device, tiling, sizes) {
        lot.inputs(conv, x, &places)?;
        let (tiles, outputs) = (lot.tiles(), lot.outputs(&places));
        let v = Side { place: places.tiles, turned: false };
        let u = Side { place: places.weights, turned: !around };
        let steps = [tiles * sizes.channels, sizes.channels * sizes.out, tiles * sizes.out];
        let many = Many { count: PLACES, steps, adds: false };
        products(device, (v, u), outputs, [tiles, sizes.out, sizes.channels], [DType::F32; 2], &many)?;
        let pixels = [sizes.out_height, sizes.out_width];
        lot.transform("winograd_outputs", sizes.out, &pixels, [Arg::Pointer(outputs), lot.of(&y)?])?;
    }
    Ok(y)
}

/// The gradient of the weights [out, channels, 3, 3]: sums over the tiles of each part, one lot of images after the other,
/// then over the parts.
pub fn weight_gradient(conv: &Conv, sizes: &Sizes, tiling: &Tiling, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (device, parts) = (device_of(x)?, tiling.parts);
    let places = Places::of(device, tiling, parts)?;
    for lot in Lot::all(device, tiling, sizes) {
        lot.inputs(conv, x, &places)?;
        let outputs = lot.outputs(&places);
        let pixels = [sizes.out_height, sizes.out_width];
        lot.transform("winograd_gradients", sizes.out, &pixels, [lot.of(dy)?, Arg::Pointer(outputs)])?;
        let tiles = lot.tiles() / parts;
        let d = Side { place: outputs, turned: true };
        let v = Side { place: places.tiles, turned: false };
        let steps = [tiles * sizes.out, tiles * sizes.channels, sizes.out * sizes.channels];
        let many = Many { count: PLACES * parts, steps, adds: lot.first > 0 };
        products(device, (d, v), places.weights, [sizes.out, sizes.channels, tiles], [DType::F32; 2], &many)?;
    }
    let dw = empty(device, DType::F32, (sizes.out, sizes.channels, 3, 3))?;
    let n = sizes.out * sizes.channels;
    let args = [count(n)?, int(parts), Arg::Pointer(places.weights), at(&dw)?];
    launch(device, "winograd_taps", Threads::Each(n), &args)?;
    Ok(dw)
}
