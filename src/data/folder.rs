//! Folders of split/class/file, and the reading of such paths that archives share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rayon::prelude::*;

use super::manifest::{Manifest, Part, Sample};
use super::open::{Content, sha256};
use crate::key::Key;

/// Reads a folder of split/class/file.
///
/// # Errors
/// Nothing that looks like a dataset, or a file that cannot be read.
pub fn read(name: &str, root: &Path, splits: &BTreeMap<String, String>) -> anyhow::Result<(Manifest, Content)> {
    let mut files = Vec::new();
    walk(root, root, &mut files)?;
    files.sort();
    let mut layout = Layout::new(splits);
    let found: Vec<(String, PathBuf)> = files.into_iter().filter(|(id, _)| layout.place(id)).collect();
    layout.check(root)?;
    let contents: Vec<Key> = found
        .par_iter()
        .map(|(_, path)| {
            Ok(Key::of_bytes(&std::fs::read(path).with_context(|| format!("cannot read '{}'", path.display()))?))
        })
        .collect::<anyhow::Result<_>>()?;
    let listing: Vec<String> = found.iter().zip(&contents).map(|((id, _), key)| format!("{id} {key}\n")).collect();
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

/// Collects split/class/file paths into samples.
pub struct Layout<'a> {
    splits: &'a BTreeMap<String, String>,
    classes: Vec<String>,
    placed: Vec<(String, u32, Part)>,
    folders: std::collections::BTreeSet<String>,
}

impl<'a> Layout<'a> {
    pub fn new(splits: &'a BTreeMap<String, String>) -> Self {
        Self { splits, classes: Vec::new(), placed: Vec::new(), folders: Default::default() }
    }

    /// Takes a path if it is split/class/file of a split that is asked for. Hidden files are no samples.
    pub fn place(&mut self, id: &str) -> bool {
        let parts: Vec<&str> = id.split('/').collect();
        let hidden = parts.iter().any(|part| part.starts_with('.') || *part == "Thumbs.db");
        let [split, class, _, ..] = parts.as_slice() else { return false };
        if hidden {
            return false;
        }
        self.folders.insert((*split).to_owned());
        let part = self.splits.iter().find(|(_, folder)| folder == split).and_then(|(name, _)| Part::parse(name));
        let Some(part) = part else { return false };
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

    /// Complains of splits that were named and are not there.
    pub fn check(&self, place: &Path) -> anyhow::Result<()> {
        let found: Vec<&str> = self.folders.iter().map(String::as_str).collect();
        for (split, folder) in self.splits {
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
        Manifest::new(name, self.classes, samples, sha256)
    }
}
