//! A bundle: one experiment in one file, with all that others need to repeat it but the images and weights themselves, whose
//! hashes it holds.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::world::own_networks;
use super::{Usage, data, findings, report};
use crate::cli::Asked;
use crate::experiment::{Experiment, overrides};
use crate::key::ENGINE;
use crate::report::table::{Style, report as tables};
use crate::store::Store;
use crate::store::part::{DatasetPin, Execution, StartPin};
use crate::temporary;

/// Of `lock.json`; a later version only adds to it.
const VERSION: u32 = 1;
/// The folder of everything within the file.
const ROOT: &str = "bundle";
const LOCK: &str = "lock.json";
const STORE: &str = "results.sqlite";
/// Where the experiment's files are, as they lay to each other.
const FILES: &str = "files";

/// Hashes of all that the results follow from, and of all that the bundle holds.
#[derive(Serialize, Deserialize)]
pub struct Lock {
    pub version: u32,
    pub engine: u32,
    pub experiment: String,
    /// The experiment file within the bundle.
    pub file: String,
    pub datasets: Vec<DatasetPin>,
    pub weights: Vec<StartPin>,
    /// Classes of the devices that computed the trials.
    pub numerics: Vec<String>,
    pub executions: Vec<Execution>,
    /// SHA-256 of each file of the bundle.
    files: BTreeMap<String, String>,
}

/// A bundle that was unpacked, for as long as this is held.
pub struct Bundle {
    folder: TempDir,
    pub lock: Lock,
}

impl Bundle {
    /// Whether a file is one, by what it begins with.
    pub fn is_one(path: &Path) -> bool {
        let mut first = [0; 2];
        std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == [0x1f, 0x8b]
    }

    /// Unpacks a bundle and checks all that it holds.
    ///
    /// # Errors
    /// It is no bundle, is damaged, or comes from another engine.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let files = unpack(path).map_err(|error| Usage(format!("'{shown}' is no bundle, or is damaged: {error:#}")))?;
        let lock = files.get(LOCK).ok_or_else(|| Usage(format!("'{shown}' is no bundle: it has no {LOCK}")))?;
        let lock: Lock = serde_json::from_slice(lock)
            .map_err(|error| Usage(format!("the {LOCK} of '{shown}' is damaged: {error}")))?;
        let damaged = |(name, hash): &(&String, &String)| files.get(*name).is_none_or(|bytes| sha256(bytes) != **hash);
        if let Some((name, _)) = lock.files.iter().find(damaged) {
            return Err(Usage(format!("'{shown}' is damaged: {name} is not what {LOCK} says it is")).into());
        }
        if let Some(name) = [lock.file.as_str(), STORE].into_iter().find(|name| !lock.files.contains_key(*name)) {
            return Err(Usage(format!("'{shown}' is damaged: it has no '{name}'")).into());
        }
        if lock.engine != ENGINE {
            let by = lock.executions.last().map_or("another", |last| last.version.as_str());
            return Err(Usage(format!(
                "'{shown}' was computed by engine {}, and this program computes engine {ENGINE}, which gives other bits: take \
                 tl-sweep {by} to repeat it",
                lock.engine
            ))
            .into());
        }
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        put(files.iter(), folder.path())?;
        Ok(Self { folder, lock })
    }

    /// The experiment file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join(&self.lock.file)
    }

    /// The store of its results.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join(STORE)
    }
}

/// What was packed.
pub struct Packed {
    pub trials: usize,
    /// Trials without a result.
    pub missing: usize,
    pub bytes: usize,
}

