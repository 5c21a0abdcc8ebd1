//! From the tree of values to the experiment: defaults filled in, names looked up, everything checked that
//! can be checked without data, weights or a network.

use std::collections::BTreeMap;

use super::axis::{self, Axis};
use super::condition::Condition;
use super::file::{Entry, Node};
use super::keys::{self, CELL_KEYS, Group};
use super::problem::{Problem, Spot};
use super::reader::Reader;
use super::{Dataset, Exclude, Experiment, Origin, Pretrain, Rule, Scenario, When};
use crate::recipe::{self, Metric};
use crate::value::{Layer, Value};

const SETTINGS: &[Group] = &[Group::Recipe, Group::Train, Group::Backbone];

/// Resolves the whole tree. Problems go to the reader; `None` where nothing useful could be built.
pub fn resolve(root: &Node, file_name: String, reader: &mut Reader) -> Option<Experiment> {
    check_top(root, reader);
    let head = section(root, "experiment", &[Group::Experiment], reader);
    let mut base = defaults();
    overlay(&mut base, &section(root, "backbone", &[Group::Backbone], reader));
    overlay(&mut base, &section(root, "train", &[Group::Train], reader));

    let datasets = datasets(root, reader);
    reader.datasets = datasets.keys().cloned().collect();
    let scenarios = scenarios(root, reader);
    reader.scenarios = scenarios.iter().map(|scenario| scenario.name.clone()).collect();
    let (recipes, named) = recipes(root, reader);
    reader.recipes = recipes.keys().cloned().collect();

    let mut axes = axes(root, reader);
    let whens = whens(root, reader);
    add_default_axes(&mut axes, &named, reader);
    refuse_same_key_twice(root, &axes, &whens, &recipes, reader);
    let excludes = excludes(root, reader);
    let includes = includes(root, reader);
    let rules = rules(root, &arms(&axes, &includes), reader);
    let pretrain = pretrain(root, reader);
    if scenarios.is_empty() && root.get("scenarios").is_none() {
        let cure = "write [scenarios.NAME] with `dataset` and `per_class`";
        reader.problems.push(Problem::at(root.spot, "the file has no scenario").help(cure));
    }
    let whole = |key: &str, default: usize| head.get(key).and_then(Value::count).unwrap_or(default);
    let text = |key: &str| head.get(key).and_then(Value::text).map(str::to_owned);
    Some(Experiment {
        name: text("name").unwrap_or(file_name),
        question: text("question").unwrap_or_default(),
        replicates: whole("replicates", 3),
        seed: whole("seed", 0) as u64,
        metric: head.get("metric").map_or(Ok(Metric::Accuracy), |value| recipe::word(value, "")).ok()?,
        mix_numerics: head.get("mix_numerics") == Some(&Value::Bool(true)),
        refit: head.get("refit") == Some(&Value::Bool(true)),
        datasets,
        scenarios,
        recipes,
        base,
        pretrain,
        axes,
        whens,
        excludes,
        includes,
        rules,
        places: Default::default(),
        sources: Vec::new(),
    })
}

/// The defaults of the settings that have one whatever the backbone is.
pub fn defaults() -> Layer {
    let texts = [
        ("freeze", "none"),
        ("pool", "avg"),
        ("head", "linear"),
        ("optimizer", "sgd"),
        ("decay", "coupled"),
        ("class_weights", "none"),
        ("schedule", "cosine"),
        ("keep_weights", "last"),
    ];
    let numbers = [
        ("lr", 0.01),
        ("momentum", 0.9),
        ("weight_decay", 0.0),
        ("warmup", 0.0),
        ("label_smoothing", 0.0),
        ("dropout", 0.0),
    ];
    let mut layer = Layer::new();
    layer.extend(texts.map(|(key, value)| (key.to_owned(), Value::Text(value.to_owned()))));
    layer.extend(numbers.map(|(key, value)| (key.to_owned(), Value::Float(value))));
    layer.insert("steps".to_owned(), Value::Int(500));
    layer.insert("batch".to_owned(), Value::Int(32));
    layer.insert("nesterov".to_owned(), Value::Bool(false));
    layer.insert("augment".to_owned(), Value::List(Vec::new()));
    layer
}

