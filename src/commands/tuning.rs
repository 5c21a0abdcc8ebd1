//! Which settings are worth how many replicates: where a file compares settings on the first of these, the others run for those
//! that lead by validation, as soon as all settings of their arm have been compared; where rules are open, for those that they
//! speak of.

use std::collections::HashMap;
use std::rc::Rc;

use super::findings::{answers, rules};
use super::recorder::{labels, metric_name};
use crate::experiment::condition::like;
use crate::experiment::{AlsoTest, Experiment};
use crate::key::Key;
use crate::plan::{Plan, trial_key};
use crate::report::arm::{Arm, Repeats, Screening, Setting, Settings, Trial};
use crate::report::inquiry::{Inquiry, inquire};
use crate::report::verdict::{Asked, Reach};
use crate::store::Store;
use crate::store::schema::SETTINGS;

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worth {
    /// On how many replicates cells are to run that are worth more than a comparison.
    pub cells: HashMap<Key, usize>,
    /// The same for arms whose settings have not all been compared, where what follows is not known: their first settings stand for
    /// those that will, in number and cost.
    pub open: HashMap<Key, usize>,
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
    // A look judges all rules together: none goes on to the next one before all that was to run for the last has.
    let unfinished =
        standing.stages.iter().find(|stage| !standing.finished(plan, stage, &["done", "diverged", "failed"]));
    let look = unfinished.map_or(usize::MAX, |stage| stage.look);
    standing.stages.retain(|stage| stage.look <= look);
    standing.worth.cells = standing.stages.pop().map_or_else(HashMap::new, |stage| stage.cells);
    Ok(standing.worth)
}

