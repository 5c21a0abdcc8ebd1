//! Every key of an experiment file: where it stands, what it accepts, its default, what it means.
//! Parsing, the reference page and the JSON Schema all read this table, so none of them can differ.

pub use super::accepted::{SYNTHETIC, early_stop_patience, view_count};
use super::accepted::{
    bounded, count, early_stop, flag, fraction, hex64, input, positive, splits, synthetic, text, views, whole, width,
};
use crate::device::{PRECISIONS, Precision};
use crate::frame::Resize;
use crate::freeze::Freeze;
use crate::phase;
use crate::recipe::{self, Augmentation, Head, Keep, Metric, OptimizerName, Pool, Preprocess, Schedule};
use crate::scenario::{Similarity, Size};
use crate::value::Value;

/// One key.
pub struct Key {
    pub name: &'static str,
    pub group: Group,
    /// How the default reads; empty where the key must be given or is simply absent.
    pub default: &'static str,
    pub check: fn(&Value) -> Result<(), String>,
    /// A JSON Schema fragment of what is accepted.
    pub schema: &'static str,
    pub meaning: &'static str,
}

/// Which table a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Experiment,
    Backbone,
    /// What a recipe decides.
    Recipe,
    /// How training goes; a recipe, a scenario or an axis may override it.
    Train,
    Pretrain,
    Dataset,
    Scenario,
    Rule,
    Condition,
}

const TEXT: &str = r#"{"type":"string"}"#;
const FLAG: &str = r#"{"type":"boolean"}"#;
const COUNT: &str = r#"{"type":"integer","minimum":1}"#;
const WHOLE: &str = r#"{"type":"integer","minimum":0}"#;
const POSITIVE: &str = r#"{"type":"number","minimum":0}"#;
const FRACTION: &str = r#"{"type":"number","minimum":0,"maximum":1}"#;
const TABLE: &str = r#"{"type":"object"}"#;

fn phases(value: &Value) -> Result<(), String> {
    for phase in phase::phases(value)? {
        for (name, value) in phase {
            let key = find(name).ok_or_else(|| format!("a phase has no '{name}'"))?;
            (key.check)(value).map_err(|message| format!("in a phase, `{name}`: {message}"))?;
        }
    }
    Ok(())
}

macro_rules! key {
    ($group:ident, $name:literal, $default:literal, $check:expr, $schema:expr, $meaning:literal) => {
        Key { name: $name, group: Group::$group, default: $default, check: $check, schema: $schema, meaning: $meaning }
    };
}

