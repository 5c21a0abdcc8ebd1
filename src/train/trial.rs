//! A trial with its trained network: what lies below a shared cut is as it was.

use std::collections::HashSet;

use super::{Shelf, lockstep};
use crate::model::graph::Graph;
use crate::model::weights::Weights;
use crate::outcome::Outcome;
use crate::plan::stage::{Train, Work};

/// Runs a trial and returns the whole network's weights beside its outcome.
///
/// # Errors
/// As running the trial.
pub fn with_weights(stage: &Train, work: &Work, shelf: &mut Shelf) -> anyhow::Result<(Outcome, Graph, Weights)> {
    let (whole, _) = stage.network().map_err(anyhow::Error::msg)?;
    let (outcome, network) = lockstep::alone(stage, work, shelf)?;
    let mut weights = shelf.weights(&stage.backbone, work)?.map_or_else(Weights::default, |weights| (*weights).clone());
    weights.0.extend(network.weights()?.0);
    let own: HashSet<String> = (0..whole.layers.len())
        .flat_map(|layer| whole.params(layer).into_iter().map(move |param| (layer, param.name)))
        .map(|(layer, param)| format!("{}.{param}", whole.layers[layer].name))
        .collect();
    weights.0.retain(|name, _| own.contains(name));
    Ok((outcome, whole, weights))
}
