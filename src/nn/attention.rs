//! Scaled dot-product attention of several heads (Vaswani et al., 2017), between the tokens of one image. Each head's work is a few
//! products that stay in the cache; what it weighs its tokens with is computed again in the backward pass.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::buffer::{self, tensor, with};
use super::exponential::exponential;
use super::gemm::{Panels, square, square_turned};
use super::kernel::{add_lanes, madd, on_every_path, path};
use super::norm::column_sums;

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub images: usize,
    pub tokens: usize,
    pub heads: usize,
    /// Numbers of a token's query, key or value, of one head.
    pub depth: usize,
}

impl Sizes {
    /// Of x [n, tokens, 1, 3 x channels]: queries, keys and values side by side, each head by head, as PyTorch's packed
    /// projection gives them.
    ///
    /// # Errors
    /// It cannot be cut so.
    pub fn of(x: &Tensor, heads: usize) -> Result<Self> {
        let (images, height, width, numbers) = x.dims4()?;
        if heads == 0 || !numbers.is_multiple_of(3 * heads) {
            bail!("{numbers} numbers are no queries, keys and values of {heads} heads");
        }
        Ok(Self { images, tokens: height * width, heads, depth: numbers / 3 / heads })
    }

    pub fn channels(&self) -> usize {
        self.heads * self.depth
    }

    /// What scores are multiplied with.
    pub fn scale(&self) -> f32 {
        1.0 / (self.depth as f32).sqrt()
    }

    /// Numbers from one row of scores to the next.
    fn pitch(&self) -> usize {
        self.tokens.next_multiple_of(path().lanes())
    }

    /// The same of results.
    fn wide(&self) -> usize {
        self.depth.next_multiple_of(path().lanes())
    }

    /// Rows of whole blocks.
    fn rows(&self) -> usize {
        self.tokens.next_multiple_of(path().rows())
    }

    /// Where rows `pitch` apart begin, the last one again until the last block is whole.
    fn starts(&self, pitch: usize, first: usize) -> Vec<u32> {
        (0..self.rows()).map(|row| (row.min(self.tokens - 1) * pitch + first) as u32).collect()
    }
}

/// Tokens of one head within rows of `pitch` numbers, from the number `first` on.
#[derive(Clone, Copy)]
struct Part<'a> {
    rows: &'a [f32],
    pitch: usize,
    first: usize,
}

impl Part<'_> {
    fn token(&self, token: usize) -> &[f32] {
        &self.rows[token * self.pitch + self.first..]
    }

    /// As the right operand of a product over tokens: [tokens][depth].
    fn panels(&self, sizes: &Sizes) -> Panels {
        Panels::new(sizes.tokens, sizes.depth, |token, first, into| {
            into.copy_from_slice(&self.token(token)[first..][..into.len()]);
        })
    }

    /// As the right operand of a product over their numbers: [depth][tokens].
    fn panels_turned(&self, sizes: &Sizes) -> Panels {
        Panels::by_panel(sizes.depth, sizes.tokens, |first, used, width, part| {
            for column in 0..used {
                let numbers = &self.token(first + column)[..sizes.depth];
                part[column..].iter_mut().step_by(width).zip(numbers).for_each(|(into, number)| *into = *number);
            }
        })
    }

    /// The product with right operands, rows `pitch` apart.
    fn times(&self, sizes: &Sizes, depth: usize, right: Panels, pitch: usize) -> Vec<f32> {
        let mut out = buffer::take(sizes.rows() * pitch);
        square(self.rows, depth, &sizes.starts(self.pitch, self.first), &right, 0, &mut out, pitch);
        right.recycle();
        out
    }

    /// The product of the transpose of its first `tokens` numbers with right operands: [tokens][wide].
    fn turned_times(&self, sizes: &Sizes, right: &Panels) -> Vec<f32> {
        let mut out = buffer::zeros(sizes.tokens * sizes.wide());
        let starts = &sizes.starts(self.pitch, self.first)[..sizes.tokens];
        square_turned(self.rows, sizes.tokens, starts, right, &mut out, sizes.wide());
        out
    }
}

