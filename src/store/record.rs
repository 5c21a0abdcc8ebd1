//! What is written: experiments and their cells, datasets and splits, and every finished stage in one transaction.

use rusqlite::types::Value as Sql;
use rusqlite::{Transaction, params, params_from_iter};

use super::Store;
use super::schema::SETTINGS;
use crate::expense::Expense;
use crate::key::{ENGINE, Key};
use crate::outcome::{Ending, Failure, Outcome, Predictions, Scores, TrialOutcome};
use crate::value::{Layer, Value};

/// An experiment as the store keeps it.
pub struct ExperimentRecord<'a> {
    pub name: &'a str,
    pub question: &'a str,
    pub metric: &'a str,
    pub replicates: usize,
    pub tune_replicates: usize,
    pub tune_share: Option<f64>,
    pub max_replicates: usize,
    pub seed: u64,
    pub rules: String,
    pub scenarios: String,
    pub text: String,
}

/// Where and with what a sweep runs.
pub struct Circumstance {
    pub version: String,
    pub build: String,
    pub device: String,
    pub numerics: String,
    pub slots: usize,
    pub machine: String,
}

/// What a sweep took, and in multiply-accumulates what its trials cost one by one and with what they shared.
#[derive(Clone, Copy, Debug, Default)]
pub struct SweepCost {
    pub forecast: f64,
    pub seconds: f64,
    pub alone: f64,
    pub shared: f64,
}

/// What a trial scores on the test images of another dataset.
pub struct Shifted {
    pub dataset: String,
    pub images: usize,
    pub scores: Scores,
}

/// A finished trial, and the key of its split.
pub struct FinishedTrial<'a> {
    pub split: Key,
    pub outcome: &'a Outcome,
    pub trial: &'a TrialOutcome,
    pub shifted: Vec<Shifted>,
}

/// A cell of the plan.
pub struct CellRecord {
    pub key: Key,
    pub data: Key,
    /// SHA-256 of the weight file, key of the pretrain stage, or `random`.
    pub start: String,
    /// The SHA-256 of the tokenizer that reads class names, where they are read.
    pub tokenizer: Option<String>,
    pub expense: Expense,
    pub settings: Layer,
    pub trials: Vec<Key>,
}

/// The time as the store writes it: UTC, to the second.
fn now(transaction: &Transaction) -> rusqlite::Result<String> {
    transaction.query_row("SELECT strftime('%Y-%m-%dT%H:%M:%SZ', 'now')", [], |row| row.get(0))
}

