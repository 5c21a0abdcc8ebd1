//! What a file says of its cross: axes, those that hold under a condition, cells to leave out and cells to add.

use std::collections::BTreeMap;

use super::axis::{self, Axis};
use super::condition::Condition;
use super::file::{Entry, Node};
use super::keys::{self, CELL_KEYS};
use super::problem::{Problem, Spot};
use super::reader::Reader;
use super::{Exclude, When};
use crate::spelling::nearest;
use crate::value::{Layer, Value};

pub(super) fn axes(root: &Node, reader: &mut Reader) -> Vec<Axis> {
    let mut placed: Vec<(Spot, Axis)> = Vec::new();
    if let Some(entry) = root.get("axes") {
        reader.table(entry);
        placed.extend(table_of_axes(&entry.node, reader));
    }
    for node in reader.tables(root, "zip") {
        let axis = axis::zipped(node, reader);
        if let Some(axis) = &axis {
            axis::refuse_repeats(axis, node, reader);
        }
        placed.extend(axis.map(|axis| (node.spot, axis)));
    }
    placed.sort_by_key(|(spot, _)| *spot);
    placed.into_iter().map(|(_, axis)| axis).collect()
}

fn table_of_axes(node: &Node, reader: &mut Reader) -> Vec<(Spot, Axis)> {
    let mut found = Vec::new();
    for (key, values) in reader.axis_entries(node) {
        let entry = Entry { key: key.clone(), spot: values.spot, node: values.clone() };
        if let Some(axis) = axis::single(&entry, &key, reader) {
            axis::refuse_repeats(&axis, values, reader);
            found.push((values.spot, axis));
        }
    }
    found
}

pub(super) fn whens(root: &Node, reader: &mut Reader) -> Vec<When> {
    let mut found = Vec::new();
    for node in reader.tables(root, "when") {
        let condition = condition(node, "[[when]]", reader);
        let axes = match node.get("axes") {
            Some(entry) => table_of_axes(&entry.node, reader).into_iter().map(|(_, axis)| axis).collect(),
            None => {
                reader.complain(node.spot, "[[when]] needs `axes`: the axes that exist where its condition holds");
                Vec::new()
            }
        };
        refuse_others(node, &["if", "axes"], "[[when]]", reader);
        found.extend(condition.map(|(condition, _, _)| When { condition, axes }));
    }
    found
}

pub(super) fn excludes(root: &Node, reader: &mut Reader) -> Vec<Exclude> {
    let mut found = Vec::new();
    for node in reader.tables(root, "exclude") {
        refuse_others(node, &["if", "reason"], "[[exclude]]", reader);
        let reason = node.get("reason").map(|entry| entry.node.value().to_string()).unwrap_or_default();
        let condition = condition(node, "[[exclude]]", reader);
        found.extend(condition.map(|(condition, text, spot)| Exclude { condition, text, reason, spot }));
    }
    found
}

fn refuse_others(node: &Node, accepted: &[&str], place: &str, reader: &mut Reader) {
    for entry in node.entries().unwrap_or(&[]) {
        if !accepted.contains(&entry.key.as_str()) {
            reader.unknown(entry.spot, format!("{place} has no key `{}`", entry.key), &entry.key, accepted);
        }
    }
}

/// The condition under `if`, its text and its place.
fn condition(node: &Node, place: &str, reader: &mut Reader) -> Option<(Condition, String, Spot)> {
    let Some(entry) = node.get("if") else {
        reader.complain(node.spot, format!("{place} needs `if`: a condition such as \"freeze != 'all'\""));
        return None;
    };
    let spot = entry.node.spot;
    let text = match entry.node.value() {
        Value::Text(text) => text,
        other => {
            reader.complain(spot, format!("`if` is a condition in quotes, found {}", other.kind()));
            return None;
        }
    };
    match Condition::parse(&text) {
        Err(fault) => {
            // One byte for the opening quote, so that the mark stands under the fault itself.
            let start = (spot.start + 1 + fault.at).min(spot.end.saturating_sub(1));
            reader.complain(Spot { start, ..spot }, format!("in this condition: {}", fault.message));
            None
        }
        Ok(condition) => {
            let accepted = accepted();
            for key in strangers(&condition, &accepted) {
                reader.unknown(spot, format!("a condition cannot ask for `{key}`"), key, &accepted);
            }
            Some((plain_keys(condition), text, spot))
        }
    }
}

