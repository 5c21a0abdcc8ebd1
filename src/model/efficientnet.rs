//! EfficientNet B0 to B7 (Tan and Le, 2019): Keras', which begin with the preparation of images, and torchvision's.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape, same};
use super::mobilenet::divisible;
use super::order::keras_order;

/// A stage of B0 (Tan and Le, table 1).
struct Stage {
    kernel: usize,
    repeats: usize,
    channels: usize,
    /// Times the channels inside a block.
    expand: usize,
    stride: usize,
}

const STAGES: [Stage; 7] = [
    Stage { kernel: 3, repeats: 1, channels: 16, expand: 1, stride: 1 },
    Stage { kernel: 3, repeats: 2, channels: 24, expand: 6, stride: 2 },
    Stage { kernel: 5, repeats: 2, channels: 40, expand: 6, stride: 2 },
    Stage { kernel: 3, repeats: 3, channels: 80, expand: 6, stride: 2 },
    Stage { kernel: 5, repeats: 3, channels: 112, expand: 6, stride: 1 },
    Stage { kernel: 5, repeats: 4, channels: 192, expand: 6, stride: 2 },
    Stage { kernel: 3, repeats: 1, channels: 320, expand: 6, stride: 1 },
];

/// The probability with which stochastic depth drops the last block; it grows from 0 at the first.
pub(super) const DROP_PATH: f64 = 0.2;

/// How one of the eight differs from B0.
pub struct Scaling {
    /// Times the channels, and times the blocks of a stage.
    width: f64,
    depth: f64,
    /// Pixels of an image's side.
    pub side: usize,
    dropout: f64,
}

/// B0 to B7 (the authors' table, as in keras/src/applications/efficientnet.py and torchvision/models/efficientnet.py).
pub fn scaling(number: usize) -> Option<Scaling> {
    let (width, depth, side, dropout) = match number {
        0 => (1.0, 1.0, 224, 0.2),
        1 => (1.0, 1.1, 240, 0.2),
        2 => (1.1, 1.2, 260, 0.3),
        3 => (1.2, 1.4, 300, 0.3),
        4 => (1.4, 1.8, 380, 0.4),
        5 => (1.6, 2.2, 456, 0.4),
        6 => (1.8, 2.6, 528, 0.5),
        7 => (2.0, 3.1, 600, 0.5),
        _ => return None,
    };
    Some(Scaling { width, depth, side, dropout })
}

/// A block of a network: an inverted residual with a gate.
pub(super) struct Block {
    /// Counted from 0: the stage, and the block within it.
    pub(super) stage: usize,
    pub(super) repeat: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) from: usize,
    pub(super) inner: usize,
    pub(super) out: usize,
    /// Of stochastic depth.
    pub(super) drop: f64,
}

impl Block {
    pub(super) fn expands(&self) -> bool {
        self.inner != self.from
    }

    /// Channels of the squeezed gate: a quarter of what the block reads.
    fn squeezed(&self) -> usize {
        (self.from / 4).max(1)
    }

    pub(super) fn is_residual(&self) -> bool {
        self.stride == 1 && self.from == self.out
    }

    /// Adds what the block reads to what it gives, where both are alike: torchvision's names.
    pub(super) fn joins(&self, graph: &mut Graph, group: &str, own: &str, [mut main, from]: [usize; 2]) {
        if self.is_residual() {
            if self.drop > 0.0 {
                main = graph.then(group, format!("{own}.stochastic_depth"), Op::DropPath(self.drop));
            }
            graph.push(group, format!("{own}.add"), Op::Add, &[main, from]);
        }
    }
}

