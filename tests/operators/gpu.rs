//! The same tests on the first CUDA device, in a process of their own. Only in builds that have CUDA; there a machine
//! without a device fails them.

use std::process::Command;
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};
use tl_sweep::device::Precision;
use tl_sweep::exec::routine::{Routine, States, TrainStep};
use tl_sweep::exec::{Encoder, Network, Parts, Storage};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::init;
use tl_sweep::nn::activation::Activation;
use tl_sweep::nn::conv::{self, Conv};
use tl_sweep::nn::linear::{heads_backward, heads_forward};
use tl_sweep::nn::loss::{Targets, cross_entropies};
use tl_sweep::nn::optim::{Rule, Sizes, Step};
use tl_sweep::nn::{self, cuda};
use tl_sweep::seed::{Stream, stream};

use super::{bits, floats, tensor, uniform};

/// Set where the tests are to run on the GPU.
pub const ASKED: &str = "TL_SWEEP_TEST_GPU";

thread_local! {
    // A device belongs to the stream of its thread.
    static DEVICE: OnceLock<Device> = const { OnceLock::new() };
}

pub fn device() -> Device {
    DEVICE.with(|device| device.get_or_init(|| cuda::device::open(0).expect("a CUDA device")).clone())
}

/// Set where nothing else runs on the GPU.
const ALONE: &str = "TL_SWEEP_TEST_ALONE";

/// Runs some tests in a process of their own, and returns what it says.
fn run(tests: &[&str], variables: &[&str]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(tests)
        .envs(variables.iter().map(|name| (name, "1")))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn operators_and_steps_hold_on_the_gpu() {
    if std::env::var_os(ASKED).is_none() {
        let said = run(
            &["operators::fast", "operators::torch", "operators::steps", "operators::solve", "operators::transformers"],
            &[ASKED],
        );
        assert!(said.contains("test operators::steps::twenty_steps_of_resnet20 ... ok"), "{said}");
    }
}

#[test]
fn precisions_repeats_and_memory_hold_on_the_gpu() {
    if std::env::var_os(ASKED).is_none() {
        let said = run(&["operators::gpu", "operators::recorded", "--test-threads", "1"], &[ASKED, ALONE]);
        assert!(said.contains("16 passed"), "{said}");
    }
}

/// Steps of whole and half-frozen networks, with and without recomputing, in f32 and bf16: within 15%.
#[test]
fn a_step_takes_the_memory_that_was_predicted() {
    if std::env::var_os(ALONE).is_none() {
        return;
    }
    let device = device();
    for (name, side, batch) in [
        ("resnet20", 32, 16),
        ("mobilenet_v1", 64, 8),
        ("vgg_small", 32, 8),
        ("efficientnet_b0", 64, 8),
        ("convnext_tiny", 64, 8),
        ("swin_t", 64, 8),
        ("vit_small_patch8", 64, 8),
        ("dinov3_vits16plus", 128, 8),
        ("siglip_vitb16", 128, 8),
    ] {
        for (half, recompute, precision) in [
            (false, false, Precision::F32),
            (true, false, Precision::F32),
            (false, true, Precision::F32),
            (false, false, Precision::Bf16),
        ] {
            let _rounding = nn::round(precision);
            nn::give_back(&device);
            let graph = Arch::new(name, side, 0.5).graph(10).unwrap();
            let weights = init::fresh(&graph, 0, 1, 0).unwrap();
            let mut network = Network::new(graph, &weights, &device).unwrap();
            network.frozen = if half { network.graph.layers.len() / 2 } else { 0 };
            network.recompute = recompute;
            let number = if precision == Precision::Bf16 { 2 } else { 4 };
            let mut trained = Trained::new(network);
            let x = Tensor::ones((batch, 3, side, side), DType::F32, &device).unwrap();
            trained.step(&x);
            cuda::device::peak(&device).unwrap();
            (0..4).for_each(|_| trained.step(&x));
            // What products work in is more than these small networks take.
            let seen = (cuda::device::peak(&device).unwrap() - nn::PRODUCT_SPACE as u64) as f64;
            let (workspace, patches) = cuda::device::workspace();
            let storage = Storage { number, memories: 1, workspace, patches };
            let predicted = (trained.network.training_bytes(batch, storage) - nn::PRODUCT_SPACE) as f64;
            println!(
                "{name}, half frozen {half}, recompute {recompute}, {precision:?}: {predicted:.3e} for {seen:.3e}, {:.2}",
                predicted / seen
            );
            assert!((predicted / seen - 1.0).abs() < 0.15, "{name}: {predicted} bytes predicted, {seen} seen");
        }
    }
}

/// A network in training.
struct Trained {
    network: Network,
    routine: Routine,
    states: States,
}

impl Trained {
    fn new(mut network: Network) -> Self {
        network.own().unwrap();
        Self { network, routine: Routine::default(), states: States::new() }
    }

    fn step(&mut self, x: &Tensor) {
        let labels = vec![1; x.dim(0).unwrap()];
        let plain = Step { lr: 0.01, coupled_decay: 0.0, decoupled_decay: 0.0 };
        let rule = Rule::Sgd { momentum: 0.9, nesterov: false };
        let sizes = &Sizes::alike(plain, self.network.graph.layers.len());
        let lesson =
            TrainStep { labels: (&labels).into(), targets: Targets::default(), rule, sizes, pull: None, clip: None };
        let mut rng = stream(1, Stream::Dropout, &[]);
        self.routine.step(&self.network, &mut self.states, x, &lesson, &mut rng).unwrap();
    }
}

/// Steps that round products: the losses of the first steps are those of f32 to 2e-3 with TF32 and to 5e-2 with bf16, and
/// they are not the same numbers.
#[test]
fn reduced_precisions_stay_near_f32() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let device = device();
    let losses = |precision: Precision| -> Vec<f64> {
        let _rounding = nn::round(precision);
        let graph = Arch::new("resnet8", 16, 1.0).graph(10).unwrap();
        let weights = init::fresh(&graph, 0, 1, 0).unwrap();
        let mut trained = Trained::new(Network::new(graph, &weights, &device).unwrap());
        let x = tensor(&uniform(8 * 3 * 16 * 16, 4), &[8, 3, 16, 16]);
        (0..5)
            .map(|_| {
                let logits = trained.network.infer(&x).unwrap();
                let (means, _) = cross_entropies(&logits, &[1, 2, 3, 4, 5, 6, 7, 8], &[Targets::default()]).unwrap();
                trained.step(&x);
                means.read().unwrap()[0]
            })
            .collect()
    };
    let [exact, tf32, bf16] = Precision::ALL.map(losses);
    for (other, tolerance) in [(tf32, 2e-3), (bf16, 5e-2)] {
        assert_ne!(other, exact);
        for (step, (other, exact)) in other.iter().zip(&exact).enumerate() {
            assert!((other - exact).abs() < tolerance * exact.max(1.0), "step {step}: {other} for {exact}");
        }
    }
}

