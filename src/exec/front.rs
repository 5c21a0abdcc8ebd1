//! The first layers that train, of several networks that read the same batch: one product for all of them, instead of one
//! for each. Every network's numbers have the bits that they have when it runs alone.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

use super::Network;
use super::meaning::{curve, function};
use super::value::Value;
use crate::model::graph::Op;
use crate::nn::{conv, join, layout, linear, numbers};

/// The gradients of some layers' parameters, by layer.
pub type OfLayers = Vec<(usize, Vec<Tensor>)>;

/// Which layers of networks like one these are.
pub struct Front {
    layers: Vec<usize>,
}

/// What stands ready for a pass of one network: its input, and outputs of layers.
pub struct Ahead {
    pub(super) input: Value,
    pub(super) outputs: BTreeMap<usize, Value>,
}

/// The gradients of the outputs of a front's layers, before their activations, of one network.
#[derive(Default)]
pub struct Pending(pub(super) BTreeMap<usize, Value>);

impl Front {
    /// The convolutions and linear layers that train and read the input itself; none where there are none, and on devices
    /// that are no CPU: only there both ways have the same bits, so that a measurement may choose.
    pub fn of(network: &Network) -> Option<Self> {
        let layers = &network.graph.layers;
        let reads_input = |index: usize| match &layers[index].op {
            Op::Conv { activation, .. } | Op::Linear { activation, .. } if curve(*activation).is_some() => false,
            Op::Conv { groups: 1, .. } => network.source(index) == 0,
            Op::Linear { .. } => {
                let below = layers[index].inputs[0];
                below == 0 || matches!(layers[below].op, Op::Flatten) && layers[below].inputs[0] == 0
            }
            _ => false,
        };
        let learns_all = |index: usize| (0..network.params[index].len()).all(|which| network.learns(index, which));
        let own = (1..layers.len()).filter(|index| learns_all(*index) && reads_input(*index)).collect::<Vec<_>>();
        (!own.is_empty() && network.device.is_cpu()).then_some(Self { layers: own })
    }

    /// The outputs of these layers for all of the networks on `x` [n, channels, height, width].
    ///
    /// # Errors
    /// The networks are not alike, or x has another shape.
    pub fn forward(&self, networks: &[&Network], x: &Tensor) -> Result<Vec<Ahead>> {
        let input = networks[0].input(x)?;
        let mut ahead: Vec<Ahead> =
            networks.iter().map(|_| Ahead { input: input.clone(), outputs: BTreeMap::new() }).collect();
        for index in &self.layers {
            let outputs = self.layer(*index, networks, &input)?;
            for (ahead, output) in ahead.iter_mut().zip(outputs) {
                ahead.outputs.insert(*index, output);
            }
        }
        Ok(ahead)
    }

    fn layer(&self, index: usize, networks: &[&Network], input: &Value) -> Result<Vec<Value>> {
        let first = networks[0];
        let params = |which: usize| networks.iter().map(|network| &network.params[index][which]).collect::<Vec<_>>();
        match &first.graph.layers[index].op {
            Op::Conv { bias, activation, .. } => {
                let biases = bias.then(|| params(1));
                let geometry = first.geometry(index);
                let y = conv::forward_several(&geometry, input, &params(0), biases.as_deref(), function(*activation))?;
                Ok(y.into_iter().map(Value::new).collect())
            }
            Op::Linear { out, activation } => {
                let (w, bias) = (Value::new(join::stack(&params(0))?), Value::new(join::stack(&params(1))?));
                let x = first.vectors(input)?;
                let y = linear::forward(&x, &w, &bias, function(*activation))?;
                let y = Value::new(y).reshaped((x.dim(0)?, 1, 1, networks.len() * out))?;
                (0..networks.len()).map(|place| Ok(Value::new(join::part(&y, place * out, *out)?))).collect()
            }
            other => candle_core::bail!("{other:?} is no layer of a front"),
        }
    }

    /// The gradients of the parameters of these layers, network by network, from what their passes left over.
    ///
    /// # Errors
    /// A network's pass did not reach down to a layer.
    pub fn backward(&self, networks: &[&Network], input: &Ahead, pending: &[Pending]) -> Result<Vec<OfLayers>> {
        let mut found: Vec<OfLayers> = networks.iter().map(|_| Vec::new()).collect();
        for index in self.layers.iter().rev() {
            let dys: Option<Vec<&Value>> = pending.iter().map(|own| own.0.get(index)).collect();
            let Some(dys) = dys else { candle_core::bail!("no gradient has reached layer {index}") };
            for (found, own) in found.iter_mut().zip(self.layer_backward(*index, networks, &input.input, &dys)?) {
                found.push((*index, own));
            }
        }
        Ok(found)
    }

    fn layer_backward(
        &self,
        index: usize,
        networks: &[&Network],
        input: &Value,
        dys: &[&Value],
    ) -> Result<Vec<Vec<Tensor>>> {
        let first = networks[0];
        match &first.graph.layers[index].op {
            Op::Conv { bias, .. } => {
                let ws: Vec<&Tensor> = networks.iter().map(|network| &network.params[index][0]).collect();
                let dys: Vec<&Tensor> = dys.iter().map(|dy| &***dy).collect();
                let dws = conv::weight_gradients(&first.geometry(index), input, &ws, &dys)?;
                let own = |(dw, dy): (Tensor, &&Tensor)| match bias {
                    true => Ok(vec![dw, conv::bias_gradient(dy)?]),
                    false => Ok(vec![dw]),
                };
                dws.into_iter().zip(&dys).map(own).collect()
            }
            Op::Linear { out, .. } => {
                let x = first.vectors(input)?;
                let images = x.dim(0)?;
                let dys: Vec<Value> =
                    dys.iter().map(|dy| dy.reshaped((images, 1, 1, *out))).collect::<Result<Vec<_>>>()?;
                let dy = join::concat(&dys.iter().map(|dy| &**dy).collect::<Vec<_>>())?;
                let dy = Value::new(dy).reshaped((images, networks.len() * out))?;
                let [dw, db] = linear::heads_backward(&x, &dy, networks.len())?;
                let (dw, db) = (Value::new(dw), Value::new(db));
                let own = join::unstack(&dw, networks.len())?.into_iter().zip(join::unstack(&db, networks.len())?);
                Ok(own.map(|(dw, db)| vec![dw, db]).collect())
            }
            other => candle_core::bail!("{other:?} is no layer of a front"),
        }
    }
}

impl Network {
    /// A batch [n, channels, height, width] as passes read it.
    pub(super) fn input(&self, x: &Tensor) -> Result<Value> {
        let [channels, height, width] = self.graph.layers[0].shape;
        let (images, ..) = x.dims4()?;
        if x.dims()[1..] != self.graph.layers[0].shape {
            candle_core::bail!("the network reads {:?}, not {:?}", self.graph.layers[0].shape, x.shape());
        }
        let numbers = numbers(&self.device);
        if height * width == 1 {
            return Value::borrowed(&layout::cast(x, numbers)?).reshaped((images, 1, 1, channels));
        }
        Ok(Value::new(layout::channels_last_as(x, numbers)?))
    }
}
