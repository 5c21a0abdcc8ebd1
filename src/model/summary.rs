//! What a network looks like in rows, as Keras' `model.summary()` prints it.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shown};

/// One layer of a summary.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    pub index: usize,
    pub name: String,
    pub class: &'static str,
    pub block: String,
    pub output: String,
    pub params: usize,
    pub frozen: bool,
    pub connected_to: Vec<String>,
    pub macs: u64,
}

/// A row for every layer, the first `frozen` of them marked.
pub fn rows(graph: &Graph, frozen: usize) -> Vec<Row> {
    let row = |(index, layer): (usize, &super::graph::Layer)| Row {
        index,
        name: layer.name.clone(),
        class: class(graph, index),
        block: layer.block.clone(),
        output: Shown(layer.shape).to_string(),
        params: graph.param_count(index),
        frozen: index < frozen,
        connected_to: layer.inputs.iter().map(|input| graph.layers[*input].name.clone()).collect(),
        macs: graph.macs(index),
    };
    graph.layers.iter().enumerate().map(row).collect()
}

/// What Keras calls this kind of layer.
pub fn class(graph: &Graph, index: usize) -> &'static str {
    let [channels, height, width] = graph.input_shape(index);
    match &graph.layers[index].op {
        Op::Input => "InputLayer",
        Op::Conv { groups, .. } if *groups > 1 && *groups == channels => "DepthwiseConv2D",
        Op::Conv { .. } => "Conv2D",
        Op::Separable { .. } => "SeparableConv2D",
        Op::BatchNorm { .. } => "BatchNormalization",
        // Keras' models have ReLU6 as a layer of its own, and plain activations as `Activation`.
        Op::Activation(Activation::Relu6) => "ReLU",
        Op::Activation(_) if graph.framework == Framework::Keras => "Activation",
        Op::Activation(Activation::Silu) => "SiLU",
        Op::Activation(Activation::Sigmoid) => "Sigmoid",
        Op::Activation(Activation::Gelu | Activation::GeluTanh) => "GELU",
        Op::Activation(Activation::QuickGelu) => "QuickGELU",
        Op::Activation(Activation::HardSigmoid) => "HardSigmoid",
        Op::Activation(Activation::HardSwish) => "HardSwish",
        Op::Activation(Activation::Relu) => "ReLU",
        Op::Activation(Activation::Linear) => "Identity",
        Op::ZeroPad(_) => "ZeroPadding2D",
        Op::Pool { reduce: Reduce::Max, .. } => "MaxPooling2D",
        Op::Pool { .. } => "AveragePooling2D",
        Op::GridPool { reduce: Reduce::Avg, grid: 1 } => "GlobalAveragePooling2D",
        Op::GridPool { reduce: Reduce::Max, grid: 1 } => "GlobalMaxPooling2D",
        Op::GridPool { .. } => "AdaptivePooling2D",
        Op::Flatten if height * width == 1 && graph.framework == Framework::Keras => "Reshape",
        Op::Flatten => "Flatten",
        Op::Linear { .. } => "Dense",
        Op::Add => "Add",
        Op::Scale => "Multiply",
        Op::Concat => "Concatenate",
        Op::Shortcut { .. } => "Shortcut",
        Op::DropPath(_) if graph.framework == Framework::Torch => "StochasticDepth",
        Op::Dropout(_) | Op::DropPath(_) => "Dropout",
        Op::Rescale(_) => "Rescaling",
        Op::Standardize { .. } if graph.layers[index].name.starts_with("rescaling") => "Rescaling",
        Op::Normalize | Op::Standardize { .. } => "Normalization",
        Op::LayerNorm { .. } => "LayerNormalization",
        Op::ResponseNorm { .. } => "GlobalResponseNorm",
        Op::UnitNorm => "UnitNormalization",
        Op::Pointwise { .. } => "Dense",
        Op::Tokens { .. } => "Tokens",
        Op::Positions => "Positions",
        Op::Attention { .. } => "Attention",
        Op::WindowAttention { .. } => "WindowAttention",
        Op::PatchMerge => "PatchMerging",
        Op::Crop(_) => "Cropping2D",
        Op::Rotary { .. } => "Rotary",
        Op::SwiGlu => "SwiGLU",
        Op::AttentionPool { .. } => "AttentionPool",
        Op::Token(_) => "Token",
        Op::Patches { .. } => "Patches",
        Op::LayerScale { .. } => "LayerScale",
    }
}

/// Names of the frozen layers that own parameters, and how many numbers they hold.
pub fn frozen_names(graph: &Graph, frozen: usize) -> (Vec<String>, usize) {
    let owning: Vec<usize> =
        (0..frozen.min(graph.layers.len())).filter(|index| graph.param_count(*index) > 0).collect();
    let count = owning.iter().map(|index| graph.param_count(*index)).sum();
    (owning.iter().map(|index| graph.layers[*index].name.clone()).collect(), count)
}
