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
    let (mean, gradient) = cross_entropies(logits, labels, &[targets])?;
    Ok(Loss { mean: mean[0], gradient })
}

/// The same for the logits [n, heads x classes] of several heads that read the same rows: a mean for each, and all
/// gradients side by side. Each head's numbers are those that it has alone.
///
/// # Errors
/// As `cross_entropy`; the columns are not whole heads.
pub fn cross_entropies(logits: &Tensor, labels: &[u32], targets: &[Targets]) -> Result<(Vec<f64>, Tensor)> {
    let (images, columns) = logits.dims2()?;
    if labels.len() != images || images == 0 {
        candle_core::bail!("{} labels do not fit {images} rows of logits", labels.len());
    }
    if targets.is_empty() || !columns.is_multiple_of(targets.len()) {
        candle_core::bail!("{columns} columns are not those of {} heads", targets.len());
    }
    let classes = columns / targets.len();
    if let Some(label) = labels.iter().find(|label| **label as usize >= classes) {
        candle_core::bail!("label {label} is not below {classes} classes");
    }
    let values = logits.flatten_all()?.to_vec1::<f32>()?;
    let mut gradient = vec![0.0; values.len()];
    let mut means = Vec::with_capacity(targets.len());
    let even = vec![1.0; classes];
    let mut scratch = Vec::with_capacity(classes);
    for (head, targets) in targets.iter().enumerate() {
        let weights = targets.class_weights.unwrap_or(&even);
        if weights.len() != classes {
            candle_core::bail!("{} class weights do not fit {classes} classes", weights.len());
        }
        let whole: f64 = labels.iter().map(|label| weights[*label as usize]).sum();
        if whole.is_nan() || whole <= 0.0 {
            candle_core::bail!("the classes of this batch weigh nothing");
        }
        let mut total = 0.0;
        for (row, label) in labels.iter().enumerate() {
            let own = row * columns + head * classes..row * columns + (head + 1) * classes;
            log_softmax_into(&values[own.clone()], &mut scratch);
            let target = |class: usize| {
                let own = if class == *label as usize { 1.0 - targets.smoothing } else { 0.0 };
                weights[class] * (targets.smoothing / classes as f64 + own)
            };
            let sum: f64 = (0..classes).map(target).sum();
            for (class, (gradient, log_probability)) in gradient[own].iter_mut().zip(&scratch).enumerate() {
                let target = target(class);
                total -= if target > 0.0 { target * log_probability } else { 0.0 };
                *gradient = ((log_probability.exp() * sum - target) / whole) as f32;
            }
        }
        means.push(total / whole);
    }
    Ok((means, Tensor::from_vec(gradient, (images, columns), logits.device())?))
}

/// log softmax of one row, in f64.
pub fn log_softmax(row: &[f32]) -> Vec<f64> {
    let mut into = Vec::new();
    log_softmax_into(row, &mut into);
    into
}

fn log_softmax_into(row: &[f32], into: &mut Vec<f64>) {
    let log_sum = shifted_log_sum(row);
    into.clear();
    into.extend(shifted(row).map(|value| value - log_sum));
}

/// One number of `log_softmax`.
pub fn log_probability(row: &[f32], class: usize) -> f64 {
    let log_sum = shifted_log_sum(row);
    shifted(row).nth(class).unwrap_or(f64::NAN) - log_sum
}

fn shifted(row: &[f32]) -> impl Iterator<Item = f64> + Clone {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter().map(move |value| f64::from(value - top))
}

fn shifted_log_sum(row: &[f32]) -> f64 {
    shifted(row).map(f64::exp).sum::<f64>().ln()
}
