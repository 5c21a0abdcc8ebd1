//! A network as data: an ordered list of named layers with inputs. Everything else is a function over it.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use super::op::{Activation, Op, Padding, Reduce, same};
use super::shape::output_shape;

/// Channels, height and width of one image's activations; a vector is [n, 1, 1].
pub type Shape = [usize; 3];

/// Whose names and whose order of numbers a network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Framework {
    /// Keras: a feature map is flattened pixel by pixel, all channels of a pixel together.
    Keras,
    /// PyTorch: a feature map is flattened channel by channel.
    Torch,
}

impl Framework {
    /// The word for it in commands and files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Keras => "keras",
            Self::Torch => "torch",
        }
    }

    /// The one that a word means.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Keras, Self::Torch].into_iter().find(|framework| framework.word() == word)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    pub arch: String,
    pub framework: Framework,
    /// In execution order, which is also the order in which indices freeze.
    pub layers: Vec<Layer>,
    /// Layers below the last whose outputs are features beside its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taps: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    pub name: String,
    /// The group that freezes together: `layer1`, `block2`.
    pub block: String,
    pub op: Op,
    pub inputs: Vec<usize>,
    /// Of its output.
    pub shape: Shape,
}

/// What the biases of a window's scores are called, [relative places, heads]: torchvision's, timm's and Hugging Face's name.
pub const RELATIVE: &str = "relative_position_bias_table";

/// What the second kernel of a separable convolution is called, [out, channels, 1, 1].
pub const POINTWISE: &str = "pointwise";

/// A tensor that a layer owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub name: &'static str,
    pub shape: Vec<usize>,
    /// Running statistics are not: no gradient ever reaches them.
    pub learned: bool,
}

impl Layer {
    /// The tensors of this layer, given the shape of its input.
    pub fn params(&self, input: Shape) -> Vec<Param> {
        let param = |name, shape, learned| Param { name, shape, learned };
        match &self.op {
            Op::Conv { out, kernel, groups, bias, .. } => {
                let mut params = vec![param("weight", vec![*out, input[0] / groups, kernel[0], kernel[1]], true)];
                params.extend(bias.then(|| param("bias", vec![*out], true)));
                params
            }
            Op::Separable { out, kernel, .. } => vec![
                param("weight", vec![input[0], 1, kernel[0], kernel[1]], true),
                param(POINTWISE, vec![*out, input[0], 1, 1], true),
            ],
            Op::Linear { out, .. } => {
                vec![param("weight", vec![*out, input[0]], true), param("bias", vec![*out], true)]
            }
            Op::BatchNorm { scale, .. } => ["weight", "bias", "running_mean", "running_var"]
                .into_iter()
                .filter(|name| *scale || *name != "weight")
                .map(|name| param(name, vec![input[0]], !name.starts_with("running")))
                .collect(),
            Op::Normalize => ["mean", "variance"].map(|name| param(name, vec![input[0]], false)).to_vec(),
            Op::LayerNorm { .. } | Op::ResponseNorm { .. } => {
                ["weight", "bias"].map(|name| param(name, vec![input[0]], true)).to_vec()
            }
            Op::Pointwise { out, bias } => {
                let mut params = vec![param("weight", vec![*out, input[0]], true)];
                params.extend(bias.then(|| param("bias", vec![*out], true)));
                params
            }
            Op::Rotary { .. } => ["q_bias", "v_bias"].map(|name| param(name, vec![input[0] / 3], true)).to_vec(),
            Op::WindowAttention { heads, window, .. } => {
                vec![param(RELATIVE, vec![(2 * window - 1) * (2 * window - 1), *heads], true)]
            }
            Op::Tokens { count, .. } => vec![param("weight", vec![1, *count, input[0]], true)],
            Op::Positions => vec![param("weight", vec![1, input[1] * input[2], input[0]], true)],
            Op::LayerScale { .. } => vec![param("weight", vec![input[0]], true)],
            _ => Vec::new(),
        }
    }

