//! The operators against the definitions, to 1e-5 on CPU and 1e-4 on a GPU, over random shapes.

use candle_core::{DType, Tensor};
use proptest::prelude::*;
use tl_sweep::nn::activation::{self, Activation};
use tl_sweep::nn::conv::{self, Conv};
use tl_sweep::nn::curve::{self, Curve};
use tl_sweep::nn::loss::{Labels, Targets, answers, cross_entropy};
use tl_sweep::nn::norm::{self, Follow, Norm};
use tl_sweep::nn::pool::{self, Pool, Windows};
use tl_sweep::nn::{gate, join, linear};

use super::twin::{self, Bounds, Dims, Reduce, size};
use super::{close, close_among, device, floats, on_path, tensor, uniform};

fn twin_of(conv: &Conv) -> twin::Conv {
    let Conv { kernel, stride, dilation, padding, groups } = *conv;
    twin::Conv { kernel, stride, dilation, padding, groups }
}

const ACTIVATIONS: [(Activation, Bounds); 3] =
    [(Activation::Linear, twin::LINEAR), (Activation::Relu, twin::RELU), (Activation::Relu6, twin::RELU6)];

/// Forward with a bias and an activation, and both gradients.
fn check_conv(conv: Conv, dims: Dims, out: usize, seed: u64) {
    let kernel = [out, dims[3] / conv.groups, conv.kernel[0], conv.kernel[1]];
    let (x, w, b) = (uniform(size(&dims), seed), uniform(size(&kernel), seed + 1), uniform(out, seed + 2));
    let (tx, tw, tb) = (tensor(&x, &dims), tensor(&w, &kernel), tensor(&b, &[out]));
    let (activation, bounds) = ACTIVATIONS[seed as usize % 3];
    let name = format!("{conv:?} of {dims:?} to {out}, {activation:?}");
    let plain = twin_of(&conv).forward(&x, dims, &w, out);
    let with_bias: Vec<f64> = plain.iter().enumerate().map(|(at, y)| y + b[at % out]).collect();
    close(&name, &conv::forward(&conv, &tx, &tw, Some(&tb), activation).unwrap(), &bounds.forward(&with_bias));
    let y = conv::forward(&conv, &tx, &tw, None, Activation::Linear).unwrap();
    assert_eq!(y.dims(), twin_of(&conv).out_dims(dims, out), "{name}");
    close(&name, &y, &plain);
    let dy = uniform(plain.len(), seed + 3);
    let tdy = tensor(&dy, y.dims());
    let [dx, dw] = conv::backward(&conv, dims, Some(&tx), &tw, &tdy, true).unwrap();
    let expected = twin_of(&conv).backward(&x, dims, &w, out, &dy);
    close(&format!("{name}: dx"), &dx.unwrap(), &expected[0]);
    close(&format!("{name}: dw"), &dw.unwrap(), &expected[1]);
    let sums = (0..out).map(|o| dy.iter().skip(o).step_by(out).sum()).collect::<Vec<f64>>();
    close(&format!("{name}: db"), &conv::bias_gradient(&tdy).unwrap(), &sums);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn convolutions_of_any_shape(
        images in 1usize..4, group_in in 1usize..7, group_out in 1usize..12, groups in 1usize..4,
        height in 1usize..12, width in 1usize..20, kernel in proptest::array::uniform2(1usize..6),
        stride in 1usize..4, dilation in 1usize..3, padding in proptest::array::uniform4(0usize..5), seed in 0u64..1000,
    ) {
        on_path();
        let span = kernel.map(|side| (side - 1) * dilation + 1);
        prop_assume!(height + padding[0] + padding[1] >= span[0] && width + padding[2] + padding[3] >= span[1]);
        let conv = Conv { kernel, stride, dilation, padding, groups };
        check_conv(conv, [images, height, width, groups * group_in], groups * group_out, seed);
    }

    #[test]
    fn depthwise_convolutions_of_any_shape(
        images in 1usize..4, channels in 2usize..45, height in 1usize..10, width in 1usize..12, side in 1usize..6,
        stride in 1usize..4, dilation in 1usize..3, padding in proptest::array::uniform4(0usize..4), seed in 0u64..1000,
    ) {
        on_path();
        let span = (side - 1) * dilation + 1;
        prop_assume!(height + padding[0] + padding[1] >= span && width + padding[2] + padding[3] >= span);
        let conv = Conv { kernel: [side; 2], stride, dilation, padding, groups: channels };
        check_conv(conv, [images, height, width, channels], channels, seed);
    }

    /// Shapes that go by tiles, with sides that do not fill them.
    #[test]
    fn tiled_convolutions_of_any_shape(
        images in 1usize..10, eights in 2usize..7, out_eights in 2usize..7, height in 2usize..20, width in 2usize..20,
        padding in proptest::array::uniform4(0usize..3), seed in 0u64..1000,
    ) {
        on_path();
        prop_assume!(height + padding[0] + padding[1] >= 3 && width + padding[2] + padding[3] >= 3);
        let conv = Conv { kernel: [3, 3], stride: 1, dilation: 1, padding, groups: 1 };
        check_conv(conv, [images, height, width, 8 * eights], 8 * out_eights, seed);
    }

    #[test]
    fn pools_of_any_shape(
        images in 1usize..3, channels in 1usize..20, height in 1usize..10, width in 1usize..10, kernel in 1usize..5,
        stride in 1usize..4, padding in proptest::array::uniform4(0usize..3), ceil: bool, seed in 0u64..1000,
    ) {
        on_path();
        let padding = padding.map(|side| side.min(kernel - 1));
        prop_assume!(height + padding[0] + padding[1] >= kernel && width + padding[2] + padding[3] >= kernel);
        let dims = [images, height, width, channels];
        let windows = twin::Pool { kernel, stride, padding, ceil }.windows(dims);
        prop_assume!(windows.iter().flatten().all(|(span, _)| !span.is_empty()));
        check_pool(&Windows::Moved(Pool { kernel, stride, padding, ceil }), &windows, dims, seed);
    }

    #[test]
    fn grids_of_any_shape(images in 1usize..3, channels in 1usize..20, height in 1usize..10, width in 1usize..10, cells in 1usize..8, seed in 0u64..1000) {
        on_path();
        prop_assume!(cells <= height && cells <= width);
        let windows = [twin::grid(height, cells), twin::grid(width, cells)];
        check_pool(&Windows::Grid(cells), &windows, [images, height, width, channels], seed);
    }

    #[test]
    fn linear_layers_of_any_shape(images in 1usize..20, depth in 1usize..300, out in 1usize..70, seed in 0u64..1000) {
        on_path();
        let (x, w, b) = (uniform(images * depth, seed), uniform(out * depth, seed + 1), uniform(out, seed + 2));
        let (tx, tw, tb) = (tensor(&x, &[images, depth]), tensor(&w, &[out, depth]), tensor(&b, &[out]));
        let (activation, bounds) = ACTIVATIONS[seed as usize % 3];
        close("linear", &linear::forward(&tx, &tw, &tb, activation).unwrap(), &bounds.forward(&twin::linear(&x, &w, &b)));
        let dy = uniform(images * out, seed + 3);
        let (dx, own) = linear::backward(Some(&tx), &tw, &tensor(&dy, &[images, out]), true).unwrap();
        let [dw, db] = own.unwrap();
        let [ex, ew, eb] = twin::linear_backward(&x, &w, &b, &dy);
        close("dx", &dx.unwrap(), &ex);
        close("dw", &dw, &ew);
        close("db", &db, &eb);
    }

    #[test]
    fn batch_norms_of_any_shape(images in 1usize..5, side in 1usize..9, channels in 1usize..70, relu: bool, unbiased: bool, seed in 0u64..1000) {
        on_path();
        prop_assume!(images * side * side > 1);
        check_norm([images, side, side, channels], if relu { 1 } else { 2 * usize::from(unbiased) }, unbiased, seed);
    }
}

