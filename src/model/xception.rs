//! Xception (Chollet, 2017), as Keras has it.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape, same};
use super::order::keras_order;

fn norm() -> Op {
    Op::keras_norm(1e-3, 0.99, true)
}

/// A name that Keras gives by itself to the n-th layer of a class.
fn numbered(class: &str, number: usize) -> String {
    if number == 0 { class.to_owned() } else { format!("{class}_{number}") }
}

/// Keras' layers, in the order of its `model.layers`.
pub fn keras(input: Shape, classes: usize) -> Graph {
    let mut graph = Graph::new("xception", Framework::Keras, input);
    for (name, out, stride) in [("block1_conv1", 32, 2), ("block1_conv2", 64, 1)] {
        graph.then("block1", name, Op::conv(out, [3, 3], stride, [0; 4]));
        graph.then("block1", format!("{name}_bn"), norm());
        graph.then("block1", format!("{name}_act"), Op::Activation(Activation::Relu));
    }
    for (number, (block, outs)) in [(2, [128; 2]), (3, [256; 2]), (4, [728; 2])].into_iter().enumerate() {
        narrowing(&mut graph, block, outs, number);
    }
    for block in 5..13 {
        let from = graph.last();
        let main = (1..4).fold(from, |last, number| behind_relu(&mut graph, last, block, number, 728));
        sum(&mut graph, block, [main, from]);
    }
    narrowing(&mut graph, 13, [728, 1024], 3);
    for (number, out) in [(1, 1536), (2, 2048)] {
        let last = graph.last();
        separable(&mut graph, last, 14, number, out);
        graph.then("block14", format!("block14_sepconv{number}_act"), Op::Activation(Activation::Relu));
    }
    graph.then("top", "avg_pool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("top", "predictions", Op::Linear { out: classes, activation: Activation::Linear });
    let order = keras_order(&graph);
    graph.reordered(&order)
}

/// Two separable convolutions over a map that is halved behind them, beside a convolution of one pixel that halves it at once, the
/// n-th without a name of its own.
fn narrowing(graph: &mut Graph, block: usize, outs: [usize; 2], number: usize) {
    let (from, group) = (graph.last(), format!("block{block}"));
    let side = graph.layers[from].shape[1];
    let halving = Op::conv(outs[1], [1, 1], 2, same(side, 1, 2));
    graph.push(&group, numbered("conv2d", number), halving, &[from]);
    let beside = graph.then(&group, numbered("batch_normalization", number), norm());
    let first = match block {
        // There is a ReLU in front of it already.
        2 => separable(graph, from, block, 1, outs[0]),
        _ => behind_relu(graph, from, block, 1, outs[0]),
    };
    behind_relu(graph, first, block, 2, outs[1]);
    let pool = Op::Pool { reduce: Reduce::Max, kernel: 3, stride: 2, padding: same(side, 3, 2), ceil: false };
    let main = graph.then(&group, format!("{group}_pool"), pool);
    sum(graph, block, [main, beside]);
}

fn behind_relu(graph: &mut Graph, from: usize, block: usize, number: usize, out: usize) -> usize {
    let name = format!("block{block}_sepconv{number}_act");
    let active = graph.push(&format!("block{block}"), name, Op::Activation(Activation::Relu), &[from]);
    separable(graph, active, block, number, out)
}

fn separable(graph: &mut Graph, from: usize, block: usize, number: usize, out: usize) -> usize {
    let (group, name) = (format!("block{block}"), format!("block{block}_sepconv{number}"));
    let op = Op::Separable { out, kernel: [3, 3], stride: 1, padding: [1; 4] };
    graph.push(&group, name.clone(), op, &[from]);
    graph.then(&group, format!("{name}_bn"), norm())
}

fn sum(graph: &mut Graph, block: usize, inputs: [usize; 2]) {
    // The first stands behind the second block.
    graph.push(&format!("block{block}"), numbered("add", block - 2), Op::Add, &inputs);
}
