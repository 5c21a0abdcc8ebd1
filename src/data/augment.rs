//! Random changes of training images. Each image and epoch has a stream of its own, so what is drawn depends neither
//! on the batch nor on who else reads the image.

use super::policy::{rand_augment, trivial_augment};
use crate::augmentation::Augmentation;
use crate::seed::Rng;

/// Applies `list` in its order to the RGB bytes of a square image and returns new bytes. What mixes images of a batch changes
/// none alone (`data::mix`).
pub fn augment(list: &[Augmentation], image: &[u8], side: usize, rng: &mut Rng) -> Vec<u8> {
    let mut pixels = image.to_vec();
    for augmentation in list {
        pixels = match augmentation {
            Augmentation::Flip if rng.chance(0.5) => flip(&pixels, side),
            Augmentation::VerticalFlip if rng.chance(0.5) => upside_down(&pixels, side),
            Augmentation::QuarterTurns => (0..rng.below(4)).fold(pixels, |pixels, _| quarter_turn(&pixels, side)),
            Augmentation::Rotate(most) => rotate(&pixels, side, rng.range(-most, *most)),
            Augmentation::Crop => crop(&pixels, side, rng),
            Augmentation::ResizedCrop(least) => resized_crop(&pixels, side, *least, rng),
            Augmentation::Jitter => jitter(pixels, rng),
            Augmentation::TrivialAugment => trivial_augment(&pixels, side, rng),
            Augmentation::RandAugment { operations, magnitude } => {
                rand_augment(*operations, *magnitude, &pixels, side, rng)
            }
            Augmentation::Erase(probability) if rng.chance(*probability) => erase(pixels, side, rng),
            Augmentation::Flip | Augmentation::VerticalFlip | Augmentation::Erase(_) => pixels,
            Augmentation::MixUp(_) | Augmentation::CutMix(_) => pixels,
        };
    }
    pixels
}

fn flip(image: &[u8], side: usize) -> Vec<u8> {
    image.chunks_exact(side * 3).flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect()
}

fn upside_down(image: &[u8], side: usize) -> Vec<u8> {
    image.chunks_exact(side * 3).rev().flatten().copied().collect()
}

/// Turned by 90 degrees: the last column becomes the first row.
fn quarter_turn(image: &[u8], side: usize) -> Vec<u8> {
    let places = (0..side).rev().flat_map(|column| (0..side).map(move |row| row * side + column));
    places.flat_map(|at| image[at * 3..][..3].iter().copied()).collect()
}

/// Turned about its middle, bilinearly; what is outside is black.
fn rotate(image: &[u8], side: usize, degrees: f64) -> Vec<u8> {
    let angle = degrees.to_radians();
    let (sin, cos, middle) = (libm::sin(angle), libm::cos(angle), (side as f64 - 1.0) / 2.0);
    let at = |row: f64, column: f64, channel: usize| {
        let inside = |at: f64| (at >= 0.0 && at < side as f64).then_some(at as usize);
        inside(row)
            .zip(inside(column))
            .map_or(0.0, |(row, column)| f64::from(image[(row * side + column) * 3 + channel]))
    };
    let mut turned = vec![0; image.len()];
    for (place, pixel) in turned.chunks_exact_mut(3).enumerate() {
        let (x, y) = ((place % side) as f64 - middle, (place / side) as f64 - middle);
        let (column, row) = (cos * x - sin * y + middle, sin * x + cos * y + middle);
        let (left, top) = (column.floor(), row.floor());
        let (right, down) = (column - left, row - top);
        for (channel, value) in pixel.iter_mut().enumerate() {
            let upper = at(top, left, channel) * (1.0 - right) + at(top, left + 1.0, channel) * right;
            let lower = at(top + 1.0, left, channel) * (1.0 - right) + at(top + 1.0, left + 1.0, channel) * right;
            *value = (upper * (1.0 - down) + lower * down).round() as u8;
        }
    }
    turned
}

