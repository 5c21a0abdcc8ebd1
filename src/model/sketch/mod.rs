//! A network that a person writes: a TOML file with a list of layers. `summary ARCH --toml` writes the same of any
//! network, as a place to start from.

mod build;
mod write;

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::graph::{Activation, Framework, Graph, Padding};
use crate::key::Key;
use crate::preprocess::Preprocess;

/// The file, key by key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sketch {
    pub name: String,
    /// In whose order a feature map is flattened.
    pub framework: Framework,
    /// Side of the input where the experiment names none.
    pub input: usize,
    pub preprocess: Preprocess,
    /// The tap where none is asked for; what is above it is the classifier.
    pub features: String,
    /// The tap `early`; without it the same as `features`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early: Option<String>,
    #[serde(rename = "layer")]
    pub layers: Vec<Entry>,
}

/// One layer. Which keys an `op` takes is checked when the graph is built.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Entry {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    pub op: String,
    /// Names of the layers that it reads; without it the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<String>>,
    /// Output channels; `"classes"` for the classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<Out>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<Pad>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dilation: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Groups>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unbiased: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceil: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// A number for each channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Vec<f64>>,
    /// The same of a mean, and of a variance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance: Option<Vec<f64>>,
    /// Which token; in front of which one others are put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<usize>,
    /// Tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// Pixels of a window's side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// By how many pixels windows are moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<usize>,
    /// Below what periods of rotary positions stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<f64>,
    /// What a scale begins at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Out {
    Count(usize),
    Classes(Word),
}

/// The words that stand for numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    Classes,
    Channels,
    Same,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Kernel {
    Square(usize),
    Sides([usize; 2]),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Pad {
    /// TensorFlow's SAME.
    Word(Word),
    All(usize),
    Sides(Padding),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Groups {
    /// `"channels"`: one group for each input channel.
    Word(Word),
    Count(usize),
}

impl Sketch {
    /// Reads a file, and builds its graph once to see that it stands.
    ///
    /// # Errors
    /// What is wrong, with the file, the line and what is accepted.
    pub fn read(path: &Path) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Placed {
            #[serde(rename = "layer", default)]
            layers: Vec<Spanned<toml::Value>>,
        }
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read '{shown}': {error}"))?;
        let sketch: Self = toml::from_str(&text).map_err(|error| format!("'{shown}' is no graph: {error}"))?;
        let placed: Placed = toml::from_str(&text).map_err(|error| error.to_string())?;
        sketch.graph(sketch.input, 10).map_err(|(layer, message)| match placed.layers.get(layer) {
            Some(place) => {
                let line = text[..place.span().start].matches('\n').count() + 1;
                format!("{shown}:{line}: layer '{}': {message}", sketch.layers[layer].name)
            }
            None => format!("'{shown}': {message}"),
        })?;
        Ok(sketch)
    }

    /// The hash of what the file says; how it is laid out does not matter.
    pub fn key(&self) -> Key {
        Key::of("graph", self)
    }

    /// The network on square images of this side, with a classifier of `classes` outputs.
    ///
    /// # Errors
    /// The index of the layer that is wrong, and why.
    pub fn graph(&self, side: usize, classes: usize) -> Result<Graph, (usize, String)> {
        let mut graph = Graph::new(&self.name, self.framework, [3, side, side]);
        for (index, entry) in self.layers.iter().enumerate() {
            let fail = |message: String| (index, message);
            if entry.name.is_empty() || graph.find(&entry.name).is_some() {
                return Err(fail("every layer needs a `name` of its own".to_owned()));
            }
            let named = |name: &String| graph.find(name).ok_or_else(|| format!("no layer above it is called '{name}'"));
            let inputs = match &entry.inputs {
                None => vec![graph.last()],
                Some(names) => names.iter().map(named).collect::<Result<_, _>>().map_err(fail)?,
            };
            let first = *inputs.first().ok_or_else(|| fail("`inputs` is empty".to_owned()))?;
            let op = entry.op(graph.layers[first].shape, classes).map_err(fail)?;
            build::fits(&graph, &op, &inputs).map_err(fail)?;
            graph.push(entry.block.as_ref().unwrap_or(&entry.name), entry.name.clone(), op, &inputs);
        }
        for tap in [Some(&self.features), self.early.as_ref()].into_iter().flatten() {
            if graph.find(tap).is_none() {
                return Err((usize::MAX, format!("there is no layer '{tap}' to tap")));
            }
        }
        Ok(graph)
    }

    /// The same network as a file would say it.
    pub fn of(graph: &Graph, features: &str, early: &str, preprocess: Preprocess) -> Self {
        let last = (0..graph.layers.len()).rfind(|index| !graph.params(*index).is_empty());
        let entry = |index: usize| Entry::of(graph, index, Some(index) == last);
        Self {
            name: graph.arch.clone(),
            framework: graph.framework,
            input: graph.layers[0].shape[1],
            preprocess,
            features: features.to_owned(),
            early: Some(early.to_owned()),
            layers: (1..graph.layers.len()).map(entry).collect(),
        }
    }

    /// The file's text.
    ///
    /// # Errors
    /// Only those of the library that writes it.
    pub fn to_toml(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|error| error.to_string())
    }
}
