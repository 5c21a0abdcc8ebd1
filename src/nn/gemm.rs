//! Products of rows that are read where they lie (a table says where) with packed columns. Convolutions, their
//! gradients and linear layers are all this product; see Dukhan, "The Indirect Convolution Algorithm" (2019).

use std::ops::Range;

use rayon::prelude::*;

use super::buffer;
use super::kernel::{ABSENT, LONGEST, Outer, Path, Product, Runs, outer, path, product};

/// Rows of one task: a multiple of the block of every path.
const TASK: usize = 96;
/// Terms that one call adds, so that a panel of columns stays in the first cache.
const TERMS: usize = 384;
/// Runs shorter than this are copied side by side before the product.
const SHORT: usize = 8;

/// For every row of one image and every segment of its sum: where the segment's run begins in the image, or `ABSENT`.
pub struct Table {
    pub rows: usize,
    pub segments: usize,
    /// [rows][segments]
    pub starts: Vec<u32>,
}

impl Table {
    /// Rows that lie one after the other, `pitch` apart, each one run.
    pub fn plain() -> Self {
        Self { rows: 1, segments: 1, starts: vec![0] }
    }
}

/// The left operand: [rows of all images][segments * depth].
pub struct Left<'a> {
    pub source: &'a [f32],
    pub table: &'a Table,
    /// Numbers from one image to the next.
    pub image: usize,
    /// Added to every start: the first channel of a group.
    pub offset: usize,
    /// Length of every run.
    pub depth: usize,
}

/// What one task reads: the same rows, copied side by side where their runs are short.
struct Reads<'a> {
    source: std::borrow::Cow<'a, [f32]>,
    segments: usize,
    depth: usize,
}

impl Left<'_> {
    fn start(&self, row: usize, segment: usize) -> u32 {
        let (image, row) = (row / self.table.rows, row % self.table.rows);
        match self.table.starts[row * self.table.segments + segment] {
            ABSENT => ABSENT,
            start => (image * self.image + self.offset) as u32 + start,
        }
    }

    /// The length of the sum.
    fn terms(&self) -> usize {
        self.table.segments * self.depth
    }

    fn is_short(&self) -> bool {
        self.depth < SHORT && self.table.segments > 1
    }

    /// The rows copied side by side.
    fn copied(&self, rows: Range<usize>) -> Vec<f32> {
        let mut copy = vec![0.0; rows.len() * self.terms()];
        for (row, into) in rows.zip(copy.chunks_exact_mut(self.terms())) {
            for (segment, into) in into.chunks_exact_mut(self.depth).enumerate() {
                let start = self.start(row, segment);
                if start != ABSENT {
                    into.copy_from_slice(&self.source[start as usize..][..self.depth]);
                }
            }
        }
        copy
    }

    /// The starts of `rows` in the order of `place`, which maps (row of this task, segment) to an index below `count`.
    fn reads(&self, rows: Range<usize>, count: usize, place: impl Fn(usize, usize, usize) -> usize) -> (Reads<'_>, Vec<u32>) {
        let short = self.is_short();
        let segments = if short { 1 } else { self.table.segments };
        let mut starts = vec![ABSENT; count * segments];
        for index in 0..count {
            let row = (rows.start + index).min(rows.end - 1);
            for segment in 0..segments {
                let start = if short { ((row - rows.start) * self.terms()) as u32 } else { self.start(row, segment) };
                starts[place(index, segment, segments)] = start;
            }
        }
        let (source, depth) = if short {
            (std::borrow::Cow::Owned(self.copied(rows)), self.terms())
        } else {
            (std::borrow::Cow::Borrowed(self.source), self.depth)
        };
        (Reads { source, segments, depth }, starts)
    }
}

