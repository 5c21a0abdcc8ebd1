//! `report [NAME]`: what was found.

use super::{Exit, findings, print, table_style};
use crate::cli::{Common, Format};
use crate::report::csv::Csv;
use crate::report::table::Style;
use crate::report::{json, table};
use crate::store::Store;
use crate::store::query::CIRCUMSTANCES;
use crate::store::schema::{RESULTS, SETTINGS};

pub fn run(name: Option<&str>, format: Format, common: &Common) -> anyhow::Result<Exit> {
    let store = Store::read(&common.db)?;
    let text = match format {
        Format::Table => table::report(&findings::gather(&store, name)?, table_style()),
        Format::Md => table::report(&findings::gather(&store, name)?, Style::Markdown),
        Format::Json => serde_json::to_string_pretty(&json::report(&findings::gather(&store, name)?))?,
        Format::Csv => trials_csv(&store, name)?,
    };
    print(text.trim_end())?;
    Ok(Exit::Complete)
}

/// All trials ordered by key, labels and results first, circumstances last.
pub fn trials_csv(store: &Store, name: Option<&str>) -> anyhow::Result<String> {
    let columns: Vec<&str> =
        ["trial", "replicate"].iter().chain(SETTINGS).chain(RESULTS).chain(CIRCUMSTANCES).copied().collect();
    let mut csv = Csv::new(&columns)?;
    store.trials_by_key(&findings::experiment(store, name)?, &mut |mut row| {
        row.columns.insert("trial", row.key.to_string());
        row.columns.insert("replicate", row.replicate.to_string());
        csv.push(&row.columns)
    })?;
    csv.text()
}
