//! The ResNets whose norms stand before their convolutions (He et al., 2016: "Identity mappings in deep residual networks"), as Keras
//! has them: a stage halves its map in its last block, and the first block's shortcut starts behind the norm.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};
use super::order::keras_order;

/// All that there are.
pub const NAMES: &[&str] = &["resnet50v2", "resnet101v2", "resnet152v2"];

/// Blocks of the four stages: keras/src/applications/resnet_v2.py.
fn stages(name: &str) -> Option<[usize; 4]> {
    Some(match name {
        "resnet50v2" => [3, 4, 6, 3],
        "resnet101v2" => [3, 4, 23, 3],
        "resnet152v2" => [3, 8, 36, 3],
        _ => return None,
    })
}

fn norm() -> Op {
    Op::keras_norm(1.001e-5, 0.99, true)
}

/// A pooling without padding.
fn pool(kernel: usize) -> Op {
    Op::Pool { reduce: Reduce::Max, kernel, stride: 2, padding: [0; 4], ceil: false }
}

/// Keras' layers, in the order of its `model.layers`.
pub fn keras(name: &str, input: Shape, classes: usize) -> Option<Graph> {
    let stages = stages(name)?;
    let mut graph = Graph::new(name, Framework::Keras, input);
    graph.then("conv1", "conv1_pad", Op::ZeroPad([3; 4]));
    graph.then("conv1", "conv1_conv", Op::conv(64, [7, 7], 2, [0; 4]).biased(Activation::Linear));
    graph.then("conv1", "pool1_pad", Op::ZeroPad([1; 4]));
    graph.then("conv1", "pool1_pool", pool(3));
    let mut pools = 0;
    for (stage, blocks) in stages.into_iter().enumerate() {
        for number in 1..=blocks {
            let halves = number == blocks && stage < 3;
            block(&mut graph, stage, number, halves.then_some(pools));
            pools += usize::from(halves);
        }
    }
    graph.then("top", "post_bn", norm());
    graph.then("top", "post_relu", Op::Activation(Activation::Relu));
    graph.then("top", "avg_pool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("top", "predictions", Op::Linear { out: classes, activation: Activation::Linear });
    let order = keras_order(&graph);
    Some(graph.reordered(&order))
}

/// A block; where it halves the map, it is told how many others have done so before it, which names its pooling.
fn block(graph: &mut Graph, stage: usize, number: usize, halves: Option<usize>) {
    let (channels, stride, from) = (64 << stage, if halves.is_some() { 2 } else { 1 }, graph.last());
    let stage = format!("conv{}", stage + 2);
    let name = |part: &str| format!("{stage}_block{number}_{part}");
    graph.then(&stage, name("preact_bn"), norm());
    let active = graph.then(&stage, name("preact_relu"), Op::Activation(Activation::Relu));
    let wide = || Op::conv(4 * channels, [1, 1], 1, [0; 4]).biased(Activation::Linear);
    let shortcut = match halves {
        _ if number == 1 => graph.push(&stage, name("0_conv"), wide(), &[active]),
        Some(0) => graph.push(&stage, "max_pooling2d", pool(1), &[from]),
        Some(others) => graph.push(&stage, format!("max_pooling2d_{others}"), pool(1), &[from]),
        None => from,
    };
    graph.push(&stage, name("1_conv"), Op::conv(channels, [1, 1], 1, [0; 4]), &[active]);
    let mut push = |part: &str, op| graph.then(&stage, name(part), op);
    push("1_bn", norm());
    push("1_relu", Op::Activation(Activation::Relu));
    push("2_pad", Op::ZeroPad([1; 4]));
    push("2_conv", Op::conv(channels, [3, 3], stride, [0; 4]));
    push("2_bn", norm());
    push("2_relu", Op::Activation(Activation::Relu));
    let main = push("3_conv", wide());
    graph.push(&stage, name("out"), Op::Add, &[shortcut, main]);
}
