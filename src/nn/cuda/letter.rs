//! Numbers of the host at one place of a device's memory, the same at every step: what a recorded step reads of the host.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::pinned::Ring;

/// Words that parts begin at a multiple of: 16 bytes.
const LEVEL: usize = 4;

/// Words of 32 bits for a letter, part by part.
#[derive(Default)]
pub struct Words(Vec<u32>);

impl Words {
    /// Adds a part, and returns where it begins.
    pub fn add(&mut self, part: impl IntoIterator<Item = u32>) -> usize {
        self.0.resize(self.0.len().next_multiple_of(LEVEL), 0);
        let first = self.0.len();
        self.0.extend(part);
        first
    }

    /// Numbers of 64 bits.
    pub fn add_doubles(&mut self, part: impl IntoIterator<Item = f64>) -> usize {
        self.add(part.into_iter().flat_map(|number| {
            let bits = number.to_bits();
            [bits as u32, (bits >> 32) as u32]
        }))
    }

    pub fn add_floats(&mut self, part: impl IntoIterator<Item = f32>) -> usize {
        self.add(part.into_iter().map(f32::to_bits))
    }
}

/// A place on a device for words, and their way to it.
pub struct Letter {
    at: Tensor,
    ring: Ring,
}

impl Letter {
    /// For as many words as `words` has.
    ///
    /// # Errors
    /// There is no memory left.
    pub fn new(words: &Words, device: &Device) -> Result<Self> {
        let count = words.0.len();
        Ok(Self {
            at: Tensor::zeros(count, DType::F32, device)?,
            ring: Ring::new(device.as_cuda_device()?, 4 * count)?,
        })
    }

    /// Puts words in their place, behind everything that was asked of the device before.
    ///
    /// # Errors
    /// It is another number of words, or the device has failed.
    pub fn send(&mut self, words: &Words) -> Result<()> {
        if words.0.len() != self.at.elem_count() {
            bail!("{} words do not fit a letter of {}", words.0.len(), self.at.elem_count());
        }
        self.ring.send(&self.at, |bytes| bytes.copy_from_slice(bytemuck::cast_slice(&words.0)))
    }

    /// `count` words from `first` on, as numbers of f32; what they are is up to who reads them.
    ///
    /// # Errors
    /// The letter is shorter.
    pub fn part(&self, first: usize, count: usize) -> Result<Tensor> {
        self.at.narrow(0, first, count)
    }
}