    /// Multiply-accumulates for one image, given the shape of its last input; elementwise work is left out, as papers do.
    fn macs(&self, input: Shape) -> u64 {
        let output: usize = self.shape.iter().product();
        if let Op::Separable { out, kernel, .. } = &self.op {
            return (output / out * input[0] * (kernel[0] * kernel[1] + out)) as u64;
        }
        let per_output = match &self.op {
            Op::Conv { kernel, groups, .. } => input[0] / groups * kernel[0] * kernel[1],
            Op::Linear { .. } | Op::Pointwise { .. } => input[0],
            // Of queries with keys, and of what comes of it with values.
            Op::Attention { .. } | Op::AttentionPool { .. } => 2 * input[1] * input[2],
            Op::WindowAttention { window, .. } => 2 * window * window,
            _ => 0,
        };
        (output * per_output) as u64
    }
}

impl Graph {
    /// A graph that so far has only its input.
    pub fn new(arch: &str, framework: Framework, input: Shape) -> Self {
        let name = match framework {
            Framework::Keras => "input_layer",
            Framework::Torch => "input",
        };
        let layer =
            Layer { name: name.to_owned(), block: "input".to_owned(), op: Op::Input, inputs: Vec::new(), shape: input };
        Self { arch: arch.to_owned(), framework, layers: vec![layer], taps: Vec::new() }
    }

    /// Appends a layer on top of `inputs` and returns its index.
    pub fn push(&mut self, block: &str, name: impl Into<String>, op: Op, inputs: &[usize]) -> usize {
        let shapes: Vec<Shape> = inputs.iter().map(|index| self.layers[*index].shape).collect();
        let shape = output_shape(&op, &shapes);
        self.layers.push(Layer { name: name.into(), block: block.to_owned(), op, inputs: inputs.to_vec(), shape });
        self.layers.len() - 1
    }

    /// Appends a layer on top of the last one.
    pub fn then(&mut self, block: &str, name: impl Into<String>, op: Op) -> usize {
        let last = self.last();
        self.push(block, name, op, &[last])
    }

    pub fn last(&self) -> usize {
        self.layers.len() - 1
    }

    /// The shape that a layer reads (its first input's).
    pub fn input_shape(&self, index: usize) -> Shape {
        self.layers[index].inputs.first().map_or(self.layers[index].shape, |input| self.layers[*input].shape)
    }

    /// The tensors of a layer.
    pub fn params(&self, index: usize) -> Vec<Param> {
        self.layers[index].params(self.input_shape(index))
    }

    /// Numbers in the tensors of a layer, running statistics included (as Keras counts).
    pub fn param_count(&self, index: usize) -> usize {
        // Keras' Normalization also has the number of pixels that it has seen, which nothing reads.
        let counter = usize::from(matches!(self.layers[index].op, Op::Normalize));
        self.params(index).iter().map(|param| param.shape.iter().product::<usize>()).sum::<usize>() + counter
    }

    pub fn macs(&self, index: usize) -> u64 {
        let layer = &self.layers[index];
        layer.macs(layer.inputs.last().map_or(layer.shape, |input| self.layers[*input].shape))
    }

    pub fn total_macs(&self) -> u64 {
        (0..self.layers.len()).map(|index| self.macs(index)).sum()
    }

    /// Numbers of all layers.
    pub fn total_params(&self) -> usize {
        (0..self.layers.len()).map(|index| self.param_count(index)).sum()
    }

    /// Whether another network has the same layers; how much they drop does not count.
    pub fn alike(&self, other: &Self) -> bool {
        let alike = |(one, other): (&Layer, &Layer)| {
            let drop =
                matches!((&one.op, &other.op), (Op::Dropout(_), Op::Dropout(_)) | (Op::DropPath(_), Op::DropPath(_)));
            one.name == other.name
                && one.inputs == other.inputs
                && one.shape == other.shape
                && (drop || one.op == other.op)
        };
        self.layers.len() == other.layers.len() && self.layers.iter().zip(&other.layers).all(alike)
    }

