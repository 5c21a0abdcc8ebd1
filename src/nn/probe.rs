//! How well classes can be read from features before anything is trained: answers to each row by those that have not seen it,
//! of a ridge regression and of nearest neighbours.

use candle_core::{Device, Result, Tensor, bail};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

use super::activation::Activation;
use super::linear;

/// Strengths of the ridge, in parts of the mean square of a centred row, from the strongest on.
const STRENGTHS: [f64; 6] = [10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4];
/// Directions with less than this part of the largest one's squares are rounding, and so is what is left of rows that are all
/// the same, when they are centred.
const RANK: f64 = 1e-9;

/// For each row of `x` [n, numbers] the class that a ridge regression on all other rows gives it: targets of one for the class
/// and zero for the others, biases free. Exact without fitting n times: what a linear smoother says of a row that it leaves
/// out is y - (y - fit) / (1 - leverage) (Allen, 1974; Golub, Heath and Wahba, 1979). The strength is the one with the least
/// sum of squares left out.
///
/// # Errors
/// The shapes do not fit, or there are fewer than three rows.
pub fn ridge_left_out(x: &Tensor, labels: &[u32], classes: usize) -> Result<Vec<u32>> {
    let problem = Problem::new(x, labels, classes)?;
    let mut best: Option<(f64, DMatrix<f64>)> = None;
    for strength in STRENGTHS {
        let said = problem.left_out(strength * problem.scale);
        let press = (&problem.y - &said).norm_squared();
        // The stronger one stays on a tie.
        if best.as_ref().is_none_or(|(least, _)| press < *least) {
            best = Some((press, said));
        }
    }
    let Some((_, said)) = best else { bail!("the features are no numbers") };
    Ok((0..labels.len()).map(|row| first_largest((0..classes).map(|class| said[(row, class)]))).collect())
}

fn first_largest(values: impl Iterator<Item = f64>) -> u32 {
    let mut best = (0, f64::NEG_INFINITY);
    for (index, value) in values.enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0 as u32
}

/// The centred rows by their principal directions.
struct Problem {
    /// [n, rank], orthonormal columns.
    directions: DMatrix<f64>,
    /// The sum of squares along each.
    squares: DVector<f64>,
    /// [n, classes]
    y: DMatrix<f64>,
    y_mean: DVector<f64>,
    /// `directions` transposed times the centred targets: [rank, classes].
    right: DMatrix<f64>,
    /// The mean square of a row.
    scale: f64,
}

impl Problem {
    fn new(x: &Tensor, labels: &[u32], classes: usize) -> Result<Self> {
        let (rows, numbers) = x.dims2()?;
        if rows != labels.len() || rows < 3 {
            bail!("{} labels do not fit {rows} rows, or these are fewer than three", labels.len());
        }
        let centred = centred(x)?;
        // The smaller of the two Gram matrices is decomposed.
        let small = if numbers < rows { centred.t()?.contiguous()? } else { centred.clone() };
        let eigen = SymmetricEigen::new(gram(&small)?);
        let whole: f64 = x.flatten_all()?.to_vec1::<f32>()?.iter().map(|value| f64::from(*value).powi(2)).sum();
        let least = RANK * eigen.eigenvalues.max().max(whole * RANK);
        let kept: Vec<usize> = (0..eigen.eigenvalues.len()).filter(|index| eigen.eigenvalues[*index] > least).collect();
        let squares = DVector::from_fn(kept.len(), |index, _| eigen.eigenvalues[kept[index]]);
        let mut directions = eigen.eigenvectors.select_columns(&kept);
        if numbers < rows {
            let values = centred.flatten_all()?.to_vec1::<f32>()?;
            let wide = DMatrix::from_fn(rows, numbers, |row, column| f64::from(values[row * numbers + column]));
            directions = wide * directions;
            squares
                .iter()
                .enumerate()
                .for_each(|(index, square)| directions.column_mut(index).unscale_mut(square.sqrt()));
        }
        let y = DMatrix::from_fn(rows, classes, |row, class| f64::from(labels[row] as usize == class));
        let y_mean = DVector::from_fn(classes, |class, _| y.column(class).sum() / rows as f64);
        let less = DMatrix::from_fn(rows, classes, |row, class| y[(row, class)] - y_mean[class]);
        let right = directions.tr_mul(&less);
        let scale = squares.sum() / rows as f64;
        Ok(Self { directions, squares, y, y_mean, right, scale })
    }

