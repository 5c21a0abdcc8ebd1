//! Arms: for each context and recipe the settings tried, and the one that validation selects.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::compare::{Mean, Scored, mean_over};
use super::naming::label;
use super::selection::select;
use crate::key::Key;
use crate::recipe::strengths_told;

/// Settings and labels of a cell, as the file asked for them.
pub type Settings = BTreeMap<&'static str, String>;

/// One planned trial, as far as reports need it.
#[derive(Clone, Debug)]
pub struct Trial {
    pub key: Key,
    pub cell: Key,
    pub replicate: usize,
    /// done, diverged, failed, blocked or planned.
    pub status: String,
    /// One table for all replicates of a cell.
    pub settings: Rc<Settings>,
    pub val: Option<f64>,
    pub test: Option<f64>,
    pub at_chance: bool,
    pub under_trained: bool,
    pub seconds: f64,
}

impl Trial {
    /// Whether it runs but a share of its budget, for a first comparison of settings.
    pub fn is_short(&self) -> bool {
        self.settings.contains_key(SHARE)
    }
}

/// How often trials repeat: replicates, and on how many of them all settings of an arm are compared. The others run for the
/// setting that leads; where its mean then falls behind what another has reached on fewer, for that one as well, until one
/// that has run all of them leads. What rules leave open runs on, to `most` at most. With a share, settings are first compared
/// on that part of their budget, and the same part of them runs all of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Repeats {
    pub replicates: usize,
    pub tuned: usize,
    pub share: Option<f64>,
    pub most: usize,
}

impl Repeats {
    /// Settings are compared on all of them.
    pub fn all(replicates: usize) -> Self {
        Self { replicates, tuned: replicates, share: None, most: replicates }
    }

    /// The same where there are so many replicates and no more.
    pub fn on(self, replicates: usize) -> Self {
        Self { replicates, most: replicates, ..self }
    }

    /// On what settings are compared, where that is not all: `the first 2 of 5 replicates`.
    pub fn first(&self) -> Option<String> {
        let Self { replicates, tuned, most, .. } = self;
        let number = if *tuned == 1 { String::new() } else { format!(" {tuned}") };
        let of = if most > replicates { format!("up to {most}") } else { replicates.to_string() };
        (tuned < most).then(|| format!("the first{number} of {of} replicates"))
    }

    /// How many of so many settings run their whole budget, where that is less work than to run it for all: the share of them that
    /// is the share of the budget, and two at least, since what is best in few steps need not be in many.
    pub(super) fn screened(&self, settings: usize) -> Option<usize> {
        let share = self.share?;
        let part = settings as f64 * share;
        // 7% of 100 are seven, though 0.07 times 100 is a little more.
        let most = ((part - 1e-9).ceil() as usize).max(2);
        (part + (most as f64) < settings as f64).then_some(most)
    }
}

/// What is held equal between arms: names and values, in the order of the columns.
pub type Context = Vec<(String, String)>;

/// Everything tried for one recipe in one context.
#[derive(Clone, Debug)]
pub struct Arm {
    pub context: Context,
    pub recipe: String,
    /// On how many replicates it is to stand.
    pub replicates: usize,
    pub settings: Vec<Setting>,
    /// The setting with the best mean validation metric, if one can be selected.
    pub selected: Option<usize>,
    /// Where its settings are first compared on a share of their budget.
    pub screening: Option<Screening>,
    /// Settings that are worth all replicates, as far as is known: all that have led.
    pub worth: Vec<usize>,
    /// Trials that follow from the comparison of settings and that no sweep has planned yet.
    pub unplanned: usize,
    /// In how many folds the images are that its replicates test on in turn.
    pub folds: Option<usize>,
}

/// What came of comparing settings on a share of their budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Screening {
    pub share: f64,
    /// How many settings then run the whole budget at most.
    pub most: usize,
    /// Which ones; none is known before all have been compared.
    pub kept: Option<Vec<usize>>,
}

