//! `verify FILE`: runs finished trials again, each alone, and compares everything that the store holds of them; `verify BUNDLE`
//! does so with what others have found.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use super::bundle::{Bundle, Lock};
use super::jobs::{self, What};
use super::world::World;
use super::{Exit, Usage, prepare, print, print_json, run, table_style, tuning};
use crate::cli::{Answer, Asked, Common};
use crate::experiment::Experiment;
use crate::key::Key;
use crate::outcome::{Ending, Outcome, TrialOutcome};
use crate::plan::{Plan, Trial};
use crate::report::table::table;
use crate::schedule::event::Event;
use crate::schedule::queue::{Limits, Queue};
use crate::schedule::sweep::{Stop, sweep};
use crate::store::Store;
use crate::store::query::Recorded;
use crate::value::Value;

/// Trials of another numerics class may differ by so much: losses by this part of themselves, and so many answers.
const TOLERANCE: f64 = 1e-3;

/// One trial that was run again.
struct Checked {
    key: Key,
    name: String,
    /// Trials that ran together when the store got its result.
    group: usize,
    /// What differs; empty where nothing does.
    difference: String,
    /// The class of the device that ran it now, and of the one that ran it then.
    numerics: [String; 2],
}

impl Checked {
    /// What a person reads of it.
    fn said(&self) -> &str {
        let [now, then] = &self.numerics;
        match self.difference.as_str() {
            "" if now == then => "the same, bit for bit",
            "" => "the same, within what another class may differ by",
            difference => difference,
        }
    }
}

/// What came of it.
struct Repeated<'a> {
    experiment: &'a str,
    /// What it is compared with.
    holder: &'a str,
    checked: Vec<Checked>,
    /// Trials that could not be run again.
    missing: usize,
}

impl Repeated<'_> {
    fn wrong(&self) -> usize {
        self.checked.iter().filter(|one| !one.difference.is_empty()).count()
    }

    fn text(&self) -> String {
        let row = |one: &Checked| vec![one.key.short(), one.name.clone(), one.group.to_string(), one.said().to_owned()];
        let rows: Vec<Vec<String>> = self.checked.iter().map(row).collect();
        let listed = table(table_style(), &["trial", "", "ran in a group of", "alone it gives"], &rows);
        let (all, right) = (self.checked.len(), self.checked.len() - self.wrong());
        match self.missing {
            0 => format!("{listed}\n{right} of {all} trials, run alone, gave what {} holds", self.holder),
            missing => format!("{listed}\n{missing} trials could not be run again"),
        }
    }

    fn json(&self) -> serde_json::Value {
        let one = |one: &Checked| {
            let [now, then] = &one.numerics;
            serde_json::json!({
                "trial": one.key,
                "name": one.name,
                "ran_in_a_group_of": one.group,
                "numerics": {"now": now, "then": then},
                "same": one.difference.is_empty(),
                "difference": one.difference,
            })
        };
        serde_json::json!({
            "version": 1,
            "experiment": self.experiment,
            "trials": self.checked.iter().map(one).collect::<Vec<_>>(),
            "same": self.checked.len() - self.wrong(),
            "not_run": self.missing,
        })
    }

    fn exit(&self) -> Exit {
        match (self.missing, self.wrong()) {
            (0, 0) => Exit::Complete,
            (0, _) => Exit::Mismatch,
            _ => Exit::SomeFailed,
        }
    }
}

pub fn run(asked: &Asked, sample: usize, format: Answer, common: &Common) -> anyhow::Result<Exit> {
    let file = &asked.file;
    if Bundle::is_one(file) {
        anyhow::ensure!(
            asked.set.is_empty(),
            Usage("--set is for experiment files: a bundle is what was run".to_owned())
        );
        return of_bundle(file, sample, format, common);
    }
    let experiment = Experiment::load(file, &asked.set)?;
    let world = World::gather(&experiment, file, common)?;
    tell(&repeat(&experiment, world, &mut Store::open(&common.db)?, "the store", sample)?, format)
}

/// Images and weights are looked up beside the bundle, as they are beside an experiment file; what is prepared of them lies in
/// the cache of this machine.
fn of_bundle(path: &Path, sample: usize, format: Answer, common: &Common) -> anyhow::Result<Exit> {
    let bundle = Bundle::open(path)?;
    let beside = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let common = Common { data: common.data.clone().or_else(|| Some(beside.to_owned())), ..common.clone() };
    let file = bundle.file();
    let experiment = Experiment::load(&file, &[])?;
    let world = World::gather(&experiment, &file, &common)?;
    let others = others(&bundle.lock, &world);
    if !others.is_empty() {
        let others: Vec<&str> = others.iter().map(|other| other.trim_start()).collect();
        match format {
            Answer::Table => print(&format!(
                "'{}' was computed of other bytes than are here:\n  {}",
                path.display(),
                others.join("\n  ")
            ))?,
            Answer::Json => print_json(
                &serde_json::json!({"version": 1, "experiment": bundle.lock.experiment, "other_bytes": others}),
            )?,
        }
        return Ok(Exit::Mismatch);
    }
    if format == Answer::Table {
        print(&told(&bundle.lock, &world))?;
    }
    tell(&repeat(&experiment, world, &mut Store::open(&bundle.store())?, "the bundle", sample)?, format)
}

