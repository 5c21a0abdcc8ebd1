//! The experiment file as it was typed: TOML values, each with its place. The only file that knows `toml`.
//! A tree instead of serde's structs, because serde stops at the first mistake and a person wants all of them.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::overrides;
use super::problem::{Problem, Source, Spot};
use crate::value::Value;

/// Exactly one of them is how long a trial trains.
const BUDGETS: [&str; 2] = ["steps", "epochs"];

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub spot: Spot,
    pub shape: Shape,
}

#[derive(Clone, Debug)]
pub enum Shape {
    Leaf(Value),
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub spot: Spot,
    pub node: Node,
}

impl Node {
    /// The value without its places.
    pub fn value(&self) -> Value {
        match &self.shape {
            Shape::Leaf(value) => value.clone(),
            Shape::List(items) => Value::List(items.iter().map(Self::value).collect()),
            Shape::Table(entries) => {
                Value::Table(entries.iter().map(|entry| (entry.key.clone(), entry.node.value())).collect())
            }
        }
    }

    /// The entries, if this is a table.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.shape {
            Shape::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry of a table by its key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }
}

/// Reads the file at `path` and all that it extends, the base first, and lays `set` over it. What cannot be read is a problem.
pub fn load(path: &Path, set: &[String], sources: &mut Vec<Source>, problems: &mut Vec<Problem>) -> Option<Node> {
    let tree = load_chain(path, None, &mut Vec::new(), sources, problems)?;
    if set.is_empty() || !problems.is_empty() {
        return Some(tree);
    }
    let changes = overrides::text(set, &tree, problems);
    let own = parse(overrides::NAME.to_owned(), changes, sources, problems);
    Some(merge(tree, own))
}

/// Whether a text is one value.
pub fn is_value(text: &str) -> bool {
    let line = format!("x = {text}");
    let (table, errors) = DeTable::parse_recoverable(&line);
    errors.is_empty() && table.get_ref().len() == 1
}

fn load_chain(
    path: &Path,
    asked_at: Option<Spot>,
    chain: &mut Vec<std::path::PathBuf>,
    sources: &mut Vec<Source>,
    problems: &mut Vec<Problem>,
) -> Option<Node> {
    let shown = path.display().to_string();
    let mut complain = |message: String| problems.push(Problem { spot: asked_at, message, help: None });
    let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if chain.contains(&identity) {
        complain(format!("'{shown}' extends itself, by way of other files"));
        return None;
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            complain(format!("the experiment file '{shown}' cannot be read: {error}"));
            return None;
        }
    };
    chain.push(identity);
    let own = parse(shown, text, sources, problems);
    let extends = own.get("extends").cloned();
    match extends.as_ref().and_then(|entry| entry.node.value().text().map(str::to_owned)) {
        None => Some(own),
        Some(base) => {
            let folder = path.parent().unwrap_or(Path::new(""));
            let spot = extends.map(|entry| entry.node.spot);
            let base = load_chain(&folder.join(base), spot, chain, sources, problems)?;
            Some(merge(base, own))
        }
    }
}

/// Parses one text. Syntax errors become problems; what could be read is returned all the same.
pub fn parse(path: String, text: String, sources: &mut Vec<Source>, problems: &mut Vec<Problem>) -> Node {
    let source = sources.len();
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        problems.push(Problem::at(Spot::new(source, span), format!("not valid TOML: {}", error.message())));
    }
    let spot = Spot::new(source, table.span());
    let node = Node { spot, shape: table_shape(table.get_ref(), source, problems) };
    sources.push(Source { path, text });
    node
}

fn table_shape(table: &DeTable, source: usize, problems: &mut Vec<Problem>) -> Shape {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            spot: Spot::new(source, key.span()),
            node: node(value, source, problems),
        })
        .collect();
    entries.sort_by_key(|entry| entry.spot);
    Shape::Table(entries)
}

fn node(value: &Spanned<DeValue>, source: usize, problems: &mut Vec<Problem>) -> Node {
    let spot = Spot::new(source, value.span());
    let mut refuse = |message: &str| {
        problems.push(Problem::at(spot, message));
        Shape::Leaf(Value::Bool(false))
    };
    let shape = match value.get_ref() {
        DeValue::String(text) => Shape::Leaf(Value::Text(text.to_string())),
        DeValue::Boolean(flag) => Shape::Leaf(Value::Bool(*flag)),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Shape::Leaf(Value::Int(number)),
            Err(_) => refuse("this whole number does not fit 64 bits"),
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Shape::Leaf(Value::Float(number)),
            _ => refuse("a finite number is needed here"),
        },
        DeValue::Datetime(_) => refuse("no key of an experiment takes a date; put text in quotes"),
        DeValue::Array(items) => Shape::List(items.iter().map(|item| node(item, source, problems)).collect()),
        DeValue::Table(table) => table_shape(table, source, problems),
    };
    Node { spot, shape }
}

/// Lays `own` over `base`: tables merge key by key, anything else replaces.
fn merge(base: Node, own: Node) -> Node {
    match (base.shape, own.shape) {
        (Shape::Table(mut merged), Shape::Table(entries)) => {
            // A budget of one kind replaces one of the other.
            if entries.iter().any(|entry| BUDGETS.contains(&entry.key.as_str())) {
                merged.retain(|old| !BUDGETS.contains(&old.key.as_str()));
            }
            for entry in entries {
                match merged.iter().position(|old| old.key == entry.key) {
                    Some(index) => {
                        let old = merged.remove(index);
                        merged.insert(index, Entry { node: merge(old.node, entry.node), ..entry });
                    }
                    None => merged.push(entry),
                }
            }
            Node { spot: own.spot, shape: Shape::Table(merged) }
        }
        (_, shape) => Node { spot: own.spot, shape },
    }
}
