//! The forward pass: what each layer gives, and what the backward pass must remember of it.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};

use super::Network;
use super::front::{Ahead, Pending};
use super::mask::{Mask, drawn, drops};
use super::meaning::{curve, function, geometry, reduction, windows};
use super::value::Value;
use crate::model::graph::{self, Framework, Op};
use crate::nn::activation::{self, Activation};
use crate::nn::conv::{self, Ready};
use crate::nn::curve;
use crate::nn::norm::{self, Follow, Norm, Statistics};
use crate::nn::pool;
use crate::nn::window_attention::{self, Partition};
use crate::nn::{
    attention, attention_pool, gate, join, layer_norm, layout, linear, pointwise, response_norm, rotary, separable,
    swiglu, tokens, unit_norm,
};
use crate::seed::Rng;

/// How a pass runs.
pub enum Mode<'a> {
    /// Stored statistics, no dropout; activations are let go as soon as nothing reads them.
    Evaluate,
    /// Batch statistics and dropout where the network says so, and all that backward needs is kept.
    Train(&'a mut Rng),
    /// The same, with masks that a GPU has been told, by layer.
    #[cfg(feature = "cuda")]
    Told(&'a BTreeMap<usize, Tensor>),
}

impl Mode<'_> {
    fn trains(&self) -> bool {
        !matches!(self, Self::Evaluate)
    }
}

/// What a layer must remember beside its input and output.
pub(super) enum Saved {
    Nothing,
    Batch(Statistics),
    Mask(Mask),
    /// What a product gave before SiLU or the sigmoid that it applies itself.
    Before(Value),
    /// The output stood ready; the gradient of the weights is not this pass's either.
    Ahead,
}

/// The outputs of a pass that are still needed, layer by layer.
pub struct Tape {
    pub(super) outputs: Vec<Option<Value>>,
    pub(super) saved: Vec<Saved>,
    pub(super) images: usize,
    /// Batch norms whose running statistics have moved.
    pub norms: Vec<(usize, Norm)>,
    /// Gradients that have reached layers whose outputs stood ready.
    pub pending: Pending,
}

impl Tape {
    /// The output of the last layer: [n, numbers], or images as planes, [n, channels, height, width].
    ///
    /// # Errors
    /// A backward pass has used the tape up.
    pub fn result(&self) -> Result<Tensor> {
        self.result_of(self.outputs.len() - 1)
    }

    /// The output of a layer that was kept.
    pub(super) fn result_of(&self, index: usize) -> Result<Tensor> {
        let output = self.output(index)?;
        let result = match output.dims() {
            [images, 1, 1, channels] => output.reshape((*images, *channels))?.copy(),
            _ => layout::planes(output),
        };
        result?.to_dtype(DType::F32)
    }

    /// As `result`, in memory of the pass.
    #[cfg(feature = "cuda")]
    pub(super) fn logits(&self) -> Result<Tensor> {
        self.given(self.outputs.len() - 1)
    }

    /// As `result_of`, in memory of the pass.
    #[cfg(feature = "cuda")]
    pub(super) fn given(&self, index: usize) -> Result<Tensor> {
        let output = self.output(index)?;
        match output.dims() {
            [images, 1, 1, channels] => layout::cast(&output.reshape((*images, *channels))?, DType::F32),
            _ => layout::cast(&layout::planes(output)?, DType::F32),
        }
    }

    pub(super) fn output(&self, index: usize) -> Result<&Value> {
        match &self.outputs[index] {
            Some(value) => Ok(value),
            None => candle_core::bail!("the output of layer {index} was not kept"),
        }
    }
}

/// A convolution with all that it does to an image.
pub(super) struct Product {
    pub(super) conv: Ready,
    pub(super) bias: Option<Tensor>,
    pub(super) activation: Activation,
}

