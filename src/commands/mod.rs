//! One file per verb. `run.rs` is the table of contents of the whole program.

mod budget;
mod bundle;
mod check;
mod class_names;
mod compare;
mod data;
mod devices;
mod doctor;
mod download;
mod export;
mod extract;
mod findings;
mod freezing;
mod gauge;
mod gc;
mod get;
mod gpus;
mod host;
mod hub;
mod hub_config;
mod init;
pub mod jobs;
mod keep;
mod labels;
mod look;
mod machine;
mod materials;
mod merge;
mod near;
mod opened;
mod plan;
mod predict;
mod prepare;
mod process;
mod progress;
mod rank;
mod ranked;
mod recommend;
mod recommended;
pub mod recorder;
mod report;
mod rerun;
pub mod run;
mod shape;
mod show;
mod snapshot;
mod specimens;
mod status;
mod streams;
mod summary;
mod trust;
mod tuning;
mod verify;
mod watch;
mod weights;
mod why;
mod worker;
pub mod world;

use std::io::IsTerminal;

use crate::cli::{Cli, Color, DataVerb, Published, Verb, WeightsVerb};
use crate::device::CpuPath;
use crate::experiment::problem::Problems;
use crate::outcome::says_disk_full;
use crate::plan::shard::Shard;
use crate::store::Unusable;
use crate::train::{Places, said};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Complete = 0,
    Unexpected = 1,
    BadExperiment = 2,
    NoDevice = 3,
    SomeFailed = 4,
    Outstanding = 5,
    Mismatch = 6,
    StoreUnusable = 7,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An asked-for device that cannot be used.
#[derive(Debug)]
pub struct NoDevice(pub String);

impl std::error::Error for NoDevice {}

impl std::fmt::Display for NoDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A disk that takes no more.
#[derive(Debug)]
pub struct DiskFull(pub String);

impl std::error::Error for DiskFull {}

impl std::fmt::Display for DiskFull {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that a person typed wrong, outside of an experiment file.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::error::Error for Usage {}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs the verb.
///
/// # Errors
/// Whatever stops it; `exit_code` tells what the program ends with.
pub fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let common = &cli.common;
    if let Some(path) = &common.cpu_path {
        CpuPath::choose(path).map_err(Usage)?;
    }
    match cli.verb {
        Verb::Init { template, output } => init::run(&template, &output),
        Verb::Check { asked, format } => check::run(&asked, format, common),
        Verb::Plan { asked, shard, budget, format } => plan::run(&asked, parsed(shard)?, budget, format, common),
        Verb::Run { asked, only, limit, budget, shard, no_share, format } => {
            let part = run::Part { only, limit, budget, shard: parsed(shard)?, no_share, again: None, format };
            run::run(&asked, &part, common)
        }
        Verb::Rerun { asked, trials, only } => {
            let part = run::Part {
                only,
                limit: None,
                budget: None,
                shard: None,
                no_share: false,
                again: Some(trials),
                format: Published::Table,
            };
            run::run(&asked, &part, common)
        }
        Verb::Merge { stores } => merge::run(&stores, common),
        Verb::Doctor { format } => doctor::run(format, common),
        Verb::Gc { cache_limit, dry_run, format } => gc::run(cache_limit.as_deref(), dry_run, format, common),
        Verb::Verify { asked, sample, all, format } => {
            verify::run(&asked, if all { usize::MAX } else { sample }, format, common)
        }
        Verb::Report { name, format } => report::run(name.as_deref(), format, common),
        Verb::Status { name, format } => status::run(name.as_deref(), format, common),
        Verb::Why { trial, format } => why::run(&trial, format, common),
        Verb::Watch { once, format } => watch::run(once, format, common),
        Verb::Show { trial, format } => show::run(&trial, format, common),
        Verb::Compare { one, other, format } => compare::run([&one, &other], format, common),
        Verb::Labels(asked) => labels::run(&asked, common),
        Verb::Data { what: Some(DataVerb::List { format }), .. } => get::list(format, common),
        Verb::Data { what: Some(DataVerb::Get { name, from }), .. } => get::dataset(&name, from.as_deref(), common),
        Verb::Data { target, splits: true, format, .. } => data::splits(&target.unwrap_or_default(), format, common),
        Verb::Data { target, corruptions: Some(page), input, reading, .. } => {
            let dataset = data::opened(&target.unwrap_or_default(), &reading, common)?;
            specimens::corruptions(&dataset, usize::from(input), &page)
        }
        Verb::Data { target, augmentations: Some(page), augment, input, reading, .. } => {
            let dataset = data::opened(&target.unwrap_or_default(), &reading, common)?;
            specimens::augmentations(&dataset, usize::from(input), augment.as_deref(), &page)
        }
        Verb::Data { target, near_duplicates, reading, format, .. } => {
            data::run(&target.unwrap_or_default(), near_duplicates, &reading, format, common)
        }
        Verb::Summary { arch, input, width, classes, no_top, freeze, toml, format } => {
            summary::run(summary::Asked { arch, input, width, classes, no_top, freeze, toml, format })
        }
        Verb::Extract(asked) => extract::run(&asked, common),
        Verb::Export { asked, trial: Some(trial), out, names, .. } => export::run(&asked, &trial, &out, names, common),
        Verb::Export { asked, best: Some(scenario), out, names, .. } => {
            export::run(&asked, &export::best(&asked, &scenario, common)?, &out, names, common)
        }
        Verb::Export { asked, out, .. } => export::bundle(&asked, &out, common),
        Verb::Predict(asked) => predict::run(&asked, common),
        Verb::Look(asked) => look::run(&asked, common),
        Verb::Rank(asked) => rank::run(&asked, common),
        Verb::Recommend(asked) => recommend::run(&asked, common),
        Verb::Weights { what: WeightsVerb::Convert { look, names, out } } => {
            weights::convert(&look, names, &out, common)
        }
        Verb::Weights { what: WeightsVerb::Get { file, sha256, from } } => {
            get::weights(&file, sha256.as_deref(), from.as_deref(), common)
        }
        Verb::Weights { what: WeightsVerb::List { format } } => weights::list(format, common),
        Verb::Weights { what: WeightsVerb::Inspect { look, format } } => weights::inspect(&look, format, common),
        Verb::Gauge { device } => gauge::run(&device),
        Verb::Worker { device, numerics, lanes, cache } => worker::run(&device, lanes, &Places { cache, numerics }),
    }
}

