//! A network that a person writes: a TOML file with a list of layers. `summary ARCH --toml` writes the same of any
//! network, as a place to start from.

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::graph::{Activation, Framework, Graph, Op, Padding, Reduce, same};
use crate::key::Key;
use crate::recipe::Preprocess;

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

/// The words of `op`.
const OPS: &[&str] = &[
    "conv",
    "batch-norm",
    "relu",
    "relu6",
    "linear-activation",
    "zero-pad",
    "max-pool",
    "avg-pool",
    "avg-pool-padded",
    "grid-max-pool",
    "grid-avg-pool",
    "flatten",
    "dense",
    "add",
    "concat",
    "shortcut",
    "dropout",
];

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
            fits(&graph, &op, &inputs).map_err(fail)?;
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

/// Whether an operation can read these layers.
fn fits(graph: &Graph, op: &Op, inputs: &[usize]) -> Result<(), String> {
    let shapes: Vec<_> = inputs.iter().map(|input| graph.layers[*input].shape).collect();
    let [channels, height, width] = shapes[0];
    match op {
        Op::Add | Op::Concat if inputs.len() < 2 => Err("needs at least two `inputs`".to_owned()),
        Op::Add if inputs.len() > 2 => Err("adds two layers".to_owned()),
        Op::Add if shapes[0] != shapes[1] => Err(format!("cannot add {:?} and {:?}", shapes[0], shapes[1])),
        Op::Concat if shapes.iter().any(|shape| shape[1..] != shapes[0][1..]) => {
            Err(format!("cannot put together {shapes:?}: heights and widths differ"))
        }
        Op::Add | Op::Concat => Ok(()),
        _ if inputs.len() > 1 => Err("reads one layer only".to_owned()),
        Op::Conv { groups, out, .. } if *groups == 0 || channels % groups != 0 || out % groups != 0 => {
            Err(format!("{groups} groups do not divide {channels} channels in and {out} out"))
        }
        Op::Conv { kernel, stride, dilation, padding, .. } => {
            let reach = kernel.map(|side| (side.max(1) - 1) * dilation + 1);
            let room = [height + padding[0] + padding[1], width + padding[2] + padding[3]];
            let stands = *stride > 0 && kernel[0] > 0 && kernel[1] > 0;
            match stands && reach[0] <= room[0] && reach[1] <= room[1] {
                true => Ok(()),
                false => {
                    Err(format!("a kernel of {kernel:?} and stride {stride} do not fit on {height} x {width} pixels"))
                }
            }
        }
        Op::Pool { kernel, stride, padding, .. }
            if *stride == 0 || *kernel == 0 || *kernel > height + padding[0] + padding[1] =>
        {
            Err(format!("a window of {kernel} with stride {stride} does not fit on {height} x {width} pixels"))
        }
        Op::GridPool { grid, .. } if *grid == 0 || *grid > height => {
            Err(format!("a grid of {grid} does not fit on {height} x {width} pixels"))
        }
        Op::Linear { .. } if height * width > 1 => Err("a dense layer reads a vector: `flatten` before it".to_owned()),
        Op::Shortcut { channels: out, .. } if *out < channels => Err("a shortcut cannot lose channels".to_owned()),
        Op::Dropout(p) if !(0.0..1.0).contains(p) => Err(format!("p = {p} is no probability below 1")),
        _ => Ok(()),
    }
}