fn check_pool(windows: &Windows, spans: &[Vec<(std::ops::Range<usize>, usize)>; 2], dims: Dims, seed: u64) {
    let x = uniform(size(&dims), seed);
    let tx = tensor(&x, &dims);
    for (reduce, own) in [
        (Reduce::Max, pool::Reduce::Max),
        (Reduce::Avg, pool::Reduce::Avg),
        (Reduce::AvgPadded, pool::Reduce::AvgPadded),
    ] {
        let name = format!("{windows:?} {reduce:?} of {dims:?}");
        let y = pool::forward(windows, own, &tx).unwrap();
        close(&name, &y, &twin::pool(spans, reduce, &x, dims));
        let dy = uniform(y.elem_count(), seed + 1);
        let tdy = tensor(&dy, y.dims());
        let dx = match reduce {
            Reduce::Max => pool::max_backward(windows, &tx, &y, &tdy),
            _ => pool::avg_backward(windows, own, (dims[0], dims[1], dims[2], dims[3]), &tdy),
        };
        close(&format!("{name}: dx"), &dx.unwrap(), &twin::pool_backward(spans, reduce, &x, dims, &dy));
    }
}

fn check_norm(dims: Dims, which: usize, unbiased: bool, seed: u64) {
    let (channels, eps) = (dims[3], 1e-3);
    let (activation, bounds) = ACTIVATIONS[which];
    let count = size(&dims[..3]);
    let x: Vec<f64> = uniform(size(&dims), seed).iter().map(|x| f64::from((3.0 * x + 1.0) as f32)).collect();
    let [weight, bias, mean] = [1, 2, 3].map(|at| uniform(channels, seed + at));
    let var: Vec<f64> =
        uniform(channels, seed + 4).iter().map(|value| value.abs() + 0.5).map(|v| f64::from(v as f32)).collect();
    let own = |values: &[f64]| tensor(values, &[channels]);
    let norm = Norm { weight: own(&weight), bias: own(&bias), running_mean: own(&mean), running_var: own(&var) };
    let (tx, dy) = (tensor(&x, &dims), uniform(size(&dims), seed + 5));
    let tdy = tensor(&dy, &dims);
    let name = format!("norm of {dims:?} {activation:?}");

    let moments = twin::moments(&x, channels);
    // With few values per channel a variance may be next to nothing: then 1 / sqrt(var + eps) magnifies what rounding
    // leaves of x, as in every implementation in f32.
    let magnified = |var: &[f64]| 4.0 * var.iter().fold(0.0f64, |most, var| most.max((var + eps).sqrt().recip()));
    let size = if count < 16 { magnified(&moments[1]) } else { 1.0 };
    let close = |name: &str, found: &Tensor, expected: &[f64]| close_among(name, found, expected, size);
    let follow = Follow { momentum: 0.1, unbiased };
    let (y, statistics, moved) = norm::batch(&norm, eps, follow, &tx, activation).unwrap();
    let before = twin::normalised(&x, &moments, &weight, &bias, eps);
    close(&name, &y, &bounds.forward(&before));
    assert_eq!(floats(&norm::batch_again(&statistics, &tx, activation).unwrap()), floats(&y), "{name}");
    let scale = if unbiased { count as f64 / (count - 1) as f64 } else { 1.0 };
    let mix = |old: &[f64], new: &[f64], scale: f64| -> Vec<f64> {
        old.iter().zip(new).map(|(old, new)| 0.9 * old + 0.1 * new * scale).collect()
    };
    close(&name, &moved.running_mean, &mix(&mean, &moments[0], 1.0));
    close(&name, &moved.running_var, &mix(&var, &moments[1], scale));

    // At a corner of the activation rounding decides what passes: leave such shapes to the next draw.
    let edges = |before: &[f64]| before.iter().any(|y| (y - bounds.0).abs() < 1e-4 || (y - bounds.1).abs() < 1e-4);
    if !edges(&before) {
        let inner = bounds.backward(&before, &dy);
        let expected = twin::normalised_backward(&x, &moments, &weight, eps, &inner, true);
        let (dx, [dw, db]) = norm::batch_backward(&statistics, &tx, &tdy, activation).unwrap();
        [dx, dw, db].iter().zip(&expected).for_each(|(found, expected)| close(&name, found, expected));
    }
    let stored = [mean, var];
    let before = twin::normalised(&x, &stored, &weight, &bias, eps);
    close(&name, &norm::stored(&norm, eps, &tx, activation).unwrap(), &bounds.forward(&before));
    if !edges(&before) {
        let inner = bounds.backward(&before, &dy);
        let expected = twin::normalised_backward(&x, &stored, &weight, eps, &inner, false);
        let (dx, own) = norm::stored_backward(&norm, eps, &tx, &tdy, activation, true).unwrap();
        let [dw, db] = own.unwrap();
        [dx, dw, db].iter().zip(&expected).for_each(|(found, expected)| close(&name, found, expected));
    }
}

