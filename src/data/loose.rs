//! Images of no dataset: files that a person names, and those in folders.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rayon::prelude::*;

use super::decode::{content, decode, is_image, square};
use crate::frame::Frame;
use crate::key::Key;

/// A file that may be an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Loose {
    pub path: PathBuf,
    /// Whether it was named itself: one that only lies in a folder may be something else.
    pub named: bool,
}

/// An image as a network reads it.
pub struct Square {
    /// RGB, row by row.
    pub pixels: Vec<u8>,
    /// The hash of the file's bytes, as manifests have it.
    pub content: Key,
}

/// What a file turned out to be.
pub enum Read {
    Image(Square),
    /// A file of another kind in a folder of images.
    Other,
    /// Why there is no answer to it.
    Broken(String),
}

/// Files as they are named, and those in named folders, at any depth, sorted by path. Hidden ones are left alone.
///
/// # Errors
/// There is nothing of that name, or a folder cannot be read.
pub fn list(named: &[PathBuf]) -> anyhow::Result<Vec<Loose>> {
    let mut found = Vec::new();
    for path in named {
        if path.is_dir() {
            let mut inside = Vec::new();
            walk(path, &mut inside)?;
            inside.sort();
            found.extend(inside.into_iter().map(|path| Loose { path, named: false }));
        } else {
            anyhow::ensure!(path.exists(), "there is nothing at '{}'", path.display());
            found.push(Loose { path: path.clone(), named: true });
        }
    }
    Ok(found)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the folder '{}'", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        match entry.path() {
            _ if hidden => {}
            path if path.is_dir() => walk(&path, files)?,
            path => files.push(path),
        }
    }
    Ok(())
}

/// Reads some files, in parallel, in their order; `white` as in `decode`.
pub fn read(files: &[Loose], frame: Frame, white: Option<u16>) -> Vec<Read> {
    files.par_iter().map(|file| one(file, frame, white)).collect()
}

fn one(file: &Loose, frame: Frame, white: Option<u16>) -> Read {
    let bytes = match std::fs::read(&file.path) {
        Ok(bytes) => bytes,
        Err(error) => return Read::Broken(error.to_string()),
    };
    if !file.named && !is_image(&file.path, &bytes) {
        return Read::Other;
    }
    match decode(&bytes, white).and_then(|image| square(&image, frame)) {
        Ok(pixels) => Read::Image(Square { pixels, content: content(&bytes) }),
        Err(reason) => Read::Broken(reason),
    }
}
