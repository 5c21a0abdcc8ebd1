//! Products of rows that are read where they lie (a table says where) with packed columns. Convolutions, their
//! gradients and linear layers are all this product; see Dukhan, "The Indirect Convolution Algorithm" (2019).

mod left;
mod transposed;

use std::ops::Range;

use rayon::prelude::*;

use super::activation::{Activation, hold};
use super::buffer;
use super::kernel::{LONGEST, Path, Product, Runs, on_every_path, path, product};

pub use left::{Left, Table};
pub use transposed::{accumulate, block, gradient, parts, transposed};

/// Rows of one task: a multiple of the block of every path.
const TASK: usize = 96;
/// Terms that one call adds, so that a panel of columns stays in the first cache.
const TERMS: usize = 256;

/// The right operand, packed: panels of columns, each [terms][one or two vectors], zeros behind the last column.
pub struct Panels {
    columns: usize,
    path: Path,
    terms: usize,
    data: Vec<f32>,
}

/// First column and width in vectors of every panel.
fn panels(path: Path, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    let lanes = path.lanes();
    (0..columns).step_by(2 * lanes).map(move |first| (first, if columns - first > lanes { 2 } else { 1 }))
}

impl Panels {
    /// Packs a matrix [terms][columns]; `fill` writes one term of the columns from the second argument on.
    pub fn new(terms: usize, columns: usize, fill: impl Fn(usize, usize, &mut [f32]) + Sync) -> Self {
        Self::by_panel(terms, columns, |first, used, width, part| {
            part.chunks_exact_mut(width).enumerate().for_each(|(term, into)| fill(term, first, &mut into[..used]));
        })
    }

    /// Packs a matrix panel by panel: `fill` gets the first column, how many there are, the width of the panel, and its
    /// numbers [terms][width], which are zeros.
    pub fn by_panel(terms: usize, columns: usize, fill: impl Fn(usize, usize, usize, &mut [f32]) + Sync) -> Self {
        let path = path();
        let mut data = buffer::zeros(terms * columns.next_multiple_of(path.lanes()));
        let mut parts = Vec::new();
        let mut rest = data.as_mut_slice();
        for (first, halves) in panels(path, columns) {
            let (part, behind) = rest.split_at_mut(terms * halves * path.lanes());
            parts.push((first, halves * path.lanes(), part));
            rest = behind;
        }
        parts.into_par_iter().for_each(|(first, width, part)| fill(first, width.min(columns - first), width, part));
        Self { columns, path, terms, data }
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Where the panel of column `first` begins, term by term.
    fn panel(&self, first: usize, halves: usize) -> &[f32] {
        &self.data[self.terms * first..][..self.terms * halves * self.path.lanes()]
    }

    /// Gives the memory back.
    pub fn recycle(self) {
        buffer::keep(self.data);
    }
}

/// Where the results go: `pitch` numbers for each row, those from `first` on; and what follows the product.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub pitch: usize,
    pub first: usize,
    pub after: After<'a>,
}

/// What is done to a sum before it is stored.
#[derive(Clone, Copy)]
pub struct After<'a> {
    /// Added: one number for each column, or none.
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
}

impl<'a> After<'a> {
    pub const NOTHING: After<'static> = After { bias: None, activation: Activation::Linear };

    /// For some of the columns.
    pub fn of(self, columns: Range<usize>) -> Self {
        Self { bias: self.bias.map(|bias| &bias[columns]), ..self }
    }
}

/// out = activation(left * panels + bias).
pub fn multiply(left: &Left, panels: &Panels, out: &mut [f32], place: Place) {
    let pitch = place.pitch;
    out.par_chunks_mut(left.table.rows * pitch).enumerate().for_each(|(group, out)| {
        out.par_chunks_mut(TASK * pitch).enumerate().for_each(|(task, out)| {
            let rows = task * TASK..task * TASK + out.len() / pitch;
            multiply_rows(left, panels, group, rows, out, place);
        });
    });
}

