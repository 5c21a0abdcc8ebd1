//! Heads that are solved, against scikit-learn 1.7 (`LogisticRegression` with C = 1 / (lambda n) and tol = 1e-12, `Ridge`
//! with alpha = lambda n) and 1.9 (`LinearDiscriminantAnalysis` by eigenvalues with a shrinkage of lambda / (1 + lambda)), and from
//! any start and by either Gram matrix the same.

use candle_core::Tensor;
use tl_sweep::nn::discriminant::Discriminant;
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

/// Weights [classes, inputs] and biases less their means over classes, which change no answer.
fn between_classes(head: &Head) -> (Vec<Vec<f64>>, Vec<f64>) {
    let rows = head.weight.to_vec2::<f32>().unwrap();
    let bias = doubles(&head.bias.to_vec1::<f32>().unwrap());
    let mean = |column: usize| rows.iter().map(|row| f64::from(row[column])).sum::<f64>() / rows.len() as f64;
    let row = |row: &Vec<f32>| row.iter().enumerate().map(|(at, value)| f64::from(*value) - mean(at)).collect();
    let middle = bias.iter().sum::<f64>() / bias.len() as f64;
    (rows.iter().map(row).collect(), bias.iter().map(|value| value - middle).collect())
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 2e-6 * expected.abs().max(1.0), "{found} instead of {expected}");
}

/// Rows of the problem with 20 rows of each class, or with 10 of the last.
fn dealt(uneven: bool) -> (Tensor, Vec<u32>) {
    let (x, labels) = problem(8);
    let kept: Vec<u32> = (0..ROWS as u32).filter(|row| !uneven || labels[*row as usize] != 2 || *row <= 30).collect();
    let rows = Tensor::new(kept.as_slice(), x.device()).unwrap();
    (x.index_select(&rows, 0).unwrap(), kept.iter().map(|row| labels[*row as usize]).collect())
}

#[test]
fn discriminant_analysis_is_that_of_scikit_learn_for_every_strength() {
    on_path();
    // Of each: two weights, the sum of all squares, and the biases; where scikit-learn divides the covariance by n, less that.
    let expected = [
        (
            false,
            10.0,
            [0.869_134_67, 0.026_035_749_2],
            5.644_129_46,
            [-0.074_095_555_3, 0.141_082_287, -0.066_986_731_3],
        ),
        (false, 0.1, [1.163_730_67, 0.029_021_374_3], 8.331_131_18, [-0.156_814_042, 0.248_106_884, -0.091_292_841_9]),
        (false, 1e-3, [1.221_238_72, 0.028_987_696_1], 8.981_506_14, [-0.173_189_717, 0.267_633_086, -0.094_443_369_3]),
        (true, 10.0, [0.710_122_842, -0.037_254_617_6], 6.243_594_66, [0.172_637_851, 0.383_935_02, -0.556_572_871]),
        (true, 0.1, [1.284_504_01, -0.019_517_215_2], 10.980_028_4, [0.007_624_755_96, 0.434_353_301, -0.441_978_057]),
        (true, 1e-3, [1.400_629_49, -0.014_316_733_3], 12.326_186_8, [-0.026_352_683_2, 0.445_753_424, -0.419_400_741]),
    ];
    for (uneven, lambda, weights, squared, biases) in expected {
        let (x, labels) = dealt(uneven);
        let head = Discriminant::new(&x, &labels, CLASSES, None).unwrap().head(lambda).unwrap();
        let (found, bias) = between_classes(&head);
        near(found[0][0], weights[0]);
        near(found[2][5], weights[1]);
        near(found.iter().flatten().map(|value| value * value).sum(), squared);
        bias.iter().zip(biases).for_each(|(found, expected)| near(*found, expected));
    }
}

#[test]
fn more_inputs_than_rows_give_the_discriminant_of_the_covariance() {
    on_path();
    let (x, labels) = problem(8);
    let wide = Tensor::cat(&[&x, &Tensor::zeros((ROWS, 80), x.dtype(), x.device()).unwrap()], 1).unwrap();
    // The mean variance of an input is an eleventh of what it was.
    let (lambda, wider) = (0.05, 0.05 * 11.0);
    let narrow = Discriminant::new(&x, &labels, CLASSES, None).unwrap().head(lambda).unwrap();
    let found = Discriminant::new(&wide, &labels, CLASSES, None).unwrap().head(wider).unwrap();
    let own = found.weight.narrow(1, 0, 8).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let expected = narrow.weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (own, expected) in own.iter().zip(&expected) {
        near(f64::from(*own) / (1.0 + wider), f64::from(*expected) / (1.0 + lambda));
    }
}

/// Where classes count alike, what has half of the images counts twice.
#[test]
fn a_row_that_counts_twice_is_two_rows() {
    on_path();
    let (x, labels) = dealt(true);
    let again: Vec<u32> = (0..labels.len() as u32).filter(|row| labels[*row as usize] == 2).collect();
    let rows = Tensor::new(again.as_slice(), x.device()).unwrap();
    let twice = Tensor::cat(&[&x, &x.index_select(&rows, 0).unwrap()], 0).unwrap();
    let named = [labels.clone(), vec![2; again.len()]].concat();
    let weights = [0.75, 0.75, 1.5];
    let counted = Discriminant::new(&x, &labels, CLASSES, Some(&weights)).unwrap().head(0.1).unwrap();
    let repeated = Discriminant::new(&twice, &named, CLASSES, None).unwrap().head(0.1).unwrap();
    // A repeated row is one more that is free.
    let free = |count: usize| count as f64 / (count - CLASSES) as f64;
    let scale = free(labels.len()) / free(named.len());
    let (own, bias) = between_classes(&counted);
    let (expected, bias_there) = between_classes(&repeated);
    own.iter().flatten().zip(expected.iter().flatten()).for_each(|(own, expected)| near(own * scale, *expected));
    // The shares are alike.
    bias.iter().zip(&bias_there).for_each(|(own, expected)| near(own * scale, *expected));
}

/// One row of each class, or all alike, say nothing of a covariance: the nearest class mean remains, at any strength.
#[test]
fn without_a_covariance_the_nearest_mean_remains() {
    on_path();
    let x = Tensor::new(&[[0.0f32, 0.0, 3.0], [4.0, 0.0, 3.0], [0.0, 4.0, 3.0]], &super::device()).unwrap();
    for lambda in [1e-6, 1e5] {
        let head = Discriminant::new(&x, &[0, 1, 2], 4, None).unwrap().head(lambda).unwrap();
        let asked = Tensor::new(&[[0.5f32, 1.0, 9.0], [3.0, 1.0, 0.0], [1.0, 3.0, 0.0]], &super::device()).unwrap();
        let logits =
            linear::forward(&asked, &head.weight, &head.bias, tl_sweep::nn::activation::Activation::Linear).unwrap();
        let logits = logits.to_vec2::<f32>().unwrap();
        let largest = |row: &Vec<f32>| (0..4).max_by(|one, other| row[*one].total_cmp(&row[*other])).unwrap();
        assert_eq!(logits.iter().map(largest).collect::<Vec<_>>(), [0, 1, 2]);
        // Half of the difference of the squared distances, with unit variance: 8.5 less 13.25 over two.
        near(f64::from(logits[1][1] - logits[1][0]), 4.0);
        assert!(
            logits.iter().flatten().all(|logit| logit.is_finite()),
            "a class without rows, the last, is never the largest, and finite"
        );
    }
}
