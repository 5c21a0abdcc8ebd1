//! `.npz` of NumPy, which holds images and labels as arrays: `train_images` and `train_labels` as in MedMNIST, or `x_train` and
//! `y_train` as in Keras' own datasets, and so for val and test. Images are read one after another, never all at once.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use anyhow::Context;

use super::archive::{damaged, zipped};
use super::decode::Rgb;
use super::digest::sha256_of;
use super::manifest::{Manifest, Part, Sample};
use super::open::{Content, brings_its_own, first_error};
use crate::key::Key;

/// Images that are handed on at once.
const BATCH: usize = 512;

/// The arrays of a split: its images and its labels, in either manner.
fn names(part: Part) -> [[String; 2]; 2] {
    let split = part.name();
    [[format!("{split}_images"), format!("{split}_labels")], [format!("x_{split}"), format!("y_{split}")]]
}

/// An array as its header says.
struct Header {
    /// NumPy's word for what numbers they are: a byte order, a kind and their bytes.
    numbers: String,
    shape: Vec<usize>,
}

/// Images of a split.
struct Images {
    part: Part,
    /// What the array is called.
    name: String,
    count: usize,
    height: usize,
    width: usize,
    channels: usize,
}

/// Reads the labels, and hashes each image.
///
/// # Errors
/// The file is damaged, has no such arrays, or they are none of one label for each image.
pub fn read(name: &str, path: &Path, taken: bool) -> anyhow::Result<(Manifest, Content)> {
    let shown = path.display();
    let (mut samples, mut classes) = (Vec::new(), 0);
    let splits = splits(path)?;
    anyhow::ensure!(
        !splits.is_empty(),
        "'{shown}' has no images that are called as in MedMNIST ('train_images') or in Keras ('x_train'): its arrays are {}",
        arrays(path)?.join(", ")
    );
    anyhow::ensure!(!(taken && splits.iter().any(|(images, _)| images.part == Part::Test)), brings_its_own(name));
    for (images, labels) in &splits {
        for (index, label) in labels.iter().enumerate() {
            classes = classes.max(*label as usize + 1);
            let id = id(images.part, index);
            samples.push(Sample { id, class: *label, part: images.part, group: None, content: Key::of_bytes(b"") });
        }
    }
    let ids: Vec<String> = samples.iter().map(|sample| sample.id.clone()).collect();
    let contents: Vec<std::sync::OnceLock<Key>> = ids.iter().map(|_| Default::default()).collect();
    visit(path, &ids, &(0..ids.len()).collect::<Vec<_>>(), &|at, image| {
        let size = [image.height, image.width].map(u32::to_le_bytes).concat();
        contents[at].set(Key::of_bytes(&[size, image.pixels].concat())).map_err(|_| anyhow::anyhow!("an image twice"))
    })?;
    for (sample, content) in samples.iter_mut().zip(contents) {
        sample.content = content.into_inner().with_context(|| format!("'{shown}' ends before '{}'", sample.id))?;
    }
    let digits = (classes.max(2) - 1).to_string().len();
    let classes = (0..classes).map(|class| format!("{class:0digits$}")).collect();
    Ok((Manifest::new(name, classes, samples, sha256_of(path)?)?, Content::Npz(path.to_owned(), ids)))
}

/// Reads the arrays one after another, and hands the wanted ones of these images to `take`, some hundreds at a time in parallel.
///
/// # Errors
/// The file is damaged, or what `take` returns.
pub fn visit(
    path: &Path,
    ids: &[String],
    wanted: &[usize],
    take: &(dyn Fn(usize, Rgb) -> anyhow::Result<()> + Sync),
) -> anyhow::Result<()> {
    let index_of: HashMap<&str, usize> = wanted.iter().map(|index| (ids[*index].as_str(), *index)).collect();
    let flush = |batch: &mut Vec<(usize, Rgb)>| {
        let all: Vec<usize> = (0..batch.len()).collect();
        first_error(&all, |at| take(batch[at].0, batch[at].1.clone()))?;
        batch.clear();
        anyhow::Ok(())
    };
    for (images, _) in splits(path)? {
        let at = || damaged(path, &images.name);
        let mut archive = zipped(path)?;
        let mut entry = archive.by_name(&format!("{}.npy", images.name)).with_context(at)?;
        header(&mut entry, &images.name).with_context(|| format!("in '{}'", path.display()))?;
        let (mut batch, mut numbers) = (Vec::new(), vec![0; images.height * images.width * images.channels]);
        for index in 0..images.count {
            entry.read_exact(&mut numbers).with_context(at)?;
            let Some(index) = index_of.get(id(images.part, index).as_str()) else { continue };
            let pixels = match images.channels {
                1 => numbers.iter().flat_map(|value| [*value; 3]).collect(),
                _ => numbers.clone(),
            };
            batch.push((*index, Rgb { width: images.width as u32, height: images.height as u32, pixels }));
            if batch.len() == BATCH {
                flush(&mut batch)?;
            }
        }
        flush(&mut batch)?;
    }
    Ok(())
}

/// Sorted as they are counted.
fn id(part: Part, index: usize) -> String {
    format!("{}/{index:07}", part.name())
}

/// What arrays there are.
fn arrays(path: &Path) -> anyhow::Result<Vec<String>> {
    let mut archive = zipped(path)?;
    let mut names = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).with_context(|| damaged(path, "its directory"))?;
        names.extend(entry.name()?.strip_suffix(".npy").map(str::to_owned));
    }
    Ok(names)
}

