//! `gc`: what the cache holds, and what goes so that it stays within a budget. Everything in it can be made again.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;

use super::{Exit, Usage, print, print_json, table_style};
use crate::cli::{Answer, Common};
use crate::report::table::table;
use crate::store::Store;

/// What belongs together in the cache: it is kept or goes as one.
struct Held {
    kind: &'static str,
    files: Vec<PathBuf>,
    bytes: u64,
    used: SystemTime,
}

/// How much there is of a kind.
#[derive(Clone, Copy, Default)]
struct Amount {
    files: usize,
    bytes: u64,
}

impl Amount {
    fn add(&mut self, one: &Held) {
        self.files += one.files.len();
        self.bytes += one.bytes;
    }
}

const KINDS: [&str; 6] =
    ["features", "source models", "heads of class names", "pixels", "manifests", "left by killed writers"];

pub fn run(limit: Option<&str>, dry: bool, format: Answer, common: &Common) -> anyhow::Result<Exit> {
    let limit = limit.map(bytes).transpose()?;
    let cache = common.db.parent().unwrap_or(Path::new("")).join("cache");
    if !cache.is_dir() {
        match format {
            Answer::Table => print(&format!("there is no cache at '{}'", cache.display()))?,
            Answer::Json => print_json(&serde_json::json!({"version": 1, "cache": null}))?,
        }
        return Ok(Exit::Complete);
    }
    // What a running sweep reads must not go: the store's lock says whether there is one.
    let _store = if common.db.exists() { Some(Store::open(&common.db)?) } else { None };
    let mut held = held(&cache)?;
    held.sort_by_key(|one| one.used);
    let mut left: u64 = held.iter().map(|one| one.bytes).sum();
    let before = left;
    let mut gone = [Amount::default(); KINDS.len()];
    for one in &held {
        let leftover = one.kind == KINDS[5];
        // Manifests are small and name what the others are of.
        let over = limit.is_some_and(|limit| left > limit) && one.kind != KINDS[4];
        if !(leftover || over) {
            continue;
        }
        left -= one.bytes;
        let place = KINDS.iter().position(|kind| *kind == one.kind).unwrap_or(0);
        gone[place].add(one);
        for file in one.files.iter().filter(|_| !dry) {
            std::fs::remove_file(file).with_context(|| format!("cannot remove '{}'", file.display()))?;
        }
    }
    let mut found = [Amount::default(); KINDS.len()];
    for (kind, all) in KINDS.iter().zip(&mut found) {
        held.iter().filter(|one| one.kind == *kind).for_each(|one| all.add(one));
    }
    let kinds = || KINDS.iter().zip(found).zip(gone);
    if format == Answer::Json {
        let one = |((kind, all), gone): ((&&str, Amount), Amount)| {
            serde_json::json!({
                "kind": kind,
                "files": all.files,
                "bytes": all.bytes,
                "removed": {"files": gone.files, "bytes": gone.bytes},
            })
        };
        print_json(&serde_json::json!({
            "version": 1,
            "cache": cache.display().to_string(),
            "dry_run": dry,
            "kinds": kinds().map(one).collect::<Vec<_>>(),
            "bytes": before,
            "left": left,
        }))?;
        return Ok(Exit::Complete);
    }
    let row = |((kind, all), gone): ((&&str, Amount), Amount)| {
        let cells = [all, gone].map(|own| [own.files.to_string(), megabytes(own.bytes)]);
        std::iter::once((*kind).to_owned()).chain(cells.into_iter().flatten()).collect()
    };
    let rows: Vec<Vec<String>> = kinds().map(row).collect();
    let head = ["in the cache", "files", "size", if dry { "would go" } else { "removed" }, "size"];
    print(&table(table_style(), &head, &rows))?;
    let word = if dry { "would be left" } else { "left" };
    print(&format!("{} of {} {word} in '{}'", megabytes(left), megabytes(before), cache.display()))?;
    if limit.is_none() {
        print("`--cache-limit 10GB` removes what was used longest ago until the rest fits")?;
    }
    Ok(Exit::Complete)
}

/// The files of the cache, also in its folders, one for each class of devices; those that belong together as one. The time
/// is that of the last use.
fn held(cache: &Path) -> anyhow::Result<Vec<Held>> {
    let list = |folder: &Path| -> anyhow::Result<Vec<PathBuf>> {
        let list = std::fs::read_dir(folder).with_context(|| format!("cannot read '{}'", folder.display()))?;
        Ok(list.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
    };
    let (folders, mut files): (Vec<_>, Vec<_>) = list(cache)?.into_iter().partition(|path| path.is_dir());
    for folder in folders {
        files.extend(list(&folder)?);
    }
    files.into_iter().filter_map(|path| one(path).transpose()).collect()
}

/// What a file of the cache is, if it is one of ours.
fn one(path: PathBuf) -> anyhow::Result<Option<Held>> {
    let ending = path.extension().map_or_else(String::new, |ending| ending.to_string_lossy().into_owned());
    let kind = match ending.as_str() {
        "features" => KINDS[0],
        "safetensors" => KINDS[1],
        "head" => KINDS[2],
        "pixels" => KINDS[3],
        "json" if path.file_stem().is_some_and(|stem| stem != "machine") => KINDS[4],
        ending if ending.starts_with("tmp") => KINDS[5],
        // Marks and near-duplicates go with their pixels.
        _ => return Ok(None),
    };
    let beside = ["have", "near"].map(|ending| path.with_extension(ending));
    let beside = beside.into_iter().filter(|path| kind == KINDS[3] && path.exists());
    let files: Vec<PathBuf> = std::iter::once(path.clone()).chain(beside).collect();
    let (mut bytes, mut used) = (0, SystemTime::UNIX_EPOCH);
    for file in &files {
        let facts = std::fs::metadata(file)?;
        // Pixels are sparse: what they take on the disk counts.
        bytes += std::os::unix::fs::MetadataExt::blocks(&facts) * 512;
        used = used.max(facts.modified()?);
    }
    Ok(Some(Held { kind, files, bytes, used }))
}

pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// `10GB`, `500 MB`, `1.5TB` or plain bytes.
fn bytes(text: &str) -> anyhow::Result<u64> {
    let wrong = || Usage(format!("--cache-limit {text}: a size such as 10GB, 500MB or 0"));
    let at = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "KB" | "K" => 1e3,
        "MB" | "M" => 1e6,
        "GB" | "G" => 1e9,
        "TB" | "T" => 1e12,
        _ => return Err(wrong().into()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Ok((number * scale) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = |text: &str| bytes(text).ok();
        assert_eq!([read("10GB"), read("1.5 mb"), read("0")], [Some(10_000_000_000), Some(1_500_000), Some(0)]);
        assert_eq!([read("ten"), read("-1GB"), read("5 parsecs")], [None, None, None]);
    }
}
