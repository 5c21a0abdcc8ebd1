//! Linear heads by optimisation to the end: multinomial logistic regression with L-BFGS (Nocedal, 1980; Liu and Nocedal,
//! 1989), and ridge regression on centred targets with one eigendecomposition for all strengths.

use std::collections::VecDeque;

use candle_core::{Result, Tensor, bail};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

use super::activation::Activation;
use super::linear;
use super::loss::{Targets, cross_entropies};

/// Weights [classes, inputs] and biases `[classes]`.
#[derive(Clone, Debug)]
pub struct Head {
    pub weight: Tensor,
    pub bias: Tensor,
}

/// Steps that L-BFGS remembers.
const MEMORY: usize = 10;
/// The end: no part of the gradient is larger.
const GRADIENT: f64 = 1e-5;
/// The end too: the loss fell by no larger part of itself (scipy's default for L-BFGS-B is 2.2e-9).
const DECREASE: f64 = 2.2e-9;
const MOST_STEPS: usize = 1000;
/// Halvings of a step before it is given up: what is left is rounding.
const MOST_HALVINGS: usize = 30;

/// mean cross-entropy + lambda / 2 |W|^2, the biases free: convex, so where it ends does not depend on where it starts.
pub struct Logistic<'a> {
    /// [n, inputs]
    x: &'a Tensor,
    labels: &'a [u32],
    targets: Targets<'a>,
    classes: usize,
    inputs: usize,
    /// Weights, then biases: the start of the next solution.
    at: Vec<f64>,
}

/// A solution, and what it took.
pub struct Solved {
    pub head: Head,
    pub converged: bool,
    /// Evaluations of loss and gradient on all rows.
    pub passes: usize,
}

struct Value {
    loss: f64,
    gradient: Vec<f64>,
}

