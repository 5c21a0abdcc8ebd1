//! The fourteen operations of automatic augmentation and who chooses among them: TrivialAugment Wide (Müller and Hutter,
//! 2021) and RandAugment (Cubuk et al., 2020). Operations and strengths are those of torchvision 0.29 on Pillow's images, byte
//! for byte: nearest pixels, black from outside.

use crate::seed::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

impl Operation {
    /// With torchvision's names.
    pub const ALL: [(Self, &str); 14] = [
        (Self::Identity, "Identity"),
        (Self::ShearX, "ShearX"),
        (Self::ShearY, "ShearY"),
        (Self::TranslateX, "TranslateX"),
        (Self::TranslateY, "TranslateY"),
        (Self::Rotate, "Rotate"),
        (Self::Brightness, "Brightness"),
        (Self::Color, "Color"),
        (Self::Contrast, "Contrast"),
        (Self::Sharpness, "Sharpness"),
        (Self::Posterize, "Posterize"),
        (Self::Solarize, "Solarize"),
        (Self::AutoContrast, "AutoContrast"),
        (Self::Equalize, "Equalize"),
    ];

    /// Whether its strength is as often negative.
    fn is_signed(self) -> bool {
        use Operation::{Identity, Posterize, Solarize};
        !matches!(self, Identity | Posterize | Solarize | Self::AutoContrast | Self::Equalize)
    }
}

/// How strong operations are at the last of the strengths, which are numbered from 0.
pub struct Space {
    shear: f64,
    /// In pixels.
    translate: f64,
    /// In degrees.
    rotate: f64,
    enhance: f64,
    /// Bits that go.
    posterize: f64,
}

/// The strongest.
const STRONGEST: usize = 30;

impl Space {
    /// That of TrivialAugment Wide: pixels do not depend on the size of the image.
    pub const WIDE: Self = Self { shear: 0.99, translate: 32.0, rotate: 135.0, enhance: 0.99, posterize: 6.0 };

    /// That of RandAugment.
    pub fn rand(side: usize) -> Self {
        Self { shear: 0.3, translate: 150.0 / 331.0 * side as f64, rotate: 30.0, enhance: 0.9, posterize: 4.0 }
    }

    /// What an operation is given at a strength, without its sign.
    pub fn magnitude(&self, operation: Operation, strength: usize) -> f64 {
        match operation {
            Operation::ShearX | Operation::ShearY => linspace(0.0, self.shear, strength),
            Operation::TranslateX | Operation::TranslateY => linspace(0.0, self.translate, strength),
            Operation::Rotate => linspace(0.0, self.rotate, strength),
            Operation::Brightness | Operation::Color | Operation::Contrast | Operation::Sharpness => {
                linspace(0.0, self.enhance, strength)
            }
            Operation::Posterize => 8.0 - (self.posterize * strength as f64 / STRONGEST as f64).round(),
            Operation::Solarize => linspace(255.0, 0.0, strength),
            Operation::Identity | Operation::AutoContrast | Operation::Equalize => 0.0,
        }
    }
}

/// A strength on the way from `start` to `end`, rounded as PyTorch's `linspace` rounds it: in f32, from the nearer end.
fn linspace(start: f64, end: f64, strength: usize) -> f64 {
    let (start, end) = (start as f32, end as f32);
    let step = f64::from((end - start) / STRONGEST as f32);
    let number = if strength < STRONGEST.div_ceil(2) {
        f64::from(start) + step * strength as f64
    } else {
        f64::from(end) - step * (STRONGEST - strength) as f64
    };
    f64::from(number as f32)
}

/// One operation at a random strength.
pub fn trivial_augment(image: &[u8], side: usize, rng: &mut Rng) -> Vec<u8> {
    let operation = Operation::ALL[rng.below(Operation::ALL.len())].0;
    let strength = rng.below(STRONGEST + 1);
    drawn(operation, &Space::WIDE, strength, image, side, rng)
}

/// So many operations, each at the same strength.
pub fn rand_augment(operations: usize, strength: usize, image: &[u8], side: usize, rng: &mut Rng) -> Vec<u8> {
    let mut pixels = image.to_vec();
    for _ in 0..operations {
        let operation = Operation::ALL[rng.below(Operation::ALL.len())].0;
        pixels = drawn(operation, &Space::rand(side), strength, &pixels, side, rng);
    }
    pixels
}

fn drawn(operation: Operation, space: &Space, strength: usize, image: &[u8], side: usize, rng: &mut Rng) -> Vec<u8> {
    let magnitude = space.magnitude(operation, strength);
    let sign = if operation.is_signed() && rng.chance(0.5) { -1.0 } else { 1.0 };
    apply(operation, sign * magnitude, image, side)
}

/// The RGB bytes of a square image after an operation.
pub fn apply(operation: Operation, magnitude: f64, image: &[u8], side: usize) -> Vec<u8> {
    match operation {
        Operation::Identity => image.to_vec(),
        Operation::ShearX => affine(image, side, [1.0, magnitude, 0.0, 0.0, 1.0, 0.0]),
        Operation::ShearY => affine(image, side, [1.0, 0.0, 0.0, magnitude, 1.0, 0.0]),
        Operation::TranslateX => affine(image, side, [1.0, 0.0, -magnitude.trunc(), 0.0, 1.0, 0.0]),
        Operation::TranslateY => affine(image, side, [1.0, 0.0, 0.0, 0.0, 1.0, -magnitude.trunc()]),
        Operation::Rotate => rotate(image, side, magnitude),
        Operation::Brightness => blended(&vec![0; image.len()], image, 1.0 + magnitude),
        Operation::Color => {
            blended(&greys(image).flat_map(|grey| [grey; 3]).collect::<Vec<u8>>(), image, 1.0 + magnitude)
        }
        Operation::Contrast => {
            let mean = greys(image).map(f64::from).sum::<f64>() / (image.len() / 3) as f64;
            blended(&vec![(mean + 0.5) as u8; image.len()], image, 1.0 + magnitude)
        }
        Operation::Sharpness => blended(&smooth(image, side), image, 1.0 + magnitude),
        Operation::Posterize => {
            let kept = 0xff_u8 << (8 - (magnitude as u32).clamp(1, 8));
            image.iter().map(|value| value & kept).collect()
        }
        Operation::Solarize => {
            image.iter().map(|value| if f64::from(*value) < magnitude { *value } else { 255 - value }).collect()
        }
        Operation::AutoContrast => by_channel(image, stretched),
        Operation::Equalize => by_channel(image, equalized),
    }
}

