//! Corrupts the square that a network reads, as CIFAR-10-C and ImageNet-C corrupt theirs (Hendrycks and Dietterich, 2019;
//! definitions and constants of hendrycks/robustness, make_cifar_c.py and make_imagenet_c.py).
//!
//! What is drawn depends on the bytes of the image and on nothing else: every arm, every replicate and every machine sees
//! the same corrupted image.

use std::io::Cursor;

use fast_image_resize::FilterType;
use image::codecs::jpeg::JpegEncoder;

use super::resample::resampled;
use crate::corruption::{Corruption, Kind};
use crate::key::Key;
use crate::seed::{Rng, Stream, stream};

/// Squares up to this side have the constants of CIFAR-10-C (32 pixels), larger ones those of ImageNet-C (224).
const SMALL: usize = 64;

/// The corrupted RGB bytes of a square image, given the hash of its file.
///
/// # Errors
/// The resizer or the JPEG coder refuses the image.
pub fn corrupt(corruption: Corruption, pixels: &[u8], side: usize, content: Key) -> Result<Vec<u8>, String> {
    let Corruption { kind, severity } = corruption;
    let place = Kind::ALL.iter().position(|(known, _)| *known == kind).unwrap_or(0);
    let rng = &mut stream(0, Stream::Corrupt, &[content.word(), place as u64, u64::from(severity)]);
    let degree = Degree { at: usize::from(severity) - 1, side };
    let x: Vec<f64> = pixels.iter().map(|value| f64::from(*value) / 255.0).collect();
    let changed = match kind {
        Kind::GaussianNoise => {
            let sigma = degree.of([0.04, 0.06, 0.08, 0.09, 0.10], [0.08, 0.12, 0.18, 0.26, 0.38]);
            x.iter().map(|value| value + sigma * rng.normal()).collect()
        }
        Kind::ShotNoise => {
            let photons = degree.of([500.0, 250.0, 100.0, 75.0, 50.0], [60.0, 25.0, 12.0, 5.0, 3.0]);
            x.iter().map(|value| rng.poisson(value * photons) as f64 / photons).collect()
        }
        Kind::ImpulseNoise => {
            impulse(x, degree.of([0.01, 0.02, 0.03, 0.05, 0.07], [0.03, 0.06, 0.09, 0.17, 0.27]), rng)
        }
        Kind::SpeckleNoise => {
            let sigma = degree.of([0.06, 0.10, 0.12, 0.16, 0.20], [0.15, 0.20, 0.35, 0.45, 0.60]);
            x.iter().map(|value| value + value * sigma * rng.normal()).collect()
        }
        Kind::GaussianBlur => gaussian(&x, side, degree.pixels([0.4, 0.6, 0.7, 0.8, 1.0], [1.0, 2.0, 3.0, 4.0, 6.0])),
        Kind::DefocusBlur => {
            let radius = degree.pixels([0.3, 0.4, 0.5, 1.0, 1.5], [3.0, 4.0, 6.0, 8.0, 10.0]);
            let soft = degree.of([0.4, 0.5, 0.6, 0.2, 0.1], [0.1, 0.5, 0.5, 0.5, 0.5]);
            convolved(&x, side, &disk(radius, soft), reflected)
        }
        Kind::MotionBlur => {
            let radius = degree.pixels([6.0, 6.0, 6.0, 8.0, 9.0], [10.0, 15.0, 15.0, 15.0, 20.0]);
            let sigma = degree.pixels([1.0, 1.5, 2.0, 2.0, 2.5], [3.0, 5.0, 8.0, 12.0, 15.0]);
            motion(&x, side, radius, sigma, rng.range(-45.0, 45.0))
        }
        Kind::ZoomBlur => zoom(&x, side, &degree),
        Kind::Fog => {
            let much = degree.of([0.2, 0.5, 0.75, 1.0, 1.5], [1.5, 2.0, 2.5, 2.5, 3.0]);
            fog(x, side, much, degree.of([3.0, 3.0, 2.5, 2.0, 1.75], [2.0, 2.0, 1.7, 1.5, 1.4]), rng)
        }
        Kind::Brightness => {
            let more = degree.of([0.05, 0.10, 0.15, 0.20, 0.30], [0.1, 0.2, 0.3, 0.4, 0.5]);
            recoloured(x, |[hue, saturation, value]| [hue, saturation, value + more])
        }
        Kind::Saturate => {
            let times = degree.of([0.3, 0.1, 1.5, 2.0, 2.5], [0.3, 0.1, 2.0, 5.0, 20.0]);
            let more = degree.of([0.0, 0.0, 0.0, 0.1, 0.2], [0.0, 0.0, 0.0, 0.1, 0.2]);
            recoloured(x, |[hue, saturation, value]| [hue, saturation * times + more, value])
        }
        Kind::Contrast => contrast(x, degree.of([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05])),
        Kind::Pixelate => {
            let share = degree.of([0.95, 0.9, 0.85, 0.75, 0.65], [0.6, 0.5, 0.4, 0.3, 0.25]);
            let few = ((side as f64 * share) as usize).max(1);
            return resized(&resized(pixels, side, few)?, few, side);
        }
        Kind::Jpeg => {
            return compressed(
                pixels,
                side,
                degree.of([80.0, 65.0, 58.0, 50.0, 40.0], [25.0, 18.0, 15.0, 10.0, 7.0]) as u8,
            );
        }
    };
    // As the source stores them: clipped, and cut off behind the point.
    Ok(changed.into_iter().map(|value: f64| (value.clamp(0.0, 1.0) * 255.0) as u8).collect())
}

