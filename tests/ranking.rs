//! `rank`: which weights fit a dataset, from features of training images alone, and an experiment that says what that was worth.

use serde_json::Value;
use tl_sweep::model::arch::Arch;
use tl_sweep::model::init;
use tl_sweep::model::weights::Weights;

use crate::builder::{World, png};
use crate::materials::network;

/// Three files of random weights, two of them with classifiers of three classes; images whose classes have colours.
fn world() -> World {
    let world = World::new().images("mine", &["ants", "bees", "cats"], 12, 8);
    network(&world, "small.safetensors", &Arch::new("vgg_small", 32, 1.0));
    network(&world, "res.safetensors", &Arch::new("resnet8", 32, 1.0));
    network(&world, "deep.safetensors", &Arch::new("resnet20", 32, 1.0));
    world
}

const FILES: [&str; 3] = ["small.safetensors", "res.safetensors", "deep.safetensors"];

fn said(world: &World, files: &[&str], more: &[&str]) -> Value {
    let base = ["rank", "mine", "--preprocess", "torch", "--format", "json"];
    let said = world.run(&[&base[..1], &base[1..2], files, &base[2..], more].concat()).exits(0);
    serde_json::from_str(&said.out).unwrap()
}

/// What is said of a file but for how fast it was read.
fn of<'a>(said: &'a Value, name: &str) -> Vec<&'a Value> {
    let file = said["files"].as_array().unwrap().iter().find(|file| file["weights"] == name).unwrap();
    ["arch", "input", "numbers", "linear", "neighbours", "log_me", "h_score", "leep", "macs", "params"]
        .map(|key| &file[key])
        .to_vec()
}

#[test]
fn the_order_is_of_training_images_alone_and_its_experiment_says_what_it_was_worth() {
    let world = world();
    let first = said(&world, &FILES, &["--out", "x.toml"]);
    assert_eq!((&first["images"], &first["classes"]), (&36.into(), &3.into()));
    let files = first["files"].as_array().unwrap();
    assert!(files.windows(2).all(|pair| pair[0]["linear"].as_f64() >= pair[1]["linear"].as_f64()), "{first}");
    for file in files {
        let number = |key: &str| file[key].as_f64().unwrap();
        // Colours are read by any features: each score says so.
        assert!(number("linear") > 0.9 && number("neighbours") > 0.9, "{file}");
        assert!(number("h_score") > 1.0 && number("h_score") < 2.0, "of two at most: {file}");
        assert!(number("leep") < 0.0 && number("log_me").is_finite(), "{file}");
    }
    // Nobody is told from the best; the smallest of them comes first.
    assert_eq!(first["near_the_best"].as_array().unwrap().len(), 3);
    let macs = |name: &Value| files.iter().find(|file| file["weights"] == *name).unwrap()["macs"].as_f64();
    assert!(files.iter().all(|file| file["macs"].as_f64() >= macs(&first["first"])));
    assert_eq!(of(&first, "res.safetensors")[..3], [&Value::from("resnet8"), &32.into(), &64.into()]);

    // In another order, with other test images under another name: the same.
    for index in 0..8 {
        std::fs::write(world.path(&format!("mine/test/ants/{index:03}.png")), png(12, 12, 2, index)).unwrap();
    }
    std::fs::rename(world.path("mine/test"), world.path("mine/held")).unwrap();
    let turned = [FILES[2], FILES[0], FILES[1]];
    let second = said(&world, &turned, &["--test", "held"]);
    FILES.iter().for_each(|name| assert_eq!(of(&second, name), of(&first, name)));
    std::fs::rename(world.path("mine/held"), world.path("mine/test")).unwrap();

    // What it wrote runs, and tells how well each score foresaw it.
    world.run(&["check", "x.toml"]).exits(0);
    let text = std::fs::read_to_string(world.path("x.toml")).unwrap();
    let world = world.file("short.toml", text.replace("steps = 500", "steps = 3").replace("n = 3", "n = 2"));
    world.run(&["run", "short.toml", "--quiet"]).exits(0);
    let third = said(&world, &FILES, &["--against", "ranked-mine"]);
    let foresight = third["foresight"].as_array().unwrap();
    let recipes: Vec<&str> = foresight.iter().map(|own| own["recipe"].as_str().unwrap()).collect();
    assert_eq!(recipes, ["linear-probe", "fine-tune"]);
    assert!(foresight.iter().all(|own| own["files"] == 3 && own["scenario"] == "all"), "{foresight:?}");
    let taus = foresight.iter().flat_map(|own| own["kendall"].as_object().unwrap().values());
    assert!(taus.filter_map(Value::as_f64).all(|tau| (-1.0..=1.0).contains(&tau)));
    let table =
        world.run(&["rank", "mine", FILES[0], FILES[1], FILES[2], "--preprocess", "torch", "--against", "ranked-mine"]);
    let table = table.exits(0).out;
    assert!(
        table.contains("Try first: ") && table.contains("How well each foresaw the order that 'ranked-mine'"),
        "{table}"
    );
    // Of other images nothing was foreseen.
    let world = world.images("other", &["ants", "bees", "cats"], 11, 8);
    let args = ["rank", "other", FILES[0], FILES[1], FILES[2], "--preprocess", "torch", "--against", "ranked-mine"];
    assert!(world.run(&args).exits(0).out.contains("has not tested 3 of these files on these images"));
}