impl Store {
    /// Writes the experiment and its cells, the old ones of that name replaced, and opens a sweep. Returns its number.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn begin(
        &mut self,
        experiment: &ExperimentRecord,
        cells: impl Iterator<Item = CellRecord>,
        circumstance: &Circumstance,
    ) -> anyhow::Result<i64> {
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "INSERT INTO experiment (name, question, metric, replicates, tune_replicates, tune_share, max_replicates, seed, rules, scenarios, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET question = excluded.question, metric = excluded.metric, replicates = excluded.replicates,
             tune_replicates = excluded.tune_replicates, tune_share = excluded.tune_share, max_replicates = excluded.max_replicates,
             seed = excluded.seed, rules = excluded.rules, scenarios = excluded.scenarios, text = excluded.text",
            params![experiment.name, experiment.question, experiment.metric, experiment.replicates, experiment.tune_replicates, experiment.tune_share, experiment.max_replicates, experiment.seed as i64, experiment.rules, experiment.scenarios, experiment.text],
        )?;
        let id: i64 =
            transaction.query_row("SELECT id FROM experiment WHERE name = ?", [experiment.name], |row| row.get(0))?;
        transaction.execute("DELETE FROM planned WHERE experiment = ?", [id])?;
        transaction.execute("DELETE FROM cell WHERE experiment = ?", [id])?;
        let marks = vec!["?"; 7 + SETTINGS.len()].join(", ");
        let columns = SETTINGS.join(", ");
        {
            let mut insert_cell = transaction.prepare(&format!(
                "INSERT INTO cell (experiment, position, key, data, start, tokenizer, expense, {columns}) VALUES ({marks})"
            ))?;
            let mut insert_planned = transaction.prepare("INSERT INTO planned VALUES (?, ?, ?, ?)")?;
            for (position, cell) in cells.enumerate() {
                let labels = [
                    Sql::Integer(id),
                    Sql::Integer(position as i64),
                    Sql::Text(cell.key.to_string()),
                    Sql::Text(cell.data.to_string()),
                    Sql::Text(cell.start),
                    cell.tokenizer.map_or(Sql::Null, Sql::Text),
                    Sql::Text(serde_json::to_string(&cell.expense)?),
                ];
                let settings = SETTINGS.iter().map(|name| cell.settings.get(*name).map_or(Sql::Null, sql));
                insert_cell.execute(params_from_iter(labels.into_iter().chain(settings)))?;
                for (replicate, trial) in cell.trials.iter().enumerate() {
                    insert_planned.execute(params![id, position as i64, replicate as i64, trial.to_string()])?;
                }
            }
        }
        transaction.execute(
            "INSERT INTO sweep (experiment, started, text, version, build, device, numerics, slots, machine, engine) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![id, now(&transaction)?, experiment.text, circumstance.version, circumstance.build, circumstance.device, circumstance.numerics, circumstance.slots, circumstance.machine, ENGINE],
        )?;
        let sweep = transaction.last_insert_rowid();
        transaction.commit()?;
        Ok(sweep)
    }

    /// Notes how a sweep ended, and what it cost.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn end(&mut self, sweep: i64, ended: &str, cost: &SweepCost) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "UPDATE sweep SET finished = ?, ended = ?, forecast = ?, seconds = ?, macs_alone = ?, macs_shared = ? WHERE id = ?",
            params![now(&transaction)?, ended, cost.forecast, cost.seconds, cost.alone, cost.shared, sweep],
        )?;
        Ok(transaction.commit()?)
    }

    /// Notes that a trial was run again alone, and what differed: nothing, or what is written.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn audit(&mut self, trial: Key, numerics: &str, difference: &str) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        let at = now(&transaction)?;
        transaction.execute(
            "INSERT OR REPLACE INTO audit VALUES (?, ?, ?, ?, ?)",
            params![trial.to_string(), at, numerics, difference.is_empty(), difference],
        )?;
        Ok(transaction.commit()?)
    }

    /// Writes a dataset's classes, folds if it is in some, and samples, once. Samples are id, class, part, group and the other
    /// dataset that they are of, in their order.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn dataset<'a>(
        &mut self,
        fingerprint: Key,
        name: &str,
        sha256: &str,
        classes: &[String],
        folds: Option<usize>,
        samples: impl Iterator<Item = (&'a str, u32, &'a str, [Option<&'a str>; 2])>,
    ) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        let new = transaction.execute(
            "INSERT OR IGNORE INTO dataset VALUES (?, ?, ?, ?, ?)",
            params![fingerprint.to_string(), name, sha256, serde_json::to_string(classes)?, folds],
        )?;
        if new > 0 {
            let mut insert = transaction.prepare("INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?, ?)")?;
            for (position, (id, class, part, [group, origin])) in samples.enumerate() {
                insert.execute(params![fingerprint.to_string(), position as i64, id, class, part, group, origin])?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Writes a split, once. The lists are positions in the dataset's samples.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn split(
        &mut self,
        key: Key,
        data: Key,
        per_class: Option<usize>,
        seed: u64,
        replicate: usize,
        lists: [&[u32]; 3],
    ) -> anyhow::Result<()> {
        let [train, val, test] = lists.map(|list| bytemuck::cast_slice::<u32, u8>(list).to_vec());
        self.connection.execute(
            "INSERT OR IGNORE INTO split VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            params![key.to_string(), data.to_string(), per_class, seed as i64, replicate, train, val, test],
        )?;
        Ok(())
    }

    /// Writes a finished stage that is no trial.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn stage(&mut self, key: Key, kind: &str, outcome: &Outcome, device: &str, sweep: i64) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "INSERT OR REPLACE INTO stage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                key.to_string(),
                kind,
                outcome.seconds,
                outcome.macs,
                outcome.numerics,
                device,
                now(&transaction)?,
                sweep,
                serde_json::to_string(&outcome.warnings)?
            ],
        )?;
        Ok(transaction.commit()?)
    }

    /// Writes a finished trial: its row, its curve, its predictions and its scores on other datasets, all or nothing.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn trial(
        &mut self,
        key: Key,
        finished: &FinishedTrial,
        circumstance: &Circumstance,
        sweep: i64,
    ) -> anyhow::Result<()> {
        let FinishedTrial { split, outcome, trial, shifted } = finished;
        let transaction = self.connection.transaction()?;
        let key = key.to_string();
        forget(&transaction, &key)?;
        let status = match trial.ending {
            Ending::Finished => "done",
            Ending::Diverged => "diverged",
        };
        let scores = [trial.val, trial.test]
            .map(|scores| scores.map_or([Sql::Null, Sql::Null, Sql::Null, Sql::Null], columns))
            .concat();
        let flags = [
            trial.steps as i64,
            trial.at_chance.into(),
            trial.under_trained.into(),
            trial.stopped_early.into(),
            trial.trainable as i64,
            trial.frozen as i64,
        ];
        let mut row = vec![Sql::Text(key.clone()), Sql::Text(status.to_owned())];
        row.extend(scores);
        row.extend(flags.map(Sql::Integer));
        row.extend([
            Sql::Text(split.to_string()),
            Sql::Real(outcome.seconds),
            Sql::Real(outcome.macs),
            Sql::Text(outcome.numerics.clone()),
        ]);
        row.extend(
            [&circumstance.device, &circumstance.version, &circumstance.build].map(|text| Sql::Text(text.clone())),
        );
        row.extend([
            Sql::Text(now(&transaction)?),
            Sql::Integer(sweep),
            Sql::Null,
            Sql::Null,
            Sql::Text(serde_json::to_string(&outcome.warnings)?),
            Sql::Integer(outcome.group as i64),
            trial.lambda.map_or(Sql::Null, Sql::Real),
            trial.temperature.map_or(Sql::Null, Sql::Real),
        ]);
        let marks = vec!["?"; row.len()].join(", ");
        transaction.execute(&format!("INSERT INTO trial VALUES ({marks})"), params_from_iter(row))?;
        for point in &trial.curve {
            let scores = columns(point.val);
            let mut row = vec![
                Sql::Text(key.clone()),
                Sql::Integer(point.step as i64),
                Sql::Real(point.epoch),
                Sql::Real(point.lr),
                Sql::Real(point.train_loss),
            ];
            row.extend(scores);
            transaction.execute("INSERT INTO curve VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", params_from_iter(row))?;
        }
        for (part, predictions) in [("val", &trial.val_predictions), ("test", &trial.test_predictions)] {
            insert_predictions(&transaction, &key, part, predictions)?;
        }
        if !trial.shifted_predictions.samples.is_empty() {
            insert_predictions(&transaction, &key, "shifted", &trial.shifted_predictions)?;
        }
        for Shifted { dataset, images, scores } in shifted {
            transaction.execute(
                "INSERT INTO shifted VALUES (?, ?, ?, ?, ?, ?)",
                params![key, dataset, images, scores.accuracy, scores.balanced_accuracy, scores.macro_f1],
            )?;
        }
        Ok(transaction.commit()?)
    }

    /// Notes that a trial failed or can never run. It counts as missing: the next sweep tries it again.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn failed(&mut self, key: Key, status: &str, failure: &Failure, sweep: i64) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        let key = key.to_string();
        forget(&transaction, &key)?;
        transaction.execute(
            "INSERT INTO trial (key, status, failure, message, finished, sweep) VALUES (?, ?, ?, ?, ?, ?)",
            params![key, status, failure.class.name(), failure.message, now(&transaction)?, sweep],
        )?;
        Ok(transaction.commit()?)
    }
}

