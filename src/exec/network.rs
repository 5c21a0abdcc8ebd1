//! A graph with its numbers on a device. Frozen parameters are plain tensors like all others; what trains is a
//! property of the layer, and nothing below the first such layer is ever differentiated.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Result, Tensor};

use super::Tape;
use super::fixed::{angles, fixed};
use super::fusion::Fusion;
use crate::model::graph::{Graph, Op};
use crate::model::selected::Selected;
use crate::model::weights::Weights;
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
    /// What its layers are computed as one with.
    pub(super) fusion: Fusion,
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
        let ones = params.iter().map(|own: &Vec<Tensor>| match &own[..] {
            [bias, _, _] => bias.ones_like().map(Some),
            _ => Ok(None),
        });
        let ones = ones.collect::<Result<_>>()?;
        let fixed = (0..graph.layers.len()).map(|index| fixed(&graph.layers[index].op, &params[index], device));
        let fixed = fixed.collect::<Result<_>>()?;
        let angles = (0..graph.layers.len()).map(|index| angles(&graph, index, device)).collect::<Result<_>>()?;
        let fusion = Fusion::of(&graph);
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
            fusion,
            ones,
            fixed,
            angles,
        })
    }

    /// Takes over the running statistics that a training pass has moved.
    pub fn follow(&mut self, tape: Tape) {
        for (index, norm) in tape.norms {
            let learned = self.params[index].len() - 2;
            self.params[index][learned] = norm.running_mean;
            self.params[index][learned + 1] = norm.running_var;
        }
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
