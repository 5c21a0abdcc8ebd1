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
    match held(name, tree).filter(|_| whole) {
        Some(Held::Axis(axis)) if table.is_empty() => return Ok(axis),
        Some(Held::Axis(axis)) => {
            let cure = format!("change the axis: {axis}=[...]");
            return Err((format!("every cell takes `{name}` from an axis"), Some(cure)));
        }
        Some(Held::Table(why)) => {
            return Err((format!("`{name}` is no single setting in this file: {why}; change it there"), None));
        }
        None => {}
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

/// What gives every cell a value of its own.
enum Held {
    /// An axis, and where it stands.
    Axis(String),
    /// A table that one value cannot replace, and what it does.
    Table(&'static str),
}

/// What holds a setting beside the tables of the file, if anything does.
fn held(name: &str, tree: &Node) -> Option<Held> {
    let axes = tree.get("axes").map(|entry| &entry.node);
    if let Some(place) = axes.and_then(|axes| place_within(name, axes)) {
        return Some(Held::Axis(format!("axes.{place}")));
    }
    let tables = |key: &str| match tree.get(key).map(|entry| &entry.node.shape) {
        Some(file::Shape::List(items)) => items.clone(),
        _ => Vec::new(),
    };
    if tables("zip").iter().any(|zip| place_within(name, zip).is_some()) {
        return Some(Held::Table("[[zip]] moves it together with other keys"));
    }
    let axes_of = |when: &Node| when.get("axes").map(|entry| entry.node.clone());
    let when = tables("when").iter().filter_map(axes_of).any(|axes| place_within(name, &axes).is_some());
    when.then_some(Held::Table("[[when]] makes an axis of it"))
}

/// Where a table of axes has a setting: itself, or under `backbone` or `train`.
fn place_within(name: &str, axes: &Node) -> Option<String> {
    let inner = |table: &str| axes.get(table)?.node.get(name).map(|_| format!("{table}.{name}"));
    axes.get(name).map(|_| name.to_owned()).or_else(|| ["backbone", "train"].into_iter().find_map(inner))
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