/// Queries, keys and values of a head.
fn parts<'a>(x: &'a [f32], sizes: &Sizes, head: usize) -> [Part<'a>; 3] {
    let channels = sizes.channels();
    [0, 1, 2].map(|which| Part { rows: x, pitch: 3 * channels, first: which * channels + head * sizes.depth })
}

/// What each token of a head weighs the others with: [tokens][pitch]; `more` is added to scores.
fn weights([queries, keys, _]: &[Part; 3], sizes: &Sizes, more: Option<&[f32]>) -> Vec<f32> {
    let mut scores = queries.times(sizes, sizes.depth, keys.panels_turned(sizes), sizes.pitch());
    if let Some(more) = more {
        let rows = scores.chunks_exact_mut(sizes.pitch()).zip(more.chunks_exact(sizes.tokens));
        rows.for_each(|(scores, more)| scores.iter_mut().zip(more).for_each(|(score, more)| *score += more));
    }
    softmax(&mut scores, sizes.pitch(), sizes.tokens, sizes.scale());
    scores
}

on_every_path! {
    pub(super) fn softmax(scores: &mut [f32], pitch: usize, tokens: usize, scale: f32) {
        let _ = FUSED;
        for row in scores.chunks_exact_mut(pitch).map(|row| &mut row[..tokens]) {
            let mut most = [f32::NEG_INFINITY; 16];
            for part in row.chunks(16) {
                most.iter_mut().zip(part).for_each(|(most, score)| *most = if *score > *most { *score } else { *most });
            }
            let most = most.iter().fold(f32::NEG_INFINITY, |most, score| if *score > most { *score } else { most });
            row.iter_mut().for_each(|score| *score = exponential((*score - most) * scale));
            let mut lanes = [0f32; 16];
            row.chunks(16).for_each(|part| lanes.iter_mut().zip(part).for_each(|(lane, weight)| *lane += weight));
            let inverse = 1.0 / add_lanes(&lanes);
            row.iter_mut().for_each(|weight| *weight *= inverse);
        }
    }
}

on_every_path! {
    /// The gradient of scores from that of the weights, in its place.
    pub(super) fn softmax_gradient(weights: &[f32], slopes: &mut [f32], pitch: usize, tokens: usize, scale: f32) {
        for (weights, slopes) in weights.chunks_exact(pitch).zip(slopes.chunks_exact_mut(pitch)) {
            let (weights, slopes) = (&weights[..tokens], &mut slopes[..tokens]);
            let mut lanes = [0f32; 16];
            for (weights, slopes) in weights.chunks(16).zip(slopes.chunks(16)) {
                for (lane, (weight, slope)) in lanes.iter_mut().zip(weights.iter().zip(slopes)) {
                    *lane = madd::<FUSED>(*weight, *slope, *lane);
                }
            }
            let mean = add_lanes(&lanes);
            for (slope, weight) in slopes.iter_mut().zip(weights) {
                *slope = weight * (*slope - mean) * scale;
            }
        }
    }
}

/// What is added to the scores of images that are windows of larger ones.
#[derive(Clone, Copy)]
pub(super) struct Biases<'a> {
    /// Over the scale of scores, [kinds, heads, tokens, tokens]: of one kind of windows, or of four, those within, those of the last
    /// column, those of the last row, and the one of both.
    pub rows: &'a Tensor,
    /// Rows and columns of windows.
    pub grid: [usize; 2],
}

impl Biases<'_> {
    /// Of `rows` those of a head of a window.
    fn of<'a>(&self, rows: &'a [f32], sizes: &Sizes, window: usize, head: usize) -> &'a [f32] {
        let (size, [down, across]) = (sizes.tokens * sizes.tokens, self.grid);
        let last = |at: usize, count: usize| usize::from(at % count + 1 == count);
        let kind =
            if rows.len() > sizes.heads * size { 2 * last(window / across, down) + last(window, across) } else { 0 };
        &rows[(kind * sizes.heads + head) * size..][..size]
    }
}

/// Places that one pixel of a window of `side` x `side` can have beside another.
pub(super) fn places(side: usize) -> usize {
    (2 * side - 1) * (2 * side - 1)
}

