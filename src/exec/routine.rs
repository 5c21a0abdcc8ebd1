//! Training steps and evaluations on a GPU. What a step asks of the device is the same every time, but for numbers of the host,
//! which have a place of their own there: it is recorded once, and asked for as one from then on.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, TensorId};

use super::Network;
use super::evaluate::{AT_ONCE, Parts};
use super::forward::Mode;
use super::mask::{drawn, drops};
use crate::model::selected::Selected;
use crate::nn::cuda::letter::{Letter, Words};
use crate::nn::cuda::loss::{Told as ToldOfLoss, cross_entropies_told};
use crate::nn::cuda::recording::Recording;
use crate::nn::cuda::{copied, memory, put};
use crate::nn::loss::{Labels, Targets, whole};
use crate::nn::optim::{Rule, Sizes, State, Steps};
use crate::nn::pull::Pull;
use crate::recipe::BatchNorm;
use crate::seed::Rng;

/// Passes of a shape that run one launch at a time before one is recorded: the first chooses algorithms and makes memory, the
/// second finds all that the first has left.
const WARM: usize = 2;

/// Optimiser memories by (layer, index within the layer).
pub type States = BTreeMap<(usize, usize), State>;

/// What is learned from a batch, and how.
pub struct TrainStep<'a> {
    pub labels: Labels<'a>,
    pub targets: Targets<'a>,
    pub rule: Rule,
    pub sizes: &'a Sizes,
    /// Where layers are pulled back to, and how hard.
    pub pull: Option<&'a Pull>,
    /// The most that the norm of all gradients may be.
    pub clip: Option<f64>,
}

/// What one network is asked for again and again, while the same of it trains: steps, and evaluations between them.
#[derive(Default)]
pub struct Routine {
    /// The network's tensors, which recordings name by their places, and what of it trains.
    of: (Vec<TensorId>, usize, Option<(BatchNorm, Selected)>),
    /// By the number of images.
    steps: BTreeMap<usize, Taught>,
    evaluations: BTreeMap<usize, Pass>,
    /// By the number of images and the layers that are read.
    features: BTreeMap<(usize, Vec<usize>), Pass>,
    refused: Option<String>,
}

/// Steps of so many images.
struct Taught {
    letter: Letter,
    places: Places,
    pass: Pass,
}

/// A pass over so many images.
#[derive(Default)]
struct Pass {
    /// How often it has run one launch at a time, and whether all that it works in is kept.
    taken: usize,
    kept: bool,
    recorded: Option<Recorded>,
}

struct Recorded {
    recording: Recording,
    /// Where it reads the batch.
    x: Tensor,
    /// Where it leaves its results.
    results: Vec<Tensor>,
}

impl Pass {
    /// What `work` makes of `x`, in memory of its own, tensors of up to `most` bytes of which are kept. `work` must change nothing
    /// but what the device holds: where it cannot be recorded, it runs once more.
    fn run(
        &mut self,
        x: &Tensor,
        most: usize,
        refused: &mut Option<String>,
        mut work: impl FnMut(&Tensor) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        if self.taken >= WARM && self.kept && self.recorded.is_none() && refused.is_none() {
            let own = x.zeros_like()?;
            match Recording::of(x.device(), || work(&own)) {
                Ok((recording, results)) => self.recorded = Some(Recorded { recording, x: own, results }),
                Err(error) => *refused = Some(error.to_string()),
            }
        }
        if let Some(recorded) = &self.recorded {
            put(&[[x, &recorded.x]])?;
            recorded.recording.run()?;
            return recorded.results.iter().map(copied).collect();
        }
        let found = memory::pass(most, || work(x))?;
        self.taken += 1;
        self.kept = memory::is_kept();
        Ok(found)
    }
}

/// What of a letter is where, in words: the first, and how many.
#[derive(Default)]
struct Places {
    labels: (usize, usize),
    others: (usize, usize),
    share: (usize, usize),
    weights: (usize, usize),
    smoothing: (usize, usize),
    whole: (usize, usize),
    /// Of each group of layers.
    rates: Vec<(usize, usize)>,
    masks: BTreeMap<usize, (usize, usize)>,
}

