//! `data TARGET`: what a dataset holds, and which of its test images are training images once more; with `--splits`,
//! who trained and tested on what in an experiment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::get::how_to_get_dataset;
use super::near::told;
use super::recommended::quoted;
use super::{Exit, Usage, findings, print, print_json, table_style};
use crate::cli::{Answer, Common, Reading};
use crate::data::decode::Header;
use crate::data::formats::{self, Formats};
use crate::data::open::{Source, named};
use crate::data::{Dataset, Holdout, Manifest, Part, Sample, Spec, near, open};
use crate::report::csv;
use crate::report::table::table;
use crate::store::Store;

pub fn run(
    target: &str,
    near_duplicates: bool,
    reading: &Reading,
    format: Answer,
    common: &Common,
) -> anyhow::Result<Exit> {
    let dataset = opened(target, reading, common)?;
    if !near_duplicates {
        match format {
            Answer::Table => show(&dataset)?,
            Answer::Json => print_json(&json(&dataset)?)?,
        }
        return Ok(Exit::Complete);
    }
    let pairs = near::of_dataset(&dataset)?;
    let id = |sample: u32| dataset.manifest.samples[sample as usize].id.clone();
    if format == Answer::Json {
        let pair = |pair: &near::Pair| serde_json::json!({"test": id(pair.test), "train": id(pair.train), "distance": pair.distance, "mirrored": pair.mirrored});
        let pairs: Vec<serde_json::Value> = pairs.iter().map(pair).collect();
        print_json(&serde_json::json!({"version": 1, "dataset": dataset.name, "near_duplicates": pairs}))?;
        return Ok(Exit::Complete);
    }
    let columns = ["test", "train", "distance", "mirrored"];
    let rows = pairs.iter().map(|pair| {
        let cells = [id(pair.test), id(pair.train), format!("{:.5}", pair.distance), pair.mirrored.to_string()];
        columns.iter().map(|column| (*column).to_owned()).zip(cells).collect::<BTreeMap<_, _>>()
    });
    let rows: Vec<_> = rows.collect();
    print(csv::rows(&columns, rows.iter())?.trim_end())?;
    if !common.quiet {
        let told = told(&dataset.name, &dataset.manifest, &pairs);
        let none = || format!("no test image of '{}' is a near-duplicate of another part's", dataset.name);
        eprintln!("{}", told.unwrap_or_else(none));
    }
    Ok(Exit::Complete)
}

/// Prints who trained and tested on what in an experiment.
///
/// # Errors
/// There is no such experiment, or nothing can be printed.
pub fn splits(experiment: &str, format: Answer, common: &Common) -> anyhow::Result<Exit> {
    let store = Store::read(&common.db)?;
    match format {
        Answer::Table => print(splits_csv(&store, experiment)?.trim_end())?,
        Answer::Json => {
            let rows = split_rows(&store, experiment)?;
            print_json(&serde_json::json!({"version": 1, "experiment": experiment, "samples": rows}))?;
        }
    }
    Ok(Exit::Complete)
}

