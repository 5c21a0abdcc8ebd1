//! One leg of training, with every setting of its steps: a trial without `phases` has one.

use serde::{Deserialize, Serialize};

use crate::augmentation::Augmentation;
use crate::freeze::Freeze;
use crate::recipe::{
    BATCH_NORM, BatchNorm, Budget, CLASS_WEIGHTS, ClassWeights, DECAY, Decay, LAYER_RATES, LayerRates, OPTIMIZERS,
    Optimizer, OptimizerName, Parsed, STRENGTHS, Schedule, clip, count, flag, number, strengths, word, wrong,
};
use crate::trains::Trains;
use crate::value::{Layer, Value, spaced};

/// One leg of training. A trial without `phases` has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    pub freeze: Freeze,
    /// Which of the unfrozen parameters train.
    #[serde(default, skip_serializing_if = "Trains::is_all")]
    pub trains: Trains,
    pub budget: Budget,
    pub batch: usize,
    pub optimizer: Optimizer,
    pub lr: f64,
    pub backbone_lr: f64,
    /// Times `backbone_lr` for each block between a layer and the head.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub layer_decay: f64,
    /// What else is between the rates of layers.
    #[serde(default, skip_serializing_if = "LayerRates::is_even")]
    pub layer_rates: LayerRates,
    pub weight_decay: f64,
    pub decay: Decay,
    /// Strength of the pull of the backbone to where it started, in place of its decay to zero.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_decay: f64,
    pub schedule: Schedule,
    /// Fraction of the budget over which the rate rises linearly from zero.
    pub warmup: f64,
    pub label_smoothing: f64,
    /// How much each class counts in the training loss.
    pub class_weights: ClassWeights,
    /// The largest norm of all gradients together; larger ones are scaled down to it.
    pub clip: Option<f64>,
    /// Probability of dropping a feature before the last layer of the head.
    pub dropout: f64,
    pub batch_norm: BatchNorm,
    pub augment: Vec<Augmentation>,
    /// Strengths of regularisation among which validation chooses, where the head is solved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lambda: Vec<f64>,
}

// What stands for itself is not in keys: those of before there was a choice hold.
fn one() -> f64 {
    1.0
}

fn is_one(number: &f64) -> bool {
    *number == 1.0
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

/// Settings that may stand in a phase.
pub const PHASE_KEYS: &[&str] = &[
    "freeze",
    "trains",
    "steps",
    "epochs",
    "batch",
    "optimizer",
    "lr",
    "backbone_lr",
    "layer_decay",
    "layer_rates",
    "momentum",
    "nesterov",
    "weight_decay",
    "decay",
    "start_decay",
    "schedule",
    "warmup",
    "label_smoothing",
    "class_weights",
    "clip",
    "dropout",
    "batch_norm",
    "augment",
];

/// A list of tables, each with settings that may stand in a phase; their values are checked by `check`.
pub fn phases(value: &Value) -> Parsed<Vec<&Layer>> {
    const ACCEPTED: &str = "a list of tables such as { freeze = \"all\", steps = 200 }";
    let Value::List(items) = value else {
        return wrong(value, ACCEPTED);
    };
    if items.is_empty() {
        return Err(format!("expected {ACCEPTED}, found an empty list"));
    }
    let mut phases = Vec::new();
    for item in items {
        let Value::Table(entries) = item else {
            return wrong(item, ACCEPTED);
        };
        if let Some(key) = entries.keys().find(|key| !PHASE_KEYS.contains(&key.as_str())) {
            return Err(format!("a phase has no '{key}'; it may have {}", PHASE_KEYS.join(", ")));
        }
        if entries.contains_key("steps") && entries.contains_key("epochs") {
            return Err("a phase has `steps` or `epochs`, not both".to_owned());
        }
        phases.push(entries);
    }
    Ok(phases)
}

/// Reads a setting that `layer` is known to hold: every layer starts from the defaults.
fn get<'a>(layer: &'a Layer, key: &str) -> Parsed<&'a Value> {
    layer.get(key).ok_or_else(|| format!("`{key}` is missing"))
}