/// Each pixel from where `matrix` says that it comes from, (a x + b y + c, d x + e y + f) of its middle; in 2^-16,
/// as Pillow counts.
fn affine(image: &[u8], side: usize, [a, b, c, d, e, f]: [f64; 6]) -> Vec<u8> {
    let fixed = |number: f64| (number * 65536.0 + 0.5).floor() as i64;
    let (right, down) = ([fixed(a), fixed(d)], [fixed(b), fixed(e)]);
    let first = [fixed(c + 0.5 * a + 0.5 * b), fixed(f + 0.5 * d + 0.5 * e)];
    let inside = |at: i64| usize::try_from(at >> 16).ok().filter(|at| *at < side);
    let mut turned = vec![0; image.len()];
    for (at, pixel) in turned.chunks_exact_mut(3).enumerate() {
        let (x, y) = ((at % side) as i64, (at / side) as i64);
        let [column, row] = [0, 1].map(|axis| inside(first[axis] + x * right[axis] + y * down[axis]));
        if let Some((column, row)) = column.zip(row) {
            pixel.copy_from_slice(&image[(row * side + column) * 3..][..3]);
        }
    }
    turned
}

/// Turned about its middle, counter-clockwise.
fn rotate(image: &[u8], side: usize, degrees: f64) -> Vec<u8> {
    let angle = -degrees.rem_euclid(360.0).to_radians();
    // To fifteen places, as Pillow does: a right angle is one.
    let round = |number: f64| (number * 1e15).round() / 1e15;
    let (sin, cos) = (round(libm::sin(angle)), round(libm::cos(angle)));
    let middle = side as f64 / 2.0;
    let (c, f) = (middle - cos * middle - sin * middle, middle + sin * middle - cos * middle);
    affine(image, side, [cos, sin, c, -sin, cos, f])
}

/// `from` and `to`, and beyond `to`: from + much (to - from), cut off and rounded to zero.
fn blended(from: &[u8], to: &[u8], much: f64) -> Vec<u8> {
    let much = much as f32;
    let blend = |(from, to): (&u8, &u8)| {
        let (from, to) = (f32::from(*from), f32::from(*to));
        (from + much * (to - from)) as u8
    };
    from.iter().zip(to).map(blend).collect()
}

/// The luminance of each pixel (ITU-R 601, in 2^-16).
fn greys(image: &[u8]) -> impl Iterator<Item = u8> {
    let grey = |pixel: &[u8]| {
        let [red, green, blue] = [0, 1, 2].map(|channel| u32::from(pixel[channel]));
        ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16) as u8
    };
    image.chunks_exact(3).map(grey)
}

/// The mean of each pixel and its neighbours, itself counting five times; what is at the edge stays.
fn smooth(image: &[u8], side: usize) -> Vec<u8> {
    let mut smooth = image.to_vec();
    for y in 1..side.saturating_sub(1) {
        for x in 1..side - 1 {
            for channel in 0..3 {
                let at = |row: usize, column: usize| u32::from(image[(row * side + column) * 3 + channel]);
                let around: u32 = (y - 1..=y + 1).map(|row| at(row, x - 1) + at(row, x) + at(row, x + 1)).sum();
                smooth[(y * side + x) * 3 + channel] = ((2 * (around + 4 * at(y, x)) + 13) / 26) as u8;
            }
        }
    }
    smooth
}

/// Each channel through a table that is made of how often it has each value.
fn by_channel(image: &[u8], table: impl Fn(&[usize; 256]) -> [u8; 256]) -> Vec<u8> {
    let tables = [0, 1, 2].map(|channel| {
        let mut counts = [0; 256];
        image.iter().skip(channel).step_by(3).for_each(|value| counts[usize::from(*value)] += 1);
        table(&counts)
    });
    image.iter().enumerate().map(|(at, value)| tables[at % 3][usize::from(*value)]).collect()
}

fn same() -> [u8; 256] {
    std::array::from_fn(|value| value as u8)
}

/// From the least to the greatest value over all of the scale.
fn stretched(counts: &[usize; 256]) -> [u8; 256] {
    let (low, high) = (counts.iter().position(|count| *count > 0), counts.iter().rposition(|count| *count > 0));
    match low.zip(high) {
        Some((low, high)) if low < high => {
            let scale = 255.0 / (high - low) as f64;
            let offset = -(low as f64) * scale;
            std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
        }
        _ => same(),
    }
}

/// So that each part of the scale has as many pixels.
fn equalized(counts: &[usize; 256]) -> [u8; 256] {
    let last = counts.iter().rev().find(|count| **count > 0).copied().unwrap_or(0);
    let step = (counts.iter().sum::<usize>() - last) / 255;
    if step == 0 {
        return same();
    }
    let mut below = step / 2;
    counts.map(|count| {
        let value = (below / step).min(255) as u8;
        below += count;
        value
    })
}