/// The same of a dataset as `show` prints, for machines.
fn json(dataset: &Dataset) -> anyhow::Result<serde_json::Value> {
    let manifest = &dataset.manifest;
    let counts = [Part::Train, Part::Val, Part::Test].map(|part| manifest.counts(part));
    let class = |(at, name): (usize, &String)| {
        let [train, val, test] = counts.each_ref().map(|own| own[at]);
        serde_json::json!({"class": name, "train": train, "val": val, "test": test})
    };
    let named =
        |sample: &Sample| serde_json::json!({"image": sample.id, "class": manifest.classes[sample.class as usize]});
    let leak = |(train, test): &(&str, &str)| serde_json::json!({"train": train, "test": test});
    let files = Formats::of_all(dataset)?.map(|formats| {
        let broken = formats.broken.iter().map(|(image, reason)| serde_json::json!({"image": image, "reason": reason}));
        serde_json::json!({
            "formats": formats.counts().into_iter().collect::<BTreeMap<_, _>>(),
            "sizes": formats.sizes().map(|[smallest, median, largest]| serde_json::json!({"smallest": smallest, "median": median, "largest": largest})),
            "grey": formats.headers.iter().filter(|header| header.grey).count(),
            "turned": formats.headers.iter().filter(|header| header.turned).count(),
            "of_several_pictures": formats.headers.iter().filter(|header| header.more).count(),
            "of_16_bits": formats.headers.iter().filter(|header| header.deep).count(),
            "at_most": formats.tones.map(|tones| tones.most),
            "broken": broken.collect::<Vec<_>>(),
        })
    });
    Ok(serde_json::json!({
        "version": 1,
        "dataset": dataset.name,
        "files": files,
        "classes": manifest.classes.iter().enumerate().map(class).collect::<Vec<_>>(),
        "sha256": manifest.sha256,
        "fingerprint": manifest.fingerprint,
        "unread": manifest.unread.iter().map(|(folder, files)| serde_json::json!({"folder": folder, "files": files})).collect::<Vec<_>>(),
        "leaks": manifest.leaks(manifest).iter().map(leak).collect::<Vec<_>>(),
        "contradictions": manifest.contradictions().iter().map(|pair| pair.map(named)).collect::<Vec<_>>(),
    }))
}

/// Prints what a dataset holds.
///
/// # Errors
/// A file cannot be read, or nothing can be printed.
pub fn show(dataset: &Dataset) -> anyhow::Result<()> {
    let manifest = &dataset.manifest;
    let counts: Vec<Vec<usize>> = [Part::Train, Part::Val, Part::Test].map(|part| manifest.counts(part)).into();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (index, class) in manifest.classes.iter().enumerate() {
        let mut row = vec![index.to_string(), class.clone()];
        row.extend(counts.iter().map(|part| part[index].to_string()));
        rows.push(row);
    }
    let mut total = vec![String::new(), "all".to_owned()];
    total.extend(counts.iter().map(|part| part.iter().sum::<usize>().to_string()));
    rows.push(total);
    print(&table(table_style(), &["", "class", "train", "val", "test"], &rows))?;
    if let Some(formats) = Formats::of_all(dataset)? {
        print(&files(&formats))?;
    }
    print(&format!("sha256 {}\nfingerprint {}", manifest.sha256, manifest.fingerprint))?;
    for told in told_of_files(dataset)? {
        print(&format!("\n{told}"))?;
    }
    let leaks = manifest.leaks(manifest);
    if !leaks.is_empty() {
        print(&format!(
            "\n{} training or validation images have the same bytes as a test image, for example {} and {}",
            leaks.len(),
            leaks[0].0,
            leaks[0].1
        ))?;
    }
    if let Some(told) = contradictions_told("it", manifest) {
        print(&format!("\n{told}"))?;
    }
    Ok(())
}

/// What the files are.
fn files(formats: &Formats) -> String {
    let counts: Vec<String> = formats.counts().iter().map(|(format, count)| format!("{count} {format}")).collect();
    let mut lines = Vec::new();
    if let Some([smallest, median, largest]) = formats.sizes() {
        let size = |[width, height]: [u32; 2]| format!("{width} x {height}");
        let sizes = match smallest == largest {
            true => format!("all {}", size(median)),
            false => format!("{} to {}, at the median {}", size(smallest), size(largest), size(median)),
        };
        let number = |what: fn(&Header) -> bool| formats.headers.iter().filter(|header| what(header)).count();
        let kinds = [
            (number(|header| header.grey), "grey"),
            (number(|header| header.deep), "of 16 bits"),
            (number(|header| header.turned), "turned upright, as their EXIF data say"),
            (number(|header| header.more), "with more pages or frames behind the first, which is read"),
        ];
        let kinds: String =
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("; {count} {word}")).collect();
        lines.push(format!("files: {}; {sizes}{kinds}", counts.join(", ")));
    }
    if let Some((name, reason)) = formats.broken.first() {
        lines.push(format!("{} cannot be read, for example {name}: {reason}", formats.broken.len()));
    }
    lines.join("\n")
}

