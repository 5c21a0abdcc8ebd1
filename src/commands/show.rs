//! `show TRIAL`: everything about one trial.

use super::{Exit, Usage, findings, print, print_json, table_style};
use crate::cli::{Common, Sheet};
use crate::report::errors::Errors;
use crate::report::findings::fraction;
use crate::report::table::{Style, table};
use crate::store::Store;
use crate::store::query::CIRCUMSTANCES;
use crate::store::schema::{RESULTS, SETTINGS};

/// Images that are named, at most.
const MISSED: usize = 12;

pub fn run(prefix: &str, format: Sheet, common: &Common) -> anyhow::Result<Exit> {
    let store = Store::read(&common.db)?;
    let (experiment, trial) = store.find(prefix).map_err(|error| Usage(format!("{error:#}")))?;
    let curve = store.curve(trial.key)?;
    let shifted = store.shifted_of(trial.key)?;
    let named = |column: &str| trial.columns.get(column).map_or("", String::as_str);
    let errors = trial
        .number("test_loss")
        .is_some()
        .then(|| findings::wrong(&store, named("scenario"), named("recipe"), &[trial.key]))
        .transpose()?;
    if format == Sheet::Json {
        let json = serde_json::json!({"version": 1, "experiment": experiment, "trial": trial.key, "replicate": trial.replicate, "columns": trial.columns, "curve": curve, "errors": errors, "shifted": shifted});
        print_json(&json)?;
        return Ok(Exit::Complete);
    }
    let style = if format == Sheet::Md { Style::Markdown } else { table_style() };
    print(&format!("trial {} of '{experiment}', replicate {}\n", trial.key, trial.replicate))?;
    for (title, names) in
        [("settings that have an effect", SETTINGS), ("results", RESULTS), ("circumstances", CIRCUMSTANCES)]
    {
        let rows: Vec<Vec<String>> =
            names.iter().filter_map(|name| Some(vec![(*name).to_owned(), trial.columns.get(*name)?.clone()])).collect();
        print(&format!("{title}\n{}\n", table(style, &["column", "value"], &rows)))?;
    }
    let rows: Vec<Vec<String>> = curve
        .iter()
        .map(|[step, epoch, lr, train, val, accuracy]| {
            vec![
                step.to_string(),
                format!("{epoch:.1}"),
                format!("{lr:.2e}"),
                format!("{train:.4}"),
                format!("{val:.4}"),
                format!("{accuracy:.3}"),
            ]
        })
        .collect();
    print(&format!(
        "curve\n{}",
        table(style, &["step", "epoch", "lr", "train loss", "val loss", "val accuracy"], &rows)
    ))?;
    if !shifted.is_empty() {
        let row = |(dataset, images, scores): &(String, usize, [f64; 3])| {
            [dataset.clone(), images.to_string()].into_iter().chain(scores.map(fraction)).collect()
        };
        let rows: Vec<Vec<String>> = shifted.iter().map(row).collect();
        let heading = ["tested as well", "images", "accuracy", "balanced", "macro F1"];
        print(&format!("\nunder shift\n{}", table(style, &heading, &rows)))?;
    }
    if let Some(errors) = errors {
        let rows = table(style, &Errors::HEADING, &errors.rows(usize::MAX));
        print(&format!("\ntest by class\n{rows}\n\n{}", errors.missed_words(MISSED)))?;
    }
    Ok(Exit::Complete)
}
