//! 3x3 convolutions of stride 1 with 16 multiplications for 36: Winograd's F(2x2, 3x3) and, for the gradient of the
//! weights, F(3x3, 2x2) (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). A tile is 2 x 2
//! outputs and the 4 x 4 inputs that they read. Inputs, weights and outputs are transformed tile by tile, and in between
//! each of the 16 places is a product of matrices.
//!
//! A tile's numbers follow from the tile alone, so an image has the same bits in any batch.

use rayon::prelude::*;

use super::Images;
use super::tiles::{Frame, Lines, PLACES, SKEW};
use crate::nn::activation::hold;
use crate::nn::buffer;
use crate::nn::gemm::{After, Panels, square};
use crate::nn::kernel::{on_every_path, path};

/// Tiles of one task, at least, where a few images have that many.
const TASK: usize = 128;
/// Numbers that a task transforms at once.
const BLOCK: usize = 65_536;

/// The transformed weights [16 * channels][out], packed. `weight(channel, out, tap)` is a position in `w`.
pub fn weights(w: &[f32], channels: usize, out: usize, weight: impl Fn(usize, usize, usize) -> usize + Sync) -> Panels {
    Panels::by_panel(PLACES * channels, out, |first, used, width, panel| {
        let mut taps = [[0f32; 32]; 9];
        for channel in 0..channels {
            for (tap, taps) in taps.iter_mut().enumerate() {
                for (lane, value) in taps[..used].iter_mut().enumerate() {
                    *value = w[weight(channel, first + lane, tap)];
                }
            }
            transform_weights(&taps, channel, channels, width, panel);
        }
    })
}

on_every_path! {
    /// G g G^T, with G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1].
    fn transform_weights(taps: &[[f32; 32]; 9], channel: usize, channels: usize, width: usize, panel: &mut [f32]) {
        let _ = FUSED;
        for i in 0..4 {
            let mut row = [[0f32; 32]; 3];
            for (column, row) in row.iter_mut().enumerate() {
                for lane in 0..32 {
                    row[lane] = grown(i, taps[column][lane], taps[3 + column][lane], taps[6 + column][lane]);
                }
            }
            for j in 0..4 {
                let into = &mut panel[((4 * i + j) * channels + channel) * width..][..width];
                for (lane, into) in into.iter_mut().enumerate() {
                    *into = grown(j, row[0][lane], row[1][lane], row[2][lane]);
                }
            }
        }
    }
}

#[inline(always)]
fn grown(place: usize, a: f32, b: f32, c: f32) -> f32 {
    match place {
        0 => a,
        1 => 0.5 * ((a + c) + b),
        2 => 0.5 * ((a + c) - b),
        _ => c,
    }
}

/// y [n, height, width, out] = activation(x * w + bias).
pub fn forward(x: Images, u: &Panels, frame: Frame, after: After, y: &mut [f32]) {
    let (down, across) = (frame.down(), frame.across());
    let together = (TASK / (down * across)).max(1);
    let rows = if together > 1 { down } else { TASK.div_ceil(across).min(down) };
    let none = vec![0.0; frame.channels];
    let task = Task { x, u, frame, bias: after.bias.unwrap_or(&none), bounds: after.activation.bounds() };
    y.par_chunks_mut(together * frame.size()).enumerate().for_each(|(group, y)| {
        let images = group * together..group * together + y.len() / frame.size();
        let band = if together > 1 { y.len() } else { 2 * rows * frame.width * frame.channels };
        y.par_chunks_mut(band).enumerate().for_each(|(number, y)| {
            let own = number * rows..((number + 1) * rows).min(down);
            let rows: Vec<_> = images.clone().flat_map(|image| own.clone().map(move |row| (image, row))).collect();
            task.run(&rows, y);
        });
    });
}

/// What all tasks of a product share.
struct Task<'a> {
    x: Images<'a>,
    u: &'a Panels,
    frame: Frame,
    bias: &'a [f32],
    bounds: (f32, f32),
}

