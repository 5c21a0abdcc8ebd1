//! Depthwise convolution: every channel by itself, so that vectors run along the channels of a pixel.

use rayon::prelude::*;

use super::gemm::Table;
use super::kernel::{ABSENT, madd, on_every_path};

/// Rows of one task.
const TASK: usize = 96;
/// Rows whose products are added before they join the sum.
const BLOCK: usize = 1024;
/// Taps whose sums are held in registers at once.
const TAPS: usize = 9;

/// [rows][columns] to [columns][rows]: weights of channels and taps, either way.
pub fn turned(w: &[f32], rows: usize) -> Vec<f32> {
    let mut turned = vec![0.0; w.len()];
    for (row, values) in w.chunks_exact(w.len() / rows).enumerate() {
        values.iter().enumerate().for_each(|(column, value)| turned[column * rows + row] = *value);
    }
    turned
}

/// Adds to y [rows][channels] the taps that `table` finds in each image of `source`, times w [taps][channels].
pub fn multiply(
    source: &[f32],
    table: &Table,
    image: usize,
    w: &[f32],
    y: &mut [f32],
    channels: usize,
    finish: impl Fn(&mut [f32]) + Sync,
) {
    y.par_chunks_mut(TASK * channels).enumerate().for_each(|(task, y)| {
        add_taps(source, &table.starts, table.segments, table.rows, image, task * TASK, w, y, channels);
        finish(y);
    });
}

on_every_path! {
    fn add_taps(source: &[f32], starts: &[u32], taps: usize, rows: usize, image: usize, first: usize, w: &[f32], y: &mut [f32], channels: usize) {
        for (index, y) in y.chunks_exact_mut(channels).enumerate() {
            let (at, row) = ((first + index) / rows, (first + index) % rows);
            let source = &source[at * image..][..image];
            let starts = &starts[row * taps..][..taps];
            let mut channel = 0;
            while channel + 32 <= channels {
                add_some::<FUSED, 32>(source, starts, w, channels, channel, y);
                channel += 32;
            }
            while channel + 8 <= channels {
                add_some::<FUSED, 8>(source, starts, w, channels, channel, y);
                channel += 8;
            }
            while channel < channels {
                add_some::<FUSED, 1>(source, starts, w, channels, channel, y);
                channel += 1;
            }
        }
    }
}

#[inline(always)]
fn add_some<const FUSED: bool, const N: usize>(
    source: &[f32],
    starts: &[u32],
    w: &[f32],
    channels: usize,
    channel: usize,
    y: &mut [f32],
) {
    let mut sums = [0f32; N];
    sums.copy_from_slice(&y[channel..channel + N]);
    for (start, w) in starts.iter().zip(w.chunks_exact(channels)) {
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

/// dw [taps][channels] = sum over images and pixels of x * dy, in blocks of rows.
pub fn weight_gradient(x: &[f32], table: &Table, image: usize, dy: &[f32], channels: usize) -> Vec<f32> {
    let taps = table.segments;
    let blocks: Vec<Vec<f32>> = dy
        .par_chunks(BLOCK * channels)
        .enumerate()
        .map(|(block, dy)| {
            let mut sums = vec![0.0; taps * channels];
            add_outer(x, &table.starts, taps, table.rows, image, block * BLOCK, dy, &mut sums, channels);
            sums
        })
        .collect();
    let mut dw = vec![0f64; taps * channels];
    for block in &blocks {
        dw.iter_mut().zip(block).for_each(|(dw, sum)| *dw += f64::from(*sum));
    }
    dw.into_iter().map(|sum| sum as f32).collect()
}

on_every_path! {
    fn add_outer(x: &[f32], starts: &[u32], taps: usize, rows: usize, image: usize, first: usize, dy: &[f32], sums: &mut [f32], channels: usize) {
        let mut channel = 0;
        while channel < channels {
            let wide = channels - channel >= 8;
            for from in (0..taps).step_by(TAPS) {
                if wide {
                    outer_some::<FUSED, 8>(x, starts, taps, rows, image, first, dy, sums, channels, channel, from);
                } else {
                    outer_some::<FUSED, 1>(x, starts, taps, rows, image, first, dy, sums, channels, channel, from);
                }
            }
            channel += if wide { 8 } else { 1 };
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "slices and sizes of one loop")]
fn outer_some<const FUSED: bool, const N: usize>(
    x: &[f32],
    starts: &[u32],
    taps: usize,
    rows: usize,
    image: usize,
    first: usize,
    dy: &[f32],
    sums: &mut [f32],
    channels: usize,
    channel: usize,
    from: usize,
) {
    let count = TAPS.min(taps - from);
    let mut local = [[0f32; N]; TAPS];
    for (index, dy) in dy.chunks_exact(channels).enumerate() {
        let (at, row) = ((first + index) / rows, (first + index) % rows);
        let x = &x[at * image..][..image];
        let dy = &dy[channel..channel + N];
        for (sum, start) in local.iter_mut().zip(&starts[row * taps + from..][..count]) {
            if *start != ABSENT {
                let x = &x[*start as usize + channel..][..N];
                for lane in 0..N {
                    sum[lane] = madd::<FUSED>(x[lane], dy[lane], sum[lane]);
                }
            }
        }
    }
    for (tap, local) in local.iter().take(count).enumerate() {
        let sums = &mut sums[(from + tap) * channels + channel..][..N];
        sums.iter_mut().zip(local).for_each(|(sum, local)| *sum += local);
    }
}
