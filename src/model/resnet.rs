//! The ImageNet ResNets (He et al., 2016), twice: Keras' (strides in the first 1x1 convolution, biases), and torchvision's
//! (v1.5: strides in the 3x3 convolution, no biases).

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
pub fn torchvision(arch: &str, depth: usize, input: Shape, classes: usize) -> Option<Graph> {
    let (blocks, bottlenecks) = stages(depth)?;
    let mut graph = Graph::new(arch, Framework::Torch, input);
    graph.then("conv1", "conv1", Op::conv(64, [7, 7], 2, [3; 4]));
    graph.then("conv1", "bn1", Op::torch_norm(1e-5));
    graph.then("conv1", "relu", Op::Activation(Activation::Relu));
    let mut last = graph.then("conv1", "maxpool", pool(1));
    for (stage, blocks) in blocks.into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let convs = match bottlenecks {
                true => vec![(1, 1, 1), (1, 3, stride), (4, 1, 1)],
                false => vec![(1, 3, stride), (1, 3, 1)],
            };
            last = torch_block(&mut graph, last, &format!("layer{}", stage + 1), block, channels(stage), &convs);
        }
    }
    graph.push("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 }, &[last]);
    graph.then("fc", "flatten", Op::Flatten);
    graph.then("fc", "fc", Op::Linear { out: classes, activation: Activation::Linear });
    Some(graph)
}

/// One block of convolutions, each (times the channels, kernel, stride); a projection stands beside them where the first block
/// of a stage changes the map.
fn torch_block(
    graph: &mut Graph,
    from: usize,
    stage: &str,
    block: usize,
    channels: usize,
    convs: &[(usize, usize, usize)],
) -> usize {
    let name = |part: &str| format!("{stage}.{block}.{part}");
    let numbered = |part: &str, number: usize| format!("{stage}.{block}.{part}{number}");
    let norm = || Op::torch_norm(1e-5);
    let mut main = from;
    for (index, (times, kernel, stride)) in convs.iter().enumerate() {
        let conv = Op::conv(times * channels, [*kernel; 2], *stride, [kernel / 2; 4]);
        graph.push(stage, numbered("conv", index + 1), conv, &[main]);
        main = graph.then(stage, numbered("bn", index + 1), norm());
        if index + 1 < convs.len() {
            main = graph.then(stage, numbered("relu", index + 1), Op::Activation(Activation::Relu));
        }
    }
    let ([before, ..], [after, ..]) = (graph.layers[from].shape, graph.layers[main].shape);
    let shortcut = if block == 0 && before != after {
        let stride = convs.iter().map(|(.., stride)| stride).product();
        graph.push(stage, name("downsample.0"), Op::conv(after, [1, 1], stride, [0; 4]), &[from]);
        graph.then(stage, name("downsample.1"), norm())
    } else {
        from
    };
    graph.push(stage, name("add"), Op::Add, &[main, shortcut]);
    graph.then(stage, numbered("relu", convs.len()), Op::Activation(Activation::Relu))
}

fn pool(padding: usize) -> Op {
    Op::Pool { reduce: Reduce::Max, kernel: 3, stride: 2, padding: [padding; 4], ceil: false }
}
