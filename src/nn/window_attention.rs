//! Attention within windows of a map (Liu et al., 2021: Swin), and the merging of patches between its stages. Maps are
//! [n, height, width, channels].

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::attention::{self, Biases, place, places};
use super::buffer::{self, recycle, tensor, with};

/// What is added to the score of two pixels that meet only around a border (torchvision 0.29).
const APART: f32 = -100.0;

/// How a map is cut.
#[derive(Clone, Copy, Debug)]
pub struct Partition {
    pub heads: usize,
    /// Pixels of a window's side.
    pub side: usize,
    /// By how many pixels the grid of windows is moved down and to the right. Along an axis of one window it is not moved.
    pub shift: usize,
}

/// The same of one map.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub side: usize,
    pub heads: usize,
    pub height: usize,
    pub width: usize,
    /// Down and to the right.
    pub shifts: [usize; 2],
}

impl Partition {
    fn of(&self, x: &Tensor) -> Result<Cut> {
        let (_, height, width, _) = x.dims4()?;
        let Self { heads, side, shift } = *self;
        if side == 0 || shift >= side || !height.is_multiple_of(side) || !width.is_multiple_of(side) {
            bail!("{height} x {width} pixels are not cut into windows of {side} x {side}, {shift} further");
        }
        let shifts = [height, width].map(|length| if length > side { shift } else { 0 });
        Ok(Cut { side, heads, height, width, shifts })
    }
}

impl Cut {
    pub fn grid(&self) -> [usize; 2] {
        [self.height / self.side, self.width / self.side]
    }

    pub fn pixels(&self) -> usize {
        self.side * self.side
    }

    /// Kinds of windows that `Biases` tells apart.
    pub fn kinds(&self) -> usize {
        if self.shifts == [0, 0] { 1 } else { 4 }
    }

    /// The pixel of the map that comes at a place among those of windows one after the other.
    fn place(&self, at: usize) -> usize {
        let (window, pixel, [_, across]) = (at / self.pixels(), at % self.pixels(), self.grid());
        let row = (window / across * self.side + pixel / self.side + self.shifts[0]) % self.height;
        let column = (window % across * self.side + pixel % self.side + self.shifts[1]) % self.width;
        row * self.width + column
    }

    /// For every kind of window, whether two of its pixels come from both sides of a border.
    fn parted(&self, kind: usize, from: usize, to: usize) -> bool {
        let beyond = |at: usize, shift: usize| at >= self.side - shift;
        let rows = beyond(from / self.side, self.shifts[0]) != beyond(to / self.side, self.shifts[0]);
        let columns = beyond(from % self.side, self.shifts[1]) != beyond(to % self.side, self.shifts[1]);
        kind / 2 == 1 && rows || kind % 2 == 1 && columns
    }
}

/// x [n, height, width, 3 x channels], queries, keys and values as `attention` reads them, to [n, height, width, channels]: every
/// pixel takes from those of its window. `table` [(2 side - 1)^2, heads] is added to the scaled scores, by how pixels lie to each
/// other.
///
/// # Errors
/// The shapes do not fit.
pub fn forward(x: &Tensor, table: &Tensor, windows: &Partition) -> Result<Tensor> {
    let (cut, rows, apart) = prepared(x, table, windows)?;
    let y = attention::forward_with(&apart, cut.heads, Some(&Biases { rows: &rows, grid: cut.grid() }))?;
    let together = together(&y, &cut)?;
    [apart, rows, y].into_iter().try_for_each(recycle)?;
    Ok(together)
}

/// The gradients of x and, if it learns, of the table.
///
/// # Errors
/// The shapes do not fit.
pub fn backward(
    x: &Tensor,
    table: &Tensor,
    dy: &Tensor,
    windows: &Partition,
    learns: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (cut, rows, x_apart) = prepared(x, table, windows)?;
    let (images, height, width, channels) = dy.dims4()?;
    if [images, height, width, 3 * channels] != x.dims() {
        bail!("a gradient of shape {:?} does not fit {:?}", dy.shape(), x.shape());
    }
    let dy_apart = apart(dy, &cut)?;
    let biases = Biases { rows: &rows, grid: cut.grid() };
    let (dx, own) = attention::backward_with(&x_apart, &dy_apart, cut.heads, Some((&biases, learns)))?;
    let together = together(&dx, &cut)?;
    [x_apart, dy_apart, rows, dx].into_iter().try_for_each(recycle)?;
    Ok((together, own))
}

