//! A store of one experiment alone, for others to read and repeat; and what it was made of.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::Store;
use super::query::ExperimentRow;

/// Each table, and which of its rows belong to the experiment `?1`. `whole` is the store that they come from.
const TABLES: &[(&str, &str)] = &[
    ("experiment", "id = ?1"),
    ("sweep", "experiment = ?1"),
    ("cell", "experiment = ?1"),
    ("planned", "experiment = ?1"),
    ("trial", "key IN (SELECT trial FROM planned WHERE experiment = ?1)"),
    ("curve", "trial IN (SELECT trial FROM planned WHERE experiment = ?1)"),
    ("prediction", "trial IN (SELECT trial FROM planned WHERE experiment = ?1)"),
    ("shifted", "trial IN (SELECT trial FROM planned WHERE experiment = ?1)"),
    ("audit", "trial IN (SELECT trial FROM planned WHERE experiment = ?1)"),
    ("split", "key IN (SELECT split FROM trial JOIN planned ON trial = trial.key WHERE experiment = ?1)"),
    ("dataset", "fingerprint IN (SELECT data FROM cell WHERE experiment = ?1)"),
    ("sample", "data IN (SELECT data FROM cell WHERE experiment = ?1)"),
    ("near_duplicate", "data IN (SELECT data FROM cell WHERE experiment = ?1)"),
    ("stage", "sweep IN (SELECT id FROM sweep WHERE experiment = ?1)"),
];

/// A dataset by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetPin {
    pub name: String,
    pub fingerprint: String,
    /// Of the archive, or of all files in their order.
    pub sha256: String,
}

/// Starting weights as the file names them: the SHA-256 of a weight file, the key of a pretraining, or `random`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartPin {
    pub weights: String,
    pub start: String,
    /// The SHA-256 of the tokenizer that reads class names for them, where they are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

/// One execution of the experiment, and what did it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Execution {
    pub started: String,
    /// Unknown of an older program.
    pub engine: Option<u32>,
    pub version: String,
    pub build: String,
    pub device: String,
    pub numerics: String,
    pub machine: String,
}

impl Store {
    /// Writes all that is known of an experiment, and nothing else, as a new store.
    ///
    /// # Errors
    /// One of the two stores cannot be used.
    pub fn part(&self, experiment: &ExperimentRow, path: &Path) -> anyhow::Result<()> {
        let own = self.connection.path().context("a store without a file")?;
        let mut part = Self::open(path)?;
        part.connection.execute("ATTACH ? AS whole", [own])?;
        let transaction = part.connection.transaction()?;
        for (table, condition) in TABLES {
            let copy = format!("INSERT INTO main.{table} SELECT * FROM whole.{table} WHERE {condition}");
            transaction.execute(&copy, [experiment.id]).with_context(|| format!("cannot copy the table {table}"))?;
        }
        transaction.commit()?;
        // One file, without a log beside it.
        Ok(part.connection.execute_batch("DETACH whole; PRAGMA journal_mode = DELETE;")?)
    }

    /// The datasets of an experiment.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn dataset_pins(&self, experiment: &ExperimentRow) -> anyhow::Result<Vec<DatasetPin>> {
        let text = "SELECT DISTINCT cell.dataset, fingerprint, sha256 FROM cell JOIN dataset ON fingerprint = data
                    WHERE experiment = ? ORDER BY 1, 2";
        let mut statement = self.connection.prepare(text)?;
        let pins = statement.query_map([experiment.id], |row| {
            Ok(DatasetPin { name: row.get(0)?, fingerprint: row.get(1)?, sha256: row.get(2)? })
        })?;
        Ok(pins.collect::<Result<_, _>>()?)
    }

    /// The starting weights of an experiment.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn start_pins(&self, experiment: &ExperimentRow) -> anyhow::Result<Vec<StartPin>> {
        let text = "SELECT weights, start, max(tokenizer) FROM cell WHERE experiment = ? GROUP BY 1, 2 ORDER BY 1, 2";
        let mut statement = self.connection.prepare(text)?;
        let pins = statement.query_map([experiment.id], |row| {
            Ok(StartPin { weights: row.get(0)?, start: row.get(1)?, tokenizer: row.get(2)? })
        })?;
        Ok(pins.collect::<Result<_, _>>()?)
    }

    /// Where and with what an experiment ran, the first time first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn executions(&self, experiment: &ExperimentRow) -> anyhow::Result<Vec<Execution>> {
        let text = "SELECT started, version, build, device, numerics, machine, engine FROM sweep WHERE experiment = ? ORDER BY id";
        let mut statement = self.connection.prepare(text)?;
        let all = statement.query_map([experiment.id], |row| {
            Ok(Execution {
                started: row.get(0)?,
                version: row.get(1)?,
                build: row.get(2)?,
                device: row.get(3)?,
                numerics: row.get(4)?,
                machine: row.get(5)?,
                engine: row.get(6)?,
            })
        })?;
        Ok(all.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_part() {
        let mut own: Vec<&str> = TABLES.iter().map(|(table, _)| *table).collect();
        own.sort_unstable();
        assert_eq!(crate::store::tests::tables(), own);
    }
}
