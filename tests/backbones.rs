//! Backbones as data: Keras' layer tables row by row, a person's own graph, and freeze depths that cut branches.

use candle_core::{Device, Tensor};
use tl_sweep::exec::Network;
use tl_sweep::model::arch::{Arch, NAMES, family};
use tl_sweep::model::init;
use tl_sweep::model::sketch::Sketch;
use tl_sweep::model::summary::rows;
use tl_sweep::preprocess::Preprocess;

use crate::builder::World;

/// Index, name, class, output, parameters and inputs of every layer of Keras' models, `include_top=True`. Written by
/// `bash benches/parity.sh --fixtures tests/fixtures/frameworks`.
const TABLES: &str = include_str!("fixtures/frameworks/layers.tsv");

#[test]
fn layer_tables_are_those_of_keras() {
    let mut seen = 0;
    for (arch, side, count) in [
        ("vgg16", 224, 23),
        ("vgg19", 224, 26),
        ("inception_v3", 299, 313),
        ("resnet50", 224, 177),
        ("resnet50v2", 224, 192),
        ("xception", 299, 134),
        ("mobilenet_v1", 224, 91),
        ("mobilenet_v2", 224, 156),
        ("densenet121", 224, 429),
        ("efficientnet_b0", 224, 241),
        ("efficientnet_v2_b0", 224, 273),
        ("efficientnet_v2_s_keras", 384, 516),
    ] {
        let ours = rows(&Arch::new(arch, side, 1.0).graph(1000).unwrap(), 0);
        let theirs: Vec<Vec<&str>> =
            TABLES.lines().map(|line| line.split('\t').collect()).filter(|row: &Vec<&str>| row[0] == arch).collect();
        assert_eq!((ours.len(), theirs.len()), (count, count), "{arch}");
        for (ours, theirs) in ours.iter().zip(theirs) {
            // Keras keeps [1, 1, channels] where we say one number.
            let shape = theirs[4].trim_start_matches("1, 1, ");
            let row = [
                ours.index.to_string(),
                ours.name.clone(),
                ours.class.to_owned(),
                ours.output.clone(),
                ours.params.to_string(),
                ours.connected_to.join(","),
            ];
            assert_eq!(row, [theirs[1], theirs[2], theirs[3], shape, theirs[5], theirs[6]], "{arch}");
            seen += 1;
        }
    }
    assert_eq!(seen, 2571);
    // Without top: Keras' counts (keras/src/applications, include_top=False).
    for (arch, side, layers, params) in [
        ("vgg16", 224, 19, 14_714_688),
        ("vgg19", 224, 22, 20_024_384),
        ("inception_v3", 299, 311, 21_802_784),
        ("resnet50", 224, 175, 23_587_712),
        ("resnet50v2", 224, 190, 23_564_800),
        ("xception", 299, 132, 20_861_480),
    ] {
        let backbone = Arch::new(arch, side, 1.0).backbone("no_top").unwrap();
        let total: usize = (0..backbone.layers.len()).map(|layer| backbone.param_count(layer)).sum();
        assert_eq!((backbone.layers.len(), total), (layers, params), "{arch}");
    }
}

/// What a network does with pixels before anything else: B0 to B3 of EfficientNetV2 take ImageNet's mean and deviation, the others bring
/// them from -1 to 1.
#[test]
fn networks_that_prepare_images_do_it_in_numbers_of_their_own() {
    for (name, tap, expected) in [
        ("efficientnet_v2_b1", "normalization", [(51.0 / 255.0 - 0.485) / 0.229, (204.0 / 255.0 - 0.406) / 0.225]),
        ("efficientnet_v2_m_keras", "rescaling", [51.0 / 128.0 - 1.0, 204.0 / 128.0 - 1.0]),
    ] {
        let arch = Arch::new(name, 32, 1.0);
        assert_eq!(family(name).unwrap().preprocess, Preprocess::None, "{name}");
        let graph = arch.backbone(tap).unwrap();
        let weights = init::fresh(&graph, 0, 1, 0).unwrap();
        assert!(weights.0.is_empty(), "{name}: a file tells nothing of it");
        let network = Network::new(graph, &weights, &Device::Cpu).unwrap();
        let pixels = [51f32, 0.0, 204.0].iter().flat_map(|value| vec![*value; 32 * 32]).collect::<Vec<f32>>();
        let x = Tensor::from_vec(pixels, (1, 3, 32, 32), &Device::Cpu).unwrap();
        let found = network.infer(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // Channels come first again.
        let seen = [found[5], found[2 * 32 * 32 + 5]];
        assert!(seen.iter().zip(expected).all(|(seen, own)| (f64::from(*seen) - own).abs() < 1e-6), "{name}: {seen:?}");
    }
}

#[test]
fn an_index_through_branches_freezes_and_says_what_can_be_shared() {
    let world = World::new();
    let said = |freeze: &str| world.run(&["summary", "inception_v3", "--freeze", freeze]).exits(0).out;
    let out = said("50");
    assert!(out.contains("frozen: the first 50 layers,"), "{out}");
    assert!(out.contains("parallel branches: the work up to layer 40, mixed0, can be shared"), "{out}");
    // Keras' documentation trains the top two blocks: the first 249 layers, up to mixed8, are frozen.
    let out = said("249");
    assert!(out.contains("10674848 parameters") && !out.contains("parallel branches"), "{out}");
    assert_eq!(said("mixed8").lines().last(), out.lines().last());
    // Only these N give a cut of one tensor, of 311 (the reference's table).
    let graph = Arch::new("inception_v3", 299, 1.0).graph(1000).unwrap();
    let single: Vec<usize> = (1..=311).filter(|count| graph.cut_at_most(count - 1) == count - 1).collect();
    let expected: Vec<usize> = (1..=18).chain([41, 64, 87, 101, 133, 165, 197, 229, 249, 280, 311]).collect();
    assert_eq!(single, expected);
}

#[test]
fn every_network_can_be_written_as_a_file_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    for name in NAMES.iter().copied() {
        // Transformers cut their input into whole patches.
        let least = family(name).unwrap().least_input;
        let side = least.max(32).next_multiple_of(least);
        let graph = Arch::new(name, side, 1.0).graph(10).unwrap();
        let last = &graph.layers.last().unwrap().name;
        std::fs::write(&path, Sketch::of(&graph, last, last, Preprocess::Torch).to_toml().unwrap()).unwrap();
        let again = Sketch::read(&path).unwrap().graph(side, 10).unwrap();
        assert_eq!(again, graph, "{name}");
    }
}