impl Phase {
    /// Builds the one leg that `layer` describes, defaults filled in.
    pub fn parse(layer: &Layer) -> Parsed<Self> {
        let lr = number(get(layer, "lr")?, 0.0, f64::MAX)?;
        let optimizer = match word::<OptimizerName>(get(layer, "optimizer")?, OPTIMIZERS)? {
            OptimizerName::Adamw => Optimizer::Adamw,
            OptimizerName::Lbfgs => Optimizer::Lbfgs,
            OptimizerName::Ridge => Optimizer::Ridge,
            OptimizerName::Lda => Optimizer::Lda,
            OptimizerName::None => Optimizer::None,
            OptimizerName::Sgd => Optimizer::Sgd {
                momentum: layer.get("momentum").map_or(Ok(0.0), |value| number(value, 0.0, 1.0))?,
                nesterov: layer.get("nesterov").map_or(Ok(false), flag)?,
            },
        };
        Ok(Self {
            freeze: Freeze::parse(get(layer, "freeze")?)?,
            trains: layer.get("trains").map_or(Ok(Trains::All), Trains::parse)?,
            budget: match (layer.get("steps"), layer.get("epochs")) {
                (Some(steps), None) => Budget::Steps(count(steps, 1)?),
                (None, Some(epochs)) => Budget::Epochs(count(epochs, 1)?),
                _ => return Err("exactly one of `steps` and `epochs` is needed".to_owned()),
            },
            batch: count(get(layer, "batch")?, 1)?,
            optimizer,
            lr,
            backbone_lr: layer.get("backbone_lr").map_or(Ok(lr), |value| number(value, 0.0, f64::MAX))?,
            layer_decay: layer.get("layer_decay").map_or(Ok(1.0), |value| number(value, 0.0, 1.0))?,
            layer_rates: layer.get("layer_rates").map_or(Ok(LayerRates::Even), |value| word(value, LAYER_RATES))?,
            weight_decay: number(get(layer, "weight_decay")?, 0.0, f64::MAX)?,
            decay: layer.get("decay").map_or(Ok(Decay::Coupled), |value| word(value, DECAY))?,
            start_decay: layer.get("start_decay").map_or(Ok(0.0), |value| number(value, 0.0, f64::MAX))?,
            schedule: Schedule::parse(get(layer, "schedule")?)?,
            warmup: number(get(layer, "warmup")?, 0.0, 1.0)?,
            label_smoothing: number(get(layer, "label_smoothing")?, 0.0, 1.0)?,
            class_weights: word(get(layer, "class_weights")?, CLASS_WEIGHTS)?,
            clip: layer.get("clip").map(clip).transpose()?,
            dropout: number(get(layer, "dropout")?, 0.0, 0.99)?,
            batch_norm: layer.get("batch_norm").map_or(Ok(BatchNorm::Frozen), |value| word(value, BATCH_NORM))?,
            augment: Augmentation::parse_list(get(layer, "augment")?)?,
            lambda: match optimizer {
                Optimizer::Lbfgs | Optimizer::Ridge | Optimizer::Lda => path(layer)?,
                Optimizer::Sgd { .. } | Optimizer::Adamw | Optimizer::None => Vec::new(),
            },
        })
    }

    /// The legs of a cell: one for each of its `phases`, or one.
    pub fn parse_all(layer: &Layer) -> Parsed<Vec<Self>> {
        let Some(list) = layer.get("phases") else {
            return Ok(vec![Self::parse(layer)?]);
        };
        phases(list)?.into_iter().map(|own| Self::parse(&with_phase(layer, own))).collect()
    }
}

/// The strengths of regularisation along which a head is solved.
pub fn path(layer: &Layer) -> Parsed<Vec<f64>> {
    let default = || Ok(spaced(true, STRENGTHS.0, STRENGTHS.1, STRENGTHS.2).collect());
    layer.get("lambda").map_or_else(default, strengths)
}

/// `layer` with a phase's own settings over it.
pub fn with_phase(layer: &Layer, own: &Layer) -> Layer {
    let mut whole = layer.clone();
    if own.contains_key("steps") || own.contains_key("epochs") {
        whole.remove("steps");
        whole.remove("epochs");
    }
    whole.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
    whole
}
