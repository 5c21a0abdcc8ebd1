//! What each way to choose a recipe is worth over all scenarios: to let validation choose in each, to follow the rules, or to
//! take one for all.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::arm::{Arm, Context};
use super::compare::{Difference, Mean, Scored, difference, mean, mean_over};
use super::figure::Row;
use super::findings::{Findings, fraction, shown_difference, shown_mean, tera};
use super::pooled::{Images, Told};
use super::selection::leading;
use super::sheets::{Kind, Sheet, named};
use super::verdict::{LEAST_REPLICATES, Verdict};
use crate::expense::Expense;
use crate::key::Key;

/// Rows of the table at most.
const MOST: usize = 16;

/// What was found of all ways to choose.
#[derive(Clone, Debug, Serialize)]
pub struct Choices {
    pub scenarios: Vec<String>,
    pub replicates: usize,
    /// What validation chooses, what rules claim where they name a recipe everywhere, then one for all: validation's choice, and
    /// the others with the best on test first.
    pub choices: Vec<Choice>,
    /// What a person should know before believing it.
    pub notes: Vec<String>,
    /// In how many folds the fewest test images are.
    #[serde(skip)]
    folds: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// In each scenario what validation selects.
    Validation,
    /// In each what its rules claim to be better than others, and nothing better than that.
    Rules,
    /// One recipe in all.
    One,
}

/// A way to choose.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    pub way: Way,
    /// The recipe of each scenario, as tables name it.
    pub recipes: Vec<String>,
    /// Of recipes that stand in all scenarios, whether it has the best mean validation metric.
    pub selected: bool,
    /// The metric on test of each scenario, the mean over replicates.
    pub by_scenario: Vec<f64>,
    /// Its mean over scenarios, of each replicate.
    pub test: Vec<f64>,
    /// That less what validation chooses; none where the two take the same everywhere.
    pub difference: Option<Difference>,
    /// Of recipes that stand in all scenarios: their rank by test, the mean over scenarios; 1 is the best.
    pub rank: Option<f64>,
    /// Multiply-accumulates of one replicate of every setting that is compared for it, what they share counted once; none where a
    /// sweep has not stored them.
    pub macs: Option<f64>,
}

/// A recipe, or one that differs from others of its name by the context beyond its scenario, with its arm in each scenario.
struct Candidate<'a> {
    arms: Vec<&'a Arm>,
    scored: Told,
    /// The mean over scenarios and replicates of the metric on validation; none where it diverged.
    validation: Option<f64>,
}

/// What each way is worth on the first replicates, which all arms have; none of fewer than two scenarios or two recipes.
/// `answers` gives the test answers of an arm's selected setting by replicate, `expenses` what a trial of each
/// cell takes.
///
/// # Errors
/// What `answers` returns.
pub fn choices(
    scenarios: &[String],
    arms: &[Arm],
    verdicts: &[Verdict],
    first: usize,
    expenses: &HashMap<Key, Expense>,
    answers: impl Fn(&Arm) -> anyhow::Result<Vec<Scored>>,
) -> anyhow::Result<Option<Choices>> {
    let best: Option<Vec<&Arm>> = scenarios.iter().map(|name| leading(standing(arms, name), first)).collect();
    let Some(best) = best.filter(|best| best.len() > 1 && first >= LEAST_REPLICATES) else { return Ok(None) };
    let told = |arms: &[&Arm]| -> anyhow::Result<Told> {
        arms.iter().map(|arm| Ok(answers(arm)?.into_iter().take(first).collect())).collect()
    };
    let chosen = told(&best)?;
    if chosen.iter().any(|own| own.len() < first) {
        return Ok(None);
    }
    let folds = best.iter().filter_map(|arm| arm.folds).min().unwrap_or(first);
    let weighing = Weighing::new(best, &chosen, expenses);

    let (mut stand, mut some, mut open) = (Vec::new(), Vec::new(), 0);
    for candidate in candidates(scenarios, arms) {
        let Some(arms) = candidate.iter().copied().collect::<Option<Vec<&Arm>>>() else {
            some.extend(candidate.into_iter().flatten().next().map(named));
            continue;
        };
        let scored = arms.iter().all(|arm| arm.missing() == 0).then(|| told(&arms)).transpose()?;
        match scored.filter(|scored| weighing.images.fit(scored)) {
            Some(scored) => stand.push(Candidate { validation: validation(&arms, first), arms, scored }),
            None => open += 1,
        }
    }
    if stand.len() < 2 {
        return Ok(None);
    }

    let notes = notes(&stand, &some, open, arms);
    let mut found = vec![weighing.choice(Way::Validation, &weighing.best, &chosen, arms.iter())];
    let claimed = claimed(scenarios, arms, verdicts, first).unwrap_or_default();
    let scored = told(&claimed)?;
    if !claimed.is_empty() && weighing.images.fit(&scored) {
        let same = |arm: &&Arm| claimed.iter().any(|own| arm.recipe == own.recipe && in_one_scenario(arm, own));
        found.push(weighing.choice(Way::Rules, &claimed, &scored, arms.iter().filter(same)));
    }
    found.extend(ones(&weighing, &stand));
    Ok(Some(Choices { scenarios: scenarios.to_vec(), replicates: first, choices: found, notes, folds }))
}