/// The right operand, packed: panels of columns, each [terms][one or two vectors], zeros behind the last column.
pub struct Panels {
    pub columns: usize,
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
    /// Packs `value(term, column)`; `fill` writes the columns `first..first + into.len()` of one term.
    pub fn new(terms: usize, columns: usize, fill: impl Fn(usize, usize, &mut [f32]) + Sync) -> Self {
        let path = path();
        let mut data = buffer::zeros(terms * columns.next_multiple_of(path.lanes()));
        let mut parts = Vec::new();
        let mut rest = data.as_mut_slice();
        for (first, halves) in panels(path, columns) {
            let (part, behind) = rest.split_at_mut(terms * halves * path.lanes());
            parts.push((first, halves * path.lanes(), part));
            rest = behind;
        }
        parts.into_par_iter().for_each(|(first, width, part)| {
            let used = width.min(columns - first);
            part.chunks_exact_mut(width).enumerate().for_each(|(term, into)| fill(term, first, &mut into[..used]));
        });
        Self { columns, path, terms, data }
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

/// Adds left * panels to `out`: one row for each row of `left`, `pitch` numbers apart, from column `first` on.
pub fn multiply(left: &Left, panels: &Panels, out: &mut [f32], pitch: usize, first: usize, finish: impl Fn(&mut [f32]) + Sync) {
    out.par_chunks_mut(TASK * pitch).enumerate().for_each(|(task, out)| {
        let rows = task * TASK..task * TASK + out.len() / pitch;
        multiply_rows(left, panels, rows, out, pitch, first);
        finish(out);
    });
}

/// `multiply` for some rows, on this thread; `out` begins with the first of them.
pub fn multiply_rows(left: &Left, right: &Panels, rows: Range<usize>, out: &mut [f32], pitch: usize, first: usize) {
    let (path, height) = (right.path, right.path.rows());
    let blocks = rows.len().div_ceil(height);
    let place = |index: usize, segment: usize, segments: usize| (index / height * segments + segment) * height + index % height;
    let (reads, starts) = left.reads(rows.clone(), blocks * height, place);
    let runs = Runs::new(&reads.source, &starts, reads.depth);
    let mut edge = [0f32; 8 * 32];
    for (segments, part) in passes(reads.segments, reads.depth) {
        let term = segments.start * reads.depth + part.start;
        for (column, halves) in panels(path, right.columns) {
            let width = halves * path.lanes();
            let panel = &right.panel(column, halves)[term * width..][..segments.len() * part.len() * width];
            for block in 0..blocks {
                let base = block * reads.segments;
                let spec = Product {
                    rows: &runs,
                    starts: (base + segments.start) * height..(base + segments.end) * height,
                    from: part.start,
                    length: part.len(),
                    panel,
                    halves,
                };
                let (own, used) = (height.min(rows.len() - block * height), width.min(right.columns - column));
                let into = &mut out[block * height * pitch + first + column..];
                if own == height && used == width {
                    product(path, &spec, into, pitch);
                    continue;
                }
                for row in 0..own {
                    edge[row * width..][..used].copy_from_slice(&into[row * pitch..][..used]);
                }
                product(path, &spec, &mut edge, width);
                for row in 0..own {
                    into[row * pitch..][..used].copy_from_slice(&edge[row * width..][..used]);
                }
            }
        }
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

/// The transposed product: [segments * depth][columns] = sum over rows of left(row) * right(row), where `right` has
/// `columns` numbers for each row, `pitch` apart. Sums run over blocks of rows whose size follows from the number of
/// columns alone.
pub fn transposed(left: &Left, right: &[f32], pitch: usize, columns: usize) -> Vec<f32> {
    let path = path();
    let rows = right.len().div_ceil(pitch);
    let padded = columns.next_multiple_of(path.lanes());
    let block = (32_768 / padded).clamp(64, 512);
    let depth = if left.is_short() { left.terms() } else { left.depth };
    let units: Vec<(usize, Range<usize>)> = (0..left.terms() / depth)
        .flat_map(|segment| parts(depth, path.rows()).map(move |part| (segment, part)))
        .collect();
    let mut out = buffer::zeros(left.terms() * padded);
    let mut shares = Vec::new();
    let mut rest = out.as_mut_slice();
    for share in units.chunks(units.len().div_ceil(rayon::current_num_threads())) {
        let (own, behind) = rest.split_at_mut(share.iter().map(|(_, part)| part.len()).sum::<usize>() * padded);
        shares.push((share, own));
        rest = behind;
    }
    shares.into_par_iter().for_each(|(units, out)| {
        let mut packed = vec![0.0; block * padded];
        for start in (0..rows).step_by(block) {
            let rows = start..(start + block).min(rows);
            let count = rows.len();
            let (reads, starts) = left.reads(rows.clone(), count, |index, segment, _| segment * count + index);
            let runs = Runs::new(&reads.source, &starts, reads.depth);
            pack(path, &right[rows.start * pitch..], pitch, columns, count, &mut packed);
            for (column, halves) in panels(path, columns) {
                let panel = &packed[column * count..][..count * halves * path.lanes()];
                let mut row = 0;
                for (segment, part) in units {
                    let spec = Outer {
                        points: &runs,
                        starts: segment * count..(segment + 1) * count,
                        first: part.start,
                        rows: part.len(),
                        panel,
                        halves,
                    };
                    outer(path, &spec, &mut out[row * padded + column..], padded);
                    row += part.len();
                }
            }
        }
    });
    unpad(out, padded, columns)
}

/// `count` numbers in parts of at most `most`, as even as can be.
fn parts(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let pieces = count.div_ceil(most);
    (0..pieces).map(move |piece| piece * count / pieces..(piece + 1) * count / pieces)
}

/// Copies `count` rows into panels.
fn pack(path: Path, from: &[f32], pitch: usize, columns: usize, count: usize, into: &mut [f32]) {
    for (first, halves) in panels(path, columns) {
        let width = halves * path.lanes();
        let used = width.min(columns - first);
        let part = into[first * count..][..count * width].chunks_exact_mut(width);
        for (row, into) in part.enumerate() {
            into[..used].copy_from_slice(&from[row * pitch + first..][..used]);
        }
    }
}

/// Drops what was added to each row.
fn unpad(mut rows: Vec<f32>, padded: usize, columns: usize) -> Vec<f32> {
    if padded != columns {
        for row in 1..rows.len() / padded {
            rows.copy_within(row * padded..row * padded + columns, row * columns);
        }
        rows.truncate(rows.len() / padded * columns);
    }
    rows
}
