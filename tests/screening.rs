//! `tune_share`: settings are compared on a share of their budget first, and the best of them run all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tl_sweep::key::Key;
use tl_sweep::report::arm::{Arm, Repeats, Trial, arms};

use crate::builder::World;
use crate::keeping::kept;
use crate::verdicts::trial;

/// Five rates for two recipes that train step by step, one of them in two phases, and one recipe with a single setting.
const GRID: &str = r#"
[experiment]
name = "grid"
replicates = 3
tune_share = 0.2
[backbone]
arch = "resnet8"
input = 12
weights = "random"
[datasets.one]
path = "one"
[scenarios.few]
dataset = "one"
per_class = 4
[train]
steps = 20
batch = 8
[recipes.part]
freeze = "layer2"
[recipes.phased]
phases = [{ freeze = "all", steps = 10 }, { freeze = "layer2", epochs = 6 }]
[recipes.solved]
freeze = "all"
optimizer = "ridge"
[axes]
recipe = ["part", "phased", "solved"]
[[when]]
if = "optimizer == 'sgd'"
axes = { lr = [0.3, 0.001, 0.1, 0.01, 0.03] }
[[rule]]
claim = "part > phased"
"#;

/// Two arms of five settings on three replicates with a share of their budget; two settings of each with all of it; and the one
/// that has no choice.
const SHORT: usize = 2 * 5 * 3;
const ALL: usize = SHORT + 2 * 2 * 3 + 3;

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
    let of =
        ["recipe", "lr", "tune_share", "replicate", "trial", "steps_run", "val_loss", "test_loss", "test_accuracy"];
    let done = rows(world, db).into_iter().filter(|row| row["status"] == "done");
    done.map(|row| of.map(|name| row[name].clone()).to_vec()).collect()
}

fn json(world: &World, db: &str) -> serde_json::Value {
    serde_json::from_str(&world.run(&["report", "grid", "--format", "json", "--db", db]).exits(0).out).unwrap()
}

/// The two rates of a recipe that are best on validation with a share of the budget, the first of equals, in the order of the file.
fn best_of_short(rows: &[Row], recipe: &str) -> BTreeSet<String> {
    let own: Vec<&Row> = rows.iter().filter(|row| row["recipe"] == recipe && !row["tune_share"].is_empty()).collect();
    let mut rates = ["0.3", "0.001", "0.1", "0.01", "0.03"];
    let sum = |lr: &str| {
        own.iter().filter(|row| row["lr"] == lr).map(|row| row["val_accuracy"].parse::<f64>().unwrap()).sum::<f64>()
    };
    rates.sort_by(|one, other| sum(other).total_cmp(&sum(one)));
    rates[..2].iter().map(|lr| (*lr).to_owned()).collect()
}

