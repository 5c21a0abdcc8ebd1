//! The jobs of a sweep: the trials that the store lacks, and the shared stages that they stand on.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::shape::{Bond, Shape};
use super::world::World;
use crate::key::Key;
use crate::plan::chain::Chain;
use crate::plan::cost::{Cost, Pass};
use crate::plan::stage::{Encode, Stage, Start, Train, Work};
use crate::plan::tier::{self, Choice, Demand, Tier};
use crate::plan::{Cell, Plan, Trial, bond, trial_key};
use crate::schedule::queue::Job;

/// One job: what it is, and its predicted cost: multiply-accumulates as it runs and with nothing shared, and seconds of one
/// slot.
pub struct Planned {
    pub what: What,
    pub macs: f64,
    pub alone: f64,
    pub seconds: f64,
}

pub enum What {
    /// A stage that trials share.
    Shared(Box<Work>),
    /// A replicate of a cell; its work is put together when its turn comes.
    Trial { cell: usize, replicate: usize },
}

/// All jobs in the order in which they run: every replicate goes through all cells before the next, so that
/// tables are balanced at any time; shared stages stand in front of the first trial that needs them.
pub struct Jobs {
    pub list: Vec<Planned>,
    pub queue: Vec<Job>,
    /// Costs of all distinct trials, done ones too.
    pub totals: Totals,
    pub kept: Kept,
}

/// A group is not cut for the sake of idle slots where its prefix costs so many times what a trial costs above it.
const PREFIX_RULES: f64 = 10.0;

/// What is known of every encoding: where its features live, and why.
#[derive(Default)]
pub struct Kept(pub BTreeMap<Key, Features>);

pub struct Features {
    pub stage: Encode,
    pub demand: Demand,
    pub choice: Choice,
}

/// What a plan costs, in multiply-accumulates and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub trials: usize,
    pub done: usize,
    /// All trials one by one, nothing shared.
    pub alone: f64,
    /// All trials and their shared stages.
    pub shared: f64,
    /// What is still to be done.
    pub outstanding: f64,
    pub bytes: f64,
    pub stages: [usize; 4],
    /// Of one slot, for the three sums above.
    pub seconds: Seconds,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Seconds {
    pub alone: f64,
    pub shared: f64,
    pub outstanding: f64,
}

/// What a worker needs to run a trial.
pub fn trial_work(plan: &Plan, cell: &Cell, replicate: usize, world: &World, kept: &Kept) -> Result<Work, String> {
    let chain = kept.chain(plan.stages(cell, replicate, &world.facts)?, world);
    let weights = weight_file(&chain.train.backbone.start, world);
    let Chain { pretrain, encode, prefix, train, .. } = chain;
    let keep = (world.keep && !cell.is_short()).then(|| world.places.network(trial_key(cell.key, replicate)));
    Ok(Work { stage: Stage::Train(Box::new(train)), pretrain, encode, prefix, weights, keep })
}

pub(super) fn weight_file(start: &Start, world: &World) -> Option<std::path::PathBuf> {
    let Start::File(sha256) = start else { return None };
    world.facts.weights.values().find(|fact| fact.sha256 == *sha256).map(|fact| fact.path.clone().into())
}

impl Kept {
    /// A chain without what is not shared: everything, if that is asked for, or features that are computed again.
    pub(super) fn chain(&self, mut chain: Chain, world: &World) -> Chain {
        if !world.share {
            (chain.encode, chain.prefix) = (None, false);
        }
        chain.encode = chain.encode.filter(|encode| {
            let known = self.0.get(&Key::of("encode", encode));
            known.is_none_or(|known| known.choice.tier != Tier::Recompute)
        });
        chain
    }

