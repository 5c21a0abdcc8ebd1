//! `plan FILE`: trials, stages, what is collapsed or excluded, what is there already, and what the rest will cost.

use std::time::Duration;

use indicatif::HumanDuration;

use super::budget::Reach;
use super::jobs::{self, Jobs, Kept, Totals};
use super::world::World;
use super::{Exit, class_names, freezing, opened, print, print_json, streams, table_style, tuning};
use crate::cli::{Asked, Common, Format};
use crate::device::Precision;
use crate::experiment::Experiment;
use crate::plan::shard::{self, Shard};
use crate::plan::stage::Work;
use crate::plan::{Cell, Plan};
use crate::report::table::{Style, table};
use crate::store::Store;
use crate::train;
use crate::train::pace::Subject;
use crate::value::{Layer, Value};

/// Measurements that differ by less are the same.
const NOISE: f64 = 0.1;
/// Real runs take between these times the forecast.
const RANGE: (f64, f64) = (0.7, 1.6);

pub fn run(
    asked: &Asked,
    shard: Option<Shard>,
    budget: Option<Duration>,
    format: Format,
    common: &Common,
) -> anyhow::Result<Exit> {
    let experiment = Experiment::load(&asked.file, &asked.set)?;
    let mut world = World::gather(&experiment, &asked.file, common)?;
    world.devices.tell(common);
    let mut plan = Plan::new(&experiment, &world.facts).map_err(|list| experiment.problems(list))?;
    let store = common.db.exists().then(|| Store::read(&common.db)).transpose()?;
    let worth = match shard {
        None => tuning::foreseen(&plan, &experiment, store.as_ref())?,
        Some(_) => tuning::of_part(&plan, &experiment, store.as_ref())?,
    };
    plan.choose(worth.cells);
    let finished = store.map(|store| store.finished()).transpose()?.unwrap_or_default();
    let cells: Vec<usize> = (0..plan.cells.len()).collect();
    let jobs = match shard {
        None => jobs::jobs(&plan, &cells, &finished, &world),
        Some(shard) => shard::part(&plan, &cells, shard, &world.facts)
            .and_then(|own| jobs::of_part(&plan, &cells, &own, &finished, &world)),
    };
    let jobs = jobs.map_err(anyhow::Error::msg)?;
    streams::settle(&plan, &jobs, common.slots, &mut world)?;
    // What was measured serves the next time; a folder that cannot be written to is no reason to say nothing now.
    if world.places.cache.is_dir() {
        let _ = world.rates.keep();
    }
    let reach = budget.map(|given| Reach::of(given, &jobs, world.slots_worth()));
    match format {
        Format::Json => {
            let mut all = json(&experiment, &plan, &jobs, &world);
            all["at_most_more"] = worth.at_most.into();
            if let Some(Reach { trials, of, replicates, .. }) = reach {
                all["budget"] =
                    serde_json::json!({"trials": trials, "of": of, "replicates": replicates.min(plan.replicates)});
            }
            print_json(&all)?;
        }
        Format::Csv => print(cells_csv(&plan)?.trim_end())?,
        Format::Table => print(&text(&experiment, &plan, shard, &jobs, &world, table_style()))?,
        Format::Md => print(&text(&experiment, &plan, shard, &jobs, &world, Style::Markdown))?,
    }
    if worth.at_most > 0 && matches!(format, Format::Table | Format::Md) {
        let most = plan.max_replicates;
        print(&format!(
            "\nrules that stay open run on, up to {most} replicates: about {} more trials at most",
            worth.at_most
        ))?;
    }
    if let (Some(reach), Format::Table | Format::Md) = (reach, format) {
        print(&format!("\n{}", reach.told()))?;
    }
    Ok(Exit::Complete)
}

fn json(experiment: &Experiment, plan: &Plan, jobs: &Jobs, world: &World) -> serde_json::Value {
    let totals = &jobs.totals;
    let forecast = totals.seconds.outstanding / world.slots_worth();
    let features = jobs.kept.0.values().map(|features| {
        let [memory, disk, recompute] = features.choice.seconds;
        serde_json::json!({
            "arch": features.stage.backbone.arch.name,
            "cut": features.stage.cut,
            "data": features.stage.data,
            "images": features.stage.images,
            "rows": features.demand.images,
            "bytes": features.demand.bytes(),
            "rows_read": features.demand.reads,
            "seconds": {"memory": memory, "disk": disk, "recompute": recompute},
            "tier": features.choice.tier.name(),
        })
    });
    serde_json::json!({
        "features": features.collect::<Vec<_>>(),
        "version": 1,
        "experiment": experiment.name,
        "cells": plan.whole().count(),
        "distinct": plan.distinct(),
        "replicates": plan.replicates,
        "tune_replicates": plan.tune_replicates,
        "tune_share": plan.tune_share,
        "max_replicates": plan.max_replicates,
        "trials": totals.trials,
        "done": totals.done,
        "excluded": plan.excluded,
        "stages": {"pretrain": totals.stages[0], "encode": totals.stages[1], "probe": totals.stages[2], "finetune": totals.stages[3]},
        "macs": {"alone": totals.alone, "shared": totals.shared, "outstanding": totals.outstanding},
        "bytes": totals.bytes,
        "seconds": {"forecast": forecast, "low": RANGE.0 * forecast, "high": RANGE.1 * forecast},
    })
}