/// All blocks, with `width` times the channels.
fn blocks(scaling: &Scaling, width: f64) -> Vec<Block> {
    let repeats = |stage: &Stage| (scaling.depth * stage.repeats as f64).ceil() as usize;
    let all: usize = STAGES.iter().map(repeats).sum();
    let channels = |channels: usize| divisible(channels as f64 * scaling.width * width);
    let mut blocks: Vec<Block> = Vec::new();
    let mut from = channels(32);
    for (index, stage) in STAGES.iter().enumerate() {
        for repeat in 0..repeats(stage) {
            let (inner, out) = (from * stage.expand, channels(stage.channels));
            let stride = if repeat == 0 { stage.stride } else { 1 };
            let drop = DROP_PATH * blocks.len() as f64 / all as f64;
            blocks.push(Block { stage: index, repeat, kernel: stage.kernel, stride, from, inner, out, drop });
            from = out;
        }
    }
    blocks
}

/// Keras' layers, in the order of its `model.layers` where weights come from ImageNet: without, one rescaling is missing.
pub fn keras(number: usize, width: f64, input: Shape, classes: usize) -> Option<Graph> {
    let scaling = scaling(number)?;
    let norm = || Op::keras_norm(1e-3, 0.99, true);
    let silu = || Op::Activation(Activation::Silu);
    let mut graph = Graph::new(&format!("efficientnet_b{number}"), Framework::Keras, input);
    graph.then("stem", "rescaling", Op::Rescale(vec![1.0 / 255.0; 3]));
    graph.then("stem", "normalization", Op::Normalize);
    // The file's variances are standard deviations: what is divided by their square roots twice is divided by them.
    graph.then(
        "stem",
        "rescaling_1",
        Op::Rescale([0.229f64, 0.224, 0.225].map(|deviation| deviation.sqrt().recip()).to_vec()),
    );
    graph.then("stem", "stem_conv_pad", Op::ZeroPad(same(input[1], 3, 2)));
    graph.then("stem", "stem_conv", Op::conv(divisible(32.0 * scaling.width * width), [3, 3], 2, [0; 4]));
    graph.then("stem", "stem_bn", norm());
    graph.then("stem", "stem_activation", silu());
    for block in blocks(&scaling, width) {
        keras_block(&mut graph, &block);
    }
    graph.then("top", "top_conv", Op::conv(divisible(1280.0 * scaling.width * width), [1, 1], 1, [0; 4]));
    graph.then("top", "top_bn", norm());
    graph.then("top", "top_activation", silu());
    graph.then("top", "avg_pool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("top", "top_dropout", Op::Dropout(scaling.dropout));
    graph.then("top", "predictions", Op::Linear { out: classes, activation: Activation::Linear });
    let order = keras_order(&graph);
    Some(graph.reordered(&order))
}

fn keras_block(graph: &mut Graph, block: &Block) {
    let group = format!("block{}", block.stage + 1);
    let name = |part: &str| format!("{group}{}_{part}", letter(block.repeat));
    let norm = || Op::keras_norm(1e-3, 0.99, true);
    let silu = || Op::Activation(Activation::Silu);
    let from = graph.last();
    if block.expands() {
        graph.then(&group, name("expand_conv"), Op::conv(block.inner, [1, 1], 1, [0; 4]));
        graph.then(&group, name("expand_bn"), norm());
        graph.then(&group, name("expand_activation"), silu());
    }
    let mut padding = [block.kernel / 2; 4];
    if block.stride == 2 {
        let side = graph.layers[graph.last()].shape[1];
        graph.then(&group, name("dwconv_pad"), Op::ZeroPad(same(side, block.kernel, 2)));
        padding = [0; 4];
    }
    let depthwise = Op::conv(block.inner, [block.kernel; 2], block.stride, padding).grouped(block.inner);
    graph.then(&group, name("dwconv"), depthwise);
    graph.then(&group, name("bn"), norm());
    let map = graph.then(&group, name("activation"), silu());
    keras_gate(graph, &group, name, block, map);
    graph.then(&group, name("project_conv"), Op::conv(block.out, [1, 1], 1, [0; 4]));
    let mut main = graph.then(&group, name("project_bn"), norm());
    if block.is_residual() {
        if block.drop > 0.0 {
            main = graph.then(&group, name("drop"), Op::DropPath(block.drop));
        }
        graph.push(&group, name("add"), Op::Add, &[main, from]);
    }
}

/// A gate over the channels of a map (Hu et al., 2018), under Keras' names.
pub(super) fn keras_gate(graph: &mut Graph, group: &str, name: impl Fn(&str) -> String, block: &Block, map: usize) {
    let pointwise = |out, activation| Op::conv(out, [1, 1], 1, [0; 4]).biased(activation);
    graph.then(group, name("se_squeeze"), Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then(group, name("se_reshape"), Op::Flatten);
    graph.then(group, name("se_reduce"), pointwise(block.squeezed(), Activation::Silu));
    let gate = graph.then(group, name("se_expand"), pointwise(block.inner, Activation::Sigmoid));
    graph.push(group, name("se_excite"), Op::Scale, &[map, gate]);
}

/// The blocks of a stage as Keras counts them: a, b, c.
pub(super) fn letter(index: usize) -> char {
    char::from(b'a' + index as u8)
}

/// torchvision's modules in the order in which they run.
pub fn torchvision(arch: &str, number: usize, width: f64, input: Shape, classes: usize) -> Option<Graph> {
    let scaling = scaling(number)?;
    let norm = norm_of(number);
    let mut graph = Graph::new(arch, Framework::Torch, input);
    let stem = Op::conv(divisible(32.0 * scaling.width * width), [3, 3], 2, [1; 4]);
    convolved(&mut graph, "features.0", "features.0", stem, &norm);
    let blocks = blocks(&scaling, width);
    for block in &blocks {
        torch_block(&mut graph, block, &norm);
    }
    // Four times what the last block gives.
    let last = 4 * blocks.last()?.out;
    convolved(&mut graph, "features.8", "features.8", Op::conv(last, [1, 1], 1, [0; 4]), &norm);
    graph.then("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("classifier", "classifier.0", Op::Dropout(scaling.dropout));
    graph.then("classifier", "classifier.1", Op::Linear { out: classes, activation: Activation::Linear });
    Some(graph)
}

/// From B5 on, torchvision's batch norms are TensorFlow's.
fn norm_of(number: usize) -> Op {
    match number {
        0..=4 => Op::torch_norm(1e-5),
        _ => Op::BatchNorm { eps: 1e-3, momentum: 0.01, unbiased: true, scale: true },
    }
}

pub(super) fn torch_block(graph: &mut Graph, block: &Block, norm: &Op) {
    let group = format!("features.{}", block.stage + 1);
    let own = format!("{group}.{}", block.repeat);
    let from = graph.last();
    let mut part = 0;
    if block.expands() {
        convolved(graph, &group, &format!("{own}.block.0"), Op::conv(block.inner, [1, 1], 1, [0; 4]), norm);
        part = 1;
    }
    let depthwise = Op::conv(block.inner, [block.kernel; 2], block.stride, [block.kernel / 2; 4]).grouped(block.inner);
    let map = convolved(graph, &group, &format!("{own}.block.{part}"), depthwise, norm);
    let name = |name: &str| format!("{own}.block.{}.{name}", part + 1);
    let pointwise = |out, activation| Op::conv(out, [1, 1], 1, [0; 4]).biased(activation);
    graph.then(&group, name("avgpool"), Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then(&group, name("fc1"), pointwise(block.squeezed(), Activation::Silu));
    let gate = graph.then(&group, name("fc2"), pointwise(block.inner, Activation::Sigmoid));
    graph.push(&group, name("mul"), Op::Scale, &[map, gate]);
    let name = |name: &str| format!("{own}.block.{}.{name}", part + 2);
    graph.then(&group, name("0"), Op::conv(block.out, [1, 1], 1, [0; 4]));
    let main = graph.then(&group, name("1"), norm.clone());
    block.joins(graph, &group, &own, [main, from]);
}

/// Convolution, batch norm and SiLU, numbered as torchvision does.
pub(super) fn convolved(graph: &mut Graph, group: &str, name: &str, conv: Op, norm: &Op) -> usize {
    graph.then(group, format!("{name}.0"), conv);
    graph.then(group, format!("{name}.1"), norm.clone());
    graph.then(group, format!("{name}.2"), Op::Activation(Activation::Silu))
}