#[test]
fn awkward_convolutions() {
    on_path();
    let plain = Conv { kernel: [3, 3], stride: 1, dilation: 1, padding: [1; 4], groups: 1 };
    // One pixel; a kernel larger than the image; channels that are a multiple of nothing; one channel; long sums.
    check_conv(plain, [1, 1, 1, 16], 16, 1);
    check_conv(Conv { kernel: [7, 7], padding: [3; 4], ..plain }, [2, 2, 3, 5], 3, 2);
    check_conv(plain, [1, 5, 5, 37], 41, 3);
    check_conv(plain, [2, 4, 4, 1], 1, 4);
    check_conv(Conv { kernel: [1, 1], padding: [0; 4], ..plain }, [3, 1, 1, 1111], 7, 5);
    check_conv(plain, [1, 6, 6, 1040], 24, 6);
    check_conv(Conv { stride: 2, kernel: [1, 1], padding: [0; 4], ..plain }, [2, 5, 5, 33], 18, 7);
    check_conv(Conv { groups: 130, ..plain }, [2, 9, 9, 130], 130, 8);
}

#[test]
fn what_fits_nothing_is_refused() {
    on_path();
    let conv = Conv { kernel: [3, 3], stride: 1, dilation: 1, padding: [0; 4], groups: 1 };
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &device()).unwrap();
    let refused = |x: &[usize], w: &[usize]| {
        conv::forward(&conv, &zeros(x), &zeros(w), None, Activation::Linear).unwrap_err().to_string()
    };
    assert!(refused(&[0, 4, 4, 2], &[3, 2, 3, 3]).contains("empty batch"));
    assert!(refused(&[1, 2, 4, 2], &[3, 2, 3, 3]).contains("does not fit a padded input"));
    assert!(refused(&[1, 4, 4, 5], &[3, 2, 3, 3]).contains("do not fit 5 channels"));
    assert!(linear::forward(&zeros(&[0, 3]), &zeros(&[2, 3]), &zeros(&[2]), Activation::Linear).is_err());
    let pad = Windows::Moved(Pool { kernel: 2, stride: 2, padding: [2; 4], ceil: false });
    assert!(pool::forward(&pad, pool::Reduce::Max, &zeros(&[1, 4, 4, 2])).is_err());
    assert!(join::concat(&[]).is_err());
    assert!(cross_entropy(&zeros(&[0, 3]), &[], Targets::default()).is_err());
    assert!(cross_entropy(&zeros(&[1, 3]), &[3], Targets::default()).is_err());
}

