//! ResNet-50 (He et al., 2016), twice: Keras' ResNet50 (strides in the first 1x1 convolution, biases), and torchvision's
//! resnet50 (v1.5: strides in the 3x3 convolution, no biases).

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};
use super::order::keras_order;

/// Bottleneck blocks of each stage and their inner channels; four times as many come out.
const STAGES: [(usize, usize); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];

/// Keras' layers, in the order of its `model.layers`.
pub fn keras(input: Shape, classes: usize) -> Graph {
    let mut graph = Graph::new("resnet50", Framework::Keras, input);
    graph.then("conv1", "conv1_pad", Op::ZeroPad([3; 4]));
    graph.then("conv1", "conv1_conv", Op::conv(64, [7, 7], 2, [0; 4]).biased(Activation::Linear));
    graph.then("conv1", "conv1_bn", Op::keras_norm(1.001e-5, 0.99, true));
    graph.then("conv1", "conv1_relu", Op::Activation(Activation::Relu));
    graph.then("conv1", "pool1_pad", Op::ZeroPad([1; 4]));
    let mut last = graph.then("conv1", "pool1_pool", pool(0));
    for (stage, (blocks, channels)) in STAGES.into_iter().enumerate() {
        for block in 1..=blocks {
            let stride = if stage > 0 && block == 1 { 2 } else { 1 };
            last = keras_block(&mut graph, last, stage + 2, block, channels, stride);
        }
    }
    graph.push("top", "avg_pool", Op::GridPool { reduce: Reduce::Avg, grid: 1 }, &[last]);
    graph.then("top", "predictions", Op::Linear { out: classes, activation: Activation::Linear });
    let order = keras_order(&graph);
    graph.reordered(&order)
}

fn keras_block(graph: &mut Graph, from: usize, stage: usize, block: usize, channels: usize, stride: usize) -> usize {
    let stage = format!("conv{stage}");
    let name = |part: &str| format!("{stage}_block{block}_{part}");
    let norm = || Op::keras_norm(1.001e-5, 0.99, true);
    let conv =
        |out, kernel: usize, stride| Op::conv(out, [kernel; 2], stride, [kernel / 2; 4]).biased(Activation::Linear);
    let shortcut = if block == 1 {
        graph.push(&stage, name("0_conv"), conv(4 * channels, 1, stride), &[from]);
        graph.then(&stage, name("0_bn"), norm())
    } else {
        from
    };
    graph.push(&stage, name("1_conv"), conv(channels, 1, stride), &[from]);
    graph.then(&stage, name("1_bn"), norm());
    graph.then(&stage, name("1_relu"), Op::Activation(Activation::Relu));
    graph.then(&stage, name("2_conv"), conv(channels, 3, 1));
    graph.then(&stage, name("2_bn"), norm());
    graph.then(&stage, name("2_relu"), Op::Activation(Activation::Relu));
    graph.then(&stage, name("3_conv"), conv(4 * channels, 1, 1));
    let main = graph.then(&stage, name("3_bn"), norm());
    graph.push(&stage, name("add"), Op::Add, &[shortcut, main]);
    graph.then(&stage, name("out"), Op::Activation(Activation::Relu))
}

/// torchvision's modules in the order in which they run.
pub fn torchvision(input: Shape, classes: usize) -> Graph {
    let mut graph = Graph::new("resnet50_torchvision", Framework::Torch, input);
    graph.then("conv1", "conv1", Op::conv(64, [7, 7], 2, [3; 4]));
    graph.then("conv1", "bn1", Op::torch_norm(1e-5));
    graph.then("conv1", "relu", Op::Activation(Activation::Relu));
    let mut last = graph.then("conv1", "maxpool", pool(1));
    for (stage, (blocks, channels)) in STAGES.into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            last = torch_block(&mut graph, last, &format!("layer{}", stage + 1), block, channels, stride);
        }
    }
    graph.push("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 }, &[last]);
    graph.then("fc", "flatten", Op::Flatten);
    graph.then("fc", "fc", Op::Linear { out: classes, activation: Activation::Linear });
    graph
}

fn torch_block(graph: &mut Graph, from: usize, stage: &str, block: usize, channels: usize, stride: usize) -> usize {
    let name = |part: &str| format!("{stage}.{block}.{part}");
    let norm = || Op::torch_norm(1e-5);
    graph.push(stage, name("conv1"), Op::conv(channels, [1, 1], 1, [0; 4]), &[from]);
    graph.then(stage, name("bn1"), norm());
    graph.then(stage, name("relu1"), Op::Activation(Activation::Relu));
    graph.then(stage, name("conv2"), Op::conv(channels, [3, 3], stride, [1; 4]));
    graph.then(stage, name("bn2"), norm());
    graph.then(stage, name("relu2"), Op::Activation(Activation::Relu));
    graph.then(stage, name("conv3"), Op::conv(4 * channels, [1, 1], 1, [0; 4]));
    let main = graph.then(stage, name("bn3"), norm());
    let shortcut = if block == 0 {
        graph.push(stage, name("downsample.0"), Op::conv(4 * channels, [1, 1], stride, [0; 4]), &[from]);
        graph.then(stage, name("downsample.1"), norm())
    } else {
        from
    };
    graph.push(stage, name("add"), Op::Add, &[main, shortcut]);
    graph.then(stage, name("relu3"), Op::Activation(Activation::Relu))
}

fn pool(padding: usize) -> Op {
    Op::Pool { reduce: Reduce::Max, kernel: 3, stride: 2, padding: [padding; 4], ceil: false }
}
