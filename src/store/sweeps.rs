//! What is read of sweeps: how they ended, what they cost, what running trials again alone has found.

use rusqlite::{OptionalExtension, Row};

use super::Store;
use super::query::ExperimentRow;

/// What sweeps took, and in multiply-accumulates what they did and what they spared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Savings {
    pub seconds: f64,
    pub forecast: f64,
    pub alone: f64,
    pub shared: f64,
}

/// The sweep that was begun last.
#[derive(Clone, Debug)]
pub struct LastSweep {
    pub experiment: String,
    pub started: String,
    /// None: still running, or killed.
    pub finished: Option<String>,
    /// complete, failures, stopped or no device.
    pub ended: Option<String>,
}

impl Store {
    /// The sweep that was begun last; none if there was none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn last_sweep(&self) -> anyhow::Result<Option<LastSweep>> {
        let text = "SELECT experiment.name, sweep.started, sweep.finished, sweep.ended FROM sweep
                    JOIN experiment ON experiment.id = sweep.experiment ORDER BY sweep.id DESC LIMIT 1";
        let read = |row: &Row| {
            let (experiment, started) = (row.get(0)?, row.get(1)?);
            Ok(LastSweep { experiment, started, finished: row.get(2)?, ended: row.get(3)? })
        };
        Ok(self.connection.query_row(text, [], read).optional()?)
    }

    /// How the last sweep of an experiment ended; none where it is running or was killed.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn ended(&self, experiment: &ExperimentRow) -> anyhow::Result<Option<String>> {
        let text = "SELECT ended FROM sweep WHERE experiment = ? ORDER BY id DESC LIMIT 1";
        Ok(self.connection.query_row(text, [experiment.id], |row| row.get(0)).optional()?.flatten())
    }

    /// How many trials of an experiment were run again alone, and how many of them gave something else.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audits(&self, experiment: &ExperimentRow) -> anyhow::Result<(usize, usize)> {
        Ok(self.connection.query_row(
            "SELECT count(*), coalesce(sum(1 - equal), 0) FROM (
               SELECT trial, equal, max(at) FROM audit WHERE trial IN (SELECT trial FROM planned WHERE experiment = ?) GROUP BY trial)",
            [experiment.id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?)
    }

    /// What the sweeps of an experiment cost so far.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn savings(&self, experiment: &ExperimentRow) -> anyhow::Result<Savings> {
        Ok(self.connection.query_row(
            "SELECT coalesce(sum(seconds), 0), coalesce(sum(forecast), 0), coalesce(sum(macs_alone), 0), coalesce(sum(macs_shared), 0)
             FROM sweep WHERE experiment = ? AND seconds IS NOT NULL",
            [experiment.id],
            |row| {
                Ok(Savings { seconds: row.get(0)?, forecast: row.get(1)?, alone: row.get(2)?, shared: row.get(3)? })
            },
        )?)
    }
}
