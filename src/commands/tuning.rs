//! Which settings are worth all replicates, where a file compares them on the first of these: those that validation selects,
//! as soon as all settings of their arm have been compared.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::recorder::{labels, metric_name};
use crate::experiment::Experiment;
use crate::key::Key;
use crate::plan::{Plan, trial_key};
use crate::report::arm::{Repeats, Settings, Trial, arms};
use crate::store::Store;
use crate::store::schema::SETTINGS;

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worth {
    /// Cells that are worth all replicates.
    pub cells: HashSet<Key>,
    /// Of arms whose settings have not all been compared the first each: it stands for the one that will be selected, in
    /// number and cost.
    pub open: HashSet<Key>,
}

/// By the results that a store holds; without one only recipes with a single setting are worth it.
///
/// # Errors
/// The store cannot be read.
pub fn worth(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Worth> {
    let repeats = Repeats { replicates: plan.replicates, tuned: plan.tune_replicates };
    if repeats.tuned == repeats.replicates {
        return Ok(Worth::default());
    }
    let metric = metric_name(experiment)?;
    let known = store.map(|store| store.validations(&metric)).transpose()?.unwrap_or_default();
    let mut trials = Vec::new();
    for cell in &plan.cells {
        let labels = labels(plan, cell);
        let settings = SETTINGS.iter().filter_map(|name| Some((*name, labels.get(*name)?.to_string())));
        let settings: Rc<Settings> = Rc::new(settings.collect::<BTreeMap<_, _>>());
        for replicate in 0..repeats.replicates {
            let key = trial_key(cell.key, replicate);
            let (status, val) = match known.get(&key) {
                Some((status, val)) => (status.clone(), *val),
                None if replicate < repeats.tuned => ("planned".to_owned(), None),
                None => continue,
            };
            trials.push(Trial {
                key,
                cell: cell.key,
                replicate,
                status,
                settings: Rc::clone(&settings),
                val,
                test: None,
                at_chance: false,
                under_trained: false,
                seconds: 0.0,
            });
        }
    }
    let mut worth = Worth::default();
    for arm in arms(&trials, repeats) {
        let own = arm.worth_all_replicates(repeats);
        if own.is_empty() && !arm.all_diverged() {
            worth.open.insert(arm.settings[0].cell);
        }
        worth.cells.extend(own.iter().map(|setting| setting.cell));
    }
    Ok(worth)
}

/// The same on one of several machines. What one of them knows alone moves no trial to the part of another: until the stores
/// are joined and all settings compared, only recipes with a single setting are worth all replicates.
///
/// # Errors
/// As `worth`.
pub fn of_part(plan: &Plan, experiment: &Experiment, store: Option<&Store>) -> anyhow::Result<Worth> {
    let known = worth(plan, experiment, store)?;
    if known.open.is_empty() {
        return Ok(known);
    }
    Ok(Worth { open: known.open, ..worth(plan, experiment, None)? })
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
