//! Plans: the cross, what collapses, what is shared, and networks as data.

use candle_core::{Device, Tensor};
use tl_sweep::freeze::Freeze;
use tl_sweep::model::arch::{Arch, NAMES};
use tl_sweep::model::freezing::{effective_depth, frozen_layers, shared_cut, with_head};
use tl_sweep::model::graph::Op;
use tl_sweep::model::summary;
use tl_sweep::nn::optim::{Rule, State, Step};
use tl_sweep::recipe::{Head, Pool};

use crate::builder::World;

const BASE: &str = r#"
[backbone]
arch = "resnet8"
input = 16
weights = "random"
[datasets.a]
synthetic = { classes = 3, train = 40, test = 20 }
[scenarios.s]
dataset = "a"
per_class = 5
"#;

/// The plan of BASE and more, as JSON and as its table of cells.
fn plan(more: &str) -> (serde_json::Value, Vec<std::collections::HashMap<String, String>>) {
    let world = World::new().file("x.toml", format!("{BASE}{more}"));
    let json = world.run(&["plan", "x.toml", "--format", "json"]).exits(0).out;
    let csv = world.run(&["plan", "x.toml", "--format", "csv"]).exits(0).out;
    let cells = csv::Reader::from_reader(csv.as_bytes()).deserialize().map(Result::unwrap).collect();
    (serde_json::from_str(&json).unwrap(), cells)
}

#[test]
fn the_cross_has_a_fixed_order_and_algebra() {
    let (plan, cells) = plan(
        r#"
[recipes.t]
head = "linear"
[axes]
recipe = ["t"]
freeze = ["none", "all"]
lr = [0.1, 0.01]
[[zip]]
batch = [8, 16]
steps = [10, 20]
[[when]]
if = "freeze != 'all'"
axes = { backbone_lr = [0.001, 0.002] }
[[exclude]]
if = "lr == 0.1 && batch == 16"
reason = "too hot"
[[include]]
scenario = "s"
recipe = "fine-tune"
lr = 0.5
"#,
    );
    // none: 2 lr x 2 zip x 2 backbone_lr less 2; all: 2 x 2 less 1; one included.
    assert_eq!(plan["cells"], 6 + 3 + 1);
    assert_eq!(plan["excluded"][0], serde_json::json!(["too hot", 3]));
    let seen: Vec<String> = cells
        .iter()
        .map(|cell| {
            format!("{} {} {} {} {}", cell["freeze"], cell["lr"], cell["batch"], cell["steps"], cell["backbone_lr"])
        })
        .collect();
    assert_eq!(seen[0], "none 0.1 8 10 0.001");
    assert_eq!(seen[1], "none 0.1 8 10 0.002");
    assert_eq!(seen[2], "none 0.01 8 10 0.001");
    assert_eq!(seen[8], "all 0.01 16 20 ");
    assert_eq!(cells[9]["recipe"], "fine-tune");
}

#[test]
fn settings_without_effect_are_dropped_and_collapse() {
    let (plan, cells) = plan(
        "[recipes.t]\nfreeze = \"all\"\n[axes]\nrecipe = [\"t\"]\nbackbone_lr = [0.1, 0.2]\nmomentum = [0.0, 0.9]\nnesterov = [false, true]\n",
    );
    assert_eq!((plan["cells"].as_u64(), plan["distinct"].as_u64()), (Some(8), Some(3)));
    assert!(cells.iter().all(|cell| cell["backbone_lr"].is_empty()));
}

