//! What Hugging Face's transformers (5.24) call the layers of ResNets and ConvNeXts in their files, DINOv3's ConvNeXts among them.
//! Ours are torchvision's.

use std::collections::HashMap;

use crate::model::convnext;
use crate::model::graph::{Framework, Graph};

/// Of a ConvNeXt's block, here, in ConvNeXt's files and in DINOv3's.
const PARTS: [(&str, [&str; 2]); 6] = [
    ("block.0", ["dwconv", "depthwise_conv"]),
    ("block.2", ["layernorm", "layer_norm"]),
    ("block.3", ["pwconv1", "pointwise_conv1"]),
    ("block.grn", ["grn", "grn"]),
    ("block.5", ["pwconv2", "pointwise_conv2"]),
    ("layer_scale", ["layer_scale_parameter", "gamma"]),
];

/// Their names of this network's layers.
pub(super) fn names(graph: &Graph, names: &mut HashMap<String, usize>) {
    let convnext = convnext::is_one(&graph.arch);
    let resnet = graph.arch.starts_with("resnet") && graph.framework == Framework::Torch;
    for (layer, found) in graph.layers.iter().enumerate().filter(|_| convnext || resnet) {
        let others = if convnext { of_convnext(&found.name) } else { of_resnet(&found.name) };
        names.extend(others.into_iter().flatten().map(|other| (other, layer)));
    }
}

/// `features.1.0.block.3`: group, number and part.
fn of_convnext(own: &str) -> Option<Vec<String>> {
    match own {
        "features.0.0" => return both("embeddings.patch_embeddings", "stages.0.downsample_layers.0"),
        "features.0.1" => return both("embeddings.layernorm", "stages.0.downsample_layers.1"),
        "classifier.0" => return both("layernorm", "layer_norm"),
        "classifier.2" => return Some(vec!["classifier".to_owned()]),
        _ => {}
    }
    let (group, rest) = own.strip_prefix("features.")?.split_once('.')?;
    let group: usize = group.parse().ok()?;
    if group.is_multiple_of(2) {
        let stage = group / 2;
        let theirs = format!("encoder.stages.{stage}.downsampling_layer.{rest}");
        return both(&theirs, &format!("stages.{stage}.downsample_layers.{rest}"));
    }
    let (number, part) = rest.split_once('.')?;
    let (_, [theirs, dinov3]) = PARTS.iter().find(|(own, _)| *own == part)?;
    let block = format!("stages.{}.layers.{number}", group / 2);
    both(&format!("encoder.{block}.{theirs}"), &format!("{block}.{dinov3}"))
}

/// ConvNeXt's name, below a classifier and alone, and DINOv3's.
fn both(convnext: &str, dinov3: &str) -> Option<Vec<String>> {
    let below = ["convnext.", "convnextv2."].map(|prefix| format!("{prefix}{convnext}"));
    Some(below.into_iter().chain([convnext.to_owned(), dinov3.to_owned()]).collect())
}

/// `layer1.0.conv2`: stage, number and part.
fn of_resnet(own: &str) -> Option<Vec<String>> {
    let named = |name: String| Some(vec![format!("resnet.{name}"), name]);
    let kind = |word: &str| match word {
        "conv" | "0" => Some("convolution"),
        "bn" | "1" => Some("normalization"),
        _ => None,
    };
    match own {
        "conv1" => return named("embedder.embedder.convolution".to_owned()),
        "bn1" => return named("embedder.embedder.normalization".to_owned()),
        "fc" => return Some(vec!["classifier.1".to_owned()]),
        _ => {}
    }
    let (stage, rest) = own.strip_prefix("layer")?.split_once('.')?;
    let (number, part) = rest.split_once('.')?;
    let block = format!("encoder.stages.{}.layers.{number}", stage.parse::<usize>().ok()?.checked_sub(1)?);
    if let Some(which) = part.strip_prefix("downsample.") {
        return named(format!("{block}.shortcut.{}", kind(which)?));
    }
    let (word, place) = part.split_at(part.len().checked_sub(1)?);
    named(format!("{block}.layer.{}.{}", place.parse::<usize>().ok()?.checked_sub(1)?, kind(word)?))
}
