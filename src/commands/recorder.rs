//! What a sweep writes into the store: what is planned, and every event as it comes.

use std::collections::{HashMap, HashSet};

use super::jobs::{Jobs, What};
use super::run::describe;
use super::world::World;
use super::{findings, host};
use crate::data::split::split;
use crate::data::{self, Manifest};
use crate::expense::Expense;
use crate::experiment::Experiment;
use crate::key::Key;
use crate::outcome::{Failure, FailureClass, Predictions, TrialOutcome, score};
use crate::plan::stage::Train;
use crate::plan::{Cell, Plan, cost, trial_key};
use crate::schedule::event::Event;
use crate::store::Store;
use crate::store::record::{CellRecord, Circumstance, ExperimentRecord, FinishedTrial, Shifted};
use crate::value::{Layer, Value};

/// Where a sweep runs.
pub fn circumstance(world: &World) -> Circumstance {
    let gpus = world.devices.models();
    Circumstance {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: env!("TL_SWEEP_BUILD").to_owned(),
        device: world.devices.names(),
        numerics: world.devices.numerics(),
        slots: world.facts.slots,
        machine: format!(
            "{} {}, {}{}",
            std::env::consts::OS,
            std::env::consts::ARCH,
            host::processor(),
            gpus.map_or_else(String::new, |gpus| format!(", {gpus}"))
        ),
    }
}

/// Writes what is planned, and opens the sweep.
///
/// # Errors
/// The store cannot be written.
pub fn begin(
    store: &mut Store,
    experiment: &Experiment,
    plan: &Plan,
    world: &World,
    circumstance: &Circumstance,
) -> anyhow::Result<i64> {
    for dataset in world.datasets.values() {
        let manifest = &dataset.manifest;
        let origin = |at: u32| manifest.shifted.iter().find(|other| other.holds(at));
        let samples = manifest.samples.iter().zip(0..).map(|(sample, at)| {
            let origin = origin(at).map(|other| other.dataset.as_str());
            (sample.id.as_str(), sample.class, sample.part.name(), [sample.group.as_deref(), origin])
        });
        let (name, classes) = (&dataset.name, &manifest.classes);
        store.dataset(manifest.fingerprint, name, &manifest.sha256, classes, manifest.folds, samples)?;
    }
    let metric = metric_name(experiment)?;
    let record = ExperimentRecord {
        name: &experiment.name,
        question: &experiment.question,
        metric: &metric,
        replicates: experiment.replicates,
        tune_replicates: experiment.tune_replicates,
        tune_share: experiment.tune_share,
        max_replicates: experiment.max_replicates,
        seed: experiment.seed,
        rules: serde_json::to_string(&findings::rules(experiment))?,
        scenarios: findings::scenarios_json(experiment)?,
        text: experiment.text(),
    };
    let told = told(plan, world).map_err(anyhow::Error::msg)?;
    let cells = plan.cells.iter().zip(told).map(|(cell, (expense, tokenizer))| {
        let settings = labels(plan, cell);
        let dataset = settings.get("dataset").map_or_else(String::new, Value::to_string);
        let data = world.facts.datasets.get(&dataset).map_or_else(|| Key::of_bytes(b""), |fact| fact.fingerprint);
        let trials = (0..plan.replicates_of(cell)).map(|replicate| trial_key(cell.key, replicate)).collect();
        CellRecord { key: cell.key, data, start: plan.start(cell, &world.facts), tokenizer, expense, settings, trials }
    });
    store.begin(&record, cells, circumstance)
}

/// What a trial of each cell takes, and the tokenizer that reads class names for it.
fn told(plan: &Plan, world: &World) -> Result<Vec<(Expense, Option<String>)>, String> {
    let mut known: HashMap<u64, (Expense, Option<String>)> = HashMap::new();
    let mut of_cell = |cell: &Cell| {
        if let Some(told) = known.get(&cell.shape()) {
            return Ok(told.clone());
        }
        let chain = plan.stages(cell, 0, &world.facts)?;
        let data = world.facts.datasets.values().find(|data| data.fingerprint == chain.train.data);
        let counts = data.ok_or("no such dataset")?.counts(chain.train.per_class)?;
        let tokenizer = chain.train.texts.as_ref().map(|texts| texts.tokenizer.clone());
        let told = (cost::expense(&chain, counts)?, tokenizer);
        known.insert(cell.shape(), told.clone());
        Ok(told)
    };
    plan.cells.iter().map(&mut of_cell).collect()
}

/// The settings of a cell as the store has them: those that have an effect, and the whole budget beside the share that runs of it.
/// What a person asked for labels the row, also where a word settles to a layer.
pub fn labels(plan: &Plan, cell: &Cell) -> Layer {
    let (mut settings, asked) = (plan.uncut(cell), plan.asked(cell));
    settings.extend(
        ["freeze", "transfer", "tap"].into_iter().filter_map(|key| Some((key.to_owned(), asked.get(key)?.clone()))),
    );
    settings
}

