//! `tune_replicates`: settings are compared on the first replicates, and the others run for what validation selects there.

use std::collections::{BTreeMap, BTreeSet};

use tl_sweep::report::arm::{Repeats, Trial, arms};

use crate::builder::World;
use crate::verdicts::trial;

/// Two recipes with three learning rates in two scenarios, and one that has a single setting.
const GRID: &str = r#"
[experiment]
name = "grid"
replicates = 4
tune_replicates = 2
[backbone]
arch = "resnet8"
input = 12
weights = "random"
[datasets.one]
path = "one"
[scenarios.few]
dataset = "one"
per_class = 3
[scenarios.more]
dataset = "one"
per_class = 6
[train]
steps = 15
batch = 8
[recipes.probe]
freeze = "all"
[recipes.part]
freeze = "layer2"
augment = ["flip"]
[recipes.solved]
freeze = "all"
optimizer = "ridge"
[axes]
recipe = ["probe", "part", "solved"]
[[when]]
if = "optimizer == 'sgd'"
axes = { lr = [0.3, 0.001, 0.05] }
[[rule]]
claim = "part > probe"
"#;

/// Trials of the whole cross, and those of it that run: 4 arms of 3 settings on 2 replicates, their selected ones on 2 more,
/// and 2 arms of one setting on 4.
const CROSS: usize = (2 * 2 * 3 + 2) * 4;
const FIRST: usize = 4 * 3 * 2 + 2 * 4;
const ALL: usize = FIRST + 4 * 2;

fn grid() -> World {
    World::new().images("one", &["ants", "bees", "cats"], 20, 8).file("x.toml", GRID)
}

type Row = BTreeMap<String, String>;

fn rows(world: &World, db: &str) -> Vec<Row> {
    let csv = world.run(&["status", "grid", "--format", "csv", "--db", db]).exits(0).out;
    csv::Reader::from_reader(csv.as_bytes()).into_deserialize().map(Result::unwrap).collect()
}

/// Everything that a configuration decides of the finished trials.
fn results(world: &World, db: &str) -> BTreeSet<Vec<String>> {
    let of = ["scenario", "recipe", "lr", "replicate", "trial", "val_loss", "test_loss", "test_accuracy"];
    let done = rows(world, db).into_iter().filter(|row| row["status"] == "done");
    done.map(|row| of.map(|name| row[name].clone()).to_vec()).collect()
}

/// The learning rate of each arm with the best mean validation accuracy over the first `tuned` replicates.
fn best(rows: &[Row], tuned: usize) -> BTreeMap<(String, String), String> {
    let mut found: BTreeMap<(String, String), (f64, String)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row["replicate"] == "0") {
        let same = |other: &&Row| ["scenario", "recipe", "lr"].iter().all(|name| other[*name] == row[*name]);
        let first = rows.iter().filter(same).filter(|row| row["replicate"].parse::<usize>().unwrap() < tuned);
        let mean = first.map(|row| row["val_accuracy"].parse::<f64>().unwrap()).sum::<f64>() / tuned as f64;
        let arm = (row["scenario"].clone(), row["recipe"].clone());
        if found.get(&arm).is_none_or(|(most, _)| mean > *most) {
            found.insert(arm, (mean, row["lr"].clone()));
        }
    }
    found.into_iter().map(|(arm, (_, lr))| (arm, lr)).collect()
}

fn json(world: &World, db: &str) -> serde_json::Value {
    serde_json::from_str(&world.run(&["report", "grid", "--format", "json", "--db", db]).exits(0).out).unwrap()
}

