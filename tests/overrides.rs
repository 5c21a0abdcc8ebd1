//! What one call changes: `--set`, which is what the file would say and stays with the results, and `--budget`, how long it may take.

use std::collections::{BTreeMap, BTreeSet};

use crate::builder::{World, listed};

const FILE: &str = "
[experiment]
name = \"mine\"
replicates = 2
[backbone]
arch = \"resnet8\"
weights = \"random\"
input = 12
[datasets.mine]
path = \"mine\"
[scenarios.few]
dataset = \"mine\"
per_class = 5
[recipes.scratch]
freeze = \"none\"
[train]
steps = 12
batch = 8
[axes]
recipe = [\"scratch\"]
lr = [0.01, 0.05]
[[when]]
if = \"lr > 0.03\"
axes = { backbone_lr = { log = [1e-3, 1e-2], n = 2 } }
[[zip]]
momentum = [0.0, 0.9]
nesterov = [false, true]
";

fn world() -> World {
    World::new().images("mine", &["ants", "bees"], 12, 8).file("e.toml", FILE)
}

fn keys(world: &World) -> Vec<String> {
    let said = world.run(&["status", "mine", "--format", "json"]).exits(0).out;
    let rows = listed(&said);
    let mut keys: Vec<String> = rows.into_iter().map(|(key, _)| key).collect();
    keys.sort();
    keys
}

#[test]
fn a_change_is_what_the_file_would_say_and_stays_with_the_results() {
    let world = world();
    let set = ["--set", "train.steps=4", "--set", "lr=0.02", "--set", "optimizer=adamw", "--set", "momentum = 0"];
    // Momentum is one of the keys that a zip moves.
    let said = world.run(&[&["run", "e.toml", "--quiet"], &set[..]].concat()).exits(2);
    assert!(
        said.err.contains("`momentum` is no single setting in this file: [[zip]] moves it together"),
        "{}",
        said.err
    );
    assert!(!world.path("results").exists(), "nothing was run and nothing was changed");

    let said = world.run(&[&["run", "e.toml", "--limit", "1"], &set[..6]].concat()).exits(5);
    let again = "`tl-sweep run e.toml --set 'train.steps=4' --set 'lr=0.02' --set 'optimizer=adamw'` goes on from here";
    assert!(said.err.contains(again), "{}", said.err);
    let said = world.run(&[&["run", "e.toml"], &set[..6]].concat()).exits(0);
    let line = "with --set train.steps = 4, axes.lr = [0.02], train.optimizer = \"adamw\"";
    assert!(said.out.contains(line), "{}", said.out);
    let set_keys = keys(&world);
    assert_eq!(set_keys.len(), 4, "two of momentum, two replicates; the learning rate is below the condition's");
    for format in ["md", "html", "latex"] {
        assert!(world.run(&["report", "--format", format]).exits(0).out.contains("train.steps = 4"), "{format}");
    }
    let report = world.run(&["report", "--format", "json"]).exits(0).out;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["set"][1].as_str(), Some("axes.lr = [0.02]"));
    let said = world.run(&[&["verify", "e.toml", "--sample", "1"], &set[..6]].concat()).exits(0);
    assert!(said.out.contains("the same"), "{}", said.out);

    // The same written into the file: the same trials, nothing to run.
    let written =
        FILE.replace("steps = 12", "steps = 4\noptimizer = \"adamw\"").replace("lr = [0.01, 0.05]", "lr = [0.02]");
    let world = world.file("written.toml", written);
    world.run(&["run", "written.toml"]).exits(0);
    assert_eq!(keys(&world), set_keys);
    assert!(!world.run(&["report"]).exits(0).out.contains("--set"));
}

#[test]
fn a_bundle_holds_what_was_changed() {
    let world = world();
    let set = ["--set", "steps=3", "--set", "replicates=1"];
    world.run(&[&["run", "e.toml", "--quiet"], &set[..]].concat()).exits(0);
    let said = world.run(&["export", "e.toml", "--bundle", "--out", "b.tar.gz"]).exits(2);
    assert!(
        said.err.contains("has changed since it was run (with --set train.steps = 3, experiment.replicates = 1)"),
        "{}",
        said.err
    );
    world.run(&[&["export", "e.toml", "--bundle", "--out", "b.tar.gz"], &set[..]].concat()).exits(0);
    let said = world.run(&["verify", "b.tar.gz", "--all"]).exits(0);
    assert!(said.out.contains("the same"), "{}", said.out);
    let said = world.run(&["verify", "b.tar.gz", "--set", "steps=3"]).exits(2);
    assert!(said.err.contains("a bundle is what was run"), "{}", said.err);
}

