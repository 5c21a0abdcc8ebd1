//! How well the last features of a weight file fit a dataset, before anything is trained: one pass over training images, and the
//! scores of the field beside answers to each image by others.

use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use candle_core::{Device, Tensor};

use super::source::Source;
use super::survey::{BATCH, NEIGHBOURS, Survey};
use crate::data::Manifest;
use crate::data::packed::Packed;
use crate::exec::{AT_ONCE, Encoder, Network, Parts};
use crate::model::freezing::pooled;
use crate::model::graph::Graph;
use crate::model::weights::Weights;
use crate::nn::probe::{Rows, neighbours_left_out, ridge_left_out};
use crate::nn::transferability::{h_score, leep, log_me};
use crate::recipe::Pool;

/// What one weight file says of a dataset.
pub struct Fit {
    pub numbers: usize,
    /// Of each image, whether its class was found by a linear model on the images that do not leave with it.
    pub probe: Vec<bool>,
    pub neighbours: Vec<bool>,
    pub log_me: f64,
    pub h_score: f64,
    /// Of files with a classifier.
    pub leep: Option<f64>,
    /// Multiply-accumulates of an image up to the features, and parameters that these take.
    pub macs: f64,
    pub params: usize,
    /// On this device.
    pub images_per_second: f64,
}

/// Looks at the last features of a file.
///
/// # Errors
/// The weights do not fit, or the features are no numbers.
pub fn fit(
    what: &Survey,
    manifest: &Manifest,
    cache: &Path,
    device: &Device,
    tell: &mut (dyn FnMut(usize) + Send),
) -> anyhow::Result<Fit> {
    let (weights, fitted) = Weights::whole(&what.weights, &what.arch)?;
    let features = what.arch.tap(&fitted.graph, "features").map_err(anyhow::Error::msg)?;
    let backbone = fitted.graph.truncate(features);
    let packed = Rc::new(Packed::open(cache, manifest.fingerprint, what.frame(), manifest.samples.len())?);
    let source = Source::Images { packed, preprocess: what.preprocess };
    let classifier = (!fitted.headless).then(|| fitted.graph.above(features));
    let mut pass = Pass::new(&backbone, classifier, &weights, device)?;
    let start = Instant::now();
    let at_once = if device.is_cuda() { AT_ONCE } else { BATCH };
    for (index, batch) in what.samples.chunks(at_once).enumerate() {
        pass.take(&source.batch(batch, device)?)?;
        tell(index * at_once + batch.len());
    }
    let images_per_second = what.samples.len() as f64 / start.elapsed().as_secs_f64();
    let labels: Vec<u32> = what.samples.iter().map(|sample| manifest.samples[*sample as usize].class).collect();
    let (codes, logits) = pass.end()?;
    let rows = |x| Rows { x, labels: &labels, groups: &what.groups, classes: manifest.classes.len() };
    let right = |said: Vec<u32>| said.iter().zip(&labels).map(|(said, label)| said == label).collect::<Vec<bool>>();
    let codes = rows(&codes);
    Ok(Fit {
        numbers: codes.x.dim(1)?,
        probe: right(ridge_left_out(&codes)?),
        neighbours: right(neighbours_left_out(&codes, NEIGHBOURS)?),
        log_me: log_me(&codes)?,
        h_score: h_score(&codes)?,
        leep: logits.as_ref().map(|logits| leep(&rows(logits))).transpose()?,
        macs: (0..backbone.layers.len()).map(|layer| backbone.macs(layer) as f64).sum(),
        params: backbone.total_params(),
        images_per_second,
    })
}

/// Networks that images go through, and what has come out of them.
struct Pass {
    backbone: Encoder,
    pool: Network,
    /// The source's own.
    classifier: Option<Network>,
    codes: Vec<Tensor>,
    logits: Vec<Tensor>,
}

impl Pass {
    fn new(backbone: &Graph, classifier: Option<Graph>, weights: &Weights, device: &Device) -> anyhow::Result<Self> {
        let mut network = Network::new(backbone.clone(), weights, device)?;
        network.frozen = network.graph.layers.len();
        let pool = Network::new(pooled(backbone, Pool::Avg(1)).above(backbone.last()), &Weights::default(), device)?;
        let classifier = classifier.map(|graph| Network::new(graph, weights, device)).transpose()?;
        Ok(Self { backbone: Encoder::new(network), pool, classifier, codes: Vec::new(), logits: Vec::new() })
    }

    fn take(&mut self, images: &Tensor) -> anyhow::Result<()> {
        let last = self.backbone.network.graph.last();
        let map = self.backbone.features(images, &[last], Parts::Alike)?.remove(0);
        let map = self.backbone.network.as_images(last, &map)?;
        let row = |network: &Network| network.infer(&map)?.flatten_from(1)?.to_device(&Device::Cpu);
        self.codes.push(row(&self.pool)?);
        self.logits.extend(self.classifier.as_ref().map(row).transpose()?);
        Ok(())
    }

    /// Codes [n, numbers] and logits [n, source classes].
    fn end(self) -> anyhow::Result<(Tensor, Option<Tensor>)> {
        let logits = if self.logits.is_empty() { None } else { Some(Tensor::cat(&self.logits, 0)?) };
        Ok((Tensor::cat(&self.codes, 0)?, logits))
    }
}
