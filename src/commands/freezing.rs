//! What `plan` says of freezing: which parameters each depth and each phase holds fixed, by name and number.

use std::collections::HashSet;

use crate::freeze::Freeze;
use crate::model::freezing::{branch_note, effective_depth, frozen_layers};
use crate::model::graph::{Graph, Op};
use crate::model::lora::{idle, with_lora};
use crate::model::selected::{Selected, frozen_beside};
use crate::model::summary::frozen_names;
use crate::phase::{phases, with_phase};
use crate::plan::chain::arch;
use crate::plan::transfer::TRANSFERRED;
use crate::plan::{Cell, Facts, Plan};
use crate::trains::Trains;
use crate::value::{Layer, Value};

/// Names that are shown whole; of more, the first and the last.
const NAMES: usize = 6;

/// A line for each depth, and one for each leg of what is trained in phases.
pub fn echo(plan: &Plan, facts: &Facts) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    for cell in plan.cells.iter().filter(|cell| seen.insert(cell.shape())) {
        for line in of_cell(plan, cell, facts) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    format!("freezing\n{}", lines.join("\n"))
}

/// Those of one cell. What cannot be told has been complained of before.
fn of_cell(plan: &Plan, cell: &Cell, facts: &Facts) -> Vec<String> {
    let (asked, settled) = (plan.asked(cell), plan.settled(cell));
    let legs = |layer: &Layer| -> Vec<Layer> {
        let own = layer.get("phases").and_then(|list| phases(list).ok());
        own.map_or_else(|| vec![layer.clone()], |own| own.into_iter().map(|own| with_phase(layer, own)).collect())
    };
    let (asked, settled) = (legs(&asked), legs(&settled));
    let count = asked.len();
    let all = asked.iter().enumerate().zip(settled.iter().cycle());
    let line = |((index, asked), settled): ((usize, &Layer), &Layer)| {
        let phase = if count > 1 { format!("phase {} of {count}: ", index + 1) } else { String::new() };
        Some(format!("  {phase}{}", of_leg(asked, settled, facts).ok()?))
    };
    all.filter_map(line).collect()
}

fn of_leg(asked: &Layer, settled: &Layer, facts: &Facts) -> Result<String, String> {
    let value = asked.get("freeze").ok_or("no depth")?;
    // A depth that follows another is what it has settled to.
    let depth = if value.text() == Some(TRANSFERRED) { settled.get("freeze").unwrap_or(value) } else { value };
    let tap = settled.get("tap").map_or_else(String::new, Value::to_string);
    let backbone = arch(settled, facts)?.backbone(&tap)?;
    let frozen = frozen_layers(&backbone, &Freeze::parse(depth)?)?;
    let (names, count) = frozen_names(&backbone, frozen);
    let place = format!("{} up to {tap}, freeze = {value}", backbone.arch);
    if let Some(trains) = asked.get("trains").map(Trains::parse).transpose()?.filter(|trains| !trains.is_all()) {
        let norms = settled.get("batch_norm").and_then(Value::text) != Some("frozen");
        let own = match trains {
            Trains::Lora(lora) => with_lora(&backbone, frozen, lora)?,
            _ => backbone,
        };
        return Ok(format!("{place}, trains = {trains}: {}", trained(&own, frozen, &trains, norms)?));
    }
    let fresh = match settled.get("transfer") {
        Some(transfer) => format!("; what is above {transfer} starts at random"),
        None => String::new(),
    };
    let shown = match names.len() {
        0 => String::new(),
        all if all > NAMES => format!(" ({}, ... {})", names[..3].join(", "), names[all - 1]),
        _ => format!(" ({})", names.join(", ")),
    };
    let total: usize = backbone.total_params();
    Ok(format!("{place}: {count} of {total} parameters fixed{shown}{fresh}{}", branch_note(&backbone, frozen)))
}

/// How much a choice of parameters trains, with batch norms or without, and what is shared below it.
fn trained(backbone: &Graph, frozen: usize, trains: &Trains, norms: bool) -> Result<String, String> {
    let still = frozen_beside(backbone, frozen, trains)?;
    let selected = Selected::of(backbone, trains);
    let moves = |index: &usize| norms || !matches!(backbone.layers[*index].op, Op::BatchNorm { .. });
    let numbers = |index: usize| {
        let params = backbone.params(index).into_iter().zip(&selected.params[index]);
        params.filter(|(_, trains)| **trains).map(|(param, _)| param.shape.iter().product::<usize>()).sum::<usize>()
    };
    let count: usize = (still..backbone.layers.len()).filter(moves).map(numbers).sum();
    let below = match effective_depth(backbone, still) {
        0 => String::new(),
        depth => format!("; all up to {} stands still", backbone.layers[depth - 1].name),
    };
    Ok(format!("{count} of {} parameters train{below}", backbone.total_params() - idle(backbone)))
}
