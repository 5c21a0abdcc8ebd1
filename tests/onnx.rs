//! What leaves the program as ONNX gives the answers that the network gives here, in another runtime (tract), from bytes to
//! probabilities.

use tl_sweep::model::arch::Arch;
use tl_sweep::model::sketch::Sketch;
use tl_sweep::model::trained::Opened;
use tl_sweep::preprocess::Preprocess;
use tl_sweep::recipe::Pool;
use tl_sweep::train::reformed;
use tract_onnx::prelude::*;

use crate::builder::{World, png};
use crate::materials::network;
use crate::predictions::{experiment, predict, trials};
use crate::side::{answered, drawn};

/// Logits and probabilities that a file gives of planes [n, 3, side, side], one row after the other.
fn of_file(path: &std::path::Path, planes: &candle_core::Tensor) -> [Vec<f32>; 2] {
    let dims = planes.dims().to_vec();
    let values = planes.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let x = Tensor::from_shape(&dims, &values).unwrap();
    let fact = InferenceFact::dt_shape(f32::datum_type(), &dims);
    let model = tract_onnx::onnx().model_for_path(path).unwrap().with_input_fact(0, fact).unwrap();
    let model = model.into_typed().unwrap().into_decluttered().unwrap().into_runnable().unwrap();
    let found = model.run(tvec!(x.into())).unwrap();
    [0, 1].map(|which| found[which].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec())
}

/// What a file of such a network gives is what the network gives.
fn same(name: &str, opened: Opened) {
    let world = World::new();
    let path = world.path("out.onnx");
    let (logits, planes) = answered(&opened, 2);
    let expected = logits.to_vec2::<f32>().unwrap();
    reformed(opened, &path).unwrap();
    let [found, shares] = of_file(&path, &planes);
    let most = expected.iter().flatten().fold(0f32, |most, value| most.max(value.abs()));
    assert!(most > 1e-3, "{name}: logits of nothing");
    for (row, expected) in expected.iter().enumerate() {
        let found = &found[row * expected.len()..][..expected.len()];
        let far = found.iter().zip(expected).fold(0f32, |far, (found, own)| far.max((found - own).abs()));
        assert!(far <= 1e-4 * most, "{name}: {found:?} for {expected:?}");
        let above = expected.iter().fold(f32::NEG_INFINITY, |above, own| above.max(*own));
        let sum: f32 = expected.iter().map(|own| (own - above).exp()).sum();
        for (share, own) in shares[row * expected.len()..].iter().zip(expected) {
            assert!((share - (own - above).exp() / sum).abs() < 1e-3, "{name}: {shares:?}");
        }
    }
    assert_ne!(expected[0], expected[1], "{name}: both images have one answer");
}

#[test]
fn networks_of_convolutions_answer_the_same() {
    for (arch, side, width, preprocess) in [
        ("resnet8", 16, 1.0, Preprocess::Torch),
        ("vgg_small", 16, 0.25, Preprocess::CaffeRgb),
        ("vgg16", 32, 0.0625, Preprocess::Caffe),
        ("resnet50", 32, 0.0625, Preprocess::Caffe),
        ("resnet50v2", 33, 0.0625, Preprocess::Tf),
        ("inception_v3", 75, 0.0625, Preprocess::Tf),
        ("inception_v3_torchvision", 75, 0.0625, Preprocess::ZeroOne),
        ("xception", 71, 0.0625, Preprocess::Tf),
        ("squeezenet1_0", 39, 0.25, Preprocess::Torch),
        ("densenet121", 32, 0.125, Preprocess::Torch),
        ("mobilenet_v1", 33, 0.25, Preprocess::Tf),
        ("mobilenet_v3_small", 32, 0.5, Preprocess::Torch),
        ("regnet_y_400mf", 32, 0.125, Preprocess::Torch),
        ("efficientnet_b0", 32, 0.25, Preprocess::None),
        ("efficientnet_v2_b0", 32, 0.25, Preprocess::None),
    ] {
        same(arch, drawn(Arch::new(arch, side, width), "features", Pool::Avg(1), preprocess));
    }
}

