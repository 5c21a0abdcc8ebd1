//! Near-duplicates: test images that are training images once more, compressed, scaled, brightened, mirrored or cut a
//! little otherwise.
//!
//! Images are compared as thumbnails of 16 x 16 pixels by one minus their correlation, with each channel's mean taken off,
//! so that neither brightness nor contrast nor a tint counts. Two are near-duplicates where that distance is below `SAME`;
//! or below `NEAR`, and below a fifth of the distance to the tenth nearest training image, because some classes look alike
//! by nature (handwritten ones are within .01 of each other, photographs of one class seldom within .1). The limits were
//! read off pairs of CIFAR-10 and MNIST; what they find there stands in benches/README.md.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::decode::{Rgb, square};
use super::open::Dataset;
use super::packed::Packed;
use super::{Manifest, Part};
use crate::frame::{Frame, Resize};

/// Below what saving an image once more as a JPEG costs, and below all distances between different ones of MNIST.
const SAME: f64 = 0.003;
const NEAR: f64 = 0.08;
/// The part of the distance to the `NEIGHBOUR`th nearest training image that a near-duplicate stays below.
const SHARE: f64 = 0.2;
const NEIGHBOUR: usize = 10;
/// Standard deviation of 8-bit values below which a thumbnail shows nothing that could be compared.
const FLAT: f64 = 2.0;

const SIDE: usize = 16;
const NUMBERS: usize = SIDE * SIDE * 3;
/// Numbers of squares of 4 x 4 and of 2 x 2 pixels, whose sums stand for them where images are clearly different.
const COARSE: usize = 4 * 4 * 3;
const MIDDLE: usize = 8 * 8 * 3;
const UNIT: f64 = 8192.0;

/// What makes a list of pairs another one, for the names of files that keep it.
pub const METHOD: &str = "thumbnails of 16, .003, .08, .2 of the 10th";

/// A test image and a training or validation image that looks the same, as positions in the manifest. Two that are in folds
/// are a pair both ways.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    pub test: u32,
    pub train: u32,
    /// One minus the correlation of the thumbnails, from 0.
    pub distance: f64,
    /// Whether one is the other's mirror image.
    pub mirrored: bool,
}

/// What of an image is compared.
struct Thumbnail {
    /// RGB, row by row, 8 bits each: kept in 16, which processors multiply and add at once.
    pixels: Vec<i16>,
    /// Of each channel.
    sums: [i64; 3],
    /// The length of the pixels less their channel's mean.
    length: f64,
    /// Sums of blocks of the same, over `length` and the side of a block, times `UNIT`: but for rounding, their squared
    /// distances are never larger than those of all pixels.
    coarse: [i16; COARSE],
    middle: [i16; MIDDLE],
}

/// All pairs among the samples of `manifest` that `image` has pixels of.
///
/// # Errors
/// What `image` returns, or an image that cannot be scaled.
pub fn pairs(
    manifest: &Manifest,
    image: impl Fn(usize) -> anyhow::Result<Option<Rgb>> + Sync,
) -> anyhow::Result<Vec<Pair>> {
    let thumbnails = |test: bool| -> anyhow::Result<Vec<(u32, Thumbnail)>> {
        let samples = manifest.samples.par_iter().enumerate();
        let wanted =
            samples.filter(|(at, sample)| if test { manifest.is_compared(*at) } else { sample.part.is_learned() });
        let made = wanted.filter_map(|(index, _)| match image(index) {
            Ok(image) => Thumbnail::of(&image?).map(|found| Some((index as u32, found?))).transpose(),
            Err(error) => Some(Err(error)),
        });
        made.collect()
    };
    let (test, train) = (thumbnails(true)?, thumbnails(false)?);
    // Side by side: nearly all pairs are told apart by these alone.
    let coarse: Vec<[i16; COARSE]> = train.iter().map(|(_, thumbnail)| thumbnail.coarse).collect();
    Ok(test.par_iter().flat_map_iter(|(index, thumbnail)| near(*index, thumbnail, &train, &coarse)).collect())
}

/// The same of a dataset whose images are decoded for it, each whole.
///
/// # Errors
/// An image cannot be used.
pub fn of_dataset(dataset: &Dataset) -> anyhow::Result<Vec<Pair>> {
    decoded(dataset, &dataset.manifest)
}

