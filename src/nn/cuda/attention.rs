//! Attention on CUDA: cuBLAS' products of all images and heads at once, and the softmax between them in f32.

use candle_core::{DType, Result, Tensor};

use super::product::{Many, Side, products};
use super::{Threads, at, count, device_of, empty, int, launch_of, memory, norm, place};
use crate::nn::attention::{Biases, Sizes, places};

/// Heads of all images one below the other, as products read them.
struct Apart<'a> {
    sizes: &'a Sizes,
    /// [kinds, images, heads, tokens, depth]
    all: Tensor,
}

impl<'a> Apart<'a> {
    /// From x [images, tokens, kinds, heads, depth].
    fn of(x: &Tensor, sizes: &'a Sizes, kinds: usize) -> Result<Self> {
        let all = empty(device_of(x)?, x.dtype(), x.elem_count())?;
        turn("heads_apart", x, &all, sizes, kinds)?;
        Ok(Self { sizes, all })
    }

    fn empty(x: &Tensor, sizes: &'a Sizes, kinds: usize) -> Result<Self> {
        let all = empty(device_of(x)?, x.dtype(), kinds * sizes.images * sizes.tokens * sizes.channels())?;
        Ok(Self { sizes, all })
    }

    /// One kind, as a factor [tokens, depth], or its transpose.
    fn side(&self, kind: usize, turned: bool) -> Result<Side> {
        let sizes = self.sizes;
        let step = sizes.images * sizes.tokens * sizes.channels() * self.all.dtype().size_in_bytes();
        Ok(Side { place: place(&self.all)? + (kind * step) as u64, turned })
    }

    /// [images, tokens, kinds, heads, depth] again.
    fn together(self, kinds: usize) -> Result<Tensor> {
        let y = empty(device_of(&self.all)?, self.all.dtype(), self.all.elem_count())?;
        turn("heads_together", &self.all, &y, self.sizes, kinds)?;
        memory::keep(self.all);
        Ok(y)
    }
}

fn turn(name: &str, from: &Tensor, to: &Tensor, sizes: &Sizes, kinds: usize) -> Result<()> {
    let n = from.elem_count();
    let mut args = vec![count(n)?];
    args.extend([sizes.images, sizes.tokens, kinds, sizes.heads, sizes.depth].map(int));
    args.extend([at(from)?, at(to)?]);
    launch_of(device_of(from)?, name, from.dtype(), Threads::lots(n, from.dtype()), &args)
}

/// Scores, or their slopes, of all heads, [images, heads, tokens, tokens], in f32.
fn scores(left: Side, right: Side, of: &Tensor, sizes: &Sizes) -> Result<Tensor> {
    let (units, tokens) = (sizes.images * sizes.heads, sizes.tokens);
    let found = empty(device_of(of)?, DType::F32, units * tokens * tokens)?;
    count(found.elem_count())?;
    let steps = [tokens * sizes.depth, tokens * sizes.depth, tokens * tokens];
    let many = Many { count: units, steps, adds: false };
    let types = [of.dtype(), DType::F32];
    products(device_of(of)?, (left, right), place(&found)?, [tokens, tokens, sizes.depth], types, &many)?;
    Ok(found)
}

/// Products of weights, or of their slopes, [tokens, tokens] with [tokens, depth].
fn weighted(left: &Tensor, turned: bool, right: Side, into: Side, sizes: &Sizes) -> Result<()> {
    let tokens = sizes.tokens;
    let steps = [tokens * tokens, tokens * sizes.depth, tokens * sizes.depth];
    let many = Many { count: sizes.images * sizes.heads, steps, adds: false };
    let left_side = Side { place: place(left)?, turned };
    let types = [left.dtype(); 2];
    products(device_of(left)?, (left_side, right), into.place, [tokens, sizes.depth, tokens], types, &many)
}

/// A place for f32 numbers rounded to `dtype`: their own, if they are f32.
fn rounded(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if dtype == DType::F32 { Ok(x.clone()) } else { empty(device_of(x)?, dtype, x.shape()) }
}