    /// Chooses tiers for the encodings of some shapes, each with the number of trials that are still to run.
    fn choose(shapes: &[(Shape, Vec<usize>)], world: &World) -> Self {
        let mut demands: BTreeMap<Key, (Encode, Demand)> = BTreeMap::new();
        let mut once: HashMap<(Key, Key), f64> = HashMap::new();
        for (shape, replicates) in shapes {
            let Some((encode, cost, images)) = &shape.encode else { continue };
            let key = Key::of("encode", encode);
            let made = present(world, &Stage::Encode(encode.clone()));
            let compute = cost.macs / images / shape.pace.forward;
            let fresh = Demand { images: *images, row: cost.bytes / images, compute, reads: 0.0, made };
            let (_, demand) = demands.entry(key).or_insert_with(|| (encode.clone(), fresh));
            for replicate in replicates {
                // Trials of one bond read together.
                match shape.bond_of(*replicate) {
                    Some(bond) => {
                        let known = once.entry((key, bond)).or_default();
                        demand.reads += (shape.cost.reads - *known).max(0.0);
                        *known = known.max(shape.cost.reads);
                    }
                    None => demand.reads += shape.cost.reads,
                }
            }
        }
        let list: Vec<Demand> = demands.values().map(|(_, demand)| *demand).collect();
        // Nothing is measured for nobody.
        let choices = if list.is_empty() { Vec::new() } else { tier::choose(&list, &world.rates.machine()) };
        let known = demands.into_iter().zip(choices);
        Self(known.map(|((key, (stage, demand)), choice)| (key, Features { stage, demand, choice })).collect())
    }
}

impl Jobs {
    /// Keys of the trials that are to run.
    pub fn trials(&self) -> impl Iterator<Item = Key> {
        let trials =
            self.queue.iter().zip(&self.list).filter(|(_, planned)| matches!(planned.what, What::Trial { .. }));
        trials.map(|(job, _)| job.key)
    }

    /// Leaves all trials out but those in `wanted`.
    pub fn retain(&mut self, wanted: &HashSet<Key>) {
        let keep: Vec<bool> = self
            .queue
            .iter()
            .zip(&self.list)
            .map(|(job, planned)| matches!(planned.what, What::Shared(_)) || wanted.contains(&job.key))
            .collect();
        let mut kept = keep.iter();
        self.queue.retain(|_| kept.next().copied().unwrap_or(false));
        let mut kept = keep.iter();
        self.list.retain(|_| kept.next().copied().unwrap_or(false));
    }
}

/// Lists the jobs of `cells`, without those in `finished`.
///
/// # Errors
/// A cell that cannot be read: impossible for a plan that was built.
pub fn jobs(plan: &Plan, cells: &[usize], finished: &HashSet<Key>, world: &World) -> Result<Jobs, String> {
    of_trials(plan, plan.trials(cells), finished, world)
}

/// The same of those trials of `cells` that are in `part`.
///
/// # Errors
/// As `jobs`.
pub fn of_part(
    plan: &Plan,
    cells: &[usize],
    part: &HashSet<Key>,
    finished: &HashSet<Key>,
    world: &World,
) -> Result<Jobs, String> {
    let mut trials = plan.trials(cells);
    trials.retain(|trial| part.contains(&trial.key));
    of_trials(plan, trials, finished, world)
}

