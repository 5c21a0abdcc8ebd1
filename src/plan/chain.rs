//! From the settings of a settled cell to the stages behind its trial.

use super::facts::Facts;
use super::stage::{Backbone, Encode, Encoded, Pretrain, Stage, Start, Train};
use super::{solved_start, transfer, zero_shot};
use crate::device::{PRECISIONS, Precision};
use crate::experiment;
use crate::frame::Resize;
use crate::key::Key;
use crate::model::arch::Arch;
use crate::phase::Phase;
use crate::preprocess::Preprocess;
use crate::recipe::{self, Calibrate, Head, KeepWeights, Metric, Pool, Schedule};
use crate::value::{Layer, Value};

/// A trial and what must be there before it.
pub struct Chain {
    pub pretrain: Option<Pretrain>,
    pub encode: Option<Encode>,
    /// Whether the frozen layers may run apart from the rest; only then is there an encoding.
    pub prefix: bool,
    pub train: Train,
    /// Whether other trials of the experiment may begin as this one does.
    pub branches: bool,
}

impl Chain {
    /// Whether the features of all images are kept as they are, those of training images among them.
    pub fn stores_all(&self) -> bool {
        self.encode.as_ref().is_some_and(|stage| stage.images == Encoded::All)
    }
}

/// What stages take from the experiment as a whole.
pub struct Reach<'a> {
    pub seed: u64,
    pub replicates: usize,
    pub metric: Metric,
    pub refit: bool,
    pub per_class: Option<usize>,
    pub pretrain: Option<&'a experiment::Pretrain>,
    /// Whether any trial is calibrated or averaged in the end, and may be one training with others till then.
    pub twins: bool,
}

/// The stages behind a settled cell's replicate.
///
/// # Errors
/// A setting that cannot be read.
pub fn chain(layer: &Layer, cell: Key, replicate: usize, reach: &Reach, facts: &Facts) -> Result<Chain, String> {
    let dataset = layer.get("dataset").map_or_else(String::new, Value::to_string);
    let data = facts.datasets.get(&dataset).ok_or_else(|| format!("the dataset '{dataset}' was not opened"))?;
    let pretrain = pretrain(layer, reach.pretrain, facts, reach.seed)?;
    let backbone = Backbone {
        arch: arch(layer, facts)?,
        start: start(layer, facts, reach.pretrain, reach.seed)?,
        preprocess: preprocess(layer)?,
        resize: resize(layer)?,
        tap: layer.get("tap").map_or_else(String::new, Value::to_string),
    };
    let mut whole = crate::experiment::resolve::defaults();
    crate::experiment::resolve::overlay(&mut whole, layer);
    let copied = match layer.get("transfer") {
        Some(value) => {
            let network = backbone.arch.backbone(&backbone.tap)?;
            Some(transfer::copied(value, &network).map_err(|fault| fault.message)?)
        }
        None => None,
    };
    let train = Train {
        cell,
        replicate,
        backbone: backbone.clone(),
        copied,
        pool: layer.get("pool").map_or(Ok(Pool::Avg(1)), Pool::parse)?,
        head: Head::parse(whole.get("head").ok_or("no head")?)?,
        texts: zero_shot::texts(layer, facts)?,
        solved_start: solved_start::of(layer)?,
        phases: Phase::parse_all(&whole)?,
        keep_weights: whole
            .get("keep_weights")
            .map_or(Ok(KeepWeights::Last), |value| recipe::word(value, "'last' or 'best'"))?,
        early_stop: layer.get("early_stop").map(experiment::keys::early_stop_patience).transpose()?,
        interpolate: layer.get("interpolate").map_or(Ok(1.0), |value| recipe::number(value, 0.0, 1.0))?,
        average: layer.get("average").map_or(Ok(0.0), |value| recipe::number(value, 0.0, 1.0))?,
        calibrate: layer
            .get("calibrate")
            .map_or(Ok(Calibrate::None), |value| recipe::word(value, recipe::CALIBRATE))?,
        views: layer.get("views").map(experiment::keys::view_count).transpose()?,
        metric: reach.metric,
        refit: reach.refit && !layer.contains_key("tune_share"),
        untested: layer.contains_key("tune_share"),
        data: data.fingerprint,
        classes: data.classes,
        per_class: layer.get("per_class").and_then(Value::count),
        seed: reach.seed,
        precision: precision(layer)?,
    };
    let encode = match train.shared_cut()? {
        None => None,
        Some(cut) => {
            let (network, _) = train.network()?;
            let name = network.layers[cut].name.clone();
            Some(Encode {
                backbone,
                pool: name.starts_with("head.").then_some(train.pool),
                cut: name,
                images: train.encoded(),
                augment: train.views.map_or(Vec::new(), |_| train.phases[0].augment.clone()),
                data: data.fingerprint,
                per_class: reach.per_class,
                seed: reach.seed,
                replicates: reach.replicates,
                precision: train.precision,
            })
        }
    };
    // A random backbone differs between replicates: there is nothing to share.
    let encode = encode.filter(|_| train.backbone.start != Start::Random);
    let branches = reach.twins
        || train.phases.len() > 1
        || matches!(train.phases.first().map(|phase| &phase.schedule), Some(Schedule::Step { .. }));
    Ok(Chain { pretrain, prefix: encode.is_some(), encode, train, branches })
}

