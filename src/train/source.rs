//! Where the inputs of a network come from: packed images, augmented or not, or features of a frozen prefix.

use std::borrow::Cow;
use std::rc::Rc;

use candle_core::{Device, Tensor};

use super::features::Features;
use crate::data::augment::augment;
use crate::data::batch::normalise;
use crate::data::packed::Packed;
use crate::model::graph::Shape;
use crate::recipe::{Augmentation, Preprocess};
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
pub struct Change<'a> {
    pub list: &'a [Augmentation],
    pub seed: u64,
    pub replicate: u64,
    pub epoch: u64,
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
        self.changed(samples, &Change { list: &[], seed: 0, replicate: 0, epoch: 0 }, device)
    }

    /// The same with random changes, drawn for each image and epoch from a stream of its own.
    pub fn changed(&self, samples: &[u32], change: &Change, device: &Device) -> anyhow::Result<Tensor> {
        #[cfg(feature = "cuda")]
        if device.is_cuda()
            && let Some(found) = self.on_device(samples, change, device)?
        {
            return Ok(found);
        }
        let mut batch = Vec::new();
        let [channels, height, width] = match self {
            Self::Images { packed, .. } => [3, packed.side, packed.side],
            Self::Features { shape, .. } => *shape,
        };
        batch.reserve(samples.len() * channels * height * width);
        for sample in samples {
            match self {
                Self::Features { features, views, .. } => {
                    // A change of stored views is named by their number; 0 is the image as it is.
                    let view = if views.is_some() { change.epoch as u32 } else { 0 };
                    features.append((*sample, view), &mut batch)?;
                }
                Self::Images { packed, preprocess } => {
                    normalise(&change.image(packed, *sample), *preprocess, &mut batch);
                }
            }
        }
        Ok(Tensor::from_vec(batch, (samples.len(), channels, height, width), device)?)
    }

    /// The same numbers by way of the device: bytes of images go through pinned memory, and features stay on the device
    /// where they fit. Nothing where they do not.
    #[cfg(feature = "cuda")]
    fn on_device(&self, samples: &[u32], change: &Change, device: &Device) -> anyhow::Result<Option<Tensor>> {
        use crate::data::batch::{gather, planes};
        match self {
            Self::Images { packed, preprocess } => {
                let (shape, packed) = ([samples.len(), packed.side, packed.side], &**packed);
                let fill = |bytes: &mut [u8]| gather(samples, bytes, |sample| change.image(packed, sample));
                Ok(Some(crate::nn::cuda::pixels::images(device, shape, planes(*preprocess), fill)?))
            }
            Self::Features { features, shape: [channels, height, width], views } => {
                let Some(resident) = features.on_device(device)? else { return Ok(None) };
                let view = if views.is_some() { change.epoch as u32 } else { 0 };
                let row = |sample: &u32| features.row((*sample, view)).map(|row| row as u32);
                let rows = samples.iter().map(row).collect::<anyhow::Result<Vec<u32>>>()?;
                let rows = crate::nn::cuda::pixels::rows(&resident, &rows)?;
                Ok(Some(rows.reshape((samples.len(), *channels, *height, *width))?))
            }
        }
    }
}
