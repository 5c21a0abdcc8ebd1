//! The gradients of a convolution: of its input, its weights and its bias.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::depthwise::{self, Taps};
use super::{Conv, Sizes, pixels, winograd, winograd_gradient};
use crate::nn::activation::{self, Activation};
use crate::nn::buffer::{self, tensor, with};
use crate::nn::gemm::{After, Left, Panels, Place, Table, multiply, multiply_rows, transposed};
use crate::nn::kernel::ABSENT;
use crate::nn::{join, norm};

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
    #[cfg(feature = "cuda")]
    if w.device().is_cuda() {
        use crate::nn::cuda::conv::{input_gradient, weight_gradient};
        let dx = want_dx.then(|| input_gradient(conv, &sizes, w, dy)).transpose()?;
        return Ok([dx, x.map(|x| weight_gradient(conv, &sizes, x, dy)).transpose()?]);
    }
    let dx = match want_dx {
        true => Some(tensor(with([w, dy], |[w, dy]| input_gradient(conv, &sizes, w, dy))?, &shape)?),
        false => None,
    };
    let dw = match x {
        Some(x) => Some(tensor(weight_gradient_of(conv, &sizes, x, dy)?, w.shape().clone())?),
        None => None,
    };
    Ok([dx, dw])
}

/// The gradient before the activation, from the output `y` and its gradient, and that of the bias.
///
/// # Errors
/// The shapes differ.
pub fn before_activation(y: &Tensor, dy: &Tensor, activation: Activation) -> Result<[Tensor; 2]> {
    #[cfg(feature = "cuda")]
    if y.device().is_cuda() && activation != Activation::Linear && y.shape() == dy.shape() {
        return crate::nn::cuda::norm::pass_sums(y, dy, activation);
    }
    let dy = activation::backward(y, dy, activation)?;
    let bias = bias_gradient(&dy)?;
    Ok([dy, bias])
}

/// The gradient of a bias `[out]`: the sum over images and pixels.
///
/// # Errors
/// `dy` is not [n, height, width, out].
pub fn bias_gradient(dy: &Tensor) -> Result<Tensor> {
    let (_, _, _, out) = dy.dims4()?;
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return crate::nn::cuda::norm::column_sums(dy);
    }
    let sums = with([dy], |[dy]| norm::column_sums(dy, out))?;
    tensor(sums.into_iter().map(|sum| sum as f32).collect(), out)
}

