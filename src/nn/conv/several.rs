//! One input, the weights of several networks: one product for all of them. Each network's numbers have the bits that they
//! have when it is alone.

use candle_core::{Result, Tensor, bail};

use super::{Conv, Sizes};
use crate::nn::activation::Activation;
use crate::nn::buffer;
use crate::nn::gemm::block;
use crate::nn::join;

/// What `forward` gives for `x` and each of the weights `ws`, all of one shape, with their biases.
///
/// # Errors
/// As `forward`.
pub fn forward_several(
    conv: &Conv,
    x: &Tensor,
    ws: &[&Tensor],
    biases: Option<&[&Tensor]>,
    activation: Activation,
) -> Result<Vec<Tensor>> {
    if !conv.together(x.dims4()?, ws)? {
        let bias = |index: usize| biases.map(|biases| biases[index]);
        let own = |(index, w): (usize, &&Tensor)| super::forward(conv, x, w, bias(index), activation);
        return ws.iter().enumerate().map(own).collect();
    }
    let bias = biases.map(join::stack).transpose()?;
    let w = join::stack(ws)?;
    let y = super::forward(conv, x, &w, bias.as_ref(), activation)?;
    buffer::recycle(w)?;
    let out = ws[0].dim(0)?;
    let parts = (0..ws.len()).map(|index| join::part(&y, index * out, out)).collect();
    buffer::recycle(y)?;
    parts
}

/// The gradients of the weights `ws` that read the same `x`, from those of their outputs before the activation.
///
/// # Errors
/// As `backward`.
pub fn weight_gradients(conv: &Conv, x: &Tensor, ws: &[&Tensor], dys: &[&Tensor]) -> Result<Vec<Tensor>> {
    let dims = x.dims4()?;
    let shape = [dims.0, dims.1, dims.2, dims.3];
    if ws.len() != dys.len() {
        bail!("{} gradients do not fit {} networks", dys.len(), ws.len());
    }
    let gradient = |w: &Tensor, dy: &Tensor| {
        let [_, dw] = super::backward(conv, shape, Some(x), w, dy, false)?;
        dw.ok_or_else(|| candle_core::Error::Msg("a convolution gave no gradient".to_owned()))
    };
    if !conv.together(dims, ws)? || !conv.sums_alike(dims, ws)? {
        return ws.iter().zip(dys).map(|(w, dy)| gradient(w, dy)).collect();
    }
    let (w, dy) = (join::stack(ws)?, join::concat(dys)?);
    let dw = gradient(&w, &dy)?;
    buffer::recycle(w)?;
    buffer::recycle(dy)?;
    let parts = join::unstack(&dw, ws.len());
    buffer::recycle(dw)?;
    parts
}

impl Conv {
    /// Whether the networks' outputs side by side are computed as each alone is.
    fn together(&self, x: (usize, usize, usize, usize), ws: &[&Tensor]) -> Result<bool> {
        let Some((alone, all)) = self.both(x, ws)? else { return Ok(false) };
        Ok(self.groups == 1 && self.tiled(&alone).is_some() == self.tiled(&all).is_some())
    }

    /// Whether the gradients of their weights are summed in the same order: tiles always are, the other way takes blocks of
    /// rows that follow from the number of columns.
    fn sums_alike(&self, x: (usize, usize, usize, usize), ws: &[&Tensor]) -> Result<bool> {
        let Some((alone, all)) = self.both(x, ws)? else { return Ok(false) };
        Ok(self.tiled(&alone).is_some() || block(alone.out) == block(all.out))
    }

    /// The sizes of one network's product, and of all of them side by side.
    fn both(&self, x: (usize, usize, usize, usize), ws: &[&Tensor]) -> Result<Option<(Sizes, Sizes)>> {
        let Some(first) = ws.first() else { return Ok(None) };
        let own = first.dims4()?;
        if ws.iter().any(|w| w.shape() != first.shape()) {
            bail!("weights of several networks that read one input have one shape");
        }
        let alone = self.sizes(x, own)?;
        if self.groups != 1 {
            return Ok(None);
        }
        Ok(Some((alone, self.sizes(x, (own.0 * ws.len(), own.1, own.2, own.3))?)))
    }
}
