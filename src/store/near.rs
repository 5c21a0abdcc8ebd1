//! Test images that are training images once more: what was found of each dataset, and which of them a trial met.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::params;

use super::Store;
use super::query::ExperimentRow;
use crate::key::Key;

/// How many test images of a dataset have near-duplicates among the images that are trained or validated on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearDuplicates {
    pub dataset: String,
    pub near: usize,
    /// All test images.
    pub of: usize,
}

impl Store {
    /// Writes pairs of a test and a training sample, as positions, with their distance and whether one is mirrored.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn near_duplicates(
        &mut self,
        data: Key,
        pairs: impl Iterator<Item = (u32, u32, f64, bool)>,
    ) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut insert = transaction.prepare("INSERT OR REPLACE INTO near_duplicate VALUES (?, ?, ?, ?, ?)")?;
        for (test, train, distance, mirrored) in pairs {
            insert.execute(params![data.to_string(), test, train, distance, mirrored])?;
        }
        drop(insert);
        Ok(transaction.commit()?)
    }

    /// The datasets of an experiment that have near-duplicates.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn near_of(&self, experiment: &ExperimentRow) -> anyhow::Result<Vec<NearDuplicates>> {
        let mut statement = self.connection.prepare(
            "SELECT own.dataset, count(DISTINCT near_duplicate.test),
                    (SELECT count(*) FROM sample WHERE sample.data = own.data AND part IN ('test', 'fold'))
             FROM (SELECT DISTINCT dataset, data FROM cell WHERE experiment = ?) AS own
             JOIN near_duplicate ON near_duplicate.data = own.data
             JOIN sample ON sample.data = own.data AND sample.position = near_duplicate.test AND sample.origin IS NULL
             GROUP BY own.dataset, own.data ORDER BY 1",
        )?;
        let rows = statement.query_map([experiment.id], |row| {
            Ok(NearDuplicates { dataset: row.get(0)?, near: row.get(1)?, of: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The same of other datasets that are tested as well, each once.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn near_of_others(&self, experiment: &ExperimentRow) -> anyhow::Result<Vec<NearDuplicates>> {
        let mut statement = self.connection.prepare(
            "SELECT origin, count(DISTINCT near_duplicate.test),
                    (SELECT count(*) FROM sample AS every WHERE every.data = sample.data AND every.origin = sample.origin)
             FROM sample JOIN near_duplicate ON near_duplicate.data = sample.data AND near_duplicate.test = sample.position
             WHERE origin IS NOT NULL AND sample.data IN (SELECT data FROM cell WHERE experiment = ?)
             GROUP BY sample.data, origin ORDER BY 1",
        )?;
        let rows = statement.query_map([experiment.id], |row| {
            Ok(NearDuplicates { dataset: row.get(0)?, near: row.get(1)?, of: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The folds of an experiment's datasets that have some, and how many images are in them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn folds_of(&self, experiment: &ExperimentRow) -> anyhow::Result<BTreeMap<String, (usize, usize)>> {
        let mut statement = self.connection.prepare(
            "SELECT DISTINCT cell.dataset, dataset.folds,
                    (SELECT count(*) FROM sample WHERE sample.data = cell.data AND part = 'fold')
             FROM cell JOIN dataset ON dataset.fingerprint = cell.data
             WHERE cell.experiment = ? AND dataset.folds IS NOT NULL",
        )?;
        let rows = statement.query_map([experiment.id], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The test images of a trial, as positions in the dataset, that it has trained or validated on a near-duplicate of:
    /// validation chooses, and with `refit` it is trained on as well.
    ///
    /// # Errors
    /// The trial has no split, or the store cannot be read.
    pub fn near_in(&self, trial: Key) -> anyhow::Result<BTreeSet<u32>> {
        let (data, train, val, test): (String, Vec<u8>, Vec<u8>, Vec<u8>) = self.connection.query_row(
            "SELECT split.data, split.train, split.val, split.test FROM trial JOIN split ON split.key = trial.split WHERE trial.key = ?",
            [trial.to_string()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )?;
        let mut statement = self.connection.prepare_cached("SELECT test, train FROM near_duplicate WHERE data = ?")?;
        let pairs = statement.query_map([data], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?)))?;
        let read: BTreeSet<u32> = positions(&train).chain(positions(&val)).collect();
        let pairs: Vec<(u32, u32)> = pairs.collect::<Result<_, _>>()?;
        let near: BTreeSet<u32> =
            pairs.into_iter().filter(|(_, train)| read.contains(train)).map(|pair| pair.0).collect();
        Ok(positions(&test).filter(|sample| near.contains(sample)).collect())
    }
}

fn positions(list: &[u8]) -> impl Iterator<Item = u32> {
    list.chunks_exact(4).map(|at| u32::from_le_bytes([at[0], at[1], at[2], at[3]]))
}