/// dx is a product like y: each input pixel reads the outputs that it contributed to. With a stride, pixels of one
/// phase (the same place modulo the stride) read with the same taps, and are done together.
fn input_gradient(conv: &Conv, sizes: &Sizes, w: &[f32], dy: &[f32]) -> Vec<f32> {
    let all = || pixels(conv.kernel[0], conv.kernel[1]);
    if sizes.is_depthwise() {
        let mut dx = buffer::take(sizes.images * sizes.image());
        let mut w = depthwise::turned(w, sizes.out);
        if let Some(around) = conv.turned_around() {
            // Stride 1: the convolution of dy with the kernel turned around.
            w = w.chunks_exact(sizes.out).rev().flatten().copied().collect();
            let frame = depthwise::Frame { conv: around, height: sizes.height, width: sizes.width };
            depthwise::forward(sizes.outputs(dy), &frame, &w, After::NOTHING, &mut dx);
            return dx;
        }
        let reads = readers(conv, sizes, pixels(sizes.height, sizes.width), &all().collect::<Vec<_>>());
        let taps = Taps { starts: &reads, count: conv.taps(), image: sizes.out_image() };
        depthwise::gather(dy, &taps, &w, &mut dx);
        return dx;
    }
    if let Some(frame) = conv.tiled_back(sizes) {
        let mut dx = buffer::take(sizes.images * sizes.image());
        let channels = sizes.channels;
        let u = winograd::weights(w, sizes.out, channels, |out, channel, tap| (out * channels + channel) * 9 + 8 - tap);
        winograd::forward(sizes.outputs(dy), &u, frame, After::NOTHING, &mut dx);
        u.recycle();
        return dx;
    }
    // With a stride some pixels may be read by nobody.
    let size = sizes.images * sizes.image();
    let mut dx = if conv.stride == 1 { buffer::take(size) } else { buffer::zeros(size) };
    for phase in pixels(conv.stride, conv.stride) {
        let taps: Vec<_> = all().filter(|tap| conv.touches(phase, *tap)).collect();
        let own: Vec<_> = pixels(sizes.height, sizes.width)
            .filter(|(y, x)| [y % conv.stride, x % conv.stride] == [phase.0, phase.1])
            .collect();
        if taps.is_empty() || own.is_empty() {
            continue;
        }
        let reads = readers(conv, sizes, own.iter().copied(), &taps);
        let table = match conv.stride {
            1 => Table::new(taps.len(), sizes.out_image(), reads),
            _ => Table::single(taps.len(), sizes.out_image(), reads),
        };
        for group in 0..conv.groups {
            let panels = backward_panels(conv, sizes, w, group, &taps);
            let left = Left { source: dy, table: &table, offset: group * sizes.group_out, depth: sizes.group_out };
            let place = Place { pitch: sizes.channels, first: group * sizes.group_in, after: After::NOTHING };
            if conv.stride == 1 {
                multiply(&left, &panels, &mut dx, place);
            } else {
                multiply_phase(&left, &panels, &own, sizes, place, &mut dx);
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

/// Where the input pixels `own` read `dy`: [pixels][taps].
fn readers(conv: &Conv, sizes: &Sizes, own: impl Iterator<Item = (usize, usize)>, taps: &[(usize, usize)]) -> Vec<u32> {
    own.flat_map(|pixel| {
        let start = move |tap: &(usize, usize)| {
            conv.reader(sizes, pixel, *tap).map_or(ABSENT, |output| (output * sizes.out) as u32)
        };
        taps.iter().map(start)
    })
    .collect()
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
fn multiply_phase(left: &Left, panels: &Panels, own: &[(usize, usize)], sizes: &Sizes, place: Place, dx: &mut [f32]) {
    let columns = panels.columns();
    let side = Place { pitch: columns, first: 0, after: After::NOTHING };
    dx.par_chunks_mut(sizes.image()).enumerate().for_each(|(image, dx)| {
        let mut side_by_side = vec![0.0; own.len() * columns];
        multiply_rows(left, panels, image, 0..own.len(), &mut side_by_side, side);
        for ((y, x), from) in own.iter().zip(side_by_side.chunks_exact(columns)) {
            dx[(y * sizes.width + x) * place.pitch + place.first..][..columns].copy_from_slice(from);
        }
    });
}

fn weight_gradient_of(conv: &Conv, sizes: &Sizes, x: &Tensor, dy: &Tensor) -> Result<Vec<f32>> {
    let Some((conv, padding)) = conv.padded(sizes) else {
        return with([x, dy], |[x, dy]| weight_gradient(conv, sizes, x, dy));
    };
    let x = join::pad(x, padding)?;
    let sizes = conv.sizes(x.dims4()?, (sizes.out, sizes.group_in, conv.kernel[0], conv.kernel[1]))?;
    let dw = with([&x, dy], |[x, dy]| weight_gradient(&conv, &sizes, x, dy))?;
    buffer::recycle(x)?;
    Ok(dw)
}

/// dw[out][channel][tap] = sum over images and pixels of x * dy.
fn weight_gradient(conv: &Conv, sizes: &Sizes, x: &[f32], dy: &[f32]) -> Vec<f32> {
    if let Some(frame) = conv.tiled(sizes) {
        return winograd_gradient::weight_gradient(sizes.inputs(x), sizes.outputs(dy), frame.before);
    }
    if sizes.is_depthwise() {
        let reads = conv.reads(sizes);
        let taps = Taps { starts: &reads, count: conv.taps(), image: sizes.image() };
        return depthwise::turned(&depthwise::weight_gradient(x, &taps, dy, sizes.out), conv.taps());
    }
    let table = conv.table(sizes);
    let (taps, group_in, group_out) = (conv.taps(), sizes.group_in, sizes.group_out);
    let mut dw = buffer::take(sizes.out * group_in * taps);
    for (group, dw) in dw.chunks_exact_mut(group_out * group_in * taps).enumerate() {
        let left = Left { source: x, table: &table, offset: group * group_in, depth: conv.run(sizes) };
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