/// All keys, group by group, in the order in which the reference prints them.
pub static KEYS: &[Key] = &[
    key!(Experiment, "name", "the file's name", text, TEXT, "What reports and the store call this experiment."),
    key!(
        Experiment,
        "question",
        "",
        text,
        TEXT,
        "The question that the experiment is to answer; printed above its report."
    ),
    key!(
        Experiment,
        "replicates",
        "3",
        |v| bounded(v, 1_000),
        COUNT,
        "How many paired repetitions every cell gets: other subset, order and head per replicate, the same for all arms."
    ),
    key!(Experiment, "seed", "0", whole, WHOLE, "The number from which every random stream is derived."),
    key!(
        Experiment,
        "metric",
        "accuracy",
        |v| recipe::word::<Metric>(v, "'accuracy', 'balanced-accuracy' or 'macro-f1'").map(drop),
        r#"{"enum":["accuracy","balanced-accuracy","macro-f1"]}"#,
        "What selects a setting on validation and what rules compare on test."
    ),
    key!(
        Experiment,
        "refit",
        "false",
        flag,
        FLAG,
        "Whether every trial, once validation has scored it, trains again on training and validation images before test is read. For all arms or for none."
    ),
    key!(
        Experiment,
        "keep",
        "none",
        |v| recipe::word::<Keep>(v, "'none', 'best-per-scenario' or 'all'").map(drop),
        r#"{"enum":["none","best-per-scenario","all"]}"#,
        "Whose trained networks stay beside the store, so that `export` need not train them again: of nobody, of the best recipe of each scenario (until a sweep ends, of all), or of all trials."
    ),
    key!(
        Experiment,
        "mix_numerics",
        "false",
        flag,
        FLAG,
        "Allow trials of other numerics classes (another kind of device, as `doctor` names it) in one experiment."
    ),
    key!(
        Backbone,
        "arch",
        "taken from known weights",
        text,
        TEXT,
        "The architecture: a name that `summary` prints, or a .toml of your own with a list of layers, beside this file."
    ),
    key!(
        Backbone,
        "weights",
        "",
        text,
        TEXT,
        "Where the backbone starts: a catalogue name, a file (.h5, .weights.h5, .keras, .safetensors, .pth), `random`, or `pretrain` for the [pretrain] table."
    ),
    key!(
        Backbone,
        "input",
        "the size of the weights, else of the arch",
        input,
        r#"{"type":"integer","minimum":8,"maximum":1024}"#,
        "Side of the square input, in pixels."
    ),
    key!(
        Backbone,
        "width",
        "taken from known weights, else 1.0",
        width,
        r#"{"type":"number","minimum":0.05,"maximum":4}"#,
        "Times the channels of every layer."
    ),
    key!(
        Backbone,
        "preprocess",
        "comes with known weights; else torch",
        |v| recipe::word::<Preprocess>(v, recipe::PREPROCESSES).map(drop),
        r#"{"enum":["caffe","tf","torch","caffe-rgb","zero-one"]}"#,
        "How pixels become inputs. Required for a weight file that the catalogue does not know."
    ),
    key!(
        Backbone,
        "resize",
        "comes with known weights; else crop",
        |v| Resize::parse(&recipe::name(v)?).map(drop),
        TEXT,
        "How images are brought to the input: `crop` (the middle square of the whole shorter side), `crop 0.875` (of that share of it), or `stretch` (all of the image)."
    ),
    key!(
        Recipe,
        "freeze",
        "none",
        |v| Freeze::parse(v).map(drop),
        r#"{"type":["string","integer"],"minimum":0}"#,
        "Freeze depth: `none`, `all`, a layer or block (that and all before it), or N for the first N layers that `summary` prints."
    ),
    key!(
        Recipe,
        "tap",
        "the last features of the arch",
        text,
        TEXT,
        "The layer whose output is the feature; what is above it is cut off."
    ),
    key!(
        Recipe,
        "pool",
        "avg",
        |v| Pool::parse(v).map(drop),
        r#"{"type":["string","object"]}"#,
        "How a feature map becomes a vector: `flatten`, `avg`, `max`, or over a grid: { avg = 4 }, { max = 4 }. No effect on a tap that is a vector."
    ),
    key!(
        Recipe,
        "head",
        "linear",
        |v| Head::parse(v).map(drop),
        r#"{"type":["string","object"]}"#,
        "What is trained on the features: `linear` or { mlp = [256] } with hidden widths."
    ),
    key!(
        Recipe,
        "batch_norm",
        "frozen; train with random weights",
        |v| recipe::word::<recipe::BatchNorm>(v, recipe::BATCH_NORM).map(drop),
        r#"{"enum":["frozen","affine","train"]}"#,
        "What unfrozen batch norms do. Those of frozen layers are always frozen."
    ),
    key!(
        Recipe,
        "phases",
        "one phase",
        phases,
        r#"{"type":"array","items":{"type":"object"}}"#,
        "Legs of training, one after another, each with settings of its own: [{ freeze = \"all\", steps = 200 }, { freeze = \"none\", steps = 300 }]."
    ),
    key!(
        Train,
        "steps",
        "500, unless epochs stands",
        |v| bounded(v, 100_000_000),
        COUNT,
        "Optimiser steps. Exactly one of `steps` and `epochs`."
    ),
    key!(
        Train,
        "epochs",
        "",
        |v| bounded(v, 1_000_000),
        COUNT,
        "Passes over the training images; the last short batch is kept."
    ),
    key!(Train, "batch", "32", |v| bounded(v, 1_000_000), COUNT, "Images per step."),
    key!(
        Train,
        "optimizer",
        "sgd",
        |v| recipe::word::<OptimizerName>(v, recipe::OPTIMIZERS).map(drop),
        r#"{"enum":["sgd","adamw","lbfgs","ridge"]}"#,
        "Stochastic gradient descent or AdamW; or, for linear heads on frozen features, solved to the end: `lbfgs`, logistic regression (mean cross-entropy + lambda/2 |W|^2), or `ridge`, regression on the classes (mean square + lambda |W|^2), both with free biases."
    ),
    key!(
        Train,
        "lr",
        "0.01",
        positive,
        POSITIVE,
        "Learning rate of the head, and of the backbone unless `backbone_lr` stands."
    ),
    key!(Train, "backbone_lr", "lr", positive, POSITIVE, "Learning rate of the unfrozen backbone."),
    key!(Train, "momentum", "0.9", fraction, FRACTION, "Momentum of SGD."),
    key!(Train, "nesterov", "false", flag, FLAG, "Nesterov's form of momentum."),
    key!(
        Train,
        "weight_decay",
        "0.0",
        positive,
        POSITIVE,
        "Strength of weight decay; biases and batch norms are decayed too, frozen parameters never."
    ),
    key!(
        Train,
        "decay",
        "coupled",
        |v| recipe::word::<recipe::Decay>(v, recipe::DECAY).map(drop),
        r#"{"enum":["coupled","decoupled","over-lr"]}"#,
        "What weight decay means: in the gradient, on the weights, or in the gradient over the learning rate."
    ),
    key!(
        Train,
        "schedule",
        "cosine",
        |v| Schedule::parse(v).map(drop),
        r#"{"type":["string","object"]}"#,
        "`cosine`, `constant`, or { step = [0.5, 0.75], factor = 0.1 } with fractions of the budget."
    ),
    key!(Train, "warmup", "0.0", fraction, FRACTION, "Fraction of the budget with a linear rise from zero."),
    key!(Train, "label_smoothing", "0.0", fraction, FRACTION, "Share of the target spread over all classes."),
    key!(
        Train,
        "class_weights",
        "none",
        |v| recipe::word::<recipe::ClassWeights>(v, recipe::CLASS_WEIGHTS).map(drop),
        r#"{"enum":["none","balanced"]}"#,
        "How much classes count in the training loss: `none`, or `balanced`, the inverse of their number of training images. Scores are not weighted."
    ),
    key!(
        Train,
        "clip",
        "no limit",
        |v| recipe::clip(v).map(drop),
        r#"{"type":"number","exclusiveMinimum":0}"#,
        "Largest norm of all gradients of a step together; larger ones are scaled down to it (PyTorch's `clip_grad_norm_`)."
    ),
    key!(
        Train,
        "dropout",
        "0.0",
        |v| recipe::number(v, 0.0, 0.99).map(drop),
        r#"{"type":"number","minimum":0,"maximum":0.99}"#,
        "Dropout before the last layer of the head."
    ),
    key!(
        Train,
        "augment",
        "[]",
        |v| Augmentation::parse_list(v).map(drop),
        r#"{"type":"array","items":{"enum":["flip","crop","resized-crop","jitter"]}}"#,
        "Random changes of training images: flip, crop, resized-crop, jitter."
    ),
    key!(
        Train,
        "lambda",
        "{ log = [1e-6, 1e5], n = 45 }",
        |v| recipe::strengths(v).map(drop),
        r#"{"type":["number","array","object"]}"#,
        "Strengths of regularisation for `lbfgs` and `ridge`, in a trial of their own path, from the strongest to the weakest: validation chooses one."
    ),
    key!(
        Train,
        "views",
        "new ones in every epoch",
        views,
        r#"{"type":"integer","minimum":2}"#,
        "So many augmented views of each training image are made once and their frozen features stored; epochs take turns. It changes the results, and stands in the key and in the tables."
    ),
    key!(
        Train,
        "precision",
        "f32",
        |v| recipe::word::<Precision>(v, PRECISIONS).map(drop),
        r#"{"enum":["f32","tf32","bf16"]}"#,
        "How products round on a GPU: tf32 rounds their factors to 10 bits, bf16 keeps activations in bf16 as well; parameters, sums and optimisers stay f32. A CPU computes f32 only."
    ),
    key!(
        Train,
        "keep_weights",
        "last",
        |v| recipe::word::<recipe::KeepWeights>(v, "'last' or 'best'").map(drop),
        r#"{"enum":["last","best"]}"#,
        "Which weights are scored: of the last step, or of the best evaluation."
    ),
    key!(
        Train,
        "early_stop",
        "never",
        early_stop,
        TABLE,
        "{ patience = 3 }: stop after so many evaluations without a better validation loss."
    ),
    key!(
        Pretrain,
        "dataset",
        "",
        text,
        TEXT,
        "The source dataset. All its training images are used. Other keys of [train] may stand beside it."
    ),
    key!(
        Dataset,
        "path",
        "",
        text,
        TEXT,
        "A folder, .tar or .tar.gz of split/class/file, a CIFAR or IDX folder, or a .csv manifest, under --data."
    ),
    key!(Dataset, "splits", "train, val, test", splits, TABLE, "Folder names where they differ: { test = \"val\" }."),
    key!(
        Dataset,
        "synthetic",
        "",
        synthetic,
        TABLE,
        "Built-in images instead of a path: { classes = 10, shift = 0.0, task = 0, train = 300, test = 100 }. `shift` is the distance from the source; train and test count images per class."
    ),
    key!(
        Dataset,
        "sha256",
        "",
        hex64,
        TEXT,
        "Pin: other bytes are refused. Of the file, or for a folder what `data` prints."
    ),
    key!(
        Dataset,
        "on_bad_image",
        "error",
        |v| match v.text() {
            Some("error" | "skip") => Ok(()),
            _ => Err("expected 'error' or 'skip'".to_owned()),
        },
        r#"{"enum":["error","skip"]}"#,
        "What an image that cannot be read does: stop everything, or be left out and listed."
    ),
    key!(
        Scenario,
        "size",
        "",
        |v| recipe::word::<Size>(v, "'small' or 'large'").map(drop),
        r#"{"enum":["small","large"]}"#,
        "Label of the cell; `per_class` decides."
    ),
    key!(
        Scenario,
        "similarity",
        "",
        |v| recipe::word::<Similarity>(v, "'similar' or 'different'").map(drop),
        r#"{"enum":["similar","different"]}"#,
        "Label of the cell; the dataset decides."
    ),
    key!(Scenario, "dataset", "", text, TEXT, "The target dataset, a name of [datasets]."),
    key!(
        Scenario,
        "per_class",
        "all",
        count,
        COUNT,
        "Training images of each class, exactly; nested over sizes for one replicate. Validation is carved before."
    ),
    key!(
        Rule,
        "scenario",
        "every scenario",
        text,
        TEXT,
        "Where the rule is claimed; `*` stands for any run of letters."
    ),
    key!(Rule, "claim", "", text, TEXT, "`A > B`: recipe A scores higher than recipe B."),
    key!(Rule, "margin", "0.005", fraction, FRACTION, "Differences within plus or minus this are equivalence."),
    key!(Condition, "if", "", text, TEXT, "A condition over resolved keys: \"freeze != 'all' && lr > 5e-3\"."),
    key!(
        Condition,
        "axes",
        "",
        |v| match v {
            Value::Table(_) => Ok(()),
            _ => Err("expected a table of axes".to_owned()),
        },
        TABLE,
        "Axes that exist only where the condition of a [[when]] holds."
    ),
    key!(Condition, "reason", "", text, TEXT, "Why an [[exclude]] leaves these cells out; shown by plan and report."),
];

