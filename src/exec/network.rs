//! A graph with its numbers on a device. Frozen parameters are plain tensors like all others; what trains is a
//! property of the layer, and nothing below the first such layer is ever differentiated.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Result, Tensor};

use super::Tape;
use super::fixed::{angles, fixed};
use super::meaning::{curve, geometry};
use crate::model::graph::{Activation, Graph, Op, Reduce};
use crate::model::selected::Selected;
use crate::model::weights::Weights;
use crate::nn::conv::Conv;
use crate::nn::norm::Norm;
use crate::nn::rotary::Turn;
use crate::recipe::BatchNorm;
use crate::trains::Trains;

#[derive(Clone)]
pub struct Network {
    pub graph: Graph,
    pub device: Device,
    /// Per layer, its tensors in the order of `Graph::params`.
    pub params: Vec<Vec<Tensor>>,
    /// The first layers, held fixed.
    pub frozen: usize,
    /// The first layers that run apart from the others elsewhere; 0 where none do.
    pub seam: usize,
    /// Which of the parameters above them train.
    pub selected: Selected,
    /// What the batch norms above them do.
    pub batch_norm: BatchNorm,
    /// Keep less for the backward pass: what batch norms and activations gave is computed again. The numbers are the
    /// same, to the bit.
    pub recompute: bool,
    /// Per layer: the activation behind it that it applies itself.
    fused: Vec<Option<Activation>>,
    /// Per layer: the batch norm that alone reads this convolution.
    normed: Vec<Option<usize>>,
    /// Per layer: whether it is a padding that the convolution behind it does itself.
    pads: Vec<bool>,
    /// Per layer: the weights of a batch norm that has none.
    ones: Vec<Option<Tensor>>,
    /// Per layer: a scale and a shift that never change, as a batch norm.
    fixed: Vec<Option<Norm>>,
    /// Per layer: the angles that it turns by.
    angles: Vec<Option<Tensor>>,
}

