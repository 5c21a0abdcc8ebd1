//! A trial with its trained network: what lies below a shared cut is as it was.

use std::collections::HashSet;

use super::{Shelf, kept, lockstep, solve};
use crate::model::graph::Graph;
use crate::model::init;
use crate::model::weights::Weights;
use crate::outcome::Outcome;
use crate::plan::stage::{Train, Work};

/// The whole network's weights: of what was kept, or of the trial run again, with its outcome.
///
/// # Errors
/// As running the trial; what was kept is damaged.
pub fn with_weights(
    stage: &Train,
    work: &Work,
    shelf: &mut Shelf,
) -> anyhow::Result<(Option<Outcome>, Graph, Weights)> {
    // Who only exports keeps nothing.
    let alone = Work { keep: None, ..work.clone() };
    let (outcome, own) = match kept::kept(work)? {
        Some(own) => (None, own),
        None if stage.solves() => {
            let (outcome, head) = solve::solved(stage, &alone, shelf, &mut |_| ())?;
            (Some(outcome), kept::head(head.weight, head.bias))
        }
        None => {
            let (outcome, network) = lockstep::alone(stage, &alone, shelf)?;
            (Some(outcome), network.weights()?)
        }
    };
    let (graph, weights) = whole(stage, work, shelf, own)?;
    Ok((outcome, graph, weights))
}

/// What was trained or solved, over what it started from.
fn whole(stage: &Train, work: &Work, shelf: &mut Shelf, own: Weights) -> anyhow::Result<(Graph, Weights)> {
    let (whole, _) = stage.network().map_err(anyhow::Error::msg)?;
    let mut weights = match shelf.weights(&stage.backbone, work)? {
        Some(start) => (*start).clone(),
        None => init::fresh(&whole, 0, stage.seed, stage.replicate as u64)?,
    };
    weights.0.extend(own.0);
    let names: HashSet<String> = (0..whole.layers.len())
        .flat_map(|layer| whole.params(layer).into_iter().map(move |param| (layer, param.name)))
        .map(|(layer, param)| format!("{}.{param}", whole.layers[layer].name))
        .collect();
    weights.0.retain(|name, _| names.contains(name));
    Ok((whole, weights))
}
