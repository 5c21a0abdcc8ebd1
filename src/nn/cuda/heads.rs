//! Products of many heads that read the same features, on CUDA: a head has the bits that it has alone.

use candle_core::{DType, Result, Tensor};

use super::join::{cast, lent};
use super::{Threads, activation, at, device_of, empty, int, launch, memory, norm};
use crate::nn::activation::Activation;

/// Rows and columns of results that a block computes.
pub(super) const TILE: usize = 64;

/// Numbers of the largest layer that a network multiplies so, too: a bank's heads are no larger than this, as a rule.
const LARGEST: usize = 1 << 22;

/// Whether a layer of so many outputs and inputs is multiplied in order wherever it stands: in a bank, or in a network.
pub fn is_head(out: usize, inputs: usize) -> bool {
    out * inputs <= LARGEST
}

/// A product of numbers as f32.
fn product(name: &str, [rows, columns, depth]: [usize; 3], left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let (left, right) = (lent(left, DType::F32)?, lent(right, DType::F32)?);
    let y = empty(device_of(&left)?, DType::F32, (rows, columns))?;
    let args = [int(rows), int(columns), int(depth), at(&left)?, at(&right)?, at(&y)?];
    launch(device_of(&left)?, name, Threads::Tiles(rows, columns), &args)?;
    Ok(y)
}

/// activation(x w^T + bias) of x's type; x [n, k], w [m, k], bias `[m]`.
pub fn forward(x: &Tensor, w: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let ((images, depth), (out, _)) = (x.dims2()?, w.dims2()?);
    let y = product("heads_forward", [images, out, depth], x, w)?;
    activation::add_bias(&y, bias, activation)?;
    match x.dtype() {
        DType::F32 => Ok(y),
        other => {
            let rounded = cast(&y, other)?;
            memory::keep(y);
            Ok(rounded)
        }
    }
}

/// The gradients of w [m, k] and of the bias `[m]`, in f32; x [n, k], dy [n, m].
pub fn gradients(x: &Tensor, dy: &Tensor) -> Result<[Tensor; 2]> {
    let ((images, depth), (_, out)) = (x.dims2()?, dy.dims2()?);
    Ok([product("heads_weights", [out, depth, images], dy, x)?, norm::column_sums_singly(dy)?])
}