impl Entry {
    /// The operation, on an input of this shape; every key that was given must mean something to it.
    fn op(&self, [channels, height, _]: [usize; 3], classes: usize) -> Result<Op, String> {
        let mut rest = self.clone();
        let out = match rest.out.take() {
            Some(Out::Classes(Word::Classes)) => Some(classes),
            Some(Out::Count(0)) => return Err("`out` is 0".to_owned()),
            Some(Out::Count(count)) => Some(count),
            Some(Out::Classes(_)) => return Err("`out` is a number or \"classes\"".to_owned()),
            None => None,
        };
        let needed = |key: &str| format!("`op = \"{}\"` needs `{key}`", self.op);
        let sides = rest.kernel.take().map(|kernel| match kernel {
            Kernel::Square(side) => [side, side],
            Kernel::Sides(sides) => sides,
        });
        let stride = rest.stride.take();
        let padding = match rest.padding.take() {
            None => [0; 4],
            Some(Pad::All(all)) => [all; 4],
            Some(Pad::Sides(sides)) => sides,
            Some(Pad::Word(Word::Same)) => {
                let [rows, columns] = sides.ok_or_else(|| needed("kernel"))?;
                let step = stride.unwrap_or(1).max(1);
                let ([top, bottom, ..], [.., left, right]) = (same(height, rows, step), same(height, columns, step));
                [top, bottom, left, right]
            }
            Some(Pad::Word(_)) => return Err("`padding` is a number, four of them, or \"same\"".to_owned()),
        };
        let reduce = |word: &str| match word {
            word if word.ends_with("padded") => Reduce::AvgPadded,
            word if word.contains("max") => Reduce::Max,
            _ => Reduce::Avg,
        };
        let op = match self.op.as_str() {
            "conv" => Op::Conv {
                out: out.ok_or_else(|| needed("out"))?,
                kernel: sides.ok_or_else(|| needed("kernel"))?,
                stride: stride.unwrap_or(1),
                dilation: rest.dilation.take().unwrap_or(1),
                padding,
                groups: match rest.groups.take() {
                    None => 1,
                    Some(Groups::Count(count)) => count,
                    Some(Groups::Word(Word::Channels)) => channels,
                    Some(Groups::Word(_)) => return Err("`groups` is a number or \"channels\"".to_owned()),
                },
                bias: rest.bias.take().unwrap_or(true),
                activation: rest.activation.take().unwrap_or(Activation::Linear),
            },
            "batch-norm" => Op::BatchNorm {
                eps: rest.eps.take().ok_or_else(|| needed("eps"))?,
                momentum: rest.momentum.take().unwrap_or(0.1),
                unbiased: rest.unbiased.take().unwrap_or(true),
                scale: rest.scale.take().unwrap_or(true),
            },
            "relu" => Op::Activation(Activation::Relu),
            "relu6" => Op::Activation(Activation::Relu6),
            "linear-activation" => Op::Activation(Activation::Linear),
            "zero-pad" => Op::ZeroPad(padding),
            word @ ("max-pool" | "avg-pool" | "avg-pool-padded") => {
                let kernel = sides.filter(|sides| sides[0] == sides[1]).ok_or_else(|| needed("kernel"))?[0];
                let ceil = rest.ceil.take().unwrap_or(false);
                Op::Pool { reduce: reduce(word), kernel, stride: stride.unwrap_or(kernel), padding, ceil }
            }
            word @ ("grid-max-pool" | "grid-avg-pool") => {
                Op::GridPool { reduce: reduce(word), grid: rest.grid.take().unwrap_or(1) }
            }
            "flatten" => Op::Flatten,
            "dense" => Op::Linear {
                out: out.ok_or_else(|| needed("out"))?,
                activation: rest.activation.take().unwrap_or(Activation::Linear),
            },
            "add" => Op::Add,
            "concat" => Op::Concat,
            "shortcut" => Op::Shortcut { stride: stride.unwrap_or(1), channels: out.ok_or_else(|| needed("out"))? },
            "dropout" => Op::Dropout(rest.p.take().ok_or_else(|| needed("p"))?),
            other => {
                let near = crate::spelling::nearest(other, OPS.iter().copied());
                let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
                return Err(format!("there is no op '{other}'{hint}; there are {}", OPS.join(", ")));
            }
        };
        rest.refuse_the_rest(&op, self)?;
        Ok(op)
    }

