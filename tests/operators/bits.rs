//! The promise about bits: an image's result is the same alone, in any batch, on any number of threads, recomputed or
//! kept, cut or whole.

use candle_core::{IndexOp, Tensor};
use tl_sweep::exec::{Mode, Network};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::graph::{Activation as Behind, Framework, Graph, Op, Reduce};
use tl_sweep::model::init;
use tl_sweep::nn::activation::Activation;
use tl_sweep::nn::conv::{self, Conv};
use tl_sweep::nn::norm::{self, Follow, Norm};
use tl_sweep::nn::{linear, pool};
use tl_sweep::recipe::BatchNorm;
use tl_sweep::seed::{Stream, stream};

use super::twin::size;
use super::{bits, on_path, tensor, uniform};

pub(super) fn random(shape: &[usize], seed: u64) -> Tensor {
    tensor(&uniform(size(shape), seed), shape)
}

fn rows(x: &Tensor, from: usize, count: usize) -> Tensor {
    x.narrow(0, from, count).unwrap().contiguous().unwrap()
}

/// Runs work on a pool of so many threads.
fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn a_row_of_a_linear_layer() {
    on_path();
    for depth in [7, 1100, 25_088] {
        let (x, w, b) = (random(&[13, depth], 1), random(&[10, depth], 2), random(&[10], 3));
        let whole = linear::forward(&x, &w, &b, Activation::Linear).unwrap();
        for row in 0..13 {
            let alone = linear::forward(&rows(&x, row, 1), &w, &b, Activation::Linear).unwrap();
            assert_eq!(bits(&alone), bits(&whole.i(row).unwrap()), "row {row} of {depth}");
        }
        let dy = random(&[13, 10], 4);
        let (whole, _) = linear::backward(None, &w, &dy, true).unwrap();
        let (alone, _) = linear::backward(None, &w, &rows(&dy, 5, 1), true).unwrap();
        assert_eq!(bits(&alone.unwrap()), bits(&whole.unwrap().i(5).unwrap()), "dx of {depth}");
    }
}

/// Sums of 9 and of 25,088 products (a 7 x 7 kernel over 512 channels), by tiles, in groups, depthwise.
#[test]
fn an_image_of_a_convolution() {
    on_path();
    let plain = Conv { kernel: [3, 3], stride: 1, dilation: 1, padding: [1; 4], groups: 1 };
    let cases: [(Conv, [usize; 3], [usize; 2]); 8] = [
        (plain, [9, 9, 1], [12, 1]),
        (plain, [8, 8, 24], [40, 24]),
        (plain, [14, 14, 16], [16, 16]),
        (plain, [30, 30, 16], [24, 16]),
        (Conv { kernel: [7, 7], padding: [0; 4], ..plain }, [7, 7, 512], [10, 512]),
        (Conv { stride: 2, ..plain }, [9, 11, 24], [40, 24]),
        (Conv { groups: 3, ..plain }, [6, 6, 18], [33, 6]),
        (Conv { groups: 40, stride: 2, ..plain }, [9, 9, 40], [40, 1]),
    ];
    for (conv, [height, width, channels], [out, per_group]) in cases {
        let x = random(&[7, height, width, channels], 1);
        let w = random(&[out, per_group, conv.kernel[0], conv.kernel[1]], 2);
        let forward = |x: &Tensor| conv::forward(&conv, x, &w, None, Activation::Relu).unwrap();
        let whole = forward(&x);
        let dy = random(whole.dims(), 3);
        let back = |x: &Tensor, dy: &Tensor| {
            let shape = [x.dims()[0], height, width, channels];
            conv::backward(&conv, shape, Some(x), &w, dy, true).unwrap().map(Option::unwrap)
        };
        let [dx, dw] = back(&x, &dy);
        for (from, count) in [(0, 1), (3, 1), (6, 1), (2, 4)] {
            let part = rows(&x, from, count);
            assert_eq!(bits(&forward(&part)), bits(&rows(&whole, from, count)), "{conv:?} from {from}");
            assert_eq!(bits(&back(&part, &rows(&dy, from, count))[0]), bits(&rows(&dx, from, count)), "{conv:?}");
        }
        for threads in [1, 2, 3, 7] {
            let (y, [own_dx, own_dw]) = on_threads(threads, || (forward(&x), back(&x, &dy)));
            assert_eq!(bits(&y), bits(&whole), "{conv:?} on {threads} threads");
            assert_eq!(bits(&own_dx), bits(&dx), "{conv:?}: dx on {threads} threads");
            assert_eq!(bits(&own_dw), bits(&dw), "{conv:?}: dw on {threads} threads");
        }
    }
}