impl<'a> Logistic<'a> {
    /// The problem of `labels` `[n]` on the rows of `x` [n, inputs]. It starts from zeros.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn new(x: &'a Tensor, labels: &'a [u32], classes: usize, targets: Targets<'a>) -> Result<Self> {
        let (rows, inputs) = x.dims2()?;
        if rows != labels.len() || rows == 0 {
            bail!("{} labels do not fit {rows} rows", labels.len());
        }
        Ok(Self { x, labels, targets, classes, inputs, at: vec![0.0; classes * (inputs + 1)] })
    }

    /// Starts the next solution from a head.
    ///
    /// # Errors
    /// It has another shape.
    pub fn start_from(&mut self, head: &Head) -> Result<()> {
        if head.weight.dims() != [self.classes, self.inputs] {
            bail!(
                "a head of {:?} does not fit {} classes of {} inputs",
                head.weight.shape(),
                self.classes,
                self.inputs
            );
        }
        let numbers = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let all = [numbers(&head.weight)?, numbers(&head.bias)?].concat();
        self.at = all.into_iter().map(f64::from).collect();
        Ok(())
    }

    fn head(&self, at: &[f64]) -> Result<Head> {
        let numbers: Vec<f32> = at.iter().map(|value| *value as f32).collect();
        let (weight, bias) = numbers.split_at(self.classes * self.inputs);
        let device = self.x.device();
        Ok(Head {
            weight: Tensor::from_slice(weight, (self.classes, self.inputs), device)?,
            bias: Tensor::from_slice(bias, self.classes, device)?,
        })
    }

    fn value(&self, at: &[f64], lambda: f64) -> Result<Value> {
        let head = self.head(at)?;
        let logits = linear::forward(self.x, &head.weight, &head.bias, Activation::Linear)?;
        let (means, dy) = cross_entropies(&logits, self.labels, &[self.targets])?;
        let [dw, db] = linear::heads_backward(self.x, &dy, 1)?;
        let numbers = |tensor: Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let mut gradient: Vec<f64> = [numbers(dw)?, numbers(db)?].concat().into_iter().map(f64::from).collect();
        let weights = self.classes * self.inputs;
        let squares: f64 = at[..weights].iter().map(|value| value * value).sum();
        gradient.iter_mut().zip(&at[..weights]).for_each(|(gradient, value)| *gradient += lambda * value);
        Ok(Value { loss: means.read()?[0] + 0.5 * lambda * squares, gradient })
    }

    /// Solves for one strength, from where the last solution ended.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn solve(&mut self, lambda: f64) -> Result<Solved> {
        let mut at = self.at.clone();
        let mut here = self.value(&at, lambda)?;
        let (mut passes, mut converged) = (1, false);
        let mut memory: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
        for _ in 0..MOST_STEPS {
            if !here.loss.is_finite() {
                break;
            }
            if here.gradient.iter().all(|part| part.abs() <= GRADIENT) {
                converged = true;
                break;
            }
            let direction = direction(&memory, &here.gradient);
            let Some((next, there, tried)) = self.line(&at, &here, &direction, lambda, memory.is_empty())? else {
                // No step lowers the loss by more than rounding does.
                (converged, passes) = (true, passes + MOST_HALVINGS);
                break;
            };
            passes += tried;
            remember(&mut memory, &at, &next, &here.gradient, &there.gradient);
            let fell = (here.loss - there.loss) / here.loss.abs().max(there.loss.abs()).max(1.0);
            (at, here) = (next, there);
            if fell <= DECREASE {
                converged = true;
                break;
            }
        }
        let head = self.head(&at)?;
        self.at = at;
        Ok(Solved { head, converged, passes })
    }

    /// A step along `direction` that lowers the loss enough (Armijo, 1966), by halving; its place, value and evaluations.
    fn line(
        &self,
        at: &[f64],
        here: &Value,
        direction: &[f64],
        lambda: f64,
        first: bool,
    ) -> Result<Option<(Vec<f64>, Value, usize)>> {
        let slope = dot(direction, &here.gradient);
        let mut size = if first { 1.0 / dot(&here.gradient, &here.gradient).sqrt().max(1.0) } else { 1.0 };
        for tried in 1..=MOST_HALVINGS {
            let next: Vec<f64> = at.iter().zip(direction).map(|(at, step)| at + size * step).collect();
            let there = self.value(&next, lambda)?;
            if there.loss <= here.loss + 1e-4 * size * slope {
                return Ok(Some((next, there, tried)));
            }
            size *= 0.5;
        }
        Ok(None)
    }
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// Minus the gradient, times the inverse Hessian as the remembered steps tell it (the two loops of Nocedal, 1980).
fn direction(memory: &VecDeque<(Vec<f64>, Vec<f64>, f64)>, gradient: &[f64]) -> Vec<f64> {
    let mut found: Vec<f64> = gradient.iter().map(|part| -part).collect();
    let mut factors = Vec::new();
    for (step, change, curvature) in memory.iter().rev() {
        let factor = dot(step, &found) / curvature;
        found.iter_mut().zip(change).for_each(|(found, change)| *found -= factor * change);
        factors.push(factor);
    }
    if let Some((_, change, curvature)) = memory.back() {
        let scale = curvature / dot(change, change);
        found.iter_mut().for_each(|found| *found *= scale);
    }
    for ((step, change, curvature), factor) in memory.iter().zip(factors.into_iter().rev()) {
        let back = dot(change, &found) / curvature;
        found.iter_mut().zip(step).for_each(|(found, step)| *found += (factor - back) * step);
    }
    found
}

fn remember(
    memory: &mut VecDeque<(Vec<f64>, Vec<f64>, f64)>,
    at: &[f64],
    next: &[f64],
    gradient: &[f64],
    next_gradient: &[f64],
) {
    let minus =
        |one: &[f64], other: &[f64]| -> Vec<f64> { one.iter().zip(other).map(|(one, other)| one - other).collect() };
    let (step, change) = (minus(next, at), minus(next_gradient, gradient));
    let curvature = dot(&step, &change);
    // Only rounding makes the curvature of a convex function negative.
    if curvature > 1e-12 * dot(&change, &change) {
        memory.push_back((step, change, curvature));
        if memory.len() > MEMORY {
            memory.pop_front();
        }
    }
}

