//! Opens the datasets of an experiment, and joins those that are tested with one another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::get::how_to_get_dataset;
use super::near;
use super::world::World;
use crate::data::deal::tested;
use crate::data::open::{Also, Source, load, named};
use crate::data::synthetic::Family;
use crate::data::{Dataset, Holdout, Manifest, Part, Spec};
use crate::experiment::problem::Problem;
use crate::experiment::{self, AlsoTest, Experiment, NearDuplicates, Origin};
use crate::plan::DatasetFact;
use crate::report::table::{Style, table};

/// Those of `used` by their names, each with what is tested as well.
pub fn datasets(
    experiment: &Experiment,
    used: &BTreeSet<String>,
    folder: &Path,
    cache: &Path,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Arc<Dataset>> {
    let asked = |name: &String| experiment.datasets.get(name);
    let others = used.iter().filter_map(asked).flat_map(|own| &own.also_test).filter_map(|other| match other {
        AlsoTest::Dataset(name) => Some(name),
        AlsoTest::Corrupted(_) => None,
    });
    let all: BTreeSet<&String> = used.iter().chain(others).collect();
    let own = all.into_iter().filter_map(asked);
    let opened: BTreeMap<&str, Arc<Dataset>> = own
        .filter_map(|asked| {
            let mut spec = spec(asked, folder);
            if !used.contains(&asked.name) && spec.holdout.is_none() {
                // Nobody trains on it, and it need not have more.
                spec.splits.retain(|split, _| split == "test");
            }
            Some((asked.name.as_str(), Arc::new(one(asked, &spec, folder, cache, problems)?)))
        })
        .collect();
    let mut found = BTreeMap::new();
    for asked in used.iter().filter_map(asked) {
        let Some(own) = opened.get(asked.name.as_str()) else { continue };
        let others: Option<Vec<Also>> = asked.also_test.iter().map(|other| also(other, own, &opened)).collect();
        // What could not be opened is a problem already.
        let Some(others) = others else { continue };
        let whole = own.manifest.check_parts(&own.name).and_then(|()| match others.is_empty() {
            true => Ok(Arc::clone(own)),
            false => Ok(Arc::new(Arc::clone(own).tested_with(others)?)),
        });
        let classes = &own.manifest.classes;
        let nobody = asked.names.keys().find(|class| !classes.contains(class));
        problems.extend(nobody.map(|class| unnamed(asked, class, classes)));
        match whole {
            Ok(whole) => {
                found.insert(asked.name.clone(), whole);
            }
            Err(error) => problems.push(Problem::at(asked.spot, format!("{error:#}"))),
        }
    }
    found
}

/// A name for a class that is not there.
fn unnamed(asked: &experiment::Dataset, class: &str, classes: &[String]) -> Problem {
    let message = format!("`names` of the dataset '{}' names the class '{class}', which it has not", asked.name);
    let near = crate::spelling::nearest(class, classes.iter().map(String::as_str));
    let few: Vec<&str> = classes.iter().take(12).map(String::as_str).collect();
    let help =
        near.map_or_else(|| format!("its classes begin {}", few.join(", ")), |near| format!("did you mean '{near}'?"));
    Problem::at(asked.spot, message).help(help)
}

fn also(other: &AlsoTest, own: &Arc<Dataset>, opened: &BTreeMap<&str, Arc<Dataset>>) -> Option<Also> {
    let (dataset, corruption) = match other {
        AlsoTest::Corrupted(corruption) => (Arc::clone(own), Some(*corruption)),
        AlsoTest::Dataset(name) => {
            let found = Arc::clone(opened.get(name.as_str())?);
            let corruption = found.manifest.corruption;
            (found, corruption)
        }
    };
    Some(Also { name: other.name(), dataset, corruption })
}

/// The dataset of one table, by itself.
fn one(
    asked: &experiment::Dataset,
    spec: &Spec,
    folder: &Path,
    cache: &Path,
    problems: &mut Vec<Problem>,
) -> Option<Dataset> {
    let name = &asked.name;
    let opened = load(spec).and_then(|mut dataset| {
        if asked.near_duplicates == NearDuplicates::Together {
            near::keep_together(&mut dataset, cache)?;
        }
        dataset.deal(spec.holdout)?;
        if asked.near_duplicates == NearDuplicates::Drop {
            near::leave_out(&mut dataset, cache)?;
        }
        if asked.corruption.is_some() {
            dataset.manifest.corruption = asked.corruption;
            dataset.manifest.seal();
        }
        Ok(dataset)
    });
    match opened {
        Ok(dataset) => {
            if let Some(pin) = asked.sha256.as_ref().filter(|pin| **pin != dataset.manifest.sha256) {
                let message = format!(
                    "the dataset '{name}' is pinned to other bytes: sha256 is {}, the file asks for {pin}",
                    dataset.manifest.sha256
                );
                problems.push(Problem::at(asked.spot, message));
            }
            Some(dataset)
        }
        Err(error) => {
            let mut help = format!(
                "datasets are looked up in '{}': --data FOLDER or TL_SWEEP_DATA names another",
                folder.display()
            );
            if let (Origin::Path(path), false) = (&asked.origin, is_there(spec))
                && let Some(cure) = how_to_get_dataset(path, folder)
            {
                help = format!("{help}; {cure}");
            }
            problems.push(Problem::at(asked.spot, format!("{error:#}")).help(help));
            None
        }
    }
}

fn spec(asked: &experiment::Dataset, folder: &Path) -> Spec {
    let source = match &asked.origin {
        Origin::Path(path) => Source::Path(named(folder, path).unwrap_or_else(|| folder.join(path))),
        Origin::Synthetic { classes, shift, task, train, test } => {
            Source::Synthetic(Family { classes: *classes, shift: *shift, task: *task, train: *train, test: *test })
        }
    };
    Spec {
        name: asked.name.clone(),
        source,
        splits: asked.splits.clone(),
        skip_bad_images: asked.skip_bad_images,
        classes: asked.classes.clone(),
        white: asked.white,
        holdout: asked.folds.map(Holdout::Folds).or(asked.share.map(Holdout::Share)),
    }
}

fn is_there(spec: &Spec) -> bool {
    matches!(&spec.source, Source::Path(path) if path.exists())
}

/// What a plan must know of a dataset.
pub fn fact(asked: Option<&experiment::Dataset>, dataset: &Dataset) -> DatasetFact {
    let manifest = &dataset.manifest;
    let own = |class: &String| class.replace(['_', '-'], " ");
    let name = |class: &String| asked.and_then(|asked| asked.names.get(class)).cloned().unwrap_or_else(|| own(class));
    let total = |part| manifest.counts(part).iter().sum();
    let fact = DatasetFact {
        fingerprint: manifest.fingerprint,
        classes: manifest.classes.len(),
        names: manifest.classes.iter().map(name).collect(),
        train: manifest.counts(Part::Train),
        val: total(Part::Val),
        test: total(Part::Test),
        shifted: manifest.samples.iter().filter(|sample| sample.part == Part::Shifted).count(),
        folds: manifest.folds,
        carves_groups: manifest.carves_groups(),
    };
    let Some(folds) = manifest.folds else { return fact };
    // What every replicate has of each class, and what the largest fold tests.
    let (mut train, mut test) = (manifest.counts(Part::Fold), 0);
    for fold in 0..folds as u64 {
        let tested = tested(manifest, fold);
        let mut rest = manifest.counts(Part::Fold);
        tested.iter().for_each(|at| rest[manifest.samples[*at as usize].class as usize] -= 1);
        train.iter_mut().zip(rest).for_each(|(least, rest)| *least = rest.min(*least));
        test = tested.len().max(test);
    }
    DatasetFact { train, test, ..fact }
}

/// The datasets of an experiment, as `plan` prints them.
pub fn listed(world: &World, style: Style) -> String {
    let others = world.facts.datasets.values().any(|fact| fact.shifted > 0);
    let rows: Vec<Vec<String>> = world
        .facts
        .datasets
        .iter()
        .map(|(name, fact)| {
            let val = if fact.val == 0 { "carved from train".to_owned() } else { fact.val.to_string() };
            let mut row = vec![
                name.clone(),
                fact.classes.to_string(),
                fact.train.iter().sum::<usize>().to_string(),
                val,
                fact.folds.map_or(fact.test.to_string(), |folds| format!("{} in each of {folds} folds", fact.test)),
            ];
            row.extend(others.then(|| also_tested(&world.datasets[name].manifest)));
            row.push(fact.fingerprint.short());
            row
        })
        .collect();
    let mut heading = vec!["dataset", "classes", "train", "val", "test"];
    heading.extend(others.then_some("also tested"));
    heading.push("fingerprint");
    format!("data\n{}", table(style, &heading, &rows))
}

/// Of what is tested as well, so many lines.
const LISTED: usize = 4;

/// The other datasets that are tested as well, with their images.
fn also_tested(manifest: &Manifest) -> String {
    let others: Vec<String> =
        manifest.shifted.iter().map(|other| format!("{} of {}", other.to - other.from, other.dataset)).collect();
    match others.len() {
        0 => "-".to_owned(),
        all if all <= LISTED => others.join("\n"),
        all => format!("{}\n{} more", others[..LISTED - 1].join("\n"), all - LISTED + 1),
    }
}
