//! The units of device work. Each is one plain struct of everything that decides its result; its key is its hash.

use serde::{Deserialize, Serialize};

use super::trial_key;
use crate::augmentation::Augmentation;
use crate::device::Precision;
use crate::frame::{Frame, Resize};
use crate::freeze::Freeze;
use crate::key::Key;
use crate::model::arch::Arch;
use crate::model::freezing::{frozen_layers, shared_cut, with_head};
use crate::model::graph::Graph;
use crate::model::lora::{frozen_in, of_phases, with_lora};
use crate::model::selected::frozen_beside;
use crate::phase::Phase;
use crate::preprocess::Preprocess;
use crate::recipe::{Calibrate, Head, KeepWeights, Metric, Optimizer, Pool};
use crate::trains::Lora;

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

// What stands for itself is not in keys: those of before there was a choice hold.
fn whole() -> f64 {
    1.0
}

fn is_whole(share: &f64) -> bool {
    *share == 1.0
}

fn is_none(share: &f64) -> bool {
    *share == 0.0
}

fn is_default(precision: &Precision) -> bool {
    *precision == Precision::default()
}

/// The texts that a head starts from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Texts {
    pub prompts: Vec<String>,
    /// What the classes are called, in their order.
    pub names: Vec<String>,
    /// The SHA-256 of the tokenizer beside the weights.
    pub tokenizer: String,
}

/// A linear head that is solved on the features of the untrained network, and that a trial then trains on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SolvedStart {
    pub optimizer: Optimizer,
    /// Strengths of regularisation among which validation chooses.
    pub lambda: Vec<f64>,
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
    /// What the head starts from, where it does not start at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<Texts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solved_start: Option<SolvedStart>,
    pub phases: Vec<Phase>,
    pub keep_weights: KeepWeights,
    pub early_stop: Option<usize>,
    /// The weights that are scored are this share of the way from where the last phase began to where it ended.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub interpolate: f64,
    /// The weights that are scored are the mean over this last share of the last phase; 0: those of its last step.
    #[serde(default, skip_serializing_if = "is_none")]
    pub average: f64,
    #[serde(default, skip_serializing_if = "Calibrate::is_none")]
    pub calibrate: Calibrate,
    /// Augmented views of each training image that are stored, instead of new ones in every epoch.
    pub views: Option<usize>,
    pub metric: Metric,
    /// Whether the trial trains again on training and validation images before test is read.
    pub refit: bool,
    /// Whether it is there for the comparison of settings alone: test is not read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untested: bool,
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

    /// The whole network as it answers when it has been trained: without what its phases add beside its layers.
    ///
    /// # Errors
    /// As `network`.
    pub fn answering(&self) -> Result<Graph, String> {
        let plain = self.backbone.arch.backbone(&self.backbone.tap)?;
        Ok(with_head(&plain, self.pool, &self.head, self.classes, 0.0))
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

    /// What decides the head that it starts from; none of one that is not solved. It is one for all trials that have this in
    /// common, whatever they do from there on.
    ///
    /// # Errors
    /// As `network`.
    pub fn solved_start_key(&self) -> Result<Option<Key>, String> {
        let Some(start) = &self.solved_start else { return Ok(None) };
        let first = self.phases.first().map(|phase| (phase.class_weights, phase.label_smoothing));
        // What starts at random differs between networks; and across a cut nothing is computed as one.
        let network = (&self.backbone, self.copied, self.pool, self.lora()?, self.shared_cut()?);
        let read = (self.data, self.per_class, self.seed, self.replicate, self.precision);
        Ok(Some(Key::of("solved start", &(start, first, network, read, self.metric, self.refit))))
    }

    /// How many of the first layers may run apart from the others, where a phase freezes more than these; 0 where none does, or where
    /// nothing runs apart. What is computed as one above must not reach across.
    ///
    /// # Errors
    /// As `network`.
    pub fn seam(&self) -> Result<usize, String> {
        let frozen = self.phases.iter().map(|phase| self.frozen(phase)).collect::<Result<Vec<usize>, _>>()?;
        if self.backbone.start == Start::Random || frozen.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(0);
        }
        Ok(self.shared_cut()?.map_or(0, |cut| cut + 1))
    }

    /// How many of the first layers of its network as it answers may run apart: nothing is computed as one across that.
    ///
    /// # Errors
    /// As `network`.
    pub fn seam_of(&self, answering: &Graph) -> Result<usize, String> {
        let Some(cut) = self.shared_cut()? else { return Ok(0) };
        let name = &self.network()?.0.layers[cut].name;
        Ok(answering.find(name).map_or(0, |cut| cut + 1))
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
    pub(super) fn encoded(&self) -> Encoded {
        match (self.views, self.augments()) {
            (Some(count), _) => Encoded::Views { count, refit: self.refit },
            (None, true) => Encoded::Evaluated,
            (None, false) => Encoded::All,
        }
    }
}
