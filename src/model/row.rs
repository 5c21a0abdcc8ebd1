//! Rows of tokens: which layers give them, and where an image's own patches stand among them.

use super::graph::{Graph, Op};

/// The patches of an image in a row of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patches {
    /// Learned tokens in front of them: the class token and registers.
    pub skip: usize,
    /// Patches of a side.
    pub side: usize,
}

/// Where the patches of a layer's output are, if that is a row of tokens with a class token in front.
pub fn patches(graph: &Graph, layer: usize) -> Option<Patches> {
    let [_, tokens, 1] = graph.layers[layer].shape else { return None };
    let learned = |layer: &super::graph::Layer| match layer.op {
        Op::Tokens { count, .. } => count,
        _ => 0,
    };
    let skip: usize = graph.layers[..=layer].iter().map(learned).sum();
    let side = tokens.checked_sub(skip)?.isqrt();
    (skip > 0 && side > 0 && skip + side * side == tokens).then_some(Patches { skip, side })
}