/// Tables at the top of the file, and what each is for.
pub static TABLES: &[(&str, &str)] = &[
    ("extends", "Another experiment file that this one changes: tables merge key by key, lists are replaced."),
    ("experiment", "What is asked, how often, from which seed."),
    ("backbone", "The network that is transferred."),
    ("pretrain", "How the source model is made when `weights = \"pretrain\"`: a shared, cached stage."),
    ("datasets", "[datasets.NAME]: where images come from."),
    ("scenarios", "[scenarios.NAME]: a target at a size. Any key of [train] and [backbone] may stand here too."),
    (
        "recipes",
        "[recipes.NAME]: a way to transfer. Any key of [train] and [backbone] may stand here too. linear-probe, first-layers-frozen, early-features, fine-tune and from-scratch are built in; a table of that name replaces one.",
    ),
    ("train", "How every trial trains, unless a scenario, a recipe or an axis says otherwise."),
    (
        "axes",
        "The cross: KEY = [values] or { log = [low, high], n = 4 } or { linear = [low, high], n = 4 }, in the order of the file.",
    ),
    ("zip", "[[zip]]: axes that move together."),
    ("when", "[[when]]: axes that exist only where a condition holds."),
    ("exclude", "[[exclude]]: cells that are left out, with the reason."),
    ("include", "[[include]]: single cells beside the cross: a scenario, a recipe and any settings."),
    ("rule", "[[rule]]: a claim to test."),
];

/// A setting of trials by its name: what layers, axes and conditions may speak of.
pub fn find(name: &str) -> Option<&'static Key> {
    settings().find(|key| key.name == name)
}

/// All settings of trials.
pub fn settings() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| matches!(key.group, Group::Backbone | Group::Recipe | Group::Train))
}

/// The keys of one group.
pub fn of(group: Group) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.group == group)
}

/// Keys beside the settings that axes and conditions may speak of.
pub const CELL_KEYS: &[&str] = &["scenario", "recipe", "dataset", "per_class", "size", "similarity"];

/// Keys that only tune: they are selected over, within an arm.
pub const TUNING: &[&str] = &["lr", "backbone_lr", "weight_decay", "momentum", "dropout", "label_smoothing"];

/// `backbone.arch` is `arch`, `train.lr` is `lr`: the table may be named before the key.
pub fn plain(name: &str) -> &str {
    name.strip_prefix("backbone.").or_else(|| name.strip_prefix("train.")).unwrap_or(name)
}
