//! A graph with its numbers on a device. Frozen parameters are plain tensors like all others; what trains is a
//! property of the layer, and nothing below the first such layer is ever differentiated.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};

use crate::model::graph::{Graph, Op};
use crate::model::weights::Weights;
use crate::nn::norm::Norm;
use crate::recipe::BatchNorm;

pub struct Network {
    pub graph: Graph,
    pub device: Device,
    /// Per layer, its tensors in the order of `Graph::params`.
    pub params: Vec<Vec<Tensor>>,
    /// The first layers, held fixed.
    pub frozen: usize,
    /// What the batch norms above them do.
    pub batch_norm: BatchNorm,
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
        Ok(Self { graph, device: device.clone(), params, frozen: 0, batch_norm: BatchNorm::Train })
    }

    /// Whether the learned parameters of a layer train.
    pub fn trains(&self, index: usize) -> bool {
        let norm = matches!(self.graph.layers[index].op, Op::BatchNorm { .. });
        index >= self.frozen && !self.params[index].is_empty() && !(norm && self.batch_norm == BatchNorm::Frozen)
    }

    /// Whether a layer's batch norm uses the statistics of the batch in training.
    pub(super) fn uses_batch(&self, index: usize) -> bool {
        index >= self.frozen && self.batch_norm == BatchNorm::Train
    }

    /// The learned parameters that train, as (layer, index within the layer), in the graph's order.
    pub fn trainable(&self) -> Vec<(usize, usize)> {
        let layers = (0..self.graph.layers.len()).filter(|index| self.trains(*index));
        layers
            .flat_map(|index| {
                let params = self.graph.params(index);
                params.into_iter().enumerate().filter(|(_, param)| param.learned).map(move |(which, _)| (index, which))
            })
            .collect()
    }

    /// The batch norm of a layer.
    pub(super) fn norm(&self, index: usize) -> Norm {
        let [weight, bias, running_mean, running_var] = [0, 1, 2, 3].map(|which| self.params[index][which].clone());
        Norm { weight, bias, running_mean, running_var }
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
        for (index, tensors) in self.params.iter().enumerate() {
            if !self.trains(index) {
                for tensor in tensors {
                    hasher.update(bytemuck::cast_slice(&tensor.flatten_all()?.to_vec1::<f32>()?));
                }
            }
        }
        Ok(hasher.finalize())
    }
}
