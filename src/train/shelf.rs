//! What a worker keeps at hand between stages: manifests, mapped pixels, weights, mapped features.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Context;

use super::features::Features;
use super::{encode, pretrain};
use crate::data::Manifest;
use crate::data::packed::Packed;
use crate::key::Key;
use crate::model::arch::Arch;
use crate::model::weights::Weights;
use crate::plan::stage::Work;
use crate::plan::stage::{Backbone, Encode, Start};

/// Folders that the main process has prepared.
#[derive(Clone, Debug)]
pub struct Places {
    pub cache: PathBuf,
}

pub struct Shelf {
    pub places: Places,
    pub device: candle_core::Device,
    pub numerics: &'static str,
    pub warnings: Vec<String>,
    manifests: HashMap<Key, Rc<Manifest>>,
    packed: HashMap<(Key, usize), Rc<Packed>>,
    weights: HashMap<String, Rc<Weights>>,
    features: HashMap<Key, Rc<Features>>,
}

impl Shelf {
    pub fn new(places: Places, device: candle_core::Device, numerics: &'static str) -> Self {
        Self {
            places,
            device,
            numerics,
            warnings: Vec::new(),
            manifests: HashMap::new(),
            packed: HashMap::new(),
            weights: HashMap::new(),
            features: HashMap::new(),
        }
    }

    /// The samples of a dataset.
    pub fn manifest(&mut self, data: Key) -> anyhow::Result<Rc<Manifest>> {
        if let Some(manifest) = self.manifests.get(&data) {
            return Ok(manifest.clone());
        }
        let path = self.places.cache.join(format!("{data}.json"));
        let text = std::fs::read(&path).with_context(|| format!("cannot read the manifest '{}'", path.display()))?;
        let manifest: Rc<Manifest> =
            Rc::new(serde_json::from_slice(&text).with_context(|| format!("'{}' is damaged", path.display()))?);
        self.manifests.insert(data, manifest.clone());
        Ok(manifest)
    }

    /// The packed images of a dataset at a size.
    pub fn packed(&mut self, data: Key, side: usize) -> anyhow::Result<Rc<Packed>> {
        if let Some(packed) = self.packed.get(&(data, side)) {
            return Ok(packed.clone());
        }
        let samples = self.manifest(data)?.samples.len();
        let packed = Rc::new(Packed::open(&self.places.cache, data, side, samples)?);
        self.packed.insert((data, side), packed.clone());
        Ok(packed)
    }

    /// The starting weights of a backbone that does not start at random; checked against its network.
    pub fn weights(&mut self, backbone: &Backbone, work: &Work) -> anyhow::Result<Option<Rc<Weights>>> {
        let name = match &backbone.start {
            Start::Random => return Ok(None),
            Start::File(sha256) => sha256.clone(),
            Start::Pretrained(key) => key.to_string(),
        };
        if let Some(weights) = self.weights.get(&name) {
            return Ok(Some(weights.clone()));
        }
        let weights = match &backbone.start {
            Start::Pretrained(key) => self.pretrained(*key, work)?,
            _ => {
                let path = work.weights.as_ref().context("the work names no weight file")?;
                let bytes =
                    std::fs::read(path).with_context(|| format!("cannot read the weights '{}'", path.display()))?;
                let found = crate::data::open::sha256([bytes.as_slice()]);
                anyhow::ensure!(
                    found == name,
                    "the weight file '{}' has changed since the plan was made",
                    path.display()
                );
                Weights::read(path)?
            }
        };
        check(&weights, &backbone.arch)?;
        let weights = Rc::new(weights);
        self.weights.insert(name, weights.clone());
        Ok(Some(weights))
    }

    fn pretrained(&mut self, key: Key, work: &Work) -> anyhow::Result<Weights> {
        let path = self.places.cache.join(format!("{key}.safetensors"));
        match Weights::read(&path) {
            Ok(weights) => Ok(weights),
            Err(error) => {
                self.warnings.push(format!("the pretrained weights are made again: {error:#}"));
                let stage = work.pretrain.as_ref().context("the work names no pretrain stage")?;
                pretrain::run(stage, self, &mut |_| ())?;
                Weights::read(&path)
            }
        }
    }

    /// The features of an encoding; made again if their file is gone or damaged.
    pub fn features(&mut self, stage: &Encode, work: &Work) -> anyhow::Result<Rc<Features>> {
        let key = Key::of("encode", stage);
        if let Some(features) = self.features.get(&key) {
            return Ok(features.clone());
        }
        let path = self.places.cache.join(format!("{key}.features"));
        let features = match Features::open(&path) {
            Ok(features) => features,
            Err(error) => {
                self.warnings.push(format!("the features are made again: {error:#}"));
                encode::run(stage, work, self, &mut |_| ())?;
                Features::open(&path)?
            }
        };
        let features = Rc::new(features);
        self.features.insert(key, features.clone());
        Ok(features)
    }
}

/// Every tensor of the file must have its place in the network, and the other way round; only the head may be new.
pub(super) fn check(weights: &Weights, arch: &Arch) -> anyhow::Result<()> {
    let classes = weights.classes(&arch.graph(10).map_err(anyhow::Error::msg)?).unwrap_or(10);
    let graph = arch.graph(classes).map_err(anyhow::Error::msg)?;
    let features = arch.tap(&graph, "features").map_err(anyhow::Error::msg)?;
    weights.check(&graph, features)
}
