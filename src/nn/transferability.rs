//! Scores of how well features fit a target, from one look at them: LogME, the H-score and LEEP. No image is left out for them;
//! `probe` answers images by others.

use candle_core::{Result, bail};
use nalgebra::{DMatrix, SymmetricEigen};

use super::probe::Rows;

/// Directions with less than this part of the largest one's squares are rounding.
const RANK: f64 = 1e-9;
/// Rounds of LogME's fixed point, at most, and the change of alpha / beta at which it has been found.
const ROUNDS: usize = 200;
const FOUND: f64 = 1e-6;

/// Rows by their principal directions.
struct Spectrum {
    /// [n, rank], orthonormal columns.
    directions: DMatrix<f64>,
    /// The sum of squares along each.
    squares: Vec<f64>,
    numbers: usize,
}

impl Spectrum {
    /// Of x [n, numbers].
    fn of(x: &DMatrix<f64>) -> Self {
        let (rows, numbers) = x.shape();
        let small = if numbers < rows { x.tr_mul(x) } else { x * x.transpose() };
        let eigen = SymmetricEigen::new(small);
        let least = (RANK * eigen.eigenvalues.max()).max(f64::MIN_POSITIVE);
        let kept: Vec<usize> = (0..eigen.eigenvalues.len()).filter(|index| eigen.eigenvalues[*index] > least).collect();
        let squares: Vec<f64> = kept.iter().map(|index| eigen.eigenvalues[*index]).collect();
        let mut directions = eigen.eigenvectors.select_columns(&kept);
        if numbers < rows {
            directions = x * directions;
            for (index, square) in squares.iter().enumerate() {
                directions.column_mut(index).unscale_mut(square.sqrt());
            }
        }
        Self { directions, squares, numbers }
    }
}

/// The logarithm of the evidence of a Bayesian linear model for the features, for each class against all others, over the number
/// of rows and meaned over classes; higher is better (You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer
/// Learning", 2021; its algorithm 1, without an intercept as there).
///
/// # Errors
/// The shapes do not fit, or a feature is no number.
pub fn log_me(rows: &Rows) -> Result<f64> {
    let x = rows.numbers()?;
    let spectrum = Spectrum::of(&x);
    let count = x.nrows();
    let evidence = |class: usize| {
        let target = |row: usize| f64::from(rows.labels[row] as usize == class);
        let along: Vec<f64> = spectrum
            .directions
            .column_iter()
            .map(|column| (0..count).map(|row| column[row] * target(row)).sum())
            .collect();
        let whole: f64 = (0..count).map(target).sum();
        let beside = (whole - along.iter().map(|value| value * value).sum::<f64>()).max(0.0);
        greatest_evidence(&spectrum.squares, &along, beside, count)
    };
    Ok((0..rows.classes).map(evidence).sum::<f64>() / rows.classes.max(1) as f64)
}

/// Over the precisions alpha of the weights and beta of the noise, per row; `along` are a target's parts along the directions with
/// sums of squares `squares`, `beside` the square of the rest of it.
fn greatest_evidence(squares: &[f64], along: &[f64], beside: f64, rows: usize) -> f64 {
    let rows = rows as f64;
    let (mut alpha, mut beta) = (1.0, 1.0);
    for _ in 0..ROUNDS {
        let [weights, noise, effective] = moments(squares, along, beside, alpha, beta);
        let before: f64 = alpha / beta;
        alpha = effective / weights.max(f64::MIN_POSITIVE);
        beta = (rows - effective).max(f64::MIN_POSITIVE) / noise.max(f64::MIN_POSITIVE);
        if (alpha / beta - before).abs() <= FOUND * before {
            break;
        }
    }
    let [weights, noise, _] = moments(squares, along, beside, alpha, beta);
    // Directions without any numbers add as much to the one logarithm as to the other.
    let spread: f64 = squares.iter().map(|square| libm::log(alpha) - libm::log(alpha + beta * square)).sum();
    let constant = rows * libm::log(beta) - rows * libm::log(2.0 * std::f64::consts::PI);
    (spread + constant - beta * noise - alpha * weights) / (2.0 * rows)
}

