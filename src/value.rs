//! Values as they stand in an experiment file, before they mean anything.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One value of an experiment file. Tables are sorted by key, so equal values print and hash equally.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Table(BTreeMap<String, Value>),
}

/// Settings by key: one layer of configuration, or all of a cell.
pub type Layer = BTreeMap<String, Value>;

impl Value {
    /// The text, if this is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, whole or not.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub fn count(&self) -> Option<usize> {
        match self {
            Self::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    /// What a person calls this kind of value.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// Numbers: one, a list of them, or `{ log = [low, high], n = N }` and `{ linear = [low, high], n = N }`.
    pub fn numbers(&self) -> Option<Vec<f64>> {
        match self {
            Self::List(items) => items.iter().map(Self::number).collect(),
            Self::Table(entries) if entries.len() == 2 => {
                let log = entries.contains_key("log");
                let Self::List(ends) = entries.get(if log { "log" } else { "linear" })? else { return None };
                let [low, high] = ends.as_slice() else { return None };
                let count = entries.get("n")?.count().filter(|count| (2..=1000).contains(count))?;
                Some(spaced(log, low.number()?, high.number()?, count).collect())
            }
            one => one.number().map(|number| vec![number]),
        }
    }

    /// Equality as conditions mean it: `1` equals `1.0`, everything else only its own kind.
    pub fn same(&self, other: &Self) -> bool {
        match (self.number(), other.number()) {
            (Some(left), Some(right)) => left == right,
            _ => self == other,
        }
    }

    /// Order between two numbers, nothing for anything else.
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        self.number()?.partial_cmp(&other.number()?)
    }
}

/// `count` numbers from `low` to `high` at even ratios, or at even distances, to six significant digits.
pub fn spaced(log: bool, low: f64, high: f64, count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(move |index| {
        let part = index as f64 / (count - 1).max(1) as f64;
        let exact = if log { low * libm::pow(high / low, part) } else { low + (high - low) * part };
        format!("{exact:.5e}").parse::<f64>().unwrap_or(exact)
    })
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) if *value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e6) => {
                write!(f, "{value:e}")
            }
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    f.write_str(if index > 0 { ", " } else { "" })?;
                    write!(f, "{item}")?;
                }
                f.write_str("]")
            }
            Self::Table(entries) => {
                f.write_str("{")?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    f.write_str(if index > 0 { ", " } else { "" })?;
                    write!(f, "{key} = {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}
