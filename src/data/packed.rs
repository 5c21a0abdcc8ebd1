//! The packed cache: every image decoded once to a square of bytes in one sparse file, mapped by all workers.
//!
//! `KEY.pixels` holds sample i at i * side * side * 3; `KEY.have` says which samples are there, one byte each, and is
//! replaced whole and only after the pixels are on disk. A sample that is not marked is decoded again. `KEY.near` holds
//! the near-duplicates among those that were there when they were looked for.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::decode::resampler;
use super::manifest::Manifest;
use super::near::{METHOD, Pair, of_packed};
use super::open::Dataset;
use crate::frame::Frame;
use crate::key::Key;
use crate::temporary;

/// A packed dataset, mapped read-only.
pub struct Packed {
    map: memmap2::Mmap,
    pub side: usize,
}

/// What the pixels depend on: the bytes of the data, the size and the resampler.
pub fn key(fingerprint: Key, frame: Frame) -> Key {
    Key::of("pixels", &(fingerprint, frame, resampler(frame.resize.filter)))
}

fn paths(folder: &Path, key: Key) -> (PathBuf, PathBuf) {
    (folder.join(format!("{key}.pixels")), folder.join(format!("{key}.have")))
}

/// Decodes those of `wanted` that the cache lacks. Returns how many that were.
///
/// # Errors
/// An image cannot be used, or the cache cannot be written.
pub fn prepare(dataset: &Dataset, frame: Frame, wanted: &[usize], folder: &Path) -> anyhow::Result<usize> {
    let (pixels, have) = paths(folder, key(dataset.manifest.fingerprint, frame));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create '{}'", folder.display()))?;
    let count = dataset.manifest.samples.len();
    let missing = lacking(dataset, frame, wanted, folder);
    if missing.is_empty() {
        return Ok(0);
    }
    let mut marks = if pixels.exists() { marks(&have, count) } else { vec![0; count] };
    let size = bytes(frame);
    let cannot = || format!("cannot write '{}'", pixels.display());
    let file = OpenOptions::new().create(true).truncate(false).write(true).read(true).open(&pixels);
    let file = file.with_context(cannot)?;
    file.set_len((count * size) as u64).with_context(cannot)?;
    dataset.squares(&missing, frame, &|index, bytes| {
        file.write_all_at(bytes, (index * size) as u64).with_context(cannot)
    })?;
    file.sync_all().with_context(cannot)?;
    missing.iter().for_each(|index| marks[*index] = 1);
    replace(&have, &marks)?;
    Ok(missing.len())
}

/// Those of `wanted` that the cache lacks.
pub fn lacking(dataset: &Dataset, frame: Frame, wanted: &[usize], folder: &Path) -> Vec<usize> {
    let (pixels, have) = paths(folder, key(dataset.manifest.fingerprint, frame));
    let count = dataset.manifest.samples.len();
    let marks = if pixels.exists() { marks(&have, count) } else { vec![0; count] };
    wanted.iter().copied().filter(|index| marks[*index] == 0).collect()
}

/// Bytes of a sample.
pub fn bytes(frame: Frame) -> usize {
    frame.side * frame.side * 3
}

fn marks(have: &Path, count: usize) -> Vec<u8> {
    std::fs::read(have).ok().filter(|marks| marks.len() == count).unwrap_or_else(|| vec![0; count])
}

fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let cannot = || format!("cannot write '{}'", path.display());
    let temporary = temporary::beside(path);
    std::fs::write(&temporary, bytes).with_context(cannot)?;
    File::open(&temporary)?.sync_all().with_context(cannot)?;
    std::fs::rename(&temporary, path).with_context(cannot)
}

/// The near-duplicates among the images of a dataset that are packed.
///
/// # Errors
/// The cache cannot be read or written.
pub fn near_duplicates(manifest: &Manifest, frame: Frame, folder: &Path) -> anyhow::Result<Vec<Pair>> {
    let (pixels, have) = paths(folder, key(manifest.fingerprint, frame));
    let kept = pixels.with_extension("near");
    let there: Vec<bool> = marks(&have, manifest.samples.len()).iter().map(|mark| *mark == 1).collect();
    let basis = format!("{METHOD}, {} images", there.iter().filter(|there| **there).count());
    let earlier =
        std::fs::read(&kept).ok().and_then(|bytes| serde_json::from_slice::<(String, Vec<Pair>)>(&bytes).ok());
    if let Some((_, pairs)) = earlier.filter(|(of, _)| *of == basis) {
        return Ok(pairs);
    }
    let packed = Packed::open(folder, manifest.fingerprint, frame, manifest.samples.len())?;
    let pairs = of_packed(manifest, &packed, &there)?;
    replace(&kept, &serde_json::to_vec(&(basis, &pairs))?)?;
    Ok(pairs)
}

impl Packed {
    /// Maps the pixels of a dataset that `prepare` has packed.
    ///
    /// # Errors
    /// The file is missing or has another size.
    pub fn open(folder: &Path, fingerprint: Key, frame: Frame, samples: usize) -> anyhow::Result<Self> {
        let side = frame.side;
        let (pixels, _) = paths(folder, key(fingerprint, frame));
        let file =
            File::open(&pixels).with_context(|| format!("cannot open the packed images '{}'", pixels.display()))?;
        anyhow::ensure!(
            file.metadata()?.len() == (samples * side * side * 3) as u64,
            "'{}' has another size than its {samples} images",
            pixels.display()
        );
        // SAFETY: nothing shortens the file (`prepare` only ever gives it this same length), and the bytes of samples
        // that were announced to a worker are not written again; any byte pattern is a valid u8.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        Ok(Self { map, side })
    }

    /// The RGB bytes of one sample, row by row.
    pub fn image(&self, index: usize) -> &[u8] {
        let size = self.side * self.side * 3;
        &self.map[index * size..][..size]
    }
}
