//! Softmax cross-entropy with label smoothing (Szegedy et al., 2016), its gradient, and class probabilities.

use candle_core::{Result, Tensor};

/// The mean loss over a batch, and its gradient [n, classes] (already divided by n).
pub struct Loss {
    pub mean: f64,
    pub gradient: Tensor,
}

/// Cross-entropy of `logits` [n, classes] with integer `labels` `[n]`; `smoothing` of each target is spread evenly.
/// Computed on the host in f64: a row of classes is small, and the result is the same for every batch split.
///
/// # Errors
/// A label is not below the number of classes.
pub fn cross_entropy(logits: &Tensor, labels: &[u32], smoothing: f64) -> Result<Loss> {
    let (images, classes) = logits.dims2()?;
    let mut gradient = Vec::with_capacity(images * classes);
    let mut total = 0.0;
    for (row, label) in logits.to_vec2::<f32>()?.iter().zip(labels) {
        if *label as usize >= classes {
            candle_core::bail!("label {label} is not below {classes} classes");
        }
        let log_probabilities = log_softmax(row);
        for (class, log_probability) in log_probabilities.iter().enumerate() {
            let target = smoothing / classes as f64 + if class == *label as usize { 1.0 - smoothing } else { 0.0 };
            total -= if target > 0.0 { target * log_probability } else { 0.0 };
            gradient.push(((log_probability.exp() - target) / images as f64) as f32);
        }
    }
    let gradient = Tensor::from_vec(gradient, (images, classes), logits.device())?;
    Ok(Loss { mean: total / images as f64, gradient })
}

/// log softmax of one row, in f64.
pub fn log_softmax(row: &[f32]) -> Vec<f64> {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = row.iter().map(|value| f64::from(value - top));
    let log_sum = shifted.clone().map(f64::exp).sum::<f64>().ln();
    shifted.map(|value| value - log_sum).collect()
}
