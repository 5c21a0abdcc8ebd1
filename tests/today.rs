//! Weights that people start from today: the names that files of DINOv3, of SigLIP's side of images, and of the hub's ResNets and
//! ConvNeXts have elsewhere, what such files lack, and sweeps that start from them.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::init;
use tl_sweep::model::weights::Weights;

use crate::builder::World;

/// Four patches of 32 pixels or sixteen of 16, and one head of 64 numbers.
fn arch(name: &str) -> Arch {
    let width = if name.starts_with("dinov3") { 1.0 / 6.0 } else { 1.0 / 12.0 };
    Arch::new(name, 64, width)
}

fn tensors(weights: &Weights) -> BTreeMap<String, Vec<f32>> {
    let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    weights.0.iter().map(|(name, tensor)| (name.clone(), numbers(tensor))).collect()
}

/// Fresh weights below the head, with other numbers in every tensor.
fn fresh(arch: &Arch) -> Weights {
    let mut own = init::fresh(&arch.graph(10).unwrap(), 0, 1, 0).unwrap();
    own.0.retain(|name, _| !name.starts_with("head"));
    for (at, tensor) in own.0.values_mut().enumerate() {
        *tensor = (&*tensor + (at as f64 * 1e-3)).unwrap();
    }
    own
}

/// Queries, keys and values each by itself, under the names that their letters have.
fn apart(all: &Tensor, name: impl Fn(&str) -> String) -> [(String, Tensor); 3] {
    let size = all.dim(0).unwrap() / 3;
    let part = |third: usize| all.narrow(0, third * size, size).unwrap().contiguous().unwrap();
    [("q", 0), ("k", 1), ("v", 2)].map(|(letter, third)| (name(letter), part(third)))
}

/// A name with the first part that fits replaced.
fn renamed(name: &str, parts: &[[&str; 2]]) -> String {
    parts
        .iter()
        .find(|[here, _]| name.contains(here))
        .map_or(name.to_owned(), |[here, there]| name.replace(here, there))
}

const META: [[&str; 2]; 6] = [
    ["reg_token.weight", "storage_tokens"],
    ["gamma_1.weight", "ls1.gamma"],
    ["gamma_2.weight", "ls2.gamma"],
    ["fc1_g", "w1"],
    ["fc1_x", "w2"],
    ["mlp.fc2", "mlp.w3"],
];

const HUB: [[&str; 2]; 9] = [
    ["patch_embed.proj", "embeddings.patch_embeddings"],
    ["cls_token.weight", "embeddings.cls_token"],
    ["reg_token.weight", "embeddings.register_tokens"],
    ["gamma_1.weight", "layer_scale1.lambda1"],
    ["gamma_2.weight", "layer_scale2.lambda1"],
    ["attn.proj", "attention.o_proj"],
    ["mlp.fc1_g", "mlp.gate_proj"],
    ["mlp.fc1_x", "mlp.up_proj"],
    ["mlp.fc2", "mlp.down_proj"],
];

/// DINOv3 as Hugging Face's transformers write it.
fn hub(own: &Weights) -> Weights {
    let mut other = Weights::default();
    for (name, tensor) in &own.0 {
        let there = renamed(name, &HUB).replace("blocks.", "layer.");
        if let Some(block) = there.strip_suffix("attn.qkv.weight") {
            other.0.extend(apart(tensor, |letter| format!("{block}attention.{letter}_proj.weight")));
        } else {
            let there =
                there.replace("attn.q_bias", "attention.q_proj.bias").replace("attn.v_bias", "attention.v_proj.bias");
            other.0.insert(there, tensor.clone());
        }
    }
    other.0.insert("embeddings.mask_token".to_owned(), Tensor::zeros((1, 1, 64), DType::F32, &Device::Cpu).unwrap());
    other
}

/// DINOv3 as Meta's own files have it: biases of keys are there, and a mask says that they are none.
fn meta(own: &Weights) -> Weights {
    let mut other = Weights::default();
    for (name, tensor) in &own.0 {
        if let Some(block) = name.strip_suffix("q_bias") {
            let values = &own.0[&format!("{block}v_bias")];
            let keys = Tensor::full(7f32, 64, &Device::Cpu).unwrap();
            let all = Tensor::cat(&[tensor, &keys, values], 0).unwrap();
            other.0.insert(format!("{block}qkv.bias"), all.clone());
            other.0.insert(format!("{block}qkv.bias_mask"), all);
        } else if !name.ends_with("v_bias") {
            other.0.insert(renamed(name, &META).replace("cls_token.weight", "cls_token"), tensor.clone());
        }
    }
    other.0.insert("rope_embed.periods".to_owned(), Tensor::zeros(16, DType::F32, &Device::Cpu).unwrap());
    other.0.insert("mask_token".to_owned(), Tensor::zeros((1, 64), DType::F32, &Device::Cpu).unwrap());
    other
}

