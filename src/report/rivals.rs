//! In short: what validation chooses in each scenario, which other recipes are not shown to be worse, and which are.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::arm::Arm;
use super::choice::standing;
use super::compare::{Difference, Mean, Scored, holm};
use super::findings::{Findings, fraction, shown_difference, shown_mean};
use super::selection::leading;
use super::sheets::{Kind, Sheet, named};
use super::verdict::{doubts, told_apart};
use crate::expense::Expense;
use crate::key::Key;

/// Recipes that a cell names at most.
const MOST: usize = 6;
/// Training that is cheaper or dearer by less than this is told as the same.
const ABOUT: f64 = 1.05;

/// A scenario's choice beside all others that have been run to their end.
#[derive(Clone, Debug, Serialize)]
pub struct Rivals {
    pub scenario: String,
    /// What validation selects, as tables name it, with its setting.
    pub recipe: String,
    pub setting: String,
    pub test: Mean,
    /// Multiply-accumulates of one trial of it by itself; none where a sweep has not stored them.
    pub macs: Option<f64>,
    /// The cheapest to train first; of those whose cost is unknown the best on test.
    pub rivals: Vec<Rival>,
    /// Recipes that have not been run to their end.
    pub unfinished: usize,
    /// What a person should know before believing it.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Rival {
    pub recipe: String,
    pub test: Mean,
    /// Less that of what validation selects.
    pub difference: Difference,
    /// Holm's, over all rivals of all scenarios.
    pub adjusted_p: f64,
    pub macs: Option<f64>,
}

/// What stands beside each scenario's choice on the first replicates, which all arms have; nothing of a scenario with one recipe,
/// or where replicates are too few to tell two apart. `answers` gives the test answers of an arm's selected setting by replicate.
///
/// # Errors
/// What `answers` returns.
pub fn rivals(
    scenarios: &[String],
    arms: &[Arm],
    first: usize,
    expenses: &HashMap<Key, Expense>,
    answers: impl Fn(&Arm) -> anyhow::Result<Vec<Scored>>,
) -> anyhow::Result<Vec<Rivals>> {
    let told = |arm: &Arm| -> anyhow::Result<Vec<Scored>> { Ok(answers(arm)?.into_iter().take(first).collect()) };
    let macs = |arm: &Arm| expenses.get(&arm.best()?.cell).map(Expense::alone);
    let mut found = Vec::new();
    for scenario in scenarios {
        let Some(best) = leading(standing(arms, scenario), first) else { continue };
        let chosen = told(best)?;
        let mut rivals = Vec::new();
        for arm in distinct(best, standing(arms, scenario)) {
            let scored = told(arm)?;
            let Some(difference) = told_apart(&scored, &chosen) else { continue };
            let test = arm.mean_of(&scored);
            rivals.push(Rival { recipe: named(arm), test, difference, adjusted_p: 1.0, macs: macs(arm) });
        }
        if rivals.is_empty() {
            continue;
        }
        // What takes about as much stands by its score.
        let cost = |rival: &Rival| match rival.macs.zip(macs(best)) {
            Some((macs, own)) => ((macs / own).ln() / ABOUT.ln()).round(),
            None => f64::INFINITY,
        };
        rivals.sort_by(|one, other| cost(one).total_cmp(&cost(other)).then(other.test.mean.total_cmp(&one.test.mean)));
        let own = arms.iter().filter(|arm| arm.context_value("scenario") == scenario);
        found.push(Rivals {
            scenario: scenario.clone(),
            recipe: named(best),
            setting: best.best().map_or_else(String::new, |setting| setting.label.clone()),
            test: best.mean_of(&chosen),
            macs: macs(best),
            rivals,
            unfinished: own.filter(|arm| arm.missing() > 0).count(),
            notes: doubts(best),
        });
    }
    let mut all: Vec<&mut Rival> = found.iter_mut().flat_map(|own| &mut own.rivals).collect();
    let adjusted = holm(&all.iter().map(|rival| rival.difference.p).collect::<Vec<_>>());
    all.iter_mut().zip(adjusted).for_each(|(rival, p)| rival.adjusted_p = p);
    Ok(found)
}

