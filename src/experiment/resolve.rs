//! From the tree of values to the experiment: defaults filled in, names looked up, everything checked that
//! can be checked without data, weights or a network.

use std::collections::{BTreeMap, BTreeSet};

use super::condition::like;
use super::crossed::{add_default_axes, arms, axes, excludes, includes, refuse_same_key_twice, whens};
use super::datasets::datasets;
use super::file::{Entry, Node};
use super::keys::{self, Group};
use super::problem::{Problem, Spot};
use super::reader::Reader;
use super::scenarios::scenarios;
use super::{AlsoTest, Dataset, Experiment, Pretrain, Rule, Scenario};
use crate::recipe::{self, Keep, Metric};
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
    // One that is written wrong is there all the same.
    let written = root.get("datasets").and_then(|entry| entry.node.entries()).unwrap_or(&[]);
    reader.datasets = written.iter().map(|entry| entry.key.clone()).collect();
    let scenarios = scenarios(root, &[&[Group::Scenario], SETTINGS].concat(), reader);
    let (recipes, named) = recipes(root, reader);
    reader.recipes = recipes.keys().cloned().collect();

    let mut axes = axes(root, reader);
    let whens = whens(root, reader);
    add_default_axes(&mut axes, &named, reader);
    refuse_same_key_twice(root, &axes, &whens, &recipes, reader);
    let excludes = excludes(root, reader);
    let includes = includes(root, reader);
    let rules = rules(root, &arms(&axes, &includes), &datasets, &scenarios, reader);
    let pretrain = pretrain(root, &datasets, reader);
    if scenarios.is_empty() && root.get("scenarios").is_none() {
        let cure = "write [scenarios.NAME] with `dataset` and `per_class`";
        reader.problems.push(Problem::at(root.spot, "the file has no scenario").help(cure));
    }
    let whole = |key: &str, default: usize| head.get(key).and_then(Value::count).unwrap_or(default);
    let text = |key: &str| head.get(key).and_then(Value::text).map(str::to_owned);
    let replicates = whole("replicates", 3);
    let tune_replicates = whole("tune_replicates", replicates);
    if tune_replicates > replicates
        && let Some(entry) = root.get("experiment").and_then(|head| head.node.get("tune_replicates"))
    {
        let message = format!("`tune_replicates`: {tune_replicates} of {replicates} replicates");
        let cure = "name no more than there are, or raise `replicates`";
        reader.problems.push(Problem::at(entry.node.spot, message).help(cure));
    }
    let tune_share = head.get("tune_share").and_then(Value::number);
    let comparison = match tune_share {
        Some(_) => Some("tune_share"),
        None => (tune_replicates < replicates).then_some("tune_replicates"),
    };
    if let Some(key) = comparison
        && let Some(folded) = datasets.values().find(|dataset| dataset.folds.is_some())
    {
        let message =
            format!("`{key}`: in folds ([datasets.{}]) each replicate selects a setting for itself", folded.name);
        reader.problems.push(Problem::at(folded.spot, message).help("leave it out: all settings are compared in each"));
    }
    let max_replicates = whole("max_replicates", replicates);
    refuse_looks(root, [replicates, max_replicates], &datasets, reader);
    Some(Experiment {
        name: text("name").unwrap_or(file_name),
        question: text("question").unwrap_or_default(),
        replicates,
        tune_replicates,
        tune_share,
        max_replicates,
        seed: whole("seed", 0) as u64,
        metric: head.get("metric").map_or(Ok(Metric::Accuracy), |value| recipe::word(value, "")).ok()?,
        mix_numerics: head.get("mix_numerics") == Some(&Value::Bool(true)),
        keep: head.get("keep").map_or(Ok(Keep::None), |value| recipe::word(value, "")).ok()?,
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

/// Where more replicates cannot follow from what rules find.
fn refuse_looks(
    root: &Node,
    [replicates, most]: [usize; 2],
    datasets: &BTreeMap<String, Dataset>,
    reader: &mut Reader,
) {
    let Some(entry) = root.get("experiment").and_then(|head| head.node.get("max_replicates")) else { return };
    let (spot, folded) = (entry.node.spot, datasets.values().find(|dataset| dataset.folds.is_some()));
    let mut refuse = |message: String, cure: &str| {
        reader.problems.push(Problem::at(spot, format!("`max_replicates`: {message}")).help(cure));
    };
    if most < replicates {
        refuse(format!("{most}, fewer than the {replicates} replicates that all run"), "name more, or leave it out");
    } else if most > replicates && replicates < 3 {
        refuse(format!("a first look after {replicates} replicates finds nothing"), "set `replicates` to 3 or more");
    } else if let Some(folded) = folded.filter(|_| most > replicates) {
        let message =
            format!("in folds ([datasets.{}]) it is known beforehand how often an image is tested", folded.name);
        refuse(message, "leave it out, and let `replicates` say how many folds run");
    }
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

/// The five recipes of the rules of thumb, and the one that needs no image.
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
    let zero_shot = vec![
        ("freeze", text("all")),
        ("head", text("linear")),
        ("head_start", text("class-names")),
        ("optimizer", text("none")),
        ("augment", none()),
    ];
    [
        ("linear-probe", layer(vec![("freeze", text("all")), ("head", text("linear")), ("augment", none())])),
        ("first-layers-frozen", layer(vec![("freeze", Value::Int(5))])),
        ("early-features", layer(early)),
        ("fine-tune", layer(vec![("freeze", text("none"))])),
        ("from-scratch", layer(vec![("freeze", text("none")), ("weights", text("random"))])),
        ("zero-shot", layer(zero_shot)),
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
pub fn family<'a>(root: &'a Node, family: &str, reader: &mut Reader) -> Vec<(&'a Entry, &'a [Entry])> {
    let Some(entry) = root.get(family) else { return Vec::new() };
    let members = reader.table(entry);
    members.iter().map(|member| (member, reader.table(member))).collect()
}

pub(super) fn check_dataset(layer: &Layer, spot: Spot, place: &str, reader: &mut Reader) {
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

fn rules(
    root: &Node,
    arms: &[String],
    datasets: &BTreeMap<String, Dataset>,
    scenarios: &[Scenario],
    reader: &mut Reader,
) -> Vec<Rule> {
    let mut found = Vec::new();
    for node in reader.tables(root, "rule") {
        let layer = reader.layer(node.entries().unwrap_or(&[]), &[Group::Rule], "[[rule]]");
        let Some(claim) = reader.required(&layer, "claim", node.spot, "[[rule]]") else { continue };
        let spot = node.get("claim").map_or(node.spot, |entry| entry.node.spot);
        let scenario = layer.get("scenario").map_or("*".to_owned(), Value::to_string);
        // A table that lists sizes stands for all of them.
        let named = reader.sized.get(&scenario).cloned().unwrap_or_else(|| vec![scenario.clone()]);
        if !reader.scenarios.iter().any(|name| named.iter().any(|own| like(own, name))) {
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
        let on = layer.get("on").map(Value::to_string);
        if let Some(on) = &on {
            let spot = node.get("on").map_or(node.spot, |entry| entry.node.spot);
            check_on(on, &named, datasets, scenarios, spot, reader);
        }
        let margin = layer.get("margin").and_then(Value::number).unwrap_or(0.005);
        let metric = layer.get("metric").map(Value::to_string);
        let (better, worse) = (better.to_owned(), worse.to_owned());
        let plain = Rule { scenario: String::new(), better, worse, margin, on, metric, spot };
        found.extend(named.into_iter().map(|scenario| Rule { scenario, ..plain.clone() }));
    }
    found
}

/// Whether a rule's other datasets are tested in some scenario that it speaks of.
fn check_on(
    on: &str,
    patterns: &[String],
    datasets: &BTreeMap<String, Dataset>,
    scenarios: &[Scenario],
    spot: Spot,
    reader: &mut Reader,
) {
    if reader.problems.iter().any(|problem| problem.message.starts_with("`also_test`")) {
        return;
    }
    let own = scenarios.iter().filter(|scenario| patterns.iter().any(|own| like(own, &scenario.name)));
    let targets = own.filter_map(|scenario| datasets.get(scenario.layer.get("dataset")?.text()?));
    let tested: BTreeSet<String> = targets.flat_map(|target| target.also_test.iter().map(AlsoTest::name)).collect();
    if !tested.iter().any(|other| like(on, other)) {
        let accepted: Vec<&str> = tested.iter().map(String::as_str).collect();
        let message =
            format!("no dataset that these scenarios also test matches '{on}' (`also_test` under [datasets.NAME])");
        reader.unknown(spot, message, on, &accepted);
    }
}

/// A source model is trained step by step to its last step, and rounds as what starts from it: what says otherwise would be passed
/// over.
fn refuse_idle(entries: &[Entry], reader: &mut Reader) {
    for entry in entries {
        let value = entry.node.value();
        let message = match (entry.key.as_str(), value.text()) {
            ("optimizer", Some("lbfgs" | "ridge" | "lda" | "none")) => {
                format!(
                    "optimizer = \"{value}\" is for heads on fixed features; a source model is trained with 'sgd' or 'adamw'"
                )
            }
            (key, _) if keys::IDLE_IN_PRETRAIN.contains(&key) => {
                format!(
                    "`{key}` does nothing in [pretrain]: a source model is trained to its last step, and rounds as what starts from it"
                )
            }
            _ => continue,
        };
        reader.problems.push(Problem::at(entry.spot, message).help("take it out"));
    }
}

fn pretrain(root: &Node, datasets: &BTreeMap<String, Dataset>, reader: &mut Reader) -> Option<Pretrain> {
    let entry = root.get("pretrain")?;
    let entries = reader.table(entry);
    let own = reader.layer(entries, &[Group::Pretrain, Group::Train], "[pretrain]");
    check_dataset(&own, entry.spot, "[pretrain]", reader);
    refuse_idle(entries, reader);
    let mut layer = defaults();
    overlay(&mut layer, &own);
    let dataset = layer.remove("dataset")?.to_string();
    if datasets.get(&dataset).is_some_and(|dataset| dataset.folds.is_some()) {
        let message = format!("[pretrain] would train on all images of '{dataset}', and in folds all are tested");
        let cure = format!("take a share instead: splits = {{ test = 0.2 }} under [datasets.{dataset}]");
        reader.problems.push(Problem::at(entry.spot, message).help(cure));
    }
    Some(Pretrain { dataset, layer })
}
