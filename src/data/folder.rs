//! Folders of split/class/file, or of class/file where test images are taken of all, and the reading of such paths that
//! archives share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rayon::prelude::*;

use super::decode::content;
use super::digest::sha256;
use super::manifest::{Manifest, Part, Sample};
use super::open::Content;
use crate::key::Key;

/// Reads a folder of split/class/file; where test images are to be `taken`, of class/file too.
///
/// # Errors
/// Nothing that looks like a dataset, or a file that cannot be read.
pub fn read(
    name: &str,
    root: &Path,
    splits: &BTreeMap<String, String>,
    taken: bool,
) -> anyhow::Result<(Manifest, Content)> {
    let mut files = Vec::new();
    walk(root, root, &mut files)?;
    files.sort();
    let mut layout = Layout::new(splits, taken, files.iter().map(|(id, _)| id.as_str()));
    let found: Vec<(String, PathBuf)> = files.into_iter().filter(|(id, _)| layout.place(id)).collect();
    layout.check(root)?;
    let contents: Vec<(Key, Key)> = found
        .par_iter()
        .map(|(_, path)| {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read '{}'", path.display()))?;
            Ok((Key::of_bytes(&bytes), content(&bytes)))
        })
        .collect::<anyhow::Result<_>>()?;
    let (bytes, contents): (Vec<Key>, Vec<Key>) = contents.into_iter().unzip();
    let listing: Vec<String> = found.iter().zip(&bytes).map(|((id, _), key)| format!("{id} {key}\n")).collect();
    let hash = sha256(listing.iter().map(String::as_bytes));
    let manifest = layout.manifest(name, contents, hash)?;
    Ok((manifest, Content::Files(found.into_iter().map(|(_, path)| path).collect())))
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) -> anyhow::Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the folder '{}'", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(root, &path, files)?;
            continue;
        }
        let id = path
            .strip_prefix(root)?
            .to_str()
            .with_context(|| format!("the name of '{}' is not UTF-8", path.display()))?;
        files.push((id.replace('\\', "/"), path.clone()));
    }
    Ok(())
}

/// Collects split/class/file or class/file paths into samples.
pub struct Layout<'a> {
    splits: &'a BTreeMap<String, String>,
    /// Whether test images are taken of those to train on.
    taken: bool,
    /// Whether paths are class/file, all to train on.
    flat: bool,
    classes: Vec<String>,
    placed: Vec<(String, u32, Part)>,
    folders: std::collections::BTreeSet<String>,
    /// Files of classes in folders that are no split.
    unread: BTreeMap<String, usize>,
}

impl<'a> Layout<'a> {
    /// For all of `ids`, some of which may be no samples. Where test images are to be `taken`, the folders are classes, unless
    /// one of them is `train` and has classes in it, or the train split is named otherwise.
    pub fn new<'b>(splits: &'a BTreeMap<String, String>, taken: bool, mut ids: impl Iterator<Item = &'b str>) -> Self {
        const USUAL: &str = "train";
        let usual = splits.get(USUAL).is_some_and(|folder| folder == USUAL);
        let in_usual = |id: &str| id.strip_prefix("train/").is_some_and(|rest| rest.contains('/'));
        let flat = taken && usual && !ids.any(in_usual);
        Self {
            splits,
            taken,
            flat,
            classes: Vec::new(),
            placed: Vec::new(),
            folders: Default::default(),
            unread: BTreeMap::new(),
        }
    }

    /// Takes a path if it is a file of a class, in a split that is asked for. Hidden files are no samples.
    pub fn place(&mut self, id: &str) -> bool {
        let parts: Vec<&str> = id.split('/').collect();
        let hidden = parts.iter().any(|part| part.starts_with('.') || *part == "Thumbs.db");
        let (folder, class, part) = match (parts.as_slice(), self.flat) {
            ([class, _, ..], true) => (class, class, Some(Part::Train)),
            ([split, class, _, ..], false) => {
                let named = self.splits.iter().find(|(_, folder)| folder == split);
                (split, class, named.and_then(|(name, _)| Part::parse(name)))
            }
            // What it is called is told where no split is there.
            ([folder, _], false) => (folder, folder, None),
            _ => return false,
        };
        if hidden {
            return false;
        }
        self.folders.insert((*folder).to_owned());
        let Some(part) = part else {
            // A dataset that is only tested need not have all of them.
            if parts.len() > 2 && self.splits.contains_key("train") {
                *self.unread.entry((*folder).to_owned()).or_default() += 1;
            }
            return false;
        };
        let class = match self.classes.iter().position(|known| known == class) {
            Some(index) => index,
            None => {
                self.classes.push((*class).to_owned());
                self.classes.len() - 1
            }
        };
        self.placed.push((id.to_owned(), class as u32, part));
        true
    }

    /// Complains of splits that were named and are not there, and of one that is there and to be taken.
    pub fn check(&self, place: &Path) -> anyhow::Result<()> {
        let found: Vec<&str> = self.folders.iter().map(String::as_str).collect();
        if self.flat {
            return Ok(());
        }
        for (split, folder) in self.splits {
            if self.taken && split == "test" {
                anyhow::ensure!(
                    !self.folders.contains(folder),
                    "'{}' has a folder '{folder}' of images to test on: leave `folds`, and a share as `test`, out",
                    place.display()
                );
                continue;
            }
            if split != "val" && !self.folders.contains(folder) {
                anyhow::bail!(
                    "'{}' has no folder '{folder}' for the {split} split (split/class/file is the layout); its folders are {}. Name it: {}",
                    place.display(),
                    if found.is_empty() { "none".to_owned() } else { found.join(", ") },
                    Part::cure(split)
                );
            }
        }
        anyhow::ensure!(
            self.splits.contains_key("test"),
            "'{}' would have no test split; its folders are {}",
            place.display(),
            found.join(", ")
        );
        Ok(())
    }

    /// The manifest, with one content hash per placed path.
    pub fn manifest(self, name: &str, contents: Vec<Key>, sha256: String) -> anyhow::Result<Manifest> {
        let samples = self.placed.into_iter().zip(contents);
        let samples =
            samples.map(|((id, class, part), content)| Sample { id, class, part, group: None, content }).collect();
        let mut manifest = Manifest::new(name, self.classes, samples, sha256)?;
        manifest.unread = self.unread.into_iter().collect();
        Ok(manifest)
    }
}
