//! What a plan must know of the world: opened datasets, found weights, slots, the rates of this machine.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Usage;
use super::devices::Devices;
use super::machine::Rates;
use super::materials::{how_to_get_weights, weight_file, weights_folder};
use super::opened;
use crate::cli::Common;
use crate::data::Dataset;
use crate::data::split::split;
use crate::device::Device;
use crate::experiment::Experiment;
use crate::experiment::problem::Problem;
use crate::key::Key;
use crate::model::catalogue;
use crate::model::sketch::Sketch;
use crate::model::texts;
use crate::plan::facts::KnownBackbone;
use crate::plan::stage::{Encode, Encoded};
use crate::plan::{Facts, WeightsFact};
use crate::train::Places;
use crate::value::Value;

/// The facts, and the things themselves.
pub struct World {
    pub facts: Facts,
    pub datasets: BTreeMap<String, Arc<Dataset>>,
    pub devices: Devices,
    pub places: Places,
    pub rates: Rates,
    /// How many times the work of one slot all of a device do together.
    pub gain: f64,
    /// Whether trials share work; without, each runs alone, for audit.
    pub share: bool,
    /// Whether what trials have trained is kept.
    pub keep: bool,
    /// Rows of encodings, by what decides them.
    rows: RefCell<HashMap<RowsOf, usize>>,
}

/// What decides which images an encoding holds.
type RowsOf = (Key, Option<usize>, u64, usize, Encoded);

impl World {
    /// Opens everything that the experiment names.
    ///
    /// # Errors
    /// Every dataset and weight file that cannot be used, at its place in the file; or no usable device.
    pub fn gather(experiment: &Experiment, file: &Path, common: &Common) -> anyhow::Result<Self> {
        let devices = Devices::choose(&common.devices)?;
        let mut problems = Vec::new();
        let folder = data_folder(file, common);
        let cache = common.db.parent().unwrap_or(Path::new("")).join("cache");
        let datasets = opened::datasets(experiment, &used_datasets(experiment), &folder, &cache, &mut problems);
        let weights = find_weights(experiment, common, &folder, &mut problems);
        let graphs = own_graphs(experiment, file, &mut problems);
        if !problems.is_empty() {
            return Err(experiment.problems(problems).into());
        }
        devices.allow(&values_of(experiment, "precision"))?;
        let per_device = common.slots.unwrap_or_else(|| match devices.first() {
            Device::Cpu => super::host::threads(),
            // Until it is known what is to run: `streams`.
            Device::Cuda(_) => 1,
        });
        if per_device == 0 {
            return Err(Usage("--slots needs at least 1".to_owned()).into());
        }
        let facts = Facts {
            datasets: datasets
                .iter()
                .map(|(name, dataset)| (name.clone(), opened::fact(experiment.datasets.get(name), dataset)))
                .collect(),
            weights,
            graphs,
            slots: per_device * devices.count(),
        };
        let (rates, rows) = (Rates::open(&cache, &devices), RefCell::default());
        let places = Places { cache, numerics: devices.numerics() };
        Ok(Self { facts, datasets, devices, places, rates, gain: per_device as f64, share: true, keep: false, rows })
    }

    /// Slots whose work is done in the time of one: streams of a GPU slow each other down.
    pub fn slots_worth(&self) -> f64 {
        self.gain * self.devices.count() as f64
    }

    /// Rows of an encoding: what the replicates' splits read, each image once, and its views.
    ///
    /// # Errors
    /// A class has too few images.
    pub fn encoded(&self, stage: &Encode) -> Result<usize, String> {
        let key = (stage.data, stage.per_class, stage.seed, stage.replicates, stage.images);
        if let Some(rows) = self.rows.borrow().get(&key) {
            return Ok(*rows);
        }
        let dataset = self.datasets.values().find(|dataset| dataset.manifest.fingerprint == stage.data);
        let manifest = &dataset.ok_or("the dataset of an encoding is gone")?.manifest;
        let (mut plain, mut trained, mut validated) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for replicate in 0..stage.replicates {
            let split = split(manifest, stage.per_class, stage.seed, replicate as u64)?;
            validated.extend(split.val.iter().copied());
            plain.extend(split.evaluated());
            trained.extend(split.train);
        }
        let rows = match stage.images {
            Encoded::All => plain.union(&trained).count(),
            Encoded::Evaluated => plain.len(),
            Encoded::Views { count, refit } => {
                let validated = if refit { validated.difference(&trained).count() } else { 0 };
                plain.len() + count * (trained.len() + validated)
            }
        };
        self.rows.borrow_mut().insert(key, rows);
        Ok(rows)
    }
}

pub(super) fn data_folder(file: &Path, common: &Common) -> PathBuf {
    let beside = || file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    common.data.clone().unwrap_or_else(|| beside().to_owned())
}