/// A severity at a size of image.
struct Degree {
    at: usize,
    side: usize,
}

impl Degree {
    fn small(&self) -> bool {
        self.side <= SMALL
    }

    fn of(&self, cifar: [f64; 5], imagenet: [f64; 5]) -> f64 {
        if self.small() { cifar[self.at] } else { imagenet[self.at] }
    }

    /// Of a length in pixels of 32 and 224: scaled with the image.
    fn pixels(&self, cifar: [f64; 5], imagenet: [f64; 5]) -> f64 {
        self.of(cifar, imagenet) * self.side as f64 / if self.small() { 32.0 } else { 224.0 }
    }
}

/// A share of the numbers becomes black or white, each as likely.
fn impulse(x: Vec<f64>, share: f64, rng: &mut Rng) -> Vec<f64> {
    let one = |value: f64| match rng.chance(share) {
        true => f64::from(u8::from(rng.chance(0.5))),
        false => value,
    };
    x.into_iter().map(one).collect()
}

/// Where a coordinate outside the image reads: the next pixel inside.
fn nearest(at: i64, side: i64) -> i64 {
    at.clamp(0, side - 1)
}

/// The image mirrored at its outermost pixels (OpenCV's default border).
fn reflected(at: i64, side: i64) -> i64 {
    let period = (2 * (side - 1)).max(1);
    let at = at.rem_euclid(period);
    at.min(period - at).min(side - 1)
}

/// Offsets in rows and columns, and what they weigh.
type Kernel = Vec<(i64, i64, f64)>;

