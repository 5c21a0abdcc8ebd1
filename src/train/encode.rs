//! The encode stages: one pass of a frozen prefix over every image that some trial above it reads, for all the layers
//! that are to be kept.

use std::collections::BTreeSet;

use anyhow::Context;
use candle_core::Tensor;

use super::codes::{Piece, joined, layers, pieces};
use super::features::{Row, Writer};
use super::inputs::ALL_REPLICATES;
use super::source::{Change, Source};
use super::{Group, Shelf};
use crate::data::split::split;
use crate::exec::{AT_ONCE, Encoder, Network, Parts};
use crate::key::Key;
use crate::model::freezing::pooled;
use crate::model::graph::Shape;
use crate::nn::coming::Coming;
use crate::outcome::Outcome;
use crate::outcome::Progress;
use crate::plan::stage::{Encode, Encoded, Work};
use crate::recipe::Pool;

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
    pieces: Vec<Piece>,
    /// Of one image.
    shape: Shape,
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
            if let Some((pieces, shape)) = served(stages[*index], &network, shelf)? {
                kept.push(Kept { stage: *index, pieces, shape });
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
        let key = Key::of("encode", stages[kept.stage]);
        Writer::new(&shelf.places.features(key), ids.to_vec(), &kept.shape)
    }

    /// All that is kept of some images.
    fn features(&self, images: &Tensor) -> candle_core::Result<Vec<Coming>> {
        let layers: Vec<usize> = self.kept.iter().flat_map(|kept| layers(&kept.pieces)).collect();
        let mut found = self.encoder.features(images, &layers, Parts::Alike)?.into_iter();
        let of = |kept: &Kept| {
            let own: Vec<Tensor> = found.by_ref().take(kept.pieces.len()).collect();
            Coming::of(&joined(&kept.pieces, &self.encoder.network, &own)?)
        };
        self.kept.iter().map(of).collect()
    }
}

/// Writes the features of a batch, each into its file.
fn write(files: &mut [Writer], coming: Vec<Coming>) -> anyhow::Result<()> {
    files.iter_mut().zip(coming).try_for_each(|(file, coming)| coming.read(|rows| file.rows(rows))?)
}

/// Where `network` has what a stage keeps, if it has it, and the shape of that.
fn served(stage: &Encode, network: &Network, shelf: &Shelf) -> anyhow::Result<Option<(Vec<Piece>, Shape)>> {
    let backbone = stage.backbone.arch.backbone(&stage.backbone.tap).map_err(anyhow::Error::msg)?;
    let whole = pooled(&backbone, stage.pool.unwrap_or(Pool::Flatten));
    let cut = whole.find(&stage.cut).with_context(|| format!("no layer '{}'", stage.cut))?;
    let pieces = pieces(&backbone, stage.pool, cut, network, &shelf.device)?;
    Ok(pieces.map(|pieces| (pieces, whole.layers[cut].shape)))
}

/// Every image that some replicate reads, in the order of the manifest; views behind it.
fn rows(stage: &Encode, shelf: &mut Shelf) -> anyhow::Result<Vec<Row>> {
    let manifest = shelf.manifest(stage.data)?;
    let (mut plain, mut trained, mut validated) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::<u32>::new());
    for replicate in 0..stage.replicates {
        let split = split(&manifest, stage.per_class, stage.seed, replicate as u64).map_err(anyhow::Error::msg)?;
        validated.extend(split.val.iter().copied());
        plain.extend(split.evaluated());
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
        let change = Change { list, seed: stage.seed, replicate: ALL_REPLICATES, epoch: view, mix: None };
        parts.push(source.changed(&samples, &change, &shelf.device)?);
    }
    match parts.as_slice() {
        [one] => Ok(one.clone()),
        parts => Ok(Tensor::cat(parts, 0)?),
    }
}
