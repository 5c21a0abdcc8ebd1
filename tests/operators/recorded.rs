//! Steps that a GPU was told once and is asked for as one have the bits of steps that are asked for one launch at a time.

use std::sync::mpsc::channel;
use std::time::Duration;

use candle_core::Tensor;
use tl_sweep::device::Precision;
use tl_sweep::exec::routine::{Routine, States, TrainStep};
use tl_sweep::exec::{Encoder, Mode, Network, Parts};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::init;
use tl_sweep::model::selected::Selected;
use tl_sweep::nn::loss::{Labels, Targets, cross_entropies};
use tl_sweep::nn::optim::{Rule, Sizes, Step, Steps};
use tl_sweep::nn::pull::Pull;
use tl_sweep::nn::{self, cuda};
use tl_sweep::seed::{Stream, stream};
use tl_sweep::trains::Trains;

use super::gpu::{ASKED, device};
use super::{bits, tensor, uniform};

/// A network, and how it learns.
struct Case {
    arch: &'static str,
    side: usize,
    width: f64,
    frozen: usize,
    /// What of the rest trains.
    trains: fn() -> Trains,
    /// How hard layers below the head are pulled back to their start.
    pull: f64,
    rule: Rule,
    clip: Option<f64>,
    precision: Precision,
}

const SGD: Rule = Rule::Sgd { momentum: 0.9, nesterov: false };
const PLAIN: Case = Case {
    arch: "resnet8",
    side: 16,
    width: 1.0,
    frozen: 0,
    trains: || Trains::All,
    pull: 0.0,
    rule: SGD,
    clip: None,
    precision: Precision::F32,
};

fn network(case: &Case) -> Network {
    let graph = Arch::new(case.arch, case.side, case.width).graph(10).unwrap();
    let weights = init::fresh(&graph, 0, 1, 0).unwrap();
    let mut network = Network::new(graph, &weights, &device()).unwrap();
    network.frozen = case.frozen;
    network.selected = Selected::of(&network.graph, &(case.trains)());
    network.own().unwrap();
    network
}

/// Batch `step`: four images and, where an epoch ends, two.
fn batch(case: &Case, step: usize) -> (Tensor, Vec<u32>) {
    let images = if step % 3 == 2 { 2 } else { 4 };
    let x = tensor(&uniform(images * 3 * case.side * case.side, step as u64), &[images, 3, case.side, case.side]);
    (x, (0..images).map(|image| ((3 * image + step) % 10) as u32).collect())
}

/// Of every other batch the images are mixed with one another, each time by another share.
fn mixed<'a>(labels: &'a [u32], others: &'a [u32], step: usize) -> Labels<'a> {
    Labels { own: labels, mixed: (step % 2 == 1).then_some((others, 1.0 / (1.5 + step as f64))) }
}

/// The rates of a step, of the first layers, of the others below the head, and of the head: a schedule's.
fn sizes(network: &Network, step: usize) -> Sizes {
    let rate = 0.02 / (1.0 + step as f64);
    let groups = [0.5 * rate, rate, 3.0 * rate].map(|lr| Step { lr, coupled_decay: 1e-3, decoupled_decay: 1e-2 });
    let head = head(network);
    let of_layer = (0..network.graph.layers.len()).map(|layer| usize::from(layer >= 5) + usize::from(layer >= head));
    Sizes { groups: groups.to_vec(), of_layer: of_layer.collect() }
}

/// Where the layers below the head began.
fn pull(case: &Case, network: &Network) -> Option<Pull> {
    let to = |layer: usize| if layer < head(network) { network.snapshot().unwrap()[layer].clone() } else { Vec::new() };
    let all = 0..network.graph.layers.len();
    (case.pull > 0.0).then(|| Pull { strength: case.pull, to: all.map(to).collect() })
}