/// The metric as the store names it.
pub fn metric_name(experiment: &Experiment) -> anyhow::Result<String> {
    Ok(serde_json::to_value(experiment.metric)?.as_str().unwrap_or("accuracy").to_owned())
}

/// What stands still while a sweep runs.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    pub plan: &'a Plan,
    pub jobs: &'a Jobs,
    pub world: &'a World,
    pub circumstance: &'a Circumstance,
    pub sweep: i64,
}

/// Writes events.
pub struct Recorder<'a> {
    ground: &'a Ground<'a>,
    /// Splits that are written already.
    splits: HashSet<Key>,
    /// Stages that will never be there, each with the reason.
    causes: HashMap<Key, String>,
}

impl<'a> Recorder<'a> {
    pub fn new(ground: &'a Ground<'a>) -> Self {
        Self { ground, splits: HashSet::new(), causes: HashMap::new() }
    }

    /// Writes what an event says.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn record(&mut self, event: &Event, store: &mut Store) -> anyhow::Result<()> {
        let Ground { plan, jobs, world, circumstance, sweep } = *self.ground;
        let key = |job: usize| jobs.queue[job].key;
        match event {
            Event::Finished { job, outcome } => match (&jobs.list[*job].what, &outcome.trial) {
                (What::Shared(work), _) => {
                    store.stage(key(*job), work.stage.kind(), outcome, &circumstance.device, sweep)
                }
                (What::Trial { cell, replicate }, Some(trial)) => {
                    let chain =
                        plan.stages(&plan.cells[*cell], *replicate, &world.facts).map_err(anyhow::Error::msg)?;
                    let split = store_split(store, &chain.train, world, &mut self.splits)?;
                    let shifted = shifted(trial, manifest(world, chain.train.data)?);
                    store.trial(key(*job), &FinishedTrial { split, outcome, trial, shifted }, circumstance, sweep)
                }
                (What::Trial { .. }, None) => anyhow::bail!("a worker returned a trial without results"),
            },
            Event::Failed { job, failure, again: false } => match jobs.list[*job].what {
                What::Trial { .. } => store.failed(key(*job), "failed", failure, sweep),
                What::Shared(_) => {
                    let cause = format!("{} has failed: {}", describe(plan, &jobs.list[*job].what), failure.message);
                    self.causes.insert(key(*job), cause);
                    Ok(())
                }
            },
            Event::Blocked { job } => {
                let cause = jobs.queue[*job].needs.iter().find_map(|need| self.causes.get(need));
                let message = cause.cloned().unwrap_or_else(|| "a stage that it needs has failed".to_owned());
                if matches!(jobs.list[*job].what, What::Shared(_)) {
                    self.causes.insert(key(*job), message);
                    return Ok(());
                }
                store.failed(key(*job), "blocked", &Failure { class: FailureClass::Data, message }, sweep)
            }
            _ => Ok(()),
        }
    }
}

/// The scores of a trial on each other dataset that it was tested on.
fn shifted(trial: &TrialOutcome, manifest: &Manifest) -> Vec<Shifted> {
    let Predictions { samples, predicted, .. } = &trial.shifted_predictions;
    let one = |other: &data::Shifted| {
        let own = samples.iter().zip(predicted).filter(|(at, _)| other.holds(**at));
        let (truth, predicted): (Vec<u32>, Vec<u16>) =
            own.map(|(at, predicted)| (manifest.samples[*at as usize].class, *predicted)).unzip();
        let scores = score(&predicted, &truth, manifest.classes.len(), f64::NAN);
        Shifted { dataset: other.dataset.clone(), images: truth.len(), scores }
    };
    let others = manifest.shifted.iter().map(one);
    others.filter(|shifted| shifted.images > 0).collect()
}

fn manifest(world: &World, data: Key) -> anyhow::Result<&Manifest> {
    let dataset = world.datasets.values().find(|dataset| dataset.manifest.fingerprint == data);
    Ok(&dataset.ok_or_else(|| anyhow::anyhow!("the dataset of a trial is gone"))?.manifest)
}

/// Writes the split of a trial once, and returns its key.
fn store_split(store: &mut Store, train: &Train, world: &World, known: &mut HashSet<Key>) -> anyhow::Result<Key> {
    let key = Key::of("split", &(train.data, train.per_class, train.seed, train.replicate));
    if known.insert(key) {
        let manifest = manifest(world, train.data)?;
        let split = split(manifest, train.per_class, train.seed, train.replicate as u64).map_err(anyhow::Error::msg)?;
        store.split(
            key,
            train.data,
            train.per_class,
            train.seed,
            train.replicate,
            [&split.train, &split.val, &split.test],
        )?;
    }
    Ok(key)
}
