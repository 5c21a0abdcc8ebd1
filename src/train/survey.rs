//! What frozen features say of a dataset before anything is trained: one pass of a network over its training images, and one
//! of the same network with random weights beside it.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use candle_core::{Device, Tensor};

use super::source::Source;
use super::zero_shot;
use crate::data::Manifest;
use crate::data::packed::Packed;
use crate::device::Precision;
use crate::exec::{AT_ONCE, Encoder, Network, Parts};
use crate::frame::{Frame, Resize};
use crate::model::arch::Arch;
use crate::model::freezing::pooled;
use crate::model::graph::Graph;
use crate::model::init;
use crate::model::row::patches;
use crate::model::weights::Weights;
use crate::nn::probe::{Rows, neighbours_left_out, ridge_left_out};
use crate::plan::stage::Texts;
use crate::preprocess::Preprocess;
use crate::recipe::{AND, Pool};

/// Images of one pass on a CPU. Results do not depend on it.
pub(super) const BATCH: usize = 32;
/// Taps below the last features.
const EARLIER: usize = 4;
/// Numbers of a pooled earlier feature, at most, where a coarser grid leads there.
const WIDEST: usize = 4096;
/// Numbers of the features of several layers together, at most.
const WIDEST_TOGETHER: usize = 2 * WIDEST;
/// Neighbours that vote.
pub const NEIGHBOURS: usize = 5;
/// Of the weights that have learned nothing.
const SEED: u64 = 0;

/// What is to be looked at.
pub struct Survey {
    pub arch: Arch,
    pub weights: PathBuf,
    pub preprocess: Preprocess,
    pub resize: Resize,
    /// Indices into the manifest, in lots of one image of each class: any first part of them is of all classes alike.
    pub samples: Vec<u32>,
    /// Of each, the group that it leaves with.
    pub groups: Vec<u32>,
    pub precision: Precision,
    /// The texts of its classes, where the weights can read them.
    pub texts: Option<Texts>,
}

/// What the features at one tap say; of each image whether its class was found without it. The last ones come last, once over
/// a grid as the earlier ones are, so that places and depth are told apart, and once as a probe reads them.
pub struct Reading {
    /// The layer, as recipes name it, or several.
    pub tap: String,
    /// Whether it is of the last feature map.
    pub last: bool,
    pub pool: Pool,
    pub numbers: usize,
    /// By a linear model on the images that do not leave with it.
    pub probe: Vec<bool>,
    /// The same of the first half of the images, with only that half to learn from.
    pub half: Vec<bool>,
    pub neighbours: Vec<bool>,
    /// By a linear model on the features of random weights.
    pub untrained: Vec<bool>,
}

impl Survey {
    /// What images become before they are preprocessed.
    pub fn frame(&self) -> Frame {
        Frame { side: self.arch.input, resize: self.resize }
    }
}

/// What the features of some layers say, from the lowest to the last, and what those of all maps among them say side by side.
pub struct Readings {
    pub taps: Vec<Reading>,
    /// Of two maps at least.
    pub together: Option<Reading>,
    /// Whether class names alone answer each image right, without any other.
    pub named: Option<Vec<bool>>,
}