/// Operators that only move numbers are linear: <f(x), dy> = <x, gradient(dy)>, exactly on small integers.
#[test]
fn moving_operators_and_their_gradients_are_adjoint() {
    on_path();
    let integers = |shape: &[usize], seed: u64| {
        let values: Vec<f64> = uniform(size(shape), seed).iter().map(|value| (value * 8.0).round()).collect();
        tensor(&values, shape)
    };
    let product = |left: &Tensor, right: &Tensor| {
        floats(left).iter().zip(floats(right)).map(|(left, right)| f64::from(left * right)).sum::<f64>()
    };
    let x = integers(&[2, 5, 4, 6], 1);
    let check = |name: &str, y: Tensor, back: &dyn Fn(&Tensor) -> Tensor| {
        let dy = integers(y.dims(), 2);
        let dx = back(&dy);
        assert_eq!(dx.dims(), x.dims(), "{name}");
        assert_eq!(product(&y, &dy), product(&x, &dx), "{name}");
    };
    check("pad", join::pad(&x, [1, 2, 0, 3]).unwrap(), &|dy| join::unpad(dy, [1, 2, 0, 3]).unwrap());
    check("shortcut", join::shortcut(&x, 2, 9).unwrap(), &|dy| join::shortcut_backward(dy, 2, [2, 5, 4, 6]).unwrap());
    let other = integers(&[2, 5, 4, 3], 3);
    let joined = join::concat(&[&other, &x]).unwrap();
    let nothing = join::concat(&[&other.zeros_like().unwrap(), &x]).unwrap();
    check("concat", nothing, &|dy| join::part(dy, 3, 6).unwrap());
    assert_eq!(floats(&join::part(&joined, 0, 3).unwrap()), floats(&other));
    let mask: Vec<f32> = (0..x.elem_count()).map(|at| [0.0, 2.0][at % 3 % 2]).collect();
    check("dropout", join::dropout(&x, &mask).unwrap(), &|dy| join::dropout(dy, &mask).unwrap());
    let sum = join::add(&x, &x, Activation::Relu6).unwrap();
    assert!(floats(&sum).iter().zip(floats(&x)).all(|(sum, x)| *sum == (2.0 * x).clamp(0.0, 6.0)));
}

