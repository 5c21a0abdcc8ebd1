//! `tune_replicates`: settings are compared on the first replicates, and the others run for what leads.

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

/// By arm, from the results of everything: the learning rate that leads once it has run all replicates, and all that have led.
fn leaders(rows: &[Row], tuned: usize) -> BTreeMap<(String, String), (String, BTreeSet<String>)> {
    let arm = |row: &Row| (row["scenario"].clone(), row["recipe"].clone());
    let mut found = BTreeMap::new();
    for of in rows.iter().map(arm).collect::<BTreeSet<_>>() {
        let own: Vec<&Row> = rows.iter().filter(|row| arm(row) == of).collect();
        let mut rates: Vec<&String> = own.iter().map(|row| &row["lr"]).collect();
        rates.dedup();
        let mut led = BTreeSet::new();
        let leads = loop {
            let mean = |lr: &str| {
                let on = if led.contains(lr) { 4 } else { tuned };
                let first = own.iter().filter(|row| row["lr"] == lr && row["replicate"].parse::<usize>().unwrap() < on);
                first.map(|row| row["val_accuracy"].parse::<f64>().unwrap()).sum::<f64>() / on as f64
            };
            let leads = rates.iter().copied().reduce(|one, other| if mean(other) > mean(one) { other } else { one });
            let leads = leads.unwrap().clone();
            if !led.insert(leads.clone()) {
                break leads;
            }
        };
        found.insert(of, (leads, led));
    }
    found
}

fn json(world: &World, db: &str) -> serde_json::Value {
    serde_json::from_str(&world.run(&["report", "grid", "--format", "json", "--db", db]).exits(0).out).unwrap()
}

#[test]
fn later_replicates_run_for_what_leads() {
    let world = grid();
    let plan = world.run(&["plan", "x.toml"]).exits(0).out;
    let size = format!("settings compared on 2 of 4 replicates: about {ALL} distinct trials instead of {CROSS}, 0 of");
    assert!(plan.contains(&size), "{plan}");
    assert!(world.run(&["check", "x.toml"]).exits(0).out.contains(&format!("about {ALL} trials, no problem")));
    let said = world.run(&["run", "x.toml", "--db", "tuned/r.sqlite"]).exits(0);
    assert!(said.err.contains(&format!("{FIRST} trials: 0 in the store, {FIRST} to run")), "{}", said.err);
    assert!(said.err.contains("about 8 more will follow"), "{}", said.err);
    assert!(said.err.contains(&format!("{ALL} trials: {FIRST} in the store, 8 to run")), "{}", said.err);
    assert!(said.out.contains("settings were compared on the first 2 of 4 replicates"), "{}", said.out);
    // Everything on all replicates: the same trials among others.
    let all = "experiment.tune_replicates=4";
    world.run(&["run", "x.toml", "--set", all, "--db", "whole/r.sqlite"]).exits(0);
    let (tuned, whole) = (results(&world, "tuned/r.sqlite"), results(&world, "whole/r.sqlite"));
    let leaders = leaders(&rows(&world, "whole/r.sqlite"), 2);
    let led = |row: &Row| &leaders[&(row["scenario"].clone(), row["recipe"].clone())].1;
    let worth: usize = leaders.values().map(|(_, led)| led.len()).sum();
    assert_eq!((tuned.len(), whole.len()), (4 * 3 * 2 + 2 * 2 + worth * 2, CROSS));
    assert!(tuned.is_subset(&whole));
    for row in rows(&world, "tuned/r.sqlite").iter().filter(|row| row["replicate"] == "3") {
        assert!(led(row).contains(&row["lr"]), "{row:?}");
    }
    // The report selects in the same way where later replicates of all settings are there, too.
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
        let lr: f64 = leaders[&of].0.parse().unwrap();
        assert_eq!(arm["selected"], format!("lr = {lr}"));
    }
    assert!(world.run(&["run", "x.toml", "--db", "tuned/r.sqlite"]).exits(0).err.contains(", 0 to run"));
    world.run(&["verify", "x.toml", "--sample", "3", "--db", "tuned/r.sqlite"]).exits(0);
    let late =
        rows(&world, "tuned/r.sqlite").into_iter().find(|row| row["replicate"] == "3" && row["recipe"] == "part");
    let why = world.run(&["why", &late.unwrap()["trial"], "--db", "tuned/r.sqlite"]).exits(0).out;
    assert!(why.contains("of 'part' in few: ") && why.contains(" over 4 of 4 replicates"), "{why}");
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
    let merge = || world.run(&["merge", parts[0], parts[1]]).exits(0);
    assert_eq!(done(parts[0]) + done(parts[1]), FIRST);
    merge();
    assert!(
        world.run(&["report"]).exits(0).out.contains(&format!("{FIRST} of {ALL} trials done, 8 missing")),
        "a store that nobody has run on since knows what is to follow"
    );
    let joined = "results/tl-sweep.sqlite";
    let mut rounds = 0;
    while json(&world, joined)["counts"]["missing"] != 0 {
        let before = done(joined);
        for part in parts {
            std::fs::copy(world.path(joined), world.path(part)).unwrap();
        }
        // Run twice, one machine does no more; one that has gone on and one that has not are one experiment.
        (0..2).for_each(|_| drop(run(1)));
        merge();
        (0..2).for_each(|_| drop(run(2)));
        merge();
        assert_eq!(done(parts[0]) + done(parts[1]) - 2 * before, done(joined) - before, "a trial in two parts");
        rounds += 1;
        assert!(rounds < 4);
    }
    assert_eq!(results(&world, "results/tl-sweep.sqlite"), results(&world, "whole/r.sqlite"));
    let counts = json(&world, "results/tl-sweep.sqlite")["counts"].clone();
    assert_eq!(counts["done"], done(joined));
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

