//! What mattered: how much of the variance of validation scores the recipe makes, its settings, and the replicate.

use serde::Serialize;

use super::arm::{Arm, Repeats};
use super::findings::{Findings, Scenario};
use super::sheets::{Kind, Sheet};

/// Parts of the variance in one scenario, from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parts {
    pub scenario: String,
    /// Between the means of recipes.
    pub recipe: f64,
    /// Between the settings of a recipe.
    pub settings: f64,
    /// What makes a replicate better or worse for all: its images, its order.
    pub replicate: f64,
    /// What is left: chance, and what only some recipes make of a replicate.
    pub rest: f64,
    /// Settings that are compared, and those that are not, because a replicate of theirs diverged or is missing.
    pub compared: usize,
    pub left_out: usize,
}

/// Those of the scenarios in which there is a choice of recipes and of settings.
pub fn parts(scenarios: &[Scenario], arms: &[Arm], repeats: Repeats) -> Vec<Parts> {
    let of = |scenario: &str| {
        let own = arms.iter().filter(|arm| arm.context_value("scenario") == scenario);
        let (recipes, left_out) = scores(own, repeats.tuned);
        let several = recipes.len() > 1 && recipes.iter().any(|settings| settings.len() > 1);
        let [recipe, settings, replicate, rest] = decomposed(&recipes).filter(|_| several)?;
        let compared = recipes.iter().map(Vec::len).sum();
        Some(Parts { scenario: scenario.to_owned(), recipe, settings, replicate, rest, compared, left_out })
    };
    scenarios.iter().filter_map(|scenario| of(&scenario.name)).collect()
}

/// By recipe and setting the validation scores of the first replicates, which all settings run; and how many settings lack some.
fn scores<'a>(arms: impl Iterator<Item = &'a Arm>, replicates: usize) -> (Vec<Vec<Vec<f64>>>, usize) {
    let mut left_out = 0;
    let mut recipes = Vec::new();
    for arm in arms {
        let mut settings: Vec<Vec<f64>> = Vec::new();
        for setting in &arm.settings {
            let done = |replicate: usize| {
                setting.trials.iter().find(|trial| trial.replicate == replicate && trial.status == "done")?.val
            };
            match (0..replicates).map(done).collect() {
                Some(own) => settings.push(own),
                None => left_out += 1,
            }
        }
        recipes.push(settings);
    }
    recipes.retain(|settings| !settings.is_empty());
    (recipes, left_out)
}

/// The parts that recipes, their settings, replicates and the rest have in the variance: omega squared (Hays, 1963) of an analysis
/// of variance with settings nested in recipes and all of them on the same replicates, where what chance makes of
/// a part is taken off it. None of fewer than two replicates, or where nothing varies.
fn decomposed(recipes: &[Vec<Vec<f64>>]) -> Option<[f64; 4]> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let cells: Vec<&Vec<f64>> = recipes.iter().flatten().collect();
    let replicates = cells.first()?.len();
    let all: Vec<f64> = cells.iter().flat_map(|cell| cell.iter().copied()).collect();
    let grand = mean(&all);
    let squares = |one: f64, other: f64, times: usize| times as f64 * (one - other) * (one - other);
    let total: f64 = all.iter().map(|value| squares(*value, grand, 1)).sum();
    let (mut recipe, mut setting) = (0.0, 0.0);
    for settings in recipes {
        let own = mean(&settings.concat());
        recipe += squares(own, grand, settings.len() * replicates);
        setting += settings.iter().map(|cell| squares(mean(cell), own, replicates)).sum::<f64>();
    }
    let of_replicate = |at: usize| mean(&cells.iter().map(|cell| cell[at]).collect::<Vec<_>>());
    let replicate: f64 = (0..replicates).map(|at| squares(of_replicate(at), grand, cells.len())).sum();
    let free = (cells.len() - 1) * (replicates - 1);
    if free == 0 || total <= 0.0 {
        return None;
    }
    let chance = (total - recipe - setting - replicate).max(0.0) / free as f64;
    let part = |sum: f64, free: usize| ((sum - free as f64 * chance) / (total + chance)).max(0.0);
    let [recipe, setting, replicate] =
        [part(recipe, recipes.len() - 1), part(setting, cells.len() - recipes.len()), part(replicate, replicates - 1)];
    Some([recipe, setting, replicate, (1.0 - recipe - setting - replicate).max(0.0)])
}

/// As a table.
pub fn sheet(findings: &Findings) -> Option<Sheet> {
    let percent = |part: f64| format!("{:.0}%", 100.0 * part);
    let row = |parts: &Parts| {
        let shares = [parts.recipe, parts.settings, parts.replicate, parts.rest].map(percent);
        std::iter::once(parts.scenario.clone()).chain(shares).chain([parts.compared.to_string()]).collect()
    };
    let title = format!("What mattered: parts of the variance of {} on validation", findings.metric);
    let heading = ["scenario", "recipe", "its settings", "replicate", "the rest", "settings"];
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

    #[test]
    fn parts_are_those_of_a_nested_analysis_of_variance() {
        // numpy's least squares on dummies of recipes, then settings, then replicates (ranks 1, 2, 5, 7): sums of squares .066151,
        // .058222, .01156 and .002907 that are left, of which omega squared.
        let recipes = vec![
            vec![vec![0.52, 0.55, 0.60], vec![0.61, 0.64, 0.66]],
            vec![vec![0.70, 0.74, 0.75], vec![0.58, 0.66, 0.69], vec![0.81, 0.80, 0.86]],
        ];
        let found = decomposed(&recipes).expect("it varies");
        let known = [0.472_602_029_006, 0.410_422_802_775, 0.077_823_806_901, 0.039_151_361_318];
        for (found, known) in found.iter().zip(known) {
            assert!((found - known).abs() < 1e-9, "{found} {known}");
        }
    }

    #[test]
    fn what_does_not_vary_has_no_part() {
        let alike = |of: [f64; 2]| vec![of.to_vec(); 2];
        assert_eq!(decomposed(&[alike([0.5, 0.5]), alike([0.5, 0.5])]), None);
        let whole = |recipes: [Vec<Vec<f64>>; 2], part: usize| {
            let found = decomposed(&recipes).expect("it varies");
            found.iter().enumerate().all(|(at, found)| (found - f64::from(u8::from(at == part))).abs() < 1e-9)
        };
        assert!(whole([alike([0.5, 0.5]), alike([0.7, 0.7])], 0));
        assert!(whole([alike([0.5, 0.7]), alike([0.5, 0.7])], 2));
        assert_eq!(decomposed(&[vec![vec![0.5]], vec![vec![0.7]]]), None, "one replicate says nothing of chance");
    }
}
