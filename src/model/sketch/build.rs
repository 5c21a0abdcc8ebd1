//! What a layer of a person's file means: its operation, and whether it can read the layers that it names.

use super::{Entry, Groups, Kernel, Out, Pad, Word};
use crate::model::graph::{Activation, Graph, Op, Reduce, same};

/// The words of `op`.
const OPS: &[&str] = &[
    "conv",
    "separable",
    "batch-norm",
    "relu",
    "relu6",
    "silu",
    "sigmoid",
    "linear-activation",
    "zero-pad",
    "max-pool",
    "avg-pool",
    "avg-pool-padded",
    "grid-max-pool",
    "grid-avg-pool",
    "flatten",
    "dense",
    "add",
    "scale",
    "concat",
    "shortcut",
    "dropout",
    "drop-path",
    "rescale",
    "normalize",
    "standardize",
    "layer-norm",
    "gelu",
    "quick-gelu",
    "gelu-tanh",
    "hard-sigmoid",
    "hard-swish",
    "response-norm",
    "unit-norm",
    "pointwise",
    "tokens",
    "positions",
    "attention",
    "attention-pool",
    "rotary",
    "swiglu",
    "token",
    "patches",
    "layer-scale",
];

/// Whether an operation can read these layers.
pub(super) fn fits(graph: &Graph, op: &Op, inputs: &[usize]) -> Result<(), String> {
    let shapes: Vec<_> = inputs.iter().map(|input| graph.layers[*input].shape).collect();
    let [channels, height, width] = shapes[0];
    match op {
        Op::Add | Op::Concat if inputs.len() < 2 => Err("needs at least two `inputs`".to_owned()),
        Op::Add if inputs.len() > 2 => Err("adds two layers".to_owned()),
        Op::Add if shapes[0] != shapes[1] => Err(format!("cannot add {:?} and {:?}", shapes[0], shapes[1])),
        Op::Concat if shapes.iter().any(|shape| shape[1..] != shapes[0][1..]) => {
            Err(format!("cannot put together {shapes:?}: heights and widths differ"))
        }
        Op::Scale if inputs.len() != 2 => {
            Err("needs two `inputs`: a map, and a number for each of its channels".to_owned())
        }
        Op::Scale if shapes[1] != [channels, 1, 1] => {
            Err(format!("cannot scale {:?} by {:?}: it would have to be {:?}", shapes[0], shapes[1], [channels, 1, 1]))
        }
        Op::SwiGlu if inputs.len() != 2 || shapes[0] != shapes[1] => {
            Err(format!("needs two `inputs` of one shape, a gate and what it lets through, not {shapes:?}"))
        }
        Op::AttentionPool { .. } if inputs.len() != 2 => {
            Err("needs two `inputs`: a token that asks, and a map of keys and values".to_owned())
        }
        Op::AttentionPool { heads }
            if *heads == 0 || channels % heads != 0 || height * width != 1 || shapes[1][0] != 2 * channels =>
        {
            Err(format!("{:?} of {heads} heads cannot ask keys and values of {:?}", shapes[0], shapes[1]))
        }
        Op::Add | Op::Concat | Op::Scale | Op::SwiGlu | Op::AttentionPool { .. } => Ok(()),
        _ if inputs.len() > 1 => Err("reads one layer only".to_owned()),
        Op::Conv { groups, out, .. } if *groups == 0 || channels % groups != 0 || out % groups != 0 => {
            Err(format!("{groups} groups do not divide {channels} channels in and {out} out"))
        }
        Op::Conv { kernel, stride, dilation, padding, .. } => {
            let reach = kernel.map(|side| (side.max(1) - 1) * dilation + 1);
            let room = [height + padding[0] + padding[1], width + padding[2] + padding[3]];
            let stands = *stride > 0 && kernel[0] > 0 && kernel[1] > 0;
            match stands && reach[0] <= room[0] && reach[1] <= room[1] {
                true => Ok(()),
                false => {
                    Err(format!("a kernel of {kernel:?} and stride {stride} do not fit on {height} x {width} pixels"))
                }
            }
        }
        Op::Separable { kernel, stride, padding, .. }
            if *stride == 0
                || kernel.contains(&0)
                || kernel[0] > height + padding[0] + padding[1]
                || kernel[1] > width + padding[2] + padding[3] =>
        {
            Err(format!("a kernel of {kernel:?} and stride {stride} do not fit on {height} x {width} pixels"))
        }
        Op::Pool { kernel, stride, padding, .. }
            if *stride == 0 || *kernel == 0 || *kernel > height + padding[0] + padding[1] =>
        {
            Err(format!("a window of {kernel} with stride {stride} does not fit on {height} x {width} pixels"))
        }
        Op::GridPool { grid, .. } if *grid == 0 || *grid > height => {
            Err(format!("a grid of {grid} does not fit on {height} x {width} pixels"))
        }
        Op::Linear { .. } if height * width > 1 => Err("a dense layer reads a vector: `flatten` before it".to_owned()),
        Op::Shortcut { channels: out, .. } if *out < channels => Err("a shortcut cannot lose channels".to_owned()),
        Op::Rescale(by) if by.len() != channels => {
            Err(format!("`by` has {} numbers for {channels} channels", by.len()))
        }
        Op::Standardize { mean, variance } if [mean, variance].iter().any(|own| own.len() != channels) => Err(format!(
            "`mean` and `variance` have {} and {} numbers for {channels} channels",
            mean.len(),
            variance.len()
        )),
        Op::Standardize { mean, variance }
            if !mean.iter().all(|mean| mean.is_finite())
                || !variance.iter().all(|own| own.is_finite() && *own > 0.0) =>
        {
            Err("`mean` and `variance` are numbers, and variances are above 0".to_owned())
        }
        Op::Tokens { at, count } if *at > height * width || *count == 0 => {
            Err(format!("{count} tokens cannot be put in front of token {at} of {}", height * width))
        }
        Op::Token(at) if *at >= height * width => {
            Err(format!("there is no token {at} among {}, counted from 0", height * width))
        }
        Op::Patches { skip } | Op::Rotary { skip, .. }
            if (height * width).checked_sub(*skip).is_none_or(|own| own == 0 || own.isqrt().pow(2) != own) =>
        {
            Err(format!(
                "{} tokens from token {skip} on are no square of patches",
                (height * width).saturating_sub(*skip)
            ))
        }
        Op::Rotary { heads, .. } if *heads == 0 || channels % (12 * heads) != 0 => Err(format!(
            "{channels} channels are no queries, keys and values of {heads} heads of a multiple of four numbers"
        )),
        Op::Rotary { base, .. } if !(*base > 0.0 && base.is_finite()) => {
            Err(format!("`base` = {base} is no length of a period"))
        }
        Op::Attention { heads } if *heads == 0 || channels % (3 * heads) != 0 => {
            Err(format!("{channels} channels are no queries, keys and values of {heads} heads"))
        }
        Op::WindowAttention { heads, .. } if *heads == 0 || channels % (3 * heads) != 0 => {
            Err(format!("{channels} channels are no queries, keys and values of {heads} heads"))
        }
        Op::WindowAttention { window, .. }
            if *window == 0 || !height.is_multiple_of(*window) || !width.is_multiple_of(*window) =>
        {
            Err(format!(
                "{height} x {width} pixels are not cut into windows of {window} x {window}: `zero-pad` before and `crop` behind it"
            ))
        }
        Op::WindowAttention { window, shift, .. } if shift >= window => {
            Err(format!("windows of {window} x {window} pixels are moved by less than that, not by {shift}"))
        }
        Op::PatchMerge if height % 2 != 0 || width % 2 != 0 => {
            Err(format!("{height} x {width} pixels are no squares of two: `zero-pad` before it"))
        }
        Op::Crop(padding) if padding[0] + padding[1] >= height || padding[2] + padding[3] >= width => {
            Err(format!("nothing is left of {height} x {width} pixels without {padding:?}"))
        }
        Op::Dropout(p) | Op::DropPath(p) if !(0.0..1.0).contains(p) => {
            Err(format!("p = {p} is no probability below 1"))
        }
        _ => Ok(()),
    }
}

