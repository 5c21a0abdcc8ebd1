//! Depthwise convolution: every channel by itself, so that vectors run along the channels of a pixel.

use rayon::prelude::*;

use super::{Conv, Images};
use crate::nn::activation::hold;
use crate::nn::gemm::After;
use crate::nn::kernel::{ABSENT, by_channels, madd, on_every_path};

/// Rows of one task.
const TASK: usize = 96;
/// Rows whose products are added before they join the sum.
const BLOCK: usize = 512;
/// Pixels whose products join the sums at once.
const TOGETHER: usize = 4;

/// [rows][columns] to [columns][rows]: weights of channels and taps, either way.
pub fn turned(w: &[f32], rows: usize) -> Vec<f32> {
    let mut turned = vec![0.0; w.len()];
    for (row, values) in w.chunks_exact(w.len() / rows).enumerate() {
        values.iter().enumerate().for_each(|(column, value)| turned[column * rows + row] = *value);
    }
    turned
}

/// A convolution of single channels and the size of its output.
pub struct Frame {
    pub conv: Conv,
    pub height: usize,
    pub width: usize,
}

/// Output rows of one task.
const ROWS: usize = 8;
/// Numbers of the lines that stay in the first cache.
const NEAR: usize = 6_144;
/// Numbers that are computed at once.
const LANES: usize = 32;

/// y [n, height, width, channels] = activation(x * w + bias), w [taps][channels].
pub fn forward(x: Images, frame: &Frame, w: &[f32], after: After, y: &mut [f32]) {
    let (conv, channels) = (frame.conv, x.channels);
    let none = vec![0.0; channels];
    // Weights and biases repeat behind their end, for vectors that begin at any channel.
    let wide = |values: &[f32]| values.iter().copied().cycle().take(channels + LANES).collect::<Vec<f32>>();
    let bias = wide(after.bias.unwrap_or(&none));
    let weights: Vec<f32> = w.chunks_exact(channels).flat_map(wide).collect();
    let zeros = vec![0.0; x.width * channels];
    let row = frame.width * channels;
    let images = x.values.par_chunks(x.height * x.width * channels);
    y.par_chunks_mut(frame.height * row).zip(images).for_each(|(y, image)| {
        y.par_chunks_mut(ROWS * row).enumerate().for_each(|(task, y)| {
            for (index, y) in y.chunks_exact_mut(row).enumerate() {
                let top = (task * ROWS + index) * conv.stride;
                let line = |tap: usize| match (top + tap * conv.dilation).checked_sub(conv.padding[0]) {
                    Some(at) if at < x.height => &image[at * zeros.len()..][..zeros.len()],
                    _ => zeros.as_slice(),
                };
                let lines: Vec<&[f32]> = (0..conv.kernel[0]).map(line).collect();
                let bounds = after.activation.bounds();
                row_of(
                    &Row { lines: &lines, conv, width: x.width, channels, weights: &weights, bias: &bias, bounds },
                    y,
                );
            }
        });
    });
}

/// What the pixels of one row of outputs read.
struct Row<'a> {
    /// A line of the image for each row of the kernel; zeros where there is none.
    lines: &'a [&'a [f32]],
    conv: Conv,
    /// Pixels of a line.
    width: usize,
    channels: usize,
    /// [taps][channels + LANES]
    weights: &'a [f32],
    bias: &'a [f32],
    bounds: (f32, f32),
}

impl Row<'_> {
    /// The outputs, of so many, whose taps all lie inside the image.
    fn inside(&self, outputs: usize) -> std::ops::Range<usize> {
        let (stride, before) = (self.conv.stride, self.conv.padding[2]);
        let end = (self.width + before).checked_sub(self.conv.span()[1]).map_or(0, |last| last / stride + 1);
        let end = end.min(outputs);
        before.div_ceil(stride).min(end)..end
    }

    /// After how many numbers of a line the weights repeat in whole vectors, where the three lines of a 3x3 kernel stay in
    /// the first cache.
    fn period(&self) -> Option<usize> {
        let near = self.conv.kernel == [3, 3] && 3 * self.width * self.channels <= NEAR;
        match self.channels {
            channels if near && channels.is_multiple_of(16) => Some(channels),
            channels if near && 16 % channels == 0 => Some(16),
            _ => None,
        }
    }
}