/// One recipe for all, each of those that stand everywhere: validation's choice, then the best on test first.
fn ones(weighing: &Weighing, stand: &[Candidate]) -> Vec<Choice> {
    let one = |own: &Candidate| weighing.choice(Way::One, &own.arms, &own.scored, own.arms.iter().copied());
    let mut ones: Vec<Choice> = stand.iter().map(one).collect();
    ones.iter_mut().zip(ranks(stand)).for_each(|(own, rank)| own.rank = Some(rank));
    if let Some(selected) = selected(stand) {
        ones[selected].selected = true;
    }
    let over = |own: &Choice| mean(&own.test).mean;
    ones.sort_by(|one, other| other.selected.cmp(&one.selected).then(over(other).total_cmp(&over(one))));
    ones
}

/// What all ways are weighed by.
struct Weighing<'a> {
    /// What validation selects in each scenario, and its answers together.
    best: Vec<&'a Arm>,
    baseline: Vec<Scored>,
    images: Images,
    expenses: &'a HashMap<Key, Expense>,
}

impl<'a> Weighing<'a> {
    fn new(best: Vec<&'a Arm>, chosen: &Told, expenses: &'a HashMap<Key, Expense>) -> Self {
        let images = Images::of(&best, chosen);
        let baseline = images.together(chosen);
        Self { best, baseline, images, expenses }
    }

    /// A way that takes these arms, for which all of `tried` are run.
    fn choice<'b>(&self, way: Way, arms: &[&Arm], scored: &Told, tried: impl Iterator<Item = &'b Arm>) -> Choice {
        let own = self.images.together(scored);
        let same = arms.iter().zip(&self.best).all(|(one, other)| std::ptr::eq(*one, *other));
        let cells: BTreeSet<Key> = tried.flat_map(Arm::compared).collect();
        let expenses: Option<Vec<&Expense>> = cells.iter().map(|cell| self.expenses.get(cell)).collect();
        Choice {
            way,
            recipes: arms.iter().map(|arm| named(arm)).collect(),
            selected: false,
            by_scenario: scored.iter().map(|own| over(own)).collect(),
            test: own.iter().map(|own| own.metric).collect(),
            difference: (!same).then(|| difference(&own, &self.baseline)),
            rank: None,
            macs: expenses.map(|all| Expense::of_all(all.into_iter())),
        }
    }
}

/// In each scenario the arm that its rules put first; none unless they do so in all.
fn claimed<'a>(scenarios: &'a [String], arms: &'a [Arm], verdicts: &[Verdict], first: usize) -> Option<Vec<&'a Arm>> {
    let own = scenarios.iter().map(|name| leading(standing(arms, name).filter(is_claimed(verdicts, name)?), first));
    own.collect()
}

fn in_one_scenario(one: &Arm, other: &Arm) -> bool {
    one.context_value("scenario") == other.context_value("scenario")
}

/// The arms of a scenario that have been run to their end.
pub(super) fn standing<'a>(arms: &'a [Arm], scenario: &'a str) -> impl Iterator<Item = &'a Arm> {
    arms.iter().filter(move |arm| arm.missing() == 0 && arm.context_value("scenario") == scenario)
}

