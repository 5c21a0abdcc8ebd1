//! Softmax cross-entropy with label smoothing (Szegedy et al., 2016) and class weights, its gradient, and class
//! probabilities. Conventions are those of PyTorch 2's `cross_entropy`.

use candle_core::{Result, Tensor};

use super::buffer;
use super::exponential::exponentials;

/// The mean losses of heads over a batch.
pub enum Means {
    Known(Vec<f64>),
    /// On a CUDA device, f64: reading them waits for the device.
    Owed(Tensor),
}

impl Means {
    /// # Errors
    /// The device has failed.
    pub fn read(self) -> Result<Vec<f64>> {
        match self {
            Self::Known(means) => Ok(means),
            Self::Owed(means) => means.to_vec1(),
        }
    }
}

/// What the images of a batch are.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    pub own: &'a [u32],
    /// Where images are mixed: what each is mixed with, a permutation of `own`, and the share of `own`. The loss is that
    /// share of the loss of `own` and what is left of one of the others' (Zhang et al., 2018).
    pub mixed: Option<(&'a [u32], f64)>,
}

impl<'a> From<&'a [u32]> for Labels<'a> {
    fn from(own: &'a [u32]) -> Self {
        Self { own, mixed: None }
    }
}

impl<'a> From<&'a Vec<u32>> for Labels<'a> {
    fn from(own: &'a Vec<u32>) -> Self {
        own.as_slice().into()
    }
}

impl<'a, const N: usize> From<&'a [u32; N]> for Labels<'a> {
    fn from(own: &'a [u32; N]) -> Self {
        own.as_slice().into()
    }
}

impl<'a> Labels<'a> {
    /// The labels of partners, and the share of each image's own.
    pub fn both(&self) -> (&'a [u32], f64) {
        self.mixed.unwrap_or((self.own, 1.0))
    }

    /// Whether they fit so many rows of logits.
    ///
    /// # Errors
    /// Their number is another, one is not below the number of classes, or the share is none.
    pub fn check(&self, rows: usize, classes: usize) -> Result<()> {
        let (others, share) = self.both();
        check(self.own, rows, classes)?;
        check(others, rows, classes)?;
        if !(0.0..=1.0).contains(&share) {
            candle_core::bail!("{share} is no share of a label");
        }
        Ok(())
    }
}

/// What is taken of the labels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Targets<'a> {
    /// The part of each target that is spread evenly over the classes.
    pub smoothing: f64,
    /// How much a class counts, one number for each; the mean is over the weights of the labels.
    pub class_weights: Option<&'a [f64]>,
}

/// The mean loss over a batch, and its gradient [n, classes].
pub struct Loss {
    pub mean: f64,
    pub gradient: Tensor,
}

/// Cross-entropy of `logits` [n, classes] with integer `labels` `[n]`, read at once.
///
/// # Errors
/// As `cross_entropies`.
pub fn cross_entropy<'a>(logits: &Tensor, labels: impl Into<Labels<'a>>, targets: Targets) -> Result<Loss> {
    let (means, gradient) = cross_entropies(logits, labels, &[targets])?;
    Ok(Loss { mean: means.read()?[0], gradient })
}

