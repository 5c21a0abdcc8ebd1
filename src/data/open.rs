//! Opens a dataset of any format: its manifest, and a way to reach the bytes of each sample.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::corrupt::corrupt;
use super::deal::{self, Holdout};
use super::decode::{Rgb, decode, square};
use super::manifest::{Manifest, Sample};
use super::synthetic::Family;
use super::{archive, cifar, folder, idx, npz, table};
use crate::corruption::Corruption;
use crate::frame::Frame;
use crate::spelling::nearest;

/// What is asked of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    pub name: String,
    pub source: Source,
    /// Folder names of train, val and test.
    pub splits: BTreeMap<String, String>,
    pub skip_bad_images: bool,
    /// Only images of these classes; of all where there are none.
    #[serde(default)]
    pub classes: Vec<String>,
    /// The value that is white in images of 16 bits.
    #[serde(default)]
    pub white: Option<u16>,
    /// How test images are taken where it has no split of them.
    #[serde(default)]
    pub holdout: Option<Holdout>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Source {
    Path(PathBuf),
    Synthetic(Family),
}

/// A manifest and where its images are.
pub struct Dataset {
    pub name: String,
    pub manifest: Manifest,
    pub content: Content,
}

/// Where the images of a dataset are, sample by sample in the manifest's order.
pub enum Content {
    Files(Vec<PathBuf>),
    /// An archive and the names of its entries.
    Archive(PathBuf, Vec<String>),
    /// An `.npz` of arrays, and names of images in them.
    Npz(PathBuf, Vec<String>),
    /// Images in memory.
    Arrays(Vec<Rgb>),
    Synthetic(Family),
    /// Those of a dataset and behind them some of others: which places of each.
    Joined(Vec<Piece>),
}

/// Some images of a dataset, by their places there, and what is done to them.
#[derive(Clone)]
pub struct Piece {
    pub dataset: Arc<Dataset>,
    pub places: Vec<usize>,
    pub corruption: Option<Corruption>,
}

/// A dataset whose test images are tested as well, under a name, and what is done to them.
pub struct Also {
    pub name: String,
    pub dataset: Arc<Dataset>,
    pub corruption: Option<Corruption>,
}

/// Opens the dataset that `spec` asks for, to train and to test on.
///
/// # Errors
/// As `load` and `Dataset::deal`; a part is missing.
pub fn open(spec: &Spec) -> anyhow::Result<Dataset> {
    let mut dataset = load(spec)?;
    dataset.deal(spec.holdout)?;
    dataset.manifest.check_parts(&dataset.name)?;
    Ok(dataset)
}

/// Reads the dataset that `spec` asks for, before test images are taken of one that has no split of them. Every file is read
/// once here, for the fingerprint.
///
/// # Errors
/// A clear message with the path: nothing there, no images, an unreadable or broken file.
pub fn load(spec: &Spec) -> anyhow::Result<Dataset> {
    let (manifest, content) = match &spec.source {
        Source::Synthetic(family) => {
            anyhow::ensure!(spec.holdout.is_none(), brings_its_own(&spec.name));
            (family.manifest(&spec.name)?, Content::Synthetic(family.clone()))
        }
        Source::Path(path) => read(spec, path).with_context(|| format!("in the dataset '{}'", spec.name))?,
    };
    let mut dataset = Dataset { name: spec.name.clone(), manifest, content };
    if !spec.classes.is_empty() {
        dataset.keep_classes(&spec.classes)?;
    }
    if spec.skip_bad_images {
        dataset.drop_bad_images()?;
    }
    if spec.white.is_some() {
        dataset.manifest.white = spec.white;
        dataset.manifest.seal();
    }
    Ok(dataset)
}

fn read(spec: &Spec, path: &Path) -> anyhow::Result<(Manifest, Content)> {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().to_lowercase());
    anyhow::ensure!(path.exists(), "there is nothing at '{}'", path.display());
    if path.is_dir() {
        return match (cifar::is_folder(path), idx::is_folder(path)) {
            (false, false) => folder::read(&spec.name, path, &spec.splits, spec.holdout.is_some()),
            _ if spec.holdout.is_some() => anyhow::bail!(brings_its_own(&spec.name)),
            (true, _) => cifar::read(&spec.name, path),
            (_, true) => idx::read(&spec.name, path),
        };
    }
    if name.ends_with(".csv") {
        return table::read(&spec.name, path, spec.holdout.is_some());
    }
    if name.ends_with(".npz") {
        return npz::read(&spec.name, path, spec.holdout.is_some());
    }
    if archive::ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        return archive::read(&spec.name, path, &spec.splits, spec.holdout.is_some());
    }
    anyhow::bail!("'{}' is no dataset: a folder, .tar, .tar.gz, .zip, .npz or .csv is", path.display())
}

/// A dataset by its name in a folder, with the ending of an archive or without.
pub fn named(folder: &Path, name: &str) -> Option<PathBuf> {
    let endings = [""].into_iter().chain(archive::ENDINGS).chain([".npz"]);
    endings.map(|ending| folder.join(format!("{name}{ending}"))).find(|path| path.exists())
}

