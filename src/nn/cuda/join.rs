//! Operators that move numbers, on CUDA.

use std::ops::Deref;

use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Result, Tensor};

use super::{Arg, Threads, at, count, device_of, empty, int, launch, launch_of, launch_several, memory, place};
use crate::nn::activation::Activation;

/// As `nn::join::add`.
pub fn add(left: &Tensor, right: &Tensor, activation: Activation) -> Result<Tensor> {
    let (low, high) = activation.bounds();
    let sum = empty(device_of(left)?, left.dtype(), left.shape())?;
    let n = left.elem_count();
    let args = [count(n)?, at(left)?, at(right)?, at(&sum)?, low.into(), high.into()];
    launch_of(device_of(left)?, "add_hold", left.dtype(), Threads::lots(n, left.dtype()), &args)?;
    Ok(sum)
}

/// As `nn::join::dropout`.
pub fn dropout(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let n = x.elem_count();
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    let args = [count(n)?, at(x)?, at(mask)?, at(&y)?];
    launch_of(device_of(x)?, "masked", x.dtype(), Threads::Each(n), &args)?;
    Ok(y)
}

/// Pixel (row * stride - top, column * stride - left) and channel - before of x, or zero; `shape` [rows, columns, channels].
fn placed(x: &Tensor, shape: [usize; 3], stride: usize, top: i32, left: i32, before: usize) -> Result<Tensor> {
    let (images, height, width, inner) = x.dims4()?;
    let [rows, columns, channels] = shape;
    let y = empty(device_of(x)?, x.dtype(), (images, rows, columns, channels))?;
    let n = y.elem_count();
    let sizes = [rows, columns, channels, height, width, inner, stride].map(int);
    let mut args = vec![count(n)?];
    args.extend(sizes);
    args.extend([Arg::Int(top), Arg::Int(left), int(before), at(x)?, at(&y)?]);
    launch_of(device_of(x)?, "placed", x.dtype(), Threads::lots(n, x.dtype()), &args)?;
    Ok(y)
}

/// As `nn::join::pad`.
pub fn pad(x: &Tensor, padding: [usize; 4]) -> Result<Tensor> {
    let (_, height, width, channels) = x.dims4()?;
    let shape = [height + padding[0] + padding[1], width + padding[2] + padding[3], channels];
    placed(x, shape, 1, padding[0] as i32, padding[2] as i32, 0)
}

/// As `nn::join::unpad`: `height` x `width` pixels inside the padding.
pub fn unpad(dy: &Tensor, padding: [usize; 4], height: usize, width: usize) -> Result<Tensor> {
    placed(dy, [height, width, dy.dim(3)?], 1, -(padding[0] as i32), -(padding[2] as i32), 0)
}

/// As `nn::join::shortcut`.
pub fn shortcut(x: &Tensor, stride: usize, channels: usize) -> Result<Tensor> {
    let (_, height, width, from) = x.dims4()?;
    placed(x, [height.div_ceil(stride), width.div_ceil(stride), channels], stride, 0, 0, (channels - from) / 2)
}

/// As `nn::join::shortcut_backward`.
pub fn shortcut_backward(dy: &Tensor, stride: usize, shape: [usize; 4]) -> Result<Tensor> {
    let [_, height, width, inner] = shape;
    let (_, rows, columns, channels) = dy.dims4()?;
    let dx = empty(device_of(dy)?, dy.dtype(), &shape)?;
    let n = dx.elem_count();
    let sizes = [height, width, inner, rows, columns, channels, stride, (channels - inner) / 2].map(int);
    let mut args = vec![count(n)?];
    args.extend(sizes);
    args.extend([at(dy)?, at(&dx)?]);
    launch_of(device_of(dy)?, "shortcut_gradient", dy.dtype(), Threads::lots(n, dy.dtype()), &args)?;
    Ok(dx)
}

/// x [n, rows, columns] as [n, columns, rows] of `dtype`, f32 or bf16, in memory of its own.
pub fn turn(x: &Tensor, images: usize, rows: usize, columns: usize, dtype: DType) -> Result<Tensor> {
    let n = x.elem_count();
    let y = empty(device_of(x)?, dtype, (images, columns, rows))?;
    let name = match (x.dtype(), dtype) {
        (DType::F32, DType::F32) => "turn_f32_f32",
        (DType::F32, DType::BF16) => "turn_f32_bf16",
        (DType::BF16, DType::F32) => "turn_bf16_f32",
        (DType::BF16, DType::BF16) => "turn_bf16_bf16",
        (from, to) => candle_core::bail!("no kernel turns {from:?} into {to:?}"),
    };
    launch(device_of(x)?, name, Threads::Each(n), &[count(n)?, int(rows), int(columns), at(x)?, at(&y)?])?;
    Ok(y)
}