/// Names of the datasets that some cell or the pretraining reads.
fn used_datasets(experiment: &Experiment) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = values_of(experiment, "dataset").iter().map(Value::to_string).collect();
    if let Some(pretrain) = &experiment.pretrain
        && values_of(experiment, "weights").iter().any(|value| value.text() == Some("pretrain"))
    {
        names.insert(pretrain.dataset.clone());
    }
    names
}

/// Every value that a setting takes anywhere in the experiment.
fn values_of(experiment: &Experiment, key: &str) -> Vec<Value> {
    let layers = [&experiment.base].into_iter();
    let layers =
        layers.chain(experiment.scenarios.iter().map(|scenario| &scenario.layer)).chain(experiment.includes.iter());
    let used: BTreeSet<String> = axis_values(experiment, "recipe")
        .iter()
        .chain(experiment.includes.iter().filter_map(|layer| layer.get("recipe")))
        .map(Value::to_string)
        .collect();
    let recipes = experiment.recipes.iter().filter(|(name, _)| used.contains(*name)).map(|(_, layer)| layer);
    let mut values: Vec<Value> = layers.chain(recipes).filter_map(|layer| layer.get(key).cloned()).collect();
    values.extend(axis_values(experiment, key));
    values
}

fn axis_values(experiment: &Experiment, key: &str) -> Vec<Value> {
    let axes = experiment.axes.iter().chain(experiment.whens.iter().flat_map(|when| &when.axes));
    let column = |axis: &crate::experiment::axis::Axis| axis.keys.iter().position(|own| own == key);
    axes.filter_map(|axis| column(axis).map(|column| (axis, column)))
        .flat_map(|(axis, column)| axis.rows.iter().map(move |row| row[column].clone()))
        .collect()
}

/// Files of networks of one's own that an experiment names.
pub fn own_networks(experiment: &Experiment) -> BTreeSet<String> {
    values_of(experiment, "arch").iter().map(Value::to_string).filter(|name| name.ends_with(".toml")).collect()
}

/// Networks that the experiment has in files of their own, by what it calls them and by their settled names.
fn own_graphs(experiment: &Experiment, file: &Path, problems: &mut Vec<Problem>) -> BTreeMap<String, Sketch> {
    let mut found = BTreeMap::new();
    let beside = file.parent().unwrap_or(Path::new(""));
    for name in own_networks(experiment) {
        match Sketch::read(&beside.join(&name)) {
            Ok(own) => {
                found.insert(crate::plan::own_name(&own), own.clone());
                found.insert(name, own);
            }
            Err(message) => problems.push(experiment.problem("arch", &Value::Text(name), message)),
        }
    }
    found
}

fn find_weights(
    experiment: &Experiment,
    common: &Common,
    data: &Path,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, WeightsFact> {
    let folder = weights_folder(common, data);
    let reads_names = values_of(experiment, "head_start").iter().any(|value| value.text() == Some("class-names"));
    let mut found = BTreeMap::new();
    for value in values_of(experiment, "weights") {
        let name = value.to_string();
        if matches!(name.as_str(), "random" | "pretrain") || found.contains_key(&name) {
            continue;
        }
        let Some(path) = weight_file(&name, &folder) else {
            problems.push(missing_weights(experiment, &value, &folder));
            continue;
        };
        match catalogue::identify(&path) {
            Err(error) => problems.push(experiment.problem("weights", &value, format!("{error:#}"))),
            Ok(identity) => {
                let known = identity.known.map(|known| KnownBackbone {
                    arch: known.arch.to_owned(),
                    width: known.width,
                    input: known.input,
                    preprocess: known.preprocess,
                    resize: known.resize,
                });
                let texts = match reads_names {
                    true => tokenizer(&path).map_err(|error| format!("{error:#}")),
                    false => Err("no recipe reads class names, and its side of texts was not looked for".to_owned()),
                };
                let (sha256, path) = (identity.sha256, path.display().to_string());
                found.insert(name, WeightsFact { sha256, path, texts, known });
            }
        }
    }
    found
}

/// The tokenizer of weights that have a side of texts: its SHA-256.
///
/// # Errors
/// They have none, or no tokenizer lies beside them.
pub(super) fn tokenizer(weights: &Path) -> anyhow::Result<String> {
    let vocabulary = texts::vocabulary(weights)?;
    let tokenizer = texts::tokenizer::beside(weights).map_err(anyhow::Error::msg)?;
    texts::tokenizer::check(&tokenizer, vocabulary)?;
    Ok(catalogue::identify(&tokenizer)?.sha256)
}

fn missing_weights(experiment: &Experiment, value: &Value, folder: &Path) -> Problem {
    let name = value.to_string();
    let message = format!("there are no weights '{name}' here, nor in '{}'", folder.display());
    experiment.problem("weights", value, message).help(how_to_get_weights(&name, folder))
}
