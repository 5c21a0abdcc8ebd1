//! What trials answered on their test images.

use std::collections::HashMap;

use super::Store;
use crate::key::Key;

/// What a trial answered on its test images, in the order of its split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TestAnswers {
    /// Positions in the dataset.
    pub samples: Vec<u32>,
    /// Indices into the classes.
    pub predicted: Vec<u16>,
    pub truth: Vec<u32>,
    /// Of the true class.
    pub probability: Vec<f32>,
    /// The probability of the predicted class; none of trials that ran before it was stored.
    pub confidence: Option<Vec<f32>>,
}

/// A test image, and what a trial took it for.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub id: String,
    /// Indices into the classes.
    pub truth: u32,
    pub predicted: u16,
    /// Of the true class.
    pub probability: f32,
}

impl Store {
    /// The classes that a trial predicted on test, and the true ones.
    ///
    /// # Errors
    /// The trial has no predictions, or the store cannot be read.
    pub fn test_answers(&self, trial: Key) -> anyhow::Result<TestAnswers> {
        let raw = self.raw_answers(trial)?;
        let mut statement = self
            .connection
            .prepare_cached("SELECT position, class FROM sample WHERE data = ? AND part IN ('test', 'fold')")?;
        let rows = statement.query_map([&raw.data], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let classes: HashMap<u32, u32> = rows.collect::<Result<_, _>>()?;
        let truth = raw.samples().map(|sample| classes.get(&sample).copied().unwrap_or(0)).collect();
        Ok(TestAnswers {
            samples: raw.samples().collect(),
            predicted: raw.predicted().collect(),
            truth,
            probability: raw.probabilities().collect(),
            confidence: raw.confidence.as_deref().map(|bytes| f32s(bytes).collect()),
        })
    }

    /// The same image by image, with the names of the classes.
    ///
    /// # Errors
    /// As `test_answers`.
    pub fn answered(&self, trial: Key) -> anyhow::Result<(Vec<String>, Vec<Answered>)> {
        let raw = self.raw_answers(trial)?;
        let mut statement = self
            .connection
            .prepare_cached("SELECT position, id, class FROM sample WHERE data = ? AND part IN ('test', 'fold')")?;
        let rows = statement.query_map([&raw.data], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        let mut known: HashMap<u32, (String, u32)> = rows.collect::<Result<_, _>>()?;
        let answers = raw.samples().zip(raw.predicted()).zip(raw.probabilities());
        let answered = answers.filter_map(|((sample, predicted), probability)| {
            let (id, truth) = known.remove(&sample)?;
            Some(Answered { id, truth, predicted, probability })
        });
        let answered = answered.collect();
        let names: String =
            self.connection
                .query_row("SELECT classes FROM dataset WHERE fingerprint = ?", [&raw.data], |row| row.get(0))?;
        Ok((serde_json::from_str(&names)?, answered))
    }

    fn raw_answers(&self, trial: Key) -> anyhow::Result<Raw> {
        Ok(self.connection.query_row(
            "SELECT predicted, probability, confidence, split.test, split.data FROM prediction
             JOIN trial ON trial.key = prediction.trial JOIN split ON split.key = trial.split
             WHERE prediction.trial = ? AND prediction.part = 'test'",
            [trial.to_string()],
            |row| {
                Ok(Raw {
                    predicted: row.get(0)?,
                    probability: row.get(1)?,
                    confidence: row.get(2)?,
                    test: row.get(3)?,
                    data: row.get(4)?,
                })
            },
        )?)
    }
}

/// As the store holds them, all in the order of the split.
struct Raw {
    predicted: Vec<u8>,
    probability: Vec<u8>,
    confidence: Option<Vec<u8>>,
    test: Vec<u8>,
    /// Fingerprint of the dataset.
    data: String,
}

impl Raw {
    fn samples(&self) -> impl Iterator<Item = u32> {
        self.test.chunks_exact(4).map(|at| u32::from_le_bytes([at[0], at[1], at[2], at[3]]))
    }

    fn predicted(&self) -> impl Iterator<Item = u16> {
        u16s(&self.predicted)
    }

    fn probabilities(&self) -> impl Iterator<Item = f32> {
        f32s(&self.probability)
    }
}

/// Classes as the store holds them.
pub(super) fn u16s(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|at| u16::from_le_bytes([at[0], at[1]]))
}

/// Probabilities likewise.
pub(super) fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|at| f32::from_le_bytes([at[0], at[1], at[2], at[3]]))
}