fn tell(repeated: &Repeated, format: Answer) -> anyhow::Result<Exit> {
    match format {
        Answer::Table => print(&repeated.text())?,
        Answer::Json => print_json(&repeated.json())?,
    }
    Ok(repeated.exit())
}

/// Datasets, weights and tokenizers that are not those of a bundle.
fn others(lock: &Lock, world: &World) -> Vec<String> {
    let datasets = lock.datasets.iter().filter_map(|pin| {
        let own = world.datasets.get(&pin.name)?.manifest.fingerprint.to_string();
        (own != pin.fingerprint)
            .then(|| format!("  dataset '{}': fingerprint {} there, {own} here", pin.name, pin.fingerprint))
    });
    let weights = lock.weights.iter().filter_map(|pin| {
        let own = &world.facts.weights.get(&pin.weights)?.sha256;
        (*own != pin.start).then(|| format!("  weights '{}': sha256 {} there, {own} here", pin.weights, pin.start))
    });
    let tokenizers = lock.weights.iter().filter_map(|pin| {
        let (there, own) = (pin.tokenizer.as_ref()?, &world.facts.weights.get(&pin.weights)?.texts);
        let here = match own {
            Ok(own) if own == there => return None,
            Ok(own) => format!("{own} here"),
            Err(why) => why.clone(),
        };
        Some(format!("  tokenizer of '{}': sha256 {there} there, {here}", pin.weights))
    });
    datasets.chain(weights).chain(tokenizers).collect()
}

/// Who computed it, and what may be expected here.
fn told(lock: &Lock, world: &World) -> String {
    let machines: BTreeSet<&str> = lock.executions.iter().map(|one| one.machine.as_str()).collect();
    let own = world.devices.numerics();
    let promise = if lock.numerics.iter().all(|class| *class == own) {
        "the same class, so every bit must be the same".to_owned()
    } else {
        format!("another class, so losses may differ by {TOLERANCE} of themselves")
    };
    let machines = machines.into_iter().collect::<Vec<_>>().join("; ");
    format!(
        "'{}' was computed by {} ({machines}); this machine computes {own}: {promise}",
        lock.experiment,
        lock.numerics.join(", ")
    )
}

/// Runs a sample of the trials that a store holds, and compares.
fn repeat<'a>(
    experiment: &'a Experiment,
    mut world: World,
    store: &mut Store,
    holder: &'a str,
    sample: usize,
) -> anyhow::Result<Repeated<'a>> {
    world.share = false;
    let mut plan = Plan::new(experiment, &world.facts).map_err(|list| experiment.problems(list))?;
    plan.choose(tuning::worth(&plan, experiment, Some(store))?.cells);
    let finished = store.finished()?;
    let chosen = chosen(&plan, &finished, sample);
    if chosen.is_empty() {
        return Err(Usage(format!(
            "{holder} has no finished trial of '{}' with the images and weights that are here",
            experiment.name
        ))
        .into());
    }
    let checked = recompute(&plan, &world, store, &finished, &chosen)?;
    for one in &checked {
        store.audit(one.key, &one.numerics[0], &one.difference)?;
    }
    let missing = chosen.len() - checked.len();
    Ok(Repeated { experiment: &experiment.name, holder, checked, missing })
}

/// Finished trials, in turn from every scenario and recipe; within one by their keys, which are as good as chance.
fn chosen(plan: &Plan, finished: &HashSet<Key>, sample: usize) -> Vec<(usize, Key)> {
    let mut strata: BTreeMap<(String, String, String), Vec<(Key, usize)>> = BTreeMap::new();
    for Trial { cell, key, .. } in plan.all_trials().into_iter().filter(|trial| finished.contains(&trial.key)) {
        let asked = plan.asked(&plan.cells[cell]);
        let get = |key: &str| asked.get(key).map_or_else(String::new, Value::to_string);
        strata.entry((get("recipe"), get("tap"), get("scenario"))).or_default().push((key, cell));
    }
    let mut strata: Vec<Vec<(Key, usize)>> = strata.into_values().collect();
    strata.iter_mut().for_each(|own| own.sort_unstable_by(|one, other| other.cmp(one)));
    // The strata themselves in no order of the file, so that a small sample is not all of its first recipe.
    strata.sort_unstable_by_key(|own| own.last().map(|(key, _)| *key));
    let mut chosen = Vec::new();
    while chosen.len() < sample && strata.iter().any(|own| !own.is_empty()) {
        for own in &mut strata {
            if let Some((key, index)) = own.pop().filter(|_| chosen.len() < sample) {
                chosen.push((index, key));
            }
        }
    }
    chosen
}