/// Cross-entropies of `logits` [n, heads x classes] of heads that read the same rows with `labels` of n rows: a mean
/// for each head, and the gradients of all side by side (already divided by n, or by the sum of the weights). Each head's
/// numbers are those that it has alone. On CPU computed in f64: a row of classes is small.
///
/// # Errors
/// A label is not below the number of classes, the number of labels or of weights is another, the weights of the labels
/// add up to nothing, or the columns are not whole heads.
pub fn cross_entropies<'a>(
    logits: &Tensor,
    labels: impl Into<Labels<'a>>,
    targets: &[Targets],
) -> Result<(Means, Tensor)> {
    let labels: Labels = labels.into();
    let (images, columns) = logits.dims2()?;
    if targets.is_empty() || !columns.is_multiple_of(targets.len()) {
        candle_core::bail!("{columns} columns are not those of {} heads", targets.len());
    }
    let classes = columns / targets.len();
    labels.check(images, classes)?;
    let wholes = targets.iter().map(|targets| whole(labels.own, targets, classes)).collect::<Result<Vec<f64>>>()?;
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        let [means, gradient] = super::cuda::loss::cross_entropies(logits, &labels, targets, &wholes)?;
        return Ok((Means::Owed(means), gradient));
    }
    let values = logits.flatten_all()?.to_vec1::<f32>()?;
    let mut gradient = vec![0.0; values.len()];
    let mut means = vec![0.0; targets.len()];
    let even = vec![1.0; classes];
    let mut softmax = Softmax::new(columns, classes);
    let (others, share) = labels.both();
    for (row, (label, other)) in labels.own.iter().zip(others).enumerate() {
        let own = row * columns..(row + 1) * columns;
        softmax.read(&values[own.clone()]);
        let heads = gradient[own].chunks_exact_mut(classes).zip(targets.iter().zip(&wholes)).zip(&mut means);
        for (head, ((gradient, (targets, whole)), mean)) in heads.enumerate() {
            let weights = targets.class_weights.unwrap_or(&even);
            let target = |class: usize| {
                let own = if class == *label as usize { share } else { 0.0 };
                let own = own + if class == *other as usize { 1.0 - share } else { 0.0 };
                weights[class] * (targets.smoothing / classes as f64 + own * (1.0 - targets.smoothing))
            };
            let (shifted, exponentials, sum) = softmax.head(head);
            let (log_sum, scale) = (libm::log(sum), (0..classes).map(target).sum::<f64>() / sum);
            for (class, gradient) in gradient.iter_mut().enumerate() {
                let target = target(class);
                *mean -= if target > 0.0 { target * (shifted[class] - log_sum) } else { 0.0 };
                *gradient = ((exponentials[class] * scale - target) / whole) as f32;
            }
        }
    }
    means.iter_mut().zip(&wholes).for_each(|(mean, whole)| *mean /= whole);
    Ok((Means::Known(means), Tensor::from_vec(gradient, (images, columns), logits.device())?))
}

/// A row of logits of several heads, ready for what softmax makes of it.
struct Softmax {
    classes: usize,
    /// The numbers, less the largest of their head.
    shifted: Vec<f64>,
    exponentials: Vec<f64>,
}

impl Softmax {
    fn new(columns: usize, classes: usize) -> Self {
        Self { classes, shifted: vec![0.0; columns], exponentials: vec![0.0; columns] }
    }

    fn read(&mut self, row: &[f32]) {
        for (row, into) in row.chunks_exact(self.classes).zip(self.shifted.chunks_exact_mut(self.classes)) {
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            into.iter_mut().zip(row).for_each(|(into, value)| *into = f64::from(value - top));
        }
        exponentials(&self.shifted, &mut self.exponentials);
    }

    /// Of a head: its numbers, their exponentials, and the sum of those.
    fn head(&self, head: usize) -> (&[f64], &[f64], f64) {
        let own = head * self.classes..(head + 1) * self.classes;
        let exponentials = &self.exponentials[own.clone()];
        (&self.shifted[own], exponentials, exponentials.iter().sum())
    }
}

/// The logarithms of the class probabilities of one head, row by row; `logits` [n, classes].
///
/// # Errors
/// The shape is another, or the device has failed.
pub fn log_probabilities(logits: &Tensor) -> Result<Vec<Vec<f64>>> {
    let (_, classes) = logits.dims2()?;
    let values = logits.flatten_all()?.to_vec1::<f32>()?;
    let mut softmax = Softmax::new(classes, classes);
    let row = |row: &[f32]| {
        softmax.read(row);
        let (shifted, _, sum) = softmax.head(0);
        let log_sum = libm::log(sum);
        shifted.iter().map(|shifted| shifted - log_sum).collect()
    };
    Ok(values.chunks_exact(classes).map(row).collect())
}

