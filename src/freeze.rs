//! Freeze depth: how much of the backbone, from the input, is held fixed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::recipe::{Parsed, count, wrong};
use crate::value::Value;

/// The only spelling of "frozen". A learning rate of zero is not another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Freeze {
    /// The whole backbone trains.
    None,
    /// The whole backbone is fixed; only the head trains.
    All,
    /// The first N layers of the list that `summary` prints: Keras' `model.layers[:N]`.
    Index(usize),
    /// A layer or block by name, and all before it.
    Through(String),
}

impl Freeze {
    /// `"none"`, `"all"`, a layer or block name, or a whole number for Keras' `model.layers[:N]`.
    pub fn parse(value: &Value) -> Parsed<Self> {
        match value {
            Value::Int(_) => Ok(Self::Index(count(value, 0)?)),
            Value::Text(text) => Ok(match text.as_str() {
                "none" => Self::None,
                "all" => Self::All,
                "" => return wrong(value, "'none', 'all', a layer, a block or a whole number"),
                name => Self::Through(name.to_owned()),
            }),
            other => wrong(other, "'none', 'all', a layer, a block or a whole number"),
        }
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::All => f.write_str("all"),
            Self::Index(count) => write!(f, "{count}"),
            Self::Through(name) => f.write_str(name),
        }
    }
}
