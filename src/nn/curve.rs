//! SiLU, GELU in three ways, the sigmoid, and what is made of straight lines for SiLU and the sigmoid, forward and backward. Nothing
//! is fused and no system's `exp` is asked: all paths give the same bits. A NaN stays a NaN.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::activation::hold;
use super::buffer::{self, tensor, with};
use super::exponential::exponential;
use super::kernel::on_every_path;

/// Numbers of one task.
const TASK: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// x / (1 + e^-x).
    Silu,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// x times the normal distribution below x (Hendrycks and Gimpel, 2016): PyTorch's and Keras' exact one.
    Gelu,
    /// x / (1 + e^(-1.702 x)): the sigmoid in its place, as OpenAI's CLIP has it (Radford et al., 2021).
    QuickGelu,
    /// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, the other one that they name: JAX's default, and PyTorch's `tanh`.
    GeluTanh,
    /// min(max(x + 3, 0), 6) / 6: MobileNetV3's sigmoid (Howard et al., 2019), as PyTorch has it.
    HardSigmoid,
    /// x times that.
    HardSwish,
}

/// How much steeper QuickGELU's sigmoid is.
const STEEPER: f32 = 1.702;

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exponential(-x))
}

/// With t = 1 / (1 + SLOWER u), e^(u^2) erfc(u) is t times a polynomial in t (the form of Hastings, 1955); these coefficients,
/// from t^0 to t^8, were fitted to a relative error of 8.2e-8 over all u >= 0 (Lawson's iteration, 1961).
const ERFC: [f32; 9] = [
    0.225_659_06,
    0.226_008_33,
    0.205_060_4,
    0.180_765_58,
    0.109_826_505,
    0.043_946_847,
    0.122_798_99,
    -0.159_227_01,
    0.045_161_393,
];
const SLOWER: f32 = 0.4;

/// The normal distribution below x, and e^(-x^2 / 2).
#[inline(always)]
fn normal(x: f32) -> [f32; 2] {
    let bell = exponential(-0.5 * x * x);
    let t = 1.0 / (1.0 + SLOWER * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let mut sum = ERFC[8];
    for term in ERFC[..8].iter().rev() {
        sum = sum * t + term;
    }
    let tail = 0.5 * bell * (t * sum);
    [if x < 0.0 { tail } else { 1.0 - tail }, bell]
}

/// 1 / sqrt(2 pi).
const PEAK: f32 = 0.398_942_3;

on_every_path! {
    fn sigmoids(x: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = sigmoid(*x));
    }
}

on_every_path! {
    fn silus(x: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * sigmoid(*x));
    }
}

on_every_path! {
    fn sigmoid_slopes(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let _ = FUSED;
        for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
            let y = sigmoid(*x);
            *dx = dy * (y * (1.0 - y));
        }
    }
}

on_every_path! {
    fn silu_slopes(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let _ = FUSED;
        for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
            let part = sigmoid(*x);
            *dx = dy * (part * (1.0 + x * (1.0 - part)));
        }
    }
}

on_every_path! {
    fn gelus(x: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * normal(*x)[0]);
    }
}

on_every_path! {
    fn gelu_slopes(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let _ = FUSED;
        for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
            let [below, bell] = normal(*x);
            *dx = dy * (below + x * (PEAK * bell));
        }
    }
}

on_every_path! {
    fn quick_gelus(x: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * sigmoid(STEEPER * x));
    }
}

on_every_path! {
    fn quick_gelu_slopes(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let _ = FUSED;
        for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
            let steep = STEEPER * x;
            let part = sigmoid(steep);
            *dx = dy * (part * (1.0 + steep * (1.0 - part)));
        }
    }
}

/// 2 sqrt(2 / pi), and how much of a cube is added: (1 + tanh(u)) / 2 is the sigmoid of 2 u.
const TANH: [f32; 2] = [1.595_769, 0.044_715];
/// Where it is 0 or 1 in f32.
const FLAT: f32 = 12.0;

on_every_path! {
    fn tanh_gelus(x: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * sigmoid(TANH[0] * (x + TANH[1] * x * x * x)));
    }
}

on_every_path! {
    fn tanh_gelu_slopes(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let _ = FUSED;
        for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
            let part = sigmoid(TANH[0] * (x + TANH[1] * x * x * x));
            // Where the sigmoid is flat a cube may be beyond f32.
            let steep = if x.abs() > FLAT { 0.0 } else { TANH[0] * (x + 3.0 * TANH[1] * x * x * x) };
            *dx = dy * (part * (1.0 + steep * (1.0 - part)));
        }
    }
}

/// Where the hard sigmoid's slope ends on either side.
const BEND: f32 = 3.0;

#[inline(always)]
fn hard_sigmoid(x: f32) -> f32 {
    hold(x + BEND, 0.0, 2.0 * BEND) / (2.0 * BEND)
}

