//! One network in training, for all the trials that have the same history so far.

#[cfg(feature = "cuda")]
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;

use super::course::{Course, Now, targets};
use super::descent::{Descent, Moved, Ratios, Relative, groups};
use super::mean::Mean;
use super::record::History;
#[cfg(feature = "cuda")]
use crate::exec::routine::{Routine, TrainStep};
use crate::exec::{Ahead, Mode, Network, OfLayers, Pending, Tape};
use crate::model::graph::Op;
use crate::model::selected::{Selected, distances};
use crate::nn::buffer;
use crate::nn::loss::{Labels, Means, cross_entropies};
use crate::nn::optim::{State, Steps, all_finite};
use crate::nn::pull::Pull;
use crate::outcome::Ending;
use crate::phase::Phase;
use crate::seed::Rng;

/// What all networks learn from a batch.
pub struct Lesson<'a> {
    pub labels: Labels<'a>,
    /// What each class counts, where classes are balanced.
    pub balanced: &'a [f64],
}

/// How a lane learns at its place.
pub struct Turn<'a> {
    pub phase: &'a Phase,
    pub now: Now,
    pub dropout: Rng,
}

pub struct Lane {
    pub network: Network,
    pub history: History,
    /// Layers of the whole network at or below this one's input.
    pub below: usize,
    /// Per layer, those that step alike.
    groups: Arc<[usize]>,
    /// Per layer, what its rate is times, measured in this epoch.
    ratios: Option<Arc<Ratios>>,
    /// Where the backbone started, and how hard it is pulled back to that in this leg.
    start: Option<Pull>,
    states: BTreeMap<(usize, usize), State>,
    best: Option<(f64, Vec<Vec<Tensor>>)>,
    /// What it was when this leg began, where its end is to lie between that and what was trained.
    began: Option<Vec<Vec<Tensor>>>,
    /// Means of what it is at the end of this leg, each over another share of that.
    means: Vec<(f64, Mean)>,
    /// Losses of steps that the device has not told yet.
    owed: Vec<Means>,
    /// Multiply-accumulates for an image of this leg: of a forward pass, and of a step.
    pub macs: [f64; 2],
    /// What is held fixed in this leg, hashed at its beginning.
    fixed: Option<blake3::Hash>,
    #[cfg(feature = "cuda")]
    routine: RefCell<Routine>,
}

impl Lane {
    /// One at the beginning of its course. A network that any of its phases pulls back to its start must `remember` that.
    pub fn new(network: Network, below: usize, history: History) -> Self {
        Self {
            network,
            history,
            below,
            groups: Arc::new([]),
            ratios: None,
            start: None,
            states: BTreeMap::new(),
            best: None,
            began: None,
            means: Vec::new(),
            owed: Vec::new(),
            macs: [0.0; 2],
            fixed: None,
            #[cfg(feature = "cuda")]
            routine: RefCell::default(),
        }
    }

    /// Keeps the backbone as it is now, to be pulled back to it.
    pub fn remember(&mut self) {
        let layers = distances(&self.network.graph).into_iter().zip(&self.network.params);
        let to = layers.map(|(below, own)| if below.is_some() { own.clone() } else { Vec::new() }).collect();
        self.start = Some(Pull { strength: 0.0, to });
    }

