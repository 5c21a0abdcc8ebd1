//! The same loops in plain Rust, bounds checked: for other machines, and the twin that tests compare with.

use super::{ABSENT, Outer, Product, add_lanes, madd};

/// Two roundings, so that it is quick on every processor; one in tests, where the fast paths must agree to the bit.
const FUSED: bool = cfg!(test);

pub fn product(spec: &Product, starts: &[u32], rows: usize, columns: usize, c: &mut [f32], pitch: usize) {
    if spec.fresh {
        c.chunks_mut(pitch).take(rows).for_each(|row| row[..columns].fill(0.0));
    }
    for (segment, starts) in starts.chunks_exact(rows).enumerate() {
        let panel = &spec.panel[segment * spec.length * columns..][..spec.length * columns];
        for (row, start) in starts.iter().enumerate() {
            let sums = &mut c[row * pitch..][..columns];
            for (k, b) in panel.chunks_exact(columns).enumerate() {
                let a = if *start == ABSENT { 0.0 } else { spec.rows.source[*start as usize + spec.from + k] };
                sums.iter_mut().zip(b).for_each(|(sum, b)| *sum = madd::<FUSED>(a, *b, *sum));
            }
        }
    }
}

pub fn outer(spec: &Outer, starts: &[u32], columns: usize, c: &mut [f32], pitch: usize) {
    for row in 0..spec.rows {
        let mut sums = [0f32; 64];
        for (start, b) in starts.iter().zip(spec.panel.chunks_exact(columns)) {
            let a = if *start == ABSENT { 0.0 } else { spec.points.source[*start as usize + spec.first + row] };
            sums.iter_mut().zip(b).for_each(|(sum, b)| *sum = madd::<FUSED>(a, *b, *sum));
        }
        c[row * pitch..][..columns].iter_mut().zip(sums).for_each(|(c, sum)| *c += sum);
    }
}

pub fn dots(left: &[f32], right: &[f32], depth: usize, out: &mut [f32], pitch: usize) {
    for (l, left) in left.chunks_exact(depth).enumerate() {
        for (r, right) in right.chunks_exact(depth).enumerate() {
            let mut sums = [0f32; 16];
            for (left, right) in left.chunks(16).zip(right.chunks(16)) {
                for (sum, (left, right)) in sums.iter_mut().zip(left.iter().zip(right)) {
                    *sum = madd::<FUSED>(*left, *right, *sum);
                }
            }
            out[l * pitch + r] = add_lanes(&sums);
        }
    }
}
