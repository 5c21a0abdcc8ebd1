//! From bytes to the numbers that a network reads, and the order in which a training set is read.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::preprocess::{Change, Preprocess};
use crate::seed::{Stream, stream};

/// What preprocessing makes of the bytes of a pixel: for each plane the byte that it takes, and value * scale + shift.
pub fn planes(preprocess: Preprocess) -> [(usize, f32, f32); 3] {
    match preprocess.change() {
        Change::Standard(own) => standardised(own.mean(), own.deviation()),
        Change::Minus { numbers, blue_first } => {
            [0, 1, 2].map(|plane| (if blue_first { 2 - plane } else { plane }, 1.0, -numbers[plane]))
        }
    }
}

/// Of what is between 0 and 1: minus the mean, over the deviation.
fn standardised(mean: [f32; 3], deviation: [f32; 3]) -> [(usize, f32, f32); 3] {
    [0, 1, 2].map(|channel| (channel, 1.0 / (255.0 * deviation[channel]), -mean[channel] / deviation[channel]))
}

/// Appends one image, RGB bytes row by row, to `batch` as three planes of f32.
pub fn normalise(image: &[u8], preprocess: Preprocess, batch: &mut Vec<f32>) {
    for (channel, scale, shift) in planes(preprocess) {
        batch.extend(image.chunks_exact(3).map(|pixel| f32::from(pixel[channel]) * scale + shift));
    }
}

/// Writes the images of samples one after the other, side by side on all threads; `image` gives the bytes of one.
pub fn gather<'a>(samples: &[u32], into: &mut [u8], image: impl Fn(u32) -> Cow<'a, [u8]> + Sync) {
    let size = into.len() / samples.len().max(1);
    let each = into.par_chunks_exact_mut(size.max(1)).zip(samples);
    each.for_each(|(into, sample)| into.copy_from_slice(&image(*sample)));
}

/// The training samples of an epoch in the order in which they are read. Paired: it depends on the seed, the
/// replicate and the epoch, never on the arm.
pub fn order(train: &[u32], seed: u64, replicate: u64, epoch: u64) -> Vec<u32> {
    let mut order = train.to_vec();
    stream(seed, Stream::Order, &[replicate, epoch]).shuffle(&mut order);
    order
}
