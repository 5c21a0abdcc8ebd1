//! The bits of all operators as one hash, which is the same on every instruction path of a numerics class, on every machine.

use candle_core::Tensor;
use tl_sweep::key::ENGINE;
use tl_sweep::nn::activation::Activation;
use tl_sweep::nn::conv::{self, Conv};
use tl_sweep::nn::discriminant::Discriminant;
use tl_sweep::nn::linear;
use tl_sweep::nn::loss::Targets;
use tl_sweep::nn::solve::{Head, Logistic, Ridge};

use super::bits::{all_gradients, images, network, networks, random};
use super::{bits, on_path};

/// Engine, class and hash. Tests run it on x86-64; on 64-bit ARM it was run under emulation (`just arm-test`) before there were
/// networks of gates and of attention among these.
const FINGERPRINTS: [(u32, &str, &str); 2] =
    [(5, "cpu-fma", "c58490b6c7132652"), (5, "cpu-portable", "caab302ef64bcf2d")];

struct Hash(blake3::Hasher);

impl Hash {
    fn add(&mut self, bits: Vec<u32>) {
        bits.iter().for_each(|word| _ = self.0.update(&word.to_le_bytes()));
    }
}

/// Sums in blocks of rows, whose length follows from the number of columns.
fn convolutions(hash: &mut Hash) {
    let plain = Conv { kernel: [3, 3], stride: 1, dilation: 1, padding: [1; 4], groups: 1 };
    let shapes = [
        (plain, 21, 24, 72),
        (plain, 15, 100, 104),
        (Conv { stride: 2, ..plain }, 33, 3, 88),
        (Conv { kernel: [1, 1], padding: [0; 4], ..plain }, 24, 72, 200),
        (Conv { kernel: [5, 5], padding: [2; 4], ..plain }, 24, 10, 136),
        (Conv { groups: 2, ..plain }, 24, 48, 152),
        (Conv { groups: 40, ..plain }, 17, 40, 40),
    ];
    for (conv, side, channels, out) in shapes {
        let x = random(&[5, side, side, channels], 1);
        let w = random(&[out, channels / conv.groups, conv.kernel[0], conv.kernel[1]], 2);
        let y = conv::forward(&conv, &x, &w, None, Activation::Relu).unwrap();
        let dy = random(y.dims(), 3);
        let shape = [5, side, side, channels];
        let [dx, dw] = conv::backward(&conv, shape, Some(&x), &w, &dy, true).unwrap().map(Option::unwrap);
        [y, dx, dw].iter().for_each(|tensor| hash.add(bits(tensor)));
    }
}

fn layers(hash: &mut Hash) {
    for (rows, depth, out) in [(13, 1100, 72), (300, 513, 104)] {
        let (x, w, b) = (random(&[rows, depth], 1), random(&[out, depth], 2), random(&[out], 3));
        let y = linear::forward(&x, &w, &b, Activation::Relu).unwrap();
        let (dx, gradients) = linear::backward(Some(&x), &w, &y, true).unwrap();
        [Some(y), dx].into_iter().flatten().chain(gradients.into_iter().flatten()).for_each(|t| hash.add(bits(&t)));
    }
}

fn solvers(hash: &mut Hash) {
    for (rows, inputs) in [(200, 33), (60, 150), (700, 300)] {
        let x = random(&[rows, inputs], 7);
        let labels: Vec<u32> = (0..rows as u32).map(|row| row * row % 5).collect();
        let ridge = Ridge::new(&x, &labels, 5, None).unwrap();
        let mut path = Logistic::new(&x, &labels, 5, Targets::default()).unwrap();
        let heads: [Head; 3] =
            [ridge.head(1e-3), ridge.head(1.0), Ok(path.solve(1e-2).unwrap().head)].map(Result::unwrap);
        heads.iter().flat_map(|head| [&head.weight, &head.bias]).for_each(|tensor: &Tensor| hash.add(bits(tensor)));
    }
}

fn discriminants(hash: &mut Hash) {
    for (rows, inputs) in [(200, 33), (60, 150)] {
        let x = random(&[rows, inputs], 7);
        let labels: Vec<u32> = (0..rows as u32).map(|row| row * row % 5).collect();
        let found = Discriminant::new(&x, &labels, 5, None).unwrap();
        for head in [found.head(1e-3), found.head(1.0)].map(Result::unwrap) {
            [&head.weight, &head.bias].into_iter().for_each(|tensor| hash.add(bits(tensor)));
        }
    }
}

#[test]
fn of_all_operators() {
    on_path();
    let mut hash = Hash(blake3::Hasher::new());
    convolutions(&mut hash);
    layers(&mut hash);
    solvers(&mut hash);
    for graph in networks() {
        let network = network(graph);
        all_gradients(&network, &images(&network, 6)).into_iter().for_each(|bits| hash.add(bits));
    }
    discriminants(&mut hash);
    let found = hash.0.finalize().to_hex()[..16].to_owned();
    let class = tl_sweep::device::CpuPath::current().numerics();
    let known = FINGERPRINTS.iter().find(|(_, known, _)| *known == class).unwrap();
    assert_eq!((ENGINE, class, found.as_str()), *known, "results have changed: raise ENGINE in src/key.rs");
}