/// The squares of the mean weights and of what they leave, and how many directions the data decide.
fn moments(squares: &[f64], along: &[f64], beside: f64, alpha: f64, beta: f64) -> [f64; 3] {
    let mut found = [0.0, beside, 0.0];
    for (square, along) in squares.iter().zip(along) {
        let whole = alpha + beta * square;
        found[0] += square * (beta * along / whole).powi(2);
        found[1] += (alpha * along / whole).powi(2);
        found[2] += beta * square / whole;
    }
    found
}

/// How much of the features' spread lies between classes, each direction by its own: the trace of the inverse covariance times
/// the covariance of class means, from 0 to classes - 1; higher is better (Bao et al., "An Information-Theoretic Approach to
/// Transferability in Task Transfer Learning", 2019), with the covariance shrunk (Ibrahim et al., "Newer is not always better",
/// 2022) as Ledoit and Wolf do (2004).
///
/// # Errors
/// As `log_me`.
pub fn h_score(rows: &Rows) -> Result<f64> {
    let mut x = rows.numbers()?;
    let count = x.nrows() as f64;
    for mut column in x.column_iter_mut() {
        let mean = column.sum() / count;
        column.add_scalar_mut(-mean);
    }
    let spectrum = Spectrum::of(&x);
    let (shrinkage, mean) = ledoit_wolf(&x, &spectrum);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); rows.classes];
    rows.labels.iter().enumerate().for_each(|(row, class)| members[*class as usize].push(row));
    members.retain(|rows| !rows.is_empty());
    let between = |index: usize| {
        let column = spectrum.directions.column(index);
        let class = |rows: &Vec<usize>| rows.iter().map(|row| column[*row]).sum::<f64>().powi(2) / rows.len() as f64;
        members.iter().map(class).sum::<f64>()
    };
    let part = |(index, square): (usize, &f64)| {
        let own = (1.0 - shrinkage) * square / count;
        own * between(index) / (own + shrinkage * mean).max(f64::MIN_POSITIVE)
    };
    Ok(spectrum.squares.iter().enumerate().map(part).sum())
}

/// How far a covariance is to be drawn towards the same spread along all directions, and that spread, for centred rows.
fn ledoit_wolf(x: &DMatrix<f64>, spectrum: &Spectrum) -> (f64, f64) {
    let (count, numbers) = (x.nrows() as f64, spectrum.numbers as f64);
    let spreads: Vec<f64> = spectrum.squares.iter().map(|square| square / count).collect();
    let mean = spreads.iter().sum::<f64>() / numbers;
    let squared = spreads.iter().map(|spread| spread * spread).sum::<f64>();
    let off = squared / numbers - mean * mean;
    let fourth = x.row_iter().map(|row| row.norm_squared().powi(2)).sum::<f64>() / count;
    let error = (fourth - squared) / (count * numbers);
    (if off > 0.0 { (error / off).clamp(0.0, 1.0) } else { 0.0 }, mean)
}

/// The mean logarithm of the probability of each row's class, where the class follows from the source's classes as it does on
/// average over all rows; at most 0, higher is better (Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned
/// Representations", 2020). `logits` are what the source's classifier says: [n, source classes].
///
/// # Errors
/// As `log_me`.
pub fn leep(logits: &Rows) -> Result<f64> {
    let mut theta = logits.numbers()?;
    for mut row in theta.row_iter_mut() {
        let most = row.max();
        row.iter_mut().for_each(|value| *value = libm::exp(*value - most));
        let whole = row.sum();
        row.unscale_mut(whole);
    }
    // Of each class, how often it comes with each of the source's.
    let mut joint: DMatrix<f64> = DMatrix::zeros(logits.classes, theta.ncols());
    for (row, class) in theta.row_iter().zip(logits.labels) {
        let mut own = joint.row_mut(*class as usize);
        own += row;
    }
    let source = joint.row_sum();
    let told = theta.row_iter().zip(logits.labels).map(|(row, class)| {
        let own = joint.row(*class as usize);
        let parts = row.iter().zip(own.iter().zip(source.iter())).filter(|(_, (_, source))| **source > 0.0);
        libm::log(parts.map(|(theta, (joint, source))| theta * joint / source).sum::<f64>().max(f64::MIN_POSITIVE))
    });
    Ok(told.sum::<f64>() / theta.nrows().max(1) as f64)
}

