//! Convolutions on CUDA: large ones of 3x3 in f32 by tiles (`winograd`), others by cuDNN where it is built in and has an
//! algorithm that repeats bit for bit; else as products of patches. One kernel for each channel goes by kernels of our own:
//! cuDNN's are slow there.

use candle_core::{DType, Result, Tensor};

use super::join::{Lent, lent, turn};
use super::product::{Factor, product as gemm};
use super::{
    Arg, Strips, Threads, activation, at, at_some, count, device_of, empty, int, launch_of, memory, norm, space,
    winograd,
};
use crate::nn::activation::Activation;
use crate::nn::conv::{Conv, Sizes};

/// Bytes of patches that are laid out at once.
const PATCHES: usize = 1 << 28;

/// Bytes that convolutions keep to work in, and the most that one takes for the moment.
pub fn workspace() -> (usize, usize) {
    (space::bytes(), if cfg!(feature = "cudnn") { 0 } else { PATCHES })
}

/// As `nn::conv::forward`.
pub fn forward(
    conv: &Conv,
    sizes: &Sizes,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    if sizes.is_depthwise() {
        return depthwise(conv, sizes, x, &*lent(w, x.dtype())?, bias, activation);
    }
    let y = match winograd::tiling(conv, sizes, x.dtype()) {
        Some(tiling) => winograd::forward(conv, sizes, &tiling, x, w)?,
        None => by_rows(conv, sizes, x, &*rows_of(w, x.dtype())?)?,
    };
    match bias {
        Some(bias) => activation::add_bias(&y, bias, activation)?,
        None if activation == Activation::Linear => {}
        None => activation::apply(&y, activation)?,
    }
    Ok(y)
}

/// For weights [out, height, width, channels].
fn by_rows(conv: &Conv, sizes: &Sizes, x: &Tensor, rows: &Tensor) -> Result<Tensor> {
    if is_plain(conv) {
        return pixels(sizes, x, rows);
    }
    #[cfg(feature = "cudnn")]
    if let Some(y) = super::cudnn::forward(conv, sizes, x, rows)? {
        return Ok(y);
    }
    product(conv, sizes, x, rows)
}

/// The gradient of the input.
pub fn input_gradient(conv: &Conv, sizes: &Sizes, w: &Tensor, dy: &Tensor) -> Result<Tensor> {
    if sizes.is_depthwise() {
        let w = lent(w, dy.dtype())?;
        let dx = empty(device_of(dy)?, dy.dtype(), sizes.input_shape())?;
        let mut args = around(conv, sizes, dx.elem_count())?;
        args.extend([at(dy)?, at(&w)?, at(&dx)?]);
        let threads = Threads::lots(dx.elem_count(), dy.dtype());
        launch_of(device_of(dy)?, "depthwise_input", dy.dtype(), threads, &args)?;
        return Ok(dx);
    }
    if let Some(dx) = winograd::input_gradient(conv, sizes, w, dy)? {
        return Ok(dx);
    }
    let rows = rows_of(w, dy.dtype())?;
    if is_plain(conv) {
        return pixels_input(sizes, &rows, dy);
    }
    #[cfg(feature = "cudnn")]
    if let Some(dx) = super::cudnn::input_gradient(conv, sizes, &rows, dy)? {
        return Ok(dx);
    }
    product_input(conv, sizes, &rows, dy)
}

/// The gradient of the weights, in f32 and of their shape.
pub fn weight_gradient(conv: &Conv, sizes: &Sizes, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    if sizes.is_depthwise() {
        return depthwise_weights(conv, sizes, x, dy);
    }
    if let Some(tiling) = winograd::tiling(conv, sizes, x.dtype()) {
        return winograd::weight_gradient(conv, sizes, &tiling, x, dy);
    }
    if is_plain(conv) {
        return pixels_weights(sizes, x, dy);
    }
    #[cfg(feature = "cudnn")]
    let found = super::cudnn::weight_gradient(conv, sizes, x, dy)?;
    #[cfg(not(feature = "cudnn"))]
    let found = None;
    let rows = found.map_or_else(|| product_weights(conv, sizes, x, dy), Ok)?;
    let shape = (sizes.out, sizes.group_in, conv.kernel[0], conv.kernel[1]);
    if rows.dtype() == DType::F32 && is_turned(conv.taps(), sizes.group_in) {
        return rows.reshape(shape);
    }
    let planes = turn(&rows, sizes.out, conv.taps(), sizes.group_in, DType::F32)?;
    memory::keep(rows);
    planes.reshape(shape)
}

/// Whether weights lie in memory alike with the channels last and first.
fn is_turned(taps: usize, channels: usize) -> bool {
    taps == 1 || channels == 1
}