#[test]
fn a_file_without_a_classifier_has_no_leep_and_one_that_sees_nothing_is_clearly_behind() {
    let world = World::new().images("mine", &["ants", "bees", "cats"], 12, 8);
    let arch = Arch::new("resnet8", 32, 1.0);
    let weights = network(&world, "whole.safetensors", &arch);
    let headless = weights.0.iter().filter(|(name, _)| !name.starts_with("linear"));
    let headless = headless.map(|(name, own)| (name.clone(), own.clone())).collect();
    Weights(headless).write(&world.path("headless.safetensors")).unwrap();
    init::zeros(&arch.graph(3).unwrap()).unwrap().write(&world.path("blind.safetensors")).unwrap();
    let found = said(&world, &["blind.safetensors", "whole.safetensors", "headless.safetensors"], &[]);
    let leep = |name: &str| of(&found, name)[7].as_f64();
    assert!(leep("whole.safetensors").is_some() && leep("headless.safetensors").is_none());
    let same = |name: &str| of(&found, name)[..7].to_vec();
    assert_eq!(same("whole.safetensors"), same("headless.safetensors"), "all else is of the features");
    assert_eq!(found["files"][2]["weights"], "blind.safetensors", "{found}");
    assert_eq!(found["near_the_best"], serde_json::json!(["whole.safetensors", "headless.safetensors"]));
    // Nothing is known of the classes but their sizes.
    let blind = of(&found, "blind.safetensors");
    assert!(blind[3].as_f64().unwrap() < 0.5 && blind[6] == 0.0, "{blind:?}");
    assert!((leep("blind.safetensors").unwrap() - (1.0f64 / 3.0).ln()).abs() < 1e-6, "{blind:?}");
}

/// Files that come from different places: each with its own word for how its images were prepared.
#[test]
fn what_a_file_does_not_say_is_said_beside_it() {
    let world = world();
    let files = ["small.safetensors=vgg_small,tf", "res.safetensors=resnet8", "deep.safetensors"];
    let found = said(&world, &files, &["--out", "x.toml"]);
    let plain = said(&world, &FILES, &[]);
    assert_ne!(of(&found, "small.safetensors"), of(&plain, "small.safetensors"), "prepared otherwise");
    for name in &FILES[1..] {
        assert_eq!(of(&found, name), of(&plain, name));
    }
    let written = std::fs::read_to_string(world.path("x.toml")).unwrap();
    for line in ["preprocess = [\"tf\", \"torch\", \"torch\"]", "arch = [\"vgg_small\", \"resnet8\", \"resnet20\"]"] {
        assert!(written.contains(line), "{written}");
    }
    assert!(written.contains("weights = [\"small.safetensors\", "), "{written}");
    world.run(&["check", "x.toml"]).exits(0);
    let said = world.run(&["rank", "mine", "res.safetensors=resnet20,torch"]).exits(2);
    assert!(said.err.contains("do not fit resnet20") && said.err.contains("arch = \"resnet8\""), "{}", said.err);
    let said = world.run(&["rank", "mine", "res.safetensors=resnet8,tourch"]).exits(2);
    assert!(said.err.contains("'caffe', 'tf', 'torch', 'clip'"), "{}", said.err);
}

#[test]
fn what_cannot_be_ranked_is_said() {
    let world = world().file("there.toml", "mine");
    for (args, code, expected) in [
        (vec!["rank", "mine", FILES[0]], 2, "say with --preprocess how its inputs were prepared"),
        (vec!["rank", "mine", "gone", "--preprocess", "torch"], 2, "there are no weights 'gone'"),
        (vec!["rank", "gone", FILES[0], "--preprocess", "torch"], 2, "there is nothing at 'gone'"),
        (vec!["rank", "mine", FILES[0], "--preprocess", "torch", "--out", "there.toml"], 2, "exists already"),
        (
            vec!["rank", "mine", FILES[0], "--preprocess", "torch", "--format", "csv"],
            2,
            "possible values: table, md, json",
        ),
        (vec!["rank", "mine"], 2, "WEIGHTS"),
    ] {
        let said = world.run(&args).exits(code);
        assert!(said.err.contains(expected), "{args:?}: {}", said.err);
    }
    let args = ["rank", "mine", FILES[0], "--preprocess", "torch", "--against", "nothing"];
    assert!(world.run(&args).exits(7).err.contains("there is no store at"));
}