/// Whether labels fit so many rows of logits.
///
/// # Errors
/// Their number is another, or one is not below the number of classes.
pub fn check(labels: &[u32], rows: usize, classes: usize) -> Result<()> {
    if labels.len() != rows || rows == 0 {
        candle_core::bail!("{} labels do not fit {rows} rows of logits", labels.len());
    }
    match labels.iter().find(|label| **label as usize >= classes) {
        Some(label) => candle_core::bail!("label {label} is not below {classes} classes"),
        None => Ok(()),
    }
}

/// What the labels of a batch weigh together.
///
/// # Errors
/// It is nothing, or the number of weights is not that of the classes.
pub fn whole(labels: &[u32], targets: &Targets, classes: usize) -> Result<f64> {
    let Some(weights) = targets.class_weights else { return Ok(labels.len() as f64) };
    if weights.len() != classes {
        candle_core::bail!("{} class weights do not fit {classes} classes", weights.len());
    }
    let whole: f64 = labels.iter().map(|label| weights[*label as usize]).sum();
    if whole.is_nan() || whole <= 0.0 {
        candle_core::bail!("the classes of this batch weigh nothing");
    }
    Ok(whole)
}

/// What a head answers to a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// The first class of the largest logit.
    pub class: u32,
    /// Logarithms of the probabilities of the label and of that class.
    pub label: f64,
    pub top: f64,
}

/// Answers of heads to rows, row by row.
pub enum Answers {
    Known(Vec<Answer>),
    /// On a CUDA device: the classes, and the logarithms of labels and of classes.
    Owed([Tensor; 3]),
}

impl Answers {
    /// # Errors
    /// The device has failed.
    pub fn read(self) -> Result<Vec<Answer>> {
        let [classes, labels, tops] = match self {
            Self::Known(answers) => return Ok(answers),
            Self::Owed(owed) => owed,
        };
        let logarithms = |of: &Tensor| of.flatten_all()?.to_vec1::<f64>();
        let found = classes.flatten_all()?.to_vec1::<u32>()?.into_iter();
        let found = found.zip(logarithms(&labels)?).zip(logarithms(&tops)?);
        let found = found.map(|((class, label), top)| Answer { class, label, top }).collect();
        buffer::recycle_batch(vec![classes, labels, tops]);
        Ok(found)
    }
}

/// What `logits` [n, heads x classes] answer to rows with `labels` `[n]`.
///
/// # Errors
/// The shapes do not fit.
pub fn answers(logits: &Tensor, labels: &[u32], heads: usize) -> Result<Answers> {
    let (images, columns) = logits.dims2()?;
    if images != labels.len() || heads == 0 || !columns.is_multiple_of(heads) {
        candle_core::bail!("{columns} columns of {images} rows are not answers of {heads} heads to {}", labels.len());
    }
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        return Ok(Answers::Owed(super::cuda::loss::answers(logits, labels, heads)?));
    }
    let values = logits.flatten_all()?.to_vec1::<f32>()?;
    let mut softmax = Softmax::new(columns, columns / heads);
    let mut found = Vec::with_capacity(labels.len() * heads);
    for (row, label) in values.chunks_exact(columns).zip(labels) {
        softmax.read(row);
        for (head, row) in row.chunks_exact(columns / heads).enumerate() {
            let best = (0..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best });
            let (shifted, _, sum) = softmax.head(head);
            // A label of no class of these has no probability.
            let own = shifted.get(*label as usize).copied().unwrap_or(f64::NAN);
            let log_sum = libm::log(sum);
            found.push(Answer { class: best as u32, label: own - log_sum, top: shifted[best] - log_sum });
        }
    }
    Ok(Answers::Known(found))
}
