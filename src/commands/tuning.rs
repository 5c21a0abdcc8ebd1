//! Which settings are worth how many replicates: where a file compares settings on the first of these, the others run for those
//! that lead by validation, as soon as all settings of their arm have been compared; where rules are open, for those that they
//! speak of.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::findings::{answers, rules};
use super::recorder::{labels, metric_name};
use crate::experiment::condition::like;
use crate::experiment::{AlsoTest, Experiment};
use crate::key::Key;
use crate::plan::{Plan, trial_key};
use crate::report::arm::{Arm, Repeats, Settings, Trial};
use crate::report::inquiry::{Inquiry, inquire};
use crate::report::verdict::{Asked, Reach};
use crate::store::Store;
use crate::store::schema::SETTINGS;

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worth {
    /// On how many replicates cells are to run that are worth more than a comparison.
    pub cells: HashMap<Key, usize>,
    /// Of arms whose settings have not all been compared the first each: it stands for the one that will lead, in number and
    /// cost.
    pub open: HashSet<Key>,
    /// Trials that follow if no rule is settled before its recipes have run all the replicates that they may.
    pub at_most: usize,
    /// What the last look found, where recipes run on.
    pub looked: Option<String>,
}

/// By the results that a store holds; without one only recipes with a single setting are worth it.
///
/// # Errors
/// The store cannot be read.
pub fn worth(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Worth> {
    let mut standing = Standing::of(plan, experiment, store)?;
    standing.worth.cells = standing.stages.pop().unwrap_or_default();
    Ok(standing.worth)
}

/// The same on one of several machines. What one of them knows alone moves no trial to the part of another: the next setting
/// leads, and the next look is taken, when the stores are joined and all that was to run before has.
///
/// # Errors
/// As `worth`.
pub fn of_part(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Worth> {
    let mut standing = Standing::of(plan, experiment, store)?;
    let finished = |stage: &HashMap<Key, usize>| standing.finished(plan, stage);
    let last = standing.stages.len().saturating_sub(1);
    let stage = standing.stages.iter().position(|stage| !finished(stage)).unwrap_or(last);
    if !standing.stages.is_empty() {
        standing.worth.cells = standing.stages.swap_remove(stage);
    }
    Ok(standing.worth)
}

/// The same for what cannot be known before anything runs: one setting of every arm is worth all replicates.
///
/// # Errors
/// As `worth`.
pub fn foreseen(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Worth> {
    let mut worth = worth(plan, experiment, store)?;
    worth.cells.extend(worth.open.iter().map(|cell| (*cell, plan.replicates)));
    Ok(worth)
}

/// What is to run, by the results of a store, and these.
#[derive(Default)]
struct Standing {
    /// On how many replicates cells are to run, stage by stage: each holds those before it, and follows from what these found.
    stages: Vec<HashMap<Key, usize>>,
    /// All but the stages.
    worth: Worth,
    /// Status and validation metric.
    results: HashMap<Key, (String, Option<f64>)>,
}

impl Standing {
    fn of(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Self> {
        let repeats = Repeats { replicates: plan.replicates, tuned: plan.tune_replicates, most: plan.max_replicates };
        if repeats.tuned == repeats.most {
            return Ok(Self::default());
        }
        let metric = metric_name(experiment)?;
        let results = store.map(|store| store.validations(&metric)).transpose()?.unwrap_or_default();
        let trials = trials(plan, repeats, &results);
        let tests = |dataset: &str, on: &str| {
            let others = experiment.datasets.get(dataset).into_iter().flat_map(|dataset| &dataset.also_test);
            others.map(AlsoTest::name).any(|other| like(on, &other))
        };
        let answers = |arm: &Arm, asked: Asked| match store {
            Some(store) => answers(store, &metric, arm, asked, &trials),
            None => Ok(Vec::new()),
        };
        let reach = Reach { matches: &like, tests: &tests };
        let inquiry = inquire(&rules(experiment), &trials, repeats, reach, &|_| None, &answers)?;
        let stages = stages(&inquiry);
        let compared = |arm: &&Arm| arm.worth.is_empty() && !arm.all_diverged() && repeats.tuned < repeats.replicates;
        let open = inquiry.asked(0).filter(compared).map(|arm| arm.settings[0].cell).collect();
        let taken = inquiry.looks.last().map_or(0, |(look, _)| look.replicates);
        let at_most = inquiry.unsettled() * (repeats.most - taken);
        let worth = Worth { cells: HashMap::new(), open, at_most, looked: inquiry.told() };
        Ok(Self { stages, worth, results })
    }

    /// Whether everything has run that is to run where cells are worth so many replicates.
    fn finished(&self, plan: &Plan, worth: &HashMap<Key, usize>) -> bool {
        plan.cells.iter().all(|cell| {
            let replicates = worth.get(&cell.key).copied().unwrap_or(plan.tune_replicates);
            let done = |replicate: usize| {
                let result = self.results.get(&trial_key(cell.key, replicate));
                result.is_some_and(|(status, _)| matches!(status.as_str(), "done" | "diverged"))
            };
            (0..replicates).all(done)
        })
    }
}

/// All trials on which settings are compared, and the later ones that have a result.
fn trials(plan: &Plan, repeats: Repeats, results: &HashMap<Key, (String, Option<f64>)>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for cell in &plan.cells {
        let labels = labels(plan, cell);
        let settings = SETTINGS.iter().filter_map(|name| Some((*name, labels.get(*name)?.to_string())));
        let settings: Rc<Settings> = Rc::new(settings.collect());
        for replicate in 0..repeats.most {
            let key = trial_key(cell.key, replicate);
            let result = results.get(&key);
            if result.is_none() && replicate >= repeats.tuned {
                continue;
            }
            trials.push(Trial {
                key,
                cell: cell.key,
                replicate,
                status: result.map_or_else(|| "planned".to_owned(), |(status, _)| status.clone()),
                settings: Rc::clone(&settings),
                val: result.and_then(|(_, val)| *val),
                test: None,
                at_chance: false,
                under_trained: false,
                seconds: 0.0,
            });
        }
    }
    trials
}

/// Look by look, first what has a single setting, then of each arm one more of the settings that have led.
fn stages(inquiry: &Inquiry) -> Vec<HashMap<Key, usize>> {
    let mut stages: Vec<HashMap<Key, usize>> = Vec::new();
    for (number, (look, _)) in inquiry.looks.iter().enumerate() {
        let deepest = inquiry.asked(number).map(|arm| arm.worth.len()).max().unwrap_or(0);
        for depth in 0..=deepest {
            let mut stage = stages.last().cloned().unwrap_or_default();
            for arm in inquiry.asked(number) {
                let depth = if arm.settings.len() == 1 { 1 } else { depth };
                let led = arm.worth.iter().take(depth);
                stage.extend(led.map(|index| (arm.settings[*index].cell, look.replicates)));
            }
            stages.push(stage);
        }
    }
    stages
}
