//! Everything that a report shows, gathered once; each way of showing it only lays it out.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::arm::{Arm, Repeats, Setting};
use super::calibration::Calibration;
use super::choice::Choices;
use super::compare::{Difference, Mean, mean_over};
use super::gain::Gain;
use super::growth::Growth;
use super::price::Prices;
use super::rivals::Rivals;
use super::selection::leading;
use super::shift::Shift;
use super::variance::Parts;
use super::verdict::Verdict;
use crate::expense::Expense;
use crate::key::Key;
use crate::recipe::OVERRIDE;

/// The findings of one experiment.
pub struct Findings {
    pub experiment: String,
    pub question: String,
    /// What `--set` changed in the file, a line each.
    pub set: Vec<String>,
    pub metric: String,
    pub repeats: Repeats,
    pub scenarios: Vec<Scenario>,
    pub arms: Vec<Arm>,
    pub verdicts: Vec<Verdict>,
    pub gains: Vec<Gain>,
    pub choices: Option<Choices>,
    pub rivals: Vec<Rivals>,
    pub prices: Vec<Prices>,
    pub growth: Vec<Growth>,
    pub variance: Vec<Parts>,
    pub shifts: Vec<Shift>,
    pub calibration: Vec<Calibration>,
    /// Trials whose answers were stored without it.
    pub without_confidence: usize,
    pub counts: Counts,
    /// What a trial of each cell takes, as far as it is known.
    pub expenses: HashMap<Key, Expense>,
    /// Numerics classes among the results; more than one is a mix.
    pub numerics: Vec<String>,
    pub sharing: Sharing,
    pub near: Vec<Near>,
    /// The same of other datasets that are tested as well.
    pub near_others: Vec<Near>,
    pub folds: Vec<Folds>,
}

/// A dataset whose replicates test on one fold after another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Folds {
    pub dataset: String,
    pub folds: usize,
    pub images: usize,
}

/// Test images of a dataset that are near-duplicates of images trained or validated on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Near {
    pub dataset: String,
    pub near: usize,
    /// All test images.
    pub of: usize,
}

/// What trials shared, and what an audit found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sharing {
    /// Of the sweeps so far.
    pub seconds: f64,
    pub forecast: f64,
    /// Multiply-accumulates done, and those of the same trials one by one.
    pub macs: f64,
    pub macs_alone: f64,
    /// Trials that were run again alone, and those that then gave something else.
    pub audited: usize,
    pub wrong: usize,
}

#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct Scenario {
    pub name: String,
    pub size: Option<String>,
    pub similarity: Option<String>,
    pub dataset: String,
    pub per_class: Option<usize>,
    /// Its settings beyond these; unknown to stores of before they were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub planned: usize,
    pub done: usize,
    pub diverged: usize,
    pub failed: usize,
    pub missing: usize,
    pub at_chance: usize,
    pub under_trained: usize,
}

impl Findings {
    /// Arms of a scenario.
    pub fn of<'a>(&'a self, scenario: &'a str) -> impl Iterator<Item = &'a Arm> {
        self.arms.iter().filter(move |arm| arm.context_value("scenario") == scenario)
    }

    /// The depth that varies within recipes, if one does: how much is frozen, or else how much is transferred.
    pub fn depth_key(&self) -> &'static str {
        let varies = |key: &str| self.arms.iter().any(|arm| !arm.context_value(key).is_empty());
        if !varies("freeze") && varies("transfer") { "transfer" } else { "freeze" }
    }

    /// That depth in words.
    pub fn depth_words(&self) -> &'static str {
        if self.depth_key() == "transfer" { "depth of what is transferred" } else { "freeze depth" }
    }

    /// The arm with the best validation metric of a scenario: its recipe is the recommendation.
    pub fn best<'a>(&'a self, scenario: &'a str) -> Option<(&'a Arm, &'a Setting)> {
        let arm = leading(self.of(scenario), self.repeats.replicates)?;
        Some((arm, arm.best()?))
    }

    /// Multiply-accumulates of one trial with an arm's selected setting, by itself.
    pub fn macs(&self, arm: &Arm) -> Option<f64> {
        self.expenses.get(&arm.best()?.cell).map(Expense::alone)
    }

    /// The test metric of an arm's selected setting.
    pub fn test(arm: &Arm) -> Option<Mean> {
        arm.best()?;
        let values = arm.test();
        Some(mean_over(&values, arm.folds.unwrap_or(values.len())))
    }
}

/// The context of an arm beyond scenario, dataset and size, as `freeze = layer1`.
pub fn further_context(arm: &Arm) -> String {
    let further = arm
        .context
        .iter()
        .filter(|(key, value)| !matches!(key.as_str(), "scenario" | "dataset" | "per_class") && !value.is_empty());
    let mut shown: Vec<String> =
        further.map(|(key, value)| format!("{key} = {}", super::naming::shown(value))).collect();
    // What goes against the weights is named in every table, whether it varies or not.
    for key in ["preprocess", "resize"] {
        let mut values = arm.settings.iter().filter_map(|setting| setting.text(key));
        let against = values.find(|text| text.contains(OVERRIDE) && !arm.context_value(key).contains(OVERRIDE));
        shown.extend(against.map(|value| format!("{key} = {value}")));
    }
    shown.join(", ")
}

/// `.853 ± .012`, or without an interval where there is one value.
pub fn shown_mean(mean: Mean) -> String {
    match mean.half_width {
        Some(half) => format!("{} ± {}", fraction(mean.mean), fraction(half)),
        None => fraction(mean.mean),
    }
}

/// `+0.087 [+0.064, +0.110]`: a difference with its 95% interval.
pub fn shown_difference(difference: &Difference) -> String {
    let (mean, half) = (difference.mean, difference.half_width(0.95));
    format!("{mean:+.3} [{:+.3}, {:+.3}]", mean - half, mean + half)
}

/// Multiply-accumulates as TFLOP, two operations each, with three digits that count.
pub fn tera(macs: f64) -> String {
    let value = 2e-12 * macs;
    let places = if value > 0.0 { (2.0 - value.log10().floor()).clamp(0.0, 9.0) as usize } else { 0 };
    format!("{value:.places$}")
}

/// A number below one to three digits, without its zero: .853.
pub fn fraction(value: f64) -> String {
    let text = format!("{value:.3}");
    match text.strip_prefix("0.") {
        Some(digits) => format!(".{digits}"),
        None => text.strip_prefix("-0.").map_or(text.clone(), |digits| format!("-.{digits}")),
    }
}
