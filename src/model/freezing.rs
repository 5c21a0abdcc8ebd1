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

/// Whether what a backbone ends with can be pooled so: only a transformer's rows have a class token. A vector is not pooled.
///
/// # Errors
/// Why not, and what can.
pub fn pools(backbone: &Graph, pool: Pool) -> Result<(), String> {
    let last = backbone.last();
    let [_, height, width] = backbone.layers[last].shape;
    let class = matches!(pool, Pool::Class | Pool::ClassAvg);
    match height * width > 1 && class && patches(backbone, last).is_none() {
        false => Ok(()),
        true => Err(format!(
            "{} asks for a class token, and '{}' of {} gives a map of {height} x {width} pixels: \"avg\" or \"max\" pool that",
            pool.word(),
            backbone.layers[last].name,
            backbone.arch,
        )),
    }
}

/// A backbone with its feature map made a vector: pooled over a grid, if it is to be, and flattened. Of a row of tokens it is the
/// map of the patches, unless the class token is asked for.
pub fn pooled(backbone: &Graph, pool: Pool) -> Graph {
    let mut network = backbone.clone();
    let [_, height, width] = network.layers[network.last()].shape;
    if height * width > 1 {
        let tap = network.last();
        let row = patches(&network, tap);
        let mut height = height;
        if let Some(row) = row.filter(|_| pool != Pool::Class) {
            network.then("head", "head.patches", Op::Patches { skip: row.skip });
            height = row.side;
        }
        match pool {
            Pool::Flatten => {}
            Pool::Avg(grid) => _ = network.then("head", "head.pool", cells(Reduce::Avg, grid.min(height))),
            Pool::Max(grid) => _ = network.then("head", "head.pool", cells(Reduce::Max, grid.min(height))),
            Pool::Class => _ = network.then("head", "head.class", Op::Token(0)),
            Pool::ClassAvg => {
                let mean = network.then("head", "head.pool", cells(Reduce::Avg, 1));
                let class = network.push("head", "head.class", Op::Token(0), &[tap]);
                network.push("head", "head.concat", Op::Concat, &[class, mean]);
            }
        }
    }
    network.then("head", "head.flatten", Op::Flatten);
    network
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
