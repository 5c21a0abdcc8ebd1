//! How well classes can be read from features before anything is trained: answers to each row by others, of a ridge regression
//! and of nearest neighbours. Rows of one group leave together: what is alike by its making would give its class away.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, bail};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

use super::activation::Activation;
use super::linear;

/// Strengths of the ridge, in parts of the mean square of a centred row, from the strongest on.
const STRENGTHS: [f64; 6] = [10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4];
/// Directions with less than this part of the largest one's squares are rounding, and so is what is left of rows that are all
/// the same, when they are centred.
const RANK: f64 = 1e-9;

/// Rows and what is known of them.
pub struct Rows<'a> {
    /// [n, numbers]
    pub x: &'a Tensor,
    pub labels: &'a [u32],
    /// Of each row, the group that it leaves with.
    pub groups: &'a [u32],
    pub classes: usize,
}

impl Rows<'_> {
    /// The numbers of all rows, and how many rows there are and numbers in each.
    fn read(&self) -> Result<(Vec<f32>, usize, usize)> {
        let (rows, numbers) = self.x.dims2()?;
        if rows != self.labels.len() || rows != self.groups.len() {
            bail!("{} labels of {} groups do not fit {rows} rows", self.labels.len(), self.groups.len());
        }
        if self.groups.iter().all(|group| *group == self.groups[0]) {
            bail!("all images are of one group: nothing is left to answer them");
        }
        let values = self.x.flatten_all()?.to_vec1::<f32>()?;
        if !values.iter().all(|value| value.is_finite()) {
            bail!("the features hold NaN or infinity");
        }
        Ok((values, rows, numbers))
    }

    /// The rows of each group.
    fn together(&self) -> Vec<Vec<usize>> {
        let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        self.groups.iter().enumerate().for_each(|(row, group)| groups.entry(*group).or_default().push(row));
        groups.into_values().collect()
    }
}