/// Looks at the features of some layers.
///
/// # Errors
/// The weights do not fit, or the features are no numbers.
pub fn survey(
    what: &Survey,
    manifest: &Manifest,
    cache: &Path,
    device: &Device,
    tell: &mut (dyn FnMut(usize) + Send),
) -> anyhow::Result<Readings> {
    let graph = what.arch.backbone("features").map_err(anyhow::Error::msg)?;
    let (weights, _) = Weights::load(&what.weights, &what.arch, "features")?;
    let random = init::fresh(&graph, 0, SEED, 0)?;
    let packed = Rc::new(Packed::open(cache, manifest.fingerprint, what.frame(), manifest.samples.len())?);
    let source = Source::Images { packed, preprocess: what.preprocess };
    let mut done = 0;
    let mut codes = |weights: &Weights| {
        let mut network = Network::new(graph.clone(), weights, device)?;
        network.frozen = network.graph.layers.len();
        let taps = taps(&network, &what.arch);
        let beside = beside(&network.graph, &taps, &what.arch);
        let encoder = Encoder::new(network);
        let read = [&taps[..], &beside].concat();
        let mut codes = encoded(&encoder, &read, &source, &what.samples, device, &mut |images| tell(done + images))?;
        done += what.samples.len();
        let together = codes.split_off(taps.len());
        if !together.is_empty() {
            codes.push(Tensor::cat(&together, 1)?);
        }
        anyhow::Ok((places(&graph, &taps, &beside, &what.arch), codes))
    };
    let (places, learned) = codes(&weights)?;
    let (_, untrained) = codes(&random)?;
    let labels: Vec<u32> = what.samples.iter().map(|sample| manifest.samples[*sample as usize].class).collect();
    let last = places.iter().rposition(|(tap, ..)| !tap.contains(AND)).map_or(&learned[0], |at| &learned[at]);
    let named = what.texts.as_ref().map(|texts| {
        let said = zero_shot::answers(texts, &what.weights, &what.arch, last)?;
        anyhow::Ok(said.into_iter().zip(&labels).map(|(said, label)| said == *label as usize).collect())
    });
    let named = named.transpose()?;
    let all: Vec<usize> = (0..places.len()).collect();
    let readings = crate::nn::each(&all, |at| {
        let rows = |x| Rows { x, labels: &labels, groups: &what.groups, classes: manifest.classes.len() };
        reading(places[*at].clone(), rows(&learned[*at]), rows(&untrained[*at]))
    });
    let mut taps = readings?;
    let several = taps.last().is_some_and(|reading| reading.tap.contains(AND));
    let together = if several { taps.pop() } else { None };
    Ok(Readings { taps, together, named })
}

/// What is read: its tap as recipes name it, whether that is of the last feature map, and how it is pooled.
type Place = (String, bool, Pool);

fn places(graph: &Graph, taps: &[(usize, Pool)], beside: &[(usize, Pool)], arch: &Arch) -> Vec<Place> {
    let name = |tap: usize| graph.layers[tap].name.clone();
    let mut places: Vec<Place> = taps.iter().map(|(tap, pool)| (name(*tap), *tap >= top(graph, arch), *pool)).collect();
    if let Some((_, pool)) = beside.first() {
        let names: Vec<String> = beside.iter().map(|(tap, _)| name(*tap)).collect();
        places.push((names.join(AND), false, *pool));
    }
    places
}

/// All maps among `taps` as one recipe reads them together, over the finest grid that is not too wide; none of a single one.
fn beside(graph: &Graph, taps: &[(usize, Pool)], arch: &Arch) -> Vec<(usize, Pool)> {
    // The last stands there once more, as a probe reads it.
    let maps: Vec<usize> = taps[..taps.len().saturating_sub(1)].iter().map(|(tap, _)| *tap).collect();
    let names: Vec<&str> = maps.iter().map(|tap| graph.layers[*tap].name.as_str()).collect();
    let channels: usize = maps.iter().map(|tap| graph.layers[*tap].shape[0]).sum();
    let side = |tap: &usize| patches(graph, *tap).map_or(graph.layers[*tap].shape[1], |row| row.side);
    let least = maps.iter().map(side).min().unwrap_or(1);
    let fits = |grid: &usize| *grid <= least && channels * grid * grid <= WIDEST_TOGETHER;
    let grid = [4, 2].into_iter().find(fits).unwrap_or(1);
    // As an experiment would have them, or not at all.
    match maps.len() > 1 && arch.backbone(&names.join(AND)).is_ok() {
        true => maps.into_iter().map(|tap| (tap, Pool::Max(grid))).collect(),
        false => Vec::new(),
    }
}

