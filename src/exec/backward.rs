//! The backward pass: gradients of the parameters that train, and of nothing else.

use candle_core::{Result, Tensor};

use super::forward::Saved;
use super::meaning::{curve, function, geometry, reduction, windows};
use super::value::Value;
use super::{Network, Tape};
use crate::model::graph::{self, Op};
use crate::nn::activation::Activation;
use crate::nn::optim::clip;
use crate::nn::window_attention::{self, Partition};
use crate::nn::{self, activation, attention, attention_pool, buffer, conv, curve, gate, join};
use crate::nn::{
    layer_norm, layout, linear, norm, pointwise, pool, response_norm, rotary, separable, swiglu, tokens, unit_norm,
};

/// Gradients of learned parameters, per layer in the order of `Graph::params`; empty where nothing trains.
pub struct Gradients(pub Vec<Vec<Tensor>>);

impl Drop for Gradients {
    fn drop(&mut self) {
        for gradient in self.0.drain(..).flatten() {
            // Memory that cannot be kept is freed like any other.
            let _ = buffer::recycle(gradient);
        }
    }
}

/// The gradients of a layer's inputs, where wanted, and of its learned parameters, if they train.
type Flows = (Vec<Option<Value>>, Vec<Tensor>);

impl Network {
    /// Walks the tape backwards from the gradient `dy` of the last output, and uses it up: what is done with is let go.
    /// Stops at the lowest layer that trains: below it no gradient exists, of inputs or of parameters.
    ///
    /// # Errors
    /// The tape is not of a training pass, or was used before.
    pub fn backward(&self, tape: &mut Tape, dy: Tensor) -> Result<Gradients> {
        let mut gradients = Gradients(vec![Vec::new(); self.graph.layers.len()]);
        self.backward_into(tape, dy, &mut |index, own| {
            gradients.0[index] = own;
            Ok(())
        })?;
        Ok(gradients)
    }

    /// The same, handing over each layer's gradients as soon as they are there, from the last layer to the first. The
    /// layer itself is not read again in this pass: its parameters may change.
    ///
    /// # Errors
    /// As `backward`, and those of `take`.
    pub fn backward_into(
        &self,
        tape: &mut Tape,
        dy: Tensor,
        take: &mut dyn FnMut(usize, Vec<Tensor>) -> Result<()>,
    ) -> Result<()> {
        let layers = &self.graph.layers;
        let (wanted, read_again) = (self.reaches_training(), self.read_again());
        let mut flows: Vec<Option<Value>> = vec![None; layers.len()];
        let [channels, height, width] = layers[layers.len() - 1].shape;
        let dy = layout::cast(&dy, nn::numbers(&self.device))?;
        flows[layers.len() - 1] = Some(Value::borrowed(&dy).reshaped((tape.images, height, width, channels))?);
        for index in (1..layers.len()).rev() {
            let inputs = &layers[index].inputs;
            if let Some(dy) = flows[index].take().filter(|_| wanted[index]) {
                for needed in inputs.iter().chain([&index]) {
                    if read_again[*needed] {
                        self.again(*needed, tape)?;
                    }
                }
                let want: Vec<bool> = inputs.iter().map(|input| wanted[*input]).collect();
                let (flow, own) = match tape.saved[index] {
                    Saved::Ahead => {
                        let dy = self.before_activation(tape, index, dy, self.activation(index))?;
                        tape.pending.0.insert(index, dy);
                        (Vec::new(), Vec::new())
                    }
                    _ => self.layer_backward(index, tape, dy, &want)?,
                };
                let own = self.wanted(index, own)?;
                if !own.is_empty() {
                    take(index, own)?;
                }
                for (input, flow) in inputs.iter().zip(flow) {
                    flows[*input] = match (flows[*input].take(), flow) {
                        (Some(old), Some(new)) => Some(Value::new(join::add(&old, &new, Activation::Linear)?)),
                        (old, new) => old.or(new),
                    };
                }
            }
            if matches!(tape.saved[index], Saved::Before(_)) {
                tape.saved[index] = Saved::Nothing;
            }
            // A fused pair's output is read once more, by the layer that made it.
            if self.is_absorbed(index) {
                tape.outputs[inputs[0]] = tape.outputs[index].take();
            }
            tape.outputs[index] = None;
        }
        Ok(())
    }

