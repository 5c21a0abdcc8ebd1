//! Every key of an experiment file: where it stands, what it accepts, its default, what it means.
//! Parsing, the reference page and the JSON Schema all read these tables, so none of them can differ.

mod settings;
mod tables;

pub use self::tables::TABLES;
pub use super::accepted::{SYNTHETIC, early_stop_patience, view_count};
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

/// Keys of `[train]` that a source model passes over.
pub const IDLE_IN_PRETRAIN: &[&str] =
    &["start_decay", "dropout", "lambda", "views", "precision", "keep_weights", "average", "early_stop", "calibrate"];

const TEXT: &str = r#"{"type":"string"}"#;
const FLAG: &str = r#"{"type":"boolean"}"#;
const COUNT: &str = r#"{"type":"integer","minimum":1}"#;
const WHOLE: &str = r#"{"type":"integer","minimum":0}"#;
const POSITIVE: &str = r#"{"type":"number","minimum":0}"#;
const FRACTION: &str = r#"{"type":"number","minimum":0,"maximum":1}"#;
const TABLE: &str = r#"{"type":"object"}"#;

macro_rules! key {
    ($group:ident, $name:literal, $default:literal, $check:expr, $schema:expr, $meaning:literal) => {
        Key { name: $name, group: Group::$group, default: $default, check: $check, schema: $schema, meaning: $meaning }
    };
}

use key;

/// All keys, group by group, in the order in which the reference prints them.
pub fn all() -> impl Iterator<Item = &'static Key> {
    tables::KEYS.iter().chain(settings::KEYS)
}

/// A setting of trials by its name: what layers, axes and conditions may speak of.
pub fn find(name: &str) -> Option<&'static Key> {
    settings().find(|key| key.name == name)
}

/// All settings of trials.
pub fn settings() -> impl Iterator<Item = &'static Key> {
    settings::KEYS.iter()
}

/// The keys of one group.
pub fn of(group: Group) -> impl Iterator<Item = &'static Key> {
    all().filter(move |key| key.group == group)
}

/// Keys beside the settings that axes and conditions may speak of.
pub const CELL_KEYS: &[&str] = &["scenario", "recipe", "dataset", "per_class", "size", "similarity"];

/// Keys that only tune: they are selected over, within an arm.
pub const TUNING: &[&str] =
    &["lr", "backbone_lr", "layer_decay", "weight_decay", "start_decay", "momentum", "dropout", "label_smoothing"];

/// `backbone.arch` is `arch`, `train.lr` is `lr`: the table may be named before the key.
pub fn plain(name: &str) -> &str {
    name.strip_prefix("backbone.").or_else(|| name.strip_prefix("train.")).unwrap_or(name)
}
