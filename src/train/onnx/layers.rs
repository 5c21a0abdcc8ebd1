//! What each layer of a network is in ONNX. Maps are [n, channels, height, width], vectors maps of one pixel.

use std::collections::BTreeMap;

use super::attention::{self, Cut};
use super::proto::Attribute;
use super::writer::{Name, Writer};
use crate::model::graph::{Activation, Framework, Graph, Op, POINTWISE, Padding, RELATIVE, Reduce, Shape};

/// The numbers of the layers by `layer.parameter`.
pub type Numbers = BTreeMap<String, Vec<f32>>;

/// Whether ONNX has what computes the same as a layer.
///
/// # Errors
/// It has not; says why.
pub fn possible(graph: &Graph, index: usize) -> anyhow::Result<()> {
    let counts = matches!(graph.layers[index].op, Op::Pool { reduce: Reduce::AvgPadded, .. });
    anyhow::ensure!(
        !counts || behind(graph, index) == [0, 0],
        "'{}' counts pixels of its padding, and none behind that: ONNX counts both",
        graph.layers[index].name
    );
    Ok(())
}

/// How far windows of a pooling that begin within the image end behind its padding, at the bottom and on the right.
fn behind(graph: &Graph, index: usize) -> [usize; 2] {
    let Op::Pool { kernel, stride, padding, .. } = graph.layers[index].op else { return [0, 0] };
    let ([_, rows, columns], [_, height, width]) = (graph.input_shape(index), graph.layers[index].shape);
    let beyond = |length: usize, count: usize| ((count - 1) * stride + kernel).saturating_sub(length);
    [beyond(rows + padding[0] + padding[1], height), beyond(columns + padding[2] + padding[3], width)]
}

/// A layer with all that it is made of.
pub(super) struct Layer<'a> {
    pub graph: &'a Graph,
    pub index: usize,
    numbers: &'a Numbers,
}

/// Writes a layer that reads these values; returns what its output is called.
///
/// # Errors
/// ONNX has nothing that computes the same.
pub fn layer(
    writer: &mut Writer,
    graph: &Graph,
    index: usize,
    inputs: &[&Name],
    numbers: &Numbers,
) -> anyhow::Result<Name> {
    writer.begin(&graph.layers[index].name);
    Layer { graph, index, numbers }.put(writer, inputs)
}

