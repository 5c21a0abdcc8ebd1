//! What others call the layers of SigLIP's side of images: Hugging Face's transformers (5.24), whose names begin as CLIP's do, and
//! open_clip (3.3), which has timm's network in one of its own. Ours are timm's names.

use std::collections::HashMap;

use super::hub::{Packed, block};
use super::placing::Piece;
use crate::model::graph::Graph;

/// Ours and transformers', of what is in no block.
const OUTSIDE: [(&str, &str); 8] = [
    ("patch_embed.proj", "embeddings.patch_embedding"),
    ("pos_embed", "embeddings.position_embedding.weight"),
    ("norm", "post_layernorm"),
    ("attn_pool.latent", "head.probe"),
    ("attn_pool.proj", "head.attention.out_proj"),
    ("attn_pool.norm", "head.layernorm"),
    ("attn_pool.mlp.fc1", "head.mlp.fc1"),
    ("attn_pool.mlp.fc2", "head.mlp.fc2"),
];

/// The same of the parts of a block.
const PARTS: [(&str, &str); 5] = [
    ("norm1", "layer_norm1"),
    ("attn.proj", "self_attn.out_proj"),
    ("norm2", "layer_norm2"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
];

/// Before the names of transformers: of both sides in one file, and of this one alone.
const PREFIXES: [&str; 2] = ["vision_model.", ""];

/// Before all names of open_clip.
const TRUNK: &str = "visual.trunk.";

fn is_there(graph: &Graph) -> bool {
    graph.arch.starts_with("siglip_")
}

fn theirs(own: &str) -> Option<String> {
    let known = |names: &[(&str, &'static str)], own: &str| {
        names.iter().find(|(name, _)| *name == own).map(|(_, other)| *other)
    };
    match block(own) {
        Some((number, part)) => Some(format!("encoder.layers.{number}.{}", known(&PARTS, part)?)),
        None => known(&OUTSIDE, own).map(str::to_owned),
    }
}

/// Their names of this network's layers, token and positions.
pub(super) fn names(graph: &Graph, names: &mut HashMap<String, usize>) {
    for (layer, found) in graph.layers.iter().enumerate().filter(|_| is_there(graph)) {
        names.insert(format!("{TRUNK}{}", found.name), layer);
        if let Some(other) = theirs(&found.name) {
            names.extend(PREFIXES.map(|prefix| (format!("{prefix}{other}"), layer)));
        }
    }
}

/// Their tensors of queries, keys and values: each by itself in blocks, all in one where a token asks once.
pub(super) fn packed(graph: &Graph, packed: &mut HashMap<String, Vec<Packed>>) {
    for (layer, found) in graph.layers.iter().enumerate().filter(|_| is_there(graph)) {
        for (prefix, param) in PREFIXES.iter().flat_map(|prefix| ["weight", "bias"].map(|param| (prefix, param))) {
            let mut add = |name: String, piece| packed.entry(name).or_default().push(Packed { layer, param, piece });
            let asks = format!("{prefix}head.attention.in_proj_{param}");
            match (found.name.as_str(), block(&found.name)) {
                ("attn_pool.q", _) => add(asks, Piece::Rows([0, 1])),
                ("attn_pool.kv", _) => add(asks, Piece::Rows([1, 3])),
                (_, Some((number, "attn.qkv"))) => {
                    for (third, letter) in ["q", "k", "v"].into_iter().enumerate() {
                        let name = format!("{prefix}encoder.layers.{number}.self_attn.{letter}_proj.{param}");
                        add(name, Piece::Third(third));
                    }
                }
                _ => {}
            }
        }
    }
}