/// All but the one that is chosen, each configuration once: a depth that a recipe does not heed makes no other one.
fn distinct<'a>(chosen: &'a Arm, all: impl Iterator<Item = &'a Arm>) -> impl Iterator<Item = &'a Arm> {
    let cells = |arm: &Arm| -> Vec<Key> { arm.settings.iter().map(|setting| setting.cell).collect() };
    let mut known = BTreeSet::from([cells(chosen)]);
    all.filter(move |arm| known.insert(cells(arm)))
}

impl Rival {
    /// Whether it is shown to be better, or worse.
    pub fn shown(&self) -> Option<bool> {
        (self.adjusted_p < 0.05).then_some(self.difference.mean > 0.0)
    }
}

impl Rivals {
    /// Those that are not shown to be worse; what is shown to be better first, which no list leaves out.
    fn equals(&self) -> impl Iterator<Item = &Rival> {
        let of = |told: Option<bool>| self.rivals.iter().filter(move |rival| rival.shown() == told);
        of(Some(true)).chain(of(None))
    }

    /// What a rival takes to train, beside what is chosen.
    fn cost(&self, rival: &Rival) -> String {
        match self.macs.zip(rival.macs).map(|(own, other)| other / own) {
            // Of what trains nothing there is no part.
            Some(share) if !(share > 0.0 && share.is_finite()) => String::new(),
            None => String::new(),
            Some(share) if share <= 0.5 => format!(", 1/{:.0} of the training", 1.0 / share),
            Some(share) if share < 1.0 / ABOUT => format!(", {} of the training", fraction(share)),
            Some(share) if share > ABOUT => format!(", {share:.1} times the training"),
            Some(_) => String::new(),
        }
    }

    /// The cheapest that is neither shown to be worse nor to be better, and how many replicates would tell; none would where test
    /// images are too few.
    fn open(&self, tests: usize) -> Option<(String, Option<usize>)> {
        let rival = self.rivals.iter().find(|rival| rival.shown().is_none())?;
        let needed = rival.difference.replicates_to_settle(0.05 / tests as f64);
        Some((format!("{} in {}", rival.recipe, self.scenario), needed))
    }

    fn row(&self, notes: &mut Vec<String>) -> Vec<String> {
        let setting = if self.setting.is_empty() { String::new() } else { format!(" ({})", self.setting) };
        let mut mark = |text: String| {
            notes.push(format!("[{}] {text}", notes.len() + 1));
            format!(" [{}]", notes.len())
        };
        let doubts = if self.notes.is_empty() { String::new() } else { mark(self.notes.join("; ")) };
        let chosen = format!("{}{setting}{doubts}\n{}", self.recipe, shown_mean(self.test));
        let mut equals: Vec<String> = Vec::new();
        for rival in self.equals() {
            let better = match rival.shown() {
                Some(true) => mark(format!(
                    "{} is shown to be better on test, which does not choose: with more replicates or images validation may see it",
                    rival.recipe
                )),
                _ => String::new(),
            };
            equals.push(format!(
                "{} {}{}{better}",
                rival.recipe,
                shown_difference(&rival.difference),
                self.cost(rival)
            ));
        }
        let mut worse: Vec<&Rival> = self.rivals.iter().filter(|rival| rival.shown() == Some(false)).collect();
        worse.sort_by(|one, other| other.difference.mean.total_cmp(&one.difference.mean));
        let worse = worse.iter().map(|rival| format!("{} {:+.3}", rival.recipe, rival.difference.mean)).collect();
        vec![self.scenario.clone(), chosen, some(equals), some(worse)]
    }
}

/// Lines that a cell has room for.
fn some(lines: Vec<String>) -> String {
    match lines.len() {
        0 => "none".to_owned(),
        count if count <= MOST + 1 => lines.join("\n"),
        count => format!("{}\nand {} more", lines[..MOST].join("\n"), count - MOST),
    }
}

