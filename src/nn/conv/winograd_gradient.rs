//! The gradient of the weights by Winograd's F(3x3, 2x2): see `winograd`.

use rayon::prelude::*;

use super::Images;
use super::tiles::{Block, Frame, Lines, PLACES, SKEW};
use crate::nn::buffer;
use crate::nn::gemm::{accumulate, panel_widths};
use crate::nn::kernel::{on_every_path, path};

/// Tiles whose gradients are added before they join the sum.
const SUM: usize = 128;

/// dw [out][channels][9] = sum over images and pixels of x * dy. Each place of the tiles is a sum of its own, over blocks
/// of tiles in their order.
pub fn weight_gradient(x: Images, dy: Images, before: [usize; 2]) -> Vec<f32> {
    let (channels, out) = (x.channels, dy.channels);
    let padded = out.next_multiple_of(path().lanes());
    let frame = Frame { height: dy.height, width: dy.width, channels: out, before };
    let images = dy.values.len() / frame.size();
    let rows: Vec<_> = (0..images).flat_map(|image| (0..frame.down()).map(move |row| (image, row))).collect();
    // Rows of places for each thread: fewer threads read x and dy less often.
    let together = 4usize.div_ceil(rayon::current_num_threads());
    let pitch = 4 * together * channels + SKEW;
    let mut sums = buffer::zeros(PLACES * channels * padded);
    sums.par_chunks_mut(4 * together * channels * padded).enumerate().for_each(|(share, sums)| {
        let own = share * together..((share + 1) * together).min(4);
        let mut v = buffer::take(SUM * pitch);
        let mut d = buffer::zeros(4 * SUM * padded);
        let mut lines = Lines::new(x, before);
        let mut line = vec![0.0; 2 * frame.across() * out];
        for block in frame.blocks(&rows, SUM) {
            let count = block.tiles();
            let starts: Vec<u32> = (0..count).map(|tile| (tile * pitch) as u32).collect();
            lines.transform(&block, own.clone(), &mut v, pitch);
            for (number, sums) in sums.chunks_exact_mut(4 * channels * padded).enumerate() {
                transform_gradients(dy, &block, own.start + number, &mut line, &mut d[..4 * count * padded]);
                for (place, sums) in sums.chunks_exact_mut(channels * padded).enumerate() {
                    for (first, width) in panel_widths(out) {
                        let panel = &d[(place * padded + first) * count..][..count * width];
                        let v = &v[(4 * number + place) * channels..];
                        accumulate(v, &starts, channels, panel, width, &mut sums[first..], padded);
                    }
                }
            }
        }
        buffer::keep(v);
        buffer::keep(d);
    });
    let dw = shrink(&sums, channels, out, padded);
    buffer::keep(sums);
    dw
}

/// One row of G d G^T for the 2 x 2 outputs of every tile, with G = [1 0; 1/2 1/2; 1/2 -1/2; 0 1]: panels
/// [4][panels][tiles][width].
fn transform_gradients(dy: Images, block: &Block, row: usize, line: &mut [f32], d: &mut [f32]) {
    let (upper, lower) = [(1.0, 0.0), (0.5, 0.5), (0.5, -0.5), (0.0, 1.0)][row];
    let (count, size) = (block.tiles(), dy.width * dy.channels);
    let padded = d.len() / (4 * count);
    let first = 2 * block.columns.start * dy.channels;
    let used = 2 * block.columns.len() * dy.channels;
    let own = used.min(size - first);
    for (index, (image, down)) in block.rows.iter().enumerate() {
        let from = |at: usize| &dy.values[(image * dy.height + 2 * down + at) * size + first..][..own];
        let line = &mut line[..used];
        if 2 * down + 1 < dy.height {
            blend(from(0), upper, from(1), lower, &mut line[..own]);
        } else {
            blend(from(0), upper, from(0), 0.0, &mut line[..own]);
        }
        line[own..].fill(0.0);
        for (panel, width) in panel_widths(dy.channels) {
            let (offset, place) = (panel * count + index * block.columns.len() * width, padded * count);
            spread_line(line, dy.channels, panel, width, place, &mut d[offset..]);
        }
    }
}

