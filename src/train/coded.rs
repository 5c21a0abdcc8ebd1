//! The vectors that images are to a linear head: the codes of parts of the data, with their classes.

use anyhow::Context;
use candle_core::Tensor;

use super::Shelf;
use super::evaluate::{self, BATCH};
use super::source::Source;
use crate::data::Manifest;
use crate::exec::{Encoder, Network, Parts};
use crate::model::freezing::CODES;
use crate::model::weights::Weights;
use crate::nn::activation::Activation;
use crate::nn::linear;
use crate::nn::loss::answers;
use crate::nn::solve::Head;
use crate::nn::temperature::temperature;
use crate::outcome::{Predictions, Scores};
use crate::plan::stage::{Encoded, Start, Train, Work};

/// Where the codes of images come from: an encoding, or the untrained network itself.
pub struct Codes {
    source: Source,
    encoder: Option<Encoder>,
    device: candle_core::Device,
    pub macs: f64,
}

impl Codes {
    /// Those of a trial's network with `weights`, before any of it trains.
    ///
    /// # Errors
    /// Pixels or features cannot be read, or the weights do not fit.
    pub fn new(stage: &Train, work: &Work, weights: &Weights, shelf: &mut Shelf) -> anyhow::Result<Self> {
        let plain = stage.answering().map_err(anyhow::Error::msg)?;
        let device = shelf.device.clone();
        let network = |graph| {
            let mut network = Network::new(graph, weights, &device)?;
            network.frozen = network.graph.layers.len();
            anyhow::Ok(network)
        };
        if let Some(encode) = work.encode.as_ref().filter(|encode| encode.images == Encoded::All) {
            let cut = plain.find(&encode.cut).with_context(|| format!("no layer '{}'", encode.cut))?;
            let features = shelf.features(encode, work)?;
            let source = Source::Features { features, shape: plain.layers[cut].shape, views: None };
            let above = plain.above(cut);
            let flat = above.find(CODES).map(|flat| above.truncate(flat));
            return Ok(Self { source, encoder: flat.map(network).transpose()?.map(Encoder::new), device, macs: 0.0 });
        }
        let flat = plain.find(CODES).with_context(|| format!("no layer '{CODES}'"))?;
        let mut network = network(plain.truncate(flat))?;
        if stage.backbone.start != Start::Random {
            network.seam = stage.seam_of(&plain).map_err(anyhow::Error::msg)?;
        }
        let packed = shelf.packed(stage.data, stage.backbone.frame())?;
        let source = Source::Images { packed, preprocess: stage.backbone.preprocess };
        Ok(Self { source, encoder: Some(Encoder::new(network)), device, macs: 0.0 })
    }

    /// What a person should know of how they were computed.
    pub fn warning(&self) -> Option<String> {
        self.encoder.as_ref().and_then(Encoder::warning)
    }

    /// Codes and classes of samples.
    ///
    /// # Errors
    /// Their pixels or features cannot be read.
    pub fn set(&mut self, samples: &[u32], manifest: &Manifest) -> anyhow::Result<Set> {
        let labels = samples.iter().map(|sample| manifest.samples[*sample as usize].class).collect();
        Ok(Set { samples: samples.to_vec(), x: self.of(samples)?, labels, classes: manifest.classes.len() })
    }

    /// The codes of samples: [n, numbers].
    fn of(&mut self, samples: &[u32]) -> anyhow::Result<Tensor> {
        let mut parts = Vec::new();
        for samples in samples.chunks(BATCH) {
            let x = self.source.batch(samples, &self.device)?;
            let codes = match &self.encoder {
                Some(encoder) => {
                    let graph = &encoder.network.graph;
                    self.macs += graph.total_macs() as f64 * samples.len() as f64;
                    encoder.features(&x, &[graph.last()], Parts::Alike)?.remove(0)
                }
                None => x,
            };
            parts.push(codes.flatten_from(1)?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }
}

/// Codes and classes of one part of the data.
pub struct Set {
    pub samples: Vec<u32>,
    /// [n, numbers]
    pub x: Tensor,
    pub labels: Vec<u32>,
    pub classes: usize,
}

impl Set {
    /// What a head gives; the answers of a regression count as logits.
    fn logits(&self, head: &Head) -> candle_core::Result<Tensor> {
        linear::forward(&self.x, &head.weight, &head.bias, Activation::Linear)
    }

    /// What a head's logits are to be divided by; nothing where they are no numbers, and diverge with their scores.
    ///
    /// # Errors
    /// The head has another shape.
    pub fn temperature(&self, head: &Head) -> anyhow::Result<Option<f64>> {
        let logits = self.logits(head)?.flatten_all()?.to_vec1::<f32>()?;
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Ok(None);
        }
        Ok(Some(temperature(&logits, &self.labels, self.classes)?))
    }

    /// Answers and scores of a head.
    ///
    /// # Errors
    /// The head has another shape.
    pub fn scores(&self, head: &Head) -> anyhow::Result<(Predictions, Scores)> {
        let logits = self.logits(head)?;
        let found = answers(&logits, &self.labels, 1)?;
        Ok(evaluate::close(vec![found], 1, &self.samples, &self.labels, self.classes)?.remove(0))
    }

    /// Both parts.
    ///
    /// # Errors
    /// Their codes have other shapes.
    pub fn with(&self, other: &Self) -> anyhow::Result<Self> {
        let samples = [self.samples.as_slice(), &other.samples].concat();
        let labels = [self.labels.as_slice(), &other.labels].concat();
        Ok(Self { samples, x: Tensor::cat(&[&self.x, &other.x], 0)?, labels, classes: self.classes })
    }
}

/// A head with its logits divided by a temperature.
///
/// # Errors
/// Only those of the device.
pub fn cooled(head: Head, temperature: Option<f64>) -> candle_core::Result<Head> {
    let Some(temperature) = temperature else { return Ok(head) };
    let [weight, bias] = [&head.weight, &head.bias].map(|param| param.affine(1.0 / temperature, 0.0));
    Ok(Head { weight: weight?, bias: bias? })
}
