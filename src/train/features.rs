//! Feature files: the outputs of a frozen prefix, one row per view of a sample, mapped read-only and checked once per process.
//!
//! A safetensors file with `features` [n, ...] in f32, `samples` [n] and `views` [n] (0: the image as it is; from 1 on an
//! augmented one), whose header carries the BLAKE3 of the rows.

#[cfg(feature = "cuda")]
use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use anyhow::Context;
#[cfg(feature = "cuda")]
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// A sample and its view.
pub type Row = (u32, u32);

pub struct Features {
    map: memmap2::Mmap,
    start: usize,
    /// Numbers of one sample.
    size: usize,
    rows: HashMap<Row, usize>,
    /// The rows on the device, where they fit there.
    #[cfg(feature = "cuda")]
    resident: OnceCell<Option<Tensor>>,
}

/// Writes rows to a temporary file and renames it into place.
pub fn write(path: &Path, ids: &[Row], shape: &[usize], rows: &[f32]) -> anyhow::Result<()> {
    let bytes: &[u8] = bytemuck::cast_slice(rows);
    let samples: Vec<u32> = ids.iter().map(|(sample, _)| *sample).collect();
    let views: Vec<u32> = ids.iter().map(|(_, view)| *view).collect();
    let full: Vec<usize> = std::iter::once(ids.len()).chain(shape.iter().copied()).collect();
    let metadata = HashMap::from([("blake3".to_owned(), blake3::hash(bytes).to_string())]);
    let tensors = [
        ("features", TensorView::new(Dtype::F32, full, bytes)?),
        ("samples", TensorView::new(Dtype::U32, vec![ids.len()], bytemuck::cast_slice(&samples))?),
        ("views", TensorView::new(Dtype::U32, vec![ids.len()], bytemuck::cast_slice(&views))?),
    ];
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    safetensors::serialize_to_file(tensors, Some(metadata), &temporary)
        .with_context(|| format!("cannot write '{}'", temporary.display()))?;
    File::open(&temporary)?.sync_all()?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot rename to '{}'", path.display()))
}

impl Features {
    /// Maps a feature file and checks it against its checksum.
    ///
    /// # Errors
    /// The file is missing, cut short or damaged.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("no features at '{}'", path.display()))?;
        // SAFETY: feature files are only ever renamed into place whole, never written afterwards; any bytes are valid u8.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        used(&file);
        let damaged = || format!("the feature file '{}' is damaged", path.display());
        let (start, size, rows) = {
            let (_, header) = SafeTensors::read_metadata(&map).with_context(damaged)?;
            let tensors = SafeTensors::deserialize(&map).with_context(damaged)?;
            let [features, samples, views] = ["features", "samples", "views"].map(|name| tensors.tensor(name));
            let (features, samples, views) =
                (features.with_context(damaged)?, samples.with_context(damaged)?, views.with_context(damaged)?);
            let promised =
                header.metadata().as_ref().and_then(|metadata| metadata.get("blake3")).with_context(damaged)?;
            anyhow::ensure!(blake3::hash(features.data()).to_string() == *promised, damaged());
            let start = features.data().as_ptr() as usize - map.as_ptr() as usize;
            let ids = numbers(samples.data()).zip(numbers(views.data()));
            let size = features.shape()[1..].iter().product();
            (start, size, ids.enumerate().map(|(row, id)| (id, row)).collect())
        };
        Ok(Self {
            map,
            start,
            size,
            rows,
            #[cfg(feature = "cuda")]
            resident: OnceCell::new(),
        })
    }

    /// The place of a row.
    ///
    /// # Errors
    /// The view of the sample was not encoded.
    pub fn row(&self, row: Row) -> anyhow::Result<usize> {
        let known = self.rows.get(&row).copied();
        known.with_context(|| format!("view {} of sample {} was not encoded", row.1, row.0))
    }

    /// All rows [rows, numbers] on a device, put there once; nothing where they would fill more than half of what is free.
    ///
    /// # Errors
    /// The device does not answer.
    #[cfg(feature = "cuda")]
    pub fn on_device(&self, device: &Device) -> candle_core::Result<Option<Tensor>> {
        if let Some(known) = self.resident.get() {
            return Ok(known.clone());
        }
        let bytes = &self.map[self.start..][..self.rows.len() * self.size * 4];
        let (free, _) = crate::nn::memory(device)?;
        let fits = 2 * bytes.len() <= free;
        let put = || Tensor::from_raw_buffer(bytes, DType::F32, &[self.rows.len(), self.size], device);
        let found = fits.then(put).transpose()?;
        Ok(self.resident.get_or_init(|| found).clone())
    }

    /// Appends a row to `batch`.
    ///
    /// # Errors
    /// The view of the sample was not encoded.
    pub fn append(&self, row: Row, batch: &mut Vec<f32>) -> anyhow::Result<()> {
        let row = self.row(row)?;
        let bytes = &self.map[self.start + row * self.size * 4..][..self.size * 4];
        batch.extend(bytes.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]])));
        Ok(())
    }
}

/// Marks a file of the cache as used now, so that `gc` takes it last. A file that cannot be marked is just older.
fn used(file: &File) {
    let _ = file.set_modified(std::time::SystemTime::now());
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
}
