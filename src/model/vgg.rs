//! The VGG networks of Simonyan and Zisserman (2015) with Keras' layers, names and order, and a small one for 32 pixels.

use super::graph::{Activation, Framework, Graph, Op, Reduce, Shape};

/// VGG16 (2, 2, 3, 3, 3 convolutions a block) or VGG19 (2, 2, 4, 4, 4), with two hidden layers of 4,096 on top.
pub fn keras(arch: &str, convolutions: [usize; 5], input: Shape, classes: usize) -> Graph {
    let channels = [64, 128, 256, 512, 512];
    let blocks: Vec<(usize, usize)> = channels.into_iter().zip(convolutions).collect();
    vgg(arch, &blocks, &[4096, 4096], input, classes)
}

/// Three blocks of two 3x3 convolutions and a pool, 32-64-128 channels, and one hidden layer of 256.
pub fn small(input: Shape, classes: usize) -> Graph {
    vgg("vgg_small", &[(32, 2), (64, 2), (128, 2)], &[256], input, classes)
}

fn vgg(arch: &str, blocks: &[(usize, usize)], hidden: &[usize], input: Shape, classes: usize) -> Graph {
    let mut graph = Graph::new(arch, Framework::Keras, input);
    for (index, (out, convolutions)) in blocks.iter().enumerate() {
        let block = format!("block{}", index + 1);
        for conv in 1..=*convolutions {
            let op = Op::conv(*out, [3, 3], 1, [1; 4]).biased(Activation::Relu);
            graph.then(&block, format!("{block}_conv{conv}"), op);
        }
        let pool = Op::Pool { reduce: Reduce::Max, kernel: 2, stride: 2, padding: [0; 4], ceil: false };
        graph.then(&block, format!("{block}_pool"), pool);
    }
    graph.then("top", "flatten", Op::Flatten);
    for (index, out) in hidden.iter().enumerate() {
        graph.then("top", format!("fc{}", index + 1), Op::Linear { out: *out, activation: Activation::Relu });
    }
    graph.then("top", "predictions", Op::Linear { out: classes, activation: Activation::Linear });
    graph
}
