//! Which settings are worth all replicates, where a file compares them on the first of these: those that lead by validation,
//! as soon as all settings of their arm have been compared.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::recorder::{labels, metric_name};
use crate::experiment::Experiment;
use crate::key::Key;
use crate::plan::{Plan, trial_key};
use crate::report::arm::{Arm, Repeats, Settings, Trial, arms};
use crate::store::Store;
use crate::store::schema::SETTINGS;

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worth {
    /// Cells that are worth all replicates.
    pub cells: HashSet<Key>,
    /// Of arms whose settings have not all been compared the first each: it stands for the one that will lead, in number and
    /// cost.
    pub open: HashSet<Key>,
}

/// By the results that a store holds; without one only recipes with a single setting are worth it.
///
/// # Errors
/// The store cannot be read.
pub fn worth(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Worth> {
    let standing = Standing::of(plan, experiment, store)?;
    Ok(Worth { cells: standing.led(usize::MAX), open: standing.open() })
}

/// The same on one of several machines. What one of them knows alone moves no trial to the part of another: the next setting
/// leads when the stores are joined, and all that were to run before it have.
///
/// # Errors
/// As `worth`.
pub fn of_part(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Worth> {
    let standing = Standing::of(plan, experiment, store)?;
    let deepest = standing.arms.iter().map(|arm| arm.worth.len()).max().unwrap_or(0);
    let whole = |depth: &usize| standing.finished(plan, &standing.led(*depth));
    let depth = (0..deepest).find(|depth| !whole(depth)).unwrap_or(deepest);
    Ok(Worth { cells: standing.led(depth), open: standing.open() })
}

/// The same for what cannot be known before anything runs: one setting of every arm is worth all replicates.
///
/// # Errors
/// As `worth`.
pub fn foreseen(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<HashSet<Key>> {
    let Worth { mut cells, open } = worth(plan, experiment, store)?;
    cells.extend(open);
    Ok(cells)
}

/// Arms by the results of a store, and these.
struct Standing {
    /// None where settings are compared on all replicates.
    arms: Vec<Arm>,
    /// Status and validation metric.
    results: HashMap<Key, (String, Option<f64>)>,
}

impl Standing {
    fn of(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Self> {
        let repeats = Repeats { replicates: plan.replicates, tuned: plan.tune_replicates };
        if repeats.tuned == repeats.replicates {
            return Ok(Self { arms: Vec::new(), results: HashMap::new() });
        }
        let metric = metric_name(experiment)?;
        let results = store.map(|store| store.validations(&metric)).transpose()?.unwrap_or_default();
        let mut trials = Vec::new();
        for cell in &plan.cells {
            let labels = labels(plan, cell);
            let settings = SETTINGS.iter().filter_map(|name| Some((*name, labels.get(*name)?.to_string())));
            let settings: Rc<Settings> = Rc::new(settings.collect());
            for replicate in 0..repeats.replicates {
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
        Ok(Self { arms: arms(&trials, repeats), results })
    }

    /// Cells that have led, of each arm at most `depth`, and those that are the only setting.
    fn led(&self, depth: usize) -> HashSet<Key> {
        let of = |arm: &Arm| {
            let depth = if arm.settings.len() == 1 { 1 } else { depth };
            arm.worth.iter().take(depth).map(|index| arm.settings[*index].cell).collect::<Vec<_>>()
        };
        self.arms.iter().flat_map(of).collect()
    }

    fn open(&self) -> HashSet<Key> {
        let open = self.arms.iter().filter(|arm| arm.worth.is_empty() && !arm.all_diverged());
        open.map(|arm| arm.settings[0].cell).collect()
    }

    /// Whether everything has run that is to run where these cells are worth all replicates.
    fn finished(&self, plan: &Plan, worth: &HashSet<Key>) -> bool {
        plan.cells.iter().all(|cell| {
            let replicates = if worth.contains(&cell.key) { plan.replicates } else { plan.tune_replicates };
            let done = |replicate: usize| {
                let result = self.results.get(&trial_key(cell.key, replicate));
                result.is_some_and(|(status, _)| matches!(status.as_str(), "done" | "diverged"))
            };
            (0..replicates).all(done)
        })
    }
}