/// mean |x W^T + b - y|^2 + lambda |W|^2 with targets y of one for the class and zero for the others; the biases free.
/// The smaller of the two Gram matrices, of inputs or of rows, is decomposed once.
pub struct Ridge {
    classes: usize,
    inputs: usize,
    x_mean: DVector<f64>,
    y_mean: DVector<f64>,
    eigen: SymmetricEigen<f64, nalgebra::Dyn>,
    /// In the eigenvectors' coordinates: [inputs or rows, classes].
    right: DMatrix<f64>,
    /// The centred rows, where the Gram matrix is that of rows.
    rows: Option<DMatrix<f64>>,
    device: candle_core::Device,
}

impl Ridge {
    /// Decomposes the problem of `labels` `[n]` on the rows of `x` [n, inputs], each row counted as much as its class.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn new(x: &Tensor, labels: &[u32], classes: usize, class_weights: Option<&[f64]>) -> Result<Self> {
        let (count, inputs) = x.dims2()?;
        if count != labels.len() || count == 0 {
            bail!("{} labels do not fit {count} rows", labels.len());
        }
        let weight = |row: usize| class_weights.map_or(1.0, |weights| weights[labels[row] as usize]);
        let whole: f64 = (0..count).map(weight).sum();
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        let mut rows = DMatrix::from_fn(count, inputs, |row, column| f64::from(values[row * inputs + column]));
        let mut y = DMatrix::from_fn(count, classes, |row, class| f64::from(labels[row] as usize == class));
        let mean = |matrix: &DMatrix<f64>| {
            DVector::from_fn(matrix.ncols(), |column, _| {
                (0..count).map(|row| weight(row) * matrix[(row, column)]).sum::<f64>() / whole
            })
        };
        let (x_mean, y_mean) = (mean(&rows), mean(&y));
        for row in 0..count {
            // The square root, so that products of two rows have the weight.
            let scale = (weight(row) / whole).sqrt();
            (0..inputs).for_each(|column| rows[(row, column)] = scale * (rows[(row, column)] - x_mean[column]));
            (0..classes).for_each(|class| y[(row, class)] = scale * (y[(row, class)] - y_mean[class]));
        }
        let device = x.device().clone();
        if inputs <= count {
            let eigen = SymmetricEigen::new(rows.tr_mul(&rows));
            let right = eigen.eigenvectors.tr_mul(&rows.tr_mul(&y));
            return Ok(Self { classes, inputs, x_mean, y_mean, eigen, right, rows: None, device });
        }
        let eigen = SymmetricEigen::new(&rows * rows.transpose());
        let right = eigen.eigenvectors.tr_mul(&y);
        Ok(Self { classes, inputs, x_mean, y_mean, eigen, right, rows: Some(rows), device })
    }

    /// The head of one strength.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn head(&self, lambda: f64) -> Result<Head> {
        let mut scaled = self.right.clone();
        for (index, value) in self.eigen.eigenvalues.iter().enumerate() {
            // Rounding may leave an eigenvalue of nothing below zero.
            let factor = 1.0 / (value.max(0.0) + lambda).max(f64::MIN_POSITIVE);
            scaled.row_mut(index).scale_mut(factor);
        }
        let solved = &self.eigen.eigenvectors * scaled;
        // [inputs, classes]
        let weight = match &self.rows {
            None => solved,
            Some(rows) => rows.tr_mul(&solved),
        };
        let bias: Vec<f32> = (0..self.classes)
            .map(|class| (self.y_mean[class] - weight.column(class).dot(&self.x_mean)) as f32)
            .collect();
        let flat: Vec<f32> = (0..self.classes)
            .flat_map(|class| weight.column(class).iter().map(|value| *value as f32).collect::<Vec<_>>())
            .collect();
        Ok(Head {
            weight: Tensor::from_vec(flat, (self.classes, self.inputs), &self.device)?,
            bias: Tensor::from_vec(bias, self.classes, &self.device)?,
        })
    }
}
