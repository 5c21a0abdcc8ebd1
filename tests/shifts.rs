//! Tested on other datasets as well: what every trial answers there, what is said of it, and what is refused.

use std::collections::{BTreeMap, BTreeSet};

use image::ImageFormat::{Jpeg, Png};
use rusqlite::params;
use tl_sweep::model::arch::Arch;

use crate::builder::{World, png};
use crate::datasets::{encoded, photograph};
use crate::materials::network;
use crate::predictions::of_truth;

/// Recipes that share features, learn in lock-step, are solved, and train a second time.
const SWEEP: &str = r#"
[experiment]
name = "x"
replicates = 3
[backbone]
arch = "resnet8"
input = 12
weights = "w.safetensors"
preprocess = "torch"
[datasets.mine]
path = "mine"
also_test = ["phone", "winter", "winter-again"]
[datasets.phone]
path = "phone"
splits = { test = 1 }
[datasets.winter]
path = "winter"
[datasets.winter-again]
path = "winter"
[scenarios.few]
dataset = "mine"
per_class = 6
[train]
steps = 10
batch = 8
lr = 0.03
[recipes.probe]
freeze = "all"
[recipes.solved]
freeze = "all"
optimizer = "ridge"
[recipes.part]
freeze = "layer2"
augment = ["flip"]
[recipes.phased]
phases = [{ freeze = "all", steps = 5 }, { freeze = "none", steps = 5 }]
[axes]
recipe = ["probe", "solved", "part", "phased"]
[[rule]]
claim = "phased > probe"
[[rule]]
claim = "phased > probe"
on = "*"
[[rule]]
claim = "phased > probe"
on = "win*"
"#;

/// Three classes; of what a phone took two, in folders of class/file; of winter all, in one split. Noise that is mixed
/// into the colours of another class makes some of them hard.
fn world() -> World {
    let mut world = World::new().images("mine", &["ants", "bees", "cats"], 12, 8).file("x.toml", SWEEP);
    network(&world, "w.safetensors", &Arch::new("resnet8", 12, 1.0));
    for index in 0..10 {
        for (class, label) in ["bees", "cats"].into_iter().enumerate() {
            let looks = if index % 3 == 0 { 0 } else { class as u32 + 1 };
            world =
                world.file(&format!("phone/{label}/{index:03}.png"), png(12, 12, looks, 9000 + 100 * looks + index));
        }
        for (class, label) in ["ants", "bees", "cats"].into_iter().enumerate() {
            let looks = if index % 4 == 0 { 2 - class as u32 } else { class as u32 };
            let image = png(12, 12, looks, 7000 + 100 * class as u32 + index);
            world = world.file(&format!("winter/test/{label}/{index:03}.png"), image);
        }
    }
    world
}

fn report(world: &World) -> serde_json::Value {
    serde_json::from_str(&world.run(&["report", "--format", "json"]).exits(0).out).unwrap()
}

