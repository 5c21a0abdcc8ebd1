//! Linear discriminant analysis (Fisher, 1936; Rao, 1948): the head that is best where each class is a cloud of the same shape around
//! its mean, with that shape shrunk towards a sphere (Friedman, 1989). Nothing is iterated: one eigendecomposition for all strengths.

use candle_core::{Device, Result, Tensor, bail};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

use super::solve::Head;

/// Class means and the covariance S within classes, decomposed once. A head of strength lambda takes
/// (S + lambda t I) / (1 + lambda) for S, with t the mean variance of an input: scikit-learn's `LinearDiscriminantAnalysis` with a
/// `shrinkage` of lambda / (1 + lambda), but that S is divided by what is free, the number of rows less that of classes. From the
/// strongest lambda on it is the nearest class mean, and the least ones use all that S says.
pub struct Discriminant {
    classes: usize,
    inputs: usize,
    /// The mean of all rows, and those of classes less it: [inputs, classes].
    middle: DVector<f64>,
    means: DMatrix<f64>,
    /// Logarithms of the classes' shares; none of a class without rows.
    priors: Vec<Option<f64>>,
    rows: usize,
    /// The mean variance of an input within classes; none where all rows of each class are the same, and S says nothing.
    within: Option<Within>,
    device: Device,
}

/// The smaller of the two matrices, of inputs or of rows, by its eigenvectors.
struct Within {
    variance: f64,
    eigen: SymmetricEigen<f64, nalgebra::Dyn>,
    /// The means in their coordinates: [inputs or rows, classes].
    right: DMatrix<f64>,
    /// The rows around their class means, scaled so that their products are S, where the matrix is that of rows.
    rows: Option<DMatrix<f64>>,
}

impl Discriminant {
    /// Of `labels` `[n]` and the rows of `x` [n, inputs], each row counted as much as its class. A class without rows is
    /// never answered.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn new(x: &Tensor, labels: &[u32], classes: usize, class_weights: Option<&[f64]>) -> Result<Self> {
        let (count, inputs) = x.dims2()?;
        if count != labels.len() || count == 0 {
            bail!("{} labels do not fit {count} rows", labels.len());
        }
        let weight = |row: usize| class_weights.map_or(1.0, |weights| weights[labels[row] as usize]);
        let class = |row: usize| labels[row] as usize;
        let whole: f64 = (0..count).map(weight).sum();
        let mut shares = vec![0.0; classes];
        (0..count).for_each(|row| shares[class(row)] += weight(row) / whole);
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        let mut rows = DMatrix::from_fn(count, inputs, |row, column| f64::from(values[row * inputs + column]));
        let mut means = DMatrix::zeros(inputs, classes);
        for row in 0..count {
            means.column_mut(class(row)).axpy(weight(row) / whole, &rows.row(row).transpose(), 1.0);
        }
        let middle = means.column_sum();
        for (own, share) in shares.iter().enumerate() {
            match *share > 0.0 {
                true => means.column_mut(own).scale_mut(1.0 / share),
                false => means.set_column(own, &middle),
            }
        }
        let present = shares.iter().filter(|share| **share > 0.0).count();
        let free = count as f64 / count.saturating_sub(present).max(1) as f64;
        for row in 0..count {
            // The square root, so that products of two rows have the weight.
            let scale = (weight(row) / whole * free).sqrt();
            let around = (rows.row(row) - means.column(class(row)).transpose()) * scale;
            rows.set_row(row, &around);
        }
        means.column_iter_mut().for_each(|mut mean| mean -= &middle);
        let priors = shares.iter().map(|share| (*share > 0.0).then(|| libm::log(*share)));
        let (priors, within) = (priors.collect(), Within::new(rows, &means));
        Ok(Self { classes, inputs, middle, means, priors, rows: count, within, device: x.device().clone() })
    }

    /// The head of one strength.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn head(&self, lambda: f64) -> Result<Head> {
        // [inputs, classes]
        let weight = match &self.within {
            Some(within) => within.solved(&self.means, lambda),
            None => self.means.clone(),
        };
        let at_middle = |class: usize| {
            let own = weight.column(class);
            Some(self.priors[class]? - 0.5 * own.dot(&self.means.column(class)))
        };
        // The classes' mean is the middle, so the weights sum to zero over their shares: wherever a row lies, some class gives it
        // no less than it gives the middle, which is more than this.
        let least = (0..self.classes).filter_map(at_middle).fold(f64::INFINITY, f64::min);
        let never = least - libm::log(self.rows as f64 + 1.0);
        let bias = |class: usize| at_middle(class).unwrap_or(never) - weight.column(class).dot(&self.middle);
        let biases: Vec<f32> = (0..self.classes).map(|class| bias(class) as f32).collect();
        let flat: Vec<f32> = weight.iter().map(|value| *value as f32).collect();
        Ok(Head {
            weight: Tensor::from_vec(flat, (self.classes, self.inputs), &self.device)?,
            bias: Tensor::from_vec(biases, self.classes, &self.device)?,
        })
    }
}

impl Within {
    /// Of rows around their class means.
    fn new(rows: DMatrix<f64>, means: &DMatrix<f64>) -> Option<Self> {
        let (count, inputs) = rows.shape();
        let variance = rows.iter().map(|value| value * value).sum::<f64>() / inputs as f64;
        if variance <= 0.0 {
            return None;
        }
        if inputs <= count {
            let eigen = SymmetricEigen::new(rows.tr_mul(&rows));
            let right = eigen.eigenvectors.tr_mul(means);
            return Some(Self { variance, eigen, right, rows: None });
        }
        let eigen = SymmetricEigen::new(&rows * rows.transpose());
        let right = eigen.eigenvectors.tr_mul(&(&rows * means));
        Some(Self { variance, eigen, right, rows: Some(rows) })
    }

    /// The means times the inverse of the shrunk covariance: [inputs, classes].
    fn solved(&self, means: &DMatrix<f64>, lambda: f64) -> DMatrix<f64> {
        // Without any of it a covariance of fewer rows than inputs has no inverse.
        let sphere = self.variance * lambda.max(f64::EPSILON);
        let mut scaled = self.right.clone();
        for (index, value) in self.eigen.eigenvalues.iter().enumerate() {
            // Rounding may leave an eigenvalue of nothing below zero.
            scaled.row_mut(index).scale_mut(1.0 / (value.max(0.0) + sphere));
        }
        let seen = &self.eigen.eigenvectors * scaled;
        let solved = match &self.rows {
            None => seen,
            // What no row shows has the sphere's variance (Woodbury, 1950).
            Some(rows) => (means - rows.tr_mul(&seen)) / sphere,
        };
        solved * (1.0 + lambda)
    }
}