    /// Keys that were given but that the operation does not take.
    fn refuse_the_rest(&self, op: &Op, given: &Self) -> Result<(), String> {
        let windows = matches!(op, Op::Conv { .. } | Op::Pool { .. });
        let wrong = [
            ("out", given.out.is_some() && !matches!(op, Op::Conv { .. } | Op::Linear { .. } | Op::Shortcut { .. })),
            ("kernel", given.kernel.is_some() && !windows),
            ("stride", given.stride.is_some() && !windows && !matches!(op, Op::Shortcut { .. })),
            ("padding", given.padding.is_some() && !windows && !matches!(op, Op::ZeroPad(_))),
            ("dilation", self.dilation.is_some()),
            ("groups", self.groups.is_some()),
            ("bias", self.bias.is_some()),
            ("activation", self.activation.is_some()),
            ("eps", self.eps.is_some()),
            ("momentum", self.momentum.is_some()),
            ("unbiased", self.unbiased.is_some()),
            ("scale", self.scale.is_some()),
            ("ceil", self.ceil.is_some()),
            ("grid", self.grid.is_some()),
            ("p", self.p.is_some()),
        ];
        match wrong.iter().find(|(_, wrong)| *wrong) {
            Some((key, _)) => Err(format!("`op = \"{}\"` takes no `{key}`", given.op)),
            None => Ok(()),
        }
    }

    fn of(graph: &Graph, index: usize, classifier: bool) -> Self {
        let layer = &graph.layers[index];
        let mut entry = Self {
            name: layer.name.clone(),
            block: Some(layer.block.clone()),
            inputs: (layer.inputs != [index - 1])
                .then(|| layer.inputs.iter().map(|input| graph.layers[*input].name.clone()).collect()),
            ..Self::default()
        };
        let outputs = |out: usize| Some(if classifier { Out::Classes(Word::Classes) } else { Out::Count(out) });
        let pool = |reduce: Reduce| match reduce {
            Reduce::Max => "max-pool",
            Reduce::Avg => "avg-pool",
            Reduce::AvgPadded => "avg-pool-padded",
        };
        entry.op = match &layer.op {
            Op::Conv { out, kernel, stride, dilation, padding, groups, bias, activation } => {
                entry.out = outputs(*out);
                entry.kernel = Some(Kernel::Sides(*kernel));
                entry.stride = Some(*stride);
                entry.dilation = Some(*dilation);
                entry.padding = Some(Pad::Sides(*padding));
                entry.groups = Some(Groups::Count(*groups));
                entry.bias = Some(*bias);
                entry.activation = Some(*activation);
                "conv".to_owned()
            }
            Op::BatchNorm { eps, momentum, unbiased, scale } => {
                (entry.eps, entry.momentum) = (Some(*eps), Some(*momentum));
                (entry.unbiased, entry.scale) = (Some(*unbiased), Some(*scale));
                "batch-norm".to_owned()
            }
            Op::Activation(Activation::Relu) => "relu".to_owned(),
            Op::Activation(Activation::Relu6) => "relu6".to_owned(),
            Op::Input | Op::Activation(Activation::Linear) => "linear-activation".to_owned(),
            Op::ZeroPad(padding) => {
                entry.padding = Some(Pad::Sides(*padding));
                "zero-pad".to_owned()
            }
            Op::Pool { reduce, kernel, stride, padding, ceil } => {
                entry.kernel = Some(Kernel::Square(*kernel));
                (entry.stride, entry.ceil) = (Some(*stride), Some(*ceil));
                entry.padding = Some(Pad::Sides(*padding));
                pool(*reduce).to_owned()
            }
            Op::GridPool { reduce, grid } => {
                entry.grid = Some(*grid);
                format!("grid-{}", pool(*reduce))
            }
            Op::Flatten => "flatten".to_owned(),
            Op::Linear { out, activation } => {
                entry.out = outputs(*out);
                entry.activation = Some(*activation);
                "dense".to_owned()
            }
            Op::Add => "add".to_owned(),
            Op::Concat => "concat".to_owned(),
            Op::Shortcut { stride, channels } => {
                (entry.stride, entry.out) = (Some(*stride), Some(Out::Count(*channels)));
                "shortcut".to_owned()
            }
            Op::Dropout(p) => {
                entry.p = Some(*p);
                "dropout".to_owned()
            }
        };
        entry
    }
}
