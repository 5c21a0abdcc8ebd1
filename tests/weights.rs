//! Weight files of every framework: what is read, what is refused, and in which words.

use candle_core::{DType, Device, Tensor};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::init;
use tl_sweep::model::weights::Weights;

use crate::builder::World;

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
}

#[test]
fn weights_survive_writing_and_reading() {
    let world = World::new();
    let arch = Arch::new("vgg_small", 16, 1.0);
    let weights = init::fresh(&arch.graph(4).unwrap(), 0, 3, 1).unwrap();
    let path = world.path("w.safetensors");
    weights.write(&path).unwrap();
    let (read, fitted) = Weights::load(&path, &arch, "features").unwrap();
    assert_eq!(values(&read), values(&weights));
    assert_eq!(fitted.graph.layers.last().unwrap().shape, [4, 1, 1]);
    // NaN is refused below the classifier, and in it costs the classifier.
    let nan = |name: &str, count: usize| {
        let mut broken = weights.clone();
        broken.0.insert(name.to_owned(), Tensor::full(f32::NAN, count, &Device::Cpu).unwrap());
        broken
    };
    assert!(refused(&world, &nan("fc1.bias", 256), &arch).contains("'fc1.bias'"));
    nan("predictions.bias", 4).write(&path).unwrap();
    let (read, fitted) = Weights::load(&path, &arch, "features").unwrap();
    assert!(fitted.headless && !read.0.contains_key("predictions.weight") && read.0.contains_key("fc1.weight"));
    for damaged in [&b"short"[..], b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80\x02.", b"<html>not found</html>"] {
        std::fs::write(&path, damaged).unwrap();
        let message = format!("{:#}", Weights::load(&path, &arch, "features").map(|_| ()).unwrap_err());
        assert!(message.contains("w.safetensors"), "{message}");
    }
}
