//! Max and average pooling over windows, and over a grid that covers the image; images as [n, height, width, channels].

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};
use super::kernel::{by_channels, on_every_path};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    Max,
    /// Over the pixels of the image in the window; padding is not counted (TensorFlow's and Keras' convention).
    Avg,
    /// Over the pixels of the padded image (PyTorch's default, `count_include_pad`).
    AvgPadded,
}

/// A square window moved in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub kernel: usize,
    pub stride: usize,
    /// Top, bottom, left, right.
    pub padding: [usize; 4],
    /// Round the number of windows up instead of down; a window that would begin behind the image and the padding
    /// before it is dropped, as PyTorch does.
    pub ceil: bool,
}

/// Where a window reads along one axis: the first pixel, the one behind the last, and the pixels that an average
/// with padding counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
    padded: usize,
}

impl Pool {
    /// Windows per column and per row of an image.
    pub fn out_sides(&self, height: usize, width: usize) -> [usize; 2] {
        let side = |side: usize, before: usize, after: usize| {
            let steps = (side + before + after).saturating_sub(self.kernel);
            if !self.ceil {
                return 1 + steps / self.stride;
            }
            let windows = 1 + steps.div_ceil(self.stride);
            if (windows - 1) * self.stride >= side + before { windows - 1 } else { windows }
        };
        [side(height, self.padding[0], self.padding[1]), side(width, self.padding[2], self.padding[3])]
    }

    fn spans(&self, height: usize, width: usize) -> [Vec<Span>; 2] {
        let spans = |out: usize, side: usize, before: usize, after: usize| {
            let span = |index: usize| {
                let start = index * self.stride;
                let end = (start + self.kernel).min(side + before + after);
                Span {
                    start: start.saturating_sub(before),
                    end: end.saturating_sub(before).min(side),
                    padded: end.saturating_sub(start),
                }
            };
            (0..out).map(span).collect()
        };
        let [rows, columns] = self.out_sides(height, width);
        [spans(rows, height, self.padding[0], self.padding[1]), spans(columns, width, self.padding[2], self.padding[3])]
    }
}

/// Where the windows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    Moved(Pool),
    /// A grid of so many cells on each side that covers the image, as PyTorch's adaptive pooling.
    Grid(usize),
}

type Spans = [Vec<Span>; 2];

impl Windows {
    fn spans(&self, height: usize, width: usize) -> Result<Spans> {
        let spans = match self {
            Self::Moved(pool) => pool.spans(height, width),
            Self::Grid(grid) if *grid == 0 || *grid > height || *grid > width => {
                bail!("a {grid} x {grid} grid does not fit an image of {height} x {width}");
            }
            Self::Grid(grid) => [height, width].map(|side| {
                let span = |cell: usize| {
                    let (start, end) = (cell * side / grid, ((cell + 1) * side).div_ceil(*grid));
                    Span { start, end, padded: end - start }
                };
                (0..*grid).map(span).collect()
            }),
        };
        if spans.iter().flatten().any(|span| span.start >= span.end) {
            bail!("a pooling window lies wholly in the padding");
        }
        Ok(spans)
    }
}

/// Pools x [n, height, width, channels].
///
/// # Errors
/// A window lies wholly in the padding, or the grid is finer than the image.
pub fn forward(windows: &Windows, reduce: Reduce, x: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let [rows, columns] = &windows.spans(height, width)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::pool::forward(windows, reduce, x, [rows.len(), columns.len()]);
    }
    let size = rows.len() * columns.len() * channels;
    let mut y = buffer::take(images * size);
    with([x], |[x]| {
        y.par_chunks_mut(size)
            .zip(x.par_chunks(height * width * channels))
            .for_each(|(y, x)| pool_image(rows, columns, reduce, x, width, channels, y));
    })?;
    tensor(y, (images, rows.len(), columns.len(), channels))
}

/// The gradient of the input of a maximum, given its output. Of several equal maxima the first (row by row) receives
/// it all.
///
/// # Errors
/// As `forward`.
pub fn max_backward(windows: &Windows, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (_, height, width, channels) = x.dims4()?;
    let [rows, columns] = &windows.spans(height, width)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::pool::max_backward(windows, x, y, dy);
    }
    let (size, out) = (height * width * channels, rows.len() * columns.len() * channels);
    let apart = tile(rows, height) && tile(columns, width);
    let mut dx = if apart { buffer::take(x.elem_count()) } else { buffer::zeros(x.elem_count()) };
    with([x, y, dy], |[x, y, dy]| {
        dx.par_chunks_mut(size)
            .zip(x.par_chunks(size))
            .zip(y.par_chunks(out).zip(dy.par_chunks(out)))
            .for_each(|((dx, x), (y, dy))| spread_maxima(rows, columns, apart, x, y, dy, width, channels, dx));
    })?;
    tensor(dx, x.shape().clone())
}

/// Whether spans cover a side from end to end without a pixel in two of them.
fn tile(spans: &[Span], side: usize) -> bool {
    let meet = spans.windows(2).all(|pair| pair[0].end == pair[1].start);
    meet && spans.first().is_some_and(|span| span.start == 0) && spans.last().is_some_and(|span| span.end == side)
}

