//! How a GPU's f32 convolutions of 3x3 and stride 1 are cut into tiles: which of them are, how many images are transformed at
//! once, and the memory that this takes. See `nn::cuda::winograd`.

use super::{Conv, Sizes};

/// Outputs of a tile, down and across, and the places that it is transformed into.
pub const TILE: usize = 4;
pub const PLACES: usize = 36;

/// Bytes of transformed tiles at once: little enough to find much of it in the cache of a large GPU, and enough that asking
/// for the next images takes no time.
const AT_ONCE: usize = 1 << 26;
/// Multiply-accumulates of a convolution that is worth three kernels for one.
const WORTH: usize = 1 << 30;
/// Channels at least, of either side: with fewer, the tiles' memory takes longer than the products that are saved.
const CHANNELS: usize = 32;
/// Blocks of 64 x 64 sums at least that the gradient of weights is spread over.
const BLOCKS: usize = 256;

/// A convolution in tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiling {
    /// Tiles of an image.
    pub down: usize,
    pub across: usize,
    /// Images that are transformed at once, the last time fewer.
    pub images: usize,
    /// Parts of the tiles of these images whose gradients of weights are summed apart.
    pub parts: usize,
    /// Numbers of transformed weights, and of the tiles of both sides.
    pub weights: usize,
    pub tiles: usize,
}

impl Tiling {
    /// The tiling, where that is the faster way.
    pub(in crate::nn) fn of(conv: &Conv, sizes: &Sizes) -> Option<Self> {
        let plain = conv.kernel == [3, 3] && conv.stride == 1 && conv.dilation == 1 && conv.groups == 1;
        if !plain || conv.padding.iter().any(|pixels| *pixels > 2) {
            return None;
        }
        let pixels = sizes.out_height * sizes.out_width;
        Self::new(sizes.images, [sizes.out_height, sizes.out_width], sizes.channels, sizes.out)
            .filter(|_| sizes.images * pixels * sizes.channels * sizes.out * 9 >= WORTH)
    }

    fn new(images: usize, [height, width]: [usize; 2], channels: usize, out: usize) -> Option<Self> {
        let (down, across) = (height.div_ceil(TILE), width.div_ceil(TILE));
        let enough = |channels: usize| channels >= CHANNELS && channels.is_multiple_of(4);
        // A quarter of the multiplications is saved at least, with the tiles' edges.
        let saves = 4 * PLACES * down * across <= 3 * 9 * height * width;
        if images == 0 || !enough(channels) || !enough(out) || !saves {
            return None;
        }
        let image = PLACES * down * across * (channels + out);
        let turns = images.div_ceil((AT_ONCE / (4 * image)).max(1));
        let at_once = images.div_ceil(turns);
        let wanted = BLOCKS.div_ceil(PLACES * out.div_ceil(64) * channels.div_ceil(64));
        let parts = (1..=wanted).rev().find(|parts| (down * across).is_multiple_of(*parts)).unwrap_or(1);
        let weights = PLACES * channels * out;
        Some(Self { down, across, images: at_once, parts, weights, tiles: at_once * image })
    }

    /// Bytes that it works in: transformed weights, or the parts of their gradient, and tiles of both sides.
    pub fn bytes(&self) -> usize {
        4 * (self.parts * self.weights + self.tiles)
    }
}

/// Bytes that a convolution over so many images works in on a GPU in f32, where it is cut into tiles.
pub fn tiles_bytes(conv: &Conv, x: (usize, usize, usize, usize), out: usize) -> usize {
    let sizes = conv.sizes(x, (out, x.3 / conv.groups.max(1), conv.kernel[0], conv.kernel[1]));
    sizes.ok().and_then(|sizes| Tiling::of(conv, &sizes)).map_or(0, |tiling| tiling.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_transformed_in_even_lots_and_gradients_fill_a_gpu() {
        let first = Tiling::new(64, [224, 224], 64, 64).expect("VGG19's second convolution");
        assert_eq!((first.down, first.across, first.images, first.parts), (56, 56, 1, 8));
        let last = Tiling::new(64, [14, 14], 512, 512).expect("VGG19's last one");
        assert_eq!((last.images, last.parts, last.weights), (22, 1, 36 * 512 * 512));
        assert!(last.bytes() < (1 << 26) + 4 * last.weights + 1);
        assert_eq!(Tiling::new(64, [224, 224], 3, 64), None, "three channels");
        assert_eq!(Tiling::new(64, [2, 2], 512, 512), None, "a tile of which a quarter is there");
    }
}
