//! The forward pass of a convolution: what can be prepared of its weights, and the product.

use candle_core::{Result, Tensor, bail};

use super::depthwise;
use super::tiles::Frame;
use super::winograd;
use super::{Conv, Sizes};
use crate::nn::activation::Activation;
use crate::nn::buffer::{self, tensor, with};
use crate::nn::gemm::{After, Left, Panels, Place, Table, multiply};
use crate::nn::join;

/// y = activation(x * w + bias), bias `[out]`. The sum of an output runs over the taps, row by row, and over the channels
/// of each; 3x3 kernels of stride 1 go by Winograd's tiles where these pay.
///
/// # Errors
/// The batch is empty, or the shapes do not fit each other.
pub fn forward(conv: &Conv, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let sizes = conv.sizes(x.dims4()?, w.dims4()?)?;
        return crate::nn::cuda::conv::forward(conv, &sizes, x, w, bias, activation);
    }
    let (_, height, width, channels) = x.dims4()?;
    let ready = Ready::new(conv, [height, width, channels], w)?;
    let y = ready.apply(x, bias, activation)?;
    ready.recycle();
    Ok(y)
}

/// A convolution on CPU whose weights are packed, and which knows where images of one size are read.
pub struct Ready {
    conv: Conv,
    /// Of one image.
    sizes: Sizes,
    way: Way,
}

enum Way {
    /// Weights [taps][channels].
    Depthwise(Vec<f32>),
    Tiles(Panels, Frame),
    /// One panel for each group.
    Product(Table, Vec<Panels>),
    /// Zeros around first: top, bottom, left, right.
    Padded([usize; 4], Box<Ready>),
}

impl Ready {
    /// For images [height, width, channels] and weights `w`.
    ///
    /// # Errors
    /// The shapes do not fit each other.
    pub fn new(conv: &Conv, image: [usize; 3], w: &Tensor) -> Result<Self> {
        let [height, width, channels] = image;
        let sizes = conv.sizes((1, height, width, channels), w.dims4()?)?;
        if let Some((bare, padding)) = conv.padded(&sizes) {
            let image = [height + padding[0] + padding[1], width + padding[2] + padding[3], channels];
            let way = Way::Padded(padding, Box::new(Self::new(&bare, image, w)?));
            return Ok(Self { conv: *conv, sizes, way });
        }
        let way = with([w], |[w]| {
            if sizes.is_depthwise() {
                return Way::Depthwise(depthwise::turned(w, sizes.out));
            }
            if let Some(frame) = conv.tiled(&sizes) {
                let place = |channel, out, tap| (out * channels + channel) * 9 + tap;
                return Way::Tiles(winograd::weights(w, channels, sizes.out, place), frame);
            }
            let panels = (0..conv.groups).map(|group| panels(conv, &sizes, w, group)).collect();
            Way::Product(conv.table(&sizes), panels)
        })?;
        Ok(Self { conv: *conv, sizes, way })
    }

    /// y = activation(x * w + bias) for any number of images.
    ///
    /// # Errors
    /// The batch is empty, or x has another shape than was prepared for.
    pub fn apply(&self, x: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
        if let Way::Padded(padding, ready) = &self.way {
            let x = join::pad(x, *padding)?;
            let y = ready.apply(&x, bias, activation)?;
            buffer::recycle(x)?;
            return Ok(y);
        }
        let sizes = self.sizes.of_batch(x.dims4()?)?;
        let mut y = buffer::take(sizes.images * sizes.out_image());
        let none = tensor(Vec::new(), 0)?;
        with([x, bias.unwrap_or(&none)], |[x, numbers]| {
            let after = After { bias: bias.map(|_| numbers), activation };
            match &self.way {
                Way::Depthwise(w) => {
                    let frame = depthwise::Frame { conv: self.conv, height: sizes.out_height, width: sizes.out_width };
                    depthwise::forward(sizes.inputs(x), &frame, w, after, &mut y);
                }
                Way::Tiles(u, frame) => winograd::forward(sizes.inputs(x), u, *frame, after, &mut y),
                Way::Product(table, groups) => {
                    for (group, panels) in groups.iter().enumerate() {
                        let (offset, depth) = (group * sizes.group_in, self.conv.run(&sizes));
                        let first = group * sizes.group_out;
                        let place = Place { pitch: sizes.out, first, after: after.of(first..first + sizes.group_out) };
                        multiply(&Left { source: x, table, offset, depth }, panels, &mut y, place);
                    }
                }
                Way::Padded(..) => {}
            }
        })?;
        tensor(y, (sizes.images, sizes.out_height, sizes.out_width, sizes.out))
    }

    /// Gives the memory back.
    pub fn recycle(self) {
        match self.way {
            Way::Depthwise(w) => buffer::keep(w),
            Way::Tiles(u, _) => u.recycle(),
            Way::Product(_, panels) => panels.into_iter().for_each(Panels::recycle),
            Way::Padded(_, ready) => ready.recycle(),
        }
    }
}

impl Sizes {
    /// The same for a batch of such images.
    fn of_batch(&self, x: (usize, usize, usize, usize)) -> Result<Self> {
        let sizes = Self { images: x.0, ..*self };
        if (x.1, x.2, x.3) != (self.height, self.width, self.channels) {
            bail!("a convolution of {} x {} x {} images cannot read {x:?}", self.height, self.width, self.channels);
        }
        sizes.check()?;
        Ok(sizes)
    }
}

/// The weights of a group as [taps * channels][out].
fn panels(conv: &Conv, sizes: &Sizes, w: &[f32], group: usize) -> Panels {
    let (taps, group_in) = (conv.taps(), sizes.group_in);
    if taps == 1 {
        return turned(&w[group * sizes.group_out * group_in..][..sizes.group_out * group_in], group_in);
    }
    Panels::new(taps * group_in, sizes.group_out, |term, first, into| {
        let from = (group * sizes.group_out + first) * group_in * taps + term % group_in * taps + term / group_in;
        for (into, value) in into.iter_mut().zip(w[from..].iter().step_by(group_in * taps)) {
            *into = *value;
        }
    })
}

/// Weights [out][depth] as [depth][out], by pieces that stay in the first cache.
fn turned(w: &[f32], depth: usize) -> Panels {
    const PIECE: usize = 64;
    Panels::by_panel(depth, w.len() / depth, |first, used, width, part| {
        for (piece, part) in part.chunks_mut(PIECE * width).enumerate() {
            for column in 0..used {
                let from = &w[(first + column) * depth + piece * PIECE..][..part.len() / width];
                part[column..].iter_mut().step_by(width).zip(from).for_each(|(into, value)| *into = *value);
            }
        }
    })
}
