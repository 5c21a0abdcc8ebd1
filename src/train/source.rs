//! Where the inputs of a network come from: packed images, augmented or not, or features of a frozen prefix.

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

impl Source {
    /// The inputs of `samples` as they are: [n, channels, height, width].
    pub fn batch(&self, samples: &[u32], device: &Device) -> anyhow::Result<Tensor> {
        self.changed(samples, &Change { list: &[], seed: 0, replicate: 0, epoch: 0 }, device)
    }

    /// The same with random changes, drawn for each image and epoch from a stream of its own.
    pub fn changed(&self, samples: &[u32], change: &Change, device: &Device) -> anyhow::Result<Tensor> {
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
                Self::Images { packed, preprocess } if change.list.is_empty() => {
                    normalise(packed.image(*sample as usize), *preprocess, &mut batch)
                }
                Self::Images { packed, preprocess } => {
                    let mut rng =
                        stream(change.seed, Stream::Augment, &[change.replicate, change.epoch, u64::from(*sample)]);
                    let pixels = augment(change.list, packed.image(*sample as usize), packed.side, &mut rng);
                    normalise(&pixels, *preprocess, &mut batch);
                }
            }
        }
        Ok(Tensor::from_vec(batch, (samples.len(), channels, height, width), device)?)
    }
}
