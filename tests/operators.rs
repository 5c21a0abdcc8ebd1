//! Operators against finite differences in f64, against candle's autograd over a composition, and against PyTorch.

use candle_core::{DType, Device, Result, Tensor};
use proptest::prelude::*;
use tl_sweep::exec::{Mode, Network};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::init;
use tl_sweep::nn::activation::Activation;
use tl_sweep::nn::conv::{self, Conv};
use tl_sweep::nn::loss::cross_entropy;
use tl_sweep::nn::norm::{self, Norm};
use tl_sweep::nn::pool::{self, Pool, Reduce};
use tl_sweep::nn::{composed, linear};
use tl_sweep::recipe::BatchNorm;
use tl_sweep::seed::{Stream, stream};

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = stream(seed, Stream::Synthetic, &[]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The largest difference, relative to the largest value.
fn distance(left: &Tensor, right: &Tensor) -> f64 {
    assert_eq!(left.dims(), right.dims());
    let values =
        |tensor: &Tensor| tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
    let (left, right) = (values(left), values(right));
    let size = right.iter().fold(1.0f64, |size, value| size.max(value.abs()));
    left.iter().zip(&right).map(|(left, right)| (left - right).abs()).fold(0.0, f64::max) / size
}

/// A convolution in f64 by its definition: the twin that finite differences check.
fn scalar_conv(conv: &Conv, x: &[f64], xs: [usize; 4], w: &[f64], ws: [usize; 4]) -> Vec<f64> {
    let [n, c, h, wd] = xs;
    let [out, per_group, kh, kw] = ws;
    let oh = (h + conv.padding[0] + conv.padding[1] - kh) / conv.stride + 1;
    let ow = (wd + conv.padding[2] + conv.padding[3] - kw) / conv.stride + 1;
    let mut y = Vec::new();
    for image in 0..n {
        for o in 0..out {
            let first = o / (out / conv.groups) * per_group;
            for row in 0..oh {
                for column in 0..ow {
                    let mut sum = 0.0;
                    for i in 0..per_group {
                        for a in 0..kh {
                            for b in 0..kw {
                                let (yy, xx) = (
                                    (row * conv.stride + a).wrapping_sub(conv.padding[0]),
                                    (column * conv.stride + b).wrapping_sub(conv.padding[2]),
                                );
                                if yy < h && xx < wd {
                                    sum += x[((image * c + first + i) * h + yy) * wd + xx]
                                        * w[((o * per_group + i) * kh + a) * kw + b];
                                }
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn dims4(tensor: &Tensor) -> [usize; 4] {
    tensor.dims().try_into().unwrap()
}

/// Checks the gradients of a convolution by central differences of the twin, at some elements of each operand.
fn check_conv(conv: Conv, x: &Tensor, w: &Tensor) {
    let y = conv::forward(&conv, x, w, None, Activation::Linear).unwrap();
    let dy = random(y.dims(), 9);
    let [dx, dw] = conv::backward(&conv, x, w, &dy, [true, true]).unwrap();
    let (x64, w64, dy64) = (doubles(x), doubles(w), doubles(&dy));
    let run = |x_values: &[f64], w_values: &[f64]| scalar_conv(&conv, x_values, dims4(x), w_values, dims4(w));
    let forward = run(&x64, &w64);
    let size = forward.iter().fold(1.0f64, |size, value| size.max(value.abs()));
    for (found, expected) in doubles(&y).iter().zip(&forward) {
        assert!((found - expected).abs() / size < 1e-5, "{conv:?}: forward {found} {expected}");
    }
    let total = |x: &[f64], w: &[f64]| run(x, w).iter().zip(&dy64).map(|(y, dy)| y * dy).sum::<f64>();
    let check = |found: &Tensor, which: usize| {
        let found = doubles(found);
        let size = found.iter().fold(1.0f64, |size, value| size.max(value.abs()));
        for at in (0..found.len()).step_by((found.len() / 23).max(1)) {
            let mut moved = [x64.clone(), w64.clone()];
            moved[which][at] += 1e-3;
            let above = total(&moved[0], &moved[1]);
            moved[which][at] -= 2e-3;
            let slope = (above - total(&moved[0], &moved[1])) / 2e-3;
            assert!(
                (found[at] - slope).abs() / size < 2e-5,
                "{conv:?} operand {which} at {at}: {} against {slope}",
                found[at]
            );
        }
    };
    check(&dx.unwrap(), 0);
    check(&dw.unwrap(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn convolution_gradients_of_any_shape(
        images in 1usize..4, group_in in 1usize..6, group_out in 1usize..11, groups in 1usize..4, height in 1usize..12, width in 1usize..20,
        kh in 1usize..5, kw in 1usize..5, stride in 1usize..4, padding in proptest::array::uniform4(0usize..3), seed in 0u64..1000,
    ) {
        let padding = [padding[0].min(kh - 1), padding[1].min(kh - 1), padding[2].min(kw - 1), padding[3].min(kw - 1)];
        prop_assume!(height + padding[0] + padding[1] >= kh && width + padding[2] + padding[3] >= kw);
        let conv = Conv { kernel: [kh, kw], stride, padding, groups };
        let x = random(&[images, groups * group_in, height, width], seed);
        let w = random(&[groups * group_out, group_in, kh, kw], seed + 1);
        check_conv(conv, &x, &w);
    }

    #[test]
    fn max_pooling_gives_the_whole_gradient_to_the_maximum(
        images in 1usize..3, channels in 1usize..4, side in 3usize..10, kernel in 1usize..4, stride in 1usize..4, pad in 0usize..2, ceil: bool, seed in 0u64..1000,
    ) {
        let pad = pad.min(kernel - 1);
        let pool = Pool { kernel, stride, padding: [pad; 4], ceil };
        // In ceil mode the last window may begin beyond the image; PyTorch drops it, we refuse it.
        prop_assume!(pool.out_sides(side, side).iter().all(|out| (out - 1) * stride < side + pad));
        let x = random(&[images, channels, side, side], seed);
        for reduce in [Reduce::Max, Reduce::Avg] {
            let y = pool::forward(&pool, reduce, &x).unwrap();
            let dy = random(y.dims(), seed + 1);
            let composed = |x: &Tensor| -> Result<Tensor> { match reduce {
                Reduce::Max => composed::max_pool(&pool, x),
                Reduce::Avg => composed::avg_pool(&pool, x),
            }};
            prop_assert!(distance(&y, &composed(&x).unwrap()) < 1e-5);
            let expected = composed::gradients(&[&x], &dy, |inputs| composed(&inputs[0])).unwrap().remove(0);
            prop_assert!(distance(&pool::backward(&pool, reduce, &x, &dy).unwrap(), &expected) < 1e-5);
        }
    }
}

#[test]
fn pooling_gradients_by_finite_differences() {
    let x = random(&[2, 2, 7, 7], 3);
    for reduce in [Reduce::Max, Reduce::Avg] {
        let pool = Pool { kernel: 3, stride: 2, padding: [1; 4], ceil: false };
        let dy = random(pool::forward(&pool, reduce, &x).unwrap().dims(), 4);
        let total = |x: &Tensor| {
            doubles(&pool::forward(&pool, reduce, x).unwrap())
                .iter()
                .zip(doubles(&dy))
                .map(|(y, dy)| y * dy)
                .sum::<f64>()
        };
        let found = doubles(&pool::backward(&pool, reduce, &x, &dy).unwrap());
        for at in (0..found.len()).step_by(5) {
            let moved = |by: f32| {
                let mut values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                values[at] += by;
                total(&Tensor::from_vec(values, x.shape(), &Device::Cpu).unwrap())
            };
            let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
            assert!((found[at] - slope).abs() < 5e-4, "{reduce:?} at {at}: {} against {slope}", found[at]);
        }
    }
}

#[test]
fn batch_norm_and_its_gradients_against_autograd() {
    let x = random(&[3, 5, 4, 6], 1);
    let norm = Norm {
        weight: random(&[5], 2),
        bias: random(&[5], 3),
        running_mean: random(&[5], 4),
        running_var: random(&[5], 5).sqr().unwrap(),
    };
    let dy = random(x.dims(), 6);
    let (y, statistics, moved) = norm::batch(&norm, 1e-5, 0.1, &x).unwrap();
    assert!(distance(&y, &composed::batch_norm(&x, &norm.weight, &norm.bias, 1e-5).unwrap()) < 1e-5);
    let expected =
        composed::gradients(&[&x, &norm.weight, &norm.bias], &dy, |i| composed::batch_norm(&i[0], &i[1], &i[2], 1e-5))
            .unwrap();
    let (dx, [dw, db]) = norm::batch_backward(&norm, 1e-5, &statistics, &x, &dy).unwrap();
    for (found, expected) in [dx, dw, db].iter().zip(&expected) {
        assert!(distance(found, expected) < 1e-5);
    }
    // PyTorch's convention: running <- 0.9 running + 0.1 batch, the variance unbiased.
    let mean = x.mean((0, 2, 3)).unwrap();
    assert!(
        distance(&moved.running_mean, &((&norm.running_mean * 0.9).unwrap() + (mean * 0.1).unwrap()).unwrap()) < 1e-5
    );
    let stored = |x: &Tensor, norm: &Norm| norm::stored(norm, 1e-3, x);
    let expected = composed::gradients(&[&x, &norm.weight, &norm.bias], &dy, |i| {
        let channel = |t: &Tensor| t.reshape((1, 5, 1, 1));
        let centred = i[0].broadcast_sub(&channel(&norm.running_mean)?)?;
        let normal = centred.broadcast_div(&channel(&(&norm.running_var + 1e-3)?.sqrt()?)?)?;
        normal.broadcast_mul(&channel(&i[1])?)?.broadcast_add(&channel(&i[2])?)
    })
    .unwrap();
    let (dx, own) = norm::stored_backward(&norm, 1e-3, &x, &dy, true).unwrap();
    let [dw, db] = own.unwrap();
    for (found, expected) in [dx, dw, db].iter().zip(&expected) {
        assert!(distance(found, expected) < 1e-5);
    }
    assert!(stored(&x, &norm).is_ok());
}

#[test]
fn linear_gradients_against_autograd() {
    for (images, depth, out) in [(1, 1, 1), (3, 64, 10), (17, 100, 33), (9, 257, 49)] {
        let (x, w, b) = (random(&[images, depth], 1), random(&[out, depth], 2), random(&[out], 3));
        let dy = random(&[images, out], 4);
        let plain = |i: &[Tensor]| i[0].matmul(&i[1].t()?)?.broadcast_add(&i[2]);
        assert!(
            distance(
                &linear::forward(&x, &w, &b, Activation::Linear).unwrap(),
                &plain(&[x.clone(), w.clone(), b.clone()]).unwrap()
            ) < 1e-5
        );
        let expected = composed::gradients(&[&x, &w, &b], &dy, plain).unwrap();
        let (dx, own) = linear::backward(&x, &w, &dy, true, true).unwrap();
        let [dw, db] = own.unwrap();
        for (found, expected) in [dx.unwrap(), dw, db].iter().zip(&expected) {
            assert!(distance(found, expected) < 1e-5);
        }
    }
}

/// python 3.11, torch 2.15: F.cross_entropy(torch.tensor([[1., 2., 3.], [0., 0.5, -1.]], requires_grad=True),
/// torch.tensor([2, 0]), label_smoothing=0.1) and its gradient.
#[test]
fn cross_entropy_against_pytorch() {
    let logits = Tensor::new(&[[1f32, 2., 3.], [0., 0.5, -1.]], &Device::Cpu).unwrap();
    let loss = cross_entropy(&logits, &[2, 0], 0.1).unwrap();
    assert!((loss.mean - LOSS).abs() < 1e-6, "{}", loss.mean);
    for (found, expected) in loss.gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().zip(GRADIENT) {
        assert!((found - expected).abs() < 1e-6, "{:?}", loss.gradient.to_vec2::<f32>());
    }
}
const LOSS: f64 = 0.8142016;
const GRADIENT: [f32; 6] = [0.0283486, 0.1056976, -0.1340462, -0.3009172, 0.256608, 0.0443091];

#[test]
fn an_empty_batch_is_refused() {
    let conv = Conv { kernel: [3, 3], stride: 1, padding: [1; 4], groups: 1 };
    let x = Tensor::zeros((0, 2, 4, 4), DType::F32, &Device::Cpu).unwrap();
    assert!(conv::forward(&conv, &x, &random(&[3, 2, 3, 3], 1), None, Activation::Linear).is_err());
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    for depth in [7, 1100, 25_088] {
        let (x, w, b) = (random(&[13, depth], 1), random(&[10, depth], 2), random(&[10], 3));
        let whole = linear::forward(&x, &w, &b, Activation::Linear).unwrap().to_vec2::<f32>().unwrap();
        for (row, expected) in whole.iter().enumerate() {
            let alone =
                linear::forward(&x.narrow(0, row, 1).unwrap().contiguous().unwrap(), &w, &b, Activation::Linear)
                    .unwrap();
            assert_eq!(alone.to_vec2::<f32>().unwrap()[0], *expected);
        }
    }
}

#[test]
fn an_image_has_the_same_bits_alone_and_in_any_batch_through_whole_networks() {
    for (name, input) in [("resnet8", 16), ("vgg_small", 16), ("mobilenet_v1", 32)] {
        let graph = Arch { name: name.to_owned(), input, width: 0.25 }.graph(10).unwrap();
        let weights = init::fresh(&graph, 0, 1, 0).unwrap();
        let network = Network::new(graph, &weights, &Device::Cpu).unwrap();
        let x = random(&[9, 3, input, input], 5);
        let logits =
            |x: &Tensor| network.forward(x, Mode::Evaluate).unwrap().result().unwrap().to_vec2::<f32>().unwrap();
        let whole = logits(&x);
        for (row, expected) in whole.iter().enumerate() {
            assert_eq!(logits(&x.narrow(0, row, 1).unwrap().contiguous().unwrap())[0], *expected, "{name}");
        }
        assert_eq!(logits(&x.narrow(0, 3, 5).unwrap().contiguous().unwrap()), whole[3..8], "{name}");
    }
}

#[test]
fn no_gradient_exists_below_the_first_layer_that_trains() {
    let graph = Arch { name: "resnet8".to_owned(), input: 16, width: 1.0 }.graph(10).unwrap();
    let weights = init::fresh(&graph, 0, 1, 0).unwrap();
    let mut network = Network::new(graph, &weights, &Device::Cpu).unwrap();
    network.frozen = network.graph.layers.iter().rposition(|layer| layer.block == "layer2").unwrap() + 1;
    network.batch_norm = BatchNorm::Frozen;
    let fixed = network.frozen_hash().unwrap();
    let mut rng = stream(1, Stream::Dropout, &[]);
    let tape = network.forward(&random(&[4, 3, 16, 16], 2), Mode::Train(&mut rng)).unwrap();
    let gradients = network.backward(&tape, random(&[4, 10], 3)).unwrap();
    for (index, own) in gradients.0.iter().enumerate() {
        assert_eq!(own.is_empty(), !network.trains(index), "{}", network.graph.layers[index].name);
    }
    assert!(tape.norms.is_empty(), "a frozen batch norm moves no statistics");
    assert_eq!(network.frozen_hash().unwrap(), fixed);
}
