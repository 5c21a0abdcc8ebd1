//! `max_replicates`: rules that are open after a look run on, and what is settled stops.

use std::collections::{BTreeMap, BTreeSet};

use tl_sweep::report::arm::{Arm, Repeats, Trial};
use tl_sweep::report::compare::{Scored, difference, scored};
use tl_sweep::report::inquiry::{Inquiry, inquire};
use tl_sweep::report::interim::looks;
use tl_sweep::report::verdict::{Answer, Asked, Reach, Rule};
use tl_sweep::seed::{Stream, stream};

use crate::builder::World;
use crate::verdicts::trial;

/// A rule that one look settles, one that says the same of two recipes that hardly differ, one of which the file tries two
/// rates, and a recipe of which no rule speaks.
const SWEEP: &str = r#"
[experiment]
name = "until"
replicates = 3
max_replicates = 8
[backbone]
arch = "resnet8"
input = 16
weights = "pretrain"
[pretrain]
dataset = "source"
steps = 200
lr = 0.05
[datasets.source]
synthetic = { classes = 4, train = 100, test = 5 }
[datasets.mine]
synthetic = { classes = 4, task = 0, train = 30, test = 40 }
[scenarios.few]
dataset = "mine"
per_class = 8
[train]
steps = 40
batch = 8
augment = []
[recipes.probe]
freeze = "all"
[recipes.twin]
freeze = "all"
label_smoothing = 0.02
[recipes.idle]
freeze = "all"
lr = 1e-9
[recipes.solved]
freeze = "all"
optimizer = "ridge"
[axes]
recipe = ["probe", "twin", "idle", "solved"]
[[when]]
if = "recipe == 'twin'"
axes = { lr = [0.05, 0.1] }
[[when]]
if = "recipe == 'probe'"
axes = { lr = [0.05] }
[[rule]]
claim = "probe > idle"
[[rule]]
claim = "twin > probe"
"#;

fn world() -> World {
    World::new().file("x.toml", SWEEP)
}

fn json(world: &World, db: &str) -> serde_json::Value {
    serde_json::from_str(&world.run(&["report", "--format", "json", "--db", db]).exits(0).out).unwrap()
}

/// Of the finished trials of each recipe and rate, the replicates, and everything that a configuration decides.
fn done(world: &World, db: &str) -> (BTreeMap<String, BTreeSet<usize>>, BTreeSet<Vec<String>>) {
    let csv = world.run(&["status", "until", "--format", "csv", "--db", db]).exits(0).out;
    let (mut replicates, mut results) = (BTreeMap::<String, BTreeSet<usize>>::new(), BTreeSet::new());
    for row in csv::Reader::from_reader(csv.as_bytes()).into_deserialize() {
        let row: BTreeMap<String, String> = row.unwrap();
        if row["status"] == "done" {
            let name = format!("{} {}", row["recipe"], row["lr"]);
            replicates.entry(name).or_default().insert(row["replicate"].parse().unwrap());
            results.insert(["trial", "val_loss", "test_loss", "test_accuracy"].map(|name| row[name].clone()).to_vec());
        }
    }
    (replicates, results)
}

/// Replicates that are run, and the verdict with its p value, by rule.
fn told(report: &serde_json::Value) -> Vec<(u64, String, f64)> {
    let verdicts = report["verdicts"].as_array().unwrap().iter();
    let one = |verdict: &serde_json::Value| {
        let difference = &verdict["difference"];
        let answer = verdict["answer"].as_str().unwrap().to_owned();
        (difference["replicates"].as_u64().unwrap(), answer, difference["p"].as_f64().unwrap())
    };
    verdicts.map(one).collect()
}

