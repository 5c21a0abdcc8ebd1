//! The ImageNet ResNets (He et al., 2016), twice: Keras' (strides in the first 1x1 convolution, biases), and torchvision's
//! (v1.5: strides in the 3x3 convolution, no biases), with its ResNeXts (Xie et al., 2017) and wide ResNets (Zagoruyko and Komodakis,
//! 2016).

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};
use super::order::keras_order;

/// Blocks of each of the four stages, and whether they are bottlenecks, of a ResNet of this depth (He et al., table 1).
fn stages(depth: usize) -> Option<([usize; 4], bool)> {
    Some(match depth {
        18 => ([2, 2, 2, 2], false),
        34 => ([3, 4, 6, 3], false),
        50 => ([3, 4, 6, 3], true),
        101 => ([3, 4, 23, 3], true),
        152 => ([3, 8, 36, 3], true),
        _ => return None,
    })
}

/// The inner channels of a stage; of bottlenecks four times as many come out.
fn channels(stage: usize) -> usize {
    64 << stage
}

/// torchvision's ResNeXts and wide ResNets.
pub const WIDER: &[&str] =
    &["resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"];

/// What a bottleneck's 3x3 convolution is made of.
#[derive(Clone, Copy)]
pub struct Inner {
    groups: usize,
    /// Channels of a group, in the first stage.
    each: usize,
}

impl Inner {
    /// Of the ResNets themselves.
    pub const PLAIN: Self = Self { groups: 1, each: 64 };

    fn channels(self, stage: usize) -> usize {
        (self.groups * self.each) << stage
    }
}

/// Depth and inner convolutions of one of them.
pub fn wider(name: &str) -> Option<(usize, Inner)> {
    let (depth, groups, each) = match name {
        "resnext50_32x4d" => (50, 32, 4),
        "resnext101_32x8d" => (101, 32, 8),
        "resnext101_64x4d" => (101, 64, 4),
        "wide_resnet50_2" => (50, 1, 128),
        "wide_resnet101_2" => (101, 1, 128),
        _ => return None,
    };
    Some((depth, Inner { groups, each }))
}

/// Keras' layers, in the order of its `model.layers`; depths 50, 101 and 152.
pub fn keras(depth: usize, input: Shape, classes: usize) -> Option<Graph> {
    let (blocks, _) = stages(depth).filter(|(_, bottlenecks)| *bottlenecks)?;
    let mut graph = Graph::new(&format!("resnet{depth}"), Framework::Keras, input);
    graph.then("conv1", "conv1_pad", Op::ZeroPad([3; 4]));
    graph.then("conv1", "conv1_conv", Op::conv(64, [7, 7], 2, [0; 4]).biased(Activation::Linear));
    graph.then("conv1", "conv1_bn", Op::keras_norm(1.001e-5, 0.99, true));
    graph.then("conv1", "conv1_relu", Op::Activation(Activation::Relu));
    graph.then("conv1", "pool1_pad", Op::ZeroPad([1; 4]));
    let mut last = graph.then("conv1", "pool1_pool", pool(0));
    for (stage, blocks) in blocks.into_iter().enumerate() {
        for block in 1..=blocks {
            let stride = if stage > 0 && block == 1 { 2 } else { 1 };
            last = keras_block(&mut graph, last, stage + 2, block, channels(stage), stride);
        }
    }
    graph.push("top", "avg_pool", Op::GridPool { reduce: Reduce::Avg, grid: 1 }, &[last]);
    graph.then("top", "predictions", Op::Linear { out: classes, activation: Activation::Linear });
    let order = keras_order(&graph);
    Some(graph.reordered(&order))
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

/// torchvision's modules in the order in which they run; depths 18, 34, 50, 101 and 152.
pub fn torchvision(arch: &str, depth: usize, inner: Inner, input: Shape, classes: usize) -> Option<Graph> {
    let (blocks, bottlenecks) = stages(depth)?;
    let mut graph = Graph::new(arch, Framework::Torch, input);
    graph.then("conv1", "conv1", Op::conv(64, [7, 7], 2, [3; 4]));
    graph.then("conv1", "bn1", Op::torch_norm(1e-5));
    graph.then("conv1", "relu", Op::Activation(Activation::Relu));
    let mut last = graph.then("conv1", "maxpool", pool(1));
    for (stage, blocks) in blocks.into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let (own, wide) = (channels(stage), inner.channels(stage));
            let conv = |out, kernel: usize, stride| Op::conv(out, [kernel; 2], stride, [kernel / 2; 4]);
            let convs = match bottlenecks {
                true => vec![conv(wide, 1, 1), conv(wide, 3, stride).grouped(inner.groups), conv(4 * own, 1, 1)],
                false => vec![conv(own, 3, stride), conv(own, 3, 1)],
            };
            last = torch_block(&mut graph, last, &format!("layer{}", stage + 1), block, stride, convs);
        }
    }
    graph.push("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 }, &[last]);
    graph.then("fc", "flatten", Op::Flatten);
    graph.then("fc", "fc", Op::Linear { out: classes, activation: Activation::Linear });
    Some(graph)
}

/// One block of convolutions, which together have this stride; a projection stands beside them where the first block of a stage
/// changes the map.
fn torch_block(graph: &mut Graph, from: usize, stage: &str, block: usize, stride: usize, convs: Vec<Op>) -> usize {
    let name = |part: &str| format!("{stage}.{block}.{part}");
    let numbered = |part: &str, number: usize| format!("{stage}.{block}.{part}{number}");
    let norm = || Op::torch_norm(1e-5);
    let (mut main, count) = (from, convs.len());
    for (index, conv) in convs.into_iter().enumerate() {
        graph.push(stage, numbered("conv", index + 1), conv, &[main]);
        main = graph.then(stage, numbered("bn", index + 1), norm());
        if index + 1 < count {
            main = graph.then(stage, numbered("relu", index + 1), Op::Activation(Activation::Relu));
        }
    }
    let ([before, ..], [after, ..]) = (graph.layers[from].shape, graph.layers[main].shape);
    let shortcut = if block == 0 && before != after {
        graph.push(stage, name("downsample.0"), Op::conv(after, [1, 1], stride, [0; 4]), &[from]);
        graph.then(stage, name("downsample.1"), norm())
    } else {
        from
    };
    graph.push(stage, name("add"), Op::Add, &[main, shortcut]);
    graph.then(stage, numbered("relu", count), Op::Activation(Activation::Relu))
}

fn pool(padding: usize) -> Op {
    Op::Pool { reduce: Reduce::Max, kernel: 3, stride: 2, padding: [padding; 4], ceil: false }
}
