//! The CIFAR ResNets of He et al. (2016), section 4.2: depth 6n + 2, 16-32-64 channels, option A shortcuts.
//! Layer names are those of the state dicts of akamaster/pytorch_resnet_cifar10.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};

/// Any depth 6n + 2; `classes` outputs.
pub fn resnet(depth: usize, input: Shape, classes: usize) -> Graph {
    let mut graph = Graph::new(&format!("resnet{depth}"), Framework::Torch, input);
    graph.then("conv1", "conv1", conv3x3(16, 1));
    graph.then("conv1", "bn1", norm());
    let mut last = graph.then("conv1", "relu", Op::Activation(Activation::Relu));
    for (stage, channels) in [16, 32, 64].into_iter().enumerate() {
        for index in 0..(depth - 2) / 6 {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            last = basic_block(&mut graph, last, &format!("layer{}", stage + 1), index, channels, stride);
        }
    }
    graph.push("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 }, &[last]);
    graph.then("linear", "linear", Op::Linear { out: classes, activation: Activation::Linear });
    graph
}

fn basic_block(graph: &mut Graph, from: usize, block: &str, index: usize, channels: usize, stride: usize) -> usize {
    let name = |part: &str| format!("{block}.{index}.{part}");
    graph.push(block, name("conv1"), conv3x3(channels, stride), &[from]);
    graph.then(block, name("bn1"), norm());
    graph.then(block, name("relu1"), Op::Activation(Activation::Relu));
    graph.then(block, name("conv2"), conv3x3(channels, 1));
    let main = graph.then(block, name("bn2"), norm());
    let shortcut = match stride {
        1 => from,
        _ => graph.push(block, name("shortcut"), Op::Shortcut { stride, channels }, &[from]),
    };
    graph.push(block, name("add"), Op::Add, &[main, shortcut]);
    graph.then(block, name("relu2"), Op::Activation(Activation::Relu))
}

fn conv3x3(out: usize, stride: usize) -> Op {
    Op::conv(out, [3, 3], stride, [1; 4])
}

fn norm() -> Op {
    Op::torch_norm(1e-5)
}