    /// The layer of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.layers.iter().position(|layer| layer.name == name)
    }

    /// Block names in order, each once.
    pub fn blocks(&self) -> Vec<&str> {
        let mut blocks: Vec<&str> = Vec::new();
        for layer in &self.layers {
            if !blocks.contains(&layer.block.as_str()) {
                blocks.push(&layer.block);
            }
        }
        blocks
    }

    /// What this layer needs, itself included, in order; the rest is cut off.
    pub fn truncate(&self, tap: usize) -> Self {
        let mut needed = vec![false; tap + 1];
        needed[tap] = true;
        for index in (0..=tap).rev().filter(|index| *index > 0) {
            if needed[index] {
                self.layers[index].inputs.iter().for_each(|input| needed[*input] = true);
            }
        }
        needed[0] = true;
        self.keep(&needed)
    }

    /// The layers above `cut`, on an input of its shape.
    pub fn above(&self, cut: usize) -> Self {
        let mut graph = Self::new(&self.arch, self.framework, self.layers[cut].shape);
        for layer in &self.layers[cut + 1..] {
            let inputs: Vec<usize> = layer.inputs.iter().map(|input| input.saturating_sub(cut)).collect();
            graph.push(&layer.block, layer.name.clone(), layer.op.clone(), &inputs);
        }
        graph
    }

    /// The same layers in another order: `order[i]` is the index of the layer that comes at i.
    pub fn reordered(&self, order: &[usize]) -> Self {
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(at, index)| place[*index] = at);
        let layer = |index: &usize| {
            let layer = &self.layers[*index];
            Layer { inputs: layer.inputs.iter().map(|input| place[*input]).collect(), ..layer.clone() }
        };
        Self {
            arch: self.arch.clone(),
            framework: self.framework,
            layers: order.iter().map(layer).collect(),
            taps: Vec::new(),
        }
    }

    /// The same network with `width` times the channels everywhere but in its input and its last learned layer.
    pub fn thinned(&self, width: f64) -> Self {
        let mut graph = Self::new(&self.arch, self.framework, self.layers[0].shape);
        let last = (0..self.layers.len()).rfind(|index| !self.params(*index).is_empty());
        let scaled = |channels: usize| ((channels as f64 * width).round() as usize).max(1);
        for (index, layer) in self.layers.iter().enumerate().skip(1) {
            let mut op = layer.op.clone();
            match &mut op {
                Op::Conv { out, .. }
                | Op::Separable { out, .. }
                | Op::Linear { out, .. }
                | Op::Pointwise { out, .. }
                    if Some(index) != last =>
                {
                    *out = scaled(*out);
                }
                Op::Shortcut { channels, .. } => *channels = scaled(*channels),
                _ => {}
            }
            graph.push(&layer.block, layer.name.clone(), op, &layer.inputs);
        }
        graph
    }

    fn keep(&self, needed: &[bool]) -> Self {
        let mut place = vec![0; needed.len()];
        let mut layers = Vec::new();
        for (index, layer) in self.layers.iter().enumerate().take(needed.len()).filter(|(index, _)| needed[*index]) {
            place[index] = layers.len();
            let inputs = layer.inputs.iter().map(|input| place[*input]).collect();
            layers.push(Layer { inputs, ..layer.clone() });
        }
        Self { arch: self.arch.clone(), framework: self.framework, layers, taps: Vec::new() }
    }

    /// The batch norm or activation that alone reads what a layer computes: both are done in one pass over memory.
    pub fn absorber(&self, index: usize) -> Option<usize> {
        let mut readers = (0..self.layers.len()).filter(|reader| self.layers[*reader].inputs.contains(&index));
        let (reader, more) = (readers.next()?, readers.next());
        let computes =
            matches!(self.layers[index].op, Op::Conv { .. } | Op::BatchNorm { .. } | Op::Add | Op::ZeroPad(_));
        let takes = matches!(self.layers[reader].op, Op::BatchNorm { .. } | Op::Activation(_) | Op::Conv { .. });
        let pads = matches!(self.layers[index].op, Op::ZeroPad(_));
        let convolves = matches!(self.layers[reader].op, Op::Conv { .. });
        (more.is_none() && computes && takes && pads == convolves).then_some(reader)
    }

    /// The deepest layer c at most `limit` such that only c's output is read above c: where the graph is one tensor wide.
    pub fn cut_at_most(&self, limit: usize) -> usize {
        let crossed =
            |cut: usize| self.layers[cut + 1..].iter().flat_map(|layer| &layer.inputs).any(|input| *input < cut);
        (0..=limit).rev().find(|cut| !crossed(*cut)).unwrap_or(0)
    }
}

/// A shape as tables print it, height and width first as Keras does; vectors as one number.
pub struct Shown(pub Shape);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            [channels, 1, 1] => write!(f, "{channels}"),
            [channels, height, width] => write!(f, "{height}, {width}, {channels}"),
        }
    }
}
