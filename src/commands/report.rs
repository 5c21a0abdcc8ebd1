//! `report [NAME]`: what was found.

use super::{Exit, findings, print, table_style};
use crate::cli::{Common, Published};
use crate::report::csv::Csv;
use crate::report::table::Style;
use crate::report::{html, json, latex, table};
use crate::store::Store;
use crate::store::query::CIRCUMSTANCES;
use crate::store::schema::{RESULTS, SETTINGS};

pub fn run(name: Option<&str>, format: Published, common: &Common) -> anyhow::Result<Exit> {
    let store = Store::read(&common.db)?;
    let found = || findings::gather(&store, name);
    let text = match format {
        Published::Table => table::report(&found()?, table_style()),
        Published::Md => table::report(&found()?, Style::Markdown),
        Published::Json => {
            let found = found()?;
            serde_json::to_string_pretty(&json::report(&found, &findings::errors(&store, &found)?))?
        }
        Published::Csv => trials_csv(&store, name)?,
        Published::Latex => latex::report(&found()?),
        Published::Html => {
            let found = found()?;
            html::report(&found, &findings::errors(&store, &found)?)
        }
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
