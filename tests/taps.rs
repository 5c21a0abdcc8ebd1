//! Features of several layers at once: their values, refusals, and one pass for all of them.

use candle_core::{Device, Tensor};
use tl_sweep::exec::Network;
use tl_sweep::model::arch::Arch;
use tl_sweep::model::freezing::pooled;
use tl_sweep::model::init::fresh;
use tl_sweep::recipe::Pool;

use crate::builder::World;
use crate::chosen::{file, refused};

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// The vector of several taps is that of each of them, side by side, the lowest first.
#[test]
fn vectors_of_taps_stand_side_by_side() {
    let several = [
        ("resnet8", 16, ["layer1.0.relu2", "layer2.last", "features"], Pool::Max(2)),
        ("vgg_small", 32, ["block1_pool", "block2_pool", "fc1"], Pool::Flatten),
        ("dinov2_vits14", 28, ["blocks.0.last", "blocks.2.last", "blocks.3.last"], Pool::ClassAvg),
        ("densenet121", 32, ["pool2_pool", "pool3_pool", "relu"], Pool::Avg(1)),
    ];
    for (name, side, taps, pool) in several {
        let width = if name == "dinov2_vits14" { 0.17 } else { 0.5 };
        let arch = Arch::new(name, side, width);
        let whole = arch.graph(10).unwrap();
        let weights = fresh(&whole, 0, 3, 0).unwrap();
        let numbers: Vec<f32> = (0..2 * 3 * side * side).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        let x = Tensor::from_vec(numbers, (2, 3, side, side), &Device::Cpu).unwrap();
        let of = |tap: &str| {
            let network = pooled(&arch.backbone(tap).unwrap(), pool);
            Network::new(network, &weights, &Device::Cpu).unwrap().infer(&x).unwrap()
        };
        // In whatever order they are asked for.
        let together = of(&format!("{} + {} + {}", taps[2], taps[0], taps[1]));
        let alone: Vec<Tensor> = taps.iter().map(|tap| of(tap)).collect();
        assert_eq!(bits(&together), bits(&Tensor::cat(&alone, 1).unwrap()), "{name}");
        let [width, ..] = pooled(&arch.backbone(&taps.join(" + ")).unwrap(), pool).layers.last().unwrap().shape;
        assert_eq!(together.dims(), [2, width]);
    }
}

#[test]
fn taps_that_have_no_features_of_their_own_are_refused() {
    refused(&[
        ("tap = []", "expected the name of a layer, or a list of names"),
        ("tap = [\"layer1.0.relu2\", \"layer9\"]", "resnet8 has no layer 'layer9'"),
        (
            "tap = [\"layer1.0.conv2\", \"features\"]",
            "'layer1.0.conv2' is computed as one with 'layer1.0.bn2', which alone reads it: tap 'layer1.0.bn2' instead",
        ),
        (
            "arch = \"inception_v3\"\ninput = 75\nweights = \"random\"\ntap = [\"activation_5\", \"activation_6\"]",
            "taps stand one above the other",
        ),
        ("tap = [\"layer1.0.relu2\", \"features\"]\npool = \"class\"", "gives a map of 12 x 12 pixels"),
    ]);
}

#[test]
fn one_pass_serves_single_taps_and_several_to_the_bit() {
    let all = "freeze = \"all\"\naugment = []\n";
    let probes = [
        ("last", format!("{all}tap = \"features\"")),
        ("early", format!("{all}tap = \"layer1.0.relu2\"\npool = {{ max = 4 }}")),
        ("both", format!("{all}tap = [\"features\", \"layer1.0.relu2\"]\npool = {{ max = 4 }}")),
        ("three", format!("{all}tap = [\"layer1.0.relu2\", \"layer2.0.relu2\", \"layer3.0.relu2\"]")),
        (
            "solved",
            format!("{all}tap = [\"layer2.0.relu2\", \"layer3.0.relu2\"]\noptimizer = \"lbfgs\"\nlambda = [0.1, 1.0]"),
        ),
        ("hidden", format!("{all}tap = [\"layer2.0.relu2\", \"layer3.0.relu2\"]\nhead = {{ mlp = [6] }}")),
    ];
    let others = [
        ("flipped", "freeze = \"all\"\ntap = [\"layer1.0.relu2\", \"features\"]\naugment = [\"flip\", \"crop\"]"),
        ("flipped-last", "freeze = \"all\"\naugment = [\"flip\", \"crop\"]"),
        ("views", "freeze = \"all\"\ntap = [\"layer1.0.relu2\", \"features\"]\naugment = [\"flip\"]\nviews = 2"),
        ("tuned", "tap = [\"layer1.0.relu2\", \"layer3.0.relu2\"]\nbatch_norm = \"train\""),
        ("half", "freeze = \"layer1\"\ntap = [\"layer1.0.relu2\", \"layer2.0.relu2\", \"features\"]"),
        ("above", "freeze = \"layer2\"\ntap = [\"layer1.0.relu2\", \"layer3.0.relu2\"]"),
    ];
    let probes: Vec<(&str, &str)> = probes.iter().map(|(name, body)| (*name, body.as_str())).collect();
    let world = World::new().file("x.toml", file(&[&probes[..], &others].concat()));
    world.run(&["run", "x.toml"]).exits(0);
    let said = world.run(&["verify", "x.toml", "--all"]).exits(0);
    assert!(said.out.contains("24 of 24 trials, run alone, gave what the store holds"), "{}", said.out);

    let world = World::new().file("x.toml", file(&probes));
    world.run(&["run", "x.toml"]).exits(0);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let passes = |sql: &str| -> f64 { store.query_row(sql, [], |row| row.get(0)).unwrap() };
    let images = passes("SELECT count(*) FROM sample WHERE id LIKE '%' AND data = (SELECT data FROM cell LIMIT 1)");
    let one = Arch::new("resnet8", 12, 1.0).backbone("features").unwrap().total_macs() as f64;
    let done = passes("SELECT sum(macs) FROM stage WHERE kind = 'encode'");
    assert!(done <= one * images * 1.001, "{} passes", done / one / images);
    assert_eq!(passes("SELECT count(*) FROM stage WHERE kind = 'encode'"), 5.0);

    let key = store.query_row("SELECT trial FROM result WHERE recipe = 'three'", [], |row| row.get::<_, String>(0));
    let key = key.unwrap();
    world.run(&["export", "x.toml", &key, "--out", "three.safetensors"]).exits(0);
}
