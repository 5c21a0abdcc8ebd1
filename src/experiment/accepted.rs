//! What values a key accepts, for the checks of `keys` that more than one key shares or that are longer than a line.

use std::collections::BTreeMap;

use super::AlsoTest;
use crate::corruption::Corruption;
use crate::recipe;
use crate::value::Value;

pub fn text(value: &Value) -> Result<(), String> {
    recipe::name(value).map(drop)
}

pub fn count(value: &Value) -> Result<(), String> {
    recipe::count(value, 1).map(drop)
}

/// A count that a run can still be meant by.
pub fn bounded(value: &Value, most: usize) -> Result<(), String> {
    match recipe::count(value, 1)? {
        count if count <= most => Ok(()),
        count => Err(format!("{count} is beyond the most that is taken, {most}")),
    }
}

pub fn whole(value: &Value) -> Result<(), String> {
    recipe::count(value, 0).map(drop)
}

pub fn positive(value: &Value) -> Result<(), String> {
    recipe::number(value, 0.0, f64::MAX).map(drop)
}

pub fn fraction(value: &Value) -> Result<(), String> {
    recipe::number(value, 0.0, 1.0).map(drop)
}

pub fn flag(value: &Value) -> Result<(), String> {
    recipe::flag(value).map(drop)
}

pub fn input(value: &Value) -> Result<(), String> {
    match recipe::count(value, 8)? {
        8..=1024 => Ok(()),
        _ => Err("expected a side of 8 to 1024 pixels".to_owned()),
    }
}

pub fn width(value: &Value) -> Result<(), String> {
    recipe::number(value, 0.05, 4.0).map(drop)
}

/// Names of classes, each once.
pub fn class_names(value: &Value) -> Result<Vec<String>, String> {
    const ACCEPTED: &str = "expected a list of two names of classes or more, such as [\"cat\", \"dog\"]";
    let Value::List(items) = value else { return Err(ACCEPTED.to_owned()) };
    let names = items.iter().map(recipe::name).collect::<Result<Vec<_>, _>>()?;
    if let Some(twice) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        return Err(format!("the class '{}' stands here twice", twice.1));
    }
    if names.len() < 2 { Err(ACCEPTED.to_owned()) } else { Ok(names) }
}

/// What classes are called in texts, by what they are called.
pub fn names_of_classes(value: &Value) -> Result<BTreeMap<String, String>, String> {
    match value {
        Value::Table(names) if !names.is_empty() => {
            names.iter().map(|(class, name)| Ok((class.clone(), recipe::name(name)?))).collect()
        }
        _ => Err("expected a table of names by classes, such as { n02099601 = \"golden retriever\" }".to_owned()),
    }
}

/// What is tested as well, each once.
pub fn also_test(value: &Value) -> Result<Vec<AlsoTest>, String> {
    const ACCEPTED: &str =
        "expected a list of names of datasets and of corruptions, such as [\"other-camera\", \"fog 3\"]";
    let Value::List(items) = value else { return Err(ACCEPTED.to_owned()) };
    let mut found = Vec::new();
    for item in items {
        let name = recipe::name(item)?;
        let corruptions = Corruption::named(&name)?;
        found.extend(corruptions.iter().copied().map(AlsoTest::Corrupted));
        if corruptions.is_empty() {
            found.push(AlsoTest::Dataset(name));
        }
    }
    if let Some(twice) = found.iter().enumerate().find(|(index, one)| found[..*index].contains(one)) {
        return Err(format!("'{}' stands here twice", twice.1.name()));
    }
    if found.is_empty() { Err(ACCEPTED.to_owned()) } else { Ok(found) }
}

pub fn corruption(value: &Value) -> Result<(), String> {
    Corruption::parse(value.text().ok_or("expected a kind and a severity such as 'fog 3'")?).map(drop)
}

pub fn hex64(value: &Value) -> Result<(), String> {
    match value.text() {
        Some(text) if text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) => Ok(()),
        _ => Err("expected 64 hex digits".to_owned()),
    }
}