/// Weights [out, channels, height, width] as products read them, [out, height, width, channels] of their type.
fn rows_of(w: &Tensor, dtype: DType) -> Result<Lent> {
    let (out, channels, height, width) = w.dims4()?;
    let own = w.dtype() != dtype || !is_turned(height * width, channels);
    let rows = if own { turn(w, out, channels, height * width, dtype)? } else { w.clone() };
    Ok(Lent { tensor: rows.reshape((out, height, width, channels))?, own })
}

// ---- pixels that are their own patches: a product each, without cuDNN, whose way to the same product takes the host longer

/// Whether an image's pixels are its patches already.
fn is_plain(conv: &Conv) -> bool {
    conv.kernel == [1, 1] && conv.stride == 1 && conv.padding == [0; 4] && conv.groups == 1
}

/// Pixels of all images.
fn pixels_of(sizes: &Sizes) -> usize {
    sizes.images * sizes.out_height * sizes.out_width
}

fn pixels(sizes: &Sizes, x: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let shape = [pixels_of(sizes), sizes.out, sizes.channels];
    let y = gemm(&Factor::of(x), &Factor::turned(rows), shape, x.dtype())?;
    y.reshape((sizes.images, sizes.out_height, sizes.out_width, sizes.out))
}

fn pixels_input(sizes: &Sizes, rows: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let shape = [pixels_of(sizes), sizes.channels, sizes.out];
    gemm(&Factor::of(dy), &Factor::of(rows), shape, dy.dtype())?.reshape(sizes.input_shape())
}

fn pixels_weights(sizes: &Sizes, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let shape = [sizes.out, sizes.channels, pixels_of(sizes)];
    gemm(&Factor::turned(dy), &Factor::of(x), shape, DType::F32)?.reshape((sizes.out, sizes.channels, 1, 1))
}

// ---- products of patches

/// Images whose patches fit in the memory that is set aside.
fn images_at_once(conv: &Conv, sizes: &Sizes, dtype: DType) -> usize {
    let image = sizes.out_height * sizes.out_width * conv.taps() * sizes.group_in * dtype.size_in_bytes();
    (PATCHES / image.max(1)).clamp(1, sizes.images)
}

fn parts(sizes: &Sizes, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let images = sizes.images;
    (0..images).step_by(most).map(move |first| (first, most.min(images - first)))
}

/// What the kernels of patches know of the sizes, from `rows` to `left`.
fn layout(conv: &Conv, sizes: &Sizes, group: usize) -> [Arg; 13] {
    [
        sizes.out_height,
        sizes.out_width,
        conv.kernel[1],
        conv.taps(),
        sizes.group_in,
        sizes.height,
        sizes.width,
        sizes.channels,
        group * sizes.group_in,
        conv.stride,
        conv.dilation,
        conv.padding[0],
        conv.padding[2],
    ]
    .map(int)
}

/// The patches [n * out height * out width, taps * channels of a group] of some images.
fn patches(conv: &Conv, sizes: &Sizes, x: &Tensor, group: usize) -> Result<Tensor> {
    let rows = x.dim(0)? * sizes.out_height * sizes.out_width;
    let cols = empty(device_of(x)?, x.dtype(), (rows, conv.taps() * sizes.group_in))?;
    let n = cols.elem_count();
    let mut args = vec![count(n)?];
    args.extend(layout(conv, sizes, group));
    args.extend([at(x)?, at(&cols)?]);
    launch_of(device_of(x)?, "patches", x.dtype(), Threads::Each(n), &args)?;
    Ok(cols)
}

/// A group's weights [out of the group, taps * channels] among all as [out, height, width, channels].
fn of_group(conv: &Conv, sizes: &Sizes, rows: &Tensor, group: usize) -> Result<Tensor> {
    let own = rows.narrow(0, group * sizes.group_out, sizes.group_out)?;
    own.reshape((sizes.group_out, conv.taps() * sizes.group_in))
}

/// A group's columns of dy [n, out height, out width, out], as rows.
fn of_outputs(sizes: &Sizes, dy: &Tensor, group: usize) -> Result<Tensor> {
    let rows = dy.elem_count() / sizes.out;
    dy.reshape((rows, sizes.out))?.narrow(1, group * sizes.group_out, sizes.group_out)?.contiguous()
}

