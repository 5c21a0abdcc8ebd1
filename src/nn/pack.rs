//! Lays images out for the convolution loops: padded, and split by stride so that every kernel tap is a constant offset.

use super::conv::Conv;
use super::kernel::SLACK;

/// The layout of one image: per channel `stride`² planes (one for each remainder of row and column), each padded and
/// with `pitch` columns, so that output (y, x) reads tap (i, j) at `offset(i, j) + y * pitch + x`.
pub struct Packed {
    height: usize,
    width: usize,
    stride: usize,
    top: usize,
    left: usize,
    pub pitch: usize,
    plane: usize,
    /// Elements of one image, with slack behind the last plane.
    pub image: usize,
}

impl Packed {
    pub fn new(conv: &Conv, channels: usize, height: usize, width: usize) -> Self {
        let stride = conv.stride;
        let padded = (height + conv.padding[0] + conv.padding[1], width + conv.padding[2] + conv.padding[3]);
        let (rows, pitch) = (padded.0.div_ceil(stride), padded.1.div_ceil(stride));
        let plane = rows * pitch;
        let slack = SLACK + pitch + conv.kernel[1];
        Self {
            height,
            width,
            stride,
            top: conv.padding[0],
            left: conv.padding[2],
            pitch,
            plane,
            image: channels * stride * stride * plane + slack,
        }
    }

    /// Where `tap` (row, column of the kernel) of `channel` is read for output (0, 0).
    pub fn offset(&self, channel: usize, tap: (usize, usize)) -> u32 {
        let stride = self.stride;
        let plane = (channel * stride + tap.0 % stride) * stride + tap.1 % stride;
        (plane * self.plane + tap.0 / stride * self.pitch + tap.1 / stride) as u32
    }

    /// The offsets of all taps of channels `first..first + count`, channel by channel, rows before columns.
    pub fn offsets(&self, first: usize, count: usize, kernel: [usize; 2]) -> Vec<u32> {
        let taps = (0..kernel[0]).flat_map(|row| (0..kernel[1]).map(move |column| (row, column)));
        (first..first + count).flat_map(|channel| taps.clone().map(move |tap| self.offset(channel, tap))).collect()
    }

    /// Lays `image` ([channels][height][width]) out in `into`, which must hold zeros where nothing is written.
    pub fn fill(&self, image: &[f32], into: &mut [f32]) {
        for (index, row) in image.chunks_exact(self.width).enumerate() {
            let (channel, y) = (index / self.height, index % self.height + self.top);
            let phase = (channel * self.stride + y % self.stride) * self.stride;
            let start = y / self.stride * self.pitch;
            if self.stride == 1 {
                into[phase * self.plane + start + self.left..][..self.width].copy_from_slice(row);
                continue;
            }
            for (x, value) in row.iter().enumerate() {
                let x = x + self.left;
                into[(phase + x % self.stride) * self.plane + start + x / self.stride] = *value;
            }
        }
    }
}

/// Copies rows of `width` out of rows of `pitch`.
pub fn compact(from: &[f32], pitch: usize, width: usize, into: &mut [f32]) {
    for (row, target) in into.chunks_exact_mut(width).enumerate() {
        target.copy_from_slice(&from[row * pitch..][..width]);
    }
}