fn convolved(x: &[f64], side: usize, kernel: &Kernel, outside: fn(i64, i64) -> i64) -> Vec<f64> {
    let mut found = vec![0.0; x.len()];
    let inside = |at: usize, offset: i64| outside(at as i64 + offset, side as i64) as usize;
    for (place, pixel) in found.chunks_exact_mut(3).enumerate() {
        for (down, right, weight) in kernel {
            let from = 3 * (inside(place / side, *down) * side + inside(place % side, *right));
            pixel.iter_mut().zip(&x[from..from + 3]).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    found
}

/// A normal curve at whole numbers up to `reach` on both sides, with a sum of one.
fn bell(sigma: f64, reach: i64) -> Vec<f64> {
    let raw: Vec<f64> = (-reach..=reach).map(|at| libm::exp(-0.5 * (at as f64 / sigma).powi(2))).collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|weight| weight / sum).collect()
}

fn gaussian(x: &[f64], side: usize, sigma: f64) -> Vec<f64> {
    let reach = (4.0 * sigma + 0.5) as i64;
    let line = bell(sigma, reach);
    let rows = line.iter().zip(-reach..).map(|(weight, at)| (at, 0, *weight)).collect();
    let columns = line.iter().zip(-reach..).map(|(weight, at)| (0, at, *weight)).collect();
    convolved(&convolved(x, side, &rows, nearest), side, &columns, nearest)
}

/// A disk of even weight whose rim is softened by a small normal curve.
fn disk(radius: f64, soft: f64) -> Kernel {
    let (half, rim) = if radius <= 8.0 { (8i64, 1i64) } else { (radius.ceil() as i64, 2i64) };
    let span = || -half..=half;
    let within = |down: i64, right: i64| (down * down + right * right) as f64 <= radius * radius;
    let area =
        span().flat_map(|down| span().map(move |right| (down, right))).filter(|at| within(at.0, at.1)).count() as f64;
    let line = bell(soft, rim);
    let mut kernel = Vec::new();
    for (down, right) in span().flat_map(|down| span().map(move |right| (down, right))) {
        let mut weight = 0.0;
        for (row, one) in (-rim..=rim).zip(&line) {
            for (column, other) in (-rim..=rim).zip(&line) {
                let at = |at: i64, by: i64| reflected(at + by + half, 2 * half + 1) - half;
                weight += if within(at(down, row), at(right, column)) { one * other / area } else { 0.0 };
            }
        }
        if weight > 0.0 {
            kernel.push((down, right, weight));
        }
    }
    kernel
}

/// Half a normal curve along a line (ImageMagick's motion blur).
fn motion(x: &[f64], side: usize, radius: f64, sigma: f64, degrees: f64) -> Vec<f64> {
    let width = 2 * (radius.ceil() as i64) + 1;
    let line = bell(sigma, width - 1);
    let half = &line[line.len() / 2..];
    let sum: f64 = half.iter().sum();
    let (sine, cosine) = (libm::sin(degrees.to_radians()), libm::cos(degrees.to_radians()));
    let place = |at: usize, direction: f64| (at as f64 * direction - 0.5).ceil() as i64;
    let kernel =
        half.iter().enumerate().map(|(at, weight)| (place(at, sine), place(at, cosine), weight / sum)).collect();
    convolved(x, side, &kernel, nearest)
}

/// The mean of the image and of its middle, enlarged further and further.
fn zoom(x: &[f64], side: usize, degree: &Degree) -> Vec<f64> {
    let (end, step) = match degree.small() {
        true => ([1.06, 1.11, 1.16, 1.21, 1.26][degree.at], 0.01),
        false => [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)][degree.at],
    };
    let factors: Vec<f64> =
        (0..).map(|count| 1.0 + step * f64::from(count)).take_while(|one| *one < end - 1e-9).collect();
    let mut sum = x.to_vec();
    let last = (side - 1) as f64;
    for factor in &factors {
        let at = |place: usize| last / 2.0 + (place as f64 - last / 2.0) / factor;
        for (place, pixel) in sum.chunks_exact_mut(3).enumerate() {
            let (row, column) = (at(place / side), at(place % side));
            let (top, left) = (row.floor().min(last - 1.0).max(0.0), column.floor().min(last - 1.0).max(0.0));
            let (down, right) = (row - top, column - left);
            for (channel, value) in pixel.iter_mut().enumerate() {
                let get = |by: usize, to: usize| {
                    x[3 * ((top as usize + by).min(side - 1) * side + (left as usize + to).min(side - 1)) + channel]
                };
                let upper = get(0, 0) * (1.0 - right) + get(0, 1) * right;
                *value += upper * (1.0 - down) + (get(1, 0) * (1.0 - right) + get(1, 1) * right) * down;
            }
        }
    }
    let count = (factors.len() + 1) as f64;
    sum.into_iter().map(|value| value / count).collect()
}

/// Clouds over the image, which becomes paler by as much as there are.
fn fog(x: Vec<f64>, side: usize, much: f64, decay: f64, rng: &mut Rng) -> Vec<f64> {
    let clouds = plasma(side.next_power_of_two(), decay, rng);
    let width = side.next_power_of_two();
    let most = x.iter().copied().fold(0.0, f64::max);
    let fogged = x.iter().enumerate().map(|(at, value)| {
        let (row, column) = (at / 3 / side, at / 3 % side);
        (value + much * clouds[row * width + column]) * most / (most + much)
    });
    fogged.collect()
}

