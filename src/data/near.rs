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
/// Side of a square of pixels whose sum stands for them where images are clearly different.
const BLOCK: usize = 4;
const BLOCKS: usize = (SIDE / BLOCK) * (SIDE / BLOCK) * 3;
const UNIT: f64 = 8192.0;

/// What makes a list of pairs another one, for the names of files that keep it.
pub const METHOD: &str = "thumbnails of 16, .003, .08, .2 of the 10th";

/// A test image and a training or validation image that looks the same, as positions in the manifest.
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
    /// RGB, row by row.
    pixels: Vec<u8>,
    /// Of each channel.
    sums: [i64; 3],
    /// The length of the pixels less their channel's mean.
    length: f64,
    /// Sums of blocks of the same, over `length` and the side of a block, times `UNIT`: but for rounding, their squared
    /// distances are never larger than those of all pixels.
    blocks: [i16; BLOCKS],
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
        let wanted = samples.filter(|(_, sample)| (sample.part == Part::Test) == test);
        let made = wanted.filter_map(|(index, _)| match image(index) {
            Ok(image) => Thumbnail::of(&image?).map(|found| Some((index as u32, found?))).transpose(),
            Err(error) => Some(Err(error)),
        });
        made.collect()
    };
    let (test, train) = (thumbnails(true)?, thumbnails(false)?);
    Ok(test.par_iter().flat_map_iter(|(index, thumbnail)| near(*index, thumbnail, &train)).collect())
}