impl Layer<'_> {
    /// A parameter with these sides.
    fn own(&self, writer: &mut Writer, param: &str, sides: &[usize]) -> anyhow::Result<Name> {
        Ok(writer.floats(sides, self.values(param)?))
    }

    pub(super) fn values(&self, param: &str) -> anyhow::Result<&[f32]> {
        let name = format!("{}.{param}", self.graph.layers[self.index].name);
        let found = self.numbers.get(&name).map(Vec::as_slice);
        found.ok_or_else(|| anyhow::anyhow!("there is no '{name}'"))
    }

    /// The same of one number for each channel.
    fn of_channels(&self, writer: &mut Writer, param: &str) -> anyhow::Result<Name> {
        let values = self.values(param)?;
        Ok(writer.floats(&[values.len(), 1, 1], values))
    }

    fn put(&self, writer: &mut Writer, inputs: &[&Name]) -> anyhow::Result<Name> {
        let (op, from) = (&self.graph.layers[self.index].op, self.graph.input_shape(self.index));
        let x = inputs[0];
        Ok(match op {
            Op::Input | Op::Dropout(_) | Op::DropPath(_) => x.clone(),
            Op::Conv { .. } | Op::Separable { .. } | Op::Pointwise { .. } | Op::Linear { .. } => {
                return self.product(writer, x);
            }
            Op::BatchNorm { .. } | Op::LayerNorm { .. } | Op::ResponseNorm { .. } | Op::UnitNorm => {
                return self.norm(writer, x);
            }
            Op::Activation(activation) => active(writer, x, *activation),
            Op::ZeroPad(padding) => padded(writer, x, *padding),
            Op::Crop([top, bottom, left, right]) => {
                let rows = writer.part(x, 2, *top, from[1] - bottom);
                writer.part(&rows, 3, *left, from[2] - right)
            }
            Op::Pool { .. } | Op::GridPool { .. } => return self.pool(writer, x),
            Op::Flatten => self.flat(writer, x),
            Op::Add => writer.sum(x, inputs[1]),
            Op::Scale => writer.product(x, inputs[1]),
            Op::SwiGlu => {
                let gate = active(writer, x, Activation::Silu);
                writer.product(&gate, inputs[1])
            }
            Op::Concat => writer.beside(inputs, 1),
            Op::Shortcut { stride, channels } => {
                let rows = writer.steps(x, 2, 0, from[1], *stride);
                let pixels = writer.steps(&rows, 3, 0, from[2], *stride);
                let before = (channels - from[0]) / 2;
                let sides = [0, before, 0, 0, 0, channels - from[0] - before, 0, 0].map(|side| side as i64);
                let sides = writer.ints(&sides);
                writer.put("Pad", &[&pixels, &sides], Vec::new())
            }
            Op::Rescale(by) => {
                let by = writer.floats(&[by.len(), 1, 1], &by.iter().map(|by| *by as f32).collect::<Vec<f32>>());
                writer.product(x, &by)
            }
            Op::Standardize { mean, variance } => standard(writer, x, mean, variance),
            Op::Normalize => {
                let [mean, variance] = ["mean", "variance"].map(|param| self.values(param));
                let wide = |own: &[f32]| own.iter().map(|own| f64::from(*own)).collect::<Vec<f64>>();
                standard(writer, x, &wide(mean?), &wide(variance?))
            }
            Op::LayerScale { .. } => {
                let by = self.of_channels(writer, "weight")?;
                writer.product(x, &by)
            }
            Op::PatchMerge => {
                let [channels, height, width] = from.map(|side| side as i64);
                let apart = writer.reshaped(x, &[channels, height / 2, 2, width / 2, 2]);
                let turned = writer.transposed(&apart, &[0, 5, 3, 1, 2, 4]);
                writer.reshaped(&turned, &[4 * channels, height / 2, width / 2])
            }
            Op::Tokens { .. } | Op::Positions | Op::Token(_) | Op::Patches { .. } | Op::Rotary { .. } => {
                return self.tokens(writer, x);
            }
            Op::Attention { heads } => attention::of_map(writer, x, *heads, from),
            Op::AttentionPool { heads } => {
                let map = self.graph.layers[self.graph.layers[self.index].inputs[1]].shape;
                attention::of_one(writer, x, inputs[1], *heads, map)
            }
            Op::WindowAttention { heads, window, shift } => {
                let cut = Cut { heads: *heads, side: *window, shift: *shift, map: from };
                attention::in_windows(writer, x, &cut, self.values(RELATIVE)?)
            }
        })
    }

    /// Convolutions and dense layers.
    fn product(&self, writer: &mut Writer, x: &Name) -> anyhow::Result<Name> {
        let (op, from) = (&self.graph.layers[self.index].op, self.graph.input_shape(self.index));
        Ok(match op {
            Op::Conv { out, kernel, stride, dilation, padding, groups, bias, activation } => {
                let w = self.own(writer, "weight", &[*out, from[0] / groups, kernel[0], kernel[1]])?;
                let b = if *bias { Some(self.own(writer, "bias", &[*out])?) } else { None };
                let how =
                    How { kernel: *kernel, stride: *stride, dilation: *dilation, padding: *padding, groups: *groups };
                let y = convolved(writer, x, &w, b.as_ref(), &how);
                active(writer, &y, *activation)
            }
            Op::Separable { out, kernel, stride, padding } => {
                let w = self.own(writer, "weight", &[from[0], 1, kernel[0], kernel[1]])?;
                let how = How { kernel: *kernel, stride: *stride, dilation: 1, padding: *padding, groups: from[0] };
                let between = convolved(writer, x, &w, None, &how);
                let w = self.own(writer, POINTWISE, &[*out, from[0], 1, 1])?;
                convolved(writer, &between, &w, None, &How::PIXEL)
            }
            Op::Pointwise { out, bias } => {
                let w = self.own(writer, "weight", &[*out, from[0], 1, 1])?;
                let b = if *bias { Some(self.own(writer, "bias", &[*out])?) } else { None };
                convolved(writer, x, &w, b.as_ref(), &How::PIXEL)
            }
            Op::Linear { out, activation } => {
                let [w, b] = [self.own(writer, "weight", &[*out, from[0]])?, self.own(writer, "bias", &[*out])?];
                let rows = writer.put("Flatten", &[x], vec![Attribute::int("axis", 1)]);
                let y = writer.put("Gemm", &[&rows, &w, &b], vec![Attribute::int("transB", 1)]);
                let map = writer.reshaped(&y, &[*out as i64, 1, 1]);
                active(writer, &map, *activation)
            }
            _ => anyhow::bail!("'{}' is no product", self.graph.layers[self.index].name),
        })
    }

    fn norm(&self, writer: &mut Writer, x: &Name) -> anyhow::Result<Name> {
        let channels = self.graph.input_shape(self.index)[0];
        let along = |axes: &[i64]| vec![Attribute::ints("axes", axes), Attribute::int("keepdims", 1)];
        Ok(match self.graph.layers[self.index].op {
            Op::BatchNorm { eps, scale, .. } => {
                let weight = match scale {
                    true => self.own(writer, "weight", &[channels])?,
                    false => writer.floats(&[channels], &vec![1.0; channels]),
                };
                let [bias, mean, var] =
                    ["bias", "running_mean", "running_var"].map(|param| self.own(writer, param, &[channels]));
                let inputs = [x, &weight, &bias?, &mean?, &var?];
                writer.put("BatchNormalization", &inputs, vec![Attribute::float("epsilon", eps as f32)])
            }
            Op::LayerNorm { eps } => {
                let [weight, bias] = ["weight", "bias"].map(|param| self.own(writer, param, &[channels]));
                let (weight, bias) = (weight?, bias?);
                let last = writer.transposed(x, &[0, 2, 3, 1]);
                let how = vec![Attribute::int("axis", -1), Attribute::float("epsilon", eps as f32)];
                let y = writer.put("LayerNormalization", &[&last, &weight, &bias], how);
                writer.transposed(&y, &[0, 3, 1, 2])
            }
            Op::ResponseNorm { eps } => {
                let [weight, bias] = ["weight", "bias"].map(|param| self.of_channels(writer, param));
                let (weight, bias) = (weight?, bias?);
                let lengths = writer.put("ReduceL2", &[x], along(&[2, 3]));
                let mean = writer.put("ReduceMean", &[&lengths], along(&[1]));
                let mean = writer.plus(&mean, eps as f32);
                let share = writer.put("Div", &[&lengths, &mean], Vec::new());
                let factor = writer.product(&weight, &share);
                let factor = writer.plus(&factor, 1.0);
                let raised = writer.product(x, &factor);
                writer.sum(&raised, &bias)
            }
            Op::UnitNorm => {
                let length = writer.put("ReduceL2", &[x], along(&[1]));
                // What PyTorch's lengths are at least.
                let least = writer.float(1e-12);
                let length = writer.put("Max", &[&length, &least], Vec::new());
                writer.put("Div", &[x, &length], Vec::new())
            }
            _ => anyhow::bail!("'{}' is no norm", self.graph.layers[self.index].name),
        })
    }

    fn pool(&self, writer: &mut Writer, x: &Name) -> anyhow::Result<Name> {
        let from = self.graph.input_shape(self.index);
        match &self.graph.layers[self.index].op {
            Op::Pool { reduce, kernel, stride, padding, .. } => {
                let [top, bottom, left, right] = *padding;
                let more = behind(self.graph, self.index);
                let pads = [top, left, bottom + more[0], right + more[1]].map(|side| side as i64);
                let mut how = vec![
                    Attribute::ints("kernel_shape", [*kernel as i64; 2]),
                    Attribute::ints("strides", [*stride as i64; 2]),
                    Attribute::ints("pads", pads),
                ];
                if *reduce == Reduce::Max {
                    return Ok(writer.put("MaxPool", &[x], how));
                }
                how.push(Attribute::int("count_include_pad", i64::from(*reduce == Reduce::AvgPadded)));
                Ok(writer.put("AveragePool", &[x], how))
            }
            Op::GridPool { reduce, grid } => Ok(gridded(writer, x, *reduce, *grid, from)),
            _ => anyhow::bail!("'{}' is no pooling", self.graph.layers[self.index].name),
        }
    }

    /// A vector, in the order of the network's own framework.
    fn flat(&self, writer: &mut Writer, x: &Name) -> Name {
        let [channels, height, width] = self.graph.input_shape(self.index);
        let turned = match self.graph.framework {
            Framework::Keras if height * width > 1 => writer.transposed(x, &[0, 2, 3, 1]),
            _ => x.clone(),
        };
        writer.reshaped(&turned, &[(channels * height * width) as i64, 1, 1])
    }
}

