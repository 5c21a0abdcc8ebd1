//! MobileNet V1 (Howard et al., 2017) with Keras' layers and names, and V2 (Sandler et al., 2018) with torchvision's.
//! Padding is TensorFlow's SAME: on even inputs a stride-2 convolution pads right and bottom only.

use super::graph::{Activation, Graph, Op, Padding, Reduce, Shape};

/// MobileNet V1 with `width` times the channels.
pub fn v1(width: f64, input: Shape, classes: usize) -> Graph {
    const BLOCKS: [(usize, usize); 13] = [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        (512, 1),
        (512, 1),
        (512, 1),
        (512, 1),
        (512, 1),
        (1024, 2),
        (1024, 1),
    ];
    let norm = || Op::BatchNorm { eps: 1e-3, momentum: 0.01, unbiased: false };
    let relu = || Op::Activation(Activation::Relu6);
    let scaled = |channels: usize| (channels as f64 * width) as usize;
    let mut graph = Graph::new("mobilenet_v1", input);
    graph.then("conv1", "conv1", conv(scaled(32), 3, 2, same(input[1], 3, 2), 1, false));
    graph.then("conv1", "conv1_bn", norm());
    graph.then("conv1", "conv1_relu", relu());
    for (index, (channels, stride)) in BLOCKS.into_iter().enumerate() {
        let number = index + 1;
        let block = format!("block{number}");
        let [from, side, _] = graph.layers[graph.last()].shape;
        let padding = match stride {
            1 => same(side, 3, 1),
            _ => {
                graph.then(&block, format!("conv_pad_{number}"), Op::ZeroPad(same(side, 3, stride)));
                [0; 4]
            }
        };
        graph.then(&block, format!("conv_dw_{number}"), conv(from, 3, stride, padding, from, false));
        graph.then(&block, format!("conv_dw_{number}_bn"), norm());
        graph.then(&block, format!("conv_dw_{number}_relu"), relu());
        graph.then(&block, format!("conv_pw_{number}"), conv(scaled(channels), 1, 1, [0; 4], 1, false));
        graph.then(&block, format!("conv_pw_{number}_bn"), norm());
        graph.then(&block, format!("conv_pw_{number}_relu"), relu());
    }
    graph.then("top", "global_average_pooling2d", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("top", "dropout", Op::Dropout(1e-3));
    graph.then("top", "conv_preds", conv(classes, 1, 1, [0; 4], 1, true));
    graph.then("top", "reshape", Op::Flatten);
    graph
}

/// MobileNet V2 with `width` times the channels.
pub fn v2(width: f64, input: Shape, classes: usize) -> Graph {
    const STAGES: [(usize, usize, usize, usize); 7] =
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];
    let mut graph = Graph::new("mobilenet_v2", input);
    convolved(
        &mut graph,
        "features.0",
        ["features.0.0", "features.0.1", "features.0.2"],
        divisible(32.0 * width),
        3,
        2,
        1,
    );
    let mut index = 1;
    for (expand, channels, repeats, first_stride) in STAGES {
        for repeat in 0..repeats {
            let stride = if repeat == 0 { first_stride } else { 1 };
            inverted_residual(&mut graph, index, expand, divisible(channels as f64 * width), stride);
            index += 1;
        }
    }
    let last = divisible(1280.0 * width.max(1.0));
    convolved(&mut graph, "features.18", ["features.18.0", "features.18.1", "features.18.2"], last, 1, 1, 1);
    graph.then("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("classifier", "classifier.0", Op::Dropout(0.2));
    graph.then("classifier", "classifier.1", Op::Linear { out: classes, activation: Activation::Linear });
    graph
}

fn inverted_residual(graph: &mut Graph, index: usize, expand: usize, channels: usize, stride: usize) {
    let from = graph.last();
    let input = graph.layers[from].shape[0];
    let block = format!("features.{index}");
    let hidden = input * expand;
    let mut part = 0;
    if expand > 1 {
        let names = ["conv.0.0", "conv.0.1", "conv.0.2"].map(|name| format!("{block}.{name}"));
        convolved(graph, &block, [&names[0], &names[1], &names[2]], hidden, 1, 1, 1);
        part = 1;
    }
    let names = ["0", "1", "2"].map(|name| format!("{block}.conv.{part}.{name}"));
    convolved(graph, &block, [&names[0], &names[1], &names[2]], hidden, 3, stride, hidden);
    graph.then(&block, format!("{block}.conv.{}", part + 1), conv(channels, 1, 1, [0; 4], 1, false));
    let main = graph.then(
        &block,
        format!("{block}.conv.{}", part + 2),
        Op::BatchNorm { eps: 1e-5, momentum: 0.1, unbiased: true },
    );
    if stride == 1 && input == channels {
        graph.push(&block, format!("{block}.add"), Op::Add, &[from, main]);
    }
}

/// Convolution, batch norm and ReLU6 under the names given.
fn convolved(
    graph: &mut Graph,
    block: &str,
    names: [&str; 3],
    out: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
) {
    let side = graph.layers[graph.last()].shape[1];
    graph.then(block, names[0], conv(out, kernel, stride, same(side, kernel, stride), groups, false));
    graph.then(block, names[1], Op::BatchNorm { eps: 1e-5, momentum: 0.1, unbiased: true });
    graph.then(block, names[2], Op::Activation(Activation::Relu6));
}

fn conv(out: usize, kernel: usize, stride: usize, padding: Padding, groups: usize, bias: bool) -> Op {
    Op::Conv { out, kernel: [kernel; 2], stride, dilation: 1, padding, groups, bias, activation: Activation::Linear }
}

/// TensorFlow's SAME for a square input: ceil(side / stride) outputs, the odd pixel at the bottom and right.
fn same(side: usize, kernel: usize, stride: usize) -> Padding {
    let total = ((side.div_ceil(stride) - 1) * stride + kernel).saturating_sub(side);
    [total / 2, total - total / 2, total / 2, total - total / 2]
}

/// The nearest multiple of 8, never more than a tenth below (Sandler et al.'s reference code).
fn divisible(channels: f64) -> usize {
    let rounded = (((channels + 4.0) / 8.0) as usize * 8).max(8);
    if (rounded as f64) < 0.9 * channels { rounded + 8 } else { rounded }
}
