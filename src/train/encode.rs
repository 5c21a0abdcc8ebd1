//! The encode stages: one pass of a frozen prefix over every image that some trial above it reads, for all the layers
//! that are to be kept.

use std::collections::BTreeSet;

use anyhow::Context;
use candle_core::Tensor;

use super::features::{Row, Writer};
use super::inputs::ALL_REPLICATES;
use super::source::{Change, Source};
use super::{Group, Shelf};
use crate::data::split::split;
use crate::exec::{AT_ONCE, Encoder, Network, Parts};
use crate::key::Key;
use crate::model::freezing::with_head;
use crate::nn::coming::Coming;
use crate::outcome::Outcome;
use crate::outcome::Progress;
use crate::plan::stage::{Encode, Encoded, Work};
use crate::recipe::{Head, Pool};

pub const BATCH: usize = AT_ONCE;

/// Runs encodings of one backbone on one set of images. A layer that the deepest pass has not got as a tensor of its own
/// gets a pass of its own.
pub fn run_all(stages: &[&Encode], group: &mut Group, shelf: &mut Shelf) -> anyhow::Result<()> {
    let mut open: Vec<usize> = (0..stages.len()).collect();
    while !open.is_empty() {
        let start = std::time::Instant::now();
        let pass = Pass::deepest(stages, &open, &group.works, shelf)?;
        let members: Vec<usize> = pass.kept.iter().map(|kept| kept.stage).collect();
        let macs = pass.run(stages, group, shelf)?;
        open.retain(|index| !members.contains(index));
        for member in &members {
            // What is computed once is paid for in equal parts.
            let share = 1.0 / members.len() as f64;
            let outcome = Outcome {
                seconds: start.elapsed().as_secs_f64() * share,
                macs: macs * share,
                numerics: shelf.places.numerics.clone(),
                trial: None,
                warnings: Vec::new(),
                group: members.len(),
                abreast: None,
                part: 1.0,
            };
            group.done(*member, outcome, shelf);
        }
    }
    Ok(())
}

/// One encoding alone, where its features turned out to be gone or damaged.
pub fn again(stage: &Encode, work: &Work, shelf: &mut Shelf) -> anyhow::Result<()> {
    let mut group = Group { works: vec![work], hear: &mut |_| () };
    let pass = Pass::deepest(&[stage], &[0], &group.works, shelf)?;
    pass.run(&[stage], &mut group, shelf).map(drop)
}

/// One run through a network, and what is kept of it.
struct Pass {
    encoder: Encoder,
    kept: Vec<Kept>,
}

struct Kept {
    stage: usize,
    /// The layer of the pass that is read.
    layer: usize,
    /// What stands between it and the features: the pooling of the head.
    tail: Option<Network>,
}

impl Pass {
    /// The pass of the deepest stage in `open`, and all others that it can serve.
    fn deepest(stages: &[&Encode], open: &[usize], works: &[&Work], shelf: &mut Shelf) -> anyhow::Result<Self> {
        let mut found: Option<(usize, crate::model::graph::Graph)> = None;
        for index in open {
            let stage = stages[*index];
            let backbone = stage.backbone.arch.backbone(&stage.backbone.tap).map_err(anyhow::Error::msg)?;
            let own = backbone.find(&stage.cut).map_or(backbone.clone(), |cut| backbone.truncate(cut));
            if found.as_ref().is_none_or(|(_, graph)| graph.layers.len() < own.layers.len()) {
                found = Some((*index, own));
            }
        }
        let (deepest, graph) = found.context("a group without stages")?;
        let stage = stages[deepest];
        let weights = shelf.weights(&stage.backbone, works[deepest])?.context("a random backbone is never encoded")?;
        let mut network = Network::new(graph, &weights, &shelf.device)?;
        network.frozen = network.graph.layers.len();
        let mut kept = Vec::new();
        for index in open {
            if let Some((layer, tail)) = served(stages[*index], &network, shelf)? {
                kept.push(Kept { stage: *index, layer, tail });
            }
        }
        Ok(Self { encoder: Encoder::new(network), kept })
    }

    /// Encodes all images and writes the files; returns the multiply-accumulates.
    fn run(&self, stages: &[&Encode], group: &mut Group, shelf: &mut Shelf) -> anyhow::Result<f64> {
        let stage = stages[self.kept[0].stage];
        let source = Source::Images {
            packed: shelf.packed(stage.data, stage.backbone.frame())?,
            preprocess: stage.backbone.preprocess,
        };
        let ids = rows(stage, shelf)?;
        let mut files =
            self.kept.iter().map(|kept| self.file(kept, stages, &ids, shelf)).collect::<Result<Vec<_>, _>>()?;
        let mut coming = Vec::new();
        for (index, batch) in ids.chunks(BATCH).enumerate() {
            // A GPU is at work on this batch while the one before is written.
            let next = self.features(&inputs(&source, stage, batch, shelf)?)?;
            write(&mut files, std::mem::replace(&mut coming, next))?;
            group.tell(Progress { step: (index + 1) * BATCH, steps: ids.len(), loss: 0.0, accuracy: None });
        }
        write(&mut files, coming)?;
        shelf.warn(self.encoder.warning());
        files.into_iter().try_for_each(Writer::finish)?;
        Ok(self.encoder.network.graph.total_macs() as f64 * ids.len() as f64)
    }

