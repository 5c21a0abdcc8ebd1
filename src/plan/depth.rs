//! What of a backbone a cell trains, in one spelling: freeze depths by the last frozen layer with parameters, and of what
//! trains above them no more than has an effect.

use super::effect::{Fault, fault};
use crate::freeze::Freeze;
use crate::model::freezing::{depth_name, effective_depth, frozen_layers};
use crate::model::graph::{Graph, Op};
use crate::model::lora::{adapted, with_lora};
use crate::model::selected::{Selected, distances, frozen_beside, settled};
use crate::phase::with_phase;
use crate::trains::{Lora, Trains};
use crate::value::{Layer, Value};

/// Settles `freeze`, `trains`, `layer_decay` and `start_decay` of a cell and of its phases. `asked` is the cell before
/// defaults were filled in.
pub fn settle_depth(layer: &mut Layer, asked: &Layer, backbone: &Graph) -> Result<(), Fault> {
    let Some(Value::List(mut phases)) = layer.get("phases").cloned() else {
        refuse_start_decay(layer)?;
        return settle_leg(layer, asked, backbone);
    };
    let legs: Vec<Layer> = phases
        .iter()
        .filter_map(|phase| if let Value::Table(own) = phase { Some(with_phase(layer, own)) } else { None })
        .collect();
    legs.iter().try_for_each(refuse_start_decay)?;
    one_addition(&legs)?;
    // Where what trains is chosen, each phase says it for itself.
    let chosen = legs.iter().any(|leg| leg.contains_key("trains"));
    for (phase, leg) in phases.iter_mut().zip(legs) {
        let Value::Table(own) = phase else { continue };
        let mut whole = leg;
        settle_leg(&mut whole, &with_phase(asked, own), backbone)?;
        for key in ["freeze", "trains", "batch_norm"] {
            if own.contains_key(key) || chosen {
                own.remove(key);
                own.extend(whole.get(key).map(|value| (key.to_owned(), value.clone())));
            }
        }
    }
    if chosen {
        ["freeze", "trains", "batch_norm"].iter().for_each(|key| _ = layer.remove(*key));
    } else if let Some(value) = layer.get("freeze") {
        let frozen = depth(value, backbone)?;
        layer.insert("freeze".to_owned(), spelled(backbone, frozen));
    }
    layer.insert("phases".to_owned(), Value::List(phases));
    Ok(())
}

/// What is added beside dense layers is there from the first phase to the last.
fn one_addition(legs: &[Layer]) -> Result<(), Fault> {
    let added = |leg: &Layer| Some((leg.get("trains")?.clone(), leg.get("trains").map(Trains::parse)?.ok()?));
    let all: Vec<(Value, Lora)> = legs
        .iter()
        .filter_map(added)
        .filter_map(|(value, trains)| if let Trains::Lora(lora) = trains { Some((value, lora)) } else { None })
        .collect();
    match all.windows(2).find(|pair| pair[0].1 != pair[1].1) {
        Some([one, other]) => {
            Err(fault("trains", &other.0, format!("phases of one trial add the same: {} is not {}", other.1, one.1)))
        }
        _ => Ok(()),
    }
}

fn settle_leg(leg: &mut Layer, asked: &Layer, backbone: &Graph) -> Result<(), Fault> {
    let mut frozen = match leg.get("freeze") {
        Some(value) => depth(value, backbone)?,
        None => 0,
    };
    let choice = leg.get("trains").cloned().filter(|_| depth_name(backbone, frozen) != "all");
    leg.remove("trains");
    let (mut trains, mut with_additions) = (Trains::All, None);
    if let Some(value) = &choice {
        let refused = |message: String| fault("trains", value, message);
        trains = Trains::parse(value).map_err(refused)?;
        frozen = match trains {
            Trains::Lora(lora) => {
                // All below the first layer that something is added to stands still.
                let first = adapted(backbone, frozen, lora).map_err(refused)?[0];
                with_additions = Some(with_lora(backbone, first, lora).map_err(refused)?);
                first
            }
            _ => frozen_beside(backbone, frozen, &trains).map_err(refused)?,
        };
        settle_norms(leg, asked, backbone, frozen, &trains)?;
        trains = settled(backbone, frozen, &trains);
        if !trains.is_all() {
            leg.insert("trains".to_owned(), trains.value());
        }
    }
    if leg.contains_key("freeze") || frozen > 0 {
        leg.insert("freeze".to_owned(), spelled(backbone, frozen));
    }
    let backbone = with_additions.as_ref().unwrap_or(backbone);
    let selected = Selected::of(backbone, &trains);
    let below = distances(backbone);
    let graded = (frozen..backbone.layers.len()).any(|index| selected.any(index) && below[index] != Some(0));
    if !graded || leg.get("layer_decay").and_then(Value::number) == Some(1.0) {
        leg.remove("layer_decay");
    }
    settle_ratios(leg, frozen >= backbone.layers.len(), &trains)?;
    if frozen >= backbone.layers.len() || leg.get("start_decay").and_then(Value::number) == Some(0.0) {
        leg.remove("start_decay");
    }
    Ok(())
}

