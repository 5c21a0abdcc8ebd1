//! `rerun FILE TRIAL...`: finished trials run again, shared as in any sweep; their results take the place of the old ones, which
//! they are compared with.

use std::collections::HashSet;

use super::verify::difference;
use super::{Exit, Usage, print, table_style};
use crate::key::Key;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::report::table::table;
use crate::store::Store;

/// The trials that run again, and what came of those that have.
pub struct Again {
    pub keys: HashSet<Key>,
    /// Key, name, and what differs from before.
    found: Vec<(Key, String, String)>,
}

impl Again {
    /// Finished trials of `cells` whose keys start with one of `prefixes`; all of them without any.
    ///
    /// # Errors
    /// A prefix that matches no finished trial, or several; or there is no finished one at all.
    pub fn chosen(prefixes: &[String], plan: &Plan, cells: &[usize], finished: &HashSet<Key>) -> anyhow::Result<Self> {
        let keys = plan.trials(cells).into_iter().map(|trial| trial.key);
        let keys: HashSet<Key> = keys.filter(|key| finished.contains(key)).collect();
        anyhow::ensure!(
            !keys.is_empty(),
            Usage("none of these trials has a result: `tl-sweep run` runs them".to_owned())
        );
        if prefixes.is_empty() {
            return Ok(Self { keys, found: Vec::new() });
        }
        let mut chosen = HashSet::new();
        for prefix in prefixes {
            let mut of = keys.iter().filter(|key| key.to_string().starts_with(prefix.as_str()));
            match (of.next(), of.count()) {
                (Some(key), 0) => drop(chosen.insert(*key)),
                (None, _) => {
                    return Err(Usage(format!(
                        "no finished trial of this file has a key that starts with '{prefix}' (`tl-sweep status NAME` lists them)"
                    ))
                    .into());
                }
                (Some(_), more) => {
                    return Err(
                        Usage(format!("{} trials' keys start with '{prefix}': give more digits", more + 1)).into()
                    );
                }
            }
        }
        Ok(Self { keys: chosen, found: Vec::new() })
    }

    /// Compares with what the store holds, before that is replaced.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn compare(&mut self, key: Key, name: &str, outcome: &Outcome, store: &Store) -> anyhow::Result<()> {
        if self.keys.contains(&key) {
            self.found.push((key, name.to_owned(), difference(&store.recorded(key)?, outcome)));
        }
        Ok(())
    }

    /// Says what came of it; `exit` is how the sweep ended.
    ///
    /// # Errors
    /// Nothing can be printed.
    pub fn say(&self, exit: Exit) -> anyhow::Result<Exit> {
        let row = |(key, name, difference): &(Key, String, String)| {
            let found = if difference.is_empty() { "the same as before" } else { difference };
            vec![key.short(), name.clone(), found.to_owned()]
        };
        let rows: Vec<Vec<String>> = self.found.iter().map(row).collect();
        print(&table(table_style(), &["trial", "", "this time"], &rows))?;
        let wrong = self.found.iter().filter(|(_, _, difference)| !difference.is_empty()).count();
        print(&format!(
            "{} of {} trials have run again, {wrong} gave something else; the store holds what they gave this time",
            self.found.len(),
            self.keys.len()
        ))?;
        Ok(if exit == Exit::Complete && wrong > 0 { Exit::Mismatch } else { exit })
    }
}
