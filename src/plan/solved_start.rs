//! Heads that start where a solution on the features of the untrained network lies: a probe before fine-tuning (Kumar et al.,
//! 2022), without its steps.

use super::effect::{Fault, fault};
use super::stage::SolvedStart;
use crate::phase::path;
use crate::recipe::{self, HeadStart, Optimizer, Parsed};
use crate::value::Layer;

/// What solves the head of a layer before anything trains, if anything does.
pub fn solver(layer: &Layer) -> Option<Optimizer> {
    let start = layer.get("head_start").map(|value| recipe::word::<HeadStart>(value, recipe::HEAD_START));
    start?.ok()?.solver()
}

/// Refuses what such a head cannot be; true where there is one.
///
/// # Errors
/// The head is not linear.
pub fn settle(layer: &Layer) -> Result<bool, Fault> {
    if solver(layer).is_none() {
        return Ok(false);
    }
    match layer.get("head").filter(|head| head.text() != Some("linear")) {
        Some(head) => Err(fault("head", head, "a head that starts from a solution is linear: head = \"linear\"")),
        None => Ok(true),
    }
}

/// What solves the head of a settled layer, and how.
///
/// # Errors
/// Strengths that cannot be read.
pub fn of(layer: &Layer) -> Parsed<Option<SolvedStart>> {
    solver(layer).map(|optimizer| Ok(SolvedStart { optimizer, lambda: path(layer)? })).transpose()
}

/// Whether a head starts from something that was learned, of images or of texts.
pub fn begins_trained(layer: &Layer) -> bool {
    solver(layer).is_some() || super::zero_shot::starts(layer)
}