/// What a step reads of a letter.
struct Told {
    loss: ToldOfLoss,
    rates: Vec<Tensor>,
    masks: BTreeMap<usize, Tensor>,
}

impl Routine {
    /// One that records nothing, to compare with.
    pub fn unrecorded() -> Self {
        Self { refused: Some("not recorded, as asked".to_owned()), ..Self::default() }
    }

    /// One step on `x` [n, channels, height, width], whose parameters and running statistics `network` owns. Returns the mean
    /// loss `[1]` in f64, which nobody has waited for.
    ///
    /// # Errors
    /// The shapes do not fit, a label is beyond the classes, or the device fails.
    pub fn step(
        &mut self,
        network: &Network,
        states: &mut States,
        x: &Tensor,
        how: &TrainStep,
        dropout: &mut Rng,
    ) -> Result<Tensor> {
        self.know(network);
        for place in network.trainable() {
            states.entry(place).or_default().count();
        }
        let (words, places) = words(network, states, x.dim(0)?, how, dropout)?;
        let taught = match self.steps.remove(&x.dim(0)?) {
            Some(taught) => taught,
            None => Taught { letter: Letter::new(&words, x.device())?, places, pass: Pass::default() },
        };
        let taught = self.steps.entry(x.dim(0)?).or_insert(taught);
        taught.letter.send(&words)?;
        let told = taught.told()?;
        let most = network.largest_kept(x.dim(0)?);
        let work = |x: &Tensor| Ok(vec![step(network, states, x, how, &told)?]);
        Ok(taught.pass.run(x, most, &mut self.refused, work)?.remove(0))
    }

    /// What `network` gives for `x` [n, channels, height, width], as `Network::infer`: [n, numbers].
    ///
    /// # Errors
    /// As `Network::infer`.
    pub fn infer(&mut self, network: &Network, x: &Tensor) -> Result<Tensor> {
        self.know(network);
        let pass = self.evaluations.entry(x.dim(0)?).or_default();
        let work = |x: &Tensor| Ok(vec![network.forward(x, Mode::Evaluate)?.logits()?]);
        Ok(pass.run(x, network.largest_kept(x.dim(0)?), &mut self.refused, work)?.remove(0))
    }

    /// What the layers `taps` give for `x` in parts: there the order of a product's sums may follow from the number of images.
    ///
    /// # Errors
    /// As `Network::taps`.
    pub fn features(&mut self, network: &Network, x: &Tensor, taps: &[usize], parts: Parts) -> Result<Vec<Tensor>> {
        self.know(network);
        let (known, refused) = (&mut self.features, &mut self.refused);
        in_parts(x, taps.len(), parts, |part| {
            let images = part.dim(0)?;
            let pass = known.entry((images, taps.to_vec())).or_default();
            pass.run(part, network.largest_kept(images), refused, |x| network.given(x, taps))
        })
    }

    /// Forgets what was recorded of other tensors, or where others train.
    fn know(&mut self, network: &Network) {
        let tensors = network.params.iter().flatten().map(Tensor::id).collect();
        let of = (tensors, network.frozen, Some((network.batch_norm, network.selected.clone())));
        if self.of != of {
            self.of = of;
            self.steps.clear();
            self.evaluations.clear();
            self.features.clear();
        }
    }

    /// Why passes are not recorded, where the driver has refused it.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// The same for a person.
    pub fn warning(&self) -> Option<String> {
        self.refused().map(|why| format!("the GPU is asked for one launch at a time: {why}"))
    }

    /// Whether steps were recorded, of any number of images.
    pub fn is_recorded(&self) -> bool {
        self.steps.values().any(|taught| taught.pass.recorded.is_some())
    }
}

impl Taught {
    fn told(&self) -> Result<Told> {
        let part = |(first, count): (usize, usize)| self.letter.part(first, count);
        let Places { labels, others, share, weights, smoothing, whole, rates, masks } = &self.places;
        Ok(Told {
            loss: ToldOfLoss {
                labels: part(*labels)?,
                others: part(*others)?,
                share: part(*share)?,
                weights: part(*weights)?,
                smoothing: part(*smoothing)?,
                whole: part(*whole)?,
            },
            rates: rates.iter().map(|own| part(*own)).collect::<Result<_>>()?,
            masks: masks.iter().map(|(layer, own)| Ok((*layer, part(*own)?))).collect::<Result<_>>()?,
        })
    }
}

