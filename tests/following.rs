//! `watch`, `why`, `rerun`: what a person asks during and after a sweep.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tl_sweep::model::arch::Arch;

use crate::builder::{World, listed};
use crate::materials::network;

const FILE: &str = "
[experiment]
name = \"mine\"
replicates = 3
[backbone]
arch = \"resnet8\"
weights = \"w.safetensors\"
input = 12
preprocess = \"torch\"
[datasets.mine]
path = \"mine\"
[scenarios.few]
dataset = \"mine\"
per_class = 5
[train]
steps = 20
batch = 8
[axes]
recipe = [\"linear-probe\", \"fine-tune\"]
lr = [0.05, 1e-4]
[[when]]
if = \"recipe == 'linear-probe'\"
axes = { backbone_lr = [1e-3, 1e-2] }
[[rule]]
scenario = \"few\"
claim = \"linear-probe > fine-tune\"
";

fn world() -> World {
    let world = World::new().images("mine", &["ants", "bees"], 12, 8).file("e.toml", FILE);
    network(&world, "w.safetensors", &Arch::new("resnet8", 12, 1.0));
    world
}

/// Key, recipe and learning rate of every planned trial.
fn trials(world: &World, db: &str) -> Vec<(String, serde_json::Value)> {
    let said = world.run(&["status", "mine", "--format", "json", "--db", db]).exits(0).out;
    listed(&said)
}

fn key_of(world: &World, db: &str, fits: impl Fn(&serde_json::Value) -> bool) -> String {
    trials(world, db).into_iter().find(|(_, columns)| fits(columns)).map(|(key, _)| key).unwrap()
}

#[test]
fn a_trial_says_why_it_stands_as_it_does() {
    let world = world();
    let db = "results/tl-sweep.sqlite";
    world.run(&["run", "e.toml", "--limit", "2"]).exits(5);
    let missing = key_of(&world, db, |columns| columns["status"] == "planned");
    let said = world.run(&["why", &missing]).exits(0).out;
    assert!(said.contains("it has no result: the last sweep was stopped, or limited"), "{said}");
    assert!(said.contains("of its 3 replicates have no result"), "{said}");

    world.run(&["run", "e.toml", "--set", "steps=20"]).exits(0);
    let why = |recipe: &str, lr: &str| {
        let key = key_of(&world, db, |columns| columns["recipe"] == recipe && columns["lr"] == lr);
        world.run(&["why", &key[..12]]).exits(0).out
    };
    let [good, bad] = [why("linear-probe", "0.05"), why("linear-probe", "0.0001")];
    assert!(good.contains("it ran to its end: 20 steps"), "{good}");
    assert!(good.contains("2 cells of the cross are this trial: they differ in nothing that has an effect"), "{good}");
    let (selected, other) = if good.contains("validation selects its setting") { (&good, &bad) } else { (&bad, &good) };
    assert!(selected.contains("validation selects its setting") && selected.contains("the next one"), "{selected}");
    assert!(
        selected.contains("it counts in linear-probe > fine-tune in few (mine 5), on the first side"),
        "{selected}"
    );
    assert!(other.contains("validation selects another of 2 settings of 'linear-probe'"), "{other}");
    assert!(other.contains("only the selected setting is tested"), "{other}");

    // What flags rest on is said where a flag stands, and only there.
    for (key, columns) in trials(&world, db) {
        let said = world.run(&["why", &key]).exits(0).out;
        assert_eq!(said.contains("two standard errors"), columns["at_chance"] == "1", "{said}");
        let telling = said.contains("more steps may do better");
        assert_eq!(telling, columns["under_trained"] == "1", "{said}");
    }
    let json = world.run(&["why", &missing, "--format", "json"]).exits(0).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["reasons"][0]["about"].as_str(), Some("status"));
    assert!(world.run(&["why", "nokey"]).exits(2).err.contains("no trial's key starts with"));
    assert!(world.run(&["why", &missing, "--format", "csv"]).exits(2).err.contains("[possible values: table, json]"));
}