/// What a person should know of a dataset's files: of folders that are not read, and of images that are too dark or too bright.
///
/// # Errors
/// A file cannot be read.
pub fn told_of_files(dataset: &Dataset) -> anyhow::Result<Vec<String>> {
    let name = &dataset.name;
    let mut told = Vec::new();
    for (folder, files) in &dataset.manifest.unread {
        let split = if folder.to_lowercase().contains("test") { "test" } else { "val" };
        told.push(format!(
            "the folder '{folder}' of '{name}' is none of its splits, and its {files} files are not read: splits = {{ {split} = {} }} \
             under [datasets.{name}] reads them",
            quoted(folder)
        ));
    }
    told.extend(formats::told(dataset)?);
    Ok(told)
}

/// That images stand under two classes; nothing where none does.
pub fn contradictions_told(name: &str, manifest: &Manifest) -> Option<String> {
    let found = manifest.contradictions();
    let [one, other] =
        found.first()?.map(|sample| format!("{} ({})", sample.id, manifest.classes[sample.class as usize]));
    let (images, have) = if found.len() == 1 { ("image", "has") } else { ("images", "have") };
    Some(format!(
        "{} {images} of {name} {have} the bytes of one of another class, so that one of the labels is wrong, for example {one} and {other}",
        found.len()
    ))
}

/// Who trained and tested on what in an experiment.
pub fn splits_csv(store: &Store, experiment: &str) -> anyhow::Result<String> {
    csv::rows(&SPLIT_COLUMNS, split_rows(store, experiment)?.iter())
}

const SPLIT_COLUMNS: [&str; 6] = ["dataset", "per_class", "replicate", "part", "sample", "class"];

fn split_rows(store: &Store, experiment: &str) -> anyhow::Result<Vec<BTreeMap<String, String>>> {
    let rows = store.split_rows(&findings::experiment(store, Some(experiment))?)?;
    let named = |row: [String; 6]| SPLIT_COLUMNS.iter().map(|name| (*name).to_owned()).zip(row).collect();
    Ok(rows.into_iter().map(named).collect())
}

/// The share of the images to test on, where `--test` is no folder.
fn share(test: &str) -> Option<f64> {
    test.parse().ok().filter(|share| *share > 0.0 && *share < 1.0)
}

/// The lines of an experiment file for how a dataset is read; nothing where that is usual.
pub fn reading_lines(Reading { test, white }: &Reading) -> String {
    let splits = match share(test) {
        _ if test == "test" => String::new(),
        Some(_) => format!("splits = {{ test = {test} }}\n"),
        None => format!("splits = {{ test = {} }}\n", quoted(test)),
    };
    splits + &white.map_or_else(String::new, |white| format!("white = {white}\n"))
}

/// Opens a dataset by its path, or by its name under `--data`.
///
/// # Errors
/// It is not there, or cannot be used: what was typed or what it names is wrong.
pub fn opened(target: &str, Reading { test, white }: &Reading, common: &Common) -> anyhow::Result<Dataset> {
    let folder = common.data.clone().unwrap_or_default();
    let own = PathBuf::from(target);
    let path = if own.exists() { own } else { named(&folder, target).unwrap_or(own) };
    let mut splits: BTreeMap<String, String> =
        ["train", "val", "test"].map(|name| (name.to_owned(), name.to_owned())).into();
    let holdout = share(test).map(Holdout::Share);
    if test != "test" && holdout.is_none() {
        splits.insert("test".to_owned(), test.to_owned());
        splits.retain(|split, folder| split == "test" || folder != test);
    }
    let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let name = name.strip_suffix(".tar").map(str::to_owned).unwrap_or(name);
    let there = path.exists();
    let classes = Vec::new();
    let spec =
        Spec { name, source: Source::Path(path), splits, skip_bad_images: false, classes, white: *white, holdout };
    open(&spec).map_err(|error| {
        let cure = how_to_get_dataset(target, common.data.as_deref().unwrap_or(Path::new("."))).filter(|_| !there);
        let cure = cure.map_or_else(String::new, |cure| format!("; {cure}"));
        Usage(format!("{error:#}{cure}")).into()
    })
}