#[test]
fn the_best_on_a_share_of_the_budget_run_all_of_it() {
    let world = grid();
    let plan = world.run(&["plan", "x.toml"]).exits(0).out;
    let size = format!(
        "11 cells, settings compared on 0.2 of their budget first: about {ALL} distinct trials, {SHORT} of them with that share, \
         instead of 33, 0 of them in the store"
    );
    assert!(plan.contains(&size), "{plan}");
    assert!(world.run(&["check", "x.toml"]).exits(0).out.contains(&format!("about {ALL} trials, no problem")));
    let said = world.run(&["run", "x.toml", "--db", "short/r.sqlite"]).exits(0);
    let first = SHORT + 3;
    assert!(said.err.contains(&format!("{first} trials: 0 in the store, {first} to run")), "{}", said.err);
    assert!(said.err.contains("about 12 more will follow"), "{}", said.err);
    assert!(said.err.contains(&format!("{ALL} trials: {first} in the store, 12 to run")), "{}", said.err);
    let note = "the settings of 2 of 3 recipes were compared on 0.2 of their budget first";
    assert!(said.out.contains(note), "{}", said.out);
    let own = rows(&world, "short/r.sqlite");
    assert_eq!(own.len(), ALL);
    // A fifth of 20 steps; of 10 steps and 6 epochs of two steps 2 steps and one epoch.
    let steps = |recipe: &str, short: bool| -> BTreeSet<String> {
        let of = own.iter().filter(|row| row["recipe"] == recipe && row["tune_share"].is_empty() != short);
        of.map(|row| row["steps_run"].clone()).collect()
    };
    assert_eq!((steps("part", true), steps("part", false)), (["4".to_owned()].into(), ["20".to_owned()].into()));
    assert_eq!((steps("phased", true), steps("phased", false)), (["4".to_owned()].into(), ["22".to_owned()].into()));
    for recipe in ["part", "phased"] {
        let whole = own.iter().filter(|row| row["recipe"] == recipe && row["tune_share"].is_empty());
        assert_eq!(whole.map(|row| row["lr"].clone()).collect::<BTreeSet<_>>(), best_of_short(&own, recipe));
    }
    let report = json(&world, "short/r.sqlite");
    let arms = report["arms"].as_array().unwrap();
    assert!(arms.iter().all(|arm| arm["n"] == 3 && arm["missing"] == 0), "{report}");
    assert_eq!(arms.iter().map(|arm| arm["with_whole_budget"].as_u64()).collect::<Vec<_>>(), [Some(2), Some(2), None]);
    assert_eq!((&arms[0]["tried"], &report["tune_share"]), (&5.into(), &0.2.into()));
    assert_eq!(report["counts"]["planned"], ALL);
    assert!(world.run(&["run", "x.toml", "--db", "short/r.sqlite"]).exits(0).err.contains(", 0 to run"));
    world.run(&["verify", "x.toml", "--sample", "4", "--db", "short/r.sqlite"]).exits(0);
}

/// A trial with a share of the budget does what it would do in a file that asks for no more steps, but that test is not read; one
/// with all of it is that of a file that compares on all, and does not run twice.
#[test]
fn short_trials_are_those_of_a_short_budget_without_a_test() {
    let world = grid();
    let plain = GRID.replace("tune_share = 0.2\n", "");
    let short =
        plain.replace("steps = 20", "steps = 4").replace("steps = 10", "steps = 2").replace("epochs = 6", "epochs = 1");
    let world = world.file("short.toml", short.replace("\"grid\"", "\"short\"")).file("whole.toml", plain.clone());
    world.run(&["run", "short.toml", "--db", "short/r.sqlite"]).exits(0);
    world.run(&["run", "x.toml"]).exits(0);
    let db = "results/tl-sweep.sqlite";
    let learned = |db: &str, name: &str, of: fn(&Row) -> bool| -> BTreeSet<Vec<String>> {
        let csv = world.run(&["status", name, "--format", "csv", "--db", db]).exits(0).out;
        let rows = csv::Reader::from_reader(csv.as_bytes()).into_deserialize().map(Result::<Row, _>::unwrap);
        let own = ["recipe", "lr", "replicate", "steps_run", "val_loss", "val_accuracy", "under_trained"];
        rows.filter(of).map(|row| own.map(|name| row[name].clone()).to_vec()).collect()
    };
    let short = learned(db, "grid", |row| !row["tune_share"].is_empty());
    assert_eq!(short.len(), SHORT);
    assert_eq!(short, learned("short/r.sqlite", "short", |row| row["recipe"] != "solved"));
    let of_short = rows(&world, db).into_iter().filter(|row| !row["tune_share"].is_empty());
    let [one, other] = [0, 1].map(|at| of_short.clone().nth(at).unwrap()["trial"].clone());
    assert!(of_short.clone().all(|row| row["test_loss"].is_empty() && row["test_accuracy"].is_empty()));
    let store = rusqlite::Connection::open(world.path(db)).unwrap();
    let tested = "SELECT coalesce(sum(length(predicted)), 0) FROM prediction WHERE trial = ? AND part = 'test'";
    let tested = |trial: &str| store.query_row(tested, [trial], |row| row.get::<_, usize>(0)).unwrap();
    assert_eq!(
        of_short.map(|row| tested(&row["trial"])).sum::<usize>(),
        0,
        "test is not read for a comparison of settings"
    );
    assert!(!world.run(&["show", &one]).exits(0).out.contains("test by class"));
    let said = world.run(&["compare", &one, &other]).exits(0).out;
    assert!(said.contains("no test images that both have answered"), "{said}");
    let said = world.run(&["export", "x.toml", &one, "--out", "short.safetensors"]).exits(0).out;
    assert!(said.contains("test accuracy none"), "{said}");
    let before = json(&world, db);
    let said = world.run(&["run", "whole.toml"]).exits(0);
    assert!(said.err.contains("33 trials: 15 in the store, 18 to run"), "{}", said.err);
    // The others have run their whole budget now, too: they change nothing.
    assert!(world.run(&["run", "x.toml"]).exits(0).err.contains(", 0 to run"));
    let after = json(&world, db);
    assert_eq!((&before["arms"], &before["verdicts"]), (&after["arms"], &after["verdicts"]));
}

