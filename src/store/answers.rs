//! What trials answered on their test images.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

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

/// The images of a dataset that its trials learn from or are tested on, without those of others that are tested as well.
pub struct Images {
    /// Fingerprint of the dataset.
    pub data: String,
    pub classes: Vec<String>,
    /// By position: the id, and the index of the class.
    pub list: HashMap<u32, (String, u32)>,
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

/// Classes of test images by the fingerprint of their dataset, which says that they stay what they are: a report reads the answers
/// of hundreds of trials to the same images.
#[derive(Default)]
pub(super) struct Truths(RefCell<HashMap<String, Rc<HashMap<u32, u32>>>>);

impl Store {
    /// The classes that a trial predicted on test, and the true ones.
    ///
    /// # Errors
    /// The trial has no predictions, or the store cannot be read.
    pub fn test_answers(&self, trial: Key) -> anyhow::Result<TestAnswers> {
        let raw = self.raw_answers(trial, "test")?;
        let classes = self.truth(&raw.data)?;
        Ok(raw.answers(|sample| classes.get(&sample).copied().unwrap_or(0)))
    }

    /// The class of each test image of a dataset, by its position.
    fn truth(&self, data: &str) -> anyhow::Result<Rc<HashMap<u32, u32>>> {
        if let Some(known) = self.truths.0.borrow().get(data) {
            return Ok(Rc::clone(known));
        }
        let mut statement = self
            .connection
            .prepare_cached("SELECT position, class FROM sample WHERE data = ? AND part IN ('test', 'fold')")?;
        let rows = statement.query_map([data], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found: Rc<HashMap<u32, u32>> = Rc::new(rows.collect::<Result<_, _>>()?);
        // One that has not been written yet is no dataset without images.
        if !found.is_empty() {
            self.truths.0.borrow_mut().insert(data.to_owned(), Rc::clone(&found));
        }
        Ok(found)
    }

    /// The same of every image of its dataset that it did not learn from: those of validation, then those of test.
    ///
    /// # Errors
    /// As `test_answers`.
    pub fn held_out_answers(&self, trial: Key, images: &Images) -> anyhow::Result<[TestAnswers; 2]> {
        let class = |sample: u32| images.list.get(&sample).map_or(0, |(_, class)| *class);
        Ok([self.raw_answers(trial, "val")?.answers(class), self.raw_answers(trial, "test")?.answers(class)])
    }

    /// The images of a trial's dataset.
    ///
    /// # Errors
    /// As `test_answers`.
    pub fn images_of(&self, trial: Key) -> anyhow::Result<Images> {
        let data = self.raw_answers(trial, "test")?.data;
        let mut statement = self
            .connection
            .prepare_cached("SELECT position, id, class FROM sample WHERE data = ? AND part != 'shifted'")?;
        let rows = statement.query_map([&data], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        let list = rows.collect::<Result<_, _>>()?;
        Ok(Images { classes: self.classes_of(&data)?, data, list })
    }

    fn classes_of(&self, data: &str) -> anyhow::Result<Vec<String>> {
        let of = "SELECT classes FROM dataset WHERE fingerprint = ?";
        let names: String = self.connection.query_row(of, [data], |row| row.get(0))?;
        Ok(serde_json::from_str(&names)?)
    }

    /// The same image by image, with the names of the classes.
    ///
    /// # Errors
    /// As `test_answers`.
    pub fn answered(&self, trial: Key) -> anyhow::Result<(Vec<String>, Vec<Answered>)> {
        let raw = self.raw_answers(trial, "test")?;
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
        Ok((self.classes_of(&raw.data)?, answered.collect()))
    }

    /// On `val` or `test`.
    fn raw_answers(&self, trial: Key, part: &str) -> anyhow::Result<Raw> {
        Ok(self.connection.query_row(
            "SELECT predicted, probability, confidence, CASE part WHEN 'val' THEN split.val ELSE split.test END, split.data
             FROM prediction JOIN trial ON trial.key = prediction.trial JOIN split ON split.key = trial.split
             WHERE prediction.trial = ? AND prediction.part = ?",
            [&trial.to_string(), part],
            |row| {
                Ok(Raw {
                    predicted: row.get(0)?,
                    probability: row.get(1)?,
                    confidence: row.get(2)?,
                    samples: row.get(3)?,
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
    samples: Vec<u8>,
    /// Fingerprint of the dataset.
    data: String,
}

impl Raw {
    /// With the true class of each image.
    fn answers(&self, class: impl Fn(u32) -> u32) -> TestAnswers {
        TestAnswers {
            samples: self.samples().collect(),
            predicted: self.predicted().collect(),
            truth: self.samples().map(class).collect(),
            probability: self.probabilities().collect(),
            confidence: self.confidence.as_deref().map(|bytes| f32s(bytes).collect()),
        }
    }

    fn samples(&self) -> impl Iterator<Item = u32> {
        self.samples.chunks_exact(4).map(|at| u32::from_le_bytes([at[0], at[1], at[2], at[3]]))
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
