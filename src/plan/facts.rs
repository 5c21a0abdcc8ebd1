//! What a plan must know of the world, gathered by the commands and handed over as one value.

use std::collections::BTreeMap;

use crate::frame::Resize;
use crate::key::Key;
use crate::model::sketch::Sketch;
use crate::preprocess::Preprocess;

/// The world, as far as it bears on a plan.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub datasets: BTreeMap<String, DatasetFact>,
    /// By the text of `weights`; `random` and `pretrain` need none.
    pub weights: BTreeMap<String, WeightsFact>,
    /// Networks of a person's own, by the text of `arch` and by their settled names.
    pub graphs: BTreeMap<String, Sketch>,
    /// Slots that will run side by side.
    pub slots: usize,
}

#[derive(Clone, Debug)]
pub struct DatasetFact {
    pub fingerprint: Key,
    pub classes: usize,
    /// What they are called in texts, in their order.
    pub names: Vec<String>,
    /// Images per class in the training part; of one in folds, the fewest that a replicate has.
    pub train: Vec<usize>,
    /// Images in the validation part; none where it must be carved.
    pub val: usize,
    /// Images to test on; of one in folds, those of the largest fold.
    pub test: usize,
    /// Test images of other datasets that are tested as well.
    pub shifted: usize,
    /// Whether validation is carved by whole groups, so that replicates train on more or fewer images.
    pub carves_groups: bool,
    /// In how many folds the images are that replicates test on in turn.
    pub folds: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct WeightsFact {
    /// SHA-256 of the file: what the key is made of.
    pub sha256: String,
    pub path: String,
    /// The SHA-256 of the tokenizer of its side of texts, or why class names cannot be read with it.
    pub texts: Result<String, String>,
    /// Known for files of the catalogue.
    pub known: Option<KnownBackbone>,
}

#[derive(Clone, Debug)]
pub struct KnownBackbone {
    pub arch: String,
    pub width: f64,
    pub input: usize,
    pub preprocess: Preprocess,
    pub resize: Resize,
}

/// How many images a replicate trains, validates and tests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub train: usize,
    pub val: usize,
    /// Those of other datasets among them.
    pub test: usize,
}

impl DatasetFact {
    /// Images that some of so many replicates test on, about.
    pub fn tested(&self, replicates: usize) -> usize {
        self.test * self.folds.map_or(1, |folds| folds.min(replicates))
    }

    /// Counts for `per_class` training images of each class (all without it), as the split will make them.
    ///
    /// # Errors
    /// A class has too few.
    pub fn counts(&self, per_class: Option<usize>) -> Result<Counts, String> {
        let carves = self.val == 0;
        let mut counts = Counts { train: 0, val: self.val, test: self.test + self.shifted };
        for total in &self.train {
            let reserved = if carves { (total / 5).max(1).min(*total) } else { 0 };
            let rest = total - reserved;
            let wanted = per_class.unwrap_or(rest);
            if rest < wanted || rest == 0 {
                return Err(format!(
                    "per_class = {wanted}, but a class has only {rest} images for training after {reserved} of {total} are set aside for validation"
                ));
            }
            counts.train += wanted;
            counts.val += reserved.min(wanted);
        }
        Ok(counts)
    }
}