#[test]
fn activations_pass_and_stop() {
    on_path();
    let x = uniform(1000, 1).iter().map(|value| (value * 9.0) as f32).map(f64::from).collect::<Vec<f64>>();
    let dy = uniform(1000, 2);
    for (activation, bounds) in ACTIVATIONS {
        let y = activation::forward(&tensor(&x, &[1000]), activation).unwrap();
        close("forward", &y, &bounds.forward(&x));
        let dx = activation::backward(&y, &tensor(&dy, &[1000]), activation).unwrap();
        close("backward", &dx, &bounds.backward(&x, &dy));
    }
    let nan = Tensor::new(&[f32::NAN], &device()).unwrap();
    assert!(floats(&activation::forward(&nan, Activation::Relu6).unwrap())[0].is_nan());
}

#[test]
fn curves_follow_their_definition_over_all_their_range() {
    on_path();
    let x: Vec<f64> = (-2000..2000).map(|at| f64::from(at as f32 * 0.06)).collect();
    let dy = uniform(x.len(), 2);
    let (values, gradients) = (tensor(&x, &[x.len()]), tensor(&dy, &[x.len()]));
    for (own, y, dx) in [
        (Curve::Silu, twin::silu(&x), twin::silu_backward(&x, &dy)),
        (Curve::Sigmoid, twin::sigmoid(&x), twin::sigmoid_backward(&x, &dy)),
        (Curve::Gelu, twin::gelu(&x), twin::gelu_backward(&x, &dy)),
        (Curve::QuickGelu, twin::quick_gelu(&x), twin::quick_gelu_backward(&x, &dy)),
        (Curve::GeluTanh, twin::tanh_gelu(&x), twin::tanh_gelu_backward(&x, &dy)),
        (Curve::HardSigmoid, twin::hard_sigmoid(&x), twin::hard_sigmoid_backward(&x, &dy)),
        (Curve::HardSwish, twin::hard_swish(&x), twin::hard_swish_backward(&x, &dy)),
    ] {
        close_among("forward", &curve::forward(&values, own).unwrap(), &y, 1.0);
        close_among("backward", &curve::backward(&values, &gradients, own).unwrap(), &dx, 1.0);
        let nan = Tensor::new(&[f32::NAN], &device()).unwrap();
        assert!(floats(&curve::forward(&nan, own).unwrap())[0].is_nan());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn gates_of_any_shape(images in 1usize..4, height in 1usize..14, width in 1usize..14, channels in 1usize..70, seed in 0u64..1000) {
        on_path();
        let (dims, pixels) = ([images, height, width, channels], height * width);
        let (x, dy) = (uniform(size(&dims), seed), uniform(size(&dims), seed + 1));
        let by = uniform(images * channels, seed + 2);
        let (image, gradient) = (tensor(&x, &dims), tensor(&dy, &dims));
        let scaled = gate::scale(&image, &tensor(&by, &[images, 1, 1, channels])).unwrap();
        close("scaled", &scaled, &twin::scale(&x, &by, pixels, channels));
        let sums = gate::gate_gradient(&image, &gradient).unwrap();
        // A sum's error is measured by what was added.
        close_among("gate", &sums, &twin::gate_gradient(&x, &dy, pixels, channels), pixels as f64 / 8.0);
        let mask: Vec<f32> = by[..images].iter().map(|by| *by as f32).collect();
        let kept = gate::images(&image, &mask).unwrap();
        let each: Vec<f64> = mask.iter().flat_map(|by| vec![f64::from(*by); channels]).collect();
        close("kept", &kept, &twin::scale(&x, &each, pixels, channels));
    }
}

#[test]
fn gates_that_fit_nothing_are_refused() {
    let x = tensor(&uniform(2 * 3 * 3 * 4, 1), &[2, 3, 3, 4]);
    for shape in [[2, 1, 1, 3], [1, 1, 1, 4], [2, 3, 1, 4]] {
        assert!(gate::scale(&x, &tensor(&uniform(size(&shape), 2), &shape)).is_err(), "{shape:?}");
    }
    assert!(gate::images(&x, &[1.0; 3]).is_err());
}

#[test]
fn cross_entropies_by_their_definition() {
    for (smoothing, weights) in [(0.0, vec![1.0; 5]), (0.1, vec![1.0; 5]), (0.3, vec![0.5, 2.0, 0.0, 1.5, 1.0])] {
        let (logits, labels) = (uniform(4 * 5, 1), [4u32, 0, 1, 3]);
        let places: Vec<usize> = labels.iter().map(|label| *label as usize).collect();
        let (expected, gradient) = twin::cross_entropy(&logits, &places, smoothing, &weights);
        let targets = Targets { smoothing, class_weights: Some(&weights) };
        let loss = cross_entropy(&tensor(&logits, &[4, 5]), &labels, targets).unwrap();
        assert!((loss.mean - expected).abs() < 1e-9);
        close("gradient", &loss.gradient, &gradient);
        // Mixed images: a share of the loss of their own labels, the rest of one of their partners' (Zhang et al., 2018).
        let (others, share) = ([0u32, 4, 3, 1], 0.7);
        let places: Vec<usize> = others.iter().map(|label| *label as usize).collect();
        let (other, other_gradient) = twin::cross_entropy(&logits, &places, smoothing, &weights);
        let mixed = Labels { own: &labels, mixed: Some((&others, share)) };
        let loss = cross_entropy(&tensor(&logits, &[4, 5]), mixed, targets).unwrap();
        assert!((loss.mean - (share * expected + (1.0 - share) * other)).abs() < 1e-9);
        let both = gradient.iter().zip(&other_gradient).map(|(own, other)| share * own + (1.0 - share) * other);
        close("gradient of mixed images", &loss.gradient, &both.collect::<Vec<f64>>());
        let wrong = Labels { own: &labels, mixed: Some((&others[..3], share)) };
        assert!(cross_entropy(&tensor(&logits, &[4, 5]), wrong, targets).is_err());
        let wrong = Labels { own: &labels, mixed: Some((&others, 1.5)) };
        assert!(cross_entropy(&tensor(&logits, &[4, 5]), wrong, targets).is_err());
    }
}

/// Two heads side by side: the class, its probability and the label's, of each row and head.
#[test]
fn answers_by_their_definition() {
    let (rows, classes, labels) = (6, 5, [4u32, 0, 1, 3, 2, 2]);
    let mut logits: Vec<f64> = uniform(rows * 2 * classes, 1).iter().map(|own| 4.0 * own).collect();
    logits[..classes].copy_from_slice(&[0.5, 2.0, -1.0, 2.0, 0.0]);
    let found = answers(&tensor(&logits, &[rows, 2 * classes]), &labels, 2).unwrap().read().unwrap();
    assert_eq!((found.len(), found[0].class), (rows * 2, 1), "the first of two largest");
    for (at, (own, found)) in logits.chunks(classes).zip(&found).enumerate() {
        let own: Vec<f64> = own.iter().map(|logit| f64::from(*logit as f32)).collect();
        let sum: f64 = own.iter().map(|logit| logit.exp()).sum();
        let log = |class: u32| own[class as usize] - sum.ln();
        assert!(own.iter().all(|logit| *logit <= own[found.class as usize]), "{at}");
        assert!((found.top - log(found.class)).abs() < 1e-9, "{at}: {}", found.top);
        assert!((found.label - log(labels[at / 2])).abs() < 1e-9, "{at}: {}", found.label);
    }
    assert!(answers(&tensor(&logits, &[rows, 2 * classes]), &labels[1..], 2).is_err());
    assert!(answers(&tensor(&logits, &[rows, 2 * classes]), &labels, 3).is_err());
}

/// Of several equal maxima the first one receives the gradient; a NaN is the largest and is not hidden.
#[test]
fn ties_and_nans_in_a_maximum() {
    on_path();
    let windows = Windows::Moved(Pool { kernel: 2, stride: 2, padding: [0; 4], ceil: false });
    let x = tensor(&[3.0; 16], &[1, 4, 4, 1]);
    let y = pool::forward(&windows, pool::Reduce::Max, &x).unwrap();
    let dx = pool::max_backward(&windows, &x, &y, &tensor(&[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])).unwrap();
    let expected = [1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    assert_eq!(floats(&dx), expected);
    for place in 0..4 {
        let mut values = vec![1.0; 4];
        values[place] = f64::NAN;
        let y = pool::forward(&windows, pool::Reduce::Max, &tensor(&values, &[1, 2, 2, 1])).unwrap();
        assert!(floats(&y)[0].is_nan(), "a NaN at {place}");
    }
}