/// What `work` makes of `x` by parts of `AT_ONCE` images; those that are to be alike are filled up with zeros.
fn in_parts(
    x: &Tensor,
    results: usize,
    how: Parts,
    mut work: impl FnMut(&Tensor) -> Result<Vec<Tensor>>,
) -> Result<Vec<Tensor>> {
    let images = x.dim(0)?;
    let mut parts = vec![Vec::new(); results];
    for start in (0..images).step_by(AT_ONCE) {
        let own = AT_ONCE.min(images - start);
        let mut part = x.narrow(0, start, own)?;
        if own < AT_ONCE && how == Parts::Alike {
            let mut shape = part.dims().to_vec();
            shape[0] = AT_ONCE - own;
            part = Tensor::cat(&[part, Tensor::zeros(shape, x.dtype(), x.device())?], 0)?;
        }
        for (parts, found) in parts.iter_mut().zip(work(&part)?) {
            parts.push(found.narrow(0, 0, own)?);
        }
    }
    parts.iter().map(|parts| Tensor::cat(parts, 0)).collect()
}

/// The host's numbers of a step.
fn words(
    network: &Network,
    states: &States,
    images: usize,
    how: &TrainStep,
    dropout: &mut Rng,
) -> Result<(Words, Places)> {
    let layers = &network.graph.layers;
    let classes: usize = layers.last().map_or(0, |layer| layer.shape.iter().product());
    how.labels.check(images, classes)?;
    let (mut words, mut places) = (Words::default(), Places::default());
    let even = vec![1.0; classes];
    let weights = how.targets.class_weights.unwrap_or(&even);
    let whole = whole(how.labels.own, &how.targets, classes)?;
    let (others, share) = how.labels.both();
    places.weights = (words.add_doubles(weights.iter().copied()), 2 * classes);
    places.smoothing = (words.add_doubles([how.targets.smoothing]), 2);
    places.whole = (words.add_doubles([whole]), 2);
    places.share = (words.add_doubles([share]), 2);
    places.labels = (words.add(how.labels.own.iter().copied()), images);
    places.others = (words.add(others.iter().copied()), images);
    if let Some(state) = states.values().next() {
        // All of them have taken the same number of steps.
        for size in &how.sizes.groups {
            places.rates.push((words.add_floats(state.rates(how.rule, *size)), 6));
        }
    }
    for index in 0..layers.len() {
        if let Some((p, count)) = drops(network, index, images) {
            places.masks.insert(index, (words.add_floats(drawn(p, count, dropout)), count));
        }
    }
    Ok((words, places))
}

/// Forward, loss, backward, optimiser, running statistics. All that it changes stays where it is.
fn step(network: &Network, states: &mut States, x: &Tensor, how: &TrainStep, told: &Told) -> Result<Tensor> {
    let mut tape = network.forward(x, Mode::Told(&told.masks))?;
    let [mean, gradient] = cross_entropies_told(&tape.logits()?, &told.loss, 1)?;
    let mut steps = Steps::default();
    network.backward_clipped(&mut tape, gradient, how.clip, &mut |layer, gradients| {
        let rates = &told.rates[how.sizes.of_layer[layer]];
        for (which, gradient) in network.learned(layer).into_iter().zip(gradients) {
            if let Some(pull) = how.pull {
                pull.add((layer, which), &network.params[layer][which], &gradient)?;
            }
            let state = states.entry((layer, which)).or_default();
            steps.step_told(state, how.rule, rates, &network.params[layer][which], gradient)?;
        }
        Ok(())
    })?;
    steps.finish()?;
    let mut moved = Vec::new();
    for (index, norm) in &tape.norms {
        let own = &network.params[*index];
        moved.push([&norm.running_mean, &own[own.len() - 2]]);
        moved.push([&norm.running_var, &own[own.len() - 1]]);
    }
    put(&moved)?;
    Ok(mean)
}
