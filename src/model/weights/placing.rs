//! How the numbers of a file's tensor become those of a parameter: whole or in part, in the network's order of axes, always by shape.

use super::positions::{Grids, Stretch, stretched};
use crate::model::graph::{Framework, Graph, Op, POINTWISE};

/// How the numbers of a tensor change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// Keras' [height, width, in, out] to [out, in, height, width].
    Kernel,
    /// Keras' [height, width, channels, multiplier] to [channels x multiplier, 1, height, width].
    Depthwise,
    /// Keras' [in, out] to [out, in].
    Dense,
    /// A dense layer written as a convolution over the whole map: [out, channels, height, width] to [out, in].
    Convolved,
    /// Positions of a grid of patches of one side to those of another, and those of a class token that may have none.
    Stretched(Grids, Stretch),
    /// Rows of a packed projection: the queries, the keys or the values.
    Third(usize),
    /// Some thirds of a packed tensor: from which on, and up to which.
    Rows([usize; 2]),
}

/// How much of a tensor is how much of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Whole,
    /// It is this third of the parameter.
    Third(usize),
    /// The parameter is these thirds of it: from which on, and up to which.
    Rows([usize; 2]),
    /// The parameter is it with its two axes exchanged.
    Turned,
}

/// A tensor of the file in its place.
#[derive(Clone, Debug)]
pub struct Placed {
    pub stored: usize,
    pub layer: usize,
    pub param: &'static str,
    pub shape: Vec<usize>,
    pub change: Change,
    /// The map [channels, height, width] whose flattened order differs between the file and the network, if it does.
    pub flattened: Option<[usize; 3]>,
}

impl Placed {
    /// What is done to the numbers, in words.
    pub fn said(&self) -> String {
        let change = match self.change {
            Change::None => "",
            Change::Stretched(Grids { from, to, .. }, _) if from == to => "a class token without a position",
            Change::Rows(rows) => {
                let parts = &["queries", "keys", "values"][rows[0]..rows[1]];
                return format!("its {}", parts.join(" and "));
            }
            Change::Stretched(Grids { from, to, .. }, stretch) => {
                return format!("{from} x {from} patches to {to} x {to}, as {} does", stretch.said());
            }
            Change::Third(third) => ["queries", "keys", "values"][third],
            Change::Kernel => "HWIO to OIHW",
            Change::Depthwise => "HWCM to (CM)1HW",
            Change::Dense => "in x out to out x in",
            Change::Convolved => "convolution to dense",
        };
        let order = match self.flattened {
            Some(_) => "rows to the network's flattened order",
            None => "",
        };
        [change, order].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(", ")
    }
}

/// A tensor and which parameter it is.
pub(super) struct Found {
    pub(super) stored: usize,
    pub(super) layer: usize,
    pub(super) param: &'static str,
    /// Whose order of axes it has.
    pub(super) axes: Framework,
    /// In whose order a flattened map is read.
    pub(super) order: Framework,
    pub(super) piece: Piece,
}

