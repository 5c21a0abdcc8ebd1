//! Evaluations: what a network gives without training, in parts of a batch that suit the device.

#[cfg(feature = "cuda")]
use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

use super::Network;
use super::forward::{Mode, Product};
#[cfg(feature = "cuda")]
use super::routine::Routine;
use crate::model::graph::{self, Op};
use crate::nn::activation::Activation;
use crate::nn::conv::Ready;
use crate::nn::{buffer, each, pointwise};

/// Images whose features are computed together on a GPU.
pub const AT_ONCE: usize = 64;
/// How a GPU takes a batch in parts of at most `AT_ONCE` images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parts {
    /// All of one size, the last one filled up: what is computed of an image depends on nothing beside it.
    Alike,
    /// As many images as there are: for batches that are made of the same images wherever they are read.
    Own,
}

/// Bytes that the activations of a few images may take, so that they stay in a processor's last cache.
const CACHE: usize = 1 << 22;
/// Products that each weight must be worth in a part of a batch: every part reads all of them again.
const REUSE: u64 = 64;

/// A network whose features are read batch by batch; on a GPU its passes are recorded.
pub struct Encoder {
    pub network: Network,
    #[cfg(feature = "cuda")]
    routine: RefCell<Routine>,
}

impl Encoder {
    pub fn new(network: Network) -> Self {
        Self {
            network,
            #[cfg(feature = "cuda")]
            routine: RefCell::default(),
        }
    }

    /// What `Network::taps` gives, on a GPU in parts.
    ///
    /// # Errors
    /// As `Network::taps`.
    pub fn features(&self, x: &Tensor, taps: &[usize], parts: Parts) -> Result<Vec<Tensor>> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.routine.borrow_mut().features(&self.network, x, taps, parts);
        }
        let _ = parts;
        self.network.taps(x, taps)
    }

    /// What a person should know of how it runs.
    pub fn warning(&self) -> Option<String> {
        #[cfg(feature = "cuda")]
        return self.routine.borrow().warning();
        #[cfg(not(feature = "cuda"))]
        None
    }
}

impl Network {
    /// What `taps` gives, in memory of the pass.
    #[cfg(feature = "cuda")]
    pub(super) fn given(&self, x: &Tensor, taps: &[usize]) -> Result<Vec<Tensor>> {
        let tape = self.pass(x, Mode::Evaluate, &BTreeMap::new(), taps)?;
        taps.iter().map(|tap| tape.given(*tap)).collect()
    }

    /// What the network gives for `x` [n, channels, height, width], with stored statistics and no dropout: the bits that
    /// `forward` gives.
    ///
    /// # Errors
    /// As `forward`.
    pub fn infer(&self, x: &Tensor) -> Result<Tensor> {
        buffer::pass(x.device(), self.largest_kept(x.dim(0)?), || {
            let [only] = &mut self.taps(x, &[self.graph.layers.len() - 1])?[..] else {
                candle_core::bail!("one tap gives one tensor")
            };
            Ok(only.clone())
        })
    }

    /// What the layers `taps` give for `x` [n, channels, height, width] in one pass: for each the bits of a network that
    /// ends there, [n, numbers] or [n, channels, height, width]. The batch goes through in parts that stay in the cache.
    ///
    /// # Errors
    /// As `forward`; a layer that does not stand on its own (`stands_alone`).
    pub fn taps(&self, x: &Tensor, taps: &[usize]) -> Result<Vec<Tensor>> {
        let (images, ..) = x.dims4()?;
        let part = self.part();
        if part >= images || !x.device().is_cpu() {
            let tape = self.pass(x, Mode::Evaluate, &BTreeMap::new(), taps)?;
            return taps.iter().map(|tap| tape.result_of(*tap)).collect();
        }
        let ready = self.ready()?;
        let starts: Vec<usize> = (0..images).step_by(part).collect();
        let parts = each(&starts, |start| {
            let tape = self.pass(&x.narrow(0, *start, part.min(images - start))?, Mode::Evaluate, &ready, taps)?;
            taps.iter().map(|tap| tape.result_of(*tap)).collect::<Result<Vec<Tensor>>>()
        })?;
        ready.into_values().for_each(|product| product.conv.recycle());
        let whole = |tap: usize| Tensor::cat(&parts.iter().map(|part| &part[tap]).collect::<Vec<_>>(), 0);
        (0..taps.len()).map(whole).collect()
    }

    /// What `taps` gave for `layer`, as a network that stands on it reads it.
    ///
    /// # Errors
    /// It is not of that layer.
    pub fn as_images(&self, layer: usize, output: &Tensor) -> Result<Tensor> {
        let [channels, height, width] = self.graph.layers[layer].shape;
        output.reshape((output.dim(0)?, channels, height, width))
    }

    /// Whether a layer's output is there in an evaluation: not merged into what stands above it.
    pub fn stands_alone(&self, index: usize) -> bool {
        let last = index + 1 == self.graph.layers.len();
        last || (self.fused(index) == graph::Activation::Linear
            && self.folds(index, false).is_none()
            && !self.is_merged(index))
    }

    /// The convolutions of an evaluation, and what is computed as one, their weights packed once for all parts of a batch.
    fn ready(&self) -> Result<BTreeMap<usize, Product>> {
        let layers = &self.graph.layers;
        let convolves = |index: &usize| matches!(layers[*index].op, Op::Conv { .. } | Op::Pointwise { .. });
        let product = |index: usize| {
            let [channels, height, width] = layers[self.source(index)].shape;
            if let (Op::Pointwise { .. }, [w, bias @ ..]) = (&layers[index].op, &self.params[index][..]) {
                let conv = pointwise::ready([height, width, channels], w)?;
                return Ok((index, Product { conv, bias: bias.first().cloned(), activation: Activation::Linear }));
            }
            let (w, bias, activation) = self.product(index, false)?;
            let conv = Ready::new(&self.geometry(index), [height, width, channels], &w)?;
            Ok((index, Product { conv, bias, activation }))
        };
        (1..layers.len()).filter(convolves).map(product).collect()
    }

    /// Images that go through together.
    fn part(&self) -> usize {
        let graph = &self.graph;
        let numbers = |index: usize| graph.layers[index].shape.iter().product::<usize>();
        let step = |index: usize| {
            graph.layers[index].inputs.iter().map(|input| numbers(*input)).sum::<usize>() + numbers(index)
        };
        let bytes = 4 * (1..graph.layers.len()).map(step).max().unwrap_or(1);
        let weights: usize = self.params.iter().flatten().map(Tensor::elem_count).sum();
        let least = (REUSE * weights as u64).div_ceil(graph.total_macs().max(1)) as usize;
        if bytes > CACHE { usize::MAX } else { (CACHE / bytes).max(least) }
    }
}
