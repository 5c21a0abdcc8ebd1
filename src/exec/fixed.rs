//! What layers compute with that no step changes, or that stands in another layer's form: scales and shifts as batch norms, and the
//! angles of rotary positions.

use candle_core::{Device, Result, Tensor};

use crate::model::graph::{Graph, Op};
use crate::nn::norm::Norm;
use crate::nn::rotary;

/// The layers that scale and shift every channel by numbers of no batch, as batch norms; a learned scale takes its place later.
pub(super) fn fixed(op: &Op, params: &[Tensor], device: &Device) -> Result<Option<Norm>> {
    let (weight, mean, var) = match (op, params) {
        (Op::Rescale(by), _) => {
            let weight = by.iter().map(|by| *by as f32).collect::<Vec<f32>>();
            let weight = Tensor::from_slice(&weight, weight.len(), device)?;
            (weight.clone(), weight.zeros_like()?, weight.ones_like()?)
        }
        (Op::Standardize { mean, variance }, _) => {
            let [mean, variance] = [mean, variance].map(|own| {
                let own: Vec<f32> = own.iter().map(|number| *number as f32).collect();
                Tensor::from_slice(&own, own.len(), device)
            });
            let mean = mean?;
            (mean.ones_like()?, mean, variance?)
        }
        (Op::LayerScale { .. }, [scale]) => (scale.clone(), scale.zeros_like()?, scale.ones_like()?),
        (Op::Normalize, [mean, variance]) => (mean.ones_like()?, mean.clone(), variance.clone()),
        _ => return Ok(None),
    };
    Ok(Some(Norm { bias: weight.zeros_like()?, weight, running_mean: mean, running_var: var }))
}

/// What a layer of rotary positions turns by.
pub(super) fn angles(graph: &Graph, index: usize, device: &Device) -> Result<Option<Tensor>> {
    let Op::Rotary { heads, skip, base } = graph.layers[index].op else { return Ok(None) };
    let [numbers, height, width] = graph.layers[index].shape;
    let (depth, patches) = (numbers / 3 / heads, height * width - skip);
    let table = rotary::table(patches.isqrt(), depth, base);
    Tensor::from_vec(table, (patches, depth / 2, 2), device).map(Some)
}