/// DINOv3 as timm writes it.
fn timm(own: &Weights) -> Weights {
    let bare = ["cls_token.weight", "reg_token.weight", "gamma_1.weight", "gamma_2.weight"];
    let name = |name: &String| match bare.iter().any(|own| name.ends_with(own)) {
        true => name.trim_end_matches(".weight").to_owned(),
        false => name.clone(),
    };
    Weights(own.0.iter().map(|(own, tensor)| (name(own), tensor.clone())).collect())
}

#[test]
fn files_of_dinov3_are_read_whoever_wrote_them() {
    let world = World::new();
    let path = world.path("dinov3.safetensors");
    for name in ["dinov3_vits16", "dinov3_vits16plus"] {
        let arch = arch(name);
        let own = fresh(&arch);
        for (whose, mut other) in [("hub", hub(&own)), ("meta", meta(&own)), ("timm", timm(&own))] {
            if name == "dinov3_vits16" {
                // Its plain dense layers have other names there.
                let plain = |name: &String| name.replace("mlp.fc1", "mlp.up_proj").replace("mlp.w3", "mlp.fc2");
                let there =
                    |name: &String| if whose == "hub" { plain(name) } else { name.replace("mlp.w3", "mlp.fc2") };
                other = Weights(other.0.iter().map(|(name, tensor)| (there(name), tensor.clone())).collect());
            }
            other.write(&path).unwrap();
            let (found, fitted) = Weights::load(&path, &arch, "features").unwrap();
            assert_eq!(tensors(&found), tensors(&own), "{name} {whose}");
            assert!(fitted.found.zero.is_empty() && fitted.headless);
            // Positions follow from the size: at another one the same file fits as it is.
            let (wider, _) = Weights::load(&path, &Arch { input: 96, ..arch.clone() }, "features").unwrap();
            assert_eq!(tensors(&wider), tensors(&own));
        }
    }
}

#[test]
fn biases_that_are_all_missing_are_zero_and_some_are_an_error() {
    let world = World::new();
    let (path, arch) = (world.path("timm.safetensors"), arch("dinov3_vits16"));
    let own = fresh(&arch);
    let mut other = timm(&own);
    other.0.retain(|name, _| !name.ends_with("_bias"));
    other.write(&path).unwrap();
    let (found, fitted) = Weights::load(&path, &arch, "features").unwrap();
    assert_eq!((fitted.found.zero.len(), found.0.len()), (24, own.0.len()));
    for (name, numbers) in tensors(&found) {
        let expected = &tensors(&own)[&name];
        assert!(if name.ends_with("_bias") { numbers == [0.0; 64] } else { numbers == *expected }, "{name}");
    }
    let asked =
        ["weights", "inspect", "timm.safetensors", "--arch", "dinov3_vits16", "--width", "0.16666666", "--input", "64"];
    let said = world.run(&asked).exits(0);
    assert!(said.out.contains("24 biases of queries and values, which are zero then"), "{}", said.out);
    other.0.insert("blocks.4.attn.q_bias".to_owned(), own.0["blocks.4.attn.q_bias"].clone());
    other.write(&path).unwrap();
    let message = format!("{:#}", Weights::load(&path, &arch, "features").map(|_| ()).unwrap_err());
    assert!(
        message.contains("in the network, not in the file: blocks.0.attn.q_bias, blocks.0.attn.v_bias"),
        "{message}"
    );
}

const SIGLIP: [[&str; 2]; 12] = [
    ["patch_embed.proj", "embeddings.patch_embedding"],
    ["pos_embed.weight", "embeddings.position_embedding.weight"],
    ["attn_pool.latent.weight", "head.probe"],
    ["attn_pool.proj", "head.attention.out_proj"],
    ["attn_pool.norm", "head.layernorm"],
    ["attn_pool.mlp", "head.mlp"],
    ["attn.proj", "self_attn.out_proj"],
    ["norm1", "layer_norm1"],
    ["norm2", "layer_norm2"],
    ["mlp.fc1", "mlp.fc1"],
    ["mlp.fc2", "mlp.fc2"],
    ["norm.", "post_layernorm."],
];

