//! `plan FILE`: trials, stages, what is collapsed or excluded, what is there already, and what the rest will cost.

use std::path::Path;
use std::time::Duration;

use indicatif::HumanDuration;

use super::jobs::{self, Totals};
use super::world::World;
use super::{Exit, print, table_style};
use crate::cli::{Common, Format};
use crate::experiment::Experiment;
use crate::plan::{Cell, Plan};
use crate::report::table::{Style, table};
use crate::store::Store;
use crate::value::{Layer, Value};

/// Real runs take between these times the forecast.
const RANGE: (f64, f64) = (0.7, 1.6);

pub fn run(file: &Path, format: Format, common: &Common) -> anyhow::Result<Exit> {
    let experiment = Experiment::load(file)?;
    let world = World::gather(&experiment, file, common)?;
    let plan = Plan::new(&experiment, &world.facts).map_err(|list| experiment.problems(list))?;
    let finished = if common.db.exists() { Store::read(&common.db)?.finished()? } else { Default::default() };
    let cells: Vec<usize> = (0..plan.cells.len()).collect();
    let jobs = jobs::jobs(&plan, &cells, &finished, &world).map_err(anyhow::Error::msg)?;
    match format {
        Format::Json => print(&serde_json::to_string_pretty(&json(&experiment, &plan, &jobs.totals, &world))?)?,
        Format::Csv => print(cells_csv(&plan)?.trim_end())?,
        Format::Table => print(&text(&experiment, &plan, &jobs.totals, &world, table_style()))?,
        Format::Md => print(&text(&experiment, &plan, &jobs.totals, &world, Style::Markdown))?,
    }
    Ok(Exit::Complete)
}

fn seconds(macs: f64, world: &World) -> f64 {
    macs / world.facts.macs_per_second / world.facts.slots as f64
}

fn json(experiment: &Experiment, plan: &Plan, totals: &Totals, world: &World) -> serde_json::Value {
    serde_json::json!({
        "version": 1,
        "experiment": experiment.name,
        "cells": plan.cells.len(),
        "distinct": plan.distinct(),
        "replicates": plan.replicates,
        "trials": totals.trials,
        "done": totals.done,
        "excluded": plan.excluded,
        "stages": {"pretrain": totals.stages[0], "encode": totals.stages[1], "probe": totals.stages[2], "finetune": totals.stages[3]},
        "macs": {"alone": totals.alone, "shared": totals.shared, "outstanding": totals.outstanding},
        "bytes": totals.bytes,
        "seconds": {"forecast": seconds(totals.outstanding, world), "low": RANGE.0 * seconds(totals.outstanding, world), "high": RANGE.1 * seconds(totals.outstanding, world)},
    })
}

fn cells_csv(plan: &Plan) -> anyhow::Result<String> {
    let columns: Vec<&str> = ["key"].into_iter().chain(crate::store::schema::SETTINGS.iter().copied()).collect();
    let rows: Vec<_> = plan
        .cells
        .iter()
        .map(|cell| {
            let mut row: std::collections::BTreeMap<String, String> =
                plan.settled(cell).into_iter().map(|(key, value)| (key, value.to_string())).collect();
            row.insert("key".to_owned(), cell.key.to_string());
            row
        })
        .collect();
    crate::report::csv::rows(&columns, rows.iter())
}

fn text(experiment: &Experiment, plan: &Plan, totals: &Totals, world: &World, style: Style) -> String {
    let mut parts = vec![format!(
        "{}: {} cells x {} replicates = {} distinct trials, {} of them in the store",
        experiment.name,
        plan.cells.len(),
        plan.replicates,
        totals.trials,
        totals.done
    )];
    parts.push(data(world, style));
    let stages: Vec<Vec<String>> = ["pretrain", "encode", "probe", "finetune"]
        .iter()
        .zip(totals.stages)
        .map(|(kind, count)| vec![(*kind).to_owned(), count.to_string()])
        .collect();
    parts.push(format!("stages\n{}", table(style, &["stage", "count"], &stages)));
    parts.push(cost(totals, world, style));
    for (reason, count) in &plan.excluded {
        parts.push(format!("excluded: {count} cells: {reason}"));
    }
    parts.extend(collapsed(plan));
    parts.push(freezing(plan));
    parts.join("\n\n")
}

