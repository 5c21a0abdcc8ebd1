//! `.tar`, `.tar.gz` and `.zip` of the layouts of folders, read in one pass; a folder around everything is looked through.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::Context;
use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};

use super::decode::content;
use super::digest::sha256_of;
use super::folder::Layout;
use super::manifest::Manifest;
use super::open::{Content, first_error};
use crate::key::Key;

/// How names of archives end.
pub const ENDINGS: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".zip"];

/// Where archives made on a Mac keep what is no file of the dataset.
const OF_MACS: &str = "__MACOSX/";

/// A file in an archive may not be larger than this.
const MAX_FILE: u64 = 256 << 20;

/// Reads the list of an archive's images and hashes each; where test images are to be `taken`, of class/file too.
///
/// # Errors
/// The archive is damaged, or holds no dataset.
pub fn read(
    name: &str,
    path: &Path,
    splits: &BTreeMap<String, String>,
    taken: bool,
) -> anyhow::Result<(Manifest, Content)> {
    let mut found: Vec<(String, Key)> = Vec::new();
    each(
        path,
        |_| true,
        |entry, bytes| {
            found.push((entry.to_owned(), content(bytes)));
            Ok(())
        },
    )?;
    let root = common_root(&found, splits);
    found.sort_by(|left, right| left.0.cmp(&right.0));
    let listed: Vec<String> =
        found.iter().filter_map(|(entry, _)| entry.strip_prefix(&root)).map(str::to_owned).collect();
    let mut layout = Layout::new(splits, taken, listed.iter().map(String::as_str));
    found.retain(|(entry, _)| entry.strip_prefix(&root).is_some_and(|id| layout.place(id)));
    layout.check(path)?;
    let (names, contents) = found.into_iter().unzip();
    let manifest = layout.manifest(name, contents, sha256_of(path)?)?;
    Ok((manifest, Content::Archive(path.to_owned(), names)))
}

/// "pets/" where every entry lies in one folder that is no split itself.
fn common_root(found: &[(String, Key)], splits: &BTreeMap<String, String>) -> String {
    let first = |entry: &str| entry.split_once('/').map(|(folder, _)| folder.to_owned());
    let Some(root) = found.first().and_then(|(entry, _)| first(entry)) else { return String::new() };
    let shared = found.iter().all(|(entry, _)| first(entry).as_ref() == Some(&root));
    if shared && !splits.values().any(|folder| *folder == root) { format!("{root}/") } else { String::new() }
}

/// Streams the archive and hands the bytes of wanted samples to `take`, some hundreds at a time in parallel.
///
/// # Errors
/// The archive is damaged, or what `take` returns.
pub fn visit(
    path: &Path,
    names: &[String],
    wanted: &[usize],
    take: impl Fn(usize, &[u8]) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let index_of: HashMap<&str, usize> = wanted.iter().map(|index| (names[*index].as_str(), *index)).collect();
    let mut batch: Vec<(usize, Vec<u8>)> = Vec::new();
    let flush = |batch: &mut Vec<(usize, Vec<u8>)>| {
        let all: Vec<usize> = (0..batch.len()).collect();
        first_error(&all, |at| take(batch[at].0, &batch[at].1))?;
        batch.clear();
        anyhow::Ok(())
    };
    each(
        path,
        |entry| index_of.contains_key(entry),
        |entry, bytes| {
            if let Some(index) = index_of.get(entry) {
                batch.push((*index, bytes.to_vec()));
            }
            if batch.len() >= 512 { flush(&mut batch) } else { Ok(()) }
        },
    )?;
    flush(&mut batch)
}

/// What is said of an archive that cannot be read at a place.
pub fn damaged(path: &Path, place: &str) -> String {
    format!("the archive '{}' is damaged at '{place}'", path.display())
}

/// A `.zip`, or what is one under another name.
///
/// # Errors
/// It cannot be opened, or is none.
pub fn zipped(path: &Path) -> anyhow::Result<ZipArchive<BufReader<File>>> {
    let shown = path.display();
    let file = BufReader::new(File::open(path).with_context(|| format!("cannot open '{shown}'"))?);
    // Nothing stands before it: where it begins is not looked for.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    ZipArchive::with_config(config, file).with_context(|| format!("'{shown}' is no zip archive, or is cut short"))
}

/// Calls `work` with the name and bytes of every regular file that is wanted, in the archive's order.
fn each(
    path: &Path,
    wanted: impl Fn(&str) -> bool,
    mut work: impl FnMut(&str, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let wanted = |name: &str| !name.starts_with(OF_MACS) && wanted(name);
    let mut bytes = Vec::new();
    let mut one = |name: &str, size: u64, content: &mut dyn Read| {
        anyhow::ensure!(
            size <= MAX_FILE,
            "'{name}' in '{}' has {size} bytes; at most {MAX_FILE} are read",
            path.display()
        );
        bytes.clear();
        // What it says of its size need not be true.
        content.take(MAX_FILE + 1).read_to_end(&mut bytes).with_context(|| damaged(path, name))?;
        anyhow::ensure!(bytes.len() as u64 == size, damaged(path, name));
        work(name, &bytes)
    };
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip")) {
        let mut archive = zipped(path)?;
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).with_context(|| damaged(path, "an entry"))?;
            let name = entry.name().with_context(|| damaged(path, "a name"))?.replace('\\', "/");
            let name = name.trim_start_matches("./").to_owned();
            if entry.is_file() && wanted(&name) {
                one(&name, entry.size(), &mut entry)?;
            }
        }
        return Ok(());
    }
    let shown = path.display();
    let file = BufReader::new(File::open(path).with_context(|| format!("cannot open '{shown}'"))?);
    let zipped = path.extension().is_some_and(|ending| ending == "gz" || ending == "tgz");
    let reader: Box<dyn Read> = if zipped { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().with_context(|| format!("'{shown}' is no tar archive"))? {
        let mut entry = entry.with_context(|| format!("the archive '{shown}' is damaged"))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8(entry.path_bytes().into_owned())
            .with_context(|| format!("a name in '{shown}' is not UTF-8"))?;
        let name = name.trim_start_matches("./").to_owned();
        if wanted(&name) {
            one(&name, entry.size(), &mut entry)?;
        }
    }
    Ok(())
}
