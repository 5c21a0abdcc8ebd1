//! Batches on their way to a CUDA device: bytes of images, numbers of rows and rows themselves go through pinned memory while the
//! device is still at work on the batch before.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{DType, Device, Result, Tensor};

use super::pinned::Ring;
use super::{Arg, Threads, at, count, device_of, empty, int, launch, memory};

thread_local! {
    /// By device and bytes.
    static RINGS: RefCell<HashMap<(DeviceId, usize), Ring>> = RefCell::default();
}

/// A tensor on the device, whose bytes `fill` writes.
fn staged(device: &CudaDevice, dtype: DType, count: usize, fill: impl FnOnce(&mut [u8])) -> Result<Tensor> {
    let bytes = count * dtype.size_in_bytes();
    RINGS.with_borrow_mut(|rings| {
        let key = (device.id(), bytes);
        let ring = match rings.remove(&key) {
            Some(ring) => ring,
            None => Ring::new(device, bytes)?,
        };
        let found = empty(device, dtype, count)?;
        rings.entry(key).or_insert(ring).send(&found, fill)?;
        Ok(found)
    })
}

/// Rows `which` of `from` [rows, numbers], f32 that stay on the device: [n, numbers].
///
/// # Errors
/// There is no such row, or no memory left.
pub fn rows(from: &Tensor, which: &[u32]) -> Result<Tensor> {
    let (device, (all, own)) = (device_of(from)?, from.dims2()?);
    if let Some(row) = which.iter().find(|row| **row as usize >= all) {
        candle_core::bail!("there is no row {row} of {all}");
    }
    let told = staged(device, DType::U8, 4 * which.len(), |bytes| {
        bytes.chunks_exact_mut(4).zip(which).for_each(|(bytes, row)| bytes.copy_from_slice(&row.to_ne_bytes()));
    })?;
    let y = empty(device, DType::F32, (which.len(), own))?;
    let n = y.elem_count();
    launch(device, "rows_of", Threads::Each(n), &[count(n)?, int(own), at(&told)?, at(from)?, at(&y)?])?;
    memory::keep(told);
    Ok(y)
}

/// So many numbers of f32 that `fill` writes: rows that do not stay on the device.
///
/// # Errors
/// There is no memory left.
pub fn numbers(device: &Device, count: usize, fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
    // Pinned memory begins with a page.
    staged(device.as_cuda_device()?, DType::F32, count, |bytes| fill(bytemuck::cast_slice_mut(bytes)))
}

/// Images [n, 3, height, width] of RGB bytes that `fill` writes, image by image and row by row. `planes` says for each plane
/// which byte of a pixel it takes, and the scale and the shift: byte * scale + shift, the numbers that a CPU computes.
///
/// # Errors
/// The device has no memory left.
pub fn images(
    device: &Device,
    [n, height, width]: [usize; 3],
    planes: [(usize, f32, f32); 3],
    fill: impl FnOnce(&mut [u8]),
) -> Result<Tensor> {
    let (cuda, pixels) = (device.as_cuda_device()?, height * width);
    let bytes = staged(cuda, DType::U8, 3 * n * pixels, fill)?;
    let y = empty(cuda, DType::F32, (n, 3, height, width))?;
    let all = y.elem_count();
    let mut args = vec![count(all)?, int(pixels), at(&bytes)?];
    args.extend(planes.map(|plane| int(plane.0)));
    args.extend(planes.map(|plane| Arg::Float(plane.1)));
    args.extend(planes.map(|plane| Arg::Float(plane.2)));
    args.push(at(&y)?);
    launch(cuda, "normalise", Threads::Each(all), &args)?;
    memory::keep(bytes);
    Ok(y)
}