/// A condition over cells that stands in no file.
///
/// # Errors
/// It is none, or asks for what no cell has.
pub fn over_cells(text: &str) -> Result<Condition, String> {
    let condition = Condition::parse(text).map_err(|fault| format!("{} (at byte {})", fault.message, fault.at))?;
    let accepted = accepted();
    if let Some(key) = strangers(&condition, &accepted).first() {
        let near = nearest(key, accepted.iter().copied());
        let hint = near.map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
        return Err(format!(
            "a condition cannot ask for `{key}`{hint}: it speaks of the settings of recipes, and of {}",
            CELL_KEYS.join(", ")
        ));
    }
    Ok(plain_keys(condition))
}

/// What a condition may ask for.
fn accepted() -> Vec<&'static str> {
    CELL_KEYS.iter().copied().chain(keys::settings().map(|key| key.name)).collect()
}

/// What it asks for that is not among that.
fn strangers<'a>(condition: &'a Condition, accepted: &[&str]) -> Vec<&'a str> {
    condition.keys().into_iter().filter(|key| !accepted.contains(&keys::plain(key))).collect()
}

fn plain_keys(condition: Condition) -> Condition {
    match condition {
        Condition::Any(list) => Condition::Any(list.into_iter().map(plain_keys).collect()),
        Condition::All(list) => Condition::All(list.into_iter().map(plain_keys).collect()),
        Condition::Not(one) => Condition::Not(Box::new(plain_keys(*one))),
        Condition::Compare { key, test, value } => {
            Condition::Compare { key: keys::plain(&key).to_owned(), test, value }
        }
    }
}

pub(super) fn includes(root: &Node, reader: &mut Reader) -> Vec<Layer> {
    let mut found = Vec::new();
    for node in reader.tables(root, "include") {
        let mut layer = Layer::new();
        for (key, value) in reader.axis_entries(node) {
            reader.check(&key, value);
            layer.insert(key, value.value());
        }
        for key in ["scenario", "recipe"] {
            if !layer.contains_key(key) {
                reader.complain(node.spot, format!("[[include]] needs `{key}`"));
            }
        }
        found.push(layer);
    }
    found
}

/// Without axes of their own, `scenario` and `recipe` run over all that the file writes down.
pub(super) fn add_default_axes(axes: &mut Vec<Axis>, named: &[String], reader: &Reader) {
    let all = |key: &str, names: &[String]| Axis {
        keys: vec![key.to_owned()],
        rows: names.iter().map(|name| vec![Value::Text(name.clone())]).collect(),
    };
    let lacks = |axes: &[Axis], key: &str| !axes.iter().any(|axis| axis.keys.iter().any(|own| own == key));
    if lacks(axes, "recipe") {
        let built_in: Vec<String> =
            ["linear-probe", "early-features", "first-layers-frozen", "fine-tune", "from-scratch"]
                .map(str::to_owned)
                .into();
        axes.insert(0, all("recipe", if named.is_empty() { &built_in } else { named }));
    }
    if lacks(axes, "scenario") {
        axes.insert(0, all("scenario", &reader.scenarios));
    }
}

pub(super) fn refuse_same_key_twice(
    root: &Node,
    axes: &[Axis],
    whens: &[When],
    recipes: &BTreeMap<String, Layer>,
    reader: &mut Reader,
) {
    let spot = root.get("axes").or(root.get("zip")).map_or(root.spot, |entry| entry.spot);
    let mut seen: Vec<&str> = Vec::new();
    for key in axes.iter().flat_map(|axis| &axis.keys) {
        if seen.contains(&key.as_str()) {
            reader.complain(spot, format!("`{key}` is an axis twice"));
        }
        seen.push(key);
    }
    let conditional = whens.iter().flat_map(|when| &when.axes).flat_map(|axis| &axis.keys);
    for key in conditional {
        if seen.contains(&key.as_str()) {
            reader.complain(spot, format!("`{key}` is an axis, and again under [[when]]"));
        }
    }
    for recipe in used(axes, "recipe") {
        let clash = recipes.get(&recipe).and_then(|layer| layer.keys().find(|key| seen.contains(&key.as_str())));
        if let Some(key) = clash {
            let help = format!("take `{key}` out of one of them; to vary it within a recipe, leave it to the axis");
            reader.problems.push(
                Problem::at(spot, format!("`{key}` is an axis and stands in the recipe '{recipe}' too")).help(help),
            );
        }
    }
}

/// The values that an axis key takes.
fn used(axes: &[Axis], key: &str) -> Vec<String> {
    let mut found = Vec::new();
    for axis in axes {
        if let Some(column) = axis.keys.iter().position(|own| own == key) {
            found.extend(axis.rows.iter().map(|row| row[column].to_string()));
        }
    }
    found
}

pub(super) fn arms(axes: &[Axis], includes: &[Layer]) -> Vec<String> {
    let mut arms = used(axes, "recipe");
    arms.extend(includes.iter().filter_map(|layer| layer.get("recipe")).map(Value::to_string));
    arms
}
