//! How the trials of a group begin: what each reads and starts from, and who trains with whom.

use std::collections::BTreeMap;

use super::bank::Bank;
use super::course::{Course, Place};
use super::inputs::Inputs;
use super::lane::Lane;
use super::learner::Learner;
use super::record::{History, Record};
use super::{Shelf, all_params, kept, solved_start};
use crate::exec::Network;
use crate::model::graph::{Graph, Op};
use crate::model::init;
use crate::model::weights::Weights;
use crate::plan::stage::{Train, Work};

/// A trial as it starts.
struct Start {
    feed: usize,
    below: usize,
    graph: Graph,
    weights: Weights,
    /// The strength with which its head was solved.
    lambda: Option<f64>,
    /// Seconds and multiply-accumulates that this took just now.
    took: [f64; 2],
}

impl Start {
    fn new(stage: &Train, work: &Work, again: bool, inputs: &mut Inputs, shelf: &mut Shelf) -> anyhow::Result<Self> {
        let (whole, backbone_layers) = stage.network().map_err(anyhow::Error::msg)?;
        let mut weights = match shelf.weights(&stage.backbone, work)? {
            Some(weights) => (*weights).clone(),
            None => Weights::default(),
        };
        let fresh_from = if weights.0.is_empty() { 0 } else { stage.copied.unwrap_or(backbone_layers) };
        weights.0.extend(init::fresh(&whole, fresh_from, stage.seed, stage.replicate as u64)?.0);
        if let Some([weight, bias]) = shelf.named_head(stage, work)? {
            weights.0.extend(kept::head(weight, bias).0);
        }
        let (mut lambda, mut took) = (None, [0.0; 2]);
        if let Some((head, new)) = solved_start::head(stage, work, &weights, shelf)? {
            let [weight, bias] = head.params(again)?;
            weights.0.extend(kept::head(weight, bias).0);
            lambda = head.lambda;
            took = if new { [head.seconds, head.macs] } else { took };
        }
        let (feed, below) = inputs.add(stage, work, &whole, shelf)?;
        let graph = if below > 0 { whole.above(below) } else { whole };
        Ok(Self { feed, below, graph, weights, lambda, took })
    }
}

/// The trials of a group, ready to be put together.
pub struct Lineup<'a> {
    stages: &'a [&'a Train],
    courses: &'a [Course],
    starts: Vec<Start>,
}

impl<'a> Lineup<'a> {
    /// Reads what every trial starts from, where it trains `again` on validation images too.
    ///
    /// # Errors
    /// Pixels, weights or features cannot be read.
    pub fn new(
        stages: &'a [&'a Train],
        courses: &'a [Course],
        works: &[&Work],
        again: bool,
        inputs: &mut Inputs,
        shelf: &mut Shelf,
    ) -> anyhow::Result<Self> {
        // The longest prefix first: the shorter ones are parts of it.
        let mut order: Vec<usize> = (0..stages.len()).collect();
        order.sort_by_cached_key(|trial| std::cmp::Reverse(stages[*trial].shared_cut().ok().flatten()));
        let mut starts: BTreeMap<usize, Start> = BTreeMap::new();
        for trial in order {
            starts.insert(trial, Start::new(stages[trial], works[trial], again, inputs, shelf)?);
        }
        Ok(Self { stages, courses, starts: starts.into_values().collect() })
    }

    /// Seconds and multiply-accumulates that the start of each trial took just now.
    pub fn took(&self) -> impl Iterator<Item = [f64; 2]> {
        self.starts.iter().map(|start| start.took)
    }

    /// Puts trials together: linear heads in banks, others that begin alike in one lane.
    ///
    /// # Errors
    /// Weights do not fit their network.
    pub fn learners(&self, shelf: &Shelf, banks: bool) -> anyhow::Result<Vec<Learner>> {
        let starts = &self.starts;
        let mut learners = Vec::new();
        let mut open: Vec<usize> = (0..starts.len()).collect();
        while let Some(first) = open.first().copied() {
            let banked = banks && self.is_head(first, &starts[first].graph);
            let with: Vec<usize> = open.iter().copied().filter(|other| self.together(first, *other, banked)).collect();
            open.retain(|trial| !with.contains(trial));
            let Start { feed, below, graph, weights, lambda, .. } = &starts[first];
            if banked {
                let mut params = Vec::new();
                let mut histories = Vec::new();
                for trial in with {
                    let network = Network::new(starts[trial].graph.clone(), &starts[trial].weights, &shelf.device)?;
                    let [weight, bias] = &network.params[network.graph.last()][..] else {
                        anyhow::bail!("a linear head has weights and biases")
                    };
                    params.push([weight.clone(), bias.clone()]);
                    let trainable = weight.elem_count() + bias.elem_count();
                    let frozen = all_params(self.stages[trial])?.saturating_sub(trainable);
                    let mut record = Record::starting(starts[trial].lambda);
                    (record.trainable, record.frozen) = (trainable, frozen);
                    histories.push(History { trials: vec![trial], place: Place::default(), record, latest: None });
                }
                learners.push(Learner::Bank { bank: Bank::new(&params, histories)?, feed: *feed });
                continue;
            }
            let mut network = Network::new(graph.clone(), weights, &shelf.device)?;
            if *below == 0 {
                network.seam = self.stages[first].seam().map_err(anyhow::Error::msg)?;
            }
            let record = Record::starting(*lambda);
            let history = History { trials: with, place: Place::default(), record, latest: None };
            let pulled = history.trials.iter().any(|trial| pulls(self.stages[*trial]));
            let mut lane = Lane::new(network, *below, history);
            if pulled {
                lane.remember();
            }
            learners.push(Learner::Lane { lane: Box::new(lane), feed: *feed });
        }
        Ok(learners)
    }

    /// Whether all that trains is one linear layer on vectors, in one phase, without chance and without a way back.
    fn is_head(&self, trial: usize, graph: &Graph) -> bool {
        let phases = &self.stages[trial].phases;
        let plain = graph
            .layers
            .iter()
            .skip(1)
            .all(|layer| matches!(layer.op, Op::Flatten | Op::Dropout(_) | Op::Linear { .. }));
        let linear = graph.layers.iter().filter(|layer| matches!(layer.op, Op::Linear { .. })).count() == 1;
        let last = self.stages[trial].interpolate == 1.0;
        plain && linear && last && phases.len() == 1 && phases[0].dropout == 0.0 && graph.layers[0].shape[1] == 1
    }

    /// Whether two trials begin in one bank, or with one history in one lane.
    fn together(&self, one: usize, other: usize, banked: bool) -> bool {
        let (own, others) = (&self.starts[one], &self.starts[other]);
        let graphs = own.feed == others.feed && own.graph.alike(&others.graph);
        if banked {
            return graphs
                && self.is_head(other, &others.graph)
                && self.courses[one].reads_alike(&self.courses[other])
                && self.courses[one].early_stop == self.courses[other].early_stop;
        }
        let frozen = |trial: usize| self.stages[trial].frozen(self.courses[trial].phase(0)).ok();
        graphs
            && self.courses[one].agrees(&self.courses[other], Place::default())
            && frozen(one) == frozen(other)
            && self.stages[one].backbone == self.stages[other].backbone
            && self.stages[one].copied == self.stages[other].copied
            && self.stages[one].texts == self.stages[other].texts
            && self.stages[one].solved_start == self.stages[other].solved_start
    }
}

/// Whether any phase pulls the backbone back to where it started.
fn pulls(stage: &Train) -> bool {
    stage.phases.iter().any(|phase| phase.start_decay > 0.0)
}