/// The five recipes of the rules of thumb.
pub fn built_in_recipes() -> BTreeMap<String, Layer> {
    let text = |text: &str| Value::Text(text.to_owned());
    let table = |key: &str, value: Value| Value::Table([(key.to_owned(), value)].into());
    let none = || Value::List(Vec::new());
    let layer =
        |pairs: Vec<(&str, Value)>| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Layer>();
    let mlp = table("mlp", Value::List(vec![Value::Int(256)]));
    let early = vec![
        ("tap", text("early")),
        ("pool", table("max", Value::Int(4))),
        ("freeze", text("all")),
        ("head", mlp),
        ("augment", none()),
    ];
    [
        ("linear-probe", layer(vec![("freeze", text("all")), ("head", text("linear")), ("augment", none())])),
        ("first-layers-frozen", layer(vec![("freeze", Value::Int(5))])),
        ("early-features", layer(early)),
        ("fine-tune", layer(vec![("freeze", text("none"))])),
        ("from-scratch", layer(vec![("freeze", text("none")), ("weights", text("random"))])),
    ]
    .map(|(name, layer)| (name.to_owned(), layer))
    .into()
}

/// Lays `own` over `base`; a budget of one kind replaces one of the other.
pub fn overlay(base: &mut Layer, own: &Layer) {
    if own.contains_key("steps") || own.contains_key("epochs") {
        base.remove("steps");
        base.remove("epochs");
    }
    base.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
}

fn check_top(root: &Node, reader: &mut Reader) {
    let known: Vec<&str> = keys::TABLES.iter().map(|table| table.0).collect();
    for entry in root.entries().unwrap_or(&[]) {
        if !known.contains(&entry.key.as_str()) {
            reader.unknown(entry.spot, format!("there is no table `{}`", entry.key), &entry.key, &known);
        }
        if entry.key == "extends" && entry.node.value().text().is_none() {
            reader.complain(entry.node.spot, "`extends` is the path of one other experiment file");
        }
    }
}

fn section(root: &Node, name: &str, groups: &[Group], reader: &mut Reader) -> Layer {
    match root.get(name) {
        None => Layer::new(),
        Some(entry) => {
            let entries = reader.table(entry);
            reader.layer(entries, groups, &format!("[{name}]"))
        }
    }
}

/// The tables `[family.NAME]`, each with its entries.
fn family<'a>(root: &'a Node, family: &str, reader: &mut Reader) -> Vec<(&'a Entry, &'a [Entry])> {
    let Some(entry) = root.get(family) else { return Vec::new() };
    let members = reader.table(entry);
    members.iter().map(|member| (member, reader.table(member))).collect()
}

fn datasets(root: &Node, reader: &mut Reader) -> BTreeMap<String, Dataset> {
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
        let mut splits: BTreeMap<String, String> =
            ["train", "val", "test"].map(|name| (name.to_owned(), name.to_owned())).into();
        if let Some(Value::Table(renamed)) = layer.get("splits") {
            // A folder that serves as one split no longer serves as the split of its own name.
            splits.retain(|split, folder| {
                renamed.contains_key(split) || !renamed.values().any(|used| used.text() == Some(folder))
            });
            splits.extend(renamed.iter().map(|(split, folder)| (split.clone(), folder.to_string())));
        }
        let dataset = Dataset {
            name: entry.key.clone(),
            origin,
            splits,
            sha256: layer.get("sha256").map(|pin| pin.to_string().to_lowercase()),
            skip_bad_images: layer.get("on_bad_image").and_then(Value::text) == Some("skip"),
            spot: entry.spot,
        };
        found.insert(entry.key.clone(), dataset);
    }
    found
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

fn scenarios(root: &Node, reader: &mut Reader) -> Vec<Scenario> {
    let mut found = Vec::new();
    for (entry, entries) in family(root, "scenarios", reader) {
        let place = format!("[scenarios.{}]", entry.key);
        let mut groups = vec![Group::Scenario];
        groups.extend(SETTINGS);
        let mut layer = reader.layer(entries, &groups, &place);
        check_dataset(&layer, entry.spot, &place, reader);
        found.push(Scenario {
            name: entry.key.clone(),
            size: layer.remove("size").and_then(|value| recipe::word(&value, "").ok()),
            similarity: layer.remove("similarity").and_then(|value| recipe::word(&value, "").ok()),
            layer,
        });
    }
    found
}

