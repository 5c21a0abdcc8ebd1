//! MobileNetV3 (Howard et al., 2019), small and large, as torchvision has them, and with the batch norms of timm, which has the same
//! layers.

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

const TIMM: &str = "_timm";

/// One of the two.
struct Network {
    blocks: &'static [Row],
    /// Numbers of the layer in front of the classifier.
    hidden: usize,
    /// Its last feature map.
    no_top: &'static str,
    /// The last of its maps with an eighth of the image's side.
    early: &'static str,
}

fn network(name: &str) -> Option<Network> {
    match name.trim_end_matches(TIMM) {
        "mobilenet_v3_small" => {
            Some(Network { blocks: SMALL, hidden: 1024, no_top: "features.12.2", early: "features.3.last" })
        }
        "mobilenet_v3_large" => {
            Some(Network { blocks: LARGE, hidden: 1280, no_top: "features.16.2", early: "features.6.last" })
        }
        _ => None,
    }
}

/// Its features, early ones, and its last feature map.
pub fn taps(name: &str) -> Option<[&'static str; 3]> {
    network(name).map(|own| ["avgpool", own.early, own.no_top])
}

/// Blocks of each stage, as timm counts them.
pub fn stages(name: &str) -> Option<&'static [usize]> {
    let small = network(name)?.blocks.len() == SMALL.len();
    Some(if small { &[1, 2, 3, 2, 3] } else { &[1, 2, 3, 4, 2, 3] })
}

/// torchvision's modules in the order in which they run, with `width` times the channels.
pub fn torchvision(name: &str, width: f64, input: Shape, classes: usize) -> Option<Graph> {
    let own = network(name)?;
    let channels = |channels: usize| divisible(channels as f64 * width);
    // torchvision's batch norms are TensorFlow's here, timm's are PyTorch's.
    let norm = match name.ends_with(TIMM) {
        true => Op::torch_norm(1e-5),
        false => Op::BatchNorm { eps: 1e-3, momentum: 0.01, unbiased: true, scale: true },
    };
    let mut graph = Graph::new(name, Framework::Torch, input);
    let stem = Op::conv(channels(STEM), [3, 3], 2, [1; 4]);
    convolved(&mut graph, &norm, "features.0", "features.0", stem, Some(HS));
    for (index, (kernel, inner, out, gated, activation, stride)) in own.blocks.iter().enumerate() {
        let group = format!("features.{}", index + 1);
        let (inner, out) = (channels(*inner), channels(*out));
        let from = graph.last();
        let before = graph.layers[from].shape[0];
        let mut part = 0;
        let mut next = || {
            part += 1;
            format!("{group}.block.{}", part - 1)
        };
        if inner != before {
            convolved(&mut graph, &norm, &group, &next(), Op::conv(inner, [1, 1], 1, [0; 4]), Some(*activation));
        }
        let depthwise = Op::conv(inner, [*kernel; 2], *stride, [kernel / 2; 4]).grouped(inner);
        convolved(&mut graph, &norm, &group, &next(), depthwise, Some(*activation));
        if *gated {
            gate(&mut graph, &group, &next(), divisible((inner / 4) as f64));
        }
        let main = convolved(&mut graph, &norm, &group, &next(), Op::conv(out, [1, 1], 1, [0; 4]), None);
        if *stride == 1 && before == out {
            graph.push(&group, format!("{group}.add"), Op::Add, &[main, from]);
        }
    }
    let top = format!("features.{}", own.blocks.len() + 1);
    let last = 6 * graph.layers[graph.last()].shape[0];
    convolved(&mut graph, &norm, &top, &top, Op::conv(last, [1, 1], 1, [0; 4]), Some(HS));
    graph.then("avgpool", "avgpool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("avgpool", "flatten", Op::Flatten);
    let hidden = Op::Linear { out: channels(own.hidden), activation: Activation::Linear };
    graph.then("classifier", "classifier.0", hidden);
    graph.then("classifier", "classifier.1", Op::Activation(HS));
    graph.then("classifier", "classifier.2", Op::Dropout(0.2));
    graph.then("classifier", "classifier.3", Op::Linear { out: classes, activation: Activation::Linear });
    Some(graph)
}

/// Squeeze-and-excitation of the last map, with a gate of straight lines.
fn gate(graph: &mut Graph, group: &str, name: &str, squeezed: usize) {
    let map = graph.last();
    let inner = graph.layers[map].shape[0];
    let pointwise = |out, activation| Op::conv(out, [1, 1], 1, [0; 4]).biased(activation);
    graph.then(group, format!("{name}.avgpool"), Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then(group, format!("{name}.fc1"), pointwise(squeezed, Activation::Relu));
    let gate = graph.then(group, format!("{name}.fc2"), pointwise(inner, Activation::HardSigmoid));
    graph.push(group, format!("{name}.mul"), Op::Scale, &[map, gate]);
}

/// Convolution, batch norm and activation, numbered as torchvision does.
fn convolved(graph: &mut Graph, norm: &Op, group: &str, name: &str, conv: Op, activation: Option<Activation>) -> usize {
    graph.then(group, format!("{name}.0"), conv);
    let norm = graph.then(group, format!("{name}.1"), norm.clone());
    match activation {
        Some(activation) => graph.then(group, format!("{name}.2"), Op::Activation(activation)),
        None => norm,
    }
}
