//! What shape a layer gives, from the shapes that it reads.

use super::graph::{Op, Shape};

/// The output of an operation on inputs of these shapes.
pub(super) fn output_shape(op: &Op, inputs: &[Shape]) -> Shape {
    let [channels, height, width] = inputs[0];
    match op {
        Op::Conv { out, kernel, stride, dilation, padding, .. } => [
            *out,
            (height + padding[0] + padding[1] - (kernel[0] - 1) * dilation - 1) / stride + 1,
            (width + padding[2] + padding[3] - (kernel[1] - 1) * dilation - 1) / stride + 1,
        ],
        Op::Separable { out, kernel, stride, padding } => [
            *out,
            (height + padding[0] + padding[1] - kernel[0]) / stride + 1,
            (width + padding[2] + padding[3] - kernel[1]) / stride + 1,
        ],
        Op::ZeroPad(padding) => [channels, height + padding[0] + padding[1], width + padding[2] + padding[3]],
        Op::Pool { kernel, stride, padding, ceil, .. } => [
            channels,
            pooled(height, [padding[0], padding[1]], *kernel, *stride, *ceil),
            pooled(width, [padding[2], padding[3]], *kernel, *stride, *ceil),
        ],
        Op::GridPool { grid, .. } => [channels, *grid, *grid],
        Op::Flatten => [channels * height * width, 1, 1],
        Op::Linear { out, .. } => [*out, 1, 1],
        Op::Concat => [inputs.iter().map(|shape| shape[0]).sum(), height, width],
        Op::Shortcut { stride, channels } => [*channels, height.div_ceil(*stride), width.div_ceil(*stride)],
        Op::Input | Op::BatchNorm { .. } | Op::Activation(_) | Op::Add | Op::Scale => inputs[0],
        Op::Dropout(_) | Op::DropPath(_) | Op::Rescale(_) | Op::Normalize | Op::Standardize { .. } => inputs[0],
        Op::LayerNorm { .. } | Op::Positions | Op::LayerScale { .. } => inputs[0],
        Op::ResponseNorm { .. } | Op::UnitNorm | Op::Rotary { .. } | Op::SwiGlu | Op::AttentionPool { .. } => inputs[0],
        Op::Pointwise { out, .. } => [*out, height, width],
        Op::Tokens { count, .. } => [channels, height * width + count, 1],
        Op::Attention { .. } | Op::WindowAttention { .. } => [channels / 3, height, width],
        Op::PatchMerge => [4 * channels, height / 2, width / 2],
        Op::Crop(padding) => {
            [channels, height.saturating_sub(padding[0] + padding[1]), width.saturating_sub(padding[2] + padding[3])]
        }
        Op::Token(_) => [channels, 1, 1],
        Op::Patches { skip } => {
            let side = (height * width - skip).isqrt();
            [channels, side, side]
        }
    }
}

/// In ceil mode the last window begins inside the image or the padding before it, as in PyTorch.
fn pooled(side: usize, padding: [usize; 2], kernel: usize, stride: usize, ceil: bool) -> usize {
    let steps = (side + padding[0] + padding[1]).saturating_sub(kernel);
    if !ceil {
        return steps / stride + 1;
    }
    let windows = steps.div_ceil(stride) + 1;
    if (windows - 1) * stride >= side + padding[0] { windows - 1 } else { windows }
}