    /// The same; with a limit, gradients are scaled so that their global norm is no more than that. They are all needed for it,
    /// and handed over when all are there.
    ///
    /// # Errors
    /// As `backward_into`.
    pub fn backward_clipped(
        &self,
        tape: &mut Tape,
        dy: Tensor,
        limit: Option<f64>,
        take: &mut dyn FnMut(usize, Vec<Tensor>) -> Result<()>,
    ) -> Result<()> {
        let Some(limit) = limit else { return self.backward_into(tape, dy, take) };
        let mut gradients = self.backward(tape, dy)?;
        clip(gradients.0.iter_mut().flatten(), limit)?;
        let layers = gradients.0.iter_mut().map(std::mem::take).enumerate();
        layers.filter(|(_, own)| !own.is_empty()).try_for_each(|(layer, own)| take(layer, own))
    }

    fn layer_backward(&self, index: usize, tape: &Tape, dy: Value, want: &[bool]) -> Result<Flows> {
        let layer = &self.graph.layers[index];
        let params = &self.params[index];
        // Of a product the weights may stand still while its biases train.
        let (learn, weighs) = (self.trains(index), self.learns(index, 0));
        let adds = self.learns(index, 1);
        let input = || tape.output(layer.inputs[0]);
        let only = |dx: Tensor| Ok((vec![Some(Value::new(dx))], Vec::new()));
        let shape = match layer.op {
            Op::Input => layer.shape,
            _ => self.graph.layers[self.source(index)].shape,
        };
        match &layer.op {
            Op::Conv { bias, activation, .. } => {
                let (dy, db) = match function(*activation) {
                    own if adds && *bias && own != Activation::Linear => {
                        let [before, db] = conv::before_activation(tape.output(index)?, &dy, own)?;
                        // Shadowed it would live on beside the other.
                        drop(dy);
                        (Value::new(before), Some(db))
                    }
                    _ => {
                        let dy = self.before_activation(tape, index, dy, *activation)?;
                        let db = (adds && *bias).then(|| conv::bias_gradient(&dy)).transpose()?;
                        (dy, db)
                    }
                };
                let shape = [tape.images, shape[1], shape[2], shape[0]];
                let x = if weighs { Some(&**input()?) } else { None };
                let [dx, dw] = conv::backward(&self.geometry(index), shape, x, &params[0], &dy, want[0])?;
                Ok((vec![dx.map(Value::new)], dw.into_iter().chain(db).collect()))
            }
            Op::Separable { .. } => {
                let asked = [want[0], learn];
                let (dx, own) =
                    separable::backward(&geometry(&layer.op), input()?, [&params[0], &params[1]], &dy, asked)?;
                Ok((vec![dx.map(Value::new)], own.into_iter().flatten().collect()))
            }
            Op::Pointwise { .. } => {
                let x = if weighs { Some(&**input()?) } else { None };
                let [dx, dw] = pointwise::backward(x, &params[0], &dy, want[0])?;
                let db = adds.then(|| conv::bias_gradient(&dy)).transpose()?;
                Ok((vec![dx.map(Value::new)], dw.into_iter().chain(db).collect()))
            }
            Op::LayerNorm { eps } => {
                let (dx, own) = layer_norm::backward(input()?, &params[0], *eps, &dy)?;
                Ok((vec![Some(Value::new(dx))], own.into_iter().filter(|_| learn).collect()))
            }
            Op::ResponseNorm { eps } => {
                let (dx, own) = response_norm::backward(input()?, &params[0], *eps, &dy)?;
                Ok((vec![Some(Value::new(dx))], own.into_iter().filter(|_| learn).collect()))
            }
            Op::UnitNorm => only(unit_norm::backward(input()?, &dy)?),
            Op::Attention { heads } => only(attention::backward(input()?, &dy, *heads)?),
            Op::WindowAttention { heads, window, shift } => {
                let windows = Partition { heads: *heads, side: *window, shift: *shift };
                let (dx, own) = window_attention::backward(input()?, &params[0], &dy, &windows, learn)?;
                Ok((vec![Some(Value::new(dx))], own.into_iter().collect()))
            }
            Op::PatchMerge => only(window_attention::merge_backward(&dy)?),
            Op::Crop(padding) => only(join::pad(&dy, *padding)?),
            Op::Rotary { .. } => {
                let dx = rotary::backward(&dy, &self.turn(index)?)?;
                let own = if learn { rotary::bias_gradients(&dx)?.into() } else { Vec::new() };
                Ok((vec![Some(Value::new(dx))], own))
            }
            Op::SwiGlu => {
                let [dgate, dx] = swiglu::backward(input()?, tape.output(layer.inputs[1])?, &dy)?;
                Ok((vec![Some(Value::new(dgate)), Some(Value::new(dx))], Vec::new()))
            }
            Op::AttentionPool { heads } => {
                let [dx, dkeys] = attention_pool::backward(input()?, tape.output(layer.inputs[1])?, &dy, *heads)?;
                Ok((vec![Some(Value::new(dx)), Some(Value::new(dkeys))], Vec::new()))
            }
            Op::Tokens { at, count } => {
                let [dx, own] = tokens::insert_backward(&dy, *at, *count)?;
                let dx = Value::new(dx).reshaped((tape.images, shape[1], shape[2], shape[0]))?;
                Ok((vec![Some(dx)], learn.then_some(own).into_iter().collect()))
            }
            Op::Positions => {
                let own = learn.then(|| tokens::place_gradient(&dy)).transpose()?;
                Ok((vec![Some(dy)], own.into_iter().collect()))
            }
            Op::Token(at) | Op::Patches { skip: at } => only(tokens::take_backward(&dy, *at, shape[1] * shape[2])?),
            Op::LayerScale { .. } => {
                let norm = self.norm(index)?;
                let (dx, own) = norm::stored_backward(&norm, 0.0, input()?, &dy, Activation::Linear, learn)?;
                Ok((vec![Some(Value::new(dx))], own.into_iter().map(|[dweight, _]| dweight).collect()))
            }
            Op::Linear { activation, .. } => {
                let dy = self.before_activation(tape, index, dy, *activation)?;
                let dy = dy.reshaped((tape.images, layer.shape[0]))?;
                let x = if weighs { Some(self.vectors(input()?)?) } else { None };
                let (dx, own) = linear::backward(x.as_deref(), &params[0], &dy, want[0])?;
                let sums = || conv::bias_gradient(&*dy.reshaped((tape.images, 1, 1, layer.shape[0]))?);
                let alone = (adds && !weighs).then(sums).transpose()?;
                let dx = dx.map(|dx| self.unflattened(Value::new(dx), index, tape)).transpose()?;
                Ok((vec![dx], own.into_iter().flatten().chain(alone).collect()))
            }
            Op::BatchNorm { eps, scale, .. } => {
                let fused = function(self.fused(index));
                let (dx, own) = match &tape.saved[index] {
                    Saved::Batch(statistics) => {
                        let (dx, own) = norm::batch_backward(statistics, input()?, &dy, fused)?;
                        (dx, Some(own))
                    }
                    _ => norm::stored_backward(&self.norm(index)?, *eps, input()?, &dy, fused, learn)?,
                };
                Ok((
                    vec![Some(Value::new(dx))],
                    own.filter(|_| learn).map_or_else(Vec::new, |own| own[usize::from(!scale)..].to_vec()),
                ))
            }
            Op::Activation(_) if self.is_absorbed(index) => Ok((vec![Some(dy)], Vec::new())),
            Op::Activation(activation) => {
                Ok((vec![Some(self.before_activation(tape, index, dy, *activation)?)], Vec::new()))
            }
            Op::ZeroPad(_) if self.is_merged(index) => Ok((vec![Some(dy)], Vec::new())),
            Op::ZeroPad(padding) => only(join::unpad(&dy, *padding)?),
            Op::Pool { reduce, .. } | Op::GridPool { reduce, .. } => {
                only(self.pool_backward(index, *reduce, tape, &dy)?)
            }
            Op::Flatten => Ok((vec![Some(self.unflattened(dy, index, tape)?)], Vec::new())),
            Op::Add => {
                let dy = self.before_activation(tape, index, dy, self.fused(index))?;
                Ok((vec![Some(dy.clone()), Some(dy)], Vec::new()))
            }
            Op::Scale => {
                let (x, by) = (input()?, tape.output(layer.inputs[1])?);
                let dx = want[0].then(|| gate::scale(&dy, by)).transpose()?;
                let dgate = want[1].then(|| gate::gate_gradient(x, &dy)).transpose()?;
                Ok((vec![dx.map(Value::new), dgate.map(Value::new)], Vec::new()))
            }
            Op::Rescale(_) | Op::Normalize | Op::Standardize { .. } => {
                only(norm::stored_backward(&self.norm(index)?, 0.0, input()?, &dy, Activation::Linear, false)?.0)
            }
            Op::Concat => {
                let mut start = 0;
                let mut parts = Vec::new();
                for (input, want) in layer.inputs.iter().zip(want) {
                    let channels = self.graph.layers[*input].shape[0];
                    parts.push(if *want { Some(Value::new(join::part(&dy, start, channels)?)) } else { None });
                    start += channels;
                }
                Ok((parts, Vec::new()))
            }
            Op::Shortcut { stride, .. } => {
                only(join::shortcut_backward(&dy, *stride, [tape.images, shape[1], shape[2], shape[0]])?)
            }
            Op::Dropout(_) | Op::DropPath(_) => match &tape.saved[index] {
                Saved::Mask(mask) => only(mask.over(&dy)?),
                _ => Ok((vec![Some(dy)], Vec::new())),
            },
            Op::Input => Ok((vec![Some(dy)], Vec::new())),
        }
    }