on_every_path! {
    fn row_of(row: &Row, y: &mut [f32]) {
        let (channels, stride, before) = (row.channels, row.conv.stride, row.conv.padding[2]);
        let inside = row.inside(y.len() / channels);
        let (left, rest) = y.split_at_mut(inside.start * channels);
        let (middle, right) = rest.split_at_mut(inside.len() * channels);
        for (pixel, y) in left.chunks_exact_mut(channels).enumerate() {
            by_channels!(channels, channel, edge[FUSED](row, pixel * stride, channel, y));
        }
        for (pixel, y) in right.chunks_exact_mut(channels).enumerate() {
            by_channels!(channels, channel, edge[FUSED](row, (inside.end + pixel) * stride, channel, y));
        }
        if inside.is_empty() {
            return;
        }
        let start = (inside.start * stride - before) * channels;
        if stride == 1 {
            // A line of numbers, whatever pixels they belong to.
            let mut at = 0;
            if let Some(period) = row.period() {
                at = middle.len() / period * period;
                for phase in (0..period).step_by(16) {
                    nine_taps::<FUSED>(row, start, phase, period, &mut middle[..at]);
                }
            }
            while at + LANES <= middle.len() {
                sums_at::<LANES, FUSED>(row, start + at, at % channels, &mut middle[at..]);
                at += LANES;
            }
            while at + 8 <= middle.len() {
                sums_at::<8, FUSED>(row, start + at, at % channels, &mut middle[at..]);
                at += 8;
            }
            while at < middle.len() {
                sums_at::<1, FUSED>(row, start + at, at % channels, &mut middle[at..]);
                at += 1;
            }
        } else {
            for (pixel, y) in middle.chunks_exact_mut(channels).enumerate() {
                by_channels!(channels, channel, pixel_of[FUSED](row, start + pixel * stride * channels, channel, y));
            }
        }
    }
}

/// Every sixteen numbers from `phase` on, `period` apart: their nine weights stay in registers.
#[inline(always)]
fn nine_taps<const FUSED: bool>(row: &Row, start: usize, phase: usize, period: usize, y: &mut [f32]) {
    let (channel, step) = (phase % row.channels, row.conv.dilation * row.channels);
    let mut weights = [[0f32; 16]; 9];
    for (tap, weights) in weights.iter_mut().enumerate() {
        weights.copy_from_slice(&row.weights[tap * (row.channels + LANES) + channel..][..16]);
    }
    let mut bias = [0f32; 16];
    bias.copy_from_slice(&row.bias[channel..channel + 16]);
    let [upper, middle, lower] = [row.lines[0], row.lines[1], row.lines[2]];
    for (index, y) in y.chunks_exact_mut(period).enumerate() {
        let at = start + phase + index * period;
        let mut sums = bias;
        for (line, weights) in [upper, middle, lower].iter().zip(weights.chunks_exact(3)) {
            for (tap, weights) in weights.iter().enumerate() {
                let x = &line[at + tap * step..][..16];
                for lane in 0..16 {
                    sums[lane] = madd::<FUSED>(x[lane], weights[lane], sums[lane]);
                }
            }
        }
        let y = &mut y[phase..phase + 16];
        for lane in 0..16 {
            y[lane] = hold(sums[lane], row.bounds.0, row.bounds.1);
        }
    }
}

#[inline(always)]
fn pixel_of<const N: usize, const FUSED: bool>(row: &Row, at: usize, channel: usize, y: &mut [f32]) {
    sums_at::<N, FUSED>(row, at + channel, channel, &mut y[channel..]);
}

/// N outputs that lie side by side, from channel `phase` on, whose first tap is the number `at` of its line.
#[inline(always)]
fn sums_at<const N: usize, const FUSED: bool>(row: &Row, at: usize, phase: usize, y: &mut [f32]) {
    if row.conv.kernel == [3, 3] {
        sums_of::<N, FUSED, 3>(row, at, phase, y);
    } else {
        sums_of::<N, FUSED, 0>(row, at, phase, y);
    }
}

/// K is the side of the kernel, or 0 for any other.
#[inline(always)]
fn sums_of<const N: usize, const FUSED: bool, const K: usize>(row: &Row, at: usize, phase: usize, y: &mut [f32]) {
    let [rows, columns] = if K > 0 { [K; 2] } else { row.conv.kernel };
    let step = row.conv.dilation * row.channels;
    let mut sums = [0f32; N];
    sums.copy_from_slice(&row.bias[phase..phase + N]);
    for a in 0..rows {
        for b in 0..columns {
            let x = &row.lines[a][at + b * step..][..N];
            let w = &row.weights[(a * columns + b) * (row.channels + LANES) + phase..][..N];
            for lane in 0..N {
                sums[lane] = madd::<FUSED>(x[lane], w[lane], sums[lane]);
            }
        }
    }
    let y = &mut y[..N];
    for lane in 0..N {
        y[lane] = hold(sums[lane], row.bounds.0, row.bounds.1);
    }
}

/// N channels of an output at the edge, whose first tap is `from` pixels from the left end of the padding.
#[inline(always)]
fn edge<const N: usize, const FUSED: bool>(row: &Row, from: usize, channel: usize, y: &mut [f32]) {
    let mut sums = [0f32; N];
    sums.copy_from_slice(&row.bias[channel..channel + N]);
    for (a, line) in row.lines.iter().enumerate() {
        for b in 0..row.conv.kernel[1] {
            let pixel = (from + b * row.conv.dilation).wrapping_sub(row.conv.padding[2]);
            if pixel < row.width {
                let x = &line[pixel * row.channels + channel..][..N];
                let w = &row.weights[(a * row.conv.kernel[1] + b) * (row.channels + LANES) + channel..][..N];
                for lane in 0..N {
                    sums[lane] = madd::<FUSED>(x[lane], w[lane], sums[lane]);
                }
            }
        }
    }
    let y = &mut y[channel..channel + N];
    for lane in 0..N {
        y[lane] = hold(sums[lane], row.bounds.0, row.bounds.1);
    }
}