const OWN: &str = r#"
name = "tiny"
framework = "keras"
input = 16
preprocess = "tf"
features = "pool"

[[layer]]
name = "conv"
op = "conv"
out = 8
kernel = 3
padding = "same"
activation = "relu"

[[layer]]
name = "side"
op = "conv"
out = 8
kernel = [1, 3]
padding = [0, 0, 1, 1]
inputs = ["input_layer"]

[[layer]]
name = "both"
op = "concat"
inputs = ["conv", "side"]

[[layer]]
name = "pool"
op = "grid-avg-pool"

[[layer]]
name = "flat"
op = "flatten"

[[layer]]
name = "out"
op = "dense"
out = "classes"
"#;

#[test]
fn a_network_of_ones_own_runs_and_its_content_is_its_key() {
    let experiment = r#"
[experiment]
name = "own"
replicates = 1
[backbone]
arch = "nets/tiny.toml"
weights = "random"
[datasets.a]
synthetic = { classes = 3, train = 20, test = 10 }
[scenarios.s]
dataset = "a"
[train]
steps = 5
[axes]
recipe = ["fine-tune"]
"#;
    let world = World::new().file("own.toml", experiment).file("nets/tiny.toml", OWN);
    world.run(&["summary", "nets/tiny.toml"]).exits(0);
    world.run(&["run", "own.toml"]).exits(0);
    let again = world.run(&["run", "own.toml"]).exits(0);
    assert!(again.err.contains("1 in the store, 0 to run"), "{}", again.err);
    // Elsewhere it is the same network; with another layer it is not.
    let world = world
        .file("moved.toml", experiment.replace("nets/tiny", "elsewhere/renamed"))
        .file("elsewhere/renamed.toml", OWN.replace("\nname = \"side\"", "\n# moved\nname = \"side\""));
    let moved = world.run(&["run", "moved.toml"]).exits(0);
    assert!(moved.err.contains("1 in the store, 0 to run"), "{}", moved.err);
    let world = world.file("nets/tiny.toml", OWN.replace("out = 8", "out = 4"));
    let other = world.run(&["plan", "own.toml", "--format", "json"]).exits(0).out;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&other).unwrap()["done"], 0);
}

#[test]
fn mistakes_in_a_network_of_ones_own_are_named_with_file_and_line() {
    for (from, to, line, message) in [
        ("op = \"flatten\"", "op = \"flaten\"", ":33:", "did you mean 'flatten'?"),
        (
            "inputs = [\"conv\", \"side\"]",
            "inputs = [\"conv\", \"sied\"]",
            ":24:",
            "no layer above it is called 'sied'",
        ),
        ("kernel = 3\n", "", ":8:", "needs `kernel`"),
        ("op = \"grid-avg-pool\"", "op = \"grid-avg-pool\"\nstride = 2", ":29:", "takes no `stride`"),
        ("padding = [0, 0, 1, 1]", "", ":17:", ""),
        ("features = \"pool\"", "features = \"pol\"", "bad.toml", "no layer 'pol'"),
        (
            "op = \"grid-avg-pool\"\n\n[[layer]]\nname = \"flat\"\nop = \"flatten\"",
            "op = \"relu\"\n\n[[layer]]\nname = \"flat\"\nop = \"relu\"",
            ":37:",
            "`flatten` before it",
        ),
        ("out = 8\nkernel = 3", "out = 8\nkernle = 3", "bad.toml", "kernle"),
        ("framework = \"keras\"", "framework = \"caffe\"", "bad.toml", "caffe"),
    ] {
        let text = OWN.replace(from, to);
        assert_ne!(text, OWN);
        let world = World::new().file("bad.toml", text);
        let said = world.run(&["summary", "bad.toml"]);
        if message.is_empty() {
            // Without its padding the branch is two pixels narrower, and the layer that joins them says so.
            assert!(
                said.err.contains("bad.toml:24:") && said.err.contains("heights and widths differ"),
                "{}",
                said.err
            );
            continue;
        }
        let said = said.exits(2);
        assert!(said.err.contains(line) && said.err.contains(message), "{} lacks {line} {message}", said.err);
    }
}
