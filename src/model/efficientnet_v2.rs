//! EfficientNetV2 S, M and L (Tan and Le, 2021), as torchvision has them: the first stages have one convolution where the others have
//! two and a gate.

use super::efficientnet::{Block, DROP_PATH, convolved, torch_block};
use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};
use super::mobilenet::divisible;

/// All that there are.
pub const NAMES: &[&str] = &["efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"];

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
