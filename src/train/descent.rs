//! How parameters go from their gradients: by which rule, how far at which depth, and what pulls them back.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;

use super::course::Now;
use super::lane::Turn;
use crate::exec::Network;
use crate::nn::optim::{Rule, Sizes, State, Step, Steps, squares};
use crate::nn::pull::Pull;
use crate::phase::Phase;
use crate::recipe::{Decay, Optimizer};

/// A parameter's layer, its place in it, and its numbers after a step.
pub type Moved = (usize, usize, Tensor);

/// The rule of a phase's optimiser.
pub fn rule(phase: &Phase) -> Rule {
    match phase.optimizer {
        Optimizer::Sgd { momentum, nesterov } => Rule::Sgd { momentum, nesterov },
        Optimizer::Adamw => Rule::Adam,
        Optimizer::Lbfgs | Optimizer::Ridge | Optimizer::Lda | Optimizer::None => {
            unreachable!("a head that is solved takes no steps")
        }
    }
}

/// How far a step goes, for parameters of the head or of the backbone so many blocks below it.
pub fn step(phase: &Phase, now: &Now, below: Option<usize>) -> Step {
    let (lr, base) = match below {
        None => (now.lr, phase.lr),
        Some(blocks) => {
            let part = libm::pow(phase.layer_decay, blocks as f64);
            (now.backbone_lr * part, phase.backbone_lr * part)
        }
    };
    // What is pulled to its start is not pulled to zero.
    let decay = if below.is_some() && phase.start_decay > 0.0 { 0.0 } else { phase.weight_decay };
    let (coupled_decay, decoupled_decay) = match phase.decay {
        Decay::Coupled => (decay, 0.0),
        Decay::Decoupled => (0.0, decay),
        Decay::OverLr => (if base > 0.0 { decay / base } else { 0.0 }, 0.0),
    };
    Step { lr, coupled_decay, decoupled_decay }
}

/// Which layers step alike: the head's, and those at each distance from it. Without `layer_decay` all of a backbone do.
pub fn groups(phase: &Phase, distances: &[Option<usize>]) -> Arc<[usize]> {
    let group = |blocks: usize| if phase.layer_decay == 1.0 { 1 } else { blocks + 1 };
    distances.iter().map(|below| below.map_or(0, group)).collect()
}

/// How far the layers of these groups go; each as far as it does times its ratio, where there are any.
pub fn sizes(phase: &Phase, now: &Now, of_layer: &Arc<[usize]>, ratios: Option<&Ratios>) -> Sizes {
    if let Some(ratios) = ratios {
        let own = |(group, ratio): (&usize, &f64)| {
            let step = step(phase, now, group.checked_sub(1));
            Step { lr: step.lr * ratio, ..step }
        };
        let groups: Vec<Step> = of_layer.iter().zip(ratios.iter()).map(own).collect();
        return Sizes { of_layer: (0..groups.len()).collect(), groups };
    }
    let last = of_layer.iter().max().copied().unwrap_or(0);
    let groups = (0..=last).map(|group| step(phase, now, group.checked_sub(1))).collect();
    Sizes { groups, of_layer: of_layer.clone() }
}

/// Per layer, what its rate is times.
pub type Ratios = [f64];

/// Of each layer that trains, the norms of its gradients over batches, and of its parameters.
#[derive(Default)]
pub struct Relative {
    /// Sums over batches of the norm of the gradient over that of the parameters.
    sums: BTreeMap<usize, f64>,
}

impl Relative {
    /// Adds the gradients of a batch.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn add(&mut self, network: &Network, layer: usize, gradients: &[Tensor]) -> candle_core::Result<()> {
        let (mut of_gradient, mut of_parameters) = (0.0, 0.0);
        for (which, gradient) in network.learned(layer).into_iter().zip(gradients) {
            of_gradient += squares(gradient)?;
            of_parameters += squares(&network.params[layer][which])?;
        }
        // What is zero so far has nowhere to be far from: such a layer counts as none.
        let ratio = if of_parameters > 0.0 { (of_gradient / of_parameters).sqrt() } else { 0.0 };
        *self.sums.entry(layer).or_default() += ratio;
        Ok(())
    }

    /// Over the largest; a layer that was not measured stays where it is.
    pub fn ratios(&self, layers: usize) -> Arc<Ratios> {
        let largest = self.sums.values().copied().fold(0.0, f64::max);
        let ratio = |layer: usize| match self.sums.get(&layer) {
            Some(sum) if largest > 0.0 => sum / largest,
            _ => 0.0,
        };
        (0..layers).map(ratio).collect()
    }
}