#[test]
fn networks_of_tokens_and_of_windows_answer_the_same() {
    for (arch, side, width, tap, pool) in [
        ("vit_b_32", 64, 0.0834, "features", Pool::Avg(1)),
        ("vit_small_patch16", 48, 0.17, "blocks.2.last", Pool::ClassAvg),
        ("dinov2_vits14_reg", 28, 0.17, "blocks.3.last", Pool::Avg(2)),
        ("dinov3_vits16plus", 48, 0.17, "features", Pool::Avg(1)),
        ("clip_vitb32", 64, 0.0834, "image_embeds", Pool::Avg(1)),
        ("siglip_vitb32", 64, 0.0834, "features", Pool::Avg(1)),
        ("convnext_tiny", 32, 0.0625, "features", Pool::Avg(1)),
        ("convnextv2_atto", 32, 0.2, "features", Pool::Avg(1)),
        ("swin_t", 112, 0.34, "features", Pool::Avg(1)),
        ("swin_t", 72, 0.34, "features.3.last", Pool::Max(2)),
    ] {
        same(&format!("{arch} at {tap}"), drawn(Arch::new(arch, side, width), tap, pool, Preprocess::Clip));
    }
}

/// Maps that are flattened in the order of their framework, in cells of a grid, and of several taps.
#[test]
fn heads_read_what_they_read_here() {
    let of = |arch: &str, side: usize, tap: &str, pool: Pool| {
        same(&format!("{arch} {pool:?}"), drawn(Arch::new(arch, side, 0.25), tap, pool, Preprocess::Torch));
    };
    of("vgg_small", 16, "block3_pool", Pool::Flatten);
    of("resnet8", 20, "layer2.last", Pool::Flatten);
    of("resnet8", 20, "layer1.last", Pool::Avg(3));
    of("resnet8", 20, "layer2.last", Pool::Max(4));
    of("resnet8", 16, "layer1.last + layer3.last", Pool::Avg(2));
}

/// Layers of a network of one's own may be called what the file calls its own values.
#[test]
fn names_of_layers_are_nobody_elses() {
    let world = World::new().file(
        "own.toml",
        r#"
name = "own"
framework = "keras"
input = 16
preprocess = "tf"
features = "images"
[[layer]]
name = "preprocess"
op = "separable"
out = 6
kernel = 3
padding = "same"
[[layer]]
name = "logits"
op = "quick-gelu"
[[layer]]
name = "probabilities"
op = "gelu-tanh"
[[layer]]
name = "images"
op = "crop"
padding = [1, 0, 2, 1]
[[layer]]
name = "end"
op = "flatten"
[[layer]]
name = "classes"
op = "dense"
out = "classes"
"#,
    );
    let own = Sketch::read(&world.path("own.toml")).unwrap();
    let arch = Arch { name: "own".to_owned(), input: 16, width: 1.0, own: Some(Box::new(own)) };
    same("own", drawn(arch, "features", Pool::Max(3), Preprocess::Tf));
}

/// A file gives images that are squares of its size the probabilities that `predict` said.
pub fn answered_by(file: &std::path::Path, world: &World, said: &serde_json::Value, context: &str) {
    let images = said["images"].as_array().unwrap();
    let (mut planes, mut side) = (Vec::new(), 0);
    for image in images {
        let pixels = image::open(world.path(image["image"].as_str().unwrap())).unwrap().to_rgb8();
        side = pixels.width() as usize;
        planes.extend((0..3).flat_map(|plane| pixels.pixels().map(move |pixel| f32::from(pixel[plane]))));
    }
    let shape = (images.len(), 3, side, side);
    let planes = candle_core::Tensor::from_vec(planes, shape, &candle_core::Device::Cpu).unwrap();
    let [_, shares] = of_file(file, &planes);
    for (image, shares) in images.iter().zip(shares.chunks(shares.len() / images.len())) {
        // Classes are in the order of their names, in the file and in the answer.
        let own: Vec<f64> =
            image["probabilities"].as_object().unwrap().values().map(|own| own.as_f64().unwrap()).collect();
        assert_eq!(own.len(), shares.len(), "{context}");
        let far = own.iter().zip(shares).fold(0f64, |far, (own, share)| far.max((own - f64::from(*share)).abs()));
        assert!(far < 1e-5, "{context}: {image} and {shares:?}");
    }
}

