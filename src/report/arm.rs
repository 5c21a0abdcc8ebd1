//! Arms: for each context and recipe the settings tried, and the one that validation selects.

use std::collections::BTreeMap;

use crate::key::Key;

/// One planned trial, as far as reports need it.
#[derive(Clone, Debug)]
pub struct Trial {
    pub key: Key,
    pub cell: Key,
    pub replicate: usize,
    /// done, diverged, failed, blocked or planned.
    pub status: String,
    /// Settings and labels as the file asked for them.
    pub settings: BTreeMap<String, String>,
    pub val: Option<f64>,
    pub test: Option<f64>,
    pub at_chance: bool,
    pub under_trained: bool,
    pub seconds: f64,
}

/// What is held equal between arms: names and values, in the order of the columns.
pub type Context = Vec<(String, String)>;

/// Everything tried for one recipe in one context.
#[derive(Clone, Debug)]
pub struct Arm {
    pub context: Context,
    pub recipe: String,
    pub settings: Vec<Setting>,
    /// The setting with the best mean validation metric, if one can be selected.
    pub selected: Option<usize>,
}

/// One setting of the tuning keys, with its replicates.
#[derive(Clone, Debug)]
pub struct Setting {
    pub cell: Key,
    /// The tuning keys that vary, as `lr = 0.01`.
    pub label: String,
    pub trials: Vec<Trial>,
}

/// Keys that only tune; they are selected over.
pub const TUNING: &[&str] = &["lr", "backbone_lr", "weight_decay", "momentum", "dropout", "label_smoothing"];

/// Keys that an arm may differ in because its recipe says so: they follow from the recipe and are no context.
const NEVER_CONTEXT: &[&str] = &["recipe", "size", "similarity"];

/// Keys that are there only where another one gives them an effect: `decay` without a weight decay is nothing. To be
/// absent is no value of theirs.
const DEPENDENT: &[&str] = &["decay", "nesterov"];

impl Setting {
    /// Whether every replicate is there and none diverged.
    pub fn complete(&self, replicates: usize) -> bool {
        self.trials.iter().filter(|trial| trial.status == "done").count() == replicates
    }

    /// The mean validation metric, of a complete setting.
    fn validation(&self, replicates: usize) -> Option<f64> {
        if !self.complete(replicates) {
            return None;
        }
        Some(self.trials.iter().filter_map(|trial| trial.val).sum::<f64>() / replicates as f64)
    }

    pub fn count(&self, status: &str) -> usize {
        self.trials.iter().filter(|trial| trial.status == status).count()
    }

    /// Test metrics by replicate.
    pub fn test(&self) -> Vec<f64> {
        self.trials.iter().filter_map(|trial| trial.test).collect()
    }
}

impl Arm {
    /// The selected setting.
    pub fn best(&self) -> Option<&Setting> {
        self.selected.map(|index| &self.settings[index])
    }

    /// Whether some setting has not been run to its end.
    pub fn missing(&self) -> usize {
        self.settings
            .iter()
            .map(|setting| {
                setting.trials.iter().filter(|trial| !matches!(trial.status.as_str(), "done" | "diverged")).count()
            })
            .sum()
    }

    /// Whether everything was run and every setting has a diverged replicate.
    pub fn all_diverged(&self) -> bool {
        self.missing() == 0 && self.selected.is_none()
    }

    /// The value of a context key.
    pub fn context_value(&self, key: &str) -> &str {
        self.context.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value.as_str())
    }
}

/// Sorts trials into arms, in the order of the cross. Context is every key that varies within some recipe and does
/// not only tune; what is fixed by the recipe belongs to the arm.
pub fn arms(trials: &[Trial], replicates: usize) -> Vec<Arm> {
    let context_keys = context_keys(trials);
    let tuned = varying(trials, TUNING);
    let mut arms: Vec<Arm> = Vec::new();
    let mut places: BTreeMap<(Context, String), usize> = BTreeMap::new();
    for trial in trials {
        let get = |key: &str| trial.settings.get(key).cloned().unwrap_or_default();
        let context: Context = context_keys.iter().map(|key| (key.clone(), get(key))).collect();
        let recipe = get("recipe");
        let place = *places.entry((context.clone(), recipe.clone())).or_insert_with(|| {
            arms.push(Arm { context, recipe, settings: Vec::new(), selected: None });
            arms.len() - 1
        });
        let settings = &mut arms[place].settings;
        let known = settings.iter().position(|setting| setting.cell == trial.cell);
        let index = known.unwrap_or_else(|| {
            let label: Vec<String> = tuned
                .iter()
                .filter_map(|key| trial.settings.get(key).map(|value| format!("{key} = {}", shown(value))))
                .collect();
            settings.push(Setting { cell: trial.cell, label: label.join(", "), trials: Vec::new() });
            settings.len() - 1
        });
        // Cells that collapse into one configuration list its trials once.
        if !settings[index].trials.iter().any(|own| own.key == trial.key) {
            settings[index].trials.push(trial.clone());
        }
    }
    for arm in &mut arms {
        let mut best: Option<(usize, f64)> = None;
        for (index, setting) in arm.settings.iter().enumerate() {
            if let Some(value) = setting.validation(replicates)
                && best.is_none_or(|(_, least)| value > least)
            {
                best = Some((index, value));
            }
        }
        arm.selected = best.map(|(index, _)| index);
    }
    arms
}

fn context_keys(trials: &[Trial]) -> Vec<String> {
    let mut keys = vec!["scenario".to_owned(), "dataset".to_owned(), "per_class".to_owned()];
    let mut by_recipe: BTreeMap<&str, Vec<&Trial>> = BTreeMap::new();
    for trial in trials {
        by_recipe.entry(trial.settings.get("recipe").map_or("", String::as_str)).or_default().push(trial);
    }
    let all: std::collections::BTreeSet<&String> = trials.iter().flat_map(|trial| trial.settings.keys()).collect();
    for key in all {
        if keys.contains(key) || TUNING.contains(&key.as_str()) || NEVER_CONTEXT.contains(&key.as_str()) {
            continue;
        }
        let dependent = DEPENDENT.contains(&key.as_str());
        let varies = by_recipe.values().any(|own| {
            let mut scenario_values: BTreeMap<&str, &str> = BTreeMap::new();
            own.iter().filter(|trial| !dependent || trial.settings.contains_key(key)).any(|trial| {
                let scenario = trial.settings.get("scenario").map_or("", String::as_str);
                let value = trial.settings.get(key).map_or("", String::as_str);
                *scenario_values.entry(scenario).or_insert(value) != value
            })
        });
        if varies {
            keys.push(key.clone());
        }
    }
    keys
}

fn varying(trials: &[Trial], keys: &[&str]) -> Vec<String> {
    let varies = |key: &&&str| {
        let mut values = trials.iter().map(|trial| trial.settings.get(**key));
        let first = values.next();
        first.is_some_and(|first| values.any(|value| value != first))
    };
    keys.iter().filter(varies).map(|key| (*key).to_owned()).collect()
}

/// A number as people write it: 1e-4 instead of 0.0001, without a tail of digits.
pub fn shown(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(number) if number != 0.0 && number.abs() < 1e-3 => format!("{number:e}"),
        Ok(number) => number.to_string(),
        Err(_) => text.to_owned(),
    }
}
