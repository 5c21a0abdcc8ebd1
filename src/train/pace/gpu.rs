//! The pace of a GPU: networks as a sweep runs them, recorded where they can be, on one stream or on several at once.

use std::sync::Barrier;
use std::time::Instant;

use candle_core::{Device as CandleDevice, Tensor};

use super::{Effort, Subject, heads_on};
use crate::device::Device;
use crate::exec::routine::{Routine, States, TrainStep};
use crate::exec::{Encoder, Network, Parts};
use crate::model::init;
use crate::nn::buffer;
use crate::nn::cuda::device::synchronise;
use crate::nn::loss::Targets;
use crate::nn::optim::{Rule, Sizes, Step};
use crate::outcome::FailureClass;
use crate::seed::{Stream, stream};
use crate::train::{classify, open_device};

/// Runs before it counts: the first choose algorithms, the third is recorded.
const WARM: usize = 4;
/// Seconds that are measured; a run that takes longer is not repeated.
const SPAN: f64 = 0.2;
/// Seconds of runs before it counts, at most.
const PATIENCE: f64 = 4.0;
/// Heads that train together: a launch takes as long for many as for one, and a grid has many.
const HEADS: usize = 64;
const CLASSES: usize = 10;
/// Images of a batch at most: more do not change the pace.
const MOST: usize = 256;

/// Multiply-accumulates per second of `lanes` streams together, each at the same work.
///
/// # Errors
/// The device is not there, fails, or has too little memory for a batch of one image.
pub fn pace(device: Device, lanes: usize, subject: &Subject) -> anyhow::Result<f64> {
    let ready = Barrier::new(lanes);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..lanes).map(|_| scope.spawn(|| lane(device, subject, &ready))).collect();
        let paces = running.into_iter().map(|lane| lane.join().map_err(|_| anyhow::anyhow!("a lane has panicked"))?);
        paces.sum()
    })
}

/// One stream, in a thread of its own.
fn lane(device: Device, subject: &Subject, ready: &Barrier) -> anyhow::Result<f64> {
    let _rounding = crate::nn::round(subject.precision);
    let warm = open_device(device).map_err(|failure| anyhow::anyhow!(failure.message));
    let warm = warm.and_then(|device| warmed(&device, subject));
    // Those that have failed are waited for as well.
    ready.wait();
    let (macs, mut run, once) = warm?;
    if once > SPAN {
        return Ok(macs / once);
    }
    let count = (SPAN / once).clamp(1.0, 1000.0) as usize;
    let start = Instant::now();
    for _ in 1..count {
        buffer::recycle(run()?)?;
    }
    synchronise(&run()?)?;
    Ok(macs * count as f64 / start.elapsed().as_secs_f64())
}

/// Does a piece of work once, and returns something that it has computed.
type Run = Box<dyn FnMut() -> candle_core::Result<Tensor>>;

/// The work of a batch, its multiply-accumulates, and the seconds that it took when it last ran; with half the images where
/// the memory is too little.
fn warmed(device: &CandleDevice, subject: &Subject) -> anyhow::Result<(f64, Run, f64)> {
    let mut batch = subject.batch.clamp(1, MOST);
    loop {
        let tried = work(device, subject, batch).and_then(|(macs, mut run)| {
            // Making and loading a large network takes seconds, too, and says nothing of its pace.
            let (begun, mut once) = (Instant::now(), f64::INFINITY);
            for _ in 0..WARM {
                let start = Instant::now();
                synchronise(&run()?)?;
                once = start.elapsed().as_secs_f64();
                if begun.elapsed().as_secs_f64() > PATIENCE {
                    break;
                }
            }
            Ok((macs, run, once))
        });
        match tried {
            Err(error) if batch > 1 && classify(&error).class == FailureClass::OutOfMemory => batch /= 2,
            tried => return tried,
        }
        crate::nn::give_back(device);
    }
}

fn work(device: &CandleDevice, subject: &Subject, batch: usize) -> anyhow::Result<(f64, Run)> {
    if subject.effort == Effort::Heads {
        let (macs, run) = heads_on(HEADS, device)?;
        return Ok((macs, Box::new(run)));
    }
    let graph = &subject.graph;
    // Numbers that are no zeros: a GPU multiplies those faster.
    let mut network = Network::new(graph.clone(), &init::fresh(graph, 0, 1, 0)?, device)?;
    let [channels, height, width] = graph.layers[0].shape;
    let x = Tensor::ones((batch, channels, height, width), candle_core::DType::F32, device)?;
    let macs = (batch as u64 * graph.total_macs().max(1)) as f64;
    let last = graph.last();
    if subject.effort == Effort::Forward {
        network.frozen = graph.layers.len();
        let encoder = Encoder::new(network);
        return Ok((macs, Box::new(move || Ok(encoder.features(&x, &[last], Parts::Own)?.remove(0)))));
    }
    network.own()?;
    let classes: usize = graph.layers[last].shape.iter().product();
    let labels: Vec<u32> = (0..batch).map(|image| (image % classes.min(CLASSES)) as u32).collect();
    let (mut routine, mut states) = (Routine::default(), States::new());
    let step = Step { lr: 1e-6, coupled_decay: 0.0, decoupled_decay: 0.0 };
    let sizes = Sizes::alike(step, network.graph.layers.len());
    let run = move || {
        let lesson = TrainStep {
            labels: (&labels).into(),
            targets: Targets::default(),
            rule: Rule::Sgd { momentum: 0.9, nesterov: false },
            sizes: &sizes,
            pull: None,
            clip: None,
        };
        routine.step(&network, &mut states, &x, &lesson, &mut stream(0, Stream::Dropout, &[]))
    };
    Ok((3.0 * macs, Box::new(run)))
}
