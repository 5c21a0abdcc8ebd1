//! From bytes to the numbers that a network reads, and the order in which a training set is read.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::recipe::Preprocess;
use crate::seed::{Stream, stream};

/// What preprocessing makes of the bytes of a pixel: for each plane the byte that it takes, and value * scale + shift.
pub fn planes(preprocess: Preprocess) -> [(usize, f32, f32); 3] {
    match preprocess {
        Preprocess::Caffe => [(2, 1.0, -103.939), (1, 1.0, -116.779), (0, 1.0, -123.68)],
        Preprocess::Tf => [0, 1, 2].map(|channel| (channel, 1.0 / 127.5, -1.0)),
        Preprocess::Torch => standardised([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        Preprocess::Clip => {
            // To the digits that f32 has.
            standardised([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1])
        }
        Preprocess::CaffeRgb => {
            let mean = [0.48235f32, 0.45882, 0.40784];
            [0, 1, 2].map(|channel| (channel, 1.0, -255.0 * mean[channel]))
        }
        Preprocess::ZeroOne => [0, 1, 2].map(|channel| (channel, 1.0 / 255.0, 0.0)),
        Preprocess::None => [0, 1, 2].map(|channel| (channel, 1.0, 0.0)),
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
