//! Gathers findings from the store: arms, verdicts, counts.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Usage, near, trust};
use crate::experiment::condition::like;
use crate::experiment::{Experiment, overrides};
use crate::key::Key;
use crate::report::arm::{Arm, Repeats, Trial};
use crate::report::calibration::log_loss;
use crate::report::choice::choices;
use crate::report::compare::{Scored, scored};
use crate::report::errors::{Answer, Errors};
use crate::report::findings::{Counts, Findings, Folds, Near, Scenario, Sharing};
use crate::report::gain::gains;
use crate::report::growth::growths;
use crate::report::inquiry::inquire;
use crate::report::interim::looks;
use crate::report::price::prices;
use crate::report::rivals::rivals;
use crate::report::sheets::named;
use crate::report::shift::shifts;
use crate::report::variance::parts;
use crate::report::verdict::{Asked, Reach, Rule};
use crate::store::Store;
use crate::store::answers::{Answered, TestAnswers};
use crate::store::near::NearDuplicates;
use crate::store::query::ExperimentRow;
use crate::store::standing::Standing;
use crate::value::{Layer, Value};

/// The rules of an experiment as reports know them.
pub fn rules(experiment: &Experiment) -> Vec<Rule> {
    let rules = experiment.rules.iter().map(|rule| Rule {
        scenario: rule.scenario.clone(),
        better: rule.better.clone(),
        worse: rule.worse.clone(),
        margin: rule.margin,
        on: rule.on.clone(),
        metric: rule.metric.clone(),
    });
    rules.collect()
}

/// The scenarios of an experiment as the store keeps them.
pub fn scenarios_json(experiment: &Experiment) -> anyhow::Result<String> {
    let scenarios = experiment.scenarios.iter().map(|scenario| Scenario {
        name: scenario.name.clone(),
        size: scenario.size.map(|size| size.to_string()),
        similarity: scenario.similarity.map(|similarity| similarity.to_string()),
        dataset: scenario.layer.get("dataset").map_or_else(String::new, Value::to_string),
        per_class: scenario.layer.get("per_class").and_then(Value::count),
        own: Some(beyond(&scenario.layer)),
    });
    Ok(serde_json::to_string(&scenarios.collect::<Vec<_>>())?)
}

/// What a scenario sets beyond its data and their number.
fn beyond(layer: &Layer) -> BTreeMap<String, String> {
    let own = layer.iter().filter(|(key, _)| !matches!(key.as_str(), "dataset" | "per_class"));
    own.map(|(key, value)| (key.clone(), value.to_string())).collect()
}

/// The experiment of that name, or the last one run; a name that is not there is the person's mistake.
pub fn experiment(store: &Store, name: Option<&str>) -> anyhow::Result<ExperimentRow> {
    match store.experiment(name)? {
        Some(experiment) => Ok(experiment),
        None => {
            let names: Vec<String> = store.overview()?.into_iter().filter_map(|row| row.get("name").cloned()).collect();
            let known = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
            Err(Usage(format!("the store has no experiment '{}'; it has {known}", name.unwrap_or("at all"))).into())
        }
    }
}

