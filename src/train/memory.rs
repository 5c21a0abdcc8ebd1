//! How much memory of a device a stage takes, and what to say where that was not enough.

use candle_core::Device as CandleDevice;

use super::{Shelf, encode, evaluate};
use crate::data::split::split;
use crate::device::Precision;
use crate::exec::{AT_ONCE, Network, Storage};
use crate::model::graph::Graph;
use crate::model::init;
use crate::model::selected::Selected;
use crate::nn::{PRODUCT_SPACE, memory};
use crate::phase::Phase;
use crate::plan::stage::{Encode, Encoded, Pretrain, Stage, Start, Train, Work};
use crate::recipe::{KeepWeights, Optimizer};

/// Bytes that cuDNN keeps to work in: how many it wants is known to the device alone, and is taken to be no more than this,
/// or than a convolution's patches.
const WORKSPACE: usize = 1 << 25;
/// Bytes of patches that `nn` lays out at once, at most, where there is no cuDNN.
const PATCHES: usize = if cfg!(feature = "cudnn") { 0 } else { 1 << 28 };

/// The most bytes of device memory that a stage takes by itself; with `batch`, as if its batches were of so many images.
///
/// # Errors
/// The stage names a network that there is none of.
pub fn bytes(work: &Work, batch: Option<usize>) -> anyhow::Result<usize> {
    match &work.stage {
        Stage::Pretrain(stage) => of_pretrain(stage, batch),
        Stage::Encode(stage) => of_encode(stage, batch),
        Stage::Train(stage) => of_train(stage, work, batch),
    }
}

/// Multiply-accumulates of one step of a stage, or of one batch that it encodes.
///
/// # Errors
/// As `bytes`.
pub fn macs(work: &Work) -> anyhow::Result<f64> {
    let (forward, passes) = match &work.stage {
        Stage::Pretrain(stage) => (stage.arch.graph(stage.classes).map_err(anyhow::Error::msg)?.total_macs(), 3),
        Stage::Encode(stage) => {
            (stage.backbone.arch.backbone(&stage.backbone.tap).map_err(anyhow::Error::msg)?.total_macs(), 1)
        }
        Stage::Train(stage) => {
            let (whole, _) = stage.network().map_err(anyhow::Error::msg)?;
            let stored = work.encode.as_ref().is_some_and(|encode| encode.images != Encoded::Evaluated);
            let cut = if stored { stage.shared_cut().map_err(anyhow::Error::msg)? } else { None };
            (cut.map_or(whole.total_macs(), |cut| whole.above(cut).total_macs()), 3)
        }
    };
    Ok((passes * batch_of(work)) as f64 * forward as f64)
}

/// How `network` is stored for batches of `batch` images.
fn storage(network: &Network, batch: usize, precision: Precision, phase: Option<&Phase>) -> Storage {
    let memories = match phase.map(|phase| &phase.optimizer) {
        Some(Optimizer::Adamw) => 2,
        Some(_) => 1,
        None => 0,
    };
    let start = phase.is_some_and(|phase| phase.start_decay > 0.0);
    let number = if precision == Precision::Bf16 { 2 } else { 4 };
    let algorithms = if cfg!(feature = "cudnn") { network.patches_bytes(batch, number).min(WORKSPACE) } else { 0 };
    let tiles = if precision == Precision::F32 { network.tiles_bytes(batch) } else { 0 };
    let workspace = algorithms.max(tiles);
    Storage { number, memories: memories + usize::from(start), workspace: PRODUCT_SPACE + workspace, patches: PATCHES }
}

fn network(graph: Graph) -> anyhow::Result<Network> {
    let weights = init::zeros(&graph)?;
    Ok(Network::new(graph, &weights, &CandleDevice::Cpu)?)
}

fn of_pretrain(stage: &Pretrain, batch: Option<usize>) -> anyhow::Result<usize> {
    let network = network(stage.arch.graph(stage.classes).map_err(anyhow::Error::msg)?)?;
    let batch = batch.unwrap_or(stage.phase.batch);
    Ok(network.training_bytes(batch, storage(&network, batch, stage.precision, Some(&stage.phase))))
}

fn of_encode(stage: &Encode, batch: Option<usize>) -> anyhow::Result<usize> {
    let backbone = stage.backbone.arch.backbone(&stage.backbone.tap).map_err(anyhow::Error::msg)?;
    let mut network = network(backbone.find(&stage.cut).map_or(backbone.clone(), |cut| backbone.truncate(cut)))?;
    network.frozen = network.graph.layers.len();
    let batch = batch.unwrap_or(encode::BATCH);
    Ok(network.evaluation_bytes(batch, storage(&network, batch, stage.precision, None)))
}

