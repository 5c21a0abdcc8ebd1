//! How much memory a pass takes at its fullest: the walk of `forward` and `backward`, with sizes in the place of tensors.

use std::collections::BTreeMap;

use super::Network;
use super::mask::drops;
use super::meaning::geometry;
use crate::model::graph::{Activation, Op};
use crate::nn::LARGEST_KEPT;
use crate::nn::conv::tiles_bytes;

/// Bytes of a number of f32.
const F32: usize = 4;

/// Multiply-accumulates of a layer's part of a step from which on a GPU is busy for longer than asking for it takes: some 0.1 ms.
const BUSY: usize = 20_000_000_000;

/// What is there at a moment, and the most that there was.
#[derive(Default)]
struct Account {
    now: usize,
    most: usize,
    /// The largest tensor, and the largest that is kept.
    largest: usize,
    keeps: usize,
    /// Memory that is kept for the next tensor of its size: how often each size is there.
    kept: BTreeMap<usize, usize>,
}

impl Account {
    fn take(&mut self, bytes: usize) -> usize {
        match self.kept.get_mut(&bytes).filter(|count| **count > 0) {
            Some(count) => *count -= 1,
            None => self.now += bytes,
        }
        self.most = self.most.max(self.now);
        self.largest = self.largest.max(bytes);
        bytes
    }

    fn give(&mut self, bytes: usize) {
        if bytes > self.keeps {
            self.now -= bytes;
        } else if bytes > 0 {
            *self.kept.entry(bytes).or_default() += 1;
        }
    }

    /// A pass that works in kept memory alone is recorded (`routine`), and reads a copy of its batch where it always is.
    fn copy(&self, batch: usize) -> usize {
        if self.largest <= self.keeps { batch } else { 0 }
    }

    /// Tensors that are needed for a moment, all at once.
    fn pass(&mut self, tensors: &[usize]) {
        tensors.iter().for_each(|bytes| _ = self.take(*bytes));
        tensors.iter().for_each(|bytes| self.give(*bytes));
    }
}

/// How a pass stores its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// Bytes of a number of an activation.
    pub number: usize,
    /// Numbers that the optimiser remembers of each that trains.
    pub memories: usize,
    /// Bytes that are kept for convolutions to work in.
    pub workspace: usize,
    /// Bytes of patches that a convolution lays out at once, at most.
    pub patches: usize,
}

/// The walk of one pass.
struct Walk<'a> {
    network: &'a Network,
    storage: Storage,
    images: usize,
    account: Account,
    /// Bytes of each layer's output, as far as it is there.
    outputs: Vec<usize>,
    /// Of what stood before the activation of a layer, where that is kept.
    befores: Vec<usize>,
}

impl Network {
    /// Bytes of all parameters.
    fn parameters(&self) -> usize {
        F32 * self.params.iter().flatten().map(|tensor| tensor.elem_count()).sum::<usize>()
    }

    /// Bytes of the largest tensor that passes of so many images keep on a GPU. Where layers are small it is any: asking for them
    /// takes longer than they do, and a pass is recorded (`routine`) that works in kept memory alone. Where they are large it is
    /// less than what memory kept by size would waste.
    pub(super) fn largest_kept(&self, images: usize) -> usize {
        let step = 3 * images * self.graph.total_macs() as usize;
        if step / self.graph.layers.len() < BUSY { usize::MAX } else { LARGEST_KEPT }
    }

    /// The most bytes that a training step of `images` images takes on a device: parameters, optimiser, activations,
    /// gradients, and what operators work in.
    pub fn training_bytes(&self, images: usize, storage: Storage) -> usize {
        let trains: usize =
            self.trainable().iter().map(|(layer, which)| self.params[*layer][*which].elem_count()).sum();
        let mut walk = Walk::new(self, images, storage);
        let mut batch = 0;
        // The second step finds what the first one has left to be kept.
        for _ in 0..2 {
            batch = walk.forward(true);
            walk.backward();
            walk.end(batch);
        }
        let kept = F32 * trains * storage.memories + storage.workspace;
        self.parameters() + kept + walk.account.most + walk.account.copy(batch)
    }

    /// The most bytes that an evaluation of `images` images takes.
    pub fn evaluation_bytes(&self, images: usize, storage: Storage) -> usize {
        let mut walk = Walk::new(self, images, storage);
        let mut batch = 0;
        for _ in 0..2 {
            batch = walk.forward(false);
            walk.end(batch);
        }
        self.parameters() + storage.workspace + walk.account.most + walk.account.copy(batch)
    }

    /// Bytes of the most patches that a convolution of `images` images has, numbers of `number` bytes.
    pub fn patches_bytes(&self, images: usize, number: usize) -> usize {
        let storage = Storage { number, memories: 0, workspace: 0, patches: usize::MAX };
        let walk = Walk::new(self, images, storage);
        (1..self.graph.layers.len()).map(|index| walk.patches(index)).max().unwrap_or(0)
    }

