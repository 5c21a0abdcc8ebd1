//! Freeze depth: how much of the backbone, from the input, is held fixed.

use std::fmt;

use serde::{Deserialize, Serialize};

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