const STEPS: usize = 10;
const WEIGHTS: [f64; 10] = [1.0, 2.0, 0.5, 1.0, 1.0, 3.0, 1.0, 1.0, 0.25, 1.0];
const TARGETS: Targets = Targets { smoothing: 0.1, class_weights: Some(&WEIGHTS) };

fn dropout(step: usize) -> tl_sweep::seed::Rng {
    stream(7, Stream::Dropout, &[step as u64])
}

/// Layers from this one on are the head's.
fn head(network: &Network) -> usize {
    network.graph.layers.len() - 2
}

fn everything(network: &Network, losses: &[f64]) -> Vec<u64> {
    let params = network.params.iter().flatten().flat_map(bits).map(u64::from);
    params.chain(losses.iter().map(|loss| loss.to_bits())).collect()
}

/// All parameters, statistics and losses of steps that are recorded, with evaluations between them that are, too.
fn recorded(case: &Case) -> Vec<u64> {
    let _rounding = nn::round(case.precision);
    let network = network(case);
    let pull = pull(case, &network);
    let (mut routine, mut states, mut losses) = (Routine::default(), States::new(), Vec::new());
    for step in 0..STEPS {
        let (x, labels) = batch(case, step);
        let others: Vec<u32> = labels.iter().rev().copied().collect();
        let (sizes, pull) = (&sizes(&network, step), pull.as_ref());
        let lesson = TrainStep {
            labels: mixed(&labels, &others, step),
            targets: TARGETS,
            rule: case.rule,
            sizes,
            pull,
            clip: case.clip,
        };
        losses.push(routine.step(&network, &mut states, &x, &lesson, &mut dropout(step)).unwrap());
        if step % 3 != 2 {
            // Whoever works in the same memory between two steps takes nothing from them.
            let plain = network.infer(&x).unwrap();
            let own = routine.infer(&network, &x).unwrap();
            assert_eq!(bits(&own), bits(&plain), "{}: an evaluation behind step {step}", case.arch);
            routine.infer(&network, &x.narrow(0, 0, 1).unwrap()).unwrap();
        }
    }
    assert_eq!(routine.refused(), None, "{}", case.arch);
    assert!(routine.is_recorded(), "{}", case.arch);
    let losses: Vec<f64> = losses.iter().map(|loss| loss.to_vec1().unwrap()[0]).collect();
    everything(&network, &losses)
}

/// The same, one launch at a time.
fn one_by_one(case: &Case) -> Vec<u64> {
    let _rounding = nn::round(case.precision);
    let mut network = network(case);
    let pull = pull(case, &network);
    let (mut states, mut losses) = (States::new(), Vec::new());
    for step in 0..STEPS {
        let (x, labels) = batch(case, step);
        let others: Vec<u32> = labels.iter().rev().copied().collect();
        let mut tape = network.forward(&x, Mode::Train(&mut dropout(step))).unwrap();
        let (means, gradient) =
            cross_entropies(&tape.result().unwrap(), mixed(&labels, &others, step), &[TARGETS]).unwrap();
        losses.push(means.read().unwrap()[0]);
        let (params, sizes, mut steps) = (&network.params, sizes(&network, step), Steps::default());
        let mut take = |layer: usize, gradients: Vec<Tensor>| {
            let size = sizes.of(layer);
            for (which, gradient) in network.learned(layer).into_iter().zip(gradients) {
                if let Some(pull) = &pull {
                    pull.add((layer, which), &params[layer][which], &gradient)?;
                }
                let state = states.entry((layer, which)).or_default();
                steps.step(state, case.rule, size, &params[layer][which], gradient)?;
            }
            Ok(())
        };
        network.backward_clipped(&mut tape, gradient, case.clip, &mut take).unwrap();
        steps.finish().unwrap();
        network.follow(tape);
    }
    everything(&network, &losses)
}

fn check(cases: &[Case]) {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    for case in cases {
        let (ours, theirs) = (recorded(case), one_by_one(case));
        let same = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours == theirs).count();
        assert_eq!(same, theirs.len(), "{}: {same} of {} numbers are the same", case.arch, theirs.len());
    }
}

