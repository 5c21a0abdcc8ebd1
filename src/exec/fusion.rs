//! Which layers of a network are computed as one: a norm and the activation behind it, a convolution and its norm, a padding and the
//! convolution that pads.

use super::Network;
use super::meaning::{curve, geometry};
use crate::model::graph::{Activation, Graph, Op};
use crate::nn::conv::Conv;

/// What each layer may be one with, by the graph alone.
#[derive(Clone)]
pub(super) struct Fusion {
    /// The activation behind it that it applies itself.
    fused: Vec<Option<Activation>>,
    /// The batch norm that alone reads this convolution.
    normed: Vec<Option<usize>>,
    /// Whether it is a padding that the convolution behind it does itself.
    pads: Vec<bool>,
}

impl Fusion {
    pub(super) fn of(graph: &Graph) -> Self {
        let layers = 0..graph.layers.len();
        Self {
            fused: layers.clone().map(|index| fused(graph, index)).collect(),
            normed: layers.clone().map(|index| normed(graph, index)).collect(),
            pads: layers.map(|index| pads(graph, index)).collect(),
        }
    }
}

impl Network {
    /// The activation that a layer applies to what it computes: the one behind it, where the pair is fused.
    pub(super) fn fused(&self, index: usize) -> Activation {
        self.fusion.fused[index].unwrap_or(Activation::Linear)
    }

    /// Whether a layer is an activation that the layer below has applied already.
    pub(super) fn is_absorbed(&self, index: usize) -> bool {
        self.graph.layers[index].inputs.first().is_some_and(|input| {
            self.fusion.fused[*input].is_some() && matches!(self.graph.layers[index].op, Op::Activation(_))
        })
    }

    /// The batch norm that a convolution takes into its weights: where no gradient passes and statistics stand still.
    /// Never across the boundary of what is frozen, or across the seam, so that a cut there changes no bit.
    pub(super) fn folds(&self, index: usize, training: bool) -> Option<usize> {
        let apart = |norm: &usize| index < self.seam && *norm >= self.seam;
        let norm = self.fusion.normed[index].filter(|norm| !apart(norm));
        norm.filter(|norm| *norm < self.frozen || (!training && index >= self.frozen))
    }

    /// Whether a layer is a batch norm that the convolution below has applied already.
    pub(super) fn is_folded(&self, index: usize, training: bool) -> bool {
        let input = self.graph.layers[index].inputs.first();
        input.is_some_and(|input| self.folds(*input, training) == Some(index))
    }

    /// Whether a layer is a padding that the convolution behind it does itself.
    pub(super) fn is_merged(&self, index: usize) -> bool {
        self.fusion.pads[index]
    }

    /// The layer whose numbers another one reads as its first input: the one below a padding that is merged.
    pub(super) fn source(&self, index: usize) -> usize {
        let input = self.graph.layers[index].inputs[0];
        if self.fusion.pads[input] { self.graph.layers[input].inputs[0] } else { input }
    }

    /// The shape of a convolution, with the padding below it.
    pub(super) fn geometry(&self, index: usize) -> Conv {
        let layer = &self.graph.layers[index];
        let mut conv = geometry(&layer.op);
        if let Op::ZeroPad(more) = &self.graph.layers[layer.inputs[0]].op
            && self.fusion.pads[layer.inputs[0]]
        {
            conv.padding.iter_mut().zip(more).for_each(|(padding, more)| *padding += more);
        }
        conv
    }
}

/// The batch norm that alone reads convolution `index`.
fn normed(graph: &Graph, index: usize) -> Option<usize> {
    let readers: Vec<usize> = readers(graph, index);
    match (&graph.layers[index].op, readers.as_slice()) {
        (Op::Conv { activation: Activation::Linear, .. }, [reader]) => {
            matches!(graph.layers[*reader].op, Op::BatchNorm { .. }).then_some(*reader)
        }
        _ => None,
    }
}

/// Whether `index` is a padding that only convolutions read.
fn pads(graph: &Graph, index: usize) -> bool {
    let readers = readers(graph, index);
    let convolves = |reader: &usize| matches!(graph.layers[*reader].op, Op::Conv { .. });
    matches!(graph.layers[index].op, Op::ZeroPad(_)) && !readers.is_empty() && readers.iter().all(convolves)
}

fn readers(graph: &Graph, index: usize) -> Vec<usize> {
    (0..graph.layers.len()).filter(|reader| graph.layers[*reader].inputs.contains(&index)).collect()
}

/// The activation that alone reads the output of layer `index`, if that layer can apply it in the same pass over memory.
fn fused(graph: &Graph, index: usize) -> Option<Activation> {
    let [reader] = readers(graph, index)[..] else { return None };
    match (&graph.layers[index].op, &graph.layers[reader].op) {
        (Op::BatchNorm { .. } | Op::Add, Op::Activation(activation)) => {
            Some(*activation).filter(|own| curve(*own).is_none())
        }
        _ => None,
    }
}
