//! Answers for machines: every verb that tells something tells it as JSON with a version, with the exit code that it has anyway.

use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use tl_sweep::model::arch::Arch;

use crate::builder::{World, png};
use crate::materials::network;

const FILE: &str = r#"
[experiment]
name = "mine"
[backbone]
weights = "w.safetensors"
arch = "resnet8"
input = 12
preprocess = "torch"
[datasets.mine]
path = "mine"
[scenarios.s]
dataset = "mine"
per_class = 6
[train]
steps = 4
batch = 4
[axes]
recipe = ["linear-probe", "fine-tune"]
[[rule]]
claim = "linear-probe > fine-tune"
"#;

fn world() -> World {
    let world = World::new().images("mine", &["ants", "bees"], 12, 8).file("e.toml", FILE);
    network(&world, "w.safetensors", &Arch::new("resnet8", 12, 1.0));
    world
}

/// What a call prints as JSON, and nothing else.
fn answer(world: &World, args: &[&str], code: i32) -> Value {
    let said = world.run(&[args, &["--format", "json", "--quiet"]].concat()).exits(code);
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(answer["version"], 1, "{args:?}");
    answer
}

fn count(value: &Value) -> usize {
    value.as_array().unwrap().len()
}

#[test]
fn check_says_where_each_problem_is() {
    let world = world();
    let good = answer(&world, &["check", "e.toml"], 0);
    assert_eq!(good["problems"], serde_json::json!([]));
    assert_eq!(good["cells"], 2);
    assert_eq!(good["trials"], 6);
    let warned = good["warnings"].as_array().unwrap();
    assert!(warned.iter().any(|warning| warning.as_str().unwrap().contains("weighs 0.062")), "{warned:?}");

    let text = FILE.replace("batch = 4", "batch = -4").replace("path = \"mine\"", "pfad = \"mine\" # größer");
    let world = world.file("bad.toml", &text);
    let bad = answer(&world, &["check", "bad.toml"], 2);
    let line = |word: &str| text.lines().position(|line| line.contains(word)).unwrap() + 1;
    let problems = bad["problems"].as_array().unwrap();
    let at =
        |word: &str| problems.iter().find(|problem| problem["line"] == line(word)).unwrap_or_else(|| panic!("{bad}"));
    assert_eq!(count(&bad["problems"]), 3, "one wrong line is no reason for others: {bad}");
    assert_eq!(at("pfad")["column"], 1);
    assert_eq!(at("batch")["column"], 9);
    assert_eq!(at("batch")["file"], "bad.toml");
    assert!(at("pfad")["help"].as_str().unwrap().contains("path"), "{bad}");
    // The same in the words for people.
    let said = world.run(&["check", "bad.toml"]).exits(2).err;
    assert!(problems.iter().all(|problem| said.contains(problem["message"].as_str().unwrap())), "{said}");

    // What a file names may be wrong, too, and stands in no line of it.
    let world = world.file("w.safetensors", "no weights");
    let broken = answer(&world, &["check", "e.toml"], 2);
    assert!(count(&broken["problems"]) > 0);
}

#[test]
fn check_lists_what_it_leaves_out_and_warns_of_leaks() {
    let same = png(12, 12, 0, 12_345);
    let world = world().file("mine/train/ants/same.png", &same).file("mine/test/ants/same.png", &same);
    let world = world.file("mine/train/ants/broken.png", "no image");
    let world = world.file("e.toml", FILE.replace("path = \"mine\"", "path = \"mine\"\non_bad_image = \"skip\""));
    let found = answer(&world, &["check", "e.toml"], 0);
    assert_eq!(found["skipped"][0]["dataset"], "mine");
    assert!(found["skipped"][0]["image"].as_str().unwrap().ends_with("broken.png"), "{found}");
    let leaks = |warning: &&Value| warning.as_str().unwrap().contains("same bytes as a test image");
    assert_eq!(found["warnings"].as_array().unwrap().iter().filter(leaks).count(), 1, "{found}");
}

