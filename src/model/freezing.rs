//! What a freeze depth means for a graph, and the network that a recipe makes of a backbone.

use super::graph::{Activation, Graph, Op, Reduce};
use super::row::patches;
use crate::freeze::Freeze;
use crate::recipe::{Head, Pool};

/// Reads a freeze depth against the backbone: how many of its first layers are held fixed.
///
/// # Errors
/// The name is neither a layer nor a block, or the index is beyond the last layer; says what would be accepted.
pub fn frozen_layers(backbone: &Graph, freeze: &Freeze) -> Result<usize, String> {
    match freeze {
        Freeze::None => Ok(0),
        Freeze::All => Ok(backbone.layers.len()),
        Freeze::Index(count) if *count <= backbone.layers.len() => Ok(*count),
        Freeze::Index(count) => {
            Err(format!("freeze = {count}, but {} has {} layers up to the tap", backbone.arch, backbone.layers.len()))
        }
        Freeze::Through(name) => {
            let last = backbone.layers.iter().rposition(|layer| layer.name == *name || layer.block == *name);
            last.map(|index| index + 1).ok_or_else(|| {
                format!(
                    "{} has no layer or block '{name}'; its blocks are {}",
                    backbone.arch,
                    backbone.blocks().join(", ")
                )
            })
        }
    }
}

/// The smallest count that freezes the same tensors: depths that differ by layers without parameters are one depth.
pub fn effective_depth(backbone: &Graph, frozen: usize) -> usize {
    (0..frozen).rev().find(|index| backbone.param_count(*index) > 0).map_or(0, |index| index + 1)
}

/// How the whole backbone's depth is told from `none` in keys and tables: the last frozen layer with parameters.
pub fn depth_name(backbone: &Graph, frozen: usize) -> String {
    match effective_depth(backbone, frozen) {
        0 => "none".to_owned(),
        depth if depth == effective_depth(backbone, backbone.layers.len()) => "all".to_owned(),
        depth => backbone.layers[depth - 1].name.clone(),
    }
}

/// Where a freeze depth cuts through parallel branches: what of the frozen part can be shared all the same. Empty where
/// one tensor crosses the boundary.
pub fn branch_note(backbone: &Graph, frozen: usize) -> String {
    let cut = if frozen == 0 { 0 } else { backbone.cut_at_most(frozen - 1) };
    match cut {
        _ if cut + 1 >= frozen => String::new(),
        0 => "; this cuts through parallel branches, and nothing below it can be shared".to_owned(),
        _ => format!(
            "; this cuts through parallel branches: the work up to layer {cut}, {}, can be shared",
            backbone.layers[cut].name
        ),
    }
}

/// The last layer that may be computed once and shared when the first `frozen` layers are fixed: the deepest
/// one-tensor cut below. With everything frozen the pooling of the head belongs to it.
pub fn shared_cut(network: &Graph, backbone_layers: usize, frozen: usize) -> Option<usize> {
    // Layers without parameters that follow the frozen ones are fixed too, unless they are random.
    let fixed = |index: &usize| {
        network.param_count(*index) == 0 && !matches!(network.layers[*index].op, Op::Dropout(_) | Op::DropPath(_))
    };
    let reach = (frozen..network.layers.len()).take_while(fixed).last().map_or(frozen, |index| index + 1);
    let reach = if frozen >= backbone_layers { reach } else { reach.min(backbone_layers) };
    let worth = (0..reach).any(|index| network.macs(index) > 0);
    (frozen > 0 && worth).then(|| network.cut_at_most(reach - 1)).filter(|cut| *cut > 0)
}

fn cells(reduce: Reduce, grid: usize) -> Op {
    Op::GridPool { reduce, grid }
}

