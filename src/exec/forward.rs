//! The forward pass: what each layer gives, and what the backward pass must remember of it.

use candle_core::{Result, Tensor};

use super::Network;
use crate::model::graph::{self, Op};
use crate::nn::activation::{self, Activation};
use crate::nn::conv::{self, Conv};
use crate::nn::norm::{self, Norm, Statistics};
use crate::nn::pool::{self, Pool, Reduce};
use crate::nn::{join, linear};
use crate::seed::Rng;

/// How a pass runs.
pub enum Mode<'a> {
    /// Stored statistics, no dropout; activations are let go as soon as nothing reads them.
    Evaluate,
    /// Batch statistics and dropout where the network says so, and all that backward needs is kept.
    Train(&'a mut Rng),
}

/// What a layer must remember beside its input and output.
pub enum Saved {
    Nothing,
    Batch(Statistics),
    Mask(Vec<f32>),
}

/// The outputs of a pass, layer by layer; in evaluation only those that are still needed.
pub struct Tape {
    pub outputs: Vec<Option<Tensor>>,
    pub saved: Vec<Saved>,
    /// Batch norms whose running statistics have moved.
    pub norms: Vec<(usize, Norm)>,
}

impl Tape {
    /// The output of the last layer.
    pub fn result(&self) -> Result<&Tensor> {
        self.output(self.outputs.len() - 1)
    }

    pub(super) fn output(&self, index: usize) -> Result<&Tensor> {
        match &self.outputs[index] {
            Some(tensor) => Ok(tensor),
            None => candle_core::bail!("the output of layer {index} was not kept"),
        }
    }
}

impl Network {
    /// Runs the whole graph on `x` [n, channels, height, width].
    ///
    /// # Errors
    /// The input has another shape than the graph's, or the device fails.
    pub fn forward(&self, x: &Tensor, mut mode: Mode) -> Result<Tape> {
        let layers = &self.graph.layers;
        let training = matches!(mode, Mode::Train(_));
        let last_reader = self.last_readers();
        let first_kept = (0..layers.len()).find(|index| self.trains(*index)).unwrap_or(layers.len());
        let mut tape = Tape { outputs: vec![Some(x.clone())], saved: vec![Saved::Nothing], norms: Vec::new() };
        for (index, layer) in layers.iter().enumerate().skip(1) {
            let (output, saved) = self.layer(index, &mut tape, &mut mode)?;
            tape.outputs.push(Some(output));
            tape.saved.push(saved);
            for input in &layer.inputs {
                if last_reader[*input] == index && (!training || index < first_kept) {
                    tape.outputs[*input] = None;
                }
            }
        }
        Ok(tape)
    }

    fn last_readers(&self) -> Vec<usize> {
        let mut last = vec![usize::MAX; self.graph.layers.len()];
        for (index, layer) in self.graph.layers.iter().enumerate() {
            layer.inputs.iter().for_each(|input| last[*input] = index);
        }
        last
    }

    fn layer(&self, index: usize, tape: &mut Tape, mode: &mut Mode) -> Result<(Tensor, Saved)> {
        let layer = &self.graph.layers[index];
        let params = &self.params[index];
        let x = tape.output(layer.inputs[0])?;
        let output = match &layer.op {
            Op::Input => x.clone(),
            Op::Conv { bias, activation, .. } => {
                let bias = bias.then(|| &params[1]);
                conv::forward(&geometry(&layer.op), x, &params[0], bias, function(*activation))?
            }
            Op::BatchNorm { eps, momentum } => {
                if matches!(mode, Mode::Train(_)) && self.uses_batch(index) {
                    let (y, statistics, moved) = norm::batch(&self.norm(index), *eps, *momentum, x)?;
                    tape.norms.push((index, moved));
                    return Ok((y, Saved::Batch(statistics)));
                }
                norm::stored(&self.norm(index), *eps, x)?
            }
            Op::Activation(activation) => activation::forward(x, function(*activation))?,
            Op::ZeroPad(padding) => join::pad(x, *padding)?,
            Op::Pool { reduce, .. } => pool::forward(&windows(&layer.op), reduction(*reduce), x)?,
            Op::GridPool { reduce, grid } => pool::grid_forward(*grid, reduction(*reduce), x)?,
            Op::Flatten => x.flatten_from(1)?,
            Op::Linear { activation, .. } => {
                linear::forward(&vectors(x)?, &params[0], &params[1], function(*activation))?
            }
            Op::Add => join::add(x, tape.output(layer.inputs[1])?)?,
            Op::Concat => {
                let parts: Vec<&Tensor> =
                    layer.inputs.iter().map(|input| tape.output(*input)).collect::<Result<_>>()?;
                Tensor::cat(&parts, 1)?.contiguous()?
            }
            Op::Shortcut { stride, channels } => join::shortcut(x, *stride, *channels)?,
            Op::Dropout(p) => match mode {
                Mode::Train(rng) if *p > 0.0 => {
                    let keep = (1.0 / (1.0 - p)) as f32;
                    let mask: Vec<f32> = (0..x.elem_count()).map(|_| if rng.chance(*p) { 0.0 } else { keep }).collect();
                    return Ok((join::dropout(x, &mask)?, Saved::Mask(mask)));
                }
                _ => x.clone(),
            },
        };
        Ok((output, Saved::Nothing))
    }
}

/// [n, c, 1, 1] as [n, c].
pub(super) fn vectors(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 2 { Ok(x.clone()) } else { x.flatten_from(1) }
}

pub(super) fn function(activation: graph::Activation) -> Activation {
    match activation {
        graph::Activation::Linear => Activation::Linear,
        graph::Activation::Relu => Activation::Relu,
        graph::Activation::Relu6 => Activation::Relu6,
    }
}

pub(super) fn reduction(reduce: graph::Reduce) -> Reduce {
    match reduce {
        graph::Reduce::Max => Reduce::Max,
        graph::Reduce::Avg => Reduce::Avg,
    }
}

/// The shape of a convolution; what is no convolution is the identity's.
pub(super) fn geometry(op: &Op) -> Conv {
    match op {
        Op::Conv { kernel, stride, padding, groups, .. } => {
            Conv { kernel: *kernel, stride: *stride, padding: *padding, groups: *groups }
        }
        _ => Conv { kernel: [1, 1], stride: 1, padding: [0; 4], groups: 1 },
    }
}

pub(super) fn windows(op: &Op) -> Pool {
    match op {
        Op::Pool { kernel, stride, padding, ceil, .. } => {
            Pool { kernel: *kernel, stride: *stride, padding: *padding, ceil: *ceil }
        }
        _ => Pool { kernel: 1, stride: 1, padding: [0; 4], ceil: false },
    }
}