/// What is said where test images are to be taken of a dataset that has some.
pub fn brings_its_own(name: &str) -> String {
    format!("the dataset '{name}' brings a test split of its own: leave `folds`, and a share as `test`, out")
}

impl Dataset {
    /// Takes test images where they are to be taken.
    ///
    /// # Errors
    /// A class has too few images.
    pub fn deal(&mut self, holdout: Option<Holdout>) -> anyhow::Result<()> {
        holdout.map_or(Ok(()), |holdout| deal::deal(&mut self.manifest, &self.name, holdout))
    }

    /// A dataset with which the test images of others are tested as well.
    ///
    /// # Errors
    /// One of these has no test images, other classes, or a test image that is trained on here.
    pub fn tested_with(self: Arc<Self>, others: Vec<Also>) -> anyhow::Result<Self> {
        let (name, mut manifest) = (self.name.clone(), self.manifest.clone());
        let (places, corruption) = ((0..manifest.samples.len()).collect(), manifest.corruption);
        let mut pieces = vec![Piece { dataset: self, places, corruption }];
        for Also { name: other, dataset, corruption } in others {
            let places = manifest.also_test(&name, &other, &dataset.manifest, corruption)?;
            pieces.push(Piece { dataset, places, corruption });
        }
        Ok(Self { name, manifest, content: Content::Joined(pieces) })
    }

    /// Decodes samples as `decode`, and hands on the square bytes that networks read of them, corrupted where they are to be.
    ///
    /// # Errors
    /// As `decode`; an image cannot be resized or corrupted.
    pub fn squares(
        &self,
        wanted: &[usize],
        frame: Frame,
        take: &(dyn Fn(usize, &[u8]) -> anyhow::Result<()> + Sync),
    ) -> anyhow::Result<()> {
        let corruption = |index: usize| match &self.content {
            Content::Joined(pieces) => piece_of(pieces, index).and_then(|piece| piece.corruption),
            _ => self.manifest.corruption,
        };
        self.decode(wanted, &|index, image| {
            let plain = square(&image, frame).map_err(anyhow::Error::msg)?;
            match corruption(index) {
                None => take(index, &plain),
                Some(what) => {
                    let content = self.manifest.samples[index].content;
                    take(index, &corrupt(what, &plain, frame.side, content).map_err(anyhow::Error::msg)?)
                }
            }
        })
    }

    /// The same of a few samples, all at once, by their places.
    ///
    /// # Errors
    /// As `squares`.
    pub fn few_squares(&self, wanted: &[usize], frame: Frame) -> anyhow::Result<BTreeMap<usize, Vec<u8>>> {
        let found = Mutex::new(BTreeMap::new());
        self.squares(wanted, frame, &|index, pixels| {
            found.lock().map_err(|_| anyhow::anyhow!("an image has failed"))?.insert(index, pixels.to_vec());
            Ok(())
        })?;
        Ok(found.into_inner()?)
    }