impl Entry {
    /// The operation, on an input of this shape; every key that was given must mean something to it.
    pub(super) fn op(&self, [channels, height, _]: [usize; 3], classes: usize) -> Result<Op, String> {
        let mut rest = self.clone();
        let out = match rest.out.take() {
            Some(Out::Classes(Word::Classes)) => Some(classes),
            Some(Out::Count(0)) => return Err("`out` is 0".to_owned()),
            Some(Out::Count(count)) => Some(count),
            Some(Out::Classes(_)) => return Err("`out` is a number or \"classes\"".to_owned()),
            None => None,
        };
        let needed = |key: &str| format!("`op = \"{}\"` needs `{key}`", self.op);
        let sides = rest.kernel.take().map(|kernel| match kernel {
            Kernel::Square(side) => [side, side],
            Kernel::Sides(sides) => sides,
        });
        let stride = rest.stride.take();
        let padding = match rest.padding.take() {
            None => [0; 4],
            Some(Pad::All(all)) => [all; 4],
            Some(Pad::Sides(sides)) => sides,
            Some(Pad::Word(Word::Same)) => {
                let [rows, columns] = sides.ok_or_else(|| needed("kernel"))?;
                let step = stride.unwrap_or(1).max(1);
                let ([top, bottom, ..], [.., left, right]) = (same(height, rows, step), same(height, columns, step));
                [top, bottom, left, right]
            }
            Some(Pad::Word(_)) => return Err("`padding` is a number, four of them, or \"same\"".to_owned()),
        };
        let reduce = |word: &str| match word {
            word if word.ends_with("padded") => Reduce::AvgPadded,
            word if word.contains("max") => Reduce::Max,
            _ => Reduce::Avg,
        };
        let op = match self.op.as_str() {
            "conv" => Op::Conv {
                out: out.ok_or_else(|| needed("out"))?,
                kernel: sides.ok_or_else(|| needed("kernel"))?,
                stride: stride.unwrap_or(1),
                dilation: rest.dilation.take().unwrap_or(1),
                padding,
                groups: match rest.groups.take() {
                    None => 1,
                    Some(Groups::Count(count)) => count,
                    Some(Groups::Word(Word::Channels)) => channels,
                    Some(Groups::Word(_)) => return Err("`groups` is a number or \"channels\"".to_owned()),
                },
                bias: rest.bias.take().unwrap_or(true),
                activation: rest.activation.take().unwrap_or(Activation::Linear),
            },
            "separable" => Op::Separable {
                out: out.ok_or_else(|| needed("out"))?,
                kernel: sides.ok_or_else(|| needed("kernel"))?,
                stride: stride.unwrap_or(1),
                padding,
            },
            "batch-norm" => Op::BatchNorm {
                eps: rest.eps.take().ok_or_else(|| needed("eps"))?,
                momentum: rest.momentum.take().unwrap_or(0.1),
                unbiased: rest.unbiased.take().unwrap_or(true),
                scale: rest.scale.take().unwrap_or(true),
            },
            "relu" => Op::Activation(Activation::Relu),
            "relu6" => Op::Activation(Activation::Relu6),
            "silu" => Op::Activation(Activation::Silu),
            "sigmoid" => Op::Activation(Activation::Sigmoid),
            "gelu" => Op::Activation(Activation::Gelu),
            "quick-gelu" => Op::Activation(Activation::QuickGelu),
            "gelu-tanh" => Op::Activation(Activation::GeluTanh),
            "hard-sigmoid" => Op::Activation(Activation::HardSigmoid),
            "hard-swish" => Op::Activation(Activation::HardSwish),
            "linear-activation" => Op::Activation(Activation::Linear),
            "zero-pad" => Op::ZeroPad(padding),
            word @ ("max-pool" | "avg-pool" | "avg-pool-padded") => {
                let kernel = sides.filter(|sides| sides[0] == sides[1]).ok_or_else(|| needed("kernel"))?[0];
                let ceil = rest.ceil.take().unwrap_or(false);
                Op::Pool { reduce: reduce(word), kernel, stride: stride.unwrap_or(kernel), padding, ceil }
            }
            word @ ("grid-max-pool" | "grid-avg-pool") => {
                Op::GridPool { reduce: reduce(word), grid: rest.grid.take().unwrap_or(1) }
            }
            "flatten" => Op::Flatten,
            "dense" => Op::Linear {
                out: out.ok_or_else(|| needed("out"))?,
                activation: rest.activation.take().unwrap_or(Activation::Linear),
            },
            "add" => Op::Add,
            "scale" => Op::Scale,
            "concat" => Op::Concat,
            "shortcut" => Op::Shortcut { stride: stride.unwrap_or(1), channels: out.ok_or_else(|| needed("out"))? },
            "dropout" => Op::Dropout(rest.p.take().ok_or_else(|| needed("p"))?),
            "drop-path" => Op::DropPath(rest.p.take().ok_or_else(|| needed("p"))?),
            "rescale" => Op::Rescale(rest.by.take().ok_or_else(|| needed("by"))?),
            "normalize" => Op::Normalize,
            "standardize" => Op::Standardize {
                mean: rest.mean.take().ok_or_else(|| needed("mean"))?,
                variance: rest.variance.take().ok_or_else(|| needed("variance"))?,
            },
            "layer-norm" => Op::LayerNorm { eps: rest.eps.take().unwrap_or(1e-6) },
            "pointwise" => {
                Op::Pointwise { out: out.ok_or_else(|| needed("out"))?, bias: rest.bias.take().unwrap_or(true) }
            }
            "tokens" => {
                Op::Tokens { at: rest.at.take().unwrap_or(0), count: rest.count.take().ok_or_else(|| needed("count"))? }
            }
            "response-norm" => Op::ResponseNorm { eps: rest.eps.take().unwrap_or(1e-6) },
            "unit-norm" => Op::UnitNorm,
            "positions" => Op::Positions,
            "attention" => Op::Attention { heads: rest.heads.take().ok_or_else(|| needed("heads"))? },
            "attention-pool" => Op::AttentionPool { heads: rest.heads.take().ok_or_else(|| needed("heads"))? },
            "window-attention" => Op::WindowAttention {
                heads: rest.heads.take().ok_or_else(|| needed("heads"))?,
                window: rest.window.take().ok_or_else(|| needed("window"))?,
                shift: rest.shift.take().unwrap_or(0),
            },
            "patch-merge" => Op::PatchMerge,
            "crop" => Op::Crop(padding),
            "rotary" => Op::Rotary {
                heads: rest.heads.take().ok_or_else(|| needed("heads"))?,
                skip: rest.at.take().unwrap_or(0),
                base: rest.base.take().unwrap_or(100.0),
            },
            "swiglu" => Op::SwiGlu,
            "token" => Op::Token(rest.at.take().unwrap_or(0)),
            "patches" => Op::Patches { skip: rest.at.take().ok_or_else(|| needed("at"))? },
            "layer-scale" => Op::LayerScale { init: rest.init.take().unwrap_or(1.0) },
            other => {
                let near = crate::spelling::nearest(other, OPS.iter().copied());
                let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
                return Err(format!("there is no op '{other}'{hint}; there are {}", OPS.join(", ")));
            }
        };
        rest.refuse_the_rest(&op, self)?;
        Ok(op)
    }

