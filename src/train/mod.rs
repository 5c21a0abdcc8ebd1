//! Does the work of a stage on a device. One file per kind of stage, and what they share.

mod abreast;
mod bank;
mod coded;
mod codes;
mod course;
mod descent;
mod device;
mod encode;
mod evaluate;
mod export;
mod extract;
mod feature_file;
mod features;
mod hdf5;
mod inputs;
mod kept;
mod lane;
mod learner;
mod lineup;
mod lockstep;
mod look;
mod mean;
mod memory;
mod onnx;
pub mod pace;
mod path;
mod predict;
mod pretrain;
mod record;
mod shelf;
mod solve;
mod solved_start;
mod source;
mod survey;
mod transferability;
mod trial;
mod zero_shot;

pub use crate::nn::{libraries, on_pool};
pub use abreast::WORTH;
pub use device::{built_for, cuda_libraries, obstacle, on_device, open_device, runs_on};
pub use export::{Exported, Form, Origin, export, exportable, reformed};
pub use extract::{Extraction, extract};
pub use feature_file::Kind as FeatureKind;
pub use look::{Filters, Sight, filters, look};
pub use memory::{bytes as device_bytes, macs as device_macs};
pub use predict::{Said, predict};
pub use shelf::{Places, Shelf};
pub use survey::{NEIGHBOURS, Reading, Readings, Survey, survey};
pub use transferability::{Fit, fit};
pub use zero_shot::{head as named_head, prepared as prepared_head};

use crate::outcome::{Failure, FailureClass, Outcome, Progress, says_disk_full};
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

/// Runs stages of one kind together, each to its outcome. Where a device has too little memory for them and for the features
/// that stay there, those go, and the stages run once more.
///
/// # Errors
/// A classified failure of those that are not done yet; divergence is an outcome and no failure.
pub fn run(works: &[Work], shelf: &mut Shelf, hear: &mut dyn FnMut(Told)) -> Result<(), Failure> {
    shelf.tidy(works);
    let mut open: Vec<usize> = (0..works.len()).collect();
    loop {
        let group: Vec<&Work> = open.iter().map(|index| &works[*index]).collect();
        let mut done = Vec::new();
        let ended = run_once(group, shelf, &mut |told| {
            hear(match told {
                Told::Done(stage, outcome) => {
                    done.push(open[stage]);
                    Told::Done(open[stage], outcome)
                }
                progress => progress,
            });
        });
        // The next stages have other shapes.
        crate::nn::buffer::release();
        let Err(error) = ended else { return Ok(()) };
        let failure = classify(&error);
        if failure.class != FailureClass::OutOfMemory {
            return Err(failure);
        }
        let again = shelf.clear_device();
        // What is kept for later tensors is free as well.
        crate::nn::give_back(&shelf.device);
        open.retain(|index| !done.contains(index));
        if !again {
            let message = memory::too_little(works, shelf, &failure.message);
            return Err(Failure { message, ..failure });
        }
    }
}

fn run_once(works: Vec<&Work>, shelf: &mut Shelf, hear: &mut dyn FnMut(Told)) -> anyhow::Result<()> {
    let precision = works.first().map_or_else(Default::default, |work| work.stage.precision());
    let alike = works.iter().all(|work| work.stage.precision() == precision);
    anyhow::ensure!(alike, "stages that round differently do not run together");
    let _rounding = crate::nn::round(precision);
    let (mut encodes, mut trials) = (Vec::new(), Vec::new());
    let mut group = Group { works, hear };
    for (index, work) in group.works.clone().into_iter().enumerate() {
        match &work.stage {
            Stage::Encode(stage) => encodes.push(stage),
            Stage::Train(stage) if stage.solves() => solve::run(index, stage, &mut group, shelf)?,
            Stage::Train(stage) => trials.push(&**stage),
            Stage::Pretrain(stage) => pretrain::run(index, stage, &mut group, shelf)?,
        }
    }
    match group.works.len() {
        all if encodes.len() == all => encode::run_all(&encodes, &mut group, shelf),
        all if trials.len() == all => lockstep::run(&trials, &mut group, shelf),
        _ if encodes.is_empty() && trials.is_empty() => Ok(()),
        _ => anyhow::bail!("stages of different kinds do not run together"),
    }
}

fn classify(error: &anyhow::Error) -> Failure {
    let message = said(error);
    let lower = message.to_lowercase();
    let class = if error.is::<pretrain::Diverged>() {
        FailureClass::Diverged
    } else if says_disk_full(&message) {
        FailureClass::DiskFull
    } else if lower.contains("out of memory") || lower.contains("out_of_memory") {
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

/// An error and its causes in a line. Where RUST_BACKTRACE is set, candle writes pages of frames into its messages: they say
/// nothing of what is wrong, and words in them would be taken for a cause.
pub fn said(error: &anyhow::Error) -> String {
    let one = |cause: &(dyn std::error::Error + 'static)| {
        let mut plain = cause.downcast_ref::<candle_core::Error>();
        while let Some(candle_core::Error::WithBacktrace { inner, .. }) = plain {
            plain = Some(inner);
        }
        plain.map_or_else(|| cause.to_string(), candle_core::Error::to_string)
    };
    error.chain().map(one).collect::<Vec<_>>().join(": ")
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
    let (network, _) = stage.network().map_err(anyhow::Error::msg)?;
    Ok(network.total_params() - crate::model::lora::idle(&network))
}
