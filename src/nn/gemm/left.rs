//! The left operand of a product: rows that are read where they lie, and the table that says where.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use crate::nn::kernel::{ABSENT, path};

/// Small images are taken together until they have so many rows.
const GROUP: usize = 128;
/// Runs shorter than this are copied side by side before the product.
const SHORT: usize = 8;

/// For every row of an image (or of a few small ones) and every segment of its sum: where the segment's run of numbers
/// begins in the image, or `ABSENT`.
pub struct Table {
    pub rows: usize,
    segments: usize,
    /// Numbers from one image, or group of small ones, to the next.
    image: usize,
    /// [rows of one image][segments]
    starts: Vec<u32>,
    /// Numbers of one image.
    step: usize,
    /// [blocks of rows][segments][rows of a block]; the last block repeats its last row.
    blocks: OnceLock<Vec<u32>>,
    /// [segments][rows]
    lines: OnceLock<Vec<u32>>,
}

impl Table {
    /// `starts` is [rows][segments] of one image of `image` numbers.
    pub fn new(segments: usize, image: usize, starts: Vec<u32>) -> Self {
        let together = GROUP.div_ceil(starts.len() / segments);
        Self::together(together, segments, image, starts)
    }

    /// The same with every image by itself.
    pub fn single(segments: usize, image: usize, starts: Vec<u32>) -> Self {
        Self::together(1, segments, image, starts)
    }

    fn together(together: usize, segments: usize, step: usize, starts: Vec<u32>) -> Self {
        let (rows, image) = (starts.len() / segments * together, step * together);
        Self { rows, segments, image, starts, step, blocks: OnceLock::new(), lines: OnceLock::new() }
    }

    /// Where a segment of a row of a group begins.
    fn start(&self, row: usize, segment: usize) -> u32 {
        let own = self.starts.len() / self.segments;
        match self.starts[row % own * self.segments + segment] {
            ABSENT => ABSENT,
            start => start + (row / own * self.step) as u32,
        }
    }

    fn blocks(&self) -> &[u32] {
        self.blocks.get_or_init(|| {
            let height = path().rows();
            let mut blocks = Vec::with_capacity(self.rows.next_multiple_of(height) * self.segments);
            for first in (0..self.rows).step_by(height) {
                for segment in 0..self.segments {
                    for row in first..first + height {
                        blocks.push(self.start(row.min(self.rows - 1), segment));
                    }
                }
            }
            blocks
        })
    }

    fn lines(&self) -> &[u32] {
        self.lines.get_or_init(|| {
            let mut lines = Vec::with_capacity(self.rows * self.segments);
            for segment in 0..self.segments {
                for row in 0..self.rows {
                    lines.push(self.start(row, segment));
                }
            }
            lines
        })
    }

    /// Rows of `depth` numbers that lie one after the other.
    pub fn plain(depth: usize) -> Self {
        Self::new(1, depth, vec![0])
    }
}

/// The left operand: [rows of all images][segments * depth].
pub struct Left<'a> {
    pub source: &'a [f32],
    pub table: &'a Table,
    /// Added to every start: the first channel of a group.
    pub offset: usize,
    /// Length of every run.
    pub depth: usize,
}

/// What a task reads: runs in the source, or copies side by side.
pub struct Reads<'a> {
    pub source: Cow<'a, [f32]>,
    pub starts: Cow<'a, [u32]>,
    pub segments: usize,
    pub depth: usize,
}

impl<'a> Left<'a> {
    /// The length of the sum.
    pub fn terms(&self) -> usize {
        self.table.segments * self.depth
    }

    pub fn is_short(&self) -> bool {
        self.depth < SHORT && self.table.segments > 1
    }

    /// The numbers of a group of images, from the offset on.
    fn group(&self, group: usize) -> &'a [f32] {
        &self.source[group * self.table.image + self.offset..]
    }

    /// Some rows of a group, copied side by side.
    fn copied(&self, group: usize, rows: Range<usize>) -> Vec<f32> {
        let (source, terms) = (self.group(group), self.terms());
        let mut copy = vec![0.0; rows.len() * terms];
        for segment in 0..self.table.segments {
            let starts = &self.table.lines()[segment * self.table.rows..][rows.clone()];
            for (into, start) in copy.chunks_exact_mut(terms).zip(starts) {
                if *start != ABSENT {
                    let from = &source[*start as usize..][..self.depth];
                    // Too short for a call of memcpy.
                    into[segment * self.depth..].iter_mut().zip(from).for_each(|(into, from)| *into = *from);
                }
            }
        }
        copy
    }

    /// Rows of a group in blocks: starts are [blocks][segments][rows of a block].
    pub fn blocks(&self, group: usize, rows: Range<usize>, height: usize) -> Reads<'a> {
        let count = rows.len().div_ceil(height);
        if self.is_short() {
            let last = rows.len() - 1;
            let starts = (0..count * height).map(|row| (row.min(last) * self.terms()) as u32).collect();
            let source = Cow::Owned(self.copied(group, rows));
            return Reads { source, starts: Cow::Owned(starts), segments: 1, depth: self.terms() };
        }
        let size = self.table.segments * height;
        let mut starts = Cow::Borrowed(&self.table.blocks()[rows.start / height * size..][..count * size]);
        let own = rows.len() - (count - 1) * height;
        if own < height && rows.end < self.table.rows {
            // The batch ends within the group: the rows behind its end do not exist.
            for line in starts.to_mut()[(count - 1) * size..].chunks_exact_mut(height) {
                let last = line[own - 1];
                line[own..].fill(last);
            }
        }
        let source = Cow::Borrowed(self.group(group));
        Reads { source, starts, segments: self.table.segments, depth: self.depth }
    }

    /// Rows of a group one by one: starts are [segments][rows].
    pub fn lines(&self, group: usize, rows: Range<usize>) -> Reads<'a> {
        if self.is_short() {
            let starts = (0..rows.len()).map(|row| (row * self.terms()) as u32).collect();
            let source = Cow::Owned(self.copied(group, rows));
            return Reads { source, starts: Cow::Owned(starts), segments: 1, depth: self.terms() };
        }
        let line = |segment: usize| &self.table.lines()[segment * self.table.rows..][rows.clone()];
        let starts = match self.table.segments {
            1 => Cow::Borrowed(&self.table.lines()[rows]),
            segments => Cow::Owned((0..segments).flat_map(line).copied().collect()),
        };
        let source = Cow::Borrowed(self.group(group));
        Reads { source, starts, segments: self.table.segments, depth: self.depth }
    }
}
