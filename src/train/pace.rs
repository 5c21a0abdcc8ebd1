//! How fast one slot runs a network on this machine, measured on one thread as a slot has it.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use crate::exec::{Mode, Network};
use crate::model::graph::Graph;
use crate::model::init;
use crate::nn::loss::{Targets, cross_entropies};
use crate::nn::{linear, one_thread};
use crate::seed::{Stream, stream};

/// Multiply-accumulates that a measurement is worth, where one image is not more already.
const WORTH: f64 = 1e9;
/// Seconds after which a run is not repeated.
const LONG: f64 = 0.2;
/// Most images of a batch.
const BATCH: usize = 64;

/// Multiply-accumulates per second of forward passes with stored statistics.
///
/// # Errors
/// Only candle's own.
pub fn forward(graph: &Graph) -> anyhow::Result<f64> {
    let (network, x, macs) = ready(graph)?;
    one_thread(|| fastest(macs, || network.infer(&x).map(drop)))?
}

/// Multiply-accumulates per second of training steps, backward passes counted.
///
/// # Errors
/// Only candle's own.
pub fn training(graph: &Graph) -> anyhow::Result<f64> {
    let (network, x, macs) = ready(graph)?;
    let step = || {
        let mut tape = network.forward(&x, Mode::Train(&mut stream(0, Stream::Dropout, &[])))?;
        let dy = tape.result()?.ones_like()?;
        network.backward(&mut tape, dy).map(drop)
    };
    one_thread(|| fastest(3.0 * macs, step))?
}

/// Multiply-accumulates per second of linear heads that train together: 8 of them, on 128 numbers, for ten classes.
///
/// # Errors
/// Only candle's own.
pub fn heads() -> anyhow::Result<f64> {
    const HEADS: usize = 8;
    let ones = |shape: (usize, usize)| Tensor::ones(shape, DType::F32, &Device::Cpu);
    let (x, weight, bias) = (ones((BATCH, 128))?, ones((HEADS * 10, 128))?, ones((1, HEADS * 10))?.flatten_all()?);
    let targets: Vec<Targets> = (0..HEADS).map(|_| Targets::default()).collect();
    let step = || {
        let logits = linear::heads_forward(&x, &weight, &bias)?;
        let (_, dy) = cross_entropies(&logits, &[0; BATCH], &targets)?;
        linear::heads_backward(&x, &dy, HEADS).map(drop)
    };
    one_thread(|| fastest(3.0 * (BATCH * weight.elem_count()) as f64, step))?
}

/// A network of zeros, a batch for it, and the multiply-accumulates of one pass. Zeros take as long as other numbers.
fn ready(graph: &Graph) -> anyhow::Result<(Network, Tensor, f64)> {
    let network = Network::new(graph.clone(), &init::zeros(graph)?, &Device::Cpu)?;
    let one = graph.total_macs().max(1) as f64;
    let images = ((WORTH / one) as usize).clamp(1, BATCH);
    let [channels, height, width] = graph.layers[0].shape;
    let x = Tensor::ones((images, channels, height, width), DType::F32, &Device::Cpu)?;
    Ok((network, x, one * images as f64))
}

/// The best of three runs, for the first finds caches cold; of a run that takes long this is a small part.
fn fastest(macs: f64, mut run: impl FnMut() -> candle_core::Result<()>) -> anyhow::Result<f64> {
    let mut seconds = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        run()?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
        if seconds > LONG {
            break;
        }
    }
    crate::nn::buffer::release();
    Ok(macs / seconds)
}
