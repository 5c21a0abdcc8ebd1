//! `report [NAME]`: what was found.

use std::collections::{BTreeMap, BTreeSet};

use super::{Exit, findings, print, table_style};
use crate::cli::{Common, Published};
use crate::report::csv::Csv;
use crate::report::findings::Findings;
use crate::report::table::Style;
use crate::report::{html, json, latex, table};
use crate::store::Store;
use crate::store::query::CIRCUMSTANCES;
use crate::store::schema::{RESULTS, SETTINGS};

pub fn run(name: Option<&str>, format: Published, common: &Common) -> anyhow::Result<Exit> {
    let store = Store::read(&common.db)?;
    let text = match format {
        Published::Csv => trials_csv(&store, name)?,
        _ => published(&findings::gather(&store, name)?, &store, format)?,
    };
    print(text.trim_end())?;
    Ok(Exit::Complete)
}

/// What was found, as it is asked for.
///
/// # Errors
/// The store cannot be read.
pub fn published(found: &Findings, store: &Store, format: Published) -> anyhow::Result<String> {
    Ok(match format {
        Published::Table => table::report(found, table_style()),
        Published::Md => table::report(found, Style::Markdown),
        Published::Json => serde_json::to_string_pretty(&json::report(found, &findings::errors(store, found)?))?,
        Published::Csv => trials_csv(store, Some(&found.experiment))?,
        Published::Latex => latex::report(found),
        Published::Html => html::report(found, &findings::errors(store, found)?),
    })
}

/// All trials ordered by key, labels and results first, then the metric on each dataset that is tested as well (`on NAME`),
/// circumstances last.
pub fn trials_csv(store: &Store, name: Option<&str>) -> anyhow::Result<String> {
    let experiment = findings::experiment(store, name)?;
    let others: BTreeSet<String> = store.also_tested(&experiment)?.into_values().flatten().collect();
    let others: Vec<(String, String)> = others.into_iter().map(|other| (format!("on {other}"), other)).collect();
    let scores = store.shifted_scores(&experiment)?;
    let results = ["trial", "replicate"].iter().chain(SETTINGS).chain(RESULTS).copied();
    let shifted = others.iter().map(|(column, _)| column.as_str());
    let columns: Vec<&str> = results.chain(shifted).chain(CIRCUMSTANCES.iter().copied()).collect();
    let mut csv = Csv::new(&columns)?;
    store.trials_by_key(&experiment, &mut |row| {
        let mut columns: BTreeMap<&str, String> = row.columns;
        columns.insert("trial", row.key.to_string());
        columns.insert("replicate", row.replicate.to_string());
        let score = |other: &str| scores.get(&row.key)?.get(other).map(f64::to_string);
        columns.extend(others.iter().filter_map(|(column, other)| Some((column.as_str(), score(other)?))));
        csv.push(&columns)
    })?;
    csv.text()
}
