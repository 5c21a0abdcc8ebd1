//! SqueezeNet 1.0 (Iandola et al., 2016) with torchvision's layer names.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};

pub fn v1_0(input: Shape, classes: usize) -> Graph {
    const FIRES: [(usize, usize, usize); 8] = [
        (3, 16, 64),
        (4, 16, 64),
        (5, 32, 128),
        (7, 32, 128),
        (8, 48, 192),
        (9, 48, 192),
        (10, 64, 256),
        (12, 64, 256),
    ];
    let mut graph = Graph::new("squeezenet1_0", Framework::Torch, input);
    graph.then("features.0", "features.0", conv(96, 7, 2, 0, Activation::Linear));
    graph.then("features.0", "features.1", Op::Activation(Activation::Relu));
    pool(&mut graph, 2);
    for (index, squeeze, expand) in FIRES {
        fire(&mut graph, index, squeeze, expand);
        if index == 5 || index == 10 {
            pool(&mut graph, index + 1);
        }
    }
    graph.then("classifier", "classifier.0", Op::Dropout(0.5));
    graph.then("classifier", "classifier.1", conv(classes, 1, 1, 0, Activation::Linear));
    graph.then("classifier", "classifier.2", Op::Activation(Activation::Relu));
    graph.then("classifier", "classifier.3", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("classifier", "flatten", Op::Flatten);
    graph
}

fn pool(graph: &mut Graph, index: usize) {
    let name = format!("features.{index}");
    graph.then(
        &name,
        name.clone(),
        Op::Pool { reduce: Reduce::Max, kernel: 3, stride: 2, padding: [0; 4], ceil: true },
    );
}

fn fire(graph: &mut Graph, index: usize, squeeze: usize, expand: usize) {
    let block = format!("features.{index}");
    graph.then(&block, format!("{block}.squeeze"), conv(squeeze, 1, 1, 0, Activation::Relu));
    let squeezed = graph.last();
    let narrow = graph.push(&block, format!("{block}.expand1x1"), conv(expand, 1, 1, 0, Activation::Relu), &[squeezed]);
    let wide = graph.push(&block, format!("{block}.expand3x3"), conv(expand, 3, 1, 1, Activation::Relu), &[squeezed]);
    graph.push(&block, format!("{block}.concat"), Op::Concat, &[narrow, wide]);
}

fn conv(out: usize, kernel: usize, stride: usize, padding: usize, activation: Activation) -> Op {
    Op::conv(out, [kernel; 2], stride, [padding; 4]).biased(activation)
}
