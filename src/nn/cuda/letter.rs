//! Numbers of the host at one place of a device's memory, the same at every step: what a recorded step reads of the host.

use std::mem::ManuallyDrop;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::PinnedHostSlice;
use candle_core::{DType, Device, Result, Tensor, bail};

use super::{device_of, place};

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

/// A place on a device for words, and two buffers of pinned memory in turn: one is filled while the other is copied.
pub struct Letter {
    at: Tensor,
    buffers: [PinnedHostSlice<u32>; 2],
    next: usize,
}

impl Letter {
    /// For as many words as `words` has.
    ///
    /// # Errors
    /// There is no memory left.
    pub fn new(words: &Words, device: &Device) -> Result<Self> {
        let count = words.0.len();
        let context = device.as_cuda_device()?.cuda_stream().context().clone();
        // Safety: both are written before they are read, by `send`.
        let buffer = || unsafe { context.alloc_pinned::<u32>(count) }.w();
        Ok(Self { at: Tensor::zeros(count, DType::F32, device)?, buffers: [buffer()?, buffer()?], next: 0 })
    }

    /// Puts words in their place, behind everything that was asked of the device before. Waits only where the words of two
    /// letters ago are not there yet.
    ///
    /// # Errors
    /// It is another number of words, or the device has failed.
    pub fn send(&mut self, words: &Words) -> Result<()> {
        let count = self.at.elem_count();
        if words.0.len() != count {
            bail!("{} words do not fit a letter of {count}", words.0.len());
        }
        self.next = 1 - self.next;
        let buffer = &mut self.buffers[self.next];
        buffer.as_mut_slice().w()?.copy_from_slice(&words.0);
        let stream = device_of(&self.at)?.cuda_stream();
        // Safety: the memory is the letter's, of so many words; it is not freed through this.
        let mut into = ManuallyDrop::new(unsafe { stream.upgrade_device_ptr::<u32>(place(&self.at)?, count) });
        stream.memcpy_htod(buffer, &mut *into).w()
    }

    /// `count` words from `first` on, as numbers of f32; what they are is up to who reads them.
    ///
    /// # Errors
    /// The letter is shorter.
    pub fn part(&self, first: usize, count: usize) -> Result<Tensor> {
        self.at.narrow(0, first, count)
    }
}
