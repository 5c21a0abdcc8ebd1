//! What of a network a training step changes, and what it keeps for its backward pass.

use candle_core::{Result, Tensor};

use super::Network;
use super::meaning::curve;
use crate::model::graph::{Activation, Op, Reduce};
use crate::recipe::BatchNorm;

impl Network {
    /// Gives what steps change memory of its own, so that they can change it in place.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn own(&mut self) -> Result<()> {
        for (layer, which) in self.changing() {
            self.params[layer][which] = self.params[layer][which].copy()?;
        }
        Ok(())
    }

    /// All tensors as they are now, whatever later steps change.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn snapshot(&self) -> Result<Vec<Vec<Tensor>>> {
        let mut params = self.params.clone();
        for (layer, which) in self.changing() {
            params[layer][which] = params[layer][which].copy()?;
        }
        Ok(params)
    }

    /// What steps change: learned numbers, and the running statistics beside them.
    pub fn moving(&self) -> Vec<&Tensor> {
        self.changing().into_iter().map(|(layer, which)| &self.params[layer][which]).collect()
    }

    /// Puts other tensors in the place of `moving`'s.
    pub fn set_moving(&mut self, tensors: Vec<Tensor>) {
        for ((layer, which), tensor) in self.changing().into_iter().zip(tensors) {
            self.params[layer][which] = tensor;
        }
    }

    /// Puts what has changed since a snapshot at a share of the way from there to where it is.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn interpolate(&mut self, from: &[Vec<Tensor>], share: f64) -> Result<()> {
        for (layer, which) in self.changing() {
            let (start, end) = (&from[layer][which], &self.params[layer][which]);
            self.params[layer][which] = (((end - start)? * share)? + start)?;
        }
        Ok(())
    }

    /// Per layer: whether it or anything below it trains, so that a gradient must reach it.
    pub(super) fn reaches_training(&self) -> Vec<bool> {
        let mut reaches = vec![false; self.graph.layers.len()];
        for (index, layer) in self.graph.layers.iter().enumerate() {
            reaches[index] = self.trains(index) || layer.inputs.iter().any(|input| reaches[*input]);
        }
        reaches
    }

    /// Per layer: whether the backward pass reads its output.
    pub(super) fn read_again(&self) -> Vec<bool> {
        let mut read = vec![false; self.graph.layers.len()];
        let reaches = self.reaches_training();
        for (index, layer) in self.graph.layers.iter().enumerate().filter(|(index, _)| reaches[*index]) {
            let (inputs, output) = match &layer.op {
                Op::Conv { activation, .. } | Op::Linear { activation, .. } => {
                    (self.learns(index, 0), *activation != Activation::Linear && curve(*activation).is_none())
                }
                Op::Pointwise { .. } => (self.learns(index, 0), false),
                Op::BatchNorm { .. } | Op::Scale | Op::Rescale(_) | Op::Normalize => (true, false),
                Op::Standardize { .. } => (true, false),
                Op::LayerNorm { .. } | Op::Attention { .. } | Op::LayerScale { .. } => (true, false),
                Op::ResponseNorm { .. } | Op::UnitNorm | Op::SwiGlu | Op::AttentionPool { .. } => (true, false),
                Op::WindowAttention { .. } | Op::Separable { .. } => (true, false),
                Op::Activation(activation) if curve(*activation).is_some() => (true, false),
                Op::Activation(_) => (false, !self.is_absorbed(index) || self.adds(layer.inputs[0])),
                Op::Pool { reduce: Reduce::Max, .. } | Op::GridPool { reduce: Reduce::Max, .. } => (true, true),
                _ => (false, false),
            };
            read[index] |= output;
            if inputs {
                layer.inputs.iter().for_each(|input| read[*input] = true);
            }
        }
        read
    }

    fn adds(&self, index: usize) -> bool {
        matches!(self.graph.layers[index].op, Op::Add)
    }

    /// Whether a layer's output is cheaper to compute again than to keep: elementwise from one kept tensor.
    pub(super) fn is_cheap(&self, index: usize) -> bool {
        let layer = &self.graph.layers[index];
        let source = match layer.op {
            Op::Activation(_) if self.is_absorbed(index) => layer.inputs[0],
            _ => index,
        };
        let layer = &self.graph.layers[source];
        let of_product = |input: usize| matches!(self.graph.layers[input].op, Op::Conv { .. });
        matches!(layer.op, Op::BatchNorm { .. }) && of_product(layer.inputs[0]) && !self.is_folded(source, true)
    }

    /// Numbers that a training step keeps for its backward pass, for each image.
    pub fn kept(&self) -> usize {
        let read = self.read_again();
        let kept = |index: &usize| read[*index] && !(self.recompute && self.is_cheap(*index));
        let size = |index: usize| self.graph.layers[index].shape.iter().product::<usize>();
        let befores = (0..read.len()).filter(|index| self.keeps_before(*index)).map(size).sum::<usize>();
        (0..read.len()).filter(kept).map(size).sum::<usize>() + befores
    }

    /// Whether a training pass keeps what a layer computed before its own activation, too.
    pub(super) fn keeps_before(&self, index: usize) -> bool {
        match &self.graph.layers[index].op {
            Op::Conv { activation, .. } | Op::Linear { activation, .. } => curve(*activation).is_some(),
            _ => false,
        }
    }

    /// Whether any parameter of a layer trains.
    pub fn trains(&self, index: usize) -> bool {
        let held = matches!(self.graph.layers[index].op, Op::BatchNorm { .. }) && self.batch_norm == BatchNorm::Frozen;
        index >= self.frozen && self.selected.any(index) && !held
    }

    /// Whether parameter `which` of a layer trains.
    pub fn learns(&self, index: usize, which: usize) -> bool {
        self.trains(index) && self.selected.params[index].get(which) == Some(&true)
    }

    /// The parameters of a layer that train, in the order in which a backward pass hands over their gradients.
    pub fn learned(&self, index: usize) -> Vec<usize> {
        (0..self.params[index].len()).filter(|which| self.learns(index, *which)).collect()
    }

    /// Whether a layer runs as in training: it may drop, and move statistics.
    pub(super) fn is_active(&self, index: usize) -> bool {
        index >= self.frozen && self.selected.layers[index]
    }

    /// Whether a layer's batch norm uses the statistics of the batch in training.
    pub(super) fn uses_batch(&self, index: usize) -> bool {
        self.is_active(index) && self.batch_norm == BatchNorm::Train
    }

    /// The learned parameters that train, as (layer, index within the layer), in the graph's order.
    pub fn trainable(&self) -> Vec<(usize, usize)> {
        let layers = 0..self.graph.layers.len();
        layers.flat_map(|index| self.learned(index).into_iter().map(move |which| (index, which))).collect()
    }

    /// What a step changes: what trains, and the running statistics that follow the batches.
    pub(super) fn changing(&self) -> Vec<(usize, usize)> {
        let follows =
            |index: &usize| matches!(self.graph.layers[*index].op, Op::BatchNorm { .. }) && self.uses_batch(*index);
        let running = |index: usize| {
            let params = self.graph.params(index);
            let own = params.into_iter().enumerate().filter(|(_, param)| !param.learned);
            own.map(move |(which, _)| (index, which)).collect::<Vec<_>>()
        };
        let statistics = (0..self.graph.layers.len()).filter(follows).flat_map(running);
        self.trainable().into_iter().chain(statistics).collect()
    }
}
