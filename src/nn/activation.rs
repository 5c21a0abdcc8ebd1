//! ReLU and ReLU6, forward and backward.

use candle_core::{Result, Tensor};

use super::{tensor, with};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Linear,
    Relu,
    Relu6,
}

impl Activation {
    fn ceiling(self) -> f32 {
        match self {
            Self::Relu6 => 6.0,
            Self::Relu | Self::Linear => f32::INFINITY,
        }
    }
}

/// Elementwise, any shape.
///
/// # Errors
/// Only those of the device.
pub fn forward(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Linear => Ok(x.clone()),
        _ if !x.device().is_cpu() && activation == Activation::Relu => x.relu(),
        _ if !x.device().is_cpu() => x.clamp(0f32, 6f32),
        _ => {
            let top = activation.ceiling();
            let y = with([x], |[x]| x.iter().map(|value| value.max(0.0).min(top)).collect())?;
            tensor(y, x.shape().clone())
        }
    }
}

/// The gradient of the input, from the output: nothing passes where the output is at a bound.
///
/// # Errors
/// The shapes differ.
pub fn backward(y: &Tensor, dy: &Tensor, activation: Activation) -> Result<Tensor> {
    if activation == Activation::Linear {
        return Ok(dy.clone());
    }
    if !y.device().is_cpu() {
        let mut passes = y.gt(0f32)?;
        if activation == Activation::Relu6 {
            passes = passes.mul(&y.lt(6f32)?)?;
        }
        return dy.mul(&passes.to_dtype(dy.dtype())?);
    }
    let top = activation.ceiling();
    let pass = |(y, dy): (&f32, &f32)| if *y > 0.0 && *y < top { *dy } else { 0.0 };
    let dx = with([y, dy], |[y, dy]| y.iter().zip(dy).map(pass).collect())?;
    tensor(dx, y.shape().clone())
}