#[test]
fn later_replicates_run_for_what_the_first_select() {
    let world = grid();
    let plan = world.run(&["plan", "x.toml"]).exits(0).out;
    let size = format!("settings compared on 2 of 4 replicates: {ALL} distinct trials instead of {CROSS}, 0 of them");
    assert!(plan.contains(&size), "{plan}");
    assert!(world.run(&["check", "x.toml"]).exits(0).out.contains(&format!("{ALL} trials, no problem")));
    let said = world.run(&["run", "x.toml", "--db", "tuned/r.sqlite"]).exits(0);
    assert!(said.err.contains(&format!("{FIRST} trials: 0 in the store, {FIRST} to run")), "{}", said.err);
    assert!(said.err.contains("up to 8 more will follow"), "{}", said.err);
    assert!(said.err.contains(&format!("{ALL} trials: {FIRST} in the store, 8 to run")), "{}", said.err);
    assert!(said.out.contains(&format!("{ALL} of {ALL} trials done")), "{}", said.out);
    assert!(said.out.contains("settings were compared on the first 2 of 4 replicates"), "{}", said.out);
    // Everything on all replicates: the same trials among others.
    let all = "experiment.tune_replicates=4";
    world.run(&["run", "x.toml", "--set", all, "--db", "whole/r.sqlite"]).exits(0);
    let (tuned, whole) = (results(&world, "tuned/r.sqlite"), results(&world, "whole/r.sqlite"));
    assert_eq!((tuned.len(), whole.len()), (ALL, CROSS));
    assert!(tuned.is_subset(&whole));
    let best = best(&rows(&world, "whole/r.sqlite"), 2);
    for row in rows(&world, "tuned/r.sqlite").iter().filter(|row| row["replicate"] == "3" && row["recipe"] != "solved")
    {
        assert_eq!(best[&(row["scenario"].clone(), row["recipe"].clone())], row["lr"]);
    }
    // The report selects on the same replicates, where later ones of all settings are there, too.
    let again = world.run(&["run", "x.toml", "--db", "whole/r.sqlite"]).exits(0);
    assert!(again.err.contains(", 0 to run"), "{}", again.err);
    let (one, other) = (json(&world, "tuned/r.sqlite"), json(&world, "whole/r.sqlite"));
    assert_eq!(
        (&one["arms"], &one["verdicts"], &one["counts"]),
        (&other["arms"], &other["verdicts"], &other["counts"])
    );
    assert_eq!((&one["replicates"], &one["tune_replicates"]), (&4.into(), &2.into()));
    assert!(one["arms"].as_array().unwrap().iter().all(|arm| arm["n"] == 4 && arm["missing"] == 0));
    for arm in one["arms"].as_array().unwrap().iter().filter(|arm| arm["recipe"] != "solved") {
        let of = (arm["context"]["scenario"].as_str().unwrap().to_owned(), arm["recipe"].as_str().unwrap().to_owned());
        let lr: f64 = best[&of].parse().unwrap();
        assert_eq!(arm["selected"], format!("lr = {lr}"));
    }
    assert!(world.run(&["run", "x.toml", "--db", "tuned/r.sqlite"]).exits(0).err.contains(", 0 to run"));
    world.run(&["verify", "x.toml", "--sample", "3", "--db", "tuned/r.sqlite"]).exits(0);
    let late =
        rows(&world, "tuned/r.sqlite").into_iter().find(|row| row["replicate"] == "3" && row["recipe"] == "part");
    let why = world.run(&["why", &late.unwrap()["trial"], "--db", "tuned/r.sqlite"]).exits(0).out;
    assert!(why.contains("among 3 of 'part'") && why.contains("over the first 2 of 4 replicates"), "{why}");
}

#[test]
fn what_is_cut_short_goes_on_to_the_same_end() {
    let world = grid();
    world.run(&["run", "x.toml", "--db", "whole/r.sqlite"]).exits(0);
    let whole = results(&world, "whole/r.sqlite");
    // A part of the settings is no comparison.
    let said = world.run(&["run", "x.toml", "--only", "lr == 0.05"]).exits(5);
    assert!(said.out.contains("missing"), "{}", said.out);
    assert_eq!(rows(&world, "results/tl-sweep.sqlite").iter().filter(|row| row["status"] == "done").count(), 4 * 2);
    let missing = json(&world, "results/tl-sweep.sqlite")["counts"]["missing"].clone();
    assert_eq!(missing, ALL - 4 * 2, "with those that no sweep has planned yet");
    // The limit goes over both rounds.
    let left = FIRST - 4 * 2;
    let said = world.run(&["run", "x.toml", "--limit", &(left + 3).to_string()]).exits(5);
    assert!(said.err.contains("3 to run"), "{}", said.err);
    assert!(said.out.contains(&format!("{} of {ALL} trials done, 5 missing", ALL - 5)), "{}", said.out);
    world.run(&["run", "x.toml"]).exits(0);
    assert_eq!(results(&world, "results/tl-sweep.sqlite"), whole);
}