fn cells_csv(plan: &Plan) -> anyhow::Result<String> {
    let columns: Vec<&str> = ["key"].into_iter().chain(crate::store::schema::SETTINGS.iter().copied()).collect();
    let rows: Vec<_> = plan
        .whole()
        .map(|cell| {
            let mut row: std::collections::BTreeMap<String, String> =
                plan.settled(cell).into_iter().map(|(key, value)| (key, value.to_string())).collect();
            row.insert("key".to_owned(), cell.key.to_string());
            row
        })
        .collect();
    crate::report::csv::rows(&columns, rows.iter())
}

fn text(
    experiment: &Experiment,
    plan: &Plan,
    shard: Option<Shard>,
    jobs: &Jobs,
    world: &World,
    style: Style,
) -> String {
    let totals = &jobs.totals;
    let (cells, replicates, trials) = (plan.whole().count(), plan.replicates, totals.trials);
    let size = match shard {
        None if plan.compares_first() => format!(
            "{cells} cells, settings compared {}: about {trials} distinct trials{} instead of {}",
            compared(plan),
            short_among(plan),
            plan.distinct() * replicates
        ),
        None => format!("{cells} cells x {replicates} replicates = {trials} distinct trials"),
        Some(shard) => format!("part {shard} of {cells} cells x {replicates} replicates: {trials} distinct trials"),
    };
    let mut parts = vec![format!("{}: {size}, {} of them in the store", experiment.name, totals.done)];
    parts.push(opened::listed(world, style));
    let stages: Vec<Vec<String>> = ["pretrain", "encode", "probe", "finetune"]
        .iter()
        .zip(totals.stages)
        .map(|(kind, count)| vec![(*kind).to_owned(), count.to_string()])
        .collect();
    parts.push(format!("stages\n{}", table(style, &["stage", "count"], &stages)));
    parts.extend(features(&jobs.kept, style));
    parts.push(cost(totals, world, style));
    parts.extend(memory(plan, jobs, world));
    parts.extend(precision(plan, jobs, world));
    for (reason, count) in &plan.excluded {
        parts.push(format!("excluded: {count} cells: {reason}"));
    }
    parts.extend(collapsed(plan));
    parts.extend(class_names::echo(plan, &world.facts));
    parts.push(freezing::echo(plan, &world.facts));
    parts.join("\n\n")
}

/// On what settings are compared first.
fn compared(plan: &Plan) -> String {
    let Plan { replicates, tune_replicates, tune_share, .. } = plan;
    let on_replicates =
        (tune_replicates < replicates).then(|| format!("on {tune_replicates} of {replicates} replicates"));
    let on_share = tune_share.map(|share| format!("on {share} of their budget first"));
    [on_share, on_replicates].into_iter().flatten().collect::<Vec<_>>().join(", then ")
}

/// How many trials have but a share of their budget.
fn short_among(plan: &Plan) -> String {
    let count = plan.all_trials().iter().filter(|trial| plan.cells[trial.cell].is_short()).count();
    if count > 0 { format!(", {count} of them with that share,") } else { String::new() }
}

/// Where the features of each frozen prefix live, and the seconds of one slot that decided it.
fn features(kept: &Kept, style: Style) -> Option<String> {
    if kept.0.is_empty() {
        return None;
    }
    let seconds = |seconds: Option<f64>| seconds.map_or("no room".to_owned(), |seconds| format!("{seconds:.1} s"));
    let mut rows: Vec<Vec<String>> = kept
        .0
        .values()
        .map(|features| {
            let (stage, demand, choice) = (&features.stage, &features.demand, &features.choice);
            let [memory, disk, recompute] = choice.seconds.map(seconds);
            // What the pooling gives is told by what it pools.
            let place = match stage.pool {
                Some(pool) => format!("{}, {}", stage.backbone.tap, pool.word()),
                None => stage.cut.clone(),
            };
            vec![
                format!("{} at {place}", stage.backbone.arch.name),
                stage.data.short(),
                format!("{:.0}", demand.images),
                format!("{:.1} MB", demand.bytes() / 1e6),
                format!("{:.0}", demand.reads),
                memory,
                disk,
                recompute,
                choice.tier.name().to_owned(),
            ]
        })
        .collect();
    rows.sort();
    let head = ["features", "data", "rows", "size", "rows read", "in memory", "on disk", "recomputed", "chosen"];
    Some(format!("features: where they cost least on this machine\n{}", table(style, &head, &rows)))
}

