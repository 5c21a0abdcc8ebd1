//! A small VGG for 32-pixel images, in the manner of Simonyan and Zisserman (2015), with Keras' layer names.

use super::graph::{Activation, Graph, Op, Reduce, Shape};

/// Three blocks of two 3x3 convolutions and a pool, 32-64-128 channels, and one hidden layer of 256.
pub fn small(input: Shape, classes: usize) -> Graph {
    let mut graph = Graph::new("vgg_small", input);
    for (index, out) in [32, 64, 128].into_iter().enumerate() {
        let block = format!("block{}", index + 1);
        for conv in 1..=2 {
            let op = Op::Conv {
                out,
                kernel: [3, 3],
                stride: 1,
                dilation: 1,
                padding: [1; 4],
                groups: 1,
                bias: true,
                activation: Activation::Relu,
            };
            graph.then(&block, format!("{block}_conv{conv}"), op);
        }
        graph.then(
            &block,
            format!("{block}_pool"),
            Op::Pool { reduce: Reduce::Max, kernel: 2, stride: 2, padding: [0; 4], ceil: false },
        );
    }
    graph.then("top", "flatten", Op::Flatten);
    graph.then("top", "fc1", Op::Linear { out: 256, activation: Activation::Relu });
    graph.then("top", "predictions", Op::Linear { out: classes, activation: Activation::Linear });
    graph
}
