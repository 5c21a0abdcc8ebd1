//! How every planned trial of an experiment stands, row by row: what reports need, and no more of it than that.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use rusqlite::params;

use super::Store;
use super::query::{ExperimentRow, named};
use super::schema::SETTINGS;
use crate::expense::Expense;
use crate::key::Key;

/// A planned trial. The replicates of a cell have one table of settings.
pub struct Standing {
    pub key: Key,
    /// Of the settings that have an effect.
    pub cell: Key,
    pub replicate: usize,
    /// done, diverged, failed, blocked or planned.
    pub status: String,
    pub settings: Rc<BTreeMap<&'static str, String>>,
    /// The experiment's metric.
    pub val: Option<f64>,
    pub test: Option<f64>,
    pub at_chance: bool,
    pub under_trained: bool,
    pub seconds: f64,
    pub numerics: Option<String>,
}

impl Store {
    /// Names of an experiment's scenarios on a dataset of these very images.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn scenarios_on(&self, experiment: &ExperimentRow, data: Key) -> anyhow::Result<Vec<String>> {
        let text =
            "SELECT scenario FROM cell WHERE experiment = ? AND data = ? GROUP BY scenario ORDER BY min(position)";
        let mut statement = self.connection.prepare(text)?;
        let names = statement.query_map(params![experiment.id, data.to_string()], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    }

    /// What a trial of each cell of an experiment takes, as far as it is known.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn expenses(&self, experiment: &ExperimentRow) -> anyhow::Result<HashMap<Key, Expense>> {
        let text = "SELECT key, expense FROM cell WHERE experiment = ? AND expense IS NOT NULL";
        let mut statement = self.connection.prepare(text)?;
        let mut rows = statement.query(params![experiment.id])?;
        let mut expenses = HashMap::new();
        while let Some(row) = rows.next()? {
            let expense = serde_json::from_str(row.get_ref(1)?.as_str()?)?;
            expenses.extend(Key::parse(row.get_ref(0)?.as_str()?).map(|key| (key, expense)));
        }
        Ok(expenses)
    }

    /// Hands over all planned trials of an experiment, in the order of the cross.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn standings(&self, experiment: &ExperimentRow, mut take: impl FnMut(Standing)) -> anyhow::Result<()> {
        let metric = experiment.metric.replace('-', "_");
        let settings = SETTINGS.iter().map(|name| format!("cell.{name}")).collect::<Vec<_>>().join(", ");
        let mut statement = self.connection.prepare(&format!(
            "SELECT planned.position, planned.replicate, planned.trial, cell.key, coalesce(trial.status, 'planned'),
             trial.val_{metric}, trial.test_{metric}, trial.at_chance, trial.under_trained, trial.seconds, trial.numerics, {settings}
             FROM planned JOIN cell ON cell.experiment = planned.experiment AND cell.position = planned.position
             LEFT JOIN trial ON trial.key = planned.trial
             WHERE planned.experiment = ? ORDER BY planned.position, planned.replicate"
        ))?;
        let mut rows = statement.query(params![experiment.id])?;
        let mut last: Option<(i64, Rc<BTreeMap<&'static str, String>>)> = None;
        while let Some(row) = rows.next()? {
            let position = row.get(0)?;
            let settings = match &last {
                Some((known, settings)) if *known == position => settings.clone(),
                _ => Rc::new(named(row, SETTINGS.iter().copied(), 11)),
            };
            last = Some((position, settings.clone()));
            let key = |index: usize| anyhow::Ok(Key::parse(row.get_ref(index)?.as_str()?));
            let (Some(trial), Some(cell)) = (key(2)?, key(3)?) else {
                anyhow::bail!("the store names a trial by something that is no key");
            };
            take(Standing {
                key: trial,
                cell,
                replicate: row.get(1)?,
                status: row.get(4)?,
                settings,
                val: row.get(5)?,
                test: row.get(6)?,
                at_chance: row.get::<_, Option<bool>>(7)?.unwrap_or(false),
                under_trained: row.get::<_, Option<bool>>(8)?.unwrap_or(false),
                seconds: row.get::<_, Option<f64>>(9)?.unwrap_or(0.0),
                numerics: row.get(10)?,
            });
        }
        Ok(())
    }
}
