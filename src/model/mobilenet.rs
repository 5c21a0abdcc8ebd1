//! MobileNet V1 (Howard et al., 2017) and V2 (Sandler et al., 2018) with Keras' layers and names; and V2 with
//! torchvision's, padded as torchvision does or as TensorFlow does.

use super::graph::{Activation, Framework, Graph, Op, Padding, Reduce, Shape, same};

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
    let norm = || Op::keras_norm(1e-3, 0.99, true);
    let relu = || Op::Activation(Activation::Relu6);
    let scaled = |channels: usize| (channels as f64 * width) as usize;
    let mut graph = Graph::new("mobilenet_v1", Framework::Keras, input);
    graph.then("conv1", "conv1", Op::conv(scaled(32), [3, 3], 2, same(input[1], 3, 2)));
    graph.then("conv1", "conv1_bn", norm());
    graph.then("conv1", "conv1_relu", relu());
    for (index, (channels, stride)) in BLOCKS.into_iter().enumerate() {
        let number = index + 1;
        let block = format!("block{number}");
        let from = graph.layers[graph.last()].shape[0];
        let mut padding = [1; 4];
        if stride == 2 {
            graph.then(&block, format!("conv_pad_{number}"), Op::ZeroPad([0, 1, 0, 1]));
            padding = [0; 4];
        }
        graph.then(&block, format!("conv_dw_{number}"), Op::conv(from, [3, 3], stride, padding).grouped(from));
        graph.then(&block, format!("conv_dw_{number}_bn"), norm());
        graph.then(&block, format!("conv_dw_{number}_relu"), relu());
        graph.then(&block, format!("conv_pw_{number}"), Op::conv(scaled(channels), [1, 1], 1, [0; 4]));
        graph.then(&block, format!("conv_pw_{number}_bn"), norm());
        graph.then(&block, format!("conv_pw_{number}_relu"), relu());
    }
    graph.then("top", "global_average_pooling2d", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("top", "dropout", Op::Dropout(1e-3));
    graph.then("top", "conv_preds", Op::conv(classes, [1, 1], 1, [0; 4]).biased(Activation::Linear));
    graph.then("top", "reshape_2", Op::Flatten);
    graph.then("top", "predictions", Op::Activation(Activation::Linear));
    graph
}

