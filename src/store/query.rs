//! What is read: which trials are there, the rows of an experiment, predictions for paired comparison.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Row};

use super::Store;
use super::answers::u16s;
use super::schema::{RESULTS, SETTINGS};
use crate::key::Key;

/// An experiment as it was last run.
#[derive(Clone, Debug)]
pub struct ExperimentRow {
    pub id: i64,
    pub name: String,
    pub question: String,
    pub metric: String,
    pub replicates: usize,
    /// On how many of them settings are compared.
    pub tune_replicates: usize,
    /// On what share of the budget they are compared first.
    pub tune_share: Option<f64>,
    pub max_replicates: usize,
    pub rules: String,
    pub scenarios: String,
    pub text: String,
}

/// One planned trial with what is known of it. Columns by name, as text; absent where NULL.
#[derive(Clone, Debug)]
pub struct TrialRow {
    pub position: usize,
    pub replicate: usize,
    pub key: Key,
    /// Of the settings that have an effect.
    pub cell: Key,
    pub columns: BTreeMap<&'static str, String>,
}

impl TrialRow {
    pub fn text(&self, column: &str) -> &str {
        self.columns.get(column).map_or("", String::as_str)
    }

    pub fn number(&self, column: &str) -> Option<f64> {
        self.columns.get(column)?.parse().ok()
    }

    pub fn flag(&self, column: &str) -> bool {
        self.text(column) == "1"
    }
}

/// The columns that circumstance decides.
pub const CIRCUMSTANCES: &[&str] = &[
    "seconds",
    "macs",
    "numerics",
    "device",
    "version",
    "build",
    "finished",
    "failure",
    "message",
    "warnings",
    "group_size",
];

/// All results of a finished trial, for comparison with another run.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub status: String,
    pub numerics: String,
    pub steps: usize,
    pub val_loss: Option<f64>,
    pub test_loss: Option<f64>,
    /// step, epoch, lr, train_loss, val_loss, val_accuracy.
    pub curve: Vec<[f64; 6]>,
    pub test_predicted: Vec<u16>,
    /// On the test images of other datasets.
    pub shifted_predicted: Vec<u16>,
    /// Trials that ran together.
    pub group: usize,
}