/// The shape of a convolution.
struct How {
    kernel: [usize; 2],
    stride: usize,
    dilation: usize,
    padding: Padding,
    groups: usize,
}

impl How {
    const PIXEL: Self = Self { kernel: [1, 1], stride: 1, dilation: 1, padding: [0; 4], groups: 1 };
}

fn convolved(writer: &mut Writer, x: &Name, w: &Name, bias: Option<&Name>, how: &How) -> Name {
    let [top, bottom, left, right] = how.padding.map(|side| side as i64);
    let inputs: Vec<&Name> = [x, w].into_iter().chain(bias).collect();
    let attributes = vec![
        Attribute::ints("kernel_shape", how.kernel.map(|side| side as i64)),
        Attribute::ints("strides", [how.stride as i64; 2]),
        Attribute::ints("dilations", [how.dilation as i64; 2]),
        Attribute::ints("pads", [top, left, bottom, right]),
        Attribute::int("group", how.groups as i64),
    ];
    writer.put("Conv", &inputs, attributes)
}

fn padded(writer: &mut Writer, x: &Name, [top, bottom, left, right]: Padding) -> Name {
    let sides = writer.ints(&[0, 0, top, left, 0, 0, bottom, right].map(|side| side as i64));
    writer.put("Pad", &[x, &sides], Vec::new())
}