#[test]
fn steps_of_residual_networks() {
    check(&[
        PLAIN,
        Case { rule: Rule::Adam, clip: Some(0.5), ..PLAIN },
        Case { frozen: 9, rule: Rule::Sgd { momentum: 0.9, nesterov: true }, ..PLAIN },
        Case { precision: Precision::Bf16, rule: Rule::Adam, ..PLAIN },
        Case { trains: || Trains::Norms, ..PLAIN },
        Case { trains: || Trains::Biases, pull: 0.5, clip: Some(0.5), ..PLAIN },
        Case { trains: || Trains::Only(vec!["layer2".to_owned()]), frozen: 3, pull: 0.5, ..PLAIN },
    ]);
}

#[test]
fn steps_of_networks_with_dropout_concatenation_and_padding() {
    check(&[
        Case { arch: "squeezenet1_0", side: 32, ..PLAIN },
        Case { arch: "mobilenet_v1", side: 32, width: 0.25, ..PLAIN },
        Case { arch: "mobilenet_v2", side: 32, width: 0.35, frozen: 20, precision: Precision::Bf16, ..PLAIN },
        Case { arch: "vgg_small", side: 32, ..PLAIN },
        Case { arch: "efficientnet_b0", side: 32, width: 0.125, ..PLAIN },
        Case { arch: "efficientnet_b0", side: 32, width: 0.125, frozen: 40, precision: Precision::Bf16, ..PLAIN },
    ]);
}

#[test]
fn steps_of_networks_of_tokens_and_layer_norms() {
    let rows = Case { arch: "dinov2_vits14_reg", side: 28, width: 0.17, rule: Rule::Adam, ..PLAIN };
    let maps = Case { arch: "convnext_tiny", side: 32, width: 0.0625, ..PLAIN };
    let responding = Case { arch: "convnextv2_atto", side: 32, width: 0.2, ..PLAIN };
    let windowed = Case { arch: "swin_t", side: 64, width: 0.34, ..PLAIN };
    let turned = Case { arch: "dinov3_vits16plus", side: 32, width: 0.17, ..PLAIN };
    let asked = Case { arch: "siglip_vitb32", side: 64, width: 0.0834, ..PLAIN };
    check(&[
        Case { clip: Some(0.5), ..rows },
        Case { frozen: 30, precision: Precision::Bf16, ..rows },
        Case { trains: || Trains::Biases, precision: Precision::Bf16, ..rows },
        Case { ..maps },
        Case { frozen: 30, precision: Precision::Bf16, ..maps },
        Case { ..responding },
        Case { frozen: 30, precision: Precision::Bf16, ..responding },
        Case { rule: Rule::Adam, ..windowed },
        Case { frozen: 30, precision: Precision::Bf16, ..windowed },
        Case { ..turned },
        Case { trains: || Trains::Biases, precision: Precision::Bf16, ..turned },
        Case { frozen: 30, precision: Precision::Bf16, ..asked },
    ]);
}

/// Features by recorded passes, of layers that end in images and in vectors, are those of a network that is asked each time.
#[test]
fn features_of_an_encoder() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    for (arch, width, taps) in [
        ("resnet8", 1.0, ["layer1.0.relu2", "avgpool"]),
        ("squeezenet1_0", 1.0, ["features.5.concat", "features.12.concat"]),
        ("vit_small_patch8", 0.17, ["blocks.2.add2", "token"]),
    ] {
        let case = Case { arch, side: 32, ..PLAIN };
        let graph = Arch::new(arch, 32, width).backbone(taps[1]).unwrap();
        let weights = init::fresh(&graph, 0, 1, 0).unwrap();
        let mut network = Network::new(graph, &weights, &device()).unwrap();
        network.frozen = network.graph.layers.len();
        let layers = taps.map(|tap| network.graph.find(tap).unwrap());
        let encoder = Encoder::new(network);
        for (step, parts) in (0..5).flat_map(|step| [(step, Parts::Alike), (step, Parts::Own)]) {
            let (x, _) = batch(&case, step);
            let theirs = Encoder::new(encoder.network.clone()).features(&x, &layers, parts).unwrap();
            for (ours, theirs) in encoder.features(&x, &layers, parts).unwrap().iter().zip(&theirs) {
                assert_eq!(ours.dims(), theirs.dims());
                assert_eq!(bits(ours), bits(theirs), "{arch}, batch {step}, {parts:?}");
            }
        }
        assert_eq!(encoder.warning(), None);
    }
}

