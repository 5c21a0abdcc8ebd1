//! How settings are named: by the keys that vary, with as many digits as tell their numbers apart.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::arm::{Setting, Settings, TUNING};

/// Names the settings of an arm by the tuning keys that vary among them, as `lr = 0.01`: what a recipe fixes is no choice.
pub(super) fn label(settings: &mut [Setting]) {
    let all: Vec<Rc<Settings>> = settings.iter().map(|setting| Rc::clone(&setting.settings)).collect();
    let tuned = varying(&all.iter().map(|settings| &**settings).collect::<Vec<_>>(), TUNING);
    let digits = |key: &str| digits(all.iter().filter_map(|settings| settings.get(key)?.parse().ok()));
    let digits: Vec<usize> = tuned.iter().map(|key| digits(key)).collect();
    for setting in settings {
        let settings = &setting.settings;
        let shown = |(key, digits): (&&str, &usize)| {
            let value = settings.get(*key)?;
            Some(format!("{key} = {}", shown(&rounded(value.parse().ok(), *digits).unwrap_or_else(|| value.clone()))))
        };
        setting.label = tuned.iter().zip(&digits).filter_map(shown).collect::<Vec<_>>().join(", ");
    }
}

/// How many significant digits tell numbers apart, three at least: of a rate drawn on a logarithmic scale, 0.00979148, the
/// others say nothing to a person.
fn digits(values: impl Iterator<Item = f64>) -> usize {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let apart = |digits: &usize| {
        let shown: BTreeSet<Option<String>> = values.iter().map(|value| rounded(Some(*value), *digits)).collect();
        shown.len() == values.len()
    };
    (3..17).find(apart).unwrap_or(17)
}

/// Numbers with as many digits as tell them apart.
pub fn told_apart(values: &[f64]) -> Vec<String> {
    let digits = digits(values.iter().copied());
    values.iter().filter_map(|value| Some(shown(&rounded(Some(*value), digits)?))).collect()
}

fn rounded(value: Option<f64>, digits: usize) -> Option<String> {
    value.map(|value| format!("{value:.*e}", digits - 1))
}

fn varying<'a>(cells: &[&Settings], keys: &[&'a str]) -> Vec<&'a str> {
    let varies = |key: &&&str| cells.iter().any(|settings| settings.get(**key) != cells[0].get(**key));
    keys.iter().filter(varies).copied().collect()
}

/// A number as people write it: 1e-4 instead of 0.0001, without a tail of digits.
pub fn shown(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(number) if number != 0.0 && number.abs() < 1e-3 => format!("{number:e}"),
        Ok(number) => number.to_string(),
        Err(_) => text.to_owned(),
    }
}
