//! The transposed product: sums over rows of outer products, as gradients of weights are.

use std::ops::Range;

use rayon::prelude::*;

use super::left::Left;
use super::{Panels, panels};
use crate::nn::buffer;
use crate::nn::kernel::{Outer, Path, Runs, outer, path};

/// Adds left^T * panel to `sums` [depth][pitch]: `left` has `depth` numbers from each start, `panel` `width` for each.
pub fn accumulate(
    left: &[f32],
    starts: &[u32],
    depth: usize,
    panel: &[f32],
    width: usize,
    sums: &mut [f32],
    pitch: usize,
) {
    let path = path();
    let points = Runs::new(left, starts, depth);
    for part in parts(depth, path.rows()) {
        let (rows, halves) = (part.len(), width / path.lanes());
        let spec = Outer { points: &points, starts: 0..starts.len(), first: part.start, rows, panel, halves };
        outer(path, &spec, &mut sums[part.start * pitch..], pitch);
    }
}

/// The transposed product: [segments * depth][columns] = sum over rows of left(row) * right(row), where `right` has
/// `pitch` numbers for each row, of which the first `columns` count. Sums run over blocks of rows of one group of
/// images; the blocks follow from the shapes of an image and the number of columns alone.
pub fn transposed(left: &Left, right: &[f32], pitch: usize, columns: usize) -> Vec<f32> {
    let path = path();
    let rows = right.len().div_ceil(pitch);
    let padded = columns.next_multiple_of(path.lanes());
    let most = block(columns);
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
        let mut packed = vec![0.0; most * padded];
        for start in (0..rows).step_by(left.table.rows) {
            let group = start / left.table.rows;
            for block in blocks(left.table.rows.min(rows - start), most) {
                let count = block.len();
                pack(path, &right[(start + block.start) * pitch..], pitch, columns, count, &mut packed);
                let reads = left.lines(group, block);
                let runs = Runs::new(&reads.source, &reads.starts, reads.depth);
                add_outer(path, units, &runs, &packed, count, columns, out);
            }
        }
    });
    unpad(out, padded, columns)
}

/// Rows whose outer products `gradient` adds before they join the sum.
const ROWS: usize = 512;
/// Parts of the result's rows that a task has, so that what they read stays in the second cache.
const PARTS: usize = 12;

/// [depth][columns] = sum over rows of left [rows][depth] times right [rows][columns], for matrices that are wide on both sides:
/// both are packed, and the sums of many rows are added before they join the result. Every sum is over blocks of rows in their
/// order.
pub fn gradient(left: &[f32], depth: usize, right: &[f32], columns: usize) -> Vec<f32> {
    let path = path();
    let (height, padded) = (path.rows(), columns.next_multiple_of(path.lanes()));
    let mut out = buffer::zeros(depth * padded);
    for (left, right) in left.chunks(ROWS * depth).zip(right.chunks(ROWS * columns)) {
        let rows = left.len() / depth;
        let packed = Panels::new(rows, columns, |row, first, into| {
            into.copy_from_slice(&right[row * columns + first..][..into.len()]);
        });
        let starts: Vec<u32> = (0..rows).map(|row| (row * height) as u32).collect();
        out.par_chunks_mut(PARTS * height * padded).enumerate().for_each(|(task, out)| {
            let first = task * PARTS * height;
            let parts = packed_parts(left, depth, first..first + out.len() / padded, height);
            let all: Vec<Runs> =
                parts.chunks_exact(rows * height).map(|part| Runs::new(part, &starts, height)).collect();
            for (column, halves) in panels(path, columns) {
                let panel = packed.panel(column, halves);
                for (points, out) in all.iter().zip(out.chunks_mut(height * padded)) {
                    let own = out.len() / padded;
                    let spec = Outer { points, starts: 0..rows, first: 0, rows: own, panel, halves };
                    outer(path, &spec, &mut out[column..], padded);
                }
            }
            buffer::keep(parts);
        });
        packed.recycle();
    }
    unpad(out, padded, columns)
}

/// Some of the columns of left [rows][depth], `height` of them side by side: [parts][rows][height], zeros behind the last.
fn packed_parts(left: &[f32], depth: usize, columns: Range<usize>, height: usize) -> Vec<f32> {
    let rows = left.len() / depth;
    let mut packed = buffer::zeros(columns.len().div_ceil(height) * rows * height);
    for (part, into) in packed.chunks_exact_mut(rows * height).enumerate() {
        let first = columns.start + part * height;
        let own = height.min(columns.end - first);
        for (into, row) in into.chunks_exact_mut(height).zip(left.chunks_exact(depth)) {
            // Too short for a call of memcpy.
            into[..own].iter_mut().zip(&row[first..]).for_each(|(into, from)| *into = *from);
        }
    }
    packed
}

/// Rows of which a sum of so many columns takes together.
pub fn block(columns: usize) -> usize {
    (32_768 / columns.next_multiple_of(path().even())).clamp(64, 512)
}

/// Adds what a block of `count` rows gives to each of the units, which are rows of `out`.
fn add_outer(
    path: Path,
    units: &[(usize, Range<usize>)],
    runs: &Runs,
    packed: &[f32],
    count: usize,
    columns: usize,
    out: &mut [f32],
) {
    let padded = columns.next_multiple_of(path.lanes());
    for (column, halves) in panels(path, columns) {
        let panel = &packed[column * count..][..count * halves * path.lanes()];
        let mut row = 0;
        for (segment, part) in units {
            let spec = Outer {
                points: runs,
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

/// `count` numbers in parts of at most `most`, as even as can be.
pub fn parts(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let pieces = count.div_ceil(most);
    (0..pieces).map(move |piece| piece * count / pieces..(piece + 1) * count / pieces)
}

/// `count` rows in blocks of `most`, the last one shorter.
fn blocks(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(most).map(move |from| from..(from + most).min(count))
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