    /// Bytes of the most that a convolution of `images` images works in where it is cut into tiles: in f32 on a GPU.
    pub fn tiles_bytes(&self, images: usize) -> usize {
        let of = |index: usize| match &self.graph.layers[index].op {
            op @ Op::Conv { out, .. } => {
                let [channels, height, width] = self.graph.layers[self.source(index)].shape;
                tiles_bytes(&geometry(op), (images, height, width, channels), *out)
            }
            _ => 0,
        };
        (1..self.graph.layers.len()).map(of).max().unwrap_or(0)
    }
}

impl<'a> Walk<'a> {
    fn new(network: &'a Network, images: usize, storage: Storage) -> Self {
        let outputs = vec![0; network.graph.layers.len()];
        let befores = outputs.clone();
        let account = Account { keeps: network.largest_kept(images), ..Account::default() };
        Self { network, storage, images, account, outputs, befores }
    }

    /// Bytes of a layer's output.
    fn size(&self, index: usize) -> usize {
        self.storage.number * self.images * self.network.graph.layers[index].shape.iter().product::<usize>()
    }

    /// Whether a layer's output is another one's, under its name.
    fn is_view(&self, index: usize, training: bool) -> bool {
        let network = self.network;
        let passes = match &network.graph.layers[index].op {
            Op::Input | Op::Flatten => true,
            Op::Dropout(_) | Op::DropPath(_) => !training || drops(network, index, self.images).is_none(),
            Op::Activation(activation) => *activation == Activation::Linear,
            _ => false,
        };
        passes || network.is_absorbed(index) || network.is_folded(index, training) || network.is_merged(index)
    }

    /// Bytes of a convolution's patches; pixels that are their own patches are not laid out.
    fn patches(&self, index: usize) -> usize {
        match &self.network.graph.layers[index].op {
            Op::Conv { groups: 1, kernel, stride, .. } if *kernel != [1, 1] || *stride != 1 => {
                let [channels, ..] = self.network.graph.layers[self.network.source(index)].shape;
                let [out, ..] = self.network.graph.layers[index].shape;
                (self.size(index) / out * channels * kernel[0] * kernel[1]).min(self.storage.patches)
            }
            _ => 0,
        }
    }

    /// What an operator works in: a product's weights as it reads them, and patches; what attention weighs tokens with.
    fn work(&self, index: usize, backward: bool) -> Vec<usize> {
        let weights = self.network.params[index].first().map_or(0, |tensor| tensor.elem_count());
        let of_product = match &self.network.graph.layers[index].op {
            Op::Attention { heads } => {
                let [_, height, width] = self.network.graph.layers[index].shape;
                return self.attention(index, *heads, height * width, backward);
            }
            Op::Separable { out, .. } => {
                let [channels, ..] = self.network.graph.layers[self.network.graph.layers[index].inputs[0]].shape;
                let between = self.size(index) / out * channels;
                return vec![between; if backward { 2 } else { 1 }];
            }
            Op::WindowAttention { heads, window, shift } => {
                return self.windows(index, *heads, [*window, *shift], backward);
            }
            Op::AttentionPool { heads } => return self.pooling(index, *heads, backward),
            Op::Conv { groups: 1, .. } | Op::Pointwise { .. } => [self.storage.number * weights, self.patches(index)],
            Op::Conv { .. } | Op::Linear { .. } if self.storage.number < F32 => [self.storage.number * weights, 0],
            _ => [0, 0],
        };
        of_product.into()
    }

    /// Heads apart, and numbers between every two of the tokens that see each other, of each head: f32 before the softmax, and
    /// rounded behind it.
    fn attention(&self, index: usize, heads: usize, tokens: usize, backward: bool) -> Vec<usize> {
        let [_, height, width] = self.network.graph.layers[index].shape;
        let between = self.images * heads * height * width * tokens;
        let both =
            |rounded: usize| if self.storage.number < F32 { vec![F32 * between, rounded] } else { vec![F32 * between] };
        let (own, input) = (self.size(index), self.size(self.network.graph.layers[index].inputs[0]));
        let mut work = both(self.storage.number * between);
        match backward {
            false => work.extend([input, own]),
            true => work.extend([input, own, input, self.storage.number * between]),
        }
        work
    }

    /// The same of windows, which stand one after the other, with biases for four kinds of them at most.
    fn windows(&self, index: usize, heads: usize, [window, shift]: [usize; 2], backward: bool) -> Vec<usize> {
        let tokens = window * window;
        let [_, height, width] = self.network.graph.layers[index].shape;
        let (own, input) = (self.size(index), self.size(self.network.graph.layers[index].inputs[0]));
        let kinds = if shift > 0 && (height > window || width > window) { 4 } else { 1 };
        let mut work = self.attention(index, heads, tokens, backward);
        work.extend([F32 * kinds * heads * tokens * tokens, input, own]);
        if backward {
            let table: usize = self.network.params[index].iter().map(|table| table.elem_count()).sum();
            work.extend([input, F32 * self.images * height * width / tokens * table]);
        }
        work
    }

