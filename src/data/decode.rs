//! From the bytes of an image file to a square of RGB pixels.

use std::io::Cursor;

use fast_image_resize::FilterType;
use image::metadata::Orientation;
use image::{ImageDecoder, ImageReader};

use super::resample::resampled;
use crate::frame::{Filter, Frame, Kept};
use crate::key::Key;

/// The name of a resampler in keys: a triangle over the source pixels that each target pixel covers, or Keys' curve over twice
/// as many (Pillow's antialiased bilinear and bicubic).
pub fn resampler(filter: Filter) -> &'static str {
    match filter {
        Filter::Bilinear => "bilinear-antialias",
        Filter::Bicubic => "bicubic-antialias",
    }
}

/// Images with more pixels than this are refused before they are decoded.
pub const MAX_PIXELS: u64 = 100_000_000;

/// RGB, 8 bits, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Rgb {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<u8>,
}

/// Decodes JPEG, PNG, BMP, GIF (first frame) or WebP, told apart by content. Transparency is dropped, as PIL's
/// `convert("RGB")` does; 16 bits are cut to 8. What a camera stored as it was held is turned upright, as its EXIF data say and every
/// viewer shows it; Pillow, torchvision and Keras leave it lying.
///
/// # Errors
/// Why the bytes are no image that can be used, without the file's name.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    if reader.format().is_none() {
        return Err("not an image of a known format (JPEG, PNG, BMP, GIF, WebP)".to_owned());
    }
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS {
        return Err(format!("{width} x {height} pixels; at most {MAX_PIXELS} are decoded"));
    }
    let orientation = orientation(&mut decoder);
    let mut image = image::DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    Ok(Rgb { width, height, pixels: image.into_rgb8().into_raw() })
}

/// How an image is to be turned. What cannot be read there says nothing: the pixels are whole without it.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    decoder.orientation().unwrap_or(Orientation::NoTransforms)
}

/// The hash of an image's bytes, and of how they are read: what is turned upright is not what versions that left it lying have
/// seen under the hash of its bytes.
pub fn content(bytes: &[u8]) -> Key {
    let own = Key::of_bytes(bytes);
    let decoder = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map(ImageReader::into_decoder);
    let lies = match decoder {
        Ok(Ok(mut decoder)) => orientation(&mut decoder) != Orientation::NoTransforms,
        _ => false,
    };
    if lies { Key::of("image turned upright", &own) } else { own }
}

/// Whether a file is meant to be an image: its content begins like one of those that are decoded, or its name says so.
pub fn is_image(path: &std::path::Path, bytes: &[u8]) -> bool {
    let content =
        || ImageReader::new(Cursor::new(bytes)).with_guessed_format().is_ok_and(|read| read.format().is_some());
    image::ImageFormat::from_path(path).is_ok() || content()
}

/// The square that networks read, by `resampler`. An image that is such a square already stays as it is.
///
/// # Errors
/// The resizer refuses the sizes.
pub fn square(image: &Rgb, frame: Frame) -> Result<Vec<u8>, String> {
    let side = frame.side as u32;
    let whole = matches!(frame.resize.kept, Kept::All | Kept::Middle(1000));
    if whole && image.width == side && image.height == side {
        return Ok(image.pixels.clone());
    }
    let (width, height) = (f64::from(image.width), f64::from(image.height));
    let [kept_width, kept_height] = match frame.resize.kept {
        Kept::All => [width, height],
        Kept::Middle(thousandths) => [width.min(height) * f64::from(thousandths) / 1000.0; 2],
    };
    let (left, top) = ((width - kept_width) / 2.0, (height - kept_height) / 2.0);
    let filter = match frame.resize.filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
    };
    let kept = [left, top, kept_width, kept_height];
    resampled(&image.pixels, [image.width, image.height], Some(kept), [side; 2], filter)
}