pub fn splits(value: &Value) -> Result<(), String> {
    const ACCEPTED: &str =
        "expected a table that names folders, such as { test = \"val\" }, or takes a share, { test = 0.2 }";
    match value {
        Value::Table(entries) => entries.iter().try_for_each(|(key, folder)| match (key.as_str(), folder) {
            ("train" | "val" | "test", Value::Text(_)) => Ok(()),
            ("test", share) if share.number().is_some_and(|share| share > 0.0 && share <= 1.0) => Ok(()),
            _ => Err(ACCEPTED.to_owned()),
        }),
        _ => Err(ACCEPTED.to_owned()),
    }
}

/// The counts that a synthetic dataset may name, and their defaults.
pub const SYNTHETIC: &[(&str, usize)] = &[("classes", 10), ("train", 300), ("test", 100), ("task", 0)];
pub fn synthetic(value: &Value) -> Result<(), String> {
    let accepted = "expected { classes = 10, shift = 0.0, task = 0, train = 300, test = 100 } (train and test count images per class)";
    let Value::Table(entries) = value else {
        return Err(accepted.to_owned());
    };
    entries.iter().try_for_each(|(key, value)| match key.as_str() {
        "shift" => fraction(value),
        "task" => whole(value),
        "classes" => recipe::count(value, 2).map(drop),
        key if SYNTHETIC.iter().any(|(name, _)| *name == key) => count(value),
        key => Err(format!("a synthetic dataset has no '{key}'; {accepted}")),
    })?;
    let size = |name: &str, default: usize| entries.get(name).and_then(Value::count).unwrap_or(default);
    let images = size("train", 300).saturating_add(size("test", 100)).saturating_mul(size("classes", 10));
    if images > 5_000_000 { Err(format!("{images} synthetic images; at most 5,000,000 are made")) } else { Ok(()) }
}

pub fn early_stop(value: &Value) -> Result<(), String> {
    early_stop_patience(value).map(drop)
}

/// The patience in `{ patience = 3 }`.
pub fn early_stop_patience(value: &Value) -> Result<usize, String> {
    match value {
        Value::Table(entries) if entries.len() == 1 && entries.contains_key("patience") => {
            recipe::count(&entries["patience"], 1)
        }
        _ => Err("expected { patience = 3 }: evaluations without a better validation loss".to_owned()),
    }
}

/// Above 0 and up to 1.
pub fn share(value: &Value) -> Result<(), String> {
    match value.number() {
        Some(share) if share > 0.0 && share <= 1.0 => Ok(()),
        _ => Err(format!("expected a number above 0 and up to 1, found {value}")),
    }
}

pub fn views(value: &Value) -> Result<(), String> {
    view_count(value).map(drop)
}

/// Stored views of each training image.
pub fn view_count(value: &Value) -> Result<usize, String> {
    match value.count() {
        Some(1) => Err("a single stored view would be the same in every epoch, which is no augmentation: store at least 2, or leave `views` out".to_owned()),
        Some(count) if (2..=1000).contains(&count) => Ok(count),
        _ => Err(format!("expected a whole number from 2 to 1000, found {value}")),
    }
}

/// All images, where sizes are listed.
const ALL: &str = "all";

/// Whether this says `all`.
pub fn is_all(value: &Value) -> bool {
    value.text() == Some(ALL)
}

/// A number of images, `all`, or a list of them.
pub fn per_class(value: &Value) -> Result<(), String> {
    let single = |value: &Value| match value.count() {
        Some(count) if count > 0 => Ok(()),
        _ if is_all(value) => Ok(()),
        _ => recipe::wrong(value, &format!("a whole number of at least 1, \"{ALL}\", or a list of these")),
    };
    let Value::List(items) = value else { return single(value) };
    items.iter().try_for_each(single)?;
    match items.iter().enumerate().find(|(at, item)| items[..*at].contains(item)) {
        _ if items.is_empty() => Err("the list is empty".to_owned()),
        Some((_, twice)) => Err(format!("{twice} stands twice in the list")),
        None => Ok(()),
    }
}