/// What a trial of a recipe answered to the images of another dataset: of each by its id whether it was right, and the
/// probability of its class.
fn answered(store: &rusqlite::Connection, recipe: &str, replicate: usize, on: &str) -> BTreeMap<String, (bool, f32)> {
    let (data, predicted, probability): (String, Vec<u8>, Vec<u8>) = store
        .query_row(
            "SELECT result.data, prediction.predicted, prediction.probability FROM result
             JOIN prediction ON prediction.trial = result.trial AND part = 'shifted' WHERE recipe = ? AND replicate = ?",
            params![recipe, replicate],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    let predicted: Vec<u16> = bytemuck::pod_collect_to_vec(&predicted);
    let probability: Vec<f32> = bytemuck::pod_collect_to_vec(&probability);
    let text = "SELECT id, class, origin FROM sample WHERE data = ? AND part = 'shifted' ORDER BY position";
    let mut statement = store.prepare(text).unwrap();
    let row = |row: &rusqlite::Row| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let samples: Vec<(String, u16, String)> = statement.query_map([data], row).unwrap().map(Result::unwrap).collect();
    assert_eq!((samples.len(), samples.len()), (predicted.len(), probability.len()));
    let all = samples.into_iter().zip(predicted.into_iter().zip(probability));
    let own = all.filter(|((_, _, origin), _)| origin == on);
    own.map(|((id, class, _), (predicted, probability))| (id, (class == predicted, probability))).collect()
}

#[test]
fn a_trial_answers_other_datasets_as_its_exported_network_does() {
    let world = world();
    world.run(&["run", "x.toml"]).exits(0);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let mut seen = BTreeSet::new();
    for recipe in ["probe", "solved", "part", "phased"] {
        let query = "SELECT trial FROM result WHERE recipe = ? AND replicate = 1";
        let trial: String = store.query_row(query, [recipe], |row| row.get(0)).unwrap();
        world.run(&["export", "x.toml", &trial, "--out", "m.safetensors"]).exits(0);
        for (on, folder) in [("phone", "phone"), ("winter", "winter/test")] {
            let said = world.run(&["predict", "m.safetensors", folder, "--format", "json"]).exits(0).out;
            let expected = of_truth(&serde_json::from_str(&said).unwrap());
            let found = answered(&store, recipe, 1, on);
            assert_eq!(found.values().map(|answer| answer.1).collect::<Vec<_>>(), expected, "{recipe} on {on}");
            let right = found.values().filter(|answer| answer.0).count() as f64 / found.len() as f64;
            let query = "SELECT images, accuracy FROM shifted WHERE trial = ? AND dataset = ?";
            let row = store.query_row(query, [&trial, on], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            assert_eq!(row, (found.len(), right), "{recipe} on {on}");
            seen.insert(format!("{right}"));
        }
    }
    assert!(seen.len() > 3, "a test of nothing: {seen:?}");
    let all = world.run(&["verify", "x.toml", "--sample", "100"]).exits(0).out;
    assert!(all.contains("12 of 12 trials, run alone, gave what the store holds"), "{all}");
    // `verify` looks at these answers too.
    store.execute("UPDATE prediction SET predicted = zeroblob(length(predicted)) WHERE part = 'shifted'", []).unwrap();
    let said = world.run(&["verify", "x.toml", "--sample", "100"]).exits(6).out;
    assert!(said.contains("answers on the test images of other datasets"), "{said}");
}

#[test]
fn what_a_trial_learns_and_scores_does_not_depend_on_what_is_tested_as_well() {
    let world = world();
    world.run(&["run", "x.toml"]).exits(0);
    let alone = SWEEP.replace("also_test = [\"phone\", \"winter\", \"winter-again\"]\n", "").replace("\"x\"", "\"y\"");
    let alone = alone.split("[[rule]]").next().unwrap();
    let world = world.file("y.toml", alone);
    world.run(&["run", "y.toml"]).exits(0);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let of = |name: &str| -> Vec<(String, i64, f64, f64, Vec<u8>)> {
        let text = "SELECT recipe, replicate, val_loss, test_loss, probability FROM result
                    JOIN prediction ON prediction.trial = result.trial AND part = 'test' WHERE experiment = ? ORDER BY 1, 2";
        let mut statement = store.prepare(text).unwrap();
        let row = |row: &rusqlite::Row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
        statement.query_map([name], row).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(of("x"), of("y"));
    assert_eq!(of("x").len(), 12);
    let said = world.run(&["report", "y"]).exits(0).out;
    assert!(!said.contains("under shift"), "{said}");
}

/// The definition, written out: all images that match count as one set, and a picture in two datasets once.
#[test]
fn a_rule_may_speak_of_other_datasets() {
    let world = world();
    let said = world.run(&["run", "x.toml", "--set", "experiment.refit=true"]).exits(0).out;
    assert!(said.contains("few (mine 6) on win*") && said.contains("accuracy under shift"), "{said}");
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let json = report(&world);
    let verdicts = json["verdicts"].as_array().unwrap();
    assert_eq!(
        verdicts.iter().map(|one| one["rule"]["on"].as_str()).collect::<Vec<_>>(),
        [None, Some("*"), Some("win*")]
    );
    let (mut means, mut pictures) = (Vec::new(), BTreeMap::<String, Vec<f64>>::new());
    for replicate in 0..3 {
        let of = |recipe: &str| -> BTreeMap<String, f64> {
            let all = ["phone", "winter", "winter-again"].map(|on| answered(&store, recipe, replicate, on));
            all.into_iter().flatten().map(|(id, answer)| (id, f64::from(u8::from(answer.0)))).collect()
        };
        let (phased, probe) = (of("phased"), of("probe"));
        assert_eq!(phased.len(), 80);
        let mean = phased.iter().map(|(id, right)| right - probe[id]).sum::<f64>() / 80.0;
        for (id, right) in &phased {
            let picture = id.split_once(": ").unwrap().1.to_owned();
            pictures.entry(picture).or_default().push(right - probe[id] - mean);
        }
        means.push(mean);
    }
    // Those of winter are there twice, in each of three replicates.
    assert_eq!(pictures.values().map(Vec::len).collect::<BTreeSet<_>>(), [3, 6].into());
    let variance = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64
    };
    let per_picture: Vec<f64> = pictures.values().map(|own| own.iter().sum::<f64>() / own.len() as f64).collect();
    let error = (variance(&means) / 3.0 + variance(&per_picture) / per_picture.len() as f64).sqrt();
    let number = |key: &str| verdicts[1]["difference"][key].as_f64().unwrap();
    assert_eq!((number("images"), number("replicates")), (50.0, 3.0));
    assert!((number("mean") - means.iter().sum::<f64>() / 3.0).abs() < 1e-12, "{verdicts:?}");
    assert!((number("standard_error") - error).abs() < 1e-12 && error > 0.0, "{verdicts:?} {error}");
    assert_ne!(verdicts[0]["difference"], verdicts[1]["difference"]);

    let csv = world.run(&["report", "--format", "csv"]).exits(0).out;
    let rows = csv::Reader::from_reader(csv.as_bytes()).into_deserialize::<BTreeMap<String, String>>();
    let rows: Vec<_> = rows.map(Result::unwrap).collect();
    assert_eq!(rows.len(), 12);
    for row in rows {
        let found = answered(&store, &row["recipe"], row["replicate"].parse().unwrap(), "phone");
        let right = found.values().filter(|answer| answer.0).count() as f64 / found.len() as f64;
        assert_eq!(row["on phone"].parse(), Ok(right));
    }

    let shifts = json["shifts"].as_array().unwrap();
    assert_eq!(shifts.len(), 4);
    for shift in shifts {
        let recipe = shift["recipe"].as_str().unwrap();
        for other in shift["others"].as_array().unwrap() {
            let on = other["dataset"].as_str().unwrap();
            let score = |replicate: usize| {
                let found = answered(&store, recipe, replicate, on);
                found.values().filter(|answer| answer.0).count() as f64 / found.len() as f64
            };
            let own: Vec<f64> = serde_json::from_value(other["test"].clone()).unwrap();
            assert_eq!(own, [0, 1, 2].map(score), "{recipe} on {on}");
        }
    }
}

#[test]
fn a_bundle_and_a_merged_store_say_the_same_of_other_datasets() {
    let world = world();
    world.run(&["run", "x.toml", "--shard", "1/2", "--db", "a.sqlite"]).exits(0);
    world.run(&["run", "x.toml", "--shard", "2/2", "--db", "b.sqlite"]).exits(0);
    world.run(&["merge", "b.sqlite", "--db", "a.sqlite"]).exits(0);
    world.run(&["run", "x.toml"]).exits(0);
    let said = |db: &str| world.run(&["report", "--format", "json", "--db", db]).exits(0).out;
    let shifts = |db: &str| serde_json::from_str::<serde_json::Value>(&said(db)).unwrap()["shifts"].clone();
    assert_eq!(shifts("a.sqlite"), shifts("results/tl-sweep.sqlite"));
    assert_eq!(shifts("a.sqlite").as_array().unwrap().len(), 4);
    world.run(&["export", "x.toml", "--bundle", "--out", "x.tar.gz"]).exits(0);
    let said = world.run(&["verify", "x.tar.gz", "--sample", "100"]).exits(0).out;
    assert!(said.contains("12 of 12 trials"), "{said}");
}

#[test]
fn what_cannot_be_tested_as_well_is_refused() {
    let world = world();
    let refused = |text: &str, told: &[&str]| {
        std::fs::write(world.path("x.toml"), text).unwrap();
        let said = world.run(&["check", "x.toml"]).exits(2).err;
        assert!(told.iter().all(|part| said.contains(part)) && said.contains("x.toml:"), "{said}");
    };
    let also = |names: &str| SWEEP.replace("[\"phone\", \"winter\", \"winter-again\"]", names);
    refused(&also("[\"phone\", \"wintr\"]"), &["also tests 'wintr', which is no dataset", "did you mean `winter`?"]);
    refused(&also("[\"mine\", \"phone\", \"winter\"]"), &["also tests itself"]);
    refused(&also("[]"), &["such as [\"other-camera\", \"fog 3\"]"]);
    refused(&also("[\"phone\", \"phone\"]"), &["'phone' stands here twice"]);
    refused(&also("[\"phone\"]"), &["no dataset that these scenarios also test matches 'win*'", "accepted: phone"]);
    let folds = SWEEP.replace("splits = { test = 1 }", "folds = 2");
    refused(&folds, &["which is in folds and has no test images", "splits = { test = 1 }"]);
    refused(&SWEEP.replace("splits = { test = 1 }", "splits = { test = 1.5 }"), &["{ test = 0.2 }"]);
    // A dataset of which all is tested has nothing to train on.
    let target = SWEEP
        .replace("dataset = \"mine\"", "dataset = \"phone\"")
        .replace("also_test = [\"phone\", \"winter\", \"winter-again\"]\n", "");
    refused(target.split("[[rule]]").next().unwrap(), &["the dataset 'phone' has no train split"]);
    refused(&SWEEP.replace("path = \"winter\"", "path = \"summer\""), &["nothing at", "summer"]);

    let copy = std::fs::read(world.path("mine/train/ants/000.png")).unwrap();
    let world = world.file("winter/test/dogs/000.png", png(12, 12, 1, 3));
    let said = world.file("x.toml", SWEEP);
    let (world, other) = (said.run(&["check", "x.toml"]).exits(2).err, said);
    assert!(world.contains("its class 'dogs' is none there") && world.contains("ants, bees, cats"), "{world}");
    std::fs::remove_dir_all(other.path("winter/test/dogs")).unwrap();
    let other = other.file("winter/test/ants/copy.png", copy);
    let said = other.run(&["check", "x.toml"]).exits(2).err;
    assert!(
        said.contains("'test/ants/copy.png' has the bytes of") && said.contains("trained or validated on"),
        "{said}"
    );
}

/// Data that trains on a test image of its own is warned of, as without `also_test`; its corrupted copy is no other leak.
#[test]
fn a_leak_of_its_own_does_not_keep_a_dataset_from_being_tested_corrupted() {
    let world = world();
    let copy = std::fs::read(world.path("mine/train/ants/000.png")).unwrap();
    let text = SWEEP.replace("[\"phone\", \"winter\", \"winter-again\"]", "[\"fog 3\", \"phone\"]");
    let text = text.split("[[rule]]").next().unwrap();
    let world = world.file("mine/test/ants/copy.png", copy).file("x.toml", text);
    let said = world.run(&["check", "x.toml"]).exits(0).out;
    let expected =
        "1 training images have the same bytes as a test image, for example train/ants/000.png and test/ants/copy.png";
    assert!(said.contains(expected), "{said}");
}

/// Another camera's images that are old ones, saved once more, would make any shift look small.
#[test]
fn near_duplicates_among_other_datasets_are_told_of() {
    let text = SWEEP
        .replace("input = 12", "input = 24")
        .replace("[\"phone\", \"winter\", \"winter-again\"]", "[\"phone\", \"fog 3\"]");
    let text = text.split("[[rule]]").next().unwrap().replace("per_class = 6", "per_class = 4");
    let mut world = World::new().file("x.toml", text);
    network(&world, "w.safetensors", &Arch::new("resnet8", 24, 1.0));
    for (class, label) in ["ants", "bees"].into_iter().enumerate() {
        let made = |number: u64| photograph(7000 + class as u64 * 100 + number, 48);
        for index in 0..10 {
            world = world.file(&format!("mine/train/{label}/{index:03}.png"), encoded(&made(index), Png));
            world = world.file(&format!("mine/test/{label}/{index:03}.png"), encoded(&made(20 + index), Png));
            // Three of the phone's are training images, saved as JPEGs.
            let old = class == 0 && index < 3;
            let image = made(if old { index } else { 40 + index });
            world = world.file(&format!("phone/{label}/{index:03}.jpg"), encoded(&image, Jpeg));
        }
    }
    let said = world.run(&["check", "x.toml"]).exits(0).out;
    let expected = "3 of 20 images of 'phone', which are tested as well, are near-duplicates of images of 'mine'";
    assert!(said.contains(expected) && !said.contains("'fog 3'") && !said.contains("images of 'mine' are"), "{said}");
    let said = world.run(&["run", "x.toml"]).exits(0).out;
    assert!(said.contains("phone: 3 of 20 images are near-duplicates of images trained or validated on"), "{said}");
    assert!(!said.contains("without the"), "verdicts and tables of its own test images are clean: {said}");
    let json = report(&world);
    assert_eq!(json["near_duplicates"], serde_json::json!([]));
    let expected = serde_json::json!([{ "dataset": "phone", "near": 3, "of": 20 }]);
    assert_eq!(json["near_duplicates_of_others"], expected);
}
