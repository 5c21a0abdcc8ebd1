//! The twins' gradients against finite differences in f64, to 1e-6.

use super::twin::{self, Bounds, Conv, Dims, Pool, RELU, RELU6, Reduce, size};
use super::{doubles, uniform};

/// Central differences of sum(dy * output(inputs)) at some elements of every input, against the gradients.
pub(super) fn check(
    name: &str,
    inputs: &[Vec<f64>],
    gradients: &[Vec<f64>],
    output: impl Fn(&[Vec<f64>]) -> Vec<f64>,
    dy: &[f64],
) {
    let total = |inputs: &[Vec<f64>]| output(inputs).iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>();
    for (which, gradient) in gradients.iter().enumerate() {
        assert_eq!(gradient.len(), inputs[which].len());
        let scale = gradient.iter().fold(1.0f64, |scale, value| scale.max(value.abs()));
        for at in (0..gradient.len()).step_by((gradient.len() / 37).max(1)) {
            let moved = |by: f64| {
                let mut inputs = inputs.to_vec();
                inputs[which][at] += by;
                total(&inputs)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let error = (gradient[at] - slope).abs() / scale;
            assert!(error < 1e-6, "{name}, input {which} at {at}: {} against {slope}", gradient[at]);
        }
    }
}

#[test]
fn convolutions() {
    let plain = Conv { kernel: [3, 3], stride: 1, dilation: 1, padding: [1; 4], groups: 1 };
    let cases: [(Conv, Dims, usize); 7] = [
        (plain, [2, 5, 6, 3], 4),
        (Conv { stride: 2, padding: [0, 1, 0, 1], ..plain }, [2, 6, 7, 2], 3),
        (Conv { dilation: 2, padding: [2, 1, 0, 3], ..plain }, [1, 7, 6, 2], 2),
        (Conv { groups: 2, ..plain }, [2, 4, 4, 4], 6),
        (Conv { groups: 4, stride: 2, ..plain }, [2, 5, 5, 4], 4),
        (Conv { kernel: [1, 5], padding: [0, 0, 2, 2], ..plain }, [1, 3, 7, 3], 2),
        (Conv { kernel: [5, 5], padding: [2; 4], ..plain }, [1, 1, 1, 3], 2),
    ];
    for (conv, dims, out) in cases {
        let x = uniform(size(&dims), 1);
        let w = uniform(out * dims[3] / conv.groups * size(&conv.kernel), 2);
        let dy = uniform(size(&conv.out_dims(dims, out)), 3);
        let gradients = conv.backward(&x, dims, &w, out, &dy);
        check(&format!("{conv:?}"), &[x, w], &gradients, |i| conv.forward(&i[0], dims, &i[1], out), &dy);
    }
}

#[test]
fn linear_layers() {
    let (x, w, b, dy) = (uniform(3 * 7, 1), uniform(5 * 7, 2), uniform(5, 3), uniform(15, 4));
    let gradients = twin::linear_backward(&x, &w, &b, &dy);
    check("linear", &[x, w, b], &gradients, |i| twin::linear(&i[0], &i[1], &i[2]), &dy);
}

#[test]
fn activations() {
    for bounds in [RELU, RELU6, Bounds(-0.5, 0.5)] {
        // No number within a step of a corner.
        let x: Vec<f64> = (0..200).map(|at| (at as f64 - 99.5) / 13.0 + 1e-3).collect();
        let dy = uniform(200, 2);
        check(
            &format!("{bounds:?}"),
            std::slice::from_ref(&x),
            &[bounds.backward(&x, &dy)],
            |i| bounds.forward(&i[0]),
            &dy,
        );
    }
}

#[test]
fn curves_and_gates() {
    let x: Vec<f64> = uniform(120, 1).iter().map(|x| 6.0 * x).collect();
    let (gate, dy) = (uniform(8, 2), uniform(120, 3));
    let one = std::slice::from_ref(&x);
    check("sigmoid", one, &[twin::sigmoid_backward(&x, &dy)], |i| twin::sigmoid(&i[0]), &dy);
    check("silu", one, &[twin::silu_backward(&x, &dy)], |i| twin::silu(&i[0]), &dy);
    check("gelu", one, &[twin::gelu_backward(&x, &dy)], |i| twin::gelu(&i[0]), &dy);
    check("quick_gelu", one, &[twin::quick_gelu_backward(&x, &dy)], |i| twin::quick_gelu(&i[0]), &dy);
    check("tanh_gelu", one, &[twin::tanh_gelu_backward(&x, &dy)], |i| twin::tanh_gelu(&i[0]), &dy);
    check("hard_sigmoid", one, &[twin::hard_sigmoid_backward(&x, &dy)], |i| twin::hard_sigmoid(&i[0]), &dy);
    check("hard_swish", one, &[twin::hard_swish_backward(&x, &dy)], |i| twin::hard_swish(&i[0]), &dy);
    // Two images of fifteen pixels and four channels.
    let gradients = [twin::scale(&dy, &gate, 15, 4), twin::gate_gradient(&x, &dy, 15, 4)];
    check("scale", &[x.clone(), gate], &gradients, |i| twin::scale(&i[0], &i[1], 15, 4), &dy);
}

#[test]
fn batch_norms() {
    let (channels, eps) = (3, 1e-3);
    let (x, weight, bias, dy) = (uniform(60, 1), uniform(3, 2), uniform(3, 3), uniform(60, 4));
    let own = |x: &[f64]| twin::moments(x, channels);
    let gradients = twin::normalised_backward(&x, &own(&x), &weight, eps, &dy, true);
    let inputs = [x.clone(), weight.clone(), bias.clone()];
    check("of a batch", &inputs, &gradients, |i| twin::normalised(&i[0], &own(&i[0]), &i[1], &i[2], eps), &dy);
    let stored = [uniform(3, 5), uniform(3, 6).iter().map(|v| v.abs()).collect()];
    let gradients = twin::normalised_backward(&x, &stored, &weight, eps, &dy, false);
    check("stored", &inputs, &gradients, |i| twin::normalised(&i[0], &stored, &i[1], &i[2], eps), &dy);
}

#[test]
fn pools() {
    let dims = [2, 7, 6, 3];
    let moved = |pool: Pool| pool.windows(dims);
    let cases = [
        moved(Pool { kernel: 2, stride: 2, padding: [0; 4], ceil: false }),
        moved(Pool { kernel: 3, stride: 2, padding: [1; 4], ceil: true }),
        moved(Pool { kernel: 3, stride: 1, padding: [0, 2, 1, 0], ceil: false }),
        [twin::grid(7, 1), twin::grid(6, 1)],
        [twin::grid(7, 4), twin::grid(6, 4)],
    ];
    for windows in cases {
        for reduce in [Reduce::Max, Reduce::Avg, Reduce::AvgPadded] {
            let x = uniform(size(&dims), 1);
            let dy = uniform(twin::pool(&windows, reduce, &x, dims).len(), 2);
            let gradient = twin::pool_backward(&windows, reduce, &x, dims, &dy);
            check(&format!("{reduce:?}"), &[x], &[gradient], |i| twin::pool(&windows, reduce, &i[0], dims), &dy);
        }
    }
}

#[test]
fn cross_entropies() {
    for (smoothing, weights) in [(0.0, [1.0; 4]), (0.1, [1.0; 4]), (0.2, [0.5, 2.0, 0.0, 1.5])] {
        let (logits, labels) = (uniform(5 * 4, 1), [3, 0, 1, 2, 3]);
        let (_, gradient) = twin::cross_entropy(&logits, &labels, smoothing, &weights);
        let loss = |i: &[Vec<f64>]| vec![twin::cross_entropy(&i[0], &labels, smoothing, &weights).0];
        check("cross-entropy", &[logits], &[gradient], loss, &[1.0]);
    }
}

/// The same twin in f32 gives the same to rounding: what is checked in one precision is what stands in the other.
#[test]
fn the_twin_in_f32_is_the_twin_in_f64() {
    let conv = Conv { kernel: [3, 3], stride: 1, dilation: 1, padding: [1; 4], groups: 1 };
    let (x, w) = (uniform(2 * 36 * 3, 1), uniform(4 * 27, 2));
    let single = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
    let small: Vec<f32> = conv.forward(&single(&x), [2, 6, 6, 3], &single(&w), 4);
    let large = conv.forward(&doubles_of(&single(&x)), [2, 6, 6, 3], &doubles_of(&single(&w)), 4);
    assert!(small.iter().zip(&large).all(|(small, large)| (f64::from(*small) - large).abs() < 1e-5));
}

fn doubles_of(values: &[f32]) -> Vec<f64> {
    doubles(values)
}