    /// Begins a leg: freezes the first `frozen` layers of the whole network, `all` numbers of which there are in it.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn enter(&mut self, phase: &Phase, frozen: usize, all: usize) -> anyhow::Result<()> {
        let network = &mut self.network;
        network.frozen = frozen.saturating_sub(self.below);
        network.batch_norm = phase.batch_norm;
        network.selected = Selected::of(&network.graph, &phase.trains);
        self.groups = groups(phase, &distances(&network.graph));
        if let Some(start) = &mut self.start {
            start.strength = phase.start_decay;
        }
        for layer in &mut network.graph.layers {
            if layer.name == "head.dropout" {
                layer.op = Op::Dropout(phase.dropout);
            }
        }
        network.own()?;
        self.macs = network.macs();
        self.fixed = Some(network.frozen_hash()?);
        self.states.clear();
        self.best = None;
        self.began = None;
        self.means.clear();
        self.ratios = None;
        #[cfg(feature = "cuda")]
        {
            self.routine = RefCell::default();
        }
        let trains = network.trainable().iter().map(|(layer, which)| network.params[*layer][*which].elem_count()).sum();
        let record = &mut self.history.record;
        record.trainable = record.trainable.max(trains);
        record.frozen = record.frozen.min(all.saturating_sub(trains));
        Ok(())
    }

    /// Another lane with the same past, for some of the trials.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn fork(&mut self, trials: Vec<usize>) -> anyhow::Result<Self> {
        self.settle()?;
        self.history.trials.retain(|trial| !trials.contains(trial));
        let mut network = self.network.clone();
        network.own()?;
        Ok(Self {
            network,
            history: History { trials, ..self.history.clone() },
            below: self.below,
            groups: self.groups.clone(),
            ratios: self.ratios.clone(),
            start: self.start.clone(),
            states: self
                .states
                .iter()
                .map(|(place, state)| Ok((*place, state.own()?)))
                .collect::<candle_core::Result<_>>()?,
            best: self.best.clone(),
            began: self.began.clone(),
            means: self.means.clone(),
            owed: Vec::new(),
            macs: self.macs,
            fixed: self.fixed,
            #[cfg(feature = "cuda")]
            routine: RefCell::default(),
        })
    }

    /// One step: forward, loss, backward, optimiser.
    ///
    /// # Errors
    /// The shapes do not fit, or a label is beyond the classes.
    pub fn learn(&mut self, x: &Tensor, lesson: &Lesson, turn: &mut Turn) -> anyhow::Result<()> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.learn_on_gpu(x, lesson, turn);
        }
        let tape = self.network.forward(x, Mode::Train(&mut turn.dropout))?;
        self.descend(tape, lesson, turn).map(drop)
    }

    /// What the network gives for `x`, without training.
    ///
    /// # Errors
    /// As `Network::infer`.
    pub fn infer(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.routine.borrow_mut().infer(&self.network, x);
        }
        self.network.infer(x)
    }

    #[cfg(feature = "cuda")]
    fn learn_on_gpu(&mut self, x: &Tensor, lesson: &Lesson, turn: &mut Turn) -> anyhow::Result<()> {
        let how = Descent::new(turn, &self.groups, self.ratios.as_deref(), self.start.as_ref());
        let lesson = TrainStep {
            labels: lesson.labels,
            targets: targets(turn.phase, lesson.balanced),
            rule: how.rule,
            sizes: &how.sizes,
            pull: how.pull,
            clip: turn.phase.clip,
        };
        let mean = self.routine.get_mut().step(&self.network, &mut self.states, x, &lesson, &mut turn.dropout)?;
        // Waiting for the device at every step would cost more than steps behind a loss that is not finite.
        self.owed.push(Means::Owed(mean));
        Ok(())
    }

    /// What a person should know of how it runs.
    pub fn warning(&self) -> Option<String> {
        #[cfg(feature = "cuda")]
        return self.routine.borrow().warning();
        #[cfg(not(feature = "cuda"))]
        None
    }

    /// The same from layers that stand ready. Returns what is left for their gradients, unless the loss is infinite.
    ///
    /// # Errors
    /// As `learn`.
    pub fn learn_from(&mut self, ahead: &Ahead, lesson: &Lesson, turn: &mut Turn) -> anyhow::Result<Option<Pending>> {
        let tape = self.network.forward_from(ahead, Mode::Train(&mut turn.dropout))?;
        self.descend(tape, lesson, turn)
    }

    fn descend(&mut self, mut tape: Tape, lesson: &Lesson, turn: &Turn) -> anyhow::Result<Option<Pending>> {
        let targets = targets(turn.phase, lesson.balanced);
        let (means, gradient) = cross_entropies(&tape.result()?, lesson.labels, &[targets])?;
        match means {
            Means::Known(means) => {
                self.history.record.step(means[0]);
                if !means[0].is_finite() {
                    return Ok(None);
                }
            }
            // Waiting for the device at every step would cost more than steps behind a loss that is not finite.
            owed => self.owed.push(owed),
        }
        self.backward(&mut tape, gradient, turn)?;
        let pending = std::mem::take(&mut tape.pending);
        self.network.follow(tape);
        Ok(Some(pending))
    }

    /// Adds to `relative` how far the gradients of a batch are from their parameters; nothing moves.
    ///
    /// # Errors
    /// As `learn`.
    pub fn measure(&self, x: &Tensor, lesson: &Lesson, turn: &mut Turn, relative: &mut Relative) -> anyhow::Result<()> {
        let network = &self.network;
        let mut tape = network.forward(x, Mode::Train(&mut turn.dropout))?;
        let targets = targets(turn.phase, lesson.balanced);
        let (_, gradient) = cross_entropies(&tape.result()?, lesson.labels, &[targets])?;
        let mut add = |layer: usize, gradients: Vec<Tensor>| relative.add(network, layer, &gradients);
        network.backward_into(&mut tape, gradient, &mut add)?;
        Ok(())
    }

    /// What was measured is what the rates of layers are times, until it is measured again.
    pub fn rate(&mut self, relative: &Relative) {
        self.ratios = Some(relative.ratios(self.network.graph.layers.len()));
    }

    /// Notes the losses that the device still owes, up to the first that is not finite.
    ///
    /// # Errors
    /// The device has failed.
    pub fn settle(&mut self) -> candle_core::Result<()> {
        for means in read_all(&mut self.owed)? {
            if self.history.record.ending != Ending::Diverged {
                self.history.record.step(means[0]);
            }
        }
        Ok(())
    }

    /// One optimiser step with gradients that were computed elsewhere.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn follow(&mut self, gradients: OfLayers, turn: &Turn) -> candle_core::Result<()> {
        let how = Descent::new(turn, &self.groups, self.ratios.as_deref(), self.start.as_ref());
        let (mut steps, mut moved) = (Steps::default(), Vec::new());
        for (layer, own) in gradients {
            moved.extend(how.stepped(&self.network, &mut self.states, &mut steps, layer, own)?);
        }
        steps.finish()?;
        self.move_to(moved);
        Ok(())
    }

    /// The backward pass and one optimiser step on every parameter that trains. A layer steps as soon as its gradients
    /// are there, so that they never all take memory at once.
    fn backward(&mut self, tape: &mut Tape, dy: Tensor, turn: &Turn) -> candle_core::Result<()> {
        let how = Descent::new(turn, &self.groups, self.ratios.as_deref(), self.start.as_ref());
        let (network, states) = (&self.network, &mut self.states);
        let (mut steps, mut moved) = (Steps::default(), Vec::new());
        let mut learn = |layer: usize, gradients: Vec<Tensor>| {
            moved.extend(how.stepped(network, states, &mut steps, layer, gradients)?);
            Ok(())
        };
        network.backward_clipped(tape, dy, turn.phase.clip, &mut learn)?;
        steps.finish()?;
        self.move_to(moved);
        Ok(())
    }

    fn move_to(&mut self, moved: Vec<Moved>) {
        for (layer, which, stepped) in moved {
            self.network.params[layer][which] = stepped;
        }
    }

    /// Keeps the weights as they are now, if `score` is the best so far; whether it is.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn keep_best(&mut self, score: f64) -> candle_core::Result<bool> {
        let better = self.best.as_ref().is_none_or(|(best, _)| score > *best);
        if better {
            self.best = Some((score, self.network.snapshot()?));
        }
        Ok(better)
    }

    /// Keeps what the network is at the beginning of a leg, for its end to lie between.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn begin(&mut self) -> candle_core::Result<()> {
        self.began = Some(self.network.snapshot()?);
        Ok(())
    }

    /// Takes what the network is now into the mean over a share of the leg.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn average(&mut self, share: f64) -> candle_core::Result<()> {
        let known = self.means.iter().position(|(known, _)| *known == share);
        let place = known.unwrap_or_else(|| {
            self.means.push((share, Mean::default()));
            self.means.len() - 1
        });
        self.means[place].1.add(&self.network.moving())
    }

    /// Ends a leg: takes the best weights, if they were kept, or the mean over the last `average` of it, goes back to a share of
    /// the way from where the leg began, and checks what must hold. A mean, and what is below a whole share, was scored nowhere
    /// yet.
    ///
    /// # Errors
    /// What was frozen has moved, or nothing was kept of the beginning or the end: a bug.
    pub fn leave(&mut self, average: f64, share: f64) -> anyhow::Result<()> {
        if let Some((_, params)) = self.best.take() {
            self.network.params = params;
        }
        let mean = std::mem::take(&mut self.means).into_iter().find(|(known, _)| *known == average);
        if average > 0.0 {
            let (_, mean) = mean.ok_or_else(|| anyhow::anyhow!("nothing was averaged at the end of the phase"))?;
            self.network.set_moving(mean.tensors());
            self.history.latest = None;
        }
        let began = self.began.take();
        if share < 1.0 {
            let began = began.ok_or_else(|| anyhow::anyhow!("nothing was kept of where the phase began"))?;
            self.network.interpolate(&began, share)?;
            self.history.latest = None;
        }
        let fixed = self.network.frozen_hash()?;
        anyhow::ensure!(self.fixed == Some(fixed), "frozen weights moved during training");
        if !all_finite(&self.network.params.iter().flatten().collect::<Vec<_>>())? {
            self.history.record.ending = Ending::Diverged;
        }
        Ok(())
    }

    /// Divides the logits by a temperature, by what the last layer holds.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn cool(&mut self, temperature: f64) -> candle_core::Result<()> {
        let last = self.network.graph.last();
        for param in &mut self.network.params[last] {
            *param = param.affine(1.0 / temperature, 0.0)?;
        }
        self.history.cooled(temperature);
        Ok(())
    }

    /// The course of its trials, which agree so far.
    pub fn course_of<'a>(&self, courses: &'a [Course]) -> &'a Course {
        &courses[self.history.trials[0]]
    }
}

/// The mean losses that are owed, of every step, in one read.
///
/// # Errors
/// The device has failed.
pub fn read_all(owed: &mut Vec<Means>) -> candle_core::Result<Vec<Vec<f64>>> {
    let (mut known, mut tensors) = (Vec::new(), Vec::new());
    for means in owed.drain(..) {
        match means {
            Means::Known(means) => known.push(means),
            Means::Owed(tensor) => tensors.push(tensor),
        }
    }
    if !tensors.is_empty() {
        known.extend(Tensor::stack(&tensors, 0)?.to_vec2::<f64>()?);
        buffer::recycle_batch(tensors);
    }
    Ok(known)
}
