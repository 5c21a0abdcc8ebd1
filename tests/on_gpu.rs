//! The program on the GPUs that there are: sweeps over one and over all of them, and what leaves the program, which the device
//! computes that has trained. Only in builds that have CUDA; there a machine without a GPU fails them.

use tl_sweep::model::arch::Arch;

use crate::builder::World;
use crate::materials::{network, npy};
use crate::predictions::{self, of_truth, trials};
use crate::sharing::{GRID, found};

/// On the data of the grid that shares everything, for fewer steps.
const RECIPES: &str = r#"
[recipes.probe]
freeze = "all"
[recipes.flipped]
freeze = "layer1"
augment = ["flip", "crop"]
[recipes.rounded]
freeze = "layer2"
precision = "bf16"
[recipes.taps]
freeze = "all"
tap = ["layer1.0.relu2", "layer3.0.relu2"]
[recipes.chosen]
tap = ["layer1.0.relu2", "layer3.0.relu2"]
trains = ["layer1", "layer3"]
layer_decay = 0.5
start_decay = 0.1
augment = ["flip"]
[axes]
recipe = ["probe", "flipped", "rounded", "taps", "chosen"]
lr = [0.01, 0.1]
"#;

fn experiment() -> World {
    let head = GRID.split("[recipes.probe]").next().unwrap();
    let head = head.replace("steps = 20", "steps = 6").replace("steps = 12", "steps = 6");
    World::new().file("x.toml", head + RECIPES)
}

#[test]
fn a_sweep_is_the_same_on_one_gpu_on_all_of_them_and_with_nothing_shared() {
    let world = experiment();
    let run = |db: &str, args: &[&str]| {
        world.run(&[&["run", "x.toml", "--quiet", "--db", db], args].concat()).exits(0);
        found(&world, db).0
    };
    let one = run("one/r.sqlite", &["--devices", "cuda:0", "--slots", "1"]);
    assert_eq!(one.len(), 20);
    assert_eq!(run("all/r.sqlite", &["--devices", "auto", "--slots", "3"]), one);
    // What it was to take was measured on the GPU, one stream and as many as there are.
    let rates = |of: &str| std::fs::read_to_string(world.path(of)).unwrap();
    assert!(rates("one/cache/machine.json").contains("training, 8 images, bf16\""));
    assert!(rates("all/cache/machine.json").contains(", 3 at once\""));
    assert_eq!(run("alone/r.sqlite", &["--devices", "cuda:0", "--no-share"]), one);
}

#[test]
fn an_export_is_trained_as_the_trial_was_on_the_gpu_and_in_its_precision() {
    let world = experiment();
    world
        .run(&["run", "x.toml", "--only", "recipe == 'rounded'", "--limit", "1", "--quiet", "--db", "r.sqlite"])
        .exits(5);
    let (trials, _) = found(&world, "r.sqlite");
    let key = trials.keys().next().unwrap();
    let said = world.run(&["export", "x.toml", key, "--db", "r.sqlite", "--out", "m.safetensors"]).exits(0);
    assert!(said.out.contains("and its 24 answers on test are those in the store, to the bit"), "{}", said.out);
}

#[test]
fn features_are_extracted_on_the_gpu_that_is_asked_for() {
    let world = World::new().images("mine", &["ants", "bees"], 40, 8);
    network(&world, "w.safetensors", &Arch::new("vgg_small", 32, 1.0));
    let extract = |device: &str, more: &[&str]| {
        let args =
            ["extract", "w.safetensors", "mine", "--tap", "block2_pool", "--preprocess", "torch", "--out", "f.npy"];
        world.run(&[&args[..], &["--devices", device], more].concat()).exits(0);
        npy(&world.path("f.npy"))
    };
    let (shape, expected) = extract("cpu", &[]);
    let norm = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|number| number * number).sum::<f32>().sqrt();
    for (more, tolerance) in [(&[][..], 1e-4), (&["--precision", "bf16"], 2e-2)] {
        let (own_shape, own) = extract("cuda:0", more);
        assert_eq!(own_shape, shape);
        let differs =
            norm(&mut own.iter().zip(&expected).map(|(own, other)| own - other)) / norm(&mut expected.iter().copied());
        assert!(differs < tolerance && (more.is_empty() || differs > 1e-5), "{more:?}: {differs}");
    }
}

