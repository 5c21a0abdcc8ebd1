//! CLIP's side of images: the names that its files have elsewhere, and what no tensor tells.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use tl_sweep::data::batch::planes;
use tl_sweep::model::arch::Arch;
use tl_sweep::model::graph::{Activation, Op};
use tl_sweep::model::init;
use tl_sweep::model::vit::twin;
use tl_sweep::model::weights::Weights;
use tl_sweep::preprocess::Preprocess;

use crate::builder::World;
use crate::downloads::{Answer, Server};

/// Four patches and one head.
fn arch(name: &str) -> Arch {
    Arch::new(name, 64, 0.0625)
}

fn tensors(weights: &Weights) -> BTreeMap<String, Vec<f32>> {
    let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    weights.0.iter().map(|(name, tensor)| (name.clone(), numbers(tensor))).collect()
}

/// The layers outside of blocks, and the parts of blocks, here and in a file elsewhere.
type Names = [[&'static str; 2]; 9];

const OPEN_CLIP: Names = [
    ["patch_embed.proj.weight", "visual.conv1.weight"],
    ["cls_token.weight", "visual.class_embedding"],
    ["pos_embed.weight", "visual.positional_embedding"],
    ["norm_pre.", "visual.ln_pre."],
    ["norm.", "visual.ln_post."],
    ["norm1", "ln_1"],
    ["norm2", "ln_2"],
    ["mlp.fc1", "mlp.c_fc"],
    ["mlp.fc2", "mlp.c_proj"],
];

const HUB: Names = [
    ["patch_embed.proj.weight", "vision_model.embeddings.patch_embedding.weight"],
    ["cls_token.weight", "vision_model.embeddings.class_embedding"],
    ["pos_embed.weight", "vision_model.embeddings.position_embedding.weight"],
    ["norm_pre.", "vision_model.pre_layrnorm."],
    ["norm.", "vision_model.post_layernorm."],
    ["norm1", "layer_norm1"],
    ["norm2", "layer_norm2"],
    ["mlp.fc1", "mlp.fc1"],
    ["mlp.fc2", "mlp.fc2"],
];

/// The same numbers as another program would write them, without a classifier and with what stands beside them there.
pub fn renamed(own: &Weights, hub: bool) -> Weights {
    let names = if hub { HUB } else { OPEN_CLIP };
    let mut other = Weights::default();
    for (name, tensor) in own.0.iter().filter(|(name, _)| !name.starts_with("head")) {
        // Rows of tokens have no axis of images there, and the class token is a vector.
        let tensor = match name.as_str() {
            "cls_token.weight" => tensor.flatten_all().unwrap(),
            "pos_embed.weight" => tensor.squeeze(0).unwrap(),
            _ => tensor.clone(),
        };
        let Some(block) = name.strip_prefix("blocks.") else {
            let [here, there] = names[..5].iter().find(|[here, _]| name.starts_with(here)).unwrap();
            other.0.insert(name.replacen(here, there, 1), tensor);
            continue;
        };
        let (number, part) = block.split_once('.').unwrap();
        let (part, leaf) = part.rsplit_once('.').unwrap();
        let block = if hub { "vision_model.encoder.layers." } else { "visual.transformer.resblocks." };
        let there = |part: &str| format!("{block}{number}.{part}");
        match part {
            "attn.qkv" if hub => {
                for (third, letter) in ["q", "k", "v"].into_iter().enumerate() {
                    let part = tensor.narrow(0, third * 64, 64).unwrap().contiguous().unwrap();
                    other.0.insert(there(&format!("self_attn.{letter}_proj.{leaf}")), part);
                }
            }
            "attn.qkv" => drop(other.0.insert(there(&format!("attn.in_proj_{leaf}")), tensor)),
            "attn.proj" => {
                let of = if hub { "self_attn" } else { "attn" };
                other.0.insert(there(&format!("{of}.out_proj.{leaf}")), tensor);
            }
            part => {
                let [_, theirs] = names[5..].iter().find(|[here, _]| *here == part).unwrap();
                other.0.insert(there(&format!("{theirs}.{leaf}")), tensor);
            }
        }
    }
    let beside: &[&str] = match hub {
        true => &["text_model.encoder.layers.0.mlp.fc1.weight", "text_projection.weight", "visual_projection.weight"],
        false => &[
            "transformer.resblocks.0.mlp.c_fc.weight",
            "token_embedding.weight",
            "positional_embedding",
            "visual.proj",
        ],
    };
    let nothing = Tensor::zeros((3, 5), DType::F32, &Device::Cpu).unwrap();
    other.0.extend(beside.iter().chain(&["logit_scale"]).map(|name| ((*name).to_owned(), nothing.clone())));
    other
}

#[test]
fn files_of_the_hub_and_of_open_clip_are_read() {
    let world = World::new();
    let arch = arch("clip_vitb32");
    let own = init::fresh(&arch.graph(10).unwrap(), 0, 1, 0).unwrap();
    let mut below = tensors(&own);
    below.retain(|name, _| !name.starts_with("head"));
    for hub in [true, false] {
        let path = world.path("clip.safetensors");
        let mut other = renamed(&own, hub);
        other.write(&path).unwrap();
        let (found, fitted) = Weights::load(&path, &arch, "features").unwrap();
        assert_eq!(tensors(&found), below, "hub: {hub}");
        let why: Vec<&str> = fitted.found.left_out.iter().map(|(_, why)| why.as_str()).collect();
        assert_eq!(
            why.iter().filter(|why| **why == "of the side of texts").count(),
            if hub { 3 } else { 4 },
            "{why:?}"
        );
        assert!(why.contains(&"the way from features to where texts are: tap = \"image_embeds\" takes it"), "{why:?}");
        // At another size its positions are stretched.
        let wider = Arch::new("clip_vitb32", 96, 0.0625);
        let (found, _) = Weights::load(&path, &wider, "features").unwrap();
        assert_eq!(found.0["pos_embed.weight"].dims(), [1, 10, 64]);
        // One part of a projection is no projection, and in another network a side of texts is no reason to look away.
        let part = if hub { "vision_model.encoder.layers.3.self_attn.k_proj.bias" } else { "visual.ln_pre.bias" };
        other.0.remove(part).unwrap();
        other.write(&path).unwrap();
        let message = format!("{:#}", Weights::load(&path, &arch, "features").map(|_| ()).unwrap_err());
        let missing = if hub { "blocks.3.attn.qkv.bias" } else { "norm_pre.bias" };
        assert!(message.contains(&format!("in the network, not in the file: {missing}")), "{message}");
        let plain = Arch::new("vit_base_patch32", 64, 0.0625);
        let message = format!("{:#}", Weights::load(&path, &plain, "features").map(|_| ()).unwrap_err());
        assert!(message.contains("logit_scale"), "{message}");
    }
}

/// OpenAI's networks and those of LAION have the same tensors: a guess would be silently wrong for one of them.
#[test]
fn which_activation_it_is_must_be_said() {
    let world = World::new();
    for (name, other) in [("clip_vitl14", "clip_vitl14_gelu"), ("clip_vitb16_gelu", "clip_vitb16")] {
        assert_eq!(twin(name), Some(other));
        let [own, other] = [name, other].map(|name| arch_ops(&Arch::new(name, 224, 0.0625)));
        assert_ne!(own, other, "{name}");
    }
    assert_eq!([twin("clip_vith14_gelu"), twin("vit_b_16")], [None, None]);
    let own = init::fresh(&arch("clip_vitb32").graph(10).unwrap(), 0, 1, 0).unwrap();
    renamed(&own, true).write(&world.path("clip.safetensors")).unwrap();
    let bytes = std::fs::read(world.path("clip.safetensors")).unwrap();
    let server = Server::new([("/openai/clip/resolve/main/model.safetensors", Answer::Well(bytes))]);
    let said = world.run(&["weights", "get", "hf:openai/clip", "--from", &server.address, "--weights", "lib"]).exits(0);
    let lines = "weights = \"clip.safetensors\"\narch = \"clip_vitb32\"    # OpenAI's; \"clip_vitb32_gelu\" are LAION's, DataComp's \
                 and others\nwidth = 0.0625\ninput = 224    # its own positions are those of 64 pixels\npreprocess = \"clip\"\nresize = \"crop bicubic\"\n";
    assert!(said.out.contains(lines), "{}", said.out);
    // Of timm's transformers no file says which of two preparations it wants either: both are named.
    let plain = arch("vit_base_patch32");
    init::fresh(&plain.graph(10).unwrap(), 0, 1, 0).unwrap().write(&world.path("vit.safetensors")).unwrap();
    server.answers(
        "/google/vit/resolve/main/model.safetensors",
        Answer::Well(std::fs::read(world.path("vit.safetensors")).unwrap()),
    );
    let said = world.run(&["weights", "get", "hf:google/vit", "--from", &server.address, "--weights", "lib"]).exits(0);
    let line = "preprocess = \"torch\"    # \"tf\" for AugReg's and Google's own\nresize = \"crop 0.875 bicubic\"\n";
    assert!(said.out.contains(line), "{}", said.out);
    let said = world.run(&["weights", "inspect", "clip.safetensors"]).exits(2);
    let told = "fits clip_vitb32 (OpenAI's weights) and clip_vitb32_gelu (LAION's, DataComp's and others), which differ in an \
                activation that no tensor tells: say which with --arch, or as FILE=ARCH to `rank`";
    assert!(said.err.contains(told), "{}", said.err);
    let asked =
        ["weights", "inspect", "clip.safetensors", "--arch", "clip_vitb32", "--width", "0.0625", "--input", "64"];
    let said = world.run(&asked).exits(0);
    assert!(said.out.contains("vision_model.pre_layrnorm.weight"), "{}", said.out);
}

/// Activations of a network, counted.
fn arch_ops(arch: &Arch) -> [usize; 2] {
    let graph = arch.graph(10).unwrap();
    [Activation::QuickGelu, Activation::Gelu]
        .map(|one| graph.layers.iter().filter(|layer| layer.op == Op::Activation(one)).count())
}

/// The constants of OpenAI's code, as torchvision's Normalize takes them.
#[test]
fn images_come_before_it_as_its_authors_prepare_them() {
    let mean = [0.48145466, 0.4578275, 0.40821073];
    let deviation = [0.26862954, 0.26130258, 0.27577711];
    for (plane, (channel, scale, shift)) in planes(Preprocess::Clip).into_iter().enumerate() {
        assert_eq!(channel, plane);
        for byte in [0.0f64, 1.0, 127.0, 255.0] {
            let exact = (byte / 255.0 - mean[plane]) / deviation[plane];
            let found = byte * f64::from(scale) + f64::from(shift);
            assert!((found - exact).abs() < 1e-6, "{plane}, {byte}: {found}, {exact}");
        }
    }
}

#[test]
fn a_sweep_starts_from_such_a_file() {
    let file = "
[experiment]
name = \"clip\"
replicates = 1
[backbone]
weights = \"clip.safetensors\"
arch = \"clip_vitb32\"
width = 0.0625
input = 64
preprocess = \"clip\"
[datasets.mine]
path = \"mine\"
[scenarios.all]
dataset = \"mine\"
[train]
steps = 8
batch = 8
lr = 0.001
[recipes.lora]
trains = { lora = 2 }
[axes]
recipe = [\"linear-probe\", \"fine-tune\", \"lora\"]
";
    let world = World::new().images("mine", &["a", "b"], 8, 4).file("e.toml", file);
    let own = init::fresh(&arch("clip_vitb32").graph(10).unwrap(), 0, 1, 0).unwrap();
    renamed(&own, false).write(&world.path("clip.safetensors")).unwrap();
    world.run(&["run", "e.toml", "--weights", "."]).exits(0);
    world.run(&["verify", "e.toml", "--weights", ".", "--all"]).exits(0);
    // Without a word for the preparation there is no guess.
    let said = world.run(&["check", "e.toml", "--weights", ".", "--set", "backbone.preprocess=\"imagenet\""]).exits(2);
    assert!(said.err.contains("'caffe', 'tf', 'torch', 'clip'"), "{}", said.err);
}
