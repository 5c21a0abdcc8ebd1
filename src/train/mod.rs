//! Does the work of a stage on a device. One file per kind of stage, and what they share.

mod abreast;
mod bank;
mod course;
mod device;
mod encode;
mod evaluate;
mod export;
mod extract;
mod feature_file;
mod features;
mod hdf5;
mod inputs;
mod lane;
mod learner;
mod lineup;
mod lockstep;
mod memory;
pub mod pace;
mod pretrain;
mod record;
mod shelf;
mod solve;
mod source;
mod trial;

pub use crate::nn::on_pool;
pub use abreast::WORTH;
pub use device::{built_for, cuda_libraries, on_device, open_device};
pub use export::{Exported, export, exportable};
pub use extract::{Extraction, extract};
pub use feature_file::Kind as FeatureKind;
pub use memory::{bytes as device_bytes, macs as device_macs};
pub use shelf::{Places, Shelf};

use crate::outcome::{Failure, FailureClass, Outcome, Progress};
use crate::plan::stage::{Stage, Train, Work};

/// What a group of stages tells while it runs; stages are named by their place in the group.
pub enum Told {
    /// Of the group as a whole.
    Progress(Progress),
    Done(usize, Box<Outcome>),
}

/// Stages that run together, and who hears of them.
pub struct Group<'a> {
    pub works: Vec<&'a Work>,
    pub hear: &'a mut dyn FnMut(Told),
}

impl Group<'_> {
    fn tell(&mut self, progress: Progress) {
        (self.hear)(Told::Progress(progress));
    }

    /// A stage is done; it takes the warnings that have gathered.
    fn done(&mut self, stage: usize, mut outcome: Outcome, shelf: &mut Shelf) {
        outcome.warnings.append(&mut shelf.warnings);
        (self.hear)(Told::Done(stage, Box::new(outcome)));
    }
}

/// Runs stages of one kind together, each to its outcome.
///
/// # Errors
/// A classified failure of those that are not done yet; divergence is an outcome and no failure.
pub fn run(works: &[Work], shelf: &mut Shelf, hear: &mut dyn FnMut(Told)) -> Result<(), Failure> {
    let precision = works.first().map_or_else(Default::default, |work| work.stage.precision());
    if works.iter().any(|work| work.stage.precision() != precision) {
        return Err(classify(&anyhow::anyhow!("stages that round differently do not run together")));
    }
    let _rounding = crate::nn::round(precision);
    let mut group = Group { works: works.iter().collect(), hear };
    let (mut encodes, mut trials) = (Vec::new(), Vec::new());
    let mut result = Ok(());
    for (index, work) in works.iter().enumerate() {
        match &work.stage {
            Stage::Encode(stage) => encodes.push(stage),
            Stage::Train(stage) if stage.solves() => {
                result = result.and_then(|()| solve::run(index, stage, &mut group, shelf));
            }
            Stage::Train(stage) => trials.push(&**stage),
            Stage::Pretrain(stage) => result = result.and_then(|()| pretrain::run(index, stage, &mut group, shelf)),
        }
    }
    if result.is_ok() && encodes.len() == works.len() {
        result = encode::run_all(&encodes, &mut group, shelf);
    } else if result.is_ok() && trials.len() == works.len() {
        result = lockstep::run(&trials, &mut group, shelf);
    } else if result.is_ok() && !(encodes.is_empty() && trials.is_empty()) {
        result = Err(anyhow::anyhow!("stages of different kinds do not run together"));
    }
    // The next stages have other shapes.
    crate::nn::buffer::release();
    result.map_err(|error| match classify(&error) {
        Failure { class: FailureClass::OutOfMemory, message } => {
            // What is kept for later tensors is free as well.
            crate::nn::give_back(&shelf.device);
            let message = memory::too_little(works, shelf, &message);
            Failure { class: FailureClass::OutOfMemory, message }
        }
        other => other,
    })
}

fn classify(error: &anyhow::Error) -> Failure {
    let message = format!("{error:#}");
    let lower = message.to_lowercase();
    let class = if lower.contains("out of memory") || lower.contains("out_of_memory") {
        FailureClass::OutOfMemory
    } else if lower.contains("cuda") {
        FailureClass::Device
    } else if error.chain().any(|cause| cause.is::<std::io::Error>()) || lower.contains("weights") {
        FailureClass::Data
    } else {
        FailureClass::Bug
    };
    Failure { class, message }
}

/// Bytes that a training step keeps of each image for its backward pass: with every output kept, and with those of batch
/// norms and activations computed again.
///
/// # Errors
/// Only candle's own.
pub fn kept_bytes(graph: &crate::model::graph::Graph, frozen: usize) -> anyhow::Result<[usize; 2]> {
    let weights = crate::model::init::zeros(graph)?;
    let mut network = crate::exec::Network::new(graph.clone(), &weights, &candle_core::Device::Cpu)?;
    network.frozen = frozen;
    let kept = 4 * network.kept();
    network.recompute = true;
    Ok([kept, 4 * network.kept()])
}

/// Reads a weight file and checks that it fits an architecture up to a tap, tensor by tensor.
///
/// # Errors
/// What does not fit, on both sides.
pub fn check_weights(path: &std::path::Path, arch: &crate::model::arch::Arch, tap: &str) -> anyhow::Result<()> {
    crate::model::weights::Weights::load(path, arch, tap).map(drop)
}

/// Numbers of a trial's whole network.
fn all_params(stage: &Train) -> anyhow::Result<usize> {
    Ok(stage.network().map_err(anyhow::Error::msg)?.0.total_params())
}