#[test]
fn what_is_open_runs_on_and_what_is_settled_stops() {
    let world = world();
    let plan = world.run(&["plan", "x.toml"]).exits(0).out;
    assert!(plan.contains("5 cells x 3 replicates = 15 distinct trials"), "{plan}");
    assert!(plan.contains("up to 8 replicates: about 15 more trials at most"), "{plan}");
    let said = world.run(&["run", "x.toml", "--db", "until/r.sqlite"]).exits(0);
    assert!(said.err.contains("after 3 replicates 1 of 2 rules are settled; 2 recipes run on to 5"), "{}", said.err);
    assert!(said.out.contains("looked at after 3, 5 and 8 replicates"), "{}", said.out);
    let report = json(&world, "until/r.sqlite");
    let [settled, open] = [0, 1].map(|rule| told(&report)[rule].clone());
    assert_eq!((settled.0, settled.1.as_str()), (3, "SUPPORTED"), "{report:#}");
    assert!(open.0 > 3, "{report:#}");
    assert_eq!(report["counts"]["missing"], 0);
    // Only what the open rule speaks of, with the rate that leads.
    let (replicates, results) = done(&world, "until/r.sqlite");
    let on = |recipe: &str| -> Vec<u64> {
        let own = replicates.iter().filter(|(name, _)| name.split(' ').next() == Some(recipe));
        own.map(|(_, replicates)| replicates.len() as u64).collect()
    };
    assert_eq!((on("idle"), on("solved"), on("probe")), (vec![3], vec![3], vec![open.0]));
    let twins = on("twin");
    assert!(
        twins.len() == 2 && twins.contains(&open.0) && twins.iter().all(|own| [3, open.0].contains(own)),
        "{twins:?}"
    );
    // The looks are fixed designs of so many replicates, whose p is divided by what the look may spend.
    let mut before = Vec::new();
    for look in looks(3, 8).iter().filter(|look| look.replicates as u64 <= open.0) {
        let count = look.replicates;
        let fixed = format!("experiment.replicates={count}");
        let most = format!("experiment.max_replicates={count}");
        let tuned = "experiment.tune_replicates=3";
        let args = ["run", "x.toml", "--set", &fixed, "--set", &most, "--set", tuned, "--db", "fixed/r.sqlite"];
        world.run(&args).exits(0);
        let p = (told(&json(&world, "fixed/r.sqlite"))[1].2 / look.share).min(1.0);
        before.push((count as u64, p));
    }
    let last = before.pop().unwrap();
    assert_eq!(last.0, open.0);
    assert!((last.1 - open.2).abs() < 1e-12, "{last:?} {open:?}");
    assert!(before.iter().all(|(_, p)| *p >= 0.05), "it would have been settled: {before:?}");
    // The same trials, and what is there beyond a look is not read.
    let (_, fixed) = done(&world, "fixed/r.sqlite");
    assert!(results.is_subset(&fixed) && results.len() < fixed.len());
    world.run(&["run", "x.toml", "--db", "fixed/r.sqlite"]).exits(0);
    let other = json(&world, "fixed/r.sqlite");
    assert_eq!((&report["arms"], &report["verdicts"]), (&other["arms"], &other["verdicts"]));
    assert!(world.run(&["run", "x.toml", "--db", "until/r.sqlite"]).exits(0).err.contains(", 0 to run"));
    world.run(&["verify", "x.toml", "--sample", "3", "--db", "until/r.sqlite"]).exits(0);
    let late = world.run(&["status", "until", "--db", "until/r.sqlite"]).exits(0).out;
    assert!(late.contains("probe"), "{late}");
}