#[test]
fn labels_are_in_no_key_and_what_counts_is_in_it() {
    let key = |more: &str| plan(more).1[0]["key"].clone();
    let base = key("[recipes.x]\nfreeze = \"layer1\"\n[axes]\nrecipe = [\"x\"]\n");
    assert_eq!(base, key("[recipes.other]\nfreeze = \"layer1.0.relu2\"\n[axes]\nrecipe = [\"other\"]\n"));
    assert_ne!(base, key("[recipes.x]\nfreeze = \"layer2\"\n[axes]\nrecipe = [\"x\"]\n"));
    assert_ne!(base, key("[experiment]\nseed = 9\n[recipes.x]\nfreeze = \"layer1\"\n[axes]\nrecipe = [\"x\"]\n"));
    assert_ne!(
        base,
        key("[train]\naugment = [\"flip\"]\n[recipes.x]\nfreeze = \"layer1\"\n[axes]\nrecipe = [\"x\"]\n")
    );
    assert_ne!(base, key("[train]\nlr = 0.5\n[recipes.x]\nfreeze = \"layer1\"\n[axes]\nrecipe = [\"x\"]\n"));
}

#[test]
fn batch_norm_policy_follows_the_weights() {
    let (_, cells) = plan(
        "[pretrain]\ndataset = \"a\"\n[recipes.mine]\nweights = \"pretrain\"\n[axes]\nrecipe = [\"mine\", \"from-scratch\", \"linear-probe\"]\n",
    );
    let found: Vec<&str> = cells.iter().map(|cell| cell["batch_norm"].as_str()).collect();
    assert_eq!(found, ["frozen", "train", ""]);
}

#[test]
fn features_of_training_images_are_kept_only_without_augmentation() {
    let features = |train: &str| {
        plan(&format!("[pretrain]\ndataset = \"a\"\n[recipes.p]\nweights = \"pretrain\"\nfreeze = \"layer2\"\n{train}\n[axes]\nrecipe = [\"p\"]\n")).0["features"].clone()
    };
    assert_eq!(features("augment = []")[0]["images"], "all");
    assert_eq!(features("augment = [\"flip\"]")[0]["images"], "evaluated");
    assert_eq!(features("augment = [\"flip\"]\nviews = 3")[0]["images"]["views"]["count"], 3);
}

#[test]
fn ten_thousand_cells_are_ten_thousand_configurations() {
    // The million of benches/million.toml is timed by hand (benches/README.md).
    let (plan, _) = plan(
        "[axes]\nrecipe = [\"fine-tune\"]\nlr = { log = [1e-5, 1], n = 100 }\nweight_decay = { log = [1e-6, 1e-2], n = 50 }\nbatch = [8, 16]\n",
    );
    assert_eq!(plan["distinct"], 10_000);
}

#[test]
fn an_index_freezes_the_first_layers_of_the_summary() {
    let graph = Arch::new("vgg_small", 32, 1.0).graph(10).unwrap();
    let rows = summary::rows(&graph, frozen_layers(&graph, &Freeze::Index(5)).unwrap());
    let frozen: Vec<&str> = rows.iter().filter(|row| row.frozen).map(|row| row.name.as_str()).collect();
    assert_eq!(frozen, ["input_layer", "block1_conv1", "block1_conv2", "block1_pool", "block2_conv1"]);
    assert_eq!(effective_depth(&graph, 4), 3, "a pool has no parameters");
    assert!(frozen_layers(&graph, &Freeze::Index(99)).is_err());
}

#[test]
fn a_tap_is_a_layer_by_name() {
    let arch = Arch::new("vgg_small", 32, 1.0);
    let backbone = arch.backbone("block2_pool").unwrap();
    assert_eq!((backbone.layers.len(), backbone.layers.last().unwrap().shape), (7, [64, 8, 8]));
    assert_eq!(backbone.layers, arch.backbone("early").unwrap().layers);
    assert!(arch.backbone("block2_pol").unwrap_err().contains("did you mean 'block2_pool'"));
}