/// Writes the bundle of an experiment that has run.
///
/// # Errors
/// The file has changed since it ran, something cannot be read, or `out` cannot be written.
pub fn pack(asked: &Asked, experiment: &Experiment, store: &Store, out: &Path) -> anyhow::Result<Packed> {
    let row = findings::experiment(store, Some(&experiment.name))?;
    if row.text != experiment.text() {
        let set = overrides::recorded(&row.text);
        let set = if set.is_empty() { String::new() } else { format!(" (with --set {})", set.join(", ")) };
        return Err(Usage(format!("'{asked}' has changed since it was run{set}: `tl-sweep run {asked}` first")).into());
    }
    let executions = store.executions(&row)?;
    if executions.last().and_then(|last| last.engine) != Some(ENGINE) {
        return Err(Usage(format!("another tl-sweep has run '{asked}' last: `tl-sweep run {asked}` first")).into());
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let (mut files, main) = experiment_files(&asked.file, experiment)?;
    stands_alone(&files, &main, folder.path())?;
    let part = folder.path().join(STORE);
    store.part(&row, &part)?;
    files.insert(STORE.to_owned(), std::fs::read(&part)?);
    let found = findings::gather(store, Some(&experiment.name))?;
    files.insert("report.md".to_owned(), tables(&found, Style::Markdown).into_bytes());
    files.insert("results.csv".to_owned(), report::trials_csv(store, Some(&experiment.name))?.into_bytes());
    files.insert("splits.csv".to_owned(), data::splits_csv(store, &experiment.name)?.into_bytes());
    let mut lock = Lock {
        version: VERSION,
        engine: ENGINE,
        experiment: experiment.name.clone(),
        file: main,
        datasets: store.dataset_pins(&row)?,
        weights: store.start_pins(&row)?,
        numerics: found.numerics.clone(),
        executions,
        files: BTreeMap::new(),
    };
    files.insert("README.md".to_owned(), words(&lock, &row.question).into_bytes());
    lock.files = files.iter().map(|(name, bytes)| (name.clone(), sha256(bytes))).collect();
    files.insert(LOCK.to_owned(), serde_json::to_vec_pretty(&lock)?);
    let bytes = write(out, &files).with_context(|| format!("cannot write '{}'", out.display()))?;
    let counts = found.counts;
    Ok(Packed { trials: counts.planned, missing: counts.missing + counts.failed, bytes })
}

/// The experiment file, those that it extends and networks of its own, by their places in the bundle, and the first one's place.
fn experiment_files(file: &Path, experiment: &Experiment) -> anyhow::Result<(BTreeMap<String, Vec<u8>>, String)> {
    let beside = file.parent().unwrap_or(Path::new(""));
    let mut paths: Vec<PathBuf> = experiment.files().map(PathBuf::from).collect();
    paths.extend(own_networks(experiment).into_iter().map(|name| beside.join(name)));
    let real = |path: &PathBuf| path.canonicalize().with_context(|| format!("cannot read '{}'", path.display()));
    let paths: Vec<PathBuf> = paths.iter().map(real).collect::<anyhow::Result<_>>()?;
    let mut above = paths[0].parent().unwrap_or(Path::new("/"));
    while !paths.iter().all(|path| path.starts_with(above)) {
        above = above.parent().context("files without a common folder")?;
    }
    let name = |path: &PathBuf| -> anyhow::Result<String> {
        Ok(format!("{FILES}/{}", path.strip_prefix(above)?.to_str().context("a path that is no UTF-8")?))
    };
    let mut found = BTreeMap::new();
    for path in &paths {
        found.insert(name(path)?, std::fs::read(path).with_context(|| format!("cannot read '{}'", path.display()))?);
    }
    let main = name(&paths[0])?;
    let Some(changes) = experiment.changes() else { return Ok((found, main)) };
    // What one call changed is a file that extends the other, in the bundle.
    let (folder, base) = main.rsplit_once('/').context("a file without a folder")?;
    let changed = format!("{folder}/changed-{base}");
    anyhow::ensure!(!found.contains_key(&changed), "there is a file '{changed}' already");
    let quoted = |text: &str| serde_json::to_string(text).context("a name that is no text");
    let mut text = format!("extends = {}\n", quoted(base)?);
    if !changes.lines().any(|line| line.starts_with("experiment.name ")) {
        text.push_str(&format!("experiment.name = {}\n", quoted(&experiment.name)?));
    }
    found.insert(changed.clone(), format!("{text}{changes}\n").into_bytes());
    Ok((found, changed))
}

/// Whether the files find each other in the bundle: names that begin at the root of a disk lead out of it.
fn stands_alone(files: &BTreeMap<String, Vec<u8>>, main: &str, folder: &Path) -> anyhow::Result<()> {
    let folder = folder.canonicalize()?;
    put(files.iter(), &folder)?;
    let file = folder.join(main);
    let experiment = Experiment::load(&file, &[])?;
    let beside = file.parent().unwrap_or(Path::new(""));
    let networks = own_networks(&experiment).into_iter().map(|name| beside.join(name));
    for path in experiment.files().map(PathBuf::from).chain(networks) {
        if !path.canonicalize().is_ok_and(|path| path.starts_with(&folder)) {
            return Err(Usage(format!(
                "'{}' would not be found elsewhere: name it by its path from the experiment file",
                path.display()
            ))
            .into());
        }
    }
    Ok(())
}

/// Writes files into a folder.
fn put<'a>(files: impl Iterator<Item = (&'a String, &'a Vec<u8>)>, folder: &Path) -> anyhow::Result<()> {
    for (name, bytes) in files {
        let target = folder.join(name);
        if let Some(above) = target.parent() {
            std::fs::create_dir_all(above)?;
        }
        std::fs::write(&target, bytes).with_context(|| format!("cannot write '{}'", target.display()))?;
    }
    Ok(())
}