    /// Of the gradients of a layer's learned parameters those that train: `own` has them all, or these alone.
    fn wanted(&self, index: usize, own: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let learned = self.graph.params(index).iter().filter(|param| param.learned).count();
        if own.len() < learned || own.is_empty() {
            return Ok(own);
        }
        let mut kept = Vec::with_capacity(learned);
        for (which, gradient) in own.into_iter().enumerate() {
            if self.learns(index, which) {
                kept.push(gradient);
            } else {
                buffer::recycle(gradient)?;
            }
        }
        Ok(kept)
    }

    fn pool_backward(&self, index: usize, reduce: graph::Reduce, tape: &Tape, dy: &Tensor) -> Result<Tensor> {
        let (windows, input) = (windows(&self.graph.layers[index].op), self.graph.layers[index].inputs[0]);
        let [channels, height, width] = self.graph.layers[input].shape;
        if reduce == graph::Reduce::Max {
            return pool::max_backward(&windows, tape.output(input)?, tape.output(index)?, dy);
        }
        pool::avg_backward(&windows, reduction(reduce), (tape.images, height, width, channels), dy)
    }

    /// A gradient of vectors as one of the images that were flattened into them.
    fn unflattened(&self, dx: Value, index: usize, tape: &Tape) -> Result<Value> {
        let [channels, height, width] = self.graph.layers[self.graph.layers[index].inputs[0]].shape;
        if height * width == 1 || self.graph.framework == graph::Framework::Keras {
            return dx.reshaped((tape.images, height, width, channels));
        }
        let planes = dx.reshaped((tape.images, channels, height, width))?;
        Ok(Value::new(layout::channels_last(&planes)?))
    }

    /// The activation that a product applies itself.
    fn activation(&self, index: usize) -> graph::Activation {
        match &self.graph.layers[index].op {
            Op::Conv { activation, .. } | Op::Linear { activation, .. } => *activation,
            _ => graph::Activation::Linear,
        }
    }

    /// The gradient of what a layer computed before its activation.
    fn before_activation(&self, tape: &Tape, index: usize, dy: Value, own: graph::Activation) -> Result<Value> {
        if let Some(curve) = curve(own) {
            let x = match &tape.saved[index] {
                Saved::Before(x) => x,
                _ => tape.output(self.graph.layers[index].inputs[0])?,
            };
            return Ok(Value::new(curve::backward(x, &dy, curve)?));
        }
        match function(own) {
            Activation::Linear => Ok(dy),
            own => Ok(Value::new(activation::backward(tape.output(index)?, &dy, own)?)),
        }
    }
}