#[test]
fn cuts_are_one_tensor_wide_and_never_above_dropout() {
    let backbone = Arch::new("resnet8", 16, 1.0).backbone("features").unwrap();
    let network = with_head(&backbone, Pool::Avg(1), &Head::Linear, 5, 0.5);
    let layers = backbone.layers.len();
    let cut = shared_cut(&network, layers, layers).unwrap();
    assert_eq!(network.layers[cut].name, "head.flatten");
    // Freezing into the middle of a residual block cuts before the block.
    let inside = network.find("layer2.0.conv1").unwrap() + 1;
    assert_eq!(network.layers[shared_cut(&network, layers, inside).unwrap()].name, "layer1.0.relu2");
    assert_eq!(shared_cut(&network, layers, 0), None);
    let above = network.above(cut);
    assert!(matches!(above.layers[0].op, Op::Input) && above.layers.len() == 3);
}

#[test]
fn known_sizes_of_known_networks() {
    let count = |name: &str, input: usize, width: f64, classes: usize| {
        let graph = Arch::new(name, input, width).graph(classes).unwrap();
        let params: usize = (0..graph.layers.len()).map(|index| graph.param_count(index)).sum();
        (params, graph.total_macs())
    };
    // 269,722 learned and 1,376 running numbers; 40.6 M multiply-accumulates (He et al., 2016; a table in the state dict's repository).
    assert_eq!(count("resnet20", 32, 1.0, 10).0, 271_098);
    // Keras: MobileNet (alpha 1.0) has 4,253,864 parameters; 569 M multiply-accumulates (Howard et al., 2017).
    assert_eq!(count("mobilenet_v1", 224, 1.0, 1000).0, 4_253_864);
    assert!((count("mobilenet_v1", 224, 1.0, 1000).1 as f64 - 569e6).abs() < 2e6);
    // torchvision: mobilenet_v2 3,504,872 learned parameters and 34,112 running numbers; squeezenet1_0 1,248,424.
    assert_eq!(count("mobilenet_v2", 224, 1.0, 1000).0, 3_538_984);
    assert_eq!(count("mobilenet_v2_torchvision", 224, 1.0, 1000).0, 3_538_984);
    assert_eq!(count("squeezenet1_0", 224, 1.0, 1000).0, 1_248_424);
    // torchvision: resnet50 25,557,032 learned parameters and 53,120 running numbers.
    assert_eq!(count("resnet50_torchvision", 224, 1.0, 1000).0, 25_557_032 + 53_120);
    // timm 1.0.31, with 1000 classes; of SigLIP at the sizes of its names.
    for (name, input, params) in [
        ("dinov3_vits16", 224, 21_981_160),
        ("dinov3_vits16plus", 224, 29_077_480),
        ("dinov3_vitb16", 224, 86_428_648),
        ("dinov3_vitl16", 224, 304_153_576),
        ("dinov3_vith16plus", 224, 841_872_360),
        ("siglip_vitb16", 224, 93_653_224),
        ("siglip_vitb32", 256, 95_321_320),
        ("siglip_vitl16", 256, 316_981_224),
        ("siglip_so400m14", 224, 428_833_704),
        ("siglip_so400m16", 256, 429_041_064),
    ] {
        assert_eq!(count(name, input, 1.0, 1000).0, params, "{name}");
    }
    // torchvision's documentation: learned parameters of each; running statistics beside them.
    let learned = |name: &str, input: usize| {
        let graph = Arch::new(name, input, 1.0).graph(1000).unwrap();
        let params = (0..graph.layers.len()).flat_map(|layer| graph.params(layer)).filter(|param| param.learned);
        params.map(|param| param.shape.iter().product::<usize>()).sum::<usize>()
    };
    for (name, input, params, giga) in [
        ("resnet18", 224, 11_689_512, 1.81),
        ("resnet34", 224, 21_797_672, 3.66),
        ("resnet101_torchvision", 224, 44_549_160, 7.8),
        ("resnet152_torchvision", 224, 60_192_808, 11.51),
        ("resnet50v2", 224, 25_568_360, 3.482),
        ("resnet101v2", 224, 44_577_896, 7.194),
        ("resnet152v2", 224, 60_236_904, 10.907),
        ("xception", 299, 22_855_952, 8.357),
        ("resnext50_32x4d", 224, 25_028_904, 4.23),
        ("resnext101_32x8d", 224, 88_791_336, 16.414),
        ("resnext101_64x4d", 224, 83_455_272, 15.46),
        ("wide_resnet50_2", 224, 68_883_240, 11.398),
        ("wide_resnet101_2", 224, 126_886_696, 22.753),
        ("densenet121_torchvision", 224, 7_978_856, 2.83),
        ("densenet169_torchvision", 224, 14_149_480, 3.36),
        ("densenet201_torchvision", 224, 20_013_928, 4.29),
        ("efficientnet_b0_torchvision", 224, 5_288_548, 0.39),
        ("efficientnet_b1_torchvision", 240, 7_794_184, 0.69),
        ("efficientnet_b2_torchvision", 288, 9_109_994, 1.09),
        ("efficientnet_b3_torchvision", 300, 12_233_232, 1.83),
        ("efficientnet_b4_torchvision", 380, 19_341_616, 4.39),
        ("efficientnet_b5_torchvision", 456, 30_389_784, 10.27),
        ("efficientnet_b6_torchvision", 528, 43_040_704, 19.07),
        ("efficientnet_b7_torchvision", 600, 66_347_960, 37.75),
        ("efficientnet_v2_b0", 224, 7_139_704, 0.718),
        ("efficientnet_v2_b1", 240, 8_141_052, 1.197),
        ("efficientnet_v2_b2", 260, 10_096_086, 1.698),
        ("efficientnet_v2_b3", 300, 14_358_406, 3.011),
        ("efficientnet_v2_s_keras", 384, 21_458_488, 8.366),
        ("efficientnet_v2_m_keras", 480, 54_139_356, 24.582),
        ("efficientnet_v2_l_keras", 480, 118_515_272, 56.08),
        ("efficientnet_v2_s", 384, 21_458_488, 8.366),
        ("efficientnet_v2_m", 480, 54_139_356, 24.582),
        ("efficientnet_v2_l", 480, 118_515_272, 56.08),
        ("mobilenet_v3_small", 224, 2_542_856, 0.057),
        ("mobilenet_v3_large", 224, 5_483_032, 0.217),
        ("regnet_x_400mf", 224, 5_495_976, 0.414),
        ("regnet_x_800mf", 224, 7_259_656, 0.8),
        ("regnet_x_1_6gf", 224, 9_190_136, 1.603),
        ("regnet_x_3_2gf", 224, 15_296_552, 3.177),
        ("regnet_x_8gf", 224, 39_572_648, 7.995),
        ("regnet_x_16gf", 224, 54_278_536, 15.941),
        ("regnet_x_32gf", 224, 107_811_560, 31.736),
        ("regnet_y_400mf", 224, 4_344_144, 0.402),
        ("regnet_y_800mf", 224, 6_432_512, 0.834),
        ("regnet_y_1_6gf", 224, 11_202_430, 1.612),
        ("regnet_y_3_2gf", 224, 19_436_338, 3.176),
        ("regnet_y_8gf", 224, 39_381_472, 8.473),
        ("regnet_y_16gf", 224, 83_590_140, 15.912),
        ("regnet_y_32gf", 224, 145_046_770, 32.28),
        ("regnet_y_128gf", 224, 644_812_894, 127.518),
        ("convnext_tiny", 224, 28_589_128, 4.46),
        ("convnext_small", 224, 50_223_688, 8.68),
        ("convnext_base", 224, 88_591_464, 15.36),
        ("convnext_large", 224, 197_767_336, 34.36),
        ("convnextv2_atto", 224, 3_708_400, 0.55),
        ("convnextv2_femto", 224, 5_233_240, 0.78),
        ("convnextv2_pico", 224, 9_066_280, 1.37),
        ("convnextv2_nano", 224, 15_623_800, 2.45),
        ("convnextv2_tiny", 224, 28_635_496, 4.46),
        ("convnextv2_base", 224, 88_717_800, 15.36),
        ("convnextv2_large", 224, 197_956_840, 34.36),
        ("convnextv2_huge", 224, 660_289_640, 115.0),
        ("swin_t", 224, 28_288_354, 4.5),
        ("swin_s", 224, 49_606_258, 8.7),
        ("swin_b", 224, 87_768_224, 15.4),
        ("swin_b_window12", 384, 87_903_584, 47.0),
        ("swin_l", 224, 196_532_476, 34.5),
        ("swin_l_window12", 384, 196_735_516, 103.9),
        ("vit_b_16", 224, 86_567_656, 17.56),
        ("vit_b_32", 224, 88_224_232, 4.41),
        ("vit_l_16", 224, 304_326_632, 61.55),
        ("vit_l_32", 224, 306_535_400, 15.38),
        ("vit_h_14", 224, 632_045_800, 167.29),
    ] {
        assert_eq!(learned(name, input), params, "{name}");
        let found = count(name, input, 1.0, 1000).1 as f64 / 1e9;
        assert!((found - giga).abs() < 0.01 + 0.005 * giga, "{name}: {found} for {giga}");
        // Keras' networks have the same learned numbers; its ResNets have biases in front of their batch norms.
        let base = name.trim_end_matches("_torchvision");
        if base != name && !base.starts_with("resnet") {
            assert_eq!(learned(base, input), params, "{base}");
        }
    }
    for name in NAMES.iter().copied() {
        // A multiple of every patch.
        let whole = count(name, 224, 1.0, 7).1;
        assert!(whole > 0);
        // Half the channels are about a quarter of the work.
        let share = count(name, 224, 0.5, 7).1 as f64 / whole as f64;
        assert!((0.2..0.5).contains(&share), "{name}: {share}");
    }
}

