//! Batches that leave a batch norm in training one value per channel, which has no variance: found before anything runs.

use std::collections::HashSet;

use super::chain::Chain;
use super::cost;
use super::facts::{Counts, DatasetFact, Facts};
use super::{Cell, Plan};
use crate::experiment::Experiment;
use crate::experiment::problem::Problem;
use crate::model::graph::{Graph, Op};
use crate::model::selected::Selected;
use crate::phase::Phase;
use crate::recipe::BatchNorm;
use crate::value::Value;

/// Each such batch of a plan, once.
pub fn found(plan: &Plan, experiment: &Experiment, facts: &Facts) -> Vec<Problem> {
    let mut seen = HashSet::new();
    let distinct = plan.cells.iter().filter(|cell| seen.insert(cell.shape()));
    let mut problems: Vec<Problem> = distinct.filter_map(|cell| of_cell(plan, cell, experiment, facts)).collect();
    problems.dedup();
    problems
}

fn of_cell(plan: &Plan, cell: &Cell, experiment: &Experiment, facts: &Facts) -> Option<Problem> {
    let dataset = plan.settled(cell).get("dataset")?.to_string();
    let chain = plan.stages(cell, 0, facts).ok()?;
    of_pretraining(&chain, experiment, facts).or_else(|| {
        let train = &chain.train;
        let counts = exact(facts.datasets.get(&dataset)?, train.per_class)?;
        let sizes = [counts.train, counts.train + counts.val];
        let sizes = &sizes[..if train.refit { 2 } else { 1 }];
        let of_phase = |phase: &Phase| {
            let images = sizes.iter().find(|images| least(phase, **images) == 1)?;
            let (network, _) = train.network().ok()?;
            let norm = single(&network, phase, train.frozen(phase).ok()?)?;
            Some(experiment.problem("batch", &Value::Int(phase.batch as i64), told(phase.batch, *images, norm)))
        };
        let by_batches = |phase: &&Phase| phase.batch_norm == BatchNorm::Train && !train.solves();
        train.phases.iter().filter(by_batches).find_map(of_phase)
    })
}

fn of_pretraining(chain: &Chain, experiment: &Experiment, facts: &Facts) -> Option<Problem> {
    let stage = chain.pretrain.as_ref()?;
    let counts = exact(facts.datasets.get(&experiment.pretrain.as_ref()?.dataset)?, None)?;
    if least(&stage.phase, counts.train) > 1 {
        return None;
    }
    let network = stage.arch.graph(stage.classes).ok()?;
    let norm = single(&network, &stage.phase, 0)?;
    let message = format!("[pretrain]: {}", told(stage.phase.batch, counts.train, norm));
    Some(experiment.problem("batch", &Value::Int(stage.phase.batch as i64), message))
}

/// How many images there are to train on, where every replicate has as many.
fn exact(fact: &DatasetFact, per_class: Option<usize>) -> Option<Counts> {
    let same = per_class.is_some() || fact.folds.is_none() && !fact.carves_groups;
    fact.counts(per_class).ok().filter(|_| same)
}

/// Images of the smallest batch that a phase reads: the last of an epoch, if it comes to that.
fn least(phase: &Phase, images: usize) -> usize {
    let (steps, _) = cost::steps(phase, images);
    let per_epoch = images.div_ceil(phase.batch);
    if steps < per_epoch { phase.batch.min(images) } else { images - (per_epoch - 1) * phase.batch }
}

/// The first batch norm that takes the statistics of a batch over maps of one pixel.
fn single<'a>(network: &'a Graph, phase: &Phase, frozen: usize) -> Option<&'a str> {
    let selected = Selected::of(network, &phase.trains);
    let is_one = |index: &usize| {
        let layer = &network.layers[*index];
        matches!(layer.op, Op::BatchNorm { .. })
            && selected.layers[*index]
            && layer.shape[1..].iter().all(|side| *side == 1)
    };
    let index = (frozen..network.layers.len()).find(is_one)?;
    Some(&network.layers[index].name)
}

fn told(batch: usize, images: usize, norm: &str) -> String {
    format!(
        "batch = {batch} leaves one image for the last batch of {images}, and the maps of the batch norm '{norm}' are one pixel here: one \
         value has no variance. Another batch, a larger input or batch_norm = \"affine\" is needed"
    )
}