    /// What is said of each row by a regression on the others that adds `strength` |W|^2 to the sum of squares.
    fn left_out(&self, strength: f64) -> DMatrix<f64> {
        let rows = self.y.nrows();
        let shrink = self.squares.map(|square| square / (square + strength));
        let mut right = self.right.clone();
        (0..right.nrows()).for_each(|index| right.row_mut(index).scale_mut(shrink[index]));
        let mut said = &self.directions * right;
        for row in 0..rows {
            let along = self.directions.row(row);
            let leverage =
                1.0 / rows as f64 + along.iter().zip(&shrink).map(|(own, part)| own * own * part).sum::<f64>();
            for class in 0..self.y_mean.len() {
                let (truth, fit) = (self.y[(row, class)], said[(row, class)] + self.y_mean[class]);
                said[(row, class)] = truth - (truth - fit) / (1.0 - leverage).max(f64::EPSILON);
            }
        }
        said
    }
}

/// For each row of `x` [n, numbers] the class of most of its `k` nearest others by the cosine; of equals, the one with the
/// nearest row.
///
/// # Errors
/// The shapes do not fit, or there are not more than `k` rows.
pub fn neighbours_left_out(x: &Tensor, labels: &[u32], classes: usize, k: usize) -> Result<Vec<u32>> {
    let (rows, numbers) = x.dims2()?;
    if rows != labels.len() || rows <= k || k == 0 {
        bail!("{} labels and {k} neighbours do not fit {rows} rows", labels.len());
    }
    let mut values = x.flatten_all()?.to_vec1::<f32>()?;
    for row in values.chunks_exact_mut(numbers) {
        let length = row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / length.max(f64::MIN_POSITIVE)) as f32);
    }
    let near = gram(&Tensor::from_vec(values, (rows, numbers), &Device::Cpu)?)?;
    let answer = |row: usize| {
        let mut others: Vec<usize> = (0..rows).filter(|other| *other != row).collect();
        others.sort_by(|one, other| near[(row, *other)].total_cmp(&near[(row, *one)]));
        let mut votes = vec![0; classes];
        others[..k].iter().for_each(|other| votes[labels[*other] as usize] += 1);
        let most = votes.iter().max().copied().unwrap_or(0);
        others[..k].iter().map(|other| labels[*other]).find(|class| votes[*class as usize] == most).unwrap_or(0)
    };
    Ok((0..rows).map(answer).collect())
}

/// Rows less the mean of all, on the CPU.
fn centred(x: &Tensor) -> Result<Tensor> {
    let (rows, numbers) = x.dims2()?;
    let mut values = x.flatten_all()?.to_vec1::<f32>()?;
    let mut mean = vec![0.0; numbers];
    for row in values.chunks_exact(numbers) {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += f64::from(*value) / rows as f64);
    }
    for row in values.chunks_exact_mut(numbers) {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value = (f64::from(*value) - mean) as f32);
    }
    Tensor::from_vec(values, (rows, numbers), &Device::Cpu)
}

