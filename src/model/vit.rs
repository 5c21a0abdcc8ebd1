//! Vision transformers (Dosovitskiy et al., 2021): torchvision's, those under timm's names, which DeiT, DINO and MAE have too,
//! DINOv2 (Oquab et al., 2024), with registers (Darcet et al., 2024) and without, DINOv3 (Siméoni et al., 2025), and the images' side of
//! CLIP (Radford et al., 2021) and of SigLIP (Zhai et al., 2023; Tschannen et al., 2025).

use super::graph::{Activation, Framework, Graph, Op, Shape};
use crate::frame::Resize;
use crate::preprocess::Preprocess;

/// Numbers of a token that one head attends with, in all of them but the largest.
const DEPTH: usize = 64;
/// Of all layer norms, and of CLIP's and DINOv3's.
const EPS: f64 = 1e-6;
const LARGER_EPS: f64 = 1e-5;
/// What the scales of DINOv2 and DINOv3 began at.
const SCALE: f64 = 1e-5;
/// Their registers.
const REGISTERS: usize = 4;
/// Below what DINOv3's periods of positions stay.
const BASE: f64 = 100.0;

/// By whom a network is called what it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Torchvision,
    Timm,
    Dinov2,
    Dinov3,
    /// With the activation of OpenAI's own, or with the one of those that others have trained since.
    Clip {
        quick: bool,
    },
    Siglip,
}

/// One of the transformers.
#[derive(Clone, Copy, Debug)]
pub struct Vit {
    pub style: Style,
    /// Pixels of a patch's side.
    pub patch: usize,
    blocks: usize,
    heads: usize,
    depth: usize,
    registers: usize,
    /// How many times wider a block is between its dense layers, as a fraction.
    wider: [usize; 2],
    /// Whether a gate is there (SwiGLU).
    gated: bool,
    /// Numbers of an image where texts are.
    joint: Option<usize>,
}

/// All that there are.
pub const NAMES: &[&str] = &[
    "vit_b_16",
    "vit_b_32",
    "vit_l_16",
    "vit_l_32",
    "vit_h_14",
    "vit_tiny_patch16",
    "vit_small_patch8",
    "vit_small_patch16",
    "vit_small_patch32",
    "vit_base_patch8",
    "vit_base_patch16",
    "vit_base_patch32",
    "vit_large_patch16",
    "dinov2_vits14",
    "dinov2_vits14_reg",
    "dinov2_vitb14",
    "dinov2_vitb14_reg",
    "dinov2_vitl14",
    "dinov2_vitl14_reg",
    "dinov3_vits16",
    "dinov3_vits16plus",
    "dinov3_vitb16",
    "dinov3_vitl16",
    "dinov3_vith16plus",
    "clip_vitb32",
    "clip_vitb32_gelu",
    "clip_vitb16",
    "clip_vitb16_gelu",
    "clip_vitl14",
    "clip_vitl14_gelu",
    "clip_vith14_gelu",
    "siglip_vitb16",
    "siglip_vitb32",
    "siglip_vitl16",
    "siglip_so400m14",
    "siglip_so400m16",
];

/// CLIP's images where texts are: the layer of unit vectors, and the one below it without a bias, as Hugging Face's transformers
/// (5.24) calls both.
pub const EMBEDS: &str = "image_embeds";
pub const PROJECTION: &str = "visual_projection";

/// What LAION's and DataComp's networks are called behind OpenAI's of the same size.
const GELU: &str = "_gelu";

/// The network that has the same tensors and another activation, if there is one.
pub fn twin(name: &str) -> Option<&'static str> {
    let own = name.strip_prefix("clip_")?;
    let other = own.strip_suffix(GELU).map_or_else(|| format!("clip_{own}{GELU}"), |plain| format!("clip_{plain}"));
    NAMES.iter().find(|name| **name == other).copied()
}

/// Whether a network has the activation of OpenAI's own CLIP; its side of texts has it, too.
pub fn quick(name: &str) -> bool {
    named(name).is_some_and(|vit| vit.style == Style::Clip { quick: true })
}

/// Whether a network has a side of texts beside it.
pub fn reads_texts(name: &str) -> bool {
    named(name).is_some_and(|vit| vit.joint.is_some())
}

