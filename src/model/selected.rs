//! Which parameters of a network train where nothing is frozen, and how far its layers are from the head.

use super::graph::{Graph, Layer, Op};
use super::lora::is_addition;
use crate::trains::Trains;

/// What a choice of parameters means for the layers of one graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Per layer, for each of `Graph::params`: whether it may train.
    pub params: Vec<Vec<bool>>,
    /// Per layer: whether it runs as in training; others drop nothing, and their statistics stand still.
    pub layers: Vec<bool>,
}

impl Selected {
    /// What `trains` chooses of a graph, a part of a network among them. The head is always chosen.
    pub fn of(graph: &Graph, trains: &Trains) -> Self {
        let layers: Vec<bool> = graph.layers.iter().map(|layer| named(layer, trains)).collect();
        let params = |index: usize| {
            let layer = &graph.layers[index];
            let norm = matches!(layer.op, Op::BatchNorm { .. } | Op::LayerNorm { .. });
            let added = is_addition(layer);
            let chosen = |name: &str| match trains {
                // What is added has no biases.
                Trains::Lora(_) => added && name == "weight" || layer.block == HEAD,
                _ if added => false,
                Trains::Norms => norm || layer.block == HEAD,
                Trains::Biases => name == "bias" || name.ends_with("_bias") || layer.block == HEAD,
                Trains::All | Trains::Only(_) => layers[index],
            };
            graph.params(index).iter().map(|param| param.learned && chosen(param.name)).collect()
        };
        Self { params: (0..graph.layers.len()).map(params).collect(), layers }
    }

    /// Whether any parameter of a layer may train.
    pub fn any(&self, index: usize) -> bool {
        self.params[index].contains(&true)
    }
}

const HEAD: &str = "head";

fn named(layer: &Layer, trains: &Trains) -> bool {
    match trains {
        Trains::Only(names) => {
            layer.block == HEAD || names.iter().any(|name| layer.name == *name || layer.block == *name)
        }
        _ => true,
    }
}

/// How many of the first layers stand still when `frozen` do and the rest trains as `trains` says: those below the first
/// parameter that trains stand still, too, and what they compute can be shared.
///
/// # Errors
/// A name is neither a layer nor a block, or nothing of it would train; says what would be accepted.
pub fn frozen_beside(backbone: &Graph, frozen: usize, trains: &Trains) -> Result<usize, String> {
    let selected = Selected::of(backbone, trains);
    let first = (frozen..backbone.layers.len()).find(|index| selected.any(*index));
    if trains.is_all() || frozen >= backbone.layers.len() {
        return Ok(frozen);
    }
    if let Trains::Only(names) = trains {
        for name in names {
            let own: Vec<usize> = (0..backbone.layers.len())
                .filter(|index| backbone.layers[*index].name == *name || backbone.layers[*index].block == *name)
                .collect();
            if own.is_empty() {
                let blocks = backbone.blocks().join(", ");
                return Err(format!("{} has no layer or block '{name}'; its blocks are {blocks}", backbone.arch));
            }
            if !own.iter().any(|index| *index >= frozen && selected.any(*index)) {
                let why = if own.iter().any(|index| selected.any(*index)) {
                    "`freeze` holds all of it"
                } else {
                    "it has no parameters"
                };
                return Err(format!("nothing of '{name}' would train: {why}"));
            }
        }
    }
    first.ok_or_else(|| {
        let above = if frozen > 0 { format!(" above '{}'", backbone.layers[frozen - 1].name) } else { String::new() };
        format!("nothing would train: {} has no {trains}{above}", backbone.arch)
    })
}

/// The choice with its names in the order of the graph, or all, where it leaves out nothing above the first `frozen` layers.
pub fn settled(backbone: &Graph, frozen: usize, trains: &Trains) -> Trains {
    let selected = Selected::of(backbone, trains);
    let all = Selected::of(backbone, &Trains::All);
    let changes =
        |index: usize| matches!(backbone.layers[index].op, Op::BatchNorm { .. } | Op::Dropout(_) | Op::DropPath(_));
    let alike =
        |index: usize| selected.params[index] == all.params[index] && (selected.layers[index] || !changes(index));
    if (frozen..backbone.layers.len()).all(alike) {
        return Trains::All;
    }
    let Trains::Only(names) = trains else { return trains.clone() };
    let place = |name: &String| {
        backbone.layers.iter().position(|layer| layer.name == *name || layer.block == *name).unwrap_or(usize::MAX)
    };
    let mut names = names.clone();
    names.sort_by_key(place);
    names.dedup();
    Trains::Only(names)
}

/// Per layer: the number of blocks with parameters between it and the head; none for the head itself. A part of a network
/// that ends where the network ends gives what the whole gives.
pub fn distances(graph: &Graph) -> Vec<Option<usize>> {
    let blocks: Vec<&str> = graph.blocks().into_iter().filter(|block| *block != HEAD).collect();
    let counts = |block: &&str| {
        (0..graph.layers.len()).any(|index| graph.layers[index].block == **block && graph.param_count(index) > 0)
    };
    let above = |block: &str| {
        let place = blocks.iter().position(|other| *other == block)?;
        Some(blocks[place + 1..].iter().filter(|block| counts(block)).count())
    };
    graph.layers.iter().map(|layer| above(&layer.block)).collect()
}
