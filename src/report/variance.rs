//! What mattered: how much of the variance of validation scores the recipe makes, its settings, and the replicate.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::arm::{Arm, Repeats, Setting, TUNING};
use super::findings::{Findings, Scenario};
use super::sheets::{Kind, Sheet};

/// Parts of the variance in one scenario, from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parts {
    pub scenario: String,
    #[serde(flatten)]
    pub shares: Shares,
    /// Settings that are compared, and those that are not, because a replicate of theirs diverged or is missing.
    pub compared: usize,
    pub left_out: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Shares {
    /// Between the means of recipes.
    pub recipe: f64,
    /// Between the settings of a recipe.
    pub settings: f64,
    /// Of that, what each key makes by itself, and what lies in their combinations; where several vary, and each recipe has tried
    /// all values of one with all of the others.
    pub keys: Vec<(&'static str, f64)>,
    pub together: f64,
    /// What makes a replicate better or worse for all: its images, its order.
    pub replicate: f64,
    /// What is left: chance, and what only some recipes make of a replicate.
    pub rest: f64,
}

/// What a recipe has tried: of each setting the values of the keys that vary, and its scores by replicate.
struct Tried {
    keys: Vec<&'static str>,
    settings: Vec<(Vec<String>, Vec<f64>)>,
}

/// Those of the scenarios in which there is a choice of recipes and of settings, and all settings have run their whole budget: of
/// the best of them alone it cannot be told what settings make.
pub fn parts(scenarios: &[Scenario], arms: &[Arm], repeats: Repeats) -> Vec<Parts> {
    let of = |scenario: &str| {
        let (mut recipes, mut left_out) = (Vec::new(), 0);
        for arm in arms.iter().filter(|arm| arm.context_value("scenario") == scenario) {
            if arm.screening.is_some() {
                return None;
            }
            let tried = Tried::of(arm, repeats.tuned);
            left_out += arm.settings.len() - tried.settings.len();
            recipes.extend(Some(tried).filter(|tried| !tried.settings.is_empty()));
        }
        let several = recipes.len() > 1 && recipes.iter().any(|tried| tried.settings.len() > 1);
        let shares = decomposed(&recipes).filter(|_| several)?;
        let compared = recipes.iter().map(|tried| tried.settings.len()).sum();
        Some(Parts { scenario: scenario.to_owned(), shares, compared, left_out })
    };
    scenarios.iter().filter_map(|scenario| of(&scenario.name)).collect()
}

impl Tried {
    /// The validation scores of the first replicates, which all settings run; settings that lack some are left out.
    fn of(arm: &Arm, replicates: usize) -> Self {
        let value = |setting: &Setting, key: &str| setting.text(key).unwrap_or_default().to_owned();
        let varies = |key: &&&str| {
            let values: BTreeSet<String> = arm.settings.iter().map(|setting| value(setting, key)).collect();
            values.len() > 1
        };
        let keys: Vec<&'static str> = TUNING.iter().filter(varies).copied().collect();
        let one = |setting: &Setting| {
            let values = keys.iter().map(|key| value(setting, key)).collect();
            Some((values, setting.scores(replicates)?))
        };
        let settings = arm.settings.iter().filter_map(one).collect();
        Self { keys, settings }
    }

    /// Whether all values of each key were tried with all of the others: only then is what one key makes its own.
    fn is_whole(&self) -> bool {
        let distinct = |at: usize| self.settings.iter().map(|(values, _)| &values[at]).collect::<BTreeSet<_>>().len();
        let all: usize = (0..self.keys.len()).map(distinct).product();
        let tried: BTreeSet<&Vec<String>> = self.settings.iter().map(|(values, _)| values).collect();
        tried.len() == all && self.settings.len() == all
    }

    /// Squares between the means of a key's values, and how many of these are free.
    fn squares_of(&self, key: &str) -> (f64, usize) {
        let Some(at) = self.keys.iter().position(|own| *own == key) else { return (0.0, 0) };
        let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (own, scores) in &self.settings {
            values.entry(&own[at]).or_default().extend(scores);
        }
        let all = mean(&values.values().flatten().copied().collect::<Vec<_>>());
        let sum = values.values().map(|own| own.len() as f64 * (mean(own) - all).powi(2)).sum();
        (sum, values.len() - 1)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The parts that recipes, their settings, replicates and the rest have in the variance: omega squared (Hays, 1963) of an analysis
/// of variance with settings nested in recipes and all of them on the same replicates, where what chance makes of
/// a part is taken off it. None of fewer than two replicates, or where nothing varies.
fn decomposed(recipes: &[Tried]) -> Option<Shares> {
    let cells: Vec<&Vec<f64>> = recipes.iter().flat_map(|tried| &tried.settings).map(|(_, scores)| scores).collect();
    let replicates = cells.first()?.len();
    let all: Vec<f64> = cells.iter().flat_map(|cell| cell.iter().copied()).collect();
    let grand = mean(&all);
    let squares = |one: f64, other: f64, times: usize| times as f64 * (one - other) * (one - other);
    let total: f64 = all.iter().map(|value| squares(*value, grand, 1)).sum();
    let (mut recipe, mut setting) = (0.0, 0.0);
    for tried in recipes {
        let scores: Vec<f64> = tried.settings.iter().flat_map(|(_, scores)| scores.iter().copied()).collect();
        let own = mean(&scores);
        recipe += squares(own, grand, scores.len());
        setting += tried.settings.iter().map(|(_, cell)| squares(mean(cell), own, replicates)).sum::<f64>();
    }
    let of_replicate = |at: usize| mean(&cells.iter().map(|cell| cell[at]).collect::<Vec<_>>());
    let replicate: f64 = (0..replicates).map(|at| squares(of_replicate(at), grand, cells.len())).sum();
    let free = (cells.len() - 1) * (replicates - 1);
    if free == 0 || total <= 0.0 {
        return None;
    }
    let chance = (total - recipe - setting - replicate).max(0.0) / free as f64;
    let part = |sum: f64, free: usize| ((sum - free as f64 * chance) / (total + chance)).max(0.0);
    let free_settings = cells.len() - recipes.len();
    let mut shares = Shares {
        recipe: part(recipe, recipes.len() - 1),
        settings: part(setting, free_settings),
        replicate: part(replicate, replicates - 1),
        ..Shares::default()
    };
    shares.rest = (1.0 - shares.recipe - shares.settings - shares.replicate).max(0.0);
    let keys: Vec<&'static str> =
        TUNING.iter().filter(|key| recipes.iter().any(|tried| tried.keys.contains(key))).copied().collect();
    if keys.len() > 1 && recipes.iter().all(Tried::is_whole) {
        let mut left = (setting, free_settings);
        for key in keys {
            let own = recipes.iter().map(|tried| tried.squares_of(key));
            let (sum, free) = own.fold((0.0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
            left = (left.0 - sum, left.1 - free);
            shares.keys.push((key, part(sum, free)));
        }
        shares.together = part(left.0, left.1);
    }
    Some(shares)
}

/// As a table.
pub fn sheet(findings: &Findings) -> Option<Sheet> {
    let percent = |part: f64| format!("{:.0}%", 100.0 * part);
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in findings.variance.iter().flat_map(|parts| &parts.shares.keys) {
        if !keys.contains(key) {
            keys.push(key);
        }
    }
    let row = |Parts { scenario, shares, compared, .. }: &Parts| {
        let split = keys.iter().map(|key| {
            let own = shares.keys.iter().find(|(own, _)| own == key);
            own.map_or_else(|| "-".to_owned(), |(_, part)| percent(*part))
        });
        let together = (!keys.is_empty()).then(|| match shares.keys.is_empty() {
            true => "-".to_owned(),
            false => percent(shares.together),
        });
        [scenario.clone(), percent(shares.recipe), percent(shares.settings)]
            .into_iter()
            .chain(split)
            .chain(together)
            .chain([percent(shares.replicate), percent(shares.rest), compared.to_string()])
            .collect()
    };
    let title = format!("What mattered: parts of the variance of {} on validation", findings.metric);
    let of_keys: Vec<String> = keys.iter().map(|key| format!("of these {key}")).collect();
    let heading: Vec<&str> = ["scenario", "recipe", "its settings"]
        .into_iter()
        .chain(of_keys.iter().map(String::as_str))
        .chain((!keys.is_empty()).then_some("together"))
        .chain(["replicate", "the rest", "settings"])
        .collect();
    let mut sheet = Sheet::new(Kind::Variance, title, &heading, findings.variance.iter().map(row).collect());
    let left_out: usize = findings.variance.iter().map(|parts| parts.left_out).sum();
    sheet
        .notes
        .extend((left_out > 0).then(|| format!("{left_out} settings that diverged or are missing are left out")));
    (!findings.variance.is_empty()).then_some(sheet)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings of one key.
    fn tried(settings: &[&[f64]]) -> Tried {
        let one = |(at, scores): (usize, &&[f64])| (vec![at.to_string()], scores.to_vec());
        Tried { keys: vec!["lr"], settings: settings.iter().enumerate().map(one).collect() }
    }

    fn near(found: f64, known: f64) -> bool {
        (found - known).abs() < 1e-9
    }

    #[test]
    fn parts_are_those_of_a_nested_analysis_of_variance() {
        // numpy's least squares on dummies of recipes, then settings, then replicates (ranks 1, 2, 5, 7): sums of squares .066151,
        // .058222, .01156 and .002907 that are left, of which omega squared.
        let recipes = [
            tried(&[&[0.52, 0.55, 0.60], &[0.61, 0.64, 0.66]]),
            tried(&[&[0.70, 0.74, 0.75], &[0.58, 0.66, 0.69], &[0.81, 0.80, 0.86]]),
        ];
        let found = decomposed(&recipes).expect("it varies");
        let known = [0.472_602_029_006, 0.410_422_802_775, 0.077_823_806_901, 0.039_151_361_318];
        for (found, known) in [found.recipe, found.settings, found.replicate, found.rest].iter().zip(known) {
            assert!(near(*found, known), "{found} {known}");
        }
        assert!(found.keys.is_empty(), "one key is all of its settings");
    }

    /// Two keys in both recipes.
    fn crossed(settings: &[(&str, &str, [f64; 3])]) -> Tried {
        let one = |(rate, decay, scores): &(&str, &str, [f64; 3])| {
            (vec![(*rate).to_owned(), (*decay).to_owned()], scores.to_vec())
        };
        Tried { keys: vec!["lr", "weight_decay"], settings: settings.iter().map(one).collect() }
    }

    #[test]
    fn keys_have_parts_of_their_own_where_all_were_crossed() {
        let first = [
            ("0.1", "0", [0.52, 0.55, 0.60]),
            ("0.1", "1", [0.50, 0.56, 0.57]),
            ("1", "0", [0.61, 0.64, 0.66]),
            ("1", "1", [0.60, 0.66, 0.65]),
        ];
        let second = [
            ("0.1", "0", [0.70, 0.74, 0.75]),
            ("0.1", "1", [0.71, 0.70, 0.77]),
            ("1", "0", [0.58, 0.66, 0.69]),
            ("1", "1", [0.55, 0.60, 0.66]),
            ("10", "0", [0.81, 0.80, 0.86]),
            ("10", "1", [0.83, 0.84, 0.85]),
        ];
        let found = decomposed(&[crossed(&first), crossed(&second)]).expect("it varies");
        // numpy as above: recipes, rates and decays within them, settings, replicates (ranks 2, 5, 7, 10, 12).
        assert!(near(found.recipe, 0.411_936_545_719_047) && near(found.settings, 0.484_419_266_787_642), "{found:?}");
        assert_eq!(found.keys.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["lr", "weight_decay"]);
        assert!(near(found.keys[0].1, 0.481_096_960_766_212) && found.keys[1].1 == 0.0, "{found:?}");
        assert!(near(found.together, 0.004_378_387_723_109), "{found:?}");
        // Where a combination is missing, means of one key are not its own.
        let found = decomposed(&[crossed(&first[..3]), crossed(&second)]).expect("it varies");
        assert!(found.keys.is_empty() && found.settings > 0.4, "{found:?}");
    }

    #[test]
    fn what_does_not_vary_has_no_part() {
        let alike = |of: [f64; 2]| tried(&[&of, &of]);
        assert_eq!(decomposed(&[alike([0.5, 0.5]), alike([0.5, 0.5])]), None);
        let found = decomposed(&[alike([0.5, 0.5]), alike([0.7, 0.7])]).expect("it varies");
        assert!(near(found.recipe, 1.0) && near(found.settings + found.replicate + found.rest, 0.0), "{found:?}");
        let found = decomposed(&[alike([0.5, 0.7]), alike([0.5, 0.7])]).expect("it varies");
        assert!(near(found.replicate, 1.0) && near(found.recipe + found.settings + found.rest, 0.0), "{found:?}");
        assert_eq!(decomposed(&[tried(&[&[0.5]]), tried(&[&[0.7]])]), None, "one replicate says nothing of chance");
    }
}
