//! What the networks of a group read: images or features, and the frozen layers that stand between the images and the
//! first layer that trains. Whatever several of them read is made once.

use candle_core::{Device, Tensor};

use super::Shelf;
use super::codes::{Piece, joined, layers, pieces};
use super::course::Draw;
use super::source::{Change, Source};
use crate::data::batch::order;
use crate::data::mix::Mix;
use crate::exec::{Encoder, Network, Parts};
use crate::model::graph::Graph;
use crate::plan::stage::{Encoded, Start, Train, Work};
use crate::seed::{Stream, stream};

/// In the stream of changes: those of a stored view, which all replicates share.
pub const ALL_REPLICATES: u64 = u64::MAX;

/// Everything that is read, by the networks of trials that share data, order and augmentation.
pub struct Inputs {
    seed: u64,
    replicate: u64,
    train: Vec<u32>,
    device: Device,
    images: Option<Source>,
    prefixes: Vec<Prefix>,
    feeds: Vec<Feed>,
    /// The order of the epoch that is read just now.
    order: Option<((usize, usize), Vec<u32>)>,
    /// Multiply-accumulates of prefixes so far.
    pub macs: f64,
}

/// Training images that are read together.
pub struct Batch<'a> {
    draw: &'a Draw<'a>,
    pub samples: Vec<u32>,
    /// How the images are mixed with one another.
    pub mix: Option<Mix>,
}

/// Frozen layers that run once for every batch, and the layers whose outputs are read.
struct Prefix {
    /// What decides its numbers.
    same: String,
    encoder: Encoder,
}

/// What a network reads.
#[derive(Clone)]
struct Feed {
    kind: Kind,
    /// The features of validation and test images, where training images run through a prefix.
    evaluated: Option<Source>,
    same: String,
}

#[derive(Clone)]
enum Kind {
    Images,
    Features(Source),
    Prefix { prefix: usize, pieces: Vec<Piece> },
}

impl Inputs {
    pub fn new(stage: &Train, train: Vec<u32>, device: Device) -> Self {
        Self {
            seed: stage.seed,
            replicate: stage.replicate as u64,
            train,
            device,
            images: None,
            prefixes: Vec::new(),
            feeds: Vec::new(),
            order: None,
            macs: 0.0,
        }
    }

    /// Adds what a trial reads, unless it is there, and returns its number. `whole` is the trial's network; the second
    /// number says how many of its first layers are not the trial's own any more.
    ///
    /// # Errors
    /// Pixels, weights or features cannot be read.
    pub fn add(
        &mut self,
        stage: &Train,
        work: &Work,
        whole: &Graph,
        shelf: &mut Shelf,
    ) -> anyhow::Result<(usize, usize)> {
        let stored = work.encode.as_ref().filter(|encode| encode.images != Encoded::Evaluated);
        if let Some(encode) = stored {
            let cut = whole.find(&encode.cut).ok_or_else(|| anyhow::anyhow!("no layer '{}'", encode.cut))?;
            let same = format!("{:?}", crate::key::Key::of("encode", encode));
            let features = shelf.features(encode, work)?;
            let source = Source::Features { features, shape: whole.layers[cut].shape, views: stage.views };
            return Ok((self.feed(Feed { kind: Kind::Features(source), evaluated: None, same }), cut));
        }
        let images = Source::Images {
            packed: shelf.packed(stage.data, stage.backbone.frame())?,
            preprocess: stage.backbone.preprocess,
        };
        self.images.get_or_insert(images);
        // On a GPU frozen layers run by themselves for a trial alone, too: in batches of one size they give the same bits. Those
        // of a random backbone are never shared.
        let apart = shelf.device.is_cuda() && stage.backbone.start != Start::Random;
        let cut = if work.prefix || apart { stage.shared_cut().map_err(anyhow::Error::msg)? } else { None };
        let Some(cut) = cut else {
            return Ok((self.feed(Feed { kind: Kind::Images, evaluated: None, same: String::new() }), 0));
        };
        let kind = self.prefix(stage, work, whole, cut, shelf)?;
        let evaluated = match &work.encode {
            Some(encode) => {
                let features = shelf.features(encode, work)?;
                Some(Source::Features { features, shape: whole.layers[cut].shape, views: None })
            }
            None => None,
        };
        let same = format!("{:?} {} {:?}", stage.backbone, whole.layers[cut].name, stage.pool);
        Ok((self.feed(Feed { kind, evaluated, same }), cut))
    }

