//! Whether a file holds more pictures than the one that is read of it: pages of a TIFF, frames of what moves.

use std::io::Cursor;

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, ImageFormat};
use tiff::decoder::Decoder;
use tiff::tags::Tag;

/// Bits of TIFF 6.0's `NewSubfileType`: a smaller copy of another page, or a mask of its transparency.
const NO_PICTURE: u32 = 0b101;

/// Whether there is another picture behind the first; what cannot be read there is none.
pub fn more(bytes: &[u8], format: ImageFormat) -> bool {
    let bytes = Cursor::new(bytes);
    match format {
        ImageFormat::Tiff => pages(bytes).is_some(),
        ImageFormat::Gif => GifDecoder::new(bytes).is_ok_and(|file| file.into_frames().take(2).count() == 2),
        ImageFormat::Png => PngDecoder::new(bytes).is_ok_and(|file| file.is_apng().unwrap_or(false)),
        ImageFormat::WebP => WebPDecoder::new(bytes).is_ok_and(|file| file.has_animation()),
        _ => false,
    }
}

/// Something, where a page behind the first is a picture of its own.
fn pages(bytes: Cursor<&[u8]>) -> Option<()> {
    let mut file = Decoder::new(bytes).ok()?;
    while file.more_images() {
        file.next_image().ok()?;
        let kind: u32 = file.find_tag_unsigned(Tag::NewSubfileType).ok()?.unwrap_or(0);
        if kind & NO_PICTURE == 0 {
            return Some(());
        }
    }
    None
}
