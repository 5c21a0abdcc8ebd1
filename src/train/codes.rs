//! What is read of a pass through frozen layers: the output of a layer, or the pooled outputs of one or several taps.

use std::rc::Rc;

use candle_core::{Device, Tensor};

use crate::exec::Network;
use crate::model::freezing::{pooled, taps};
use crate::model::graph::Graph;
use crate::recipe::Pool;

/// A layer of a pass, and what stands between it and what is read: the pooling of the head.
#[derive(Clone)]
pub struct Piece {
    layer: usize,
    tail: Option<Rc<Network>>,
}

/// Where `pass` has what stands at the layer `cut` of a backbone with its pooling, if it has it; `pool` is none where the cut is
/// below that.
///
/// # Errors
/// Only those of the device.
pub fn pieces(
    backbone: &Graph,
    pool: Option<Pool>,
    cut: usize,
    pass: &Network,
    device: &Device,
) -> candle_core::Result<Option<Vec<Piece>>> {
    let find = |layer: usize| {
        let found = pass.graph.find(&backbone.layers[layer].name);
        found.filter(|layer| pass.stands_alone(*layer))
    };
    let (Some(pool), true) = (pool, cut > backbone.last()) else {
        return Ok(find(cut).map(|layer| vec![Piece { layer, tail: None }]));
    };
    let mut pieces = Vec::new();
    for tap in taps(backbone) {
        let own = backbone.truncate(tap);
        let Some(layer) = find(tap) else { return Ok(None) };
        let tail = Network::new(pooled(&own, pool).above(own.last()), &Default::default(), device)?;
        pieces.push(Piece { layer, tail: Some(Rc::new(tail)) });
    }
    Ok(Some(pieces))
}

/// The layers that pieces read of their pass, in their order.
pub fn layers(pieces: &[Piece]) -> impl Iterator<Item = usize> {
    pieces.iter().map(|part| part.layer)
}

/// What pieces make of the outputs of their layers, side by side: images [n, channels, height, width].
///
/// # Errors
/// The outputs are not those of these layers.
pub fn joined(pieces: &[Piece], pass: &Network, outputs: &[Tensor]) -> candle_core::Result<Tensor> {
    let of = |(part, output): (&Piece, &Tensor)| {
        let output = pass.as_images(part.layer, output)?;
        match &part.tail {
            Some(tail) => tail.as_images(tail.graph.last(), &tail.infer(&output)?),
            None => Ok(output),
        }
    };
    let found = pieces.iter().zip(outputs).map(of).collect::<candle_core::Result<Vec<Tensor>>>()?;
    match found.as_slice() {
        [one] => Ok(one.clone()),
        several => Tensor::cat(several, 1),
    }
}