    fn feed(&mut self, feed: Feed) -> usize {
        let known = self.feeds.iter().position(|known| known.same == feed.same);
        known.unwrap_or_else(|| {
            self.feeds.push(feed);
            self.feeds.len() - 1
        })
    }

    /// Frozen layers up to a cut: those of a prefix that is there, of a longer one in its place, or of one more.
    fn prefix(
        &mut self,
        stage: &Train,
        work: &Work,
        whole: &Graph,
        cut: usize,
        shelf: &mut Shelf,
    ) -> anyhow::Result<Kind> {
        let backbone = stage.backbone.arch.backbone(&stage.backbone.tap).map_err(anyhow::Error::msg)?;
        let pool = (cut > backbone.last()).then_some(stage.pool);
        let backbone_of = crate::plan::Backbone { tap: String::new(), ..stage.backbone.clone() };
        let same = serde_json::to_string(&backbone_of)?;
        for (index, prefix) in self.prefixes.iter().enumerate().filter(|(_, prefix)| prefix.same == same) {
            if let Some(pieces) = pieces(&backbone, pool, cut, &prefix.encoder.network, &shelf.device)? {
                return Ok(Kind::Prefix { prefix: index, pieces });
            }
        }
        let weights = shelf.weights(&stage.backbone, work)?.ok_or_else(|| anyhow::anyhow!("no weights to share"))?;
        let mut network = Network::new(backbone.truncate(cut.min(backbone.last())), &weights, &shelf.device)?;
        network.frozen = network.graph.layers.len();
        let pieces = pieces(&backbone, pool, cut, &network, &shelf.device)?
            .ok_or_else(|| anyhow::anyhow!("the prefix has no '{}'", whole.layers[cut].name))?;
        self.prefixes.push(Prefix { same, encoder: Encoder::new(network) });
        Ok(Kind::Prefix { prefix: self.prefixes.len() - 1, pieces })
    }

    /// What a person should know of how prefixes run.
    pub fn warning(&self) -> Option<String> {
        self.prefixes.iter().find_map(|prefix| prefix.encoder.warning())
    }

    /// What a draw reads.
    ///
    /// # Errors
    /// It mixes images where none are read: a bug.
    pub fn batch<'a>(&mut self, draw: &'a Draw<'a>) -> anyhow::Result<Batch<'a>> {
        let samples = self.samples(draw);
        let mixes = draw.augment.iter().any(|augmentation| augmentation.mixes());
        let mix = match &self.images {
            _ if !mixes => None,
            Some(Source::Images { packed, .. }) => {
                let path = [self.replicate, stream_epoch(draw), draw.within as u64];
                let mut rng = stream(self.seed, Stream::Mix, &path);
                Mix::drawn(draw.augment, samples.len(), packed.side, &mut rng)
            }
            _ => anyhow::bail!("features cannot be mixed as images are"),
        };
        Ok(Batch { draw, samples, mix })
    }

    /// How many batches an epoch of such draws has.
    pub fn batches(&self, draw: &Draw) -> usize {
        self.train.len().div_ceil(draw.batch)
    }