/// One setting of the tuning keys, with its replicates.
#[derive(Clone, Debug)]
pub struct Setting {
    pub cell: Key,
    pub settings: Rc<Settings>,
    /// The tuning keys that vary among an arm's settings, as `lr = 0.01`.
    pub label: String,
    pub trials: Vec<Trial>,
    /// Those with a share of the budget, and the cell that they are of, where settings are compared on these first.
    pub short: Vec<Trial>,
    pub short_cell: Option<Key>,
    /// The mean validation metric that it is compared by, and over how many replicates; none where one diverged or is missing.
    pub validation: Option<(f64, usize)>,
}

/// Keys that only tune; they are selected over.
pub const TUNING: &[&str] =
    &["lr", "backbone_lr", "layer_decay", "weight_decay", "start_decay", "momentum", "dropout", "label_smoothing"];

/// Values of these beyond which there are none, or none that anyone would try.
const NATURAL_ENDS: &[(&str, f64)] = &[
    ("weight_decay", 0.0),
    ("start_decay", 0.0),
    ("momentum", 0.0),
    ("dropout", 0.0),
    ("label_smoothing", 0.0),
    ("layer_decay", 1.0),
];

/// Keys that an arm may differ in because its recipe says so: they follow from the recipe and are no context.
const NEVER_CONTEXT: &[&str] = &["recipe", "size", "similarity", SHARE];

/// What trials have that run a share of their budget.
const SHARE: &str = "tune_share";

/// Keys that are there only where another one gives them an effect: `decay` without a weight decay is nothing. To be
/// absent is no value of theirs.
const DEPENDENT: &[&str] = &["decay", "nesterov"];

impl Setting {
    pub(super) fn new(cell: Key, settings: &Rc<Settings>) -> Self {
        let settings = Rc::clone(settings);
        let (trials, short) = (Vec::new(), Vec::new());
        Self { cell, settings, label: String::new(), trials, short, short_cell: None, validation: None }
    }

    /// The validation metrics of the first replicates, if they are done.
    pub fn scores(&self, replicates: usize) -> Option<Vec<f64>> {
        scores(&self.trials, replicates)
    }

    /// Those of its trials with a share of the budget.
    pub fn short_scores(&self, replicates: usize) -> Option<Vec<f64>> {
        scores(&self.short, replicates)
    }

    /// Their mean.
    pub(super) fn mean(&self, replicates: usize) -> Option<f64> {
        Some(self.scores(replicates)?.iter().sum::<f64>() / replicates as f64)
    }

    /// What it has for a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }

    /// The number that it has for a key.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.text(key)?.parse().ok()
    }

    pub fn count(&self, status: &str) -> usize {
        self.trials.iter().filter(|trial| trial.status == status).count()
    }

    /// Of those with a share of the budget.
    pub fn count_short(&self, status: &str) -> usize {
        self.short.iter().filter(|trial| trial.status == status).count()
    }

    /// Trials, of those that `of` takes, that have not been run to their end.
    pub(super) fn open(&self, of: impl Fn(&Trial) -> bool) -> usize {
        self.trials.iter().filter(|trial| is_open(trial) && of(trial)).count()
    }
}

/// The validation metrics of the first replicates, if they are done.
fn scores(trials: &[Trial], replicates: usize) -> Option<Vec<f64>> {
    let done =
        |replicate: usize| trials.iter().find(|trial| trial.replicate == replicate && trial.status == "done")?.val;
    (0..replicates).map(done).collect()
}

pub(super) fn is_open(trial: &Trial) -> bool {
    !matches!(trial.status.as_str(), "done" | "diverged")
}

impl Arm {
    /// The selected setting.
    pub fn best(&self) -> Option<&Setting> {
        self.selected.map(|index| &self.settings[index])
    }

