//! Datasets without a test split: a share of the images, or folds that replicates test on in turn.

use std::collections::{BTreeMap, BTreeSet};

use image::ImageFormat::{Jpeg, Png};

use crate::builder::{World, png};
use crate::datasets::{encoded, photograph};

/// A folder of class/file, and one more in it that is no sample.
fn pile(images: usize) -> World {
    let mut world = World::new().file("pile/readme.txt", "class/file");
    for (class, label) in ["ants", "bees", "cats"].into_iter().enumerate() {
        for index in 0..images {
            let image = png(12, 12, class as u32, (class * 1000 + index) as u32);
            world = world.file(&format!("pile/{label}/{index:03}.png"), image);
        }
    }
    world
}

/// Recipes that share features, learn in lock-step, and store views.
const SWEEP: &str = r#"
[experiment]
name = "x"
replicates = 3
[backbone]
arch = "resnet8"
input = 12
weights = "pretrain"
[pretrain]
dataset = "source"
steps = 4
[datasets.source]
synthetic = { classes = 3, train = 20, test = 5 }
[datasets.pile]
path = "pile"
folds = 3
[scenarios.few]
dataset = "pile"
per_class = 4
[scenarios.all]
dataset = "pile"
[train]
steps = 12
batch = 8
lr = 0.05
[recipes.probe]
freeze = "all"
[recipes.solved]
freeze = "all"
optimizer = "ridge"
[recipes.views]
freeze = "all"
augment = ["flip"]
views = 2
[recipes.part]
freeze = "layer2"
augment = ["flip"]
[axes]
recipe = ["probe", "solved", "views", "part"]
[[rule]]
claim = "part > probe"
"#;

/// By scenario and replicate, the images of each part.
fn splits(world: &World) -> BTreeMap<(String, String), BTreeMap<String, BTreeSet<String>>> {
    let mut found: BTreeMap<_, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let csv = world.run(&["data", "x", "--splits"]).exits(0).out;
    for row in csv::Reader::from_reader(csv.as_bytes()).into_deserialize() {
        let row: BTreeMap<String, String> = row.unwrap();
        let own = found.entry((row["per_class"].clone(), row["replicate"].clone())).or_default();
        assert!(own.entry(row["part"].clone()).or_default().insert(row["sample"].clone()));
    }
    found
}

#[test]
fn every_image_is_tested_once_and_never_by_what_has_seen_it() {
    let world = pile(14).file("x.toml", SWEEP);
    let plan = world.run(&["plan", "x.toml"]).exits(0).out;
    assert!(plan.contains("14 in each of 3 folds"), "{plan}");
    let said = world.run(&["run", "x.toml"]).exits(0).out;
    assert!(said.contains("pile: its 42 images are in 3 folds, of which each replicate tests another"), "{said}");
    let splits = splits(&world);
    for per_class in ["4", "all"] {
        let mut tested = BTreeMap::new();
        for replicate in ["0", "1", "2"] {
            let own = &splits[&(per_class.to_owned(), replicate.to_owned())];
            let [train, val, test] = ["train", "val", "test"].map(|part| &own[part]);
            assert!(train.is_disjoint(test) && train.is_disjoint(val) && val.is_disjoint(test));
            assert!(test.len() == 14 && (per_class == "all" || train.len() == 12), "{}", train.len());
            test.iter().for_each(|id| *tested.entry(id.clone()).or_insert(0) += 1);
        }
        assert!(tested.len() == 42 && tested.values().all(|times| *times == 1));
    }
    // The same folds at every size.
    let of = |per_class: &str| &splits[&(per_class.to_owned(), "1".to_owned())]["test"];
    assert_eq!(of("4"), of("all"));
    let all = world.run(&["verify", "x.toml", "--sample", "100"]).exits(0).out;
    assert!(all.contains("24 of 24 trials, run alone, gave what the store holds"), "{all}");
    let json: serde_json::Value =
        serde_json::from_str(&world.run(&["report", "--format", "json"]).exits(0).out).unwrap();
    assert_eq!(json["folds"], serde_json::json!([{ "dataset": "pile", "folds": 3, "images": 42 }]));
    assert!(json["errors"].as_array().unwrap().iter().all(|of| of["tested"] == 1), "{json}");
}