/// Which arms have the recipe that the rules of a scenario put above all others that they name; none where they name no such one.
fn is_claimed<'a>(verdicts: &[Verdict], scenario: &str) -> Option<impl Fn(&&'a Arm) -> bool + use<'a>> {
    let here = |verdict: &&Verdict| verdict.context.iter().any(|(key, value)| key == "scenario" && value == scenario);
    let plain = |verdict: &&Verdict| verdict.rule.on.is_none() && verdict.rule.metric.is_none();
    let own: Vec<_> = verdicts.iter().filter(here).filter(plain).map(|verdict| &verdict.rule).collect();
    let beaten: BTreeSet<&str> = own.iter().map(|rule| rule.worse.as_str()).collect();
    let first: BTreeSet<&str> =
        own.iter().map(|rule| rule.better.as_str()).filter(|name| !beaten.contains(name)).collect();
    let [only] = first.into_iter().collect::<Vec<_>>()[..] else { return None };
    let only = only.to_owned();
    Some(move |arm: &&'a Arm| arm.recipe == only)
}

/// What may be taken, each with its arm in every scenario that it stands in. What is one configuration under several contexts, as a
/// depth that a recipe does not heed, is one.
pub(super) fn candidates<'a>(scenarios: &[String], arms: &'a [Arm]) -> Vec<Vec<Option<&'a Arm>>> {
    let mut by_name: Vec<Vec<&Arm>> = Vec::new();
    let mut places: HashMap<(&str, Context), usize> = HashMap::new();
    for arm in arms {
        let beyond = |(key, _): &&(String, String)| !matches!(key.as_str(), "scenario" | "dataset" | "per_class");
        let name = (arm.recipe.as_str(), arm.context.iter().filter(beyond).cloned().collect());
        let place = *places.entry(name).or_insert_with(|| {
            by_name.push(Vec::new());
            by_name.len() - 1
        });
        by_name[place].push(arm);
    }
    let mut found = Vec::new();
    let mut known: BTreeSet<Vec<Key>> = BTreeSet::new();
    for own in by_name {
        let cells = own.iter().flat_map(|arm| &arm.settings).map(|setting| setting.cell).collect();
        if known.insert(cells) {
            let of = |scenario: &String| own.iter().copied().find(|arm| arm.context_value("scenario") == scenario);
            found.push(scenarios.iter().map(of).collect());
        }
    }
    found
}

fn over(scored: &[Scored]) -> f64 {
    mean(&scored.iter().map(|own| own.metric).collect::<Vec<_>>()).mean
}

fn validation(arms: &[&Arm], first: usize) -> Option<f64> {
    let own = arms.iter().map(|arm| Some(mean(&arm.best()?.scores(first)?).mean));
    own.collect::<Option<Vec<f64>>>().map(|means| mean(&means).mean)
}

/// The first of those with the best mean validation metric.
fn selected(stand: &[Candidate]) -> Option<usize> {
    let own = stand.iter().enumerate().filter_map(|(index, own)| Some((index, own.validation?)));
    own.reduce(|one, other| if other.1 > one.1 { other } else { one }).map(|(index, _)| index)
}

/// Ranks by scenario, of equals the mean of theirs, then the mean over scenarios (Friedman, 1937).
fn ranks(stand: &[Candidate]) -> Vec<f64> {
    let means: Vec<Vec<f64>> = stand.iter().map(|own| own.scored.iter().map(|own| over(own)).collect()).collect();
    let rank = |own: &[f64], scenario: usize| {
        let above = means.iter().filter(|other| other[scenario] > own[scenario]).count();
        let equal = means.iter().filter(|other| other[scenario] == own[scenario]).count();
        above as f64 + (equal as f64 + 1.0) / 2.0
    };
    means.iter().map(|own| (0..own.len()).map(|at| rank(own, at)).sum::<f64>() / own.len() as f64).collect()
}

