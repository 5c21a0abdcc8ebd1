//! What a stage leaves: scores, predictions, curves, or a classified failure.

use serde::{Deserialize, Deserializer, Serialize};

use crate::recipe::Metric;

/// JSON has neither NaN nor infinity, and a diverged trial has both: either comes back as NaN.
fn or_nan<'a, D: Deserializer<'a>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

fn each_or_nan<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<f32>, D::Error> {
    let numbers: Vec<Option<f32>> = Vec::deserialize(from)?;
    Ok(numbers.into_iter().map(|number| number.unwrap_or(f32::NAN)).collect())
}

/// How well a set of predictions does. All lie in 0..=1 but the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Mean cross-entropy in nats, without label smoothing.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    pub accuracy: f64,
    /// The mean over classes of the accuracy within the class (classes without images left out).
    pub balanced_accuracy: f64,
    /// The mean over classes of F1.
    pub macro_f1: f64,
}

impl Scores {
    pub fn of(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Accuracy => self.accuracy,
            Metric::BalancedAccuracy => self.balanced_accuracy,
            Metric::MacroF1 => self.macro_f1,
        }
    }
}

/// The answers of a trained network on one part of the data, in the order of the samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Indices into the manifest.
    pub samples: Vec<u32>,
    pub predicted: Vec<u16>,
    /// The probability given to the true class.
    #[serde(deserialize_with = "each_or_nan")]
    pub probability: Vec<f32>,
    /// The probability given to the predicted class.
    #[serde(deserialize_with = "each_or_nan")]
    pub confidence: Vec<f32>,
}

/// Scores of predictions against the true classes.
pub fn score(predicted: &[u16], truth: &[u32], classes: usize, loss: f64) -> Scores {
    let mut table = vec![[0usize; 3]; classes];
    for (predicted, truth) in predicted.iter().zip(truth) {
        table[*truth as usize][0] += 1;
        table[usize::from(*predicted)][1] += 1;
        table[*truth as usize][2] += usize::from(u32::from(*predicted) == *truth);
    }
    let right: usize = table.iter().map(|row| row[2]).sum();
    let present = table.iter().filter(|row| row[0] > 0).count().max(1) as f64;
    let ratio = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    Scores {
        loss,
        accuracy: ratio(right, truth.len()),
        balanced_accuracy: table.iter().map(|row| ratio(row[2], row[0])).sum::<f64>() / present,
        macro_f1: table.iter().map(|row| ratio(2 * row[2], row[0] + row[1])).sum::<f64>() / present,
    }
}

/// One evaluation on validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub step: usize,
    /// Passes over the training images so far.
    pub epoch: f64,
    pub lr: f64,
    /// Mean over the steps since the last evaluation, label smoothing included.
    #[serde(deserialize_with = "or_nan")]
    pub train_loss: f64,
    pub val: Scores,
}

/// What a running stage tells.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub step: usize,
    pub steps: usize,
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// Of the last evaluation on validation.
    pub accuracy: Option<f64>,
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Finished,
    /// The loss or a parameter became infinite or NaN.
    Diverged,
}

/// What a trial leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialOutcome {
    pub ending: Ending,
    pub steps: usize,
    pub curve: Vec<Point>,
    /// Absent when diverged.
    pub val: Option<Scores>,
    pub test: Option<Scores>,
    pub val_predictions: Predictions,
    pub test_predictions: Predictions,
    /// On the test images of other datasets, where there are any.
    #[serde(default)]
    pub shifted_predictions: Predictions,
    /// No better than the largest class, within two standard errors.
    pub at_chance: bool,
    /// The validation loss still fell by more than 1% over the last tenth.
    pub under_trained: bool,
    pub stopped_early: bool,
    pub trainable: usize,
    pub frozen: usize,
    /// The strength that validation chose, where the head was solved.
    pub lambda: Option<f64>,
    /// What its logits are divided by, where validation chose that.
    pub temperature: Option<f64>,
}

/// What any stage leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub seconds: f64,
    /// Multiply-accumulates done, forward and backward.
    pub macs: f64,
    pub numerics: String,
    pub trial: Option<TrialOutcome>,
    /// Something a person should know that did not stop the stage.
    pub warnings: Vec<String>,
    /// Stages that ran together, this one included.
    pub group: usize,
    /// Of one trial for each set of networks whose first layers could run as one product: what a step took so, as a part of
    /// what it took without.
    pub abreast: Option<f64>,
    /// The part of its steps that was run: less than one where it diverged or stopped early.
    pub part: f64,
}

/// Why a stage left nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub class: FailureClass,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// Images or weights could not be read.
    Data,
    OutOfMemory,
    /// Nothing more can be written.
    DiskFull,
    Device,
    /// The worker process died.
    Killed,
    /// A source model that trials were to start from.
    Diverged,
    /// An invariant did not hold.
    Bug,
}

/// Whether a message is one with which systems and databases say that a disk takes no more; libraries hand on the words, not
/// always the kind.
pub fn says_disk_full(message: &str) -> bool {
    let words = ["No space left on device", "Disk quota exceeded", "database or disk is full"];
    words.iter().any(|words| message.contains(words))
}

impl FailureClass {
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::OutOfMemory => "out-of-memory",
            Self::DiskFull => "disk-full",
            Self::Device => "device",
            Self::Killed => "killed",
            Self::Diverged => "diverged",
            Self::Bug => "bug",
        }
    }
}