    /// Decodes the samples in `wanted` (indices into the manifest) and hands each to `take`, in parallel.
    ///
    /// # Errors
    /// The first image, by id, that cannot be read, with its name and the reason.
    pub fn decode(
        &self,
        wanted: &[usize],
        take: &(dyn Fn(usize, Rgb) -> anyhow::Result<()> + Sync),
    ) -> anyhow::Result<()> {
        let named =
            |index: usize| format!("the image '{}' of '{}' cannot be used", self.manifest.samples[index].id, self.name);
        let one = |index: usize, bytes: &[u8]| {
            let image = decode(bytes, self.manifest.white)
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("{} (on_bad_image = \"skip\" leaves such out)", named(index)))?;
            take(index, image)
        };
        match &self.content {
            Content::Files(_) | Content::Archive(..) => self.each_file(wanted, &one),
            Content::Npz(path, names) => npz::visit(path, names, wanted, take),
            Content::Arrays(images) => first_error(wanted, |index| take(index, images[index].clone())),
            Content::Synthetic(family) => {
                first_error(wanted, |index| take(index, family.image(&self.manifest.samples[index].id)?))
            }
            Content::Joined(pieces) => each_piece(pieces, wanted, |piece, own| {
                let places: Vec<usize> = own.keys().copied().collect();
                piece.decode(&places, &|place, image| take(own[&place], image))
            }),
        }
    }

    /// Hands the bytes of the files of some samples to `take`, in parallel; of samples that are no files, nothing.
    ///
    /// # Errors
    /// A file cannot be read, or what `take` returns.
    pub fn each_file(
        &self,
        wanted: &[usize],
        take: &(dyn Fn(usize, &[u8]) -> anyhow::Result<()> + Sync),
    ) -> anyhow::Result<()> {
        match &self.content {
            Content::Files(paths) => first_error(wanted, |index| {
                let path = &paths[index];
                take(index, &std::fs::read(path).with_context(|| format!("cannot read '{}'", path.display()))?)
            }),
            Content::Archive(path, names) => archive::visit(path, names, wanted, take),
            Content::Joined(pieces) => each_piece(pieces, wanted, |piece, own| {
                let places: Vec<usize> = own.keys().copied().collect();
                piece.each_file(&places, &|place, bytes| take(own[&place], bytes))
            }),
            Content::Npz(..) | Content::Arrays(_) | Content::Synthetic(_) => Ok(()),
        }
    }

    /// Takes images that cannot be decoded out of the manifest, and lists them there.
    fn drop_bad_images(&mut self) -> anyhow::Result<()> {
        let all: Vec<usize> = (0..self.manifest.samples.len()).collect();
        let bad = Mutex::new(BTreeMap::new());
        self.each_file(&all, &|index, bytes| {
            if let (Err(reason), Ok(mut bad)) = (decode(bytes, None), bad.lock()) {
                bad.insert(index, reason);
            }
            Ok(())
        })?;
        self.leave_out(&bad.into_inner().unwrap_or_default())
    }

    /// Keeps images of some classes only.
    fn keep_classes(&mut self, chosen: &[String]) -> anyhow::Result<()> {
        let old = &self.manifest;
        if let Some(name) = chosen.iter().find(|name| !old.classes.contains(name)) {
            let near = nearest(name, old.classes.iter().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
            let some: Vec<&str> = old.classes.iter().take(20).map(String::as_str).collect();
            let more = if old.classes.len() > some.len() { ", ..." } else { "" };
            anyhow::bail!("the dataset '{}' has no class '{name}'{hint} (it has {}{more})", self.name, some.join(", "));
        }
        let place = |class: u32| chosen.iter().position(|name| *name == old.classes[class as usize]);
        let keep = |index: &usize| place(old.samples[*index].class).is_some();
        let kept_samples = kept(&old.samples, keep).into_iter();
        let samples = kept_samples.map(|sample| Sample { class: place(sample.class).unwrap_or(0) as u32, ..sample });
        let manifest = Manifest::new(&self.name, chosen.to_vec(), samples.collect(), old.sha256.clone())?;
        self.content.keep(keep);
        self.manifest = Manifest { unread: self.manifest.unread.clone(), ..manifest };
        Ok(())
    }

    /// Takes samples out of the manifest, each with the reason, and lists them there.
    ///
    /// # Errors
    /// What is left is no dataset.
    pub fn leave_out(&mut self, without: &BTreeMap<usize, String>) -> anyhow::Result<()> {
        if without.is_empty() {
            return Ok(());
        }
        let keep = |index: &usize| !without.contains_key(index);
        self.content.keep(keep);
        let old = &self.manifest;
        let named = |(index, reason): (&usize, &String)| (old.samples[*index].id.clone(), reason.clone());
        let skipped = old.skipped.iter().cloned().chain(without.iter().map(named)).collect();
        let mut manifest =
            Manifest::new(&self.name, old.classes.clone(), kept(&old.samples, keep), old.sha256.clone())?;
        (manifest.skipped, manifest.unread) = (skipped, old.unread.clone());
        (manifest.folds, manifest.corruption, manifest.white) = (old.folds, old.corruption, old.white);
        manifest.seal();
        self.manifest = manifest;
        Ok(())
    }
}

impl Content {
    /// Keeps the images of some samples.
    fn keep(&mut self, keep: impl Fn(&usize) -> bool) {
        match self {
            Self::Files(paths) => *paths = kept(paths, keep),
            Self::Archive(_, names) | Self::Npz(_, names) => *names = kept(names, keep),
            Self::Arrays(images) => *images = kept(images, keep),
            // Its images are made from their names.
            Self::Synthetic(_) => {}
            Self::Joined(pieces) => {
                let mut at = 0..;
                let kept = |piece: &mut Piece| piece.places.retain(|_| at.next().is_some_and(|at| keep(&at)));
                pieces.iter_mut().for_each(kept);
            }
        }
    }
}

/// Hands the dataset of each piece those of `wanted` that are its own: by their places there, those in the whole.
fn each_piece(
    pieces: &[Piece],
    wanted: &[usize],
    take: impl Fn(&Dataset, &BTreeMap<usize, usize>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut from = 0;
    for Piece { dataset, places, .. } in pieces {
        let own = wanted.iter().filter_map(|at| Some((*places.get(at.checked_sub(from)?)?, *at))).collect();
        take(dataset, &own)?;
        from += places.len();
    }
    Ok(())
}

fn piece_of(pieces: &[Piece], mut at: usize) -> Option<&Piece> {
    pieces.iter().find(|piece| match at.checked_sub(piece.places.len()) {
        None => true,
        Some(rest) => {
            at = rest;
            false
        }
    })
}

fn kept<T: Clone>(items: &[T], keep: impl Fn(&usize) -> bool) -> Vec<T> {
    items.iter().enumerate().filter(|(index, _)| keep(index)).map(|(_, item)| item.clone()).collect()
}

/// Runs `work` over all, in parallel, and returns the error of the lowest index: the same one every time.
pub fn first_error(wanted: &[usize], work: impl Fn(usize) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    let failed = wanted.par_iter().filter_map(|index| work(*index).err().map(|error| (*index, error)));
    match failed.min_by_key(|(index, _)| *index) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}
