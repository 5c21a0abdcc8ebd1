//! What a trial has trained, kept as a file: the tensors above what it shares with others, and a head that was solved.

use std::path::Path;

use anyhow::Context;
use candle_core::{Device, Tensor};

use crate::model::weights::Weights;
use crate::plan::stage::Work;

/// Keeps `weights` of a trial, if its are kept; they are asked for only then.
///
/// # Errors
/// The weights cannot be read from the device, or the file cannot be written.
pub fn keep(work: &Work, weights: impl FnOnce() -> anyhow::Result<Weights>) -> anyhow::Result<()> {
    let Some(path) = &work.keep else { return Ok(()) };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder '{}'", folder.display()))?;
    }
    weights()?.write(path)
}

/// What was kept of a trial; none if nothing was.
///
/// # Errors
/// The file is there and cannot be read.
pub fn kept(work: &Work) -> anyhow::Result<Option<Weights>> {
    let Some(path) = work.keep.as_deref().filter(|path| path.is_file()) else { return Ok(None) };
    read(path)
        .with_context(|| format!("'{}' is damaged: delete it, and the trial is run again", path.display()))
        .map(Some)
}

fn read(path: &Path) -> anyhow::Result<Weights> {
    Ok(Weights(candle_core::safetensors::load(path, &Device::Cpu)?.into_iter().collect()))
}

/// The names of a linear head's weights and biases.
pub const HEAD: [&str; 2] = ["head.linear.weight", "head.linear.bias"];

/// A linear head by its names.
pub fn head(weight: Tensor, bias: Tensor) -> Weights {
    let [of_weight, of_bias] = HEAD;
    Weights([(of_weight, weight), (of_bias, bias)].map(|(name, tensor)| (name.to_owned(), tensor)).into())
}
