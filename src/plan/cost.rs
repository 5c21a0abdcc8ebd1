//! What a plan costs: multiply-accumulates, bytes and seconds, next to what running the trials one by one would cost.
//!
//! Per image a forward pass costs F, and a backward pass F once for the inputs and once for the weights of every layer
//! that trains; a frozen prefix has no backward pass. Sharing pays for the prefix once per image.

use super::bond;
use super::chain::Chain;
use super::facts::{Counts, Facts};
use super::stage::{Backbone, Encode, Encoded, Stage, Train};
use crate::expense::{Expense, Price};
use crate::key::Key;
use crate::model::freezing::{CODES, taps};
use crate::model::graph::{Graph, Op};
use crate::model::selected::Selected;
use crate::phase::Phase;
use crate::recipe::{Budget, Calibrate, Optimizer};

/// Evaluations of validation within a budget of steps.
pub const EVALUATIONS: usize = 10;

/// Steps whose weights are averaged, at most.
pub const AVERAGED: usize = 16;

/// Multiply-accumulates of a stage, and the bytes that it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    pub macs: f64,
    pub bytes: f64,
}

/// The cost of a trial: on its own, and with its frozen prefix shared, which leaves out what `start` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrialCost {
    pub alone: f64,
    /// Without the prefix.
    pub shared: f64,
    /// Of the prefix on augmented training images: once for all trials that run in lock-step.
    pub lockstep: f64,
    /// Images whose features it reads, if they are kept.
    pub reads: f64,
}

/// What a trial's frozen layers read of augmented training images in one phase. Trials of one bond whose passes have one key read the
/// same images from the first one on, in the same rounds: each layer runs once for all that need it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    pub key: Key,
    pub images: f64,
    /// Multiply-accumulates for an image.
    pub macs: f64,
}

/// Batches of an epoch on which it is measured how far gradients are from their parameters (Lee et al., 2023: their code).
pub const MEASURED: usize = 5;

/// Steps of a phase, and how often validation is read in it.
pub fn steps(phase: &Phase, train: usize) -> (usize, usize) {
    match phase.budget {
        Budget::Steps(steps) => (steps, EVALUATIONS.min(steps)),
        Budget::Epochs(epochs) => (epochs * train.div_ceil(phase.batch), epochs),
    }
}

/// Images that a phase reads for training, those among them on which the ratios of its layers' rates are measured.
fn images(phase: &Phase, train: usize) -> f64 {
    measured(phase, train) + learned(phase, train)
}

/// Images on which the ratios of a phase's rates are measured.
fn measured(phase: &Phase, train: usize) -> f64 {
    let (steps, _) = steps(phase, train);
    let epochs = steps.div_ceil(train.div_ceil(phase.batch));
    if phase.layer_rates.is_even() { 0.0 } else { (epochs * (MEASURED * phase.batch).min(train)) as f64 }
}

/// Images that its steps read.
fn learned(phase: &Phase, train: usize) -> f64 {
    match phase.budget {
        Budget::Epochs(epochs) => (epochs * train) as f64,
        Budget::Steps(steps) => {
            // Each epoch ends in a short batch, which is kept.
            let per_epoch = train.div_ceil(phase.batch);
            (steps / per_epoch * train + (steps % per_epoch * phase.batch).min(train)) as f64
        }
    }
}

/// The cost of a trial in multiply-accumulates.
///
/// # Errors
/// The stage names a layer that its network has not got.
pub fn trial(train: &Train, counts: Counts) -> Result<TrialCost, String> {
    let (network, _) = train.network()?;
    let whole = network.total_macs() as f64;
    let prefix = train.shared_cut()?.map_or(0.0, |cut| below(&network, cut + 1));
    let test = if train.untested { 0.0 } else { counts.test as f64 };
    if train.solves() {
        return Ok(solved(train, counts, whole, prefix));
    }
    let mut cost = TrialCost { alone: test * whole, shared: test * (whole - prefix), lockstep: 0.0, reads: test };
    if train.solved_start.is_some() {
        cost.reads += (counts.train + counts.val) as f64;
    }
    for phase in &train.phases {
        let step = step(&network, train, phase)?;
        let (_, evaluations) = steps(phase, counts.train);
        let (read, checked) = (images(phase, counts.train), (evaluations * counts.val) as f64);
        cost.alone += read * step + checked * whole;
        cost.shared += read * (step - prefix) + checked * (whole - prefix);
        cost.reads += read + checked;
        // A second training on training and validation images reads no validation.
        let again = if train.refit { images(phase, counts.train + counts.val) } else { 0.0 };
        cost.alone += again * step;
        cost.shared += again * (step - prefix);
        cost.reads += again;
        if train.augments() {
            cost.lockstep += (read + again) * prefix;
        }
    }
    let rescored = rescored(train, counts);
    cost.alone += rescored * whole;
    cost.shared += rescored * (whole - prefix);
    cost.reads += rescored;
    cost.alone += start(train, counts, false)?.map_or(0.0, |(_, macs)| macs);
    Ok(cost)
}

