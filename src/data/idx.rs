//! IDX, the format of MNIST and its family (LeCun, Cortes and Burges): a magic number, dimensions, bytes; gzipped or not.

use std::io::Read;
use std::path::Path;

use anyhow::Context;

use super::decode::Rgb;
use super::digest::sha256;
use super::manifest::{Manifest, Part, Sample};
use super::open::Content;
use crate::key::Key;

const FILES: [(&str, &str, Part); 2] = [
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", Part::Test),
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", Part::Train),
];

/// Whether the folder holds the four files of an MNIST-like set.
pub fn is_folder(path: &Path) -> bool {
    path.join(FILES[1].0).exists() || path.join(format!("{}.gz", FILES[1].0)).exists()
}

/// Reads the four files; grey becomes RGB by repetition.
///
/// # Errors
/// A file is missing, has another magic number, or another length than its header says.
pub fn read(name: &str, root: &Path) -> anyhow::Result<(Manifest, Content)> {
    let (mut samples, mut images, mut all, mut classes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (image_file, label_file, part) in FILES {
        let (pixels, labels) = (load(root, image_file)?, load(root, label_file)?);
        let [count, height, width] = header::<3>(&pixels, image_file)?;
        let [label_count] = header::<1>(&labels, label_file)?;
        anyhow::ensure!(
            count == label_count,
            "'{image_file}' has {count} images and '{label_file}' {label_count} labels"
        );
        anyhow::ensure!(
            height > 0 && width > 0 && height * width <= 1 << 24,
            "'{image_file}' has images of {height} x {width} pixels"
        );
        for (index, (grey, label)) in pixels[16..].chunks_exact(height * width).zip(&labels[8..]).enumerate() {
            let id = format!("{}/{index:06}", part.name());
            classes = classes.max(*label as usize + 1);
            samples.push(Sample { id, class: u32::from(*label), part, group: None, content: Key::of_bytes(grey) });
            images.push(Rgb {
                width: width as u32,
                height: height as u32,
                pixels: grey.iter().flat_map(|value| [*value; 3]).collect(),
            });
        }
        all.extend([pixels, labels]);
    }
    let digits = (classes.max(2) - 1).to_string().len();
    let names = (0..classes).map(|class| format!("{class:0digits$}")).collect();
    let manifest = Manifest::new(name, names, samples, sha256(all.iter().map(Vec::as_slice)))?;
    Ok((manifest, Content::Arrays(images)))
}

fn load(root: &Path, file: &str) -> anyhow::Result<Vec<u8>> {
    let plain = root.join(file);
    let mut bytes = Vec::new();
    if plain.exists() {
        bytes = std::fs::read(&plain).with_context(|| format!("cannot read '{}'", plain.display()))?;
    } else {
        let zipped = root.join(format!("{file}.gz"));
        let opened = std::fs::File::open(&zipped)
            .with_context(|| format!("cannot open '{}' or '{}'", plain.display(), zipped.display()))?;
        flate2::read::GzDecoder::new(opened)
            .take(1 << 32)
            .read_to_end(&mut bytes)
            .with_context(|| format!("'{}' is damaged", zipped.display()))?;
    }
    Ok(bytes)
}

/// The N dimensions of an unsigned-byte array, checked against the length.
fn header<const N: usize>(bytes: &[u8], file: &str) -> anyhow::Result<[usize; N]> {
    let word = |at: usize| {
        bytes.get(at * 4..at * 4 + 4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]) as usize)
    };
    anyhow::ensure!(word(0) == Some(0x800 + N), "'{file}' is no IDX file of unsigned bytes in {N} dimensions");
    let mut dimensions = [0; N];
    for (at, dimension) in dimensions.iter_mut().enumerate() {
        *dimension = word(at + 1).with_context(|| format!("'{file}' ends within its header"))?;
    }
    let expected = dimensions
        .iter()
        .try_fold(1usize, |product, dimension| product.checked_mul(*dimension))
        .and_then(|product| product.checked_add(4 + 4 * N));
    anyhow::ensure!(
        expected == Some(bytes.len()),
        "'{file}' has {} bytes, its header promises {expected:?}: truncated?",
        bytes.len()
    );
    Ok(dimensions)
}
