//! The encode stage: one pass of a frozen prefix over every image that some trial above it reads.

use std::collections::BTreeSet;

use anyhow::Context;

use super::source::Source;
use super::{Shelf, features};
use crate::data::split::split;
use crate::exec::Network;
use crate::key::Key;
use crate::model::freezing::with_head;
use crate::outcome::Outcome;
use crate::outcome::Progress;
use crate::plan::stage::Encode;
use crate::plan::stage::Work;
use crate::recipe::{Head, Pool};

const BATCH: usize = 64;

pub fn run(stage: &Encode, work: &Work, shelf: &mut Shelf, tell: &mut dyn FnMut(Progress)) -> anyhow::Result<Outcome> {
    let manifest = shelf.manifest(stage.data)?;
    let mut union = BTreeSet::new();
    for replicate in 0..stage.replicates {
        let split = split(&manifest, stage.per_class, stage.seed, replicate as u64).map_err(anyhow::Error::msg)?;
        union.extend(split.train.into_iter().chain(split.val).chain(split.test));
    }
    let samples: Vec<u32> = union.into_iter().collect();
    let weights = shelf.weights(&stage.backbone, work)?.context("a random backbone is never encoded")?;
    let backbone = stage.backbone.arch.backbone(&stage.backbone.tap).map_err(anyhow::Error::msg)?;
    // The head above the cut does not matter: it is cut off again.
    let whole = with_head(&backbone, stage.pool.unwrap_or(Pool::Flatten), &Head::Linear, 2, 0.0);
    let cut = whole.find(&stage.cut).with_context(|| format!("no layer '{}'", stage.cut))?;
    let mut network = Network::new(whole.truncate(cut), &weights, &shelf.device)?;
    network.frozen = network.graph.layers.len();
    let source = Source::Images {
        packed: shelf.packed(stage.data, stage.backbone.frame())?,
        preprocess: stage.backbone.preprocess,
    };
    let shape = network.graph.layers[network.graph.last()].shape;
    let mut rows: Vec<f32> = Vec::with_capacity(samples.len() * shape.iter().product::<usize>());
    for (index, batch) in samples.chunks(BATCH).enumerate() {
        let found = network.infer(&source.batch(batch, &shelf.device)?)?;
        rows.extend(found.flatten_all()?.to_vec1::<f32>()?);
        tell(Progress { step: (index + 1) * BATCH, steps: samples.len(), loss: 0.0, accuracy: None });
    }
    features::write(
        &shelf.places.cache.join(format!("{}.features", Key::of("encode", stage))),
        &samples,
        &shape,
        &rows,
    )?;
    let macs = network.graph.total_macs() as f64 * samples.len() as f64;
    Ok(Outcome { seconds: 0.0, macs, numerics: shelf.numerics.to_owned(), trial: None, warnings: Vec::new() })
}
