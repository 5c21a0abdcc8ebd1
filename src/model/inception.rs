//! Inception V3 (Szegedy et al., 2016): Keras' InceptionV3, and torchvision's inception_v3 without its auxiliary head.
//! They differ in names and order, in the scale of the batch norms, and in what an average at the border divides by.

use super::graph::{Activation, Framework, Graph, Op, Padding, Reduce, Shape};
use super::order::keras_order;

/// Keras' layers, in the order of its `model.layers`.
pub fn keras(input: Shape, classes: usize) -> Graph {
    let graph = Builder::new("inception_v3", Framework::Keras, input).build(classes);
    let order = keras_order(&graph);
    graph.reordered(&order)
}

/// torchvision's names; layers that are functions there are called as its feature extractor calls them.
pub fn torchvision(input: Shape, classes: usize) -> Graph {
    Builder::new("inception_v3_torchvision", Framework::Torch, input).build(classes)
}

/// Output channels and kernel; stride 1, padded to the same size.
type Step = (usize, [usize; 2]);

struct Builder {
    graph: Graph,
    block: String,
    convolutions: usize,
    averages: usize,
    maxima: usize,
    joins: usize,
}

impl Builder {
    fn new(arch: &str, framework: Framework, input: Shape) -> Self {
        let graph = Graph::new(arch, framework, input);
        Self { graph, block: "stem".to_owned(), convolutions: 0, averages: 0, maxima: 0, joins: 0 }
    }

    fn build(mut self, classes: usize) -> Graph {
        let valid = [0; 4];
        let stem = self.conv(0, "Conv2d_1a_3x3", (32, [3, 3]), 2, valid);
        let stem = self.conv(stem, "Conv2d_2a_3x3", (32, [3, 3]), 1, valid);
        let stem = self.conv(stem, "Conv2d_2b_3x3", (64, [3, 3]), 1, [1; 4]);
        let stem = self.maximum(stem, "maxpool1");
        let stem = self.conv(stem, "Conv2d_3b_1x1", (80, [1, 1]), 1, valid);
        let stem = self.conv(stem, "Conv2d_4a_3x3", (192, [3, 3]), 1, valid);
        let mut last = self.maximum(stem, "maxpool2");
        for (index, (name, pooled)) in [("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)].into_iter().enumerate() {
            last = self.a(last, index, name, pooled);
        }
        last = self.b(last);
        let middle = [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)];
        for (index, (name, channels)) in middle.into_iter().enumerate() {
            last = self.c(last, 4 + index, name, channels);
        }
        last = self.d(last);
        last = self.e(last, 9, "Mixed_7b");
        last = self.e(last, 10, "Mixed_7c");
        self.block = "top".to_owned();
        self.top(last, classes)
    }

    fn top(mut self, from: usize, classes: usize) -> Graph {
        let linear = Op::Linear { out: classes, activation: Activation::Linear };
        let pool = Op::GridPool { reduce: Reduce::Avg, grid: 1 };
        match self.graph.framework {
            Framework::Keras => {
                self.graph.push("top", "avg_pool", pool, &[from]);
                self.graph.then("top", "predictions", linear);
            }
            Framework::Torch => {
                self.graph.push("top", "avgpool", pool, &[from]);
                self.graph.then("top", "dropout", Op::Dropout(0.5));
                self.graph.then("top", "flatten", Op::Flatten);
                self.graph.then("top", "fc", linear);
            }
        }
        self.graph
    }

    fn a(&mut self, from: usize, index: usize, name: &str, pooled: usize) -> usize {
        self.enter(index, name);
        let one = self.steps(from, &format!("{name}.branch1x1"), &[(64, [1, 1])]);
        let five = self.steps(from, &format!("{name}.branch5x5"), &[(48, [1, 1]), (64, [5, 5])]);
        let three = self.steps(from, &format!("{name}.branch3x3dbl"), &[(64, [1, 1]), (96, [3, 3]), (96, [3, 3])]);
        let pool = self.averaged(from, name, pooled);
        self.join(index, name, &[one, five, three, pool])
    }

    fn b(&mut self, from: usize) -> usize {
        let name = "Mixed_6a";
        self.enter(3, name);
        let three = self.conv(from, "Mixed_6a.branch3x3", (384, [3, 3]), 2, [0; 4]);
        let double = self.steps(from, "Mixed_6a.branch3x3dbl_", &[(64, [1, 1]), (96, [3, 3])]);
        let double = self.conv(double, "Mixed_6a.branch3x3dbl_3", (96, [3, 3]), 2, [0; 4]);
        let pool = self.maximum(from, "Mixed_6a.max_pool2d");
        self.join(3, name, &[three, double, pool])
    }

    fn c(&mut self, from: usize, index: usize, name: &str, narrow: usize) -> usize {
        self.enter(index, name);
        let one = self.steps(from, &format!("{name}.branch1x1"), &[(192, [1, 1])]);
        let seven = [(narrow, [1, 1]), (narrow, [1, 7]), (192, [7, 1])];
        let seven = self.steps(from, &format!("{name}.branch7x7"), &seven);
        let double = [(narrow, [1, 1]), (narrow, [7, 1]), (narrow, [1, 7]), (narrow, [7, 1]), (192, [1, 7])];
        let double = self.steps(from, &format!("{name}.branch7x7dbl"), &double);
        let pool = self.averaged(from, name, 192);
        self.join(index, name, &[one, seven, double, pool])
    }