/// What is compared first is not trained again on validation images, and not kept; other datasets are not read for it.
#[test]
fn short_trials_end_with_their_validation() {
    let refit = GRID.replace("tune_share = 0.2", "tune_share = 0.2\nrefit = true\nkeep = \"all\"");
    let both = refit.replace("path = \"one\"", "path = \"one\"\nalso_test = [\"fog 3\"]");
    let world = grid_of(&both);
    // Short ones of the first recipe: had they been kept, nothing would have tidied them away before the end.
    world.run(&["run", "x.toml", "--limit", "4"]).exits(5);
    assert!(kept(&world).is_empty());
    world.run(&["run", "x.toml"]).exits(0);
    let db = "results/tl-sweep.sqlite";
    let steps = |short: bool| -> BTreeSet<String> {
        let of =
            rows(&world, db).into_iter().filter(|row| row["recipe"] == "part" && row["tune_share"].is_empty() != short);
        of.map(|row| row["steps_run"].clone()).collect()
    };
    assert_eq!((steps(true), steps(false)), (["4".to_owned()].into(), ["40".to_owned()].into()));
    let store = rusqlite::Connection::open(world.path(db)).unwrap();
    let count = |text: &str| store.query_row(text, [], |row| row.get::<_, usize>(0)).unwrap();
    assert_eq!(count("SELECT count(DISTINCT trial) FROM shifted"), ALL - SHORT);
    assert_eq!(count("SELECT count(*) FROM result WHERE test_loss IS NOT NULL"), ALL - SHORT);
    assert_eq!(kept(&world).len(), ALL - SHORT);
    world.run(&["verify", "x.toml", "--sample", "6"]).exits(0);
}

#[test]
fn what_is_cut_short_goes_on_to_the_same_end() {
    let world = grid();
    world.run(&["run", "x.toml", "--db", "whole/r.sqlite"]).exits(0);
    let whole = results(&world, "whole/r.sqlite");
    let said = world.run(&["run", "x.toml", "--only", "lr == 0.1"]).exits(5);
    assert!(said.out.contains("missing"), "{}", said.out);
    let db = "results/tl-sweep.sqlite";
    assert_eq!(results(&world, db).len(), 2 * 3, "a part of the settings is no comparison");
    assert_eq!(json(&world, db)["counts"]["missing"], ALL - 6);
    world.run(&["run", "x.toml", "--limit", &(SHORT + 3 - 6 + 5).to_string()]).exits(5);
    assert_eq!(results(&world, db).len(), SHORT + 3 + 5, "the limit goes over both rounds");
    assert_eq!(json(&world, db)["counts"]["missing"], ALL - SHORT - 3 - 5);
    world.run(&["run", "x.toml"]).exits(0);
    assert_eq!(results(&world, db), whole);
    let of = |share: bool, kept: bool| {
        let rows = rows(&world, db).into_iter();
        let best = best_of_short(&rows.clone().collect::<Vec<_>>(), "part");
        let mut found = rows.filter(|row| {
            row["recipe"] == "part" && row["tune_share"].is_empty() != share && best.contains(&row["lr"]) == kept
        });
        found.next().unwrap()["trial"].clone()
    };
    let why = |trial: &str| world.run(&["why", trial]).exits(0).out;
    let said = why(&of(true, true));
    assert!(
        said.contains("with 0.2 of its budget its setting (lr = ") && said.contains("this one among them"),
        "{said}"
    );
    assert!(!said.contains("selection"), "{said}");
    let said = why(&of(true, false));
    assert!(said.contains("2 of 5 settings of 'part' in few run all of it, not this one: lr = "), "{said}");
    assert!(why(&of(false, true)).contains("selection"));
}

