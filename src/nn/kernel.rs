//! The two inner loops of the CPU path, for AVX-512, AVX2 and any other machine, chosen at run time.
//!
//! `tile` is a product with the reduction in sequence: out[r][c] += w[k][r] * x[offset[k] + c] for k = 0, 1, 2, ...
//! Each output is one chain of fused multiply-adds whose order depends on nothing but k, so neither the batch,
//! nor the position in it, nor the blocking can change a bit. `dots` are inner products over a fixed number of lanes.

/// Columns that a buffer must have to spare behind its last used one: the widest step of any path.
pub const SLACK: usize = 96;

/// Outputs of one call of `tile`: rows come from packed weights, columns are contiguous.
pub struct Tile<'a> {
    /// Where columns are read; every offset plus `columns` rounded up to the path's width must lie inside.
    pub x: &'a [f32],
    pub offsets: &'a [u32],
    /// [offsets][rows]: the weights of each reduction step side by side.
    pub w: &'a [f32],
    pub columns: usize,
}

/// How many rows `tile` computes at once on this machine.
pub fn tile_rows() -> usize {
    match path() {
        Path::Avx512 => 8,
        Path::Avx2 | Path::Portable => 4,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Avx512,
    Avx2,
    Portable,
}

fn path() -> Path {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return Path::Avx512;
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return Path::Avx2;
        }
    }
    Path::Portable
}

/// Adds to `out` (rows of `pitch` columns, `SLACK` to spare behind the last) the products of `tile`.
/// `rows` is `tile_rows()`, or 1 for depthwise work.
///
/// # Panics
/// A slice is shorter than the shapes say: checked here, since the loops inside do not.
pub fn tile(tile: &Tile, rows: usize, out: &mut [f32], pitch: usize) {
    let reach = tile.columns.next_multiple_of(SLACK);
    let deepest = tile.offsets.iter().max().map_or(0, |offset| *offset as usize);
    assert!(tile.x.len() >= deepest + reach, "tile: the source is too short");
    assert!(tile.w.len() >= tile.offsets.len() * rows, "tile: too few weights");
    assert!(out.len() >= (rows - 1) * pitch + reach, "tile: the output is too short");
    match (path(), rows) {
        // SAFETY: the features were detected, and the bounds of every access follow from the asserts above.
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512, 8) => unsafe { avx512::tile::<8, 3>(tile, out, pitch) },
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512, 1) => unsafe { avx512::tile::<1, 6>(tile, out, pitch) },
        #[cfg(target_arch = "x86_64")]
        (Path::Avx2, 4) => unsafe { avx2::tile::<4, 3>(tile, out, pitch) },
        #[cfg(target_arch = "x86_64")]
        (Path::Avx2, 1) => unsafe { avx2::tile::<1, 6>(tile, out, pitch) },
        _ => portable::tile(tile, rows, out, pitch),
    }
}

/// One image's part of the inner products between rows of `left` and shifted views of `right`.
pub struct Dots<'a> {
    pub left: &'a [f32],
    pub left_pitch: usize,
    pub left_rows: usize,
    /// Distance between images in `left`.
    pub left_image: usize,
    pub right: &'a [f32],
    pub offsets: &'a [u32],
    /// Distance between images in `right`.
    pub right_image: usize,
    pub images: usize,
    /// Elements per product and image; both sides hold zeros or slack up to the next multiple of 16.
    pub length: usize,
}

/// Adds to `out` ([left_rows][pitch]) the inner products over all images, each in sixteen lanes that are added up
/// in a fixed order at the end. In `left`, what lies between `length` and the next multiple of 16 must be zero.
///
/// # Panics
/// A slice is shorter than the shapes say.
pub fn dots(dots: &Dots, out: &mut [f32], pitch: usize) {
    let reach = dots.length.next_multiple_of(16);
    let deepest = dots.offsets.iter().max().map_or(0, |offset| *offset as usize);
    let (last, rows) = (dots.images.saturating_sub(1), dots.left_rows);
    assert!(rows > 0 && dots.images > 0, "dots: nothing to multiply");
    assert!(
        dots.left.len() >= last * dots.left_image + (rows - 1) * dots.left_pitch + reach,
        "dots: left is too short"
    );
    assert!(dots.right.len() >= last * dots.right_image + deepest + reach, "dots: right is too short");
    assert!(out.len() >= (rows - 1) * pitch + dots.offsets.len(), "dots: the output is too short");
    match path() {
        // SAFETY: the features were detected, and the bounds of every access follow from the asserts above.
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 => unsafe { avx512::dots(dots, out, pitch) },
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => unsafe { avx2::dots(dots, out, pitch) },
        _ => portable::dots(dots, out, pitch),
    }
}

