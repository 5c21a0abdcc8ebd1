//! Tiles of images for Winograd's convolutions: how they lie, and the transform of what they read.

use std::ops::Range;

use super::Images;
use crate::nn::gemm::parts;
use crate::nn::kernel::{madd, on_every_path};

/// Places of a transformed tile.
pub const PLACES: usize = 16;
/// Numbers between two tiles, so that they do not all fall on the same lines of the cache.
pub const SKEW: usize = 16;

/// The size of the other side, and where its pixel (0, 0) reads.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Rows above and columns to the left of the first pixel.
    pub before: [usize; 2],
}

/// Some tiles: the same columns of a few rows, each an image and a row of its tiles.
pub struct Block<'a> {
    pub rows: &'a [(usize, usize)],
    pub columns: Range<usize>,
}

impl Block<'_> {
    pub fn tiles(&self) -> usize {
        self.rows.len() * self.columns.len()
    }
}

impl Frame {
    pub fn size(&self) -> usize {
        self.height * self.width * self.channels
    }

    pub fn across(&self) -> usize {
        self.width.div_ceil(2)
    }

    pub fn down(&self) -> usize {
        self.height.div_ceil(2)
    }

    /// Whether tiles fit so well that this way is the faster one.
    pub fn suits(&self, channels: usize) -> bool {
        let enough = |channels: usize| channels >= 16 && channels.is_multiple_of(8);
        let places = PLACES * self.across() * self.down();
        enough(channels) && enough(self.channels) && 4 * places <= 3 * 9 * self.height * self.width
    }

    /// Rows of tiles in blocks of about `most` tiles.
    pub fn blocks<'a>(&self, rows: &'a [(usize, usize)], most: usize) -> impl Iterator<Item = Block<'a>> {
        let across = self.across();
        let together = rows.len().div_ceil(rows.len().div_ceil((most / across).max(1)));
        rows.chunks(together).flat_map(move |rows| parts(across, most).map(move |columns| Block { rows, columns }))
    }
}

/// Transforms the inputs of tiles, line by line.
pub struct Lines<'a> {
    x: Images<'a>,
    before: [usize; 2],
    /// A line of zeros as wide as the image.
    zeros: Vec<f32>,
    /// One combination of two lines of the image, with its padding.
    line: Vec<f32>,
}

impl<'a> Lines<'a> {
    pub fn new(x: Images<'a>, before: [usize; 2]) -> Self {
        Self { x, before, zeros: vec![0.0; x.width * x.channels], line: Vec::new() }
    }

    /// Some rows of B^T d B for every tile of a block, with B^T = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]: for each row
    /// four times `channels` numbers; tiles are `pitch` apart.
    pub fn transform(&mut self, block: &Block, rows: Range<usize>, v: &mut [f32], pitch: usize) {
        let channels = self.x.channels;
        // The columns that the tiles read, those of them that exist, and where these lie in the line.
        let left = 2 * block.columns.start;
        let reach = left..left + 2 * block.columns.len() + 2;
        let there = reach.start.max(self.before[1])..reach.end.min(self.x.width + self.before[1]);
        let from = (there.start - self.before[1]) * channels..(there.end - self.before[1]) * channels;
        let within = (there.start - left) * channels..(there.end - left) * channels;
        self.line.clear();
        self.line.resize(reach.len() * channels, 0.0);
        let tiles = v.chunks_mut(block.columns.len() * pitch);
        for ((image, down), v) in block.rows.iter().zip(tiles) {
            let line = |at: usize| match (2 * down + at).checked_sub(self.before[0]).filter(|y| *y < self.x.height) {
                Some(y) => &self.x.values[(image * self.x.height + y) * self.x.width * channels..][from.clone()],
                None => &self.zeros[from.clone()],
            };
            for row in rows.clone() {
                let (first, second, sign) = [(0, 2, -1.0), (1, 2, 1.0), (2, 1, -1.0), (1, 3, -1.0)][row];
                combine(line(first), line(second), sign, &mut self.line[within.clone()]);
                transform_line(&self.line, channels, &mut v[4 * (row - rows.start) * channels..], pitch);
            }
        }
    }
}

on_every_path! {
    fn combine(first: &[f32], second: &[f32], sign: f32, into: &mut [f32]) {
        for (into, (first, second)) in into.iter_mut().zip(first.iter().zip(second)) {
            *into = madd::<FUSED>(sign, *second, *first);
        }
    }
}

on_every_path! {
    fn transform_line(line: &[f32], channels: usize, v: &mut [f32], pitch: usize) {
        let _ = FUSED;
        for (tile, v) in v.chunks_mut(pitch).enumerate() {
            let (line, v) = (&line[2 * tile * channels..][..4 * channels], &mut v[..4 * channels]);
            let mut channel = 0;
            while channel + 16 <= channels {
                transform_some::<16>(line, channels, channel, v);
                channel += 16;
            }
            if channel < channels {
                transform_some::<8>(line, channels, channel, v);
            }
        }
    }
}

#[inline(always)]
fn transform_some<const N: usize>(line: &[f32], channels: usize, channel: usize, v: &mut [f32]) {
    let mut pixels = [[0f32; N]; 4];
    for (index, pixel) in pixels.iter_mut().enumerate() {
        pixel.copy_from_slice(&line[index * channels + channel..][..N]);
    }
    let [a, b, c, d] = pixels;
    let mut places = [[0f32; N]; 4];
    for lane in 0..N {
        places[0][lane] = a[lane] - c[lane];
        places[1][lane] = b[lane] + c[lane];
        places[2][lane] = c[lane] - b[lane];
        places[3][lane] = b[lane] - d[lane];
    }
    for (index, place) in places.iter().enumerate() {
        v[index * channels + channel..][..N].copy_from_slice(place);
    }
}
