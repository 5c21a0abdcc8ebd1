//! The loops for AVX-512, AVX2 and NEON, written once over their intrinsics.

use super::{ABSENT, Outer, Product, ZEROS, add_lanes};

/// NEON's intrinsics, spelled as the others are.
#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::{float32x4_t, vfmaq_f32};
    pub use std::arch::aarch64::{vaddq_f32, vdupq_n_f32, vld1q_f32, vst1q_f32};

    #[inline]
    #[target_feature(enable = "neon")]
    pub fn zero() -> float32x4_t {
        vdupq_n_f32(0.0)
    }

    /// a * b + c.
    #[inline]
    #[target_feature(enable = "neon")]
    pub fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vfmaq_f32(c, a, b)
    }
}

/// Writes the loops for one instruction set: where its intrinsics are, lanes of a vector, vectors of half a panel, rows of a
/// block, and the block of inner products.
macro_rules! vector_path {
    ($name:ident, $feature:literal, [$($arch:ident)::+], $lanes:literal, $half:literal, $load:ident, $store:ident, $set:ident,
     $zero:ident, $add:ident, $fma:ident, [$($rows:literal)*], $most:literal, $left:literal x $right:literal) => {
        pub mod $name {
            use super::{ABSENT, Outer, Product, ZEROS, add_lanes};
            use $($arch)::+::*;

            const LANES: usize = $lanes;
            /// Vectors that hold sixteen lanes.
            const PARTS: usize = 16 / LANES;

            /// # Safety
            /// The processor has the features, and the operands are as `super::super::product` asserts.
            #[target_feature(enable = $feature)]
            pub unsafe fn product_of(spec: &Product, starts: &[u32], c: &mut [f32], pitch: usize) {
                match spec.halves {
                    // SAFETY: the caller's promise is handed on.
                    1 => unsafe { product::<$most, $half>(spec, starts, c, pitch) },
                    _ => unsafe { product::<$most, { 2 * $half }>(spec, starts, c, pitch) },
                }
            }

            #[target_feature(enable = $feature)]
            unsafe fn product<const R: usize, const V: usize>(spec: &Product, starts: &[u32], c: &mut [f32], pitch: usize) {
                let mut sums = [[$zero(); V]; R];
                let c = c.as_mut_ptr();
                // SAFETY: by the caller's promise each row of `c` has V * LANES columns, each run `length` numbers from
                // `from`, and the panel V * LANES numbers for each of them.
                unsafe {
                    for (r, row) in sums.iter_mut().enumerate() {
                        for (v, sum) in row.iter_mut().enumerate() {
                            if !spec.fresh {
                                *sum = $load(c.add(r * pitch + v * LANES));
                            }
                        }
                    }
                    let source = spec.rows.source.as_ptr();
                    let mut panel = spec.panel.as_ptr();
                    for segment in starts.chunks_exact(R) {
                        let mut runs = [ZEROS.as_ptr(); R];
                        for (run, start) in runs.iter_mut().zip(segment) {
                            if *start != ABSENT {
                                *run = source.add(*start as usize + spec.from);
                            }
                        }
                        for k in 0..spec.length {
                            let mut columns = [$zero(); V];
                            for (v, column) in columns.iter_mut().enumerate() {
                                *column = $load(panel.add(v * LANES));
                            }
                            for (row, run) in sums.iter_mut().zip(&runs) {
                                let a = $set(*run.add(k));
                                for (sum, column) in row.iter_mut().zip(&columns) {
                                    *sum = $fma(a, *column, *sum);
                                }
                            }
                            panel = panel.add(V * LANES);
                        }
                    }
                    for (r, row) in sums.iter().enumerate() {
                        for (v, sum) in row.iter().enumerate() {
                            $store(c.add(r * pitch + v * LANES), *sum);
                        }
                    }
                }
            }

            /// # Safety
            /// The processor has the features, and the operands are as `super::super::outer` asserts.
            #[target_feature(enable = $feature)]
            pub unsafe fn outer_of(spec: &Outer, starts: &[u32], c: &mut [f32], pitch: usize) {
                match (spec.rows, spec.halves) {
                    // SAFETY: the caller's promise is handed on.
                    $(($rows, 1) => unsafe { outer::<$rows, $half>(spec, starts, c, pitch) },
                    ($rows, _) => unsafe { outer::<$rows, { 2 * $half }>(spec, starts, c, pitch) },)*
                    _ => unreachable!("outer: a block has at most the rows of its path"),
                }
            }

            #[target_feature(enable = $feature)]
            unsafe fn outer<const R: usize, const V: usize>(spec: &Outer, starts: &[u32], c: &mut [f32], pitch: usize) {
                let mut sums = [[$zero(); V]; R];
                let c = c.as_mut_ptr();
                // SAFETY: by the caller's promise each run has first + R numbers, the panel V * LANES for each point, and
                // each row of `c` V * LANES columns. `ZEROS` is read from its beginning, at most R <= LONGEST numbers.
                unsafe {
                    let source = spec.points.source.as_ptr();
                    let mut panel = spec.panel.as_ptr();
                    for start in starts {
                        let run =
                            if *start == ABSENT { ZEROS.as_ptr() } else { source.add(*start as usize + spec.first) };
                        let mut columns = [$zero(); V];
                        for (v, column) in columns.iter_mut().enumerate() {
                            *column = $load(panel.add(v * LANES));
                        }
                        for (r, row) in sums.iter_mut().enumerate() {
                            let a = $set(*run.add(r));
                            for (sum, column) in row.iter_mut().zip(&columns) {
                                *sum = $fma(a, *column, *sum);
                            }
                        }
                        panel = panel.add(V * LANES);
                    }
                    for (r, row) in sums.iter().enumerate() {
                        for (v, sum) in row.iter().enumerate() {
                            let at = c.add(r * pitch + v * LANES);
                            $store(at, $add($load(at), *sum));
                        }
                    }
                }
            }

            /// # Safety
            /// The processor has the features, and `out` is as long as `super::super::dots` asserts.
            #[target_feature(enable = $feature)]
            pub unsafe fn dots(left: &[f32], right: &[f32], depth: usize, out: &mut [f32], pitch: usize) {
                let (rows, columns) = (left.len() / depth, right.len() / depth);
                let whole = depth / 16 * 16;
                for r in (0..columns).step_by($right) {
                    for l in (0..rows).step_by($left) {
                        // A block at the edge repeats its last row; what that gives is written twice.
                        let mut lefts = [0; $left];
                        let mut rights = [0; $right];
                        lefts.iter_mut().enumerate().for_each(|(i, row)| *row = (l + i).min(rows - 1));
                        rights.iter_mut().enumerate().for_each(|(i, row)| *row = (r + i).min(columns - 1));
                        let mut lanes = [0f32; $left * $right * 16];
                        // SAFETY: all rows exist, and `whole` <= depth.
                        unsafe { block(left, right, depth, whole, &lefts, &rights, &mut lanes) };
                        for (i, row) in lefts.iter().enumerate() {
                            for (j, column) in rights.iter().enumerate() {
                                let lanes = &mut lanes[(i * $right + j) * 16..][..16];
                                for k in whole..depth {
                                    let (a, b) = (left[row * depth + k], right[column * depth + k]);
                                    lanes[k - whole] = a.mul_add(b, lanes[k - whole]);
                                }
                                out[row * pitch + column] = add_lanes(lanes);
                            }
                        }
                    }
                }
            }

            #[inline(never)]
            #[target_feature(enable = $feature)]
            unsafe fn block(left: &[f32], right: &[f32], depth: usize, whole: usize, lefts: &[usize; $left], rights: &[usize; $right], lanes: &mut [f32]) {
                let mut sums = [[[$zero(); PARTS]; $right]; $left];
                // SAFETY: by the caller's promise all rows exist and have `depth` >= `whole` numbers; lanes has room.
                unsafe {
                    let (left, right) = (left.as_ptr(), right.as_ptr());
                    let mut k = 0;
                    while k < whole {
                        for part in 0..PARTS {
                            let mut columns = [$zero(); $right];
                            for (column, row) in columns.iter_mut().zip(rights) {
                                *column = $load(right.add(row * depth + k + part * LANES));
                            }
                            for (sums, row) in sums.iter_mut().zip(lefts) {
                                let a = $load(left.add(row * depth + k + part * LANES));
                                for (sum, column) in sums.iter_mut().zip(&columns) {
                                    sum[part] = $fma(a, *column, sum[part]);
                                }
                            }
                        }
                        k += 16;
                    }
                    for (i, row) in sums.iter().enumerate() {
                        for (j, parts) in row.iter().enumerate() {
                            for (part, sum) in parts.iter().enumerate() {
                                $store(lanes.as_mut_ptr().add((i * $right + j) * 16 + part * LANES), *sum);
                            }
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vector_path!(avx512, "avx512f", [std::arch::x86_64], 16, 1, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_add_ps, _mm512_fmadd_ps, [1 2 3 4 5 6 7 8], 8, 4 x 4);
#[cfg(target_arch = "x86_64")]
vector_path!(avx2, "avx2,fma", [std::arch::x86_64], 8, 1, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_add_ps, _mm256_fmadd_ps, [1 2 3 4 5 6], 6, 3 x 2);
// 24 sums, 4 columns and a factor in 32 registers.
#[cfg(target_arch = "aarch64")]
vector_path!(neon, "neon", [super::arm], 4, 2, vld1q_f32, vst1q_f32, vdupq_n_f32, zero, vaddq_f32, fma, [1 2 3 4 5 6], 6, 3 x 2);