/// What it takes to solve the head that a trial starts from, once for all that have its key; with `stored`, from features that are
/// kept. None of a trial whose head is not solved.
///
/// # Errors
/// As `trial`.
pub fn start(train: &Train, counts: Counts, stored: bool) -> Result<Option<(Key, f64)>, String> {
    let (Some(solved), Some(key)) = (&train.solved_start, train.solved_start_key()?) else { return Ok(None) };
    let network = train.answering()?;
    let codes = network.find(CODES).map_or(0.0, |codes| below(&network, codes + 1));
    let known = if stored { train.seam_of(&network)? } else { 0 };
    let images = (counts.train + counts.val) as f64;
    let head = network.macs(network.last()) as f64;
    // Validation is read once more, for a temperature.
    let path = on_path(solved.optimizer, solved.lambda.len(), train.refit, counts) + counts.val as f64;
    Ok(Some((key, images * (codes - below(&network, known)) + path * head)))
}

/// The passes of a trial's frozen layers over augmented training images, phase by phase.
///
/// # Errors
/// As `trial`.
pub fn passes(train: &Train, counts: Counts) -> Result<Vec<Pass>, String> {
    let Some(cut) = train.shared_cut()?.filter(|_| train.augments() && !train.solves()) else { return Ok(Vec::new()) };
    let macs = below(&train.network()?.0, cut + 1);
    let merged = merged(train, cut)?;
    let mut found = Vec::new();
    // A second training on training and validation images comes behind the first of everybody.
    for number in [Some(counts.train), train.refit.then_some(counts.train + counts.val)].into_iter().flatten() {
        let mut begins = 0;
        for (leg, phase) in train.phases.iter().enumerate() {
            let read = (number, leg, begins, phase.batch, &phase.augment, &merged);
            for (what, images) in [("pass", learned(phase, number)), ("measuring pass", measured(phase, number))] {
                found.push(Pass { key: Key::of(what, &read), images, macs });
            }
            begins += steps(phase, number).0;
        }
    }
    Ok(found)
}

/// Where features are read that a deeper pass computes as one with the layer behind them, so that they take a pass of their own.
fn merged(train: &Train, cut: usize) -> Result<Option<(usize, &str)>, String> {
    let Backbone { arch, tap, .. } = &train.backbone;
    let (backbone, whole) = (arch.backbone(tap)?, arch.graph_of(tap, 2)?);
    let read = if cut > backbone.last() { taps(&backbone) } else { vec![cut] };
    let is_merged = |layer: usize| {
        let layer = whole.find(&backbone.layers[layer].name);
        layer.is_some_and(|layer| whole.absorber(layer).is_some())
    };
    Ok(read.into_iter().any(is_merged).then_some((cut, tap)))
}

/// What one replicate of a trial takes if its frozen layers run but once over each image whose features can be kept, and once over
/// each augmented batch.
///
/// # Errors
/// As `trial`.
pub fn expense(chain: &Chain, counts: Counts) -> Result<Expense, String> {
    let cost = trial(&chain.train, counts)?;
    let price = Some(price(&chain.train)?);
    let start = start(&chain.train, counts, chain.stores_all())?;
    let Some(stage) = &chain.encode else {
        let own = cost.alone - start.map_or(0.0, |(_, macs)| macs);
        return Ok(Expense { own, shared: start.into_iter().collect(), price });
    };
    let evaluated = counts.val + if chain.train.untested { 0 } else { counts.test };
    let images = match stage.images {
        Encoded::All => evaluated + counts.train,
        Encoded::Evaluated => evaluated,
        Encoded::Views { count, refit } => evaluated + count * (counts.train + if refit { counts.val } else { 0 }),
    };
    let encoded = (bond::of_encode(stage), encode(stage, &chain.train, images)?.macs);
    let mut expense = Expense { own: cost.shared, shared: std::iter::once(encoded).chain(start).collect(), price };
    match bond::of_trial(chain) {
        Some(bond) => {
            let of = |pass: Pass| (Key::of("pass of a bond", &(bond, pass.key)), pass.images * pass.macs);
            expense.shared.extend(passes(&chain.train, counts)?.into_iter().map(of));
        }
        None => expense.own += cost.lockstep,
    }
    Ok(expense)
}

/// What an answer of the trained network takes. Low-rank additions are none of it: an export adds them to what they stand beside.
fn price(train: &Train) -> Result<Price, String> {
    let network = train.answering()?;
    Ok(Price { macs: network.total_macs() as f64, params: network.total_params() })
}

/// Validation images that are read once more in the end: for a temperature, and for the scores of weights that were none of an
/// evaluation's.
fn rescored(train: &Train, counts: Counts) -> f64 {
    let times = match (train.calibrate, train.interpolate < 1.0 || train.average > 0.0) {
        (Calibrate::Temperature, _) => 2.0,
        (Calibrate::None, made) => f64::from(made),
    };
    times * counts.val as f64
}