#[test]
fn threads_do_not_show_in_norms_and_pools() {
    on_path();
    let x = random(&[5, 31, 30, 24], 1);
    let dy = random(x.dims(), 2);
    let own = |seed| random(&[24], seed);
    let norm = Norm { weight: own(3), bias: own(4), running_mean: own(5), running_var: own(6).sqr().unwrap() };
    let work = || {
        let follow = Follow { momentum: 0.1, unbiased: true };
        let (y, statistics, moved) = norm::batch(&norm, 1e-5, follow, &x, Activation::Relu).unwrap();
        let (dx, [dw, db]) = norm::batch_backward(&statistics, &x, &dy, Activation::Relu).unwrap();
        let windows = pool::Windows::Moved(pool::Pool { kernel: 3, stride: 2, padding: [1; 4], ceil: false });
        let best = pool::forward(&windows, pool::Reduce::Max, &x).unwrap();
        [y, moved.running_var, dx, dw, db, pool::max_backward(&windows, &x, &best, &best).unwrap()].map(|t| bits(&t))
    };
    let expected = on_threads(1, work);
    for threads in [2, 3, 5] {
        assert_eq!(on_threads(threads, work), expected, "{threads} threads");
    }
}

/// A network with every kind of layer.
fn everything() -> Graph {
    let mut graph = Graph::new("everything", Framework::Torch, [3, 16, 16]);
    let conv = |out, kernel, stride, groups, bias, activation| Op::Conv {
        out,
        kernel: [kernel; 2],
        stride,
        dilation: 1,
        padding: [kernel / 2; 4],
        groups,
        bias,
        activation,
    };
    let norm = || Op::torch_norm(1e-5);
    graph.then("a", "conv1", conv(16, 3, 1, 1, false, Behind::Linear));
    graph.then("a", "bn1", norm());
    let first = graph.then("a", "relu1", Op::Activation(Behind::Relu));
    graph.then("b", "pad", Op::ZeroPad([0, 1, 0, 1]));
    graph.then(
        "b",
        "dw",
        Op::Conv {
            out: 16,
            kernel: [3, 3],
            stride: 1,
            dilation: 1,
            padding: [1, 0, 1, 0],
            groups: 16,
            bias: false,
            activation: Behind::Linear,
        },
    );
    graph.then("b", "dw_bn", norm());
    let main = graph.then("b", "relu6", Op::Activation(Behind::Relu6));
    let side = graph.push("b", "side".to_owned(), conv(16, 1, 1, 1, true, Behind::Relu), &[first]);
    graph.push("b", "add".to_owned(), Op::Add, &[main, side]);
    let sum = graph.then("b", "relu2", Op::Activation(Behind::Relu));
    let short = graph.push("c", "shortcut".to_owned(), Op::Shortcut { stride: 2, channels: 24 }, &[sum]);
    let pooled = graph.push(
        "c",
        "pool".to_owned(),
        Op::Pool { reduce: Reduce::Max, kernel: 3, stride: 2, padding: [1; 4], ceil: false },
        &[sum],
    );
    graph.push("c", "concat".to_owned(), Op::Concat, &[short, pooled]);
    graph.then("c", "conv3", conv(32, 3, 1, 1, true, Behind::Relu));
    graph.then("c", "bn3", norm());
    graph.then("c", "dropout", Op::Dropout(0.3));
    graph.then("c", "gap", Op::GridPool { reduce: Reduce::Avg, grid: 2 });
    graph.then("top", "flatten", Op::Flatten);
    graph.then("top", "fc", Op::Linear { out: 20, activation: Behind::Relu });
    graph.then("top", "out", Op::Linear { out: 5, activation: Behind::Linear });
    graph
}

