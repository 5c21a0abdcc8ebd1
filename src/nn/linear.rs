//! The fully connected layer, and the one matrix product of the CPU path.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::activation::{self, Activation};
use super::kernel::{SLACK, Tile, tile, tile_rows};
use super::{tensor, with};

/// y = activation(x w^T + bias); x [n, k], w [m, k], bias `[m]`.
///
/// # Errors
/// The shapes do not fit.
pub fn forward(x: &Tensor, w: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let ((images, depth), (out, w_depth)) = (x.dims2()?, w.dims2()?);
    if depth != w_depth || images == 0 {
        bail!("a linear layer of {w_depth} inputs does not fit {images} x {depth} features");
    }
    if !x.device().is_cpu() {
        return activation::forward(&x.matmul(&w.t()?)?.broadcast_add(bias)?, activation);
    }
    let y = with([x, w, bias], |[x, w, bias]| {
        let mut transposed = vec![0.0; w.len()];
        for (row, values) in w.chunks_exact(depth).enumerate() {
            values.iter().enumerate().for_each(|(column, value)| transposed[column * out + row] = *value);
        }
        let mut y = product(images, depth, out, |row, step| x[row * depth + step], &transposed);
        y.chunks_exact_mut(out).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias));
        y
    })?;
    activation::forward(&tensor(y, (images, out))?, activation)
}

/// Gradients of x (if wanted), w and bias. `dy` is the gradient before the activation.
///
/// # Errors
/// The shapes do not fit.
pub fn backward(
    x: &Tensor,
    w: &Tensor,
    dy: &Tensor,
    want_dx: bool,
    want_dw: bool,
) -> Result<(Option<Tensor>, Option<[Tensor; 2]>)> {
    let ((images, depth), (_, out)) = (x.dims2()?, dy.dims2()?);
    if !x.device().is_cpu() {
        let dx = if want_dx { Some(dy.matmul(w)?) } else { None };
        let dw = if want_dw { Some([dy.t()?.matmul(x)?, dy.sum(0)?]) } else { None };
        return Ok((dx, dw));
    }
    let dx = match want_dx {
        true => Some(with([w, dy], |[w, dy]| product(images, out, depth, |row, step| dy[row * out + step], w))?),
        false => None,
    };
    let dw = match want_dw {
        true => Some(with([x, dy], |[x, dy]| product(out, images, depth, |row, step| dy[step * out + row], x))?),
        false => None,
    };
    let dw = match dw {
        Some(dw) => Some([tensor(dw, (out, depth))?, tensor(column_sums(dy)?, out)?]),
        None => None,
    };
    Ok((dx.map(|dx| tensor(dx, (images, depth))).transpose()?, dw))
}

fn column_sums(dy: &Tensor) -> Result<Vec<f32>> {
    let (_, out) = dy.dims2()?;
    with([dy], |[dy]| {
        let mut sums = vec![0f64; out];
        dy.chunks_exact(out).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, dy)| *sum += f64::from(*dy)));
        sums.into_iter().map(|sum| sum as f32).collect()
    })
}

/// c[row][column] = sum over steps of a(row, step) * b[step][column]; [rows][columns]. Each sum runs in sequence,
/// so a row of the result does not depend on the others.
fn product(rows: usize, depth: usize, columns: usize, a: impl Fn(usize, usize) -> f32 + Sync, b: &[f32]) -> Vec<f32> {
    let height = tile_rows();
    let pitch = columns.next_multiple_of(SLACK);
    let mut padded = b.to_vec();
    padded.resize(b.len() + SLACK, 0.0);
    let offsets: Vec<u32> = (0..depth).map(|step| (step * columns) as u32).collect();
    let mut c = vec![0.0; rows * columns];
    c.par_chunks_mut(height * columns).enumerate().for_each(|(block, c)| {
        let own = c.len() / columns;
        let mut packed = vec![0.0; depth * height];
        for step in 0..depth {
            (0..own).for_each(|row| packed[step * height + row] = a(block * height + row, step));
        }
        let mut sums = vec![0.0; height * pitch];
        tile(&Tile { x: &padded, offsets: &offsets, w: &packed, columns }, height, &mut sums, pitch);
        for (row, c) in c.chunks_exact_mut(columns).enumerate() {
            c.copy_from_slice(&sums[row * pitch..][..columns]);
        }
    });
    c
}