/// A setting that falls behind where it had not yet run, or diverges there, cannot stay selected: the next one runs.
#[test]
fn what_leads_on_few_replicates_must_lead_on_all() {
    let repeats = Repeats { replicates: 4, tuned: 2, share: None, most: 4 };
    let told = |trials: &[Trial]| {
        let arm = arms(trials, repeats).remove(0);
        let named = |index: usize| arm.settings[index].label.replace("lr = ", "");
        let best = arm.selected.map(named).unwrap_or_default();
        (arm.worth.iter().map(|index| named(*index)).collect::<Vec<_>>().join(" "), best, arm.missing())
    };
    let whole = |worth: &str, best: &str, missing: usize| (worth.to_owned(), best.to_owned(), missing);
    let first = |rest: &[f64]| of("a", "0.3", &[&[0.9, 0.8], rest].concat());
    let others = [of("a", "0.1", &[0.7, 0.6]), of("a", "0.2", &[0.8, 0.6])].concat();
    let with = |rest: &[f64]| [first(rest), others.clone()].concat();
    assert_eq!(told(&with(&[])), whole("0.3", "0.3", 2));
    assert_eq!(told(&with(&[0.1])), whole("0.3", "0.3", 1), "it has not fallen before all are there");
    assert_eq!(told(&with(&[0.6, 0.6])), whole("0.3", "0.3", 0), "worse than before, and still the best");
    assert_eq!(told(&with(&[0.1, 0.1])), whole("0.3 0.2", "0.2", 2));
    let next = |rest: &[f64]| [with(&[0.1, 0.1]), of("a", "0.2", &[&[0.8, 0.6], rest].concat())[2..].to_vec()].concat();
    let sorted = |mut trials: Vec<Trial>| {
        // As the store hands them over: cell by cell.
        trials.sort_by_key(|trial| {
            (trial.settings["lr"].clone() != "0.3", trial.settings["lr"].clone(), trial.replicate)
        });
        let mut kept: Vec<Trial> = Vec::new();
        for mut trial in trials {
            let before = kept.last().filter(|last| last.cell == trial.cell).map(|last| last.settings.clone());
            trial.settings = before.unwrap_or(trial.settings);
            kept.push(trial);
        }
        kept
    };
    assert_eq!(
        told(&sorted(next(&[0.7, 0.5]))),
        whole("0.3 0.2 0.1", "0.1", 2),
        ".65 on all, as .65 on the first of 0.1"
    );
    assert_eq!(told(&sorted(next(&[0.9, 0.9]))), whole("0.3 0.2", "0.2", 0));
    let mut trials = with(&[0.9]);
    trials[2].status = "diverged".to_owned();
    assert_eq!(told(&trials), whole("0.3 0.2", "0.2", 2));
    // Among the first replicates it is no candidate at all; while one has not run there is no comparison.
    trials[1].status = "diverged".to_owned();
    assert_eq!(told(&trials), whole("0.2", "0.2", 2));
    trials[3].status = "failed".to_owned();
    assert_eq!(told(&trials), whole("", "0.2", 3));
    trials.iter_mut().for_each(|trial| trial.status = "diverged".to_owned());
    assert_eq!(told(&trials), whole("", "", 0));
    assert_eq!(told(&of("a", "0.3", &[0.9])).0, "", "one setting is no choice, and has no label");
    assert_eq!(arms(&of("a", "0.3", &[0.9]), repeats)[0].worth, [0]);
}
