//! Max and average pooling over windows, and over a grid that covers the image; images as [n, c, h, w].

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::{composed, tensor, with};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    Max,
    /// Over the pixels of the image in the window; padding is not counted (TensorFlow's and Keras' convention).
    Avg,
}

/// A square window moved in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub kernel: usize,
    pub stride: usize,
    /// Top, bottom, left, right.
    pub padding: [usize; 4],
    /// Round the number of windows up instead of down.
    pub ceil: bool,
}

impl Pool {
    /// Windows per column and per row of an image.
    pub fn out_sides(&self, height: usize, width: usize) -> [usize; 2] {
        let side = |side: usize| {
            let steps = side.saturating_sub(self.kernel);
            1 + if self.ceil { steps.div_ceil(self.stride) } else { steps / self.stride }
        };
        [side(height + self.padding[0] + self.padding[1]), side(width + self.padding[2] + self.padding[3])]
    }

    fn spans(&self, height: usize, width: usize) -> [Vec<(usize, usize)>; 2] {
        let spans = |out: usize, side: usize, before: usize| {
            let span = |index: usize| {
                let start = index * self.stride;
                (start.saturating_sub(before), (start + self.kernel).saturating_sub(before).min(side))
            };
            (0..out).map(span).collect()
        };
        let [rows, columns] = self.out_sides(height, width);
        [spans(rows, height, self.padding[0]), spans(columns, width, self.padding[2])]
    }
}

/// Pools over windows.
///
/// # Errors
/// A window lies wholly in the padding.
pub fn forward(pool: &Pool, reduce: Reduce, x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    if !x.device().is_cpu() {
        return match reduce {
            Reduce::Max => composed::max_pool(pool, x),
            Reduce::Avg => composed::avg_pool(pool, x),
        };
    }
    over(&pool.spans(height, width), reduce, x)
}

/// The gradient of `forward`'s input. Of several equal maxima the first (row by row) receives it all.
///
/// # Errors
/// As `forward`.
pub fn backward(pool: &Pool, reduce: Reduce, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    if !x.device().is_cpu() {
        return one_gradient(x, dy, |x| forward(pool, reduce, x));
    }
    over_backward(&pool.spans(height, width), reduce, x, dy)
}

/// Pools over a grid of `grid` x `grid` cells, as PyTorch's adaptive pooling.
///
/// # Errors
/// The grid is finer than the image.
pub fn grid_forward(grid: usize, reduce: Reduce, x: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return composed_grid(grid, reduce, x);
    }
    over(&grid_spans(grid, x)?, reduce, x)
}

/// The gradient of `grid_forward`'s input.
///
/// # Errors
/// As `grid_forward`.
pub fn grid_backward(grid: usize, reduce: Reduce, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return one_gradient(x, dy, |x| composed_grid(grid, reduce, x));
    }
    over_backward(&grid_spans(grid, x)?, reduce, x, dy)
}

fn one_gradient(x: &Tensor, dy: &Tensor, output: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let mut grads = composed::gradients(&[x], dy, |inputs| output(&inputs[0]))?;
    grads.pop().ok_or_else(|| candle_core::Error::Msg("one input has one gradient".to_owned()))
}

fn grid_spans(grid: usize, x: &Tensor) -> Result<[Vec<(usize, usize)>; 2]> {
    let (_, _, height, width) = x.dims4()?;
    if grid == 0 || grid > height || grid > width {
        bail!("a {grid} x {grid} grid does not fit an image of {height} x {width}");
    }
    let spans = |side: usize| (0..grid).map(|cell| (cell * side / grid, ((cell + 1) * side).div_ceil(grid))).collect();
    Ok([spans(height), spans(width)])
}

fn composed_grid(grid: usize, reduce: Reduce, x: &Tensor) -> Result<Tensor> {
    let [rows, columns] = grid_spans(grid, x)?;
    let mut bands = Vec::new();
    for (top, bottom) in &rows {
        let mut cells = Vec::new();
        for (left, right) in &columns {
            let cell = x.narrow(2, *top, bottom - top)?.narrow(3, *left, right - left)?.flatten_from(2)?;
            cells.push(match reduce {
                Reduce::Max => cell.max_keepdim(2)?,
                Reduce::Avg => cell.mean_keepdim(2)?,
            });
        }
        bands.push(Tensor::cat(&cells, 2)?.unsqueeze(2)?);
    }
    Tensor::cat(&bands, 2)
}

type Spans = [Vec<(usize, usize)>; 2];

fn over(spans: &Spans, reduce: Reduce, x: &Tensor) -> Result<Tensor> {
    let (images, channels, height, width) = x.dims4()?;
    let [rows, columns] = spans;
    if rows.iter().chain(columns).any(|(start, end)| start >= end) {
        bail!("a pooling window lies wholly in the padding");
    }
    let mut y = vec![0.0; images * channels * rows.len() * columns.len()];
    with([x], |[x]| {
        y.par_chunks_mut(rows.len() * columns.len()).zip(x.par_chunks(height * width)).for_each(|(y, x)| {
            for (index, y) in y.iter_mut().enumerate() {
                let (row, column) = (rows[index / columns.len()], columns[index % columns.len()]);
                *y = match reduce {
                    Reduce::Max => x[first_maximum(x, width, row, column)],
                    Reduce::Avg => mean(x, width, row, column),
                };
            }
        });
    })?;
    tensor(y, (images, channels, rows.len(), columns.len()))
}

fn over_backward(spans: &Spans, reduce: Reduce, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let [rows, columns] = spans;
    let mut dx = vec![0.0; x.elem_count()];
    with([x, dy], |[x, dy]| {
        let planes = dx.par_chunks_mut(height * width).zip(x.par_chunks(height * width));
        planes.zip(dy.par_chunks(rows.len() * columns.len())).for_each(|((dx, x), dy)| {
            for (index, dy) in dy.iter().enumerate() {
                let (row, column) = (rows[index / columns.len()], columns[index % columns.len()]);
                match reduce {
                    Reduce::Max => dx[first_maximum(x, width, row, column)] += dy,
                    Reduce::Avg => {
                        let share = dy / ((row.1 - row.0) * (column.1 - column.0)) as f32;
                        for y in row.0..row.1 {
                            dx[y * width..][column.0..column.1].iter_mut().for_each(|dx| *dx += share);
                        }
                    }
                }
            }
        });
    })?;
    tensor(dx, x.shape().clone())
}

/// Where the first largest value of a window is; a NaN counts as largest, so that it is not hidden.
fn first_maximum(x: &[f32], width: usize, rows: (usize, usize), columns: (usize, usize)) -> usize {
    let mut best = rows.0 * width + columns.0;
    for y in rows.0..rows.1 {
        for at in y * width + columns.0..y * width + columns.1 {
            if x[at] > x[best] || (x[at].is_nan() && !x[best].is_nan()) {
                best = at;
            }
        }
    }
    best
}

fn mean(x: &[f32], width: usize, rows: (usize, usize), columns: (usize, usize)) -> f32 {
    let mut sum = 0f32;
    for y in rows.0..rows.1 {
        sum += x[y * width..][columns.0..columns.1].iter().sum::<f32>();
    }
    sum / ((rows.1 - rows.0) * (columns.1 - columns.0)) as f32
}