/// For each row the class that a ridge regression on all other groups gives it: targets of one for the class and zero for the
/// others, biases free. Exact without fitting again: what a linear smoother with hat matrix H says of rows G that it leaves out
/// is y - (I - H)^-1 (y - fit), all of G alone (Allen, 1974; Golub, Heath and Wahba, 1979). The strength is the one with the
/// least sum of squares left out.
///
/// # Errors
/// The shapes do not fit, there is one group, or a feature is no number.
pub fn ridge_left_out(rows: &Rows) -> Result<Vec<u32>> {
    let problem = Problem::new(rows)?;
    let together = rows.together();
    let mut best: Option<(f64, DMatrix<f64>)> = None;
    for strength in STRENGTHS {
        let said = problem.left_out(strength * problem.scale, &together)?;
        let press = (&problem.y - &said).norm_squared();
        // The stronger one stays on a tie.
        if best.as_ref().is_none_or(|(least, _)| press < *least) {
            best = Some((press, said));
        }
    }
    let Some((_, said)) = best else { bail!("the features are no numbers") };
    Ok((0..said.nrows()).map(|row| first_largest(said.row(row).iter().copied())).collect())
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
    fn new(rows: &Rows) -> Result<Self> {
        let (labels, classes) = (rows.labels, rows.classes);
        let (values, rows, numbers) = rows.read()?;
        let whole: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
        let centred = centred(values, rows, numbers)?;
        // The smaller of the two Gram matrices is decomposed.
        let small = if numbers < rows { centred.t()?.contiguous()? } else { centred.clone() };
        let eigen = SymmetricEigen::new(gram(&small)?);
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

    /// What is said of the rows of each group by a regression on the others that adds `strength` |W|^2 to the sum of squares.
    fn left_out(&self, strength: f64, together: &[Vec<usize>]) -> Result<DMatrix<f64>> {
        let (rows, classes) = self.y.shape();
        let shrink = self.squares.map(|square| square / (square + strength));
        let mut right = self.right.clone();
        (0..right.nrows()).for_each(|index| right.row_mut(index).scale_mut(shrink[index]));
        let mut said = &self.directions * right;
        for group in together {
            let along = self.directions.select_rows(group);
            let mut shrunk = along.clone();
            (0..shrunk.ncols()).for_each(|index| shrunk.column_mut(index).scale_mut(shrink[index]));
            let hat = (along * shrunk.transpose()).add_scalar(1.0 / rows as f64);
            let rest = DMatrix::identity(group.len(), group.len()) - hat;
            let off = DMatrix::from_fn(group.len(), classes, |at, class| {
                self.y[(group[at], class)] - said[(group[at], class)] - self.y_mean[class]
            });
            let Some(solved) = rest.lu().solve(&off) else { bail!("the rows of a group decide everything") };
            for (at, row) in group.iter().enumerate() {
                (0..classes).for_each(|class| said[(*row, class)] = self.y[(*row, class)] - solved[(at, class)]);
            }
        }
        Ok(said)
    }
}

/// For each row the class of most of its `k` nearest rows of other groups by the cosine; of equals, the one with the nearest.
///
/// # Errors
/// The shapes do not fit, some row has no `k` others, or a feature is no number.
pub fn neighbours_left_out(rows: &Rows, k: usize) -> Result<Vec<u32>> {
    let (mut values, count, numbers) = rows.read()?;
    for row in values.chunks_exact_mut(numbers) {
        let length = row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / length.max(f64::MIN_POSITIVE)) as f32);
    }
    let near = gram(&Tensor::from_vec(values, (count, numbers), &Device::Cpu)?)?;
    let answer = |row: usize| {
        let mut others: Vec<usize> = (0..count).filter(|other| rows.groups[*other] != rows.groups[row]).collect();
        if others.len() < k || k == 0 {
            bail!("{k} neighbours do not fit {} rows of other groups", others.len());
        }
        others.sort_by(|one, other| near[(row, *other)].total_cmp(&near[(row, *one)]));
        let mut votes = vec![0; rows.classes];
        others[..k].iter().for_each(|other| votes[rows.labels[*other] as usize] += 1);
        let most = votes.iter().max().copied().unwrap_or(0);
        let mut nearest = others[..k].iter().map(|other| rows.labels[*other]);
        Ok(nearest.find(|class| votes[*class as usize] == most).unwrap_or(0))
    };
    (0..count).map(answer).collect()
}

