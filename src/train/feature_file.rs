//! Files of features for other programs: HDF5 that h5py opens, NumPy's .npy, safetensors. What is known beforehand (ids,
//! labels, names) comes first, rows follow one batch at a time, so that memory stays bounded whatever the number of rows.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use safetensors::Dtype;

use super::hdf5;
use crate::temporary;

/// What stands beside the features.
pub struct Facts {
    /// Of one row.
    pub shape: Vec<usize>,
    /// One for each row.
    pub ids: Vec<String>,
    pub labels: Vec<i64>,
    /// `train`, `val` or `test`, one for each row.
    pub parts: Vec<String>,
    pub classes: Vec<String>,
    /// Where the features come from: weights, tap, preprocessing, ...
    pub origin: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Hdf5,
    Npy,
    Safetensors,
}

impl Kind {
    /// The kind that a file's ending says.
    ///
    /// # Errors
    /// The ending is none of the three.
    pub fn of(path: &Path) -> Result<Self, String> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("h5" | "hdf5") => Ok(Self::Hdf5),
            Some("npy") => Ok(Self::Npy),
            Some("safetensors") => Ok(Self::Safetensors),
            _ => Err(format!("'{}' should end in .h5, .npy or .safetensors", path.display())),
        }
    }
}

/// A file that is being written.
pub struct Writer {
    out: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    row: usize,
    rows: usize,
    written: usize,
}

impl Writer {
    /// Writes everything but the rows to a temporary file beside `path`; an .npy has its facts in a .json beside it.
    ///
    /// # Errors
    /// Writing fails.
    pub fn new(path: &Path, facts: &Facts) -> anyhow::Result<Self> {
        let kind = Kind::of(path).map_err(anyhow::Error::msg)?;
        let head = match kind {
            Kind::Hdf5 => hdf5::head(facts),
            Kind::Npy => {
                let json = path.with_extension("json");
                std::fs::write(&json, serde_json::to_vec_pretty(&described(facts))?)
                    .with_context(|| format!("cannot write '{}'", json.display()))?;
                npy(facts)
            }
            Kind::Safetensors => safetensors(facts)?,
        };
        let temporary = temporary::beside(path);
        let file = File::create(&temporary).with_context(|| format!("cannot write '{}'", temporary.display()))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&head)?;
        let row = facts.shape.iter().product();
        Ok(Self { out, temporary, path: path.to_owned(), row, rows: facts.ids.len(), written: 0 })
    }

    /// Appends whole rows.
    ///
    /// # Errors
    /// Writing fails.
    pub fn rows(&mut self, values: &[f32]) -> anyhow::Result<()> {
        self.written += values.len() / self.row.max(1);
        self.out.write_all(bytemuck::cast_slice(values))?;
        Ok(())
    }

    /// Puts the finished file in its place.
    ///
    /// # Errors
    /// Rows are missing, or writing fails.
    pub fn finish(mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.written == self.rows, "{} of {} rows were written", self.written, self.rows);
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        Ok(std::fs::rename(&self.temporary, &self.path)?)
    }
}

fn described(facts: &Facts) -> serde_json::Value {
    let origin: serde_json::Map<String, serde_json::Value> =
        facts.origin.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    serde_json::json!({
        "version": 1,
        "shape": facts.shape,
        "classes": facts.classes,
        "origin": origin,
        "ids": facts.ids,
        "labels": facts.labels,
        "parts": facts.parts,
    })
}

/// NumPy's format 1.0 (numpy/lib/format.py): a dict in text, padded to 64 bytes, then the numbers.
fn npy(facts: &Facts) -> Vec<u8> {
    let sides: Vec<String> =
        std::iter::once(facts.ids.len()).chain(facts.shape.iter().copied()).map(|side| side.to_string()).collect();
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", sides.join(", "));
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut head = b"\x93NUMPY\x01\x00".to_vec();
    head.extend((length as u16).to_le_bytes());
    head.extend(text.as_bytes());
    head.resize(10 + length - 1, b' ');
    head.push(b'\n');
    head
}

/// The header and the labels; then come the features.
fn safetensors(facts: &Facts) -> anyhow::Result<Vec<u8>> {
    let rows = facts.ids.len();
    let shape: Vec<usize> = std::iter::once(rows).chain(facts.shape.iter().copied()).collect();
    let text = |value: serde_json::Value| value.to_string();
    let mut metadata = serde_json::Map::new();
    for (key, value) in &facts.origin {
        metadata.insert(key.clone(), value.clone().into());
    }
    for (key, value) in [("ids", &facts.ids), ("parts", &facts.parts), ("classes", &facts.classes)] {
        metadata.insert(key.to_owned(), text(serde_json::json!(value)).into());
    }
    let mut head = safetensors_head(metadata, &[("labels", Dtype::I64, vec![rows]), ("features", Dtype::F32, shape)])?;
    head.extend(facts.labels.iter().flat_map(|label| label.to_le_bytes()));
    Ok(head)
}

/// How a safetensors file begins whose tensors follow in this order, without gaps: their names, types and shapes (format of
/// safetensors 0.4: the header's length in 8 bytes, JSON, padded with blanks so that numbers are aligned).
///
/// # Errors
/// None that can be met: text is always JSON.
pub fn safetensors_head(
    metadata: serde_json::Map<String, serde_json::Value>,
    tensors: &[(&str, Dtype, Vec<usize>)],
) -> anyhow::Result<Vec<u8>> {
    let mut header = serde_json::Map::from_iter([("__metadata__".to_owned(), metadata.into())]);
    let mut start = 0;
    for (name, dtype, shape) in tensors {
        let end = start + shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let tensor = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        header.insert((*name).to_owned(), tensor);
        start = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.extend(header);
    Ok(head)
}
