//! Convolution, forward and gradients: any kernel, stride, dilation, groups and padding. Images are
//! [n, height, width, channels], weights [out, channels / groups, kernel height, kernel width].

mod backward;
mod depthwise;
mod forward;
mod several;
mod tiles;
mod tiling;
mod winograd;
mod winograd_gradient;

use candle_core::{Result, bail};

use super::gemm::Table;
use super::kernel::ABSENT;
use tiles::Frame;

pub use backward::{backward, before_activation, bias_gradient};
pub use forward::{Ready, forward};
pub use several::{forward_several, weight_gradients};
pub use tiling::tiles_bytes;
#[cfg(feature = "cuda")]
pub(super) use tiling::{PLACES, Tiling};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv {
    pub kernel: [usize; 2],
    pub stride: usize,
    /// Pixels from one tap of the kernel to the next; 1 is the plain kernel.
    pub dilation: usize,
    /// Top, bottom, left, right.
    pub padding: [usize; 4],
    pub groups: usize,
}

/// Images [n, height, width, channels].
#[derive(Clone, Copy, Debug)]
struct Images<'a> {
    values: &'a [f32],
    height: usize,
    width: usize,
    channels: usize,
}

/// Everything that follows from the shapes of the operands.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    pub(super) out: usize,
    /// Input and output channels of one group.
    pub(super) group_in: usize,
    pub(super) group_out: usize,
}

impl Conv {
    /// Pixels that the kernel spans.
    fn span(&self) -> [usize; 2] {
        self.kernel.map(|taps| (taps - 1) * self.dilation + 1)
    }

    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn sizes(&self, x: (usize, usize, usize, usize), w: (usize, usize, usize, usize)) -> Result<Sizes> {
        let (images, height, width, channels) = x;
        let padded = (height + self.padding[0] + self.padding[1], width + self.padding[2] + self.padding[3]);
        let span = self.span();
        if padded.0 < span[0] || padded.1 < span[1] {
            bail!("a kernel that spans {span:?} pixels does not fit a padded input of {padded:?}");
        }
        if w.1 * self.groups != channels || !w.0.is_multiple_of(self.groups) || [w.2, w.3] != self.kernel {
            bail!("weights {w:?} do not fit {channels} channels in {} groups", self.groups);
        }
        let sizes = Sizes {
            images,
            height,
            width,
            channels,
            out_height: (padded.0 - span[0]) / self.stride + 1,
            out_width: (padded.1 - span[1]) / self.stride + 1,
            out: w.0,
            group_in: w.1,
            group_out: w.0 / self.groups,
        };
        sizes.check()?;
        Ok(sizes)
    }

    /// Where each output pixel reads its taps: [pixels][taps].
    fn reads(&self, sizes: &Sizes) -> Vec<u32> {
        let mut starts = Vec::with_capacity(sizes.out_height * sizes.out_width * self.taps());
        for row in 0..sizes.out_height {
            for column in 0..sizes.out_width {
                for a in 0..self.kernel[0] {
                    let y = (row * self.stride + a * self.dilation).wrapping_sub(self.padding[0]);
                    for b in 0..self.kernel[1] {
                        let x = (column * self.stride + b * self.dilation).wrapping_sub(self.padding[2]);
                        let inside = y < sizes.height && x < sizes.width;
                        starts.push(if inside { ((y * sizes.width + x) * sizes.channels) as u32 } else { ABSENT });
                    }
                }
            }
        }
        starts
    }

    /// Whether pixels are so thin that the taps of a kernel's row are read as one run.
    fn is_thin(&self, sizes: &Sizes) -> bool {
        sizes.channels < 8 && self.groups == 1 && self.dilation == 1 && self.kernel[1] > 1
    }

    /// The same convolution of an image that has the padding already, where runs must not end at its edge.
    fn padded(&self, sizes: &Sizes) -> Option<(Self, [usize; 4])> {
        let bare = Self { padding: [0; 4], ..*self };
        (self.is_thin(sizes) && self.padding != [0; 4]).then_some((bare, self.padding))
    }

    /// Numbers that are read one after the other.
    fn run(&self, sizes: &Sizes) -> usize {
        if self.is_thin(sizes) { self.kernel[1] * sizes.channels } else { sizes.group_in }
    }

