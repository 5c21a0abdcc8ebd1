//! From the bytes of an image file to a square of RGB pixels.

use std::io::Cursor;

use fast_image_resize::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::pages::more;
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

/// What pictures that are not decoded begin with, at which byte, and what they are called.
const OTHERS: [(usize, &[u8], &str); 11] = [
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (128, b"DICM", "DICOM"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (0, b"8BPS", "Photoshop's format"),
];

/// What a file says of its picture before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    pub format: &'static str,
    /// As it is stored, before it is turned upright.
    pub width: u32,
    pub height: u32,
    pub grey: bool,
    /// Whether its values have 16 bits.
    pub deep: bool,
    pub turned: bool,
    /// Whether the file holds more pictures behind this one.
    pub more: bool,
}

/// Decodes JPEG, PNG, BMP, GIF (first frame), WebP, TIFF (first page) or PNM, told apart by content. Transparency is dropped, as
/// PIL's `convert("RGB")` does. Values of 16 bits become 8, `white` and more the brightest (65535 where none is named; PIL clips
/// grey ones at 255). What a camera stored as it was held is turned upright, as its EXIF data say and every viewer shows it; Pillow
/// (but for TIFF), torchvision and Keras leave it lying.
///
/// # Errors
/// Why the bytes are no image that can be used, without the file's name.
pub fn decode(bytes: &[u8], white: Option<u16>) -> Result<Rgb, String> {
    let mut image = decoded(bytes)?;
    if let Some(white) = white {
        spread(&mut image, white);
    }
    let (width, height) = (image.width(), image.height());
    Ok(Rgb { width, height, pixels: image.into_rgb8().into_raw() })
}

/// What a file says of its picture.
///
/// # Errors
/// As `decode`, but for what is wrong with its pixels.
pub fn header(bytes: &[u8]) -> Result<Header, String> {
    let (format, mut decoder) = opened(bytes)?;
    let ((width, height), color) = (decoder.dimensions(), decoder.color_type());
    let deep = color.bytes_per_pixel() / color.channel_count() == 2;
    let turned = orientation(&mut decoder) != Orientation::NoTransforms;
    let more = more(bytes, format);
    Ok(Header { format: called(format), width, height, grey: !color.has_color(), deep, turned, more })
}

/// The values of an image of 16 bits, without its transparency; nothing of others.
///
/// # Errors
/// As `decode`.
pub fn tones(bytes: &[u8]) -> Result<Option<Vec<u16>>, String> {
    Ok(match decoded(bytes)? {
        DynamicImage::ImageLuma16(image) => Some(image.into_raw()),
        DynamicImage::ImageRgb16(image) => Some(image.into_raw()),
        DynamicImage::ImageLumaA16(image) => Some(image.pixels().map(|pixel| pixel.0[0]).collect()),
        DynamicImage::ImageRgba16(image) => {
            Some(image.pixels().flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]]).collect())
        }
        _ => None,
    })
}

fn called(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        ImageFormat::WebP => "WebP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Pnm => "PNM",
        _ => "other",
    }
}

/// What is not decoded though it is a picture.
fn other(bytes: &[u8]) -> Option<&'static str> {
    let begins = |(at, magic, _): &&(usize, &[u8], &str)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic));
    OTHERS.iter().find(begins).map(|(.., name)| *name)
}

fn opened(bytes: &[u8]) -> Result<(ImageFormat, impl ImageDecoder), String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if let Some(name) = other(bytes) {
        return Err(format!("it is {name}, which is not read: convert it to PNG or JPEG"));
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    let Some(format) = reader.format() else {
        return Err("not an image of a known format (JPEG, PNG, BMP, GIF, WebP, TIFF, PNM)".to_owned());
    };
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| match format {
        ImageFormat::Tiff => format!("{error}; as PNG it can be read"),
        _ => error.to_string(),
    })?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS {
        return Err(format!("{width} x {height} pixels; at most {MAX_PIXELS} are decoded"));
    }
    Ok((format, decoder))
}

/// Upright, with the bits that the file has.
fn decoded(bytes: &[u8]) -> Result<DynamicImage, String> {
    let (_, mut decoder) = opened(bytes)?;
    let orientation = orientation(&mut decoder);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Makes `white`, and what is brighter, the brightest of 16 bits, and the others brighter in proportion.
fn spread(image: &mut DynamicImage, white: u16) {
    let white = u32::from(white);
    let spread = |value: &mut u16| {
        *value = ((u32::from(*value).min(white) * u32::from(u16::MAX) + white / 2) / white) as u16;
    };
    match image {
        DynamicImage::ImageLuma16(image) => image.iter_mut().for_each(spread),
        DynamicImage::ImageRgb16(image) => image.iter_mut().for_each(spread),
        // How transparent it is is dropped.
        DynamicImage::ImageLumaA16(image) => image.iter_mut().for_each(spread),
        DynamicImage::ImageRgba16(image) => image.iter_mut().for_each(spread),
        _ => {}
    }
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
    ImageFormat::from_path(path).is_ok() || content() || other(bytes).is_some()
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