/// A network of the layers that EfficientNet has beside those: preparation, SiLU, a gate, stochastic depth.
fn gated() -> Graph {
    let mut graph = Graph::new("gated", Framework::Keras, [3, 16, 16]);
    let pointwise = |out, activation| Op::conv(out, [1, 1], 1, [0; 4]).biased(activation);
    let norm = || Op::keras_norm(1e-3, 0.99, true);
    graph.then("stem", "rescaling", Op::Rescale(vec![0.5, 2.0, 1.5]));
    graph.then("stem", "normalization", Op::Normalize);
    graph.then("stem", "conv", Op::conv(16, [3, 3], 2, [0, 1, 0, 1]));
    graph.then("stem", "bn", norm());
    let stem = graph.then("stem", "silu", Op::Activation(Behind::Silu));
    graph.then("block", "dw", Op::conv(16, [5, 5], 1, [2; 4]).grouped(16));
    graph.then("block", "dw_bn", norm());
    let map = graph.then("block", "dw_silu", Op::Activation(Behind::Silu));
    graph.then("block", "squeeze", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("block", "reshape", Op::Flatten);
    graph.then("block", "reduce", pointwise(4, Behind::Silu));
    let gate = graph.then("block", "expand", pointwise(16, Behind::Sigmoid));
    graph.push("block", "excite", Op::Scale, &[map, gate]);
    graph.then("block", "project", pointwise(16, Behind::Linear));
    graph.then("block", "project_bn", norm());
    let main = graph.then("block", "drop", Op::DropPath(0.4));
    graph.push("block", "add", Op::Add, &[main, stem]);
    graph.then("block", "sum_silu", Op::Activation(Behind::Silu));
    graph.then("top", "pool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("top", "fc", Op::Linear { out: 12, activation: Behind::Silu });
    graph.then("top", "out", Op::Linear { out: 5, activation: Behind::Linear });
    graph
}

/// A network of the layers that transformers and ConvNeXt have beside those: layer norms, GELU, attention, tokens, scales.
fn attending() -> Graph {
    let mut graph = Graph::new("attending", Framework::Torch, [3, 20, 20]);
    graph.then("stem", "patches", Op::conv(24, [4, 4], 4, [0; 4]).biased(Behind::Linear));
    let stem = graph.then("stem", "stem_norm", Op::LayerNorm { eps: 1e-6 });
    graph.then("map", "depthwise", Op::conv(24, [7, 7], 1, [3; 4]).grouped(24).biased(Behind::Gelu));
    graph.then("map", "wide", Op::dense(40));
    graph.then("map", "gelu", Op::Activation(Behind::Gelu));
    graph.then("map", "responses", Op::ResponseNorm { eps: 1e-6 });
    graph.then("map", "narrow", Op::dense(24));
    graph.then("map", "map_scale", Op::LayerScale { init: 0.5 });
    let main = graph.then("map", "drop", Op::DropPath(0.4));
    graph.push("map", "map_add", Op::Add, &[main, stem]);
    graph.then("rows", "class", Op::Tokens { at: 0, count: 1 });
    graph.then("rows", "positions", Op::Positions);
    let rows = graph.then("rows", "registers", Op::Tokens { at: 1, count: 3 });
    graph.then("block", "norm", Op::LayerNorm { eps: 1e-6 });
    graph.then("block", "qkv", Op::dense(72));
    graph.then("block", "attention", Op::Attention { heads: 2 });
    graph.then("block", "project", Op::dense(24));
    let main = graph.then("block", "scale", Op::LayerScale { init: 2.0 });
    graph.push("block", "add", Op::Add, &[main, rows]);
    graph.then("top", "top_norm", Op::LayerNorm { eps: 1e-6 });
    graph.then("top", "token", Op::Token(0));
    graph.then("top", "out", Op::Linear { out: 5, activation: Behind::Linear });
    graph
}

/// A network of what DINOv3 and SigLIP have beside those: dense layers without biases, rotary positions, SwiGLU, GELU by its tanh,
/// the attention of one token, and CLIP's vectors of unit length.
fn turning() -> Graph {
    let mut graph = Graph::new("turning", Framework::Torch, [3, 20, 20]);
    graph.then("rows", "patches", Op::conv(24, [4, 4], 4, [0; 4]).biased(Behind::Linear));
    let rows = graph.then("rows", "class", Op::Tokens { at: 0, count: 2 });
    graph.then("block", "norm", Op::LayerNorm { eps: 1e-5 });
    graph.then("block", "qkv", Op::Pointwise { out: 72, bias: false });
    graph.then("block", "turn", Op::Rotary { heads: 2, skip: 2, base: 100.0 });
    graph.then("block", "attention", Op::Attention { heads: 2 });
    let main = graph.then("block", "project", Op::dense(24));
    let sum = graph.push("block", "add", Op::Add, &[main, rows]);
    let gate = graph.push("units", "gate", Op::dense(40), &[sum]);
    let let_through = graph.push("units", "through", Op::dense(40), &[sum]);
    graph.push("units", "swiglu", Op::SwiGlu, &[gate, let_through]);
    let main = graph.then("units", "narrow", Op::dense(24));
    let map = graph.push("units", "unit_add", Op::Add, &[main, sum]);
    let keys = graph.push("pool", "keys", Op::dense(48), &[map]);
    graph.push("pool", "asks", Op::Tokens { at: 0, count: 1 }, &[map]);
    graph.then("pool", "alone", Op::Token(0));
    let query = graph.then("pool", "query", Op::dense(24));
    graph.push("pool", "pool", Op::AttentionPool { heads: 3 }, &[query, keys]);
    graph.then("pool", "wide", Op::dense(30));
    graph.then("pool", "gelu", Op::Activation(Behind::GeluTanh));
    graph.then("top", "unit", Op::UnitNorm);
    graph.then("top", "out", Op::Linear { out: 5, activation: Behind::Linear });
    graph
}

/// A network of what Swin has beside those, attention in windows that lie still and in windows that lie further, with pixels at two sides
/// that are taken away again, and merged patches; and of Xception's separable convolutions.
fn windowed() -> Graph {
    let mut graph = Graph::new("windowed", Framework::Torch, [3, 28, 28]);
    let stem = graph.then("stem", "patches", Op::conv(24, [4, 4], 4, [0; 4]).biased(Behind::Linear));
    graph.then("still", "still_norm", Op::LayerNorm { eps: 1e-5 });
    graph.then("still", "still_pad", Op::ZeroPad([0, 2, 0, 2]));
    graph.then("still", "still_qkv", Op::dense(72));
    graph.then("still", "still_windows", Op::WindowAttention { heads: 2, window: 3, shift: 0 });
    graph.then("still", "still_crop", Op::Crop([0, 2, 0, 2]));
    let main = graph.then("still", "still_project", Op::dense(24));
    let map = graph.push("still", "still_add", Op::Add, &[main, stem]);
    graph.then("moved", "pad", Op::ZeroPad([0, 2, 0, 2]));
    graph.then("moved", "qkv", Op::dense(72));
    graph.then("moved", "windows", Op::WindowAttention { heads: 3, window: 3, shift: 1 });
    graph.then("moved", "crop", Op::Crop([0, 2, 0, 2]));
    let main = graph.then("moved", "project", Op::dense(24));
    graph.push("moved", "add", Op::Add, &[main, map]);
    graph.then("top", "even", Op::ZeroPad([0, 1, 0, 1]));
    graph.then("top", "merge", Op::PatchMerge);
    graph.then("top", "reduce", Op::Pointwise { out: 30, bias: false });
    graph.then("top", "separable", Op::Separable { out: 20, kernel: [3, 3], stride: 1, padding: [1; 4] });
    graph.then("top", "pool", Op::GridPool { reduce: Reduce::Avg, grid: 1 });
    graph.then("top", "out", Op::Linear { out: 5, activation: Behind::Linear });
    graph
}

pub(super) fn networks() -> Vec<Graph> {
    let known = [("resnet8", 16), ("vgg_small", 16), ("mobilenet_v1", 32)];
    let known = known.map(|(name, input)| Arch::new(name, input, 0.25).graph(10).unwrap());
    known.into_iter().chain([everything(), gated(), attending(), turning(), windowed()]).collect()
}

pub(super) fn network(graph: Graph) -> Network {
    let weights = init::fresh(&graph, 0, 1, 0).unwrap();
    Network::new(graph, &weights, &candle_core::Device::Cpu).unwrap()
}

pub(super) fn images(network: &Network, count: usize) -> Tensor {
    let [channels, height, width] = network.graph.layers[0].shape;
    random(&[count, channels, height, width], 5)
}

#[test]
fn an_image_through_whole_networks() {
    on_path();
    for graph in networks() {
        let network = network(graph);
        let x = images(&network, 9);
        let whole = network.infer(&x).unwrap();
        let pass = network.forward(&x, Mode::Evaluate).unwrap().result().unwrap();
        assert_eq!(bits(&pass), bits(&whole), "{}: in parts and at once", network.graph.arch);
        for row in 0..9 {
            let alone = network.infer(&rows(&x, row, 1)).unwrap();
            assert_eq!(bits(&alone), bits(&whole.i(row).unwrap()), "{}", network.graph.arch);
        }
        let five = on_threads(3, || network.infer(&rows(&x, 3, 5)).unwrap());
        assert_eq!(bits(&five), bits(&rows(&whole, 3, 5)), "{}", network.graph.arch);
    }
}

pub(super) fn all_gradients(network: &Network, x: &Tensor) -> Vec<Vec<u32>> {
    let mut rng = stream(1, Stream::Dropout, &[]);
    let mut tape = network.forward(x, Mode::Train(&mut rng)).unwrap();
    let result = tape.result().unwrap();
    let gradients = network.backward(&mut tape, random(result.dims(), 3)).unwrap();
    let moved = tape.norms.iter().flat_map(|(_, norm)| [bits(&norm.running_mean), bits(&norm.running_var)]);
    gradients.0.iter().flatten().map(bits).chain([bits(&result)]).chain(moved).collect()
}

#[test]
fn a_training_step_on_any_number_of_threads_kept_or_recomputed() {
    on_path();
    for graph in networks() {
        let mut network = network(graph);
        let x = images(&network, 6);
        let (expected, kept) = (all_gradients(&network, &x), network.kept());
        for threads in [1, 2, 3] {
            assert!(on_threads(threads, || all_gradients(&network, &x)) == expected, "{threads} threads");
        }
        network.recompute = true;
        assert!(all_gradients(&network, &x) == expected, "recomputed");
        let norms = network.graph.layers.iter().any(|layer| matches!(layer.op, Op::BatchNorm { .. }));
        assert_eq!(network.kept() < kept, norms, "{}: recomputing keeps less", network.graph.arch);
    }
}

#[test]
fn no_gradient_exists_below_the_first_layer_that_trains() {
    on_path();
    let mut network = network(Arch::new("resnet8", 16, 1.0).graph(10).unwrap());
    network.frozen = network.graph.layers.iter().rposition(|layer| layer.block == "layer2").unwrap() + 1;
    network.batch_norm = BatchNorm::Frozen;
    let fixed = network.frozen_hash().unwrap();
    let mut rng = stream(1, Stream::Dropout, &[]);
    let mut tape = network.forward(&images(&network, 4), Mode::Train(&mut rng)).unwrap();
    let gradients = network.backward(&mut tape, random(&[4, 10], 3)).unwrap();
    for (index, own) in gradients.0.iter().enumerate() {
        assert_eq!(own.is_empty(), !network.trains(index), "{}", network.graph.layers[index].name);
    }
    assert!(tape.norms.is_empty(), "a frozen batch norm moves no statistics");
    assert_eq!(network.frozen_hash().unwrap(), fixed);
    assert!(network.backward(&mut tape, random(&[4, 10], 3)).is_err(), "a tape is used once");
}

/// Cut anywhere below the freeze depth: the suffix on the prefix's output is the whole network, in training and after it.
#[test]
fn a_network_cut_at_its_freeze_depth() {
    on_path();
    for graph in networks() {
        for frozen in 1..graph.layers.len() - 1 {
            let mut whole = network(graph.clone());
            whole.frozen = frozen;
            let cut = graph.cut_at_most(frozen - 1);
            let x = images(&whole, 3);
            let mut prefix = network(graph.truncate(cut));
            prefix.frozen = cut + 1;
            // Starting weights follow from the names of layers: the parts have those of the whole.
            let mut suffix = network(graph.above(cut));
            suffix.frozen = frozen - cut;
            let codes = prefix.infer(&x).unwrap();
            let codes = if codes.rank() == 2 { codes.reshape((3, (), 1, 1)).unwrap() } else { codes };
            assert_eq!(
                bits(&suffix.infer(&codes).unwrap()),
                bits(&whole.infer(&x).unwrap()),
                "{} at {frozen}",
                graph.arch
            );
            let (found, expected) = (all_gradients(&suffix, &codes), all_gradients(&whole, &x));
            assert!(found == expected, "{} at {frozen}, cut {cut}", graph.arch);
        }
    }
}

/// Convolutions of one input with the weights of several networks: thin, by tiles, with a stride, 1x1, in groups.
#[test]
fn a_network_beside_others_that_read_the_same_input() {
    on_path();
    let plain = Conv { kernel: [3, 3], stride: 1, dilation: 1, padding: [1; 4], groups: 1 };
    let cases: [(Conv, [usize; 3], [usize; 2]); 7] = [
        (plain, [9, 9, 3], [12, 3]),
        (plain, [8, 8, 24], [40, 24]),
        (plain, [16, 16, 16], [16, 16]),
        (plain, [16, 16, 16], [8, 16]),
        (Conv { stride: 2, ..plain }, [32, 32, 16], [32, 16]),
        (Conv { kernel: [1, 1], padding: [0; 4], ..plain }, [20, 20, 16], [24, 16]),
        (Conv { groups: 2, ..plain }, [8, 8, 16], [8, 8]),
    ];
    for (conv, [height, width, channels], [out, depth]) in cases {
        let x = random(&[5, height, width, channels], 1);
        let random_each = |shape: &[usize], seed: u64| (0..5).map(|own| random(shape, seed + own)).collect::<Vec<_>>();
        let ws = random_each(&[out, depth, conv.kernel[0], conv.kernel[1]], 10);
        let biases = random_each(&[out], 20);
        let (w, bias): (Vec<&Tensor>, Vec<&Tensor>) = (ws.iter().collect(), biases.iter().collect());
        let found = conv::forward_several(&conv, &x, &w, Some(&bias), Activation::Relu).unwrap();
        let alone = |own: usize| conv::forward(&conv, &x, w[own], Some(bias[own]), Activation::Relu).unwrap();
        let dys = random_each(found[0].dims(), 30);
        let dy: Vec<&Tensor> = dys.iter().collect();
        let gradients = conv::weight_gradients(&conv, &x, &w, &dy).unwrap();
        for own in 0..5 {
            assert_eq!(bits(&found[own]), bits(&alone(own)), "{conv:?} {own}");
            let [_, dw] =
                conv::backward(&conv, [5, height, width, channels], Some(&x), w[own], dy[own], false).unwrap();
            assert_eq!(bits(&gradients[own]), bits(&dw.unwrap()), "gradient of {conv:?} {own}");
        }
    }
}