#[test]
fn a_gpu_rounds_as_the_experiment_says_and_results_name_its_class() {
    let world = experiment();
    let run = ["run", "x.toml", "--only", "recipe == 'probe'", "--limit", "1", "--quiet", "--db", "r.sqlite"];
    let disturbed = world.command(&run).env("NVIDIA_TF32_OVERRIDE", "1").output().unwrap();
    assert_eq!(disturbed.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&disturbed.stderr).contains("NVIDIA_TF32_OVERRIDE is set"));
    world.run(&run).exits(5);
    let store = rusqlite::Connection::open(world.path("r.sqlite")).unwrap();
    let class: String = store.query_row("SELECT DISTINCT numerics FROM trial", [], |row| row.get(0)).unwrap();
    let doctor = world.run(&["doctor"]).exits(0).out;
    assert!(class.starts_with("cuda-") && class.contains("-cublas"), "{class}");
    assert!(doctor.contains(&format!("numerics class {class}\n")), "{class}: {doctor}");
}

#[test]
fn images_are_answered_and_looked_at_on_the_gpu_as_on_the_cpu() {
    let experiment = predictions::experiment(&["linear-probe", "two-phases"]);
    let world = World::new().images("mine", &["ants", "bees", "cats"], 12, 8).file("x.toml", experiment);
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    world.run(&["run", "x.toml", "--quiet", "--devices", "cuda:0"]).exits(0);
    let trials = trials(&world);
    assert_eq!(trials.len(), 2);
    // What the GPU has trained is kept, for a probe of a bank and for a network.
    world.run(&["rerun", "x.toml", &trials[0].0, &trials[1].0, "--devices", "cuda:0", "--set", "keep=all"]).exits(0);
    for (trial, recipe, probabilities) in &trials {
        let said = world.run(&["export", "x.toml", trial, "--out", "m.safetensors", "--devices", "cuda:0"]).exits(0);
        assert!(said.out.contains("kept since it was trained"), "{recipe}: {}", said.out);
        for device in ["cuda:0", "cpu"] {
            let said = world.run(&["predict", "m.safetensors", "mine/test", "--format", "json", "--devices", device]);
            let answers = of_truth(&serde_json::from_str(&said.exits(0).out).unwrap());
            assert_eq!(answers.len(), probabilities.len());
            for (own, stored) in answers.iter().zip(probabilities) {
                assert!((own - stored).abs() < 1e-4, "{recipe} on {device}: {own} and {stored}");
            }
        }
    }
    // Where an answer rests: the same places, by the same part of the odds.
    let rests = |device: &str| {
        let args = ["look", "m.safetensors", "mine/test", "--out", "look.json", "--images", "3", "--devices", device];
        world.run(&args).exits(0);
        let text = std::fs::read_to_string(world.path("look.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let images = json["images"].as_array().unwrap().iter();
        let rows = images.flat_map(|image| image["drops"].as_array().unwrap().clone());
        let drops = rows.flat_map(|row| row.as_array().unwrap().clone());
        drops.map(|drop| drop.as_f64().unwrap()).collect::<Vec<_>>()
    };
    let [own, cpu] = ["cuda:0", "cpu"].map(rests);
    let most = cpu.iter().fold(0.0, |most: f64, drop| most.max(drop.abs()));
    assert!(most > 0.0 && own.len() == cpu.len());
    assert!(own.iter().zip(&cpu).all(|(own, cpu)| (own - cpu).abs() < 1e-3 * most), "{own:?}\n{cpu:?}");
    let looked = |device: &str| {
        let args =
            ["recommend", "w.safetensors", "mine", "--preprocess", "torch", "--format", "json", "--devices", device];
        let json: serde_json::Value = serde_json::from_str(&world.run(&args).exits(0).out).unwrap();
        json["taps"].clone()
    };
    // Colours tell the classes apart so well that rounding decides nothing.
    assert_eq!(looked("cuda:0"), looked("cpu"));
}

/// The system's loader tells what it would load before the program begins (ld.so(8), `LD_TRACE_LOADED_OBJECTS`).
#[test]
fn the_program_starts_where_there_are_none_of_nvidias_libraries() {
    let program = env!("CARGO_BIN_EXE_tl-sweep");
    let said = std::process::Command::new(program).env("LD_TRACE_LOADED_OBJECTS", "1").output().unwrap();
    let needed = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(needed.contains("libc.so") && !needed.contains("libcu"), "{needed}");
}