    /// Settings that validation chose among: those of the keys that tune, and of each solved head the strengths on its path.
    pub fn tried(&self) -> usize {
        let strengths = |settings: &Settings| match settings.get("optimizer").map(String::as_str) {
            Some("lbfgs" | "ridge" | "lda") => strengths_told(settings.get("lambda").map(String::as_str)),
            _ => 1,
        };
        self.settings.iter().map(|setting| strengths(&setting.settings)).sum()
    }

    /// Where the selected setting lies at the end of what was tried, and what lies beyond may do better: `lr is the largest of 3`.
    /// Of two values each is an end, and beyond none of `NATURAL_ENDS` there is anything.
    pub fn at_ends(&self) -> Vec<String> {
        let end = |key: &&'static str| {
            let key = *key;
            let own = self.best()?.number(key)?;
            let mut tried: Vec<f64> = self.settings.iter().filter_map(|setting| setting.number(key)).collect();
            tried.sort_by(f64::total_cmp);
            tried.dedup();
            let [smallest, _, .., largest] = tried[..] else { return None };
            let word = match own {
                _ if NATURAL_ENDS.contains(&(key, own)) => None,
                _ if own == smallest => Some("smallest"),
                _ if own == largest => Some("largest"),
                _ => None,
            };
            Some(format!("{key} is the {} of {}", word?, tried.len()))
        };
        TUNING.iter().filter_map(end).collect()
    }

    /// The trials whose test scores are the arm's, by replicate: of the selected setting. In folds each replicate has the setting
    /// that its own validation selects: its test images are validated on in other replicates, and a mean over these would have
    /// seen them.
    pub fn tested(&self) -> Vec<&Trial> {
        let Some(best) = self.best() else { return Vec::new() };
        let mut own: Vec<&Trial> = best.trials.iter().filter(|trial| trial.status == "done").collect();
        own.sort_by_key(|trial| trial.replicate);
        if self.folds.is_none() {
            return own;
        }
        let selectable = || self.settings.iter().filter(|setting| setting.validation.is_some());
        let leads = |of: &Trial| {
            let same =
                selectable().filter_map(|setting| setting.trials.iter().find(|trial| trial.replicate == of.replicate));
            same.reduce(|one, other| if other.val > one.val { other } else { one })
        };
        own.into_iter().map(|trial| leads(trial).unwrap_or(trial)).collect()
    }

    /// The test metrics of these.
    pub fn test(&self) -> Vec<f64> {
        self.tested().into_iter().filter_map(|trial| trial.test).collect()
    }

    /// What is run to compare its settings: each on its whole budget, or on a share of it and then those that are worth the rest.
    pub fn compared(&self) -> impl Iterator<Item = Key> {
        let kept = self.screening.as_ref().map(|screening| screening.kept.as_deref().unwrap_or_default());
        let whole = move |(index, _): &(usize, &Setting)| kept.is_none_or(|kept| kept.contains(index));
        let short = self.settings.iter().filter(move |_| kept.is_some()).filter_map(|setting| setting.short_cell);
        self.settings.iter().enumerate().filter(whole).map(|(_, setting)| setting.cell).chain(short)
    }

    /// Trials that have not been run to their end.
    pub fn missing(&self) -> usize {
        let short = self.settings.iter().flat_map(|setting| &setting.short).filter(|trial| is_open(trial)).count();
        self.settings.iter().map(|setting| setting.open(|_| true)).sum::<usize>() + short + self.unplanned
    }

    /// The mean of its scores by replicate.
    pub(super) fn mean_of(&self, scored: &[Scored]) -> Mean {
        let values: Vec<f64> = scored.iter().map(|own| own.metric).collect();
        mean_over(&values, self.folds.unwrap_or(values.len()))
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

/// Sorts trials of the first replicates into arms, in the order of the cross. Context is every key that varies within some
/// recipe and does not only tune; what is fixed by the recipe belongs to the arm.
pub fn arms(trials: &[Trial], repeats: Repeats) -> Vec<Arm> {
    let cells: Vec<&[Trial]> = trials.chunk_by(|one, other| Rc::ptr_eq(&one.settings, &other.settings)).collect();
    let settings: Vec<&Settings> = cells.iter().map(|cell| &*cell[0].settings).collect();
    let context_keys = context_keys(&settings);
    let mut arms: Vec<Arm> = Vec::new();
    let mut places: HashMap<(Context, String), usize> = HashMap::new();
    let mut known: HashMap<(usize, Key), usize> = HashMap::new();
    let mut listed: HashSet<(usize, Key)> = HashSet::new();
    let mut shortened: HashMap<(usize, Key), usize> = HashMap::new();
    // The trials with a share of the budget stand before those with all of it.
    let mut before: Option<(&Settings, usize)> = None;
    for (cell, settings) in cells.into_iter().zip(settings) {
        let get = |key: &str| settings.get(key).cloned().unwrap_or_default();
        let context: Context = context_keys.iter().map(|key| ((*key).to_owned(), get(key))).collect();
        let recipe = get("recipe");
        let place = *places.entry((context.clone(), recipe.clone())).or_insert_with(|| {
            let (settings, worth) = (Vec::new(), Vec::new());
            let replicates = repeats.replicates;
            let (selected, screening, unplanned, folds) = (None, None, 0, None);
            arms.push(Arm { context, recipe, replicates, settings, selected, screening, worth, unplanned, folds });
            arms.len() - 1
        });
        let (own, of) = (&mut arms[place].settings, cell[0].cell);
        let trials = cell.iter().filter(|trial| trial.replicate < repeats.replicates);
        if settings.contains_key(SHARE) {
            let index = *shortened.entry((place, of)).or_insert_with(|| {
                own.push(Setting::new(of, &cell[0].settings));
                own.len() - 1
            });
            own[index].short_cell = Some(of);
            // Cells that collapse into one configuration list its trials once.
            let first = trials.filter(|trial| trial.replicate < repeats.tuned);
            own[index].short.extend(first.filter(|trial| listed.insert((place, trial.key))).cloned());
            before = Some((settings, index));
            continue;
        }
        let of_short = before.take().filter(|(short, _)| same_but_for_share(short, settings)).map(|(_, index)| index);
        let index = *known.entry((place, of)).or_insert_with(|| {
            of_short.unwrap_or_else(|| {
                own.push(Setting::new(of, &cell[0].settings));
                own.len() - 1
            })
        });
        own[index].cell = of;
        own[index].trials.extend(trials.filter(|trial| listed.insert((place, trial.key))).cloned());
    }
    for arm in &mut arms {
        label(&mut arm.settings);
        select(arm, repeats);
    }
    arms
}

fn same_but_for_share(short: &Settings, whole: &Settings) -> bool {
    short.iter().filter(|(key, _)| **key != SHARE).eq(whole)
}

fn context_keys<'a>(cells: &[&'a Settings]) -> Vec<&'a str> {
    let mut keys = vec!["scenario", "dataset", "per_class"];
    let mut by_recipe: BTreeMap<&str, Vec<&Settings>> = BTreeMap::new();
    for settings in cells {
        by_recipe.entry(settings.get("recipe").map_or("", String::as_str)).or_default().push(settings);
    }
    let all: BTreeSet<&str> = cells.iter().flat_map(|settings| settings.keys().copied()).collect();
    for key in all {
        if keys.contains(&key) || TUNING.contains(&key) || NEVER_CONTEXT.contains(&key) {
            continue;
        }
        let dependent = DEPENDENT.contains(&key);
        let varies = by_recipe.values().any(|own| {
            let mut scenario_values: BTreeMap<&str, &str> = BTreeMap::new();
            own.iter().filter(|settings| !dependent || settings.contains_key(key)).any(|settings| {
                let get = |key: &str| settings.get(key).map_or("", String::as_str);
                *scenario_values.entry(get("scenario")).or_insert(get(key)) != get(key)
            })
        });
        if varies {
            keys.push(key);
        }
    }
    keys
}
