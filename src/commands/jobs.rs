//! The jobs of a sweep: the trials that the store lacks, and the shared stages that they stand on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::world::World;
use crate::data::{packed, split};
use crate::frame::Frame;
use crate::key::Key;
use crate::plan::cost::{self, TrialCost};
use crate::plan::stage::{Chain, Stage, Start, Work};
use crate::plan::{Cell, Plan, trial_key};
use crate::schedule::queue::Job;

/// Features larger than this are computed again for each trial instead of being kept.
const MAX_FEATURES: f64 = 4e9;

/// One job: what it is, and its predicted cost in multiply-accumulates.
pub struct Planned {
    pub what: What,
    pub macs: f64,
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
}

/// The chain of a trial, with encodings that are too large to keep left out.
pub fn chain(plan: &Plan, cell: &Cell, replicate: usize, world: &World) -> Result<Chain, String> {
    let mut chain = plan.stages(cell, replicate, &world.facts)?;
    if let Some(encode) = &chain.encode {
        let too_large = cost::encode(encode, &chain.train, &world.facts)?.bytes > MAX_FEATURES;
        // A random backbone differs between replicates: there is nothing to share.
        if too_large || chain.train.backbone.start == Start::Random {
            chain.encode = None;
        }
    }
    Ok(chain)
}

/// What a worker needs to run a trial.
pub fn trial_work(plan: &Plan, cell: &Cell, replicate: usize, world: &World) -> Result<Work, String> {
    let chain = chain(plan, cell, replicate, world)?;
    let weights = weight_file(&chain.train.backbone.start, world);
    Ok(Work { stage: Stage::Train(Box::new(chain.train)), pretrain: chain.pretrain, encode: chain.encode, weights })
}

fn weight_file(start: &Start, world: &World) -> Option<std::path::PathBuf> {
    let Start::File(sha256) = start else { return None };
    world.facts.weights.values().find(|fact| fact.sha256 == *sha256).map(|fact| fact.path.clone().into())
}

/// Lists the jobs of `cells`, without those in `finished`.
///
/// # Errors
/// A cell that cannot be read: impossible for a plan that was built.
pub fn jobs(plan: &Plan, cells: &[usize], finished: &HashSet<Key>, world: &World) -> Result<Jobs, String> {
    let mut jobs = Jobs { list: Vec::new(), queue: Vec::new(), totals: Totals::default() };
    let mut seen: HashSet<Key> = HashSet::new();
    let mut shapes: HashMap<u64, Shape> = HashMap::new();
    let mut shared: BTreeMap<Key, bool> = BTreeMap::new();
    for replicate in 0..plan.replicates {
        for index in cells {
            let cell = &plan.cells[*index];
            let key = trial_key(cell.key, replicate);
            if !seen.insert(key) {
                continue;
            }
            let shape = match shapes.get(&cell.shape()) {
                Some(shape) => shape.clone(),
                None => {
                    let shape = Shape::of(plan, cell, world)?;
                    shapes.insert(cell.shape(), shape.clone());
                    shape
                }
            };
            let done = finished.contains(&key);
            jobs.count(&shape, done);
            let mut needs = Vec::new();
            for (work, own) in &shape.before {
                let key = work.stage.key();
                needs.push(key);
                let queued = shared.entry(key).or_insert(false);
                if !*queued && !done && !present(world, &work.stage) {
                    *queued = true;
                    jobs.totals.outstanding += own.macs;
                    let needs = work
                        .pretrain
                        .iter()
                        .filter(|_| matches!(work.stage, Stage::Encode(_)))
                        .map(|stage| Stage::Pretrain(stage.clone()).key())
                        .collect();
                    jobs.queue.push(Job { key, needs });
                    jobs.list.push(Planned { what: What::Shared(Box::new(work.clone())), macs: own.macs });
                }
            }
            if !done {
                jobs.queue.push(Job { key, needs });
                jobs.list.push(Planned { what: What::Trial { cell: *index, replicate }, macs: shape.cost.shared });
            }
        }
    }
    let distinct: HashMap<Key, cost::Cost> =
        shapes.values().flat_map(|shape| &shape.before).map(|(work, cost)| (work.stage.key(), *cost)).collect();
    jobs.totals.shared += distinct.values().map(|cost| cost.macs).sum::<f64>();
    // A source model is made once either way; one by one, nobody encodes.
    let pretraining =
        shapes.values().flat_map(|shape| &shape.before).filter(|(work, _)| matches!(work.stage, Stage::Pretrain(_)));
    let pretraining: HashMap<Key, f64> = pretraining.map(|(work, cost)| (work.stage.key(), cost.macs)).collect();
    jobs.totals.alone += pretraining.values().sum::<f64>();
    jobs.totals.bytes = distinct.values().map(|cost| cost.bytes).sum();
    let kinds: BTreeSet<(&str, Key)> = shapes
        .values()
        .flat_map(|shape| &shape.before)
        .map(|(work, _)| (work.stage.kind(), work.stage.key()))
        .collect();
    for (kind, _) in kinds {
        jobs.totals.stages[usize::from(kind == "encode")] += 1;
    }
    Ok(jobs)
}

/// What cells of one structure have in common: cost, and the stages before them.
#[derive(Clone)]
struct Shape {
    cost: TrialCost,
    before: Vec<(Work, cost::Cost)>,
    probe: bool,
}