#[test]
fn what_is_cut_short_or_shared_out_comes_to_the_same_end() {
    let world = world();
    world.run(&["run", "x.toml", "--db", "whole/r.sqlite"]).exits(0);
    let whole = done(&world, "whole/r.sqlite");
    let said = world.run(&["run", "x.toml", "--limit", "17", "--db", "cut/r.sqlite"]).exits(5);
    assert!(said.out.contains("at 5 replicates: "), "{}", said.out);
    let report = json(&world, "cut/r.sqlite");
    assert_eq!(told(&report)[1].0, 3, "the look before");
    assert!(report["counts"]["missing"].as_u64().unwrap() > 0);
    world.run(&["run", "x.toml", "--db", "cut/r.sqlite"]).exits(0);
    assert_eq!(done(&world, "cut/r.sqlite"), whole);
    // All rules are judged together: what one of them would do alone is not done before the others have their replicates.
    let rest = ["run", "x.toml", "--db", "half/r.sqlite"];
    let said = world.run(&[&rest[..], &["--only", "recipe == 'probe' || recipe == 'twin'"]].concat()).exits(5);
    assert!(!said.err.contains("run on to"), "{}", said.err);
    assert!(done(&world, "half/r.sqlite").0.values().all(|replicates| replicates.len() == 3));
    world.run(&rest).exits(0);
    assert_eq!(done(&world, "half/r.sqlite"), whole);
    let parts = ["one/r.sqlite", "two/r.sqlite"];
    let mut rounds = 0;
    loop {
        for (number, part) in parts.iter().enumerate() {
            let shard = format!("{}/2", number + 1);
            let said = world.run(&["run", "x.toml", "--shard", &shard, "--db", part]).exits(0);
            assert!(said.out.contains("again from the joined store, for the rules that are open"), "{}", said.out);
        }
        world.run(&["merge", parts[0], parts[1], "--db", "joined/r.sqlite"]).exits(0);
        if json(&world, "joined/r.sqlite")["counts"]["missing"] == 0 {
            break;
        }
        for part in parts {
            std::fs::copy(world.path("joined/r.sqlite"), world.path(part)).unwrap();
        }
        rounds += 1;
        assert!(rounds < 4);
    }
    assert!(rounds > 0);
    assert_eq!(done(&world, "joined/r.sqlite"), whole);
    assert_eq!(json(&world, "joined/r.sqlite")["verdicts"], json(&world, "whole/r.sqlite")["verdicts"]);
}

#[test]
fn looks_that_cannot_be_are_refused() {
    let refused = |from: &str, to: &str, words: &[&str]| {
        let world = World::new().file("x.toml", SWEEP.replace(from, to));
        let said = world.run(&["check", "x.toml"]).exits(2).err;
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };
    refused("max_replicates = 8", "max_replicates = 2", &["x.toml:5:18", "fewer than the 3 replicates"]);
    refused("replicates = 3", "replicates = 2", &["x.toml:5:18", "a first look after 2 replicates"]);
    let folds = "[datasets.piled]\npath = \"p\"\nfolds = 4\n[datasets.mine]";
    refused("[datasets.mine]", folds, &["x.toml:5:18", "[datasets.piled]"]);
    let without = SWEEP.split("[[rule]]").next().unwrap();
    let said = World::new().file("x.toml", without).run(&["check", "x.toml"]).exits(0).out;
    assert!(said.contains("max_replicates has no effect"), "{said}");
}

const IMAGES: usize = 150;

/// Test answers of a recipe by replicate: an image is as hard for all recipes, to each recipe for itself, and by chance; a
/// replicate is better or worse as a whole.
fn simulated(data: u64, recipe: u64, effect: f64) -> Vec<Scored> {
    let mut images = stream(data, Stream::Synthetic, &[]);
    let mut own = stream(data, Stream::Synthetic, &[1 + recipe]);
    let hard: Vec<f64> = (0..IMAGES).map(|_| images.normal() + 0.5 * own.normal()).collect();
    let mut replicate = |_| {
        let shift = 0.15 * own.normal() + effect;
        let right = hard.iter().map(|hard| u16::from(hard + 0.5 * own.normal() > 0.7 + shift)).collect::<Vec<_>>();
        scored("accuracy", &right, &[0; IMAGES])
    };
    (0..20).map(&mut replicate).collect()
}

/// Two rules about four recipes, of which `a` is better than `b`, and one about a recipe that is not there.
fn simulate(data: u64, effect: f64) -> (Inquiry, BTreeMap<String, Vec<Scored>>) {
    simulate_with(data, effect, [20; 4])
}