/// The transformer of a listed name.
pub fn named(name: &str) -> Option<Vit> {
    let name = NAMES.contains(&name).then_some(name)?;
    let base = ["_reg", GELU, "plus"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    let registers = if name.ends_with("_reg") || name.starts_with("dinov3") { REGISTERS } else { 0 };
    let (style, size, patch) = if let Some(rest) = base.strip_prefix("dinov2_vit") {
        (Style::Dinov2, &rest[..1], &rest[1..])
    } else if let Some(rest) = base.strip_prefix("dinov3_vit") {
        (Style::Dinov3, &rest[..1], &rest[1..])
    } else if let Some(patch) = base.strip_prefix("siglip_so400m") {
        (Style::Siglip, "so400m", patch)
    } else if let Some(rest) = base.strip_prefix("siglip_vit") {
        (Style::Siglip, &rest[..1], &rest[1..])
    } else if let Some(rest) = base.strip_prefix("clip_vit") {
        (Style::Clip { quick: base == name }, &rest[..1], &rest[1..])
    } else if let Some((size, patch)) = base.strip_prefix("vit_")?.split_once("_patch") {
        (Style::Timm, size, patch)
    } else {
        let (size, patch) = base.strip_prefix("vit_")?.split_once('_')?;
        (Style::Torchvision, size, patch)
    };
    // Table 1 of Dosovitskiy et al., the small ones of Touvron et al. (2021), and the shape of Alabdulmohsin et al. (2023).
    let (blocks, heads, depth) = match size {
        "tiny" => (12, 3, DEPTH),
        "s" | "small" => (12, 6, DEPTH),
        "b" | "base" => (12, 12, DEPTH),
        "l" | "large" => (24, 16, DEPTH),
        "h" if style == Style::Dinov3 => (32, 20, DEPTH),
        "h" => (32, 16, 80),
        "so400m" => (27, 16, 72),
        _ => return None,
    };
    let wider = if size == "so400m" { [4304, 1152] } else { [4, 1] };
    // Table 20 of Radford et al., and OpenCLIP's ViT-H-14.
    let joint = match (style, size) {
        (Style::Clip { .. }, "b") => Some(512),
        (Style::Clip { .. }, "l") => Some(768),
        (Style::Clip { .. }, "h") => Some(1024),
        _ => None,
    };
    Some(Vit {
        style,
        patch: patch.parse().ok()?,
        blocks,
        heads,
        depth,
        registers,
        wider,
        gated: name.ends_with("plus"),
        joint,
    })
}

/// What the parts of a network are called.
struct Names {
    patches: &'static str,
    class: &'static str,
    positions: &'static str,
    /// Before a block's number.
    block: &'static str,
    /// Of a block: norm, projection to queries, keys and values, attention, projection, scale, sum; norm, dense layer, activation,
    /// dense layer, scale, sum.
    parts: [&'static str; 12],
    norm: &'static str,
    head: &'static str,
}

const TIMM: Names = Names {
    patches: "patch_embed.proj",
    class: "cls_token",
    positions: "pos_embed",
    block: "blocks.",
    parts: [
        "norm1",
        "attn.qkv",
        "attn",
        "attn.proj",
        "ls1",
        "add1",
        "norm2",
        "mlp.fc1",
        "mlp.act",
        "mlp.fc2",
        "ls2",
        "add2",
    ],
    norm: "norm",
    head: "head",
};

/// timm's names of DINOv3's layers; what turns queries and keys has the name of their biases there.
const DINOV3: Names = Names {
    parts: [
        "norm1",
        "attn.qkv",
        "attn.heads",
        "attn.proj",
        "gamma_1",
        "add1",
        "norm2",
        "mlp.fc1",
        "mlp.act",
        "mlp.fc2",
        "gamma_2",
        "add2",
    ],
    ..TIMM
};

const TORCHVISION: Names = Names {
    patches: "conv_proj",
    class: "class_token",
    positions: "encoder.pos_embedding",
    block: "encoder.layers.encoder_layer_",
    parts: [
        "ln_1",
        "self_attention.in_proj",
        "self_attention",
        "self_attention.out_proj",
        "scale_1",
        "add_1",
        "ln_2",
        "mlp.0",
        "mlp.1",
        "mlp.3",
        "scale_2",
        "add_2",
    ],
    norm: "encoder.ln",
    head: "heads.head",
};

impl Vit {
    fn names(&self) -> &'static Names {
        match self.style {
            Style::Torchvision => &TORCHVISION,
            Style::Timm | Style::Dinov2 | Style::Clip { .. } | Style::Siglip => &TIMM,
            Style::Dinov3 => &DINOV3,
        }
    }

    /// The layers that taps mean: the last features, early ones, and the last tokens.
    pub fn taps(&self) -> [&'static str; 3] {
        match self.style {
            Style::Torchvision => ["token", "encoder.layers.encoder_layer_2.last", "encoder.ln"],
            Style::Siglip => ["attn_pool.add", "blocks.2.last", "norm"],
            Style::Timm | Style::Dinov2 | Style::Dinov3 | Style::Clip { .. } => ["token", "blocks.2.last", "norm"],
        }
    }

    /// How pixels come before it.
    pub fn preprocess(&self) -> Preprocess {
        match self.style {
            Style::Clip { .. } => Preprocess::Clip,
            Style::Siglip => Preprocess::Tf,
            _ => Preprocess::Torch,
        }
    }

    /// Another way of preparing them, and whose weights of the same network want it (timm 1.0 and Hugging Face's `google/vit-*`: mean
    /// and deviation of one half).
    pub fn others(&self) -> Option<(Preprocess, &'static str)> {
        (self.style == Style::Timm).then_some((Preprocess::Tf, "AugReg's and Google's own"))
    }

    /// How its authors bring images to its size.
    pub fn resize(&self) -> Resize {
        match self.style {
            Style::Torchvision => Resize::crop(875),
            Style::Timm | Style::Dinov2 => Resize::crop(875).bicubic(),
            Style::Dinov3 | Style::Clip { .. } => Resize::WHOLE.bicubic(),
            Style::Siglip => Resize::STRETCH.bicubic(),
        }
    }

    fn is_clip(&self) -> bool {
        matches!(self.style, Style::Clip { .. })
    }

    fn norm(&self) -> Op {
        let larger = self.is_clip() || self.style == Style::Dinov3;
        Op::LayerNorm { eps: if larger { LARGER_EPS } else { EPS } }
    }

    fn curve(&self) -> Op {
        Op::Activation(match self.style {
            Style::Clip { quick: true } => Activation::QuickGelu,
            Style::Siglip => Activation::GeluTanh,
            _ => Activation::Gelu,
        })
    }

    /// Numbers between the dense layers of a block of `channels`.
    fn wide(&self, channels: usize) -> usize {
        channels * self.wider[0] / self.wider[1]
    }

    /// The network with `width` times the heads.
    ///
    /// # Errors
    /// The input is not cut into whole patches.
    pub fn graph(&self, arch: &str, width: f64, input: Shape, classes: usize) -> Result<Graph, String> {
        if !input[1].is_multiple_of(self.patch) {
            let (side, patch) = (input[1], self.patch);
            let near = (side / patch).max(1) * patch;
            return Err(format!(
                "{arch} cuts images into patches of {patch} pixels: {side} is no multiple of that; {near} and {} are",
                near + patch
            ));
        }
        let names = self.names();
        let heads = ((self.heads as f64 * width).round() as usize).max(1);
        let channels = heads * self.depth;
        let mut graph = Graph::new(arch, Framework::Torch, input);
        let patches = Op::conv(channels, [self.patch; 2], self.patch, [0; 4]);
        let patches = if self.is_clip() { patches } else { patches.biased(Activation::Linear) };
        graph.then("embedding", names.patches, patches);
        if self.style != Style::Siglip {
            graph.then("embedding", names.class, Op::Tokens { at: 0, count: 1 });
        }
        if self.style != Style::Dinov3 {
            graph.then("embedding", names.positions, Op::Positions);
        }
        if self.registers > 0 {
            let name = if self.style == Style::Dinov3 { "reg_token" } else { "register_tokens" };
            graph.then("embedding", name, Op::Tokens { at: 1, count: self.registers });
        }
        if self.is_clip() {
            graph.then("embedding", "norm_pre", self.norm());
        }
        for block in 0..self.blocks {
            self.block(&mut graph, &format!("{}{block}", names.block), heads);
        }
        graph.then("top", names.norm, self.norm());
        match self.style {
            Style::Siglip => self.pool(&mut graph, heads),
            _ => _ = graph.then("top", "token", Op::Token(0)),
        }
        graph.then("top", names.head, Op::Linear { out: classes, activation: Activation::Linear });
        Ok(graph)
    }

    /// Puts on top of its features what brings them to where texts are, with `width` times the numbers.
    ///
    /// # Errors
    /// The network has never seen texts.
    pub fn join(&self, graph: &mut Graph, width: f64) -> Result<(), String> {
        let joint = self.joint.ok_or_else(|| {
            let those: Vec<&str> = NAMES.iter().copied().filter(|name| name.starts_with("clip_")).collect();
            format!("{} has no '{EMBEDS}', where images and texts are compared: {} have", graph.arch, those.join(", "))
        })?;
        let out = ((joint as f64 * width).round() as usize).max(1);
        graph.then("top", PROJECTION, Op::Pointwise { out, bias: false });
        graph.then("top", EMBEDS, Op::UnitNorm);
        Ok(())
    }

    /// What a classifier is called.
    pub fn head(&self) -> &'static str {
        self.names().head
    }

    fn block(&self, graph: &mut Graph, block: &str, heads: usize) {
        let channels = heads * self.depth;
        let scaled = matches!(self.style, Style::Dinov2 | Style::Dinov3);
        let [norm, qkv, attention, project, scale, sum, then @ ..] = &self.names().parts;
        let mut push = |name: &str, op| graph.then(block, format!("{block}.{name}"), op);
        let from = push(norm, self.norm()) - 1;
        if self.style == Style::Dinov3 {
            push(qkv, Op::Pointwise { out: 3 * channels, bias: false });
            push("attn", Op::Rotary { heads, skip: 1 + self.registers, base: BASE });
        } else {
            push(qkv, Op::dense(3 * channels));
        }
        push(attention, Op::Attention { heads });
        let mut main = push(project, Op::dense(channels));
        if scaled {
            main = push(scale, Op::LayerScale { init: SCALE });
        }
        let from = graph.push(block, format!("{block}.{sum}"), Op::Add, &[main, from]);
        let [norm, wide, curve, narrow, scale, sum] = then;
        let mut push = |name: &str, op| graph.then(block, format!("{block}.{name}"), op);
        let normed = push(norm, self.norm());
        if self.gated {
            let gate = push(&format!("{wide}_g"), Op::dense(self.wide(channels)));
            let through = graph.push(block, format!("{block}.{wide}_x"), Op::dense(self.wide(channels)), &[normed]);
            graph.push(block, format!("{block}.{curve}"), Op::SwiGlu, &[gate, through]);
        } else {
            push(wide, Op::dense(self.wide(channels)));
            push(curve, self.curve());
        }
        let mut push = |name: &str, op| graph.then(block, format!("{block}.{name}"), op);
        let mut main = push(narrow, Op::dense(channels));
        if scaled {
            main = push(scale, Op::LayerScale { init: SCALE });
        }
        graph.push(block, format!("{block}.{sum}"), Op::Add, &[main, from]);
    }

    /// What SigLIP has in a class token's place: a learned token that asks all others once, behind them.
    fn pool(&self, graph: &mut Graph, heads: usize) {
        let channels = heads * self.depth;
        let tokens = graph.last();
        let mut push = |name: &str, op| graph.then("top", format!("attn_pool.{name}"), op);
        let keys = push("kv", Op::dense(2 * channels));
        graph.push("top", "attn_pool.latent", Op::Tokens { at: 0, count: 1 }, &[tokens]);
        let mut push = |name: &str, op| graph.then("top", format!("attn_pool.{name}"), op);
        push("token", Op::Token(0));
        let query = push("q", Op::dense(channels));
        graph.push("top", "attn_pool.heads", Op::AttentionPool { heads }, &[query, keys]);
        let mut push = |name: &str, op| graph.then("top", format!("attn_pool.{name}"), op);
        let from = push("proj", Op::dense(channels));
        push("norm", self.norm());
        push("mlp.fc1", Op::dense(self.wide(channels)));
        push("mlp.act", self.curve());
        let main = push("mlp.fc2", Op::dense(channels));
        graph.push("top", "attn_pool.add", Op::Add, &[main, from]);
    }
}