/// The gradient of the input, of `shape` (n, height, width, channels), of an average.
///
/// # Errors
/// As `forward`.
pub fn avg_backward(
    windows: &Windows,
    reduce: Reduce,
    shape: (usize, usize, usize, usize),
    dy: &Tensor,
) -> Result<Tensor> {
    let (images, height, width, channels) = shape;
    let [rows, columns] = &windows.spans(height, width)?;
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::pool::avg_backward(windows, reduce, shape, dy);
    }
    let (size, out) = (height * width * channels, rows.len() * columns.len() * channels);
    let mut dx = buffer::zeros(images * size);
    with([dy], |[dy]| {
        dx.par_chunks_mut(size)
            .zip(dy.par_chunks(out))
            .for_each(|(dx, dy)| spread_evenly(rows, columns, reduce, dy, width, channels, dx));
    })?;
    tensor(dx, shape)
}

/// What an average divides by.
fn divisor(reduce: Reduce, row: Span, column: Span) -> f32 {
    match reduce {
        Reduce::AvgPadded => (row.padded * column.padded) as f32,
        _ => ((row.end - row.start) * (column.end - column.start)) as f32,
    }
}

on_every_path! {
    fn pool_image(rows: &[Span], columns: &[Span], reduce: Reduce, x: &[f32], width: usize, channels: usize, y: &mut [f32]) {
        let _ = FUSED;
        for (row, y) in rows.iter().zip(y.chunks_exact_mut(columns.len() * channels)) {
            for (column, y) in columns.iter().zip(y.chunks_exact_mut(channels)) {
                let window = Window { row: *row, column: *column, width, channels };
                if reduce == Reduce::Max {
                    by_channels!(channels, channel, largest[](&window, x, channel, y));
                } else {
                    let divisor = divisor(reduce, *row, *column);
                    by_channels!(channels, channel, average[](&window, x, channel, divisor, y));
                }
            }
        }
    }
}

/// One window in an image [height][width][channels].
struct Window {
    row: Span,
    column: Span,
    width: usize,
    channels: usize,
}

impl Window {
    /// Where its pixels begin, row by row.
    #[inline(always)]
    fn pixels(&self) -> impl Iterator<Item = usize> {
        let (columns, width, channels) = (self.column.start..self.column.end, self.width, self.channels);
        (self.row.start..self.row.end).flat_map(move |row| columns.clone().map(move |at| (row * width + at) * channels))
    }
}

#[inline(always)]
fn largest<const N: usize>(window: &Window, x: &[f32], channel: usize, y: &mut [f32]) {
    let mut best = [f32::NEG_INFINITY; N];
    for pixel in window.pixels() {
        let x = &x[pixel + channel..][..N];
        for lane in 0..N {
            // A NaN counts as largest, so that it is not hidden: no comparison with one holds.
            best[lane] = if x[lane] <= best[lane] || best[lane].is_nan() { best[lane] } else { x[lane] };
        }
    }
    y[channel..channel + N].copy_from_slice(&best);
}

#[inline(always)]
fn average<const N: usize>(window: &Window, x: &[f32], channel: usize, divisor: f32, y: &mut [f32]) {
    let mut sums = [0f32; N];
    for pixel in window.pixels() {
        let x = &x[pixel + channel..][..N];
        for lane in 0..N {
            sums[lane] += x[lane];
        }
    }
    for lane in 0..N {
        y[channel + lane] = sums[lane] / divisor;
    }
}

on_every_path! {
    /// `apart`: windows share no pixel and leave none out, so that each gradient is written once.
    fn spread_maxima(rows: &[Span], columns: &[Span], apart: bool, x: &[f32], y: &[f32], dy: &[f32], width: usize, channels: usize, dx: &mut [f32]) {
        let _ = FUSED;
        let size = columns.len() * channels;
        for (row, (y, dy)) in rows.iter().zip(y.chunks_exact(size).zip(dy.chunks_exact(size))) {
            for (column, (y, dy)) in columns.iter().zip(y.chunks_exact(channels).zip(dy.chunks_exact(channels))) {
                let window = Window { row: *row, column: *column, width, channels };
                if apart {
                    by_channels!(channels, channel, give[true](&window, x, y, dy, channel, dx));
                } else {
                    by_channels!(channels, channel, give[false](&window, x, y, dy, channel, dx));
                }
            }
        }
    }
}

/// Gives the gradient of a window to the first of its largest numbers.
#[inline(always)]
fn give<const N: usize, const APART: bool>(
    window: &Window,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    channel: usize,
    dx: &mut [f32],
) {
    let (mut best, mut rest) = ([0f32; N], [0f32; N]);
    best.copy_from_slice(&y[channel..channel + N]);
    rest.copy_from_slice(&dy[channel..channel + N]);
    for pixel in window.pixels() {
        let x = &x[pixel + channel..][..N];
        let dx = &mut dx[pixel + channel..][..N];
        for lane in 0..N {
            let found = x[lane] == best[lane] || x[lane].is_nan();
            let share = if found { rest[lane] } else { 0.0 };
            dx[lane] = if APART { share } else { dx[lane] + share };
            rest[lane] = if found { 0.0 } else { rest[lane] };
        }
    }
}

on_every_path! {
    fn spread_evenly(rows: &[Span], columns: &[Span], reduce: Reduce, dy: &[f32], width: usize, channels: usize, dx: &mut [f32]) {
        let _ = FUSED;
        let mut share = vec![0f32; channels];
        for (index, dy) in dy.chunks_exact(channels).enumerate() {
            let (row, column) = (rows[index / columns.len()], columns[index % columns.len()]);
            let divisor = divisor(reduce, row, column);
            share.iter_mut().zip(dy).for_each(|(share, dy)| *share = dy / divisor);
            for at in row.start..row.end {
                for pixel in at * width + column.start..at * width + column.end {
                    let dx = &mut dx[pixel * channels..][..channels];
                    dx.iter_mut().zip(&share).for_each(|(dx, share)| *dx += share);
                }
            }
        }
    }
}
