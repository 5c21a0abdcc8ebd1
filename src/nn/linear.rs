//! The fully connected layer.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::activation::{self, Activation};
use super::buffer::{self, tensor, with};
#[cfg(feature = "cuda")]
use super::cuda::{
    join::lent,
    product::{Factor, product},
};
use super::gemm::{After, Left, Panels, Place, Table, multiply, transposed};
use super::kernel::{dots, path};
use super::norm;

/// Outputs of one task.
const TASK: usize = 16;
/// Inputs whose weights are packed at once.
const PACK: usize = 2048;

/// y = activation(x w^T + bias); x [n, k], w [m, k], bias `[m]`.
///
/// # Errors
/// The shapes do not fit.
pub fn forward(x: &Tensor, w: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let ((images, depth), (out, w_depth)) = (x.dims2()?, w.dims2()?);
    if depth != w_depth || images == 0 {
        bail!("a linear layer of {w_depth} inputs does not fit {images} x {depth} features");
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        if super::cuda::heads::is_head(out, depth) {
            return super::cuda::heads::forward(x, w, bias, activation);
        }
        let w = lent(w, x.dtype())?;
        let y = product(&Factor::of(x), &Factor::turned(&w), [images, out, depth], x.dtype())?;
        super::cuda::activation::add_bias(&y, bias, activation)?;
        return Ok(y);
    }
    let mut y = buffer::take(images * out);
    with([x, w, bias], |[x, w, bias]| {
        let some = |w: &[f32]| {
            let mut part = vec![0.0; images * w.len() / depth];
            dots(path(), x, w, depth, &mut part, w.len() / depth);
            part
        };
        let parts: Vec<Vec<f32>> = w.par_chunks(TASK * depth).map(some).collect();
        for (part, first) in parts.iter().zip((0..out).step_by(TASK)) {
            let width = part.len() / images;
            for (y, part) in y.chunks_exact_mut(out).zip(part.chunks_exact(width)) {
                let bias = &bias[first..first + width];
                y[first..].iter_mut().zip(part.iter().zip(bias)).for_each(|(y, (part, bias))| *y = part + bias);
            }
        }
        activation::apply(&mut y, activation);
    })?;
    tensor(y, (images, out))
}

/// The outputs x w^T + bias of several layers that read the same `x` [n, k], w [heads x out, k], bias `[heads x out]`: each has
/// the bits that it has alone.
///
/// # Errors
/// The shapes do not fit.
pub fn heads_forward(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let ((images, depth), (_, w_depth)) = (x.dims2()?, w.dims2()?);
        if depth != w_depth || images == 0 {
            bail!("heads of {w_depth} inputs do not fit {images} x {depth} features");
        }
        return super::cuda::heads::forward(x, w, bias, Activation::Linear);
    }
    forward(x, w, bias, Activation::Linear)
}

/// The gradient of the input where `want_dx`, and of w and bias where the input `x` is given. `dy` is the gradient
/// before the activation.
///
/// # Errors
/// The shapes do not fit.
pub fn backward(
    x: Option<&Tensor>,
    w: &Tensor,
    dy: &Tensor,
    want_dx: bool,
) -> Result<(Option<Tensor>, Option<[Tensor; 2]>)> {
    let ((images, out), (_, depth)) = (dy.dims2()?, w.dims2()?);
    #[cfg(feature = "cuda")]
    if w.device().is_cuda() {
        let dx = || product(&Factor::of(dy), &Factor::of(&*lent(w, dy.dtype())?), [images, depth, out], dy.dtype());
        let dx = want_dx.then(dx).transpose()?;
        let own = |x: &Tensor| {
            if super::cuda::heads::is_head(out, depth) {
                return super::cuda::heads::gradients(x, dy);
            }
            let shape = [out, depth, images];
            let dw = product(&Factor::turned(dy), &Factor::of(x), shape, candle_core::DType::F32)?;
            Ok::<_, candle_core::Error>([dw, super::cuda::norm::column_sums(dy)?])
        };
        return Ok((dx, x.map(own).transpose()?));
    }
    let table = Table::plain(out);
    let dx = match want_dx {
        true => {
            let mut dx = buffer::take(images * depth);
            with([w, dy], |[w, dy]| {
                let left = Left { source: dy, table: &table, offset: 0, depth: out };
                for first in (0..depth).step_by(PACK) {
                    let panels = Panels::new(out, PACK.min(depth - first), |term, column, into| {
                        into.copy_from_slice(&w[term * depth + first + column..][..into.len()]);
                    });
                    multiply(&left, &panels, &mut dx, Place { pitch: depth, first, after: After::NOTHING });
                    panels.recycle();
                }
            })?;
            Some(tensor(dx, (images, depth))?)
        }
        false => None,
    };
    let dw = match x {
        Some(x) => {
            let (dw, db) = with([x, dy], |[x, dy]| {
                let left = Left { source: dy, table: &table, offset: 0, depth: out };
                (transposed(&left, x, depth, depth), norm::column_sums(dy, out))
            })?;
            let db = db.into_iter().map(|sum| sum as f32).collect();
            Some([tensor(dw, (out, depth))?, tensor(db, out)?])
        }
        None => None,
    };
    Ok((dx, dw))
}

/// The gradients of the weights [heads x out, k] and biases `[heads x out]` of several layers that read the same `x` [n, k]:
/// each has the bits that it has alone. `dy` [n, heads x out] is the gradient before the activation.
///
/// # Errors
/// The shapes do not fit.
pub fn heads_backward(x: &Tensor, dy: &Tensor, heads: usize) -> Result<[Tensor; 2]> {
    let ((images, depth), (rows, columns)) = (x.dims2()?, dy.dims2()?);
    if images != rows || heads == 0 || !columns.is_multiple_of(heads) {
        bail!("gradients of {rows} x {columns} do not fit {heads} heads on {images} rows");
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::heads::gradients(x, dy);
    }
    let out = columns / heads;
    let (dw, db) = with([x, dy], |[x, dy]| {
        let table = Table::plain(columns);
        let left = Left { source: dy, table: &table, offset: 0, depth: columns };
        // How a column is summed depends on how many there are: each layer's by themselves.
        let own = |head: usize| {
            let own: Vec<f32> =
                dy.chunks_exact(columns).flat_map(|row| row[head * out..(head + 1) * out].iter().copied()).collect();
            norm::column_sums(&own, out)
        };
        let db: Vec<f32> = (0..heads).flat_map(own).map(|sum| sum as f32).collect();
        (transposed(&left, x, depth, depth), db)
    })?;
    Ok([tensor(dw, (columns, depth))?, tensor(db, columns)?])
}