    /// The file of what is kept.
    fn file(&self, kept: &Kept, stages: &[&Encode], ids: &[Row], shelf: &Shelf) -> anyhow::Result<Writer> {
        let graph = &kept.tail.as_ref().unwrap_or(&self.encoder.network).graph;
        let shape = graph.layers[if kept.tail.is_some() { graph.last() } else { kept.layer }].shape;
        let key = Key::of("encode", stages[kept.stage]);
        Writer::new(&shelf.places.features(key), ids.to_vec(), &shape)
    }

    /// All that is kept of some images.
    fn features(&self, images: &Tensor) -> candle_core::Result<Vec<Coming>> {
        let layers: Vec<usize> = self.kept.iter().map(|kept| kept.layer).collect();
        let found = self.encoder.features(images, &layers, Parts::Alike)?;
        let of = |(kept, found): (&Kept, Tensor)| match &kept.tail {
            Some(tail) => Coming::of(&tail.infer(&self.encoder.network.as_images(kept.layer, &found)?)?),
            None => Coming::of(&found),
        };
        self.kept.iter().zip(found).map(of).collect()
    }
}

/// Writes the features of a batch, each into its file.
fn write(files: &mut [Writer], coming: Vec<Coming>) -> anyhow::Result<()> {
    files.iter_mut().zip(coming).try_for_each(|(file, coming)| coming.read(|rows| file.rows(rows))?)
}

/// Where `network` has what a stage keeps, if it has it: the layer, and what comes behind it.
fn served(stage: &Encode, network: &Network, shelf: &Shelf) -> anyhow::Result<Option<(usize, Option<Network>)>> {
    let backbone = stage.backbone.arch.backbone(&stage.backbone.tap).map_err(anyhow::Error::msg)?;
    // The head above the cut does not matter: it is cut off again.
    let whole = with_head(&backbone, stage.pool.unwrap_or(Pool::Flatten), &Head::Linear, 2, 0.0);
    let cut = whole.find(&stage.cut).with_context(|| format!("no layer '{}'", stage.cut))?;
    let last = cut.min(backbone.last());
    let layer = network.graph.find(&whole.layers[last].name).filter(|layer| network.stands_alone(*layer));
    let tail = if cut > last {
        let above = whole.truncate(cut).above(last);
        Some(Network::new(above, &Default::default(), &shelf.device)?)
    } else {
        None
    };
    Ok(layer.map(|layer| (layer, tail)))
}

/// Every image that some replicate reads, in the order of the manifest; views behind it.
fn rows(stage: &Encode, shelf: &mut Shelf) -> anyhow::Result<Vec<Row>> {
    let manifest = shelf.manifest(stage.data)?;
    let (mut plain, mut trained, mut validated) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::<u32>::new());
    for replicate in 0..stage.replicates {
        let split = split(&manifest, stage.per_class, stage.seed, replicate as u64).map_err(anyhow::Error::msg)?;
        validated.extend(split.val.iter().copied());
        plain.extend(split.val.into_iter().chain(split.test));
        trained.extend(split.train);
    }
    let views = match stage.images {
        Encoded::All => {
            plain.append(&mut trained);
            0
        }
        Encoded::Evaluated => 0,
        Encoded::Views { count, refit } => {
            if refit {
                trained.extend(validated);
            }
            count as u32
        }
    };
    let views = (1..=views).flat_map(|view| trained.iter().map(move |sample| (*sample, view)));
    Ok(plain.iter().map(|sample| (*sample, 0)).chain(views).collect())
}

/// The images of some rows; a view's changes are drawn once for all replicates.
fn inputs(source: &Source, stage: &Encode, rows: &[Row], shelf: &Shelf) -> anyhow::Result<Tensor> {
    let mut parts = Vec::new();
    for same in rows.chunk_by(|one, other| one.1 == other.1) {
        let samples: Vec<u32> = same.iter().map(|(sample, _)| *sample).collect();
        let view = u64::from(same[0].1);
        let list = if view == 0 { &[][..] } else { &stage.augment };
        let change = Change { list, seed: stage.seed, replicate: ALL_REPLICATES, epoch: view };
        parts.push(source.changed(&samples, &change, &shelf.device)?);
    }
    match parts.as_slice() {
        [one] => Ok(one.clone()),
        parts => Ok(Tensor::cat(parts, 0)?),
    }
}