/// The same of a dataset whose images are decoded for it, each whole.
///
/// # Errors
/// An image cannot be used.
pub fn of_dataset(dataset: &Dataset) -> anyhow::Result<Vec<Pair>> {
    let all: Vec<usize> = (0..dataset.manifest.samples.len()).collect();
    let small = std::sync::Mutex::new(vec![None; all.len()]);
    dataset.decode(&all, |index, image| {
        let pixels = square(&image, FRAME).map_err(anyhow::Error::msg)?;
        let mut small = small.lock().map_err(|_| anyhow::anyhow!("another image has failed"))?;
        small[index] = Some(Rgb { width: SIDE as u32, height: SIDE as u32, pixels });
        Ok(())
    })?;
    let small = small.into_inner()?;
    pairs(&dataset.manifest, |index| Ok(small[index].clone()))
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

const FRAME: Frame = Frame { side: SIDE, resize: Resize::Stretch };

/// The training images that a test image is a near-duplicate of.
fn near(test: u32, thumbnail: &Thumbnail, train: &[(u32, Thumbnail)]) -> Vec<Pair> {
    let mirrored = thumbnail.mirrored();
    let mut found: Vec<Pair> = Vec::new();
    for (index, other) in train {
        let distances =
            [thumbnail, &mirrored].map(|own| if own.clearly_differs(other) { 1.0 } else { own.distance(other) });
        let distance = distances[0].min(distances[1]);
        if distance < NEAR {
            found.push(Pair { test, train: *index, distance, mirrored: distances[1] < distances[0] });
        }
    }
    if found.iter().all(|pair| pair.distance < SAME) {
        return found;
    }
    let mut all: Vec<f64> = train.iter().map(|(_, other)| thumbnail.distance(other)).collect();
    let place = NEIGHBOUR.min(all.len()) - 1;
    let (_, neighbour, _) = all.select_nth_unstable_by(place, f64::total_cmp);
    let limit = SAME.max(NEAR.min(SHARE * *neighbour));
    found.retain(|pair| pair.distance < limit);
    found
}

impl Thumbnail {
    /// Nothing of an image that shows nothing.
    fn of(image: &Rgb) -> anyhow::Result<Option<Self>> {
        let pixels = square(image, FRAME).map_err(anyhow::Error::msg)?;
        Ok(Self::new(pixels))
    }

    fn new(pixels: Vec<u8>) -> Option<Self> {
        let mut sums = [0; 3];
        pixels.iter().enumerate().for_each(|(at, value)| sums[at % 3] += i64::from(*value));
        let squares: i64 = pixels.iter().map(|value| i64::from(*value).pow(2)).sum();
        let length = (squares as f64 - product_of_means(sums, sums)).max(0.0).sqrt();
        let blocks = blocks(&pixels, sums, length);
        (length >= FLAT * (NUMBERS as f64).sqrt()).then_some(Self { pixels, sums, length, blocks })
    }

    fn mirrored(&self) -> Self {
        let rows = self.pixels.chunks_exact(3 * SIDE);
        let pixels: Vec<u8> = rows.flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
        Self { blocks: blocks(&pixels, self.sums, self.length), pixels, ..*self }
    }

    /// From sums of whole numbers, so the same on every machine.
    fn distance(&self, other: &Self) -> f64 {
        let product: i32 =
            self.pixels.iter().zip(&other.pixels).map(|(one, other)| i32::from(*one) * i32::from(*other)).sum();
        let product = f64::from(product) - product_of_means(self.sums, other.sums);
        (1.0 - product / (self.length * other.length)).max(0.0)
    }

    /// Whether blocks alone say that two are no near-duplicates: half the squared distance of vectors of length one is
    /// one minus their product.
    fn clearly_differs(&self, other: &Self) -> bool {
        /// More than what rounding may add.
        const SLACK: f64 = 0.001;
        const LIMIT: i32 = (2.0 * (NEAR + SLACK) * UNIT * UNIT) as i32;
        let differences = self.blocks.iter().zip(&other.blocks).map(|(one, other)| i32::from(one - other));
        differences.map(|difference| difference * difference).sum::<i32>() > LIMIT
    }
}

/// What the means of the channels of two thumbnails have in their product.
fn product_of_means(one: [i64; 3], other: [i64; 3]) -> f64 {
    let products: i64 = one.iter().zip(other).map(|(one, other)| one * other).sum();
    products as f64 / (SIDE * SIDE) as f64
}

fn blocks(pixels: &[u8], of_channels: [i64; 3], length: f64) -> [i16; BLOCKS] {
    let mut sums = [0f64; BLOCKS];
    for (at, value) in pixels.iter().enumerate() {
        let (y, x, channel) = (at / (3 * SIDE), at / 3 % SIDE, at % 3);
        let block = (y / BLOCK * (SIDE / BLOCK) + x / BLOCK) * 3 + channel;
        sums[block] += f64::from(*value) - of_channels[channel] as f64 / (SIDE * SIDE) as f64;
    }
    sums.map(|sum| (sum / length / BLOCK as f64 * UNIT) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic::Family;

    /// Smooth images, as photographs are.
    fn photograph(index: usize) -> Rgb {
        let family = Family { classes: 2, shift: 0.0, task: 0, train: 100, test: 100 };
        let small = family.image(&format!("train/000/{index:05}")).expect("an image");
        let pixels = square(&small, Frame { side: 64, resize: Resize::Stretch }).expect("a square");
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
                    let mix = |(a, b): (&u8, &u8)| ((1.0 - share) * f64::from(*a) + share * f64::from(*b)) as u8;
                    let between = Thumbnail::new(one.pixels.iter().zip(&other.pixels).map(mix).collect());
                    let between = between.expect("something to see");
                    if between.distance(other) < NEAR {
                        near += 1;
                        assert!(!between.clearly_differs(other));
                    }
                }
            }
        }
        assert!(near > 3600, "{near}");
        assert!(all[0].clearly_differs(&all[1]));
    }

    #[test]
    fn an_image_without_contrast_is_no_duplicate_of_another() {
        let grey = |value: u8| Rgb { width: 20, height: 20, pixels: vec![value; 1200] };
        assert!(Thumbnail::of(&grey(7)).expect("a square").is_none());
    }
}
