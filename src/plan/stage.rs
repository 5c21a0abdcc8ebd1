//! The units of device work. Each is one plain struct of everything that decides its result; its key is its hash.

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::{transfer, trial_key};
use crate::augmentation::Augmentation;
use crate::device::{PRECISIONS, Precision};
use crate::experiment;
use crate::frame::{Frame, Resize};
use crate::freeze::Freeze;
use crate::key::Key;
use crate::model::arch::Arch;
use crate::model::freezing::{frozen_layers, shared_cut, with_head};
use crate::model::graph::Graph;
use crate::model::lora::{frozen_in, of_phases, with_lora};
use crate::model::selected::frozen_beside;
use crate::phase::Phase;
use crate::recipe::{self, Head, KeepWeights, Metric, Pool, Preprocess};
use crate::trains::Lora;
use crate::value::{Layer, Value};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Pretrain(Pretrain),
    Encode(Encode),
    Train(Box<Train>),
}

/// Where the numbers of a backbone start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    Random,
    /// The SHA-256 of a weight file.
    File(String),
    /// The key of a pretrain stage.
    Pretrained(Key),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backbone {
    pub arch: Arch,
    pub start: Start,
    pub preprocess: Preprocess,
    pub resize: Resize,
    /// The layer whose output is the feature.
    pub tap: String,
}

/// Makes the source model: the whole network on all training images of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pretrain {
    pub arch: Arch,
    pub preprocess: Preprocess,
    pub resize: Resize,
    pub data: Key,
    pub classes: usize,
    pub phase: Phase,
    pub seed: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
}

/// Which images an encoding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoded {
    /// Those of all parts, as they are.
    All,
    /// Validation and test; training images are augmented anew in every epoch.
    Evaluated,
    /// Validation and test, and of each training image so many augmented views.
    Views {
        count: usize,
        /// Validation images have views too: they are learned from in the end.
        refit: bool,
    },
}

/// Runs the frozen prefix once over every image that some replicate reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Encode {
    pub backbone: Backbone,
    /// The pooling of the head, where everything below it is frozen and it is part of the prefix.
    pub pool: Option<Pool>,
    /// The layer whose output is kept.
    pub cut: String,
    pub images: Encoded,
    /// How the views of training images are made.
    pub augment: Vec<Augmentation>,
    pub data: Key,
    /// The largest subset asked for, and all replicates up to this: their union is encoded.
    pub per_class: Option<usize>,
    pub seed: u64,
    pub replicates: usize,
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
}

// What stands for itself is not in keys.
fn whole() -> f64 {
    1.0
}

fn is_whole(share: &f64) -> bool {
    *share == 1.0
}

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// The hash of everything below but the replicate, with the bytes that names stand for.
    pub cell: Key,
    pub replicate: usize,
    pub backbone: Backbone,
    /// How many of the first layers start from the weights, where those above them start at random.
    #[serde(default)]
    pub copied: Option<usize>,
    pub pool: Pool,
    pub head: Head,
    pub phases: Vec<Phase>,
    pub keep_weights: KeepWeights,
    pub early_stop: Option<usize>,
    /// The weights that are scored are this share of the way from where the last phase began to where it ended.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub interpolate: f64,
    /// Augmented views of each training image that are stored, instead of new ones in every epoch.
    pub views: Option<usize>,
    pub metric: Metric,
    /// Whether the trial trains again on training and validation images before test is read.
    pub refit: bool,
    pub data: Key,
    pub classes: usize,
    pub per_class: Option<usize>,
    pub seed: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
}

/// A stage, and the stages whose artifacts it reads: should one be gone or damaged, a worker makes it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    pub stage: Stage,
    pub pretrain: Option<Pretrain>,
    pub encode: Option<Encode>,
    /// Whether frozen layers may run apart from what trains above them, once for all trials of a group.
    pub prefix: bool,
    /// The weight file, where the backbone starts from one.
    pub weights: Option<std::path::PathBuf>,
    /// Where what a trial has trained is kept, if it is.
    #[serde(default)]
    pub keep: Option<std::path::PathBuf>,
}

