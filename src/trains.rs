//! Which of the unfrozen parameters of a backbone train.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::recipe::{Parsed, name, wrong};
use crate::value::Value;

/// A choice among what `freeze` leaves. The head always trains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trains {
    #[default]
    All,
    /// Scales and shifts of batch norms and layer norms (Frankle, Schwab and Morcos, 2021).
    Norms,
    /// What is added: biases of products and shifts of norms (BitFit; Ben Zaken, Goldberg and Ravfogel, 2022).
    Biases,
    /// These layers and blocks: surgical fine-tuning (Lee et al., 2023).
    Only(Vec<String>),
}

impl Trains {
    /// `"all"`, `"norms"`, `"biases"`, a layer or block name, or a list of such names.
    pub fn parse(value: &Value) -> Parsed<Self> {
        const ACCEPTED: &str = "'all', 'norms', 'biases', a layer, a block or a list of them";
        match value {
            Value::Text(text) => Ok(match text.as_str() {
                "all" => Self::All,
                "norms" => Self::Norms,
                "biases" => Self::Biases,
                "" => return wrong(value, ACCEPTED),
                name => Self::Only(vec![name.to_owned()]),
            }),
            Value::List(items) if !items.is_empty() => Ok(Self::Only(items.iter().map(name).collect::<Parsed<_>>()?)),
            other => wrong(other, ACCEPTED),
        }
    }

    /// As it is written in a file.
    pub fn value(&self) -> Value {
        match self {
            Self::Only(names) if names.len() > 1 => {
                Value::List(names.iter().map(|name| Value::Text(name.clone())).collect())
            }
            other => Value::Text(other.to_string()),
        }
    }

    /// Whether norms must move for it, which frozen batch norms do not.
    pub fn needs_norms(&self) -> bool {
        matches!(self, Self::Norms | Self::Biases)
    }

    pub fn is_all(&self) -> bool {
        *self == Self::All
    }
}

impl fmt::Display for Trains {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Norms => f.write_str("norms"),
            Self::Biases => f.write_str("biases"),
            Self::Only(names) => f.write_str(&names.join(", ")),
        }
    }
}