/// The test answers of a trial: for each image, whether it was right.
fn right(store: &rusqlite::Connection, recipe: &str, replicate: usize) -> BTreeMap<u32, bool> {
    let (data, test, predicted): (String, Vec<u8>, Vec<u8>) = store
        .query_row(
            "SELECT split.data, split.test, prediction.predicted FROM cell
             JOIN planned ON planned.position = cell.position AND planned.replicate = ?
             JOIN trial ON trial.key = planned.trial JOIN split ON split.key = trial.split
             JOIN prediction ON prediction.trial = trial.key AND prediction.part = 'test'
             WHERE cell.recipe = ? AND cell.scenario = 'all'",
            rusqlite::params![replicate, recipe],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    let class = |sample: u32| -> u16 {
        let text = "SELECT class FROM sample WHERE data = ? AND position = ?";
        store.query_row(text, rusqlite::params![data, sample], |row| row.get(0)).unwrap()
    };
    let samples = test.chunks_exact(4).map(|at| u32::from_le_bytes(at.try_into().unwrap()));
    let predicted = predicted.chunks_exact(2).map(|at| u16::from_le_bytes(at.try_into().unwrap()));
    samples.zip(predicted).map(|(sample, predicted)| (sample, class(sample) == predicted)).collect()
}

/// The definition, written out: the images' differences are averaged over the replicates that tested on them.
#[test]
fn a_difference_counts_each_image_once_however_often_it_was_tested() {
    let many = SWEEP.replace("replicates = 3", "replicates = 7").replace(", \"solved\", \"views\"", "");
    let world = pile(14).file("x.toml", many);
    world.run(&["run", "x.toml", "--only", "scenario == 'all'"]).exits(5);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let (mut means, mut images) = (Vec::new(), BTreeMap::<u32, Vec<f64>>::new());
    for replicate in 0..7 {
        let [part, probe] = ["part", "probe"].map(|recipe| right(&store, recipe, replicate));
        assert!(part.len() == 14 && part.keys().eq(probe.keys()));
        let difference = |image: &u32| f64::from(u8::from(part[image])) - f64::from(u8::from(probe[image]));
        let mean = part.keys().map(difference).sum::<f64>() / 14.0;
        part.keys().for_each(|image| images.entry(*image).or_default().push(difference(image) - mean));
        means.push(mean);
    }
    let variance = |values: &[f64], free: f64| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / free
    };
    assert_eq!(images.values().map(Vec::len).collect::<BTreeSet<_>>(), [2, 3].into(), "7 replicates on 3 folds");
    let images: Vec<f64> = images.values().map(|own| own.iter().sum::<f64>() / own.len() as f64).collect();
    // Every fold's differences sum to zero: of 42 numbers 42 / 14 follow from the others.
    let error = (variance(&means, 6.0) / 7.0 + variance(&images, 39.0) / 42.0).sqrt();
    let json: serde_json::Value =
        serde_json::from_str(&world.run(&["report", "--format", "json"]).exits(0).out).unwrap();
    let verdicts = json["verdicts"].as_array().unwrap();
    let found = verdicts.iter().find(|verdict| !verdict["difference"].is_null()).expect("a difference");
    let number = |key: &str| found["difference"][key].as_f64().unwrap();
    assert_eq!((number("images"), number("replicates")), (42.0, 7.0));
    assert!((number("mean") - means.iter().sum::<f64>() / 7.0).abs() < 1e-12, "{found}");
    assert!((number("standard_error") - error).abs() < 1e-12, "{found} {error}");
    assert!(error > 0.0);
}