/// `multiply` for some rows of a group, on this thread; `out` begins with the first of them.
pub fn multiply_rows(left: &Left, right: &Panels, group: usize, rows: Range<usize>, out: &mut [f32], place: Place) {
    let (path, height, Place { pitch, first, after }) = (right.path, right.path.rows(), place);
    let count = rows.len();
    let reads = left.blocks(group, rows, height);
    let runs = Runs::new(&reads.source, &reads.starts, reads.depth);
    let mut edge = [0f32; 8 * 32];
    for (segments, part) in passes(reads.segments, reads.depth) {
        let term = segments.start * reads.depth + part.start;
        for (column, halves) in panels(path, right.columns) {
            let width = halves * path.lanes();
            let panel = &right.panel(column, halves)[term * width..][..segments.len() * part.len() * width];
            for block in 0..count.div_ceil(height) {
                let base = block * reads.segments;
                let spec = Product {
                    rows: &runs,
                    starts: (base + segments.start) * height..(base + segments.end) * height,
                    from: part.start,
                    length: part.len(),
                    panel,
                    halves,
                    fresh: term == 0,
                };
                let (own, used) = (height.min(count - block * height), width.min(right.columns - column));
                let into = &mut out[block * height * pitch + first + column..];
                if own == height && used == width {
                    product(path, &spec, into, pitch);
                    continue;
                }
                if term > 0 {
                    copy_rows(into, pitch, &mut edge, width, used, own);
                }
                product(path, &spec, &mut edge, width);
                copy_rows(&edge, width, into, pitch, used, own);
            }
        }
    }
    if after.bias.is_some() || after.activation != Activation::Linear {
        let none = vec![0.0; if after.bias.is_some() { 0 } else { right.columns }];
        let (low, high) = after.activation.bounds();
        finish_rows(&mut out[first..], pitch, after.bias.unwrap_or(&none), low, high);
    }
}

on_every_path! {
    fn finish_rows(out: &mut [f32], pitch: usize, bias: &[f32], low: f32, high: f32) {
        let _ = FUSED;
        for row in out.chunks_mut(pitch) {
            for (value, bias) in row.iter_mut().zip(bias) {
                *value = hold(*value + bias, low, high);
            }
        }
    }
}

on_every_path! {
    fn copy_rows(from: &[f32], from_pitch: usize, into: &mut [f32], into_pitch: usize, columns: usize, rows: usize) {
        let _ = FUSED;
        for row in 0..rows {
            let (from, into) = (&from[row * from_pitch..][..columns], &mut into[row * into_pitch..][..columns]);
            // Too short for a call of memcpy.
            into.iter_mut().zip(from).for_each(|(into, from)| *into = *from);
        }
    }
}

/// First column and width in numbers of every panel.
pub fn panel_widths(columns: usize) -> impl Iterator<Item = (usize, usize)> {
    let path = path();
    panels(path, columns).map(move |(first, halves)| (first, halves * path.lanes()))
}

/// out [rows][pitch] = left [rows][depth] times matrix `number` of those that lie one below the other in `right`. There
/// are as many rows as `starts`, whole blocks of them, and `pitch` has room for whole panels.
pub fn square(
    left: &[f32],
    depth: usize,
    starts: &[u32],
    right: &Panels,
    number: usize,
    out: &mut [f32],
    pitch: usize,
) {
    let (path, rows) = (right.path, right.path.rows());
    let runs = Runs::new(left, starts, depth);
    for from in (0..depth).step_by(TERMS) {
        let length = TERMS.min(depth - from);
        for (column, halves) in panels(path, right.columns) {
            let width = halves * path.lanes();
            let panel = &right.panel(column, halves)[(number * depth + from) * width..][..length * width];
            for block in (0..starts.len()).step_by(rows) {
                let starts = block..block + rows;
                let spec = Product { rows: &runs, starts, from, length, panel, halves, fresh: from == 0 };
                product(path, &spec, &mut out[block * pitch + column..], pitch);
            }
        }
    }
}

/// Adds left^T [depth][points] times right [points][columns] to `out`, rows `pitch` apart: the runs of `left` are one for each
/// point, and `pitch` has room for whole panels.
pub fn square_turned(left: &[f32], depth: usize, starts: &[u32], right: &Panels, out: &mut [f32], pitch: usize) {
    for (column, halves) in panels(right.path, right.columns) {
        let width = halves * right.path.lanes();
        accumulate(left, starts, depth, right.panel(column, halves), width, &mut out[column..], pitch);
    }
}

/// The sum in parts that are added one after the other: whole segments, or a part of each of them.
fn passes(segments: usize, depth: usize) -> Vec<(Range<usize>, Range<usize>)> {
    if depth <= TERMS {
        let step = TERMS / depth;
        return (0..segments).step_by(step).map(|from| (from..(from + step).min(segments), 0..depth)).collect();
    }
    let parts = || (0..depth).step_by(TERMS).map(move |from| from..(from + TERMS).min(depth));
    (0..segments).flat_map(|segment| parts().map(move |part| (segment..segment + 1, part))).collect()
}
const _: () = assert!(TERMS <= LONGEST);