on_every_path! {
    fn blend(upper: &[f32], a: f32, lower: &[f32], b: f32, into: &mut [f32]) {
        let _ = FUSED;
        for (into, (upper, lower)) in into.iter_mut().zip(upper.iter().zip(lower)) {
            *into = a * upper + b * lower;
        }
    }
}

on_every_path! {
    /// The channels `first..` of a line of pixels, as rows of `width` for each tile, for each of the four places.
    fn spread_line(line: &[f32], channels: usize, first: usize, width: usize, place: usize, d: &mut [f32]) {
        let _ = FUSED;
        let used = width.min(channels - first);
        for (tile, pixels) in line.chunks_exact(2 * channels).enumerate() {
            let mut lane = 0;
            while lane + 16 <= used {
                spread_some::<16>(pixels, channels, first + lane, place, &mut d[tile * width + lane..]);
                lane += 16;
            }
            if lane < used {
                spread_some::<8>(pixels, channels, first + lane, place, &mut d[tile * width + lane..]);
            }
        }
    }
}

#[inline(always)]
fn spread_some<const N: usize>(pixels: &[f32], channels: usize, channel: usize, place: usize, d: &mut [f32]) {
    let (mut left, mut right) = ([0f32; N], [0f32; N]);
    left.copy_from_slice(&pixels[channel..][..N]);
    right.copy_from_slice(&pixels[channels + channel..][..N]);
    let (mut sum, mut difference) = ([0f32; N], [0f32; N]);
    for lane in 0..N {
        sum[lane] = 0.5 * (left[lane] + right[lane]);
        difference[lane] = 0.5 * (left[lane] - right[lane]);
    }
    d[..N].copy_from_slice(&left);
    d[place..place + N].copy_from_slice(&sum);
    d[2 * place..][..N].copy_from_slice(&difference);
    d[3 * place..][..N].copy_from_slice(&right);
}

/// A^T p A, with A^T = [1 1 1 0; 0 1 -1 0; 0 1 1 -1], from [16][channels][pitch] to [out][channels][9].
fn shrink(sums: &[f32], channels: usize, out: usize, pitch: usize) -> Vec<f32> {
    const LANES: usize = 8;
    let mut dw = buffer::take(out * channels * 9);
    dw.par_chunks_mut(LANES * channels * 9).enumerate().for_each(|(part, dw)| {
        let lanes = dw.len() / (channels * 9);
        for channel in 0..channels {
            let taps = shrink_some(sums, (channel * pitch) + part * LANES, channels * pitch);
            for lane in 0..lanes {
                for (tap, values) in taps.iter().enumerate() {
                    dw[(lane * channels + channel) * 9 + tap] = values[lane];
                }
            }
        }
    });
    dw
}

on_every_path! {
    fn shrink_some(sums: &[f32], at: usize, place: usize) -> [[f32; 8]; 9] {
        let _ = FUSED;
        let mut rows = [[[0f32; 8]; 4]; 3];
        for column in 0..4 {
            let of = |row: usize| &sums[(4 * row + column) * place + at..][..8];
            let (a, b, c, d) = (of(0), of(1), of(2), of(3));
            for lane in 0..8 {
                rows[0][column][lane] = a[lane] + b[lane] + c[lane];
                rows[1][column][lane] = b[lane] - c[lane];
                rows[2][column][lane] = b[lane] + c[lane] - d[lane];
            }
        }
        let mut taps = [[0f32; 8]; 9];
        for (row, [a, b, c, d]) in rows.iter().enumerate() {
            for lane in 0..8 {
                taps[3 * row][lane] = a[lane] + b[lane] + c[lane];
                taps[3 * row + 1][lane] = b[lane] - c[lane];
                taps[3 * row + 2][lane] = b[lane] + c[lane] - d[lane];
            }
        }
        taps
    }
}