/// A mean over replicates would have seen what each of them is tested on.
#[test]
fn each_replicate_is_tested_with_the_setting_that_its_own_validation_selects() {
    let few =
        SWEEP.replace(", \"solved\", \"views\", \"part\"", "").replace("[[rule]]\nclaim = \"part > probe\"\n", "");
    let text = few.replace("per_class = 4", "per_class = 6").replace("[axes]", "[axes]\nlr = [1.0, 0.3, 0.1, 0.03]");
    let world = pile(14).file("x.toml", text);
    world.run(&["run", "x.toml"]).exits(0);
    let csv = world.run(&["status", "x", "--format", "csv"]).exits(0).out;
    let rows = csv::Reader::from_reader(csv.as_bytes()).into_deserialize::<BTreeMap<String, String>>();
    let mut rows: Vec<_> = rows.map(Result::unwrap).filter(|row| row["scenario"] == "few").collect();
    let number = |row: &BTreeMap<String, String>, column: &str| row[column].parse::<f64>().unwrap();
    // As the file has them: of equals the first is selected.
    rows.sort_by(|one, other| number(other, "lr").total_cmp(&number(one, "lr")));
    let mut expected = Vec::new();
    for replicate in ["0", "1", "2"] {
        let mut own = rows.iter().filter(|row| row["replicate"] == replicate);
        let first = own.next().unwrap();
        let best =
            own.fold(
                first,
                |one, other| {
                    if number(other, "val_accuracy") > number(one, "val_accuracy") { other } else { one }
                },
            );
        expected.push((best["trial"].clone(), number(best, "test_accuracy")));
    }
    let rates: BTreeSet<&str> =
        expected.iter().map(|(key, _)| rows.iter().find(|row| row["trial"] == *key).unwrap()["lr"].as_str()).collect();
    assert!(rates.len() > 1, "a test of nothing: all replicates select {rates:?}");
    let report = |format: &str| world.run(&["report", "--format", format]).exits(0).out;
    let json: serde_json::Value = serde_json::from_str(&report("json")).unwrap();
    let arm = json["arms"].as_array().unwrap().iter().find(|arm| arm["context"]["scenario"] == "few").unwrap();
    let found = arm["trials"].as_array().unwrap().iter().zip(arm["test"].as_array().unwrap());
    let found: Vec<_> = found.map(|(key, test)| (key.as_str().unwrap().to_owned(), test.as_f64().unwrap())).collect();
    assert_eq!(found, expected);
    let said = report("table");
    assert!(said.contains("tests another, with the setting that its own validation selects"), "{said}");
    assert!(said.contains("chosen on images that other replicates test"), "{said}");
    for row in &rows {
        let why = world.run(&["why", &row["trial"]]).exits(0).out;
        let selects = expected.iter().any(|(key, _)| *key == row["trial"]);
        let word = if selects { "selects: this one" } else { "selects: another" };
        assert!(why.contains(word), "{why}");
    }
}

#[test]
fn a_share_is_the_same_images_for_every_experiment() {
    let share = |seed: usize| {
        SWEEP.replace("folds = 3", "splits = { test = 0.25 }").replace("replicates = 3", &format!("seed = {seed}"))
    };
    let world = pile(16).file("x.toml", share(1)).file("y.toml", share(2).replace("\"x\"", "\"y\""));
    let shown = world.run(&["data", "pile", "--test", "0.25"]).exits(0).out;
    assert!(shown.contains("│   ┆ all   ┆ 36    ┆ 0   ┆ 12   │"), "{shown}");
    let mut all = BTreeSet::new();
    for file in ["x", "y"] {
        world.run(&["run", &format!("{file}.toml"), "--only", "recipe == 'probe'"]).exits(5);
        let csv = world.run(&["data", file, "--splits"]).exits(0).out;
        let test = csv.lines().filter(|line| line.contains(",test,"));
        all.insert(test.map(|line| line.split(',').nth(4).unwrap().to_owned()).collect::<BTreeSet<_>>());
    }
    assert!(all.len() == 1 && all.iter().all(|test| test.len() == 12), "{all:?}");
}

