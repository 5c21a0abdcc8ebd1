//! The backward pass: gradients of the parameters that train, and of nothing else.

use candle_core::{Result, Tensor};

use super::forward::{function, geometry, reduction, vectors, windows};
use super::{Network, Saved, Tape};
use crate::model::graph::{Activation, Op};
use crate::nn::{activation, conv, join, linear, norm, pool};

/// Gradients of learned parameters, per layer in the order of `Graph::params`; empty where nothing trains.
pub struct Gradients(pub Vec<Vec<Tensor>>);

impl Network {
    /// Walks the tape backwards from the gradient `dy` of the last output. Stops at the lowest layer that trains:
    /// below it no gradient exists, of inputs or of parameters.
    ///
    /// # Errors
    /// The tape is not of a training pass.
    pub fn backward(&self, tape: &Tape, dy: Tensor) -> Result<Gradients> {
        let layers = &self.graph.layers;
        let wanted = self.reaches_training();
        let mut flows: Vec<Option<Tensor>> = vec![None; layers.len()];
        let mut gradients = vec![Vec::new(); layers.len()];
        flows[layers.len() - 1] = Some(dy);
        for index in (1..layers.len()).rev() {
            let Some(dy) = flows[index].take() else { continue };
            if !wanted[index] {
                continue;
            }
            let inputs = &layers[index].inputs;
            let want: Vec<bool> = inputs.iter().map(|input| wanted[*input]).collect();
            let (flow, own) = self.layer_backward(index, tape, dy, &want)?;
            gradients[index] = own;
            for (input, flow) in inputs.iter().zip(flow) {
                flows[*input] = match (flows[*input].take(), flow) {
                    (Some(old), Some(new)) => Some(join::add(&old, &new)?),
                    (old, new) => old.or(new),
                };
            }
        }
        Ok(Gradients(gradients))
    }

    /// Per layer: whether it or anything below it trains, so that a gradient must reach it.
    fn reaches_training(&self) -> Vec<bool> {
        let mut reaches = vec![false; self.graph.layers.len()];
        for (index, layer) in self.graph.layers.iter().enumerate() {
            reaches[index] = self.trains(index) || layer.inputs.iter().any(|input| reaches[*input]);
        }
        reaches
    }

    /// The gradients of a layer's inputs, where wanted, and of its learned parameters, if they train.
    fn layer_backward(
        &self,
        index: usize,
        tape: &Tape,
        dy: Tensor,
        want: &[bool],
    ) -> Result<(Vec<Option<Tensor>>, Vec<Tensor>)> {
        let layer = &self.graph.layers[index];
        let params = &self.params[index];
        let x = tape.output(layer.inputs[0])?;
        let learn = self.trains(index);
        let only = |dx: Tensor| Ok((vec![Some(dx)], Vec::new()));
        match &layer.op {
            Op::Conv { bias, activation, .. } => {
                let dy = self.before_activation(tape, index, dy, *activation)?;
                let [dx, dw] = conv::backward(&geometry(&layer.op), x, &params[0], &dy, [want[0], learn])?;
                let mut own: Vec<Tensor> = dw.into_iter().collect();
                if learn && *bias {
                    own.push(conv::bias_gradient(&dy)?);
                }
                Ok((vec![dx], own))
            }
            Op::Linear { activation, .. } => {
                let dy = self.before_activation(tape, index, dy, *activation)?;
                let (dx, own) = linear::backward(&vectors(x)?, &params[0], &dy, want[0], learn)?;
                let dx = dx.map(|dx| dx.reshape(x.shape())).transpose()?;
                Ok((vec![dx], own.map_or_else(Vec::new, Vec::from)))
            }
            Op::BatchNorm { eps, .. } => {
                let norm = self.norm(index);
                let (dx, own) = match &tape.saved[index] {
                    Saved::Batch(statistics) => {
                        let (dx, own) = norm::batch_backward(&norm, *eps, statistics, x, &dy)?;
                        (dx, Some(own))
                    }
                    _ => norm::stored_backward(&norm, *eps, x, &dy, learn)?,
                };
                Ok((vec![Some(dx)], own.filter(|_| learn).map_or_else(Vec::new, Vec::from)))
            }
            Op::Activation(activation) => only(activation::backward(tape.output(index)?, &dy, function(*activation))?),
            Op::ZeroPad(padding) => only(join::unpad(&dy, *padding)?),
            Op::Pool { reduce, .. } => only(pool::backward(&windows(&layer.op), reduction(*reduce), x, &dy)?),
            Op::GridPool { reduce, grid } => {
                let dy = dy.reshape((dy.dim(0)?, layer.shape[0], *grid, *grid))?;
                only(pool::grid_backward(*grid, reduction(*reduce), x, &dy)?)
            }
            Op::Flatten => only(dy.reshape(x.shape())?),
            Op::Add => Ok((vec![Some(dy.clone()), Some(dy)], Vec::new())),
            Op::Concat => {
                let mut start = 0;
                let mut parts = Vec::new();
                for input in &layer.inputs {
                    let channels = self.graph.layers[*input].shape[0];
                    parts.push(Some(dy.narrow(1, start, channels)?.contiguous()?));
                    start += channels;
                }
                Ok((parts, Vec::new()))
            }
            Op::Shortcut { stride, .. } => only(join::shortcut_backward(&dy, *stride, x.dims4()?)?),
            Op::Dropout(_) => match &tape.saved[index] {
                Saved::Mask(mask) => only(join::dropout(&dy, mask)?),
                _ => only(dy),
            },
            Op::Input => only(dy),
        }
    }

    fn before_activation(&self, tape: &Tape, index: usize, dy: Tensor, fused: Activation) -> Result<Tensor> {
        match fused {
            Activation::Linear => Ok(dy),
            fused => activation::backward(tape.output(index)?, &dy, function(fused)),
        }
    }
}
