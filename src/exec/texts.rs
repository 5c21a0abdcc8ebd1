//! Texts through CLIP's side of them: from tokens to vectors of unit length, where images are.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, bail};

use super::meaning::curve;
use crate::model::texts::{Block, EPS, TextSide};
use crate::nn::{causal, curve as activation, layer_norm, pointwise, unit_norm};

/// Texts of one pass. Results do not depend on it.
const AT_ONCE: usize = 64;

/// Vectors [texts, joint] of texts that end with the token of the largest number, as CLIP's do.
///
/// # Errors
/// A text has more tokens than there are positions, or one that is not in the vocabulary.
pub fn embeds(side: &TextSide, texts: &[Vec<u32>]) -> Result<Tensor> {
    let mut of_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, text) in texts.iter().enumerate() {
        // What comes behind the end is seen by nobody.
        of_length.entry(end(text)? + 1).or_default().push(index);
    }
    let joint = side.projection.dim(0)?;
    let mut rows = vec![Vec::new(); texts.len()];
    for (length, which) in of_length {
        for which in which.chunks(AT_ONCE) {
            let tokens: Vec<u32> = which.iter().flat_map(|index| texts[*index][..length].iter().copied()).collect();
            let found = of_one_length(side, &tokens, length)?.reshape((which.len(), joint))?.to_vec2::<f32>()?;
            for (index, row) in which.iter().zip(found) {
                rows[*index] = row;
            }
        }
    }
    Tensor::from_vec(rows.concat(), (texts.len(), joint), &Device::Cpu)
}

/// Where a text ends: the first token of the largest number.
fn end(text: &[u32]) -> Result<usize> {
    let Some(most) = text.iter().max() else { bail!("a text without tokens") };
    Ok(text.iter().position(|token| token == most).unwrap_or(0))
}

fn of_one_length(side: &TextSide, tokens: &[u32], length: usize) -> Result<Tensor> {
    let ([vocabulary, width], context) = (<[usize; 2]>::from(side.tokens.dims2()?), side.context());
    if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
        bail!("the tokenizer gives token {token}, and the weights have {vocabulary}: it is of another network");
    }
    if length > context {
        bail!("a text of {length} tokens, where there are positions for {context}");
    }
    let count = tokens.len() / length;
    let index = Tensor::from_slice(tokens, tokens.len(), &Device::Cpu)?;
    let x = side.tokens.index_select(&index, 0)?.reshape((count, length, width))?;
    let mut x = x.broadcast_add(&side.positions.narrow(0, 0, length)?)?.reshape((count, length, 1, width))?;
    for block in &side.blocks {
        x = through(side, block, &x)?;
    }
    let last = x.narrow(1, length - 1, 1)?.contiguous()?;
    let [weight, bias] = &side.norm;
    let last = layer_norm::forward(&last, weight, bias, EPS)?;
    unit_norm::forward(&pointwise::forward(&last, &side.projection, None)?)
}

fn through(side: &TextSide, block: &Block, x: &Tensor) -> Result<Tensor> {
    let dense = |x: &Tensor, [weight, bias]: &[Tensor; 2]| pointwise::forward(x, weight, Some(bias));
    let normed = |x: &Tensor, [weight, bias]: &[Tensor; 2]| layer_norm::forward(x, weight, bias, EPS);
    let attended = causal::forward(&dense(&normed(x, &block.norms[0])?, &block.qkv)?, side.heads)?;
    let x = (x + dense(&attended, &block.out)?)?;
    let wide = dense(&normed(&x, &block.norms[1])?, &block.wide)?;
    let Some(curve) = curve(side.activation) else { bail!("texts have a curve between dense layers") };
    &x + dense(&activation::forward(&wide, curve)?, &block.narrow)?
}