/// (x - mean) / sqrt(variance), channel by channel.
fn standard(writer: &mut Writer, x: &Name, mean: &[f64], variance: &[f64]) -> Name {
    let of = |writer: &mut Writer, own: Vec<f32>| writer.floats(&[own.len(), 1, 1], &own);
    let mean = of(writer, mean.iter().map(|mean| *mean as f32).collect());
    let deviation = of(writer, variance.iter().map(|own| own.sqrt() as f32).collect());
    let moved = writer.put("Sub", &[x, &mean], Vec::new());
    writer.put("Div", &[&moved, &deviation], Vec::new())
}

/// The maximum or the mean of every cell of a grid, as PyTorch cuts it.
fn gridded(writer: &mut Writer, x: &Name, reduce: Reduce, grid: usize, [_, height, width]: Shape) -> Name {
    if grid == 1 {
        let op = if reduce == Reduce::Max { "GlobalMaxPool" } else { "GlobalAveragePool" };
        return writer.put(op, &[x], Vec::new());
    }
    let op = if reduce == Reduce::Max { "ReduceMax" } else { "ReduceMean" };
    let cell = |at: usize, length: usize| [at * length / grid, ((at + 1) * length).div_ceil(grid)];
    let mut rows = Vec::new();
    for row in 0..grid {
        let [from, to] = cell(row, height);
        let strip = writer.part(x, 2, from, to);
        let mut cells = Vec::new();
        for column in 0..grid {
            let [from, to] = cell(column, width);
            let own = writer.part(&strip, 3, from, to);
            let along = vec![Attribute::ints("axes", [2, 3]), Attribute::int("keepdims", 1)];
            cells.push(writer.put(op, &[&own], along));
        }
        rows.push(writer.beside(&cells.iter().collect::<Vec<&Name>>(), 3));
    }
    writer.beside(&rows.iter().collect::<Vec<&Name>>(), 2)
}

fn active(writer: &mut Writer, x: &Name, activation: Activation) -> Name {
    match activation {
        Activation::Linear => x.clone(),
        Activation::Relu => writer.put("Relu", &[x], Vec::new()),
        Activation::Relu6 => {
            let [low, high] = [0.0, 6.0].map(|bound| writer.float(bound));
            writer.put("Clip", &[x, &low, &high], Vec::new())
        }
        Activation::Silu => {
            let gate = writer.put("Sigmoid", &[x], Vec::new());
            writer.product(x, &gate)
        }
        Activation::Sigmoid => writer.put("Sigmoid", &[x], Vec::new()),
        Activation::Gelu => {
            let scaled = writer.times(x, std::f32::consts::FRAC_1_SQRT_2);
            let erf = writer.put("Erf", &[&scaled], Vec::new());
            let below = writer.plus(&erf, 1.0);
            let below = writer.times(&below, 0.5);
            writer.product(x, &below)
        }
        Activation::QuickGelu => {
            let steeper = writer.times(x, 1.702);
            let gate = writer.put("Sigmoid", &[&steeper], Vec::new());
            writer.product(x, &gate)
        }
        Activation::GeluTanh => {
            let square = writer.product(x, x);
            let cube = writer.product(&square, x);
            let cube = writer.times(&cube, 0.044_715);
            let inner = writer.sum(x, &cube);
            let inner = writer.times(&inner, (2.0 / std::f32::consts::PI).sqrt());
            let tanh = writer.put("Tanh", &[&inner], Vec::new());
            let below = writer.plus(&tanh, 1.0);
            let below = writer.times(&below, 0.5);
            writer.product(x, &below)
        }
        Activation::HardSigmoid => hard_sigmoid(writer, x),
        Activation::HardSwish => {
            let gate = hard_sigmoid(writer, x);
            writer.product(x, &gate)
        }
    }
}

fn hard_sigmoid(writer: &mut Writer, x: &Name) -> Name {
    let how = vec![Attribute::float("alpha", 1.0 / 6.0), Attribute::float("beta", 0.5)];
    writer.put("HardSigmoid", &[x], how)
}
