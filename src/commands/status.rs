//! `status [NAME]`: how far each experiment is, or the trials of one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Exit, findings, print, report, table_style};
use crate::cli::{Common, Format};
use crate::report::csv;
use crate::report::findings::fraction;
use crate::report::naming::shown;
use crate::report::table::{Style, table};
use crate::store::Store;
use crate::store::query::TrialRow;
use crate::store::schema::SETTINGS;

pub fn run(name: Option<&str>, format: Format, common: &Common) -> anyhow::Result<Exit> {
    let store = Store::read(&common.db)?;
    let style = if format == Format::Md { Style::Markdown } else { table_style() };
    let text = match (name, format) {
        (Some(name), Format::Csv) => report::trials_csv(&store, Some(name))?,
        (Some(name), Format::Json) => {
            let rows = store.trials(&findings::experiment(&store, Some(name))?)?;
            let trials: Vec<Value> = rows
                .iter()
                .map(|row| json!({"trial": row.key, "replicate": row.replicate, "columns": row.columns}))
                .collect();
            serde_json::to_string_pretty(&json!({"version": 1, "experiment": name, "trials": trials}))?
        }
        (Some(name), _) => trials(style, &store.trials(&findings::experiment(&store, Some(name))?)?),
        (None, Format::Json) => serde_json::to_string_pretty(&json!({"version": 1, "experiments": store.overview()?}))?,
        (None, Format::Csv) => csv::rows(COLUMNS, store.overview()?.iter())?,
        (None, _) => overview(style, &store.overview()?),
    };
    print(text.trim_end())?;
    Ok(Exit::Complete)
}

const COLUMNS: &[&str] = &["name", "trials", "done", "diverged", "failed", "last_sweep", "started"];

fn overview(style: Style, rows: &[BTreeMap<String, String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| COLUMNS.iter().map(|column| row.get(*column).cloned().unwrap_or("0".to_owned())).collect())
        .collect();
    table(style, &["experiment", "trials", "done", "diverged", "failed", "last sweep", "started"], &rows)
}

fn trials(style: Style, rows: &[TrialRow]) -> String {
    let settings = varying(rows);
    let cells = |row: &TrialRow| {
        let number = |column: &str| row.number(column).map_or_else(String::new, fraction);
        let mut flags = Vec::new();
        for flag in ["at_chance", "under_trained", "stopped_early"] {
            flags.extend(row.flag(flag).then(|| flag.replace('_', "-")));
        }
        flags.extend(row.columns.get("message").cloned());
        let text = |column: &str| shown(row.text(column));
        let mut cells = vec![row.key.short(), text("scenario"), text("recipe")];
        cells.extend(settings.iter().map(|column| text(column)));
        cells.extend([
            row.replicate.to_string(),
            row.text("status").to_owned(),
            number("val_accuracy"),
            number("test_accuracy"),
            row.number("seconds").map_or_else(String::new, |seconds| format!("{seconds:.1}")),
            flags.join(", "),
        ]);
        cells
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let mut heading = vec!["trial", "scenario", "recipe"];
    heading.extend(&settings);
    heading.extend(["#", "status", "val", "test", "s", "notes"]);
    table(style, &heading, &rows)
}

/// The settings in which trials of one recipe in one scenario differ.
fn varying(rows: &[TrialRow]) -> Vec<&'static str> {
    let differs = |column: &&&str| {
        let mut known: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        rows.iter().any(|row| {
            let value = row.text(column);
            *known.entry((row.text("scenario"), row.text("recipe"))).or_insert(value) != value
        })
    };
    SETTINGS.iter().filter(differs).copied().collect()
}
