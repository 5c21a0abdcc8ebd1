//! EfficientNetV2 (Tan and Le, 2021): S, M and L as torchvision has them; the same and B0 to B3 as Keras has them, which begin with the
//! preparation of images. The first stages have one convolution where the others have two and a gate.

use super::efficientnet::{Block, DROP_PATH, convolved, keras_gate, letter, torch_block};
use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape, same};
use super::mobilenet::divisible;
use super::order::keras_order;

/// torchvision's.
pub const NAMES: &[&str] = &["efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"];

/// Keras'.
pub const KERAS: &[&str] = &[
    "efficientnet_v2_b0",
    "efficientnet_v2_b1",
    "efficientnet_v2_b2",
    "efficientnet_v2_b3",
    "efficientnet_v2_s_keras",
    "efficientnet_v2_m_keras",
    "efficientnet_v2_l_keras",
];

/// Channels behind the last convolution.
const LAST: f64 = 1280.0;

/// A stage: times the channels inside a block, stride of the first, channels, blocks.
type Stage = (usize, usize, usize, usize);

/// Stages whose blocks are fused.
const FUSED: usize = 3;

/// One of the three (Tan and Le, table 4; torchvision/models/efficientnet.py, 0.29). The stem has the channels of the first stage.
struct Network {
    stages: &'static [Stage],
    /// Pixels of an image's side.
    side: usize,
    dropout: f64,
}

const S: Network = Network {
    stages: &[(1, 1, 24, 2), (4, 2, 48, 4), (4, 2, 64, 4), (4, 2, 128, 6), (6, 1, 160, 9), (6, 2, 256, 15)],
    side: 384,
    dropout: 0.2,
};
const M: Network = Network {
    stages: &[
        (1, 1, 24, 3),
        (4, 2, 48, 5),
        (4, 2, 80, 5),
        (4, 2, 160, 7),
        (6, 1, 176, 14),
        (6, 2, 304, 18),
        (6, 1, 512, 5),
    ],
    side: 480,
    dropout: 0.3,
};
const L: Network = Network {
    stages: &[
        (1, 1, 32, 4),
        (4, 2, 64, 7),
        (4, 2, 96, 7),
        (4, 2, 192, 10),
        (6, 1, 224, 19),
        (6, 2, 384, 25),
        (6, 1, 640, 7),
    ],
    side: 480,
    dropout: 0.4,
};

/// Of B0, which has more channels in its stem; the others have more of all, and more blocks.
const B0: Network = Network {
    stages: &[(1, 1, 16, 1), (4, 2, 32, 2), (4, 2, 48, 2), (4, 2, 96, 3), (6, 1, 112, 5), (6, 2, 192, 8)],
    side: 224,
    dropout: 0.2,
};
const STEM_OF_B0: usize = 32;

fn network(name: &str) -> Option<&'static Network> {
    match name {
        "efficientnet_v2_s" => Some(&S),
        "efficientnet_v2_m" => Some(&M),
        "efficientnet_v2_l" => Some(&L),
        _ => None,
    }
}

/// The side of images that a network was measured at, and its last feature map.
pub fn facts(name: &str) -> Option<(usize, &'static str)> {
    let found = network(name)?;
    Some((found.side, if found.stages.len() == 6 { "features.7.last" } else { "features.8.last" }))
}

