//! What timm, Swin's authors and Hugging Face's transformers (5.24) call the layers of Swin transformers in their files. Ours are
//! torchvision's. In transformers queries, keys and values are three layers, and one here.

use std::collections::HashMap;

use super::hub::Packed;
use super::placing::Piece;
use crate::model::graph::Graph;
use crate::model::swin::is_one;

/// Of a block here, at timm's and the authors', in Hugging Face's files and in its modules since.
const PARTS: [(&str, [&str; 3]); 6] = [
    ("norm1", ["norm1", "layernorm_before", "layernorm_before"]),
    ("attn", ["attn", "attention.self", "attention.relative_position_bias"]),
    ("attn.proj", ["attn.proj", "attention.output.dense", "attention.o_proj"]),
    ("norm2", ["norm2", "layernorm_after", "layernorm_after"]),
    ("mlp.0", ["mlp.fc1", "intermediate.dense", "mlp.fc1"]),
    ("mlp.3", ["mlp.fc2", "output.dense", "mlp.fc2"]),
];

/// Before Hugging Face's names of a network alone, and of one that something stands on.
const PREFIXES: [&str; 2] = ["", "swin."];

/// What a layer is: a part of a block, or of what merges patches before a stage.
enum Part<'a> {
    OfBlock { stage: usize, block: &'a str, part: &'a str },
    OfMerging { stage: usize, part: &'a str },
}

impl<'a> Part<'a> {
    /// `features.3.1.mlp.0`: group, number and part.
    fn of(own: &'a str) -> Option<Self> {
        let (group, rest) = own.strip_prefix("features.")?.split_once('.')?;
        match group.parse::<usize>().ok()? {
            0 => None,
            group if group % 2 == 0 => Some(Self::OfMerging { stage: group / 2, part: rest }),
            group => {
                let (block, part) = rest.split_once('.')?;
                Some(Self::OfBlock { stage: group / 2, block, part })
            }
        }
    }
}

/// Their names of this network's layers, in a file with these tensors: timm merges patches at the beginning of a stage, all others at
/// the end of the one before, under one name. The first stage has nothing at its beginning.
pub(super) fn names<'a>(graph: &Graph, mut tensors: impl Iterator<Item = &'a str>, names: &mut HashMap<String, usize>) {
    if !is_one(&graph.arch) {
        return;
    }
    let at_end = tensors.any(|name| name.starts_with("layers.0.downsample."));
    for (layer, found) in graph.layers.iter().enumerate() {
        let mut add = |name: String| names.insert(name, layer);
        let mut hub = Vec::new();
        match (found.name.as_str(), Part::of(&found.name)) {
            ("features.0.0", _) => {
                add("patch_embed.proj".to_owned());
                hub.push("embeddings.patch_embeddings.projection".to_owned());
            }
            ("features.0.2", _) => {
                add("patch_embed.norm".to_owned());
                hub.push("embeddings.norm".to_owned());
            }
            ("norm", _) => hub.push("layernorm".to_owned()),
            ("head", _) => {
                add("head.fc".to_owned());
                add("classifier".to_owned());
            }
            (_, Some(Part::OfMerging { stage, part })) => {
                add(format!("layers.{}.downsample.{part}", if at_end { stage - 1 } else { stage }));
                hub.push(format!("encoder.layers.{}.downsample.{part}", stage - 1));
            }
            (_, Some(Part::OfBlock { stage, block, part: "attn.qkv" })) => {
                add(format!("layers.{stage}.blocks.{block}.attn.qkv"));
            }
            (_, Some(Part::OfBlock { stage, block, part })) => {
                let Some((_, [theirs, files, modules])) = PARTS.iter().find(|(own, _)| *own == part) else { continue };
                add(format!("layers.{stage}.blocks.{block}.{theirs}"));
                hub.extend([files, modules].map(|name| format!("encoder.layers.{stage}.blocks.{block}.{name}")));
            }
            _ => {}
        }
        for name in hub {
            names.extend(PREFIXES.map(|prefix| (format!("{prefix}{name}"), layer)));
        }
    }
}

/// Their tensors that are a third of one of ours.
pub(super) fn packed(graph: &Graph, thirds: &mut HashMap<String, Vec<Packed>>) {
    const WORDS: [[&str; 2]; 3] = [["self.query", "q_proj"], ["self.key", "k_proj"], ["self.value", "v_proj"]];
    for (layer, found) in graph.layers.iter().enumerate().filter(|_| is_one(&graph.arch)) {
        let Some(Part::OfBlock { stage, block, part: "attn.qkv" }) = Part::of(&found.name) else { continue };
        for (third, words) in WORDS.into_iter().enumerate() {
            for (prefix, word) in PREFIXES.iter().flat_map(|prefix| words.map(|word| (prefix, word))) {
                for param in ["weight", "bias"] {
                    let name = format!("{prefix}encoder.layers.{stage}.blocks.{block}.attention.{word}.{param}");
                    thirds.entry(name).or_default().push(Packed { layer, param, piece: Piece::Third(third) });
                }
            }
        }
    }
}

/// Why a tensor that has no place here is left out, if there is a reason.
pub(super) fn left_out(graph: &Graph, name: &str) -> Option<&'static str> {
    match name.rsplit('.').next().filter(|_| is_one(&graph.arch))? {
        "relative_position_index" => Some("how pixels of a window lie to each other, which follows from its side"),
        "attn_mask" => Some("which pixels of windows do not see each other, which follows from the side of images"),
        "mask_token" => Some("what hides a patch, which only pretraining uses"),
        _ => None,
    }
}