/// Ratios are between layers, and of parameters that are not zero.
fn settle_ratios(leg: &mut Layer, head_alone: bool, trains: &Trains) -> Result<(), Fault> {
    let Some(value) = leg.get("layer_rates").filter(|value| value.text() == Some("rgn")).cloned() else {
        leg.remove("layer_rates");
        return Ok(());
    };
    if matches!(trains, Trains::Lora(_) | Trains::Biases) {
        let message =
            format!("what trains = {trains} trains may be zero at first: its gradient is infinitely far from it");
        return Err(fault("layer_rates", &value, message));
    }
    // One layer is as far as the farthest.
    if head_alone && leg.get("head").is_none_or(|head| head.text() == Some("linear")) {
        leg.remove("layer_rates");
    }
    Ok(())
}

/// Batch norms must move where their numbers are asked to train.
fn settle_norms(leg: &mut Layer, asked: &Layer, backbone: &Graph, frozen: usize, trains: &Trains) -> Result<(), Fault> {
    let selected = Selected::of(backbone, trains);
    let own = (frozen..backbone.layers.len()).filter(|index| selected.any(*index));
    let norm = |index: usize| matches!(backbone.layers[index].op, Op::BatchNorm { .. });
    let (norms, others) = own.partition::<Vec<usize>, _>(|index| norm(*index));
    let held = leg.get("batch_norm").and_then(Value::text) == Some("frozen");
    if norms.is_empty() || !held || !(trains.needs_norms() || others.is_empty()) {
        return Ok(());
    }
    let Some(value) = asked.get("batch_norm") else {
        leg.insert("batch_norm".to_owned(), Value::Text("affine".to_owned()));
        return Ok(());
    };
    let message = format!(
        "batch_norm = \"frozen\" holds fixed what trains = \"{trains}\" asks to train: say \"affine\", or \"train\" for statistics that move as well"
    );
    Err(fault("batch_norm", value, message))
}

fn refuse_start_decay(leg: &Layer) -> Result<(), Fault> {
    let random = leg.get("weights").and_then(Value::text) == Some("random");
    match leg.get("start_decay") {
        Some(value) if random && value.number() != Some(0.0) => Err(fault(
            "start_decay",
            value,
            "there is nothing to be pulled back to: these weights are random. Set `start_decay` in the recipes that start from others",
        )),
        _ => Ok(()),
    }
}

fn depth(value: &Value, backbone: &Graph) -> Result<usize, Fault> {
    let refused = |message: String| fault("freeze", value, message);
    frozen_layers(backbone, &Freeze::parse(value).map_err(refused)?).map_err(refused)
}

/// A freeze depth as it stands in keys: the name of the last frozen layer with parameters, or the number of layers where a block
/// has that name, too, and reaches further.
pub fn spelled(backbone: &Graph, frozen: usize) -> Value {
    let (name, depth) = (depth_name(backbone, frozen), effective_depth(backbone, frozen));
    let read = Freeze::parse(&Value::Text(name.clone())).and_then(|freeze| frozen_layers(backbone, &freeze));
    match read.is_ok_and(|read| effective_depth(backbone, read) == depth) {
        true => Value::Text(name),
        false => Value::Int(depth as i64),
    }
}
