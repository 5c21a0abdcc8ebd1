//! Convolution, forward and gradients: any kernel, stride, groups and padding; images as [n, channels, height, width].

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::activation::{self, Activation};
use super::kernel::{Dots, SLACK, Tile, dots, tile, tile_rows};
use super::pack::{Packed, compact};
use super::{composed, tensor, with};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv {
    pub kernel: [usize; 2],
    pub stride: usize,
    /// Top, bottom, left, right.
    pub padding: [usize; 4],
    pub groups: usize,
}

/// Everything that follows from the shapes of the operands.
struct Sizes {
    images: usize,
    channels: usize,
    height: usize,
    width: usize,
    out: usize,
    out_height: usize,
    out_width: usize,
    /// Input and output channels of one group.
    group_in: usize,
    group_out: usize,
}

impl Conv {
    fn sizes(&self, x: (usize, usize, usize, usize), w: (usize, usize, usize, usize)) -> Result<Sizes> {
        let (images, channels, height, width) = x;
        let padded = (height + self.padding[0] + self.padding[1], width + self.padding[2] + self.padding[3]);
        if images == 0 {
            bail!("convolution of an empty batch");
        }
        if padded.0 < self.kernel[0] || padded.1 < self.kernel[1] {
            bail!("a {:?} kernel does not fit a padded input of {padded:?}", self.kernel);
        }
        if w.1 * self.groups != channels || !w.0.is_multiple_of(self.groups) || [w.2, w.3] != self.kernel {
            bail!("weights {w:?} do not fit {channels} channels in {} groups", self.groups);
        }
        Ok(Sizes {
            images,
            channels,
            height,
            width,
            out: w.0,
            out_height: (padded.0 - self.kernel[0]) / self.stride + 1,
            out_width: (padded.1 - self.kernel[1]) / self.stride + 1,
            group_in: w.1,
            group_out: w.0 / self.groups,
        })
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

/// y = activation(x * w + bias); x [n, c, h, w], w [out, c / groups, kh, kw], bias `[out]`.
///
/// # Errors
/// The batch is empty, or the shapes do not fit each other.
pub fn forward(conv: &Conv, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    let sizes = conv.sizes(x.dims4()?, w.dims4()?)?;
    if !x.device().is_cpu() {
        let y = composed::conv(conv, x, w, bias)?;
        return activation::forward(&y, activation);
    }
    let shape = (sizes.images, sizes.out, sizes.out_height, sizes.out_width);
    let bias = match bias {
        Some(bias) => bias.clone(),
        None => tensor(vec![0.0; sizes.out], sizes.out)?,
    };
    let y = with([x, w, &bias], |[x, w, bias]| run(conv, &sizes, x, w, bias, activation))?;
    tensor(y, shape)
}

/// All images, one task each.
fn run(conv: &Conv, sizes: &Sizes, x: &[f32], w: &[f32], bias: &[f32], activation: Activation) -> Vec<f32> {
    let packed = Packed::new(conv, sizes.channels, sizes.height, sizes.width);
    let rows = if sizes.group_out == 1 { 1 } else { tile_rows() };
    let weights = pack_weights(w, sizes.group_out, sizes.group_in * conv.taps(), conv.groups, rows);
    let offsets: Vec<Vec<u32>> =
        (0..conv.groups).map(|group| packed.offsets(group * sizes.group_in, sizes.group_in, conv.kernel)).collect();
    let (image_in, image_out) =
        (sizes.channels * sizes.height * sizes.width, sizes.out * sizes.out_height * sizes.out_width);
    let mut y = vec![0.0; sizes.images * image_out];
    let flat = (sizes.out_height - 1) * packed.pitch + sizes.out_width;
    let scratch = || (vec![0.0; packed.image], vec![0.0; rows * flat.next_multiple_of(SLACK)]);
    y.par_chunks_mut(image_out).enumerate().for_each_init(scratch, |(padded, sums), (index, y)| {
        packed.fill(&x[index * image_in..][..image_in], padded);
        let per_group = sizes.group_out.div_ceil(rows);
        for (block, w) in weights.chunks(sizes.group_in * conv.taps() * rows).enumerate() {
            let (group, first) = (block / per_group, block % per_group * rows);
            sums.fill(0.0);
            let spec = Tile { x: padded, offsets: &offsets[group], w, columns: flat };
            tile(&spec, rows, sums, flat.next_multiple_of(SLACK));
            for row in 0..rows.min(sizes.group_out - first) {
                let channel = group * sizes.group_out + first + row;
                let target =
                    &mut y[channel * sizes.out_height * sizes.out_width..][..sizes.out_height * sizes.out_width];
                compact(&sums[row * flat.next_multiple_of(SLACK)..], packed.pitch, sizes.out_width, target);
                finish(target, bias[channel], activation);
            }
        }
    });
    y
}

fn finish(values: &mut [f32], bias: f32, activation: Activation) {
    match activation {
        Activation::Linear if bias == 0.0 => {}
        Activation::Linear => values.iter_mut().for_each(|value| *value += bias),
        Activation::Relu => values.iter_mut().for_each(|value| *value = (*value + bias).max(0.0)),
        Activation::Relu6 => values.iter_mut().for_each(|value| *value = (*value + bias).clamp(0.0, 6.0)),
    }
}

/// [group][block of rows][reduction][row within the block], zeros where a block has fewer rows.
fn pack_weights(w: &[f32], group_out: usize, depth: usize, groups: usize, rows: usize) -> Vec<f32> {
    let blocks = group_out.div_ceil(rows);
    let mut packed = vec![0.0; groups * blocks * depth * rows];
    for group in 0..groups {
        for out in 0..group_out {
            let from = &w[(group * group_out + out) * depth..][..depth];
            let into = &mut packed[(group * blocks + out / rows) * depth * rows..];
            for (step, value) in from.iter().enumerate() {
                into[step * rows + out % rows] = *value;
            }
        }
    }
    packed
}

/// Gradients of x and w, each where it is wanted. `dy` is the gradient before the activation.
///
/// # Errors
/// As `forward`; a padding as wide as the kernel is refused.
pub fn backward(conv: &Conv, x: &Tensor, w: &Tensor, dy: &Tensor, want: [bool; 2]) -> Result<[Option<Tensor>; 2]> {
    let sizes = conv.sizes(x.dims4()?, w.dims4()?)?;
    if !x.device().is_cpu() {
        let grads = composed::gradients(&[x, w], dy, |inputs| composed::conv(conv, &inputs[0], &inputs[1], None))?;
        let mut grads = grads.into_iter();
        let (dx, dw) = (grads.next(), grads.next());
        return Ok([dx.filter(|_| want[0]), dw.filter(|_| want[1])]);
    }
    let dx = match want[0] {
        true => Some(input_gradient(conv, &sizes, w, dy)?),
        false => None,
    };
    let dw = match want[1] {
        true => Some(tensor(with([x, dy], |[x, dy]| weight_gradient(conv, &sizes, x, dy))?, w.shape().clone())?),
        false => None,
    };
    Ok([dx, dw])
}

/// The gradient of a bias `[out]`: the sum over images and pixels.
///
/// # Errors
/// `dy` is not [n, out, h, w].
pub fn bias_gradient(dy: &Tensor) -> Result<Tensor> {
    let (_, out, height, width) = dy.dims4()?;
    if !dy.device().is_cpu() {
        return dy.sum((0, 2, 3));
    }
    let sums = with([dy], |[dy]| {
        let mut sums = vec![0f64; out];
        for (index, plane) in dy.chunks_exact(height * width).enumerate() {
            sums[index % out] += plane.iter().map(|value| f64::from(*value)).sum::<f64>();
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    })?;
    tensor(sums, out)
}

/// dx is a convolution of stride 1: dy spread out by the stride, with the flipped and transposed weights.
fn input_gradient(conv: &Conv, sizes: &Sizes, w: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let stride = conv.stride;
    let spread = ((sizes.out_height - 1) * stride + 1, (sizes.out_width - 1) * stride + 1);
    if conv
        .padding
        .iter()
        .zip([conv.kernel[0], conv.kernel[0], conv.kernel[1], conv.kernel[1]])
        .any(|(padding, kernel)| *padding >= kernel)
    {
        bail!("the gradient of a convolution needs a padding smaller than its kernel");
    }
    let (top, left) = (conv.kernel[0] - 1 - conv.padding[0], conv.kernel[1] - 1 - conv.padding[2]);
    // Rows and columns of x that no output reads get zeros at the bottom and right.
    let bottom = sizes.height + conv.kernel[0] - 1 - spread.0 - top;
    let right = sizes.width + conv.kernel[1] - 1 - spread.1 - left;
    let transposed = Conv { kernel: conv.kernel, stride: 1, padding: [top, bottom, left, right], groups: conv.groups };
    let w = with([w], |[w]| flip(w, sizes, conv))?;
    let back = Sizes {
        images: sizes.images,
        channels: sizes.out,
        height: spread.0,
        width: spread.1,
        out: sizes.channels,
        out_height: sizes.height,
        out_width: sizes.width,
        group_in: sizes.group_out,
        group_out: sizes.group_in,
    };
    let dx = with([dy], |[dy]| {
        let bias = vec![0.0; sizes.channels];
        if stride == 1 {
            return run(&transposed, &back, dy, &w, &bias, Activation::Linear);
        }
        run(&transposed, &back, &spread_out(dy, sizes, stride, spread), &w, &bias, Activation::Linear)
    })?;
    tensor(dx, (sizes.images, sizes.channels, sizes.height, sizes.width))
}

/// [out, in / groups, kh, kw] to [in, out / groups, kh, kw], kernels turned by 180 degrees.
fn flip(w: &[f32], sizes: &Sizes, conv: &Conv) -> Vec<f32> {
    let (taps, group_in, group_out) = (conv.taps(), sizes.group_in, sizes.group_out);
    let mut flipped = vec![0.0; w.len()];
    for (row, kernel) in w.chunks_exact(taps).enumerate() {
        let (out, input) = (row / group_in, row % group_in);
        let (group, out) = (out / group_out, out % group_out);
        let into = &mut flipped[((group * group_in + input) * group_out + out) * taps..][..taps];
        into.iter_mut().zip(kernel.iter().rev()).for_each(|(into, value)| *into = *value);
    }
    flipped
}

fn spread_out(dy: &[f32], sizes: &Sizes, stride: usize, spread: (usize, usize)) -> Vec<f32> {
    let mut wide = vec![0.0; sizes.images * sizes.out * spread.0 * spread.1];
    for (index, row) in dy.chunks_exact(sizes.out_width).enumerate() {
        let (plane, y) = (index / sizes.out_height, index % sizes.out_height);
        let into = &mut wide[(plane * spread.0 + y * stride) * spread.1..];
        row.iter().enumerate().for_each(|(x, value)| into[x * stride] = *value);
    }
    wide
}

/// dw as inner products between rows of dy and shifted views of x, over blocks of images. The size of a block
/// follows from the shapes alone, so the order of the sums does too.
fn weight_gradient(conv: &Conv, sizes: &Sizes, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let packed = Packed::new(conv, sizes.channels, sizes.height, sizes.width);
    let flat = ((sizes.out_height - 1) * packed.pitch + sizes.out_width).next_multiple_of(16);
    let depth = sizes.group_in * conv.taps();
    let block = (65_536 / (packed.image + sizes.out * flat)).clamp(1, sizes.images.min(64));
    let (image_in, image_out) =
        (sizes.channels * sizes.height * sizes.width, sizes.out * sizes.out_height * sizes.out_width);
    let mut dw = vec![0.0; sizes.out * depth];
    let (mut views, mut rows) = (vec![0.0; block * packed.image], vec![0.0; block * sizes.out * flat]);
    for start in (0..sizes.images).step_by(block) {
        let images = block.min(sizes.images - start);
        views
            .par_chunks_mut(packed.image)
            .zip(rows.par_chunks_mut(sizes.out * flat))
            .take(images)
            .enumerate()
            .for_each(|(index, (view, rows))| {
                packed.fill(&x[(start + index) * image_in..][..image_in], view);
                let dy = &dy[(start + index) * image_out..][..image_out];
                for (row, values) in dy.chunks_exact(sizes.out_width).enumerate() {
                    let at = row / sizes.out_height * flat + row % sizes.out_height * packed.pitch;
                    rows[at..at + sizes.out_width].copy_from_slice(values);
                }
            });
        let tasks = if conv.groups > 1 { sizes.group_out } else { sizes.group_out.min(16) };
        dw.par_chunks_mut(tasks * depth).enumerate().for_each(|(task, dw)| {
            let first = task * tasks;
            let offsets = packed.offsets(first / sizes.group_out * sizes.group_in, sizes.group_in, conv.kernel);
            let spec = Dots {
                left: &rows[first * flat..],
                left_pitch: flat,
                left_rows: dw.len() / depth,
                left_image: sizes.out * flat,
                right: &views,
                offsets: &offsets,
                right_image: packed.image,
                images,
                length: flat,
            };
            dots(&spec, dw, depth);
        });
    }
    dw
}