#[test]
fn machines_compare_first_and_after_a_merge_run_what_is_worth_it() {
    let grid = GRID.replace("tune_share = 0.2", "tune_share = 0.2\ntune_replicates = 1");
    let world = grid_of(&grid);
    world.run(&["run", "x.toml", "--db", "whole/r.sqlite"]).exits(0);
    let whole = results(&world, "whole/r.sqlite");
    let own = rows(&world, "whole/r.sqlite");
    let count = |short: bool, replicate: &str| {
        own.iter().filter(|row| row["tune_share"].is_empty() != short && row["replicate"] == replicate).count()
    };
    assert_eq!([count(true, "0"), count(true, "1"), count(false, "0")], [10, 0, 2 * 2 + 1]);
    assert!((3..=5).contains(&count(false, "2")), "the others run for what leads");
    let parts = ["one/r.sqlite", "two/r.sqlite"];
    let joined = "results/tl-sweep.sqlite";
    let run = |number: usize| {
        world.run(&["run", "x.toml", "--shard", &format!("{number}/2"), "--db", parts[number - 1]]).exits(0)
    };
    let merge = || world.run(&["merge", parts[0], parts[1]]).exits(0);
    run(1);
    run(2);
    merge();
    let mut rounds = 0;
    while json(&world, joined)["counts"]["missing"] != 0 {
        let before = results(&world, joined).len();
        for part in parts {
            std::fs::copy(world.path(joined), world.path(part)).unwrap();
        }
        // One machine may be ahead of the other when they are joined.
        run(1);
        merge();
        run(2);
        merge();
        let both = results(&world, parts[0]).len() + results(&world, parts[1]).len();
        assert_eq!(both - 2 * before, results(&world, joined).len() - before, "a trial in two parts");
        rounds += 1;
        assert!(rounds < 6);
    }
    assert_eq!(results(&world, joined), whole);
    assert!(world.run(&["run", "x.toml"]).exits(0).err.contains(", 0 to run"));
    world.run(&["run", "x.toml", "--set", "experiment.tune_share=0.4", "--db", "three/r.sqlite"]).exits(0);
    assert!(world.run(&["merge", "three/r.sqlite"]).exits(2).err.contains("is another one"));
}

fn grid_of(text: &str) -> World {
    grid().file("x.toml", text)
}

#[test]
fn a_share_that_cannot_be_or_has_no_effect_is_told() {
    let refused = |old: &str, new: &str, expected: &str| {
        let world = grid_of(&GRID.replace(old, new));
        let said = world.run(&["check", "x.toml"]).exits(2);
        assert!(said.err.contains(expected), "{}", said.err);
    };
    refused("tune_share = 0.2", "tune_share = 0.5", "a number from 0.01 to 0.49");
    refused("tune_share = 0.2", "tune_share = true", "x.toml:5:14");
    refused("[train]", "[train]\ntune_share = 0.2", "tune_share");
    let folded = GRID.replace("path = \"one\"", "path = \"one/train\"\nfolds = 3");
    let said = grid_of(&folded).run(&["check", "x.toml"]).exits(2);
    assert!(said.err.contains("`tune_share`: in folds ([datasets.one])"), "{}", said.err);
    let few = GRID.replace("lr = [0.3, 0.001, 0.1, 0.01, 0.03]", "lr = [0.3, 0.001]");
    assert!(grid_of(&few).run(&["check", "x.toml"]).exits(0).out.contains("tune_share has no effect"));
    let said = grid_of(&few).run(&["run", "x.toml"]).exits(0);
    assert!(!said.out.contains("of their budget") && said.out.contains("15 of 15 trials done"), "{}", said.out);
}