/// x as numbers of `dtype`, f32 or bf16: itself, or in memory of its own.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    turn(x, 1, 1, x.elem_count(), dtype)?.reshape(x.shape())
}

/// The same for as long as one operator takes.
pub fn lent(x: &Tensor, dtype: DType) -> Result<Lent> {
    Ok(Lent { own: x.dtype() != dtype, tensor: cast(x, dtype)? })
}

/// A tensor whose memory is kept for others when its reader is done, unless it is somebody else's.
pub struct Lent {
    pub tensor: Tensor,
    pub own: bool,
}

impl Deref for Lent {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.own {
            memory::keep(self.tensor.clone());
        }
    }
}

/// A copy of f32 or f64 numbers.
pub fn copied(x: &Tensor) -> Result<Tensor> {
    let y = empty(device_of(x)?, x.dtype(), x.shape())?;
    let words = x.elem_count() * x.dtype().size_in_bytes() / 4;
    launch(device_of(x)?, "copy_words", Threads::Each(words), &[count(words)?, at(x)?, at(&y)?])?;
    Ok(y)
}

/// Puts the numbers of f32 tensors into the memory of others of their size: [from, to].
pub fn put(copies: &[[&Tensor; 2]]) -> Result<()> {
    for some in copies.chunks(TOGETHER) {
        let mut all = Copies([Entry::default(); TOGETHER]);
        for (entry, [from, to]) in all.0.iter_mut().zip(some) {
            if from.elem_count() != to.elem_count() || [from.dtype(), to.dtype()] != [DType::F32; 2] {
                candle_core::bail!("{:?} is not put into {:?}", from.shape(), to.shape());
            }
            let count = u32::try_from(from.elem_count()).map_err(candle_core::Error::wrap)?;
            *entry = Entry { from: place(from)?, to: place(to)?, count, unused: 0 };
        }
        let Some(most) = all.0.iter().map(|entry| entry.count).max() else { continue };
        launch_several(device_of(some[0][0])?, "copy_several", &all, (some.len(), most), &[])?;
    }
    Ok(())
}

/// Copies of one launch, as in `kernels/moving.cuh`.
const TOGETHER: usize = 64;

/// One copy, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    from: u64,
    to: u64,
    count: u32,
    unused: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Copies([Entry; TOGETHER]);

// Safety: plain numbers, laid out as the kernel's struct.
unsafe impl DeviceRepr for Copies {}

/// Copies `channels` channels of every pixel, from channel `from_first` of `from` to channel `to_first` of `to`.
fn copy(from: &Tensor, from_first: usize, to: &Tensor, to_first: usize, channels: usize) -> Result<()> {
    let n = from.elem_count() / from.dim(3)? * channels;
    let sizes = [channels, from.dim(3)?, from_first, to.dim(3)?, to_first].map(int);
    let mut args = vec![count(n)?];
    args.extend(sizes);
    args.extend([at(from)?, at(to)?]);
    launch_of(device_of(from)?, "channels_of", from.dtype(), Threads::lots(n, from.dtype()), &args)
}

/// As `nn::join::concat`; the parts are of one size.
pub fn concat(parts: &[&Tensor], channels: usize) -> Result<Tensor> {
    let (images, height, width, _) = parts[0].dims4()?;
    let y = empty(device_of(parts[0])?, parts[0].dtype(), (images, height, width, channels))?;
    let mut start = 0;
    for part in parts {
        copy(part, 0, &y, start, part.dim(3)?)?;
        start += part.dim(3)?;
    }
    Ok(y)
}

/// As `nn::join::part`.
pub fn part(dy: &Tensor, first: usize, channels: usize) -> Result<Tensor> {
    let (images, height, width, _) = dy.dims4()?;
    let dx = empty(device_of(dy)?, dy.dtype(), (images, height, width, channels))?;
    copy(dy, first, &dx, 0, channels)?;
    Ok(dx)
}