/// The ends of some blocks below the features, and these. Each is pooled as the recipes do that read it.
fn taps(network: &Network, arch: &Arch) -> Vec<(usize, Pool)> {
    let graph = &network.graph;
    let (last, top) = (graph.last(), top(graph, arch));
    let early = arch.tap(graph, "early").ok();
    let end = |block: &str| graph.layers.iter().rposition(|layer| layer.block == block);
    let computed = |tap: &usize| (0..=*tap).any(|layer| graph.macs(layer) > 0);
    let usable = |tap: &usize| *tap < top && network.stands_alone(*tap) && computed(tap);
    let mut ends: Vec<usize> = graph.blocks().into_iter().filter_map(end).chain(early).filter(usable).collect();
    ends.sort_unstable();
    ends.dedup();
    // Blocks that only pool or flatten what is below them say nothing new.
    ends.retain(|tap| (*tap + 1..=top).any(|layer| graph.macs(layer) > 0));
    let kept = EARLIER.min(ends.len());
    let mut chosen: Vec<usize> = (0..kept).map(|place| ends[(2 * place + 1) * ends.len() / (2 * kept)]).collect();
    if let Some(early) = early.filter(|early| ends.contains(early) && !chosen.contains(early)) {
        // In the place of the nearest one.
        if let Some(near) = chosen.iter_mut().min_by_key(|tap| tap.abs_diff(early)) {
            *near = early;
        }
        chosen.sort_unstable();
    }
    let grid = |tap: usize| {
        let [channels, height, _] = graph.layers[tap].shape;
        let height = patches(graph, tap).map_or(height, |row| row.side);
        [4, 2].into_iter().find(|grid| *grid <= height && channels * grid * grid <= WIDEST).unwrap_or(1)
    };
    let has_places = graph.layers[top].shape[1] > 1 && network.stands_alone(top);
    chosen.extend(has_places.then_some(top));
    chosen.into_iter().map(|tap| (tap, Pool::Max(grid(tap)))).chain([(last, Pool::Avg(1))]).collect()
}

/// The last feature map.
fn top(graph: &Graph, arch: &Arch) -> usize {
    arch.tap(graph, "no_top").unwrap_or(graph.last())
}

/// For each tap the codes of all samples: [n, numbers], on the CPU.
fn encoded(
    encoder: &Encoder,
    taps: &[(usize, Pool)],
    source: &Source,
    samples: &[u32],
    device: &Device,
    tell: &mut dyn FnMut(usize),
) -> anyhow::Result<Vec<Tensor>> {
    let graph = &encoder.network.graph;
    let pools = taps.iter().map(|(tap, pool)| {
        let backbone = graph.truncate(*tap);
        Network::new(pooled(&backbone, *pool).above(backbone.last()), &Weights::default(), device)
    });
    let pools = pools.collect::<candle_core::Result<Vec<Network>>>()?;
    let layers: Vec<usize> = taps.iter().map(|(tap, _)| *tap).collect();
    let at_once = if device.is_cuda() { AT_ONCE } else { BATCH };
    let mut parts: Vec<Vec<Tensor>> = vec![Vec::new(); taps.len()];
    for (index, batch) in samples.chunks(at_once).enumerate() {
        let maps = encoder.features(&source.batch(batch, device)?, &layers, Parts::Alike)?;
        for ((map, pool), (layer, parts)) in maps.iter().zip(&pools).zip(layers.iter().zip(&mut parts)) {
            let code = pool.infer(&encoder.network.as_images(*layer, map)?)?;
            parts.push(code.flatten_from(1)?.to_device(&Device::Cpu)?);
        }
        tell((index * at_once + batch.len()).min(samples.len()));
    }
    Ok(parts.iter().map(|parts| Tensor::cat(parts, 0)).collect::<candle_core::Result<_>>()?)
}

/// Who finds the class of which image, from the codes of learned weights and of random ones.
fn reading((tap, last, pool): Place, learned: Rows, untrained: Rows) -> candle_core::Result<Reading> {
    let labels = learned.labels;
    let right = |said: Vec<u32>| said.iter().zip(labels).map(|(said, label)| said == label).collect::<Vec<bool>>();
    let (rows, numbers) = learned.x.dims2()?;
    let half = rows / 2;
    let first = learned.x.narrow(0, 0, half)?;
    let first = Rows { x: &first, labels: &labels[..half], groups: &learned.groups[..half], ..learned };
    Ok(Reading {
        tap,
        last,
        pool,
        numbers,
        half: right(ridge_left_out(&first)?),
        probe: right(ridge_left_out(&learned)?),
        neighbours: right(neighbours_left_out(&learned, NEIGHBOURS)?),
        untrained: right(ridge_left_out(&untrained)?),
    })
}