/// Which of them the pixel `from` has beside `to`, in torchvision's order.
pub(super) fn place(side: usize, from: usize, to: usize) -> usize {
    (from / side + side - 1 - to / side) * (2 * side - 1) + from % side + side - 1 - to % side
}

/// What every token takes from all tokens of its image: x [n, tokens, 1, 3 x channels] to [n, tokens, 1, channels].
///
/// # Errors
/// As `Sizes::of`.
pub fn forward(x: &Tensor, heads: usize) -> Result<Tensor> {
    forward_with(x, heads, None)
}

/// The same with biases.
pub(super) fn forward_with(x: &Tensor, heads: usize, biases: Option<&Biases>) -> Result<Tensor> {
    let sizes = Sizes::of(x, heads)?;
    let shape = (sizes.images, x.dim(1)?, x.dim(2)?, sizes.channels());
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::attention::forward(x, &sizes, biases)?.reshape(shape);
    }
    let (y, _) = with([x, biases.map_or(x, |biases| biases.rows)], |[x, rows]| {
        let size = sizes.tokens * 3 * sizes.channels();
        by_head(&sizes, [1, 0], |image, head, into| {
            let parts = parts(&x[image * size..][..size], &sizes, head);
            let weights = weights(&parts, &sizes, biases.map(|biases| biases.of(rows, &sizes, image, head)));
            let left = Part { rows: &weights, pitch: sizes.pitch(), first: 0 };
            let found = left.times(&sizes, sizes.tokens, parts[2].panels(&sizes), sizes.wide());
            tighten(found, &sizes, into);
            buffer::keep(weights);
        })
    })?;
    tensor(y, shape)
}

/// The gradient of x, from x.
///
/// # Errors
/// The shapes do not fit.
pub fn backward(x: &Tensor, dy: &Tensor, heads: usize) -> Result<Tensor> {
    Ok(backward_with(x, dy, heads, None)?.0)
}

