//! `why TRIAL`: why a trial stands as it does.

use std::collections::BTreeMap;

use super::{Exit, Usage, findings, print, print_json};
use crate::cli::{Answer, Common};
use crate::report::reasons::{Known, reasons};
use crate::store::Store;
use crate::store::schema::SETTINGS;

pub fn run(prefix: &str, format: Answer, common: &Common) -> anyhow::Result<Exit> {
    let store = Store::read(&common.db)?;
    let (experiment, trial) = store.find(prefix).map_err(|error| Usage(format!("{error:#}")))?;
    let row = findings::experiment(&store, Some(&experiment))?;
    let mut cells: Vec<BTreeMap<&'static str, String>> = Vec::new();
    store.trials_of(&row, trial.key, &mut |cell| {
        cells.push(cell.columns.into_iter().filter(|(name, _)| SETTINGS.contains(name)).collect());
        Ok(())
    })?;
    let mut others = store.experiments_of(trial.key)?;
    others.retain(|name| *name != experiment);
    let tested = trial.number("test_loss").is_some();
    let test = if tested { Some(store.test_answers(trial.key)?.truth) } else { None };
    let test = test.map(|truth| {
        let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
        truth.iter().for_each(|class| *sizes.entry(*class).or_default() += 1);
        (truth.len(), sizes.into_values().max().unwrap_or(0))
    });
    let ended = store.ended(&row)?;
    let known = Known {
        key: trial.key,
        columns: &trial.columns,
        cells: &cells,
        others: &others,
        curve: &store.curve(trial.key)?,
        test,
        ended: ended.as_deref(),
        findings: &findings::gather(&store, Some(&experiment))?,
    };
    let found = reasons(&known);
    if format == Answer::Json {
        let list: Vec<_> =
            found.iter().map(|(about, reason)| serde_json::json!({"about": about, "reason": reason})).collect();
        let json = serde_json::json!({"version": 1, "experiment": experiment, "trial": trial.key, "reasons": list});
        print_json(&json)?;
        return Ok(Exit::Complete);
    }
    print(&format!(
        "trial {} of '{experiment}': {} in {}, replicate {}\n",
        trial.key.short(),
        trial.text("recipe"),
        trial.text("scenario"),
        trial.replicate
    ))?;
    for (about, reason) in found {
        print(&format!("{about:>14}  {reason}"))?;
    }
    Ok(Exit::Complete)
}