/// The splits that are there, in the order of their names, each with its labels.
fn splits(path: &Path) -> anyhow::Result<Vec<(Images, Vec<u32>)>> {
    let arrays = arrays(path)?;
    let mut found = Vec::new();
    for part in [Part::Test, Part::Train, Part::Val] {
        let Some([images, labels]) = names(part).into_iter().find(|[images, _]| arrays.contains(images)) else {
            continue;
        };
        anyhow::ensure!(arrays.contains(&labels), "'{}' has '{images}' and no '{labels}'", path.display());
        let images = of_images(path, part, images)?;
        let labels = of_labels(path, &labels, &images)?;
        found.push((images, labels));
    }
    Ok(found)
}

fn of_images(path: &Path, part: Part, name: String) -> anyhow::Result<Images> {
    let Header { numbers, shape } = open(path, &name, |_, header| Ok(header))?;
    let wrong = || {
        format!(
            "'{name}' in '{}' is {numbers} of shape {shape:?}; images are bytes (|u1), [n, height, width] or \
             [n, height, width, 3]",
            path.display()
        )
    };
    let (count, height, width, channels) = match shape[..] {
        [count, height, width] => (count, height, width, 1),
        [count, height, width, channels @ (1 | 3)] => (count, height, width, channels),
        _ => anyhow::bail!(wrong()),
    };
    anyhow::ensure!(numbers.ends_with("u1") && height * width > 0 && height * width <= 1 << 24, wrong());
    Ok(Images { part, name, count, height, width, channels })
}

fn of_labels(path: &Path, name: &str, images: &Images) -> anyhow::Result<Vec<u32>> {
    let shown = path.display();
    open(path, name, |entry, Header { numbers, shape }| {
        match shape[..] {
            [count] | [count, 1] if count == images.count => {}
            [count] | [count, 1] => {
                anyhow::bail!("'{}' in '{shown}' has {} images and '{name}' {count} labels", images.name, images.count)
            }
            _ => anyhow::bail!(
                "'{name}' in '{shown}' has shape {shape:?}; one label for each image is needed, [n] or [n, 1]"
            ),
        }
        let (kind, size) = numbers.trim_start_matches(['|', '<']).split_at_checked(1).unwrap_or_default();
        let size: usize = size.parse().ok().filter(|size| [1, 2, 4, 8].contains(size)).unwrap_or(0);
        anyhow::ensure!(
            ["i", "u"].contains(&kind) && size > 0 && !numbers.starts_with('>'),
            "'{name}' in '{shown}' is {numbers}; labels are whole numbers, the first byte the least"
        );
        let mut bytes = vec![0; images.count * size];
        entry.read_exact(&mut bytes)?;
        let label = |own: &[u8]| {
            let mut whole = [if kind == "i" && own[size - 1] > 127 { 255 } else { 0 }; 8];
            whole[..size].copy_from_slice(own);
            let label = i64::from_le_bytes(whole);
            u32::try_from(label).ok().filter(|label| *label <= u32::from(u16::MAX)).with_context(|| {
                format!("'{name}' in '{shown}' has the label {label}; classes are counted from 0 to 65535")
            })
        };
        bytes.chunks_exact(size).map(label).collect()
    })
}

/// An array by its name, as `take` reads it behind its header.
fn open<T>(
    path: &Path,
    name: &str,
    take: impl FnOnce(&mut dyn Read, Header) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut archive = zipped(path)?;
    let mut entry = archive.by_name(&format!("{name}.npy")).with_context(|| damaged(path, name))?;
    let header = header(&mut entry, name).with_context(|| format!("in '{}'", path.display()))?;
    take(&mut entry, header)
}

/// NumPy's formats 1.0 to 3.0 (numpy/lib/format.py): a magic word, a version, a length, a dict in text.
fn header(entry: &mut dyn Read, name: &str) -> anyhow::Result<Header> {
    let mut start = [0; 8];
    entry.read_exact(&mut start)?;
    anyhow::ensure!(start.starts_with(b"\x93NUMPY"), "'{name}' is no array of NumPy");
    let mut length = [0; 4];
    entry.read_exact(&mut length[..if start[6] == 1 { 2 } else { 4 }])?;
    let length = u32::from_le_bytes(length);
    anyhow::ensure!(length <= 1 << 16, "'{name}' has a header of {length} bytes");
    let mut text = vec![0; length as usize];
    entry.read_exact(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace(' ', "");
    let value = |key: &str, end: char| {
        let rest = text.split_once(&format!("'{key}':")).map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split_once(end)).map(|(value, _)| value.trim_matches(['\'', '(']).to_owned())
    };
    let read = value("descr", ',').zip(value("fortran_order", ',')).zip(value("shape", ')'));
    let ((numbers, columns), shape) = read.with_context(|| format!("the header of '{name}' is {text}"))?;
    anyhow::ensure!(columns == "False", "'{name}' is stored column by column: numpy.ascontiguousarray turns it");
    let sides = shape.split(',').filter(|side| !side.is_empty()).map(str::parse);
    let shape = sides.collect::<Result<_, _>>().with_context(|| format!("the shape of '{name}' is ({shape})"))?;
    Ok(Header { numbers, shape })
}