/// What the phases of a trial cost, one by one: above its frozen layers, where these run apart as a prefix. Their sum is `trial`'s
/// `shared` or `alone` but for the last scores.
///
/// # Errors
/// As `trial`.
pub fn legs(train: &Train, counts: Counts, apart: bool) -> Result<Vec<f64>, String> {
    let (network, _) = train.network()?;
    let whole = network.total_macs() as f64;
    let cut = train.shared_cut()?.filter(|_| apart);
    let prefix = cut.map_or(0.0, |cut| below(&network, cut + 1));
    let leg = |phase: &Phase| {
        let step = step(&network, train, phase)?;
        let (_, evaluations) = steps(phase, counts.train);
        let again = if train.refit { images(phase, counts.train + counts.val) } else { 0.0 };
        let read = images(phase, counts.train) + again;
        Ok(read * (step - prefix) + (evaluations * counts.val) as f64 * (whole - prefix))
    };
    train.phases.iter().map(leg).collect()
}

/// Passes over the training images that L-BFGS takes for one strength, from where the one before ended.
const PASSES: f64 = 25.0;

/// The cost of solving a linear head for all its strengths: every image goes through the network once.
fn solved(train: &Train, counts: Counts, whole: f64, prefix: f64) -> TrialCost {
    let phase = &train.phases[0];
    let path = on_path(phase.optimizer, phase.lambda.len(), train.refit, counts);
    let cooled = if train.calibrate == Calibrate::Temperature { counts.val } else { 0 };
    let scored = (counts.val + counts.test + cooled) as f64;
    let images = (counts.train + counts.val + counts.test) as f64;
    let head = (whole - prefix) * (path + scored);
    TrialCost { alone: images * prefix + head, shared: head, lockstep: 0.0, reads: images }
}

/// Rows that a linear head multiplies, or that become its gradient, where it is solved for so many strengths and each is scored.
fn on_path(optimizer: Optimizer, strengths: usize, refit: bool, counts: Counts) -> f64 {
    let learned = (counts.train + counts.val) as f64;
    let [passes, again] = match optimizer {
        Optimizer::None => [0.0; 2],
        Optimizer::Ridge | Optimizer::Lda => [1.0; 2],
        _ => [PASSES * strengths as f64, PASSES],
    };
    let solved = 2.0 * (passes * counts.train as f64 + if refit { again * learned } else { 0.0 });
    solved + strengths.max(1) as f64 * learned
}

/// Multiply-accumulates of a phase's step for one image: forward, back to the first layers that stand still, and the gradients
/// of all weights that train.
fn step(network: &Graph, train: &Train, phase: &Phase) -> Result<f64, String> {
    let (frozen, selected) = (train.frozen(phase)?, Selected::of(network, &phase.trains));
    // What weighs tokens with each other has a second gradient, whatever of it trains.
    let weighs = |index: &usize| {
        let windows = matches!(network.layers[*index].op, Op::WindowAttention { .. });
        windows || selected.params[*index].first() != Some(&false)
    };
    let learned: u64 = (frozen..network.layers.len()).filter(weighs).map(|index| network.macs(index)).sum();
    let whole = network.total_macs() as f64;
    Ok(2.0 * whole - below(network, frozen) + learned as f64)
}

/// Multiply-accumulates of the first `count` layers.
fn below(network: &Graph, count: usize) -> f64 {
    (0..count.min(network.layers.len())).map(|index| network.macs(index)).sum::<u64>() as f64
}

/// The cost of an encoding of so many rows: one pass over them, and the features that it keeps.
///
/// # Errors
/// As `trial`.
pub fn encode(stage: &Encode, train: &Train, images: usize) -> Result<Cost, String> {
    let (network, _) = train.network()?;
    let cut = network.find(&stage.cut).ok_or_else(|| format!("no layer '{}'", stage.cut))?;
    let size: usize = network.layers[cut].shape.iter().product();
    Ok(Cost { macs: images as f64 * below(&network, cut + 1), bytes: (images * size * 4) as f64 })
}

/// The source model behind a trial, if there is one, and its cost.
///
/// # Errors
/// The architecture is not known.
pub fn pretrain(chain: &Chain, facts: &Facts) -> Result<Option<(Stage, Cost)>, String> {
    let Some(stage) = &chain.pretrain else { return Ok(None) };
    let data = facts.datasets.values().find(|data| data.fingerprint == stage.data);
    let counts = data.ok_or("the source dataset is gone")?.counts(None)?;
    let graph = stage.arch.graph(stage.classes)?;
    // It is scored once, at its end.
    let macs = (3.0 * images(&stage.phase, counts.train) + counts.val as f64) * graph.total_macs() as f64;
    let params: usize = graph.total_params();
    Ok(Some((Stage::Pretrain(stage.clone()), Cost { macs, bytes: (params * 4) as f64 })))
}