/// What copies from the host, makes memory or gives it back cannot be repeated: it is refused, and what is asked behind it runs.
#[test]
fn what_cannot_be_repeated_is_refused() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let ones = tensor(&[1.0; 8], &[8]);
    let refused = cuda::recording::Recording::of(&device(), || (&ones + Tensor::new(&[1f32; 8], &device())?)?.copy());
    assert!(refused.is_err());
    assert_eq!((&ones + &ones).unwrap().to_vec1::<f32>().unwrap(), [2.0; 8]);
    let made = cuda::recording::Recording::of(&device(), || &ones + &ones);
    assert!(made.err().is_some_and(|error| error.to_string().contains("makes memory")));
    assert_eq!((&ones + &ones).unwrap().to_vec1::<f32>().unwrap(), [2.0; 8]);
    // Memory from outside cannot be given back by a graph: the recording ends, and with it the trouble.
    let outside = tensor(&[3.0; 8], &[8]);
    let refused = cuda::recording::Recording::of(&device(), move || {
        drop(outside);
        Ok(())
    });
    assert!(refused.is_err());
    assert_eq!((&ones + &ones).unwrap().to_vec1::<f32>().unwrap(), [2.0; 8]);
}

/// While a stream records, another thread opens the device and makes its handles, as the streams of a worker do: neither disturbs
/// the other.
#[test]
fn a_stream_that_begins_beside_a_recording() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let case = Case { side: 8, ..PLAIN };
    let (from, into) = (tensor(&[3.0; 8], &[8]), tensor(&[0.0; 8], &[8]));
    // What is recorded has run before.
    cuda::put(&[[&into, &into]]).unwrap();
    let (told, begun) = channel();
    let recording = std::thread::scope(|scope| {
        let case = &case;
        let other = scope.spawn(move || {
            begun.recv().unwrap();
            begin_several(case, 8);
        });
        let recording = cuda::recording::Recording::of(&device(), || {
            told.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(500));
            cuda::put(&[[&from, &into]])
        });
        other.join().expect("the stream that begins");
        recording.unwrap().0
    });
    recording.run().unwrap();
    assert_eq!(into.to_vec1::<f32>().unwrap(), [3.0; 8]);
}

/// Handles are not given back, which would disturb a recording as well: the next thread has them, and computes as the first.
#[test]
fn a_device_whose_thread_has_ended_is_the_next_one_s() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let case = Case { side: 8, ..PLAIN };
    let by_another = || {
        let seen = || (begin(&case), device().as_cuda_device().unwrap().id());
        std::thread::scope(|scope| scope.spawn(seen).join().unwrap())
    };
    let own = device().as_cuda_device().unwrap().id();
    let first = by_another();
    assert_ne!(first.1, own);
    assert_eq!(by_another(), first);
}

/// So many streams, each begun while those before are there: more than threads of other tests have left handles for.
fn begin_several(case: &Case, streams: usize) {
    begin(case);
    if streams > 1 {
        std::thread::scope(|scope| scope.spawn(|| begin_several(case, streams - 1)).join().unwrap());
    }
}

/// A stream of this thread, and what it is first asked for.
fn begin(case: &Case) -> Vec<u32> {
    let (x, _) = batch(case, 0);
    bits(&network(case).infer(&x).unwrap())
}