impl Store {
    /// Keys of all trials that need not run again: done or diverged.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn finished(&self) -> anyhow::Result<HashSet<Key>> {
        let mut statement = self.connection.prepare("SELECT key FROM trial WHERE status IN ('done', 'diverged')")?;
        let keys = statement.query_map([], |row| row.get::<_, String>(0))?;
        Ok(keys.collect::<Result<Vec<_>, _>>()?.iter().filter_map(|key| Key::parse(key)).collect())
    }

    /// How all trials with a result stand, with their validation metric, such as `balanced-accuracy`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn validations(&self, metric: &str) -> anyhow::Result<HashMap<Key, (String, Option<f64>)>> {
        let column = metric.replace('-', "_");
        let mut statement = self.connection.prepare(&format!("SELECT key, status, val_{column} FROM trial"))?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, (row.get(1)?, row.get(2)?))))?;
        let rows = rows.collect::<Result<Vec<_>, _>>()?.into_iter();
        Ok(rows.filter_map(|(key, result)| Some((Key::parse(&key)?, result))).collect())
    }

    /// Numerics classes of the finished trials among `keys`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn numerics_of(&self, keys: &HashSet<Key>) -> anyhow::Result<BTreeMap<String, usize>> {
        let mut statement =
            self.connection.prepare("SELECT key, numerics FROM trial WHERE status IN ('done', 'diverged')")?;
        let mut found = BTreeMap::new();
        for row in statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))? {
            let (key, numerics) = row?;
            if Key::parse(&key).is_some_and(|key| keys.contains(&key)) {
                *found.entry(numerics).or_default() += 1;
            }
        }
        Ok(found)
    }

    /// The experiment of that name, or the last one run.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn experiment(&self, name: Option<&str>) -> anyhow::Result<Option<ExperimentRow>> {
        let columns = "SELECT experiment.id, name, question, metric, replicates, rules, scenarios, experiment.text,
                       coalesce(tune_replicates, replicates), coalesce(max_replicates, replicates), tune_share FROM experiment";
        let read = |row: &Row| {
            Ok(ExperimentRow {
                id: row.get(0)?,
                name: row.get(1)?,
                question: row.get(2)?,
                metric: row.get(3)?,
                replicates: row.get(4)?,
                rules: row.get(5)?,
                scenarios: row.get(6)?,
                text: row.get(7)?,
                tune_replicates: row.get(8)?,
                max_replicates: row.get(9)?,
                tune_share: row.get(10)?,
            })
        };
        Ok(match name {
            Some(name) => self.connection.query_row(&format!("{columns} WHERE name = ?"), [name], read).optional()?,
            None => {
                let last =
                    format!("{columns} JOIN sweep ON sweep.experiment = experiment.id ORDER BY sweep.id DESC LIMIT 1");
                self.connection.query_row(&last, [], read).optional()?
            }
        })
    }

    /// Names of all experiments, with planned and finished trials and the state of the last sweep.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn overview(&self) -> anyhow::Result<Vec<BTreeMap<String, String>>> {
        let text = "SELECT experiment.name, count(*) AS trials, sum(trial.status IN ('done', 'diverged')) AS done,
                    sum(trial.status = 'diverged') AS diverged, sum(trial.status IN ('failed', 'blocked')) AS failed,
                    (SELECT coalesce(ended, 'running or killed') FROM sweep WHERE sweep.experiment = experiment.id ORDER BY id DESC LIMIT 1) AS last_sweep,
                    (SELECT started FROM sweep WHERE sweep.experiment = experiment.id ORDER BY id DESC LIMIT 1) AS started
                    FROM experiment JOIN planned ON planned.experiment = experiment.id LEFT JOIN trial ON trial.key = planned.trial
                    GROUP BY experiment.id ORDER BY experiment.id";
        let mut statement = self.connection.prepare(text)?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let rows = statement.query_map([], |row| Ok(named(row, names.iter().cloned(), 0)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All planned trials of an experiment, in the order of the cross.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn trials(&self, experiment: &ExperimentRow) -> anyhow::Result<Vec<TrialRow>> {
        let mut found = Vec::new();
        self.each(experiment, None, "result.position, result.replicate", &mut |row| {
            found.push(row);
            Ok(())
        })?;
        Ok(found)
    }

    /// Hands over all planned trials of an experiment one by one, in the order of their keys.
    ///
    /// # Errors
    /// The store cannot be read, and those of `take`.
    pub fn trials_by_key(
        &self,
        experiment: &ExperimentRow,
        take: &mut dyn FnMut(TrialRow) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.each(experiment, None, "result.trial, result.position", take)
    }

    /// Hands over all cells of an experiment that are this trial.
    ///
    /// # Errors
    /// The store cannot be read, and those of `take`.
    pub fn trials_of(
        &self,
        experiment: &ExperimentRow,
        trial: Key,
        take: &mut dyn FnMut(TrialRow) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.each(experiment, Some(&trial.to_string()), "result.position", take)
    }

    /// Names of the experiments that plan a trial.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn experiments_of(&self, trial: Key) -> anyhow::Result<Vec<String>> {
        let text = "SELECT DISTINCT experiment.name FROM planned JOIN experiment ON experiment.id = planned.experiment
                    WHERE planned.trial = ? ORDER BY experiment.name";
        let mut statement = self.connection.prepare(text)?;
        let names = statement.query_map([trial.to_string()], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    }

    /// Planned trials in some order: all, or those with one key.
    fn each(
        &self,
        experiment: &ExperimentRow,
        key: Option<&str>,
        order: &str,
        take: &mut dyn FnMut(TrialRow) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let names: Vec<&'static str> = SETTINGS.iter().chain(RESULTS).chain(CIRCUMSTANCES).copied().collect();
        let text = format!(
            "SELECT result.position, result.replicate, result.trial, cell.key, {} FROM result
             JOIN cell ON cell.experiment = ?1 AND cell.position = result.position
             WHERE result.experiment = ?2 AND (?3 IS NULL OR result.trial = ?3) ORDER BY {order}",
            names.iter().map(|name| format!("result.{name}")).collect::<Vec<_>>().join(", ")
        );
        let mut statement = self.connection.prepare(&text)?;
        let mut rows = statement.query(rusqlite::params![experiment.id, experiment.name, key])?;
        while let Some(row) = rows.next()? {
            let key = |index: usize| anyhow::Ok(Key::parse(row.get_ref(index)?.as_str()?));
            if let (Some(trial), Some(cell)) = (key(2)?, key(3)?) {
                let columns = named(row, names.iter().copied(), 4);
                take(TrialRow { position: row.get(0)?, replicate: row.get(1)?, key: trial, cell, columns })?;
            }
        }
        Ok(())
    }

    /// The trial whose key starts with `prefix`, of any experiment that plans it.
    ///
    /// # Errors
    /// None or several match, or the store cannot be read.
    pub fn find(&self, prefix: &str) -> anyhow::Result<(String, TrialRow)> {
        let mut statement = self.connection.prepare(
            "SELECT DISTINCT experiment.name, planned.trial FROM planned JOIN experiment ON experiment.id = planned.experiment WHERE planned.trial LIKE ? || '%' ORDER BY experiment.id LIMIT 20",
        )?;
        let found: Vec<(String, String)> =
            statement.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let distinct: HashSet<&String> = found.iter().map(|(_, trial)| trial).collect();
        anyhow::ensure!(!found.is_empty(), "no trial's key starts with '{prefix}' (`tl-sweep status NAME` lists them)");
        anyhow::ensure!(distinct.len() == 1, "{} trials' keys start with '{prefix}': give more digits", distinct.len());
        let (name, trial) = &found[0];
        let experiment = self.experiment(Some(name))?.ok_or_else(|| anyhow::anyhow!("no experiment '{name}'"))?;
        let mut row = None;
        self.each(&experiment, Some(trial), "result.position", &mut |found| {
            row.get_or_insert(found);
            Ok(())
        })?;
        row.map(|row| (name.clone(), row)).ok_or_else(|| anyhow::anyhow!("the trial '{trial}' is gone"))
    }

    /// The curve of a trial: step, epoch, lr, train_loss, val_loss, val_accuracy.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn curve(&self, trial: Key) -> anyhow::Result<Vec<[f64; 6]>> {
        let mut statement = self.connection.prepare(
            "SELECT step, epoch, lr, train_loss, val_loss, val_accuracy FROM curve WHERE trial = ? ORDER BY step",
        )?;
        let rows = statement.query_map([trial.to_string()], |row| {
            let mut point = [0.0; 6];
            for (index, value) in point.iter_mut().enumerate() {
                *value = row.get(index)?;
            }
            Ok(point)
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All results of a finished trial.
    ///
    /// # Errors
    /// The store does not hold it, or cannot be read.
    pub fn recorded(&self, trial: Key) -> anyhow::Result<Recorded> {
        let key = trial.to_string();
        let mut found = self.connection.query_row(
            "SELECT status, numerics, steps_run, val_loss, test_loss, coalesce(group_size, 1) FROM trial WHERE key = ?",
            [&key],
            |row| {
                Ok(Recorded {
                    status: row.get(0)?,
                    numerics: row.get(1)?,
                    steps: row.get(2)?,
                    val_loss: row.get(3)?,
                    test_loss: row.get(4)?,
                    curve: Vec::new(),
                    test_predicted: Vec::new(),
                    shifted_predicted: Vec::new(),
                    group: row.get(5)?,
                })
            },
        )?;
        found.curve = self.curve(trial)?;
        let predicted = |part: &str| -> anyhow::Result<Vec<u16>> {
            let text = "SELECT predicted FROM prediction WHERE trial = ? AND part = ?";
            let bytes: Option<Vec<u8>> =
                self.connection.query_row(text, [key.as_str(), part], |row| row.get(0)).optional()?;
            Ok(bytes.iter().flat_map(|bytes| u16s(bytes)).collect())
        };
        (found.test_predicted, found.shifted_predicted) = (predicted("test")?, predicted("shifted")?);
        Ok(found)
    }
}

/// The columns from `first` on by their names, as text.
pub(super) fn named<N: Ord>(row: &Row, names: impl Iterator<Item = N>, first: usize) -> BTreeMap<N, String> {
    let text = |index: usize| match row.get_ref(index) {
        Ok(ValueRef::Integer(number)) => Some(number.to_string()),
        Ok(ValueRef::Real(number)) => Some(number.to_string()),
        Ok(ValueRef::Text(text)) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    names.enumerate().filter_map(|(index, name)| Some((name, text(first + index)?))).collect()
}
