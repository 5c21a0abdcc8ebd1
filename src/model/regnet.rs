//! RegNetX and RegNetY (Radosavovic et al., 2020), as torchvision has them: bottlenecks of one width with convolutions in groups, those
//! of Y with gates.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};

/// All that there are; a name ends in its thousand millions, or millions, of multiply-accumulates.
pub const NAMES: &[&str] = &[
    "regnet_x_400mf",
    "regnet_x_800mf",
    "regnet_x_1_6gf",
    "regnet_x_3_2gf",
    "regnet_x_8gf",
    "regnet_x_16gf",
    "regnet_x_32gf",
    "regnet_y_400mf",
    "regnet_y_800mf",
    "regnet_y_1_6gf",
    "regnet_y_3_2gf",
    "regnet_y_8gf",
    "regnet_y_16gf",
    "regnet_y_32gf",
    "regnet_y_128gf",
];

/// Blocks of each stage, their channels, and channels of a group.
type Stages = ([usize; 4], [usize; 4], usize);

/// What the paper's quantised linear rule gives (torchvision/models/regnet.py, 0.29).
fn stages(name: &str) -> Option<Stages> {
    Some(match name {
        "regnet_x_400mf" => ([1, 2, 7, 12], [32, 64, 160, 400], 16),
        "regnet_x_800mf" => ([1, 3, 7, 5], [64, 128, 288, 672], 16),
        "regnet_x_1_6gf" => ([2, 4, 10, 2], [72, 168, 408, 912], 24),
        "regnet_x_3_2gf" => ([2, 6, 15, 2], [96, 192, 432, 1008], 48),
        "regnet_x_8gf" => ([2, 5, 15, 1], [80, 240, 720, 1920], 120),
        "regnet_x_16gf" => ([2, 6, 13, 1], [256, 512, 896, 2048], 128),
        "regnet_x_32gf" => ([2, 7, 13, 1], [336, 672, 1344, 2520], 168),
        "regnet_y_400mf" => ([1, 3, 6, 6], [48, 104, 208, 440], 8),
        "regnet_y_800mf" => ([1, 3, 8, 2], [64, 144, 320, 784], 16),
        "regnet_y_1_6gf" => ([2, 6, 17, 2], [48, 120, 336, 888], 24),
        "regnet_y_3_2gf" => ([2, 5, 13, 1], [72, 216, 576, 1512], 24),
        "regnet_y_8gf" => ([2, 4, 10, 1], [224, 448, 896, 2016], 56),
        "regnet_y_16gf" => ([2, 4, 11, 1], [224, 448, 1232, 3024], 112),
        "regnet_y_32gf" => ([2, 5, 12, 1], [232, 696, 1392, 3712], 232),
        "regnet_y_128gf" => ([2, 7, 17, 1], [528, 1056, 2904, 7392], 264),
        _ => return None,
    })
}

/// Channels of the stem.
const STEM: usize = 32;

/// torchvision's modules in the order in which they run.
pub fn torchvision(name: &str, input: Shape, classes: usize) -> Option<Graph> {
    let (blocks, channels, of_group) = stages(name)?;
    let gated = name.starts_with("regnet_y_");
    let mut graph = Graph::new(name, Framework::Torch, input);
    convolved(&mut graph, "stem", "stem", Op::conv(STEM, [3, 3], 2, [1; 4]), true);
    for (stage, (blocks, channels)) in blocks.into_iter().zip(channels).enumerate() {
        for block in 0..blocks {
            let group = format!("trunk_output.block{}", stage + 1);
            let own = format!("{group}.block{}-{block}", stage + 1);
            let stride = if block == 0 { 2 } else { 1 };
            // A stage has no group wider than itself.
            bottleneck(&mut graph, &group, &own, channels, channels / of_group.min(channels), stride, gated);
        }
    }
    graph.then("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("fc", "flatten", Op::Flatten);
    graph.then("fc", "fc", Op::Linear { out: classes, activation: Activation::Linear });
    Some(graph)
}

fn bottleneck(graph: &mut Graph, group: &str, own: &str, channels: usize, groups: usize, stride: usize, gated: bool) {
    let from = graph.last();
    let before = graph.layers[from].shape[0];
    let shortcut = if before != channels || stride != 1 {
        convolved(graph, group, &format!("{own}.proj"), Op::conv(channels, [1, 1], stride, [0; 4]), false)
    } else {
        from
    };
    graph.push(group, format!("{own}.f.a.0"), Op::conv(channels, [1, 1], 1, [0; 4]), &[from]);
    graph.then(group, format!("{own}.f.a.1"), Op::torch_norm(1e-5));
    graph.then(group, format!("{own}.f.a.2"), Op::Activation(Activation::Relu));
    let grouped = Op::conv(channels, [3, 3], stride, [1; 4]).grouped(groups);
    let map = convolved(graph, group, &format!("{own}.f.b"), grouped, true);
    if gated {
        // A quarter of what the block reads.
        let pointwise = |out, activation| Op::conv(out, [1, 1], 1, [0; 4]).biased(activation);
        graph.then(group, format!("{own}.f.se.avgpool"), Op::GridPool { reduce: Reduce::Avg, grid: 1 });
        graph.then(group, format!("{own}.f.se.fc1"), pointwise(before / 4, Activation::Relu));
        let gate = graph.then(group, format!("{own}.f.se.fc2"), pointwise(channels, Activation::Sigmoid));
        graph.push(group, format!("{own}.f.se.mul"), Op::Scale, &[map, gate]);
    }
    let main = convolved(graph, group, &format!("{own}.f.c"), Op::conv(channels, [1, 1], 1, [0; 4]), false);
    graph.push(group, format!("{own}.add"), Op::Add, &[shortcut, main]);
    graph.then(group, format!("{own}.activation"), Op::Activation(Activation::Relu));
}

/// Convolution and batch norm, and ReLU where it is asked for.
fn convolved(graph: &mut Graph, group: &str, name: &str, conv: Op, relu: bool) -> usize {
    graph.then(group, format!("{name}.0"), conv);
    let norm = graph.then(group, format!("{name}.1"), Op::torch_norm(1e-5));
    if relu { graph.then(group, format!("{name}.2"), Op::Activation(Activation::Relu)) } else { norm }
}
