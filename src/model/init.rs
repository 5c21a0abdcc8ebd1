//! Starting values of new parameters, each tensor from a stream of its own, so that a head starts the same under
//! every backbone and a layer starts the same whatever stands beside it.

use candle_core::{Device, Tensor};

use super::graph::{Graph, Op, POINTWISE, RELATIVE};
use super::lora::{is_addition, starts_at_zero};
use super::weights::Weights;
use crate::seed::{Rng, Stream, stream};

/// The standard deviation of fresh weights of transformers (timm and torchvision 0.29; Devlin et al., 2019).
const TRANSFORMER: f64 = 0.02;

/// Fresh values for the layers `from..` of `graph` and for low-rank additions below: He normal for weights in front of a ReLU (He et al., 2015,
/// fan in, gain sqrt 2), uniform within 1/sqrt(fan in) for a linear output layer (PyTorch's default), normal with a standard
/// deviation of .02 for tokens, positions, biases of windows and the dense layers between tokens; of additions A uniform within 1/sqrt(fan in), B zero
/// (PEFT's default; Hu et al., 2022, have A normal); zero biases, norms and other scales at identity,
/// or at what the network says.
///
/// # Errors
/// Only candle's own.
pub fn fresh(graph: &Graph, from: usize, seed: u64, replicate: u64) -> anyhow::Result<Weights> {
    let mut weights = Weights::default();
    for index in 0..graph.layers.len() {
        let layer = &graph.layers[index];
        if index < from && !is_addition(layer) {
            continue;
        }
        for param in graph.params(index) {
            let name = format!("{}.{}", layer.name, param.name);
            let count = param.shape.iter().product();
            let fan_in: usize = param.shape.iter().skip(1).product();
            let output = matches!(layer.op, Op::Linear { activation: super::graph::Activation::Linear, .. });
            let values = match param.name {
                "weight" if starts_at_zero(layer) => vec![0.0; count],
                // As its authors have it: at first nothing is raised.
                "weight" if matches!(layer.op, Op::ResponseNorm { .. }) => vec![0.0; count],
                "weight" if is_addition(layer) => draws(&mut named(seed, replicate, &name), count, fan_in, true),
                "weight" if matches!(layer.op, Op::Pointwise { .. } | Op::Tokens { .. } | Op::Positions) => {
                    let mut rng = named(seed, replicate, &name);
                    (0..count).map(|_| (rng.normal() * TRANSFORMER) as f32).collect()
                }
                RELATIVE => {
                    let mut rng = named(seed, replicate, &name);
                    (0..count).map(|_| (rng.normal() * TRANSFORMER) as f32).collect()
                }
                "weight" if let Op::LayerScale { init } = layer.op => vec![init as f32; count],
                "weight" if param.shape.len() == 1 => vec![1.0; count],
                "running_var" | "variance" => vec![1.0; count],
                "weight" | POINTWISE => draws(&mut named(seed, replicate, &name), count, fan_in, output),
                _ => vec![0.0; count],
            };
            weights.0.insert(name, Tensor::from_vec(values, param.shape, &Device::Cpu)?);
        }
    }
    Ok(weights)
}

/// Zeros everywhere, for questions that shapes alone answer.
///
/// # Errors
/// Only candle's own.
pub fn zeros(graph: &Graph) -> anyhow::Result<Weights> {
    let mut weights = Weights::default();
    for index in 0..graph.layers.len() {
        for param in graph.params(index) {
            let name = format!("{}.{}", graph.layers[index].name, param.name);
            weights.0.insert(name, Tensor::zeros(param.shape, candle_core::DType::F32, &Device::Cpu)?);
        }
    }
    Ok(weights)
}

fn named(seed: u64, replicate: u64, name: &str) -> Rng {
    let hash = blake3::hash(name.as_bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&hash.as_bytes()[..8]);
    stream(seed, Stream::Init, &[replicate, u64::from_le_bytes(id)])
}

fn draws(rng: &mut Rng, count: usize, fan_in: usize, output: bool) -> Vec<f32> {
    let fan_in = fan_in.max(1) as f64;
    (0..count)
        .map(|_| match output {
            true => rng.range(-1.0, 1.0) / fan_in.sqrt(),
            false => rng.normal() * (2.0 / fan_in).sqrt(),
        } as f32)
        .collect()
}
