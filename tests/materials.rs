//! What leaves the program for others: features, trained networks, converted weights.

use std::path::Path;

use tl_sweep::model::arch::Arch;
use tl_sweep::model::init;
use tl_sweep::model::weights::Weights;

use crate::builder::World;

pub fn network(world: &World, name: &str, arch: &Arch) -> Weights {
    let weights = init::fresh(&arch.graph(3).unwrap(), 0, 1, 0).unwrap();
    weights.write(&world.path(name)).unwrap();
    weights
}

/// The numbers behind the header of an .npy, and its shape as the header has it.
pub fn npy(path: &Path) -> (String, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((10 + length) % 64, 0);
    let header = String::from_utf8(bytes[10..10 + length].to_vec()).unwrap();
    let numbers = bytes[10 + length..].chunks_exact(4).map(|n| f32::from_le_bytes([n[0], n[1], n[2], n[3]])).collect();
    (header, numbers)
}

#[test]
fn features_are_the_same_in_every_format_with_ids_and_labels_beside_them() {
    let world = World::new().images("mine", &["ants", "bees", "cats"], 15, 8);
    network(&world, "w.safetensors", &Arch::new("vgg_small", 32, 1.0));
    let base = ["extract", "w.safetensors", "mine", "--tap", "block2_pool", "--preprocess", "torch"];
    for out in ["f.h5", "f.npy", "f.safetensors"] {
        let said = world.run(&[&base[..], &["--out", out]].concat()).exits(0);
        assert!(said.out.contains("features [69, 8, 8, 64] of 69 images at block2_pool, 3 classes"), "{}", said.out);
    }
    let (header, numbers) = npy(&world.path("f.npy"));
    assert!(header.contains("'shape': (69, 8, 8, 64)") && header.contains("<f4"), "{header}");
    assert_eq!(numbers.len(), 69 * 8 * 8 * 64);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(world.path("f.json")).unwrap()).unwrap();
    assert_eq!(json["classes"], serde_json::json!(["ants", "bees", "cats"]));
    assert_eq!((json["ids"][0].as_str(), json["labels"][0].as_i64()), (Some("test/ants/000.png"), Some(0)));
    assert_eq!(json["origin"]["tap"], "block2_pool");

    let file = hdf5_reader::Hdf5File::open(world.path("f.h5")).unwrap();
    let features = file.dataset("features").unwrap();
    assert_eq!(features.shape(), [69, 8, 8, 64]);
    let mut read = vec![0f32; numbers.len()];
    features.read_into(&mut read).unwrap();
    assert_eq!(read, numbers);
    let mut labels = vec![0i64; 69];
    file.dataset("labels").unwrap().read_into(&mut labels).unwrap();
    let expected: Vec<i64> = json["labels"].as_array().unwrap().iter().map(|label| label.as_i64().unwrap()).collect();
    assert_eq!(labels, expected);
    let ids = file.dataset("ids").unwrap().read_strings().unwrap();
    assert_eq!((ids.len(), ids[68].as_str()), (69, json["ids"][68].as_str().unwrap()));
    assert_eq!(file.dataset("classes").unwrap().read_strings().unwrap(), ["ants", "bees", "cats"]);

    let bytes = std::fs::read(world.path("f.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor("features").unwrap();
    assert_eq!(view.shape(), [69, 8, 8, 64]);
    assert_eq!(view.data(), bytemuck::cast_slice::<f32, u8>(&numbers));
    assert_eq!(tensors.tensor("labels").unwrap().shape(), [69]);

    // Flattened, a Keras network's rows are its map as it stands; pooled, one number a channel.
    world.run(&[&base[..], &["--out", "flat.npy", "--pool", "flatten"]].concat()).exits(0);
    assert_eq!(npy(&world.path("flat.npy")).1, numbers);
    world.run(&[&base[..], &["--out", "avg.npy", "--pool", "avg", "--part", "train"]].concat()).exits(0);
    let (header, pooled) = npy(&world.path("avg.npy"));
    assert!(header.contains("'shape': (45, 64)"), "{header}");
    let first = 24 * 8 * 8 * 64;
    let mean = (0..64).map(|pixel| numbers[first + pixel * 64]).sum::<f32>() / 64.0;
    assert!((pooled[0] - mean).abs() < 1e-5, "{} against {mean}", pooled[0]);

    // Several layers side by side, the lowest first.
    let both = ["extract", "w.safetensors", "mine", "--tap", "block2_pool,block1_pool", "--preprocess", "torch"];
    let said = world.run(&[&both[..], &["--out", "both.npy"]].concat()).exits(2);
    assert!(said.err.contains("--pool avg makes vectors of them"), "{}", said.err);
    let said = world.run(&[&both[..], &["--out", "both.npy", "--pool", "avg", "--part", "train"]].concat()).exits(0);
    assert!(said.out.contains("features [45, 96] of 45 images at block1_pool + block2_pool"), "{}", said.out);
    let (_, joined) = npy(&world.path("both.npy"));
    assert!((0..45).all(|row| joined[row * 96 + 32..][..64] == pooled[row * 64..][..64]));
}

#[test]
fn extraction_says_what_it_lacks() {
    let world = World::new().images("mine", &["ants", "bees"], 3, 2);
    network(&world, "w.safetensors", &Arch::new("vgg_small", 32, 1.0));
    for (args, expected) in [
        (vec!["w.safetensors", "mine", "--out", "f.h5"], "say with --preprocess"),
        (
            vec!["w.safetensors", "mine", "--out", "f.csv", "--preprocess", "tf"],
            "should end in .h5, .npy or .safetensors",
        ),
        (vec!["v.safetensors", "mine", "--out", "f.h5", "--preprocess", "tf"], "there are no weights 'v.safetensors'"),
        (
            vec!["w.safetensors", "mine", "--out", "f.h5", "--preprocess", "tf", "--tap", "block2_pol"],
            "did you mean 'block2_pool'?",
        ),
        (vec!["w.safetensors", "mine", "--out", "f.h5", "--preprocess", "tf", "--pool", "mean"], "not 'mean'"),
        (
            vec!["vgg19-dcbb9e9d", "mine", "--out", "f.h5"],
            "fetch https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        ),
    ] {
        let said = world.run(&[&["extract"], &args[..]].concat()).exits(2);
        assert!(said.err.contains(expected), "{} lacks {expected}", said.err);
        assert!(!world.path("f.h5").exists());
    }
}

const EXPERIMENT: &str = r#"
[experiment]
name = "mine"
replicates = 1
[backbone]
weights = "w.safetensors"
arch = "vgg_small"
preprocess = "torch"
[datasets.mine]
path = "mine"
[scenarios.few]
dataset = "mine"
[train]
steps = 12
batch = 8
[axes]
recipe = ["linear-probe", "fine-tune"]
"#;

#[test]
fn a_trained_network_is_exported_and_is_the_one_that_was_scored() {
    let world = World::new().images("mine", &["ants", "bees", "cats"], 12, 8).file("x.toml", EXPERIMENT);
    let start = network(&world, "w.safetensors", &Arch::new("vgg_small", 32, 1.0));
    world.run(&["run", "x.toml"]).exits(0);
    let csv = world.run(&["status", "mine", "--format", "csv"]).exits(0).out;
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let headings = reader.headers().unwrap().clone();
    let column = |name: &str| headings.iter().position(|heading| heading == name).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    for row in &rows {
        let (key, recipe) = (&row[column("trial")], &row[column("recipe")]);
        let said = world.run(&["export", "x.toml", &key[..12], "--out", "m.safetensors", "--names", "keras"]).exits(0);
        assert!(said.out.contains("and its 24 answers on test are those in the store, to the bit"), "{}", said.out);
        let may = |name: &str| std::fs::metadata(world.path(name)).unwrap().permissions();
        assert_eq!(may("m.safetensors"), may("x.toml"), "who may read a file may read an export");
        let bytes = std::fs::read(world.path("m.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let kernel = tensors.tensor("block1_conv1/kernel").unwrap();
        assert_eq!(kernel.shape(), [3, 3, 3, 32]);
        assert_eq!(tensors.tensor("head.linear/kernel").unwrap().shape(), [256, 3]);
        assert!(tensors.tensor("predictions/kernel").is_err());
        // [height, width, in, out]: a probe leaves the backbone as it was, fine-tuning moves it.
        let first = f32::from_le_bytes(kernel.data()[..4].try_into().unwrap());
        let was = start.0["block1_conv1.weight"].flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        assert_eq!(first == was, recipe == "linear-probe", "{recipe}");
        let said = world.run(&["export", "x.toml", &key[..12], "--out", "m.safetensors", "--names", "torch"]).exits(2);
        assert!(said.err.contains("vgg_small has Keras' names only"), "{}", said.err);
    }
    let said = world.run(&["export", "x.toml", "zzz", "--out", "m.safetensors"]).exits(2);
    assert!(said.err.contains("no trial of this file has a key that starts with 'zzz'"), "{}", said.err);
}

#[test]
fn flattened_rows_follow_the_framework() {
    // torchvision's names and order and back: the same network, to the bit.
    let world = World::new();
    let arch = Arch::new("vgg16", 64, 0.0625);
    let own = network(&world, "own.safetensors", &arch);
    let base = ["--arch", "vgg16", "--width", "0.0625", "--input", "64"];
    let convert = |from: &str, names: &str, to: &str| {
        world.run(&[&["weights", "convert", from, "--names", names, "--out", to], &base[..]].concat()).exits(0);
        Weights::whole(&world.path(to), &arch).unwrap().0
    };
    for names in ["torch", "keras"] {
        let back = convert("own.safetensors", names, &format!("{names}.safetensors"));
        for (name, tensor) in &own.0 {
            let bits = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(bits(tensor), bits(&back.0[name]), "{names} {name}");
        }
    }
    let bytes = std::fs::read(world.path("torch.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let first: Vec<f32> = bytemuck::pod_collect_to_vec(tensors.tensor("classifier.0.weight").unwrap().data());
    let ours = own.0["fc1.weight"].to_vec2::<f32>().unwrap();
    // A map of 32 channels and 2 x 2 pixels: channel c of pixel p stands at 4 c + p there, at 32 p + c here.
    for (channel, pixel) in [(0, 0), (1, 0), (0, 1), (31, 3), (7, 2)] {
        assert_eq!(first[4 * channel + pixel], ours[0][32 * pixel + channel]);
    }
    let said = world.run(&[&["weights", "inspect", "torch.safetensors"], &base[..]].concat()).exits(0);
    assert!(said.out.contains("rows to the network's flattened order"), "{}", said.out);
    assert!(
        said.out.contains("fits vgg16 x 0.0625: 32 of 32 tensors in their place, by name; 0 left out"),
        "{}",
        said.out
    );
}

#[test]
fn weights_are_known_by_content_never_by_name() {
    let world = World::new().images("mine", &["ants", "bees"], 12, 8);
    network(&world, "cifar10_resnet20.safetensors", &Arch::new("resnet20", 32, 1.0));
    let said = world.run(&["weights", "inspect", "cifar10_resnet20.safetensors"]).exits(0);
    assert!(said.out.contains("not in the catalogue"), "{}", said.out);
    assert!(said.out.contains("fits resnet20: 97 of 97 tensors"), "{}", said.out);
    // The name of a known file is no reason to take its preprocessing.
    let experiment = EXPERIMENT
        .replace("w.safetensors", "cifar10_resnet20.safetensors")
        .replace("arch = \"vgg_small\"\npreprocess = \"torch\"", "arch = \"resnet20\"");
    let world = world.file("x.toml", &experiment);
    let said = world.run(&["check", "x.toml"]).exits(2);
    assert!(said.err.contains("the catalogue does not know the weights"), "{}", said.err);
    // Two files of one name are two sources: other bytes, other trials.
    let done = |world: &World| {
        let json = world.run(&["plan", "x.toml", "--format", "json"]).exits(0).out;
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["done"].as_u64().unwrap()
    };
    let world = world.file(
        "x.toml",
        experiment
            .replace("arch = \"resnet20\"", "arch = \"resnet20\"\npreprocess = \"torch\"")
            .replace(", \"fine-tune\"", ""),
    );
    world.run(&["run", "x.toml"]).exits(0);
    assert_eq!(done(&world), 1);
    let other = init::fresh(&Arch::new("resnet20", 32, 1.0).graph(3).unwrap(), 0, 2, 0).unwrap();
    other.write(&world.path("cifar10_resnet20.safetensors")).unwrap();
    assert_eq!(done(&world), 0);
}

#[test]
fn the_catalogue_says_what_to_fetch_and_where_to_put_it() {
    let world = World::new();
    let list = world.run(&["weights", "list"]).exits(0).out;
    assert!(list.contains("vgg19_weights_tf_dim_ordering_tf_kernels_notop"), "{list}");
    let said = world.run(&["weights", "inspect", "vgg19_weights_tf_dim_ordering_tf_kernels_notop"]).exits(2);
    assert!(said.err.contains("https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"), "{}", said.err);
    assert!(said.err.contains("md5 253f8cb515780f3b799900260a226db6"), "{}", said.err);
    let said = world.run(&["weights", "inspect", "vgg19_weights_tf_dim_ordering_tf_kernel"]).exits(2);
    assert!(said.err.contains("did you mean 'vgg19_weights_tf_dim_ordering_tf_kernels'"), "{}", said.err);
}
