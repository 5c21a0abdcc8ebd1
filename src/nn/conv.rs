//! Convolution, forward and gradients: any kernel, stride, dilation, groups and padding. Images are
//! [n, height, width, channels], weights [out, channels / groups, kernel height, kernel width].

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::activation::{self, Activation};
use super::buffer::{self, tensor, with};
use super::gemm::{Left, Panels, Table, multiply, multiply_rows, transposed};
use super::kernel::ABSENT;
use super::{composed, depthwise, norm};

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

/// Everything that follows from the shapes of the operands.
pub(super) struct Sizes {
    pub images: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub out_height: usize,
    pub out_width: usize,
    pub out: usize,
    /// Input and output channels of one group.
    pub group_in: usize,
    pub group_out: usize,
}

impl Conv {
    /// Pixels that the kernel spans.
    fn span(&self) -> [usize; 2] {
        self.kernel.map(|taps| (taps - 1) * self.dilation + 1)
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn sizes(&self, x: (usize, usize, usize, usize), w: (usize, usize, usize, usize)) -> Result<Sizes> {
        let (images, height, width, channels) = x;
        let padded = (height + self.padding[0] + self.padding[1], width + self.padding[2] + self.padding[3]);
        let span = self.span();
        if images == 0 {
            bail!("convolution of an empty batch");
        }
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
        if images * (height * width * channels).max(sizes.out_image()) >= ABSENT as usize {
            bail!("a batch of {images} images has more numbers than 32 bits can count: take a smaller batch");
        }
        Ok(sizes)
    }

    /// Where each output pixel reads its taps.
    fn reads(&self, sizes: &Sizes) -> Table {
        let mut starts = Vec::with_capacity(sizes.out_height * sizes.out_width * self.taps());
        for (row, column) in pixels(sizes.out_height, sizes.out_width) {
            for (a, b) in pixels(self.kernel[0], self.kernel[1]) {
                let y = (row * self.stride + a * self.dilation).wrapping_sub(self.padding[0]);
                let x = (column * self.stride + b * self.dilation).wrapping_sub(self.padding[2]);
                let inside = y < sizes.height && x < sizes.width;
                starts.push(if inside { ((y * sizes.width + x) * sizes.channels) as u32 } else { ABSENT });
            }
        }
        Table { rows: sizes.out_height * sizes.out_width, segments: self.taps(), starts }
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
    fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    fn out_image(&self) -> usize {
        self.out_height * self.out_width * self.out
    }

    fn is_depthwise(&self) -> bool {
        self.group_in == 1 && self.group_out == 1 && self.channels > 1
    }
}

fn pixels(rows: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}

/// y = activation(x * w + bias), bias `[out]`. The sum of an output begins at its bias and runs over the taps, row by
/// row, and over the channels of each.
///
/// # Errors
/// The batch is empty, or the shapes do not fit each other.
pub fn forward(conv: &Conv, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    let sizes = conv.sizes(x.dims4()?, w.dims4()?)?;
    if !x.device().is_cpu() {
        let y = composed::conv(conv, x, w, bias)?;
        return activation::forward(&y, activation);
    }
    let mut y = buffer::take(sizes.images * sizes.out_image());
    match bias {
        Some(bias) => with([bias], |[bias]| y.par_chunks_mut(bias.len()).for_each(|y| y.copy_from_slice(bias)))?,
        None => y.fill(0.0),
    }
    let table = conv.reads(&sizes);
    let finish = |y: &mut [f32]| activation::apply(y, activation);
    with([x, w], |[x, w]| {
        if sizes.is_depthwise() {
            let w = depthwise::turned(w, sizes.out);
            return depthwise::multiply(x, &table, sizes.image(), &w, &mut y, sizes.out, finish);
        }
        for group in 0..conv.groups {
            let panels = forward_panels(conv, &sizes, w, group);
            let (offset, depth) = (group * sizes.group_in, sizes.group_in);
            let left = Left { source: x, table: &table, image: sizes.image(), offset, depth };
            let last = group + 1 == conv.groups;
            multiply(&left, &panels, &mut y, sizes.out, group * sizes.group_out, |y| {
                if last {
                    finish(y);
                }
            });
            panels.recycle();
        }
    })?;
    tensor(y, (sizes.images, sizes.out_height, sizes.out_width, sizes.out))
}

/// The weights of a group as [taps * channels][out].
fn forward_panels(conv: &Conv, sizes: &Sizes, w: &[f32], group: usize) -> Panels {
    let (taps, group_in) = (conv.taps(), sizes.group_in);
    Panels::new(taps * group_in, sizes.group_out, |term, first, into| {
        let from = (group * sizes.group_out + first) * group_in * taps + term % group_in * taps + term / group_in;
        for (into, value) in into.iter_mut().zip(w[from..].iter().step_by(group_in * taps)) {
            *into = *value;
        }
    })
}

/// The gradient of the input of `shape` [n, height, width, channels] where `want_dx`, and of w where the input `x` is
/// given. `dy` is the gradient before the activation.
///
/// # Errors
/// As `forward`.
pub fn backward(
    conv: &Conv,
    shape: [usize; 4],
    x: Option<&Tensor>,
    w: &Tensor,
    dy: &Tensor,
    want_dx: bool,
) -> Result<[Option<Tensor>; 2]> {
    let sizes = conv.sizes((shape[0], shape[1], shape[2], shape[3]), w.dims4()?)?;
    if dy.dims() != [sizes.images, sizes.out_height, sizes.out_width, sizes.out] {
        bail!("a gradient of {:?} does not fit a convolution of {shape:?}", dy.shape());
    }
    if !w.device().is_cpu() {
        let zeros = Tensor::zeros(&shape, w.dtype(), w.device())?;
        let inputs = [x.unwrap_or(&zeros), w];
        let grads = composed::gradients(&inputs, dy, |inputs| composed::conv(conv, &inputs[0], &inputs[1], None))?;
        let mut grads = grads.into_iter();
        let (dx, dw) = (grads.next(), grads.next());
        return Ok([dx.filter(|_| want_dx), dw.filter(|_| x.is_some())]);
    }
    let dx = match want_dx {
        true => Some(tensor(with([w, dy], |[w, dy]| input_gradient(conv, &sizes, w, dy))?, &shape)?),
        false => None,
    };
    let dw = match x {
        Some(x) => Some(tensor(with([x, dy], |[x, dy]| weight_gradient(conv, &sizes, x, dy))?, w.shape().clone())?),
        None => None,
    };
    Ok([dx, dw])
}

/// The gradient of a bias `[out]`: the sum over images and pixels.
///
/// # Errors
/// `dy` is not [n, height, width, out].
pub fn bias_gradient(dy: &Tensor) -> Result<Tensor> {
    let (_, _, _, out) = dy.dims4()?;
    if !dy.device().is_cpu() {
        return dy.sum((0, 1, 2));
    }
    let sums = with([dy], |[dy]| norm::column_sums(dy, out))?;
    tensor(sums.into_iter().map(|sum| sum as f32).collect(), out)
}

/// dx is a product like y: each input pixel reads the outputs that it contributed to. With a stride, pixels of one
/// phase (the same place modulo the stride) read with the same taps, and are done together.
fn input_gradient(conv: &Conv, sizes: &Sizes, w: &[f32], dy: &[f32]) -> Vec<f32> {
    if sizes.is_depthwise() {
        let mut dx = buffer::zeros(sizes.images * sizes.image());
        let all: Vec<_> = pixels(conv.kernel[0], conv.kernel[1]).collect();
        let table = readers(conv, sizes, pixels(sizes.height, sizes.width), &all);
        let w = depthwise::turned(w, sizes.out);
        depthwise::multiply(dy, &table, sizes.out_image(), &w, &mut dx, sizes.channels, |_| {});
        return dx;
    }
    let mut dx = buffer::zeros(sizes.images * sizes.image());
    for phase in pixels(conv.stride, conv.stride) {
        let taps: Vec<_> = pixels(conv.kernel[0], conv.kernel[1]).filter(|tap| conv.touches(phase, *tap)).collect();
        let own: Vec<_> = pixels(sizes.height, sizes.width)
            .filter(|(y, x)| [y % conv.stride, x % conv.stride] == [phase.0, phase.1])
            .collect();
        if taps.is_empty() || own.is_empty() {
            continue;
        }
        let table = readers(conv, sizes, own.iter().copied(), &taps);
        for group in 0..conv.groups {
            let panels = backward_panels(conv, sizes, w, group, &taps);
            let (offset, depth) = (group * sizes.group_out, sizes.group_out);
            let left = Left { source: dy, table: &table, image: sizes.out_image(), offset, depth };
            let first = group * sizes.group_in;
            if conv.stride == 1 {
                multiply(&left, &panels, &mut dx, sizes.channels, first, |_| {});
            } else {
                multiply_phase(&left, &panels, &own, sizes, first, &mut dx);
            }
            panels.recycle();
        }
    }
    dx
}

impl Conv {
    /// Whether some input pixel of a phase reads an output through `tap`.
    fn touches(&self, phase: (usize, usize), tap: (usize, usize)) -> bool {
        let along = |phase: usize, before: usize, tap: usize| {
            (phase + before) % self.stride == tap * self.dilation % self.stride
        };
        along(phase.0, self.padding[0], tap.0) && along(phase.1, self.padding[2], tap.1)
    }
}

/// Where the input pixels `own` read `dy`, tap by tap.
fn readers(conv: &Conv, sizes: &Sizes, own: impl Iterator<Item = (usize, usize)>, taps: &[(usize, usize)]) -> Table {
    let mut starts = Vec::new();
    let mut rows = 0;
    for pixel in own {
        rows += 1;
        let start = |tap: &(usize, usize)| {
            conv.reader(sizes, pixel, *tap).map_or(ABSENT, |output| (output * sizes.out) as u32)
        };
        starts.extend(taps.iter().map(start));
    }
    Table { rows, segments: taps.len(), starts }
}

/// The weights of a group as [taps * out][channels].
fn backward_panels(conv: &Conv, sizes: &Sizes, w: &[f32], group: usize, taps: &[(usize, usize)]) -> Panels {
    let (all, group_in, group_out) = (conv.taps(), sizes.group_in, sizes.group_out);
    Panels::new(taps.len() * group_out, group_in, |term, first, into| {
        let (tap, out) = (taps[term / group_out], group * group_out + term % group_out);
        let from = (out * group_in + first) * all + tap.0 * conv.kernel[1] + tap.1;
        for (into, value) in into.iter_mut().zip(w[from..].iter().step_by(all)) {
            *into = *value;
        }
    })
}

/// The product for pixels that do not lie side by side, image by image.
fn multiply_phase(left: &Left, panels: &Panels, own: &[(usize, usize)], sizes: &Sizes, first: usize, dx: &mut [f32]) {
    let columns = panels.columns;
    dx.par_chunks_mut(sizes.image()).enumerate().for_each(|(image, dx)| {
        let mut side_by_side = vec![0.0; own.len() * columns];
        multiply_rows(left, panels, image * own.len()..(image + 1) * own.len(), &mut side_by_side, columns, 0);
        for ((y, x), from) in own.iter().zip(side_by_side.chunks_exact(columns)) {
            dx[(y * sizes.width + x) * sizes.channels + first..][..columns].copy_from_slice(from);
        }
    });
}

/// dw[out][channel][tap] = sum over images and pixels of x * dy.
fn weight_gradient(conv: &Conv, sizes: &Sizes, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let table = conv.reads(sizes);
    if sizes.is_depthwise() {
        let dw = depthwise::weight_gradient(x, &table, sizes.image(), dy, sizes.out);
        return depthwise::turned(&dw, conv.taps());
    }
    let (taps, group_in, group_out) = (conv.taps(), sizes.group_in, sizes.group_out);
    let mut dw = buffer::take(sizes.out * group_in * taps);
    for (group, dw) in dw.chunks_exact_mut(group_out * group_in * taps).enumerate() {
        let left = Left { source: x, table: &table, image: sizes.image(), offset: group * group_in, depth: group_in };
        let sums = transposed(&left, &dy[group * group_out..], sizes.out, group_out);
        // [tap][channel][out] to [out][channel][tap].
        dw.par_chunks_mut(group_in * taps).enumerate().for_each(|(out, dw)| {
            for (channel, dw) in dw.chunks_exact_mut(taps).enumerate() {
                for (tap, dw) in dw.iter_mut().enumerate() {
                    *dw = sums[(tap * group_in + channel) * group_out + out];
                }
            }
        });
        buffer::keep(sums);
    }
    dw
}
