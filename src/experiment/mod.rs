//! From a TOML file to an `Experiment`, or to every problem that it has.

mod accepted;
pub mod axis;
pub mod condition;
mod crossed;
mod datasets;
pub mod file;
pub mod keys;
pub mod overrides;
pub mod problem;
pub mod reader;
pub mod reference;
pub mod resolve;
mod scenarios;

pub use crossed::over_cells;

use std::collections::{BTreeMap, HashMap};

use axis::Axis;
use condition::Condition;
use problem::{Problem, Problems, Source, Spot};

use crate::corruption::Corruption;
use crate::recipe::{Keep, Metric};
use crate::scenario::{Similarity, Size};
use crate::value::{Layer, Value};

/// One experiment file, resolved: no `Option` that means "maybe default", no text that means a choice.
#[derive(Debug)]
pub struct Experiment {
    pub name: String,
    pub question: String,
    pub replicates: usize,
    /// On how many of them the settings of an arm are compared.
    pub tune_replicates: usize,
    /// On what share of its budget each is compared first; those that do best there run all of it.
    pub tune_share: Option<f64>,
    /// Replicates that rules which are open may run on to.
    pub max_replicates: usize,
    pub seed: u64,
    pub metric: Metric,
    pub mix_numerics: bool,
    /// Whether trials train again on training and validation images before test is read.
    pub refit: bool,
    /// Whose trained networks stay.
    pub keep: Keep,
    pub datasets: BTreeMap<String, Dataset>,
    /// In the order of the file.
    pub scenarios: Vec<Scenario>,
    pub recipes: BTreeMap<String, Layer>,
    /// Defaults, `[backbone]` and `[train]`, the later over the earlier.
    pub base: Layer,
    pub pretrain: Option<Pretrain>,
    /// Axes and zips in the order of the file; scenario and recipe always among them.
    pub axes: Vec<Axis>,
    pub whens: Vec<When>,
    pub excludes: Vec<Exclude>,
    pub includes: Vec<Layer>,
    pub rules: Vec<Rule>,
    /// Where a setting's value stands, for problems that only the plan can find.
    pub places: HashMap<(String, String), Spot>,
    pub sources: Vec<Source>,
}

#[derive(Clone, Debug)]
pub struct Dataset {
    pub name: String,
    pub origin: Origin,
    /// Folder names of train, val and test.
    pub splits: BTreeMap<String, String>,
    /// The share of the images that is tested, where there is no test split.
    pub share: Option<f64>,
    /// The folds that are tested in turn, where there is no test split.
    pub folds: Option<usize>,
    pub sha256: Option<String>,
    pub skip_bad_images: bool,
    /// Only images of these classes; of all where there are none.
    pub classes: Vec<String>,
    /// What classes are called in texts, where it is not what they are called.
    pub names: BTreeMap<String, String>,
    pub near_duplicates: NearDuplicates,
    /// Other datasets whose test images are tested as well, or what is done to its own.
    pub also_test: Vec<AlsoTest>,
    /// What is done to all of its images.
    pub corruption: Option<Corruption>,
    /// The value that is white in images of 16 bits.
    pub white: Option<u16>,
    pub spot: Spot,
}

/// What is tested as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlsoTest {
    Dataset(String),
    /// The dataset's own test images, so corrupted.
    Corrupted(Corruption),
}

impl AlsoTest {
    /// What tables and rules call it.
    pub fn name(&self) -> String {
        match self {
            Self::Dataset(name) => name.clone(),
            Self::Corrupted(corruption) => corruption.to_string(),
        }
    }
}

/// What becomes of images that are nearly another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NearDuplicates {
    Keep,
    /// Those of a test image are not trained or validated on.
    Drop,
    /// They are dealt as one.
    Together,
}

/// Where images come from.
#[derive(Clone, Debug)]
pub enum Origin {
    Path(String),
    /// The built-in family; train and test count images per class.
    Synthetic {
        classes: usize,
        shift: f64,
        task: u64,
        train: usize,
        test: usize,
    },
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub size: Option<Size>,
    pub similarity: Option<Similarity>,
    /// `dataset`, `per_class` and any settings.
    pub layer: Layer,
}