/// How x is cut, the biases of its windows, and its windows as images.
fn prepared(x: &Tensor, table: &Tensor, windows: &Partition) -> Result<(Cut, Tensor, Tensor)> {
    let cut = windows.of(x)?;
    if table.dims() != [places(cut.side), cut.heads] {
        bail!("biases {:?} do not fit {} heads in windows of {} pixels", table.shape(), cut.heads, cut.side);
    }
    let scale = attention::Sizes::of(x, cut.heads)?.scale();
    Ok((cut, biases(table, &cut, scale)?, apart(x, &cut)?))
}

/// What is added to scores, over their scale: [kinds, heads, pixels, pixels].
fn biases(table: &Tensor, cut: &Cut, scale: f32) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if table.device().is_cuda() {
        return super::cuda::window_attention::biases(table, cut, APART, scale);
    }
    let (kinds, pixels) = (cut.kinds(), cut.pixels());
    let mut rows = buffer::take(kinds * cut.heads * pixels * pixels);
    with([table], |[table]| {
        for (unit, rows) in rows.chunks_exact_mut(pixels * pixels).enumerate() {
            let (kind, head) = (unit / cut.heads, unit % cut.heads);
            for (from, row) in rows.chunks_exact_mut(pixels).enumerate() {
                for (to, bias) in row.iter_mut().enumerate() {
                    let parted = if cut.parted(kind, from, to) { APART } else { 0.0 };
                    *bias = (table[place(cut.side, from, to) * cut.heads + head] + parted) / scale;
                }
            }
        }
    })?;
    tensor(rows, (kinds, cut.heads, pixels, pixels))
}

/// The windows of a map as images of one row: [n x windows, pixels, 1, channels].
fn apart(x: &Tensor, cut: &Cut) -> Result<Tensor> {
    let (images, _, _, channels) = x.dims4()?;
    let [down, across] = cut.grid();
    let shape = (images * down * across, cut.pixels(), 1, channels);
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::window_attention::apart(x, cut)?.reshape(shape);
    }
    tensor(moved(x, [cut.height * cut.width, channels], false, |at| cut.place(at))?, shape)
}

/// The map whose windows these are.
fn together(x: &Tensor, cut: &Cut) -> Result<Tensor> {
    let (windows, pixels, _, channels) = x.dims4()?;
    let shape = (windows * pixels / (cut.height * cut.width), cut.height, cut.width, channels);
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::window_attention::together(x, cut)?.reshape(shape);
    }
    tensor(moved(x, [cut.height * cut.width, channels], true, |at| cut.place(at))?, shape)
}

/// The pixels of x in another order, the same for every so many of them: pixel `at` is the one at `place(at)`, or (`back`) comes there.
fn moved(
    x: &Tensor,
    [pixels, channels]: [usize; 2],
    back: bool,
    place: impl Fn(usize) -> usize + Sync,
) -> Result<Vec<f32>> {
    let mut y = buffer::take(x.elem_count());
    let size = pixels * channels;
    with([x], |[x]| {
        y.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| {
            for at in 0..pixels {
                let [from, to] = if back { [at, place(at)] } else { [place(at), at] };
                y[to * channels..][..channels].copy_from_slice(&x[from * channels..][..channels]);
            }
        });
    })?;
    Ok(y)
}

/// x [n, height, width, channels] to [n, height / 2, width / 2, 4 x channels]: the pixels of every square of two side by side, the left
/// ones first and the upper before the lower, as torchvision's PatchMerging has them.
///
/// # Errors
/// A side is odd.
pub fn merge(x: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    if height % 2 != 0 || width % 2 != 0 {
        bail!("{height} x {width} pixels are no squares of two");
    }
    let shape = (images, height / 2, width / 2, 4 * channels);
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::window_attention::merged(x, [width, channels], true)?.reshape(shape);
    }
    tensor(moved(x, [2 * width, channels], false, |at| merged_from(at, width))?, shape)
}

/// The gradient of `merge`'s input.
///
/// # Errors
/// `dy` has no four pixels.
pub fn merge_backward(dy: &Tensor) -> Result<Tensor> {
    let (images, height, width, numbers) = dy.dims4()?;
    if numbers % 4 != 0 {
        bail!("{numbers} channels are none of four pixels");
    }
    let (channels, width) = (numbers / 4, 2 * width);
    let shape = (images, 2 * height, width, channels);
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::window_attention::merged(dy, [width, channels], false)?.reshape(shape);
    }
    tensor(moved(dy, [2 * width, channels], true, |at| merged_from(at, width))?, shape)
}

/// The pixel of two rows of `width` pixels that comes at a place among merged ones.
fn merged_from(at: usize, width: usize) -> usize {
    at % 2 * width + at / 4 * 2 + at / 2 % 2
}
