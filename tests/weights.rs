//! Weight files of every framework: what is read, what is refused, and in which words.

use std::io::Read;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::graph::{Framework, Graph};
use tl_sweep::model::init;
use tl_sweep::model::sketch::Sketch;
use tl_sweep::model::weights::Weights;
use tl_sweep::model::weights::export::{Exported, exported};
use tl_sweep::model::weights::file::WeightFile;
use tl_sweep::model::weights::positions::{Class, Grids, Stretch, stretched};
use tl_sweep::preprocess::Preprocess;

use crate::builder::World;
use crate::side::{self, Side};

/// The message with which a file is refused.
fn refused(world: &World, weights: &Weights, arch: &Arch) -> String {
    let path = world.path("w.safetensors");
    weights.write(&path).unwrap();
    format!("{:#}", Weights::load(&path, arch, "features").map(|_| ()).unwrap_err())
}

fn values(weights: &Weights) -> Vec<(String, Vec<f32>)> {
    let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    weights.0.iter().map(|(name, tensor)| (name.clone(), numbers(tensor))).collect()
}

#[test]
fn weights_that_do_not_fit_are_listed_on_both_sides() {
    let world = World::new();
    let arch = Arch::new("resnet8", 16, 1.0);
    let graph = arch.graph(10).unwrap();
    let mut weights = init::fresh(&graph, 0, 1, 0).unwrap();
    let conv = weights.0.remove("layer1.0.conv1.weight").unwrap();
    weights.0.insert("layer1.0.conv9.weight".to_owned(), conv);
    weights.0.insert("bn1.bias".to_owned(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
    let message = refused(&world, &weights, &arch);
    for expected in [
        "not in the file: layer1.0.conv1.weight",
        "not in the network: layer1.0.conv9.weight",
        "bn1.bias: network [16], file [3]",
    ] {
        assert!(message.contains(expected), "{message}");
    }
    // Only the classifier may be new.
    let mut headless = init::fresh(&graph, 0, 1, 0).unwrap();
    headless.0.retain(|name, _| !name.starts_with("linear"));
    headless.write(&world.path("h.safetensors")).unwrap();
    assert!(Weights::load(&world.path("h.safetensors"), &arch, "features").unwrap().1.headless);
    // The message names the network that a file is of.
    let other = Arch::new("resnet20", 32, 1.0);
    let message = refused(&world, &init::fresh(&other.graph(10).unwrap(), 0, 1, 0).unwrap(), &arch);
    assert!(message.contains("its tensors are those of arch = \"resnet20\""), "{message}");
    // A dense layer over a map tells the size of the input; where nothing above the tap is needed, it is left out.
    let (vgg, smaller) = (Arch::new("vgg16", 224, 0.0625), Arch::new("vgg16", 64, 0.0625));
    let weights = init::fresh(&smaller.graph(10).unwrap(), 0, 1, 0).unwrap();
    let message = refused(&world, &weights, &vgg);
    assert!(message.contains("was it made with another `input`?"), "{message}");
    weights.write(&world.path("s.safetensors")).unwrap();
    let other = Arch::new("vgg16", 96, 0.0625);
    assert!(Weights::load(&world.path("s.safetensors"), &other, "block5_pool").unwrap().1.headless);
}

#[test]
fn weights_survive_writing_and_reading() {
    let world = World::new();
    let arch = Arch::new("vgg_small", 16, 1.0);
    let weights = init::fresh(&arch.graph(4).unwrap(), 0, 3, 1).unwrap();
    let path = world.path("w.safetensors");
    weights.write(&path).unwrap();
    let (read, fitted) = Weights::whole(&path, &arch).unwrap();
    assert_eq!(values(&read), values(&weights));
    // Up to a tap, what is above is not read.
    let below = Weights::load(&path, &arch, "block2_pool").unwrap().0;
    assert_eq!(below.0.keys().filter(|name| name.starts_with("block3") || name.starts_with("fc1")).count(), 0);
    assert_eq!(below.0.len(), 8);
    assert_eq!(fitted.graph.layers.last().unwrap().shape, [4, 1, 1]);
    // NaN is refused below the classifier, and in it costs the classifier.
    let nan = |name: &str, count: usize| {
        let mut broken = weights.clone();
        broken.0.insert(name.to_owned(), Tensor::full(f32::NAN, count, &Device::Cpu).unwrap());
        broken
    };
    assert!(refused(&world, &nan("fc1.bias", 256), &arch).contains("'fc1.bias'"));
    nan("predictions.bias", 4).write(&path).unwrap();
    let (read, fitted) = Weights::whole(&path, &arch).unwrap();
    assert!(fitted.headless && !read.0.contains_key("predictions.weight") && read.0.contains_key("fc1.weight"));
    for damaged in [&b"short"[..], b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80\x02.", b"<html>not found</html>"] {
        std::fs::write(&path, damaged).unwrap();
        let message = format!("{:#}", Weights::load(&path, &arch, "features").map(|_| ()).unwrap_err());
        assert!(message.contains("w.safetensors"), "{message}");
    }
}

/// What a framework computed with a sixteenth (MobileNets: a quarter) of the channels, and its weight files. Written by
/// `bash benches/parity.sh --fixtures tests/fixtures/frameworks`.
struct Fixture {
    case: serde_json::Value,
    folder: tempfile::TempDir,
    files: Vec<String>,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/frameworks");
        let case: serde_json::Value =
            serde_json::from_slice(&std::fs::read(source.join(format!("{name}.json"))).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let unpack = |packed: &serde_json::Value| {
            let packed = packed.as_str().unwrap();
            let mut bytes = Vec::new();
            let file = std::fs::File::open(source.join(packed)).unwrap();
            flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
            let name = packed.trim_end_matches(".gz").to_owned();
            std::fs::write(folder.path().join(&name), bytes).unwrap();
            name
        };
        let files = case["files"].as_array().unwrap().iter().map(unpack).collect();
        Self { case, folder, files }
    }

    fn side(&self, file: &str) -> Side {
        let mut job = self.case["job"].clone();
        job["weights"] = file.into();
        Side::new(side::job(&job, self.folder.path()))
    }
}

/// The same samples of a tensor that the script took, within a relative tolerance of the largest value.
fn same(name: &str, ours: &Tensor, theirs: &serde_json::Value, tolerance: f64) {
    let ours: Vec<f64> = ours.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect();
    assert_eq!(ours.len() as u64, theirs["count"].as_u64().unwrap(), "{name}");
    let largest = theirs["largest"].as_f64().unwrap().max(1e-30);
    let some = theirs["some"].as_array().unwrap();
    for (place, expected) in ours.iter().step_by((ours.len() / 24).max(1)).zip(some) {
        let off = (place - expected.as_f64().unwrap()).abs() / largest;
        assert!(off < tolerance, "{name}: {place} against {expected}, {off:.1e} of {largest}");
    }
    let norm = ours.iter().map(|value| value * value).sum::<f64>().sqrt();
    let expected = theirs["norm"].as_f64().unwrap();
    assert!((norm - expected).abs() < tolerance * expected, "{name}: norm {norm} against {expected}");
}

/// Files of a framework give its activations, logits, gradients and training steps.
fn framework(name: &str, files: usize) {
    let fixture = Fixture::new(name);
    assert_eq!(fixture.files.len(), files);
    let numbers = fixture.case["numbers"].as_object().unwrap();
    for file in &fixture.files {
        same(file, &fixture.side(file).logits(), &numbers["logits"], 1e-4);
    }
    let mut side = fixture.side(&fixture.files[0]);
    let gradients = side.gradients();
    let mut seen = 1;
    for (name, gradient) in &gradients {
        same(name, gradient, &numbers[&format!("grad:{name}")], 1e-4);
        seen += 1;
    }
    for (name, output) in side.cuts() {
        same(&name, &output, &numbers[&name], 1e-4);
        seen += 1;
    }
    let before = side.network.weights().unwrap();
    for (step, (loss, expected)) in side.train().iter().zip(fixture.case["losses"].as_array().unwrap()).enumerate() {
        let expected = expected.as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-3, "{name}, step {step}: {loss} against {expected}");
    }
    let after = side.network.weights().unwrap();
    for (name, expected) in numbers.iter().filter(|(name, _)| name.starts_with("after:")) {
        same(name, &after.0[&name["after:".len()..]], expected, 1e-3);
        seen += 1;
    }
    assert_eq!(seen, numbers.len());
    // `model.layers[:5]` has not moved by a bit; what is above has (a bias before a batch norm has no gradient).
    let graph = &side.network.graph;
    let mut moved = 0;
    for layer in 0..graph.layers.len() {
        for param in graph.params(layer) {
            let name = format!("{}.{}", graph.layers[layer].name, param.name);
            let bits = |weights: &Weights| weights.0[&name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let same = bits(&before) == bits(&after);
            assert!(same || layer >= 5, "{name} is frozen and has moved");
            moved += usize::from(!same);
        }
    }
    assert!(moved * 2 > after.0.len(), "{moved} of {} tensors have moved", after.0.len());
}

#[test]
fn keras_vgg16() {
    framework("vgg16", 1);
}

#[test]
fn keras_vgg19() {
    framework("vgg19", 2);
}

#[test]
fn keras_inception_v3() {
    framework("inception_v3", 2);
}

#[test]
fn keras_resnet50() {
    framework("resnet50", 1);
}

#[test]
fn keras_resnet50v2() {
    framework("resnet50v2", 1);
}

/// Keras 2 numbers what has no name otherwise, and a separable convolution has two kernels.
#[test]
fn keras_xception() {
    framework("xception", 2);
}

#[test]
fn keras_mobilenet_v1() {
    framework("mobilenet_v1", 2);
}

#[test]
fn keras_mobilenet_v2() {
    framework("mobilenet_v2", 1);
}

#[test]
fn keras_densenet121() {
    framework("densenet121", 1);
}

#[test]
fn torchvision_densenet121() {
    framework("densenet121_torchvision", 1);
}

#[test]
fn keras_efficientnet_b0() {
    framework("efficientnet_b0", 2);
}

#[test]
fn torchvision_efficientnet_b0() {
    framework("efficientnet_b0_torchvision", 1);
}

#[test]
fn torchvision_mobilenet_v3_small() {
    framework("mobilenet_v3_small", 1);
}

/// torchvision's MobileNetV3 and timm's are one but for their batch norms, which no tensor tells: by their names they are told apart.
#[test]
fn mobilenets_of_two_frameworks_are_not_taken_for_each_other() {
    let world = World::new();
    for name in ["mobilenet_v3_small", "mobilenet_v3_large"] {
        let [torch, timm] = [name.to_owned(), format!("{name}_timm")].map(|name| Arch::new(&name, 64, 0.5));
        let [one, other] = [&torch, &timm].map(|arch| arch.graph(3).unwrap());
        assert_eq!((one.total_params(), one.total_macs()), (other.total_params(), other.total_macs()));
        for (own, not) in [(&torch, &timm), (&timm, &torch)] {
            crate::materials::network(&world, "w.safetensors", own);
            let path = world.path("w.safetensors");
            assert!(Weights::load(&path, own, "features").is_ok(), "{}", own.name);
            assert!(Weights::load(&path, not, "features").is_err(), "{} in {}", own.name, not.name);
        }
    }
}

#[test]
fn torchvision_regnet_x_400mf() {
    framework("regnet_x_400mf", 1);
}

#[test]
fn torchvision_mobilenet_v2() {
    framework("mobilenet_v2_torchvision", 3);
}

/// Keras' EfficientNet without ImageNet's weights has one rescaling less, and the same names.
#[test]
fn torchvision_convnext_tiny() {
    framework("convnext_tiny", 1);
}

#[test]
fn torchvision_vit_b_16() {
    framework("vit_b_16", 1);
}

/// Positions of a grid of patches as another grid's, by PyTorch's interpolation as three authors ask for it.
#[test]
fn positions_are_stretched_as_their_authors_do() {
    let all: serde_json::Value = serde_json::from_str(include_str!("fixtures/operators.json")).unwrap();
    for (grids, expected) in all["positions"].as_object().unwrap() {
        let grids: Vec<usize> = grids.split(" to ").map(|side| side.parse().unwrap()).collect();
        let [from, to] = grids[..] else { panic!("{grids:?}") };
        let values: Vec<f32> = crate::operators::uniform((1 + from * from) * 3, 1).iter().map(|x| *x as f32).collect();
        for (name, own) in [("corners", Stretch::Corners), ("offset", Stretch::Offset), ("smooth", Stretch::Smooth)] {
            let found = stretched(&values, Grids { from, to, class: Class::Kept }, own);
            let expected: Vec<f64> = serde_json::from_value(expected[name].clone()).unwrap();
            assert_eq!(found.len(), expected.len());
            let worst = found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-5, "{name}, {from} to {to}: {worst}");
        }
    }
}

/// A file of one grid in a network of another: the names of torchvision's older files, of registers, of what only pretraining
/// uses; written back under the names of the framework, and refused where the tokens are no square.
#[test]
fn a_transformer_is_read_at_another_size_and_written_back_under_its_names() {
    let world = World::new();
    let (file, arch) = (Arch::new("dinov2_vits14_reg", 56, 1.0 / 6.0), Arch::new("dinov2_vits14_reg", 28, 1.0 / 6.0));
    let mut weights = init::fresh(&file.graph(10).unwrap(), 0, 1, 0).unwrap();
    let mut renamed = Weights::default();
    for (name, tensor) in std::mem::take(&mut weights.0) {
        let base = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
        let name = match base.as_str() {
            "cls_token" | "pos_embed" | "register_tokens" => base,
            scale if scale.ends_with(".ls1") || scale.ends_with(".ls2") => format!("{scale}.gamma"),
            _ => name,
        };
        // Published without a classifier.
        if !name.starts_with("head") {
            renamed.0.insert(name, tensor);
        }
    }
    renamed.0.insert("mask_token".to_owned(), Tensor::zeros((1, 64), DType::F32, &Device::Cpu).unwrap());
    let path = world.path("dino.safetensors");
    renamed.write(&path).unwrap();
    let (own, fitted) = Weights::load(&path, &arch, "features").unwrap();
    assert!(fitted.headless && fitted.found.left_out.iter().any(|(name, _)| name == "mask_token"));
    let placed = fitted.found.placed.iter().find(|placed| placed.shape == [1, 5, 64]).unwrap();
    assert_eq!(placed.said(), "4 x 4 patches to 2 x 2, as DINOv2 does");
    let graph = fitted.graph.truncate(arch.tap(&fitted.graph, "features").unwrap());
    let exported = exported(&graph, &own, Framework::Torch).unwrap();
    for tensor in &exported {
        let theirs = renamed.0.get(&tensor.name).unwrap_or_else(|| panic!("{}", tensor.name));
        let positions = tensor.name == "pos_embed";
        assert_eq!(tensor.shape != theirs.dims(), positions, "{}", tensor.name);
        assert!(
            positions || theirs.flatten_all().unwrap().to_vec1::<f32>().unwrap() == tensor.values,
            "{}",
            tensor.name
        );
    }
    assert_eq!(exported.len() + 1, renamed.0.len());
    renamed.0.insert("pos_embed".to_owned(), Tensor::zeros((1, 18, 64), DType::F32, &Device::Cpu).unwrap());
    let message = refused(&world, &renamed, &arch);
    assert!(message.contains("pos_embed.weight: network [1, 5, 64], file [1, 18, 64]"), "{message}");
    // torchvision's older names of a block's dense layers, and its packed projection.
    let arch = Arch::new("vit_b_32", 32, 1.0 / 12.0);
    let graph = arch.graph(10).unwrap();
    let fresh = init::fresh(&graph, 0, 1, 0).unwrap();
    let mut older = Weights::default();
    for tensor in exported_of(&graph, &fresh) {
        let name = tensor.name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.");
        older.0.insert(name, Tensor::from_vec(tensor.values, tensor.shape, &Device::Cpu).unwrap());
    }
    assert!(older.0.contains_key("encoder.layers.encoder_layer_11.self_attention.in_proj_weight"));
    older.write(&path).unwrap();
    assert_eq!(values(&Weights::whole(&path, &arch).unwrap().0), values(&fresh));
}

/// Hugging Face's names, where queries, keys and values are three layers: all three must be there, each once.
#[test]
fn a_transformer_of_the_hub_has_its_projections_in_thirds() {
    let world = World::new();
    let arch = Arch::new("vit_small_patch32", 64, 1.0 / 6.0);
    let graph = arch.graph(10).unwrap();
    let fresh = init::fresh(&graph, 0, 1, 0).unwrap();
    let mut hub = Weights::default();
    for (name, tensor) in &fresh.0 {
        let (layer, leaf) = name.rsplit_once('.').unwrap();
        if let Some(block) = layer.strip_suffix(".attn.qkv") {
            let block = block.replace("blocks.", "vit.encoder.layer.");
            for (third, word) in ["query", "key", "value"].into_iter().enumerate() {
                let part = tensor.narrow(0, third * 64, 64).unwrap().contiguous().unwrap();
                hub.0.insert(format!("{block}.attention.attention.{word}.{leaf}"), part);
            }
            continue;
        }
        let name = match layer {
            "cls_token" => "vit.embeddings.cls_token".to_owned(),
            "pos_embed" => "vit.embeddings.position_embeddings".to_owned(),
            "patch_embed.proj" => format!("vit.embeddings.patch_embeddings.projection.{leaf}"),
            "norm" => format!("vit.layernorm.{leaf}"),
            "head" => format!("classifier.{leaf}"),
            layer => {
                let own = layer.replace("blocks.", "vit.encoder.layer.").replace("attn.proj", "attention.output.dense");
                let own = own.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after");
                format!("{}.{leaf}", own.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense"))
            }
        };
        hub.0.insert(name, tensor.clone());
    }
    hub.0.insert("vit.pooler.dense.bias".to_owned(), Tensor::zeros(64, DType::F32, &Device::Cpu).unwrap());
    let path = world.path("hub.safetensors");
    hub.write(&path).unwrap();
    assert_eq!(values(&Weights::whole(&path, &arch).unwrap().0), values(&fresh));
    let key = "vit.encoder.layer.3.attention.attention.key.weight";
    let part = hub.0.remove(key).unwrap();
    let message = refused(&world, &hub, &arch);
    assert!(message.contains("not in the file: blocks.3.attn.qkv.weight"), "{message}");
    hub.0.insert(key.to_owned(), part.narrow(0, 0, 63).unwrap().contiguous().unwrap());
    let message = refused(&world, &hub, &arch);
    assert!(message.contains("blocks.3.attn.qkv.weight: network [192, 64], file [63, 64]"), "{message}");
}

fn exported_of(graph: &Graph, weights: &Weights) -> Vec<Exported> {
    exported(graph, weights, Framework::Torch).unwrap()
}

/// ConvNeXt under timm's names and its authors'; of V2 the authors' response norms have axes of images and pixels.
#[test]
fn a_convnext_has_three_names_for_everything() {
    for name in ["convnext_tiny", "convnextv2_atto"] {
        three_names(&Arch::new(name, 32, 1.0 / 16.0));
    }
}

fn three_names(arch: &Arch) {
    let world = World::new();
    let graph = arch.graph(10).unwrap();
    let fresh = init::fresh(&graph, 0, 1, 0).unwrap();
    type Parts = [(&'static str, &'static str); 6];
    const TIMM: Parts = [
        ("block.0", "conv_dw"),
        ("block.2", "norm"),
        ("block.3", "mlp.fc1"),
        ("block.grn", "mlp.grn"),
        ("block.5", "mlp.fc2"),
        ("layer_scale", "gamma"),
    ];
    const AUTHORS: Parts = [
        ("block.0", "dwconv"),
        ("block.2", "norm"),
        ("block.3", "pwconv1"),
        ("block.grn", "grn"),
        ("block.5", "pwconv2"),
        ("layer_scale", "gamma"),
    ];
    for (timm, parts) in [(true, TIMM), (false, AUTHORS)] {
        let mut renamed = Weights::default();
        for tensor in exported_of(&graph, &fresh) {
            let words: Vec<&str> = tensor.name.splitn(4, '.').collect();
            let name = match words[..] {
                ["features", "0", own, leaf] if timm => format!("stem.{own}.{leaf}"),
                ["features", "0", own, leaf] => format!("downsample_layers.0.{own}.{leaf}"),
                ["features", group, own, rest] if group.parse::<usize>().unwrap() % 2 == 1 => {
                    let stage = group.parse::<usize>().unwrap() / 2;
                    let (own_part, theirs) = parts.iter().find(|(part, _)| rest.starts_with(part)).unwrap();
                    let block = if timm { "blocks." } else { "" };
                    format!("stages.{stage}.{block}{own}.{}", rest.replace(own_part, theirs))
                }
                ["features", group, own, leaf] => {
                    let stage = group.parse::<usize>().unwrap() / 2;
                    let folder =
                        if timm { format!("stages.{stage}.downsample") } else { format!("downsample_layers.{stage}") };
                    format!("{folder}.{own}.{leaf}")
                }
                ["classifier", "0", leaf] => format!("{}.{leaf}", if timm { "head.norm" } else { "norm" }),
                ["classifier", "2", leaf] => format!("{}.{leaf}", if timm { "head.fc" } else { "head" }),
                _ => panic!("{}", tensor.name),
            };
            // Theirs is a vector; or a response norm's are none, and have names of their own.
            let responds = name.contains("grn.") && !timm;
            let name = match responds {
                true => name.replace("grn.weight", "grn.gamma").replace("grn.bias", "grn.beta"),
                false => name,
            };
            let shape = match (name.ends_with(".gamma"), responds) {
                (_, true) => vec![1, 1, 1, tensor.values.len()],
                (true, _) => vec![tensor.values.len()],
                _ => tensor.shape,
            };
            renamed.0.insert(name, Tensor::from_vec(tensor.values, shape, &Device::Cpu).unwrap());
        }
        let path = world.path("convnext.safetensors");
        renamed.write(&path).unwrap();
        assert_eq!(values(&Weights::whole(&path, arch).unwrap().0), values(&fresh), "timm: {timm}");
    }
}

/// Swin under timm's names, which merges patches at the beginning of a stage, under its authors', at the end of the one before, and
/// under Hugging Face's, in their files and in their modules since. Theirs hold numbers that follow from the shape as well.
#[test]
fn a_swin_has_four_names_for_everything() {
    let world = World::new();
    let arch = Arch::new("swin_t", 64, 0.0625);
    let graph = arch.graph(10).unwrap();
    let fresh = init::fresh(&graph, 0, 1, 0).unwrap();
    for (whose, parts) in [
        ("timm", ["norm1", "attn.", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]),
        ("authors", ["norm1", "attn.", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]),
        (
            "files",
            [
                "layernorm_before",
                "attention.self.",
                "attention.output.dense",
                "layernorm_after",
                "intermediate.dense",
                "output.dense",
            ],
        ),
        (
            "modules",
            [
                "layernorm_before",
                "attention.relative_position_bias.",
                "attention.o_proj",
                "layernorm_after",
                "mlp.fc1",
                "mlp.fc2",
            ],
        ),
    ] {
        let hub = matches!(whose, "files" | "modules");
        let below = if hub { "swin.encoder." } else { "" };
        let stem = if hub { "swin.embeddings." } else { "patch_embed." };
        let mut renamed = Weights::default();
        for Exported { name, shape, values } in exported_of(&graph, &fresh) {
            let mut put = |name: String, shape: &[usize], values: &[f32]| {
                renamed.0.insert(name, Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap());
            };
            let words: Vec<&str> = name.splitn(4, '.').collect();
            let stage = words.get(1).and_then(|group| group.parse::<usize>().ok()).unwrap_or(0) / 2;
            let theirs = match words[..] {
                ["features", "0", "0", leaf] if hub => format!("{stem}patch_embeddings.projection.{leaf}"),
                ["features", "0", "0", leaf] => format!("{stem}proj.{leaf}"),
                ["features", "0", _, leaf] => format!("{stem}norm.{leaf}"),
                ["features", "1" | "3" | "5" | "7", block, rest] => {
                    let block = format!("{below}layers.{stage}.blocks.{block}");
                    let own = ["norm1", "attn.relative", "attn.proj", "norm2", "mlp.0", "mlp.3"];
                    match own.iter().position(|own| rest.starts_with(own)) {
                        Some(1) => format!("{block}.{}{}", parts[1], rest.strip_prefix("attn.").unwrap()),
                        Some(part) => format!("{block}.{}", rest.replace(own[part], parts[part])),
                        None if !hub => format!("{block}.{rest}"),
                        None => {
                            let leaf = rest.strip_prefix("attn.qkv.").unwrap();
                            let third = [&[shape[0] / 3], &shape[1..]].concat();
                            for (word, values) in ["query", "key", "value"].iter().zip(values.chunks(values.len() / 3))
                            {
                                let word = match whose {
                                    "files" => format!("self.{word}"),
                                    _ => format!("{}_proj", &word[..1]),
                                };
                                put(format!("{block}.attention.{word}.{leaf}"), &third, values);
                            }
                            continue;
                        }
                    }
                }
                ["features", _, part, leaf] => {
                    let at = if whose == "timm" { stage } else { stage - 1 };
                    format!("{below}layers.{at}.downsample.{part}.{leaf}")
                }
                ["norm", leaf] if hub => format!("swin.layernorm.{leaf}"),
                ["norm", leaf] => format!("norm.{leaf}"),
                ["head", leaf] if hub => format!("classifier.{leaf}"),
                ["head", leaf] if whose == "timm" => format!("head.fc.{leaf}"),
                ["head", leaf] => format!("head.{leaf}"),
                _ => panic!("{name}"),
            };
            put(theirs, &shape, &values);
        }
        if whose != "timm" {
            let block = format!("{below}layers.0.blocks.1");
            for name in [format!("{block}.attn.relative_position_index"), format!("{block}.attn_mask")] {
                renamed.0.insert(name, Tensor::zeros((49, 49), DType::F32, &Device::Cpu).unwrap());
            }
        }
        let path = world.path("swin.safetensors");
        renamed.write(&path).unwrap();
        let found = Weights::whole(&path, &arch).unwrap().0;
        assert_eq!(values(&found), values(&fresh), "{whose}");
        let said = world.run(&["weights", "inspect", &path.display().to_string()]).exits(0).out;
        assert!(said.contains("swin_t"), "{whose}: {said}");
    }
}

#[test]
fn an_efficientnet_that_prepares_images_otherwise_is_refused() {
    let fixture = Fixture::new("efficientnet_b0");
    for name in &fixture.files {
        let path = fixture.folder.path().join(name);
        let file = WeightFile::open(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let mut put = 0;
        for (index, stored) in file.stored.iter().enumerate() {
            let is = |leaf: &str| stored.name.trim_end_matches(":0").ends_with(leaf) && stored.shape == [3];
            let number: f32 = match () {
                () if is("mean") || is("normalization/vars/0") => 0.0,
                () if is("variance") || is("normalization/vars/1") => 1.0,
                () => continue,
            };
            let own: Vec<u8> = file.load(index).unwrap().into_iter().flat_map(f32::to_le_bytes).collect();
            let at = bytes.windows(own.len()).position(|part| part == own).unwrap();
            bytes[at..at + own.len()].copy_from_slice(&[number; 3].map(f32::to_le_bytes).concat());
            put += 1;
        }
        assert_eq!(put, 2, "{name}");
        std::fs::write(&path, bytes).unwrap();
        let arch = Arch::new("efficientnet_b0", 64, 0.125);
        let message = Weights::whole(&path, &arch).err().unwrap().to_string();
        assert!(message.contains("there is no second rescaling") && message.contains("--toml"), "{message}");
        // What the message says to do helps.
        let graph = arch.graph(10).unwrap();
        let mut sketch = Sketch::of(&graph, "avg_pool", "block3b_add", Preprocess::None);
        sketch.layers.retain(|layer| layer.name != "rescaling_1");
        let own = Arch { width: 1.0, own: Some(Box::new(sketch)), ..arch };
        Weights::whole(&path, &own).unwrap();
    }
}

#[test]
fn an_index_through_parallel_branches_freezes_what_is_below_it() {
    // The first 50 layers of InceptionV3 end within mixed1: some of its branches are frozen in part.
    let mut fixture = Fixture::new("inception_v3");
    fixture.case["job"]["frozen"] = 50.into();
    fixture.case["job"]["steps"] = 1.into();
    fixture.case["job"]["images"] = 4.into();
    let mut side = fixture.side(&fixture.files[0]);
    let before = side.network.weights().unwrap();
    side.train();
    let after = side.network.weights().unwrap();
    let graph = &side.network.graph;
    assert!(graph.cut_at_most(49) < 49);
    for layer in 1..graph.layers.len() {
        for param in graph.params(layer) {
            let name = format!("{}.{}", graph.layers[layer].name, param.name);
            let bits = |weights: &Weights| weights.0[&name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(bits(&before) != bits(&after), layer >= 50, "{name}");
        }
    }
}

#[test]
fn damaged_weight_files_are_refused_and_break_nothing() {
    let mut tried = 0;
    for name in ["vgg16", "vgg19", "mobilenet_v1", "mobilenet_v2_torchvision"] {
        let fixture = Fixture::new(name);
        for file in &fixture.files {
            let whole = std::fs::read(fixture.folder.path().join(file)).unwrap();
            let path = fixture.folder.path().join("damaged");
            let mut state = whole.len() as u64;
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % below
            };
            for round in 0..60 {
                let mut bytes = whole.clone();
                match round % 3 {
                    0 => bytes.truncate(random(whole.len())),
                    // What says where things are stands mostly at the beginning and at the end.
                    1 => (0..8).for_each(|_| bytes[random(whole.len().min(4096))] ^= 1 << random(8)),
                    _ => (0..64).for_each(|_| bytes[random(whole.len())] ^= 1 << random(8)),
                }
                std::fs::write(&path, &bytes).unwrap();
                tried += 1;
                // Refused, or read as far as it goes; never a panic, an abort or a huge allocation. A file that lacks a
                // quarter of its bytes is refused.
                let read = WeightFile::open(&path)
                    .and_then(|file| (0..file.stored.len()).try_for_each(|index| file.load(index).map(drop)));
                assert!(read.is_err() || bytes.len() * 4 > whole.len() * 3, "{file} of {} bytes", bytes.len());
            }
        }
    }
    assert_eq!(tried, 480);
}