/// The same on one of several machines. What one of them knows alone moves no trial to the part of another: the next setting
/// leads, and the next look is taken, when the stores are joined and all that was to run before has.
///
/// # Errors
/// As `worth`.
pub fn of_part(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Worth> {
    let mut standing = Standing::of(plan, experiment, store)?;
    let finished = |stage: &Stage| standing.finished(plan, stage, &["done", "diverged"]);
    let last = standing.stages.len().saturating_sub(1);
    let stage = standing.stages.iter().position(|stage| !finished(stage)).unwrap_or(last);
    if !standing.stages.is_empty() {
        standing.worth.cells = standing.stages.swap_remove(stage).cells;
    }
    Ok(standing.worth)
}

/// The same for what cannot be known before anything runs: one setting of every arm is worth all replicates, and where they are
/// compared on a share of their budget, so many are worth all of that.
///
/// # Errors
/// As `worth`.
pub fn foreseen(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Worth> {
    let mut worth = worth(plan, experiment, store)?;
    for (cell, replicates) in &worth.open {
        let known = worth.cells.entry(*cell).or_default();
        *known = (*known).max(*replicates);
    }
    Ok(worth)
}

/// On how many replicates cells are to run before a look at the rules is over, or a part of what is to run before.
#[derive(Clone, Debug)]
struct Stage {
    look: usize,
    cells: HashMap<Key, usize>,
}

/// What is to run, by the results of a store, and these.
#[derive(Default)]
struct Standing {
    /// Each holds those before it, and follows from what these found.
    stages: Vec<Stage>,
    /// All but the stages.
    worth: Worth,
    /// Status and validation metric.
    results: HashMap<Key, (String, Option<f64>)>,
}

impl Standing {
    fn of(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Self> {
        let (replicates, tuned, most) = (plan.replicates, plan.tune_replicates, plan.max_replicates);
        let repeats = Repeats { replicates, tuned, share: plan.tune_share, most };
        if tuned == most && repeats.share.is_none() {
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
        let stages = stages(&inquiry, repeats);
        let open = inquiry.asked(0).flat_map(|arm| to_follow(arm, repeats)).collect();
        let taken = inquiry.looks.last().map_or(0, |(look, _)| look.replicates);
        let at_most = inquiry.unsettled() * (repeats.most - taken);
        let worth = Worth { cells: HashMap::new(), open, at_most, looked: inquiry.told() };
        Ok(Self { stages, worth, results })
    }

    /// Whether everything that a stage wants has run, with such an end.
    fn finished(&self, plan: &Plan, stage: &Stage, ends: &[&str]) -> bool {
        plan.cells.iter().all(|cell| {
            let replicates = plan.worth(&stage.cells, cell.key);
            let done = |replicate: usize| {
                let result = self.results.get(&trial_key(cell.key, replicate));
                result.is_some_and(|(status, _)| ends.contains(&status.as_str()))
            };
            (0..replicates).all(done)
        })
    }
}

/// All trials on which settings may be compared, and the later ones that have a result.
fn trials(plan: &Plan, repeats: Repeats, results: &HashMap<Key, (String, Option<f64>)>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for cell in &plan.cells {
        let labels = labels(plan, cell);
        let settings = SETTINGS.iter().filter_map(|name| Some((*name, labels.get(*name)?.to_string())));
        let settings: Rc<Settings> = Rc::new(settings.collect());
        for replicate in 0..repeats.most {
            let key = trial_key(cell.key, replicate);
            let result = results.get(&key);
            if replicate >= repeats.tuned && (result.is_none() || cell.is_short()) {
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

/// What an arm is compared on first: all of its settings on a share of their budget, or on the whole.
fn first(arm: &Arm, repeats: Repeats) -> impl Iterator<Item = (Key, usize)> {
    let cell = |setting: &Setting| arm.screening.as_ref().and(setting.short_cell).unwrap_or(setting.cell);
    arm.settings.iter().map(move |setting| (cell(setting), repeats.tuned))
}

/// The settings that are worth their whole budget, by what they reached on a share of it.
fn kept(arm: &Arm) -> impl Iterator<Item = &Setting> {
    let kept = arm.screening.iter().filter_map(|screening| screening.kept.as_ref()).flatten();
    kept.map(|index| &arm.settings[*index])
}

/// Cells in place of those that will follow from the comparison of an arm's settings, and how many replicates of each.
fn to_follow(arm: &Arm, repeats: Repeats) -> Vec<(Key, usize)> {
    if !arm.worth.is_empty() || arm.all_diverged() {
        return Vec::new();
    }
    let mut cells: Vec<(Key, usize)> = match &arm.screening {
        None => vec![(arm.settings[0].cell, repeats.tuned)],
        Some(Screening { kept: Some(_), .. }) => kept(arm).map(|setting| (setting.cell, repeats.tuned)).collect(),
        Some(Screening { most, .. }) => {
            arm.settings.iter().take(*most).map(|setting| (setting.cell, repeats.tuned)).collect()
        }
    };
    cells.iter_mut().take(1).for_each(|(_, replicates)| *replicates = repeats.replicates);
    cells
}

/// Look by look, first what has a single setting, then what a comparison on a share of the budget leaves, then of each arm one
/// more of the settings that have led.
fn stages(inquiry: &Inquiry, repeats: Repeats) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    // Without a share all cells are worth that.
    let compared: HashMap<Key, usize> = match repeats.share {
        Some(_) => inquiry.asked(0).flat_map(|arm| first(arm, repeats)).collect(),
        None => HashMap::new(),
    };
    for (number, (look, _)) in inquiry.looks.iter().enumerate() {
        let deepest = inquiry.asked(number).map(|arm| arm.worth.len()).max().unwrap_or(0);
        for depth in 0..=deepest {
            let mut cells = stages.last().map_or(&compared, |stage| &stage.cells).clone();
            for arm in inquiry.asked(number) {
                let depth = if arm.settings.len() == 1 { 1 } else { depth };
                let led = arm.worth.iter().take(depth);
                cells.extend(led.map(|index| (arm.settings[*index].cell, look.replicates)));
            }
            stages.push(Stage { look: number, cells: cells.clone() });
            if (number, depth) == (0, 0) {
                let mut more: HashMap<Key, usize> =
                    inquiry.asked(0).flat_map(kept).map(|setting| (setting.cell, repeats.tuned)).collect();
                more.retain(|cell, replicates| cells.get(cell).is_none_or(|known| known < replicates));
                let any = !more.is_empty();
                cells.extend(more);
                stages.extend(any.then_some(Stage { look: number, cells }));
            }
        }
    }
    stages
}
