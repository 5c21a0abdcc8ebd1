//! What other frameworks, and older files, call the layers of a network.

use std::collections::HashMap;

use super::{clip, dinov3, hub, hub_maps, siglip};
use crate::model::convnext;
use crate::model::graph::{Framework, Graph, Op};

/// Other frameworks' names of this network's layers.
pub(super) fn aliases(graph: &Graph) -> HashMap<String, usize> {
    let mut names = HashMap::new();
    if graph.arch.starts_with("vgg1") {
        // torchvision counts convolution, ReLU and pooling one by one; timm calls the dense layers by other names.
        let mut number = 0;
        for (layer, found) in graph.layers.iter().enumerate() {
            match found.op {
                Op::Conv { .. } => {
                    names.insert(format!("features.{number}"), layer);
                    number += 2;
                }
                Op::Pool { .. } => number += 1,
                _ => {}
            }
        }
        let dense = [
            ("fc1", ["classifier.0", "pre_logits.fc1"]),
            ("fc2", ["classifier.3", "pre_logits.fc2"]),
            ("predictions", ["classifier.6", "head.fc"]),
        ];
        for (own, others) in dense {
            if let Some(layer) = graph.find(own) {
                names.extend(others.map(|other| (other.to_owned(), layer)));
            }
        }
    }
    if graph.arch.starts_with("mobilenet_v2_") {
        timm_mobilenet(graph, &mut names);
    }
    if graph.arch.starts_with("regnet_") {
        timm_regnet(graph, &mut names);
    }
    if graph.arch.starts_with("efficientnet_b") && graph.framework == Framework::Torch {
        timm_efficientnet(graph, &mut names);
    }
    if convnext::is_one(&graph.arch) {
        other_convnext(graph, &mut names);
    }
    if graph.arch.starts_with("vit_") {
        // The published files are older than the names.
        for (layer, found) in graph.layers.iter().enumerate() {
            for (own, older) in [(".mlp.0", ".mlp.linear_1"), (".mlp.3", ".mlp.linear_2")] {
                if let Some(base) = found.name.strip_suffix(own) {
                    names.insert(format!("{base}{older}"), layer);
                }
            }
        }
    }
    hub::names(graph, &mut names);
    hub_maps::names(graph, &mut names);
    clip::names(graph, &mut names);
    siglip::names(graph, &mut names);
    dinov3::names(graph, &mut names);
    if graph.arch.starts_with("densenet") && graph.framework == Framework::Torch {
        // The published files are older than the names: `norm.1` for `norm1`.
        for (layer, found) in graph.layers.iter().enumerate() {
            let Some((base, part)) = found.name.rsplit_once('.').filter(|(base, _)| base.contains("denselayer")) else {
                continue;
            };
            let (word, number) = part.split_at(part.len() - 1);
            names.insert(format!("{base}.{word}.{number}"), layer);
        }
    }
    names
}

/// What timm and the authors of ConvNeXt call its layers.
fn other_convnext(graph: &Graph, names: &mut HashMap<String, usize>) {
    const PARTS: [(&str, [&str; 2]); 6] = [
        ("block.0", ["conv_dw", "dwconv"]),
        ("block.2", ["norm", "norm"]),
        ("block.3", ["mlp.fc1", "pwconv1"]),
        ("block.grn", ["mlp.grn", "grn"]),
        ("block.5", ["mlp.fc2", "pwconv2"]),
        ("layer_scale", ["gamma", "gamma"]),
    ];
    for (layer, found) in graph.layers.iter().enumerate() {
        let mut add = |others: [String; 2]| names.extend(others.map(|other| (other, layer)));
        match found.name.as_str() {
            "classifier.0" => add(["head.norm".to_owned(), "norm".to_owned()]),
            "classifier.2" => add(["head.fc".to_owned(), "head".to_owned()]),
            name => {
                let mut words = name.strip_prefix("features.").unwrap_or_default().splitn(3, '.');
                let mut word = || words.next().unwrap_or_default();
                let (Ok(group), own, rest) = (word().parse::<usize>(), word(), word()) else { continue };
                match (group, PARTS.iter().find(|(part, _)| *part == rest)) {
                    (0, _) => add([format!("stem.{own}"), format!("downsample_layers.0.{own}")]),
                    (group, Some((_, [timm, theirs]))) => {
                        let stage = group / 2;
                        add([format!("stages.{stage}.blocks.{own}.{timm}"), format!("stages.{stage}.{own}.{theirs}")]);
                    }
                    (group, None) if group % 2 == 0 => add([
                        format!("stages.{}.downsample.{own}", group / 2),
                        format!("downsample_layers.{}.{own}", group / 2),
                    ]),
                    _ => {}
                }
            }
        }
    }
}

/// What a tensor is called in PyTorch's files: behind the module's name, or as the module itself where it is no module there.
pub(super) fn torch_name(op: &Op, layer: &str, param: &str) -> String {
    match op {
        Op::Tokens { .. } | Op::Positions => layer.to_owned(),
        Op::LayerScale { .. } if [".layer_scale", ".gamma_1", ".gamma_2"].iter().any(|own| layer.ends_with(own)) => {
            layer.to_owned()
        }
        Op::LayerScale { .. } => format!("{layer}.gamma"),
        // MultiheadAttention has no module for it.
        Op::Pointwise { .. } if layer.ends_with(".in_proj") => format!("{layer}_{param}"),
        _ => format!("{layer}.{param}"),
    }
}

