//! What trials answered on the test images of other datasets.

use std::collections::{BTreeMap, HashMap};

use super::Store;
use super::answers::{TestAnswers, f32s, u16s};
use super::query::ExperimentRow;
use crate::key::Key;

impl Store {
    /// The other datasets that are tested as well, by the dataset of the trials; in the order of the file.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn also_tested(&self, experiment: &ExperimentRow) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
        let mut statement = self.connection.prepare(
            "SELECT own.dataset, sample.origin FROM (SELECT DISTINCT dataset, data FROM cell WHERE experiment = ?) AS own
             JOIN sample ON sample.data = own.data AND sample.origin IS NOT NULL
             GROUP BY own.dataset, sample.origin ORDER BY min(sample.position)",
        )?;
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let rows = statement.query_map([experiment.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for row in rows {
            let (own, other): (String, String) = row?;
            found.entry(own).or_default().push(other);
        }
        Ok(found)
    }

    /// A metric of an experiment's trials on each other dataset that they were tested on.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn shifted_scores(&self, experiment: &ExperimentRow) -> anyhow::Result<HashMap<Key, BTreeMap<String, f64>>> {
        let mut statement = self.connection.prepare(&format!(
            "SELECT DISTINCT shifted.trial, shifted.dataset, shifted.{} FROM planned
             JOIN shifted ON shifted.trial = planned.trial WHERE planned.experiment = ?",
            experiment.metric.replace('-', "_")
        ))?;
        let mut found: HashMap<Key, BTreeMap<String, f64>> = HashMap::new();
        let rows =
            statement.query_map([experiment.id], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))?;
        for row in rows {
            let (trial, dataset, score) = row?;
            if let Some(trial) = Key::parse(&trial) {
                found.entry(trial).or_default().insert(dataset, score);
            }
        }
        Ok(found)
    }

    /// What one trial scores on each other dataset: its name, its images, accuracy, balanced accuracy and macro-F1; in the order of
    /// the names.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn shifted_of(&self, trial: Key) -> anyhow::Result<Vec<(String, usize, [f64; 3])>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT dataset, images, accuracy, balanced_accuracy, macro_f1 FROM shifted WHERE trial = ? ORDER BY dataset",
        )?;
        let rows = statement.query_map([trial.to_string()], |row| {
            Ok((row.get(0)?, row.get(1)?, [row.get(2)?, row.get(3)?, row.get(4)?]))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What a trial answered on the test images of those other datasets that `takes` takes.
    /// `samples` are numbers of pictures: images of several datasets with one id, as those of a dataset and of what was made of
    /// it, have one.
    ///
    /// # Errors
    /// The trial has no predictions, or the store cannot be read.
    pub fn shifted_answers(&self, trial: Key, takes: impl Fn(&str) -> bool) -> anyhow::Result<TestAnswers> {
        let (predicted, probability, confidence, data): (Vec<u8>, Vec<u8>, Option<Vec<u8>>, String) =
            self.connection.query_row(
                "SELECT predicted, probability, confidence, split.data FROM prediction
             JOIN trial ON trial.key = prediction.trial JOIN split ON split.key = trial.split
             WHERE prediction.trial = ? AND prediction.part = 'shifted'",
                [trial.to_string()],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )?;
        let mut statement = self.connection.prepare_cached(
            "SELECT origin, substr(id, length(origin) + 3), class FROM sample WHERE data = ? AND part = 'shifted' ORDER BY position",
        )?;
        let rows = statement.query_map([&data], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u32>(2)?))
        })?;
        let (mut found, mut pictures) = (TestAnswers::default(), HashMap::new());
        let confidence: Option<Vec<f32>> = confidence.map(|bytes| f32s(&bytes).collect());
        found.confidence = confidence.as_ref().map(|_| Vec::new());
        for (at, (row, (class, probability))) in rows.zip(u16s(&predicted).zip(f32s(&probability))).enumerate() {
            let (origin, id, truth) = row?;
            if takes(&origin) {
                let next = pictures.len() as u32;
                found.samples.push(*pictures.entry(id).or_insert(next));
                found.predicted.push(class);
                found.truth.push(truth);
                found.probability.push(probability);
                let known = found.confidence.iter_mut().zip(&confidence);
                known.for_each(|(found, all)| found.extend(all.get(at)));
            }
        }
        Ok(found)
    }
}
