//! Products of many heads that read the same features, on CUDA: a head has the bits that it has alone.

use candle_core::{DType, Result, Tensor, bail};

use super::{Threads, activation, at, device_of, empty, int, launch};
use crate::nn::activation::Activation;

/// Rows and columns of results that a block computes.
pub(super) const TILE: usize = 64;

fn product(name: &str, [rows, columns, depth]: [usize; 3], left: &Tensor, right: &Tensor) -> Result<Tensor> {
    if left.dtype() != DType::F32 || right.dtype() != DType::F32 {
        bail!("heads are f32, not {:?} and {:?}", left.dtype(), right.dtype());
    }
    let y = empty(device_of(left)?, DType::F32, (rows, columns))?;
    let args = [int(rows), int(columns), int(depth), at(left)?, at(right)?, at(&y)?];
    launch(device_of(left)?, name, Threads::Tiles(rows, columns), &args)?;
    Ok(y)
}

/// x w^T + bias; x [n, k], w [m, k], bias `[m]`.
pub fn forward(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let ((images, depth), (out, _)) = (x.dims2()?, w.dims2()?);
    let y = product("heads_forward", [images, out, depth], x, w)?;
    activation::add_bias(&y, bias, Activation::Linear)?;
    Ok(y)
}

/// The gradient of w [m, k]; x [n, k], dy [n, m].
pub fn weight_gradient(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let ((images, depth), (_, out)) = (x.dims2()?, dy.dims2()?);
    product("heads_weights", [out, depth, images], dy, x)
}
