//! `recommend WEIGHTS DATA`: which recipe to try first, from the training images alone, and the experiment that tests it.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::Path;

use super::devices::Devices;
use super::materials::{self, Prepared};
use super::world::tokenizer;
use super::{Exit, NoDevice, Usage, class_names, opened, print, recommended, table_style};
use crate::cli::{Common, Recommend, Sheet};
use crate::data::split::{glance, left_out_together, split};
use crate::data::{Dataset, Manifest, packed};
use crate::model::arch::Arch;
use crate::model::vit::reads_texts;
use crate::plan::stage::Texts;
use crate::plan::zero_shot::unspeakable;
use crate::recipe::PROMPT;
use crate::report::advice::{Named, Panel, Tap};
use crate::report::table::Style;
use crate::train::{self, Reading, Readings, Survey};

/// Of the choice of images.
pub(super) const SEED: u64 = 0;
/// So many of the smallest class are needed for anything to be said.
const LEAST: usize = 4;

pub fn run(asked: &Recommend, common: &Common) -> anyhow::Result<Exit> {
    if let Some(out) = asked.out.as_ref().filter(|out| out.exists()) {
        return Err(Usage(format!("'{}' exists already; it is not touched", out.display())).into());
    }
    let devices = Devices::choose(&common.devices)?;
    let prepared = materials::prepared(&asked.seen, &devices, common)?;
    let dataset = super::data::opened(&asked.seen.dataset, &asked.seen.reading, common)?;
    let lots = glance(&dataset.manifest, asked.images, SEED);
    let samples = lots.concat();
    let groups = left_out_together(&dataset.manifest, &lots);
    enough(&dataset.manifest, &samples, &groups, asked.images)?;
    let Prepared { arch, weights, preprocess, resize, precision } = prepared;
    let (texts, unnamed) = match texts(&arch, &weights, &dataset) {
        Some(Ok(texts)) => (Some(texts), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let what = Survey { arch, weights, preprocess, resize, samples, groups, precision, texts };
    let readings = surveyed(&what, &dataset, &devices, common)?;
    let panel = Panel { unnamed, ..panel(asked, &dataset.manifest, &what, readings)? };
    let advice = panel.advice().ok_or_else(|| anyhow::anyhow!("the network has no features"))?;
    let text = match asked.format {
        Sheet::Md => panel.text(&advice, Style::Markdown),
        Sheet::Json => serde_json::to_string_pretty(&panel.json(&advice))?,
        Sheet::Table => panel.text(&advice, table_style()),
    };
    print(&text)?;
    match &asked.out {
        Some(out) => {
            write(out, &recommended::experiment(asked, common, &what, &panel, &advice)?)?;
            if !common.quiet {
                eprintln!(
                    "wrote {0}: `tl-sweep plan {0}` says what testing this costs, `tl-sweep run {0}` does it",
                    out.display()
                );
            }
        }
        None if !common.quiet => eprintln!("--out FILE writes an experiment that tests this"),
        None => {}
    }
    Ok(Exit::Complete)
}

/// Whether there are images of every class to leave out, and others to answer them.
pub(super) fn enough(manifest: &Manifest, samples: &[u32], groups: &[u32], asked: usize) -> Result<(), Usage> {
    let counts = counts(manifest, samples);
    let Some((class, count)) = counts.iter().enumerate().min_by_key(|(_, count)| **count) else { return Ok(()) };
    if *count < LEAST {
        let why = if asked < LEAST * counts.len() {
            format!(" with --images {asked}: {} are needed", LEAST * counts.len())
        } else {
            format!(", those with the same bytes taken once: {LEAST} are needed")
        };
        let name = &manifest.classes[class];
        return Err(Usage(format!("of the class '{name}' there are {count} training images to look at{why}")));
    }
    // Half of the images are looked at by themselves, too, and neighbours are other groups' images.
    let half = &groups[..groups.len() / 2];
    let alone = |group: &u32| groups.iter().filter(|other| *other != group).count() < train::NEIGHBOURS;
    if half.iter().all(|group| *group == half[0]) || groups.iter().any(alone) {
        let number = groups.iter().collect::<BTreeSet<_>>().len();
        return Err(Usage(format!(
            "the training images are of {number} groups, and one of them has nearly all: images of other groups are to answer its own"
        )));
    }
    Ok(())
}

/// Images of each class.
pub(super) fn counts(manifest: &Manifest, samples: &[u32]) -> Vec<usize> {
    let mut counts = vec![0; manifest.classes.len()];
    samples.iter().for_each(|sample| counts[manifest.samples[*sample as usize].class as usize] += 1);
    counts
}

fn surveyed(what: &Survey, dataset: &Dataset, devices: &Devices, common: &Common) -> anyhow::Result<Readings> {
    let cache = common.db.parent().unwrap_or(Path::new("")).join("cache");
    let wanted: Vec<usize> = what.samples.iter().map(|sample| *sample as usize).collect();
    packed::prepare(dataset, what.frame(), &wanted, &cache)?;
    let shown = !common.quiet && std::io::stderr().is_terminal();
    let passes = 2 * what.samples.len() as u64;
    let bar = if shown { indicatif::ProgressBar::new(passes) } else { indicatif::ProgressBar::hidden() };
    devices.tell(common);
    let readings = train::on_device(devices.uuid(), what.precision, |device| {
        train::survey(what, &dataset.manifest, &cache, &device, &mut |done| bar.set_position(done as u64))
    });
    bar.finish_and_clear();
    readings.map_err(|failure| NoDevice(failure.message))?
}

/// What the classes are called, in the usual prompt, to weights that have seen texts; or why they cannot be asked.
fn texts(arch: &Arch, weights: &Path, dataset: &Dataset) -> Option<Result<Texts, String>> {
    if arch.own.is_some() || !reads_texts(&arch.name) {
        return None;
    }
    let names = opened::fact(None, dataset).names;
    if let Some(why) = unspeakable(&names) {
        return Some(Err(why));
    }
    let tokenizer = tokenizer(weights).map_err(|error| format!("{error:#}"));
    Some(tokenizer.map(|tokenizer| Texts { prompts: vec![PROMPT.to_owned()], names, tokenizer }))
}

fn panel(asked: &Recommend, manifest: &Manifest, what: &Survey, readings: Readings) -> anyhow::Result<Panel> {
    let samples = &what.samples;
    // What a trial has behind validation.
    let split = split(manifest, None, SEED, 0).map_err(Usage)?;
    let tap = |reading: Reading| Tap {
        name: reading.tap,
        last: reading.last,
        pool: reading.pool.word(),
        numbers: reading.numbers,
        probe: reading.probe,
        half: reading.half,
        neighbours: reading.neighbours,
        untrained: reading.untrained,
    };
    Ok(Panel {
        dataset: asked.seen.dataset.clone(),
        weights: asked.seen.from.clone(),
        classes: manifest.classes.len(),
        images: samples.len(),
        per_class: counts(manifest, &split.train).into_iter().min().unwrap_or(0),
        largest: counts(manifest, samples).into_iter().max().unwrap_or(0) as f64 / samples.len().max(1) as f64,
        taps: readings.taps.into_iter().map(tap).collect(),
        together: readings.together.map(tap),
        named: readings
            .named
            .zip(what.texts.as_ref())
            .map(|(right, texts)| Named { right, texts: class_names::shown(texts) }),
        unnamed: None,
    })
}

/// A file that was not there.
pub(super) fn write(out: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(out)
        .map_err(|error| Usage(format!("cannot write '{}': {error}", out.display())))?;
    Ok(file.write_all(text.as_bytes())?)
}