impl Shape {
    fn of(plan: &Plan, cell: &Cell, world: &World) -> Result<Self, String> {
        let chain = chain(plan, cell, 0, world)?;
        let data =
            world.facts.datasets.values().find(|data| data.fingerprint == chain.train.data).ok_or("no such dataset")?;
        let mut cost = cost::trial(&chain.train, data.counts(chain.train.per_class)?)?;
        if chain.encode.is_none() {
            cost.shared = cost.alone;
        }
        let weights = weight_file(&chain.train.backbone.start, world);
        let before = cost::before(&chain, &world.facts)?.into_iter().map(|(stage, cost)| {
            let pretrain = chain.pretrain.clone();
            (Work { stage, pretrain, encode: None, weights: weights.clone() }, cost)
        });
        let before = before.collect();
        Ok(Self { cost, before, probe: Stage::Train(Box::new(chain.train)).kind() == "probe" })
    }
}

impl Jobs {
    fn count(&mut self, shape: &Shape, done: bool) {
        let totals = &mut self.totals;
        totals.trials += 1;
        totals.done += usize::from(done);
        totals.alone += shape.cost.alone;
        totals.shared += shape.cost.shared;
        totals.outstanding += if done { 0.0 } else { shape.cost.shared };
        totals.stages[if shape.probe { 2 } else { 3 }] += 1;
    }
}

/// Whether the artifact of a shared stage is there; what is damaged is found and mended by the worker that reads it.
fn present(world: &World, stage: &Stage) -> bool {
    let ending = match stage {
        Stage::Pretrain(_) => "safetensors",
        Stage::Encode(_) => "features",
        Stage::Train(_) => return false,
    };
    world.cache.join(format!("{}.{ending}", stage.key())).exists()
}

/// Decodes every image that the jobs will read, and writes the manifests that workers read. Returns how many images
/// were decoded now.
///
/// # Errors
/// An image that cannot be used; the cache cannot be written.
pub fn prepare_data(plan: &Plan, jobs: &Jobs, world: &World) -> anyhow::Result<usize> {
    let mut wanted: BTreeMap<(Key, Frame), BTreeSet<usize>> = BTreeMap::new();
    let mut asked: HashSet<(Key, Frame, Option<usize>, usize)> = HashSet::new();
    for job in &jobs.list {
        match &job.what {
            What::Shared(work) => {
                if let Stage::Pretrain(stage) = &work.stage {
                    let all = all_of(world, stage.data);
                    wanted.entry((stage.data, stage.frame())).or_default().extend(all);
                }
                if let Stage::Encode(stage) = &work.stage {
                    for replicate in 0..stage.replicates {
                        want(
                            world,
                            &mut asked,
                            &mut wanted,
                            (stage.data, stage.backbone.frame(), stage.per_class, replicate),
                            stage.seed,
                        )?;
                    }
                }
            }
            What::Trial { cell, replicate } => {
                let train = chain(plan, &plan.cells[*cell], *replicate, world).map_err(anyhow::Error::msg)?.train;
                want(
                    world,
                    &mut asked,
                    &mut wanted,
                    (train.data, train.backbone.frame(), train.per_class, *replicate),
                    train.seed,
                )?;
            }
        }
    }
    let mut decoded = 0;
    for ((data, frame), indices) in wanted {
        let Some(dataset) = world.datasets.values().find(|dataset| dataset.manifest.fingerprint == data) else {
            continue;
        };
        let indices: Vec<usize> = indices.into_iter().collect();
        decoded += packed::prepare(dataset, frame, &indices, &world.cache)?;
        let path = world.cache.join(format!("{data}.json"));
        if !path.exists() {
            let temporary = path.with_extension(format!("tmp{}", std::process::id()));
            std::fs::write(&temporary, serde_json::to_vec(&dataset.manifest)?)?;
            std::fs::rename(&temporary, &path)?;
        }
    }
    Ok(decoded)
}

fn all_of(world: &World, data: Key) -> Vec<usize> {
    let dataset = world.datasets.values().find(|dataset| dataset.manifest.fingerprint == data);
    dataset.map_or_else(Vec::new, |dataset| {
        (0..dataset.manifest.samples.len())
            .filter(|index| dataset.manifest.samples[*index].part != crate::data::Part::Test)
            .collect()
    })
}

fn want(
    world: &World,
    asked: &mut HashSet<(Key, Frame, Option<usize>, usize)>,
    wanted: &mut BTreeMap<(Key, Frame), BTreeSet<usize>>,
    what: (Key, Frame, Option<usize>, usize),
    seed: u64,
) -> anyhow::Result<()> {
    if !asked.insert(what) {
        return Ok(());
    }
    let (data, frame, per_class, replicate) = what;
    let Some(dataset) = world.datasets.values().find(|dataset| dataset.manifest.fingerprint == data) else {
        return Ok(());
    };
    let split = split::split(&dataset.manifest, per_class, seed, replicate as u64).map_err(anyhow::Error::msg)?;
    let all = split.train.iter().chain(&split.val).chain(&split.test);
    wanted.entry((data, frame)).or_default().extend(all.map(|index| *index as usize));
    Ok(())
}
