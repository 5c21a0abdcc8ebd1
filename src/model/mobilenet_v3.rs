//! MobileNetV3 (Howard et al., 2019), small and large, as torchvision and as timm have them: with other batch norms.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};
use super::mobilenet::divisible;

/// All that there are: no tensor of a file tells which epsilon its batch norms were trained with.
pub const NAMES: &[&str] =
    &["mobilenet_v3_small", "mobilenet_v3_small_timm", "mobilenet_v3_large", "mobilenet_v3_large_timm"];

/// A block (Howard et al., tables 1 and 2): its kernel, channels inside it, channels of what it gives, whether it has a gate, its
/// activation, and its stride.
type Row = (usize, usize, usize, bool, Activation, usize);

const RE: Activation = Activation::Relu;
const HS: Activation = Activation::HardSwish;

const SMALL: &[Row] = &[
    (3, 16, 16, true, RE, 2),
    (3, 72, 24, false, RE, 2),
    (3, 88, 24, false, RE, 1),
    (5, 96, 40, true, HS, 2),
    (5, 240, 40, true, HS, 1),
    (5, 240, 40, true, HS, 1),
    (5, 120, 48, true, HS, 1),
    (5, 144, 48, true, HS, 1),
    (5, 288, 96, true, HS, 2),
    (5, 576, 96, true, HS, 1),
    (5, 576, 96, true, HS, 1),
];
const LARGE: &[Row] = &[
    (3, 16, 16, false, RE, 1),
    (3, 64, 24, false, RE, 2),
    (3, 72, 24, false, RE, 1),
    (5, 72, 40, true, RE, 2),
    (5, 120, 40, true, RE, 1),
    (5, 120, 40, true, RE, 1),
    (3, 240, 80, false, HS, 2),
    (3, 200, 80, false, HS, 1),
    (3, 184, 80, false, HS, 1),
    (3, 184, 80, false, HS, 1),
    (3, 480, 112, true, HS, 1),
    (3, 672, 112, true, HS, 1),
    (5, 672, 160, true, HS, 2),
    (5, 960, 160, true, HS, 1),
    (5, 960, 160, true, HS, 1),
];
/// Channels of the stem.
const STEM: usize = 16;

/// One of the two.
struct Network {
    blocks: &'static [Row],
    /// Blocks of each stage, as timm counts them.
    stages: &'static [usize],
    /// Numbers of the layer in front of the classifier.
    hidden: usize,
}

const TIMM: &str = "_timm";

fn network(name: &str) -> Option<Network> {
    match name.trim_end_matches(TIMM) {
        "mobilenet_v3_small" => Some(Network { blocks: SMALL, stages: &[1, 2, 3, 2, 3], hidden: 1024 }),
        "mobilenet_v3_large" => Some(Network { blocks: LARGE, stages: &[1, 2, 3, 4, 2, 3], hidden: 1280 }),
        _ => None,
    }
}

/// Its features, early ones (the last of its maps with an eighth of the image's side), and its last feature map.
pub fn taps(name: &str) -> Option<[&'static str; 3]> {
    Some(match name {
        "mobilenet_v3_small" => ["avgpool", "features.3.last", "features.12.2"],
        "mobilenet_v3_large" => ["avgpool", "features.6.last", "features.16.2"],
        "mobilenet_v3_small_timm" => ["global_pool", "blocks.1.1.last", "blocks.5.0.bn1.act"],
        "mobilenet_v3_large_timm" => ["global_pool", "blocks.2.2.last", "blocks.6.0.bn1.act"],
        _ => return None,
    })
}

/// The modules in the order in which they run, with `width` times the channels.
pub fn graph(name: &str, width: f64, input: Shape, classes: usize) -> Option<Graph> {
    let own = network(name)?;
    let channels = |channels: usize| divisible(channels as f64 * width);
    let timm = name.ends_with(TIMM);
    let mut graph = Graph::new(name, Framework::Torch, input);
    let stem = Op::conv(channels(STEM), [3, 3], 2, [1; 4]);
    let (group, named) = match timm {
        true => ("conv_stem", ["conv_stem", "bn1", "bn1.act"]),
        false => ("features.0", ["features.0.0", "features.0.1", "features.0.2"]),
    };
    convolved(&mut graph, group, named.map(str::to_owned), stem, Some(HS), timm);
    for (index, row) in own.blocks.iter().enumerate() {
        // torchvision leaves the first convolution out where it would change no number of channels, timm in the first block.
        let same = channels(row.1) == graph.layers[graph.last()].shape[0];
        let expands = if timm { index > 0 } else { !same };
        let names = if timm { timm_block(own.stages, index) } else { torch_block(index, expands, row.3) };
        block(&mut graph, &names, row, channels, [expands, timm]);
    }
    let (group, named) = match timm {
        true => {
            let last = format!("blocks.{}.0", own.stages.len());
            (last.clone(), ["conv", "bn1", "bn1.act"].map(|part| format!("{last}.{part}")))
        }
        false => {
            let last = format!("features.{}", own.blocks.len() + 1);
            (last.clone(), ["0", "1", "2"].map(|part| format!("{last}.{part}")))
        }
    };
    let last = 6 * graph.layers[graph.last()].shape[0];
    convolved(&mut graph, &group, named, Op::conv(last, [1, 1], 1, [0; 4]), Some(HS), timm);
    head(&mut graph, channels(own.hidden), classes, timm);
    Some(graph)
}

