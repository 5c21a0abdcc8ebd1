//! The inner loops of the CPU path, and which instruction set runs them: AVX-512, AVX2, NEON, or plain Rust.
//!
//! Sums run in an order that depends on nothing but the length of the sum: `product` and `outer` add term by term,
//! `dots` in sixteen lanes. So a row's result is the same alone, in any batch, on any number of threads; and since
//! vectors run across results, never along a sum, AVX2, AVX-512 and NEON give the same bits. Plain Rust rounds twice where they
//! round once, on every processor.

mod portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod vector;

/// The start of a run that does not exist: it reads as zeros.
pub const ABSENT: u32 = u32::MAX;

/// The longest run that one call of `product` reads.
pub const LONGEST: usize = 512;

static ZEROS: [f32; LONGEST] = [0.0; LONGEST];

pub use crate::device::CpuPath as Path;

/// The path that this process uses.
pub fn path() -> Path {
    Path::current()
}

impl Path {
    /// Rows of one block of `product`.
    pub fn rows(self) -> usize {
        match self {
            Self::Avx512 => 8,
            Self::Avx2 | Self::Neon => 6,
            Self::Portable => 4,
        }
    }

    /// Columns of half a panel; a panel is one or two of these.
    pub fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Avx2 | Self::Neon | Self::Portable => 8,
        }
    }

    /// Columns to a multiple of which blocks of sums are sized: of one numerics class one number, whatever the lanes.
    pub fn even(self) -> usize {
        match self {
            Self::Portable => 8,
            Self::Neon | Self::Avx2 | Self::Avx512 => 16,
        }
    }
}

/// Runs of numbers inside `source`, each `depth` long from its start, or `ABSENT`.
pub struct Runs<'a> {
    source: &'a [f32],
    starts: &'a [u32],
    depth: usize,
}

impl<'a> Runs<'a> {
    /// # Panics
    /// A run reaches beyond the source. The loops rely on this check.
    pub fn new(source: &'a [f32], starts: &'a [u32], depth: usize) -> Self {
        let inside = |start: &u32| *start == ABSENT || *start as usize + depth <= source.len();
        assert!(starts.iter().all(inside), "a run reaches beyond its source");
        Self { source, starts, depth }
    }
}

/// A block of rows times a panel of columns: c[row][column] += sum over segments and k of a[segment][row][k] * b[...][column].
pub struct Product<'a> {
    /// Starts are [segments][rows of the path].
    pub rows: &'a Runs<'a>,
    /// Which of `rows.starts` this block reads.
    pub starts: std::ops::Range<usize>,
    /// Which part of each run.
    pub from: usize,
    pub length: usize,
    /// [segments][length][halves * lanes].
    pub panel: &'a [f32],
    /// One or two.
    pub halves: usize,
    /// Whether the sums begin at zero, whatever `c` holds.
    pub fresh: bool,
}

/// Adds the product to `c`, rows `pitch` apart.
///
/// # Panics
/// A slice is shorter than the shapes say: checked here, since the loops inside do not.
pub fn product(path: Path, spec: &Product, c: &mut [f32], pitch: usize) {
    let (rows, columns) = (path.rows(), spec.halves * path.lanes());
    let starts = &spec.rows.starts[spec.starts.clone()];
    assert!(spec.from + spec.length <= spec.rows.depth && spec.length <= LONGEST, "product: the runs are too short");
    assert!(starts.len().is_multiple_of(rows), "product: half a block of rows");
    assert!(spec.panel.len() >= starts.len() / rows * spec.length * columns, "product: the panel is too short");
    assert!(c.len() >= (rows - 1) * pitch + columns, "product: the output is too short");
    match path {
        // SAFETY: the path was detected; runs lie in their source (`Runs::new`), the rest follows from the asserts.
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 => unsafe { vector::avx512::product_of(spec, starts, c, pitch) },
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => unsafe { vector::avx2::product_of(spec, starts, c, pitch) },
        #[cfg(target_arch = "aarch64")]
        Path::Neon => unsafe { vector::neon::product_of(spec, starts, c, pitch) },
        _ => portable::product(spec, starts, rows, columns, c, pitch),
    }
}