/// torchvision's modules in the order in which they run, with `width` times the channels.
pub fn torchvision(name: &str, width: f64, input: Shape, classes: usize) -> Option<Graph> {
    let own = network(name)?;
    let channels = |channels: usize| divisible(channels as f64 * width);
    let norm = Op::torch_norm(1e-3);
    let mut graph = Graph::new(name, Framework::Torch, input);
    let stem = channels(own.stages.first()?.2);
    convolved(&mut graph, "features.0", "features.0", Op::conv(stem, [3, 3], 2, [1; 4]), &norm);
    let all: usize = own.stages.iter().map(|stage| stage.3).sum();
    let (mut from, mut seen) = (stem, 0);
    for (stage, (expand, stride, out, repeats)) in own.stages.iter().enumerate() {
        for repeat in 0..*repeats {
            let stride = if repeat == 0 { *stride } else { 1 };
            let (inner, out) = (divisible((from * expand) as f64), channels(*out));
            let drop = DROP_PATH * f64::from(seen) / all as f64;
            let block = Block { stage, repeat, kernel: 3, stride, from, inner, out, drop };
            if stage < FUSED {
                fused_block(&mut graph, &block, &norm)
            } else {
                torch_block(&mut graph, &block, &norm)
            }
            from = out;
            seen += 1;
        }
    }
    let top = format!("features.{}", own.stages.len() + 1);
    convolved(&mut graph, &top, &top, Op::conv(divisible(LAST * width), [1, 1], 1, [0; 4]), &norm);
    graph.then("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("classifier", "classifier.0", Op::Dropout(own.dropout));
    graph.then("classifier", "classifier.1", Op::Linear { out: classes, activation: Activation::Linear });
    Some(graph)
}

/// A block whose first convolution does the work of two.
fn fused_block(graph: &mut Graph, block: &Block, norm: &Op) {
    let group = format!("features.{}", block.stage + 1);
    let own = format!("{group}.{}", block.repeat);
    let from = graph.last();
    let out = if block.expands() { block.inner } else { block.out };
    let conv = Op::conv(out, [block.kernel; 2], block.stride, [block.kernel / 2; 4]);
    let mut main = convolved(graph, &group, &format!("{own}.block.0"), conv, norm);
    if block.expands() {
        graph.then(&group, format!("{own}.block.1.0"), Op::conv(block.out, [1, 1], 1, [0; 4]));
        main = graph.then(&group, format!("{own}.block.1.1"), norm.clone());
    }
    block.joins(graph, &group, &own, [main, from]);
}

/// A network of Keras: what it is made of, channels of its stem, times the channels and the blocks, and the side of its images
/// (keras/src/applications/efficientnet_v2.py).
struct OfKeras {
    network: &'static Network,
    stem: usize,
    wide: f64,
    deep: f64,
    side: usize,
    /// Whether images come with ImageNet's mean and deviation, and not from -1 to 1.
    standardizes: bool,
}

fn of_keras(name: &str) -> Option<OfKeras> {
    let base = |wide, deep, side| OfKeras { network: &B0, stem: STEM_OF_B0, wide, deep, side, standardizes: true };
    Some(match name {
        "efficientnet_v2_b0" => base(1.0, 1.0, 224),
        "efficientnet_v2_b1" => base(1.0, 1.1, 240),
        "efficientnet_v2_b2" => base(1.1, 1.2, 260),
        "efficientnet_v2_b3" => base(1.2, 1.4, 300),
        other => {
            let network = network(other.strip_suffix("_keras")?)?;
            OfKeras {
                network,
                stem: network.stages.first()?.2,
                wide: 1.0,
                deep: 1.0,
                side: network.side,
                standardizes: false,
            }
        }
    })
}

/// The side of images that one of Keras' was made for.
pub fn side_of_keras(name: &str) -> Option<usize> {
    of_keras(name).map(|own| own.side)
}

fn silu() -> Op {
    Op::Activation(Activation::Silu)
}

fn keras_norm() -> Op {
    Op::keras_norm(1e-3, 0.9, true)
}

/// Keras' layers, in the order of its `model.layers`, with `width` times the channels.
pub fn keras(name: &str, width: f64, input: Shape, classes: usize) -> Option<Graph> {
    let own = of_keras(name)?;
    // To the nearest eight, where others never lose a tenth.
    let channels = |channels: usize| (((channels as f64 * own.wide * width + 4.0) / 8.0) as usize).max(1) * 8;
    let repeats = |repeats: usize| (own.deep * repeats as f64).ceil() as usize;
    let mut graph = Graph::new(name, Framework::Keras, input);
    prepare(&mut graph, own.standardizes);
    let (mut from, mut seen) = (channels(own.stem), 0);
    graph.then("stem", "stem_conv", Op::conv(from, [3, 3], 2, same(input[1], 3, 2)));
    graph.then("stem", "stem_bn", keras_norm());
    graph.then("stem", "stem_activation", silu());
    let all: usize = own.network.stages.iter().map(|stage| repeats(stage.3)).sum();
    for (stage, (expand, stride, out, count)) in own.network.stages.iter().enumerate() {
        for repeat in 0..repeats(*count) {
            let stride = if repeat == 0 { *stride } else { 1 };
            let (inner, out) = (from * expand, channels(*out));
            let drop = DROP_PATH * f64::from(seen) / all as f64;
            keras_block(&mut graph, &Block { stage, repeat, kernel: 3, stride, from, inner, out, drop });
            from = out;
            seen += 1;
        }
    }
    graph.then("top", "top_conv", Op::conv(channels(LAST as usize), [1, 1], 1, [0; 4]));
    graph.then("top", "top_bn", keras_norm());
    graph.then("top", "top_activation", silu());
    graph.then("top", "avg_pool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("top", "top_dropout", Op::Dropout(B0.dropout));
    graph.then("top", "predictions", Op::Linear { out: classes, activation: Activation::Linear });
    let order = keras_order(&graph);
    Some(graph.reordered(&order))
}

fn prepare(graph: &mut Graph, standardizes: bool) {
    if standardizes {
        graph.then("stem", "rescaling", Op::Rescale(vec![1.0 / 255.0; 3]));
        let variance = [0.229f64, 0.224, 0.225].map(|deviation| deviation * deviation).to_vec();
        graph.then("stem", "normalization", Op::Standardize { mean: vec![0.485, 0.456, 0.406], variance });
    } else {
        let half = Op::Standardize { mean: vec![128.0; 3], variance: vec![128.0 * 128.0; 3] };
        graph.then("stem", "rescaling", half);
    }
}

fn keras_block(graph: &mut Graph, block: &Block) {
    let (group, from) = (format!("block{}", block.stage + 1), graph.last());
    let name = |part: &str| format!("{group}{}_{part}", letter(block.repeat));
    let padding = same(graph.layers[from].shape[1], block.kernel, block.stride);
    let whole = |out| Op::conv(out, [block.kernel; 2], block.stride, padding);
    let (fused, expands) = (block.stage < FUSED, block.expands());
    if expands {
        let conv = if fused { whole(block.inner) } else { Op::conv(block.inner, [1, 1], 1, [0; 4]) };
        graph.then(&group, name("expand_conv"), conv);
        graph.then(&group, name("expand_bn"), keras_norm());
        graph.then(&group, name("expand_activation"), silu());
    }
    if !fused {
        graph.then(&group, name("dwconv2"), whole(block.inner).grouped(block.inner));
        graph.then(&group, name("bn"), keras_norm());
        let map = graph.then(&group, name("activation"), silu());
        keras_gate(graph, &group, name, block, map);
    }
    let projecting = if fused && !expands { whole(block.out) } else { Op::conv(block.out, [1, 1], 1, [0; 4]) };
    graph.then(&group, name("project_conv"), projecting);
    let mut main = graph.then(&group, name("project_bn"), keras_norm());
    if fused && !expands {
        main = graph.then(&group, name("project_activation"), silu());
    }
    if block.is_residual() {
        if block.drop > 0.0 {
            main = graph.then(&group, name("drop"), Op::DropPath(block.drop));
        }
        graph.push(&group, name("add"), Op::Add, &[main, from]);
    }
}
