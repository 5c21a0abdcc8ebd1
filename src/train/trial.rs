//! A trial with its trained network: what lies below a shared cut is as it was.

use std::collections::HashSet;

use super::{Shelf, lockstep, solve};
use crate::model::graph::Graph;
use crate::model::init;
use crate::model::weights::Weights;
use crate::outcome::Outcome;
use crate::plan::stage::{Train, Work};

/// Runs a trial and returns the whole network's weights beside its outcome.
///
/// # Errors
/// As running the trial.
pub fn with_weights(stage: &Train, work: &Work, shelf: &mut Shelf) -> anyhow::Result<(Outcome, Graph, Weights)> {
    let (whole, _) = stage.network().map_err(anyhow::Error::msg)?;
    let (outcome, own) = if stage.solves() {
        let (outcome, head) = solve::solved(stage, work, shelf, &mut |_| ())?;
        let named = [("head.linear.weight", head.weight), ("head.linear.bias", head.bias)];
        let mut weights = init::fresh(&whole, 0, stage.seed, stage.replicate as u64)?;
        weights.0.extend(named.map(|(name, tensor)| (name.to_owned(), tensor)));
        (outcome, weights)
    } else {
        let (outcome, network) = lockstep::alone(stage, work, shelf)?;
        (outcome, network.weights()?)
    };
    let mut weights = shelf.weights(&stage.backbone, work)?.map_or_else(Weights::default, |weights| (*weights).clone());
    // What was trained or solved stands over what it started from, and random numbers below nothing.
    if stage.solves() && !weights.0.is_empty() {
        weights.0.extend(own.0.into_iter().filter(|(name, _)| name.starts_with("head.linear.")));
    } else {
        weights.0.extend(own.0);
    }
    let own: HashSet<String> = (0..whole.layers.len())
        .flat_map(|layer| whole.params(layer).into_iter().map(move |param| (layer, param.name)))
        .map(|(layer, param)| format!("{}.{param}", whole.layers[layer].name))
        .collect();
    weights.0.retain(|name, _| own.contains(name));
    Ok((outcome, whole, weights))
}