impl Rows<'_> {
    /// [n, numbers]
    fn numbers(&self) -> Result<DMatrix<f64>> {
        let (rows, numbers) = self.x.dims2()?;
        if rows != self.labels.len() || rows == 0 || self.labels.iter().any(|label| *label as usize >= self.classes) {
            bail!("{} labels of {} classes do not fit {rows} rows", self.labels.len(), self.classes);
        }
        let values = self.x.flatten_all()?.to_vec1::<f32>()?;
        if !values.iter().all(|value| value.is_finite()) {
            bail!("the features hold NaN or infinity");
        }
        Ok(DMatrix::from_row_iterator(rows, numbers, values.into_iter().map(f64::from)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::seed::{Stream, stream};

    /// Numbers around centres of three classes.
    fn features(count: usize, numbers: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
        let mut rng = stream(seed, Stream::Init, &[5]);
        let mut uniform = || (rng.below(2001) as f32 - 1000.0) / 1000.0;
        let centres: Vec<f32> = (0..3 * numbers).map(|_| uniform()).collect();
        let labels: Vec<u32> = (0..count).map(|row| (row * row % 7 % 3) as u32).collect();
        let value = |at: usize| centres[labels[at / numbers] as usize * numbers + at % numbers];
        let values = (0..count * numbers).map(|at| value(at) + uniform() + 0.3).collect();
        (values, labels)
    }

    fn scored(values: &[f32], labels: &[u32], numbers: usize, score: fn(&Rows) -> Result<f64>) -> Result<f64> {
        let x = Tensor::from_slice(values, (labels.len(), numbers), &Device::Cpu)?;
        score(&Rows { x: &x, labels, groups: labels, classes: 3 })
    }

    fn matrix(values: &[f32], rows: usize) -> DMatrix<f64> {
        DMatrix::from_row_iterator(rows, values.len() / rows, values.iter().map(|value| f64::from(*value)))
    }

    /// The density of targets under the model that weights N(0, 1/alpha) and noise N(0, 1/beta) make, at its maximum as a search
    /// over both finds it.
    fn densest(x: &DMatrix<f64>, labels: &[u32], class: u32) -> f64 {
        let count = labels.len();
        let y = nalgebra::DVector::from_fn(count, |row, _| f64::from(labels[row] == class));
        let density = |alpha: f64, beta: f64| {
            let covariance = x * x.transpose() / alpha + DMatrix::identity(count, count) / beta;
            let lower = covariance.cholesky().expect("positive definite").unpack();
            let log_det = 2.0 * lower.diagonal().iter().map(|value| libm::log(*value)).sum::<f64>();
            let white = lower.solve_lower_triangular(&y).expect("solvable");
            -0.5 * (count as f64 * libm::log(2.0 * std::f64::consts::PI) + log_det + white.norm_squared())
                / count as f64
        };
        let (mut at, mut step) = ([0.0f64, 0.0], 4.0);
        let value = |at: [f64; 2]| density(libm::exp(at[0]), libm::exp(at[1]));
        while step > 1e-4 {
            let moves = [[step, 0.0], [-step, 0.0], [0.0, step], [0.0, -step]].map(|[a, b]| [at[0] + a, at[1] + b]);
            match moves.into_iter().find(|next| value(*next) > value(at)) {
                Some(next) => at = next,
                None => step /= 2.0,
            }
        }
        value(at)
    }

    #[test]
    fn the_evidence_is_the_greatest_density_of_the_model() -> Result<()> {
        for (count, numbers) in [(40, 6), (25, 40)] {
            let (values, labels) = features(count, numbers, 1);
            let x = matrix(&values, count);
            let defined = (0..3).map(|class| densest(&x, &labels, class)).sum::<f64>() / 3.0;
            let found = scored(&values, &labels, numbers, log_me)?;
            assert!((found - defined).abs() < 1e-4, "{count} {numbers}: {found} {defined}");
        }
        Ok(())
    }

    #[test]
    fn the_h_score_is_its_definition_with_the_shrunk_covariance() -> Result<()> {
        for (count, numbers) in [(40, 6), (25, 40)] {
            let (values, labels) = features(count, numbers, 2);
            let mut x = matrix(&values, count);
            x.column_iter_mut().for_each(|mut column| {
                let mean = column.mean();
                column.add_scalar_mut(-mean);
            });
            let (n, d) = (count as f64, numbers as f64);
            let sample = x.tr_mul(&x) / n;
            let mean = sample.trace() / d;
            let off = (&sample - DMatrix::identity(numbers, numbers) * mean).norm_squared() / d;
            let error =
                x.row_iter().map(|row| (row.transpose() * row - &sample).norm_squared()).sum::<f64>() / (n * n * d);
            let shrinkage = (error / off).min(1.0);
            let shrunk = &sample * (1.0 - shrinkage) + DMatrix::identity(numbers, numbers) * (shrinkage * mean);
            let means = DMatrix::from_fn(count, numbers, |row, column| {
                let own: Vec<usize> = (0..count).filter(|other| labels[*other] == labels[row]).collect();
                own.iter().map(|other| x[(*other, column)]).sum::<f64>() / own.len() as f64
            });
            let between = means.tr_mul(&means) / n * (1.0 - shrinkage);
            let defined = (shrunk.try_inverse().expect("invertible") * between).trace();
            let found = scored(&values, &labels, numbers, h_score)?;
            assert!((found - defined).abs() < 1e-9 * defined.abs().max(1.0), "{count}: {found} {defined}");
            assert!(found > 0.0 && found < 2.0, "{found}");
        }
        Ok(())
    }

    #[test]
    fn leep_is_told_by_hand() -> Result<()> {
        // Two source classes, theta .8/.2, .8/.2, .2/.8; labels 0, 0, 1. P(0|first) = 1.6/1.8, P(1|second) = .8/1.2.
        let of = |p: f64| [libm::log(p) as f32, libm::log(1.0 - p) as f32];
        let values = [of(0.8), of(0.8), of(0.2)].concat();
        let found = scored(&values, &[0, 0, 1], 2, leep)?;
        let zero = 0.8 * 1.6 / 1.8 + 0.2 * 0.4 / 1.2;
        let one = 0.2 * 0.2 / 1.8 + 0.8 * 0.8 / 1.2;
        let defined = (2.0 * libm::log(zero) + libm::log(one)) / 3.0;
        assert!((found - defined).abs() < 1e-6, "{found} {defined}");
        Ok(())
    }

    #[test]
    fn features_that_tell_classes_apart_score_higher_than_those_that_do_not() -> Result<()> {
        let (values, labels) = features(60, 8, 3);
        let turned: Vec<u32> = labels.iter().skip(1).chain(&labels[..1]).copied().collect();
        for score in [log_me, h_score, leep] {
            let (right, wrong) = (scored(&values, &labels, 8, score)?, scored(&values, &turned, 8, score)?);
            assert!(right > wrong, "{right} {wrong}");
        }
        assert!(scored(&[f32::NAN; 16], &[0, 1], 8, log_me).is_err());
        Ok(())
    }
}