/// Those among the images that are still to be dealt into some to train and some to test on.
///
/// # Errors
/// An image cannot be used.
pub fn before_dealt(dataset: &Dataset) -> anyhow::Result<Vec<Pair>> {
    let mut manifest = dataset.manifest.clone();
    manifest.samples.iter_mut().filter(|sample| sample.part == Part::Train).for_each(|sample| sample.part = Part::Fold);
    decoded(dataset, &manifest)
}

fn decoded(dataset: &Dataset, manifest: &Manifest) -> anyhow::Result<Vec<Pair>> {
    let all: Vec<usize> = (0..dataset.manifest.samples.len()).collect();
    let small = std::sync::Mutex::new(vec![None; all.len()]);
    dataset.decode(&all, &|index, image| {
        let pixels = square(&image, FRAME).map_err(anyhow::Error::msg)?;
        let mut small = small.lock().map_err(|_| anyhow::anyhow!("another image has failed"))?;
        small[index] = Some(Rgb { width: SIDE as u32, height: SIDE as u32, pixels });
        Ok(())
    })?;
    let small = small.into_inner()?;
    pairs(manifest, |index| Ok(small[index].clone()))
}

/// The same of packed images, as networks see them; those that are not packed are left out.
///
/// # Errors
/// An image cannot be scaled.
pub fn of_packed(manifest: &Manifest, packed: &Packed, there: &[bool]) -> anyhow::Result<Vec<Pair>> {
    let side = packed.side as u32;
    let image = |index: usize| Rgb { width: side, height: side, pixels: packed.image(index).to_vec() };
    pairs(manifest, |index| Ok(there[index].then(|| image(index))))
}

const FRAME: Frame = Frame { side: SIDE, resize: Resize::STRETCH };

/// The training images that a test image is a near-duplicate of.
fn near(test: u32, thumbnail: &Thumbnail, train: &[(u32, Thumbnail)], coarse: &[[i16; COARSE]]) -> Vec<Pair> {
    let mirrored = thumbnail.mirrored();
    let mut found: Vec<Pair> = Vec::new();
    for ((index, other), coarse) in train.iter().zip(coarse).filter(|((index, _), _)| *index != test) {
        let distances = [thumbnail, &mirrored].map(|own| {
            let differs = clearly_differ(&own.coarse, coarse) || clearly_differ(&own.middle, &other.middle);
            if differs { 1.0 } else { own.distance(other) }
        });
        let distance = distances[0].min(distances[1]);
        if distance < NEAR {
            found.push(Pair { test, train: *index, distance, mirrored: distances[1] < distances[0] });
        }
    }
    if found.iter().all(|pair| pair.distance < SAME) {
        return found;
    }
    let limit = SAME.max(SHARE * neighbour(test, thumbnail, train, &found));
    found.retain(|pair| pair.distance < limit);
    found
}

/// The distance to the `NEIGHBOUR`th nearest training image; or to any that is as near, where it leaves none of `found`.
fn neighbour(test: u32, thumbnail: &Thumbnail, train: &[(u32, Thumbnail)], found: &[Pair]) -> f64 {
    let nearest = found.iter().map(|pair| pair.distance).fold(f64::INFINITY, f64::min);
    let mut nearer = Vec::with_capacity(NEIGHBOUR + 1);
    for (_, other) in train.iter().filter(|(index, _)| *index != test) {
        let distance = thumbnail.distance(other);
        let place = nearer.partition_point(|known| *known <= distance);
        if place < NEIGHBOUR {
            nearer.insert(place, distance);
            nearer.truncate(NEIGHBOUR);
        }
        // Classes that look alike by nature fill the list soon.
        if nearer.len() == NEIGHBOUR && SHARE * nearer[NEIGHBOUR - 1] <= nearest {
            break;
        }
    }
    nearer.last().copied().unwrap_or(f64::INFINITY)
}

impl Thumbnail {
    /// Nothing of an image that shows nothing.
    fn of(image: &Rgb) -> anyhow::Result<Option<Self>> {
        let pixels = square(image, FRAME).map_err(anyhow::Error::msg)?;
        Ok(Self::new(pixels.into_iter().map(i16::from).collect()))
    }

    fn new(pixels: Vec<i16>) -> Option<Self> {
        let mut sums = [0; 3];
        pixels.iter().enumerate().for_each(|(at, value)| sums[at % 3] += i64::from(*value));
        let squares: i64 = pixels.iter().map(|value| i64::from(*value).pow(2)).sum();
        let length = (squares as f64 - product_of_means(sums, sums)).max(0.0).sqrt();
        let (coarse, middle) = (blocks(&pixels, sums, length), blocks(&pixels, sums, length));
        (length >= FLAT * (NUMBERS as f64).sqrt()).then_some(Self { pixels, sums, length, coarse, middle })
    }