fn forget(transaction: &Transaction, key: &str) -> rusqlite::Result<()> {
    for statement in [
        "DELETE FROM trial WHERE key = ?",
        "DELETE FROM curve WHERE trial = ?",
        "DELETE FROM prediction WHERE trial = ?",
        "DELETE FROM shifted WHERE trial = ?",
    ] {
        transaction.execute(statement, [key])?;
    }
    Ok(())
}

fn insert_predictions(
    transaction: &Transaction,
    key: &str,
    part: &str,
    predictions: &Predictions,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO prediction VALUES (?, ?, ?, ?, ?)",
        params![
            key,
            part,
            bytemuck::cast_slice::<u16, u8>(&predictions.predicted),
            bytemuck::cast_slice::<f32, u8>(&predictions.probability),
            bytemuck::cast_slice::<f32, u8>(&predictions.confidence)
        ],
    )?;
    Ok(())
}

fn columns(scores: Scores) -> [Sql; 4] {
    [scores.loss, scores.accuracy, scores.balanced_accuracy, scores.macro_f1].map(Sql::Real)
}

fn sql(value: &Value) -> Sql {
    match value {
        Value::Bool(flag) => Sql::Integer((*flag).into()),
        Value::Int(number) => Sql::Integer(*number),
        Value::Float(number) => Sql::Real(*number),
        Value::Text(text) => Sql::Text(text.clone()),
        Value::List(_) | Value::Table(_) => Sql::Text(value.to_string()),
    }
}
