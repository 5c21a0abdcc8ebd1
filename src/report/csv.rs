//! Every planned trial as a row of CSV, results before circumstances.

use std::collections::BTreeMap;

/// Rows with the given columns; absent values are empty.
///
/// # Errors
/// Only the writer's own.
pub fn rows<'a, N>(columns: &[&str], rows: impl Iterator<Item = &'a BTreeMap<N, String>>) -> anyhow::Result<String>
where
    N: std::borrow::Borrow<str> + Ord + 'a,
{
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns)?;
    for row in rows {
        writer.write_record(columns.iter().map(|column| row.get(*column).map_or("", String::as_str)))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