/// Everything that a report shows of an experiment.
pub fn gather(store: &Store, name: Option<&str>) -> anyhow::Result<Findings> {
    let experiment = experiment(store, name)?;
    let (mut trials, mut numerics) = (Vec::new(), BTreeSet::new());
    store.standings(&experiment, |standing| {
        numerics.extend(standing.numerics.as_ref().filter(|class| !numerics.contains(*class)).cloned());
        trials.push(trial(standing));
    })?;
    let (replicates, most) = (experiment.replicates, experiment.max_replicates);
    let repeats = Repeats { replicates, tuned: experiment.tune_replicates, share: experiment.tune_share, most };
    let folds = store.folds_of(&experiment)?;
    let rules: Vec<Rule> = serde_json::from_str(&experiment.rules)?;
    let also = store.also_tested(&experiment)?;
    let tests =
        |dataset: &str, on: &str| also.get(dataset).is_some_and(|others| others.iter().any(|other| like(on, other)));
    let answers = |arm: &Arm, asked: Asked| answers(store, &experiment.metric, arm, asked, &trials);
    let reach = Reach { matches: &like, tests: &tests };
    let of_dataset = |dataset: &str| folds.get(dataset).map(|(folds, _)| *folds);
    let mut inquiry = inquire(&rules, &trials, repeats, reach, &of_dataset, &answers)?;
    near::without(store, &experiment, &mut inquiry)?;
    let (verdicts, arms) = inquiry.into_parts();
    let gains = gains(&arms, &looks(replicates, most), |arm| answers(arm, Asked::default()))?;
    let scenarios: Vec<Scenario> = serde_json::from_str(&experiment.scenarios)?;
    let expenses = store.expenses(&experiment)?;
    let stands = |name: &&String| arms.iter().any(|arm| arm.context_value("scenario") == *name);
    let names: Vec<String> = scenarios.iter().map(|scenario| &scenario.name).filter(stands).cloned().collect();
    let choices = choices(&names, &arms, &verdicts, replicates, &expenses, |arm| answers(arm, Asked::default()))?;
    let rivals = rivals(&names, &arms, replicates, &expenses, |arm| answers(arm, Asked::default()))?;
    let prices = prices(&arms, replicates, &expenses, |arm| answers(arm, Asked::default()))?;
    let sizes = store.trained_on(&experiment)?;
    let images = |dataset: &str, per_class: Option<usize>| {
        let own = sizes.iter().find(|own| own.dataset == dataset && own.per_class == per_class);
        own.map(|own| (own.images, own.classes))
    };
    let growth = growths(&scenarios, &arms, &rules, replicates, images, |arm| answers(arm, Asked::default()))?;
    let shifts = shifts(&arms, &also, &store.shifted_scores(&experiment)?);
    let near = |found: Vec<NearDuplicates>| -> Vec<Near> {
        found.into_iter().map(|found| Near { dataset: found.dataset, near: found.near, of: found.of }).collect()
    };
    let (near, near_others) = (near(store.near_of(&experiment)?), near(store.near_of_others(&experiment)?));
    let (savings, (audited, wrong)) = (store.savings(&experiment)?, store.audits(&experiment)?);
    let sharing = Sharing {
        seconds: savings.seconds,
        forecast: savings.forecast,
        macs: savings.shared,
        macs_alone: savings.alone,
        audited,
        wrong,
    };
    let mut found = Findings {
        counts: counts(&trials, &arms),
        variance: parts(&scenarios, &arms, repeats),
        scenarios,
        experiment: experiment.name,
        question: experiment.question,
        set: overrides::recorded(&experiment.text),
        metric: experiment.metric,
        repeats,
        arms,
        verdicts,
        gains,
        choices,
        rivals,
        prices,
        growth,
        shifts,
        calibration: Vec::new(),
        without_confidence: 0,
        expenses,
        numerics: numerics.into_iter().collect(),
        sharing,
        near,
        near_others,
        folds: folds.into_iter().map(|(dataset, (folds, images))| Folds { dataset, folds, images }).collect(),
    };
    trust::add(store, &mut found)?;
    Ok(found)
}

fn trial(standing: Standing) -> Trial {
    let Standing { key, cell, replicate, status, settings, val, test, at_chance, under_trained, seconds, .. } =
        standing;
    Trial { key, cell, replicate, status, settings, val, test, at_chance, under_trained, seconds }
}

