//! `check FILE`: every problem before any compute, and what the design cannot decide.

use std::collections::BTreeSet;
use std::path::Path;

use super::data::contradictions_told;
use super::jobs::{self, Jobs, What};
use super::machine::Rates;
use super::world::World;
use super::{Exit, Usage, near, prepare, print, tuning};
use crate::cli::{Asked, Common};
use crate::data::{Dataset, Manifest};
use crate::experiment::Experiment;
use crate::experiment::condition::like;
use crate::key::Key;
use crate::plan::Plan;
use crate::plan::stage::Stage;
use crate::value::Value;

/// At most so many images that are left out of a dataset are named.
const LISTED: usize = 20;

pub fn run(asked: &Asked, common: &Common) -> anyhow::Result<Exit> {
    let experiment = Experiment::load(&asked.file, &asked.set)?;
    let mut world = World::gather(&experiment, &asked.file, common)?;
    world.rates = Rates::unmeasured(&world.places.cache);
    let mut plan = Plan::new(&experiment, &world.facts).map_err(|list| experiment.problems(list))?;
    check_weights(&plan, &world)?;
    let worth = tuning::foreseen(&plan, &experiment, None)?;
    plan.choose(worth.cells);
    let cells: Vec<usize> = (0..plan.cells.len()).collect();
    let all = jobs::jobs(&plan, &cells, &Default::default(), &world).map_err(anyhow::Error::msg)?;
    let prepared = prepare::prepare_data(&plan, &all, &world)?;
    for dataset in world.datasets.values() {
        let skipped = &dataset.manifest.skipped;
        for (id, reason) in skipped.iter().take(LISTED) {
            print(&format!("skipped: '{id}' of '{}': {reason}", dataset.name))?;
        }
        if skipped.len() > LISTED {
            print(&format!("skipped: {} more of '{}'", skipped.len() - LISTED, dataset.name))?;
        }
        let leaks = dataset.manifest.leaks(&dataset.manifest);
        if let Some((train, test)) = leaks.first() {
            print(&format!(
                "warning: in '{}' {} training images have the same bytes as a test image, for example {train} and {test}",
                dataset.name,
                leaks.len()
            ))?;
        }
    }
    for dataset in world.datasets.values() {
        if let Some(told) = contradictions_told(&format!("'{}'", dataset.name), &dataset.manifest) {
            print(&format!("warning: {told}"))?;
        }
    }
    for (source, dataset) in pretrained(&all, &world) {
        let leaks = dataset.manifest.leaks(&source.manifest);
        if let Some((train, test)) = leaks.first() {
            print(&format!(
                "warning: the source model trains on {} images of '{}' with the same bytes as a test image of '{}', for example {train} and {test}",
                leaks.len(),
                source.name,
                dataset.name
            ))?;
        }
    }
    let near = near::found(&prepared, &world)?;
    for (dataset, pairs) in &near {
        if let Some(told) = near::told(&dataset.name, &dataset.manifest, pairs) {
            let (word, what) = match dataset.manifest.folds {
                None => ("drop", "leaves those to train on out"),
                Some(_) => ("together", "puts them into one fold"),
            };
            print(&format!(
                "warning: {told}; `tl-sweep data` with --near-duplicates lists them, near_duplicates = \"{word}\" under \
                 [datasets.{}] {what}",
                dataset.name
            ))?;
        }
    }
    for (dataset, pairs) in &near {
        for told in near::told_of_others(&dataset.name, &dataset.manifest, pairs) {
            print(&format!("warning: {told}"))?;
        }
    }
    let has_short = plan.all_trials().iter().any(|trial| plan.cells[trial.cell].is_short());
    if plan.tune_share.is_some() && !has_short {
        print("warning: tune_share has no effect: no recipe has so many settings that it saves work")?;
    }
    if plan.tune_replicates < plan.replicates && all.totals.trials == plan.distinct() * plan.replicates {
        print("warning: tune_replicates has no effect: every recipe has a single setting")?;
    }
    if plan.max_replicates > plan.replicates && worth.at_most == 0 {
        print("warning: max_replicates has no effect: there is no rule")?;
    }
    for warning in undecidable(&experiment, &world) {
        print(&format!("warning: {warning}"))?;
    }
    print(&format!(
        "{}: {} cells, {}{} trials{}, no problem found",
        asked.file.display(),
        plan.whole().count(),
        if plan.compares_first() { "about " } else { "" },
        all.totals.trials,
        if worth.at_most > 0 {
            format!(" and as many as {} more for open rules", worth.at_most)
        } else {
            String::new()
        }
    ))?;
    Ok(Exit::Complete)
}