/// Whether what a backbone gives can be pooled so: only a transformer's rows have a class token. A vector is not pooled.
///
/// # Errors
/// Why not, and what can.
pub fn pools(backbone: &Graph, pool: Pool) -> Result<(), String> {
    let class = matches!(pool, Pool::Class | Pool::ClassAvg);
    for tap in taps(backbone) {
        let [_, height, width] = backbone.layers[tap].shape;
        if height * width > 1 && class && patches(backbone, tap).is_none() {
            return Err(format!(
                "{} asks for a class token, and '{}' of {} gives a map of {height} x {width} pixels: \"avg\" or \"max\" pool that",
                pool.word(),
                backbone.layers[tap].name,
                backbone.arch,
            ));
        }
    }
    Ok(())
}

/// The layers whose outputs are a backbone's features, from the lowest.
pub fn taps(backbone: &Graph) -> Vec<usize> {
    backbone.taps.iter().copied().chain([backbone.last()]).collect()
}

/// The layer whose output is the vector that a head reads.
pub const CODES: &str = "head.flatten";

/// A backbone with its feature map made a vector: pooled over a grid, if it is to be, and flattened. Of a row of tokens it is the
/// map of the patches, unless the class token is asked for. The vectors of several taps stand side by side, the lowest first.
pub fn pooled(backbone: &Graph, pool: Pool) -> Graph {
    let mut network = backbone.clone();
    if backbone.taps.is_empty() {
        let end = summed(&mut network, backbone.last(), pool, "head");
        network.push("head", CODES, Op::Flatten, &[end]);
        return network;
    }
    let mut vectors = Vec::new();
    for (number, tap) in taps(backbone).into_iter().enumerate() {
        let prefix = format!("head.{}", number + 1);
        let end = summed(&mut network, tap, pool, &prefix);
        vectors.push(network.push("head", format!("{prefix}.flatten"), Op::Flatten, &[end]));
    }
    network.push("head", "head.taps", Op::Concat, &vectors);
    network.then("head", CODES, Op::Flatten);
    network.taps.clear();
    network
}

/// Puts the pooling of one tap on a network; returns the layer that it ends with.
fn summed(network: &mut Graph, tap: usize, pool: Pool, prefix: &str) -> usize {
    let [_, height, width] = network.layers[tap].shape;
    if height * width == 1 {
        return tap;
    }
    let (mut height, mut map) = (height, tap);
    if let Some(row) = patches(network, tap).filter(|_| pool != Pool::Class) {
        map = network.push("head", format!("{prefix}.patches"), Op::Patches { skip: row.skip }, &[tap]);
        height = row.side;
    }
    let mut put = |name: &str, op: Op, inputs: &[usize]| network.push("head", format!("{prefix}.{name}"), op, inputs);
    match pool {
        Pool::Flatten => map,
        Pool::Avg(grid) => put("pool", cells(Reduce::Avg, grid.min(height)), &[map]),
        Pool::Max(grid) => put("pool", cells(Reduce::Max, grid.min(height)), &[map]),
        Pool::Class => put("class", Op::Token(0), &[map]),
        Pool::ClassAvg => {
            let mean = put("pool", cells(Reduce::Avg, 1), &[map]);
            let class = put("class", Op::Token(0), &[tap]);
            put("concat", Op::Concat, &[class, mean])
        }
    }
}

/// Puts pooling and a new head on a backbone that ends at its tap. Returns the network; the backbone's layers come first.
pub fn with_head(backbone: &Graph, pool: Pool, head: &Head, classes: usize, dropout: f64) -> Graph {
    let mut network = pooled(backbone, pool);
    if let Head::Mlp(widths) = head {
        for (index, out) in widths.iter().enumerate() {
            network.then(
                "head",
                format!("head.fc{}", index + 1),
                Op::Linear { out: *out, activation: Activation::Relu },
            );
        }
    }
    network.then("head", "head.dropout", Op::Dropout(dropout));
    network.then("head", "head.linear", Op::Linear { out: classes, activation: Activation::Linear });
    network
}
