//! Test images that are training images once more: found before a sweep, told, and what verdicts are without them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;

use super::findings::scores_of;
use super::prepare::Prepared;
use super::world::World;
use crate::data::near::{self, Pair};
use crate::data::{Dataset, Manifest, Part, Shifted, deal, packed};
use crate::key::Key;
use crate::report::arm::{Arm, Trial};
use crate::report::compare::{Scored, difference};
use crate::report::findings::shown_difference;
use crate::report::inquiry::Inquiry;
use crate::store::Store;
use crate::store::answers::TestAnswers;
use crate::store::query::ExperimentRow;
use crate::temporary;

/// Leaves training and validation images out that are a test image once more. What was found is kept in the cache.
///
/// # Errors
/// An image cannot be used; the cache cannot be written; nothing is left of a dataset.
pub fn leave_out(dataset: &mut Dataset, cache: &Path) -> anyhow::Result<()> {
    let pairs = kept(dataset, "near-duplicates", near::of_dataset, cache)?;
    let samples = &dataset.manifest.samples;
    let reason = |pair: &Pair| format!("a near-duplicate of the test image '{}'", samples[pair.test as usize].id);
    let without: BTreeMap<usize, String> = pairs.iter().map(|pair| (pair.train as usize, reason(pair))).collect();
    if without.is_empty() {
        return Ok(());
    }
    dataset.leave_out(&without)?;
    dataset.manifest.check_parts(&dataset.name)
}

/// Makes near-duplicates among images that are still to be dealt one group. What was found is kept in the cache.
///
/// # Errors
/// An image cannot be used; the cache cannot be written.
pub fn keep_together(dataset: &mut Dataset, cache: &Path) -> anyhow::Result<()> {
    let pairs = kept(dataset, "near-duplicates before dealt", near::before_dealt, cache)?;
    let pairs: Vec<(u32, u32)> = pairs.iter().map(|pair| (pair.test, pair.train)).collect();
    deal::bind(&mut dataset.manifest, &pairs);
    Ok(())
}

/// What the cache has of a dataset's pairs, or `find` finds.
fn kept(
    dataset: &Dataset,
    what: &str,
    find: fn(&Dataset) -> anyhow::Result<Vec<Pair>>,
    cache: &Path,
) -> anyhow::Result<Vec<Pair>> {
    let file = cache.join(format!("{}.json", Key::of(what, &(dataset.manifest.fingerprint, near::METHOD))));
    let earlier = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Vec<Pair>>(&bytes).ok());
    if let Some(pairs) = earlier {
        return Ok(pairs);
    }
    let pairs = find(dataset)?;
    std::fs::create_dir_all(cache).with_context(|| format!("cannot create '{}'", cache.display()))?;
    let temporary = temporary::beside(&file);
    std::fs::write(&temporary, serde_json::to_vec(&pairs)?)?;
    std::fs::rename(&temporary, &file)?;
    Ok(pairs)
}

/// The near-duplicates among what was packed, for each dataset: pairs that are near at any size of image.
///
/// # Errors
/// The cache cannot be read or written.
pub fn found<'a>(prepared: &Prepared, world: &'a World) -> anyhow::Result<Vec<(&'a Dataset, Vec<Pair>)>> {
    let mut all = Vec::new();
    for dataset in world.datasets.values() {
        let mut pairs: BTreeMap<(u32, u32), Pair> = BTreeMap::new();
        for (_, frame) in prepared.packed.iter().filter(|(data, _)| *data == dataset.manifest.fingerprint) {
            let found = packed::near_duplicates(&dataset.manifest, *frame, &world.places.cache)?;
            let apart = found.into_iter().filter(|pair| may_part(&dataset.manifest, pair));
            pairs.extend(apart.map(|pair| ((pair.test, pair.train), pair)));
        }
        all.push((&**dataset, pairs.into_values().collect()));
    }
    Ok(all)
}

/// Whether a replicate may test on one of a pair and train on the other: not where they are one group.
fn may_part(manifest: &Manifest, pair: &Pair) -> bool {
    let [one, other] = [pair.test, pair.train].map(|at| &manifest.samples[at as usize]);
    !(one.part == Part::Fold && (one.content == other.content || one.group.is_some() && one.group == other.group))
}

/// Writes what was found.
///
/// # Errors
/// The store cannot be written.
pub fn record(found: &[(&Dataset, Vec<Pair>)], store: &mut Store) -> anyhow::Result<()> {
    for (dataset, pairs) in found {
        let rows = pairs.iter().map(|pair| (pair.test, pair.train, pair.distance, pair.mirrored));
        store.near_duplicates(dataset.manifest.fingerprint, rows)?;
    }
    Ok(())
}