fn data(world: &World, style: Style) -> String {
    let rows: Vec<Vec<String>> = world
        .facts
        .datasets
        .iter()
        .map(|(name, fact)| {
            let val = if fact.val == 0 { "carved from train".to_owned() } else { fact.val.to_string() };
            vec![
                name.clone(),
                fact.classes.to_string(),
                fact.train.iter().sum::<usize>().to_string(),
                val,
                fact.test.to_string(),
                fact.fingerprint.short(),
            ]
        })
        .collect();
    format!("data\n{}", table(style, &["dataset", "classes", "train", "val", "test", "fingerprint"], &rows))
}

fn cost(totals: &Totals, world: &World, style: Style) -> String {
    let row = |name: &str, macs: f64| {
        let time = seconds(macs, world);
        let range = if macs == 0.0 {
            "-".to_owned()
        } else {
            format!("{} to {}", human(RANGE.0 * time), human(RANGE.1 * time))
        };
        vec![name.to_owned(), format!("{:.2}", macs * 2.0 / 1e12), range]
    };
    let rows = [
        row("trials one by one", totals.alone),
        row("this plan, work shared", totals.shared),
        row("still to do", totals.outstanding),
    ];
    let saving = if totals.shared > 0.0 { totals.alone / totals.shared } else { 1.0 };
    format!(
        "cost\n{}\nsharing saves a factor of {saving:.2}; features take {:.1} MB; {} slot(s) of {} at {:.1} GFLOP/s each, {}",
        table(style, &["", "TFLOP", "time"], &rows),
        totals.bytes / 1e6,
        world.facts.slots,
        world.device,
        world.facts.macs_per_second * 2.0 / 1e9,
        world.facts.rate_source
    )
}

fn human(seconds: f64) -> String {
    HumanDuration(Duration::from_secs_f64(seconds.clamp(0.0, 1e9))).to_string()
}

/// Cells that are one configuration, by what a person typed.
fn collapsed(plan: &Plan) -> Option<String> {
    const SHOWN: usize = 10;
    let groups = plan.collapsed();
    if groups.is_empty() {
        return None;
    }
    let name = |cell: &Cell| label(&plan.asked(cell), &plan.settled(cell));
    let mut lines: Vec<String> = groups
        .iter()
        .take(SHOWN)
        .map(|group| {
            format!(
                "  {} and {} more: {}",
                name(group[0]),
                group.len() - 1,
                group[1..].iter().take(3).map(|cell| name(cell)).collect::<Vec<_>>().join("; ")
            )
        })
        .collect();
    if groups.len() > SHOWN {
        lines.push(format!("  and {} more groups", groups.len() - SHOWN));
    }
    let cells: usize = groups.iter().map(Vec::len).sum();
    Some(format!(
        "collapsed: {cells} cells are {} configurations, since settings without effect do not count\n{}",
        groups.len(),
        lines.join("\n")
    ))
}

/// Scenario, recipe and the settings that were dropped.
fn label(asked: &Layer, settled: &Layer) -> String {
    let get = |key: &str| asked.get(key).map_or_else(String::new, Value::to_string);
    let dropped: Vec<String> = asked
        .iter()
        .filter(|(key, _)| !settled.contains_key(*key) && !["pool", "decay", "nesterov"].contains(&key.as_str()))
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    let dropped = if dropped.is_empty() { String::new() } else { format!(" ({})", dropped.join(", ")) };
    format!("{} {} lr {}{dropped}", get("scenario"), get("recipe"), get("lr"))
}

/// What each freeze depth holds fixed, by name and number.
fn freezing(plan: &Plan) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for cell in &plan.cells {
        if !seen.insert(cell.shape()) {
            continue;
        }
        let (asked, settled) = (plan.asked(cell), plan.settled(cell));
        let Some(value) = asked.get("freeze") else { continue };
        let tap = settled.get("tap").map_or_else(String::new, Value::to_string);
        let line = crate::plan::stage::arch(&settled).and_then(|arch| arch.backbone(&tap)).and_then(|backbone| {
            let frozen = crate::model::freezing::frozen_layers(&backbone, &crate::freeze::Freeze::parse(value)?)?;
            let (names, count) = crate::model::summary::frozen_names(&backbone, frozen);
            let total: usize = (0..backbone.layers.len()).map(|index| backbone.param_count(index)).sum();
            let shown = if names.len() > 6 {
                format!("{}, ... {}", names[..3].join(", "), names[names.len() - 1])
            } else {
                names.join(", ")
            };
            Ok(format!(
                "  {} up to {tap}, freeze = {value}: {count} of {total} parameters fixed{}",
                backbone.arch,
                if names.is_empty() { String::new() } else { format!(" ({shown})") }
            ))
        });
        if let Ok(line) = line
            && !lines.contains(&line)
        {
            lines.push(line);
        }
    }
    format!("freezing\n{}", lines.join("\n"))
}