/// A trial of a sweep on disk, exported, answers a folder of images as `predict` does; both ways to such a file give the same one.
#[test]
fn a_trial_answers_elsewhere_as_it_does_here() {
    let experiment = experiment(&["two-phases", "added"])
        .replace("arch = \"resnet8\"", "arch = \"vit_small_patch8\"\nwidth = 0.17\ninput = 16")
        .replace("freeze = \"layer1\"", "freeze = \"blocks.1\"")
        .replace("[recipes.solved]", "[recipes.added]\ntrains = { lora = 2 }\nsteps = 4\n[recipes.solved]");
    let mut world = World::new().images("mine", &["ants", "bees", "cats"], 6, 2).file("x.toml", experiment);
    for class in 0..5 {
        // Squares of the network's own size, which nothing has to bring to it.
        world = world.file(&format!("new/{class}.png"), png(16, 16, class, 7 * class));
    }
    network(&world, "w.safetensors", &Arch::new("vit_small_patch8", 16, 0.17));
    world.run(&["run", "x.toml"]).exits(0);
    let trials = trials(&world);
    assert_eq!(trials.len(), 2);
    for (trial, recipe, _) in &trials {
        let said = world.run(&["export", "x.toml", trial, "--out", "m.onnx"]).exits(0).out;
        assert!(said.contains("it reads `images`, float32 [n, 3, side, side]"), "{said}");
        assert_eq!(said.contains("merged into them"), recipe == "added", "{said}");
        world.run(&["export", "x.toml", trial, "--out", "m.safetensors"]).exits(0);
        world.run(&["weights", "convert", "m.safetensors", "--out", "again.onnx"]).exits(0);
        assert!(std::fs::read(world.path("m.onnx")).unwrap() == std::fs::read(world.path("again.onnx")).unwrap());
        answered_by(&world.path("m.onnx"), &world, &predict(&world, &["m.safetensors", "new"]), recipe);
        let text = String::from_utf8_lossy(&std::fs::read(world.path("m.onnx")).unwrap()).into_owned();
        for told in [r#"["ants","bees","cats"]"#, "RGB from 0 to 255, [n, 3, 16, 16]", trial, "tl-sweep"] {
            assert!(text.contains(told), "{told}");
        }
    }
}

#[test]
fn what_cannot_be_such_a_file_is_told_before_anything_runs() {
    let world = World::new().images("mine", &["ants", "bees"], 4, 8).file("x.toml", experiment(&["two-phases"]));
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    let refused = |args: &[&str], said: &str| {
        let found = world.run(args).exits(2).err;
        assert!(found.contains(said), "{found}");
    };
    refused(&["export", "x.toml", "abc", "--out", "m.bin"], "'m.bin' should end in .safetensors, or in .onnx");
    refused(&["export", "x.toml", "abc", "--out", "m.onnx", "--names", "torch"], "leave --names out");
    refused(
        &["weights", "convert", "w.safetensors", "--out", "m.onnx"],
        "holds tensors, and not how images are answered",
    );
    refused(&["weights", "convert", "w.safetensors", "--out", "m.safetensors"], "--names keras or torch");
    assert!(!world.path("m.onnx").exists() && !world.path("results").exists());
}