/// How a tensor must change to have this shape; nothing if no rule leads there.
pub(super) fn place(graph: &Graph, found: &Found, file: &[usize], shape: &[usize]) -> Option<Placed> {
    let Found { stored, layer, param, axes, order, piece } = *found;
    // Other files have tokens without an axis of images.
    let tokens = matches!(graph.layers[layer].op, Op::Tokens { .. } | Op::Positions) && file.len() < 3;
    let padded = if tokens { [&[1, 1, 1][file.len()..], file].concat() } else { file.to_vec() };
    let file = &padded[..];
    let keras = axes == Framework::Keras;
    let change = match (&graph.layers[layer].op, file, param) {
        _ if let Piece::Third(third) = piece => {
            let whole = [&[3 * file.first()?], &file[1..]].concat();
            (whole == shape).then_some(Change::Third(third))
        }
        _ if let Piece::Rows(rows) = piece => {
            let own = [&[file.first()? / 3 * (rows[1] - rows[0])], &file[1..]].concat();
            (own == shape && file[0].is_multiple_of(3)).then_some(Change::Rows(rows))
        }
        (Op::Pointwise { .. }, [i, o], _) if piece == Piece::Turned => (shape == [*o, *i]).then_some(Change::Dense),
        (Op::Conv { groups, .. }, [h, w, c, m], "weight") if keras && *groups > 1 => {
            (shape == [c * m, 1, *h, *w]).then_some(Change::Depthwise)
        }
        (Op::Conv { .. }, [h, w, i, o], "weight") if keras => (shape == [*o, *i, *h, *w]).then_some(Change::Kernel),
        (Op::Separable { .. }, [h, w, c, m], "weight") if keras => {
            (shape == [c * m, 1, *h, *w]).then_some(Change::Depthwise)
        }
        (Op::Separable { .. }, [h, w, i, o], POINTWISE) if keras => {
            (shape == [*o, *i, *h, *w]).then_some(Change::Kernel)
        }
        (Op::Linear { .. }, [i, o], "weight") if keras => (shape == [*o, *i]).then_some(Change::Dense),
        (Op::Pointwise { .. }, [i, o], "weight") if keras => (shape == [*o, *i]).then_some(Change::Dense),
        (Op::Pointwise { .. }, [o, i, 1, 1], "weight") => (shape == [*o, *i]).then_some(Change::None),
        (Op::ResponseNorm { .. }, [1, 1, 1, c], _) => (shape == [*c]).then_some(Change::None),
        (Op::LayerScale { .. }, [c, 1, 1], _) => (shape == [*c]).then_some(Change::None),
        (Op::Positions, [1, from, c], _) if file != shape => {
            let below = &graph.layers[graph.layers[layer].inputs[0]].op;
            let class = matches!(below, Op::Tokens { .. });
            let grids = Grids::of(*from, shape[1], class).filter(|_| shape[2] == *c);
            grids.map(|grids| Change::Stretched(grids, Stretch::of(graph)))
        }
        (Op::Linear { .. }, [o, c, h, w], "weight") => (shape == [*o, c * h * w]).then_some(Change::Convolved),
        _ => (shape == file).then_some(Change::None),
    }?;
    let flattened = flattened_map(graph, layer, param).filter(|_| order != graph.framework);
    Some(Placed { stored, layer, param, shape: shape.to_vec(), change, flattened })
}

/// The map [channels, height, width] whose flattened numbers the weights of a dense layer multiply, if they are of more than
/// one pixel: their order is each framework's own.
pub(super) fn flattened_map(graph: &Graph, layer: usize, param: &str) -> Option<[usize; 3]> {
    let below = |layer: usize| graph.layers[layer].inputs.first().copied();
    let mut source =
        below(layer).filter(|_| param == "weight" && matches!(graph.layers[layer].op, Op::Linear { .. }))?;
    while matches!(graph.layers[source].op, Op::Dropout(_)) {
        source = below(source)?;
    }
    let map = graph.input_shape(source);
    (matches!(graph.layers[source].op, Op::Flatten) && map[1] * map[2] > 1).then_some(map)
}

impl Placed {
    /// The numbers as the network wants them.
    pub fn laid_out(&self, values: Vec<f32>, graph: &Graph) -> Vec<f32> {
        let rows = match (self.change, &self.shape[..]) {
            (Change::Kernel, [o, i, h, w]) => {
                permuted(&values, [*o, *i, *h, *w], |[o_, i_, h_, w_]| ((h_ * w + w_) * i + i_) * o + o_)
            }
            (Change::Depthwise, [o, one, h, w]) => {
                permuted(&values, [*o, *one, *h, *w], |[o_, _, h_, w_]| (h_ * w + w_) * o + o_)
            }
            (Change::Rows([from, to]), _) => values[values.len() / 3 * from..values.len() / 3 * to].to_vec(),
            (Change::Stretched(grids, stretch), _) => stretched(&values, grids, stretch),
            (Change::Dense, [o, i]) => permuted(&values, [*o, *i, 1, 1], |[o_, i_, ..]| i_ * o + o_),
            _ => values,
        };
        let (Some([c, h, w]), [out, _]) = (self.flattened, &self.shape[..]) else { return rows };
        let pixels = h * w;
        match graph.framework {
            // From channel by channel to pixel by pixel.
            Framework::Keras => permuted(&rows, [*out, pixels, c, 1], |[o, p, ch, _]| (o * c + ch) * pixels + p),
            Framework::Torch => permuted(&rows, [*out, c, pixels, 1], |[o, ch, p, _]| (o * pixels + p) * c + ch),
        }
    }
}

/// Numbers in another order: `source` says where the one at these four indices stands now.
pub(super) fn permuted(values: &[f32], sides: [usize; 4], source: impl Fn([usize; 4]) -> usize) -> Vec<f32> {
    let mut result = Vec::with_capacity(values.len());
    for a in 0..sides[0] {
        for b in 0..sides[1] {
            for c in 0..sides[2] {
                for d in 0..sides[3] {
                    result.push(values[source([a, b, c, d])]);
                }
            }
        }
    }
    result
}