impl Task<'_> {
    /// Some rows of tiles; `y` begins with the first of them.
    fn run(&self, rows: &[(usize, usize)], y: &mut [f32]) {
        let (x, frame, height) = (self.x, self.frame, path().rows());
        let padded = frame.channels.next_multiple_of(path().lanes());
        let most = (BLOCK / (PLACES * (x.channels + padded))).clamp(64, 256);
        let room = frame.blocks(rows, most).map(|block| block.tiles()).max().unwrap_or(0).next_multiple_of(height);
        let (pitch_in, pitch_out) = (PLACES * x.channels + SKEW, PLACES * padded + SKEW);
        let starts: Vec<u32> = (0..room).map(|tile| (tile * pitch_in) as u32).collect();
        let mut v = buffer::take(room * pitch_in);
        let mut m = buffer::take(room * pitch_out);
        let mut lines = Lines::new(x, frame.before);
        let origin = (rows[0].0 * frame.height + 2 * rows[0].1) * frame.width * frame.channels;
        for block in frame.blocks(rows, most) {
            lines.transform(&block, 0..4, &mut v, pitch_in);
            let starts = &starts[..block.tiles().next_multiple_of(height)];
            v[block.tiles() * pitch_in..starts.len() * pitch_in].fill(0.0);
            for place in 0..PLACES {
                square(
                    &v[place * x.channels..],
                    x.channels,
                    starts,
                    self.u,
                    place,
                    &mut m[place * padded..],
                    pitch_out,
                );
            }
            for ((image, row), tiles) in block.rows.iter().zip(m.chunks(block.columns.len() * pitch_out)) {
                let at = ((image * frame.height + 2 * row) * frame.width + 2 * block.columns.start) * frame.channels;
                let pixels = frame.width - 2 * block.columns.start;
                let tiles = Tiles { values: tiles, pitch: pitch_out, padded, count: block.columns.len() };
                transform_outputs(
                    &tiles,
                    frame.width,
                    pixels,
                    2 * row + 1 < frame.height,
                    self.bias,
                    self.bounds,
                    &mut y[at - origin..],
                );
            }
        }
        buffer::keep(v);
        buffer::keep(m);
    }
}

on_every_path! {
    /// A^T m A, with A^T = [1 1 1 0; 0 1 -1 -1], and what follows a convolution, for a row of tiles. `below`: whether the
    /// tiles' second row exists; `pixels` are left of the first row's, and as many as `width` lie in a whole one.
    fn transform_outputs(tiles: &Tiles, width: usize, pixels: usize, below: bool, bias: &[f32], bounds: (f32, f32), y: &mut [f32]) {
        let _ = FUSED;
        for (column, m) in tiles.values.chunks(tiles.pitch).take(tiles.count).enumerate() {
            let (y, inside) = (&mut y[2 * column * bias.len()..], [below, 2 * column + 1 < pixels]);
            let mut channel = 0;
            while channel + 16 <= bias.len() {
                output_some::<16>(m, tiles.padded, inside, width, bias, bounds, channel, y);
                channel += 16;
            }
            if channel < bias.len() {
                output_some::<8>(m, tiles.padded, inside, width, bias, bounds, channel, y);
            }
        }
    }
}

/// Products of a row of tiles: [count][16][padded], `pitch` apart.
struct Tiles<'a> {
    values: &'a [f32],
    pitch: usize,
    padded: usize,
    count: usize,
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "slices and sizes of one loop")]
fn output_some<const N: usize>(
    m: &[f32],
    padded: usize,
    inside: [bool; 2],
    width: usize,
    bias: &[f32],
    bounds: (f32, f32),
    channel: usize,
    y: &mut [f32],
) {
    let mut sums = [[[0f32; N]; 4]; 2];
    for column in 0..4 {
        let mut places = [[0f32; N]; 4];
        for (row, place) in places.iter_mut().enumerate() {
            place.copy_from_slice(&m[(4 * row + column) * padded + channel..][..N]);
        }
        let [a, b, c, d] = places;
        for lane in 0..N {
            sums[0][column][lane] = a[lane] + b[lane] + c[lane];
            sums[1][column][lane] = b[lane] - c[lane] - d[lane];
        }
    }
    let mut start = [0f32; N];
    start.copy_from_slice(&bias[channel..][..N]);
    for (row, [a, b, c, d]) in sums.iter().enumerate().take(1 + usize::from(inside[0])) {
        let mut pair = [[0f32; N]; 2];
        for lane in 0..N {
            pair[0][lane] = hold(a[lane] + b[lane] + c[lane] + start[lane], bounds.0, bounds.1);
            pair[1][lane] = hold(b[lane] - c[lane] - d[lane] + start[lane], bounds.0, bounds.1);
        }
        let at = row * width * bias.len() + channel;
        y[at..at + N].copy_from_slice(&pair[0]);
        if inside[1] {
            y[at + bias.len()..][..N].copy_from_slice(&pair[1]);
        }
    }
}
