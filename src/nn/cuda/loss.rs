//! Cross-entropy and answers on CUDA: nothing of a step comes back to the host before somebody asks for it.

use candle_core::{DType, Result, Tensor};

use super::{Threads, at, device_of, empty, int, launch};
use crate::nn::loss::Targets;

/// The means [heads] in f64, and the gradient, as of `nn::loss::cross_entropies`; the labels were checked.
pub fn cross_entropies(logits: &Tensor, labels: &[u32], targets: &[Targets], whole: &[f64]) -> Result<[Tensor; 2]> {
    let (rows, columns) = logits.dims2()?;
    let (heads, classes) = (targets.len(), columns / targets.len());
    let (device, on) = (device_of(logits)?, logits.device());
    let own = |targets: &Targets| targets.class_weights.map_or_else(|| vec![1.0; classes], <[f64]>::to_vec);
    let weights: Vec<f64> = targets.iter().flat_map(own).collect();
    let smoothing: Vec<f64> = targets.iter().map(|targets| targets.smoothing).collect();
    let labels = Tensor::from_slice(labels, rows, on)?;
    let weights = Tensor::from_vec(weights, heads * classes, on)?;
    let smoothing = Tensor::from_vec(smoothing, heads, on)?;
    let whole = Tensor::from_slice(whole, heads, on)?;
    let gradient = empty(device, DType::F32, (rows, columns))?;
    let losses = empty(device, DType::F64, (rows, heads))?;
    let mut args = vec![int(rows), int(heads), int(classes), at(logits)?, at(&labels)?, at(&weights)?];
    args.extend([at(&smoothing)?, at(&whole)?, at(&gradient)?, at(&losses)?]);
    // A warp of 32 threads for each row of a head.
    launch(device, "cross_entropy", Threads::Each(32 * rows * heads), &args)?;
    let means = empty(device, DType::F64, heads)?;
    let args = [int(rows), int(heads), at(&losses)?, at(&whole)?, at(&means)?];
    launch(device, "mean_losses", Threads::Each(heads), &args)?;
    Ok([means, gradient])
}

/// For logits [rows, heads * classes]: the answers [rows, heads], and the logarithms of the labels' probabilities in f64.
pub fn answers(logits: &Tensor, labels: &[u32], heads: usize) -> Result<[Tensor; 2]> {
    let (rows, columns) = logits.dims2()?;
    let device = device_of(logits)?;
    let labels = Tensor::from_slice(labels, rows, logits.device())?;
    let predicted = empty(device, DType::U32, (rows, heads))?;
    let log_probabilities = empty(device, DType::F64, (rows, heads))?;
    let mut args = vec![int(rows), int(heads), int(columns / heads), at(logits)?, at(&labels)?];
    args.extend([at(&predicted)?, at(&log_probabilities)?]);
    launch(device, "answers", Threads::Each(rows * heads), &args)?;
    Ok([predicted, log_probabilities])
}
