//! `transfer`: how far from the input the weights reach, in one spelling. The layers above start at random, in each replicate
//! otherwise (Yosinski et al., 2014).

use super::depth::spelled;
use super::effect::{Fault, fault};
use crate::freeze::Freeze;
use crate::model::freezing::{depth_name, effective_depth, frozen_layers};
use crate::model::graph::{Graph, Op};
use crate::value::{Layer, Value};

/// As a freeze depth: all that is transferred.
pub const TRANSFERRED: &str = "transferred";

/// Settles `transfer`, and freeze depths that follow it, before other settings are. `asked` is the cell before defaults were
/// filled in.
pub fn settle_transfer(layer: &mut Layer, asked: &Layer, backbone: &Graph) -> Result<(), Fault> {
    let asked_for = layer.remove("transfer");
    let random = layer.get("weights").and_then(Value::text) == Some("random");
    let copied = match &asked_for {
        Some(value) if !random => copied(value, backbone)?,
        _ => backbone.layers.len(),
    };
    let follows = |leg: &Layer| leg.get("freeze").and_then(Value::text) == Some(TRANSFERRED);
    let mut nothing = false;
    for_each_leg(layer, |leg| nothing |= random && follows(leg));
    if nothing {
        let message = format!("nothing is {TRANSFERRED} where the weights are random");
        return Err(fault("freeze", &Value::Text(TRANSFERRED.to_owned()), message));
    }
    let whole = depth_name(backbone, copied) == "all";
    let depth = if whole { Value::Text("all".to_owned()) } else { Value::Int(copied as i64) };
    for_each_leg(layer, |leg| {
        if follows(leg) {
            leg.insert("freeze".to_owned(), depth.clone());
        }
    });
    if whole {
        return Ok(());
    }
    let value = asked_for.unwrap_or(depth);
    let norms = (copied..backbone.layers.len()).any(|at| matches!(backbone.layers[at].op, Op::BatchNorm { .. }));
    refuse(layer, asked, &value, copied, norms, backbone)?;
    if let Some(Value::List(phases)) = layer.get("phases") {
        // Told where they stand in the file, as they stand there.
        let of_phases = |found: Fault| match asked.get("phases") {
            Some(phases) => fault("phases", phases, found.message),
            None => found,
        };
        for phase in phases {
            let Value::Table(own) = phase else { continue };
            refuse(own, asked, &value, copied, norms, backbone).map_err(of_phases)?;
        }
    }
    layer.entry("batch_norm".to_owned()).or_insert(Value::Text("train".to_owned()));
    layer.insert("transfer".to_owned(), spelled(backbone, copied));
    Ok(())
}

/// How many of the first layers start from the weights.
///
/// # Errors
/// The name is neither a layer nor a block, or no layer with parameters is below it.
pub fn copied(value: &Value, backbone: &Graph) -> Result<usize, Fault> {
    let refused = |message: String| fault("transfer", value, message.replace("freeze = ", "transfer = "));
    let depth = Freeze::parse(value).and_then(|depth| frozen_layers(backbone, &depth)).map_err(refused)?;
    match effective_depth(backbone, depth) {
        0 => Err(fault("transfer", value, "nothing is transferred: say weights = \"random\"")),
        depth => Ok(depth),
    }
}

/// What would hold layers fixed that start at random, or pull them back there.
fn refuse(
    leg: &Layer,
    asked: &Layer,
    transfer: &Value,
    copied: usize,
    norms: bool,
    backbone: &Graph,
) -> Result<(), Fault> {
    if let Some(value) = leg.get("freeze") {
        let refused = |message: String| fault("freeze", value, message);
        let frozen = frozen_layers(backbone, &Freeze::parse(value).map_err(refused)?).map_err(refused)?;
        if effective_depth(backbone, frozen) > copied {
            let message = format!(
                "freeze = {value} would hold layers fixed that start at random: transfer = {transfer} ends below. \"{TRANSFERRED}\" \
                 freezes what is transferred"
            );
            return Err(fault("freeze", value, message));
        }
    }
    let all = |value: &&Value| value.text() != Some("all");
    if let Some(value) = leg.get("trains").filter(all) {
        let message = format!("layers above transfer = {transfer} start at random, and all of them must train");
        return Err(fault("trains", value, message));
    }
    let held = |value: &&Value| value.text() != Some("train");
    if let Some(value) = leg.get("batch_norm").or_else(|| asked.get("batch_norm")).filter(held)
        && norms
    {
        let message = format!("batch norms above transfer = {transfer} start without statistics: they need \"train\"");
        return Err(fault("batch_norm", value, message));
    }
    match leg.get("start_decay").filter(|value| value.number() != Some(0.0)) {
        Some(value) => {
            let message =
                format!("layers above transfer = {transfer} start at random: there is nothing to be pulled back to");
            Err(fault("start_decay", value, message))
        }
        None => Ok(()),
    }
}

/// Calls `work` with the settings of the cell, and with those that each phase has of its own.
fn for_each_leg(layer: &mut Layer, mut work: impl FnMut(&mut Layer)) {
    work(layer);
    if let Some(Value::List(phases)) = layer.get_mut("phases") {
        for phase in phases {
            if let Value::Table(own) = phase {
                work(own);
            }
        }
    }
}