/// Counts each distinct trial once, however many cells it stands for, and those that follow from comparing settings.
fn counts(trials: &[Trial], arms: &[Arm]) -> Counts {
    let mut seen = HashSet::with_capacity(trials.len());
    let unplanned: BTreeMap<Key, usize> =
        arms.iter().map(|arm| (arm.best().unwrap_or(&arm.settings[0]).cell, arm.unplanned)).collect();
    let unplanned = unplanned.into_values().sum();
    let mut counts = Counts { planned: unplanned, missing: unplanned, ..Counts::default() };
    for trial in trials.iter().filter(|trial| seen.insert(trial.key)) {
        counts.planned += 1;
        match trial.status.as_str() {
            "done" => counts.done += 1,
            "diverged" => {
                counts.done += 1;
                counts.diverged += 1;
            }
            "failed" | "blocked" => counts.failed += 1,
            _ => counts.missing += 1,
        }
        if !trial.is_short() {
            counts.at_chance += usize::from(trial.at_chance);
            counts.under_trained += usize::from(trial.under_trained);
        }
    }
    counts
}

/// What the best recipe of each scenario gets wrong on test.
///
/// # Errors
/// The store cannot be read.
pub fn errors(store: &Store, found: &Findings) -> anyhow::Result<Vec<Errors>> {
    let best = found.scenarios.iter().filter_map(|scenario| Some((scenario, found.best(&scenario.name)?.0)));
    best.map(|(scenario, arm)| {
        let trials: Vec<Key> = arm.tested().iter().map(|trial| trial.key).collect();
        wrong(store, &scenario.name, &named(arm), &trials)
    })
    .collect()
}

/// What replicates of one recipe get wrong on test.
///
/// # Errors
/// The store cannot be read.
pub fn wrong(store: &Store, scenario: &str, recipe: &str, trials: &[Key]) -> anyhow::Result<Errors> {
    let (mut classes, mut replicates) = (Vec::new(), Vec::new());
    for trial in trials {
        let (names, answered) = store.answered(*trial)?;
        let answer = |Answered { id, truth, predicted, probability }| Answer {
            id,
            truth: truth as usize,
            predicted: usize::from(predicted),
            probability: f64::from(probability),
        };
        classes = names;
        replicates.push(answered.into_iter().map(answer).collect());
    }
    Ok(Errors::of(scenario, recipe, &classes, &replicates))
}

/// What answers score.
pub fn scores_of(metric: &str, answers: &TestAnswers) -> Scored {
    let scored = match metric {
        "log-loss" => log_loss(&answers.probability),
        _ => scored(metric, &answers.predicted, &answers.truth),
    };
    scored.on(answers.samples.clone())
}

/// The test answers of an arm's selected setting, replicate by replicate, on its own test images or on those of other datasets
/// that match `on`; where every setting diverged, those of always naming the largest class of the same test images, with all
/// classes equally probable.
pub fn answers(store: &Store, metric: &str, arm: &Arm, asked: Asked, trials: &[Trial]) -> anyhow::Result<Vec<Scored>> {
    let metric = asked.metric.unwrap_or(metric);
    let of = |trial: Key| match asked.on {
        None => store.test_answers(trial),
        Some(on) => store.shifted_answers(trial, |dataset| like(on, dataset)),
    };
    let own = arm.tested();
    if !own.is_empty() {
        let scored = |trial: &Trial| Ok(scores_of(metric, &of(trial.key)?));
        return own.into_iter().map(scored).collect();
    }
    let dataset = arm.context_value("dataset");
    let of_dataset = |trial: &&Trial| trial.settings.get("dataset").is_some_and(|name| name == dataset);
    let tested = |trial: &&Trial| trial.status == "done" && !trial.is_short();
    let done: Vec<&Trial> = trials.iter().filter(tested).filter(of_dataset).collect();
    let largest = |replicate: usize| {
        // Replicates of a dataset in folds have test images of their own.
        let same = done.iter().min_by_key(|trial| trial.replicate != replicate)?;
        Some(of(same.key).map(|mut answers| {
            let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
            answers.truth.iter().for_each(|class| *sizes.entry(*class).or_default() += 1);
            answers.probability.fill(1.0 / sizes.len() as f32);
            let largest = sizes.into_iter().max_by_key(|(class, size)| (*size, u32::MAX - *class));
            answers.predicted.fill(largest.map_or(0, |(class, _)| class) as u16);
            scores_of(metric, &answers)
        }))
    };
    (0..arm.replicates).filter_map(largest).collect()
}
