//! `check FILE`: every problem before any compute, and what the design cannot decide.

use std::collections::BTreeSet;
use std::path::Path;

use super::data::{contradictions_told, told_of_files};
use super::jobs::{self, Jobs, What};
use super::machine::Rates;
use super::world::World;
use super::{Exit, Usage, exit_code, near, prepare, print, print_json, tuning};
use crate::cli::{Answer, Asked, Common};
use crate::data::near::Pair;
use crate::data::{Dataset, Manifest};
use crate::experiment::Experiment;
use crate::experiment::condition::like;
use crate::experiment::problem::{Located, Problems};
use crate::key::Key;
use crate::plan::Plan;
use crate::plan::stage::Stage;
use crate::train::said;
use crate::value::Value;

/// At most so many images that are left out of a dataset are named to a person.
const LISTED: usize = 20;

/// What there is to say of a file without a problem.
struct Examined {
    /// Dataset, image and reason.
    skipped: Vec<[String; 3]>,
    warnings: Vec<String>,
    cells: usize,
    trials: usize,
    /// Whether the number of trials depends on which settings lead.
    about: bool,
    /// Trials that may follow for open rules.
    at_most: usize,
}

pub fn run(asked: &Asked, format: Answer, common: &Common) -> anyhow::Result<Exit> {
    match (examined(asked, common), format) {
        (Ok(found), Answer::Table) => told(asked, &found),
        (Ok(found), Answer::Json) => {
            let skipped = found.skipped.iter().map(
                |[dataset, image, reason]| serde_json::json!({"dataset": dataset, "image": image, "reason": reason}),
            );
            print_json(&serde_json::json!({
                "version": 1,
                "problems": [],
                "skipped": skipped.collect::<Vec<_>>(),
                "warnings": found.warnings,
                "cells": found.cells,
                "trials": found.trials,
                "trials_depend": found.about,
                "at_most_more": found.at_most,
            }))?;
            Ok(Exit::Complete)
        }
        (Err(error), Answer::Json) if exit_code(&error) == Exit::BadExperiment => {
            print_json(&serde_json::json!({"version": 1, "problems": problems(&error)}))?;
            Ok(Exit::BadExperiment)
        }
        (Err(error), _) => Err(error),
    }
}

/// What is wrong with a file, or with what it names.
fn problems(error: &anyhow::Error) -> Vec<Located> {
    let one = || vec![Located { file: None, line: None, column: None, message: said(error), help: None }];
    error.downcast_ref::<Problems>().map_or_else(one, Problems::located)
}

fn told(asked: &Asked, found: &Examined) -> anyhow::Result<Exit> {
    let mut of = "";
    let mut count = 0;
    for [dataset, image, reason] in &found.skipped {
        count = if of == dataset { count + 1 } else { 1 };
        of = dataset;
        if count <= LISTED {
            print(&format!("skipped: '{image}' of '{dataset}': {reason}"))?;
        }
        let all = || found.skipped.iter().filter(|[other, ..]| other == dataset).count();
        if count == LISTED + 1 {
            print(&format!("skipped: {} more of '{dataset}'", all() - LISTED))?;
        }
    }
    for warning in &found.warnings {
        print(&format!("warning: {warning}"))?;
    }
    let more = match found.at_most {
        0 => String::new(),
        more => format!(" and as many as {more} more for open rules"),
    };
    print(&format!(
        "{}: {} cells, {}{} trials{more}, no problem found",
        asked.file.display(),
        found.cells,
        if found.about { "about " } else { "" },
        found.trials,
    ))?;
    Ok(Exit::Complete)
}

/// Reads all that the file names.
fn examined(asked: &Asked, common: &Common) -> anyhow::Result<Examined> {
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
    let skipped = world.datasets.values().flat_map(|dataset| {
        let own = dataset.manifest.skipped.iter();
        own.map(|(image, reason)| [dataset.name.clone(), image.clone(), reason.clone()])
    });
    let mut warnings = of_bytes(&all, &world);
    for dataset in world.datasets.values() {
        warnings.extend(told_of_files(dataset)?);
    }
    warnings.extend(of_near(&near::found(&prepared, &world)?));
    warnings.extend(idle(&plan, &all, worth.at_most));
    warnings.extend(undecidable(&experiment, &world));
    Ok(Examined {
        skipped: skipped.collect(),
        warnings,
        cells: plan.whole().count(),
        trials: all.totals.trials,
        about: plan.compares_first(),
        at_most: worth.at_most,
    })
}

/// Images that stand twice, to the byte: in training and test, in two classes, in the source and a target.
fn of_bytes(jobs: &Jobs, world: &World) -> Vec<String> {
    let twice = |dataset: &Dataset| {
        let leaks = dataset.manifest.leaks(&dataset.manifest);
        let (train, test) = leaks.first()?;
        Some(format!(
            "in '{}' {} training images have the same bytes as a test image, for example {train} and {test}",
            dataset.name,
            leaks.len()
        ))
    };
    let of_source = |(source, dataset): (&Dataset, &Dataset)| {
        let leaks = dataset.manifest.leaks(&source.manifest);
        let (train, test) = leaks.first()?;
        Some(format!(
            "the source model trains on {} images of '{}' with the same bytes as a test image of '{}', for example {train} and {test}",
            leaks.len(),
            source.name,
            dataset.name
        ))
    };
    let all = || world.datasets.values().map(|dataset| &**dataset);
    let contradicted = |dataset: &Dataset| contradictions_told(&format!("'{}'", dataset.name), &dataset.manifest);
    let of_sources = pretrained(jobs, world).into_iter().filter_map(of_source);
    all().filter_map(twice).chain(all().filter_map(contradicted)).chain(of_sources).collect()
}

/// Test images that are training images once more, but for the bytes.
fn of_near(near: &[(&Dataset, Vec<Pair>)]) -> Vec<String> {
    let own = near.iter().filter_map(|(dataset, pairs)| {
        let told = near::told(&dataset.name, &dataset.manifest, pairs)?;
        let (word, what) = match dataset.manifest.folds {
            None => ("drop", "leaves those to train on out"),
            Some(_) => ("together", "puts them into one fold"),
        };
        Some(format!(
            "{told}; `tl-sweep data` with --near-duplicates lists them, near_duplicates = \"{word}\" under [datasets.{}] {what}",
            dataset.name
        ))
    });
    let others = near.iter().flat_map(|(dataset, pairs)| near::told_of_others(&dataset.name, &dataset.manifest, pairs));
    own.chain(others).collect()
}

/// Settings that say how many trials are worth running, and change nothing.
fn idle(plan: &Plan, all: &Jobs, at_most: usize) -> Vec<String> {
    let has_short = plan.all_trials().iter().any(|trial| plan.cells[trial.cell].is_short());
    let compares = plan.tune_replicates < plan.replicates;
    let found = [
        (plan.tune_share.is_some() && !has_short)
            .then_some("tune_share has no effect: no recipe has so many settings that it saves work"),
        (compares && all.totals.trials == plan.distinct() * plan.replicates)
            .then_some("tune_replicates has no effect: every recipe has a single setting"),
        (plan.max_replicates > plan.replicates && at_most == 0)
            .then_some("max_replicates has no effect: there is no rule"),
    ];
    found.into_iter().flatten().map(str::to_owned).collect()
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