fn check_dataset(layer: &Layer, spot: Spot, place: &str, reader: &mut Reader) {
    let Some(dataset) = reader.required(layer, "dataset", spot, place) else { return };
    if !reader.datasets.contains(&dataset) {
        let names = reader.datasets.clone();
        let accepted: Vec<&str> = names.iter().map(String::as_str).collect();
        let spot = reader.places.get(&("dataset".to_owned(), dataset.clone())).copied().unwrap_or(spot);
        reader.unknown(spot, format!("there is no dataset '{dataset}'"), &dataset, &accepted);
    }
}

/// All recipes, and the names of those that the file itself writes down.
fn recipes(root: &Node, reader: &mut Reader) -> (BTreeMap<String, Layer>, Vec<String>) {
    let mut recipes = built_in_recipes();
    let mut named = Vec::new();
    for (entry, entries) in family(root, "recipes", reader) {
        let layer = reader.layer(entries, SETTINGS, &format!("[recipes.{}]", entry.key));
        recipes.insert(entry.key.clone(), layer);
        named.push(entry.key.clone());
    }
    (recipes, named)
}

fn axes(root: &Node, reader: &mut Reader) -> Vec<Axis> {
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

fn whens(root: &Node, reader: &mut Reader) -> Vec<When> {
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

fn excludes(root: &Node, reader: &mut Reader) -> Vec<Exclude> {
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
            let accepted: Vec<&str> = CELL_KEYS.iter().copied().chain(keys::settings().map(|key| key.name)).collect();
            for key in condition.keys() {
                if !accepted.contains(&keys::plain(key)) {
                    reader.unknown(spot, format!("a condition cannot ask for `{key}`"), key, &accepted);
                }
            }
            Some((plain_keys(condition), text, spot))
        }
    }
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

fn includes(root: &Node, reader: &mut Reader) -> Vec<Layer> {
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
fn add_default_axes(axes: &mut Vec<Axis>, named: &[String], reader: &Reader) {
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

fn refuse_same_key_twice(
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

fn arms(axes: &[Axis], includes: &[Layer]) -> Vec<String> {
    let mut arms = used(axes, "recipe");
    arms.extend(includes.iter().filter_map(|layer| layer.get("recipe")).map(Value::to_string));
    arms
}

fn rules(root: &Node, arms: &[String], reader: &mut Reader) -> Vec<Rule> {
    let mut found = Vec::new();
    for node in reader.tables(root, "rule") {
        let layer = reader.layer(node.entries().unwrap_or(&[]), &[Group::Rule], "[[rule]]");
        let Some(claim) = reader.required(&layer, "claim", node.spot, "[[rule]]") else { continue };
        let spot = node.get("claim").map_or(node.spot, |entry| entry.node.spot);
        let scenario = layer.get("scenario").map_or("*".to_owned(), Value::to_string);
        if !reader.scenarios.iter().any(|name| super::condition::like(&scenario, name)) {
            let names = reader.scenarios.clone();
            let accepted: Vec<&str> = names.iter().map(String::as_str).collect();
            let spot = node.get("scenario").map_or(node.spot, |entry| entry.node.spot);
            reader.unknown(spot, format!("no scenario matches '{scenario}'"), &scenario, &accepted);
        }
        let Some((better, worse)) = claim.split_once(" > ").map(|(left, right)| (left.trim(), right.trim())) else {
            reader
                .problems
                .push(Problem::at(spot, format!("'{claim}' is not a claim")).help("write \"A > B\" with two recipes"));
            continue;
        };
        for arm in [better, worse] {
            if !arms.iter().any(|name| name == arm) {
                let accepted: Vec<&str> = arms.iter().map(String::as_str).collect();
                reader.unknown(
                    spot,
                    format!("the rule speaks of '{arm}', which is no recipe of this experiment"),
                    arm,
                    &accepted,
                );
            }
        }
        let margin = layer.get("margin").and_then(Value::number).unwrap_or(0.005);
        found.push(Rule { scenario, better: better.to_owned(), worse: worse.to_owned(), margin, spot });
    }
    found
}

fn pretrain(root: &Node, reader: &mut Reader) -> Option<Pretrain> {
    let entry = root.get("pretrain")?;
    let entries = reader.table(entry);
    let own = reader.layer(entries, &[Group::Pretrain, Group::Train], "[pretrain]");
    check_dataset(&own, entry.spot, "[pretrain]", reader);
    let mut layer = defaults();
    overlay(&mut layer, &own);
    let dataset = layer.remove("dataset")?.to_string();
    Some(Pretrain { dataset, layer })
}