/// The same where of each recipe so many replicates have run.
fn simulate_with(data: u64, effect: f64, run: [usize; 4]) -> (Inquiry, BTreeMap<String, Vec<Scored>>) {
    let names = ["a", "b", "c", "d"];
    let rule = |better: &str, worse: &str| Rule {
        scenario: "*".to_owned(),
        better: better.to_owned(),
        worse: worse.to_owned(),
        margin: 0.001,
        on: None,
        metric: None,
    };
    let of = |(name, run): (&&str, usize)| {
        let name = (*name).to_owned();
        (0..run).map(move |replicate| trial(&name, "1", replicate, 0.5, 0.5))
    };
    let trials: Vec<Trial> = names.iter().zip(run).flat_map(of).collect();
    let effects = [effect, 0.0, 0.0, 0.0];
    let scores: BTreeMap<String, Vec<Scored>> =
        (0..4).map(|at| (names[at].to_owned(), simulated(data, at as u64, effects[at]))).collect();
    let answers = |arm: &Arm, _: Asked| Ok(scores[&arm.recipe][..arm.replicates].to_vec());
    let repeats = Repeats { replicates: 5, tuned: 5, share: None, most: 20 };
    let reach = Reach { matches: &|_, _| true, tests: &|_, _| false };
    let rules = [rule("a", "b"), rule("c", "d"), rule("a", "nobody")];
    (inquire(&rules, &trials, repeats, reach, &|_| None, &answers).unwrap(), scores)
}

/// Looking again and again until p is small finds what is not there; looks that share one error level do not.
#[test]
fn looks_reject_what_is_true_no_more_often_than_they_say() {
    const TIMES: u64 = 300;
    let (mut wrong, mut naive, mut replicates) = (0, 0, 0);
    for data in 0..TIMES {
        let (inquiry, scores) = simulate(data, 0.0);
        let found = |answer: &Answer| matches!(answer, Answer::Supported | Answer::Refuted);
        wrong += u64::from(inquiry.verdicts.iter().any(|verdict| found(&verdict.answer)));
        let p = |count: usize| difference(&scores["a"][..count], &scores["b"][..count]).p;
        naive += u64::from(looks(5, 20).iter().any(|look| p(look.replicates) < 0.05));
        replicates += inquiry.verdicts[0].difference.unwrap().replicates;
    }
    let share = |count: u64| count as f64 / TIMES as f64;
    assert!(share(wrong) <= 0.05 && share(naive) > 0.06, "{} of two rules, {} of one", share(wrong), share(naive));
    let mean = replicates as f64 / TIMES as f64;
    assert!(mean < 15.0, "what will hardly be settled stops: {mean}");
}

/// A rule waits where a look has not all its replicates, and the others go on without it.
#[test]
fn what_is_missing_holds_up_its_own_rule_alone() {
    let looks = |inquiry: &Inquiry, rule: usize| inquiry.verdicts[rule].difference.map_or(0, |found| found.replicates);
    let open = |data: &u64| (0..2).all(|rule| looks(&simulate(*data, 0.0).0, rule) > 8);
    let data = (0..).find(open).unwrap();
    let whole = simulate(data, 0.0).0;
    let part = simulate_with(data, 0.0, [20, 20, 20, 6]).0;
    assert_eq!(looks(&part, 1), 5);
    let notes = &part.verdicts[1].notes;
    assert!(notes.iter().any(|note| note == "at 8 replicates: d: 2 trials are missing"), "{notes:?}");
    assert_eq!(looks(&part, 0), looks(&whole, 0));
    assert_eq!((part.unsettled(), whole.unsettled()), (2, 0), "what does not stand there waits for nothing");
    assert_eq!((looks(&whole, 2), whole.verdicts[2].answer), (0, Answer::NotTested));
    let on: Vec<(usize, usize)> = part.into_parts().1.iter().map(|arm| (arm.replicates, arm.missing())).collect();
    assert_eq!(on[2..], [(8, 0), (8, 2)]);
}

#[test]
fn what_is_plain_is_seen_at_the_first_looks() {
    const TIMES: u64 = 60;
    let (mut right, mut replicates) = (0, 0);
    for data in 0..TIMES {
        let found = simulate(data, 0.8).0.verdicts.remove(0);
        right += u64::from(found.answer == Answer::Supported);
        replicates += found.difference.unwrap().replicates;
    }
    assert!(right >= TIMES - 1, "{right} of {TIMES}");
    assert!((replicates as f64) < 7.0 * TIMES as f64, "{replicates}");
}
