//! A trained network that leaves the program answers images as it did in its trial.

use tl_sweep::model::arch::Arch;

use crate::builder::{World, png};
use crate::materials::network;

const EXPERIMENT: &str = r#"
[experiment]
name = "mine"
replicates = 1
[backbone]
weights = "w.safetensors"
arch = "resnet8"
preprocess = "torch"
[datasets.mine]
path = "mine"
[scenarios.few]
dataset = "mine"
[recipes.solved]
freeze = "all"
head = "linear"
augment = []
optimizer = "lbfgs"
lambda = [1e-2, 1e-3]
[recipes.two-phases]
phases = [{ freeze = "all", steps = 4 }, { freeze = "layer1", steps = 4 }]
[recipes.head-later]
phases = [{ freeze = 2, steps = 4 }, { freeze = "all", steps = 4 }]
[train]
steps = 8
batch = 8
augment = ["flip"]
[axes]
recipe = ["linear-probe"]
"#;

/// The experiment with these recipes, on a backbone whose weights are random.
pub fn experiment(recipes: &[&str]) -> String {
    EXPERIMENT.replace(r#"["linear-probe"]"#, &format!("{recipes:?}"))
}

/// Trials of an experiment on `mine`, their recipes, and the probabilities that they gave to the classes of its test images, in
/// the order of their paths.
pub fn trials(world: &World) -> Vec<(String, String, Vec<f32>)> {
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let query =
        "SELECT result.trial, recipe, probability FROM result JOIN prediction ON prediction.trial = result.trial
                 WHERE part = 'test'";
    let mut statement = store.prepare(query).unwrap();
    let row =
        |row: &rusqlite::Row| Ok((row.get(0)?, row.get(1)?, bytemuck::pod_collect_to_vec(&row.get::<_, Vec<u8>>(2)?)));
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

/// What `predict` says of images, as JSON.
pub fn predict(world: &World, args: &[&str]) -> serde_json::Value {
    let said = world.run(&[&["predict"], args, &["--format", "json"]].concat()).exits(0);
    serde_json::from_str(&said.out).unwrap()
}

/// The probability of each image's own class, which its folder names.
pub fn of_truth(said: &serde_json::Value) -> Vec<f32> {
    let images = said["images"].as_array().unwrap().iter();
    images
        .map(|image| {
            let class = image["image"].as_str().unwrap().split('/').rev().nth(1).unwrap();
            image["probabilities"][class].as_f64().unwrap() as f32
        })
        .collect()
}

#[test]
fn an_exported_network_answers_as_in_its_trial_to_the_bit() {
    let recipes = ["linear-probe", "early-features", "fine-tune", "two-phases", "head-later", "solved", "from-scratch"];
    let world = World::new().images("mine", &["ants", "bees", "cats"], 12, 8).file("x.toml", experiment(&recipes));
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    world.run(&["run", "x.toml"]).exits(0);
    let trials = trials(&world);
    assert_eq!(trials.len(), recipes.len());
    for (trial, recipe, probabilities) in &trials {
        world.run(&["export", "x.toml", trial, "--out", "m.safetensors"]).exits(0);
        let said = predict(&world, &["m.safetensors", "mine/test"]);
        assert_eq!(said["model"]["trial"].as_str(), Some(trial.as_str()));
        assert_eq!(of_truth(&said), *probabilities, "{recipe}");
        // An image has the same answer alone.
        let alone = predict(&world, &["m.safetensors", "mine/test/cats/003.png"]);
        assert_eq!(alone["images"][0]["probabilities"], said["images"][19]["probabilities"], "{recipe}");
        assert_eq!((said["agreement"]["of"].as_u64(), said["agreement"]["seen"].as_u64()), (Some(24), Some(0)));
    }
    // What training has seen is no evidence, and is told.
    let said = predict(&world, &["m.safetensors", "mine/train"]);
    assert_eq!(said["agreement"]["seen"].as_u64(), Some(36));
    let said = world.run(&["predict", "m.safetensors", "mine/train"]).exits(0);
    assert!(said.out.contains("have seen 36 of them, so that is too good"), "{}", said.out);
}

#[test]
fn what_is_not_sure_enough_is_left_open() {
    let world =
        World::new().images("mine", &["ants", "bees", "cats"], 12, 8).file("x.toml", experiment(&["two-phases"]));
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    world.run(&["run", "x.toml"]).exits(0);
    world.run(&["export", "x.toml", "--best", "few", "--out", "m.safetensors"]).exits(0);
    let all = predict(&world, &["m.safetensors", "mine/test"]);
    let images = all["images"].as_array().unwrap();
    assert!(images.iter().all(|image| image["unsure"].is_null()) && all["sure"].is_null());
    // A bound in the middle: half of the answers stand.
    let mut sure: Vec<f64> = images.iter().map(|image| image["probability"].as_f64().unwrap()).collect();
    sure.sort_by(f64::total_cmp);
    let bound = f64::midpoint(sure[9], sure[10]);
    let text = bound.to_string();
    let some = predict(&world, &["m.safetensors", "mine/test", "--sure", &text]);
    let (mut right, mut of) = (0, 0);
    for (image, before) in some["images"].as_array().unwrap().iter().zip(images) {
        assert_eq!(image["probabilities"], before["probabilities"]);
        let stands = before["probability"].as_f64().unwrap() >= bound;
        assert_eq!(image["unsure"], !stands, "{image}");
        of += usize::from(stands);
        let class = before["class"].as_str().unwrap();
        right += usize::from(stands && before["image"].as_str().unwrap().contains(&format!("/{class}/")));
    }
    assert_eq!(of, 14);
    let agreement = &some["agreement"];
    assert_eq!((agreement["right"].as_u64(), agreement["of"].as_u64()), (Some(right as u64), Some(14)));
    let said = world.run(&["predict", "m.safetensors", "mine/test", "--sure", &text]).exits(0).out;
    assert!(said.contains("10 of 24 answers are less sure than ") && said.contains(" and are left open"), "{said}");
    assert!(said.contains(&format!("of the others {right} of 14 are what their folders say")), "{said}");
    assert_eq!(said.matches("unsure: ").count(), 10, "{said}");
    let csv = world.run(&["predict", "m.safetensors", "mine/test", "--sure", &text, "--format", "csv"]).exits(0).out;
    assert_eq!(
        (csv.matches(",true,").count(), csv.lines().next().unwrap().ends_with("seen,unsure,problem")),
        (10, true),
        "{csv}"
    );
    // Where nothing stands nothing is counted.
    let none = world.run(&["predict", "m.safetensors", "mine/test", "--sure", "1"]).exits(0).out;
    assert!(none.contains("24 of 24 answers are less sure than 1.000") && !none.contains("of the others"), "{none}");
    let said = world.run(&["predict", "m.safetensors", "mine/test", "--sure", "90"]).exits(2);
    assert!(said.err.contains("--sure takes a probability between 0 and 1"), "{}", said.err);
}

#[test]
fn a_flattened_head_under_the_names_of_another_framework_answers_alike() {
    let experiment = experiment(&["solved", "hidden"])
        .replace("\"resnet8\"", "\"vgg16\"\nwidth = 0.0625\ninput = 64").replace("[recipes.solved]", "[recipes.hidden]\nfreeze = \"all\"\npool = \"flatten\"\nhead = { mlp = [16] }\n[recipes.solved]\npool = \"flatten\"");
    let world = World::new().images("mine", &["ants", "bees", "cats"], 12, 8).file("x.toml", experiment);
    network(&world, "w.safetensors", &Arch::new("vgg16", 64, 0.0625));
    world.run(&["run", "x.toml"]).exits(0);
    let trials = trials(&world);
    assert_eq!(trials.len(), 2);
    for (trial, recipe, probabilities) in &trials {
        let mut heads = Vec::new();
        for names in ["keras", "torch"] {
            world.run(&["export", "x.toml", trial, "--out", "m.safetensors", "--names", names]).exits(0);
            assert_eq!(of_truth(&predict(&world, &["m.safetensors", "mine/test"])), *probabilities, "{recipe} {names}");
            heads.push(first_row(&world, recipe));
        }
        // The map has 2 x 2 pixels of 32 channels: channel c of pixel p is 32 p + c in Keras, 4 c + p in PyTorch.
        let [keras, torch] = &heads[..] else { panic!("{}", heads.len()) };
        for (channel, pixel) in [(0, 0), (1, 0), (0, 1), (31, 3), (7, 2)] {
            assert_eq!(keras[32 * pixel + channel], torch[4 * channel + pixel], "{recipe} {channel} {pixel}");
        }
    }
}

/// The weights of the first output of the dense layer that reads the flattened map.
fn first_row(world: &World, recipe: &str) -> Vec<f32> {
    let layer = if recipe == "solved" { "head.linear" } else { "head.fc1" };
    let bytes = std::fs::read(world.path("m.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (view, stride) = match tensors.tensor(&format!("{layer}/kernel")) {
        // [in, out]
        Ok(view) => (view.clone(), view.shape()[1]),
        Err(_) => (tensors.tensor(&format!("{layer}.weight")).unwrap(), 1),
    };
    let numbers: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
    numbers.into_iter().step_by(stride).take(128).collect()
}

#[test]
fn the_best_of_a_scenario_is_exported_and_answers_what_it_can() {
    let world = World::new()
        .images("mine", &["ants", "bees", "cats"], 12, 8)
        .file("x.toml", experiment(&["linear-probe", "solved"]))
        .file("new/a.png", png(12, 12, 1, 77))
        .file("new/deep/b.jpg", png(40, 30, 2, 78))
        .file("new/notes.txt", "no image")
        .file("new/.hidden.png", "hidden")
        .file("cut.png", &png(12, 12, 1, 79)[..40]);
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    let said = world.run(&["export", "x.toml", "--best", "few", "--out", "m.safetensors"]);
    assert!(said.code == 2 || said.code == 7, "{}: nothing has run: {}", said.code, said.err);
    world.run(&["run", "x.toml"]).exits(0);
    let said = world.run(&["export", "x.toml", "--best", "many", "--out", "m.safetensors"]).exits(2);
    assert!(said.err.contains("'mine' has no scenario 'many'; it has few"), "{}", said.err);
    let said = world.run(&["export", "x.toml", "--best", "few", "--out", "m.safetensors"]).exits(0);
    assert!(said.err.contains("best in few: "), "{}", said.err);
    assert!(said.out.contains("are those in the store, to the bit"), "{}", said.out);

    let said = world.run(&["predict", "m.safetensors", "new"]).exits(0);
    assert!(said.out.contains("new/a.png") && said.out.contains("new/deep/b.jpg"), "{}", said.out);
    assert!(!said.out.contains("notes") && !said.out.contains("hidden"), "{}", said.out);
    assert!(!said.out.contains("what their folders say"), "their folders are no classes: {}", said.out);
    assert!(said.err.contains("1 files are no images and were left alone: new/notes.txt"), "{}", said.err);
    // What was named and cannot be answered is an answer that is missing.
    let said =
        world.run(&["predict", "m.safetensors", "new/a.png", "cut.png", "new/notes.txt", "--format", "csv"]).exits(4);
    let rows: Vec<csv::StringRecord> =
        csv::Reader::from_reader(said.out.as_bytes()).records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
    assert!(!rows[0][1].is_empty() && rows[1][1].is_empty() && rows[2][1].is_empty(), "{}", said.out);
    assert!(
        said.err.contains("no answer to 'cut.png'") && said.err.contains("no answer to 'new/notes.txt'"),
        "{}",
        said.err
    );
    // What is no such model says how to make one.
    for (args, expected) in [
        (["w.safetensors", "new"], "`tl-sweep export EXPERIMENT TRIAL --out FILE` writes both"),
        (["m.safetensors", "old"], "there is nothing at 'old'"),
        (["x.toml", "new"], "it is none of .h5"),
    ] {
        let said = world.run(&[&["predict"], &args[..]].concat()).exits(2);
        assert!(said.err.contains(expected), "{} lacks {expected}", said.err);
    }
}

#[test]
fn two_trials_are_compared_by_what_they_differ_in_and_on_the_same_images() {
    let world = World::new()
        .images("mine", &["ants", "bees", "cats"], 12, 8)
        .file("x.toml", experiment(&["linear-probe", "from-scratch"]));
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    world.run(&["run", "x.toml", "--quiet"]).exits(0);
    let trials = trials(&world);
    let key = |recipe: &str| trials.iter().find(|(_, own, _)| own == recipe).unwrap().0.clone();
    let (probe, scratch) = (key("linear-probe"), key("from-scratch"));
    let said = world.run(&["compare", &probe[..12], &scratch[..12], "--format", "json"]).exits(0).out;
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let settings = json["differ"]["settings"].as_array().unwrap();
    let value = |column: &str| settings.iter().find(|row| row[0] == column).map(|row| [row[1].clone(), row[2].clone()]);
    assert_eq!(value("weights").unwrap()[1], "random");
    assert_eq!(value("freeze").unwrap(), ["all", "none"]);
    assert_eq!((value("dataset"), value("data"), value("seed")), (None, None, None));
    // What each said of the 24 test images, counted once more from the answers themselves.
    let test = &json["test"];
    let accuracy = |side: usize| test["accuracy"][side].as_f64().unwrap();
    let alone = |side: usize| test["alone_right"][side].as_f64().unwrap();
    assert_eq!(test["images"].as_u64(), Some(24));
    assert!((accuracy(0) - accuracy(1) - (alone(0) - alone(1)) / 24.0).abs() < 1e-12, "{test}");
    assert!((test["difference"].as_f64().unwrap() - (accuracy(0) - accuracy(1))).abs() < 1e-12, "{test}");
    let said = world.run(&["compare", &probe, &scratch]).exits(0).out;
    assert!(
        said.contains("settings that differ") && said.contains("on the same 24 test images A is right on"),
        "{said}"
    );
    for (other, expected) in [(&probe[..8], "are one trial"), ("zzz", "no trial's key starts with 'zzz'")] {
        let said = world.run(&["compare", &probe, other]).exits(2);
        assert!(said.err.contains(expected), "{} lacks {expected}", said.err);
    }
}