fn product(conv: &Conv, sizes: &Sizes, x: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let mut found = Vec::new();
    for (first, images) in parts(sizes, images_at_once(conv, sizes, x.dtype())) {
        let x = x.narrow(0, first, images)?;
        let own = |group: usize| {
            let cols = patches(conv, sizes, &x, group)?;
            let w = of_group(conv, sizes, rows, group)?;
            let shape = [cols.dim(0)?, sizes.group_out, cols.dim(1)?];
            let y = gemm(&Factor::of(&cols), &Factor::turned(&w), shape, x.dtype());
            memory::keep(cols);
            y
        };
        let groups = (0..conv.groups).map(own).collect::<Result<Vec<_>>>()?;
        found.push(Tensor::cat(&groups, 1)?);
    }
    Tensor::cat(&found, 0)?.contiguous()?.reshape((sizes.images, sizes.out_height, sizes.out_width, sizes.out))
}

fn product_input(conv: &Conv, sizes: &Sizes, rows: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let dx = empty(device_of(dy)?, dy.dtype(), sizes.input_shape())?;
    for (first, images) in parts(sizes, images_at_once(conv, sizes, dy.dtype())) {
        let (dy, into) = (dy.narrow(0, first, images)?, dx.narrow(0, first, images)?);
        for group in 0..conv.groups {
            let (dy, w) = (of_outputs(sizes, &dy, group)?, of_group(conv, sizes, rows, group)?);
            let shape = [dy.dim(0)?, w.dim(1)?, sizes.group_out];
            let cols = gemm(&Factor::of(&dy), &Factor::of(&w), shape, dy.dtype())?;
            let n = images * sizes.height * sizes.width * sizes.group_in;
            let mut args = vec![count(n)?];
            args.extend(layout(conv, sizes, group));
            args.extend([at(&cols)?, at(&into)?]);
            launch_of(device_of(&dy)?, "patches_gradient", dy.dtype(), Threads::Each(n), &args)?;
            memory::keep(cols);
        }
    }
    Ok(dx)
}

/// [out, taps * channels of a group]
fn product_weights(conv: &Conv, sizes: &Sizes, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let mut groups: Vec<Option<Tensor>> = vec![None; conv.groups];
    for (first, images) in parts(sizes, images_at_once(conv, sizes, x.dtype())) {
        let (x, dy) = (x.narrow(0, first, images)?, dy.narrow(0, first, images)?);
        for (group, sum) in groups.iter_mut().enumerate() {
            let cols = patches(conv, sizes, &x, group)?;
            let dy = of_outputs(sizes, &dy, group)?;
            let shape = [sizes.group_out, cols.dim(1)?, cols.dim(0)?];
            let own = gemm(&Factor::turned(&dy), &Factor::of(&cols), shape, DType::F32)?;
            memory::keep(cols);
            *sum = Some(match sum.take() {
                Some(sum) => sum.add(&own)?,
                None => own,
            });
        }
    }
    Tensor::cat(&groups.into_iter().flatten().collect::<Vec<_>>(), 0)
}

// ---- one kernel for each channel

/// What the kernels for single channels know of the sizes, from the number of results to `left`.
fn around(conv: &Conv, sizes: &Sizes, n: usize) -> Result<Vec<Arg>> {
    let sizes = [
        sizes.out_height,
        sizes.out_width,
        sizes.channels,
        conv.kernel[1],
        conv.taps(),
        sizes.height,
        sizes.width,
        conv.stride,
        conv.dilation,
        conv.padding[0],
        conv.padding[2],
    ];
    Ok([count(n)?].into_iter().chain(sizes.map(int)).collect())
}

fn depthwise(
    conv: &Conv,
    sizes: &Sizes,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (low, high) = activation.bounds();
    let y = empty(device_of(x)?, x.dtype(), (sizes.images, sizes.out_height, sizes.out_width, sizes.out))?;
    let mut args = around(conv, sizes, y.elem_count())?;
    args.extend([at(x)?, at(w)?, at_some(bias)?, at(&y)?, low.into(), high.into()]);
    launch_of(device_of(x)?, "depthwise", x.dtype(), Threads::lots(y.elem_count(), x.dtype()), &args)?;
    Ok(y)
}

fn depthwise_weights(conv: &Conv, sizes: &Sizes, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (pixels, taps, channels) = (sizes.images * sizes.out_height * sizes.out_width, conv.taps(), sizes.channels);
    let by = Strips::new(pixels, channels, x.dtype(), &[at(x)?, at(dy)?]);
    let parts = empty(device_of(x)?, DType::F32, (by.strips, taps * channels))?;
    let mut args = around(conv, sizes, pixels)?;
    args.extend([count(by.strip)?, int(by.lot), at(x)?, at(dy)?, at(&parts)?]);
    launch_of(device_of(x)?, "depthwise_weights", x.dtype(), Threads::Strips(by, taps), &args)?;
    let sums = turn(&norm::sum_strips(parts)?, 1, taps, channels, DType::F32)?;
    sums.reshape((channels, 1, conv.kernel[0], conv.kernel[1]))
}
