//! Heads that are solved, against scikit-learn 1.7 (`LogisticRegression` with C = 1 / (lambda n) and tol = 1e-12, `Ridge`
//! with alpha = lambda n), and from any start and by either Gram matrix the same.

use candle_core::Tensor;
use tl_sweep::nn::linear;
use tl_sweep::nn::loss::{Targets, cross_entropy};
use tl_sweep::nn::solve::{Head, Logistic, Ridge};

use super::{doubles, on_path, uniform};

const ROWS: usize = 60;
const CLASSES: usize = 3;

/// Noise, with half added to the column of the row's class.
fn problem(inputs: usize) -> (Tensor, Vec<u32>) {
    let labels: Vec<u32> = (0..ROWS).map(|row| (row % CLASSES) as u32).collect();
    let mut x = uniform(ROWS * inputs, 1);
    labels.iter().enumerate().for_each(|(row, label)| x[row * inputs + *label as usize] += 0.5);
    let x: Vec<f32> = x.into_iter().map(|value| value as f32).collect();
    (Tensor::from_vec(x, (ROWS, inputs), &super::device()).unwrap(), labels)
}

fn squares(head: &Head) -> f64 {
    doubles(&head.weight.flatten_all().unwrap().to_vec1::<f32>().unwrap()).iter().map(|value| value * value).sum()
}

fn objective(x: &Tensor, labels: &[u32], head: &Head, lambda: f64) -> f64 {
    let logits = linear::forward(x, &head.weight, &head.bias, tl_sweep::nn::activation::Activation::Linear).unwrap();
    cross_entropy(&logits, labels, Targets::default()).unwrap().mean + 0.5 * lambda * squares(head)
}

#[test]
fn logistic_regression_is_that_of_scikit_learn_along_the_path() {
    on_path();
    let (x, labels) = problem(8);
    let mut path = Logistic::new(&x, &labels, CLASSES, Targets::default()).unwrap();
    for (lambda, expected) in [(10.0, 1.095_052_019_7), (0.1, 0.941_876_746_2), (1e-3, 0.766_580_351_5)] {
        let warm = path.solve(lambda).unwrap();
        let cold = Logistic::new(&x, &labels, CLASSES, Targets::default()).unwrap().solve(lambda).unwrap();
        for solved in [&warm, &cold] {
            assert!(solved.converged);
            let found = objective(&x, &labels, &solved.head, lambda);
            assert!((found - expected).abs() < 2e-7, "lambda {lambda}: {found} instead of {expected}");
        }
    }
}

#[test]
fn ridge_regression_is_that_of_scikit_learn_for_every_strength() {
    on_path();
    let (x, labels) = problem(8);
    let ridge = Ridge::new(&x, &labels, CLASSES, None).unwrap();
    for (lambda, expected, bias) in
        [(10.0, 6.646_764_4e-4, 0.333_966_3), (0.1, 0.302_746_477, 0.338_784_09), (1e-3, 0.508_304_366, 0.335_536_29)]
    {
        let head = ridge.head(lambda).unwrap();
        assert!((squares(&head) / expected - 1.0).abs() < 1e-5, "lambda {lambda}: {}", squares(&head));
        let found = f64::from(head.bias.to_vec1::<f32>().unwrap()[0]);
        assert!((found - bias).abs() < 1e-6, "lambda {lambda}: bias {found}");
    }
}

#[test]
fn more_inputs_than_rows_give_the_ridge_of_the_normal_equations() {
    on_path();
    // Columns of zeros change nothing, but make the Gram matrix of rows the smaller one.
    let (x, labels) = problem(8);
    let wide = Tensor::cat(&[&x, &Tensor::zeros((ROWS, 80), x.dtype(), x.device()).unwrap()], 1).unwrap();
    let narrow = Ridge::new(&x, &labels, CLASSES, None).unwrap().head(0.05).unwrap();
    let found = Ridge::new(&wide, &labels, CLASSES, None).unwrap().head(0.05).unwrap();
    let own = found.weight.narrow(1, 0, 8).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let expected = narrow.weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (own, expected) in own.iter().zip(&expected) {
        assert!((own - expected).abs() < 1e-6, "{own} instead of {expected}");
    }
}