    fn mirrored(&self) -> Self {
        let rows = self.pixels.chunks_exact(3 * SIDE);
        let pixels: Vec<i16> = rows.flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
        let (coarse, middle) = (blocks(&pixels, self.sums, self.length), blocks(&pixels, self.sums, self.length));
        Self { pixels, coarse, middle, ..*self }
    }

    /// From sums of whole numbers, so the same on every machine.
    fn distance(&self, other: &Self) -> f64 {
        let products = self.pixels.iter().zip(&other.pixels).map(|(one, other)| i32::from(*one) * i32::from(*other));
        let product: i32 = products.sum();
        let product = f64::from(product) - product_of_means(self.sums, other.sums);
        (1.0 - product / (self.length * other.length)).max(0.0)
    }
}

/// Whether blocks alone say that two are no near-duplicates: half the squared distance of vectors of length one is one
/// minus their product.
fn clearly_differ<const N: usize>(one: &[i16; N], other: &[i16; N]) -> bool {
    /// More than what rounding may add.
    const SLACK: f64 = 0.002;
    const LIMIT: i32 = (2.0 * (NEAR + SLACK) * UNIT * UNIT) as i32;
    let differences = one.iter().zip(other).map(|(one, other)| i32::from(one - other));
    differences.map(|difference| difference * difference).sum::<i32>() > LIMIT
}

/// What the means of the channels of two thumbnails have in their product.
fn product_of_means(one: [i64; 3], other: [i64; 3]) -> f64 {
    let products: i64 = one.iter().zip(other).map(|(one, other)| one * other).sum();
    products as f64 / (SIDE * SIDE) as f64
}

fn blocks<const N: usize>(pixels: &[i16], of_channels: [i64; 3], length: f64) -> [i16; N] {
    let across = (N / 3).isqrt();
    let side = SIDE / across;
    let mut sums = [0f64; N];
    for (at, value) in pixels.iter().enumerate() {
        let (y, x, channel) = (at / (3 * SIDE), at / 3 % SIDE, at % 3);
        let block = (y / side * across + x / side) * 3 + channel;
        sums[block] += f64::from(*value) - of_channels[channel] as f64 / (SIDE * SIDE) as f64;
    }
    sums.map(|sum| (sum / length / side as f64 * UNIT) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic::Family;

    /// Smooth images, as photographs are.
    fn photograph(index: usize) -> Rgb {
        let family = Family { classes: 2, shift: 0.0, task: 0, train: 100, test: 100 };
        let small = family.image(&format!("train/000/{index:05}")).expect("an image");
        let pixels = square(&small, Frame { side: 64, resize: Resize::STRETCH }).expect("a square");
        Rgb { width: 64, height: 64, pixels }
    }

    fn thumbnail(image: &Rgb) -> Thumbnail {
        Thumbnail::of(image).expect("a thumbnail").expect("something to see")
    }

    #[test]
    fn blocks_never_call_two_different_that_are_near() {
        let all: Vec<Thumbnail> = (0..60).map(|index| thumbnail(&photograph(index))).collect();
        let mut near = 0;
        for one in &all {
            for other in &all {
                // Between the two, ever nearer to the other.
                for share in [0.0, 0.5, 0.7, 0.8, 0.9, 1.0] {
                    let mix = |(a, b): (&i16, &i16)| ((1.0 - share) * f64::from(*a) + share * f64::from(*b)) as i16;
                    let between = Thumbnail::new(one.pixels.iter().zip(&other.pixels).map(mix).collect());
                    let between = between.expect("something to see");
                    if between.distance(other) < NEAR {
                        near += 1;
                        assert!(!clearly_differ(&between.coarse, &other.coarse));
                        assert!(!clearly_differ(&between.middle, &other.middle));
                    }
                }
            }
        }
        assert!(near > 3600, "{near}");
        assert!(clearly_differ(&all[0].coarse, &all[1].coarse));
    }

    #[test]
    fn an_image_without_contrast_is_no_duplicate_of_another() {
        let grey = |value: u8| Rgb { width: 20, height: 20, pixels: vec![value; 1200] };
        assert!(Thumbnail::of(&grey(7)).expect("a square").is_none());
    }
}