/// Replicates of a setting with a share of the budget; without a number one diverged.
fn short(lr: &str, vals: &[Option<f64>]) -> Vec<Trial> {
    let settings = {
        let mut settings = (*trial("a", lr, 0, 0.0, 0.0).settings).clone();
        settings.insert("tune_share", "0.25".to_owned());
        Rc::new(settings)
    };
    let one = |(replicate, val): (usize, &Option<f64>)| Trial {
        key: Key::of("short", &(lr, replicate)),
        cell: Key::of("short cell", &lr),
        status: if val.is_some() { "done" } else { "diverged" }.to_owned(),
        settings: Rc::clone(&settings),
        val: *val,
        ..trial("a", lr, replicate, 0.0, 0.0)
    };
    vals.iter().enumerate().map(one).collect()
}

fn whole(lr: &str, vals: &[f64]) -> Vec<Trial> {
    let settings = trial("a", lr, 0, 0.0, 0.0).settings;
    let one = |(replicate, val): (usize, &f64)| Trial {
        settings: Rc::clone(&settings),
        ..trial("a", lr, replicate, *val, *val)
    };
    vals.iter().enumerate().map(one).collect()
}

#[test]
fn a_share_of_the_settings_goes_on() {
    let repeats = Repeats { replicates: 3, tuned: 2, share: Some(0.25), most: 3 };
    let arm = |trials: &[Vec<Trial>]| -> Arm {
        let mut arms = arms(&trials.concat(), repeats);
        assert_eq!(arms.len(), 1, "a share is no context");
        arms.remove(0)
    };
    let kept = |arm: &Arm| {
        let kept = arm.screening.as_ref().unwrap().kept.as_ref()?;
        Some(kept.iter().map(|index| arm.settings[*index].label.as_str()).collect::<Vec<_>>().join(" "))
    };
    let both = |one: f64, other: f64| [Some(one), Some(other)];
    let first = [short("0.1", &both(0.5, 0.5)), short("0.2", &both(0.4, 0.6)), short("0.3", &both(0.9, 0.2))];
    let all = arm(&first);
    assert_eq!(kept(&all).as_deref(), Some("lr = 0.1 lr = 0.3"), "of equals the first in the file");
    assert_eq!((all.tried(), all.missing(), all.selected), (3, 2 * 2 + 1, None), "of what no sweep has planned yet");
    // What led on the share does not lead on the whole; what was left behind is not looked at, whatever it has.
    let [one, two, three] = first.clone();
    let ran = [one, whole("0.1", &[0.7, 0.7]), two, whole("0.2", &[1.0; 3]), three, whole("0.3", &[0.6, 0.6])];
    let ran = arm(&ran);
    assert_eq!((ran.best().unwrap().label.as_str(), ran.missing()), ("lr = 0.1", 1));
    assert!(ran.settings[1].trials.is_empty() && ran.settings[1].validation.is_none());
    assert_eq!(ran.at_ends(), ["lr is the smallest of 3"], "of all that were tried");
    // While one is open nothing is known.
    let mut open = first.clone();
    open[1][0].status = "failed".to_owned();
    let open = arm(&open);
    assert_eq!((kept(&open), open.missing()), (None, 1 + 2 * 2 + 1));
    // What diverges there cannot go on, and where all do there is nothing to wait for.
    let mut gone = first.clone();
    gone[2] = short("0.3", &[Some(0.9), None]);
    assert_eq!(kept(&arm(&gone)).as_deref(), Some("lr = 0.1 lr = 0.2"));
    let none = arm(&["0.1", "0.2", "0.3"].map(|lr| short(lr, &[None, Some(0.9)])));
    assert_eq!((kept(&none).as_deref(), none.missing(), none.all_diverged()), (Some(""), 0, true));
    // Of two settings both run all of it at once.
    let two = arm(&[first[0].clone(), whole("0.1", &[0.5; 3]), first[1].clone(), whole("0.2", &[0.6; 2])]);
    assert_eq!((&two.screening, two.settings.iter().any(|setting| !setting.short.is_empty())), (&None, false));
    assert_eq!((two.best().unwrap().label.as_str(), two.missing()), ("lr = 0.2", 1));
}