#[test]
fn machines_run_the_first_replicates_and_after_a_merge_the_others() {
    let world = grid();
    world.run(&["run", "x.toml", "--db", "whole/r.sqlite"]).exits(0);
    let parts = ["one/r.sqlite", "two/r.sqlite"];
    let run = |number: usize| {
        world.run(&["run", "x.toml", "--shard", &format!("{number}/2"), "--db", parts[number - 1]]).exits(0)
    };
    let said = run(1);
    assert!(said.out.contains("then every machine runs its part again from the joined store"), "{}", said.out);
    run(2);
    let done = |db: &str| results(&world, db).len();
    assert_eq!(done(parts[0]) + done(parts[1]), FIRST);
    let said = world.run(&["merge", parts[0], parts[1]]).exits(0).out;
    assert!(said.contains("runs the rest") || said.contains(&format!("{FIRST} of {FIRST}")), "{said}");
    assert!(
        world.run(&["report"]).exits(0).out.contains(&format!("{FIRST} of {ALL} trials done, 8 missing")),
        "a store that nobody has run on since knows what is to follow"
    );
    for part in parts {
        std::fs::copy(world.path("results/tl-sweep.sqlite"), world.path(part)).unwrap();
    }
    run(1);
    // One has gone on, the other has not: they still are one experiment.
    world.run(&["merge", parts[0], parts[1]]).exits(0);
    run(2);
    assert_eq!(done(parts[0]) + done(parts[1]), FIRST + ALL);
    world.run(&["merge", parts[0], parts[1]]).exits(0);
    assert_eq!(results(&world, "results/tl-sweep.sqlite"), results(&world, "whole/r.sqlite"));
    let counts = json(&world, "results/tl-sweep.sqlite")["counts"].clone();
    assert_eq!((&counts["done"], &counts["missing"]), (&ALL.into(), &0.into()));
    assert!(world.run(&["run", "x.toml"]).exits(0).err.contains(", 0 to run"));
    // A file that compares on other replicates has other trials.
    world.run(&["run", "x.toml", "--set", "experiment.tune_replicates=1", "--db", "three/r.sqlite"]).exits(0);
    assert!(world.run(&["merge", "three/r.sqlite"]).exits(2).err.contains("is another one"));
}

#[test]
fn more_than_there_are_is_refused_and_none_that_matter_is_told() {
    let world = grid().file("x.toml", GRID.replace("tune_replicates = 2", "tune_replicates = 9"));
    let said = world.run(&["check", "x.toml"]).exits(2);
    assert!(said.err.contains("x.toml:5:19") && said.err.contains("9 of 4 replicates"), "{}", said.err);
    let world = world.file("x.toml", GRID.replace("lr = [0.3, 0.001, 0.05]", "lr = [0.05]"));
    assert!(world.run(&["check", "x.toml"]).exits(0).out.contains("tune_replicates has no effect"));
}

fn of(recipe: &str, lr: &str, vals: &[f64]) -> Vec<Trial> {
    vals.iter().enumerate().map(|(replicate, val)| trial(recipe, lr, replicate, *val, *val)).collect()
}

/// A setting that diverges where it had not yet run cannot stay selected; the next one runs then.
#[test]
fn what_diverges_later_gives_way_to_the_next() {
    let repeats = Repeats { replicates: 4, tuned: 2 };
    let mut trials = [of("a", "0.3", &[0.9, 0.8]), of("a", "0.1", &[0.7, 0.6]), of("a", "0.2", &[0.8, 0.6])].concat();
    let worth = |trials: &[Trial]| -> Vec<String> {
        arms(trials, repeats)[0].worth_all_replicates(repeats).iter().map(|setting| setting.label.clone()).collect()
    };
    let told = |trials: &[Trial]| {
        let arm = arms(trials, repeats).remove(0);
        (arm.best().map(|best| best.label.clone()), arm.missing())
    };
    assert_eq!(worth(&trials), ["lr = 0.3"]);
    assert_eq!(told(&trials), (Some("lr = 0.3".to_owned()), 2));
    // The later one went well, or is not better for it.
    trials.splice(2..2, [trial("a", "0.3", 2, 0.1, 0.1)]);
    assert_eq!(worth(&trials), ["lr = 0.3"]);
    assert_eq!(told(&trials), (Some("lr = 0.3".to_owned()), 1));
    trials[2].status = "diverged".to_owned();
    assert_eq!(worth(&trials), ["lr = 0.3", "lr = 0.2"]);
    assert_eq!(told(&trials), (Some("lr = 0.2".to_owned()), 2));
    // Among the first replicates it is no candidate at all; while one has not run there is no comparison.
    trials[1].status = "diverged".to_owned();
    assert_eq!(worth(&trials), ["lr = 0.2"]);
    trials[3].status = "failed".to_owned();
    assert!(worth(&trials).is_empty());
    trials.iter_mut().for_each(|trial| trial.status = "diverged".to_owned());
    assert!(worth(&trials).is_empty());
    assert_eq!(told(&trials), (None, 0));
    assert_eq!(
        worth(&of("a", "0.3", &[0.9])),
        ["lr = 0.3".to_owned(); 1].map(|_| String::new()),
        "one setting is no choice"
    );
}