    /// A number for every token of each head, and another one's gradient.
    fn pooling(&self, index: usize, heads: usize, backward: bool) -> Vec<usize> {
        let [_, height, width] = self.network.graph.layers[self.network.graph.layers[index].inputs[1]].shape;
        vec![F32 * self.images * heads * height * width; if backward { 2 } else { 1 }]
    }

    /// The forward pass; returns the bytes of the batch as it came.
    fn forward(&mut self, training: bool) -> usize {
        let network = self.network;
        let layers = &network.graph.layers;
        let read_again = if training { network.read_again() } else { vec![false; layers.len()] };
        let last_reader = network.last_readers();
        // The batch as it came, and with its channels last.
        let batch = self.account.take(F32 * self.size(0) / self.storage.number);
        self.outputs[0] = self.account.take(self.size(0));
        for (index, layer) in layers.iter().enumerate().skip(1) {
            let below = layer.inputs[0];
            if self.is_view(index, training) {
                // The memory goes over to the last name that is read.
                if !network.is_merged(index) && last_reader[below] == index {
                    self.outputs[index] = std::mem::take(&mut self.outputs[below]);
                }
            } else {
                self.outputs[index] = self.account.take(self.size(index));
                let work = self.work(index, false);
                self.account.pass(&work);
                if network.keeps_before(index) {
                    self.befores[index] = self.account.take(self.size(index));
                }
                if !training {
                    self.account.give(std::mem::take(&mut self.befores[index]));
                }
            }
            for input in &layer.inputs {
                let kept = read_again[*input] && !(network.recompute && network.is_cheap(*input));
                if last_reader[*input] == index && !kept {
                    self.account.give(std::mem::take(&mut self.outputs[*input]));
                }
            }
        }
        batch
    }

    /// Lets go of what a pass has left, and of the batch that it was for.
    fn end(&mut self, batch: usize) {
        self.account.give(batch);
        for output in self.outputs.iter_mut().chain(&mut self.befores) {
            self.account.give(std::mem::take(output));
        }
    }

    fn backward(&mut self) {
        let network = self.network;
        let layers = &network.graph.layers;
        let (wanted, read_again) = (network.reaches_training(), network.read_again());
        let last = layers.len() - 1;
        let mut flows = vec![0; layers.len()];
        let mut reached = vec![false; layers.len()];
        flows[last] = self.account.take(self.size(last));
        reached[last] = true;
        for index in (1..layers.len()).rev() {
            let inputs = &layers[index].inputs;
            if reached[index] && wanted[index] {
                for needed in inputs.iter().chain([&index]) {
                    if read_again[*needed]
                        && self.outputs[*needed] == 0
                        && network.recompute
                        && network.is_cheap(*needed)
                    {
                        self.outputs[*needed] = self.account.take(self.size(*needed));
                    }
                }
                self.layer(index, &mut flows, &mut reached, &wanted);
            }
            if network.is_absorbed(index) {
                self.outputs[inputs[0]] += std::mem::take(&mut self.outputs[index]);
            }
            self.account.give(std::mem::take(&mut self.befores[index]));
            self.account.give(std::mem::take(&mut self.outputs[index]));
            self.account.give(std::mem::take(&mut flows[index]));
        }
    }

    /// The gradients of one layer, from that of its output.
    fn layer(&mut self, index: usize, flows: &mut [usize], reached: &mut [bool], wanted: &[bool]) {
        let network = self.network;
        let layer = &network.graph.layers[index];
        let of = |which: usize| F32 * network.params[index][which].elem_count();
        let gradients: Vec<usize> = network.learned(index).into_iter().map(of).collect();
        let own = match &layer.op {
            Op::Conv { activation, .. } | Op::Linear { activation, .. } => *activation,
            Op::Activation(activation) if !network.is_absorbed(index) => *activation,
            Op::Add => network.fused(index),
            _ => Activation::Linear,
        };
        // The gradient before the activation takes the place of the one behind it.
        if own != Activation::Linear {
            let before = self.account.take(self.size(index));
            self.account.give(std::mem::replace(&mut flows[index], before));
        }
        let views = match layer.op {
            Op::Dropout(_) | Op::DropPath(_) => drops(network, index, self.images).is_none(),
            Op::Flatten | Op::Add | Op::Input | Op::Activation(_) | Op::Positions => true,
            _ => network.is_merged(index),
        };
        for input in &layer.inputs {
            if !wanted[*input] {
                continue;
            }
            let source = if network.is_merged(*input) { network.graph.layers[*input].inputs[0] } else { *input };
            let new = if views { 0 } else { self.size(source) };
            let taken = self.account.take(new);
            // Two gradients of one output are added into a third.
            if reached[*input] {
                let sum = self.account.take(self.size(*input));
                self.account.give(std::mem::replace(&mut flows[*input], sum));
                self.account.give(taken);
            } else {
                flows[*input] += taken;
            }
            reached[*input] = true;
        }
        let work = self.work(index, true);
        self.account.pass(&[&work[..], &gradients].concat());
        // A view of this layer's gradient lives on below it.
        if views && let Some(input) = layer.inputs.iter().find(|input| wanted[**input]) {
            flows[*input] += std::mem::take(&mut flows[index]);
        }
    }
}