/// What each token weighs the others with.
fn weights(x: &Apart, biases: Option<&Biases>) -> Result<Tensor> {
    let sizes = x.sizes;
    let found = scores(x.side(0, false)?, x.side(1, true)?, &x.all, sizes)?;
    let rows = sizes.images * sizes.heads * sizes.tokens;
    let weights = rounded(&found, x.all.dtype())?;
    let mut args = vec![count(rows)?, int(sizes.tokens), sizes.scale().into()];
    let name = match biases {
        None => "softmax",
        Some(Biases { rows, grid: [down, across] }) => {
            args.extend([sizes.heads, *down, *across, rows.dim(0)?].map(int));
            "softmax_biased"
        }
    };
    args.push(at(&found)?);
    args.extend(biases.map(|biases| at(biases.rows)).transpose()?);
    args.push(at(&weights)?);
    launch_of(device_of(&x.all)?, name, x.all.dtype(), Threads::Rows(rows), &args)?;
    if weights.dtype() != found.dtype() {
        memory::keep(found);
    }
    Ok(weights)
}

/// As `nn::attention::forward`, [images, tokens, channels] one after the other.
pub fn forward(x: &Tensor, sizes: &Sizes, biases: Option<&Biases>) -> Result<Tensor> {
    let x = Apart::of(x, sizes, 3)?;
    let weights = weights(&x, biases)?;
    let y = Apart::empty(&x.all, sizes, 1)?;
    weighted(&weights, false, x.side(2, false)?, y.side(0, false)?, sizes)?;
    memory::keep(weights);
    memory::keep(x.all);
    y.together(1)
}

/// As `nn::attention::backward_with`, in the order of x.
pub fn backward(
    x: &Tensor,
    dy: &Tensor,
    sizes: &Sizes,
    biases: Option<(&Biases, bool)>,
) -> Result<(Tensor, Option<Tensor>)> {
    let x = Apart::of(x, sizes, 3)?;
    let dy = Apart::of(dy, sizes, 1)?;
    let dx = Apart::empty(&x.all, sizes, 3)?;
    let weights = weights(&x, biases.map(|(biases, _)| biases))?;
    weighted(&weights, true, dy.side(0, false)?, dx.side(2, false)?, sizes)?;
    let found = scores(dy.side(0, false)?, x.side(2, true)?, &x.all, sizes)?;
    memory::keep(dy.all);
    let rows = sizes.images * sizes.heads * sizes.tokens;
    let slopes = rounded(&found, x.all.dtype())?;
    let args = [count(rows)?, int(sizes.tokens), sizes.scale().into(), at(&weights)?, at(&found)?, at(&slopes)?];
    launch_of(device_of(&x.all)?, "softmax_gradient", x.all.dtype(), Threads::Rows(rows), &args)?;
    if slopes.dtype() != found.dtype() {
        memory::keep(found);
    }
    memory::keep(weights);
    weighted(&slopes, false, x.side(1, false)?, dx.side(0, false)?, sizes)?;
    weighted(&slopes, true, x.side(0, false)?, dx.side(1, false)?, sizes)?;
    let own = biases.filter(|(_, learn)| *learn).map(|_| of_places(&slopes, sizes)).transpose()?;
    memory::keep(slopes);
    memory::keep(x.all);
    Ok((dx.together(3)?, own))
}

/// The gradient of biases, [places, heads], from the slopes of scores.
fn of_places(slopes: &Tensor, sizes: &Sizes) -> Result<Tensor> {
    let side = sizes.tokens.isqrt();
    let parts = empty(device_of(slopes)?, DType::F32, (sizes.images, places(side) * sizes.heads))?;
    let n = parts.elem_count();
    let args = [count(n)?, int(side), int(sizes.heads), sizes.scale().into(), at(slopes)?, at(&parts)?];
    launch_of(device_of(slopes)?, "window_slopes", slopes.dtype(), Threads::Each(n), &args)?;
    let own = norm::column_sums(&parts)?.reshape((places(side), sizes.heads))?;
    memory::keep(parts);
    Ok(own)
}
