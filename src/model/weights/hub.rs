//! What Hugging Face's transformers (5.24) call the layers of vision transformers in their files: ViT, DINOv2 with registers and
//! without. Queries, keys and values are three layers there, and one here. (ViT adds 1e-12 to variances there; 1e-6, as here, is
//! what its numbers were trained with.)

use std::collections::HashMap;

use super::placing::Piece;
use crate::model::graph::{Graph, Op};

/// Before the names of a network that something stands on.
const PREFIXES: [&str; 4] = ["", "vit.", "dinov2.", "dinov2_with_registers."];

/// Of a block, here and there: ViT's and DINOv2's names.
const PARTS: [(&str, [&str; 2]); 7] = [
    ("norm1", ["layernorm_before", "norm1"]),
    ("attn.proj", ["attention.output.dense", "attention.output.dense"]),
    ("norm2", ["layernorm_after", "norm2"]),
    ("mlp.fc1", ["intermediate.dense", "mlp.fc1"]),
    ("mlp.fc2", ["output.dense", "mlp.fc2"]),
    ("ls1", ["layer_scale1.lambda1", "layer_scale1.lambda1"]),
    ("ls2", ["layer_scale2.lambda1", "layer_scale2.lambda1"]),
];

/// Which layers have names there.
fn is_there(graph: &Graph) -> bool {
    graph.find("cls_token").is_some_and(|layer| matches!(graph.layers[layer].op, Op::Tokens { .. }))
}

/// The number of a block and the part of it that a layer is.
pub(super) fn block(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("blocks.")?.split_once('.')
}

/// Their names of this network's layers, and of its tokens, positions and scales.
pub(super) fn names(graph: &Graph, names: &mut HashMap<String, usize>) {
    if !is_there(graph) {
        return;
    }
    names.extend(graph.find("head").map(|layer| ("classifier".to_owned(), layer)));
    // timm's name of DINOv2's registers.
    names.extend(graph.find("register_tokens").map(|layer| ("reg_token".to_owned(), layer)));
    for (layer, found) in graph.layers.iter().enumerate() {
        let others = match (found.name.as_str(), block(&found.name)) {
            ("patch_embed.proj", _) => vec!["embeddings.patch_embeddings.projection".to_owned()],
            ("cls_token", _) => vec!["embeddings.cls_token".to_owned()],
            ("pos_embed", _) => vec!["embeddings.position_embeddings".to_owned()],
            ("register_tokens", _) => vec!["embeddings.register_tokens".to_owned()],
            ("norm", _) => vec!["layernorm".to_owned()],
            (_, Some((number, part))) => {
                let others = PARTS.iter().find(|(own, _)| *own == part).map(|(_, others)| *others).unwrap_or_default();
                others.into_iter().filter(|o| !o.is_empty()).map(|o| format!("encoder.layer.{number}.{o}")).collect()
            }
            _ => continue,
        };
        for other in others {
            names.extend(PREFIXES.iter().map(|prefix| (format!("{prefix}{other}"), layer)));
        }
    }
}

/// A tensor of queries, keys and values under a name that is no layer's.
#[derive(Clone, Copy)]
pub(super) struct Packed {
    pub layer: usize,
    pub param: &'static str,
    pub piece: Piece,
}

/// Their tensors that are a third of one of ours.
pub(super) fn packed(graph: &Graph, thirds: &mut HashMap<String, Vec<Packed>>) {
    let packed = graph.layers.iter().enumerate().filter(|_| is_there(graph));
    for (layer, found) in packed {
        let Some((number, "attn.qkv")) = block(&found.name) else { continue };
        for (third, word) in ["query", "key", "value"].into_iter().enumerate() {
            for (prefix, param) in PREFIXES.iter().flat_map(|prefix| ["weight", "bias"].map(|param| (prefix, param))) {
                let name = format!("{prefix}encoder.layer.{number}.attention.attention.{word}.{param}");
                thirds.entry(name).or_default().push(Packed { layer, param, piece: Piece::Third(third) });
            }
        }
    }
}

/// Why a tensor that has no place here is left out, if there is a reason.
pub(super) fn left_out(name: &str) -> Option<&'static str> {
    let own = PREFIXES.iter().filter_map(|prefix| name.strip_prefix(prefix)).min_by_key(|name| name.len())?;
    match own {
        "mask_token" | "embeddings.mask_token" => Some("what hides a patch, which only pretraining uses"),
        "pooler.dense.weight" | "pooler.dense.bias" => Some("a layer behind the features, which transfers leave out"),
        _ => None,
    }
}
