//! What others call the layers of DINOv3: Hugging Face's transformers (5.24), and Meta's own files. Ours are timm's names (1.0).

use std::collections::HashMap;

use super::hub::{Packed, block};
use super::placing::Piece;
use crate::model::graph::{Graph, Op};

/// Before the names of a network that something stands on, of what is in no block and of blocks.
const PREFIXES: [[&str; 2]; 3] = [["", "layer."], ["", "model.layer."], ["dinov3_vit.", "dinov3_vit.layer."]];

/// Of no block, here, in transformers and in Meta's files.
const OUTSIDE: [(&str, [&str; 2]); 4] = [
    ("patch_embed.proj", ["embeddings.patch_embeddings", ""]),
    ("cls_token", ["embeddings.cls_token", ""]),
    ("reg_token", ["embeddings.register_tokens", "storage_tokens"]),
    ("norm", ["norm", ""]),
];

/// The same of the parts of a block. Where Meta's name is ours there is none.
const PARTS: [(&str, [&str; 2]); 9] = [
    ("norm1", ["norm1", ""]),
    ("attn.proj", ["attention.o_proj", ""]),
    ("gamma_1", ["layer_scale1.lambda1", "ls1.gamma"]),
    ("gamma_2", ["layer_scale2.lambda1", "ls2.gamma"]),
    ("mlp.fc1", ["mlp.up_proj", ""]),
    ("mlp.fc1_g", ["mlp.gate_proj", "mlp.w1"]),
    ("mlp.fc1_x", ["mlp.up_proj", "mlp.w2"]),
    ("mlp.fc2", ["mlp.down_proj", "mlp.w3"]),
    ("norm2", ["norm2", ""]),
];

fn is_there(graph: &Graph) -> bool {
    graph.arch.starts_with("dinov3_")
}

/// Their names of this network's layers, tokens and scales.
pub(super) fn names(graph: &Graph, names: &mut HashMap<String, usize>) {
    for (layer, found) in graph.layers.iter().enumerate().filter(|_| is_there(graph)) {
        let (number, part) = block(&found.name).unwrap_or(("", &found.name));
        let known = if number.is_empty() { &OUTSIDE[..] } else { &PARTS[..] };
        let Some((_, [hub, meta])) = known.iter().find(|(own, _)| *own == part) else { continue };
        for [outside, blocks] in PREFIXES {
            names.insert(
                if number.is_empty() { format!("{outside}{hub}") } else { format!("{blocks}{number}.{hub}") },
                layer,
            );
        }
        if !meta.is_empty() {
            names.insert(if number.is_empty() { (*meta).to_owned() } else { format!("blocks.{number}.{meta}") }, layer);
        }
    }
}

/// Their tensors of queries, keys and values: each by itself, and biases of all three in one, of which those of keys are zero.
pub(super) fn packed(graph: &Graph, packed: &mut HashMap<String, Vec<Packed>>) {
    for (layer, found) in graph.layers.iter().enumerate().filter(|_| is_there(graph)) {
        let Some((number, part)) = block(&found.name) else { continue };
        let mut add = |name: String, param, piece| {
            packed.entry(name).or_default().push(Packed { layer, param, piece });
        };
        for [_, blocks] in PREFIXES {
            let there = |letter: &str, param: &str| format!("{blocks}{number}.attention.{letter}_proj.{param}");
            match (part, &found.op) {
                ("attn.qkv", _) => {
                    for (third, letter) in ["q", "k", "v"].into_iter().enumerate() {
                        add(there(letter, "weight"), "weight", Piece::Third(third));
                    }
                }
                (_, Op::Rotary { .. }) => {
                    add(there("q", "bias"), "q_bias", Piece::Whole);
                    add(there("v", "bias"), "v_bias", Piece::Whole);
                }
                _ => {}
            }
        }
        if matches!(found.op, Op::Rotary { .. }) {
            for (param, at) in [("q_bias", 0), ("v_bias", 2)] {
                add(format!("blocks.{number}.attn.qkv.bias"), param, Piece::Rows([at, at + 1]));
            }
        }
    }
}

/// Why a tensor that has no place here is left out, if there is a reason.
pub(super) fn left_out(graph: &Graph, name: &str) -> Option<&'static str> {
    if graph.arch.starts_with("convnext_") && name.starts_with("norms.") {
        return Some("the last norm once more");
    }
    if !is_there(graph) {
        return None;
    }
    match name.rsplit('.').next() {
        Some("periods" | "inv_freq") => Some("the periods of positions, which follow from the network"),
        Some("bias_mask") => Some("which biases stay zero: those of keys"),
        Some("k_bias") => Some("biases of keys, which stay zero"),
        _ => None,
    }
}

/// What a file may lack all of, as timm's do: biases of queries and of values, which training left at zero.
pub(super) fn may_lack(graph: &Graph, layer: usize) -> bool {
    is_there(graph) && matches!(graph.layers[layer].op, Op::Rotary { .. })
}
