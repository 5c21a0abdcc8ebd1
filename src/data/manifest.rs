//! The list of a dataset's samples: what splits are drawn from, and what results are joined by.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::corruption::Corruption;
use crate::key::Key;

/// Which part of the data a sample belongs to on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Train,
    Val,
    Test,
    /// Tested in some replicates, trained or validated on in the others.
    Fold,
    /// Of another dataset with the same classes, whose test images are tested as well.
    Shifted,
}

impl Part {
    /// Those that data can bring.
    pub const ALL: [(Self, &str); 3] = [(Self::Train, "train"), (Self::Val, "val"), (Self::Test, "test")];

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(part, _)| *part)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::Fold => "fold",
            Self::Shifted => "shifted",
        }
    }

    /// Whether some replicate tests on it, of the dataset's own.
    pub fn is_tested(self) -> bool {
        matches!(self, Self::Test | Self::Fold)
    }

    /// Whether some replicate trains or validates on it.
    pub fn is_learned(self) -> bool {
        matches!(self, Self::Train | Self::Val | Self::Fold)
    }

    /// How a person says which folder serves as the split called `name`, or that there is none.
    pub fn cure(name: &str) -> String {
        let (flag, none) = match name {
            "test" => (
                ", or --test with data, extract, rank and recommend",
                "; where there is none, 0.2 in its place tests a fifth of the images, and folds = 5 tests each image in its turn",
            ),
            _ => ("", ""),
        };
        format!("splits = {{ {name} = \"...\" }} in an experiment file{flag}{none}")
    }
}

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its path within the dataset; stable, unique, what results are joined by.
    pub id: String,
    /// Index into the classes.
    pub class: u32,
    pub part: Part,
    /// Images of one group (a subject, a video) stay on one side of every split.
    pub group: Option<String>,
    /// The hash of its bytes.
    pub content: Key,
}

/// Images of another dataset that are tested as well: places in the list of samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shifted {
    pub dataset: String,
    pub from: u32,
    pub to: u32,
    /// What is done to them.
    pub corruption: Option<Corruption>,
}

impl Shifted {
    pub fn holds(&self, at: u32) -> bool {
        (self.from..self.to).contains(&at)
    }
}

/// All samples of a dataset, sorted by id, and behind them those of others that are tested as well; classes sorted by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of ids, classes, parts, groups and bytes.
    pub fingerprint: Key,
    /// Of the file, or of the list of a folder's files; what `sha256` pins.
    pub sha256: String,
    pub classes: Vec<String>,
    pub samples: Vec<Sample>,
    /// Images that could not be read and were left out, with the reason.
    pub skipped: Vec<(String, String)>,
    /// In how many folds those are that replicates test on in turn.
    #[serde(default)]
    pub folds: Option<usize>,
    #[serde(default)]
    pub shifted: Vec<Shifted>,
    /// What is done to all of its own images.
    #[serde(default)]
    pub corruption: Option<Corruption>,
    /// The value that is white in images of 16 bits; the greatest where none is named.
    #[serde(default)]
    pub white: Option<u16>,
    /// Folders of classes that are none of its splits, and how many files they have.
    #[serde(default)]
    pub unread: Vec<(String, usize)>,
}

impl Manifest {
    /// Sorts samples and classes, and takes the fingerprint. `samples` hold indices into `classes` as given.
    ///
    /// # Errors
    /// No samples, or a name twice.
    pub fn new(name: &str, classes: Vec<String>, mut samples: Vec<Sample>, sha256: String) -> anyhow::Result<Self> {
        let mut sorted = classes.clone();
        sorted.sort();
        sorted.dedup();
        let place = |class: &String| sorted.binary_search(class).unwrap_or(0) as u32;
        let places: Vec<u32> = classes.iter().map(place).collect();
        samples.iter_mut().for_each(|sample| sample.class = places[sample.class as usize]);
        samples.sort_by(|left, right| left.id.cmp(&right.id));
        anyhow::ensure!(!samples.is_empty(), "the dataset '{name}' has no images");
        if let Some(pair) = samples.windows(2).find(|pair| pair[0].id == pair[1].id) {
            anyhow::bail!("the dataset '{name}' lists '{}' twice", pair[0].id);
        }
        let mut manifest = Self {
            fingerprint: Key::of_bytes(b""),
            sha256,
            classes: sorted,
            samples,
            skipped: Vec::new(),
            folds: None,
            shifted: Vec::new(),
            corruption: None,
            white: None,
            unread: Vec::new(),
        };
        manifest.seal();
        Ok(manifest)
    }

    /// Takes the fingerprint anew, after parts, groups, what is white or the corruption have changed.
    pub fn seal(&mut self) {
        self.fingerprint = match self.folds {
            None => Key::of("dataset", &(&self.classes, &self.samples)),
            Some(folds) => Key::of("dataset in folds", &(&self.classes, &self.samples, folds)),
        };
        if self.carves_groups() {
            // Before, a random fifth of the groups was carved off, whatever their classes; those results are others.
            self.fingerprint = Key::of("dataset carved by classes", &self.fingerprint);
        }
        if let Some(white) = self.white {
            self.fingerprint = Key::of("dataset with another white", &(self.fingerprint, white));
        }
        if let Some(corruption) = self.corruption {
            self.fingerprint = Key::of("corrupted dataset", &(self.fingerprint, corruption));
        }
    }

    /// Whether validation is carved off by whole groups: there are some, and no part of its own.
    pub fn carves_groups(&self) -> bool {
        let grouped = |sample: &Sample| sample.part.is_learned() && sample.group.is_some();
        self.samples.iter().any(grouped) && self.samples.iter().all(|sample| sample.part != Part::Val)
    }

