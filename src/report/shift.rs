//! What recipes score under a shift, on what is tested as well: how much they lose, and where most.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::arm::{Arm, Context};
use super::compare::{Mean, mean_over};
use super::figure::Row;
use super::findings::{Findings, fraction, shown_mean};
use super::sheets::{Kind, Sheet, named};
use crate::key::Key;

/// An arm's selected setting on its own test images and on those of others; values are by replicate.
#[derive(Clone, Debug, Serialize)]
pub struct Shift {
    pub context: Context,
    pub recipe: String,
    /// As tables name it.
    pub named: String,
    pub own: Vec<f64>,
    /// In the order of the file.
    pub others: Vec<Other>,
    #[serde(skip)]
    folds: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct Other {
    pub dataset: String,
    pub test: Vec<f64>,
}

/// Those of all arms that were tested on others, and of which a setting is selected. `also` names the others by dataset, `scores`
/// has what trials score on them.
pub fn shifts(
    arms: &[Arm],
    also: &BTreeMap<String, Vec<String>>,
    scores: &HashMap<Key, BTreeMap<String, f64>>,
) -> Vec<Shift> {
    let one = |arm: &Arm| {
        let names = also.get(arm.context_value("dataset"))?;
        let trials = arm.tested();
        let own = arm.test();
        let other = |name: &String| Other {
            dataset: name.clone(),
            test: trials.iter().filter_map(|trial| scores.get(&trial.key)?.get(name).copied()).collect(),
        };
        let others: Vec<Other> = names.iter().map(other).filter(|other| !other.test.is_empty()).collect();
        let folds = arm.folds.unwrap_or(own.len());
        let (context, recipe, named) = (arm.context.clone(), arm.recipe.clone(), named(arm));
        (!others.is_empty()).then_some(Shift { context, recipe, named, own, others, folds })
    };
    arms.iter().filter_map(one).collect()
}

impl Shift {
    fn scenario(&self) -> &str {
        self.context.iter().find(|(key, _)| key == "scenario").map_or("", |(_, value)| value)
    }

    fn mean(&self, values: &[f64]) -> Mean {
        mean_over(values, self.folds)
    }

    /// Of each replicate the mean over the others.
    fn together(&self) -> Vec<f64> {
        let replicates = self.others.iter().map(|other| other.test.len()).min().unwrap_or(0);
        let of = |at: usize| self.others.iter().map(|other| other.test[at]).sum::<f64>() / self.others.len() as f64;
        (0..replicates).map(of).collect()
    }

    /// What each replicate loses, from its own test images to the mean over the others.
    fn lost(&self) -> Vec<f64> {
        self.own.iter().zip(self.together()).map(|(own, others)| own - others).collect()
    }
}

/// Which of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What each recipe loses.
    Lost,
    /// A scenario's recipes on each of the others.
    Each,
}

/// Each recipe on its own test images and under shift, as a picture: its title, its rows, and whether it has a zero.
pub fn drawn(findings: &Findings) -> (String, Vec<Row>, bool) {
    let rows = findings.shifts.iter().flat_map(|shift| {
        let row = |label: String, class: &'static str, values: &[f64]| {
            let Mean { mean, half_width, .. } = shift.mean(values);
            let group = shift.scenario().to_owned();
            Row { group, label, value: mean, half: half_width, shown: fraction(mean), class }
        };
        let own = row(shift.named.clone(), "best", &shift.own);
        [own, row("under shift".to_owned(), "arm", &shift.together())]
    });
    let title = format!(
        "{} on test, and under shift the mean over what is tested as well; lines: 95% over replicates",
        findings.metric
    );
    (title, rows.collect(), false)
}

/// Others that have a column each; more have a table of their own.
const COLUMNS: usize = 4;

/// What each arm loses, and where there are many others, one table for each scenario of what it scores on each.
pub fn sheets(findings: &Findings) -> Vec<Sheet> {
    let mut names: Vec<&str> = Vec::new();
    for other in findings.shifts.iter().flat_map(|shift| &shift.others) {
        if !names.contains(&other.dataset.as_str()) {
            names.push(&other.dataset);
        }
    }
    if names.is_empty() {
        return Vec::new();
    }
    let mut found = vec![lost(findings, &names)];
    if names.len() > COLUMNS {
        found.extend(findings.scenarios.iter().filter_map(|scenario| each(findings, &scenario.name)));
    }
    found
}

fn lost(findings: &Findings, names: &[&str]) -> Sheet {
    let columns = if names.len() > COLUMNS { &[] } else { names };
    let mean = (names.len() > 1).then_some("mean under shift");
    let heading: Vec<&str> = ["scenario", "recipe", "own test"]
        .into_iter()
        .chain(columns.iter().copied())
        .chain(mean)
        .chain(["lost"])
        .collect();
    let row = |shift: &Shift| {
        let shown = |values: &[f64]| shown_mean(shift.mean(values));
        let other = |name: &&str| {
            let own = shift.others.iter().find(|other| other.dataset == *name);
            own.map_or_else(|| "-".to_owned(), |other| shown(&other.test))
        };
        let first = [shift.scenario().to_owned(), shift.named.clone(), shown(&shift.own)];
        first
            .into_iter()
            .chain(columns.iter().map(other))
            .chain(mean.map(|_| shown(&shift.together())))
            .chain([shown(&shift.lost())])
            .collect()
    };
    let title = format!("{} under shift: mean, 95% CI over replicates", findings.metric);
    let mut sheet = Sheet::new(Kind::Shifts(Part::Lost), title, &heading, findings.shifts.iter().map(row).collect());
    sheet.notes.extend(findings.near_others.iter().map(|found| {
        format!(
            "{}: {} of {} images are near-duplicates of images trained or validated on",
            found.dataset, found.near, found.of
        )
    }));
    sheet.notes.push(
        "settings were selected on the scenario's own validation images; what is tested as well selects nothing"
            .to_owned(),
    );
    sheet
}

/// A scenario's recipes side by side on each of the others, and the one that does best there.
fn each(findings: &Findings, scenario: &str) -> Option<Sheet> {
    let own: Vec<&Shift> = findings.shifts.iter().filter(|shift| shift.scenario() == scenario).collect();
    let first = own.first()?;
    let heading: Vec<&str> = ["tested on"].into_iter().chain(own.iter().map(|shift| shift.named.as_str())).collect();
    let row = |other: &Other| {
        let cell = |shift: &&Shift| {
            let same = shift.others.iter().find(|one| one.dataset == other.dataset);
            same.map_or_else(|| "-".to_owned(), |one| fraction(shift.mean(&one.test).mean))
        };
        std::iter::once(other.dataset.clone()).chain(own.iter().map(cell)).collect()
    };
    let title = format!("{} under each shift, in {scenario}", findings.metric);
    Some(Sheet::new(Kind::Shifts(Part::Each), title, &heading, first.others.iter().map(row).collect()))
}