    /// The samples of a draw.
    fn samples(&mut self, draw: &Draw) -> Vec<u32> {
        let epoch = (draw.leg, draw.epoch);
        if self.order.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.order = Some((epoch, order(&self.train, self.seed, self.replicate, stream_epoch(draw))));
        }
        let order = self.order.as_ref().map_or(&[][..], |(_, order)| order);
        order[draw.within * draw.batch..((draw.within + 1) * draw.batch).min(order.len())].to_vec()
    }

    /// What some feeds give for a batch of training. One entry for each feed that is asked for, in their order.
    ///
    /// # Errors
    /// A sample is not among the images or features.
    pub fn learned(&mut self, feeds: &[usize], batch: &Batch) -> anyhow::Result<Vec<Tensor>> {
        self.get(feeds, &batch.samples, Some(batch))
    }

    /// What they give for samples as these are.
    ///
    /// # Errors
    /// As `learned`.
    pub fn evaluated(&mut self, feeds: &[usize], samples: &[u32]) -> anyhow::Result<Vec<Tensor>> {
        self.get(feeds, samples, None)
    }

    fn get(&mut self, feeds: &[usize], samples: &[u32], batch: Option<&Batch>) -> anyhow::Result<Vec<Tensor>> {
        let (draw, mix) = (batch.map(|batch| batch.draw), batch.and_then(|batch| batch.mix.as_ref()));
        let list = draw.map_or(&[][..], |draw| draw.augment);
        let (replicate, epoch) = match draw {
            Some(Draw { views: Some(views), epoch, .. }) => (ALL_REPLICATES, 1 + (epoch % views) as u64),
            draw => (self.replicate, draw.map_or(0, stream_epoch)),
        };
        let change = Change { list, seed: self.seed, replicate, epoch, mix };
        let mut found: Vec<Option<Tensor>> = vec![None; feeds.len()];
        let mut wanted: Vec<(usize, usize)> = Vec::new();
        for (place, feed) in feeds.iter().enumerate() {
            let feed = &self.feeds[*feed];
            let ready = match (&feed.kind, &feed.evaluated) {
                (Kind::Features(source), _) => Some(source),
                (_, Some(source)) if draw.is_none() => Some(source),
                _ => None,
            };
            match ready {
                Some(source) if draw.is_some() => {
                    found[place] = Some(source.changed(samples, &change, &self.device)?)
                }
                Some(source) => found[place] = Some(source.batch(samples, &self.device)?),
                None => wanted.push((place, feeds[place])),
            }
        }
        if !wanted.is_empty() {
            let images = self.images.as_ref().ok_or_else(|| anyhow::anyhow!("no images to read"))?;
            let images = images.changed(samples, &change, &self.device)?;
            for (place, feed) in &wanted {
                if matches!(self.feeds[*feed].kind, Kind::Images) {
                    found[*place] = Some(images.clone());
                }
            }
            // Changed at random, the images of a batch come together in every trial that reads them, and nowhere else.
            let random = draw.is_some_and(|draw| !draw.augment.is_empty() && draw.views.is_none());
            self.run_prefixes(&images, if random { Parts::Own } else { Parts::Alike }, &wanted, &mut found)?;
        }
        found.into_iter().map(|found| found.ok_or_else(|| anyhow::anyhow!("a feed without inputs"))).collect()
    }

    fn run_prefixes(
        &mut self,
        images: &Tensor,
        how: Parts,
        wanted: &[(usize, usize)],
        found: &mut [Option<Tensor>],
    ) -> anyhow::Result<()> {
        for (index, prefix) in self.prefixes.iter().enumerate() {
            let mut readers = Vec::new();
            for (place, feed) in wanted {
                if let Kind::Prefix { prefix, pieces } = &self.feeds[*feed].kind
                    && *prefix == index
                {
                    readers.push((*place, pieces));
                }
            }
            if readers.is_empty() {
                continue;
            }
            let read: Vec<usize> = readers.iter().flat_map(|(_, pieces)| layers(pieces)).collect();
            let graph = &prefix.encoder.network.graph;
            let below = 0..read.iter().max().map_or(0, |last| last + 1);
            self.macs += below.map(|layer| graph.macs(layer)).sum::<u64>() as f64 * images.dim(0)? as f64;
            let mut outputs = prefix.encoder.features(images, &read, how)?.into_iter();
            for (place, pieces) in readers {
                let own: Vec<Tensor> = outputs.by_ref().take(pieces.len()).collect();
                found[place] = Some(joined(pieces, &prefix.encoder.network, &own)?);
            }
        }
        Ok(())
    }
}

/// Each phase has orders and changes of its own.
fn stream_epoch(draw: &Draw) -> u64 {
    (draw.leg as u64) << 32 | draw.epoch as u64
}