    /// Adds the test images of another dataset, corrupted or as they are, to be tested as well; returns their places there.
    ///
    /// # Errors
    /// It has no test images, a class that is none here, or an image whose bytes are trained or validated on here and not tested
    /// anyway.
    pub fn also_test(
        &mut self,
        name: &str,
        dataset: &str,
        other: &Self,
        corruption: Option<Corruption>,
    ) -> anyhow::Result<Vec<usize>> {
        let place = |class: &String| self.classes.binary_search(class).ok().map(|place| place as u32);
        let mut places = Vec::new();
        for class in &other.classes {
            let Some(place) = place(class) else {
                anyhow::bail!(
                    "'{dataset}' cannot be tested with '{name}': its class '{class}' is none there (classes = [...] under \
                     [datasets.{dataset}] takes some only; '{name}' has {})",
                    self.classes.join(", ")
                )
            };
            places.push(place);
        }
        // What is trained on and tested anyway is told as a leak of its own.
        let own: HashSet<Key> =
            self.samples.iter().filter(|own| own.part == Part::Test).map(|own| own.content).collect();
        let learned = self.samples.iter().filter(|other| other.part.is_learned() && !own.contains(&other.content));
        let learned: HashMap<Key, &str> = learned.map(|own| (own.content, own.id.as_str())).collect();
        let tested: Vec<usize> = (0..other.samples.len()).filter(|at| other.samples[*at].part == Part::Test).collect();
        anyhow::ensure!(!tested.is_empty(), "'{dataset}' has no test images; {}", Part::cure("test"));
        if let Some((at, id)) = tested.iter().find_map(|at| Some((at, learned.get(&other.samples[*at].content)?))) {
            anyhow::bail!(
                "'{dataset}' cannot be tested with '{name}': its test image '{}' has the bytes of '{id}', which is trained or validated on",
                other.samples[*at].id
            );
        }
        let from = self.samples.len() as u32;
        let more = tested.iter().map(|at| {
            let sample = &other.samples[*at];
            let (id, class) = (format!("{dataset}: {}", sample.id), places[sample.class as usize]);
            // Groups are for what is dealt and carved.
            Sample { id, class, part: Part::Shifted, group: None, content: sample.content }
        });
        let more: Vec<Sample> = more.collect();
        self.fingerprint = Key::of("dataset with others", &(self.fingerprint, &more, corruption));
        if other.white.is_some() {
            self.fingerprint = Key::of("others with another white", &(self.fingerprint, other.white));
        }
        self.samples.extend(more);
        self.shifted.push(Shifted { dataset: dataset.to_owned(), from, to: self.samples.len() as u32, corruption });
        Ok(tested)
    }

    /// Whether there is something to train and something to test on, of two classes or more, and no group in both.
    ///
    /// # Errors
    /// One class, no training or no test part, or a group in both train and test.
    pub fn check_parts(&self, name: &str) -> anyhow::Result<()> {
        let classes = &self.classes;
        anyhow::ensure!(classes.len() > 1, "the dataset '{name}' has one class, '{}'; two are needed", classes[0]);
        for (part, word) in [(Part::Train, "train"), (Part::Test, "test")] {
            anyhow::ensure!(
                self.samples.iter().any(|sample| [part, Part::Fold].contains(&sample.part)),
                "the dataset '{name}' has no {word} split; name the folder that serves as one: {}",
                Part::cure(word)
            );
        }
        let group_parts = |part: Part| -> std::collections::BTreeSet<&str> {
            self.samples
                .iter()
                .filter(|sample| sample.part == part)
                .filter_map(|sample| sample.group.as_deref())
                .collect()
        };
        let test = group_parts(Part::Test);
        for part in [Part::Train, Part::Val] {
            if let Some(group) = group_parts(part).intersection(&test).next() {
                anyhow::bail!("in the dataset '{name}' the group '{group}' stands in {} and in test", part.name());
            }
        }
        Ok(())
    }

    /// Whether a near-duplicate of it among the images to learn from would be a leak: some replicate tests on it, and it is
    /// no copy, made here, of an image that is looked at anyway.
    pub fn is_compared(&self, at: usize) -> bool {
        let other = || self.shifted.iter().find(|other| other.holds(at as u32));
        self.samples[at].part.is_tested() || other().is_some_and(|other| other.corruption.is_none())
    }

    /// How many images of each class a part has.
    pub fn counts(&self, part: Part) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        self.samples.iter().filter(|sample| sample.part == part).for_each(|sample| counts[sample.class as usize] += 1);
        counts
    }

    /// Images whose bytes stand under another class as well, each with the first that is so: one of their labels is wrong.
    pub fn contradictions(&self) -> Vec<[&Sample; 2]> {
        let mut first: HashMap<Key, &Sample> = HashMap::new();
        let mut found = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.part != Part::Shifted) {
            let known = *first.entry(sample.content).or_insert(sample);
            if known.class != sample.class {
                found.push([sample, known]);
            }
        }
        found
    }

    /// Pairs (train or val id of `source`, own test id) with the same bytes: leaks that a person should know of.
    pub fn leaks<'a>(&'a self, source: &'a Self) -> Vec<(&'a str, &'a str)> {
        // Backwards: of images with the same bytes an own one is named.
        let tested = self.samples.iter().rev().filter(|s| s.part.is_tested() || s.part == Part::Shifted);
        let test: HashMap<Key, &str> = tested.map(|s| (s.content, s.id.as_str())).collect();
        // Those in folds with the same bytes are in one.
        let others = source.samples.iter().filter(|sample| matches!(sample.part, Part::Train | Part::Val));
        others.filter_map(|sample| test.get(&sample.content).map(|id| (sample.id.as_str(), *id))).collect()
    }
}