#[test]
fn materials_answer() {
    let same = png(12, 12, 0, 12_345);
    let world = world().file("mine/train/ants/same.png", &same).file("mine/test/bees/same.png", &same);
    let data = answer(&world, &["data", "mine"], 0);
    assert_eq!(data["classes"][0], serde_json::json!({"class": "ants", "train": 13, "val": 0, "test": 8}));
    assert_eq!(count(&data["leaks"]), 1);
    let contradiction: Vec<&str> =
        data["contradictions"][0].as_array().unwrap().iter().map(|one| one["class"].as_str().unwrap()).collect();
    assert_eq!(contradiction, ["ants", "bees"]);
    let near = answer(&world, &["data", "mine", "--near-duplicates"], 0);
    let listed = world.run(&["data", "mine", "--near-duplicates", "--quiet"]).exits(0).out;
    assert_eq!(count(&near["near_duplicates"]), listed.lines().count() - 1);
    assert!(count(&near["near_duplicates"]) > 0);
    assert_eq!(count(&answer(&world, &["data", "list"], 0)["datasets"]), 12);

    let known = answer(&world, &["weights", "list", "--weights", "."], 0);
    assert!(known["weights"].as_array().unwrap().iter().all(|one| one["here"].is_null() && one["arch"].is_string()));
    let own = answer(&world, &["weights", "inspect", "w.safetensors"], 0);
    assert_eq!(own["fits"]["arch"], "resnet8");
    assert_eq!(count(&own["fits"]["placed"]) + count(&own["fits"]["left_out"]), count(&own["tensors"]));

    // A file that fits no network is told of, and said to be none.
    let one =
        std::collections::HashMap::from([("a".to_owned(), Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap())]);
    candle_core::safetensors::save(&one, world.path("odd.safetensors")).unwrap();
    let odd = answer(&world, &["weights", "inspect", "odd.safetensors"], 2);
    assert_eq!(odd["fits"], Value::Null);
    assert_eq!(odd["tensors"], serde_json::json!([{"name": "a", "shape": [2, 3]}]));
}

#[test]
fn a_summary_adds_up() {
    let world = World::new();
    let told = answer(&world, &["summary", "resnet20", "--freeze", "layer1"], 0);
    let layers = told["layers"].as_array().unwrap();
    let sum = |key: &str| layers.iter().map(|layer| layer[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("params"), told["params"].as_u64().unwrap());
    assert_eq!(sum("macs"), told["macs"].as_u64().unwrap());
    let frozen = layers.iter().filter(|layer| layer["frozen"] == true).count();
    assert_eq!(told["frozen"]["layers"], frozen);
    assert!(frozen > 0 && frozen < layers.len());
    assert!(count(&answer(&world, &["summary"], 0)["architectures"]) > 100);
}

#[test]
fn a_sweep_answers_from_its_report_to_its_cache() {
    let world = world();
    let report = answer(&world, &["run", "e.toml"], 0);
    assert_eq!(report, answer(&world, &["report", "mine"], 0));
    assert_eq!(count(&report["arms"]), 2);
    let page = world.run(&["run", "e.toml", "--format", "html", "--quiet"]).exits(0).out;
    assert!(page.starts_with("<!") && page.trim_end().ends_with("</html>"));
    assert_eq!(count(&answer(&world, &["status"], 0)["experiments"]), 1);
    assert_eq!(count(&answer(&world, &["status", "mine"], 0)["trials"]), 6);
    let splits = answer(&world, &["data", "mine", "--splits"], 0);
    let listed = world.run(&["data", "mine", "--splits"]).exits(0).out;
    assert_eq!(count(&splits["samples"]), listed.lines().count() - 1);

    let same = answer(&world, &["verify", "e.toml", "--all"], 0);
    assert_eq!((count(&same["trials"]), same["same"].clone(), same["not_run"].clone()), (6, 6.into(), 0.into()));
    assert!(same["trials"].as_array().unwrap().iter().all(|trial| trial["same"] == true));
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let key = same["trials"][0]["trial"].as_str().unwrap();
    assert_eq!(store.execute("UPDATE trial SET test_loss = test_loss + 1 WHERE key = ?", [key]).unwrap(), 1);
    drop(store);
    let other = answer(&world, &["verify", "e.toml", "--all"], 6);
    assert_eq!(other["same"], 5);
    let wrong = |trial: &&Value| trial["same"] == false;
    let wrong: Vec<&Value> = other["trials"].as_array().unwrap().iter().filter(wrong).collect();
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0]["trial"], key);
    assert!(wrong[0]["difference"].as_str().unwrap().contains("test loss"));

    let held = answer(&world, &["gc", "--dry-run", "--cache-limit", "0MB"], 0);
    let kinds = held["kinds"].as_array().unwrap();
    let bytes: u64 = kinds.iter().map(|kind| kind["bytes"].as_u64().unwrap()).sum();
    assert!(bytes > 0 && held["bytes"] == bytes && held["left"].as_u64().unwrap() < bytes, "{held}");
    let text = world.run(&["gc", "--dry-run"]).exits(0).out;
    assert!(text.contains(&format!("{:.1} MB", bytes as f64 / 1e6)), "{text}");
}
