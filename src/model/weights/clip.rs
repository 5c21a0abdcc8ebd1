//! What other files call the layers of CLIP's side of images: open_clip's (3.3), which has OpenAI's names, and those of Hugging
//! Face's transformers (5.24). And what such files hold beside it: the side of texts, and the way from one to the other.

use std::collections::HashMap;

use super::hub::{Packed, block};
use super::placing::Piece;
use crate::model::graph::Graph;
use crate::model::vit::PROJECTION;

/// Ours, open_clip's and Hugging Face's, of what is in no block.
const OUTSIDE: [(&str, [&str; 2]); 5] = [
    ("patch_embed.proj", ["visual.conv1", "vision_model.embeddings.patch_embedding"]),
    ("cls_token", ["visual.class_embedding", "vision_model.embeddings.class_embedding"]),
    ("pos_embed", ["visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"]),
    ("norm_pre", ["visual.ln_pre", "vision_model.pre_layrnorm"]),
    ("norm", ["visual.ln_post", "vision_model.post_layernorm"]),
];

/// OpenAI's name of the way from features to where texts are.
const TURNED: &str = "visual.proj";

/// Before the number of a block.
const BLOCKS: [&str; 2] = ["visual.transformer.resblocks.", "vision_model.encoder.layers."];

/// The same of the parts of a block.
const PARTS: [(&str, [&str; 2]); 5] = [
    ("norm1", ["ln_1", "layer_norm1"]),
    ("attn.proj", ["attn.out_proj", "self_attn.out_proj"]),
    ("norm2", ["ln_2", "layer_norm2"]),
    ("mlp.fc1", ["mlp.c_fc", "mlp.fc1"]),
    ("mlp.fc2", ["mlp.c_proj", "mlp.fc2"]),
];

fn is_clip(graph: &Graph) -> bool {
    graph.arch.starts_with("clip_")
}

/// Their names of this network's layers, and of its token and positions.
pub(super) fn names(graph: &Graph, names: &mut HashMap<String, usize>) {
    for (layer, found) in graph.layers.iter().enumerate().filter(|_| is_clip(graph)) {
        match block(&found.name) {
            None => {
                let others = OUTSIDE.iter().find(|(own, _)| *own == found.name).map(|(_, others)| *others);
                names.extend(others.into_iter().flatten().map(|other| (other.to_owned(), layer)));
            }
            Some((number, part)) => {
                let others = PARTS.iter().find(|(own, _)| *own == part).map(|(_, others)| *others);
                let others = others.into_iter().flat_map(|others| BLOCKS.into_iter().zip(others));
                names.extend(others.map(|(block, other)| (format!("{block}{number}.{other}"), layer)));
            }
        }
    }
}

/// Their tensors of queries, keys and values: all of them in one, or each by itself. OpenAI's way to where texts are is a matrix
/// from the left.
pub(super) fn packed(graph: &Graph, packed: &mut HashMap<String, Vec<Packed>>) {
    if let Some(layer) = graph.find(PROJECTION).filter(|_| is_clip(graph)) {
        packed.insert(TURNED.to_owned(), vec![Packed { layer, param: "weight", piece: Piece::Turned }]);
    }
    for (layer, found) in graph.layers.iter().enumerate().filter(|_| is_clip(graph)) {
        let Some((number, "attn.qkv")) = block(&found.name) else { continue };
        for param in ["weight", "bias"] {
            let mut add = |name: String, piece| packed.entry(name).or_default().push(Packed { layer, param, piece });
            add(format!("{}{number}.attn.in_proj_{param}", BLOCKS[0]), Piece::Whole);
            for (third, letter) in ["q", "k", "v"].into_iter().enumerate() {
                add(format!("{}{number}.self_attn.{letter}_proj.{param}", BLOCKS[1]), Piece::Third(third));
            }
        }
    }
}

/// How the names of the side of texts begin: Hugging Face's, and open_clip's, where only the side of images has a prefix.
const TEXTS: [&str; 10] = [
    "text_model.",
    "text_projection",
    "text.",
    "transformer.",
    "token_embedding.",
    "positional_embedding",
    "ln_final.",
    "logit_scale",
    "logit_bias",
    "attn_mask",
];

/// Why a tensor that has no place here is left out, if there is a reason.
pub(super) fn left_out(graph: &Graph, name: &str) -> Option<&'static str> {
    if !is_clip(graph) && !graph.arch.starts_with("siglip_") {
        return None;
    }
    match name {
        "visual_projection.weight" | TURNED if graph.find(PROJECTION).is_none() => {
            Some("the way from features to where texts are: tap = \"image_embeds\" takes it")
        }
        "vision_model.embeddings.position_ids" => Some("a counter"),
        _ if TEXTS.iter().any(|prefix| name.starts_with(prefix)) => Some("of the side of texts"),
        _ => None,
    }
}
