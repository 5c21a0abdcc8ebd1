//! Rows of CSV by the names of their columns; absent values are empty.

use std::borrow::Borrow;
use std::collections::BTreeMap;

pub struct Csv<'a> {
    columns: &'a [&'a str],
    writer: csv::Writer<Vec<u8>>,
}

impl<'a> Csv<'a> {
    /// Begins with the names of the columns.
    ///
    /// # Errors
    /// Only the writer's own.
    pub fn new(columns: &'a [&'a str]) -> anyhow::Result<Self> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(columns)?;
        Ok(Self { columns, writer })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Only the writer's own.
    pub fn push<N: Borrow<str> + Ord>(&mut self, row: &BTreeMap<N, String>) -> anyhow::Result<()> {
        let value = |column: &&str| row.get(*column).map_or("", String::as_str);
        Ok(self.writer.write_record(self.columns.iter().map(value))?)
    }

    /// The whole text.
    ///
    /// # Errors
    /// Only the writer's own.
    pub fn text(self) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.writer.into_inner()?)?)
    }
}

/// Rows with the given columns.
///
/// # Errors
/// Only the writer's own.
pub fn rows<'a, N>(columns: &[&str], rows: impl Iterator<Item = &'a BTreeMap<N, String>>) -> anyhow::Result<String>
where
    N: Borrow<str> + Ord + 'a,
{
    let mut csv = Csv::new(columns)?;
    for row in rows {
        csv.push(row)?;
    }
    csv.text()
}