/// Where each pixel of an image reads its taps.
pub struct Taps<'a> {
    /// [pixels][count]: the first channel of a pixel in the other image, or `ABSENT`.
    pub starts: &'a [u32],
    pub count: usize,
    /// Numbers of the other image.
    pub image: usize,
}

/// y [rows][channels] = the sum over the taps in `source` times w [taps][channels].
pub fn gather(source: &[f32], taps: &Taps, w: &[f32], y: &mut [f32]) {
    let channels = w.len() / taps.count;
    let rows = taps.starts.len() / taps.count;
    y.par_chunks_mut(rows * channels).zip(source.par_chunks(taps.image)).for_each(|(y, source)| {
        let starts = taps.starts.par_chunks(TASK * taps.count);
        y.par_chunks_mut(TASK * channels).zip(starts).for_each(|(y, starts)| {
            add_taps(source, starts, taps.count, w, channels, y);
        });
    });
}

on_every_path! {
    fn add_taps(source: &[f32], starts: &[u32], taps: usize, w: &[f32], channels: usize, y: &mut [f32]) {
        for (y, starts) in y.chunks_exact_mut(channels).zip(starts.chunks_exact(taps)) {
            by_channels!(channels, channel, add_some[FUSED](source, starts, w, channel, y));
        }
    }
}

#[inline(always)]
fn add_some<const N: usize, const FUSED: bool>(
    source: &[f32],
    starts: &[u32],
    w: &[f32],
    channel: usize,
    y: &mut [f32],
) {
    let mut sums = [0f32; N];
    for (start, w) in starts.iter().zip(w.chunks_exact(y.len())) {
        if *start != ABSENT {
            let x = &source[*start as usize + channel..][..N];
            let w = &w[channel..channel + N];
            for lane in 0..N {
                sums[lane] = madd::<FUSED>(x[lane], w[lane], sums[lane]);
            }
        }
    }
    y[channel..channel + N].copy_from_slice(&sums);
}

/// dw [taps][channels] = sum over images and pixels of x * dy, in blocks of rows of one image.
pub fn weight_gradient(x: &[f32], taps: &Taps, dy: &[f32], channels: usize) -> Vec<f32> {
    let rows = taps.starts.len() / taps.count;
    let images = dy.par_chunks(rows * channels).zip(x.par_chunks(taps.image));
    let blocks: Vec<Vec<f32>> = images
        .flat_map_iter(|(dy, x)| {
            let starts = taps.starts.chunks(BLOCK * taps.count);
            dy.chunks(BLOCK * channels).zip(starts).map(move |(dy, starts)| {
                let mut sums = vec![0.0; taps.count * channels];
                add_outer(x, starts, taps.count, dy, &mut sums);
                sums
            })
        })
        .collect();
    let mut dw = vec![0f64; taps.count * channels];
    for block in &blocks {
        dw.iter_mut().zip(block).for_each(|(dw, sum)| *dw += f64::from(*sum));
    }
    dw.into_iter().map(|sum| sum as f32).collect()
}

on_every_path! {
    fn add_outer(x: &[f32], starts: &[u32], taps: usize, dy: &[f32], sums: &mut [f32]) {
        let channels = sums.len() / taps;
        let whole = dy.len() / (TOGETHER * channels);
        let (dy, rest) = dy.split_at(whole * TOGETHER * channels);
        let (starts, last) = starts.split_at(whole * TOGETHER * taps);
        for (dy, starts) in dy.chunks_exact(TOGETHER * channels).zip(starts.chunks_exact(TOGETHER * taps)) {
            by_channels!(channels, channel, outer_of[FUSED, TOGETHER](x, starts, taps, dy, sums, channel));
        }
        for (dy, starts) in rest.chunks_exact(channels).zip(last.chunks_exact(taps)) {
            by_channels!(channels, channel, outer_of[FUSED, 1](x, starts, taps, dy, sums, channel));
        }
    }
}

/// The products of P pixels, for N channels and every tap.
#[inline(always)]
fn outer_of<const N: usize, const FUSED: bool, const P: usize>(
    x: &[f32],
    starts: &[u32],
    taps: usize,
    dy: &[f32],
    sums: &mut [f32],
    channel: usize,
) {
    let channels = sums.len() / taps;
    let mut own = [[0f32; N]; P];
    for (pixel, own) in own.iter_mut().enumerate() {
        own.copy_from_slice(&dy[pixel * channels + channel..][..N]);
    }
    for (tap, sums) in sums.chunks_exact_mut(channels).enumerate() {
        let sums = &mut sums[channel..channel + N];
        let mut local = [0f32; N];
        local.copy_from_slice(sums);
        for (pixel, dy) in own.iter().enumerate() {
            let start = starts[pixel * taps + tap];
            if start != ABSENT {
                let x = &x[start as usize + channel..][..N];
                for lane in 0..N {
                    local[lane] = madd::<FUSED>(x[lane], dy[lane], local[lane]);
                }
            }
        }
        sums.copy_from_slice(&local);
    }
}
