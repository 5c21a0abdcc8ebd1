//! What a worker keeps at hand between stages: manifests, mapped pixels, weights, mapped features.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Context;
use candle_core::Tensor;

use super::features::Features;
use super::solved_start::SolvedHead;
use super::{encode, pretrain, zero_shot};
use crate::data::Manifest;
use crate::data::packed::Packed;
use crate::frame::Frame;
use crate::key::Key;
use crate::model::catalogue::identify;
use crate::model::weights::Weights;
use crate::plan::stage::Work;
use crate::plan::stage::{Backbone, Encode, Start, Train};

/// Where things lie that are made once: what is prepared of data, and what devices compute. That of one numerics class is not
/// another's: a trial would have other bits than where all of it is computed there.
#[derive(Clone, Debug)]
pub struct Places {
    pub cache: PathBuf,
    /// The class of the device.
    pub numerics: String,
}

impl Places {
    fn computed(&self) -> PathBuf {
        self.cache.join(&self.numerics)
    }

    /// The weights of a source model.
    pub fn model(&self, pretrain: Key) -> PathBuf {
        self.computed().join(format!("{pretrain}.safetensors"))
    }

    pub fn features(&self, encode: Key) -> PathBuf {
        self.computed().join(format!("{encode}.features"))
    }

    /// The head that class names make.
    pub fn head(&self, texts: Key) -> PathBuf {
        self.computed().join(format!("{texts}.head"))
    }

    /// What a trial has trained: beside the cache, since nothing makes it again by itself.
    pub fn network(&self, trial: Key) -> PathBuf {
        self.networks().join(format!("{trial}.safetensors"))
    }

    /// The folder of what trials have trained.
    pub fn networks(&self) -> PathBuf {
        self.cache.with_file_name("networks").join(&self.numerics)
    }
}

pub struct Shelf {
    pub places: Places,
    pub device: candle_core::Device,
    pub warnings: Vec<String>,
    manifests: HashMap<Key, Rc<Manifest>>,
    packed: HashMap<(Key, Frame), Rc<Packed>>,
    weights: HashMap<(String, String), Rc<Weights>>,
    features: HashMap<Key, Rc<Features>>,
    /// What trials start from, by what decides it.
    pub(super) solved_heads: HashMap<Key, Rc<SolvedHead>>,
}

/// Bytes of solved heads that are kept at hand, at most.
const HEADS: usize = 1 << 28;

impl Shelf {
    /// # Errors
    /// The cache cannot be written to.
    pub fn new(places: Places, device: candle_core::Device) -> anyhow::Result<Self> {
        let computed = places.computed();
        std::fs::create_dir_all(&computed).with_context(|| format!("cannot make '{}'", computed.display()))?;
        Ok(Self {
            places,
            device,
            warnings: Vec::new(),
            manifests: HashMap::new(),
            packed: HashMap::new(),
            weights: HashMap::new(),
            features: HashMap::new(),
            solved_heads: HashMap::new(),
        })
    }

    /// Notes what a person should know, once.
    pub fn warn(&mut self, warning: Option<String>) {
        self.warnings.extend(warning.filter(|warning| !self.warnings.contains(warning)));
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

    /// The packed images of a dataset.
    pub fn packed(&mut self, data: Key, frame: Frame) -> anyhow::Result<Rc<Packed>> {
        if let Some(packed) = self.packed.get(&(data, frame)) {
            return Ok(packed.clone());
        }
        let samples = self.manifest(data)?.samples.len();
        let packed = Rc::new(Packed::open(&self.places.cache, data, frame, samples)?);
        self.packed.insert((data, frame), packed.clone());
        Ok(packed)
    }

    /// The starting weights of a backbone that does not start at random; checked against its network.
    pub fn weights(&mut self, backbone: &Backbone, work: &Work) -> anyhow::Result<Option<Rc<Weights>>> {
        let name = match &backbone.start {
            Start::Random => return Ok(None),
            Start::File(sha256) => sha256.clone(),
            Start::Pretrained(key) => key.to_string(),
        };
        // What may be missing above the tap depends on the tap.
        let name = (name, backbone.tap.clone());
        if let Some(weights) = self.weights.get(&name) {
            return Ok(Some(weights.clone()));
        }
        let weights = match &backbone.start {
            Start::Pretrained(key) => self.pretrained(*key, backbone, work)?,
            _ => {
                let path = work.weights.as_ref().context("the work names no weight file")?;
                let found = identify(path)?.sha256;
                anyhow::ensure!(
                    found == name.0,
                    "the weight file '{}' has changed since the plan was made",
                    path.display()
                );
                Weights::load(path, &backbone.arch, &backbone.tap)?.0
            }
        };
        let weights = Rc::new(weights);
        self.weights.insert(name, weights.clone());
        Ok(Some(weights))
    }

    /// Weights and biases of the head that a trial's class names make; none of one that starts at random.
    ///
    /// # Errors
    /// The side of texts or its tokenizer cannot be read.
    pub fn named_head(&self, stage: &Train, work: &Work) -> anyhow::Result<Option<[Tensor; 2]>> {
        let (Some(texts), Start::File(sha256)) = (&stage.texts, &stage.backbone.start) else { return Ok(None) };
        let path = work.weights.as_ref().context("the work names no weight file")?;
        zero_shot::prepared(texts, path, sha256, &stage.backbone.arch.name, &self.places).map(Some)
    }

    /// Keeps a head at hand that others may start from, if need be in the place of all before it.
    pub(super) fn put_head(&mut self, key: Key, head: Rc<SolvedHead>) {
        let known: usize = self.solved_heads.values().map(|head| head.bytes()).sum();
        if known + head.bytes() > HEADS {
            self.solved_heads.clear();
        }
        self.solved_heads.insert(key, head);
    }

    fn pretrained(&mut self, key: Key, backbone: &Backbone, work: &Work) -> anyhow::Result<Weights> {
        let path = self.places.model(key);
        let read = || Ok(Weights::load(&path, &backbone.arch, &backbone.tap)?.0);
        match read() {
            Ok(weights) => Ok(weights),
            Err::<_, anyhow::Error>(error) => {
                self.warnings.push(format!("the pretrained weights are made again: {error:#}"));
                let stage = work.pretrain.as_ref().context("the work names no pretrain stage")?;
                pretrain::again(stage, self)?;
                read()
            }
        }
    }

    /// Takes features off the device that none of these stages reads.
    pub fn tidy(&self, works: &[Work]) {
        let read: Vec<Key> = works.iter().filter_map(|work| Some(Key::of("encode", work.encode.as_ref()?))).collect();
        self.features.iter().filter(|(key, _)| !read.contains(key)).for_each(|(_, features)| {
            features.leave(false);
        });
    }

    /// Takes all features off the device for good, where their memory is wanted for more; whether there were any.
    pub fn clear_device(&self) -> bool {
        self.features.values().filter(|features| features.leave(true)).count() > 0
    }

    /// The features of an encoding; made again if their file is gone or damaged.
    pub fn features(&mut self, stage: &Encode, work: &Work) -> anyhow::Result<Rc<Features>> {
        let key = Key::of("encode", stage);
        if let Some(features) = self.features.get(&key) {
            return Ok(features.clone());
        }
        let path = self.places.features(key);
        let features = match Features::open(&path) {
            Ok(features) => features,
            Err(error) => {
                self.warnings.push(format!("the features are made again: {error:#}"));
                encode::again(stage, work, self)?;
                Features::open(&path)?
            }
        };
        let features = Rc::new(features);
        self.features.insert(key, features.clone());
        Ok(features)
    }
}
