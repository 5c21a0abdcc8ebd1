//! ConvNeXt tiny to large (Liu et al., 2022), as torchvision has them, and ConvNeXt V2 atto to huge (Woo et al., 2023) under names of
//! the same kind.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};

const EPS: f64 = 1e-6;
/// What the scales of blocks began at.
const SCALE: f64 = 1e-6;

/// All that there are.
pub const NAMES: &[&str] = &[
    "convnext_tiny",
    "convnext_small",
    "convnext_base",
    "convnext_large",
    "convnextv2_atto",
    "convnextv2_femto",
    "convnextv2_pico",
    "convnextv2_nano",
    "convnextv2_tiny",
    "convnextv2_base",
    "convnextv2_large",
    "convnextv2_huge",
];

/// Whether a network is one of them.
pub fn is_one(name: &str) -> bool {
    name.starts_with("convnext_") || is_second(name)
}

/// Whether blocks have global response norms in the place of scales.
pub fn is_second(name: &str) -> bool {
    name.starts_with("convnextv2_")
}

/// Blocks of the four stages, channels of the first (each next has twice as many), and the probability with which stochastic
/// depth drops the last block: torchvision/models/convnext.py; of V2 timm/models/convnext.py, which drops none.
fn scaling(name: &str) -> Option<([usize; 4], usize, f64)> {
    Some(match name {
        "convnext_tiny" => ([3, 3, 9, 3], 96, 0.1),
        "convnext_small" => ([3, 3, 27, 3], 96, 0.4),
        "convnext_base" => ([3, 3, 27, 3], 128, 0.5),
        "convnext_large" => ([3, 3, 27, 3], 192, 0.5),
        "convnextv2_atto" => ([2, 2, 6, 2], 40, 0.0),
        "convnextv2_femto" => ([2, 2, 6, 2], 48, 0.0),
        "convnextv2_pico" => ([2, 2, 6, 2], 64, 0.0),
        "convnextv2_nano" => ([2, 2, 8, 2], 80, 0.0),
        "convnextv2_tiny" => ([3, 3, 9, 3], 96, 0.0),
        "convnextv2_base" => ([3, 3, 27, 3], 128, 0.0),
        "convnextv2_large" => ([3, 3, 27, 3], 192, 0.0),
        "convnextv2_huge" => ([3, 3, 27, 3], 352, 0.0),
        _ => return None,
    })
}

/// torchvision's modules in the order in which they run, with `width` times the channels.
pub fn torchvision(name: &str, width: f64, input: Shape, classes: usize) -> Option<Graph> {
    let (stages, first, most) = scaling(name)?;
    let channels = |stage: usize| ((first as f64 * width).round() as usize).max(1) << stage;
    let mut graph = Graph::new(name, Framework::Torch, input);
    let stem = Op::conv(channels(0), [4, 4], 4, [0; 4]).biased(Activation::Linear);
    graph.then("features.0", "features.0.0", stem);
    graph.then("features.0", "features.0.1", Op::LayerNorm { eps: EPS });
    let all: usize = stages.iter().sum();
    let mut seen = 0;
    for (stage, blocks) in stages.into_iter().enumerate() {
        if stage > 0 {
            let own = format!("features.{}", 2 * stage);
            let halved = Op::conv(channels(stage), [2, 2], 2, [0; 4]).biased(Activation::Linear);
            graph.then(&own, format!("{own}.0"), Op::LayerNorm { eps: EPS });
            graph.then(&own, format!("{own}.1"), halved);
        }
        for number in 0..blocks {
            let drop = most * seen as f64 / (all - 1) as f64;
            block(&mut graph, &format!("features.{}", 2 * stage + 1), number, channels(stage), drop);
            seen += 1;
        }
    }
    graph.then("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("classifier", "classifier.0", Op::LayerNorm { eps: EPS });
    graph.then("classifier", "classifier.2", Op::Linear { out: classes, activation: Activation::Linear });
    Some(graph)
}

fn block(graph: &mut Graph, group: &str, number: usize, channels: usize, drop: f64) {
    let own = format!("{group}.{number}");
    let (from, second) = (graph.last(), is_second(&graph.arch));
    let mut push = |name: &str, op| graph.then(group, format!("{own}.{name}"), op);
    push("block.0", Op::conv(channels, [7, 7], 1, [3; 4]).grouped(channels).biased(Activation::Linear));
    push("block.2", Op::LayerNorm { eps: EPS });
    push("block.3", Op::dense(4 * channels));
    push("block.4", Op::Activation(Activation::Gelu));
    if second {
        push("block.grn", Op::ResponseNorm { eps: EPS });
    }
    let mut main = push("block.5", Op::dense(channels));
    if !second {
        main = push("layer_scale", Op::LayerScale { init: SCALE });
    }
    if drop > 0.0 {
        main = push("stochastic_depth", Op::DropPath(drop));
    }
    graph.push(group, format!("{own}.add"), Op::Add, &[main, from]);
}
