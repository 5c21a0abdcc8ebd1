//! `summary ARCH`: a network layer by layer.

use super::{Exit, Usage, print, print_json, table_style};
use crate::cli::Answer;
use crate::freeze::Freeze;
use crate::model::arch::{NAMES, family};
use crate::model::freezing::{branch_note, frozen_layers};
use crate::model::graph::Graph;
use crate::model::sketch::Sketch;
use crate::model::summary::{frozen_names, rows};
use crate::model::vit;
use crate::preprocess::Preprocess;
use crate::report::table::table;
use crate::train::kept_bytes;
use crate::value::Value;

/// What is asked of a network.
pub struct Asked {
    pub arch: Option<String>,
    pub input: Option<usize>,
    pub width: f64,
    pub classes: usize,
    pub no_top: bool,
    pub freeze: Option<String>,
    pub toml: bool,
    pub format: Answer,
}

pub fn run(asked: Asked) -> anyhow::Result<Exit> {
    let Some(name) = &asked.arch else {
        match asked.format {
            Answer::Table => print(&NAMES.join("\n"))?,
            Answer::Json => print_json(&serde_json::json!({"version": 1, "architectures": *NAMES}))?,
        }
        return Ok(Exit::Complete);
    };
    let arch = super::materials::arch(name, asked.input, asked.width)?;
    let preprocess = match &arch.own {
        Some(own) => own.preprocess,
        None => family(name).map_or(Preprocess::Torch, |family| family.preprocess),
    };
    let whole = arch.graph(asked.classes).map_err(Usage)?;
    let named = |tap: &str| arch.tap(&whole, tap).map(|index| whole.layers[index].name.clone()).map_err(Usage);
    let (features, early) = (named("features")?, named("early")?);
    let graph = match asked.no_top {
        true => whole.truncate(arch.tap(&whole, "no_top").map_err(Usage)?),
        false => whole,
    };
    if asked.toml {
        print(Sketch::of(&graph, &features, &early, preprocess).to_toml().map_err(anyhow::Error::msg)?.trim_end())?;
        return Ok(Exit::Complete);
    }
    let frozen = match &asked.freeze {
        None => 0,
        Some(text) => {
            let value = text.parse().map_or(Value::Text(text.clone()), Value::Int);
            frozen_layers(&graph, &Freeze::parse(&value).map_err(Usage)?).map_err(Usage)?
        }
    };
    let total: usize = graph.total_params();
    let kept = kept_bytes(&graph, frozen)?;
    if asked.format == Answer::Json {
        print_json(&serde_json::json!({
            "version": 1,
            "arch": name,
            "layers": rows(&graph, frozen),
            "params": total,
            "macs": graph.total_macs(),
            "features": features,
            "early": early,
            "preprocess": preprocess.to_string(),
            "bytes_kept_per_image": {"stored": kept[0], "recomputed": kept[1]},
            "frozen": {"layers": frozen, "params": frozen_names(&graph, frozen).1, "note": branch_note(&graph, frozen)},
        }))?;
        return Ok(Exit::Complete);
    }
    print(&shown(&graph, frozen))?;
    print(&format!(
        "{} layers, {total} parameters (running statistics included), {:.1} M multiply-accumulates per image",
        graph.layers.len(),
        graph.total_macs() as f64 / 1e6
    ))?;
    print(&format!(
        "features are tapped at {features}, early features at {early}; inputs are prepared as {}",
        preprocess
    ))?;
    if arch.own.is_none() && vit::reads_texts(&arch.name) {
        print(&format!("where texts are, images are tapped at {}: one projection more, and unit length", vit::EMBEDS))?;
    }
    let [kept, recomputed] = kept.map(|bytes| bytes as f64 / 1e6);
    print(&format!(
        "a training step keeps {kept:.2} MB of activations per image ({recomputed:.2} MB where batch norms are recomputed)"
    ))?;
    if frozen > 0 {
        print(&frozen_line(&graph, frozen))?;
    }
    Ok(Exit::Complete)
}

fn shown(graph: &Graph, frozen: usize) -> String {
    let row = |row: crate::model::summary::Row| {
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
    };
    let body: Vec<Vec<String>> = rows(graph, frozen).into_iter().map(row).collect();
    table(table_style(), &["", "layer", "class", "block", "output", "params", "MACs", "connected to", ""], &body)
}

/// What is frozen, and where the work below can be shared.
fn frozen_line(graph: &Graph, frozen: usize) -> String {
    let (names, count) = frozen_names(graph, frozen);
    let note = branch_note(graph, frozen);
    format!(
        "frozen: the first {frozen} layers, {count} parameters in {} layers: {}{note}",
        names.len(),
        names.join(", ")
    )
}