/// Convolutions that are large enough to be cut into tiles, beside the CPU's: tiles that fit and that do not, uneven padding,
/// images in several lots, gradients in several parts. F(4x4, 3x3) of f32 is within 2e-5 of the largest number.
#[test]
fn large_convolutions_in_tiles() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let mut most = 0;
    for (dims, out, padding) in [
        ([4, 32, 32, 64], 512, [1; 4]),
        ([3, 30, 29, 96], 512, [0, 1, 2, 1]),
        ([5, 128, 128, 32], 64, [0; 4]),
        ([40, 7, 7, 260], 260, [1, 1, 0, 2]),
    ] {
        let conv = Conv { kernel: [3, 3], stride: 1, dilation: 1, padding, groups: 1 };
        let [images, height, width, channels] = dims;
        let bytes = conv::tiles_bytes(&conv, (images, height, width, channels), out);
        assert!(bytes > 0, "{dims:?}");
        most = bytes.max(most);
        let of = |shape: &[usize], seed| tensor(&uniform(shape.iter().product(), seed), shape);
        let (x, w) = (of(&dims, 1), of(&[out, channels, 3, 3], 2));
        let y = conv::forward(&conv, &x, &w, None, Activation::Linear).unwrap();
        let dy = of(y.dims(), 3);
        let [dx, dw] = conv::backward(&conv, dims, Some(&x), &w, &dy, true).unwrap();
        let [x, w, dy] = [x, w, dy].map(|tensor| tensor.to_device(&Device::Cpu).unwrap());
        let expected = conv::forward(&conv, &x, &w, None, Activation::Linear).unwrap();
        let [expected_dx, expected_dw] = conv::backward(&conv, dims, Some(&x), &w, &dy, true).unwrap();
        for (name, found, expected) in
            [("y", y, expected), ("dx", dx.unwrap(), expected_dx.unwrap()), ("dw", dw.unwrap(), expected_dw.unwrap())]
        {
            let expected = floats(&expected);
            let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
            let pairs = floats(&found);
            let error = pairs.iter().zip(&expected).fold(0f32, |most, (one, other)| most.max((one - other).abs()));
            println!("{name} of {dims:?} to {out}: {:.1e} of {largest}", error / largest);
            assert_eq!(pairs.len(), expected.len());
            assert!(error <= 2e-5 * largest, "{name} of {dims:?} to {out}: {error} of {largest}");
        }
        let seen = (cuda::device::workspace().0 - nn::PRODUCT_SPACE) as f64;
        assert!((most as f64 / seen - 1.0).abs() < 0.15, "{most} bytes predicted, {seen} taken");
    }
}