fn notes(stand: &[Candidate], some: &[String], open: usize, arms: &[Arm]) -> Vec<String> {
    let mut notes = Vec::new();
    for own in stand {
        let diverged: Vec<&str> =
            own.arms.iter().filter(|arm| arm.all_diverged()).map(|arm| arm.context_value("scenario")).collect();
        if !diverged.is_empty() {
            let (name, places) = (named(own.arms[0]), diverged.join(", "));
            notes.push(format!("{name}: every setting diverged in {places}; counted as naming the largest class"));
        }
    }
    if !some.is_empty() {
        notes.push(format!("not in all scenarios, and so no one for all: {}", some.join(", ")));
    }
    let missing: BTreeSet<String> = arms.iter().filter(|arm| arm.missing() > 0).map(named).collect();
    match missing.len().max(open) {
        0 => {}
        1 => notes.push("one recipe has not been run to its end in some scenario".to_owned()),
        more => notes.push(format!("{more} recipes have not been run to their end in some scenario")),
    }
    notes
}

impl Choice {
    /// As tables name it.
    fn name(&self) -> String {
        match self.way {
            Way::Validation => "chosen in each by validation".to_owned(),
            Way::Rules => "chosen in each by the rules".to_owned(),
            Way::One if self.selected => format!("{} (validation's choice)", self.recipes[0]),
            Way::One => self.recipes[0].clone(),
        }
    }

    /// Where it loses most to what validation chooses there, and how much; none where it loses nowhere.
    fn worst(&self, chosen: &Self) -> Option<(usize, f64)> {
        let lost = self.by_scenario.iter().zip(&chosen.by_scenario).map(|(own, chosen)| own - chosen).enumerate();
        lost.filter(|(_, lost)| *lost < 0.0).reduce(|one, other| if other.1 < one.1 { other } else { one })
    }
}

impl Choices {
    fn mean(&self, of: &Choice) -> Mean {
        mean_over(&of.test, self.folds)
    }

    /// Those that a table has room for.
    fn shown(&self) -> &[Choice] {
        &self.choices[..self.choices.len().min(MOST)]
    }
}

/// The table.
pub fn sheet(findings: &Findings) -> Option<Sheet> {
    let found = findings.choices.as_ref()?;
    let chosen = found.choices.first()?;
    let costs = found.choices.iter().all(|own| own.macs.is_some());
    let row = |own: &Choice| {
        let difference = match (&own.difference, own.way) {
            (_, Way::Validation) => "-".to_owned(),
            (None, _) => "the same".to_owned(),
            (Some(difference), _) => shown_difference(difference),
        };
        let worst = own.worst(chosen);
        let worst = worst.map_or("-".to_owned(), |(at, lost)| format!("{lost:+.3} in {}", found.scenarios[at]));
        let rank = own.rank.map_or(String::new(), |rank| format!("{rank:.1}"));
        let mut row = vec![own.name(), shown_mean(found.mean(own)), difference, worst, rank];
        row.extend(own.macs.filter(|_| costs).map(tera));
        row
    };
    let title =
        format!("One recipe for all {} scenarios? {} on test, mean over them", found.scenarios.len(), findings.metric);
    let heading = ["recipe", "test", "difference [95% CI]", "worst", "mean rank", "TFLOP"];
    let heading = &heading[..heading.len() - usize::from(!costs)];
    let mut sheet = Sheet::new(Kind::Choices, title, heading, found.shown().iter().map(row).collect());
    let left = found.choices.len() - found.shown().len();
    if left > 0 {
        sheet.notes.push(format!("{left} more recipes do worse on test than the last of these"));
    }
    sheet.notes.extend(found.notes.iter().cloned());
    sheet.notes.push(
        "difference, worst: from what validation chooses in each; of other datasets intervals say nothing".to_owned(),
    );
    if costs {
        sheet.notes.push(
            "TFLOP: one replicate of all settings that are compared for it, what they share counted once".to_owned(),
        );
    }
    Some(sheet)
}

/// The differences as a picture: its title, its rows, and whether it has a zero.
pub fn drawn(findings: &Findings) -> Option<(String, Vec<Row>, bool)> {
    let found = findings.choices.as_ref()?;
    let row = |own: &Choice| {
        let difference = own.difference?;
        Some(Row {
            group: String::new(),
            label: own.name(),
            value: difference.mean,
            half: Some(difference.half_width(0.95)),
            shown: fraction(found.mean(own).mean),
            class: if own.selected || own.way == Way::Rules { "best" } else { "arm" },
        })
    };
    let title = format!(
        "mean {} over scenarios, less that of what validation selects in each; filled: the rules, and what validation selects for all; lines: 95%",
        findings.metric
    );
    Some((title, found.shown().iter().filter_map(row).collect(), true))
}
