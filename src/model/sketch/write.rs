//! A layer as a person's file would say it.

use super::{Entry, Groups, Kernel, Out, Pad, Word};
use crate::model::graph::{Activation, Graph, Op, Reduce};

impl Entry {
    pub(super) fn of(graph: &Graph, index: usize, classifier: bool) -> Self {
        let layer = &graph.layers[index];
        let mut entry = Self {
            name: layer.name.clone(),
            block: Some(layer.block.clone()),
            inputs: (layer.inputs != [index - 1])
                .then(|| layer.inputs.iter().map(|input| graph.layers[*input].name.clone()).collect()),
            ..Self::default()
        };
        let outputs = |out: usize| Some(if classifier { Out::Classes(Word::Classes) } else { Out::Count(out) });
        let pool = |reduce: Reduce| match reduce {
            Reduce::Max => "max-pool",
            Reduce::Avg => "avg-pool",
            Reduce::AvgPadded => "avg-pool-padded",
        };
        entry.op = match &layer.op {
            Op::Conv { out, kernel, stride, dilation, padding, groups, bias, activation } => {
                entry.out = outputs(*out);
                entry.kernel = Some(Kernel::Sides(*kernel));
                entry.stride = Some(*stride);
                entry.dilation = Some(*dilation);
                entry.padding = Some(Pad::Sides(*padding));
                entry.groups = Some(Groups::Count(*groups));
                entry.bias = Some(*bias);
                entry.activation = Some(*activation);
                "conv".to_owned()
            }
            Op::Separable { out, kernel, stride, padding } => {
                (entry.out, entry.stride) = (outputs(*out), Some(*stride));
                (entry.kernel, entry.padding) = (Some(Kernel::Sides(*kernel)), Some(Pad::Sides(*padding)));
                "separable".to_owned()
            }
            Op::BatchNorm { eps, momentum, unbiased, scale } => {
                (entry.eps, entry.momentum) = (Some(*eps), Some(*momentum));
                (entry.unbiased, entry.scale) = (Some(*unbiased), Some(*scale));
                "batch-norm".to_owned()
            }
            Op::Activation(Activation::Relu) => "relu".to_owned(),
            Op::Activation(Activation::Relu6) => "relu6".to_owned(),
            Op::Activation(Activation::Silu) => "silu".to_owned(),
            Op::Activation(Activation::Sigmoid) => "sigmoid".to_owned(),
            Op::Activation(Activation::Gelu) => "gelu".to_owned(),
            Op::Activation(Activation::QuickGelu) => "quick-gelu".to_owned(),
            Op::Activation(Activation::GeluTanh) => "gelu-tanh".to_owned(),
            Op::Activation(Activation::HardSigmoid) => "hard-sigmoid".to_owned(),
            Op::Activation(Activation::HardSwish) => "hard-swish".to_owned(),
            Op::Input | Op::Activation(Activation::Linear) => "linear-activation".to_owned(),
            Op::ZeroPad(padding) => {
                entry.padding = Some(Pad::Sides(*padding));
                "zero-pad".to_owned()
            }
            Op::Pool { reduce, kernel, stride, padding, ceil } => {
                entry.kernel = Some(Kernel::Square(*kernel));
                (entry.stride, entry.ceil) = (Some(*stride), Some(*ceil));
                entry.padding = Some(Pad::Sides(*padding));
                pool(*reduce).to_owned()
            }
            Op::GridPool { reduce, grid } => {
                entry.grid = Some(*grid);
                format!("grid-{}", pool(*reduce))
            }
            Op::Flatten => "flatten".to_owned(),
            Op::Linear { out, activation } => {
                entry.out = outputs(*out);
                entry.activation = Some(*activation);
                "dense".to_owned()
            }
            Op::Add => "add".to_owned(),
            Op::Scale => "scale".to_owned(),
            Op::Concat => "concat".to_owned(),
            Op::Shortcut { stride, channels } => {
                (entry.stride, entry.out) = (Some(*stride), Some(Out::Count(*channels)));
                "shortcut".to_owned()
            }
            Op::Dropout(p) => {
                entry.p = Some(*p);
                "dropout".to_owned()
            }
            Op::DropPath(p) => {
                entry.p = Some(*p);
                "drop-path".to_owned()
            }
            Op::Rescale(by) => {
                entry.by = Some(by.clone());
                "rescale".to_owned()
            }
            Op::Normalize => "normalize".to_owned(),
            Op::Standardize { mean, variance } => {
                (entry.mean, entry.variance) = (Some(mean.clone()), Some(variance.clone()));
                "standardize".to_owned()
            }
            Op::LayerNorm { eps } => {
                entry.eps = Some(*eps);
                "layer-norm".to_owned()
            }
            Op::ResponseNorm { eps } => {
                entry.eps = Some(*eps);
                "response-norm".to_owned()
            }
            Op::UnitNorm => "unit-norm".to_owned(),
            Op::Pointwise { out, bias } => {
                entry.out = outputs(*out);
                entry.bias = (!bias).then_some(false);
                "pointwise".to_owned()
            }
            Op::Tokens { at, count } => {
                (entry.at, entry.count) = (Some(*at), Some(*count));
                "tokens".to_owned()
            }
            Op::Positions => "positions".to_owned(),
            Op::Attention { heads } => {
                entry.heads = Some(*heads);
                "attention".to_owned()
            }
            Op::AttentionPool { heads } => {
                entry.heads = Some(*heads);
                "attention-pool".to_owned()
            }
            Op::WindowAttention { heads, window, shift } => {
                (entry.heads, entry.window) = (Some(*heads), Some(*window));
                entry.shift = Some(*shift).filter(|shift| *shift > 0);
                "window-attention".to_owned()
            }
            Op::PatchMerge => "patch-merge".to_owned(),
            Op::Crop(padding) => {
                entry.padding = Some(Pad::Sides(*padding));
                "crop".to_owned()
            }
            Op::Rotary { heads, skip, base } => {
                (entry.heads, entry.at, entry.base) = (Some(*heads), Some(*skip), Some(*base));
                "rotary".to_owned()
            }
            Op::SwiGlu => "swiglu".to_owned(),
            Op::Token(at) => {
                entry.at = Some(*at);
                "token".to_owned()
            }
            Op::Patches { skip } => {
                entry.at = Some(*skip);
                "patches".to_owned()
            }
            Op::LayerScale { init } => {
                entry.init = Some(*init);
                "layer-scale".to_owned()
            }
        };
        entry
    }
}