impl Network {
    /// Puts `weights` on the graph. All layers train until `freeze` says otherwise.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(graph: Graph, weights: &Weights, device: &Device) -> Result<Self> {
        let mut params = Vec::new();
        for index in 0..graph.layers.len() {
            let own = graph.params(index).into_iter().map(|param| {
                let name = format!("{}.{}", graph.layers[index].name, param.name);
                match weights.0.get(&name) {
                    Some(tensor) if tensor.dims() == param.shape => tensor.to_device(device),
                    Some(tensor) => candle_core::bail!(
                        "'{name}' has shape {:?}, the network needs {:?}",
                        tensor.dims(),
                        param.shape
                    ),
                    None => candle_core::bail!("the weights have no '{name}'"),
                }
            });
            params.push(own.collect::<Result<Vec<_>>>()?);
        }
        let fused = (0..graph.layers.len()).map(|index| fused(&graph, index)).collect();
        let normed = (0..graph.layers.len()).map(|index| normed(&graph, index)).collect();
        let pads = (0..graph.layers.len()).map(|index| pads(&graph, index)).collect();
        let ones = params.iter().map(|own: &Vec<Tensor>| match &own[..] {
            [bias, _, _] => bias.ones_like().map(Some),
            _ => Ok(None),
        });
        let ones = ones.collect::<Result<_>>()?;
        let fixed = (0..graph.layers.len()).map(|index| fixed(&graph.layers[index].op, &params[index], device));
        let fixed = fixed.collect::<Result<_>>()?;
        let angles = (0..graph.layers.len()).map(|index| angles(&graph, index, device)).collect::<Result<_>>()?;
        let (device, batch_norm, selected) = (device.clone(), BatchNorm::Train, Selected::of(&graph, &Trains::All));
        Ok(Self {
            graph,
            device,
            params,
            frozen: 0,
            seam: 0,
            selected,
            batch_norm,
            recompute: false,
            fused,
            normed,
            pads,
            ones,
            fixed,
            angles,
        })
    }

    /// The activation that a layer applies to what it computes: the one behind it, where the pair is fused.
    pub(super) fn fused(&self, index: usize) -> Activation {
        self.fused[index].unwrap_or(Activation::Linear)
    }

    /// Whether a layer is an activation that the layer below has applied already.
    pub(super) fn is_absorbed(&self, index: usize) -> bool {
        self.graph.layers[index].inputs.first().is_some_and(|input| {
            self.fused[*input].is_some() && matches!(self.graph.layers[index].op, Op::Activation(_))
        })
    }

    /// The batch norm that a convolution takes into its weights: where no gradient passes and statistics stand still.
    /// Never across the boundary of what is frozen, or across the seam, so that a cut there changes no bit.
    pub(super) fn folds(&self, index: usize, training: bool) -> Option<usize> {
        let apart = |norm: &usize| index < self.seam && *norm >= self.seam;
        let norm = self.normed[index].filter(|norm| !apart(norm));
        norm.filter(|norm| *norm < self.frozen || (!training && index >= self.frozen))
    }

    /// Whether a layer is a batch norm that the convolution below has applied already.
    pub(super) fn is_folded(&self, index: usize, training: bool) -> bool {
        let input = self.graph.layers[index].inputs.first();
        input.is_some_and(|input| self.folds(*input, training) == Some(index))
    }

    /// Whether a layer is a padding that the convolution behind it does itself.
    pub(super) fn is_merged(&self, index: usize) -> bool {
        self.pads[index]
    }

    /// The layer whose numbers another one reads as its first input: the one below a padding that is merged.
    pub(super) fn source(&self, index: usize) -> usize {
        let input = self.graph.layers[index].inputs[0];
        if self.pads[input] { self.graph.layers[input].inputs[0] } else { input }
    }

    /// The shape of a convolution, with the padding below it.
    pub(super) fn geometry(&self, index: usize) -> Conv {
        let layer = &self.graph.layers[index];
        let mut conv = geometry(&layer.op);
        if let Op::ZeroPad(more) = &self.graph.layers[layer.inputs[0]].op
            && self.pads[layer.inputs[0]]
        {
            conv.padding.iter_mut().zip(more).for_each(|(padding, more)| *padding += more);
        }
        conv
    }

    /// Takes over the running statistics that a training pass has moved.
    pub fn follow(&mut self, tape: Tape) {
        for (index, norm) in tape.norms {
            let learned = self.params[index].len() - 2;
            self.params[index][learned] = norm.running_mean;
            self.params[index][learned + 1] = norm.running_var;
        }
    }

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

    /// Multiply-accumulates for an image: of a forward pass, and of a step. A step is that, a gradient of every input above the
    /// first layers that are frozen, and one of all weights that train.
    pub fn macs(&self) -> [f64; 2] {
        let macs = |index: usize| self.graph.macs(index) as f64;
        let forward = (0..self.graph.layers.len()).map(macs).sum::<f64>();
        let back = (self.frozen..self.graph.layers.len()).map(macs).sum::<f64>();
        // What weighs tokens with each other has no weights, and a second gradient all the same.
        let weighs = |index: &usize| {
            let windows = matches!(self.graph.layers[*index].op, Op::WindowAttention { .. });
            windows || self.params[*index].is_empty() || self.learns(*index, 0)
        };
        let learned = (self.frozen..self.graph.layers.len()).filter(weighs).map(macs).sum::<f64>();
        [forward, forward + back + learned]
    }

    /// What a step changes: what trains, and the running statistics that follow the batches.
    fn changing(&self) -> Vec<(usize, usize)> {
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

    /// The batch norm of a layer, or what is computed as one.
    pub(super) fn norm(&self, index: usize) -> Result<Norm> {
        if let Some(fixed) = &self.fixed[index] {
            return Ok(match (&self.graph.layers[index].op, &self.params[index][..]) {
                (Op::LayerScale { .. }, [weight]) => Norm { weight: weight.clone(), ..fixed.clone() },
                _ => fixed.clone(),
            });
        }
        match (&self.params[index][..], &self.ones[index]) {
            ([weight, bias, mean, var], _) | ([bias, mean, var], Some(weight)) => Ok(Norm {
                weight: weight.clone(),
                bias: bias.clone(),
                running_mean: mean.clone(),
                running_var: var.clone(),
            }),
            (other, _) => candle_core::bail!("layer {index} has {} tensors, not those of a batch norm", other.len()),
        }
    }

    /// How a layer of rotary positions turns.
    pub(super) fn turn(&self, index: usize) -> Result<Turn<'_>> {
        match (&self.graph.layers[index].op, &self.angles[index]) {
            (Op::Rotary { heads, skip, .. }, Some(table)) => Ok(Turn { heads: *heads, skip: *skip, table }),
            _ => candle_core::bail!("layer {index} turns nothing"),
        }
    }

    /// All tensors by name, on the CPU.
    ///
    /// # Errors
    /// Copying from the device fails.
    pub fn weights(&self) -> Result<Weights> {
        let mut weights = BTreeMap::new();
        for (index, tensors) in self.params.iter().enumerate() {
            for (param, tensor) in self.graph.params(index).into_iter().zip(tensors) {
                weights.insert(
                    format!("{}.{}", self.graph.layers[index].name, param.name),
                    tensor.to_device(&Device::Cpu)?,
                );
            }
        }
        Ok(Weights(weights))
    }

    /// A hash over the bits of everything that is held fixed: frozen layers, and the statistics of frozen batch norms.
    ///
    /// # Errors
    /// Copying from the device fails.
    pub fn frozen_hash(&self) -> Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        let changing: BTreeSet<(usize, usize)> = self.changing().into_iter().collect();
        for (index, tensors) in self.params.iter().enumerate() {
            for (which, tensor) in tensors.iter().enumerate() {
                if !changing.contains(&(index, which)) {
                    hasher.update(bytemuck::cast_slice(&tensor.flatten_all()?.to_vec1::<f32>()?));
                }
            }
        }
        Ok(hasher.finalize())
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
