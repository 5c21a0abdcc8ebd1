//! The operations that a network's layers may be, and what each of them is told.

use serde::{Deserialize, Serialize};

/// Pixels added at the top, bottom, left and right.
pub type Padding = [usize; 4];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    Linear,
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x / (1 + e^-x), also called swish (Ramachandran et al., 2017).
    Silu,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// x times the normal distribution below x (Hendrycks and Gimpel, 2016), without approximation.
    Gelu,
    /// x / (1 + e^(-1.702 x)), which Hendrycks and Gimpel (2016) took for that, and OpenAI's CLIP for its activation.
    #[serde(rename = "quick-gelu")]
    QuickGelu,
    /// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, their other one, which JAX takes where nothing is said.
    #[serde(rename = "gelu-tanh")]
    GeluTanh,
    /// min(max(x + 3, 0), 6) / 6: a sigmoid of straight lines (Howard et al., 2019).
    #[serde(rename = "hard-sigmoid")]
    HardSigmoid,
    /// x times that.
    #[serde(rename = "hard-swish")]
    HardSwish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reduce {
    Max,
    /// Over the pixels of the image: TensorFlow's and Keras' convention.
    Avg,
    /// Over the pixels of the padded image: PyTorch's default.
    AvgPadded,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    Input,
    Conv {
        out: usize,
        kernel: [usize; 2],
        stride: usize,
        /// Pixels from one tap of the kernel to the next.
        dilation: usize,
        padding: Padding,
        groups: usize,
        bias: bool,
        activation: Activation,
    },
    /// A convolution of every channel alone, and behind it one of one pixel over all of them, without a bias: Keras' SeparableConv2D.
    Separable {
        out: usize,
        kernel: [usize; 2],
        stride: usize,
        padding: Padding,
    },
    /// y = (x - mean) / sqrt(var + eps) * weight + bias. In training the running statistics move by
    /// `momentum` towards those of the batch (PyTorch's convention: 0.1 there is 0.9 in Keras).
    BatchNorm {
        eps: f64,
        momentum: f64,
        /// Whether the running variance follows the batch's with n - 1 in its denominator (PyTorch) or n (Keras).
        unbiased: bool,
        /// Whether there is a `weight`; it is 1 without (Keras' InceptionV3).
        scale: bool,
    },
    Activation(Activation),
    ZeroPad(Padding),
    Pool {
        reduce: Reduce,
        kernel: usize,
        stride: usize,
        padding: Padding,
        ceil: bool,
    },
    /// Over a G x G grid whose cells run from floor(i H / G) to ceil((i + 1) H / G), as PyTorch's adaptive pooling.
    GridPool {
        reduce: Reduce,
        grid: usize,
    },
    Flatten,
    Linear {
        out: usize,
        activation: Activation,
    },
    Add,
    /// A map times a number for each of its channels, the second input [channels, 1, 1]: the gate of squeeze-and-excitation (Hu
    /// et al., 2018).
    Scale,
    Concat,
    /// The parameter-free shortcut of the CIFAR ResNets (option A; He et al., 2016): every second pixel,
    /// zeros for the new channels, half of them on each side.
    Shortcut {
        stride: usize,
        channels: usize,
    },
    Dropout(f64),
    /// Stochastic depth (Huang et al., 2016): in training an image's numbers are all zero with this probability, and otherwise
    /// divided by what is left of 1.
    DropPath(f64),
    /// Every channel times a number of its own: Keras' Rescaling, with which some of its networks begin.
    Rescale(Vec<f64>),
    /// (x - mean) / sqrt(variance) with the file's numbers, which never change: Keras' Normalization.
    Normalize,
    /// The same with a mean and a variance for each channel that no file tells: with which other Keras networks begin.
    Standardize {
        mean: Vec<f64>,
        variance: Vec<f64>,
    },
    /// (x - mean) / sqrt(var + eps) * weight + bias, with the mean and variance of a pixel's own channels (Ba et al., 2016).
    LayerNorm {
        eps: f64,
    },
    /// x + weight * (x * n) + bias, with n how long a channel is over the image, beside the mean of all channels (Woo et al., 2023).
    ResponseNorm {
        eps: f64,
    },
    /// A pixel's own channels over their length, sqrt of the sum of their squares (Keras' UnitNormalization).
    UnitNorm,
    /// A linear layer over the channels of every pixel: the dense layers of transformers.
    Pointwise {
        out: usize,
        #[serde(default = "usual", skip_serializing_if = "is_usual")]
        bias: bool,
    },
    /// Learned tokens among those of the image, in front of token `at`; the pixels of a map become a row of tokens, height first
    /// (the class token of Dosovitskiy et al., 2021; the registers of Darcet et al., 2024).
    Tokens {
        at: usize,
        count: usize,
    },
    /// Adds a learned vector to every token.
    Positions,
    /// Attention between all pixels: the input is queries, keys and values side by side, each head by head.
    Attention {
        heads: usize,
    },
    /// Attention between the pixels of every window of `window` x `window` pixels, on a grid of windows that lies `shift` pixels further
    /// down and to the right and goes on around the borders. Scores have a learned number for how one pixel lies to the other; pixels
    /// that meet only around a border do not see each other (Swin; Liu et al., 2021). Inputs are those of `Attention`.
    WindowAttention {
        heads: usize,
        window: usize,
        shift: usize,
    },
    /// The pixels of every square of two side by side, the left ones first and the upper before the lower (Swin's patch merging).
    PatchMerge,
    /// Without the pixels at the top, bottom, left and right (Keras' Cropping2D).
    Crop(Padding),
    /// Adds learned biases to queries and values, and turns queries and keys of the patches, which come behind `skip` other tokens, by
    /// angles that follow from where a patch lies, with periods from 1 up to, and without, `base` (rotary positions of DINOv3, Siméoni
    /// et al., 2025).
    Rotary {
        heads: usize,
        skip: usize,
        base: f64,
    },
    /// The first input's SiLU times the second (SwiGLU; Shazeer, 2020).
    SwiGlu,
    /// Attention of one token, the first input, over all pixels of a map, the second, with keys and values side by side, each head
    /// by head (Lee et al., 2019).
    AttentionPool {
        heads: usize,
    },
    /// One token of a row.
    Token(usize),
    /// The map of an image's patches, from a row with `skip` other tokens in front of them.
    Patches {
        skip: usize,
    },
    /// Every channel times a learned number (Touvron et al., 2021), which begins at `init`.
    LayerScale {
        init: f64,
    },
}