#[test]
fn weight_decay_means_what_it_says() {
    let gradient = Tensor::new(&[1f32], &Device::Cpu).unwrap();
    let step = |coupled_decay, decoupled_decay| {
        let rule = Rule::Sgd { momentum: 0.0, nesterov: false };
        let start = Tensor::new(&[2f32], &Device::Cpu).unwrap();
        let moved =
            State::default().step(rule, Step { lr: 0.1, coupled_decay, decoupled_decay }, &start, &gradient).unwrap();
        moved.to_vec1::<f32>().unwrap()[0]
    };
    assert!((step(0.0, 0.0) - 1.9).abs() < 1e-6);
    assert!((step(0.5, 0.0) - (2.0 - 0.1 * 2.0)).abs() < 1e-6);
    assert!((step(0.0, 0.5) - (2.0 * 0.95 - 0.1)).abs() < 1e-6);
}

/// 16 pixels are one behind the last of ResNet-18's blocks.
#[test]
fn a_batch_of_one_image_that_a_batch_norm_cannot_train_on_is_refused_before_anything_runs() {
    let file = |more: &str, train: &str| {
        format!(
            r#"
[backbone]
arch = "resnet18"
width = 0.125
input = 32
weights = "random"
[datasets.a]
synthetic = {{ classes = 3, train = 10, test = 4 }}
[scenarios.s]
dataset = "a"
per_class = 3
[axes]
recipe = ["r"]
[train]
steps = 4
[recipes.r]
{train}
{more}
"#
        )
    };
    let said = |text: &str, code: i32| {
        let said = World::new().file("x.toml", text).run(&["check", "x.toml"]).exits(code);
        said.out + &said.err
    };
    // Nine images: the last batch of an epoch is one.
    let refused = said(&file("", "batch = 4"), 2);
    assert!(refused.contains("batch = 4 leaves one image for the last batch of 9"), "{refused}");
    assert!(refused.contains("'layer4.0.bn1'") && refused.contains("x.toml:17:9"), "{refused}");
    for fine in ["batch = 3", "batch = 9", "batch = 5", "batch = 4\nbatch_norm = \"affine\"", "batch = 4\ninput = 64"] {
        said(&file("", fine), 0);
    }
    // Of several phases any: not the first, which trains the head alone.
    let later = "batch = 4\nphases = [{ freeze = \"all\", steps = 4 }, { freeze = \"none\", steps = 4 }]";
    assert!(said(&file("", later), 2).contains("of 9"));
    // A last batch that is not reached is none; one that `refit` makes, is.
    said(&file("", "batch = 4\nsteps = 2"), 0);
    said(&file("[experiment]\nrefit = true", "batch = 5"), 0);
    let refit = said(&file("[experiment]\nrefit = true", "batch = 7"), 2);
    assert!(refit.contains("of 15"), "{refit}");
    // What is said is so: without the check such a trial fails, and those that pass run.
    let world = World::new().file("x.toml", file("", "batch = 5"));
    world.run(&["run", "x.toml", "--quiet"]).exits(0);
    let source = "[pretrain]\ndataset = \"a\"\nsteps = 9\nbatch = 23";
    let pretrained = file(source, "batch = 3").replace("\"random\"", "\"pretrain\"");
    let refused = said(&pretrained, 2);
    assert!(refused.contains("[pretrain]: batch = 23 leaves one image for the last batch of 24"), "{refused}");
    said(&pretrained.replace("batch = 23", "batch = 22"), 0);
}

