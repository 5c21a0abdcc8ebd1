//! How fast one slot runs a network on this machine: on a CPU measured on one thread, as a slot has it; on a GPU (`gpu`) on one
//! stream or on several at once.

#[cfg(feature = "cuda")]
mod gpu;

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::device::Precision;
use crate::exec::{AT_ONCE, Mode, Network};
use crate::model::graph::Graph;
use crate::model::init;
use crate::nn::loss::{Targets, cross_entropies};
use crate::nn::{linear, one_thread};
use crate::plan::stage::{Stage, Train};
use crate::seed::{Stream, stream};

/// What a slot's time goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// Passes without gradients.
    Forward,
    Training,
    /// Linear heads on features.
    Heads,
}

/// What is measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    pub effort: Effort,
    pub graph: Graph,
    /// Images of a step; on a CPU the pace does not follow from it.
    pub batch: usize,
    pub precision: Precision,
}

impl Subject {
    /// What a stage does: its own network in its largest batches.
    ///
    /// # Errors
    /// The stage names a network that there is none of.
    pub fn of(stage: &Stage) -> Result<Self, String> {
        let (effort, graph, batch) = match stage {
            Stage::Pretrain(own) => (Effort::Training, own.arch.graph(own.classes)?, own.phase.batch),
            Stage::Encode(own) => (Effort::Forward, own.backbone.arch.backbone(&own.backbone.tap)?, AT_ONCE),
            Stage::Train(own) => {
                let batch = own.phases.iter().map(|phase| phase.batch).max().unwrap_or(1);
                (Effort::Training, own.network()?.0, batch)
            }
        };
        Ok(Self { effort, graph, batch, precision: stage.precision() })
    }

    /// What a trial trains where the frozen layers below run for all: layers near the classifier are seldom as fast or as slow
    /// as a whole network.
    ///
    /// # Errors
    /// The stage names a network that there is none of.
    pub fn above_the_cut(own: &Train) -> Result<Self, String> {
        let whole = Self::of(&Stage::Train(Box::new(own.clone())))?;
        Ok(match own.shared_cut()? {
            Some(cut) => Self { graph: whole.graph.above(cut), ..whole },
            None => whole,
        })
    }

    /// Something else with the same network.
    pub fn doing(&self, effort: Effort) -> Self {
        let batch = if effort == Effort::Forward { AT_ONCE } else { self.batch };
        Self { effort, batch, ..self.clone() }
    }
}

/// Multiply-accumulates that a measurement is worth, where one image is not more already.
const WORTH: f64 = 1e9;
/// Seconds after which a run is not repeated.
const LONG: f64 = 0.2;
/// Most images of a batch.
const BATCH: usize = 64;
/// Heads that train together.
const HEADS: usize = 8;

/// Multiply-accumulates per second of one thread, backward passes counted where there are any.
///
/// # Errors
/// Only candle's own.
pub fn on_cpu(effort: Effort, graph: &Graph) -> anyhow::Result<f64> {
    match effort {
        Effort::Forward => forward(graph),
        Effort::Training => training(graph),
        Effort::Heads => heads(),
    }
}

/// Multiply-accumulates per second of so many streams of a GPU together, each at the same work.
///
/// # Errors
/// The device is not there, fails, or has too little memory for a batch of one image.
#[cfg(feature = "cuda")]
pub fn on_gpu(device: crate::device::Device, lanes: usize, subject: &Subject) -> anyhow::Result<f64> {
    gpu::pace(device, lanes, subject)
}

/// Refuses: this build has no GPU.
///
/// # Errors
/// Always.
#[cfg(not(feature = "cuda"))]
pub fn on_gpu(device: crate::device::Device, _: usize, _: &Subject) -> anyhow::Result<f64> {
    anyhow::bail!("{device}: {}", super::device::WITHOUT)
}

/// Passes with stored statistics.
fn forward(graph: &Graph) -> anyhow::Result<f64> {
    let (network, x, macs) = ready(graph)?;
    one_thread(|| fastest(macs, || network.infer(&x).map(drop)))?
}

fn training(graph: &Graph) -> anyhow::Result<f64> {
    let (network, x, macs) = ready(graph)?;
    let step = || {
        let mut tape = network.forward(&x, Mode::Train(&mut stream(0, Stream::Dropout, &[])))?;
        let dy = tape.result()?.ones_like()?;
        network.backward(&mut tape, dy).map(drop)
    };
    one_thread(|| fastest(3.0 * macs, step))?
}

/// Linear heads that train together.
fn heads() -> anyhow::Result<f64> {
    let (macs, mut step) = heads_on(HEADS, &Device::Cpu)?;
    one_thread(|| fastest(macs, || step().map(drop)))?
}

/// A step of so many heads on 128 numbers for ten classes, and its multiply-accumulates.
fn heads_on(
    heads: usize,
    device: &Device,
) -> candle_core::Result<(f64, impl FnMut() -> candle_core::Result<Tensor> + Send + use<>)> {
    let ones = |shape: (usize, usize)| Tensor::ones(shape, DType::F32, device);
    let (x, weight, bias) = (ones((BATCH, 128))?, ones((heads * 10, 128))?, ones((1, heads * 10))?.flatten_all()?);
    let targets: Vec<Targets> = (0..heads).map(|_| Targets::default()).collect();
    let macs = 3.0 * (BATCH * weight.elem_count()) as f64;
    let step = move || {
        let logits = linear::heads_forward(&x, &weight, &bias)?;
        let (_, dy) = cross_entropies(&logits, &[0; BATCH], &targets)?;
        let [gradient, _] = linear::heads_backward(&x, &dy, heads)?;
        Ok(gradient)
    };
    Ok((macs, step))
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
