//! The tables [datasets.NAME]: where images come from, and which of them are tested.

use std::collections::BTreeMap;

use super::accepted::{also_test, class_names, names_of_classes};
use super::file::{Entry, Node};
use super::keys::{self, Group};
use super::problem::{Problem, Spot};
use super::reader::Reader;
use super::resolve::family;
use super::{AlsoTest, Dataset, NearDuplicates, Origin};
use crate::corruption::Corruption;
use crate::value::{Layer, Value};

/// All of them, by their names.
pub fn datasets(root: &Node, reader: &mut Reader) -> BTreeMap<String, Dataset> {
    let mut found = BTreeMap::new();
    for (entry, entries) in family(root, "datasets", reader) {
        let place = format!("[datasets.{}]", entry.key);
        let layer = reader.layer(entries, &[Group::Dataset], &place);
        let origin = match (layer.get("path"), layer.get("synthetic")) {
            (Some(path), None) => Origin::Path(path.to_string()),
            (None, Some(Value::Table(given))) => synthetic(given),
            _ if entries.iter().any(|entry| entry.key == "path")
                != entries.iter().any(|entry| entry.key == "synthetic") =>
            {
                continue;
            }
            _ => {
                reader.complain(entry.spot, format!("{place} needs `path` or `synthetic`, one of them"));
                continue;
            }
        };
        found.insert(entry.key.clone(), dataset(entry, &layer, origin, &place, reader));
    }
    also_tested(&found, reader);
    found
}

fn dataset(entry: &Entry, layer: &Layer, origin: Origin, place: &str, reader: &mut Reader) -> Dataset {
    let taken = layer.get("splits").and_then(|given| match given {
        Value::Table(given) => given.get("test"),
        _ => None,
    });
    let (share, folds) = (taken.and_then(Value::number), layer.get("folds").and_then(Value::count));
    if taken.is_some() && folds.is_some() {
        let message = format!("{place} names test images twice: in `splits`, and by `folds`");
        reader.problems.push(Problem::at(entry.spot, message).help("leave one of them out"));
    }
    let near_duplicates = match layer.get("near_duplicates").and_then(Value::text) {
        Some("drop") => NearDuplicates::Drop,
        Some("together") => NearDuplicates::Together,
        _ => NearDuplicates::Keep,
    };
    check_near_duplicates(near_duplicates, share.is_some() || folds.is_some(), folds, entry.spot, place, reader);
    Dataset {
        name: entry.key.clone(),
        origin,
        splits: splits(layer),
        sha256: layer.get("sha256").map(|pin| pin.to_string().to_lowercase()),
        share,
        folds,
        near_duplicates,
        classes: layer.get("classes").and_then(|value| class_names(value).ok()).unwrap_or_default(),
        names: layer.get("names").and_then(|value| names_of_classes(value).ok()).unwrap_or_default(),
        also_test: layer.get("also_test").and_then(|value| also_test(value).ok()).unwrap_or_default(),
        corruption: layer.get("corrupt").and_then(Value::text).and_then(|text| Corruption::parse(text).ok()),
        white: layer.get("white").and_then(Value::count).and_then(|white| u16::try_from(white).ok()),
        skip_bad_images: layer.get("on_bad_image").and_then(Value::text) == Some("skip"),
        spot: entry.spot,
    }
}

/// Which folder is which split.
fn splits(layer: &Layer) -> BTreeMap<String, String> {
    let mut splits: BTreeMap<String, String> =
        ["train", "val", "test"].map(|name| (name.to_owned(), name.to_owned())).into();
    if let Some(Value::Table(renamed)) = layer.get("splits") {
        // A folder that serves as one split no longer serves as the split of its own name.
        splits.retain(|split, folder| {
            renamed.contains_key(split) || !renamed.values().any(|used| used.text() == Some(folder))
        });
        let named = renamed.iter().filter_map(|(split, folder)| Some((split.clone(), folder.text()?.to_owned())));
        splits.extend(named);
    }
    splits
}

fn check_near_duplicates(
    asked: NearDuplicates,
    dealt: bool,
    folds: Option<usize>,
    spot: Spot,
    place: &str,
    reader: &mut Reader,
) {
    match (asked, dealt) {
        (NearDuplicates::Together, false) => reader.problems.push(
            Problem::at(spot, format!("{place} keeps near-duplicates together, but its parts are as they come"))
                .help("\"drop\" leaves those to train on out; `together` is for `folds` and a share as `test`"),
        ),
        (NearDuplicates::Drop, true) if folds.is_some() => reader.problems.push(
            Problem::at(spot, format!("{place} drops near-duplicates of test images, and in folds all are tested"))
                .help("near_duplicates = \"together\" puts them into one fold"),
        ),
        _ => {}
    }
}

/// Whether the datasets that are tested as well are there, and have test images of their own.
fn also_tested(datasets: &BTreeMap<String, Dataset>, reader: &mut Reader) {
    let names: Vec<&str> = datasets.keys().map(String::as_str).collect();
    for own in datasets.values() {
        for other in &own.also_test {
            let place = format!("[datasets.{}]", own.name);
            let AlsoTest::Dataset(other) = other else {
                if own.folds.is_some() {
                    let message =
                        format!("{place} also tests its own test images corrupted, and in folds there are none");
                    reader
                        .problems
                        .push(Problem::at(own.spot, message).help("take a share instead: splits = { test = 0.2 }"));
                }
                continue;
            };
            match datasets.get(other) {
                None => reader.unknown(
                    own.spot,
                    format!("{place} also tests '{other}', which is no dataset"),
                    other,
                    &names,
                ),
                Some(found) if found.name == own.name => {
                    reader.complain(own.spot, format!("{place} also tests itself: its test images are tested anyway"));
                }
                Some(found) if found.folds.is_some() => reader.problems.push(
                    Problem::at(own.spot, format!("{place} also tests '{other}', which is in folds and has no test images"))
                        .help(format!(
                            "splits = {{ test = 1 }} in the place of `folds` under [datasets.{other}] tests all of them; a dataset \
                             may have two tables"
                        )),
                ),
                Some(_) => {}
            }
        }
    }
}

fn synthetic(given: &BTreeMap<String, Value>) -> Origin {
    let count = |name: &str| {
        let default = keys::SYNTHETIC.iter().find(|(key, _)| *key == name).map_or(0, |(_, default)| *default);
        given.get(name).and_then(Value::count).unwrap_or(default)
    };
    Origin::Synthetic {
        classes: count("classes"),
        shift: given.get("shift").and_then(Value::number).unwrap_or(0.0),
        task: count("task") as u64,
        train: count("train"),
        test: count("test"),
    }
}