/// Where validation is carved by groups, replicates train on more or fewer images: what cannot be foreseen fails in clear words.
#[test]
fn a_batch_norm_that_has_no_variance_says_so_without_a_trace() {
    let mut rows = String::from("path,label,split,group\n");
    let mut world = World::new();
    for image in 0..22 {
        let (class, split) = (image % 2, if image < 16 { "train" } else { "test" });
        world = world.file(&format!("{image}.png"), crate::builder::png(32, 32, class, image));
        rows += &format!("{image}.png,{class},{split},g{}\n", image / 4);
    }
    let world = world.file("all.csv", rows).file(
        "x.toml",
        r#"
[backbone]
arch = "resnet18"
width = 0.125
input = 32
weights = "random"
[datasets.a]
path = "all.csv"
[scenarios.s]
dataset = "a"
[axes]
recipe = ["from-scratch"]
batch = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
[train]
steps = 8
"#,
    );
    world.run(&["check", "x.toml"]).exits(0);
    let said = world.command(&["run", "x.toml", "--quiet"]).env("RUST_BACKTRACE", "1").output().unwrap();
    assert_eq!(said.status.code(), Some(4));
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("one image with maps of one pixel has no variance"), "{said}");
    assert!(!said.contains("rustc") && !said.contains("tl_sweep::"), "{said}");
}

#[test]
fn the_source_s_classifier_is_no_feature() {
    let world = World::new();
    let file = |arch: &str, tap: &str| {
        format!("{BASE}[recipes.r]\nfreeze = \"all\"\ntap = \"{tap}\"\n[axes]\nrecipe = [\"r\"]\n")
            .replace("\"resnet8\"", &format!("\"{arch}\""))
            .replace("input = 16", "input = 32")
            .replace("\"random\"", "\"pretrain\"")
            + "[pretrain]\ndataset = \"a\"\nsteps = 4\n"
    };
    let classifiers = [("resnet8", "linear"), ("vgg_small", "predictions"), ("squeezenet1_0", "classifier.1")];
    let world =
        classifiers.iter().fold(world, |world, (arch, tap)| world.file(&format!("{arch}.toml"), file(arch, tap)));
    for (arch, tap) in classifiers {
        let said = world.run(&["check", &format!("{arch}.toml")]).exits(2).err;
        assert!(said.contains(&format!("'{tap}' says which of the source's classes")), "{arch}: {said}");
    }
    // Dense layers below it are features as any others.
    let world = world.file("x.toml", file("vgg_small", "fc1"));
    world.run(&["run", "x.toml", "--quiet"]).exits(0);
}