/// Sums of outer products: c[row][column] += sum over points of run(point)[first + row] * panel[point][column].
pub struct Outer<'a> {
    /// One start for each point.
    pub points: &'a Runs<'a>,
    pub starts: std::ops::Range<usize>,
    pub first: usize,
    /// At most the rows of the path.
    pub rows: usize,
    /// [points][halves * lanes].
    pub panel: &'a [f32],
    pub halves: usize,
}

/// Adds the sums to `c`, rows `pitch` apart; each sum starts from zero, so that `c` gathers sums of blocks.
///
/// # Panics
/// A slice is shorter than the shapes say.
pub fn outer(path: Path, spec: &Outer, c: &mut [f32], pitch: usize) {
    let columns = spec.halves * path.lanes();
    let starts = &spec.points.starts[spec.starts.clone()];
    assert!(spec.rows > 0 && spec.rows <= path.rows() && matches!(spec.halves, 1 | 2), "outer: no such block");
    assert!(spec.first + spec.rows <= spec.points.depth && spec.first + spec.rows <= LONGEST.max(spec.points.depth));
    assert!(spec.panel.len() >= starts.len() * columns, "outer: the panel is too short");
    assert!(c.len() >= (spec.rows - 1) * pitch + columns, "outer: the output is too short");
    match path {
        // SAFETY: the path was detected; runs lie in their source (`Runs::new`), the rest follows from the asserts.
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 => unsafe { vector::avx512::outer_of(spec, starts, c, pitch) },
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => unsafe { vector::avx2::outer_of(spec, starts, c, pitch) },
        #[cfg(target_arch = "aarch64")]
        Path::Neon => unsafe { vector::neon::outer_of(spec, starts, c, pitch) },
        _ => portable::outer(spec, starts, columns, c, pitch),
    }
}

/// Inner products of every row of `left` with every row of `right`, all `depth` long and contiguous:
/// out[l * pitch + r].
///
/// # Panics
/// A slice is shorter than the shapes say.
pub fn dots(path: Path, left: &[f32], right: &[f32], depth: usize, out: &mut [f32], pitch: usize) {
    assert!(depth > 0, "dots: nothing to multiply");
    let (rows, columns) = (left.len() / depth, right.len() / depth);
    assert!(rows == 0 || out.len() >= (rows - 1) * pitch + columns, "dots: the output is too short");
    match path {
        // SAFETY: the path was detected; the blocks below cover rows and columns that exist.
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 => unsafe { vector::avx512::dots(left, right, depth, out, pitch) },
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => unsafe { vector::avx2::dots(left, right, depth, out, pitch) },
        #[cfg(target_arch = "aarch64")]
        Path::Neon => unsafe { vector::neon::dots(left, right, depth, out, pitch) },
        _ => portable::dots(left, right, depth, out, pitch),
    }
}

/// Sixteen lanes to one number, halving: 8 + 8, 4 + 4, 2 + 2, 1 + 1.
pub fn add_lanes(lanes: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    sums.copy_from_slice(lanes);
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

/// a * b + c, in one rounding where the processor has it (`FUSED`), in two where it would be slow.
#[inline(always)]
pub fn madd<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Defines a function whose body is plain Rust, compiled once for each path and chosen at run time. The body sees
/// `FUSED`: whether `madd` rounds once.
macro_rules! on_every_path {
    ($(#[$meta:meta])* $visible:vis fn $name:ident($($arg:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "slices and sizes of one loop")]
        $visible fn $name($($arg: $kind),*) $(-> $result)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "slices and sizes of one loop")]
            fn body<const FUSED: bool>($($arg: $kind),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            #[allow(clippy::too_many_arguments, reason = "slices and sizes of one loop")]
            fn avx512($($arg: $kind),*) $(-> $result)? {
                body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "slices and sizes of one loop")]
            fn avx2($($arg: $kind),*) $(-> $result)? {
                body::<true>($($arg),*)
            }
            match $crate::nn::kernel::path() {
                // SAFETY: the processor has the features that `path` found.
                #[cfg(target_arch = "x86_64")]
                $crate::nn::kernel::Path::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                $crate::nn::kernel::Path::Avx2 => unsafe { avx2($($arg),*) },
                // 64-bit ARM code is compiled for NEON as it is.
                $crate::nn::kernel::Path::Neon => body::<{ cfg!(target_arch = "aarch64") }>($($arg),*),
                _ => body::<false>($($arg),*),
            }
        }
    };
}
pub(crate) use on_every_path;

