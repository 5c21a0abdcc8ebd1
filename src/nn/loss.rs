//! Softmax cross-entropy with label smoothing (Szegedy et al., 2016) and class weights, its gradient, and class
//! probabilities. Conventions are those of PyTorch 2's `cross_entropy`.

use candle_core::{Result, Tensor};

/// The mean loss over a batch, and its gradient [n, classes] (already divided by n, or by the sum of the weights).
pub struct Loss {
    pub mean: f64,
    pub gradient: Tensor,
}

/// What is taken of the labels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Targets<'a> {
    /// The part of each target that is spread evenly over the classes.
    pub smoothing: f64,
    /// How much a class counts, one number for each; the mean is over the weights of the labels.
    pub class_weights: Option<&'a [f64]>,
}

/// Cross-entropy of `logits` [n, classes] with integer `labels` `[n]`.
/// Computed on the host in f64: a row of classes is small, and the result is the same for every batch split.
///
/// # Errors
/// A label is not below the number of classes, the number of labels or of weights is another, or the weights of the
/// labels add up to nothing.
pub fn cross_entropy(logits: &Tensor, labels: &[u32], targets: Targets) -> Result<Loss> {
    let (images, classes) = logits.dims2()?;
    if labels.len() != images || images == 0 {
        candle_core::bail!("{} labels do not fit {images} rows of logits", labels.len());
    }
    if let Some(label) = labels.iter().find(|label| **label as usize >= classes) {
        candle_core::bail!("label {label} is not below {classes} classes");
    }
    let even = vec![1.0; classes];
    let weights = targets.class_weights.unwrap_or(&even);
    if weights.len() != classes {
        candle_core::bail!("{} class weights do not fit {classes} classes", weights.len());
    }
    let whole: f64 = labels.iter().map(|label| weights[*label as usize]).sum();
    if whole.is_nan() || whole <= 0.0 {
        candle_core::bail!("the classes of this batch weigh nothing");
    }
    let mut gradient = Vec::with_capacity(images * classes);
    let mut total = 0.0;
    for (row, label) in logits.to_vec2::<f32>()?.iter().zip(labels) {
        let log_probabilities = log_softmax(row);
        let target = |class: usize| {
            let own = if class == *label as usize { 1.0 - targets.smoothing } else { 0.0 };
            weights[class] * (targets.smoothing / classes as f64 + own)
        };
        let sum: f64 = (0..classes).map(target).sum();
        for (class, log_probability) in log_probabilities.iter().enumerate() {
            let target = target(class);
            total -= if target > 0.0 { target * log_probability } else { 0.0 };
            gradient.push(((log_probability.exp() * sum - target) / whole) as f32);
        }
    }
    let gradient = Tensor::from_vec(gradient, (images, classes), logits.device())?;
    Ok(Loss { mean: total / whole, gradient })
}

/// log softmax of one row, in f64.
pub fn log_softmax(row: &[f32]) -> Vec<f64> {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = row.iter().map(|value| f64::from(value - top));
    let log_sum = shifted.clone().map(f64::exp).sum::<f64>().ln();
    shifted.map(|value| value - log_sum).collect()
}
