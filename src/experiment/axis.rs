//! Axes: the values that a key, or several keys moving together, take in the cross.

use super::file::{Entry, Node, Shape};
use super::problem::Problem;
use super::reader::Reader;
use crate::value::{Value, spaced};

/// Keys that move together (one, unless zipped) and the rows of values that they take.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub keys: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

/// Reads `KEY = values` as an axis of one key.
pub fn single(entry: &Entry, key: &str, reader: &mut Reader) -> Option<Axis> {
    let values = values(key, &entry.node, reader)?;
    Some(Axis { keys: vec![key.to_owned()], rows: values.into_iter().map(|value| vec![value]).collect() })
}

/// Reads a table of equally long lists as one axis.
pub fn zipped(node: &Node, reader: &mut Reader) -> Option<Axis> {
    let mut columns = Vec::new();
    for (key, entry) in reader.axis_entries(node) {
        columns.push((key.clone(), values(&key, entry, reader)?, entry.spot));
    }
    let length = columns.first()?.1.len();
    for (key, column, spot) in &columns {
        if column.len() != length {
            let message = format!("`{key}` has {} values and `{}` has {length}", column.len(), columns[0].0);
            reader.problems.push(
                Problem::at(*spot, message).help("keys of a [[zip]] move together: give them equally many values"),
            );
            return None;
        }
    }
    let rows = (0..length).map(|row| columns.iter().map(|column| column.1[row].clone()).collect());
    Some(Axis { rows: rows.collect(), keys: columns.iter().map(|column| column.0.clone()).collect() })
}

/// The checked values of one key: a list, or a range. One value twice is a problem, except within a zip's column.
fn values(key: &str, node: &Node, reader: &mut Reader) -> Option<Vec<Value>> {
    let before = reader.problems.len();
    let values = match &node.shape {
        Shape::List(items) => {
            let items = if key == "scenario" { &sized(items, reader) } else { items };
            if items.is_empty() {
                reader.problems.push(Problem::at(node.spot, format!("the axis `{key}` has no values")));
            }
            for item in items {
                reader.check(key, item);
            }
            items.iter().map(Node::value).collect()
        }
        Shape::Table(_) => range(key, node, reader)?,
        Shape::Leaf(value) => {
            let help = format!("write {key} = [{value}]");
            reader.problems.push(Problem::at(node.spot, format!("the axis `{key}` needs a list of values")).help(help));
            return None;
        }
    };
    (reader.problems.len() == before).then_some(values)
}

/// Scenarios, where a table that lists sizes stands for all of them.
fn sized(items: &[Node], reader: &Reader) -> Vec<Node> {
    let names = |item: &Node| reader.sized.get(item.value().text()?).cloned();
    let leaf = |spot, name| Node { spot, shape: Shape::Leaf(Value::Text(name)) };
    let of = |item: &Node| match names(item) {
        Some(names) => names.into_iter().map(|name| leaf(item.spot, name)).collect(),
        None => vec![item.clone()],
    };
    items.iter().flat_map(of).collect()
}

/// Complains of a value that an axis has twice.
pub fn refuse_repeats(axis: &Axis, node: &Node, reader: &mut Reader) {
    for (index, row) in axis.rows.iter().enumerate() {
        if axis.rows[..index].contains(row) {
            let spot = match &node.shape {
                Shape::List(items) => items.get(index).map_or(node.spot, |item| item.spot),
                _ => node.spot,
            };
            let shown: Vec<String> = row.iter().map(Value::to_string).collect();
            let message = format!("the axis `{}` has the value {} twice", axis.keys.join(", "), shown.join(", "));
            reader.problems.push(Problem::at(spot, message).help("repetitions are `replicates` under [experiment]"));
        }
    }
}

/// `{ log = [1e-4, 1e-1], n = 4 }` or `{ linear = [0, 1], n = 5 }`, to six significant digits.
fn range(key: &str, node: &Node, reader: &mut Reader) -> Option<Vec<Value>> {
    const ACCEPTED: &str = "a range is { log = [low, high], n = 4 } or { linear = [low, high], n = 4 }";
    let Some((kind, low, high, count)) = read_range(node) else {
        reader.problems.push(Problem::at(node.spot, format!("`{key}` is not a list and not a range")).help(ACCEPTED));
        return None;
    };
    let values: Vec<Value> = spaced(kind == "log", low, high, count).map(Value::Float).collect();
    for value in &values {
        reader.check_value(key, value, node.spot);
    }
    Some(values)
}

fn read_range(node: &Node) -> Option<(&'static str, f64, f64, usize)> {
    let entries = node.entries().filter(|entries| entries.len() == 2)?;
    let count = node.get("n")?.node.value().count().filter(|count| (2..=1000).contains(count))?;
    let kind = if node.get("log").is_some() { "log" } else { "linear" };
    let ends = entries.iter().find(|entry| entry.key == kind)?.node.value();
    let Value::List(ends) = ends else { return None };
    let [low, high] = ends.as_slice() else { return None };
    let (low, high) = (low.number()?, high.number()?);
    (low < high && (kind != "log" || low > 0.0)).then_some((kind, low, high, count))
}