/// A plasma fractal on a torus by diamonds and squares (Fournier, Fussell and Carpenter, 1982), from zero to one.
fn plasma(size: usize, decay: f64, rng: &mut Rng) -> Vec<f64> {
    let mut map = vec![0.0; size * size];
    let (mut step, mut wibble) = (size, 100.0);
    let at = |row: usize, column: usize| row % size * size + column % size;
    while step >= 2 {
        let half = step / 2;
        let mut mean = |sum: f64| sum / 4.0 + wibble * rng.range(-wibble, wibble);
        for row in (0..size).step_by(step) {
            for column in (0..size).step_by(step) {
                let corners = map[at(row, column)] + map[at(row, column + step)];
                let sum = corners + map[at(row + step, column)] + map[at(row + step, column + step)];
                map[at(row + half, column + half)] = mean(sum);
            }
        }
        for row in (0..size).step_by(step) {
            for column in (0..size).step_by(step) {
                let middle = |row: usize, column: usize| map[at(row + half, column + half)];
                let [own, above, before] =
                    [middle(row, column), middle(row + size - step, column), middle(row, column + size - step)];
                let left = own + before + map[at(row, column)] + map[at(row + step, column)];
                let top = own + above + map[at(row, column)] + map[at(row, column + step)];
                map[at(row + half, column)] = mean(left);
                map[at(row, column + half)] = mean(top);
            }
        }
        step /= 2;
        wibble /= decay;
    }
    let least = map.iter().copied().fold(f64::INFINITY, f64::min);
    let range = map.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least;
    map.iter().map(|value| if range > 0.0 { (value - least) / range } else { 0.0 }).collect()
}

/// Each channel nearer to its mean.
fn contrast(mut x: Vec<f64>, share: f64) -> Vec<f64> {
    let count = (x.len() / 3) as f64;
    let means = [0, 1, 2].map(|channel| x.iter().skip(channel).step_by(3).sum::<f64>() / count);
    for pixel in x.chunks_exact_mut(3) {
        pixel.iter_mut().zip(means).for_each(|(value, mean)| *value = (*value - mean) * share + mean);
    }
    x
}

/// Changes hue, saturation and value, the last two kept in 0..=1.
fn recoloured(mut x: Vec<f64>, change: impl Fn([f64; 3]) -> [f64; 3]) -> Vec<f64> {
    for pixel in x.chunks_exact_mut(3) {
        let [hue, saturation, value] = change(hsv([pixel[0], pixel[1], pixel[2]]));
        pixel.copy_from_slice(&rgb([hue, saturation.clamp(0.0, 1.0), value.clamp(0.0, 1.0)]));
    }
    x
}

/// Hue in sixths of a turn, saturation and value of a colour (Smith, 1978).
fn hsv([red, green, blue]: [f64; 3]) -> [f64; 3] {
    let value = red.max(green).max(blue);
    let range = value - red.min(green).min(blue);
    let hue = match range {
        0.0 => 0.0,
        _ if value == red => ((green - blue) / range).rem_euclid(6.0),
        _ if value == green => 2.0 + (blue - red) / range,
        _ => 4.0 + (red - green) / range,
    };
    [hue, if value > 0.0 { range / value } else { 0.0 }, value]
}

fn rgb([hue, saturation, value]: [f64; 3]) -> [f64; 3] {
    let (sixth, rest) = (hue.floor(), hue - hue.floor());
    let low = value * (1.0 - saturation);
    let (falling, rising) = (value * (1.0 - saturation * rest), value * (1.0 - saturation * (1.0 - rest)));
    match sixth as u8 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}

/// Brought to another side by the mean of what a pixel covers.
fn resized(pixels: &[u8], side: usize, to: usize) -> Result<Vec<u8>, String> {
    resampled(pixels, [side as u32; 2], None, [to as u32; 2], FilterType::Box)
}

/// Saved as a JPEG of a quality, and read again.
fn compressed(pixels: &[u8], side: usize, quality: u8) -> Result<Vec<u8>, String> {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality)
        .encode(pixels, side as u32, side as u32, image::ExtendedColorType::Rgb8)
        .map_err(|error| error.to_string())?;
    let read = image::load(Cursor::new(file), image::ImageFormat::Jpeg).map_err(|error| error.to_string())?;
    Ok(read.into_rgb8().into_raw())
}
