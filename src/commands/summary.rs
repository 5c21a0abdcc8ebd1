//! `summary ARCH`: a network layer by layer.

use super::{Exit, Usage, print, table_style};
use crate::cli::Common;
use crate::freeze::Freeze;
use crate::model::arch::{Arch, NAMES, family};
use crate::model::freezing::frozen_layers;
use crate::model::summary::{frozen_names, rows};
use crate::report::table::table;
use crate::train::kept_bytes;
use crate::value::Value;

pub fn run(
    arch: Option<String>,
    input: Option<usize>,
    width: f64,
    classes: usize,
    freeze: Option<String>,
    _: &Common,
) -> anyhow::Result<Exit> {
    let Some(name) = arch else {
        print(&NAMES.join("\n"))?;
        return Ok(Exit::Complete);
    };
    let Some(family) = family(&name) else {
        let near = crate::spelling::nearest(&name, NAMES.iter().copied())
            .map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
        return Err(Usage(format!("there is no architecture '{name}'{near}; there are {}", NAMES.join(", "))).into());
    };
    let arch = Arch { name, input: input.unwrap_or(family.default_input), width };
    let graph = arch.graph(classes).map_err(Usage)?;
    let frozen = match freeze {
        None => 0,
        Some(text) => {
            let value = text.parse().map_or(Value::Text(text), Value::Int);
            let freeze = Freeze::parse(&value).map_err(Usage)?;
            frozen_layers(&graph, &freeze).map_err(Usage)?
        }
    };
    let body: Vec<Vec<String>> = rows(&graph, frozen)
        .into_iter()
        .map(|row| {
            let state = if row.frozen { "frozen" } else { "" };
            let macs = if row.macs > 0 { format!("{:.2} M", row.macs as f64 / 1e6) } else { String::new() };
            vec![
                row.index.to_string(),
                row.name,
                row.class.to_owned(),
                row.block,
                row.output,
                row.params.to_string(),
                macs,
                row.connected_to.join(", "),
                state.to_owned(),
            ]
        })
        .collect();
    print(&table(
        table_style(),
        &["", "layer", "class", "block", "output", "params", "MACs", "connected to", ""],
        &body,
    ))?;
    let total: usize = (0..graph.layers.len()).map(|index| graph.param_count(index)).sum();
    let (names, count) = frozen_names(&graph, frozen);
    print(&format!(
        "{} layers, {total} parameters (running statistics included), {:.1} M multiply-accumulates per image",
        graph.layers.len(),
        graph.total_macs() as f64 / 1e6
    ))?;
    print(&format!("features are tapped at {}, early features at {}", family.features, family.early))?;
    let [kept, recomputed] = kept_bytes(&graph, frozen)?.map(|bytes| bytes as f64 / 1e6);
    print(&format!(
        "a training step keeps {kept:.2} MB of activations per image ({recomputed:.2} MB where batch norms are recomputed)"
    ))?;
    if frozen > 0 {
        print(&format!(
            "frozen: the first {frozen} layers, {count} parameters in {} layers: {}",
            names.len(),
            names.join(", ")
        ))?;
    }
    Ok(Exit::Complete)
}