/// The same of other datasets that are tested as well.
pub fn told_of_others(name: &str, manifest: &Manifest, pairs: &[Pair]) -> Vec<String> {
    let id = |sample: u32| &manifest.samples[sample as usize].id;
    let one = |other: &Shifted| {
        let own = pairs.iter().filter(|pair| other.holds(pair.test));
        let tests: BTreeSet<u32> = own.clone().map(|pair| pair.test).collect();
        let nearest = own.min_by(|one, other| one.distance.total_cmp(&other.distance))?;
        Some(format!(
            "{} of {} images of '{}', which are tested as well, are near-duplicates of images of '{name}' to train or validate on, \
             for example '{}' of '{}'",
            tests.len(),
            other.to - other.from,
            other.dataset,
            id(nearest.test),
            id(nearest.train)
        ))
    };
    manifest.shifted.iter().filter_map(one).collect()
}

/// What was found of a dataset's own images, in words; nothing where nothing was.
pub fn told(name: &str, manifest: &Manifest, pairs: &[Pair]) -> Option<String> {
    let own = |pair: &&Pair| manifest.samples[pair.test as usize].part != Part::Shifted;
    let pairs: Vec<&Pair> = pairs.iter().filter(own).collect();
    let tests: BTreeSet<u32> = pairs.iter().map(|pair| pair.test).collect();
    let nearest = pairs.iter().min_by(|one, other| one.distance.total_cmp(&other.distance))?;
    let all = manifest.samples.iter().filter(|sample| sample.part.is_tested()).count();
    let id = |sample: u32| &manifest.samples[sample as usize].id;
    let share = format!("({:.1}%)", 100.0 * tests.len() as f64 / all.max(1) as f64);
    let found = match (tests.len(), manifest.folds) {
        (near, None) => {
            format!("{near} of {all} test images {share} are near-duplicates of images to train or validate on")
        }
        (near, Some(_)) => format!("{near} of {all} images {share} may be tested while a near-duplicate is trained on"),
    };
    let class = |sample: u32| manifest.samples[sample as usize].class;
    let otherwise = pairs.iter().filter(|pair| class(pair.test) != class(pair.train));
    let otherwise: BTreeSet<u32> = otherwise.map(|pair| pair.test).collect();
    let labels = match otherwise.len() {
        0 => String::new(),
        many => format!(" ({many} of another class)"),
    };
    Some(format!(
        "in '{name}' {found}{labels}, for example '{}' of '{}'{}",
        id(nearest.test),
        id(nearest.train),
        if nearest.mirrored { ", mirrored" } else { "" }
    ))
}

/// Says of each verdict what its difference is without the test images that near-duplicate one trained or validated
/// on.
///
/// # Errors
/// The store cannot be read.
pub fn without(store: &Store, experiment: &ExperimentRow, inquiry: &mut Inquiry) -> anyhow::Result<()> {
    if store.near_of(experiment)?.is_empty() {
        return Ok(());
    }
    for index in 0..inquiry.verdicts.len() {
        let verdict = &inquiry.verdicts[index];
        let Some(found) = verdict.difference.filter(|_| verdict.rule.on.is_none()) else { continue };
        let arms = inquiry.at(verdict);
        let side = |recipe: &str| arms.iter().find(|arm| arm.recipe == recipe && arm.context == verdict.context);
        let sides =
            [side(&verdict.rule.better), side(&verdict.rule.worse)].map(|arm| arm.map(Arm::tested).unwrap_or_default());
        let mut near = BTreeSet::new();
        for trial in sides.iter().flatten() {
            near.extend(store.near_in(trial.key)?);
        }
        if near.is_empty() || sides[0].len() != sides[1].len() {
            continue;
        }
        let metric = verdict.rule.metric.as_deref().unwrap_or(&experiment.metric);
        let [better, worse] = sides.map(|trials| rest(store, metric, &trials, &near));
        let note = match (better?, worse?) {
            (Some(better), Some(worse)) => format!(
                "without the {} test images that are near-duplicates of images trained or validated on: {}",
                near.len(),
                shown_difference(&difference(&better, &worse).at(found.share))
            ),
            _ => "every test image is a near-duplicate of one trained or validated on".to_owned(),
        };
        inquiry.verdicts[index].notes.push(note);
    }
    Ok(())
}

/// The test answers of trials but for those on `near`; nothing where no image is left.
fn rest(store: &Store, metric: &str, trials: &[&Trial], near: &BTreeSet<u32>) -> anyhow::Result<Option<Vec<Scored>>> {
    let one = |trial: &&Trial| {
        let all = store.test_answers(trial.key)?;
        let mut left = TestAnswers::default();
        for (at, sample) in all.samples.iter().enumerate().filter(|(_, sample)| !near.contains(*sample)) {
            left.samples.push(*sample);
            left.predicted.push(all.predicted[at]);
            left.truth.push(all.truth[at]);
            left.probability.push(all.probability[at]);
        }
        anyhow::Ok((!left.truth.is_empty()).then(|| scores_of(metric, &left)))
    };
    trials.iter().map(one).collect()
}