#[test]
fn a_slip_is_told_with_its_cure() {
    let world = world();
    for (set, told) in [
        ("steps", "KEY=VALUE is needed"),
        ("epoch=2", "did you mean `epochs`?"),
        ("freeze=5", "recipes.NAME.freeze=..."),
        ("train.lr=0.1", "change the axis: axes.lr=[...]"),
        ("recipes.scratsh.lr=0.1", "did you mean `recipes.scratch`?"),
        ("recipes.linear-probe.lr=0.1", "would replace it"),
        ("scenarios.fev.per_class=3", "did you mean `scenarios.few`?"),
        ("augment=[flip]", "is no TOML value"),
        ("optimizer=adam", "--> --set:2:19"),
        ("train.stps=3", "did you mean `steps`?"),
        ("rule.margin=0.1", "is a list of tables"),
        ("backbone_lr=0.1", "[[when]] makes an axis of it"),
        ("train.backbone_lr=0.1", "[[when]] makes an axis of it"),
    ] {
        let said = world.run(&["check", "e.toml", "--set", set]).exits(2);
        assert!(said.err.contains(told), "{set}:\n{}", said.err);
    }
    // One budget replaces the other, and later changes stand beside earlier ones.
    world.run(&["check", "e.toml", "--set", "epochs=2", "--set", "scenarios.few.per_class=4"]).exits(0);
    let said = world.run(&["check", "e.toml", "--set", "steps=2", "--set", "train.steps=3"]).exits(2);
    assert!(said.err.contains("duplicate key"), "{}", said.err);
}

/// Two recipes of which one would take hours.
const LONG: &str = r#"
[experiment]
name = "long"
replicates = 2
[backbone]
arch = "resnet8"
input = 12
weights = "random"
[datasets.mine]
path = "mine"
[scenarios.s]
dataset = "mine"
[recipes.quick]
steps = 4
[recipes.endless]
steps = 100_000_000
[train]
batch = 8
[axes]
recipe = ["endless", "quick"]
"#;

#[test]
fn a_budget_starts_nothing_that_would_end_later() {
    let world = World::new().images("mine", &["ants", "bees"], 10, 5).file("x.toml", LONG);
    let done = || {
        let csv = world.run(&["status", "long", "--format", "csv"]).exits(0).out;
        let rows = csv::Reader::from_reader(csv.as_bytes()).into_deserialize::<BTreeMap<String, String>>();
        let rows = rows.map(Result::unwrap).filter(|row| row["status"] == "done");
        rows.map(|row| format!("{} {}", row["recipe"], row["replicate"])).collect::<BTreeSet<_>>()
    };
    let none = world.run(&["run", "x.toml", "--budget", "0s"]).exits(5);
    assert!(none.err.contains("what is left of 0s is too short for any of the 4 stages that wait"), "{}", none.err);
    assert!(done().is_empty());
    let plan = world.run(&["plan", "x.toml", "--budget", "5m"]).exits(0).out;
    assert!(plan.contains("in 5m: about 2 of the 4 trials that are to run: not one replicate of all cells"), "{plan}");
    let json = world.run(&["plan", "x.toml", "--budget", "5m", "--format", "json"]).exits(0).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["budget"], serde_json::json!({ "trials": 2, "of": 4, "replicates": 0 }));
    let some = world.run(&["run", "x.toml", "--budget", "5m"]).exits(5);
    assert!(some.err.contains("what is left of 5m is too short for any of the 2 stages that wait"), "{}", some.err);
    assert!(some.err.contains("goes on from here"), "{}", some.err);
    assert_eq!(done(), ["quick 0", "quick 1"].map(str::to_owned).into());
    let enough = world.run(&["run", "x.toml", "--budget", "5m", "--only", "recipe == 'quick'"]).exits(5);
    assert!(!enough.err.contains("too short"), "{}", enough.err);
    let wrong = world.run(&["run", "x.toml", "--budget", "soon"]).exits(2).err;
    assert!(wrong.contains("--budget <TIME>"), "{wrong}");
}
