//! The operators composed of candle's own, for devices without loops of ours. Right rather than fast: gradients
//! run the composition again under candle's autograd. Pooling avoids candle's own, whose gradients are wrong.

use candle_core::{Result, Tensor, Var};

use super::conv::Conv;
use super::pool::{Pool, Reduce};

/// The gradients of `output(inputs)` with respect to every input, for the gradient `dy` of the output.
pub fn gradients(inputs: &[&Tensor], dy: &Tensor, output: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    let vars: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input)).collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let store = output(&tensors)?.mul(dy)?.sum_all()?.backward()?;
    vars.iter().map(|var| store.get(var).map_or_else(|| var.zeros_like(), |grad| Ok(grad.clone()))).collect()
}

/// Planes with zeros around: top, bottom, left, right.
fn pad(x: &Tensor, padding: [usize; 4]) -> Result<Tensor> {
    x.pad_with_zeros(2, padding[0], padding[1])?.pad_with_zeros(3, padding[2], padding[3])
}

pub fn conv(conv: &Conv, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let x = x.permute((0, 3, 1, 2))?.contiguous()?;
    let y = pad(&x, conv.padding)?.conv2d(w, 0, conv.stride, conv.dilation, conv.groups)?;
    let y = y.permute((0, 2, 3, 1))?.contiguous()?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// Windows side by side: [n, c, oh, ow, taps], out-of-bounds taps filled with `fill`; x as planes.
fn windows(pool: &Pool, x: &Tensor, fill: f32) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let [out_height, out_width] = pool.out_sides(height, width);
    let reach =
        |out: usize, side: usize, before: usize| ((out - 1) * pool.stride + pool.kernel).saturating_sub(side + before);
    let sides = [
        pool.padding[0],
        reach(out_height, height, pool.padding[0]),
        pool.padding[2],
        reach(out_width, width, pool.padding[2]),
    ];
    let inside = pad(&x.zeros_like()?.affine(0.0, 1.0)?, sides)?;
    let filled = pad(x, sides)?.add(&inside.affine(-f64::from(fill), f64::from(fill))?)?;
    let picks = |tap: usize, out: usize| {
        let rows: Vec<u32> = (0..out).map(|index| (index * pool.stride + tap) as u32).collect();
        Tensor::from_vec(rows, out, x.device())
    };
    let mut taps = Vec::new();
    for row in 0..pool.kernel {
        for column in 0..pool.kernel {
            let view = filled.index_select(&picks(row, out_height)?, 2)?;
            taps.push(view.index_select(&picks(column, out_width)?, 3)?);
        }
    }
    Tensor::stack(&taps, 4)
}

/// Pooling over windows of x [n, h, w, c].
pub fn pool(pool: &Pool, reduce: Reduce, x: &Tensor) -> Result<Tensor> {
    let x = x.permute((0, 3, 1, 2))?.contiguous()?;
    let y = match reduce {
        Reduce::Max => windows(pool, &x, -1e30)?.max(4)?,
        Reduce::Avg => windows(pool, &x, 0.0)?.sum(4)?.div(&windows(pool, &x.ones_like()?, 0.0)?.sum(4)?)?,
        Reduce::AvgPadded => {
            // What lies behind the padding (in ceil mode) is not counted.
            let padded = pad(&x.ones_like()?, pool.padding)?.ones_like()?;
            let bare = Pool { padding: [0; 4], ..*pool };
            let sums = windows(pool, &x, 0.0)?.sum(4)?;
            let mut counts = windows(&bare, &padded, 0.0)?.sum(4)?;
            for axis in [2, 3] {
                counts = counts.narrow(axis, 0, sums.dim(axis)?)?;
            }
            sums.div(&counts.contiguous()?)?
        }
    };
    y.permute((0, 2, 3, 1))?.contiguous()
}

/// Batch norm with the statistics of the batch.
pub fn batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let mean = x.mean_keepdim((0, 1, 2))?;
    let centred = x.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim((0, 1, 2))?;
    let normal = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normal.broadcast_mul(weight)?.broadcast_add(bias)
}