/// Archives with a folder around everything, and tables without a column of splits, whose groups stay together.
#[test]
fn archives_and_tables_without_splits_are_dealt_too() {
    let world = pile(12);
    let mut tar = tar::Builder::new(std::fs::File::create(world.path("pile.tar")).unwrap());
    tar.append_dir_all("around/it", world.path("pile/ants")).unwrap();
    tar.append_dir_all("around/that", world.path("pile/bees")).unwrap();
    tar.finish().unwrap();
    let shown = world.run(&["data", "pile.tar", "--test", "0.25"]).exits(0).out;
    assert!(shown.contains("│   ┆ all   ┆ 18    ┆ 0   ┆ 6    │"), "{shown}");

    let mut table = "path,label,group\n".to_owned();
    for (label, index) in ["ants", "bees"].into_iter().flat_map(|label| (0..12).map(move |index| (label, index))) {
        table.push_str(&format!("pile/{label}/{index:03}.png,{label},colony {}\n", index / 2));
    }
    let text = SWEEP.replace("path = \"pile\"", "path = \"mine.csv\"").replace("per_class = 4", "per_class = 3");
    let world = world.file("mine.csv", &table).file("x.toml", text);
    world.run(&["run", "x.toml", "--only", "recipe == 'probe'"]).exits(5);
    for own in splits(&world).values() {
        let colony = |id: &String| id[id.len() - 7..id.len() - 4].parse::<usize>().unwrap() / 2;
        let parts = ["train", "val", "test"].map(|part| own[part].iter().map(colony).collect::<BTreeSet<_>>());
        assert!(parts[0].is_disjoint(&parts[2]) && parts[1].is_disjoint(&parts[2]) && parts[0].is_disjoint(&parts[1]));
        assert_eq!(parts[2].len(), 2, "six colonies in three folds");
    }
    let said = world.run(&["data", "mine.csv"]).exits(2).err;
    assert!(said.contains("has no column 'split'") && said.contains("folds = 5 tests each image"), "{said}");
    let world = world.file("mine.csv", table.replace("group\n", "split\n").replace("colony 1", "test"));
    let said = world.run(&["check", "x.toml"]).exits(2).err;
    assert!(said.contains("line") && said.contains("the split is train, val or test, not 'colony 0'"), "{said}");
    let world = world.file("mine.csv", "path,label,split\npile/ants/000.png,ants,test\n");
    let said = world.run(&["check", "x.toml"]).exits(2).err;
    assert!(said.contains("line 2") && said.contains("brings a test split of its own"), "{said}");
}

/// Two classes of photographs; the first six of class a lie there once more, saved as a JPEG.
fn with_copies() -> World {
    let mut world = World::new();
    for (class, label) in ["a", "b"].into_iter().enumerate() {
        for index in 0..18 {
            let image = photograph(5000 + class as u64 * 100 + index, 48);
            world = world.file(&format!("pile/{label}/{index:03}.png"), encoded(&image, Png));
            if class == 0 && index < 6 {
                world = world.file(&format!("pile/{label}/copy{index:03}.jpg"), encoded(&image, Jpeg));
            }
        }
    }
    world
}