/// Runs `work::<N, ...>` over all channels, sixteen, eight or one at a time, so that what belongs to them stays in
/// registers; behind N stand the constants in brackets.
macro_rules! by_channels {
    ($channels:expr, $channel:ident, $work:ident[$($constant:tt),*]($($arg:expr),* $(,)?)) => {
        let mut $channel = 0;
        while $channel + 16 <= $channels {
            $work::<16, $($constant),*>($($arg),*);
            $channel += 16;
        }
        while $channel + 8 <= $channels {
            $work::<8, $($constant),*>($($arg),*);
            $channel += 8;
        }
        while $channel < $channels {
            $work::<1, $($constant),*>($($arg),*);
            $channel += 1;
        }
    };
}
pub(crate) use by_channels;

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

    /// The paths of this machine that are not plain Rust.
    fn fast() -> impl Iterator<Item = Path> {
        Path::ALL.into_iter().filter(|path| *path != Path::Portable && path.is_here())
    }

    fn starts(count: usize, reach: usize, seed: u64) -> Vec<u32> {
        let pick = |value: &f32| if *value > 0.4 { ABSENT } else { ((value + 0.5) * reach as f32) as u32 };
        numbers(count, seed).iter().map(pick).collect()
    }

    #[test]
    fn products_have_the_bits_of_their_bounds_checked_twin() {
        for path in fast() {
            for (segments, depth, from, length) in [(1, 1, 0, 1), (9, 16, 0, 16), (3, 40, 7, 30), (1, 512, 0, 512)] {
                for (halves, fresh) in [(1, false), (1, true), (2, false), (2, true)] {
                    let (rows, columns) = (path.rows(), halves * path.lanes());
                    let source = numbers(depth * 20, 1);
                    let starts = starts(segments * rows, depth * 19, 2);
                    let runs = Runs::new(&source, &starts, depth);
                    let panel = numbers(segments * length * columns, 3);
                    let spec =
                        Product { rows: &runs, starts: 0..starts.len(), from, length, panel: &panel, halves, fresh };
                    let mut found = numbers(rows * (columns + 3), 4);
                    let mut expected = found.clone();
                    product(path, &spec, &mut found, columns + 3);
                    portable::product(&spec, &starts, rows, columns, &mut expected, columns + 3);
                    assert_eq!(found, expected, "{path:?} {segments} {depth} {halves}");
                }
            }
        }
    }

    #[test]
    fn outer_products_have_the_bits_of_their_bounds_checked_twin() {
        for path in fast() {
            for rows in 1..=path.rows() {
                for halves in [1, 2] {
                    let columns = halves * path.lanes();
                    let source = numbers(4000, 1);
                    let starts = starts(67, 3900, 2);
                    let points = Runs::new(&source, &starts, 40);
                    let panel = numbers(67 * columns, 3);
                    let spec = Outer { points: &points, starts: 0..67, first: 5, rows, panel: &panel, halves };
                    let mut found = numbers(rows * columns, 4);
                    let mut expected = found.clone();
                    outer(path, &spec, &mut found, columns);
                    portable::outer(&spec, &starts, columns, &mut expected, columns);
                    assert_eq!(found, expected, "{path:?} {rows} {halves}");
                }
            }
        }
    }

    #[test]
    fn dots_have_the_bits_of_their_bounds_checked_twin() {
        for path in fast() {
            for (rows, columns, depth) in [(1, 1, 1), (7, 5, 33), (4, 10, 64), (3, 2, 15), (9, 9, 200)] {
                let (left, right) = (numbers(rows * depth, 1), numbers(columns * depth, 2));
                let (mut found, mut expected) = (vec![0.0; rows * columns], vec![0.0; rows * columns]);
                dots(path, &left, &right, depth, &mut found, columns);
                portable::dots(&left, &right, depth, &mut expected, columns);
                assert_eq!(found, expected, "{path:?} {rows} {columns} {depth}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "beyond its source")]
    fn a_run_beyond_its_source_is_refused() {
        Runs::new(&[0.0; 10], &[ABSENT, 3, 7], 4);
    }
}
