//! The compute core: definitions against finite differences (`differences`), the fast loops against the definitions
//! (`fast`, `transformers`) and against PyTorch (`torch`, `steps`), the promise about bits (`bits`, `fingerprint`), and all of it on every
//! instruction path of this machine (`paths`) and on its GPU (`gpu`).

mod bits;
mod differences;
mod fast;
mod fingerprint;
#[cfg(feature = "cuda")]
mod gpu;
mod paths;
#[cfg(feature = "cuda")]
mod recorded;
mod solve;
mod steps;
mod torch;
mod transformers;
mod twin;

use candle_core::{Device, Tensor};
use tl_sweep::device::CpuPath;

/// What an operator may differ by from its definition, as a part of the largest number there is.
fn tolerance() -> f64 {
    if device().is_cpu() { 1e-5 } else { 1e-4 }
}

/// The device that `gpu` asked this process for, or the CPU.
fn device() -> Device {
    #[cfg(feature = "cuda")]
    if std::env::var_os(gpu::ASKED).is_some() {
        return gpu::device();
    }
    Device::Cpu
}

/// Uses the instruction path that `paths` asked this process for. Every test of the fast loops begins with it.
fn on_path() {
    if let Ok(name) = std::env::var("TL_SWEEP_CPU_PATH") {
        CpuPath::choose(&name).unwrap();
    }
}

/// PCG's output of successive seeds, as `fixtures/steps.py` has it.
fn words(count: usize, seed: u64) -> impl Iterator<Item = u32> {
    let first = seed.wrapping_mul(1_000_003);
    (0..count as u64).map(move |at| {
        let state = (at.wrapping_add(first) as u32).wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
        (word >> 22) ^ word
    })
}

/// Uniform in [-1, 1), exact in f32.
pub fn uniform(count: usize, seed: u64) -> Vec<f64> {
    words(count, seed).map(|word| f64::from(word >> 8) / f64::from(1 << 23) - 1.0).collect()
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// A tensor of numbers that are exact in f32.
fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
    let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    Tensor::from_vec(values, shape, &device()).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The bits of a tensor.
fn bits(tensor: &Tensor) -> Vec<u32> {
    floats(tensor).into_iter().map(f32::to_bits).collect()
}

/// Fails unless `found` is `expected` to `tolerance` of the largest value there is (or of 1).
#[track_caller]
fn close(name: &str, found: &Tensor, expected: &[f64]) {
    close_among(name, found, expected, 1.0);
}

/// The same where numbers as large as `least` are added on the way to smaller ones.
#[track_caller]
fn close_among(name: &str, found: &Tensor, expected: &[f64], least: f64) {
    let found = doubles(&floats(found));
    assert_eq!(found.len(), expected.len(), "{name}");
    let scale = least.max(1.0);
    let scale = expected.iter().fold(scale, |scale, value| scale.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance() * scale, "{name} at {at}: {found} against {expected}");
    }
}
