//! Where the inputs of a network come from: packed images, augmented or not, or features of a frozen prefix.

use std::borrow::Cow;
use std::rc::Rc;

use candle_core::{Device, Tensor};

use super::features::Features;
use crate::augmentation::Augmentation;
use crate::data::augment::augment;
use crate::data::batch::normalise;
use crate::data::mix::Mix;
use crate::data::packed::Packed;
use crate::model::graph::Shape;
use crate::preprocess::Preprocess;
use crate::seed::{Stream, stream};

#[derive(Clone)]
pub enum Source {
    Images {
        packed: Rc<Packed>,
        preprocess: Preprocess,
    },
    /// With the number of stored views of each training image, if there are any.
    Features {
        features: Rc<Features>,
        shape: Shape,
        views: Option<usize>,
    },
}

/// Random changes of one epoch's images, for one replicate.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    pub list: &'a [Augmentation],
    pub seed: u64,
    pub replicate: u64,
    pub epoch: u64,
    /// How the images of the batch are mixed with one another.
    pub mix: Option<&'a Mix>,
}

impl Change<'_> {
    /// The bytes of a sample, changed.
    fn image<'a>(&self, packed: &'a Packed, sample: u32) -> Cow<'a, [u8]> {
        let image = packed.image(sample as usize);
        if self.list.is_empty() {
            return Cow::Borrowed(image);
        }
        let mut rng = stream(self.seed, Stream::Augment, &[self.replicate, self.epoch, u64::from(sample)]);
        Cow::Owned(augment(self.list, image, packed.side, &mut rng))
    }
}

impl Source {
    /// The inputs of `samples` as they are: [n, channels, height, width].
    pub fn batch(&self, samples: &[u32], device: &Device) -> anyhow::Result<Tensor> {
        self.changed(samples, &Change { list: &[], seed: 0, replicate: 0, epoch: 0, mix: None }, device)
    }

    /// The same with random changes, drawn for each image and epoch from a stream of its own.
    pub fn changed(&self, samples: &[u32], change: &Change, device: &Device) -> anyhow::Result<Tensor> {
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            return self.on_device(samples, change, device);
        }
        let mut batch = Vec::new();
        let [channels, height, width] = match self {
            Self::Images { packed, .. } => [3, packed.side, packed.side],
            Self::Features { shape, .. } => *shape,
        };
        batch.reserve(samples.len() * channels * height * width);
        match (self, change.mix) {
            (Self::Features { features, views, .. }, _) => {
                // A change of stored views is named by their number; 0 is the image as it is.
                let view = if views.is_some() { change.epoch as u32 } else { 0 };
                for sample in samples {
                    batch.extend(features.numbers(features.row((*sample, view))?));
                }
            }
            (Self::Images { packed, preprocess }, None) => {
                samples.iter().for_each(|sample| normalise(&change.image(packed, *sample), *preprocess, &mut batch));
            }
            (Self::Images { packed, preprocess }, Some(mix)) => {
                let mut bytes = Vec::with_capacity(batch.capacity());
                samples.iter().for_each(|sample| bytes.extend_from_slice(&change.image(packed, *sample)));
                mix.blend(&mut bytes, packed.side);
                bytes.chunks_exact(3 * height * width).for_each(|image| normalise(image, *preprocess, &mut batch));
            }
        }
        Ok(Tensor::from_vec(batch, (samples.len(), channels, height, width), device)?)
    }

    /// The same numbers by way of the device: bytes of images go through pinned memory, and so do features that do not fit
    /// on the device.
    #[cfg(feature = "cuda")]
    fn on_device(&self, samples: &[u32], change: &Change, device: &Device) -> anyhow::Result<Tensor> {
        use crate::data::batch::{gather, planes};
        use crate::nn::cuda::pixels;
        match self {
            Self::Images { packed, preprocess } => {
                let (shape, packed) = ([samples.len(), packed.side, packed.side], &**packed);
                let images = |bytes: &mut [u8]| gather(samples, bytes, |sample| change.image(packed, sample));
                let fill = |bytes: &mut [u8]| match change.mix {
                    None => images(bytes),
                    Some(mix) => {
                        // The host is slow to read what it shares with a device.
                        let mut own = vec![0; bytes.len()];
                        images(&mut own);
                        mix.blend(&mut own, packed.side);
                        bytes.copy_from_slice(&own);
                    }
                };
                Ok(pixels::images(device, shape, planes(*preprocess), fill)?)
            }
            Self::Features { features, shape: [channels, height, width], views } => {
                let view = if views.is_some() { change.epoch as u32 } else { 0 };
                let row = |sample: &u32| features.row((*sample, view)).map(|row| row as u32);
                let rows = samples.iter().map(row).collect::<anyhow::Result<Vec<u32>>>()?;
                let numbers = match features.on_device(device)? {
                    Some(resident) => pixels::rows(&resident, &rows)?,
                    None => pixels::numbers(device, rows.len() * channels * height * width, |into| {
                        let from = rows.iter().flat_map(|row| features.numbers(*row as usize));
                        into.iter_mut().zip(from).for_each(|(into, from)| *into = from);
                    })?,
                };
                Ok(numbers.reshape((samples.len(), *channels, *height, *width))?)
            }
        }
    }
}