/// Random numbers in a rectangle of 2% to 33% of the area at an aspect of 0.3 to 3.3, ten tries, else nothing.
fn erase(mut image: Vec<u8>, side: usize, rng: &mut Rng) -> Vec<u8> {
    let full = side as f64;
    for _ in 0..10 {
        let area = rng.range(0.02, 0.33) * full * full;
        let aspect = libm::exp(rng.range(libm::log(0.3), libm::log(3.3)));
        let (height, width) = ((area * aspect).sqrt().round() as usize, (area / aspect).sqrt().round() as usize);
        if height >= side || width >= side {
            continue;
        }
        let (top, left) = (rng.below(side - height + 1), rng.below(side - width + 1));
        for row in top..top + height {
            image[3 * (row * side + left)..3 * (row * side + left + width)]
                .iter_mut()
                .for_each(|value| *value = rng.below(256) as u8);
        }
        break;
    }
    image
}

/// A window of the old size out of the image with black borders of an eighth.
fn crop(image: &[u8], side: usize, rng: &mut Rng) -> Vec<u8> {
    let border = side.div_ceil(8);
    let (top, left) = (rng.below(2 * border + 1), rng.below(2 * border + 1));
    let mut cropped = vec![0; image.len()];
    let inside = |at: usize, offset: usize| (at + offset).checked_sub(border).filter(|at| *at < side);
    for y in 0..side {
        let Some(from) = inside(y, top) else { continue };
        for x in 0..side {
            if let Some(column) = inside(x, left) {
                cropped[(y * side + x) * 3..][..3].copy_from_slice(&image[(from * side + column) * 3..][..3]);
            }
        }
    }
    cropped
}

/// `least` to all of the area at an aspect of 3/4 to 4/3, ten tries, else the whole; scaled back bilinearly.
fn resized_crop(image: &[u8], side: usize, least: f64, rng: &mut Rng) -> Vec<u8> {
    let full = side as f64;
    let mut window = (0.0, 0.0, full, full);
    for _ in 0..10 {
        let area = rng.range(least, 1.0) * full * full;
        let aspect = libm::exp(rng.range(libm::log(0.75), libm::log(4.0 / 3.0)));
        let (width, height) = ((area * aspect).sqrt(), (area / aspect).sqrt());
        if width <= full && height <= full {
            window = (rng.range(0.0, full - height), rng.range(0.0, full - width), height, width);
            break;
        }
    }
    let (top, left, height, width) = window;
    let mut scaled = vec![0; image.len()];
    for y in 0..side {
        for x in 0..side {
            let row = top + (y as f64 + 0.5) * height / full - 0.5;
            let column = left + (x as f64 + 0.5) * width / full - 0.5;
            for channel in 0..3 {
                scaled[(y * side + x) * 3 + channel] = sample(image, side, row, column, channel);
            }
        }
    }
    scaled
}

fn sample(image: &[u8], side: usize, row: f64, column: f64, channel: usize) -> u8 {
    let last = (side - 1) as f64;
    let (row, column) = (row.clamp(0.0, last), column.clamp(0.0, last));
    let (top, left) = (row.floor(), column.floor());
    let at = |y: f64, x: f64| f64::from(image[(y.min(last) as usize * side + x.min(last) as usize) * 3 + channel]);
    let (down, right) = (row - top, column - left);
    let upper = at(top, left) * (1.0 - right) + at(top, left + 1.0) * right;
    let lower = at(top + 1.0, left) * (1.0 - right) + at(top + 1.0, left + 1.0) * right;
    (upper * (1.0 - down) + lower * down).round() as u8
}

/// Brightness, contrast (around the mean grey) and saturation, each times 0.6 to 1.4, in this order.
fn jitter(mut pixels: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
    let [brightness, contrast, saturation] = [0; 3].map(|_| rng.range(0.6, 1.4));
    let grey = |pixel: &[u8]| 0.299 * f64::from(pixel[0]) + 0.587 * f64::from(pixel[1]) + 0.114 * f64::from(pixel[2]);
    let clip = |value: f64| value.round().clamp(0.0, 255.0) as u8;
    pixels.iter_mut().for_each(|value| *value = clip(f64::from(*value) * brightness));
    let mean = pixels.chunks_exact(3).map(grey).sum::<f64>() / (pixels.len() / 3) as f64;
    pixels.iter_mut().for_each(|value| *value = clip(mean + (f64::from(*value) - mean) * contrast));
    for pixel in pixels.chunks_exact_mut(3) {
        let own = grey(pixel);
        pixel.iter_mut().for_each(|value| *value = clip(own + (f64::from(*value) - own) * saturation));
    }
    pixels
}
