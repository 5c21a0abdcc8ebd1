//! Feature files: the outputs of a frozen prefix, one row per view of a sample, mapped read-only and checked once per process.
//!
//! A safetensors file with `features` [n, ...] in f32, `samples` [n] and `views` [n] (0: the image as it is; from 1 on an
//! augmented one), whose header carries the BLAKE3 of the rows.

#[cfg(feature = "cuda")]
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
#[cfg(feature = "cuda")]
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
#[cfg(feature = "cuda")]
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use super::feature_file::safetensors_head;
use crate::temporary;

/// A sample and its view.
pub type Row = (u32, u32);

pub struct Features {
    map: memmap2::Mmap,
    start: usize,
    /// Numbers of one sample.
    size: usize,
    rows: HashMap<Row, usize>,
    #[cfg(feature = "cuda")]
    resident: RefCell<Resident>,
}

/// Whether rows stay on a device.
#[cfg(feature = "cuda")]
enum Resident {
    /// It has not been asked since they went, or ever.
    Unknown,
    Here(Tensor),
    /// There is too little memory.
    Never,
}

/// A feature file that is being written, batch by batch: its rows may be more than memory holds.
pub struct Writer {
    out: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    ids: Vec<Row>,
    /// Where the header has the hash of the rows, which is known at the end.
    promise: u64,
    hash: blake3::Hasher,
    /// Numbers that are still to come.
    left: usize,
}

/// Held while features are put on a device.
#[cfg(feature = "cuda")]
static ROOM: Mutex<()> = Mutex::new(());

impl Writer {
    /// Begins a file for rows of `shape` each, named by `ids` in their order.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(path: &Path, ids: Vec<Row>, shape: &[usize]) -> anyhow::Result<Self> {
        let none = "0".repeat(2 * blake3::OUT_LEN);
        let full: Vec<usize> = std::iter::once(ids.len()).chain(shape.iter().copied()).collect();
        let tensors = [
            ("features", Dtype::F32, full.clone()),
            ("samples", Dtype::U32, vec![ids.len()]),
            ("views", Dtype::U32, vec![ids.len()]),
        ];
        let metadata = [("blake3".to_owned(), none.clone().into())].into_iter().collect();
        let head = safetensors_head(metadata, &tensors)?;
        let promise = head.windows(none.len()).position(|part| part == none.as_bytes());
        let promise = promise.context("a header without its hash")? as u64;
        // Two lanes of a process may write the same file: one that was damaged is made again by whoever reads it.
        let temporary = temporary::beside(path);
        let file = File::create(&temporary).with_context(|| format!("cannot write '{}'", temporary.display()))?;
        let out = BufWriter::with_capacity(1 << 20, file);
        let (hash, left) = (blake3::Hasher::new(), full.iter().product());
        let mut writer = Self { out, temporary, path: path.to_owned(), ids, promise, hash, left };
        writer.put(&head)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let cannot = || format!("cannot write '{}'", self.temporary.display());
        self.out.write_all(bytes).with_context(cannot)
    }

    /// Appends whole rows.
    ///
    /// # Errors
    /// The disk is full, or fails.
    pub fn rows(&mut self, rows: &[f32]) -> anyhow::Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(rows);
        self.left = self.left.checked_sub(rows.len()).context("more rows than were named")?;
        self.hash.update(bytes);
        self.put(bytes)
    }

    /// Puts the finished file in its place.
    ///
    /// # Errors
    /// Rows are missing, or the disk fails.
    pub fn finish(mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.left == 0, "{} numbers of '{}' were not written", self.left, self.path.display());
        let samples: Vec<u32> = self.ids.iter().map(|(sample, _)| *sample).collect();
        let views: Vec<u32> = self.ids.iter().map(|(_, view)| *view).collect();
        self.put(bytemuck::cast_slice(&samples))?;
        self.put(bytemuck::cast_slice(&views))?;
        let hash = self.hash.finalize().to_string();
        self.out
            .seek(SeekFrom::Start(self.promise))
            .and_then(|_| self.out.write_all(hash.as_bytes()))
            .and_then(|()| self.out.flush())
            .and_then(|()| self.out.get_ref().sync_all())
            .and_then(|()| std::fs::rename(&self.temporary, &self.path))
            .with_context(|| format!("cannot write '{}'", self.path.display()))
    }
}

impl Drop for Writer {
    /// What was not finished goes; behind a rename there is nothing to remove.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.temporary);
    }
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
            resident: RefCell::new(Resident::Unknown),
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
        match &*self.resident.borrow() {
            Resident::Here(known) => return Ok(Some(known.clone())),
            Resident::Never => return Ok(None),
            Resident::Unknown => {}
        }
        let bytes = &self.map[self.start..][..self.rows.len() * self.size * 4];
        // Streams of one device look one after the other: what one has taken is not there for the next.
        let _alone = ROOM.lock().unwrap_or_else(PoisonError::into_inner);
        let (free, _) = crate::nn::memory(device)?;
        let fits = 2 * bytes.len() <= free;
        let put = || Tensor::from_raw_buffer(bytes, DType::F32, &[self.rows.len(), self.size], device);
        let found = fits.then(put).transpose()?;
        self.resident.replace(found.clone().map_or(Resident::Never, Resident::Here));
        Ok(found)
    }

    /// Takes the rows off the device, for good or until they are asked for again; whether they were there.
    #[cfg(feature = "cuda")]
    pub fn leave(&self, for_good: bool) -> bool {
        let was_here = matches!(*self.resident.borrow(), Resident::Here(_));
        if was_here {
            self.resident.replace(if for_good { Resident::Never } else { Resident::Unknown });
        }
        was_here
    }

    /// There is no device.
    #[cfg(not(feature = "cuda"))]
    pub fn leave(&self, _: bool) -> bool {
        false
    }

    /// The numbers of the row at a place.
    pub fn numbers(&self, row: usize) -> impl Iterator<Item = f32> {
        let bytes = &self.map[self.start + row * self.size * 4..][..self.size * 4];
        bytes.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]))
    }
}

/// Marks a file of the cache as used now, so that `gc` takes it last. A file that cannot be marked is just older.
fn used(file: &File) {
    let _ = file.set_modified(std::time::SystemTime::now());
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_batch_by_batch_and_half_a_file_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("own.features");
        let ids = vec![(3, 0), (5, 0), (3, 1)];
        let rows: Vec<f32> = (0..12).map(|number| number as f32).collect();
        let written = |parts: &[&[f32]]| {
            let mut writer = Writer::new(&path, ids.clone(), &[2, 2, 1])?;
            parts.iter().try_for_each(|part| writer.rows(part))?;
            writer.finish()
        };
        for parts in [&[&rows[..8]][..], &[&rows, &rows[..4]]] {
            assert!(written(parts).is_err());
            assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing is left");
        }
        written(&[&rows[..4], &rows[4..]]).expect("a whole file");
        let features = Features::open(&path).expect("features");
        let found = |row: Row| features.numbers(features.row(row).expect("a row")).collect::<Vec<f32>>();
        assert_eq!((found((3, 1)), found((5, 0))), (vec![8.0, 9.0, 10.0, 11.0], vec![4.0, 5.0, 6.0, 7.0]));
        assert!(features.row((4, 0)).is_err());
        let mut bytes = std::fs::read(&path).expect("a file");
        let at = bytes.len() - 30;
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).expect("a file");
        let said = Features::open(&path).err().expect("a damaged file").to_string();
        assert!(said.contains("is damaged"), "{said}");
    }
}