/// Each dataset that a source model is trained on here, beside each other one.
fn pretrained<'a>(jobs: &Jobs, world: &'a World) -> Vec<(&'a Dataset, &'a Dataset)> {
    let sources = jobs.list.iter().filter_map(|job| match &job.what {
        What::Shared(work) => match &work.stage {
            Stage::Pretrain(stage) => Some(stage.data),
            _ => None,
        },
        What::Trial { .. } => None,
    });
    let sources: BTreeSet<Key> = sources.collect();
    let of = |dataset: &&Dataset| sources.contains(&dataset.manifest.fingerprint);
    let all = || world.datasets.values().map(|dataset| &**dataset);
    all()
        .filter(of)
        .flat_map(|source| all().map(move |dataset| (source, dataset)))
        .filter(|(one, other)| one.manifest.fingerprint != other.manifest.fingerprint)
        .collect()
}

/// Loads every weight file into its network once.
fn check_weights(plan: &Plan, world: &World) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for cell in &plan.cells {
        let settled = plan.settled(cell);
        let tap = settled.get("tap").map_or("features".to_owned(), Value::to_string);
        let name = settled.get("weights").map_or_else(String::new, Value::to_string);
        if let Some(fact) = world.facts.weights.get(&name)
            && seen.insert((name, settled.get("tap").map(Value::to_string)))
        {
            let arch = crate::plan::chain::arch(&settled, &world.facts).map_err(anyhow::Error::msg)?;
            crate::train::check_weights(Path::new(&fact.path), &arch, &tap)
                .map_err(|error| Usage(format!("{error:#}")))?;
        }
    }
    Ok(())
}

/// Rules that this design cannot answer, and why.
fn undecidable(experiment: &Experiment, world: &World) -> Vec<String> {
    let mut found = Vec::new();
    if !experiment.rules.is_empty() && experiment.replicates < 3 {
        found.push(format!("replicates = {}: a verdict needs 3", experiment.replicates));
    }
    for rule in &experiment.rules {
        for scenario in experiment.scenarios.iter().filter(|scenario| like(&rule.scenario, &scenario.name)) {
            let dataset = scenario.layer.get("dataset").map_or_else(String::new, Value::to_string);
            let Some(fact) = world.facts.datasets.get(&dataset) else { continue };
            let own = || fact.tested(experiment.replicates);
            let images = rule.on.as_ref().map_or_else(own, |on| on_others(&world.datasets[&dataset].manifest, on));
            if images == 0 {
                continue;
            }
            if rule.metric.as_deref() != Some("log-loss") && 1.0 / images as f64 > rule.margin {
                found.push(format!(
                    "the rule '{} > {}' in {}{}: one of the {images} test images weighs {:.3}, more than the margin {}; EQUIVALENT cannot be found",
                    rule.better,
                    rule.worse,
                    scenario.name,
                    rule.on.as_ref().map_or_else(String::new, |on| format!(" on {on}")),
                    1.0 / images as f64,
                    rule.margin
                ));
            }
        }
    }
    for (name, fact) in &world.facts.datasets {
        if let Some(folds) = fact.folds.filter(|folds| *folds > experiment.replicates) {
            found.push(format!(
                "'{name}' is in {folds} folds and replicates = {}: {} of them are never tested",
                experiment.replicates,
                folds - experiment.replicates
            ));
        }
    }
    found
}

/// Pictures in those other datasets that match a pattern; one that stands in several counts once.
fn on_others(manifest: &Manifest, on: &str) -> usize {
    let others = manifest.shifted.iter().filter(|other| like(on, &other.dataset));
    let pictures = others.flat_map(|other| {
        let own = &manifest.samples[other.from as usize..other.to as usize];
        own.iter().map(|sample| sample.id.strip_prefix(&other.dataset))
    });
    pictures.collect::<BTreeSet<_>>().len()
}