/// The network that a settled layer names.
///
/// # Errors
/// `arch` or `input` is missing.
pub fn arch(layer: &Layer, facts: &Facts) -> Result<Arch, String> {
    let name = layer.get("arch").map(Value::to_string).ok_or("no `arch`")?;
    Ok(Arch {
        input: layer.get("input").and_then(Value::count).ok_or("no `input`")?,
        width: layer.get("width").and_then(Value::number).unwrap_or(1.0),
        own: facts.graphs.get(&name).cloned().map(Box::new),
        name,
    })
}

fn preprocess(layer: &Layer) -> Result<Preprocess, String> {
    Preprocess::parse(asked(layer, "preprocess")?.text().unwrap_or_default())
}

fn precision(layer: &Layer) -> Result<Precision, String> {
    layer.get("precision").map_or(Ok(Precision::default()), |value| recipe::word(value, PRECISIONS))
}

fn resize(layer: &Layer) -> Result<Resize, String> {
    Resize::parse(asked(layer, "resize")?.text().unwrap_or_default())
}

/// A setting without the mark that it goes against the weights.
fn asked(layer: &Layer, key: &str) -> Result<Value, String> {
    let value = layer.get(key).ok_or_else(|| format!("no `{key}`"))?;
    let text = value.text().map_or("", |text| text.split(recipe::OVERRIDE).next().unwrap_or(text));
    Ok(Value::Text(text.to_owned()))
}

/// Where the backbone of a settled layer starts.
///
/// # Errors
/// Weights that were not found, or `pretrain` without its table.
pub fn start(layer: &Layer, facts: &Facts, table: Option<&experiment::Pretrain>, seed: u64) -> Result<Start, String> {
    let weights = layer.get("weights").map_or_else(String::new, Value::to_string);
    match weights.as_str() {
        "random" => Ok(Start::Random),
        "pretrain" => match pretrain(layer, table, facts, seed)? {
            Some(stage) => Ok(Start::Pretrained(Stage::Pretrain(stage).key())),
            None => Err("weights = \"pretrain\" needs a [pretrain] table with the source dataset".to_owned()),
        },
        name => facts
            .weights
            .get(name)
            .map(|fact| Start::File(fact.sha256.clone()))
            .ok_or_else(|| format!("the weights '{name}' were not found")),
    }
}

fn pretrain(
    layer: &Layer,
    table: Option<&experiment::Pretrain>,
    facts: &Facts,
    seed: u64,
) -> Result<Option<Pretrain>, String> {
    if layer.get("weights").and_then(Value::text) != Some("pretrain") {
        return Ok(None);
    }
    let Some(table) = table else { return Ok(None) };
    let data =
        facts.datasets.get(&table.dataset).ok_or_else(|| format!("the dataset '{}' was not opened", table.dataset))?;
    let mut settings = table.layer.clone();
    settings.insert("batch_norm".to_owned(), Value::Text("train".to_owned()));
    let phase = Phase::parse(&settings)?;
    Ok(Some(Pretrain {
        arch: arch(layer, facts)?,
        preprocess: preprocess(layer)?,
        resize: resize(layer)?,
        data: data.fingerprint,
        classes: data.classes,
        phase,
        seed,
        precision: precision(layer)?,
    }))
}