/// Whether a dense layer has a bias where nothing is said of it.
fn usual() -> bool {
    true
}

fn is_usual(bias: &bool) -> bool {
    *bias == usual()
}

impl Op {
    /// A linear layer over the channels of every pixel, with bias.
    pub fn dense(out: usize) -> Self {
        Self::Pointwise { out, bias: true }
    }

    /// A convolution without bias and activation.
    pub fn conv(out: usize, kernel: [usize; 2], stride: usize, padding: Padding) -> Self {
        let activation = Activation::Linear;
        Self::Conv { out, kernel, stride, dilation: 1, padding, groups: 1, bias: false, activation }
    }

    /// The same convolution with a bias and an activation.
    pub fn biased(self, activation: Activation) -> Self {
        match self {
            Self::Conv { out, kernel, stride, dilation, padding, groups, .. } => {
                Self::Conv { out, kernel, stride, dilation, padding, groups, bias: true, activation }
            }
            other => other,
        }
    }

    /// The same convolution in groups.
    pub fn grouped(self, groups: usize) -> Self {
        match self {
            Self::Conv { out, kernel, stride, dilation, padding, bias, activation, .. } => {
                Self::Conv { out, kernel, stride, dilation, padding, groups, bias, activation }
            }
            other => other,
        }
    }

    /// The batch norm of Keras' layer: `momentum` is Keras' own (0.99 by default).
    pub fn keras_norm(eps: f64, momentum: f64, scale: bool) -> Self {
        Self::BatchNorm { eps, momentum: 1.0 - momentum, unbiased: false, scale }
    }

    /// The batch norm of PyTorch's layer, with its default momentum.
    pub fn torch_norm(eps: f64) -> Self {
        Self::BatchNorm { eps, momentum: 0.1, unbiased: true, scale: true }
    }
}

/// TensorFlow's SAME for a square input: ceil(side / stride) outputs, the odd pixel at the bottom and right.
pub fn same(side: usize, kernel: usize, stride: usize) -> Padding {
    let total = ((side.div_ceil(stride) - 1) * stride + kernel).saturating_sub(side);
    [total / 2, total - total / 2, total / 2, total - total / 2]
}
