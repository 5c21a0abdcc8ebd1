//! A trained network in one file: its tensors, and everything else that an answer to an image depends on.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::arch::Arch;
use super::freezing::with_head;
use super::graph::Graph;
use super::lora::{merged, with_lora};
use super::weights::Weights;
use super::weights::file::WeightFile;
use crate::device::Precision;
use crate::frame::{Frame, Resize};
use crate::key::Key;
use crate::preprocess::Preprocess;
use crate::recipe::{Head, Pool};
use crate::trains::Lora;

/// The fact of a safetensors file that holds what is not a tensor.
pub const FACT: &str = "tl_sweep_model";

/// What a file of tensors must say of itself, so that images can be answered as in the trial it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    pub arch: Arch,
    pub preprocess: Preprocess,
    pub resize: Resize,
    /// The value that is white in images of 16 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub white: Option<u16>,
    pub tap: String,
    pub pool: Pool,
    pub head: Head,
    /// Layers, from the input, that were held fixed when test was read: a batch norm is not merged across that boundary.
    pub frozen: usize,
    /// The same of what ran apart from the others in the trial, where that was less than is frozen in the end.
    #[serde(default, skip_serializing_if = "is_none")]
    pub seam: usize,
    /// What was added to it, and above how many layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<(usize, Lora)>,
    pub precision: Precision,
    /// Their names, in the order of the outputs.
    pub classes: Vec<String>,
    /// Contents of the images that training or the choice of its settings has seen.
    pub seen: Vec<Key>,
}

fn is_none(seam: &usize) -> bool {
    *seam == 0
}

impl Trained {
    /// What images become before they are preprocessed.
    pub fn frame(&self) -> Frame {
        Frame { side: self.arch.input, resize: self.resize }
    }

    /// The network with its head.
    ///
    /// # Errors
    /// The backbone has no such tap.
    pub fn graph(&self) -> Result<Graph, String> {
        let mut backbone = self.arch.backbone(&self.tap)?;
        if let Some((frozen, lora)) = self.lora {
            backbone = with_lora(&backbone, frozen, lora)?;
        }
        Ok(with_head(&backbone, self.pool, &self.head, self.classes.len(), 0.0))
    }

    /// The same with what was added to dense layers merged into them: a network without additions, which answers the same to rounding.
    /// `frozen` still counts the layers of the other.
    ///
    /// # Errors
    /// An addition's tensors are missing.
    pub fn merged(mut self, graph: &Graph, weights: Weights) -> anyhow::Result<(Self, Graph, Weights)> {
        let weights = merged(graph, weights)?;
        self.lora = None;
        let graph = self.graph().map_err(anyhow::Error::msg)?;
        Ok((self, graph, weights))
    }
}

/// A file that `export` wrote, read.
pub struct Opened {
    pub model: Trained,
    pub graph: Graph,
    pub weights: Weights,
    /// What else it says of itself, such as the trial that it comes from.
    pub facts: BTreeMap<String, String>,
}

impl Opened {
    /// Reads a file of the names of either framework.
    ///
    /// # Errors
    /// It cannot be read, does not say what it is, or its tensors are not those of the network that it names.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = WeightFile::open(path)?;
        let mut facts: BTreeMap<String, String> = file.facts().into_iter().collect();
        let fact = facts.remove(FACT).with_context(|| {
            format!(
                "'{}' holds tensors, and not how images are answered with them: classes, head and preprocessing. \
                 `tl-sweep export EXPERIMENT TRIAL --out FILE` writes both",
                path.display()
            )
        })?;
        let model: Trained = serde_json::from_str(&fact)
            .with_context(|| format!("'{}' was exported by another version: export the trial again", path.display()))?;
        let graph = model.graph().map_err(anyhow::Error::msg)?;
        let weights = Weights::exactly(&file, &graph)?;
        Ok(Self { model, graph, weights, facts })
    }
}