/// The source model is a stage of its own.
const PRETRAINED: &str = "
[experiment]
name = \"mine\"
replicates = 2
[backbone]
arch = \"resnet8\"
weights = \"pretrain\"
input = 16
[pretrain]
dataset = \"source\"
steps = 4
batch = 8
[datasets.source]
synthetic = { classes = 4, train = 20, test = 5 }
[datasets.mine]
path = \"mine\"
[scenarios.few]
dataset = \"mine\"
per_class = 5
[train]
steps = 20
batch = 8
[axes]
recipe = [\"linear-probe\"]
lr = [0.05, 0.01]
";

#[test]
fn what_was_not_run_says_which_stage_failed_and_a_failed_rerun_takes_nothing_away() {
    let world = World::new().images("mine", &["ants", "bees"], 12, 8).file("e.toml", PRETRAINED);
    let db = "results/tl-sweep.sqlite";
    world.run(&["run", "e.toml", "--limit", "1"]).exits(5);
    // A folder has the place of the source model, so that it cannot be made again either, and what was encoded with it is gone.
    let [model] = &world.cached("safetensors")[..] else { panic!("one source model") };
    std::fs::remove_file(model).unwrap();
    std::fs::create_dir_all(model.join("in the way")).unwrap();
    world.cached("features").iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let before = trials(&world, db);
    let said = world.run(&["run", "e.toml"]).exits(4);
    assert!(said.err.contains("failed: encode resnet8"), "{}", said.err);
    let blocked = key_of(&world, db, |columns| columns["status"] == "blocked");
    let said = world.run(&["why", &blocked]).exits(0).out;
    assert!(said.contains("it was not run: encode resnet8 at") && said.contains("has failed:"), "{said}");

    let done = |rows: Vec<(String, serde_json::Value)>| -> Vec<(String, serde_json::Value)> {
        rows.into_iter().filter(|(_, columns)| columns["status"] == "done").collect()
    };
    let before = done(before);
    assert_eq!(before.len(), 1);
    world.run(&["rerun", "e.toml", &before[0].0]).exits(4);
    assert_eq!(done(trials(&world, db)), before, "results are replaced by results only");
}

#[test]
fn trials_run_again_and_what_they_give_takes_the_place_of_the_old() {
    let world = world();
    let db = "results/tl-sweep.sqlite";
    world.run(&["run", "e.toml", "--quiet"]).exits(0);
    let before: BTreeMap<String, serde_json::Value> = trials(&world, db).into_iter().collect();
    let keys: Vec<&String> = before.keys().collect();
    let [first, second] = [keys[0], keys[3]];
    let said = world.run(&["rerun", "e.toml", &first[..10], &second[..10]]).exits(0);
    assert!(said.out.contains("2 of 2 trials have run again, 0 gave something else"), "{}", said.out);
    assert_eq!(said.out.matches("the same as before").count(), 2);
    let store = rusqlite::Connection::open(world.path(db)).unwrap();
    let sweeps = |key: &str| -> i64 {
        store.query_row("SELECT sweep FROM trial WHERE key = ?", [key], |row| row.get(0)).unwrap()
    };
    for key in &keys {
        assert_eq!(sweeps(key), if *key == first || *key == second { 2 } else { 1 });
    }

    // A result that is not what it should be: told, and put right.
    store.execute("UPDATE trial SET test_loss = test_loss + 1e-9 WHERE key = ?", [first]).unwrap();
    let said = world.run(&["rerun", "e.toml", first]).exits(6);
    assert!(said.out.contains("test loss") && said.out.contains("1 gave something else"), "{}", said.out);
    world.run(&["rerun", "e.toml", first]).exits(0);
    let said = world.run(&["rerun", "e.toml", "--only", "recipe == 'fine-tune' && lr > 0.01"]).exits(0);
    assert!(said.out.contains("3 of 3 trials have run again"), "{}", said.out);

    assert!(world.run(&["rerun", "e.toml"]).exits(2).err.contains("<TRIAL>"));
    assert!(world.run(&["rerun", "e.toml", "nokey"]).exits(2).err.contains("no finished trial of this file"));
    let said = world.run(&["rerun", "e.toml", first, "--db", "new.sqlite"]).exits(2);
    assert!(said.err.contains("none of these trials has a result"), "{}", said.err);
}

#[test]
fn a_sweep_is_followed_from_elsewhere_and_a_killed_one_is_told() {
    let world = world();
    assert!(world.run(&["watch"]).exits(7).err.contains("there is no store"));
    let mut child = world
        .command(&["run", "e.toml", "--set", "steps=100000", "--only", "recipe == 'fine-tune'", "--slots", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let state = loop {
        let said = world.run(&["watch", "--format", "json"]).exits(0).out;
        let state: serde_json::Value = serde_json::from_str(&said).unwrap();
        if state["running"].as_array().is_some_and(|lines| !lines.is_empty()) {
            break state;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{said}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(state["experiment"].as_str(), Some("mine"));
    assert_eq!(state["pid"].as_i64(), Some(i64::from(child.id())));
    assert!(state["running"][0].as_str().unwrap().contains("few fine-tune"), "{state}");
    let said = world.run(&["watch", "--once"]).exits(0).out;
    assert!(said.starts_with("mine: 0%, 0 of 6 stages in"), "{said}");

    let mut watcher = world.command(&["watch"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    child.kill().unwrap();
    child.wait().unwrap();
    // It ends as the sweep did: with what is outstanding.
    assert_eq!(watcher.wait().unwrap().code(), Some(5));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut watcher.stdout.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("never ended: killed; `tl-sweep run` goes on from there"), "{said}");
    world.run(&["run", "e.toml", "--quiet"]).exits(0);
    let said = world.run(&["watch"]).exits(0).out;
    assert!(said.contains("trials are there, 0 failed; no sweep is running") && said.contains(": complete"), "{said}");
    assert_eq!(world.run(&["watch", "--format", "json"]).exits(0).out.trim(), "null");
    assert!(!world.path("results/tl-sweep.progress.json").exists());
}