/// How the parameters of a network go from their gradients.
pub struct Descent<'a> {
    pub rule: Rule,
    pub sizes: Sizes,
    pub pull: Option<&'a Pull>,
}

impl<'a> Descent<'a> {
    pub fn new(turn: &Turn, groups: &Arc<[usize]>, ratios: Option<&Ratios>, start: Option<&'a Pull>) -> Self {
        let pull = start.filter(|pull| pull.strength > 0.0);
        Self { rule: rule(turn.phase), sizes: sizes(turn.phase, &turn.now, groups, ratios), pull }
    }

    /// The parameters of a layer after one step.
    pub fn stepped(
        &self,
        network: &Network,
        states: &mut BTreeMap<(usize, usize), State>,
        steps: &mut Steps,
        layer: usize,
        gradients: Vec<Tensor>,
    ) -> candle_core::Result<Vec<Moved>> {
        let mut moved = Vec::new();
        for (which, gradient) in network.learned(layer).into_iter().zip(gradients) {
            let parameter = &network.params[layer][which];
            if let Some(pull) = self.pull {
                pull.add((layer, which), parameter, &gradient)?;
            }
            let state = states.entry((layer, which)).or_default();
            let stepped = steps.step(state, self.rule, self.sizes.of(layer), parameter, gradient)?;
            moved.push((layer, which, stepped));
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::exec::Mode;
    use crate::experiment::resolve::defaults;
    use crate::model::graph::{Activation, Framework, Graph, Op};
    use crate::model::init::fresh;
    use crate::nn::loss::{Targets, cross_entropy};
    use crate::seed::{Stream, stream};
    use crate::train::course::Place;
    use crate::train::lane::{Lane, Lesson};
    use crate::train::record::{History, Record};
    use crate::trains::Trains;
    use crate::value::Value;

    /// Numbers by the names of their parameters.
    type Named = BTreeMap<String, Vec<f64>>;

    const LR: f64 = 0.25;
    const LABELS: [u32; 4] = [0, 1, 2, 1];

    /// Two blocks of a convolution with biases and a batch norm, and a linear head.
    fn graph() -> Graph {
        let mut graph = Graph::new("two", Framework::Torch, [2, 6, 6]);
        for block in ["one", "two"] {
            let conv = Op::Conv {
                out: 4,
                kernel: [3, 3],
                stride: 1,
                dilation: 1,
                padding: [1; 4],
                groups: 1,
                bias: true,
                activation: Activation::Linear,
            };
            graph.then(block, format!("{block}.conv"), conv);
            let norm = Op::BatchNorm { eps: 1e-5, momentum: 0.1, unbiased: true, scale: true };
            graph.then(block, format!("{block}.norm"), norm);
            graph.then(block, format!("{block}.relu"), Op::Activation(Activation::Relu));
        }
        graph.then("head", "head.flatten", Op::Flatten);
        graph.then("head", "head.linear", Op::Linear { out: 3, activation: Activation::Linear });
        graph
    }

    fn network() -> anyhow::Result<Network> {
        let weights = fresh(&graph(), 0, 3, 0)?;
        Ok(Network::new(graph(), &weights, &Device::Cpu)?)
    }

    fn batch() -> candle_core::Result<Tensor> {
        let mut rng = stream(5, Stream::Dropout, &[]);
        let values: Vec<f32> = (0..4 * 2 * 36).map(|_| rng.normal() as f32).collect();
        Tensor::from_vec(values, (4, 2, 6, 6), &Device::Cpu)
    }

    fn phase(more: &[(&str, Value)]) -> anyhow::Result<Phase> {
        let mut layer = defaults();
        let plain =
            [("lr", Value::Float(LR)), ("momentum", Value::Float(0.0)), ("batch_norm", Value::Text("affine".into()))];
        layer.extend(plain.iter().chain(more).map(|(key, value)| ((*key).to_owned(), value.clone())));
        Phase::parse(&layer).map_err(anyhow::Error::msg)
    }

    fn floats(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
        Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
    }

    /// Parameters by name, after each of some steps.
    fn trained(phase: &Phase, steps: usize) -> anyhow::Result<Vec<Named>> {
        let history = History { trials: vec![0], place: Place::default(), record: Record::default(), latest: None };
        let mut lane = Lane::new(network()?, 0, history);
        lane.remember();
        lane.enter(phase, 0, 0)?;
        let mut after = Vec::new();
        for _ in 0..steps {
            let now = Now { lr: phase.lr, backbone_lr: phase.backbone_lr, evaluates: false, ends: false };
            let mut turn = Turn { phase, now, dropout: stream(0, Stream::Dropout, &[]) };
            lane.learn(&batch()?, &Lesson { labels: (&LABELS).into(), balanced: &[] }, &mut turn)?;
            after.push(named(&lane.network)?);
        }
        lane.leave(0.0, 1.0)?;
        Ok(after)
    }

    fn named(network: &Network) -> anyhow::Result<Named> {
        network.weights()?.0.iter().map(|(name, tensor)| Ok((name.clone(), floats(tensor)?))).collect()
    }

    /// The gradient of every parameter that there is, where the parameters are these.
    fn gradients(at: &Named) -> anyhow::Result<Named> {
        let mut network = network()?;
        network.batch_norm = crate::recipe::BatchNorm::Affine;
        for (index, own) in network.params.iter_mut().enumerate() {
            for (param, tensor) in network.graph.params(index).iter().zip(own) {
                let name = format!("{}.{}", network.graph.layers[index].name, param.name);
                let values = at[&name].iter().map(|value| *value as f32).collect();
                *tensor = Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?;
            }
        }
        let mut tape = network.forward(&batch()?, Mode::Train(&mut stream(0, Stream::Dropout, &[])))?;
        let loss = cross_entropy(&tape.result()?, &LABELS, Targets::default())?;
        let found = network.backward(&mut tape, loss.gradient)?;
        let mut all = BTreeMap::new();
        for (index, own) in found.0.iter().enumerate() {
            for (param, gradient) in network.graph.params(index).iter().zip(own) {
                all.insert(format!("{}.{}", network.graph.layers[index].name, param.name), floats(gradient)?);
            }
        }
        Ok(all)
    }

    /// Steps by the definition, in f64: `how` gives the rate of a parameter, and the pull to its start.
    fn check(phase: &Phase, how: impl Fn(&str) -> (f64, f64)) -> anyhow::Result<()> {
        let start = named(&network()?)?;
        let mut at = start.clone();
        for (step, ours) in trained(phase, 3)?.into_iter().enumerate() {
            for (name, gradient) in gradients(&at)? {
                let (rate, pull) = how(&name);
                let start = &start[&name];
                let Some(values) = at.get_mut(&name) else { anyhow::bail!("there is no {name}") };
                for ((w, g), start) in values.iter_mut().zip(gradient).zip(start) {
                    *w -= rate * (g + pull * (*w - start));
                }
            }
            for (name, expected) in &at {
                for (ours, expected) in ours[name].iter().zip(expected) {
                    assert!((ours - expected).abs() < 1e-5, "step {step}, {name}: {ours} instead of {expected}");
                }
            }
            at = ours;
        }
        Ok(())
    }

    #[test]
    fn only_what_is_chosen_moves() -> anyhow::Result<()> {
        let text = |text: &str| Value::Text(text.to_owned());
        let head = |name: &str| name.starts_with("head.");
        type Chosen = fn(&str) -> bool;
        let cases: [(Value, Chosen); 5] = [
            (text("all"), |_| true),
            (text("norms"), |name| name.contains(".norm.")),
            (text("biases"), |name| name.ends_with(".bias")),
            (text("one"), |name| name.starts_with("one.")),
            (Value::List(vec![text("two"), text("one.conv")]), |name| !name.starts_with("one.norm")),
        ];
        for (trains, chosen) in cases {
            let phase = phase(&[("trains", trains)])?;
            check(&phase, |name| (if head(name) || chosen(name) { LR } else { 0.0 }, 0.0))?;
        }
        Ok(())
    }

    /// Of each layer: the norm of its gradient over that of its parameters, over the largest (Lee et al., 2023).
    #[test]
    fn rates_follow_how_far_gradients_are_from_their_parameters() -> anyhow::Result<()> {
        let phase = phase(&[("layer_rates", Value::Text("rgn".into()))])?;
        let history = History { trials: vec![0], place: Place::default(), record: Record::default(), latest: None };
        let mut lane = Lane::new(network()?, 0, history);
        lane.enter(&phase, 0, 0)?;
        let now = Now { lr: phase.lr, backbone_lr: phase.backbone_lr, evaluates: false, ends: false };
        let mut turn = Turn { phase: &phase, now, dropout: stream(0, Stream::Dropout, &[]) };
        let lesson = || Lesson { labels: (&LABELS).into(), balanced: &[] };
        let start = named(&lane.network)?;
        let mut relative = Relative::default();
        for _ in 0..2 {
            lane.measure(&batch()?, &lesson(), &mut turn, &mut relative)?;
        }
        lane.rate(&relative);
        assert_eq!(named(&lane.network)?, start, "measuring moves nothing");
        lane.learn(&batch()?, &lesson(), &mut turn)?;
        let (after, gradients) = (named(&lane.network)?, gradients(&start)?);
        let layer = |name: &str| name.rsplit_once('.').map_or(name, |(layer, _)| layer).to_owned();
        let mut squares: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        for (name, gradient) in &gradients {
            let own = squares.entry(layer(name)).or_default();
            own[0] += gradient.iter().map(|g| g * g).sum::<f64>();
            own[1] += start[name].iter().map(|w| w * w).sum::<f64>();
        }
        let ratios: BTreeMap<&String, f64> = squares.iter().map(|(layer, [g, w])| (layer, (g / w).sqrt())).collect();
        let largest = ratios.values().copied().fold(0.0, f64::max);
        assert!(ratios.len() > 3 && ratios.values().any(|ratio| *ratio < 0.5 * largest), "{ratios:?}");
        for (name, gradient) in &gradients {
            let rate = LR * ratios[&layer(name)] / largest;
            for ((after, start), g) in after[name].iter().zip(&start[name]).zip(gradient) {
                assert!((after - (start - rate * g)).abs() < 1e-5, "{name}: {after} instead of {}", start - rate * g);
            }
        }
        Ok(())
    }

    #[test]
    fn lower_blocks_step_less_and_pulls_lead_back_to_the_start() -> anyhow::Result<()> {
        let rate = |name: &str| match &name[..3] {
            "one" => 0.1 * 0.5,
            "two" => 0.1,
            _ => LR,
        };
        let graded = phase(&[("backbone_lr", Value::Float(0.1)), ("layer_decay", Value::Float(0.5))])?;
        check(&graded, |name| (rate(name), 0.0))?;
        let pulled = phase(&[
            ("backbone_lr", Value::Float(0.1)),
            ("layer_decay", Value::Float(0.5)),
            ("start_decay", Value::Float(2.0)),
            ("weight_decay", Value::Float(0.0)),
        ])?;
        check(&pulled, |name| (rate(name), if name.starts_with("head.") { 0.0 } else { 2.0 }))
    }

    #[test]
    fn a_pull_takes_the_place_of_decay_to_zero_below_the_head() -> anyhow::Result<()> {
        let now = Now { lr: 1.0, backbone_lr: 1.0, evaluates: false, ends: false };
        let decays = |phase: &Phase| [None, Some(0)].map(|below| step(phase, &now, below).coupled_decay);
        assert_eq!(decays(&phase(&[("weight_decay", Value::Float(0.5))])?), [0.5, 0.5]);
        let pulled = phase(&[("weight_decay", Value::Float(0.5)), ("start_decay", Value::Float(0.1))])?;
        assert_eq!(decays(&pulled), [0.5, 0.0]);
        Ok(())
    }

    #[test]
    fn without_a_choice_nothing_stands_in_a_key() -> anyhow::Result<()> {
        let plain = serde_json::to_string(&phase(&[])?)?;
        assert!(
            !plain.contains("trains") && !plain.contains("layer_decay") && !plain.contains("start_decay"),
            "{plain}"
        );
        let parsed: Phase = serde_json::from_str(&plain)?;
        assert_eq!((parsed.trains, parsed.layer_decay, parsed.start_decay), (Trains::All, 1.0, 0.0));
        Ok(())
    }
}