/// SigLIP as transformers write both of its sides, with what stands beside the images'.
fn siglip_of_the_hub(own: &Weights) -> Weights {
    let mut other = Weights::default();
    for (name, tensor) in &own.0 {
        let there = format!("vision_model.{}", renamed(name, &SIGLIP).replace("blocks.", "encoder.layers."));
        let tensor = if name == "pos_embed.weight" { tensor.squeeze(0).unwrap() } else { tensor.clone() };
        if let Some((block, leaf)) = there.split_once("attn.qkv.") {
            other.0.extend(apart(&tensor, |letter| format!("{block}self_attn.{letter}_proj.{leaf}")));
        } else if let Some(leaf) = name.strip_prefix("attn_pool.q.") {
            let all = Tensor::cat(&[&tensor, &own.0[&format!("attn_pool.kv.{leaf}")]], 0).unwrap();
            other.0.insert(format!("vision_model.head.attention.in_proj_{leaf}"), all);
        } else if !name.starts_with("attn_pool.kv.") {
            other.0.insert(there, tensor);
        }
    }
    let nothing = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
    let beside = ["text_model.encoder.layers.0.mlp.fc1.weight", "logit_scale", "logit_bias"];
    other.0.extend(beside.map(|name| (name.to_owned(), nothing.clone())));
    other
}

#[test]
fn files_of_siglip_are_read_whoever_wrote_them() {
    let world = World::new();
    let (path, arch) = (world.path("siglip.safetensors"), arch("siglip_vitb16"));
    let own = fresh(&arch);
    let both = siglip_of_the_hub(&own);
    let mut alone = Weights::default();
    let side =
        |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix("vision_model.")?.to_owned(), tensor.clone()));
    alone.0.extend(both.0.iter().filter_map(side));
    let bare = |name: &String| renamed(name, &[["pos_embed.weight", "pos_embed"], ["latent.weight", "latent"]]);
    let trunk =
        Weights(own.0.iter().map(|(name, tensor)| (format!("visual.trunk.{}", bare(name)), tensor.clone())).collect());
    let timm = Weights(own.0.iter().map(|(name, tensor)| (bare(name), tensor.clone())).collect());
    for (whose, mut other) in [("hub", both), ("its side of images", alone), ("open_clip", trunk), ("timm", timm)] {
        other.write(&path).unwrap();
        let (found, _) = Weights::load(&path, &arch, "features").unwrap();
        assert_eq!(tensors(&found), tensors(&own), "{whose}");
        // Positions of a grid without a class token are stretched.
        let (wider, _) = Weights::load(&path, &Arch { input: 96, ..arch.clone() }, "features").unwrap();
        assert_eq!(wider.0["pos_embed.weight"].dims(), [1, 36, 64]);
        let part =
            other.0.keys().find(|name| name.contains("in_proj_bias") || name.ends_with("attn_pool.kv.bias")).unwrap();
        other.0.remove(&part.clone()).unwrap();
        other.write(&path).unwrap();
        let message = format!("{:#}", Weights::load(&path, &arch, "features").map(|_| ()).unwrap_err());
        assert!(message.contains("attn_pool.kv.bias"), "{whose}: {message}");
    }
}

#[test]
fn what_is_exported_is_read_again_by_name() {
    let world = World::new();
    for name in ["dinov3_vits16plus", "siglip_vitb16"] {
        let arch = arch(name);
        let own = fresh(&arch);
        own.write(&world.path("own.safetensors")).unwrap();
        let width = arch.width.to_string();
        let asked = ["weights", "convert", "own.safetensors", "--arch", name, "--width", &width, "--input", "64"];
        world.run(&[&asked[..], &["--names", "torch", "--out", "torch.safetensors"]].concat()).exits(0);
        let (found, _) = Weights::load(&world.path("torch.safetensors"), &arch, "features").unwrap();
        assert_eq!(tensors(&found), tensors(&own), "{name}");
    }
}