#[test]
fn near_duplicates_are_told_of_and_can_be_kept_together() {
    let text = SWEEP.replace("input = 12", "input = 24").replace("[[rule]]\nclaim = \"part > probe\"", "");
    let world = with_copies().file("x.toml", &text);
    let said = world.run(&["check", "x.toml"]).exits(0).out;
    let told = said.lines().find(|line| line.contains("may be tested while a near-duplicate is trained on"));
    assert!(told.is_some_and(|line| line.contains("near_duplicates = \"together\"")), "{said}");
    for how in ["folds = 3", "splits = { test = 0.3 }"] {
        let together = text.replace("folds = 3", &format!("{how}\nnear_duplicates = \"together\""));
        let world = with_copies().file("x.toml", together);
        let said = world.run(&["check", "x.toml"]).exits(0).out;
        assert!(!said.contains("near-duplicate"), "{said}");
        let ran = world.run(&["run", "x.toml", "--only", "recipe == 'probe' && scenario == 'all'"]).exits(5).out;
        assert!(!ran.contains("near-duplicate"), "{ran}");
        let whole: Vec<_> = splits(&world).into_iter().filter(|((per_class, _), _)| per_class == "all").collect();
        assert_eq!(whole.len(), 3, "replicates");
        let mut together = 0;
        for (at, own) in whole {
            for index in 0..6 {
                let tested = |id: String| own["test"].contains(&id);
                let pair = [format!("a/{index:03}.png"), format!("a/copy{index:03}.jpg")].map(tested);
                assert_eq!(pair[0], pair[1], "{at:?} {index}");
                together += usize::from(pair[0]);
            }
        }
        // Each pair once in three folds; of a share the same ones in all replicates.
        assert!(if how.starts_with("folds") { together == 6 } else { together > 0 && together % 3 == 0 }, "{together}");
    }
}

#[test]
fn what_cannot_be_dealt_is_told_before_anything_runs() {
    let refused = |world: &World, text: &str, told: &[&str]| {
        std::fs::write(world.path("x.toml"), text).unwrap();
        let said = world.run(&["check", "x.toml"]).exits(2).err;
        assert!(told.iter().all(|part| said.contains(part)), "{said}");
    };
    let world = pile(9);
    refused(&world, &SWEEP.replace("folds = 3", ""), &["no folder 'test'", "ants, bees, cats", "folds = 5"]);
    refused(&world, &SWEEP.replace("folds = 3", "folds = 1"), &["x.toml:16:9", "at least 2"]);
    refused(&world, &SWEEP.replace("folds = 3", "splits = { test = 1.5 }"), &["x.toml:16:10", "{ test = 0.2 }"]);
    let twice = SWEEP.replace("folds = 3", "folds = 3\nsplits = { test = \"val\" }");
    refused(&world, &twice, &["names test images twice"]);
    let drop = SWEEP.replace("folds = 3", "folds = 3\nnear_duplicates = \"drop\"");
    refused(&world, &drop, &["in folds all are tested", "\"together\""]);
    let tuned = SWEEP.replace("replicates = 3", "replicates = 3\ntune_replicates = 1");
    refused(&world, &tuned, &["`tune_replicates`: in folds ([datasets.pile])"]);
    let alone = SWEEP.replace("folds = 3", "near_duplicates = \"together\"");
    refused(&world, &alone, &["its parts are as they come"]);
    let source = SWEEP.replace("dataset = \"source\"", "dataset = \"pile\"");
    refused(&world, &source, &["[pretrain] would train on all images of 'pile'"]);
    refused(&world, &SWEEP.replace("path = \"pile\"", "synthetic = { classes = 3 }"), &["a test split of its own"]);
    refused(&world, &SWEEP.replace("folds = 3", "folds = 90"), &["27 images", "into 90 folds"]);
    let world = World::new().images("pile", &["ants", "bees"], 9, 4);
    refused(&world, SWEEP, &["has a folder 'test' of images to test on"]);
    let named = SWEEP.replace("folds = 3", "folds = 3\nsplits = { train = \"all\" }");
    refused(&pile(9), &named, &["no folder 'all' for the train split"]);
    // One image of a class, however often it lies there.
    let world = pile(9);
    (0..9)
        .for_each(|index| std::fs::write(world.path(&format!("pile/bees/{index:03}.png")), png(12, 12, 1, 5)).unwrap());
    refused(&world, SWEEP, &["cannot be dealt", "class 'bees' has 9"]);
    let few = SWEEP.replace("folds = 3", "folds = 5");
    let said = pile(9).file("x.toml", few).run(&["check", "x.toml"]).exits(0).out;
    assert!(said.contains("'pile' is in 5 folds and replicates = 3: 2 of them are never tested"), "{said}");
}
