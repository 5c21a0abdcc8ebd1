//! Swin transformers (Liu et al., 2021): tiny to base as torchvision has them, and those that only their authors have, under names of
//! the same kind.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};

const EPS: f64 = 1e-5;
/// Numbers of a pixel that one head attends with.
const DEPTH: usize = 32;
/// Pixels of an image that are one of the first map, along a side.
const PATCH: usize = 4;

/// All that there are.
pub const NAMES: &[&str] = &["swin_t", "swin_s", "swin_b", "swin_b_window12", "swin_l", "swin_l_window12"];

/// Whether a network is one of them.
pub fn is_one(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The side of the images that a network was made for.
pub fn side(name: &str) -> usize {
    if name.ends_with("_window12") { 384 } else { 224 }
}

/// Blocks of the third stage (the others have two each), heads of the first (each next has twice as many), and the probability with
/// which stochastic depth drops the last block: torchvision/models/swin_transformer.py; of the large one Liu et al.'s.
fn scaling(name: &str) -> Option<(usize, usize, f64)> {
    Some(match name {
        "swin_t" => (6, 3, 0.2),
        "swin_s" => (18, 3, 0.3),
        "swin_b" | "swin_b_window12" => (18, 4, 0.5),
        "swin_l" | "swin_l_window12" => (18, 6, 0.2),
        _ => return None,
    })
}

/// torchvision's modules in the order in which they run, with `width` times the heads.
pub fn torchvision(name: &str, width: f64, input: Shape, classes: usize) -> Option<Graph> {
    let (third, first, most) = scaling(name)?;
    let window = if name.ends_with("_window12") { 12 } else { 7 };
    let heads = |stage: usize| ((first as f64 * width).round() as usize).max(1) << stage;
    let mut graph = Graph::new(name, Framework::Torch, input);
    let stem = Op::conv(DEPTH * heads(0), [PATCH; 2], PATCH, [0; 4]).biased(Activation::Linear);
    graph.then("features.0", "features.0.0", stem);
    graph.then("features.0", "features.0.2", Op::LayerNorm { eps: EPS });
    let stages = [2, 2, third, 2];
    let all: usize = stages.iter().sum();
    let mut seen = 0;
    for (stage, blocks) in stages.into_iter().enumerate() {
        if stage > 0 {
            merge(&mut graph, &format!("features.{}", 2 * stage), DEPTH * heads(stage));
        }
        for number in 0..blocks {
            let block = Block {
                group: format!("features.{}", 2 * stage + 1),
                number,
                heads: heads(stage),
                window,
                drop: most * seen as f64 / (all - 1) as f64,
            };
            block.push(&mut graph);
            seen += 1;
        }
    }
    graph.then("norm", "norm", Op::LayerNorm { eps: EPS });
    graph.then("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("head", "head", Op::Linear { out: classes, activation: Activation::Linear });
    Some(graph)
}

/// Half the pixels along each side, with twice the channels; an odd side gets a row of zeros first.
fn merge(graph: &mut Graph, own: &str, channels: usize) {
    let [_, height, width] = graph.layers[graph.last()].shape;
    let mut push = |name: &str, op| graph.then(own, format!("{own}.{name}"), op);
    if height % 2 + width % 2 > 0 {
        push("pad", Op::ZeroPad([0, height % 2, 0, width % 2]));
    }
    push("merge", Op::PatchMerge);
    push("norm", Op::LayerNorm { eps: EPS });
    push("reduction", Op::Pointwise { out: channels, bias: false });
}

struct Block {
    group: String,
    number: usize,
    heads: usize,
    window: usize,
    drop: f64,
}

impl Block {
    /// Attention in windows, every second time moved by half of one, and two dense layers. What is no multiple of a window gets zeros
    /// at the bottom and on the right for as long as attention takes, as in torchvision.
    fn push(&self, graph: &mut Graph) {
        let (window, channels, from) = (self.window, DEPTH * self.heads, graph.last());
        let [_, height, width] = graph.layers[from].shape;
        let [low, right] = [height, width].map(|side| side.next_multiple_of(window) - side);
        let shift = if self.number % 2 == 1 { window / 2 } else { 0 };
        let own = |name: &str| format!("{}.{}.{name}", self.group, self.number);
        let mut push = |name: &str, op| graph.then(&self.group, own(name), op);
        push("norm1", Op::LayerNorm { eps: EPS });
        if low + right > 0 {
            push("attn.pad", Op::ZeroPad([0, low, 0, right]));
        }
        push("attn.qkv", Op::dense(3 * channels));
        push("attn", Op::WindowAttention { heads: self.heads, window, shift });
        if low + right > 0 {
            push("attn.crop", Op::Crop([0, low, 0, right]));
        }
        let mut main = push("attn.proj", Op::dense(channels));
        if self.drop > 0.0 {
            main = push("stochastic_depth", Op::DropPath(self.drop));
        }
        let from = graph.push(&self.group, own("add"), Op::Add, &[main, from]);
        let mut push = |name: &str, op| graph.then(&self.group, own(name), op);
        push("norm2", Op::LayerNorm { eps: EPS });
        push("mlp.0", Op::dense(4 * channels));
        push("mlp.1", Op::Activation(Activation::Gelu));
        let mut main = push("mlp.3", Op::dense(channels));
        if self.drop > 0.0 {
            main = push("stochastic_depth_2", Op::DropPath(self.drop));
        }
        graph.push(&self.group, own("add_2"), Op::Add, &[main, from]);
    }
}