on_every_path! {
    fn hard_sigmoids(x: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = hard_sigmoid(*x));
    }
}

on_every_path! {
    fn hard_sigmoid_slopes(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let _ = FUSED;
        for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
            *dx = if *x <= -BEND || *x >= BEND { 0.0 } else { dy / (2.0 * BEND) };
        }
    }
}

on_every_path! {
    fn hard_swishes(x: &[f32], y: &mut [f32]) {
        let _ = FUSED;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * hard_sigmoid(*x));
    }
}

on_every_path! {
    fn hard_swish_slopes(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let _ = FUSED;
        for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
            let between = x / BEND + 0.5;
            let slope = if *x <= -BEND { 0.0 } else { between };
            *dx = dy * if *x >= BEND { 1.0 } else { slope };
        }
    }
}

/// Elementwise, any shape.
///
/// # Errors
/// Only those of the device.
pub fn forward(x: &Tensor, curve: Curve) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::curve::forward(x, curve);
    }
    let mut y = buffer::take(x.elem_count());
    with([x], |[x]| {
        y.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(y, x)| match curve {
            Curve::Silu => silus(x, y),
            Curve::Sigmoid => sigmoids(x, y),
            Curve::Gelu => gelus(x, y),
            Curve::QuickGelu => quick_gelus(x, y),
            Curve::GeluTanh => tanh_gelus(x, y),
            Curve::HardSigmoid => hard_sigmoids(x, y),
            Curve::HardSwish => hard_swishes(x, y),
        });
    })?;
    tensor(y, x.shape().clone())
}

/// The gradient of the input x, from x: the output of SiLU or GELU alone does not say which of two inputs it was.
///
/// # Errors
/// The shapes differ.
pub fn backward(x: &Tensor, dy: &Tensor, curve: Curve) -> Result<Tensor> {
    if x.shape() != dy.shape() {
        bail!("a gradient of shape {:?} does not fit {:?}", dy.shape(), x.shape());
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::curve::backward(x, dy, curve);
    }
    let mut dx = buffer::take(x.elem_count());
    with([x, dy], |[x, dy]| {
        dx.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).zip(dy.par_chunks(TASK)).for_each(
            |((dx, x), dy)| match curve {
                Curve::Silu => silu_slopes(x, dy, dx),
                Curve::Sigmoid => sigmoid_slopes(x, dy, dx),
                Curve::Gelu => gelu_slopes(x, dy, dx),
                Curve::QuickGelu => quick_gelu_slopes(x, dy, dx),
                Curve::GeluTanh => tanh_gelu_slopes(x, dy, dx),
                Curve::HardSigmoid => hard_sigmoid_slopes(x, dy, dx),
                Curve::HardSwish => hard_swish_slopes(x, dy, dx),
            },
        );
    })?;
    tensor(dx, x.shape().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sigmoid_is_right_to_the_last_places() {
        let worst = (-800_000..800_000).map(|at| {
            let x = at as f32 * 1e-4;
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            ((f64::from(sigmoid(x)) - exact) / exact).abs() / f64::from(f32::EPSILON)
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst <= 2.0, "{worst} units");
    }

    #[test]
    fn the_ends_hold_and_no_number_stays_none() {
        assert_eq!([sigmoid(f32::INFINITY), sigmoid(1e30), sigmoid(0.0), sigmoid(-0.0)], [1.0, 1.0, 0.5, 0.5]);
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-37 && sigmoid(f32::NAN).is_nan());
    }

    #[test]
    fn a_normal_distribution_is_right_in_its_middle_and_in_its_tails() {
        // From tables of 1/2 erfc(-x / sqrt 2), to sixteen digits.
        let exact = [
            (-8.0, 6.220_960_574_271_82e-16, 1.266_416_554_909_417_6e-14),
            (-4.0, 3.167_124_183_311_992e-5, 3.354_626_279_025_118e-4),
            (-1.0, 0.158_655_253_931_457_05, 0.606_530_659_712_633_4),
            (-0.25, 0.401_293_674_317_076_3, 0.969_233_234_476_344_1),
            (0.0, 0.5, 1.0),
            (0.5, 0.691_462_461_274_013_1, 0.882_496_902_584_595_4),
            (2.0, 0.977_249_868_051_820_8, 0.135_335_283_236_612_7),
            (6.0, 0.999_999_999_013_412_3, 1.522_997_974_471_263e-8),
        ];
        for (x, below, bell) in exact {
            let [own, peak] = normal(x);
            assert!((f64::from(own) - below).abs() <= 5e-7 * below, "{x}: {own}");
            assert!((f64::from(peak) - bell).abs() <= 5e-6 * bell, "{x}: {peak}");
        }
        assert_eq!(normal(f32::NEG_INFINITY)[0] < 1e-37, normal(f32::INFINITY)[0] == 1.0);
        assert!(normal(f32::NAN)[0].is_nan());
    }
}