    fn d(&mut self, from: usize) -> usize {
        let name = "Mixed_7a";
        self.enter(8, name);
        let three = self.conv(from, "Mixed_7a.branch3x3_1", (192, [1, 1]), 1, [0; 4]);
        let three = self.conv(three, "Mixed_7a.branch3x3_2", (320, [3, 3]), 2, [0; 4]);
        let seven = self.steps(from, "Mixed_7a.branch7x7x3_", &[(192, [1, 1]), (192, [1, 7]), (192, [7, 1])]);
        let seven = self.conv(seven, "Mixed_7a.branch7x7x3_4", (192, [3, 3]), 2, [0; 4]);
        let pool = self.maximum(from, "Mixed_7a.max_pool2d");
        self.join(8, name, &[three, seven, pool])
    }

    fn e(&mut self, from: usize, index: usize, name: &str) -> usize {
        self.enter(index, name);
        let one = self.steps(from, &format!("{name}.branch1x1"), &[(320, [1, 1])]);
        let three = self.conv(from, &format!("{name}.branch3x3_1"), (384, [1, 1]), 1, [0; 4]);
        let sides = self.sides(three, &format!("{name}.branch3x3_2"));
        let inner = match self.graph.framework {
            Framework::Keras => format!("mixed9_{}", index - 9),
            Framework::Torch => format!("{name}.cat3x3"),
        };
        let three = self.graph.push(&self.block, inner, Op::Concat, &sides);
        let double = self.steps(from, &format!("{name}.branch3x3dbl_"), &[(448, [1, 1]), (384, [3, 3])]);
        let sides = self.sides(double, &format!("{name}.branch3x3dbl_3"));
        let inner = match self.graph.framework {
            Framework::Keras => numbered("concatenate", &mut self.joins),
            Framework::Torch => format!("{name}.cat3x3dbl"),
        };
        let double = self.graph.push(&self.block, inner, Op::Concat, &sides);
        let pool = self.averaged(from, name, 192);
        self.join(index, name, &[one, three, double, pool])
    }

    /// A 1x3 and a 3x1 convolution side by side.
    fn sides(&mut self, from: usize, name: &str) -> [usize; 2] {
        let wide = self.conv(from, &format!("{name}a"), (384, [1, 3]), 1, [0, 0, 1, 1]);
        let high = self.conv(from, &format!("{name}b"), (384, [3, 1]), 1, [1, 1, 0, 0]);
        [wide, high]
    }

    fn enter(&mut self, index: usize, name: &str) {
        self.block = match self.graph.framework {
            Framework::Keras => format!("mixed{index}"),
            Framework::Torch => name.to_owned(),
        };
    }

    /// Convolutions one after another, named `base_1`, `base_2`, ...; a single one is named `base`.
    fn steps(&mut self, from: usize, base: &str, steps: &[Step]) -> usize {
        let mut last = from;
        for (index, step) in steps.iter().enumerate() {
            let name = match steps {
                [_] => base.to_owned(),
                _ => format!("{}_{}", base.trim_end_matches('_'), index + 1),
            };
            let [height, width] = step.1.map(|side| side / 2);
            last = self.conv(last, &name, *step, 1, [height, height, width, width]);
        }
        last
    }

    /// Convolution, batch norm and ReLU.
    fn conv(&mut self, from: usize, name: &str, (out, kernel): Step, stride: usize, padding: Padding) -> usize {
        let number = self.convolutions;
        self.convolutions += 1;
        let (names, norm) = match self.graph.framework {
            Framework::Keras => (
                ["conv2d", "batch_normalization", "activation"].map(|kind| numbered(kind, &mut number.clone())),
                Op::keras_norm(1e-3, 0.99, false),
            ),
            Framework::Torch => (["conv", "bn", "relu"].map(|part| format!("{name}.{part}")), Op::torch_norm(1e-3)),
        };
        let [conv, bn, relu] = names;
        self.graph.push(&self.block, conv, Op::conv(out, kernel, stride, padding), &[from]);
        self.graph.then(&self.block, bn, norm);
        self.graph.then(&self.block, relu, Op::Activation(Activation::Relu))
    }

    fn averaged(&mut self, from: usize, name: &str, out: usize) -> usize {
        let (pool, reduce) = match self.graph.framework {
            Framework::Keras => (numbered("average_pooling2d", &mut self.averages), Reduce::Avg),
            Framework::Torch => (format!("{name}.avg_pool2d"), Reduce::AvgPadded),
        };
        let op = Op::Pool { reduce, kernel: 3, stride: 1, padding: [1; 4], ceil: false };
        let pool = self.graph.push(&self.block, pool, op, &[from]);
        self.conv(pool, &format!("{name}.branch_pool"), (out, [1, 1]), 1, [0; 4])
    }

    fn maximum(&mut self, from: usize, name: &str) -> usize {
        let name = match self.graph.framework {
            Framework::Keras => numbered("max_pooling2d", &mut self.maxima),
            Framework::Torch => name.to_owned(),
        };
        let op = Op::Pool { reduce: Reduce::Max, kernel: 3, stride: 2, padding: [0; 4], ceil: false };
        self.graph.push(&self.block, name, op, &[from])
    }

    fn join(&mut self, index: usize, name: &str, parts: &[usize]) -> usize {
        let name = match self.graph.framework {
            Framework::Keras => format!("mixed{index}"),
            Framework::Torch => format!("{name}.cat"),
        };
        self.graph.push(&self.block, name, Op::Concat, parts)
    }
}

/// Keras' automatic names: `conv2d`, `conv2d_1`, ...
fn numbered(kind: &str, count: &mut usize) -> String {
    *count += 1;
    match *count - 1 {
        0 => kind.to_owned(),
        number => format!("{kind}_{number}"),
    }
}
