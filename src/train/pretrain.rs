//! The pretrain stage: a source model from random weights, kept as a weight file.

use anyhow::Context;

use super::Shelf;
use super::fit::{Setting, fit};
use super::source::Source;
use crate::data::split::split;
use crate::exec::Network;
use crate::key::Key;
use crate::model::init;
use crate::outcome::Progress;
use crate::outcome::{Ending, Outcome};
use crate::plan::stage::Pretrain;
use crate::recipe::{BatchNorm, Metric};

pub fn run(stage: &Pretrain, shelf: &mut Shelf, tell: &mut dyn FnMut(Progress)) -> anyhow::Result<Outcome> {
    let graph = stage.arch.graph(stage.classes).map_err(anyhow::Error::msg)?;
    let weights = init::fresh(&graph, 0, stage.seed, 0)?;
    let manifest = shelf.manifest(stage.data)?;
    let split = split(&manifest, None, stage.seed, 0).map_err(anyhow::Error::msg).context("the source dataset")?;
    let source = Source::Images { packed: shelf.packed(stage.data, stage.frame())?, preprocess: stage.preprocess };
    let mut network = Network::new(graph, &weights, &shelf.device)?;
    network.batch_norm = BatchNorm::Train;
    let setting = Setting {
        source: &source,
        manifest: &manifest,
        split: &split,
        seed: stage.seed,
        replicate: 0,
        phase: 0,
        head: 0,
        early_stop: None,
        metric: Metric::Accuracy,
        keep_best: false,
    };
    let result = fit(&mut network, &stage.phase, &setting, tell)?;
    anyhow::ensure!(
        result.ending == Ending::Finished,
        "pretraining diverged after {} steps: lower `lr` under [pretrain]",
        result.steps
    );
    network.weights()?.write(&shelf.places.cache.join(format!("{}.safetensors", Key::of("pretrain", stage))))?;
    let macs = 3.0 * network.graph.total_macs() as f64 * (result.steps * stage.phase.batch) as f64;
    Ok(Outcome { seconds: 0.0, macs, numerics: shelf.numerics.to_owned(), trial: None, warnings: Vec::new() })
}