/// Runs the chosen trials alone and compares each as it comes.
fn recompute(
    plan: &Plan,
    world: &World,
    store: &Store,
    finished: &HashSet<Key>,
    chosen: &[(usize, Key)],
) -> anyhow::Result<Vec<Checked>> {
    let wanted: HashSet<Key> = chosen.iter().map(|(_, key)| *key).collect();
    let others: HashSet<Key> = finished.difference(&wanted).copied().collect();
    let cells: Vec<usize> = chosen.iter().map(|(cell, _)| *cell).collect::<BTreeSet<_>>().into_iter().collect();
    let mut jobs = jobs::jobs(plan, &cells, &others, world).map_err(anyhow::Error::msg)?;
    // Replicates of these cells that have never run stay out.
    jobs.retain(&wanted);
    prepare::prepare_data(plan, &jobs, world)?;
    let mut queue = Queue::new(jobs.queue.clone(), Limits { slots: world.facts.slots, bytes: f64::INFINITY });
    let mut pool = run::pool(world, jobs.list.len())?;
    let mut checked = Vec::new();
    let work = |job: usize| match &jobs.list[job].what {
        What::Shared(work) => Ok((**work).clone()),
        What::Trial { cell, replicate } => {
            jobs::trial_work(plan, &plan.cells[*cell], *replicate, world, &jobs.kept).map_err(anyhow::Error::msg)
        }
    };
    sweep(
        &mut queue,
        &mut pool,
        work,
        || Stop::No,
        |_| true,
        |event| {
            match event {
                Event::Finished { job, outcome } => {
                    let key = jobs.queue[job].key;
                    if wanted.contains(&key) {
                        let name = run::describe(plan, &jobs.list[job].what);
                        eprintln!("{}: {name}", key.short());
                        let recorded = store.recorded(key)?;
                        let difference = difference(&recorded, &outcome);
                        let numerics = [outcome.numerics.clone(), recorded.numerics];
                        checked.push(Checked { key, name, group: recorded.group, difference, numerics });
                    }
                }
                Event::Failed { job, failure, again: false } => {
                    eprintln!("{}: failed: {}", run::describe(plan, &jobs.list[job].what), failure.message);
                }
                _ => {}
            }
            Ok(())
        },
    )?;
    Ok(checked)
}

/// What differs between the store and a new run: nothing within a numerics class, little between two.
pub fn difference(recorded: &Recorded, outcome: &Outcome) -> String {
    let Some(trial) = &outcome.trial else { return "no results".to_owned() };
    let mut found = Vec::new();
    let status = if trial.ending == Ending::Diverged { "diverged" } else { "done" };
    if recorded.status != status {
        found.push(format!("{status} instead of {}", recorded.status));
    }
    if recorded.numerics != outcome.numerics {
        found.extend(beyond_tolerance(recorded, trial));
        return found.join(", ");
    }
    let points: Vec<[f64; 6]> = trial
        .curve
        .iter()
        .map(|point| [point.step as f64, point.epoch, point.lr, point.train_loss, point.val.loss, point.val.accuracy])
        .collect();
    let at =
        points.iter().zip(&recorded.curve).position(|(own, other)| own.map(f64::to_bits) != other.map(f64::to_bits));
    if let Some(at) = at {
        found.push(format!("the curve from step {} on", points[at][0]));
    } else if points.len() != recorded.curve.len() {
        found.push("the length of the curve".to_owned());
    }
    let losses = [(trial.val, recorded.val_loss, "val loss"), (trial.test, recorded.test_loss, "test loss")];
    for (own, other, name) in losses {
        let own = own.map(|scores| scores.loss);
        if own.map(f64::to_bits) != other.map(f64::to_bits) {
            let shown = |loss: Option<f64>| loss.map_or_else(|| "none".to_owned(), |loss| loss.to_string());
            found.push(format!("{name} {} instead of {}", shown(own), shown(other)));
        }
    }
    let answers = differing(&trial.test_predictions.predicted, &recorded.test_predicted);
    if answers > 0 {
        found.push(format!("{answers} answers on test"));
    }
    let answers = differing(&trial.shifted_predictions.predicted, &recorded.shifted_predicted);
    if answers > 0 {
        found.push(format!("{answers} answers on the test images of other datasets"));
    }
    if trial.steps != recorded.steps {
        found.push(format!("{} steps instead of {}", trial.steps, recorded.steps));
    }
    found.join(", ")
}

fn differing(own: &[u16], other: &[u16]) -> usize {
    own.iter().zip(other).filter(|(own, other)| own != other).count() + own.len().abs_diff(other.len())
}

fn beyond_tolerance(recorded: &Recorded, trial: &TrialOutcome) -> Vec<String> {
    let mut found = Vec::new();
    if let (Some(own), Some(other)) = (trial.test.map(|scores| scores.loss), recorded.test_loss)
        && (own - other).abs() > TOLERANCE * other.abs()
    {
        found.push(format!("test loss {own} instead of {other} ({} computed it)", recorded.numerics));
    }
    let answers = differing(&trial.test_predictions.predicted, &recorded.test_predicted);
    if answers as f64 > TOLERANCE * recorded.test_predicted.len() as f64 + 1.0 {
        found.push(format!("{answers} answers on test"));
    }
    found
}