/// Rows less the mean of all.
fn centred(mut values: Vec<f32>, rows: usize, numbers: usize) -> Result<Tensor> {
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

    fn without(values: &[f32], numbers: usize, gone: &[usize]) -> Vec<f32> {
        let kept = values.chunks_exact(numbers).enumerate().filter(|(at, _)| !gone.contains(at));
        kept.flat_map(|(_, row)| row.to_vec()).collect()
    }

    #[test]
    fn what_is_left_out_is_what_a_fit_on_the_others_says() -> Result<()> {
        // More rows than numbers, and fewer; each row alone, and in groups of one to four.
        for (count, numbers) in [(30, 7), (24, 60)] {
            let (values, labels) = rows(count, numbers, 3);
            let x = Tensor::from_slice(&values, (count, numbers), &Device::Cpu)?;
            for groups in
                [(0..count as u32).collect::<Vec<u32>>(), (0..count as u32).map(|row| row * row % 11).collect()]
            {
                let rows = Rows { x: &x, labels: &labels, groups: &groups, classes: 3 };
                let (problem, together) = (Problem::new(&rows)?, rows.together());
                for strength in [0.3, 20.0] {
                    let said = problem.left_out(strength, &together)?;
                    for group in [&together[0], &together[1], &together[together.len() - 1]] {
                        let left = count - group.len();
                        let others = Tensor::from_vec(without(&values, numbers, group), (left, numbers), &Device::Cpu)?;
                        let kept = labels.iter().enumerate().filter(|(row, _)| !group.contains(row));
                        let names: Vec<u32> = kept.map(|(_, label)| *label).collect();
                        // There the loss is a mean.
                        let head = Ridge::new(&others, &names, 3, None)?.head(strength / left as f64)?;
                        for row in group {
                            let row_x = x.narrow(0, *row, 1)?;
                            let logits = linear::forward(&row_x, &head.weight, &head.bias, Activation::Linear)?;
                            for (class, value) in logits.flatten_all()?.to_vec1::<f32>()?.into_iter().enumerate() {
                                let own = said[(*row, class)];
                                assert!((own - f64::from(value)).abs() < 2e-4, "{count} {group:?} {own} {value}");
                            }
                        }
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
        let own = [0, 1, 2, 3, 4, 5];
        let said =
            |groups: &[u32], k: usize| neighbours_left_out(&Rows { x: &x, labels: &labels, groups, classes: 2 }, k);
        assert_eq!(said(&own, 1)?, [0, 0, 0, 1, 1, 1]);
        assert_eq!(said(&own, 2)?, [0, 0, 0, 1, 1, 1]);
        // At 40 degrees: 41, 2.5 and 1 are nearest, two of them of class 1.
        assert_eq!(said(&own, 3)?, [1, 1, 0, 1, 1, 1]);
        // Those at 0 and 1 degree are of one group: each looks further.
        assert_eq!(said(&[0, 0, 2, 3, 4, 5], 1)?, [1, 1, 0, 1, 1, 1]);
        assert!(said(&own, 6).is_err() && said(&[7; 6], 1).is_err());
        Ok(())
    }

    #[test]
    fn features_that_tell_classes_apart_are_told_from_those_that_do_not() -> Result<()> {
        let (values, labels) = rows(60, 8, 3);
        let x = Tensor::from_slice(&values, (60, 8), &Device::Cpu)?;
        let groups: Vec<u32> = (0..60).collect();
        let right = |x: &Tensor, labels: &[u32]| {
            let found = ridge_left_out(&Rows { x, labels, groups: &groups, classes: 3 })?;
            Ok::<usize, candle_core::Error>(found.iter().zip(labels).filter(|(one, other)| one == other).count())
        };
        let found = right(&x, &labels)?;
        assert!(found > 40, "{found}");
        // Labels that have nothing to do with the rows: left out, they are not found by having been seen.
        let mut rng = stream(4, Stream::Init, &[2]);
        let others: Vec<u32> = (0..60).map(|_| rng.below(3) as u32).collect();
        let found = right(&x, &others)?;
        assert!(found < 33, "{found}");
        let same = Tensor::from_vec(vec![1f32; 60 * 8], (60, 8), &Device::Cpu)?;
        // The class of most of the others is never one's own, where all are alike.
        assert_eq!(right(&same, &labels)?, 0);
        // Left out one by one, rows of two equal classes that say nothing are answered worse than by chance, for fewer of
        // their class stay; left out in pairs of both they are not.
        let (noise, _) = rows(200, 800, 1);
        let noise = Tensor::from_vec(noise, (200, 800), &Device::Cpu)?;
        let labels: Vec<u32> = (0..200).map(|row| row % 2).collect();
        let found = |lot: u32| {
            let groups: Vec<u32> = (0..200).map(|row| row / lot).collect();
            let said = ridge_left_out(&Rows { x: &noise, labels: &labels, groups: &groups, classes: 2 })?;
            Ok::<usize, candle_core::Error>(said.iter().zip(&labels).filter(|(one, other)| one == other).count())
        };
        let (alone, paired) = (found(1)?, found(2)?);
        assert!(alone < 85 && (85..=115).contains(&paired), "{alone} and {paired} of 200");
        let labels: Vec<u32> = (0..60).map(|row| row % 3).collect();
        let broken = Tensor::from_vec(vec![f32::NAN; 60 * 8], (60, 8), &Device::Cpu)?;
        assert!(right(&broken, &labels).is_err_and(|error| error.to_string().contains("NaN or infinity")));
        Ok(())
    }
}
