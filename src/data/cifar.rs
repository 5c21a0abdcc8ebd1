//! CIFAR-10 and CIFAR-100 in their binary version (Krizhevsky, 2009): label bytes, then 1,024 red, green and blue each.

use std::path::Path;

use anyhow::Context;

use super::decode::Rgb;
use super::digest::sha256;
use super::manifest::{Manifest, Part, Sample};
use super::open::Content;
use crate::key::Key;

const PIXELS: usize = 3 * 32 * 32;

/// Whether the folder holds a binary CIFAR.
pub fn is_folder(path: &Path) -> bool {
    path.join("test_batch.bin").exists()
        || (path.join("test.bin").exists() && path.join("fine_label_names.txt").exists())
}

/// Reads either of the two; CIFAR-100 with its 100 fine classes.
///
/// # Errors
/// A file is missing or has a length that is no multiple of its record, or a label has no name.
pub fn read(name: &str, root: &Path) -> anyhow::Result<(Manifest, Content)> {
    let hundred = root.join("test.bin").exists();
    let (names, labels, files): (_, usize, Vec<(String, Part)>) = match hundred {
        true => ("fine_label_names.txt", 2, vec![("train.bin".into(), Part::Train), ("test.bin".into(), Part::Test)]),
        false => {
            let batches = (1..=5).map(|batch| (format!("data_batch_{batch}.bin"), Part::Train));
            ("batches.meta.txt", 1, batches.chain([("test_batch.bin".to_owned(), Part::Test)]).collect())
        }
    };
    let load = |file: &str| {
        std::fs::read(root.join(file)).with_context(|| format!("cannot read '{}'", root.join(file).display()))
    };
    let classes: Vec<String> = String::from_utf8_lossy(&load(names)?)
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    let (mut samples, mut images, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (file, part) in files {
        let bytes = load(&file)?;
        let record = labels + PIXELS;
        anyhow::ensure!(
            bytes.len() % record == 0 && !bytes.is_empty(),
            "'{}' has {} bytes, no multiple of {record}: truncated?",
            root.join(&file).display(),
            bytes.len()
        );
        for (index, record) in bytes.chunks_exact(record).enumerate() {
            let class = u32::from(record[labels - 1]);
            anyhow::ensure!(
                (class as usize) < classes.len(),
                "record {index} of '{}' has the label {class}, but '{names}' has {} names",
                root.join(&file).display(),
                classes.len()
            );
            samples.push(Sample {
                id: format!("{file}/{index:05}"),
                class,
                part,
                group: None,
                content: Key::of_bytes(record),
            });
            images.push(interleave(&record[labels..]));
        }
        all.push(bytes);
    }
    // Files and records are numbered, so ids already stand in the manifest's order, except that train.bin follows test.bin.
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by(|left, right| samples[*left].id.cmp(&samples[*right].id));
    let images = order
        .into_iter()
        .map(|index| std::mem::replace(&mut images[index], Rgb { width: 0, height: 0, pixels: Vec::new() }))
        .collect();
    let manifest = Manifest::new(name, classes, samples, sha256(all.iter().map(Vec::as_slice)))?;
    Ok((manifest, Content::Arrays(images)))
}

fn interleave(planes: &[u8]) -> Rgb {
    let pixels = (0..PIXELS).map(|at| planes[at % 3 * 1024 + at / 3]).collect();
    Rgb { width: 32, height: 32, pixels }
}
