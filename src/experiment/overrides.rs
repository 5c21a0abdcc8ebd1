//! `--set KEY=VALUE`: what one call changes in an experiment file, as a source of its own behind the file's.

use super::file::{self, Node};
use super::keys::{self, Group};
use super::problem::Problem;
use super::reference::SECTIONS;
use super::resolve::built_in_recipes;
use crate::spelling::nearest;

/// What problems name as the place.
pub const NAME: &str = "--set";

/// What stands before the changes in the text that the store keeps.
const MARK: &str = "# set for this run";

/// The tables that a key without one may belong to.
const WHOLE: &[(&str, Group)] =
    &[("experiment", Group::Experiment), ("backbone", Group::Backbone), ("train", Group::Train)];

/// The changes as TOML, a line each, for a file that says `tree`.
pub fn text(set: &[String], tree: &Node, problems: &mut Vec<Problem>) -> String {
    let mut lines = vec![MARK.to_owned()];
    for change in set {
        match line(change, tree) {
            Ok(line) => lines.push(line),
            Err(problem) => problems.push(problem),
        }
    }
    lines.join("\n")
}

/// The changes in the text of an experiment as the store keeps it, line by line.
pub fn recorded(text: &str) -> Vec<String> {
    let changes = text.rsplit_once(&format!("\n{MARK}\n")).map_or("", |(_, changes)| changes);
    changes.lines().map(str::to_owned).collect()
}

fn line(change: &str, tree: &Node) -> Result<String, Problem> {
    let wrong = |message: String| Problem { spot: None, message: format!("{NAME} {change}: {message}"), help: None };
    let (key, value) = change
        .split_once('=')
        .map(|(key, value)| (key.trim(), value.trim()))
        .filter(|(key, value)| !key.is_empty() && !value.is_empty())
        .ok_or_else(|| wrong("KEY=VALUE is needed, such as train.steps=1000".to_owned()))?;
    let place = place(key, tree).map_err(|(message, help)| Problem { help, ..wrong(message) })?;
    let word = |letter: char| letter.is_alphanumeric() || "_-./".contains(letter);
    let value = match file::is_value(value) {
        true => value.to_owned(),
        // A shell takes the quotes of "adamw".
        false if value.chars().all(word) => format!("\"{value}\""),
        false => return Err(wrong(format!("`{value}` is no TOML value: text stands in quotes, lists in brackets"))),
    };
    let one = place.starts_with("axes.") && !value.starts_with(['[', '{']);
    Ok(if one { format!("{place} = [{value}]") } else { format!("{place} = {value}") })
}

/// The whole key of what is to be changed, or what is wrong with it and its cure.
fn place(key: &str, tree: &Node) -> Result<String, (String, Option<String>)> {
    let (table, name) = key.split_once('.').unwrap_or(("", key));
    let whole = matches!(table, "" | "backbone" | "train");
    if let Some(axis) = axis(name, tree).filter(|_| whole) {
        return match (table, axis) {
            ("", Some(axis)) => Ok(axis),
            (_, Some(axis)) => {
                Err((format!("every cell takes `{name}` from an axis"), Some(format!("change the axis: {axis}=[...]"))))
            }
            (_, None) => Err((format!("[[zip]] moves `{name}` together with other keys; change it in the file"), None)),
        };
    }
    match table {
        "" => bare(name),
        "recipes" | "scenarios" | "datasets" => {
            named(table, name, tree)?;
            Ok(key.to_owned())
        }
        _ => Ok(key.to_owned()),
    }
}

/// Where the axis of that name stands, nowhere of its own if it is part of a zip; none if there is none.
fn axis(name: &str, tree: &Node) -> Option<Option<String>> {
    let axes = tree.get("axes").map(|entry| &entry.node);
    let own = |table: Option<&Node>| table.is_some_and(|table| table.get(name).is_some());
    if own(axes) {
        return Some(Some(format!("axes.{name}")));
    }
    for table in ["backbone", "train"] {
        if own(axes.and_then(|axes| axes.get(table)).map(|entry| &entry.node)) {
            return Some(Some(format!("axes.{table}.{name}")));
        }
    }
    let zips = tree.get("zip").map(|entry| &entry.node).into_iter().flat_map(|node| match &node.shape {
        file::Shape::List(items) => items.as_slice(),
        _ => &[],
    });
    let mut keys = zips.flat_map(|zip| zip.entries().unwrap_or(&[])).flat_map(|entry| match entry.node.entries() {
        Some(inner) => inner.iter().map(|inner| inner.key.as_str()).collect(),
        None => vec![entry.key.as_str()],
    });
    keys.any(|key| key == name).then_some(None)
}

fn bare(name: &str) -> Result<String, (String, Option<String>)> {
    let has = |group: Group| keys::of(group).any(|key| key.name == name);
    if let Some((table, _)) = WHOLE.iter().find(|(_, group)| has(*group)) {
        return Ok(format!("{table}.{name}"));
    }
    let of: Vec<&str> = SECTIONS.iter().filter(|(_, group)| has(*group)).map(|(title, _)| *title).collect();
    if !of.is_empty() {
        let cure = format!("say whose: `{name}` is a key of {}, as in recipes.NAME.{name}=...", of.join(" and "));
        return Err((format!("`{name}` is no key of all trials"), Some(cure)));
    }
    let known: Vec<&str> = WHOLE.iter().flat_map(|(_, group)| keys::of(*group)).map(|key| key.name).collect();
    let near = nearest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    Err((format!("there is no key `{name}`"), near.or(Some(format!("keys of all trials: {}", known.join(", "))))))
}

/// A change is to something that the file has: a slip would add a recipe, and part of a built-in one would replace it.
fn named(table: &str, name: &str, tree: &Node) -> Result<(), (String, Option<String>)> {
    let (name, key) = name.split_once('.').unwrap_or((name, ""));
    let entries = tree.get(table).and_then(|entry| entry.node.entries()).unwrap_or(&[]);
    if key.is_empty() || entries.iter().any(|entry| entry.key == name) {
        return Ok(());
    }
    if table == "recipes" && built_in_recipes().contains_key(name) {
        let cure = format!("write [recipes.{name}] into the file, with all that it shall have");
        return Err((format!("`{name}` is built in; a table with `{key}` alone would replace it"), Some(cure)));
    }
    let known: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    let near = nearest(name, known.iter().copied()).map(|near| format!("did you mean `{table}.{near}`?"));
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err((format!("the file has no [{table}.{name}]"), near.or(Some(format!("it has {known}")))))
}