impl Network {
    /// Runs the whole graph on `x` [n, channels, height, width].
    ///
    /// # Errors
    /// The input has another shape than the graph's, or the device fails.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tape> {
        self.pass(x, mode, &BTreeMap::new(), &[])
    }

    /// The same, where the first layers' outputs stand ready.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_from(&self, ahead: &Ahead, mode: Mode) -> Result<Tape> {
        self.pass_from(ahead, mode, &BTreeMap::new(), &[])
    }

    /// One pass; the outputs of the layers in `keep` stay on the tape.
    pub(super) fn pass(
        &self,
        x: &Tensor,
        mode: Mode,
        ready: &BTreeMap<usize, Product>,
        keep: &[usize],
    ) -> Result<Tape> {
        self.pass_from(&Ahead { input: self.input(x)?, outputs: BTreeMap::new() }, mode, ready, keep)
    }

    fn pass_from(
        &self,
        ahead: &Ahead,
        mut mode: Mode,
        ready: &BTreeMap<usize, Product>,
        keep: &[usize],
    ) -> Result<Tape> {
        let layers = &self.graph.layers;
        let input = ahead.input.clone();
        let images = input.dim(0)?;
        let mut read_again = match mode {
            Mode::Evaluate => vec![false; layers.len()],
            _ => self.read_again(),
        };
        keep.iter().for_each(|index| read_again[*index] = true);
        let last_reader = self.last_readers();
        let mut tape = Tape {
            outputs: vec![Some(input)],
            saved: vec![Saved::Nothing],
            images,
            norms: Vec::new(),
            pending: Pending::default(),
        };
        for (index, layer) in layers.iter().enumerate().skip(1) {
            let training = mode.trains();
            let output = if self.is_absorbed(index) || self.is_folded(index, training) || self.is_merged(index) {
                // What stood in the layer below is this layer's output; a padding's input may have other readers.
                let output = tape.output(layer.inputs[0])?.clone();
                if !self.is_merged(index) {
                    tape.outputs[layer.inputs[0]] = None;
                }
                tape.saved.push(Saved::Nothing);
                output
            } else if let Some(output) = ahead.outputs.get(&index) {
                tape.saved.push(Saved::Ahead);
                output.clone()
            } else {
                let (output, saved) = self.layer(index, &mut tape, &mut mode, ready)?;
                tape.saved.push(saved);
                output
            };
            tape.outputs.push(Some(output));
            for input in &layer.inputs {
                let kept = read_again[*input] && !(self.recompute && self.is_cheap(*input));
                if last_reader[*input] == index && !kept {
                    tape.outputs[*input] = None;
                }
            }
        }
        Ok(tape)
    }

    pub(super) fn last_readers(&self) -> Vec<usize> {
        let mut last = vec![usize::MAX; self.graph.layers.len()];
        for (index, layer) in self.graph.layers.iter().enumerate() {
            layer.inputs.iter().for_each(|input| last[*input] = index);
        }
        last
    }

    fn layer(
        &self,
        index: usize,
        tape: &mut Tape,
        mode: &mut Mode,
        ready: &BTreeMap<usize, Product>,
    ) -> Result<(Value, Saved)> {
        let layer = &self.graph.layers[index];
        let params = &self.params[index];
        let x = tape.output(layer.inputs[0])?;
        let fused = function(self.fused(index));
        let output = match &layer.op {
            Op::Input => return Ok((x.clone(), Saved::Nothing)),
            Op::Conv { activation, .. } => {
                let y = match ready.get(&index) {
                    Some(product) => product.conv.apply(x, product.bias.as_ref(), product.activation)?,
                    None => {
                        let (w, bias, activation) = self.product(index, mode.trains())?;
                        conv::forward(&self.geometry(index), x, &w, bias.as_ref(), activation)?
                    }
                };
                return curved(Value::new(y), *activation, mode.trains());
            }
            Op::Separable { .. } => separable::forward(&geometry(&layer.op), x, [&params[0], &params[1]])?,
            Op::Pointwise { .. } => match ready.get(&index) {
                Some(product) => product.conv.apply(x, product.bias.as_ref(), product.activation)?,
                None => pointwise::forward(x, &params[0], params.get(1))?,
            },
            Op::LayerNorm { eps } => layer_norm::forward(x, &params[0], &params[1], *eps)?,
            Op::ResponseNorm { eps } => response_norm::forward(x, &params[0], &params[1], *eps)?,
            Op::UnitNorm => unit_norm::forward(x)?,
            Op::Attention { heads } => attention::forward(x, *heads)?,
            Op::WindowAttention { heads, window, shift } => {
                let windows = Partition { heads: *heads, side: *window, shift: *shift };
                window_attention::forward(x, &params[0], &windows)?
            }
            Op::PatchMerge => window_attention::merge(x)?,
            Op::Crop(padding) => join::unpad(x, *padding)?,
            Op::Rotary { .. } => rotary::forward(x, [&params[0], &params[1]], &self.turn(index)?)?,
            Op::SwiGlu => swiglu::forward(x, tape.output(layer.inputs[1])?)?,
            Op::AttentionPool { heads } => attention_pool::forward(x, tape.output(layer.inputs[1])?, *heads)?,
            Op::Tokens { at, .. } => tokens::insert(x, &params[0], *at)?,
            Op::Positions => tokens::place(x, &params[0])?,
            Op::Token(at) => tokens::take(x, *at, 1)?,
            Op::Patches { skip } => {
                let [channels, height, width] = layer.shape;
                let y = Value::new(tokens::take(x, *skip, height * width)?);
                return Ok((y.reshaped((tape.images, height, width, channels))?, Saved::Nothing));
            }
            Op::BatchNorm { eps, momentum, unbiased, .. } => {
                if mode.trains() && self.uses_batch(index) {
                    let follow = Follow { momentum: *momentum, unbiased: *unbiased };
                    let (y, statistics, moved) = norm::batch(&self.norm(index)?, *eps, follow, x, fused)?;
                    tape.norms.push((index, moved));
                    return Ok((Value::new(y), Saved::Batch(statistics)));
                }
                norm::stored(&self.norm(index)?, *eps, x, fused)?
            }
            Op::Activation(own) => match (curve(*own), function(*own)) {
                (Some(curve), _) => curve::forward(x, curve)?,
                (None, Activation::Linear) => return Ok((x.clone(), Saved::Nothing)),
                (None, activation) => activation::forward(x, activation)?,
            },
            Op::ZeroPad(padding) => join::pad(x, *padding)?,
            Op::Pool { reduce, .. } | Op::GridPool { reduce, .. } => {
                pool::forward(&windows(&layer.op), reduction(*reduce), x)?
            }
            Op::Flatten => {
                let flat = self.vectors(x)?;
                let size = flat.dim(1)?;
                return Ok((flat.reshaped((tape.images, 1, 1, size))?, Saved::Nothing));
            }
            Op::Linear { out, activation } => {
                let y = linear::forward(&*self.vectors(x)?, &params[0], &params[1], function(*activation))?;
                return curved(Value::new(y).reshaped((tape.images, 1, 1, *out))?, *activation, mode.trains());
            }
            Op::Scale => gate::scale(x, tape.output(layer.inputs[1])?)?,
            Op::Rescale(_) | Op::Normalize | Op::Standardize { .. } | Op::LayerScale { .. } => {
                norm::stored(&self.norm(index)?, 0.0, x, Activation::Linear)?
            }
            Op::Add => join::add(x, tape.output(layer.inputs[1])?, fused)?,
            Op::Concat => {
                let parts: Vec<&Value> = layer.inputs.iter().map(|input| tape.output(*input)).collect::<Result<_>>()?;
                join::concat(&parts.iter().map(|part| &***part).collect::<Vec<&Tensor>>())?
            }
            Op::Shortcut { stride, channels } => join::shortcut(x, *stride, *channels)?,
            Op::Dropout(_) | Op::DropPath(_) => {
                let mask = match (mode, drops(self, index, tape.images)) {
                    (Mode::Train(rng), Some((p, count))) => Mask::Drawn(drawn(p, count, rng)),
                    #[cfg(feature = "cuda")]
                    (Mode::Told(masks), Some(_)) => match masks.get(&index) {
                        Some(mask) => Mask::Told(mask.clone()),
                        None => candle_core::bail!("layer {index} has no mask"),
                    },
                    _ => return Ok((x.clone(), Saved::Nothing)),
                };
                return Ok((Value::new(mask.over(x)?), Saved::Mask(mask)));
            }
        };
        Ok((Value::new(output), Saved::Nothing))
    }

    /// What a convolution multiplies with, adds and applies: its own, or with the batch norm and the activation behind it
    /// where both stand still.
    pub(super) fn product(&self, index: usize, training: bool) -> Result<(Value, Option<Tensor>, Activation)> {
        let (w, bias) = (&self.params[index][0], self.params[index].get(1));
        let behind = self.folds(index, training);
        match (&self.graph.layers[index].op, behind.map(|norm| (norm, &self.graph.layers[norm].op))) {
            (Op::Conv { .. }, Some((norm, Op::BatchNorm { eps, .. }))) => {
                let [w, bias] = norm::folded(&self.norm(norm)?, *eps, w, bias)?;
                Ok((Value::new(w), Some(bias), function(self.fused(norm))))
            }
            (Op::Conv { activation, .. }, _) => Ok((Value::borrowed(w), bias.cloned(), function(*activation))),
            _ => candle_core::bail!("layer {index} is no convolution"),
        }
    }

    /// Images as vectors [n, channels * height * width], in the order of the network's framework.
    pub(super) fn vectors(&self, x: &Value) -> Result<Value> {
        let images = x.dim(0)?;
        let numbers = x.elem_count() / images;
        match (x.dims(), self.graph.framework) {
            ([_, 1, 1, _], _) | (_, Framework::Keras) => x.reshaped((images, numbers)),
            (_, Framework::Torch) => Value::new(layout::planes(x)?).reshaped((images, numbers)),
        }
    }

    /// Computes an output again that was not kept, and puts it back on the tape: the same bits as the first time.
    pub(super) fn again(&self, index: usize, tape: &mut Tape) -> Result<()> {
        if tape.outputs[index].is_some() {
            return Ok(());
        }
        let source = if self.is_absorbed(index) { self.graph.layers[index].inputs[0] } else { index };
        let layer = &self.graph.layers[source];
        let x = tape.output(layer.inputs[0])?;
        let output = match (&layer.op, &tape.saved[source]) {
            (Op::BatchNorm { .. }, Saved::Batch(statistics)) => {
                norm::batch_again(statistics, x, function(self.fused(source)))?
            }
            (Op::BatchNorm { eps, .. }, _) => norm::stored(&self.norm(source)?, *eps, x, function(self.fused(source)))?,
            _ => candle_core::bail!("the output of layer '{}' was not kept", layer.name),
        };
        tape.outputs[index] = Some(Value::new(output));
        Ok(())
    }
}

/// What a product gives behind SiLU or the sigmoid, if it applies one; a training pass keeps what was before it.
fn curved(y: Value, activation: graph::Activation, training: bool) -> Result<(Value, Saved)> {
    let Some(curve) = curve(activation) else { return Ok((y, Saved::Nothing)) };
    let output = Value::new(curve::forward(&y, curve)?);
    Ok((output, if training { Saved::Before(y) } else { Saved::Nothing }))
}