/// A trial and what must be there before it.
pub struct Chain {
    pub pretrain: Option<Pretrain>,
    pub encode: Option<Encode>,
    /// Whether the frozen layers may run apart from the rest; only then is there an encoding.
    pub prefix: bool,
    pub train: Train,
}

/// What stages take from the experiment as a whole.
pub struct Reach<'a> {
    pub seed: u64,
    pub replicates: usize,
    pub metric: Metric,
    pub refit: bool,
    pub per_class: Option<usize>,
    pub pretrain: Option<&'a experiment::Pretrain>,
}

impl Stage {
    /// How its products round.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Pretrain(stage) => stage.precision,
            Self::Encode(stage) => stage.precision,
            Self::Train(stage) => stage.precision,
        }
    }

    pub fn key(&self) -> Key {
        match self {
            Self::Pretrain(stage) => Key::of("pretrain", stage),
            Self::Encode(stage) => Key::of("encode", stage),
            Self::Train(stage) => trial_key(stage.cell, stage.replicate),
        }
    }

    /// The word for its kind in tables.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Pretrain(_) => "pretrain",
            Self::Encode(_) => "encode",
            Self::Train(stage) if stage.phases.iter().all(|phase| phase.freeze == Freeze::All) => "probe",
            Self::Train(_) => "finetune",
        }
    }

    pub fn data(&self) -> Key {
        match self {
            Self::Pretrain(stage) => stage.data,
            Self::Encode(stage) => stage.data,
            Self::Train(stage) => stage.data,
        }
    }

    pub fn arch(&self) -> &Arch {
        match self {
            Self::Pretrain(stage) => &stage.arch,
            Self::Encode(stage) => &stage.backbone.arch,
            Self::Train(stage) => &stage.backbone.arch,
        }
    }
}

impl Backbone {
    /// What images become before they are preprocessed.
    pub fn frame(&self) -> Frame {
        Frame { side: self.arch.input, resize: self.resize }
    }
}

impl Pretrain {
    /// What images become before they are preprocessed.
    pub fn frame(&self) -> Frame {
        Frame { side: self.arch.input, resize: self.resize }
    }
}

impl Train {
    /// The whole network and how many of its layers are the backbone's.
    ///
    /// # Errors
    /// The backbone has no such tap.
    pub fn network(&self) -> Result<(Graph, usize), String> {
        let (_, backbone) = self.own_backbone()?;
        let dropout = self.phases.iter().map(|phase| phase.dropout).fold(0.0, f64::max);
        Ok((with_head(&backbone, self.pool, &self.head, self.classes, dropout), backbone.layers.len()))
    }

    /// How many of the first layers stand still in a phase: those that it freezes, and those below all that it trains.
    ///
    /// # Errors
    /// As `network`, or the freeze depth names no layer.
    pub fn frozen(&self, phase: &Phase) -> Result<usize, String> {
        let (plain, backbone) = self.own_backbone()?;
        frozen_beside(&backbone, frozen_in(&backbone, &plain, &phase.freeze)?, &phase.trains)
    }

    /// The backbone up to the tap, and the same with what its phases add.
    fn own_backbone(&self) -> Result<(Graph, Graph), String> {
        let plain = self.backbone.arch.backbone(&self.backbone.tap)?;
        let own = match of_phases(&plain, &self.phases)? {
            Some((frozen, lora)) => with_lora(&plain, frozen, lora)?,
            None => plain.clone(),
        };
        Ok((plain, own))
    }

    /// How many layers of the backbone, without what its phases add, stand still in the last phase.
    ///
    /// # Errors
    /// As `network`.
    pub fn frozen_of_plain(&self) -> Result<usize, String> {
        let plain = self.backbone.arch.backbone(&self.backbone.tap)?;
        self.phases.last().map_or(Ok(0), |phase| frozen_layers(&plain, &phase.freeze))
    }