/// Products of all pairs of rows, by the operator that gives every machine of a class the same bits.
fn gram(x: &Tensor) -> Result<DMatrix<f64>> {
    let rows = x.dim(0)?;
    let none = Tensor::zeros(rows, candle_core::DType::F32, &Device::Cpu)?;
    let products = linear::forward(x, x, &none, Activation::Linear)?.flatten_all()?.to_vec1::<f32>()?;
    // The mean of both halves: a decomposition of symmetric matrices reads one of them.
    Ok(DMatrix::from_fn(rows, rows, |one, other| {
        0.5 * (f64::from(products[one * rows + other]) + f64::from(products[other * rows + one]))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::solve::Ridge;
    use crate::seed::{Stream, stream};

    /// Rows of some classes around centres of their own, and of little noise.
    fn rows(count: usize, numbers: usize, classes: usize) -> (Vec<f32>, Vec<u32>) {
        let mut rng = stream(3, Stream::Init, &[1]);
        let mut uniform = || (rng.below(2001) as f32 - 1000.0) / 1000.0;
        let centres: Vec<f32> = (0..classes * numbers).map(|_| uniform()).collect();
        let labels: Vec<u32> = (0..count).map(|row| (row % classes) as u32).collect();
        let values = (0..count * numbers)
            .map(|at| centres[(at / numbers % classes) * numbers + at % numbers] + 1.5 * uniform() + 0.5)
            .collect();
        (values, labels)
    }

    fn without(values: &[f32], numbers: usize, row: usize) -> Vec<f32> {
        values
            .chunks_exact(numbers)
            .enumerate()
            .filter(|(at, _)| *at != row)
            .flat_map(|(_, row)| row.to_vec())
            .collect()
    }

    #[test]
    fn what_is_left_out_is_what_a_fit_on_the_others_says() -> Result<()> {
        // More rows than numbers, and fewer.
        for (count, numbers) in [(30, 7), (24, 60)] {
            let (values, labels) = rows(count, numbers, 3);
            let x = Tensor::from_slice(&values, (count, numbers), &Device::Cpu)?;
            let problem = Problem::new(&x, &labels, 3)?;
            for strength in [0.3, 20.0] {
                let said = problem.left_out(strength);
                for row in [0, 1, 17] {
                    let others = Tensor::from_vec(without(&values, numbers, row), (count - 1, numbers), &Device::Cpu)?;
                    let mut names = labels.clone();
                    names.remove(row);
                    // There the loss is a mean.
                    let head = Ridge::new(&others, &names, 3, None)?.head(strength / (count - 1) as f64)?;
                    let logits = linear::forward(&x.narrow(0, row, 1)?, &head.weight, &head.bias, Activation::Linear)?;
                    for (class, value) in logits.flatten_all()?.to_vec1::<f32>()?.into_iter().enumerate() {
                        let own = said[(row, class)];
                        assert!((own - f64::from(value)).abs() < 2e-4, "{count} {numbers} {row} {own} {value}");
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn neighbours_vote_and_the_nearest_decides_between_equals() -> Result<()> {
        // Angles of 0, 1, 2.5, 40, 41 and 90 degrees; lengths say nothing.
        let angles = [0.0f32, 1.0, 2.5, 40.0, 41.0, 90.0];
        let place = |(at, angle): (usize, &f32)| {
            let (sin, cos) = angle.to_radians().sin_cos();
            [cos * (at + 1) as f32, sin * (at + 1) as f32]
        };
        let values: Vec<f32> = angles.iter().enumerate().flat_map(place).collect();
        let x = Tensor::from_vec(values, (6, 2), &Device::Cpu)?;
        let labels = [0, 0, 1, 1, 1, 0];
        assert_eq!(neighbours_left_out(&x, &labels, 2, 1)?, [0, 0, 0, 1, 1, 1]);
        assert_eq!(neighbours_left_out(&x, &labels, 2, 2)?, [0, 0, 0, 1, 1, 1]);
        // At 40 degrees: 41, 2.5 and 1 are nearest, two of them of class 1.
        assert_eq!(neighbours_left_out(&x, &labels, 2, 3)?, [1, 1, 0, 1, 1, 1]);
        assert!(neighbours_left_out(&x, &labels, 2, 6).is_err());
        Ok(())
    }

    #[test]
    fn features_that_tell_classes_apart_are_told_from_those_that_do_not() -> Result<()> {
        let (values, labels) = rows(60, 8, 3);
        let x = Tensor::from_slice(&values, (60, 8), &Device::Cpu)?;
        let right =
            |found: &[u32], labels: &[u32]| found.iter().zip(labels).filter(|(one, other)| one == other).count();
        let found = right(&ridge_left_out(&x, &labels, 3)?, &labels);
        assert!(found > 40, "{found}");
        // Labels that have nothing to do with the rows: left out, they are not found by having been seen.
        let mut rng = stream(4, Stream::Init, &[2]);
        let others: Vec<u32> = (0..60).map(|_| rng.below(3) as u32).collect();
        let found = right(&ridge_left_out(&x, &others, 3)?, &others);
        assert!(found < 33, "{found}");
        let same = Tensor::from_vec(vec![1f32; 60 * 8], (60, 8), &Device::Cpu)?;
        // The class of most of the others is never one's own, where all are alike.
        assert_eq!(right(&ridge_left_out(&same, &labels, 3)?, &labels), 0);
        Ok(())
    }
}
