//! Low-rank additions beside a transformer's dense layers: what they are, what they move, and what comes out of them.

use candle_core::{DType, Device, Tensor};
use tl_sweep::exec::Network;
use tl_sweep::model::arch::Arch;
use tl_sweep::model::graph::{Graph, Op};
use tl_sweep::model::init;
use tl_sweep::model::lora::{is_addition, merged, with_lora};
use tl_sweep::model::selected::Selected;
use tl_sweep::model::weights::Weights;
use tl_sweep::trains::{Dense, Lora, Trains};

use crate::builder::World;
use crate::sharing::{GRID, found};

const LAYERS: usize = 12;
/// Numbers of a token in the network of the sweeps, and in what is made of its class token.
const WIDTH: usize = 64;

fn backbone() -> Graph {
    Arch::new("vit_tiny_patch16", 32, 0.34).backbone("features").unwrap()
}

fn lora(rank: usize, on: Dense) -> Lora {
    Lora { rank, on }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn images() -> Tensor {
    let values: Vec<f32> = (0..2 * 3 * 32 * 32).map(|at| ((at * 37 % 101) as f32 - 50.0) / 40.0).collect();
    Tensor::from_vec(values, (2, 3, 32, 32), &Device::Cpu).unwrap()
}

fn given(graph: &Graph, weights: &Weights) -> Vec<f32> {
    let network = Network::new(graph.clone(), weights, &Device::Cpu).unwrap();
    numbers(&network.infer(&images()).unwrap())
}

#[test]
fn a_network_starts_as_it_was_and_what_is_added_is_the_product_of_two() {
    let plain = backbone();
    let start = init::fresh(&plain, 0, 3, 0).unwrap();
    for (on, dense) in [(Dense::Attention, LAYERS), (Dense::All, 4 * LAYERS)] {
        let graph = with_lora(&plain, 0, lora(3, on)).unwrap();
        assert_eq!(graph.layers.len(), plain.layers.len() + 3 * dense);
        assert_eq!(graph.layers.iter().filter(|layer| is_addition(layer)).count(), 2 * dense);
        let mut weights = start.clone();
        // None of the backbone's is drawn anew.
        weights.0.extend(init::fresh(&graph, graph.layers.len(), 5, 1).unwrap().0);
        assert_eq!(weights.0.len(), start.0.len() + 4 * dense);
        assert_eq!(given(&graph, &weights), given(&plain, &start), "B is zero");
        // Moved, it is another network: the one whose dense layers have B A in them.
        for (name, tensor) in weights.0.iter_mut().filter(|(name, _)| name.ends_with("lora_b.weight")) {
            let count = tensor.elem_count();
            let values: Vec<f32> = (0..count).map(|at| ((at * 13 + name.len()) % 17) as f32 * 0.004 - 0.03).collect();
            *tensor = Tensor::from_vec(values, tensor.dims().to_vec(), &Device::Cpu).unwrap();
        }
        let (moved, whole) = (given(&graph, &weights), given(&plain, &merged(&graph, weights.clone()).unwrap()));
        let far = moved.iter().zip(&given(&plain, &start)).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
        let near = moved.iter().zip(&whole).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
        assert!(far > 1e-2 && near < 1e-4 * far.max(1.0), "{near} of {far}");
        // By hand, of one layer.
        let name = "blocks.4.attn.qkv";
        let [w, a, b] = ["", ".lora_a", ".lora_b"].map(|part| {
            weights.0[&format!("{name}{part}.weight")].to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap()
        });
        let sum = merged(&graph, weights).unwrap().0[&format!("{name}.weight")].to_vec2::<f32>().unwrap();
        for (row, column) in [(0, 0), (7, 3), (b.len() - 1, a[0].len() - 1)] {
            let expected = w[row][column] + (0..3).map(|rank| b[row][rank] * a[rank][column]).sum::<f64>();
            assert!((f64::from(sum[row][column]) - expected).abs() < 1e-6, "{row}, {column}");
        }
    }
}

#[test]
fn of_the_backbone_the_additions_alone_train_and_nobody_else_trains_them() {
    let plain = backbone();
    let graph = with_lora(&plain, 0, lora(2, Dense::All)).unwrap();
    let choices = [
        Trains::All,
        Trains::Norms,
        Trains::Biases,
        Trains::Only(vec!["blocks.3".to_owned()]),
        Trains::Lora(lora(2, Dense::All)),
    ];
    for trains in choices {
        let selected = Selected::of(&graph, &trains);
        for (index, layer) in graph.layers.iter().enumerate() {
            let chosen: Vec<&str> = graph
                .params(index)
                .iter()
                .zip(&selected.params[index])
                .filter(|(_, chosen)| **chosen)
                .map(|(param, _)| param.name)
                .collect();
            match (&trains, is_addition(layer)) {
                (Trains::Lora(_), true) => assert_eq!(chosen, ["weight"], "{}", layer.name),
                (Trains::Lora(_), false) | (_, true) => assert!(chosen.is_empty(), "{trains}: {}", layer.name),
                _ => {}
            }
        }
    }
    // Above a freeze depth only; the layers below it are where they were.
    let first = plain.find("blocks.6.norm1").unwrap();
    let upper = with_lora(&plain, first, lora(2, Dense::Attention)).unwrap();
    assert_eq!(upper.layers[..=first + 1], plain.layers[..=first + 1]);
    assert_eq!(upper.layers.iter().filter(|layer| is_addition(layer)).count(), 2 * 6);
    let windows = Arch::new("swin_t", 64, 0.1).backbone("features").unwrap();
    let added = with_lora(&windows, 0, lora(2, Dense::Attention)).unwrap();
    assert_eq!(added.layers.iter().filter(|layer| is_addition(layer)).count(), 2 * 12);
    let convnext = Arch::new("convnext_tiny", 32, 0.1).backbone("features").unwrap();
    assert!(with_lora(&convnext, 0, lora(2, Dense::Attention)).unwrap_err().contains("has no attention"));
    let dense = convnext.layers.iter().filter(|layer| matches!(layer.op, Op::Pointwise { .. })).count();
    let added = with_lora(&convnext, 0, lora(2, Dense::All)).unwrap();
    assert_eq!(added.layers.len(), convnext.layers.len() + 3 * dense);
}

fn grid(recipes: &[(&str, &str)]) -> World {
    let head = GRID.split("[recipes.probe]").next().unwrap();
    let network = "arch = \"dinov2_vits14_reg\"\nwidth = 0.17\ninput = 28\n";
    let head = head.replace("arch = \"resnet8\"\ninput = 12\n", network).replace("steps = 12", "steps = 4");
    let tables: String = recipes.iter().map(|(name, body)| format!("[recipes.{name}]\n{body}\n")).collect();
    let names: Vec<&str> = recipes.iter().map(|(name, _)| *name).collect();
    World::new().file("grid.toml", format!("{head}{tables}[axes]\nrecipe = {names:?}\nlr = [0.01, 0.05]\n"))
}

const RECIPES: [(&str, &str); 5] = [
    ("probe", "freeze = \"all\""),
    ("lora", "trains = { lora = 4 }"),
    ("upper", "trains = { lora = 2, on = \"all\" }\nfreeze = \"blocks.8\"\naugment = [\"flip\"]\nlayer_decay = 0.8"),
    ("legs", "phases = [{ freeze = \"all\", steps = 3 }, { trains = { lora = 3 }, steps = 3, optimizer = \"adamw\" }]"),
    ("tapped", "trains = { lora = 4 }\ntap = [\"blocks.5.add2\", \"blocks.9.add2\"]"),
];

#[test]
fn additions_are_shared_exported_and_merged() {
    let world = grid(&RECIPES);
    let plan = world.run(&["plan", "grid.toml"]).exits(0).out;
    let attention = LAYERS * 4 * (WIDTH + 3 * WIDTH);
    assert!(plan.contains(&format!("trains = {{ lora = 4 }}: {attention} of ")), "{plan}");
    assert!(plan.contains("6144 of 645952 parameters train; all up to blocks.9.attn.qkv stands still"), "{plan}");
    world.run(&["run", "grid.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "grid.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, groups), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!((shared.len(), &shared), (RECIPES.len() * 2 * 2, &alone));
    assert!(["probe", "upper"].iter().all(|recipe| groups[*recipe] > 1), "{groups:?}");
    let said = world.run(&["verify", "grid.toml", "--all"]).exits(0).out;
    assert!(said.contains("20 of 20 trials"), "{said}");
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let of = |recipe: &str| -> (String, usize) {
        let text = "SELECT trial, trainable FROM result WHERE recipe = ?1 ORDER BY lr DESC, replicate";
        store.query_row(text, [recipe], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    assert_eq!(of("lora").1, attention + 4 * WIDTH + 4);
    let text = "SELECT frozen FROM result WHERE recipe = 'lora'";
    let frozen: usize = store.query_row(text, [], |row| row.get(0)).unwrap();
    let backbone = Arch::new("dinov2_vits14_reg", 28, 0.17).backbone("features").unwrap();
    assert_eq!(frozen, backbone.total_params());
    // What the file answers; the backbone in it is that of the probe; merged, it is a network of its framework.
    let export = |recipe: &str, file: &str, more: &[&str]| {
        let said = world.run(&[&["export", "grid.toml", &of(recipe).0, "--out", file], more].concat()).exits(0).out;
        assert!(said.contains("to the bit"), "{said}");
        (said, candle_core::safetensors::load(world.path(file), &Device::Cpu).unwrap())
    };
    let (_, probe) = export("probe", "probe.safetensors", &[]);
    for recipe in ["lora", "upper", "legs"] {
        let (_, own) = export(recipe, "own.safetensors", &[]);
        let backbone = probe.iter().filter(|(name, _)| !name.starts_with("head."));
        assert!(backbone.clone().count() > 100);
        assert!(backbone.clone().all(|(name, tensor)| numbers(tensor) == numbers(&own[name])), "{recipe}");
        let (said, merged) = export(recipe, "merged.safetensors", &["--names", "torch"]);
        assert!(said.contains("merged into them") && merged.keys().all(|name| !name.contains("lora")), "{said}");
        assert_eq!(merged.len(), probe.len());
        let differ = backbone.filter(|(name, tensor)| numbers(tensor) != numbers(&merged[*name])).count();
        assert_eq!(
            differ,
            match recipe {
                "upper" => 4 * 3,
                _ => LAYERS,
            },
            "{recipe}"
        );
    }
    // Kept, it is what it is trained again; the last of them were the phases'.
    world.run(&["run", "grid.toml", "--db", "kept/r.sqlite", "--set", "experiment.keep=\"all\""]).exits(0);
    let kept = ["export", "grid.toml", &of("legs").0, "--db", "kept/r.sqlite", "--out", "kept.safetensors"];
    let said = world.run(&kept).exits(0).out;
    assert!(said.contains("kept since it was trained"), "{said}");
    let [own, kept] = ["own", "kept"]
        .map(|file| candle_core::safetensors::load(world.path(&format!("{file}.safetensors")), &Device::Cpu).unwrap());
    assert!(own.len() == kept.len() && own.iter().all(|(name, tensor)| numbers(tensor) == numbers(&kept[name])));
    assert_eq!(own_answers(&world, "own.safetensors").len(), 6);
    for (one, other) in own_answers(&world, "own.safetensors").iter().zip(own_answers(&world, "merged.safetensors")) {
        assert!((one - other).abs() < 1e-4, "{one} {other}");
    }
}

/// The probabilities of the first class that a file gives to some images.
fn own_answers(world: &World, file: &str) -> Vec<f64> {
    for index in 0..6 {
        let path = world.path(&format!("new/{index}.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, crate::builder::png(28, 28, index % 4, 40 + index)).unwrap();
    }
    let said = world.run(&["predict", file, "new", "--format", "json"]).exits(0).out;
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let images = json["images"].as_array().unwrap();
    images
        .iter()
        .map(|image| image["probabilities"].as_object().unwrap().values().next().unwrap().as_f64().unwrap())
        .collect()
}

#[test]
fn additions_that_cannot_be_are_refused_and_one_effect_is_one_configuration() {
    let refused = |body: &str, told: &str| {
        let said = grid(&[("mine", body)]).run(&["check", "grid.toml"]).exits(2).err;
        assert!(said.contains(told) && said.contains("grid.toml:"), "{body}: {said}");
    };
    refused("trains = { lora = 0 }", "a whole number of at least 1");
    refused("trains = { lora = 4, on = \"qkv\" }", "'attention' or 'all', found 'qkv'");
    refused("trains = { rank = 4 }", "`lora` is missing");
    refused("trains = { lora = 4, alpha = 8 }", "what is added has no 'alpha'");
    refused(
        "trains = { lora = 4 }\nfreeze = \"blocks.11\"",
        "`freeze` holds all of what { lora = 4 } would stand beside",
    );
    refused(
        "phases = [{ trains = { lora = 4 }, steps = 2 }, { trains = { lora = 8 }, steps = 2 }]",
        "phases of one trial add the same: { lora = 8 } is not { lora = 4 }",
    );
    let legs = "phases = [{ freeze = \"all\", steps = 2 }, { trains = { lora = 4 }, steps = 2 }]\ninterpolate = 0.5";
    refused("trains = { lora = 4 }\nlayer_rates = \"rgn\"", "its gradient is infinitely far from it");
    refused(legs, "half of the way of their factors is not half of the way of the network");
    refused("trains = { lora = 4 }\ntransfer = \"blocks.4\"", "all of them must train");
    let conv = World::new().file("grid.toml", crate::chosen::file(&[("mine", "trains = { lora = 4 }")]));
    let said = conv.run(&["check", "grid.toml"]).exits(2).err;
    assert!(said.contains("has no dense layers between tokens") && said.contains("grid.toml:"), "{said}");
    // Depths below the first addition are one; so are the two spellings of what it stands beside.
    let same = grid(&[
        ("lora", "trains = { lora = 4 }"),
        ("below", "trains = { lora = 4, on = \"attention\" }\nfreeze = \"blocks.0.norm1\""),
        ("frozen", "freeze = \"all\"\ntrains = { lora = 4 }"),
        ("probe", "freeze = \"all\""),
    ]);
    let said = same.run(&["plan", "grid.toml"]).exits(0).out;
    assert!(said.contains("8 distinct trials"), "{said}");
}