    fn table(&self, sizes: &Sizes) -> Table {
        let reads = self.reads(sizes);
        if !self.is_thin(sizes) {
            return Table::new(self.taps(), sizes.image(), reads);
        }
        let firsts: Vec<u32> = reads.into_iter().step_by(self.kernel[1]).collect();
        Table::new(self.kernel[0], sizes.image(), firsts)
    }

    /// With stride 1: the convolution with which the gradient of the output gives that of the input.
    pub(super) fn turned_around(&self) -> Option<Self> {
        let span = self.span();
        let mut padding = [0; 4];
        for (index, around) in padding.iter_mut().enumerate() {
            *around = (span[index / 2] - 1).checked_sub(self.padding[index])?;
        }
        (self.stride == 1).then_some(Self { padding, ..*self })
    }

    /// How to run as Winograd's tiles, where that pays.
    fn tiled(&self, sizes: &Sizes) -> Option<Frame> {
        let before = [self.padding[0], self.padding[2]];
        let frame = Frame { height: sizes.out_height, width: sizes.out_width, channels: sizes.out, before };
        let fits = self.kernel == [3, 3] && self.stride == 1 && self.dilation == 1 && self.groups == 1;
        (fits && frame.suits(sizes.channels)).then_some(frame)
    }

    /// The same for the gradient of the input: the convolution of dy with the kernel turned around.
    fn tiled_back(&self, sizes: &Sizes) -> Option<Frame> {
        let around = |padding: usize| 2usize.checked_sub(padding);
        let before = [around(self.padding[0])?, around(self.padding[2])?];
        let frame = Frame { height: sizes.height, width: sizes.width, channels: sizes.channels, before };
        self.tiled(sizes).filter(|_| frame.suits(sizes.out)).map(|_| frame)
    }

    /// The output pixel that `tap` of input pixel (y, x) contributes to, if there is one.
    fn reader(&self, sizes: &Sizes, pixel: (usize, usize), tap: (usize, usize)) -> Option<usize> {
        let along = |at: usize, before: usize, tap: usize, outputs: usize| {
            let from = (at + before).checked_sub(tap * self.dilation)?;
            (from.is_multiple_of(self.stride) && from / self.stride < outputs).then_some(from / self.stride)
        };
        let row = along(pixel.0, self.padding[0], tap.0, sizes.out_height)?;
        let column = along(pixel.1, self.padding[2], tap.1, sizes.out_width)?;
        Some(row * sizes.out_width + column)
    }
}

impl Sizes {
    /// Whether there is something to do that 32-bit positions can name.
    fn check(&self) -> Result<()> {
        if self.images == 0 {
            bail!("convolution of an empty batch");
        }
        if self.images * self.image().max(self.out_image()) >= ABSENT as usize {
            bail!("a batch of {} images has more numbers than 32 bits can count: take a smaller batch", self.images);
        }
        Ok(())
    }

    /// Those of the convolution that is turned around.
    #[cfg(feature = "cuda")]
    pub(super) fn turned_around(&self) -> Self {
        Self {
            height: self.out_height,
            width: self.out_width,
            channels: self.out,
            out_height: self.height,
            out_width: self.width,
            out: self.channels,
            group_in: self.group_out,
            group_out: self.group_in,
            ..*self
        }
    }

    /// [n, height, width, channels]
    #[cfg(feature = "cuda")]
    pub(super) fn input_shape(&self) -> (usize, usize, usize, usize) {
        (self.images, self.height, self.width, self.channels)
    }

    fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    fn out_image(&self) -> usize {
        self.out_height * self.out_width * self.out
    }

    fn inputs<'a>(&self, values: &'a [f32]) -> Images<'a> {
        Images { values, height: self.height, width: self.width, channels: self.channels }
    }

    fn outputs<'a>(&self, values: &'a [f32]) -> Images<'a> {
        Images { values, height: self.out_height, width: self.out_width, channels: self.out }
    }

    pub(super) fn is_depthwise(&self) -> bool {
        self.group_in == 1 && self.group_out == 1 && self.channels > 1
    }
}

fn pixels(rows: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}