fn of_trials(plan: &Plan, trials: Vec<Trial>, finished: &HashSet<Key>, world: &World) -> Result<Jobs, String> {
    let mut shapes: HashMap<u64, (Shape, Vec<usize>)> = HashMap::new();
    for trial in &trials {
        let cell = &plan.cells[trial.cell];
        let (_, waiting) = match shapes.entry(cell.shape()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert((Shape::of(plan, cell, world)?, Vec::new())),
        };
        waiting.extend((!finished.contains(&trial.key)).then_some(trial.replicate));
    }
    let mut known: Vec<(Shape, Vec<usize>)> = shapes.values().cloned().collect();
    known.sort_by_key(|(shape, _)| shape.order());
    let kept = Kept::choose(&known, world);
    let mut jobs = Jobs { list: Vec::new(), queue: Vec::new(), totals: Totals::default(), kept };
    let mut met = Met::default();
    for Trial { cell: index, replicate, key } in trials {
        let (cell, done) = (&plan.cells[index], finished.contains(&key));
        let (shape, _) = &shapes[&cell.shape()];
        let bond = match shape.bond {
            Bond::Cell => bond::of_trial(&jobs.kept.chain(plan.stages(cell, replicate, &world.facts)?, world)),
            _ => shape.bond_of(replicate),
        };
        let needs = jobs.shared_stages(shape, done, world, &mut met);
        let prefix = bond.map_or(shape.cost.lockstep, |bond| met.frozen.more(bond, &shape.passes));
        let macs = match (shape.bond, bond) {
            (Bond::Cell, Some(bond)) => {
                let train = plan.stages(cell, replicate, &world.facts)?.train;
                shape.cost.shared - met.in_common(bond, &train, &shape.legs)
            }
            _ => shape.cost.shared,
        };
        let start = shape.start.map_or(0.0, |(key, macs)| met.passes.more(Key::of("start", &(key, replicate)), macs));
        let prefix = prefix + start;
        jobs.totals.count(shape, done, macs, prefix);
        if !done {
            // Cutting a group that lives on its prefix would run the prefix twice.
            let whole = shape.cost.lockstep > PREFIX_RULES * macs;
            jobs.queue.push(Job { key, needs, bond, macs, bytes: shape.bytes, whole });
            let what = What::Trial { cell: index, replicate };
            let (alone, seconds) = (shape.cost.alone, macs / shape.pace.own + prefix / shape.pace.forward);
            jobs.list.push(Planned { what, macs: macs + prefix, alone, seconds });
        }
    }
    Ok(jobs)
}

/// Passes that several stages share: the longest pays for the others.
#[derive(Default)]
struct Passes(HashMap<Key, f64>);

impl Passes {
    /// What a pass of so many multiply-accumulates costs beside those that are known of its bond.
    fn more(&mut self, bond: Key, macs: f64) -> f64 {
        let known = self.0.entry(bond).or_default();
        let more = (macs - *known).max(0.0);
        *known = known.max(macs);
        more
    }
}

/// How far the passes of frozen layers go that are known, by bond and what is read: over so many images, so many
/// multiply-accumulates for each. Of two that read alike, the one over more images is the shallower one.
#[derive(Default)]
struct Frozen(HashMap<(Key, Key), Vec<(f64, f64)>>);

impl Frozen {
    /// What passes cost beside those that are known of their bond: on each image, what goes deeper than any of them.
    fn more(&mut self, bond: Key, passes: &[Pass]) -> f64 {
        let mut more = 0.0;
        for Pass { key, images, macs } in passes {
            let known = self.0.entry((bond, *key)).or_default();
            let mut from = 0.0;
            for (until, deep) in known.iter() {
                more += (until.min(*images) - from).max(0.0) * (macs - deep).max(0.0);
                from = until.max(from);
            }
            more += (images - from).max(0.0) * macs;
            if known.iter().all(|(until, deep)| until < images || deep < macs) {
                known.retain(|(until, deep)| until > images || deep > macs);
                known.push((*images, *macs));
                known.sort_by(|one, other| one.0.total_cmp(&other.0));
            }
        }
        more
    }
}

/// Shared stages that were met: each is counted once and queued once.
#[derive(Default)]
struct Met {
    /// With what they cost, in multiply-accumulates and seconds.
    counted: HashMap<Key, (f64, f64)>,
    queued: HashSet<Key>,
    passes: Passes,
    frozen: Frozen,
}

impl Met {
    /// What a trial need not do, since others of its trunk that were met before begin as it does; `legs` is what its phases
    /// cost.
    fn in_common(&mut self, trunk: Key, train: &Train, legs: &[f64]) -> f64 {
        let mut saved = 0.0;
        for (beginning, leg, part) in bond::beginnings(trunk, train) {
            let macs = part * legs[leg];
            saved += macs - self.passes.more(beginning, macs);
        }
        saved
    }
}