#[test]
fn sweeps_start_from_such_files() {
    for (name, preprocess) in [("dinov3_vits16plus", "torch"), ("siglip_vitb32", "tf")] {
        let arch = arch(name);
        let file = format!(
            "
[experiment]
name = \"today\"
replicates = 1
[backbone]
weights = \"own.safetensors\"
arch = \"{name}\"
width = {}
input = 64
preprocess = \"{preprocess}\"
[datasets.mine]
path = \"mine\"
[scenarios.all]
dataset = \"mine\"
[train]
steps = 6
batch = 8
lr = 0.001
[recipes.lora]
trains = {{ lora = 2 }}
[recipes.bitfit]
trains = \"biases\"
[axes]
recipe = [\"linear-probe\", \"fine-tune\", \"lora\", \"bitfit\"]
",
            arch.width
        );
        let world = World::new().images("mine", &["a", "b"], 8, 4).file("e.toml", &file);
        fresh(&arch).write(&world.path("own.safetensors")).unwrap();
        world.run(&["run", "e.toml", "--weights", "."]).exits(0);
        world.run(&["verify", "e.toml", "--weights", ".", "--all"]).exits(0);
        world.run(&["export", "e.toml", "--best", "all", "--out", "best.safetensors", "--weights", "."]).exits(0);
        world.run(&["predict", "best.safetensors", "mine/test"]).exits(0);
        world.run(&["look", "best.safetensors", "mine/test", "--out", "look.html"]).exits(0);
    }
}

/// A name of torchvision's as transformers have it: of ResNets, of ConvNeXts, and of DINOv3's ConvNeXts.
fn of_maps(name: &str, whose: &str) -> String {
    let words: Vec<&str> = name.split('.').collect();
    let leaf = words[words.len() - 1];
    let number = |word: &str| word.parse::<usize>().unwrap();
    match (whose, &words[..words.len() - 1]) {
        ("resnet", ["conv1"]) => format!("resnet.embedder.embedder.convolution.{leaf}"),
        ("resnet", ["bn1"]) => format!("resnet.embedder.embedder.normalization.{leaf}"),
        ("resnet", [stage, block, part @ ..]) => {
            let stage = number(&stage[5..]) - 1;
            let place = match part {
                ["downsample", which] => format!("shortcut.{}", ["convolution", "normalization"][number(which)]),
                [part] if part.starts_with("conv") => format!("layer.{}.convolution", number(&part[4..]) - 1),
                [part] => format!("layer.{}.normalization", number(&part[2..]) - 1),
                other => panic!("{other:?}"),
            };
            format!("resnet.encoder.stages.{stage}.layers.{block}.{place}.{leaf}")
        }
        ("convnext", ["features", "0", which]) => {
            format!("convnext.embeddings.{}.{leaf}", ["patch_embeddings", "layernorm"][number(which)])
        }
        ("dinov3", ["features", "0", which]) => format!("stages.0.downsample_layers.{which}.{leaf}"),
        ("convnext", ["features", group, block, "layer_scale"]) => {
            format!("convnext.encoder.stages.{}.layers.{block}.layer_scale_parameter", number(group) / 2)
        }
        ("dinov3", ["features", group, block, "layer_scale"]) => {
            format!("stages.{}.layers.{block}.gamma", number(group) / 2)
        }
        (_, ["features", group, block, "block", part]) => {
            let place = ["0", "2", "3", "5"].iter().position(|own| own == part).unwrap();
            let stage = format!("stages.{}.layers.{block}", number(group) / 2);
            let dinov3 = ["depthwise_conv", "layer_norm", "pointwise_conv1", "pointwise_conv2"][place];
            let plain = ["dwconv", "layernorm", "pwconv1", "pwconv2"][place];
            if whose == "dinov3" {
                format!("{stage}.{dinov3}.{leaf}")
            } else {
                format!("convnext.encoder.{stage}.{plain}.{leaf}")
            }
        }
        (_, ["features", group, which]) => {
            let stage = number(group) / 2;
            match whose {
                "dinov3" => format!("stages.{stage}.downsample_layers.{which}.{leaf}"),
                _ => format!("convnext.encoder.stages.{stage}.downsampling_layer.{which}.{leaf}"),
            }
        }
        ("convnext", ["classifier", "0"]) => format!("convnext.layernorm.{leaf}"),
        ("dinov3", ["classifier", "0"]) => format!("layer_norm.{leaf}"),
        (_, other) => panic!("{other:?}"),
    }
}

#[test]
fn files_of_the_hub_of_resnets_and_convnexts_are_read() {
    let world = World::new();
    let path = world.path("hub.safetensors");
    for (name, whose) in [
        ("resnet18", "resnet"),
        ("resnet50_torchvision", "resnet"),
        ("convnext_tiny", "convnext"),
        ("convnext_tiny", "dinov3"),
    ] {
        let arch = Arch::new(name, 64, 0.0625);
        let mut own = fresh(&arch);
        own.0.retain(|name, _| !name.starts_with("fc.") && !name.starts_with("classifier.2"));
        let there = |(name, tensor): (&String, &Tensor)| (of_maps(name, whose), tensor.clone());
        Weights(own.0.iter().map(there).collect()).write(&path).unwrap();
        let (found, fitted) = Weights::load(&path, &arch, "features").unwrap();
        assert_eq!(tensors(&found), tensors(&own), "{name} {whose}");
        assert!(fitted.headless);
    }
}

/// What a person reads of a network names what it is made of.
#[test]
fn a_summary_names_every_kind_of_layer() {
    let world = World::new();
    let classes = |name: &str| {
        let said = world.run(&["summary", name]).exits(0).out;
        ["GELU", "SwiGLU", "Rotary", "AttentionPool", "LayerScale", "ReLU"]
            .map(|class| said.contains(&format!("┆ {class} ")))
    };
    assert_eq!(classes("dinov3_vits16plus"), [false, true, true, false, true, false]);
    assert_eq!(classes("siglip_vitb16"), [true, false, false, true, false, false]);
    assert_eq!(classes("resnext50_32x4d"), [false, false, false, false, false, true]);
    let said = world.run(&["summary", "resnext50_32x4d", "--width", "0.1"]).exits(2);
    assert!(said.err.contains("has groups of channels, which width = 0.1 does not leave whole"), "{}", said.err);
    assert!(world.run(&["summary", "convnextv2_atto"]).exits(0).out.contains("┆ GlobalResponseNorm "));
    let said = world.run(&["summary", "swin_t", "--input", "96"]).exits(0).out;
    for class in ["WindowAttention", "PatchMerging", "ZeroPadding2D", "Cropping2D"] {
        assert!(said.contains(&format!("┆ {class} ")), "{class}: {said}");
    }
    let said = world.run(&["summary", "clip_vitb32"]).exits(0).out;
    assert!(said.contains("where texts are, images are tapped at image_embeds"), "{said}");
    // A file of one's own may have all of these.
    for name in ["dinov3_vits16plus", "siglip_vitb16", "convnextv2_atto", "swin_t"] {
        let text = world.run(&["summary", name, "--toml"]).exits(0).out;
        std::fs::write(world.path("own.toml"), text).unwrap();
        world.run(&["summary", "own.toml"]).exits(0);
    }
}

/// A mean and a deviation of one's own come with what was trained; those that have a word are that word.
#[test]
fn a_preparation_may_be_said_in_numbers() {
    let file = |preprocess: &str| {
        format!(
            "
[experiment]
name = \"numbers\"
replicates = 1
[backbone]
weights = \"own.safetensors\"
arch = \"resnet8\"
preprocess = \"{preprocess}\"
[datasets.mine]
path = \"mine\"
[scenarios.all]
dataset = \"mine\"
[train]
steps = 6
batch = 8
[axes]
recipe = [\"linear-probe\", \"fine-tune\"]
"
        )
    };
    let satellites = "mean 0.430 0.411 0.296 std 0.213 0.156 0.143";
    let world = World::new()
        .images("mine", &["a", "b"], 8, 4)
        .file("word.toml", file("torch"))
        .file("numbers.toml", file("mean 0.485 0.456 0.406 std 0.229 0.224 0.225"))
        .file("own.toml", file(satellites))
        .file("wrong.toml", file("mean 123 117 104 std 58 57 57"));
    fresh(&Arch::new("resnet8", 32, 1.0)).write(&world.path("own.safetensors")).unwrap();
    let run = |file: &str| world.run(&["run", file, "--weights", "."]);
    run("word.toml").exits(0);
    let said = run("numbers.toml").exits(0);
    assert!(format!("{}{}", said.out, said.err).contains("2 in the store, 0 to run"), "{} {}", said.out, said.err);
    run("own.toml").exits(0);
    world.run(&["verify", "own.toml", "--weights", ".", "--all"]).exits(0);
    world.run(&["export", "own.toml", "--best", "all", "--out", "best.safetensors", "--weights", "."]).exits(0);
    let bytes = std::fs::read(world.path("best.safetensors")).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("mean 0.43 0.411 0.296 std 0.213 0.156 0.143"));
    world.run(&["predict", "best.safetensors", "mine/test"]).exits(0);
    let said = run("wrong.toml").exits(2);
    assert!(said.err.contains("of numbers from 0 to 1"), "{}", said.err);
}