#[derive(Clone, Debug)]
pub struct Pretrain {
    pub dataset: String,
    /// Defaults and the table's own settings.
    pub layer: Layer,
}

#[derive(Clone, Debug)]
pub struct When {
    pub condition: Condition,
    pub axes: Vec<Axis>,
}

#[derive(Clone, Debug)]
pub struct Exclude {
    pub condition: Condition,
    pub text: String,
    pub reason: String,
    pub spot: Spot,
}

#[derive(Clone, Debug)]
pub struct Rule {
    /// A pattern over scenario names.
    pub scenario: String,
    pub better: String,
    pub worse: String,
    pub margin: f64,
    /// A pattern over names of other datasets that are tested as well: on their images it is claimed, and not on the scenario's.
    pub on: Option<String>,
    /// What `better` is better in; none: the experiment's metric.
    pub metric: Option<String>,
    pub spot: Spot,
}

/// Whether the text of an experiment as the store keeps it, file behind file, lets results of several numerics classes stand
/// in it.
pub fn mixes_numerics(text: &str) -> bool {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().replace(' ', ""));
    lines.into_iter().any(|line| matches!(line.as_str(), "mix_numerics=true" | "experiment.mix_numerics=true"))
}

impl Experiment {
    /// Reads and resolves the file at `path`, with what `--set` changes in it.
    ///
    /// # Errors
    /// Every problem of the file, of the files it extends, and of the changes.
    pub fn load(path: &std::path::Path, set: &[String]) -> Result<Self, Problems> {
        let (mut sources, mut problems) = (Vec::new(), Vec::new());
        let tree = file::load(path, set, &mut sources, &mut problems);
        let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Self::build(tree, stem, sources, problems)
    }

    /// The same from a text, for tests and templates.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problems> {
        let (mut sources, mut problems) = (Vec::new(), Vec::new());
        let tree = file::parse(format!("{name}.toml"), text.to_owned(), &mut sources, &mut problems);
        Self::build(Some(tree), name.to_owned(), sources, problems)
    }

    fn build(
        tree: Option<file::Node>,
        name: String,
        sources: Vec<Source>,
        problems: Vec<Problem>,
    ) -> Result<Self, Problems> {
        // What a broken text seems to say is not worth complaining about.
        if !problems.is_empty() {
            return Err(Problems { sources, list: problems });
        }
        let mut reader = reader::Reader::new(problems);
        let resolved = tree.and_then(|tree| resolve::resolve(&tree, name, &mut reader));
        match resolved {
            Some(mut experiment) if reader.problems.is_empty() => {
                experiment.sources = sources;
                experiment.places = reader.places;
                Ok(experiment)
            }
            _ => Err(Problems { sources, list: reader.problems }),
        }
    }

    /// Problems found later, with this experiment's texts around them.
    pub fn problems(&self, list: Vec<Problem>) -> Problems {
        Problems { sources: self.sources.clone(), list }
    }

    /// A problem with the value of a setting, at its place if it stands in the file.
    pub fn problem(&self, key: &str, value: &Value, message: impl Into<String>) -> Problem {
        let spot = self.places.get(&(key.to_owned(), value.to_string())).copied();
        Problem { spot, message: message.into(), help: None }
    }

    /// The scenario of that name.
    pub fn scenario(&self, name: &str) -> Option<&Scenario> {
        self.scenarios.iter().find(|scenario| scenario.name == name)
    }

    /// Paths of the file and of all it extends.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.path.as_str()).filter(|path| *path != overrides::NAME)
    }

    /// What `--set` changed, as TOML.
    pub fn changes(&self) -> Option<&str> {
        let source = self.sources.iter().find(|source| source.path == overrides::NAME)?;
        source.text.split_once('\n').map(|(_mark, changes)| changes)
    }

    /// The text of the file and of all it extends, as the store keeps it.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self.sources.iter().map(|source| source.text.as_str()).collect();
        texts.join("\n")
    }
}
