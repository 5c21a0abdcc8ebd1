//! Seeds: every random number of the program comes from a named stream of one of these.
//! The draws are our own short functions over ChaCha8 words, so that bits do not move with a crate's version.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a stream of random numbers is for. Streams of one seed are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Which images are carved off for validation, and which are the k per class.
    Subset,
    /// Which images are tested, where a dataset has no test split.
    Fold,
    /// The order in which a training set is read, per epoch.
    Order,
    /// Flips, crops and colours, per image and epoch.
    Augment,
    /// Which images of a batch are mixed, and how much of each.
    Mix,
    /// Starting values of parameters.
    Init,
    /// Dropout masks, per step.
    Dropout,
    /// Images and tasks of the synthetic family.
    Synthetic,
    /// Noise, clouds and angles of corrupted images.
    Corrupt,
}

/// A stream of random numbers.
pub struct Rng(ChaCha8Rng);

/// The generator of `stream` for `seed`, told apart further by `path` (a replicate, an epoch, an image).
pub fn stream(seed: u64, stream: Stream, path: &[u64]) -> Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{stream:?}").as_bytes());
    hasher.update(&seed.to_le_bytes());
    for step in path {
        hasher.update(&step.to_le_bytes());
    }
    Rng(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
}

impl Rng {
    /// Uniform in [0, 1), with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number below `bound`, by multiplying a 64-bit word (bias below 2^-40 for any set of images).
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// A standard normal number (Box and Muller, 1958; the cosine half).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(1.0 - self.unit())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }

    /// A share from Beta(alpha, alpha), alpha above 0: of two gamma numbers the first over their sum.
    pub fn beta(&mut self, alpha: f64) -> f64 {
        // As logarithms: below some hundredths of alpha, both are too small for an f64.
        let (one, other) = (self.log_gamma(alpha), self.log_gamma(alpha));
        1.0 / (1.0 + libm::exp(other - one))
    }

    /// The logarithm of a gamma number of this shape (Marsaglia and Tsang, 2000).
    fn log_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.log_gamma(shape + 1.0) + libm::log(1.0 - self.unit()) / shape;
        }
        let d = shape - 1.0 / 3.0;
        loop {
            let x = self.normal();
            let root = 1.0 + x / (9.0 * d).sqrt();
            let v = root * root * root;
            if v > 0.0 && libm::log(1.0 - self.unit()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return libm::log(d) + libm::log(v);
            }
        }
    }

    /// A number of events of which `mean` are expected, at most some hundreds (Poisson; by inversion, Devroye, 1986, X.3.3).
    pub fn poisson(&mut self, mean: f64) -> u32 {
        let drawn = self.unit();
        let mut probability = libm::exp(-mean);
        let (mut count, mut below) = (0, probability);
        while drawn >= below && probability > 0.0 {
            count += 1;
            probability *= mean / f64::from(count);
            below += probability;
        }
        count
    }

    /// Puts `items` in a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