/// Writes the loops for one instruction set: lanes, its intrinsics, and the size of its blocks of inner products.
#[cfg(target_arch = "x86_64")]
macro_rules! vector_path {
    ($name:ident, $feature:literal, $lanes:literal, $load:ident, $store:ident, $set:ident, $zero:ident, $fma:ident, $block:literal x $taps:literal) => {
        mod $name {
            use super::{Dots, SLACK, Tile};
            use std::arch::x86_64::*;

            const LANES: usize = $lanes;

            /// # Safety
            /// The processor has the features, and the slices are as long as `super::tile` asserts.
            #[target_feature(enable = $feature)]
            pub unsafe fn tile<const R: usize, const V: usize>(tile: &Tile, out: &mut [f32], pitch: usize) {
                const { assert!(SLACK % (V * LANES) == 0 && V * LANES <= SLACK) };
                let mut column = 0;
                while column < tile.columns {
                    let left = tile.columns - column;
                    // SAFETY: column + the width of the step stays below columns rounded up to SLACK.
                    unsafe {
                        if left > 2 * LANES {
                            step::<R, V>(tile, column, out, pitch);
                            column += V * LANES;
                        } else if left > LANES {
                            step::<R, 2>(tile, column, out, pitch);
                            column += 2 * LANES;
                        } else {
                            step::<R, 1>(tile, column, out, pitch);
                            column += LANES;
                        }
                    }
                }
            }

            #[inline]
            #[target_feature(enable = $feature)]
            unsafe fn step<const R: usize, const V: usize>(tile: &Tile, column: usize, out: &mut [f32], pitch: usize) {
                let mut sums = [[$zero(); V]; R];
                let target = out.as_mut_ptr();
                // SAFETY: by the caller's promise every row and column touched lies inside the slices.
                unsafe {
                    for (r, row) in sums.iter_mut().enumerate() {
                        for (v, sum) in row.iter_mut().enumerate() {
                            *sum = $load(target.add(r * pitch + column + v * LANES));
                        }
                    }
                    let mut weights = tile.w.as_ptr();
                    let source = tile.x.as_ptr().add(column);
                    for offset in tile.offsets {
                        let from = source.add(*offset as usize);
                        let mut columns = [$zero(); V];
                        for (v, lane) in columns.iter_mut().enumerate() {
                            *lane = $load(from.add(v * LANES));
                        }
                        for (r, row) in sums.iter_mut().enumerate() {
                            let weight = $set(*weights.add(r));
                            for (v, sum) in row.iter_mut().enumerate() {
                                *sum = $fma(weight, columns[v], *sum);
                            }
                        }
                        weights = weights.add(R);
                    }
                    for (r, row) in sums.iter().enumerate() {
                        for (v, sum) in row.iter().enumerate() {
                            $store(target.add(r * pitch + column + v * LANES), *sum);
                        }
                    }
                }
            }

            /// # Safety
            /// The processor has the features, and the slices are as long as `super::dots` asserts.
            #[target_feature(enable = $feature)]
            pub unsafe fn dots(dots: &Dots, out: &mut [f32], pitch: usize) {
                let mut row = 0;
                while row < dots.left_rows {
                    let block = if dots.left_rows - row >= $block { $block } else { 1 };
                    for (index, taps) in dots.offsets.chunks($taps).enumerate() {
                        // A short last chunk repeats its last offset; what that gives is not stored.
                        let mut offsets = [taps[taps.len() - 1]; $taps];
                        offsets[..taps.len()].copy_from_slice(taps);
                        let mut sums = [0f32; $block * $taps * 16];
                        // SAFETY: rows row..row + block exist, and the offsets are the caller's.
                        unsafe {
                            if block == $block {
                                block_of::<$block>(dots, row, &offsets, &mut sums);
                            } else {
                                block_of::<1>(dots, row, &offsets, &mut sums);
                            }
                        }
                        for r in 0..block {
                            for t in 0..taps.len() {
                                let lanes = &sums[(r * $taps + t) * 16..][..16];
                                out[(row + r) * pitch + index * $taps + t] += super::add_lanes(lanes);
                            }
                        }
                    }
                    row += block;
                }
            }

            #[inline(never)]
            #[target_feature(enable = $feature)]
            unsafe fn block_of<const R: usize>(dots: &Dots, row: usize, offsets: &[u32; $taps], into: &mut [f32]) {
                // Sixteen lanes on every path, in 16 / LANES passes, so that all paths add in one order.
                for part in 0..16 / LANES {
                    let mut sums = [[$zero(); $taps]; R];
                    // SAFETY: by the caller's promise every element touched lies inside the slices.
                    unsafe {
                        for image in 0..dots.images {
                            let left =
                                dots.left.as_ptr().add(image * dots.left_image + row * dots.left_pitch + part * LANES);
                            let right = dots.right.as_ptr().add(image * dots.right_image + part * LANES);
                            let mut at = 0;
                            while at < dots.length {
                                let mut views = [$zero(); $taps];
                                for (view, offset) in views.iter_mut().zip(offsets) {
                                    *view = $load(right.add(*offset as usize + at));
                                }
                                for (r, row) in sums.iter_mut().enumerate() {
                                    let lane = $load(left.add(r * dots.left_pitch + at));
                                    for (sum, view) in row.iter_mut().zip(&views) {
                                        *sum = $fma(lane, *view, *sum);
                                    }
                                }
                                at += 16;
                            }
                        }
                        for (r, row) in sums.iter().enumerate() {
                            for (t, sum) in row.iter().enumerate() {
                                $store(into.as_mut_ptr().add((r * $taps + t) * 16 + part * LANES), *sum);
                            }
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vector_path!(avx512, "avx512f", 16, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_fmadd_ps, 4 x 6);
#[cfg(target_arch = "x86_64")]
vector_path!(avx2, "avx2,fma", 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_fmadd_ps, 2 x 5);

/// Sixteen lanes to one number, halving: 8 + 8, 4 + 4, 2 + 2, 1 + 1.
fn add_lanes(lanes: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    sums.copy_from_slice(lanes);
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

/// The same loops in plain Rust, bounds checked: for other machines, and the twin that tests compare with.
mod portable {
    use super::{Dots, Tile, add_lanes};

    pub fn tile(tile: &Tile, rows: usize, out: &mut [f32], pitch: usize) {
        for row in 0..rows {
            let target = &mut out[row * pitch..][..tile.columns];
            for (step, offset) in tile.offsets.iter().enumerate() {
                let weight = tile.w[step * rows + row];
                for (sum, value) in target.iter_mut().zip(&tile.x[*offset as usize..]) {
                    *sum += weight * value;
                }
            }
        }
    }

    pub fn dots(dots: &Dots, out: &mut [f32], pitch: usize) {
        for row in 0..dots.left_rows {
            for (tap, offset) in dots.offsets.iter().enumerate() {
                let mut sums = [0f32; 16];
                for image in 0..dots.images {
                    let left = &dots.left[image * dots.left_image + row * dots.left_pitch..][..dots.length];
                    let right = &dots.right[image * dots.right_image + *offset as usize..][..dots.length];
                    for (left, right) in left.chunks(16).zip(right.chunks(16)) {
                        for (sum, (left, right)) in sums.iter_mut().zip(left.iter().zip(right)) {
                            *sum += left * right;
                        }
                    }
                }
                out[row * pitch + tap] += add_lanes(&sums);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let next = |state: &mut u64| {
            *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (*state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next(&mut state)).collect()
    }

    #[test]
    fn the_fast_tile_agrees_with_its_bounds_checked_twin() {
        for (columns, steps) in [(1, 1), (7, 9), (16, 27), (17, 3), (49, 64), (100, 25), (200, 5)] {
            for rows in [1, tile_rows()] {
                let x = numbers(columns + steps + 2 * SLACK, 1);
                let w = numbers(steps * rows, 2);
                let offsets: Vec<u32> = (0..steps as u32).rev().collect();
                let pitch = columns.next_multiple_of(SLACK);
                let spec = Tile { x: &x, offsets: &offsets, w: &w, columns };
                let (mut fast, mut slow) = (vec![0.25; rows * pitch], vec![0.25; rows * pitch]);
                tile(&spec, rows, &mut fast, pitch);
                portable::tile(&spec, rows, &mut slow, pitch);
                for row in 0..rows {
                    for column in 0..columns {
                        let (fast, slow) = (fast[row * pitch + column], slow[row * pitch + column]);
                        assert!((fast - slow).abs() < 1e-5, "{columns} {steps} {rows}: {fast} {slow}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_fast_dots_agree_with_their_bounds_checked_twin() {
        for (rows, taps, images, length) in [(1, 1, 1, 1), (3, 9, 2, 20), (8, 13, 3, 64), (5, 6, 1, 100)] {
            let reach = length + 32;
            let mut left = numbers(rows * images * reach, 3);
            left.chunks_mut(reach).for_each(|row| row[length..].fill(0.0));
            let right = numbers(images * (length + taps + 32), 4);
            let offsets: Vec<u32> = (0..taps as u32).collect();
            let spec = Dots {
                left: &left,
                left_pitch: reach,
                left_rows: rows,
                left_image: rows * reach,
                right: &right,
                offsets: &offsets,
                right_image: length + taps + 32,
                images,
                length,
            };
            let (mut fast, mut slow) = (vec![0.5; rows * taps], vec![0.5; rows * taps]);
            dots(&spec, &mut fast, taps);
            portable::dots(&spec, &mut slow, taps);
            for (fast, slow) in fast.iter().zip(&slow) {
                assert!((fast - slow).abs() < 1e-5, "{rows} {taps} {images} {length}: {fast} {slow}");
            }
        }
    }

    /// Machines with AVX-512 never choose the AVX2 path by themselves: here it is called by name.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_avx2_path_agrees_with_the_twin_where_the_machine_has_it() {
        if !(std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")) {
            return;
        }
        for (columns, steps) in [(1, 1), (17, 9), (50, 33), (200, 5)] {
            let x = numbers(columns + steps + 2 * SLACK, 1);
            let offsets: Vec<u32> = (0..steps as u32).collect();
            let pitch = columns.next_multiple_of(SLACK);
            for rows in [1, 4] {
                let w = numbers(steps * rows, 2);
                let spec = Tile { x: &x, offsets: &offsets, w: &w, columns };
                let (mut fast, mut slow) = (vec![0.0; rows * pitch], vec![0.0; rows * pitch]);
                // SAFETY: the features were detected, and the slices are as long as `tile` would assert.
                unsafe {
                    match rows {
                        1 => avx2::tile::<1, 6>(&spec, &mut fast, pitch),
                        _ => avx2::tile::<4, 3>(&spec, &mut fast, pitch),
                    }
                }
                portable::tile(&spec, rows, &mut slow, pitch);
                for row in 0..rows {
                    for column in 0..columns {
                        assert!((fast[row * pitch + column] - slow[row * pitch + column]).abs() < 1e-5);
                    }
                }
            }
        }
        let (rows, taps, images, length) = (5, 13, 2, 40);
        let reach = length + 32;
        let mut left = numbers(rows * images * reach, 3);
        left.chunks_mut(reach).for_each(|row| row[length..].fill(0.0));
        let right = numbers(images * (length + taps + 32), 4);
        let offsets: Vec<u32> = (0..taps as u32).collect();
        let spec = Dots {
            left: &left,
            left_pitch: reach,
            left_rows: rows,
            left_image: rows * reach,
            right: &right,
            offsets: &offsets,
            right_image: length + taps + 32,
            images,
            length,
        };
        let (mut fast, mut slow) = (vec![0.0; rows * taps], vec![0.0; rows * taps]);
        // SAFETY: as above, for `dots`.
        unsafe { avx2::dots(&spec, &mut fast, taps) };
        portable::dots(&spec, &mut slow, taps);
        assert!(fast.iter().zip(&slow).all(|(fast, slow)| (fast - slow).abs() < 1e-5));
    }
}