/// The network above what is read, in its most expensive phase, and what runs below it.
fn of_train(stage: &Train, work: &Work, batch: Option<usize>) -> anyhow::Result<usize> {
    let (whole, _) = stage.network().map_err(anyhow::Error::msg)?;
    let stored = work.encode.as_ref().is_some_and(|encode| encode.images != Encoded::Evaluated);
    let apart = stage.backbone.start != Start::Random;
    let cut = if apart { stage.shared_cut().map_err(anyhow::Error::msg)? } else { None };
    let (own, below) = cut.map_or((whole.clone(), 0), |cut| (whole.above(cut), cut));
    let mut own = network(own)?;
    let mut prefix = match cut {
        Some(cut) if !stored => Some(network(whole.truncate(cut))?),
        _ => None,
    };
    if let Some(prefix) = &mut prefix {
        prefix.frozen = prefix.graph.layers.len();
    }
    // What solves the head before anything trains runs the whole network in batches of its own.
    let mut most = if stage.solved_start.is_some() && !stored { of_start(stage)? } else { 0 };
    for phase in &stage.phases {
        let batch = batch.unwrap_or(phase.batch);
        own.frozen = stage.frozen(phase).map_err(anyhow::Error::msg)?.saturating_sub(below);
        own.batch_norm = phase.batch_norm;
        own.selected = Selected::of(&own.graph, &phase.trains);
        let mut storage = storage(&own, batch, stage.precision, Some(phase));
        // Copies of what trains: of the best evaluation, of where the phase began, and the mean over its end.
        let copies = [stage.keep_weights == KeepWeights::Best, stage.interpolate < 1.0, stage.average > 0.0];
        storage.memories += copies.into_iter().filter(|copied| *copied).count();
        let under = |images: usize| prefix.as_ref().map_or(0, |prefix| prefix.evaluation_bytes(images, storage));
        // A batch that is changed at random is not filled up.
        let at_once = if phase.augment.is_empty() { AT_ONCE } else { batch.min(AT_ONCE) };
        most = most.max(own.training_bytes(batch, storage) + under(at_once));
        most = most.max(own.evaluation_bytes(batch.min(evaluate::BATCH), storage) + under(AT_ONCE));
    }
    Ok(most)
}

/// The network that gives the features on which a head is solved that training starts from.
fn of_start(stage: &Train) -> anyhow::Result<usize> {
    let mut network = network(stage.answering().map_err(anyhow::Error::msg)?)?;
    network.frozen = network.graph.layers.len();
    Ok(network.evaluation_bytes(evaluate::BATCH, storage(&network, evaluate::BATCH, stage.precision, None)))
}

/// The batch of a stage.
fn batch_of(work: &Work) -> usize {
    match &work.stage {
        Stage::Pretrain(stage) => stage.phase.batch,
        Stage::Encode(_) => encode::BATCH,
        Stage::Train(stage) => stage.phases.iter().map(|phase| phase.batch).max().unwrap_or(1),
    }
}

/// The images that a stage learns from: no batch has more of them.
fn images(work: &Work, shelf: &mut Shelf) -> Option<usize> {
    let (data, per_class, seed, replicate) = match &work.stage {
        Stage::Pretrain(stage) => (stage.data, None, stage.seed, 0),
        Stage::Train(stage) => (stage.data, stage.per_class, stage.seed, stage.replicate as u64),
        Stage::Encode(_) => return None,
    };
    let split = split(&*shelf.manifest(data).ok()?, per_class, seed, replicate).ok()?;
    let refits = matches!(&work.stage, Stage::Train(stage) if stage.refit);
    Some(split.train.len() + if refits { split.val.len() } else { 0 })
}

/// What a person needs to know of memory that was not enough: what was asked for, what there is, and what would fit.
pub fn too_little(works: &[Work], shelf: &mut Shelf, error: &str) -> String {
    let gigabytes = |bytes: usize| format!("{:.2} GB", bytes as f64 / 1e9);
    let Some(first) = works.first() else { return error.to_owned() };
    let group = if works.len() > 1 {
        format!("; {} stages ran together, and are tried apart", works.len())
    } else {
        String::new()
    };
    let batch = batch_of(first).min(images(first, shelf).unwrap_or(usize::MAX));
    let needs = bytes(first, Some(batch));
    let (Ok((free, all)), Ok(needs)) = (memory(&shelf.device), needs) else { return format!("{error}{group}") };
    let fits = (0..).map(|halved| batch >> halved).take_while(|batch| *batch > 0).skip(1);
    let fitting = fits.into_iter().find(|batch| bytes(first, Some(*batch)).is_ok_and(|bytes| bytes < free));
    let cure = match (&first.stage, fitting) {
        _ if needs < free => "others take part of it: free the device, or use fewer --slots".to_owned(),
        (Stage::Encode(_), _) => "a smaller `input` would need less".to_owned(),
        (_, Some(batch)) => format!("batch = {batch} would fit"),
        (_, None) => "no batch would fit: freeze more layers, or take a smaller `input`".to_owned(),
    };
    let kind = first.stage.kind();
    format!(
        "out of memory: a {kind} stage with batches of {batch} images takes about {}, and {} of {} are free: {cure}{group} ({})",
        gigabytes(needs),
        gigabytes(free),
        gigabytes(all),
        error.lines().next().unwrap_or_default()
    )
}