/// What a person reads who has unpacked it.
fn words(lock: &Lock, question: &str) -> String {
    let mut text = format!("# {}\n\n", lock.experiment);
    if !question.is_empty() {
        text.push_str(&format!("{question}\n\n"));
    }
    text.push_str(&format!(
        "A tl-sweep experiment with its results: `{}` is what was asked, `report.md` what was found, `results.csv` every trial, \
         `splits.csv` which image each trained and tested on, `{STORE}` all of it (`tl-sweep report --db {STORE}`), `{LOCK}` the \
         hashes of everything.\n\n`tl-sweep verify BUNDLE.tar.gz --data FOLDER` repeats a sample of the trials and compares; \
         `--all` repeats all.\n\n## Data\n\n",
        lock.file
    ));
    for pin in &lock.datasets {
        text.push_str(&format!("- {}: fingerprint {}, sha256 {}\n", pin.name, pin.fingerprint, pin.sha256));
    }
    text.push_str("\n## Starting weights\n\n");
    for pin in &lock.weights {
        let tokenizer = pin.tokenizer.as_ref().map_or_else(String::new, |sha256| format!(", its tokenizer {sha256}"));
        text.push_str(&format!("- {}: {}{tokenizer}\n", pin.weights, pin.start));
    }
    text.push_str(&format!("\n## Computed by engine {}\n\n", lock.engine));
    for one in &lock.executions {
        let Execution { started, version, build, device, numerics, machine, .. } = one;
        text.push_str(&format!("- {started}: tl-sweep {version} ({build}), {device}, {numerics}; {machine}\n"));
    }
    text
}

fn sha256(bytes: &[u8]) -> String {
    crate::data::digest::sha256([bytes])
}

/// Writes the archive beside its place, then puts it there; returns its bytes.
fn write(out: &Path, files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<usize> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("{ROOT}/{name}"), bytes.as_slice())?;
    }
    let packed = archive.into_inner()?.finish()?;
    let temporary = temporary::beside(out);
    let written = std::fs::write(&temporary, &packed).and_then(|()| std::fs::rename(&temporary, out));
    written.inspect_err(|_| _ = std::fs::remove_file(&temporary))?;
    Ok(packed.len())
}

/// The files of an archive by their names within its folder. Nothing is written.
fn unpack(path: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let file = std::fs::File::open(path)?;
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(GzDecoder::new(file)).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let inside =
            name.strip_prefix(ROOT).is_ok_and(|own| own.components().all(|part| matches!(part, Component::Normal(_))));
        anyhow::ensure!(inside && entry.header().entry_type().is_file(), "it holds '{}'", name.display());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        let own = name.strip_prefix(ROOT)?.to_str().context("a name that is no UTF-8")?;
        found.insert(own.to_owned(), bytes);
    }
    Ok(found)
}
