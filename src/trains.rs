//! Which of the unfrozen parameters of a backbone train.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::recipe::{Parsed, count, name, word, wrong};
use crate::value::{Layer, Value};

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
    /// None of them: low-rank additions to dense layers, and nothing else (Hu et al., 2022).
    Lora(Lora),
}

/// What is added beside dense layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lora {
    pub rank: usize,
    pub on: Dense,
}

/// Which dense layers between tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dense {
    /// Those that give queries, keys and values.
    Attention,
    All,
}

impl Lora {
    fn parse(entries: &Layer) -> Parsed<Self> {
        let rank = entries.get("lora").map_or_else(|| Err("`lora` is missing".to_owned()), |rank| count(rank, 1))?;
        let on = entries.get("on").map_or(Ok(Dense::Attention), |on| word(on, "'attention' or 'all'"))?;
        match entries.keys().find(|key| !["lora", "on"].contains(&key.as_str())) {
            Some(key) => Err(format!("what is added has no '{key}': {{ lora = 8, on = \"all\" }}")),
            None => Ok(Self { rank, on }),
        }
    }
}

impl fmt::Display for Lora {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.on {
            Dense::Attention => write!(f, "{{ lora = {} }}", self.rank),
            Dense::All => write!(f, "{{ lora = {}, on = \"all\" }}", self.rank),
        }
    }
}

impl Trains {
    /// `"all"`, `"norms"`, `"biases"`, a layer or block name, a list of such names, or `{ lora = RANK }`.
    pub fn parse(value: &Value) -> Parsed<Self> {
        const ACCEPTED: &str = "'all', 'norms', 'biases', a layer, a block, a list of them, or { lora = 8 }";
        match value {
            Value::Table(entries) => Lora::parse(entries).map(Self::Lora),
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
            Self::Lora(Lora { rank, on }) => {
                let mut table = Layer::from([("lora".to_owned(), Value::Int(*rank as i64))]);
                if *on == Dense::All {
                    table.insert("on".to_owned(), Value::Text("all".to_owned()));
                }
                Value::Table(table)
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
            Self::Lora(lora) => lora.fmt(f),
        }
    }
}