    /// What its phases add to the backbone, and above how many layers.
    ///
    /// # Errors
    /// As `network`.
    pub fn lora(&self) -> Result<Option<(usize, Lora)>, String> {
        of_phases(&self.backbone.arch.backbone(&self.backbone.tap)?, &self.phases)
    }

    /// The last layer of what stays as it is in all phases, if there is one: frozen, and below it nothing random. Where no
    /// image is augmented it can be computed once for all epochs.
    ///
    /// # Errors
    /// As `network`.
    pub fn shared_cut(&self) -> Result<Option<usize>, String> {
        let (network, backbone_layers) = self.network()?;
        let mut frozen = usize::MAX;
        for phase in &self.phases {
            frozen = frozen.min(self.frozen(phase)?);
        }
        Ok(shared_cut(&network, backbone_layers, frozen))
    }

    /// Whether training images are changed anew in every epoch.
    pub fn augments(&self) -> bool {
        self.views.is_none() && self.phases.iter().any(|phase| !phase.augment.is_empty())
    }

    /// Whether its head is solved instead of trained step by step.
    pub fn solves(&self) -> bool {
        self.phases.iter().any(|phase| phase.optimizer.solves())
    }

    /// The images whose features can be kept.
    fn encoded(&self) -> Encoded {
        match (self.views, self.augments()) {
            (Some(count), _) => Encoded::Views { count, refit: self.refit },
            (None, true) => Encoded::Evaluated,
            (None, false) => Encoded::All,
        }
    }
}

/// The stages behind a settled cell's replicate.
///
/// # Errors
/// A setting that cannot be read.
pub fn chain(layer: &Layer, cell: Key, replicate: usize, reach: &Reach, facts: &Facts) -> Result<Chain, String> {
    let dataset = layer.get("dataset").map_or_else(String::new, Value::to_string);
    let data = facts.datasets.get(&dataset).ok_or_else(|| format!("the dataset '{dataset}' was not opened"))?;
    let pretrain = pretrain(layer, reach.pretrain, facts, reach.seed)?;
    let backbone = Backbone {
        arch: arch(layer, facts)?,
        start: start(layer, facts, reach.pretrain, reach.seed)?,
        preprocess: preprocess(layer)?,
        resize: resize(layer)?,
        tap: layer.get("tap").map_or_else(String::new, Value::to_string),
    };
    let mut whole = crate::experiment::resolve::defaults();
    crate::experiment::resolve::overlay(&mut whole, layer);
    let copied = match layer.get("transfer") {
        Some(value) => {
            let network = backbone.arch.backbone(&backbone.tap)?;
            Some(transfer::copied(value, &network).map_err(|fault| fault.message)?)
        }
        None => None,
    };
    let train = Train {
        cell,
        replicate,
        backbone: backbone.clone(),
        copied,
        pool: layer.get("pool").map_or(Ok(Pool::Avg(1)), Pool::parse)?,
        head: Head::parse(whole.get("head").ok_or("no head")?)?,
        phases: Phase::parse_all(&whole)?,
        keep_weights: whole
            .get("keep_weights")
            .map_or(Ok(KeepWeights::Last), |value| recipe::word(value, "'last' or 'best'"))?,
        early_stop: layer.get("early_stop").map(experiment::keys::early_stop_patience).transpose()?,
        interpolate: layer.get("interpolate").map_or(Ok(1.0), |value| recipe::number(value, 0.0, 1.0))?,
        views: layer.get("views").map(experiment::keys::view_count).transpose()?,
        metric: reach.metric,
        refit: reach.refit,
        data: data.fingerprint,
        classes: data.classes,
        per_class: layer.get("per_class").and_then(Value::count),
        seed: reach.seed,
        precision: precision(layer)?,
    };
    let encode = match train.shared_cut()? {
        None => None,
        Some(cut) => {
            let (network, _) = train.network()?;
            let name = network.layers[cut].name.clone();
            Some(Encode {
                backbone,
                pool: name.starts_with("head.").then_some(train.pool),
                cut: name,
                images: train.encoded(),
                augment: train.views.map_or(Vec::new(), |_| train.phases[0].augment.clone()),
                data: data.fingerprint,
                per_class: reach.per_class,
                seed: reach.seed,
                replicates: reach.replicates,
                precision: train.precision,
            })
        }
    };
    // A random backbone differs between replicates: there is nothing to share.
    let encode = encode.filter(|_| train.backbone.start != Start::Random);
    Ok(Chain { pretrain, prefix: encode.is_some(), encode, train })
}