fn parsed(shard: Option<String>) -> anyhow::Result<Option<Shard>> {
    let shard = shard.map(|text| text.parse()).transpose();
    shard.map_err(|wrong: String| Usage(format!("--shard: {wrong}")).into())
}

/// What an error means for the shell.
pub fn exit_code(error: &anyhow::Error) -> Exit {
    let is = |found: bool, exit| found.then_some(exit);
    is(error.is::<Problems>() || error.is::<Usage>(), Exit::BadExperiment)
        .or(is(error.is::<NoDevice>(), Exit::NoDevice))
        .or(is(error.is::<Unusable>(), Exit::StoreUnusable))
        .unwrap_or(Exit::Unexpected)
}

/// What a person reads of an error.
pub fn message(error: &anyhow::Error, styled: bool) -> String {
    match error.downcast_ref::<Problems>() {
        Some(problems) => problems.render(styled),
        None if is_full(error) => format!("error: {}\n  = help: {DISK_FULL}", said(error)),
        None => format!("error: {}", said(error)),
    }
}

/// What to do then.
const DISK_FULL: &str = "make room (`tl-sweep gc --cache-limit 1GB` removes features and pixels), or name a store on another disk \
    with --db. Nothing that has finished is lost: the same command goes on from there";

/// Whether it is a full disk that stands behind an error.
fn is_full(error: &anyhow::Error) -> bool {
    error.is::<DiskFull>() || says_disk_full(&said(error))
}

/// Whether messages on stderr may have colours.
pub fn styled(color: Color) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal(),
    }
}

/// Tables for this terminal, or wide enough for a file.
fn table_style() -> crate::report::table::Style {
    let width = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = width.or_else(|| std::io::stdout().is_terminal().then(terminal_width)?).unwrap_or(140);
    crate::report::table::Style::Terminal { width }
}

fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col >= 40).then_some(size.ws_col)
}

/// Prints for machines: with a version, and only ever more of it.
fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Prints to stdout; a reader that has gone away is no error.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