impl Jobs {
    /// Counts the shared stages below a trial, and queues those that it waits for; returns the keys of all.
    fn shared_stages(&mut self, shape: &Shape, done: bool, world: &World, met: &mut Met) -> Vec<Key> {
        let mut needs = Vec::new();
        if let Some((work, cost)) = &shape.pretrain {
            let key = work.stage.key();
            let seconds = cost.macs / shape.pace.source;
            if met.counted.insert(key, (cost.macs, seconds)).is_none() {
                // A source model is made once either way; one by one, nobody encodes.
                self.totals.alone += cost.macs;
                self.totals.seconds.alone += seconds;
                self.totals.shared(work, *cost, seconds);
            }
            needs.push(key);
            self.queue_shared(work, Vec::new(), None, !done, world, met);
        }
        if let Some((stage, cost, _)) = shape.stored(&self.kept) {
            let bond = bond::of_encode(stage);
            let pretrain = shape.pretrain.as_ref().and_then(|(work, _)| match &work.stage {
                Stage::Pretrain(stage) => Some(stage.clone()),
                _ => None,
            });
            let (weights, stage) = (shape.weights.clone(), Stage::Encode(stage.clone()));
            let work = Work { stage, pretrain, encode: None, prefix: false, weights, keep: None };
            let key = work.stage.key();
            if !met.counted.contains_key(&key) {
                // Several layers come out of one pass: the deepest pays.
                let macs = met.passes.more(bond, cost.macs);
                let seconds = macs / shape.pace.forward;
                met.counted.insert(key, (macs, seconds));
                self.totals.shared(&work, Cost { macs, ..*cost }, seconds);
            }
            let before = needs.clone();
            needs.push(key);
            self.queue_shared(&work, before, Some(bond), !done, world, met);
        }
        needs
    }

    fn queue_shared(
        &mut self,
        work: &Work,
        needs: Vec<Key>,
        bond: Option<Key>,
        wanted: bool,
        world: &World,
        met: &mut Met,
    ) {
        let key = work.stage.key();
        if !wanted || present(world, &work.stage) || !met.queued.insert(key) {
            return;
        }
        let (macs, seconds) = met.counted.get(&key).copied().unwrap_or_default();
        self.totals.outstanding += macs;
        self.totals.seconds.outstanding += seconds;
        self.queue.push(Job { key, needs, bond, macs, bytes: 0.0, whole: true });
        let alone = if matches!(work.stage, Stage::Pretrain(_)) { macs } else { 0.0 };
        self.list.push(Planned { what: What::Shared(Box::new(work.clone())), macs, alone, seconds });
    }
}

impl Totals {
    fn shared(&mut self, work: &Work, cost: Cost, seconds: f64) {
        self.stages[usize::from(matches!(work.stage, Stage::Encode(_)))] += 1;
        self.shared += cost.macs;
        self.seconds.shared += seconds;
        self.bytes += cost.bytes;
    }

    fn count(&mut self, shape: &Shape, done: bool, macs: f64, prefix: f64) {
        self.trials += 1;
        self.done += usize::from(done);
        self.alone += shape.cost.alone;
        self.shared += macs + prefix;
        self.outstanding += if done { 0.0 } else { macs + prefix };
        let seconds = macs / shape.pace.own + prefix / shape.pace.forward;
        self.seconds.alone += shape.cost.alone / shape.pace.alone;
        self.seconds.shared += seconds;
        self.seconds.outstanding += if done { 0.0 } else { seconds };
        self.stages[if shape.probe { 2 } else { 3 }] += 1;
    }
}

/// Whether the artifact of a shared stage is there; what is damaged is found and mended by the worker that reads it.
fn present(world: &World, stage: &Stage) -> bool {
    let path = match stage {
        Stage::Pretrain(_) => world.places.model(stage.key()),
        Stage::Encode(_) => world.places.features(stage.key()),
        Stage::Train(_) => return false,
    };
    path.exists()
}