/// What follows the last map: timm convolves its one pixel, torchvision has a dense layer, and in front of the last a dropout.
fn head(graph: &mut Graph, hidden: usize, classes: usize, timm: bool) {
    let linear = |out| Op::Linear { out, activation: Activation::Linear };
    let pool = Op::GridPool { reduce: Reduce::Avg, grid: 1 };
    if timm {
        graph.then("global_pool", "global_pool", pool);
        graph.then("conv_head", "conv_head", Op::conv(hidden, [1, 1], 1, [0; 4]).biased(Activation::Linear));
        graph.then("conv_head", "act2", Op::Activation(HS));
        graph.then("classifier", "flatten", Op::Flatten);
        graph.then("classifier", "classifier", linear(classes));
    } else {
        graph.then("avgpool", "avgpool", pool);
        graph.then("avgpool", "flatten", Op::Flatten);
        graph.then("classifier", "classifier.0", linear(hidden));
        graph.then("classifier", "classifier.1", Op::Activation(HS));
        graph.then("classifier", "classifier.2", Op::Dropout(0.2));
        graph.then("classifier", "classifier.3", linear(classes));
    }
}

/// What the layers of a block are called: each convolution with its batch norm and its activation, and the gate.
struct Names {
    group: String,
    expand: [String; 3],
    depthwise: [String; 3],
    /// Pooling, the two convolutions, and the product.
    gate: [String; 4],
    project: [String; 3],
    add: String,
}

/// torchvision numbers the parts that a block has.
fn torch_block(index: usize, expands: bool, gated: bool) -> Names {
    let group = format!("features.{}", index + 1);
    let first = usize::from(expands);
    let part = |part: usize| ["0", "1", "2"].map(|own| format!("{group}.block.{part}.{own}"));
    let gate = ["avgpool", "fc1", "fc2", "mul"].map(|own| format!("{group}.block.{}.{own}", first + 1));
    let project = part(first + 1 + usize::from(gated));
    Names { expand: part(0), depthwise: part(first), gate, project, add: format!("{group}.add"), group }
}

/// timm counts batch norms, and calls the last convolution of the block that does not expand by another name.
fn timm_block(stages: &[usize], index: usize) -> Names {
    let mut repeat = index;
    let mut stage = 0;
    while repeat >= stages[stage] {
        repeat -= stages[stage];
        stage += 1;
    }
    let group = format!("blocks.{stage}.{repeat}");
    let first = usize::from(index > 0);
    let part = |conv: &str, number: usize| {
        [format!("{group}.{conv}"), format!("{group}.bn{number}"), format!("{group}.bn{number}.act")]
    };
    let gate = ["pool", "conv_reduce", "conv_expand", "mul"].map(|own| format!("{group}.se.{own}"));
    let project = part(if index > 0 { "conv_pwl" } else { "conv_pw" }, first + 2);
    Names {
        expand: part("conv_pw", 1),
        depthwise: part("conv_dw", first + 1),
        gate,
        project,
        add: format!("{group}.add"),
        group,
    }
}

fn block(graph: &mut Graph, names: &Names, row: &Row, channels: impl Fn(usize) -> usize, [expands, timm]: [bool; 2]) {
    let (kernel, inner, out, gated, activation, stride) = *row;
    let (inner, out) = (channels(inner), channels(out));
    let from = graph.last();
    let before = graph.layers[from].shape[0];
    let group = &names.group;
    let pointwise = |out| Op::conv(out, [1, 1], 1, [0; 4]);
    if expands {
        convolved(graph, group, names.expand.clone(), pointwise(inner), Some(activation), timm);
    }
    let depthwise = Op::conv(inner, [kernel; 2], stride, [kernel / 2; 4]).grouped(inner);
    let map = convolved(graph, group, names.depthwise.clone(), depthwise, Some(activation), timm);
    if gated {
        let [pool, reduce, expand, product] = names.gate.clone();
        graph.then(group, pool, Op::GridPool { reduce: Reduce::Avg, grid: 1 });
        graph.then(group, reduce, pointwise(divisible((inner / 4) as f64)).biased(Activation::Relu));
        let gate = graph.then(group, expand, pointwise(inner).biased(Activation::HardSigmoid));
        graph.push(group, product, Op::Scale, &[map, gate]);
    }
    let main = convolved(graph, group, names.project.clone(), pointwise(out), None, timm);
    if stride == 1 && before == out {
        graph.push(group, names.add.clone(), Op::Add, &[main, from]);
    }
}

/// Convolution, batch norm and activation. torchvision's batch norms are TensorFlow's here, timm's are PyTorch's.
fn convolved(
    graph: &mut Graph,
    group: &str,
    [conv, norm, active]: [String; 3],
    op: Op,
    activation: Option<Activation>,
    timm: bool,
) -> usize {
    graph.then(group, conv, op);
    let norm = match timm {
        true => graph.then(group, norm, Op::torch_norm(1e-5)),
        false => graph.then(group, norm, Op::BatchNorm { eps: 1e-3, momentum: 0.01, unbiased: true, scale: true }),
    };
    match activation {
        Some(activation) => graph.then(group, active, Op::Activation(activation)),
        None => norm,
    }
}
