//! Reads tables against the table of keys, and collects what is wrong instead of stopping at it.

use std::collections::HashMap;

use super::file::{Entry, Node, Shape};
use super::keys::{self, CELL_KEYS, Group};
use super::problem::{Problem, Spot};
use super::reference::SECTIONS;
use crate::spelling::nearest;
use crate::value::{Layer, Value};

pub struct Reader {
    pub problems: Vec<Problem>,
    /// Where each value of a setting stands.
    pub places: HashMap<(String, String), Spot>,
    pub scenarios: Vec<String>,
    /// What a table of scenarios that lists sizes stands for.
    pub sized: HashMap<String, Vec<String>>,
    pub recipes: Vec<String>,
    pub datasets: Vec<String>,
}

/// The tables that have a key.
fn tables_of(key: &str) -> Vec<&'static str> {
    let has = |group: Group| keys::of(group).any(|own| own.name == key);
    SECTIONS.iter().filter(|(_, group)| has(*group)).map(|(title, _)| *title).collect()
}

impl Reader {
    pub fn new(problems: Vec<Problem>) -> Self {
        let (scenarios, recipes, datasets) = (Vec::new(), Vec::new(), Vec::new());
        Self { problems, places: HashMap::new(), scenarios, sized: HashMap::new(), recipes, datasets }
    }

    /// Notes a problem at `spot`.
    pub fn complain(&mut self, spot: Spot, message: impl Into<String>) {
        self.problems.push(Problem::at(spot, message));
    }

    /// Complains of an unknown word, with the nearest known one and all that are accepted.
    pub fn unknown(&mut self, spot: Spot, message: String, found: &str, accepted: &[&str]) {
        let listed = if accepted.is_empty() { "nothing".to_owned() } else { accepted.join(", ") };
        let help = match nearest(found, accepted.iter().copied()) {
            Some(word) => format!("did you mean `{word}`? Accepted: {listed}"),
            None => format!("accepted: {listed}"),
        };
        self.problems.push(Problem::at(spot, message).help(help));
    }

