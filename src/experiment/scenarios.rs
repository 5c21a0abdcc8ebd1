//! What a file says of its scenarios: a table each, or one table for several sizes of the same target.

use super::Scenario;
use super::accepted::is_all;
use super::file::{Entry, Node, Shape};
use super::keys::Group;
use super::problem::Problem;
use super::reader::Reader;
use super::resolve::{check_dataset, family};
use crate::recipe;
use crate::value::{Layer, Value};

/// All scenarios. `reader` then knows their names, and what a table that lists sizes stands for.
pub(super) fn scenarios(root: &Node, groups: &[Group], reader: &mut Reader) -> Vec<Scenario> {
    let mut found = Vec::new();
    for (entry, entries) in family(root, "scenarios", reader) {
        let place = format!("[scenarios.{}]", entry.key);
        let mut layer = reader.layer(entries, groups, &place);
        check_dataset(&layer, entry.spot, &place, reader);
        let plain = Scenario {
            name: entry.key.clone(),
            size: layer.remove("size").and_then(|value| recipe::word(&value, "").ok()),
            similarity: layer.remove("similarity").and_then(|value| recipe::word(&value, "").ok()),
            layer,
        };
        let own = match entry.node.get("per_class") {
            Some(sizes) if is_list(&plain) => several(&plain, entry, sizes, reader),
            _ => vec![one(plain)],
        };
        for scenario in own {
            if found.iter().any(|known: &Scenario| known.name == scenario.name) {
                let message = format!("two scenarios are called '{}'", scenario.name);
                let cure = "one is of a list of sizes: give the table another name";
                reader.problems.push(Problem::at(entry.spot, message).help(cure));
            }
            found.push(scenario);
        }
    }
    reader.scenarios = found.iter().map(|scenario| scenario.name.clone()).collect();
    found
}

/// What was refused is not in the layer.
fn is_list(plain: &Scenario) -> bool {
    matches!(plain.layer.get("per_class"), Some(Value::List(_)))
}

/// `per_class = "all"` says what its absence says.
fn one(mut plain: Scenario) -> Scenario {
    if plain.layer.get("per_class").is_some_and(is_all) {
        plain.layer.remove("per_class");
    }
    plain
}

/// `few` with `per_class = [5, "all"]` is `few-5` and `few-all`.
fn several(plain: &Scenario, entry: &Entry, sizes: &Entry, reader: &mut Reader) -> Vec<Scenario> {
    if plain.size.is_some() {
        let message = format!("[scenarios.{}] has one `size`, and several numbers of images", plain.name);
        let cure = "leave `size` out, or write a table for each number";
        reader
            .problems
            .push(Problem::at(entry.node.get("size").map_or(sizes.spot, |size| size.spot), message).help(cure));
    }
    let Shape::List(items) = &sizes.node.shape else { return Vec::new() };
    let mut found = Vec::new();
    for item in items {
        let value = item.value();
        reader.places.insert(("per_class".to_owned(), value.to_string()), item.spot);
        let mut layer: Layer = plain.layer.clone();
        layer.insert("per_class".to_owned(), value.clone());
        found.push(one(Scenario { name: format!("{}-{value}", plain.name), layer, ..plain.clone() }));
    }
    reader.sized.insert(plain.name.clone(), found.iter().map(|scenario| scenario.name.clone()).collect());
    found
}