fn cost(totals: &Totals, world: &World, style: Style) -> String {
    let row = |name: &str, macs: f64, seconds: f64| {
        let time = seconds / world.slots_worth();
        let range = if macs == 0.0 {
            "-".to_owned()
        } else {
            format!("{} to {}", human(RANGE.0 * time), human(RANGE.1 * time))
        };
        vec![name.to_owned(), format!("{:.2}", macs * 2.0 / 1e12), range]
    };
    let rows = [
        row("trials one by one", totals.alone, totals.seconds.alone),
        row("this plan, work shared", totals.shared, totals.seconds.shared),
        row("still to do", totals.outstanding, totals.seconds.outstanding),
    ];
    let saving = if totals.shared > 0.0 { totals.alone / totals.shared } else { 1.0 };
    format!(
        "cost\n{}\nsharing saves a factor of {saving:.2}; features take {:.1} MB; {} slot(s) of {}, their speed measured at first use",
        table(style, &["", "TFLOP", "time"], &rows),
        totals.bytes / 1e6,
        world.facts.slots,
        world.devices.names()
    )
}

/// What the stage takes that takes most of a GPU's memory, of those that are to run, and whether that is there.
fn memory(plan: &Plan, jobs: &Jobs, world: &World) -> Option<String> {
    let free = world.devices.memory(world.facts.slots)?;
    let bytes = |work: &Work| Some((train::device_bytes(work, None).ok()?, work.stage.kind()));
    let (most, kind) = streams::works(plan, jobs, world).iter().filter_map(bytes).max()?;
    let fits = if most as f64 <= free {
        ""
    } else {
        ": too much; a smaller `batch` or `input`, or more frozen layers, need less"
    };
    Some(format!(
        "memory\nthe largest stage ({kind}) takes about {:.2} GB of a GPU; a slot has {:.2} GB free{fits}",
        most as f64 / 1e9,
        free / 1e9
    ))
}

/// What the largest stage would gain on a GPU if its products rounded: f32 is the default, and leaves most of it idle.
fn precision(plan: &Plan, jobs: &Jobs, world: &World) -> Option<String> {
    world.devices.uuid()?;
    let subject = streams::largest(&streams::works(plan, jobs, world))?;
    if subject.precision != Precision::F32 {
        return None;
    }
    let plain = world.rates.pace(&subject).ok()?;
    let gain = |precision: &Precision| {
        world.devices.allow(&[Value::Text(precision.name().to_owned())]).ok()?;
        let gain = world.rates.pace(&Subject { precision: *precision, ..subject.clone() }).ok()? / plain;
        (gain > 1.0 + NOISE).then(|| format!("{gain:.1} times as fast with precision = \"{}\"", precision.name()))
    };
    let gains: Vec<String> = Precision::ALL.iter().filter_map(gain).collect();
    let graph = &subject.graph;
    (!gains.is_empty()).then(|| {
        format!(
            "precision\nf32; on this GPU the largest stage ({}) would run {}, under [train]",
            graph.arch,
            gains.join(", ")
        )
    })
}

fn human(seconds: f64) -> String {
    HumanDuration(Duration::from_secs_f64(seconds.clamp(0.0, 1e9))).to_string()
}

/// Cells that are one configuration, and the settings in which they differ without effect.
fn collapsed(plan: &Plan) -> Option<String> {
    const SHOWN: usize = 10;
    let groups = plan.collapsed();
    if groups.is_empty() {
        return None;
    }
    let mut lines: Vec<String> = groups.iter().take(SHOWN).map(|group| differing(plan, group)).collect();
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

/// `small-similar linear-probe, lr 0.1: backbone_lr = 0.001 | 0.01`.
fn differing(plan: &Plan, group: &[&Cell]) -> String {
    let asked: Vec<Layer> = group.iter().map(|cell| plan.asked(cell)).collect();
    let get = |layer: &Layer, key: &str| layer.get(key).map_or_else(|| "-".to_owned(), Value::to_string);
    let keys: std::collections::BTreeSet<&String> = asked.iter().flat_map(Layer::keys).collect();
    let parts: Vec<String> = keys
        .into_iter()
        .filter_map(|key| {
            let mut values: Vec<String> = Vec::new();
            for value in asked.iter().map(|layer| get(layer, key)) {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            (values.len() > 1).then(|| format!("{key} = {}", values.join(" | ")))
        })
        .collect();
    format!(
        "  {} {}, lr {}: {}",
        get(&asked[0], "scenario"),
        get(&asked[0], "recipe"),
        get(&asked[0], "lr"),
        parts.join(", ")
    )
}