/// What would tell the first of each cell that is open from what is used.
fn outlook(open: &[(String, Option<usize>)]) -> Vec<String> {
    let told: Vec<String> =
        open.iter().filter_map(|(name, needed)| Some(format!("{} for {name}", (*needed)?))).collect();
    let never: Vec<&str> = open.iter().filter(|(_, needed)| needed.is_none()).map(|(name, _)| name.as_str()).collect();
    let mut notes = Vec::new();
    if !told.is_empty() {
        notes.push(format!(
            "to tell from what is used, if the difference stays, takes about so many replicates: {}",
            told.join(", ")
        ));
    }
    if !never.is_empty() {
        notes.push(format!(
            "too alike to be told by any number of replicates on these test images: {}",
            never.join(", ")
        ));
    }
    notes
}

/// The table.
pub fn sheet(findings: &Findings) -> Option<Sheet> {
    let found = &findings.rivals;
    if found.is_empty() {
        return None;
    }
    let mut notes = Vec::new();
    let rows = found.iter().map(|own| own.row(&mut notes)).collect();
    let tests = found.iter().map(|own| own.rivals.len()).sum();
    notes.extend(outlook(&found.iter().filter_map(|own| own.open(tests)).collect::<Vec<_>>()));
    let open: usize = found.iter().map(|own| own.unfinished).sum();
    notes.extend(
        (open > 0).then(|| format!("{open} recipes have not been run to their end, and are not in this table")),
    );
    notes.push(format!(
        "differences in {} on test from what is used [95% CI], the cheapest to train first (as much training where none is named); shown: p < .05 by Holm, over all of this table",
        findings.metric
    ));
    let heading = ["scenario", "use", "not shown to be worse", "shown to be worse"];
    Some(Sheet { notes, ..Sheet::new(Kind::Rivals, "In short: which recipe, chosen on validation", &heading, rows) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::difference;

    fn rival(recipe: &str, adjusted_p: f64, mean: f64, macs: f64) -> Rival {
        let scored = |metric: f64| vec![Scored { metric, influence: vec![0.1, -0.1], images: vec![0, 1] }; 3];
        let difference = difference(&scored(0.5 + mean), &scored(0.5));
        let test = Mean { mean: 0.5 + mean, half_width: None, n: 3 };
        Rival { recipe: recipe.to_owned(), test, difference, adjusted_p, macs: Some(macs) }
    }

    fn row(own: f64, rivals: Vec<Rival>) -> (Vec<String>, Vec<String>) {
        let (scenario, recipe, setting) = ("few".to_owned(), "tune".to_owned(), "lr = 0.1".to_owned());
        let test = Mean { mean: 0.5, half_width: None, n: 3 };
        let own = Rivals { scenario, recipe, setting, test, macs: Some(own), rivals, unfinished: 0, notes: Vec::new() };
        let mut notes = Vec::new();
        (own.row(&mut notes), notes)
    }

    #[test]
    fn what_is_shown_to_be_better_is_never_left_out() {
        let equal = (0..9).map(|index| rival(&format!("equal-{index}"), 0.5, 0.01, 1.0 + f64::from(index)));
        let (cells, notes) = row(2.0, equal.chain([rival("dear", 0.001, 0.3, 99.0)]).collect());
        let lines: Vec<&str> = cells[2].lines().collect();
        assert!(lines[0].starts_with("dear +0.300") && lines[0].ends_with("49.5 times the training [1]"), "{lines:?}");
        assert!(lines[1].starts_with("equal-0 ") && lines[1].ends_with("1/2 of the training"), "{lines:?}");
        assert_eq!((lines.len(), lines[6]), (7, "and 4 more"));
        assert_eq!((notes.len(), cells[1].as_str(), cells[3].as_str()), (1, "tune (lr = 0.1)\n.500", "none"));
    }

    #[test]
    fn training_is_named_where_it_differs() {
        let costs = [
            (0.001, "1/1000 of the training"),
            (0.8, ".800 of the training"),
            (1.04, ""),
            (3.0, "3.0 times the training"),
        ];
        for (macs, told) in costs {
            let (cells, _) = row(1.0, vec![rival("other", 0.5, 0.0, macs)]);
            let behind = cells[2].split(']').nth(1).unwrap_or_default().trim_start_matches(", ");
            assert_eq!(behind, told, "{macs}");
        }
        for (own, other) in [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)] {
            assert!(row(own, vec![rival("other", 0.5, 0.0, other)]).0[2].ends_with(']'), "{own} {other}");
        }
    }
}
