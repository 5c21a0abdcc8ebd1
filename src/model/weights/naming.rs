//! Which tensor of a file is which parameter of a network.
//! Whatever the framework: every parameter below the head must be found, and every tensor of the file must be accounted
//! for, by name or by order, and always by shape.

use std::collections::{BTreeMap, HashMap};

use super::aliases::{aliases, torch_name};
use super::file::{Format, Kind, WeightFile};
use super::hub::Packed;
use super::keras::class_and_number;
use super::placing::{Found, Piece, Placed, place};
use super::{clip, dinov3, hub, siglip, swin};
use crate::model::graph::{Framework, Graph, Op, POINTWISE, Param, RELATIVE};
use crate::model::summary::class;

/// A file laid beside a network.
#[derive(Clone, Debug, Default)]
pub struct Match {
    pub placed: Vec<Placed>,
    /// Tensors that have no place, with why that is fine.
    pub left_out: Vec<(String, String)>,
    /// Parameters of the network that the file lacks.
    pub missing: Vec<(usize, String)>,
    /// Tensors that should have a place and have none.
    pub unused: Vec<String>,
    /// Layer, parameter, the network's shape and the file's.
    pub differing: Vec<(usize, String, Vec<usize>, Vec<usize>)>,
    /// Parameters that the file lacks and that are zero then: layer, name and shape.
    pub zero: Vec<(usize, &'static str, Vec<usize>)>,
    /// How the tensors were found, in words.
    pub how: &'static str,
}

/// Lays a file beside a network.
pub fn matched(file: &WeightFile, graph: &Graph) -> Match {
    let (found, mut result) = match file.format {
        Format::KerasH5 => by_keras_layers(file, graph),
        Format::KerasV3 => by_class(file, graph),
        Format::Safetensors | Format::Torch => by_name(file, graph),
    };
    let mut wanted: BTreeMap<(usize, &'static str), Vec<usize>> = BTreeMap::new();
    for layer in 0..graph.layers.len() {
        for param in graph.params(layer) {
            wanted.insert((layer, param.name), param.shape);
        }
    }
    let mut thirds: HashMap<(usize, &str), [bool; 3]> = HashMap::new();
    for found in found {
        let (layer, param) = (found.layer, found.param);
        let tensor = &file.stored[found.stored];
        let seen = thirds.entry((layer, param)).or_default();
        let again = match found.piece {
            Piece::Third(third) => Some(std::mem::replace(&mut seen[third], true)),
            Piece::Whole | Piece::Rows(_) | Piece::Turned => None,
        };
        let shape = match again {
            // All three take the place of one.
            Some(false) if *seen != [true; 3] => wanted.get(&(layer, param)).cloned(),
            Some(true) => None,
            _ => wanted.remove(&(layer, param)),
        };
        let Some(shape) = shape else {
            result.unused.push(tensor.name.clone());
            continue;
        };
        let name = format!("{}.{param}", graph.layers[layer].name);
        match place(graph, &found, &tensor.shape, &shape) {
            Some(placed) if !matches!(tensor.kind, Kind::Other(_)) => result.placed.push(placed),
            _ => result.differing.push((layer, name, shape, tensor.shape.clone())),
        }
    }
    let lacks = |layer: &usize| dinov3::may_lack(graph, *layer);
    let able = (0..graph.layers.len()).filter(lacks).map(|layer| graph.params(layer).len()).sum::<usize>();
    let zero: Vec<_> = wanted.keys().filter(|(layer, _)| lacks(layer)).copied().collect();
    if zero.len() == able {
        result.zero = zero.into_iter().filter_map(|key| Some((key.0, key.1, wanted.remove(&key)?))).collect();
    }
    result.missing =
        wanted.keys().map(|(layer, name)| (*layer, format!("{}.{name}", graph.layers[*layer].name))).collect();
    result
}

fn owning(graph: &Graph) -> Vec<usize> {
    (0..graph.layers.len()).filter(|layer| !graph.params(*layer).is_empty()).collect()
}

/// Keras' own rule: layers with weights, in order. Names decide where all of them are the network's and none is one that
/// Keras gave by itself: those are counted over a whole session, and mean another layer in the next.
fn by_keras_layers(file: &WeightFile, graph: &Graph) -> (Vec<Found>, Match) {
    let automatic = |name: &str| {
        let class = class_and_number(name).0;
        matches!(class.as_str(), "conv2d" | "batch_normalization" | "depthwise_conv2d" | "separable_conv2d" | "dense")
    };
    let given = file.groups.iter().all(|group| !automatic(&group.name));
    let named: Option<Vec<usize>> = file.groups.iter().map(|group| graph.find(&group.name)).collect();
    match named.filter(|_| given) {
        Some(layers) => pairs(file, graph, &layers, "by layer name"),
        None => pairs(file, graph, &owning(graph), "by the order of the layers"),
    }
}

/// The n-th layer of a class in the file is the n-th of that class in the network.
fn by_class(file: &WeightFile, graph: &Graph) -> (Vec<Found>, Match) {
    let mut of_class: HashMap<String, Vec<usize>> = HashMap::new();
    for layer in 0..graph.layers.len() {
        of_class.entry(snake(class(graph, layer))).or_default().push(layer);
    }
    let place = |name: &str| {
        let (class, number) = class_and_number(name);
        of_class.get(&class).and_then(|layers| layers.get(number)).copied().unwrap_or(usize::MAX)
    };
    let layers: Vec<usize> = file.groups.iter().map(|group| place(&group.name)).collect();
    pairs(file, graph, &layers, "by class and order")
}

fn pairs(file: &WeightFile, graph: &Graph, layers: &[usize], how: &'static str) -> (Vec<Found>, Match) {
    let mut found = Vec::new();
    let mut result = Match { how, ..Match::default() };
    for (at, group) in file.groups.iter().enumerate() {
        let layer = layers.get(at).copied().filter(|layer| *layer < graph.layers.len());
        let params = layer.map_or_else(Vec::new, |layer| graph.params(layer));
        for (place, stored) in group.tensors.iter().enumerate() {
            let name = &file.stored[*stored].name;
            if layer.is_some_and(|layer| is_counter(graph, layer, name, place)) {
                result.left_out.push((name.clone(), "a counter".to_owned()));
                continue;
            }
            let leaf = leaf(name.rsplit(['/', '.']).next().unwrap_or(name).trim_end_matches(":0"));
            let param = leaf.map(|(param, _)| param).or_else(|| params.get(place).map(|param| param.name));
            match (layer, param) {
                (Some(layer), Some(param)) => {
                    let keras = Framework::Keras;
                    found.push(Found { stored: *stored, layer, param, axes: keras, order: keras, piece: Piece::Whole })
                }
                _ => result.unused.push(name.clone()),
            }
        }
    }
    for name in &file.beside {
        result.left_out.push((name.clone(), "no weight of a layer".to_owned()));
    }
    (found, result)
}

/// Whether a tensor is the number of pixels that Keras' Normalization has seen: `count`, or the third of its variables.
fn is_counter(graph: &Graph, layer: usize, name: &str, place: usize) -> bool {
    let last = name.rsplit(['/', '.']).next().unwrap_or(name).trim_end_matches(":0");
    matches!(graph.layers[layer].op, Op::Normalize) && (last == "count" || last == "2" && place == 2)
}

/// `Conv2D` as Keras' `conv2d`, `BatchNormalization` as `batch_normalization`.
fn snake(class: &str) -> String {
    match class {
        "Conv2D" => "conv2d".to_owned(),
        "DepthwiseConv2D" => "depthwise_conv2d".to_owned(),
        "SeparableConv2D" => "separable_conv2d".to_owned(),
        "BatchNormalization" => "batch_normalization".to_owned(),
        other => other.to_lowercase(),
    }
}

/// What a tensor's own name says: which parameter, and in whose layout.
fn leaf(name: &str) -> Option<(&'static str, Option<Framework>)> {
    Some(match name {
        "weight" => ("weight", None),
        "bias" => ("bias", None),
        "q_bias" => ("q_bias", None),
        "v_bias" => ("v_bias", None),
        RELATIVE => (RELATIVE, None),
        POINTWISE => (POINTWISE, None),
        "pointwise_kernel" => (POINTWISE, Some(Framework::Keras)),
        "running_mean" => ("running_mean", None),
        "running_var" => ("running_var", None),
        "kernel" | "depthwise_kernel" | "gamma" => ("weight", Some(Framework::Keras)),
        "beta" => ("bias", Some(Framework::Keras)),
        "moving_mean" => ("running_mean", Some(Framework::Keras)),
        "moving_variance" => ("running_var", Some(Framework::Keras)),
        "mean" => ("mean", Some(Framework::Keras)),
        "variance" => ("variance", Some(Framework::Keras)),
        _ => return None,
    })
}

/// The tensors whose names are no layer's and a parameter's.
fn special_names(graph: &Graph, others: &HashMap<String, usize>) -> HashMap<String, (usize, &'static str)> {
    let own = graph.layers.iter().enumerate().map(|(layer, found)| (&found.name, layer));
    let mut special = HashMap::new();
    for (name, layer) in own.chain(others.iter().map(|(name, layer)| (name, *layer))) {
        let op = &graph.layers[layer].op;
        let usual = |param: &Param| {
            torch_name(op, &graph.layers[layer].name, param.name).ends_with(&format!(".{}", param.name))
        };
        for param in graph.params(layer).into_iter().filter(|param| !usual(param)) {
            // Of other frameworks' names, only those of scales stand for such a tensor.
            let name = if *name == graph.layers[layer].name { torch_name(op, name, param.name) } else { name.clone() };
            special.insert(name, (layer, param.name));
        }
    }
    special
}

/// Names with a layer before the last dot or slash: the network's own, or another framework's for the same network. A head of
/// ours has one name in both: in whose order it is written, our files say.
fn by_name(file: &WeightFile, graph: &Graph) -> (Vec<Found>, Match) {
    let written = file.facts().get("format").and_then(|word| Framework::of(word));
    let mut result = Match { how: "by name", ..Match::default() };
    let mut found = Vec::new();
    let mut others = aliases(graph);
    swin::names(graph, file.stored.iter().map(|stored| stored.name.as_str()), &mut others);
    let special = special_names(graph, &others);
    let mut packed = HashMap::new();
    hub::packed(graph, &mut packed);
    clip::packed(graph, &mut packed);
    siglip::packed(graph, &mut packed);
    dinov3::packed(graph, &mut packed);
    swin::packed(graph, &mut packed);
    for (index, stored) in file.stored.iter().enumerate() {
        if stored.name.ends_with("num_batches_tracked") {
            result.left_out.push((stored.name.clone(), "a counter".to_owned()));
            continue;
        }
        if stored.name.starts_with("AuxLogits.") {
            result.left_out.push((stored.name.clone(), "the auxiliary head, which only training uses".to_owned()));
            continue;
        }
        let why = hub::left_out(&stored.name).or_else(|| clip::left_out(graph, &stored.name));
        let why = why.or_else(|| dinov3::left_out(graph, &stored.name));
        if let Some(why) = why.or_else(|| swin::left_out(graph, &stored.name)) {
            result.left_out.push((stored.name.clone(), why.to_owned()));
            continue;
        }
        let whole = special.get(&stored.name);
        let whole = whole.map(|(layer, param)| vec![Packed { layer: *layer, param, piece: Piece::Whole }]);
        if let Some(pieces) = whole.or_else(|| packed.get(&stored.name).cloned()) {
            let (axes, order) = (Framework::Torch, graph.framework);
            let piece = |Packed { layer, param, piece }| Found { stored: index, layer, param, axes, order, piece };
            found.extend(pieces.into_iter().map(piece));
            continue;
        }
        let split = stored.name.rfind(['.', '/']).map(|at| (&stored.name[..at], &stored.name[at + 1..]));
        let counted = split.and_then(|(base, _)| graph.find(base));
        if counted.is_some_and(|layer| is_counter(graph, layer, &stored.name, 0)) {
            result.left_out.push((stored.name.clone(), "a counter".to_owned()));
            continue;
        }
        let place = split.and_then(|(base, last)| {
            let (param, layout) = leaf(last)?;
            // Under the network's own names the numbers stand in the network's own order, unless the file says another.
            let own = graph.find(base).map(|layer| (layer, layout, layout.or(written).unwrap_or(graph.framework)));
            let other = || others.get(base).map(|layer| (*layer, layout, Framework::Torch));
            let (layer, axes, order) = own.or_else(other)?;
            Some(Found {
                stored: index,
                layer,
                param,
                axes: axes.unwrap_or(Framework::Torch),
                order,
                piece: Piece::Whole,
            })
        });
        match place {
            Some(place) => found.push(place),
            None => result.unused.push(stored.name.clone()),
        }
    }
    (found, result)
}