    /// The entries of a table; anything else is a problem.
    pub fn table<'a>(&mut self, entry: &'a Entry) -> &'a [Entry] {
        match entry.node.entries() {
            Some(entries) => entries,
            None => {
                self.complain(
                    entry.node.spot,
                    format!("`{}` is a table: write [{}] on a line of its own", entry.key, entry.key),
                );
                &[]
            }
        }
    }

    /// The tables of `[[key]]`.
    pub fn tables<'a>(&mut self, root: &'a Node, key: &str) -> Vec<&'a Node> {
        let Some(entry) = root.get(key) else { return Vec::new() };
        match &entry.node.shape {
            Shape::List(items) if items.iter().all(|item| item.entries().is_some()) => items.iter().collect(),
            _ => {
                self.complain(entry.node.spot, format!("`{key}` is a list of tables: write [[{key}]]"));
                Vec::new()
            }
        }
    }

    /// Reads a table whose keys come from `groups`.
    pub fn layer(&mut self, entries: &[Entry], groups: &[Group], place: &str) -> Layer {
        let accepted: Vec<&str> = groups.iter().flat_map(|group| keys::of(*group)).map(|key| key.name).collect();
        let mut layer = Layer::new();
        for entry in entries {
            let key = keys::all().find(|key| key.name == entry.key && groups.contains(&key.group));
            match key {
                None => {
                    let message = format!("{place} has no key `{}`", entry.key);
                    match tables_of(&entry.key) {
                        tables if tables.is_empty() => self.unknown(entry.spot, message, &entry.key, &accepted),
                        tables => {
                            let help = format!("`{}` is a key of {}", entry.key, tables.join(" and "));
                            self.problems.push(Problem::at(entry.spot, message).help(help));
                        }
                    }
                }
                Some(key) => {
                    let value = entry.node.value();
                    match (key.check)(&value) {
                        Ok(()) => {
                            self.places.insert((entry.key.clone(), value.to_string()), entry.node.spot);
                            self.note_phases(&entry.node);
                            layer.insert(entry.key.clone(), value);
                        }
                        Err(message) => self.complain(entry.node.spot, format!("`{}`: {message}", entry.key)),
                    }
                }
            }
        }
        if let (Some(_), Some(_)) = (layer.get("steps"), layer.get("epochs")) {
            let spot = entries.iter().find(|entry| entry.key == "epochs").map(|entry| entry.spot);
            self.problems.extend(
                spot.map(|spot| Problem::at(spot, "`steps` and `epochs` both stand here; exactly one is the budget")),
            );
        }
        layer
    }

    /// Where the settings of phases stand.
    fn note_phases(&mut self, node: &Node) {
        let Shape::List(phases) = &node.shape else { return };
        for entry in phases.iter().filter_map(Node::entries).flatten() {
            let place = (entry.key.clone(), entry.node.value().to_string());
            self.places.entry(place).or_insert(entry.node.spot);
        }
    }

    /// A text of `layer`, or the problem that it is missing at `spot`.
    pub fn required(&mut self, layer: &Layer, key: &str, spot: Spot, place: &str) -> Option<String> {
        let found = layer.get(key).and_then(Value::text).map(str::to_owned);
        if found.is_none() && !self.problems.iter().any(|problem| problem.message.starts_with(&format!("`{key}`"))) {
            self.complain(spot, format!("{place} needs `{key}`"));
        }
        found
    }

    /// Keys and values of a table of axes, `backbone.arch = ...` flattened to `arch`.
    pub fn axis_entries<'a>(&mut self, node: &'a Node) -> Vec<(String, &'a Node)> {
        let mut found = Vec::new();
        for entry in node.entries().unwrap_or(&[]) {
            if matches!(entry.key.as_str(), "backbone" | "train") && entry.node.entries().is_some() {
                for inner in entry.node.entries().unwrap_or(&[]) {
                    found.extend(self.axis_key(inner).map(|key| (key, &inner.node)));
                }
            } else {
                found.extend(self.axis_key(entry).map(|key| (key, &entry.node)));
            }
        }
        found
    }

    fn axis_key(&mut self, entry: &Entry) -> Option<String> {
        let names = &CELL_KEYS[..2];
        let known = keys::find(&entry.key).is_some() || names.contains(&entry.key.as_str());
        let of_scenarios = match entry.key.as_str() {
            "per_class" => Some("list the sizes there: per_class = [5, 20] under [scenarios.NAME]"),
            "dataset" => Some("write [scenarios.NAME] for each dataset"),
            _ => None,
        };
        if let Some(cure) = of_scenarios {
            let message = format!("`{}` is no axis: a scenario is one dataset at one size", entry.key);
            self.problems.push(Problem::at(entry.spot, message).help(cure));
            return None;
        }
        if entry.key == "replicate" || entry.key == "seed" {
            self.complain(
                entry.spot,
                format!("`{}` is never an axis: give `replicates` under [experiment]", entry.key),
            );
            return None;
        }
        if !known {
            let accepted: Vec<&str> = names.iter().copied().chain(keys::settings().map(|key| key.name)).collect();
            self.unknown(
                entry.spot,
                format!("there is no key `{}` to make an axis of", entry.key),
                &entry.key,
                &accepted,
            );
        }
        known.then(|| entry.key.clone())
    }

    /// Checks one value of a setting or of a cell key.
    pub fn check(&mut self, key: &str, node: &Node) {
        self.check_value(key, &node.value(), node.spot);
    }

    /// The same for a value whose place is `spot`.
    pub fn check_value(&mut self, key: &str, value: &Value, spot: Spot) {
        let names = match key {
            "scenario" => Some(self.scenarios.clone()),
            "recipe" => Some(self.recipes.clone()),
            _ => None,
        };
        if let Some(names) = names {
            let accepted: Vec<&str> = names.iter().map(String::as_str).collect();
            let found = value.to_string();
            if !accepted.contains(&found.as_str()) {
                self.unknown(spot, format!("there is no {key} '{found}'"), &found, &accepted);
            }
            return;
        }
        match keys::find(key).map_or(Ok(()), |definition| (definition.check)(value)) {
            Ok(()) => drop(self.places.insert((key.to_owned(), value.to_string()), spot)),
            Err(message) => self.complain(spot, format!("`{key}`: {message}")),
        }
    }
}
