//! Pictures of numbers: heat over an image, maps in grey, filters side by side.

use std::io::Cursor;

/// RGB, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u8>,
}

/// Of what an answer rests on, and of what speaks against it: told apart by eyes of any kind.
const FOR: [f64; 3] = [230.0, 97.0, 1.0];
const AGAINST: [f64; 3] = [94.0, 60.0, 153.0];

/// How much of the colour is put over a pixel at most.
const DEEPEST: f64 = 0.8;

impl Picture {
    /// A square as networks read it.
    pub fn square(side: usize, pixels: &[u8]) -> Self {
        Self { width: side, height: side, pixels: pixels.to_vec() }
    }

    /// The image in grey with heat over it, a number for each pixel: scaled by the largest.
    pub fn heated(side: usize, pixels: &[u8], heat: &[f64]) -> Self {
        let most = heat.iter().fold(f64::MIN_POSITIVE, |most, heat| most.max(heat.abs()));
        let paint = |(pixel, heat): (&[u8], &f64)| {
            // ITU-R BT.601's weights.
            let grey = 0.299 * f64::from(pixel[0]) + 0.587 * f64::from(pixel[1]) + 0.114 * f64::from(pixel[2]);
            let (colour, part) = (if *heat > 0.0 { FOR } else { AGAINST }, DEEPEST * heat.abs() / most);
            colour.map(|colour| ((1.0 - part) * grey + part * colour).round() as u8)
        };
        Self { width: side, height: side, pixels: pixels.chunks_exact(3).zip(heat).flat_map(paint).collect() }
    }

    /// A map of numbers in grey, from its least to its largest.
    pub fn grey(width: usize, height: usize, map: &[f32]) -> Self {
        let pixels = scaled(map).into_iter().flat_map(|value| [value; 3]).collect();
        Self { width, height, pixels }
    }

    /// Filters [count, 3, height, width] side by side, each scaled by its own numbers. `reversed`: they read BGR.
    pub fn filters(count: usize, [height, width]: [usize; 2], numbers: &[f32], reversed: bool) -> Self {
        let columns = (1..=count).find(|columns| columns * columns >= count).unwrap_or(1);
        let rows = count.div_ceil(columns);
        let mut picture = Self {
            width: columns * (width + 1) - 1,
            height: rows * (height + 1) - 1,
            pixels: vec![255; 3 * (columns * (width + 1) - 1) * (rows * (height + 1) - 1)],
        };
        for (index, filter) in numbers.chunks_exact(3 * height * width).enumerate() {
            let (left, top) = (index % columns * (width + 1), index / columns * (height + 1));
            for (at, value) in scaled(filter).into_iter().enumerate() {
                let (channel, y, x) = (at / (height * width), at / width % height, at % width);
                let channel = if reversed { 2 - channel } else { channel };
                picture.pixels[3 * ((top + y) * picture.width + left + x) + channel] = value;
            }
        }
        picture
    }

    /// The bytes of a PNG file.
    ///
    /// # Errors
    /// The picture has no pixels.
    pub fn png(&self) -> anyhow::Result<Vec<u8>> {
        let image = image::RgbImage::from_raw(self.width as u32, self.height as u32, self.pixels.clone())
            .ok_or_else(|| anyhow::anyhow!("a picture of {} x {} pixels without them", self.width, self.height))?;
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png)?;
        Ok(bytes)
    }
}

/// 0 for the least, 255 for the largest.
fn scaled(numbers: &[f32]) -> Vec<u8> {
    let least = numbers.iter().copied().fold(f32::INFINITY, f32::min);
    let most = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let span = (most - least).max(f32::MIN_POSITIVE);
    numbers.iter().map(|value| (255.0 * (value - least) / span).round() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_stand_side_by_side_in_the_order_of_their_colours() {
        // Two filters of one pixel: the first largest in its first channel.
        let numbers = [1.0, 0.0, 0.5, 0.0, 2.0, 1.0];
        let rgb = Picture::filters(2, [1, 1], &numbers, false);
        assert_eq!((rgb.width, rgb.height), (3, 1));
        assert_eq!(rgb.pixels, [255, 0, 128, 255, 255, 255, 0, 255, 128]);
        let bgr = Picture::filters(2, [1, 1], &numbers, true);
        assert_eq!(bgr.pixels, [128, 0, 255, 255, 255, 255, 128, 255, 0]);
    }

    #[test]
    fn heat_is_scaled_by_its_largest_number_and_none_leaves_the_grey() {
        let heated = Picture::heated(2, &[100; 12], &[0.0, 2.0, -2.0, 1.0]);
        let tone = |part: f64, colour: f64| ((1.0 - part) * 100.0 + part * colour).round() as u8;
        assert_eq!(heated.pixels[..3], [100, 100, 100]);
        assert_eq!(heated.pixels[3..6], FOR.map(|colour| tone(0.8, colour)));
        assert_eq!(heated.pixels[6..9], AGAINST.map(|colour| tone(0.8, colour)));
        assert_eq!(heated.pixels[9..], FOR.map(|colour| tone(0.4, colour)));
        assert_eq!(Picture::heated(1, &[7; 3], &[0.0]).pixels, [7; 3]);
    }
}