/// Parts of a block, as timm calls them and under our names.
type Parts = &'static [(&'static str, &'static str)];

/// timm's names of a stem, of stages of blocks, and of a last convolution: what it calls a block, what we do, and the parts.
fn timm(graph: &Graph, names: &mut HashMap<String, usize>, last: usize, blocks: Vec<(String, String, Parts)>) {
    let mut add = |other: String, own: String| {
        if let Some(layer) = graph.find(&own) {
            names.insert(other, layer);
        }
    };
    let (head, norm) = (format!("features.{last}.0"), format!("features.{last}.1"));
    for (other, own) in [
        ("conv_stem", "features.0.0"),
        ("bn1", "features.0.1"),
        ("conv_head", &head),
        ("bn2", &norm),
        ("classifier", "classifier.1"),
    ] {
        add(other.to_owned(), own.to_owned());
    }
    for (block, own, parts) in blocks {
        for (other, part) in parts {
            add(format!("{block}.{other}"), format!("{own}.{part}"));
        }
    }
}

/// The blocks of EfficientNet; those of the first stage do not expand.
fn timm_efficientnet(graph: &Graph, names: &mut HashMap<String, usize>) {
    const FIRST: Parts = &[
        ("conv_dw", "0.0"),
        ("bn1", "0.1"),
        ("se.conv_reduce", "1.fc1"),
        ("se.conv_expand", "1.fc2"),
        ("conv_pw", "2.0"),
        ("bn2", "2.1"),
    ];
    const OTHER: Parts = &[
        ("conv_pw", "0.0"),
        ("bn1", "0.1"),
        ("conv_dw", "1.0"),
        ("bn2", "1.1"),
        ("se.conv_reduce", "2.fc1"),
        ("se.conv_expand", "2.fc2"),
        ("conv_pwl", "3.0"),
        ("bn3", "3.1"),
    ];
    let mut blocks = Vec::new();
    for stage in 0..7 {
        let own = |repeat: usize| format!("features.{}.{repeat}.block", stage + 1);
        for repeat in (0..).take_while(|repeat| graph.find(&format!("{}.0.0", own(*repeat))).is_some()) {
            let parts = if stage == 0 { FIRST } else { OTHER };
            blocks.push((format!("blocks.{stage}.{repeat}"), own(repeat), parts));
        }
    }
    timm(graph, names, 8, blocks);
}

/// The blocks of MobileNet V2; the first does not expand.
fn timm_mobilenet(graph: &Graph, names: &mut HashMap<String, usize>) {
    const FIRST: Parts = &[("conv_dw", "0.0"), ("bn1", "0.1"), ("conv_pw", "1"), ("bn2", "2")];
    const OTHER: Parts =
        &[("conv_pw", "0.0"), ("bn1", "0.1"), ("conv_dw", "1.0"), ("bn2", "1.1"), ("conv_pwl", "2"), ("bn3", "3")];
    let mut blocks = Vec::new();
    for (stage, repeats) in [1, 2, 3, 4, 3, 3, 1].into_iter().enumerate() {
        for repeat in 0..repeats {
            let own = format!("features.{}.conv", blocks.len() + 1);
            let parts = if blocks.is_empty() { FIRST } else { OTHER };
            blocks.push((format!("blocks.{stage}.{repeat}"), own, parts));
        }
    }
    timm(graph, names, 18, blocks);
}

/// timm's names of RegNets.
fn timm_regnet(graph: &Graph, names: &mut HashMap<String, usize>) {
    const PARTS: [(&str, &str); 10] = [
        ("proj.0", "downsample.conv"),
        ("proj.1", "downsample.bn"),
        ("f.a.0", "conv1.conv"),
        ("f.a.1", "conv1.bn"),
        ("f.b.0", "conv2.conv"),
        ("f.b.1", "conv2.bn"),
        ("f.se.fc1", "se.fc1"),
        ("f.se.fc2", "se.fc2"),
        ("f.c.0", "conv3.conv"),
        ("f.c.1", "conv3.bn"),
    ];
    let in_block = |name: &str| {
        // trunk_output.block1.block1-0.f.a.0
        let (stage, part) = name.strip_prefix("trunk_output.block")?.split_once(".block")?.1.split_once('-')?;
        let (block, part) = part.split_once('.')?;
        let (_, other) = PARTS.iter().find(|(own, _)| *own == part)?;
        Some(format!("s{stage}.b{}.{other}", block.parse::<usize>().ok()? + 1))
    };
    for (layer, found) in graph.layers.iter().enumerate() {
        let other = match found.name.as_str() {
            "stem.0" => Some("stem.conv".to_owned()),
            "stem.1" => Some("stem.bn".to_owned()),
            "fc" => Some("head.fc".to_owned()),
            name => in_block(name),
        };
        names.extend(other.map(|other| (other, layer)));
    }
}