/// Expansion, channels, repeats and first stride of the stages of V2.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// MobileNet V2 with Keras' layers.
pub fn v2(width: f64, input: Shape, classes: usize) -> Graph {
    let norm = || Op::keras_norm(1e-3, 0.999, true);
    let relu = || Op::Activation(Activation::Relu6);
    let mut graph = Graph::new("mobilenet_v2", Framework::Keras, input);
    graph.then("Conv1", "Conv1", Op::conv(divisible(32.0 * width), [3, 3], 2, same(input[1], 3, 2)));
    graph.then("Conv1", "bn_Conv1", norm());
    graph.then("Conv1", "Conv1_relu", relu());
    let mut number = 0;
    for (expand, channels, repeats, first_stride) in STAGES {
        for repeat in 0..repeats {
            let block = if number == 0 { "expanded_conv".to_owned() } else { format!("block_{number}") };
            let name = |part: &str| format!("{block}_{part}");
            let stride = if repeat == 0 { first_stride } else { 1 };
            let from = graph.last();
            let [input, side, _] = graph.layers[from].shape;
            if expand > 1 {
                graph.then(&block, name("expand"), Op::conv(input * expand, [1, 1], 1, [0; 4]));
                graph.then(&block, name("expand_BN"), norm());
                graph.then(&block, name("expand_relu"), relu());
            }
            let mut padding = [1; 4];
            if stride == 2 {
                graph.then(&block, name("pad"), Op::ZeroPad(same(side, 3, 2)));
                padding = [0; 4];
            }
            let hidden = input * expand;
            graph.then(&block, name("depthwise"), Op::conv(hidden, [3, 3], stride, padding).grouped(hidden));
            graph.then(&block, name("depthwise_BN"), norm());
            graph.then(&block, name("depthwise_relu"), relu());
            let out = divisible(channels as f64 * width);
            graph.then(&block, name("project"), Op::conv(out, [1, 1], 1, [0; 4]));
            let main = graph.then(&block, name("project_BN"), norm());
            if stride == 1 && input == out {
                graph.push(&block, name("add"), Op::Add, &[from, main]);
            }
            number += 1;
        }
    }
    let last = divisible(1280.0 * width.max(1.0));
    graph.then("Conv_1", "Conv_1", Op::conv(last, [1, 1], 1, [0; 4]));
    graph.then("Conv_1", "Conv_1_bn", norm());
    graph.then("Conv_1", "out_relu", relu());
    graph.then("top", "global_average_pooling2d", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("top", "predictions", Op::Linear { out: classes, activation: Activation::Linear });
    graph
}

/// How torchvision's V2 is padded.
#[derive(Clone, Copy, PartialEq)]
pub enum Pad {
    /// One pixel on every side, as torchvision does.
    Torch,
    /// As TensorFlow does: on even inputs a stride-2 convolution pads right and bottom only.
    Tensorflow,
}

/// MobileNet V2 with torchvision's modules.
pub fn v2_torchvision(arch: &str, pad: Pad, width: f64, input: Shape, classes: usize) -> Graph {
    let mut torch = Torch { graph: Graph::new(arch, Framework::Torch, input), pad };
    let names = ["features.0.0", "features.0.1", "features.0.2"];
    torch.convolved("features.0", names, divisible(32.0 * width), 3, 2, 1);
    let mut index = 1;
    for (expand, channels, repeats, first_stride) in STAGES {
        for repeat in 0..repeats {
            let stride = if repeat == 0 { first_stride } else { 1 };
            torch.inverted_residual(index, expand, divisible(channels as f64 * width), stride);
            index += 1;
        }
    }
    let last = divisible(1280.0 * width.max(1.0));
    torch.convolved("features.18", ["features.18.0", "features.18.1", "features.18.2"], last, 1, 1, 1);
    let mut graph = torch.graph;
    graph.then("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("classifier", "classifier.0", Op::Dropout(0.2));
    graph.then("classifier", "classifier.1", Op::Linear { out: classes, activation: Activation::Linear });
    graph
}

struct Torch {
    graph: Graph,
    pad: Pad,
}

impl Torch {
    fn inverted_residual(&mut self, index: usize, expand: usize, channels: usize, stride: usize) {
        let from = self.graph.last();
        let input = self.graph.layers[from].shape[0];
        let block = format!("features.{index}");
        let hidden = input * expand;
        let mut part = 0;
        if expand > 1 {
            let names = ["conv.0.0", "conv.0.1", "conv.0.2"].map(|name| format!("{block}.{name}"));
            self.convolved(&block, [&names[0], &names[1], &names[2]], hidden, 1, 1, 1);
            part = 1;
        }
        let names = ["0", "1", "2"].map(|name| format!("{block}.conv.{part}.{name}"));
        self.convolved(&block, [&names[0], &names[1], &names[2]], hidden, 3, stride, hidden);
        let graph = &mut self.graph;
        graph.then(&block, format!("{block}.conv.{}", part + 1), Op::conv(channels, [1, 1], 1, [0; 4]));
        let main = graph.then(&block, format!("{block}.conv.{}", part + 2), Op::torch_norm(1e-5));
        if stride == 1 && input == channels {
            graph.push(&block, format!("{block}.add"), Op::Add, &[from, main]);
        }
    }

    /// Convolution, batch norm and ReLU6 under the names given.
    fn convolved(&mut self, block: &str, names: [&str; 3], out: usize, kernel: usize, stride: usize, groups: usize) {
        let side = self.graph.layers[self.graph.last()].shape[1];
        let padding: Padding = match self.pad {
            Pad::Torch => [(kernel - 1) / 2; 4],
            Pad::Tensorflow => same(side, kernel, stride),
        };
        self.graph.then(block, names[0], Op::conv(out, [kernel; 2], stride, padding).grouped(groups));
        self.graph.then(block, names[1], Op::torch_norm(1e-5));
        self.graph.then(block, names[2], Op::Activation(Activation::Relu6));
    }
}

/// The nearest multiple of 8, never more than a tenth below (Sandler et al.'s reference code).
pub(super) fn divisible(channels: f64) -> usize {
    let rounded = (((channels + 4.0) / 8.0) as usize * 8).max(8);
    if (rounded as f64) < 0.9 * channels { rounded + 8 } else { rounded }
}