/// The same with biases, and the gradient of what stands in their `rows` for every place and head, [places, heads], if it is asked
/// for.
pub(super) fn backward_with(
    x: &Tensor,
    dy: &Tensor,
    heads: usize,
    biases: Option<(&Biases, bool)>,
) -> Result<(Tensor, Option<Tensor>)> {
    let sizes = Sizes::of(x, heads)?;
    let channels = sizes.channels();
    if dy.elem_count() * 3 != x.elem_count() {
        bail!("a gradient of shape {:?} does not fit {:?}", dy.shape(), x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let (dx, own) = super::cuda::attention::backward(x, dy, &sizes, biases)?;
        return Ok((dx.reshape(x.shape())?, own));
    }
    let rows = biases.map_or(x, |(biases, _)| biases.rows);
    let learned = if biases.is_some_and(|(_, learn)| learn) { places(sizes.tokens.isqrt()) } else { 0 };
    let (dx, sums) = with([x, dy, rows], |[x, dy, rows]| {
        let size = sizes.tokens * channels;
        by_head(&sizes, [3, learned], |image, head, into| {
            let parts = parts(&x[3 * image * size..][..3 * size], &sizes, head);
            let dy = Part { rows: &dy[image * size..][..size], pitch: channels, first: head * sizes.depth };
            head_backward(&parts, dy, &sizes, biases.map(|(biases, _)| biases.of(rows, &sizes, image, head)), into);
        })
    })?;
    let own = (learned > 0).then(|| of_places(sums, &sizes, learned)).transpose()?;
    Ok((tensor(dx, x.shape().clone())?, own))
}

/// The gradient of biases, [places, heads], from `sums` of the slopes of scores, [images][heads][places].
fn of_places(sums: Vec<f32>, sizes: &Sizes, places: usize) -> Result<Tensor> {
    let all = column_sums(&sums, sizes.heads * places);
    buffer::keep(sums);
    // Slopes are those of scores without their scale.
    let own = |at: usize| (all[at % sizes.heads * places + at / sizes.heads] / f64::from(sizes.scale())) as f32;
    tensor((0..all.len()).map(own).collect(), (places, sizes.heads))
}

/// The gradients of one head's queries, keys and values, [3][tokens][depth], and behind them the sums of the slopes of its scores
/// for every place, if there is room for them.
fn head_backward(parts: &[Part; 3], dy: Part, sizes: &Sizes, more: Option<&[f32]>, into: &mut [f32]) {
    let [queries, keys, values] = parts;
    let (of_queries, rest) = into.split_at_mut(sizes.tokens * sizes.depth);
    let (of_keys, rest) = rest.split_at_mut(sizes.tokens * sizes.depth);
    let (of_values, sums) = rest.split_at_mut(sizes.tokens * sizes.depth);
    let weights = weights(parts, sizes, more);
    let mut slopes = dy.times(sizes, sizes.depth, values.panels_turned(sizes), sizes.pitch());
    let right = dy.panels(sizes);
    tighten(Part { rows: &weights, pitch: sizes.pitch(), first: 0 }.turned_times(sizes, &right), sizes, of_values);
    right.recycle();
    softmax_gradient(&weights, &mut slopes, sizes.pitch(), sizes.tokens, sizes.scale());
    if !sums.is_empty() {
        sums.fill(0.0);
        let side = sizes.tokens.isqrt();
        for (from, slopes) in slopes.chunks_exact(sizes.pitch()).take(sizes.tokens).enumerate() {
            for (row, slopes) in slopes[..sizes.tokens].chunks_exact(side).enumerate() {
                let last = place(side, from, row * side);
                sums[last + 1 - side..=last].iter_mut().rev().zip(slopes).for_each(|(sum, slope)| *sum += slope);
            }
        }
    }
    let left = Part { rows: &slopes, pitch: sizes.pitch(), first: 0 };
    tighten(left.times(sizes, sizes.tokens, keys.panels(sizes), sizes.wide()), sizes, of_queries);
    let right = queries.panels(sizes);
    tighten(left.turned_times(sizes, &right), sizes, of_keys);
    right.recycle();
    buffer::keep(weights);
    buffer::keep(slopes);
}

/// Copies [tokens][wide] to [tokens][depth].
fn tighten(from: Vec<f32>, sizes: &Sizes, into: &mut [f32]) {
    for (into, from) in into.chunks_exact_mut(sizes.depth).zip(from.chunks_exact(sizes.wide())) {
        into.copy_from_slice(&from[..sizes.depth]);
    }
    buffer::keep(from);
}

/// Lets `work` fill [kinds][tokens][depth], and behind that `more` numbers, for every image and head. Puts the numbers of a token
/// side by side, [images][tokens][kinds][heads][depth], and those behind below each other, [images][heads][more].
fn by_head(
    sizes: &Sizes,
    [kinds, more]: [usize; 2],
    work: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> (Vec<f32>, Vec<f32>) {
    let (head, depth, tokens) = (kinds * sizes.tokens * sizes.depth, sizes.depth, sizes.tokens);
    let mut found = buffer::take(sizes.images * sizes.heads * (head + more));
    let units = found.par_chunks_mut(head + more).enumerate();
    units.for_each(|(unit, into)| work(unit / sizes.heads, unit % sizes.heads, into));
    let mut y = buffer::take(sizes.images * sizes.heads * head);
    let each = y.par_chunks_mut(sizes.heads * head).zip(found.par_chunks(sizes.heads * (head + more)));
    each.for_each(|(y, found)| {
        for (row, into) in y.chunks_exact_mut(depth).enumerate() {
            let (token, kind, own) = (row / sizes.heads / kinds, row / sizes.heads % kinds, row % sizes.heads);
            into.copy_from_slice(&found[own * (head + more) + (kind * tokens + token) * depth..][..depth]);
        }
    });
    let mut behind = buffer::take(sizes.images * sizes.heads * more);
    if more > 0 {
        let each = behind.chunks_exact_mut(more).zip(found.chunks_exact(head + more));
        each.for_each(|(behind, found)| behind.copy_from_slice(&found[head..]));
    }
    buffer::keep(found);
    (y, behind)
}