/// Heads among others have the bits that they have alone, and those are near the sums' own.
#[test]
fn heads_have_the_bits_that_they_have_alone() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let (images, inputs, out, heads) = (70, 131, 10, 37);
    let (x, w) = (uniform(images * inputs, 1), uniform(heads * out * inputs, 2));
    let (bias, dy) = (uniform(heads * out, 3), uniform(images * heads * out, 4));
    let tx = tensor(&x, &[images, inputs]);
    let run = |first: usize, count: usize| {
        let rows = first * out..(first + count) * out;
        let own_w = tensor(&w[rows.start * inputs..rows.end * inputs], &[count * out, inputs]);
        let own_dy: Vec<f64> = dy.chunks(heads * out).flat_map(|dy| dy[rows.clone()].to_vec()).collect();
        let y = heads_forward(&tx, &own_w, &tensor(&bias[rows.clone()], &[count * out])).unwrap();
        let [dw, db] = heads_backward(&tx, &tensor(&own_dy, &[images, count * out]), count).unwrap();
        (y, dw, db)
    };
    let (all_y, all_dw, all_db) = run(0, heads);
    for head in [0, 17, 36] {
        let (y, dw, db) = run(head, 1);
        assert_eq!(bits(&all_y.narrow(1, head * out, out).unwrap().contiguous().unwrap()), bits(&y), "head {head}");
        assert_eq!(bits(&all_dw.narrow(0, head * out, out).unwrap()), bits(&dw), "head {head}");
        assert_eq!(bits(&all_db.narrow(0, head * out, out).unwrap()), bits(&db), "head {head}");
    }
    let y = all_y.to_vec2::<f32>().unwrap();
    let dw = all_dw.to_vec2::<f32>().unwrap();
    for (image, output, input) in [(0, 0, 0), (69, 369, 130), (33, 64, 64)] {
        let product = |k: usize| x[image * inputs + k] * w[output * inputs + k];
        let expected = bias[output] + (0..inputs).map(product).sum::<f64>();
        assert!((f64::from(y[image][output]) - expected).abs() < 1e-4, "{} for {expected}", y[image][output]);
        let product = |n: usize| dy[n * heads * out + output] * x[n * inputs + input];
        let expected: f64 = (0..images).map(product).sum();
        assert!((f64::from(dw[output][input]) - expected).abs() < 1e-4, "{} for {expected}", dw[output][input]);
    }
}

/// What a frozen network gives for an image does not depend on how many images stand beside it.
#[test]
fn features_do_not_depend_on_the_batch() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let graph = Arch::new("resnet8", 16, 1.0).graph(10).unwrap();
    let weights = init::fresh(&graph, 0, 1, 0).unwrap();
    let mut network = Network::new(graph, &weights, &device()).unwrap();
    network.frozen = network.graph.layers.len();
    let (images, last) = (70, network.graph.last());
    let x = tensor(&uniform(images * 3 * 16 * 16, 4), &[images, 3, 16, 16]);
    let encoder = Encoder::new(network);
    let features = |x: &Tensor| encoder.features(x, &[last], Parts::Alike).unwrap().remove(0);
    let all = features(&x);
    for (first, count) in [(0, 16), (64, 6), (5, 1)] {
        let own = features(&x.narrow(0, first, count).unwrap());
        assert_eq!(bits(&own), bits(&all.narrow(0, first, count).unwrap()), "{count} images from {first}");
    }
}

#[test]
fn rows_come_to_the_device_as_they_lie_on_the_host() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let (size, all): (usize, Vec<f32>) = (33, (0..100 * 33).map(|number| number as f32).collect());
    let resident = Tensor::from_slice(&all, (100, size), &device()).unwrap();
    // More batches than there are buffers, of two sizes, none of them waited for.
    let batches: Vec<Vec<u32>> = (0..9u32)
        .map(|batch| (0..if batch % 3 == 2 { 5 } else { 16 }).map(|at| (batch * 31 + at * 7) % 100).collect())
        .collect();
    let sent: Vec<[Tensor; 2]> = batches
        .iter()
        .map(|batch| {
            let numbers = batch.iter().flat_map(|row| &all[*row as usize * size..][..size]);
            let fill = |into: &mut [f32]| into.iter_mut().zip(numbers).for_each(|(into, from)| *into = *from);
            let sent = cuda::pixels::numbers(&device(), batch.len() * size, fill).unwrap();
            [sent, cuda::pixels::rows(&resident, batch).unwrap()]
        })
        .collect();
    for (batch, both) in batches.iter().zip(sent) {
        let expected: Vec<f32> = batch.iter().flat_map(|row| all[*row as usize * size..][..size].to_vec()).collect();
        for sent in both {
            assert_eq!(sent.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
        }
    }
    assert!(cuda::pixels::rows(&resident, &[100]).is_err());
}

/// The same steps twice give the same bits.
#[test]
fn steps_repeat_bit_for_bit() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let device = device();
    let trained = || {
        let graph = Arch::new("mobilenet_v1", 32, 0.25).graph(10).unwrap();
        let weights = init::fresh(&graph, 0, 1, 0).unwrap();
        let mut trained = Trained::new(Network::new(graph, &weights, &device).unwrap());
        let x = tensor(&uniform(8 * 3 * 32 * 32, 4), &[8, 3, 32, 32]);
        (0..5).for_each(|_| trained.step(&x));
        trained.network.params.iter().flatten().flat_map(bits).collect::<Vec<u32>>()
    };
    assert_eq!(trained(), trained());
}