/// The network that a settled layer names.
///
/// # Errors
/// `arch` or `input` is missing.
pub fn arch(layer: &Layer, facts: &Facts) -> Result<Arch, String> {
    let name = layer.get("arch").map(Value::to_string).ok_or("no `arch`")?;
    Ok(Arch {
        input: layer.get("input").and_then(Value::count).ok_or("no `input`")?,
        width: layer.get("width").and_then(Value::number).unwrap_or(1.0),
        own: facts.graphs.get(&name).cloned().map(Box::new),
        name,
    })
}

fn preprocess(layer: &Layer) -> Result<Preprocess, String> {
    recipe::word(&asked(layer, "preprocess")?, recipe::PREPROCESSES)
}

fn precision(layer: &Layer) -> Result<Precision, String> {
    layer.get("precision").map_or(Ok(Precision::default()), |value| recipe::word(value, PRECISIONS))
}

/// What stands for itself is not in keys: those of before there was a choice hold.
fn is_default(precision: &Precision) -> bool {
    *precision == Precision::default()
}

fn resize(layer: &Layer) -> Result<Resize, String> {
    Resize::parse(asked(layer, "resize")?.text().unwrap_or_default())
}

/// A setting without the mark that it goes against the weights.
fn asked(layer: &Layer, key: &str) -> Result<Value, String> {
    let value = layer.get(key).ok_or_else(|| format!("no `{key}`"))?;
    let text = value.text().map_or("", |text| text.split(recipe::OVERRIDE).next().unwrap_or(text));
    Ok(Value::Text(text.to_owned()))
}

/// Where the backbone of a settled layer starts.
///
/// # Errors
/// Weights that were not found, or `pretrain` without its table.
pub fn start(layer: &Layer, facts: &Facts, table: Option<&experiment::Pretrain>, seed: u64) -> Result<Start, String> {
    let weights = layer.get("weights").map_or_else(String::new, Value::to_string);
    match weights.as_str() {
        "random" => Ok(Start::Random),
        "pretrain" => match pretrain(layer, table, facts, seed)? {
            Some(stage) => Ok(Start::Pretrained(Stage::Pretrain(stage).key())),
            None => Err("weights = \"pretrain\" needs a [pretrain] table with the source dataset".to_owned()),
        },
        name => facts
            .weights
            .get(name)
            .map(|fact| Start::File(fact.sha256.clone()))
            .ok_or_else(|| format!("the weights '{name}' were not found")),
    }
}

fn pretrain(
    layer: &Layer,
    table: Option<&experiment::Pretrain>,
    facts: &Facts,
    seed: u64,
) -> Result<Option<Pretrain>, String> {
    if layer.get("weights").and_then(Value::text) != Some("pretrain") {
        return Ok(None);
    }
    let Some(table) = table else { return Ok(None) };
    let data =
        facts.datasets.get(&table.dataset).ok_or_else(|| format!("the dataset '{}' was not opened", table.dataset))?;
    let mut settings = table.layer.clone();
    settings.insert("batch_norm".to_owned(), Value::Text("train".to_owned()));
    let phase = Phase::parse(&settings)?;
    Ok(Some(Pretrain {
        arch: arch(layer, facts)?,
        preprocess: preprocess(layer)?,
        resize: resize(layer)?,
        data: data.fingerprint,
        classes: data.classes,
        phase,
        seed,
        precision: precision(layer)?,
    }))
}