    /// Keys that were given but that the operation does not take.
    fn refuse_the_rest(&self, op: &Op, given: &Self) -> Result<(), String> {
        let windows = matches!(op, Op::Conv { .. } | Op::Separable { .. } | Op::Pool { .. });
        let gives = windows && !matches!(op, Op::Pool { .. })
            || matches!(op, Op::Linear { .. } | Op::Pointwise { .. } | Op::Shortcut { .. });
        let wrong = [
            ("out", given.out.is_some() && !gives),
            ("kernel", given.kernel.is_some() && !windows),
            ("stride", given.stride.is_some() && !windows && !matches!(op, Op::Shortcut { .. })),
            ("padding", given.padding.is_some() && !windows && !matches!(op, Op::ZeroPad(_) | Op::Crop(_))),
            ("dilation", self.dilation.is_some()),
            ("groups", self.groups.is_some()),
            ("bias", self.bias.is_some()),
            ("activation", self.activation.is_some()),
            ("eps", self.eps.is_some()),
            ("momentum", self.momentum.is_some()),
            ("unbiased", self.unbiased.is_some()),
            ("scale", self.scale.is_some()),
            ("ceil", self.ceil.is_some()),
            ("grid", self.grid.is_some()),
            ("p", self.p.is_some()),
            ("by", self.by.is_some()),
            ("mean", self.mean.is_some()),
            ("variance", self.variance.is_some()),
            ("at", self.at.is_some()),
            ("count", self.count.is_some()),
            ("heads", self.heads.is_some()),
            ("window", self.window.is_some()),
            ("shift", self.shift.is_some()),
            ("base", self.base.is_some()),
            ("init", self.init.is_some()),
        ];
        match wrong.iter().find(|(_, wrong)| *wrong) {
            Some((key, _)) => Err(format!("`op = \"{}\"` takes no `{key}`", given.op)),
            None => Ok(()),
        }
    }
}
