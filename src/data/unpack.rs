//! From downloaded files to a dataset: archives unpacked, images laid out as split/class/file.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::archive::zipped;
use super::known::{Layout, List};

/// Lays out the files of a dataset, which lie in `work` in the order of their list, as `work/ready`. Archives go when they
/// are unpacked; what is unpacked and not asked for stays in `work`.
///
/// # Errors
/// An archive is damaged, something that the layout names is not in it, or the disk cannot take it.
pub fn lay_out(files: &[PathBuf], layout: Layout, work: &Path) -> anyhow::Result<PathBuf> {
    let ready = work.join("ready");
    let raw = work.join("raw");
    for leftover in [&ready, &raw] {
        if leftover.exists() {
            std::fs::remove_dir_all(leftover).with_context(|| format!("cannot remove '{}'", leftover.display()))?;
        }
    }
    make(&ready)?;
    if layout == Layout::Plain {
        for file in files {
            let name = file.file_name().context("a file without a name")?;
            rename(file, &ready.join(name))?;
        }
        return Ok(ready);
    }
    for (index, file) in files.iter().enumerate() {
        let into = if let Layout::Splits(splits) = layout { raw.join(splits[index]) } else { raw.clone() };
        unpack(file, &into)?;
        std::fs::remove_file(file).with_context(|| format!("cannot remove '{}'", file.display()))?;
    }
    match layout {
        Layout::Plain => {}
        Layout::Folder(folder) => {
            std::fs::remove_dir(&ready)?;
            rename(&raw.join(folder), &ready)?;
        }
        Layout::Images(folder) => {
            let inside = raw.join(folder);
            for image in images(&inside)? {
                rename(&image, &ready.join(image.strip_prefix(&inside)?))?;
            }
        }
        Layout::Splits(splits) => {
            for split in splits {
                for image in images(&raw.join(split))? {
                    let class = image.parent().and_then(Path::file_name).context("an image without a folder")?;
                    let name = image.file_name().context("an image without a name")?;
                    rename(&image, &ready.join(split).join(class).join(name))?;
                }
            }
        }
        Layout::Lists(list, splits) => {
            for (split, file) in splits {
                for (class, image) in listed(list, &raw.join(file))? {
                    let image = raw.join(image);
                    let name = image.file_name().context("an image without a name")?.to_owned();
                    rename(&image, &ready.join(split).join(class).join(name))?;
                }
            }
        }
    }
    Ok(ready)
}

/// Moves a file or folder to a place where there is none.
fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(from.exists(), "'{}' is not in what was downloaded", from.display());
    anyhow::ensure!(!to.exists(), "two images would be '{}'", to.display());
    if let Some(parent) = to.parent() {
        make(parent)?;
    }
    std::fs::rename(from, to).with_context(|| format!("cannot move '{}' to '{}'", from.display(), to.display()))
}

fn make(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder '{}'", folder.display()))
}

/// JPEG and PNG files at any depth, sorted; no hidden ones.
fn images(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut left) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = left.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read '{}'", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
            if hidden || path.ends_with("__MACOSX") {
                continue;
            } else if path.is_dir() {
                left.push(path);
            } else if matches!(ending.as_deref(), Some("jpg" | "jpeg" | "png")) {
                found.push(path);
            }
        }
    }
    anyhow::ensure!(!found.is_empty(), "there are no images in '{}'", folder.display());
    found.sort();
    Ok(found)
}

/// Class and image of each line.
fn listed(list: List, path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let shown = || format!("in '{}'", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read '{}'", path.display()))?;
    if list == List::Food {
        let classes: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).with_context(shown)?;
        let image = |name: &String| format!("food-101/images/{name}.jpg");
        let rows = classes.iter().flat_map(|(class, names)| names.iter().map(|name| (class.clone(), image(name))));
        return Ok(rows.collect());
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let row = |line: &str| match list {
        List::Pets => {
            let name = line.split_whitespace().next()?;
            Some((name.rsplit_once('_')?.0.to_owned(), format!("images/{name}.jpg")))
        }
        _ => Some((line.split_once('/')?.0.to_owned(), format!("dtd/images/{line}"))),
    };
    lines
        .map(|line| row(line).with_context(|| format!("the line '{line}' names no image")).with_context(shown))
        .collect()
}

/// Unpacks a .zip, .tar or .tar.gz, told apart by content. Nothing is written outside of `into`.
fn unpack(archive: &Path, into: &Path) -> anyhow::Result<()> {
    let shown = || format!("the archive '{}' is damaged", archive.display());
    make(into)?;
    let mut file = std::fs::File::open(archive).with_context(|| format!("cannot open '{}'", archive.display()))?;
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic)?;
    let file = std::io::BufReader::new(std::fs::File::open(archive)?);
    match magic.as_slice() {
        [b'P', b'K', ..] => zipped(archive).and_then(|archive| unzip(archive, into)).with_context(shown),
        [0x1f, 0x8b, ..] => untar(flate2::read::MultiGzDecoder::new(file), into).with_context(shown),
        _ => untar(file, into).with_context(shown),
    }
}

fn untar(reader: impl Read, into: &Path) -> anyhow::Result<()> {
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        // Neither links nor owners: a dataset is files.
        if entry.header().entry_type().is_file() {
            let name = entry.path()?.into_owned();
            write(into, &inside(&name)?, &mut entry)?;
        }
    }
    Ok(())
}

fn unzip(mut archive: zip::ZipArchive<impl Read + std::io::Seek>, into: &Path) -> anyhow::Result<()> {
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        if entry.is_file() {
            let name = PathBuf::from(entry.name()?.as_ref());
            write(into, &inside(&name)?, &mut entry)?;
        }
    }
    Ok(())
}

/// A name within an archive, if it stays there.
fn inside(name: &Path) -> anyhow::Result<PathBuf> {
    use std::path::Component;
    let mut clean = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            _ => anyhow::bail!("the entry '{}' would be written elsewhere", name.display()),
        }
    }
    Ok(clean)
}

fn write(into: &Path, name: &Path, content: &mut impl Read) -> anyhow::Result<()> {
    let path = into.join(name);
    if let Some(parent) = path.parent() {
        make(parent)?;
    }
    let mut file = std::fs::File::create(&path).with_context(|| format!("cannot write '{}'", path.display()))?;
    std::io::copy(content, &mut file).with_context(|| format!("at '{}'", name.display()))?;
    Ok(())
}
