//! A CSV manifest: columns path, label, split (unless test images are taken of all), and if wanted group; paths relative to the file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rayon::prelude::*;
use serde::Deserialize;

use super::decode::content;
use super::digest::sha256;
use super::manifest::{Manifest, Part, Sample};
use super::open::{Content, brings_its_own};
use crate::key::Key;

#[derive(Deserialize)]
struct Row {
    path: String,
    label: String,
    #[serde(default)]
    split: Option<String>,
    group: Option<String>,
}

/// Reads the table and the files that it lists; where test images are to be `taken`, of one without a column of splits too.
///
/// # Errors
/// A column is missing, a split is not train, val or test, or a file cannot be read; with the line.
pub fn read(name: &str, path: &Path, taken: bool) -> anyhow::Result<(Manifest, Content)> {
    let shown = path.display();
    let text = std::fs::read(path).with_context(|| format!("cannot read '{shown}'"))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut classes: Vec<String> = Vec::new();
    let mut rows: Vec<(String, u32, Part, Option<String>)> = Vec::new();
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_slice());
    for (index, row) in reader.deserialize().enumerate() {
        let line = index + 2;
        let row: Row = row.with_context(|| {
            format!("line {line} of '{shown}' (the columns are path,label,split and if wanted group)")
        })?;
        let part = match row.split.as_deref() {
            None if taken => Part::Train,
            None => anyhow::bail!("'{shown}' has no column 'split'; {}", Part::cure("test")),
            Some(split) => Part::parse(split)
                .with_context(|| format!("line {line} of '{shown}': the split is train, val or test, not '{split}'"))?,
        };
        anyhow::ensure!(!(taken && part == Part::Test), "line {line} of '{shown}': {}", brings_its_own(name));
        anyhow::ensure!(
            !row.path.is_empty() && !row.label.is_empty(),
            "line {line} of '{shown}' lacks a path or a label"
        );
        let class = classes.iter().position(|known| *known == row.label).unwrap_or(classes.len());
        if class == classes.len() {
            classes.push(row.label);
        }
        rows.push((row.path, class as u32, part, row.group.filter(|group| !group.is_empty())));
    }
    rows.sort_by(|left, right| left.0.cmp(&right.0));
    let paths: Vec<PathBuf> = rows.iter().map(|row| folder.join(&row.0)).collect();
    let contents: Vec<Key> = paths
        .par_iter()
        .map(|file| {
            Ok(content(
                &std::fs::read(file)
                    .with_context(|| format!("'{shown}' lists '{}', which cannot be read", file.display()))?,
            ))
        })
        .collect::<anyhow::Result<_>>()?;
    let samples = rows.into_iter().zip(contents);
    let samples =
        samples.map(|((id, class, part, group), content)| Sample { id, class, part, group, content }).collect();
    Ok((Manifest::new(name, classes, samples, sha256([text.as_slice()]))?, Content::Files(paths)))
}
