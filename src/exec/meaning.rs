//! What the words of a graph mean to operators.

use crate::model::graph::{self, Op};
use crate::nn::activation::Activation;
use crate::nn::conv::Conv;
use crate::nn::curve::Curve;
use crate::nn::pool::{Pool, Reduce, Windows};

/// The activations whose gradients follow from their inputs; no other operator applies them on its way.
pub(super) fn curve(activation: graph::Activation) -> Option<Curve> {
    match activation {
        graph::Activation::Silu => Some(Curve::Silu),
        graph::Activation::Sigmoid => Some(Curve::Sigmoid),
        graph::Activation::Gelu => Some(Curve::Gelu),
        graph::Activation::QuickGelu => Some(Curve::QuickGelu),
        graph::Activation::GeluTanh => Some(Curve::GeluTanh),
        graph::Activation::HardSigmoid => Some(Curve::HardSigmoid),
        graph::Activation::HardSwish => Some(Curve::HardSwish),
        graph::Activation::Linear | graph::Activation::Relu | graph::Activation::Relu6 => None,
    }
}

/// The activations that are the identity between bounds; whatever else there is counts as none.
pub(super) fn function(activation: graph::Activation) -> Activation {
    match activation {
        graph::Activation::Relu => Activation::Relu,
        graph::Activation::Relu6 => Activation::Relu6,
        graph::Activation::Linear
        | graph::Activation::Silu
        | graph::Activation::Sigmoid
        | graph::Activation::Gelu
        | graph::Activation::QuickGelu
        | graph::Activation::GeluTanh
        | graph::Activation::HardSigmoid
        | graph::Activation::HardSwish => Activation::Linear,
    }
}

pub(super) fn reduction(reduce: graph::Reduce) -> Reduce {
    match reduce {
        graph::Reduce::Max => Reduce::Max,
        graph::Reduce::Avg => Reduce::Avg,
        graph::Reduce::AvgPadded => Reduce::AvgPadded,
    }
}

/// The shape of a convolution, of a separable one that of its first; what is no convolution is the identity's.
pub(super) fn geometry(op: &Op) -> Conv {
    match op {
        Op::Conv { kernel, stride, dilation, padding, groups, .. } => {
            Conv { kernel: *kernel, stride: *stride, dilation: *dilation, padding: *padding, groups: *groups }
        }
        Op::Separable { kernel, stride, padding, .. } => {
            Conv { kernel: *kernel, stride: *stride, dilation: 1, padding: *padding, groups: 1 }
        }
        _ => Conv { kernel: [1, 1], stride: 1, dilation: 1, padding: [0; 4], groups: 1 },
    }
}

/// The windows of a pooling; what is none has one pixel each.
pub(super) fn windows(op: &Op) -> Windows {
    match op {
        Op::Pool { kernel, stride, padding, ceil, .. } => {
            Windows::Moved(Pool { kernel: *kernel, stride: *stride, padding: *padding, ceil: *ceil })
        }
        Op::GridPool { grid, .. } => Windows::Grid(*grid),
        _ => Windows::Moved(Pool { kernel: 1, stride: 1, padding: [0; 4], ceil: false }),
    }
}
