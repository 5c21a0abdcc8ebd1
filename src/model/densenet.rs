//! The DenseNets (Huang et al., 2017): Keras' and torchvision's. Every layer of a block reads what all before it have given.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};
use super::order::keras_order;

/// Channels that a layer adds, and how many times as many it computes inside.
const GROWTH: usize = 32;
const INNER: usize = 4;

/// Layers of each block of a DenseNet of this depth (Huang et al., table 1).
fn blocks(depth: usize) -> Option<[usize; 4]> {
    Some(match depth {
        121 => [6, 12, 24, 16],
        169 => [6, 12, 32, 32],
        201 => [6, 12, 48, 32],
        _ => return None,
    })
}

/// Keras' layers, in the order of its `model.layers`.
pub fn keras(depth: usize, input: Shape, classes: usize) -> Option<Graph> {
    let blocks = blocks(depth)?;
    let norm = || Op::keras_norm(1.001e-5, 0.99, true);
    let relu = || Op::Activation(Activation::Relu);
    let mut graph = Graph::new(&format!("densenet{depth}"), Framework::Keras, input);
    graph.then("conv1", "zero_padding2d", Op::ZeroPad([3; 4]));
    graph.then("conv1", "conv1_conv", Op::conv(64, [7, 7], 2, [0; 4]));
    graph.then("conv1", "conv1_bn", norm());
    graph.then("conv1", "conv1_relu", relu());
    graph.then("conv1", "zero_padding2d_1", Op::ZeroPad([1; 4]));
    graph.then("conv1", "pool1", pool(0));
    for (index, layers) in blocks.into_iter().enumerate() {
        let block = format!("conv{}", index + 2);
        for layer in 1..=layers {
            let name = |part: &str| format!("{block}_block{layer}_{part}");
            let names = ["0_bn", "0_relu", "1_conv", "1_bn", "1_relu", "2_conv", "concat"].map(name);
            dense(&mut graph, &block, names, norm);
        }
        if index < 3 {
            let block = format!("pool{}", index + 2);
            let names = ["bn", "relu", "conv", "pool"].map(|part| format!("{block}_{part}"));
            transition(&mut graph, &block, names, norm());
        }
    }
    graph.then("top", "bn", norm());
    graph.then("top", "relu", relu());
    graph.then("top", "avg_pool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("top", "predictions", Op::Linear { out: classes, activation: Activation::Linear });
    let order = keras_order(&graph);
    Some(graph.reordered(&order))
}

/// torchvision's modules in the order in which they run.
pub fn torchvision(arch: &str, depth: usize, input: Shape, classes: usize) -> Option<Graph> {
    let blocks = blocks(depth)?;
    let norm = || Op::torch_norm(1e-5);
    let relu = || Op::Activation(Activation::Relu);
    let mut graph = Graph::new(arch, Framework::Torch, input);
    graph.then("conv0", "features.conv0", Op::conv(64, [7, 7], 2, [3; 4]));
    graph.then("conv0", "features.norm0", norm());
    graph.then("conv0", "features.relu0", relu());
    graph.then("conv0", "features.pool0", pool(1));
    for (index, layers) in blocks.into_iter().enumerate() {
        let block = format!("denseblock{}", index + 1);
        for layer in 1..=layers {
            let name = |part: &str| format!("features.{block}.denselayer{layer}.{part}");
            let names = ["norm1", "relu1", "conv1", "norm2", "relu2", "conv2", "cat"].map(name);
            dense(&mut graph, &block, names, norm);
        }
        if index < 3 {
            let block = format!("transition{}", index + 1);
            let names = ["norm", "relu", "conv", "pool"].map(|part| format!("features.{block}.{part}"));
            transition(&mut graph, &block, names, norm());
        }
    }
    graph.then("norm5", "features.norm5", norm());
    graph.then("norm5", "relu", relu());
    graph.then("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("classifier", "flatten", Op::Flatten);
    graph.then("classifier", "classifier", Op::Linear { out: classes, activation: Activation::Linear });
    Some(graph)
}

/// One layer: what it computes stands behind what it has read.
fn dense(graph: &mut Graph, block: &str, names: [String; 7], norm: impl Fn() -> Op) {
    let from = graph.last();
    let [first, first_relu, narrow, second, second_relu, wide, all] = names;
    graph.then(block, first, norm());
    graph.then(block, first_relu, Op::Activation(Activation::Relu));
    graph.then(block, narrow, Op::conv(INNER * GROWTH, [1, 1], 1, [0; 4]));
    graph.then(block, second, norm());
    graph.then(block, second_relu, Op::Activation(Activation::Relu));
    let own = graph.then(block, wide, Op::conv(GROWTH, [3, 3], 1, [1; 4]));
    graph.push(block, all, Op::Concat, &[from, own]);
}

/// Half the channels and half the side.
fn transition(graph: &mut Graph, block: &str, [bn, relu, conv, pool]: [String; 4], norm: Op) {
    let channels = graph.layers[graph.last()].shape[0];
    graph.then(block, bn, norm);
    graph.then(block, relu, Op::Activation(Activation::Relu));
    graph.then(block, conv, Op::conv(channels / 2, [1, 1], 1, [0; 4]));
    graph.then(block, pool, Op::Pool { reduce: Reduce::Avg, kernel: 2, stride: 2, padding: [0; 4], ceil: false });
}

fn pool(padding: usize) -> Op {
    Op::Pool { reduce: Reduce::Max, kernel: 3, stride: 2, padding: [padding; 4], ceil: false }
}
