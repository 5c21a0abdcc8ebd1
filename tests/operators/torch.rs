//! Values and gradients that PyTorch gave (`fixtures/operators.py` made `fixtures/operators.json`).

use candle_core::Tensor;
use serde_json::Value;
use tl_sweep::nn::activation::Activation;
use tl_sweep::nn::conv::{self, Conv};
use tl_sweep::nn::curve::{self, Curve};
use tl_sweep::nn::layout::{channels_last, planes};
use tl_sweep::nn::linear;
use tl_sweep::nn::loss::{Targets, cross_entropy};
use tl_sweep::nn::norm::{self, Follow, Norm};
use tl_sweep::nn::optim::{Rule, State, Step, clip};
use tl_sweep::nn::pool::{self, Pool, Reduce, Windows};
use tl_sweep::nn::rotary::{self, Turn};
use tl_sweep::nn::window_attention::{self, Partition};
use tl_sweep::nn::{attention, attention_pool, gate, layer_norm, response_norm, separable, swiglu, unit_norm};

use super::twin::size;
use super::{close, floats, on_path, tensor, uniform};

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/operators.json")).unwrap()
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn shape(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

/// Inputs as the script made them, images as planes.
fn inputs(case: &Value) -> Vec<Tensor> {
    let shapes = case["inputs"].as_array().unwrap().iter().map(shape).enumerate();
    shapes.map(|(index, shape)| tensor(&uniform(size(&shape), index as u64 + 1), &shape)).collect()
}

fn dy(case: &Value) -> Tensor {
    let shape = shape(&case["shape"]);
    tensor(&uniform(size(&shape), 99), &shape)
}

/// Compares images [n, height, width, channels] with planes.
fn same(name: &str, found: &Tensor, expected: &Value) {
    close(name, &planes(found).unwrap(), &list(expected));
}

#[test]
fn convolutions() {
    on_path();
    let plain = Conv { kernel: [3, 3], stride: 1, dilation: 1, padding: [1; 4], groups: 1 };
    let fixture = fixture();
    for (name, conv) in [
        ("conv_tiles", plain),
        ("conv_stride_2_right", Conv { stride: 2, padding: [0, 1, 0, 1], ..plain }),
        ("conv_dilated", Conv { dilation: 2, padding: [2, 2, 1, 3], ..plain }),
        ("conv_groups", Conv { groups: 3, ..plain }),
        ("conv_depthwise", Conv { groups: 9, ..plain }),
        ("conv_1x7", Conv { kernel: [1, 7], padding: [0, 0, 3, 3], ..plain }),
    ] {
        let case = &fixture[name];
        let [x, w] = <[Tensor; 2]>::try_from(inputs(case)).unwrap();
        let x = channels_last(&x).unwrap();
        same(name, &conv::forward(&conv, &x, &w, None, Activation::Linear).unwrap(), &case["y"]);
        let dy = channels_last(&dy(case)).unwrap();
        let image = x.dims().try_into().unwrap();
        let [dx, dw] = conv::backward(&conv, image, Some(&x), &w, &dy, true).unwrap();
        same(name, &dx.unwrap(), &case["grads"][0]);
        close(name, &dw.unwrap(), &list(&case["grads"][1]));
    }
}

#[test]
fn separable_convolutions() {
    on_path();
    let fixture = fixture();
    let case = &fixture["separable"];
    let [x, depthwise, pointwise] = <[Tensor; 3]>::try_from(inputs(case)).unwrap();
    let (x, kernels) = (channels_last(&x).unwrap(), [&depthwise, &pointwise]);
    let conv = Conv { kernel: [3, 3], stride: 2, dilation: 1, padding: [0, 1, 0, 1], groups: 1 };
    same("y", &separable::forward(&conv, &x, kernels).unwrap(), &case["y"]);
    let dy = channels_last(&dy(case)).unwrap();
    let (dx, own) = separable::backward(&conv, &x, kernels, &dy, [true, true]).unwrap();
    let dx = dx.unwrap();
    same("x", &dx, &case["grads"][0]);
    for (which, own) in own.unwrap().iter().enumerate() {
        close("kernel", own, &list(&case["grads"][1 + which]));
    }
    // What is not asked for is not there, and changes nothing.
    let (held, none) = separable::backward(&conv, &x, kernels, &dy, [true, false]).unwrap();
    assert!(none.is_none() && floats(&held.unwrap()) == floats(&dx));
    let (none, own) = separable::backward(&conv, &x, kernels, &dy, [false, true]).unwrap();
    assert!(none.is_none() && own.is_some());
    assert!(separable::forward(&conv, &x, [&pointwise, &depthwise]).is_err());
}

#[test]
fn batch_norm_with_relu() {
    on_path();
    let fixture = fixture();
    let case = &fixture["norm_relu"];
    let [x, weight, bias] = <[Tensor; 3]>::try_from(inputs(case)).unwrap();
    let x = channels_last(&x).unwrap();
    let norm = Norm { running_mean: bias.zeros_like().unwrap(), running_var: bias.ones_like().unwrap(), weight, bias };
    let follow = Follow { momentum: 0.1, unbiased: true };
    let (y, statistics, moved) = norm::batch(&norm, 1e-5, follow, &x, Activation::Relu).unwrap();
    same("y", &y, &case["y"]);
    close("running mean", &moved.running_mean, &list(&fixture["running"]["mean"]));
    close("running variance", &moved.running_var, &list(&fixture["running"]["var"]));
    let dy = channels_last(&dy(case)).unwrap();
    let (dx, [dw, db]) = norm::batch_backward(&statistics, &x, &dy, Activation::Relu).unwrap();
    same("dx", &dx, &case["grads"][0]);
    close("dweight", &dw, &list(&case["grads"][1]));
    close("dbias", &db, &list(&case["grads"][2]));
}

#[test]
fn pools() {
    on_path();
    let plain = Pool { kernel: 3, stride: 2, padding: [1; 4], ceil: false };
    let fixture = fixture();
    for (name, windows, reduce) in [
        ("max_pool", Windows::Moved(Pool { ceil: true, ..plain }), Reduce::Max),
        ("avg_pool", Windows::Moved(plain), Reduce::Avg),
        ("avg_pool_padded", Windows::Moved(Pool { ceil: true, ..plain }), Reduce::AvgPadded),
        ("grid_pool", Windows::Grid(4), Reduce::Avg),
    ] {
        let case = &fixture[name];
        let x = channels_last(&inputs(case)[0]).unwrap();
        let y = pool::forward(&windows, reduce, &x).unwrap();
        same(name, &y, &case["y"]);
        let dy = channels_last(&dy(case)).unwrap();
        let dx = match reduce {
            Reduce::Max => pool::max_backward(&windows, &x, &y, &dy),
            _ => pool::avg_backward(&windows, reduce, x.dims4().unwrap(), &dy),
        };
        same(name, &dx.unwrap(), &case["grads"][0]);
    }
}

/// SiLU, GELU in three ways, the sigmoid and what is like them of eight times the inputs.
#[test]
fn curves() {
    on_path();
    let fixture = fixture();
    for (name, own) in [
        ("silu", Curve::Silu),
        ("sigmoid", Curve::Sigmoid),
        ("gelu", Curve::Gelu),
        ("quick_gelu", Curve::QuickGelu),
        ("tanh_gelu", Curve::GeluTanh),
        ("hard_sigmoid", Curve::HardSigmoid),
        ("hard_swish", Curve::HardSwish),
    ] {
        let case = &fixture[name];
        let x = (channels_last(&inputs(case)[0]).unwrap() * 8.0).unwrap();
        same(name, &curve::forward(&x, own).unwrap(), &case["y"]);
        let dx = curve::backward(&x, &channels_last(&dy(case)).unwrap(), own).unwrap();
        same(name, &(dx * 8.0).unwrap(), &case["grads"][0]);
    }
}

#[test]
fn gates() {
    on_path();
    let fixture = fixture();
    let case = &fixture["scale"];
    let [x, by] = <[Tensor; 2]>::try_from(inputs(case)).unwrap().map(|tensor| channels_last(&tensor).unwrap());
    let dy = channels_last(&dy(case)).unwrap();
    same("y", &gate::scale(&x, &by).unwrap(), &case["y"]);
    same("dx", &gate::scale(&dy, &by).unwrap(), &case["grads"][0]);
    same("dgate", &gate::gate_gradient(&x, &dy).unwrap(), &case["grads"][1]);
}

#[test]
fn layer_norm_over_channels() {
    on_path();
    let fixture = fixture();
    let case = &fixture["layer_norm"];
    let [x, weight, bias] = <[Tensor; 3]>::try_from(inputs(case)).unwrap();
    let x = channels_last(&x).unwrap();
    same("y", &layer_norm::forward(&x, &weight, &bias, 1e-6).unwrap(), &case["y"]);
    let dy = channels_last(&dy(case)).unwrap();
    let (dx, [dw, db]) = layer_norm::backward(&x, &weight, 1e-6, &dy).unwrap();
    same("dx", &dx, &case["grads"][0]);
    close("dweight", &dw, &list(&case["grads"][1]));
    close("dbias", &db, &list(&case["grads"][2]));
}

/// Two heads of four numbers, between seven tokens of two images.
#[test]
fn attention_of_heads() {
    on_path();
    let fixture = fixture();
    let case = &fixture["attention"];
    let [x] = <[Tensor; 1]>::try_from(inputs(case)).unwrap();
    let x = x.reshape((2, 7, 1, 24)).unwrap();
    close("y", &attention::forward(&x, 2).unwrap(), &list(&case["y"]));
    let dy = dy(case).reshape((2, 7, 1, 8)).unwrap();
    close("dx", &attention::backward(&x, &dy, 2).unwrap(), &list(&case["grads"][0]));
}

/// Two heads of four numbers, in windows of 3 x 3 pixels that lie one pixel further, of two images.
#[test]
fn attention_in_windows() {
    on_path();
    let fixture = fixture();
    let case = &fixture["window_attention"];
    let [x, table] = <[Tensor; 2]>::try_from(inputs(case)).unwrap();
    let (x, dy) = (channels_last(&x).unwrap(), channels_last(&dy(case)).unwrap());
    let windows = Partition { heads: 2, side: 3, shift: 1 };
    same("y", &window_attention::forward(&x, &table, &windows).unwrap(), &case["y"]);
    let (dx, own) = window_attention::backward(&x, &table, &dy, &windows, true).unwrap();
    same("x", &dx, &case["grads"][0]);
    close("table", &own.unwrap(), &list(&case["grads"][1]));
    let (held, own) = window_attention::backward(&x, &table, &dy, &windows, false).unwrap();
    assert!(own.is_none() && floats(&held) == floats(&dx));
}

#[test]
fn patches_that_are_merged() {
    on_path();
    let fixture = fixture();
    let case = &fixture["patch_merge"];
    let [x] = <[Tensor; 1]>::try_from(inputs(case)).unwrap();
    same("y", &window_attention::merge(&channels_last(&x).unwrap()).unwrap(), &case["y"]);
    let dx = window_attention::merge_backward(&channels_last(&dy(case)).unwrap()).unwrap();
    same("x", &dx, &case["grads"][0]);
}

/// Two heads of eight numbers, of two tokens and four patches of two images.
#[test]
fn rotary_positions() {
    on_path();
    let fixture = fixture();
    let case = &fixture["rotary"];
    let [x, of_queries, of_values] = <[Tensor; 3]>::try_from(inputs(case)).unwrap();
    let table: Vec<f64> = rotary::table(2, 8, 100.0).into_iter().map(f64::from).collect();
    let table = tensor(&table, &[4, 4, 2]);
    let turn = Turn { heads: 2, skip: 2, table: &table };
    let y = rotary::forward(&x.reshape((2, 6, 1, 48)).unwrap(), [&of_queries, &of_values], &turn).unwrap();
    close("y", &y, &list(&case["y"]));
    let dx = rotary::backward(&dy(case).reshape((2, 6, 1, 48)).unwrap(), &turn).unwrap();
    close("dx", &dx, &list(&case["grads"][0]));
    let [dq, dv] = rotary::bias_gradients(&dx).unwrap();
    close("of queries", &dq, &list(&case["grads"][1]));
    close("of values", &dv, &list(&case["grads"][2]));
}

/// Two heads of four numbers, over seven tokens of two images.
#[test]
fn attention_of_one_token() {
    on_path();
    let fixture = fixture();
    let case = &fixture["attention_pool"];
    let [queries, keys] = <[Tensor; 2]>::try_from(inputs(case)).unwrap();
    let (queries, keys) = (queries.reshape((2, 1, 1, 8)).unwrap(), keys.reshape((2, 7, 1, 16)).unwrap());
    close("y", &attention_pool::forward(&queries, &keys, 2).unwrap(), &list(&case["y"]));
    let dy = dy(case).reshape((2, 1, 1, 8)).unwrap();
    let [dq, dk] = attention_pool::backward(&queries, &keys, &dy, 2).unwrap();
    close("queries", &dq, &list(&case["grads"][0]));
    close("keys and values", &dk, &list(&case["grads"][1]));
}

#[test]
fn gated_units() {
    on_path();
    let fixture = fixture();
    let case = &fixture["swiglu"];
    let [by, x] = <[Tensor; 2]>::try_from(inputs(case)).unwrap().map(|tensor| channels_last(&tensor).unwrap());
    let by = (by * 8.0).unwrap();
    same("y", &swiglu::forward(&by, &x).unwrap(), &case["y"]);
    let [dgate, dx] = swiglu::backward(&by, &x, &channels_last(&dy(case)).unwrap()).unwrap();
    same("gate", &(dgate * 8.0).unwrap(), &case["grads"][0]);
    same("x", &dx, &case["grads"][1]);
}

#[test]
fn response_norms() {
    on_path();
    let fixture = fixture();
    let case = &fixture["response_norm"];
    let [x, weight, bias] = <[Tensor; 3]>::try_from(inputs(case)).unwrap();
    let x = channels_last(&x).unwrap();
    same("y", &response_norm::forward(&x, &weight, &bias, 1e-6).unwrap(), &case["y"]);
    let dy = channels_last(&dy(case)).unwrap();
    let (dx, [dweight, dbias]) = response_norm::backward(&x, &weight, 1e-6, &dy).unwrap();
    same("x", &dx, &case["grads"][0]);
    close("weight", &dweight, &list(&case["grads"][1]));
    close("bias", &dbias, &list(&case["grads"][2]));
    // A channel of zeros stays at its bias, and pulls at nothing.
    let zeros = x.zeros_like().unwrap();
    let (dx, _) = response_norm::backward(&zeros, &weight, 1e-6, &dy).unwrap();
    assert_eq!(floats(&dx), floats(&dy));
    assert!(response_norm::forward(&x, &weight.narrow(0, 0, 8).unwrap(), &bias, 1e-6).is_err());
}

#[test]
fn unit_norms() {
    on_path();
    let fixture = fixture();
    let case = &fixture["unit_norm"];
    let x = channels_last(&inputs(case)[0]).unwrap();
    same("y", &unit_norm::forward(&x).unwrap(), &case["y"]);
    same("x", &unit_norm::backward(&x, &channels_last(&dy(case)).unwrap()).unwrap(), &case["grads"][0]);
    // A pixel of zeros stays one, and its gradient is PyTorch's.
    let zeros = x.zeros_like().unwrap();
    assert_eq!(floats(&unit_norm::forward(&zeros).unwrap()), floats(&zeros));
    let found = unit_norm::backward(&zeros, &zeros.ones_like().unwrap()).unwrap();
    assert!(floats(&found).iter().all(|slope| *slope == 1e12), "{found}");
}

#[test]
fn linear_layer() {
    on_path();
    let fixture = fixture();
    let case = &fixture["linear"];
    let [x, w, b] = <[Tensor; 3]>::try_from(inputs(case)).unwrap();
    close("y", &linear::forward(&x, &w, &b, Activation::Linear).unwrap(), &list(&case["y"]));
    let (dx, own) = linear::backward(Some(&x), &w, &dy(case), true).unwrap();
    let [dw, db] = own.unwrap();
    for (found, expected) in [dx.unwrap(), dw, db].iter().zip(case["grads"].as_array().unwrap()) {
        close("gradient", found, &list(expected));
    }
}

#[test]
fn cross_entropies() {
    let fixture = fixture();
    let logits = tensor(&uniform(12, 1), &[4, 3]);
    let loss = |targets| cross_entropy(&logits, &[2, 0, 1, 2], targets).unwrap().mean;
    let plain = fixture["cross_entropy"]["plain"].as_f64().unwrap();
    assert!((loss(Targets::default()) - plain).abs() < 1e-6);
    let smooth = fixture["cross_entropy"]["smooth"].as_f64().unwrap();
    let weighted = Targets { smoothing: 0.1, class_weights: Some(&[0.5, 2.0, 1.0]) };
    assert!((loss(weighted) - smooth).abs() < 1e-6);
}

#[test]
fn optimisers() {
    on_path();
    let fixture = fixture();
    let sgd = |nesterov| Rule::Sgd { momentum: 0.9, nesterov };
    for (name, rule, coupled_decay, decoupled_decay) in
        [("sgd", sgd(false), 0.01, 0.0), ("nesterov", sgd(true), 0.01, 0.0), ("adamw", Rule::Adam, 0.0, 0.01)]
    {
        let mut w = tensor(&uniform(7, 1), &[7]);
        let mut state = State::default();
        for step in 0..5 {
            let gradient = tensor(&uniform(7, 10 + step), &[7]);
            w = state.step(rule, Step { lr: 0.1, coupled_decay, decoupled_decay }, &w, &gradient).unwrap();
        }
        close(name, &w, &list(&fixture[name]));
    }
    // One vector in two tensors has one norm.
    let gradient = uniform(7, 10);
    let mut parts = [tensor(&gradient[..3], &[3]), tensor(&gradient[3..], &[4])];
    clip(parts.iter_mut(), 0.5).unwrap();
    // What clipping multiplied with tells the norm that it found.
    let factor = f64::from(floats(&parts[0])[0]) / gradient[0];
    assert!((0.5 / factor - fixture["clip"]["norm"].as_f64().unwrap()).abs() < 1e-5);
    close("clipped", &Tensor::cat(&parts, 0).unwrap(), &list(&fixture["clip"]["grad"]));
    let mut small = [tensor(&[0.1, 0.2], &[2])];
    clip(small.iter_mut(), 1.0).unwrap();
    close("not clipped", &small[0], &[f64::from(0.1f32), f64::from(0.2f32)]);
}
