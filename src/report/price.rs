//! What an answer costs, and what a dearer one is worth: of each scenario the best recipe at each price.

use std::collections::HashMap;

use serde::Serialize;

use super::arm::{Arm, Context};
use super::compare::{Difference, Mean, Scored, difference, mean};
use super::figure::Row;
use super::findings::{Findings, fraction, shown_difference, shown_mean};
use super::sheets::{Kind, Sheet, named};
use super::verdict::LEAST_REPLICATES;
use crate::expense::{Expense, Price};
use crate::key::Key;

/// The recipes of a scenario that validation scores higher than all that are cheaper, the cheapest first.
#[derive(Clone, Debug, Serialize)]
pub struct Prices {
    /// Scenario, dataset and images per class.
    pub context: Context,
    pub steps: Vec<Step>,
    /// Recipes that have not been run to their end.
    pub open: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// As tables name it.
    pub recipe: String,
    pub price: Price,
    pub test: Mean,
    /// Less the last one, which validation scores highest; none of that itself, and of fewer replicates than a verdict needs.
    pub difference: Option<Difference>,
}

/// An arm that has been run to its end, with its price and its mean on validation.
struct Offer<'a> {
    arm: &'a Arm,
    price: Price,
    validation: f64,
}

/// The prices of all scenarios in which the best recipe is not the cheapest, on the first replicates, which all arms have.
/// `answers` gives the test answers of an arm's selected setting by replicate.
///
/// # Errors
/// What `answers` returns.
pub fn prices(
    arms: &[Arm],
    first: usize,
    expenses: &HashMap<Key, Expense>,
    answers: impl Fn(&Arm) -> anyhow::Result<Vec<Scored>>,
) -> anyhow::Result<Vec<Prices>> {
    let mut contexts: Vec<Context> = Vec::new();
    for context in arms.iter().map(place) {
        if !contexts.contains(&context) {
            contexts.push(context);
        }
    }
    let mut found = Vec::new();
    for context in contexts {
        let own = || arms.iter().filter(|arm| place(arm) == context);
        let steps = staircase(own().filter_map(|arm| offer(arm, first, expenses)).collect());
        let [.., best] = &steps[..] else { continue };
        if steps.len() < 2 {
            continue;
        }
        let told = |arm: &Arm| -> anyhow::Result<Vec<Scored>> { Ok(answers(arm)?.into_iter().take(first).collect()) };
        let highest = told(best.arm)?;
        let step = |offer: &Offer| -> anyhow::Result<Step> {
            let scored = told(offer.arm)?;
            let paired = scored.len() == highest.len() && scored.len() >= LEAST_REPLICATES;
            let apart = !std::ptr::eq(offer.arm, best.arm);
            Ok(Step {
                recipe: named(offer.arm),
                price: offer.price,
                test: offer.arm.mean_of(&scored),
                difference: (paired && apart).then(|| difference(&scored, &highest)),
            })
        };
        let steps = steps.iter().map(step).collect::<anyhow::Result<Vec<_>>>()?;
        found.push(Prices { open: own().filter(|arm| arm.missing() > 0).count(), steps, context });
    }
    Ok(found)
}

/// What recipes of one table have in common.
fn place(arm: &Arm) -> Context {
    let held = |(key, _): &&(String, String)| matches!(key.as_str(), "scenario" | "dataset" | "per_class");
    arm.context.iter().filter(held).cloned().collect()
}

fn offer<'a>(arm: &'a Arm, first: usize, expenses: &HashMap<Key, Expense>) -> Option<Offer<'a>> {
    let setting = arm.best().filter(|_| arm.missing() == 0)?;
    let price = expenses.get(&setting.cell)?.price?;
    let early = setting.trials.iter().filter(|trial| trial.replicate < first);
    Some(Offer { arm, price, validation: mean(&early.filter_map(|trial| trial.val).collect::<Vec<_>>()).mean })
}

/// Those that validation scores higher than all that are cheaper; of equal price the best, of equals the first in the file.
fn staircase(mut offers: Vec<Offer>) -> Vec<Offer> {
    let dearer = |one: &Offer, other: &Offer| {
        one.price.macs.total_cmp(&other.price.macs).then(other.validation.total_cmp(&one.validation))
    };
    offers.sort_by(dearer);
    let mut most = f64::NEG_INFINITY;
    offers.retain(|offer| {
        let higher = offer.validation > most;
        most = most.max(offer.validation);
        higher
    });
    offers
}

/// The table, where there is a choice.
pub fn sheet(findings: &Findings) -> Option<Sheet> {
    if findings.prices.is_empty() {
        return None;
    }
    let mut rows = Vec::new();
    for prices in &findings.prices {
        for step in &prices.steps {
            rows.push(vec![
                said(prices, findings),
                step.recipe.clone(),
                scaled(step.price.macs),
                scaled(step.price.params as f64),
                shown_mean(step.test),
                step.difference.as_ref().map_or_else(|| "-".to_owned(), shown_difference),
            ]);
        }
    }
    let open: usize = findings.prices.iter().map(|prices| prices.open).sum();
    let notes = [
        "listed: what validation scores higher than all that is cheaper; difference: from the last of its scenario".to_owned(),
        "MACs: multiply-accumulates for one image, which are not time; parameters: 4 bytes each as f32, running statistics included"
            .to_owned(),
    ];
    let open = (open > 0).then(|| format!("{open} recipes have not been run to their end"));
    let heading = ["scenario", "recipe", "MACs", "parameters", "test", "difference [95% CI]"];
    let title = format!("What answers cost: the best recipe at each price, {} on test", findings.metric);
    Some(Sheet { notes: notes.into_iter().chain(open).collect(), ..Sheet::new(Kind::Prices, title, &heading, rows) })
}

/// A scenario; with its data where these vary within it.
fn said(prices: &Prices, findings: &Findings) -> String {
    let of = |context: &Context, key: &str| {
        let value = context.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        value.filter(|value| !value.is_empty())
    };
    let own = |key: &str| of(&prices.context, key);
    let scenario = own("scenario").unwrap_or_default();
    let alike = findings.prices.iter().filter(|other| of(&other.context, "scenario").as_ref() == Some(&scenario));
    match alike.count() {
        1 => scenario,
        _ => {
            let size = own("per_class").map_or_else(|| "all".to_owned(), |count| format!("{count} per class"));
            format!("{scenario} ({}, {size})", own("dataset").unwrap_or_default())
        }
    }
}

/// The picture: title, rows, and whether zero is drawn.
pub fn drawn(findings: &Findings) -> Option<(String, Vec<Row>, bool)> {
    let mut rows = Vec::new();
    for prices in &findings.prices {
        for (at, step) in prices.steps.iter().enumerate() {
            rows.push(Row {
                group: said(prices, findings),
                label: format!("{}: {}", scaled(step.price.macs), step.recipe),
                value: step.test.mean,
                half: step.test.half_width,
                shown: fraction(step.test.mean),
                class: if at + 1 == prices.steps.len() { "best" } else { "arm" },
            });
        }
    }
    let title = format!(
        "{} on test by multiply-accumulates of an answer; filled: the best on validation; lines: 95%",
        findings.metric
    );
    (!rows.is_empty()).then_some((title, rows, false))
}

/// A number with three digits that count, and thousands as letters: 40.8 M.
fn scaled(value: f64) -> String {
    let (value, letter) = match value {
        value if value >= 1e9 => (value / 1e9, " G"),
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e3 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let places = if value > 0.0 { (2.0 - value.log10().floor()).clamp(0.0, 2.0) as usize } else { 0 };
    format!("{value:.places$}{letter}")
}
