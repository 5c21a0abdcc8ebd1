//! Cross-entropy and answers on CUDA: nothing of a step comes back to the host before somebody asks for it.

use candle_core::{DType, Result, Tensor};

use super::{Threads, at, device_of, empty, int, launch};
use crate::nn::loss::{Labels, Targets};

/// What a loss reads of the host, where the device has it: labels `[rows]` as u32, those of the images that these are mixed with,
/// the share of the first `[1]`, f64 weights [heads, classes] and, of each head, its smoothing and what the labels weigh together.
pub struct Told {
    pub labels: Tensor,
    pub others: Tensor,
    pub share: Tensor,
    pub weights: Tensor,
    pub smoothing: Tensor,
    pub whole: Tensor,
}

/// The means `[heads]` in f64, and the gradient, as of `nn::loss::cross_entropies`; the labels were checked.
pub fn cross_entropies(logits: &Tensor, labels: &Labels, targets: &[Targets], whole: &[f64]) -> Result<[Tensor; 2]> {
    let (rows, columns) = logits.dims2()?;
    let (heads, classes, on) = (targets.len(), columns / targets.len(), logits.device());
    let own = |targets: &Targets| targets.class_weights.map_or_else(|| vec![1.0; classes], <[f64]>::to_vec);
    let weights: Vec<f64> = targets.iter().flat_map(own).collect();
    let smoothing: Vec<f64> = targets.iter().map(|targets| targets.smoothing).collect();
    let (others, share) = labels.both();
    let told = Told {
        labels: Tensor::from_slice(labels.own, rows, on)?,
        others: Tensor::from_slice(others, rows, on)?,
        share: Tensor::from_slice(&[share], 1, on)?,
        weights: Tensor::from_vec(weights, heads * classes, on)?,
        smoothing: Tensor::from_vec(smoothing, heads, on)?,
        whole: Tensor::from_slice(whole, heads, on)?,
    };
    cross_entropies_told(logits, &told, heads)
}

/// The same, of what the device has.
pub fn cross_entropies_told(logits: &Tensor, told: &Told, heads: usize) -> Result<[Tensor; 2]> {
    let (rows, columns) = logits.dims2()?;
    let device = device_of(logits)?;
    let gradient = empty(device, DType::F32, (rows, columns))?;
    let losses = empty(device, DType::F64, (rows, heads))?;
    let mut args = vec![int(rows), int(heads), int(columns / heads), at(logits)?, at(&told.labels)?];
    args.extend([
        at(&told.others)?,
        at(&told.share)?,
        at(&told.weights)?,
        at(&told.smoothing)?,
        at(&told.whole)?,
        at(&gradient)?,
        at(&losses)?,
    ]);
    // A warp of 32 threads for each row of a head.
    launch(device, "cross_entropy", Threads::Each(32 * rows * heads), &args)?;
    let means = empty(device, DType::F64, heads)?;
    let args = [int(rows), int(heads), at(&losses)?, at(&told.whole)?, at(&means)?];
    launch(device, "mean_losses", Threads::Each(heads), &args)?;
    Ok([means, gradient])
}

/// For logits [rows, heads * classes]: the answers [rows, heads], and in f64 the logarithms of the probabilities of the labels
/// and of the answers.
pub fn answers(logits: &Tensor, labels: &[u32], heads: usize) -> Result<[Tensor; 3]> {
    let (rows, columns) = logits.dims2()?;
    let device = device_of(logits)?;
    let labels = Tensor::from_slice(labels, rows, logits.device())?;
    let predicted = empty(device, DType::U32, (rows, heads))?;
    let of_labels = empty(device, DType::F64, (rows, heads))?;
    let of_answers = empty(device, DType::F64, (rows, heads))?;
    let mut args = vec![int(rows), int(heads), int(columns / heads), at(logits)?, at(&labels)?];
    args.extend([at(&predicted)?, at(&of_labels)?, at(&of_answers)?]);
    launch(device, "answers", Threads::Each(rows * heads), &args)?;
    Ok([predicted, of_labels, of_answers])
}
