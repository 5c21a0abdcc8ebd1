//! `rank DATA WEIGHTS...`: which weights fit a dataset, from its training images alone, and the experiment that tests the order.

use std::io::IsTerminal;
use std::path::Path;

use super::devices::Devices;
use super::materials::{self, Prepared};
use super::recommend::{self, SEED};
use super::{Exit, NoDevice, Usage, findings, print, ranked, table_style};
use crate::cli::{Common, Rank, Ranked, Seen, Sheet};
use crate::data::split::{glance, left_out_together};
use crate::data::{Dataset, packed};
use crate::model::catalogue::identify;
use crate::report::ranking::{File, Foresight, Ranking};
use crate::report::table::Style;
use crate::store::Store;
use crate::train::{self, Fit, Survey};

pub fn run(asked: &Rank, common: &Common) -> anyhow::Result<Exit> {
    if let Some(out) = asked.out.as_ref().filter(|out| out.exists()) {
        return Err(Usage(format!("'{}' exists already; it is not touched", out.display())).into());
    }
    let devices = Devices::choose(&common.devices)?;
    let prepared = asked.files.iter().map(|file| prepared(asked, file, &devices, common));
    let prepared = prepared.collect::<anyhow::Result<Vec<Prepared>>>()?;
    let dataset = super::data::opened(&asked.dataset, &asked.reading, common)?;
    let store = asked.against.as_ref().map(|name| tested(name, common)).transpose()?;
    let lots = glance(&dataset.manifest, asked.images, SEED);
    let samples = lots.concat();
    let groups = left_out_together(&dataset.manifest, &lots);
    recommend::enough(&dataset.manifest, &samples, &groups, asked.images)?;
    devices.tell(common);
    let mut files = Vec::new();
    for (Ranked { name, .. }, prepared) in asked.files.iter().zip(&prepared) {
        let Prepared { arch, weights, preprocess, resize, precision } = prepared;
        let what = Survey {
            arch: arch.clone(),
            weights: weights.clone(),
            preprocess: *preprocess,
            resize: *resize,
            samples: samples.clone(),
            groups: groups.clone(),
            precision: *precision,
            texts: None,
        };
        let fit = fitted(&what, name, &dataset, &devices, common)?;
        files.push(file(name, &what, fit));
    }
    let counts = recommend::counts(&dataset.manifest, &samples);
    let largest = counts.iter().copied().max().unwrap_or(0) as f64 / samples.len().max(1) as f64;
    let ranking = Ranking::new(asked.dataset.clone(), dataset.manifest.classes.len(), largest, files);
    let foresight = match (&store, &asked.against) {
        (Some(store), Some(name)) => foresight(&ranking, store, name, &dataset)?,
        _ => Vec::new(),
    };
    let against = asked.against.as_deref();
    print(&match asked.format {
        Sheet::Json => serde_json::to_string_pretty(&ranking.json(&foresight, against))?,
        Sheet::Md => ranking.text(&foresight, against, Style::Markdown),
        Sheet::Table => ranking.text(&foresight, against, table_style()),
    })?;
    match &asked.out {
        Some(out) => {
            recommend::write(out, &ranked::experiment(asked, common, &prepared)?)?;
            if !common.quiet {
                eprintln!(
                    "wrote {0}: `tl-sweep plan {0}` says what testing this costs, `tl-sweep run {0}` does it",
                    out.display()
                );
            }
        }
        None if !common.quiet && against.is_none() => eprintln!("--out FILE writes an experiment that tests this"),
        None => {}
    }
    Ok(Exit::Complete)
}

/// One of the files; what is said of preprocessing is for those that the catalogue does not know.
fn prepared(asked: &Rank, file: &Ranked, devices: &Devices, common: &Common) -> anyhow::Result<Prepared> {
    let known = identify(&materials::weights(&file.name, common)?)?.known.is_some();
    let seen = Seen {
        from: file.name.clone(),
        dataset: asked.dataset.clone(),
        arch: file.arch.clone(),
        width: 1.0,
        input: asked.input,
        preprocess: file.preprocess.clone().or_else(|| asked.preprocess.clone().filter(|_| !known)),
        resize: None,
        precision: asked.precision.clone(),
        reading: asked.reading.clone(),
    };
    materials::prepared(&seen, devices, common)
}

/// The store, if it has the experiment.
fn tested(name: &str, common: &Common) -> anyhow::Result<Store> {
    let store = Store::read(&common.db)?;
    findings::experiment(&store, Some(name))?;
    Ok(store)
}

fn fitted(what: &Survey, name: &str, dataset: &Dataset, devices: &Devices, common: &Common) -> anyhow::Result<Fit> {
    let cache = common.db.parent().unwrap_or(Path::new("")).join("cache");
    let wanted: Vec<usize> = what.samples.iter().map(|sample| *sample as usize).collect();
    packed::prepare(dataset, what.frame(), &wanted, &cache)?;
    let shown = !common.quiet && std::io::stderr().is_terminal();
    let images = what.samples.len() as u64;
    let bar = if shown { indicatif::ProgressBar::new(images) } else { indicatif::ProgressBar::hidden() };
    bar.set_style(super::progress::bar_style());
    bar.set_message(name.to_owned());
    let fit = train::on_device(devices.uuid(), what.precision, |device| {
        train::fit(what, &dataset.manifest, &cache, &device, &mut |done| bar.set_position(done as u64))
    });
    bar.finish_and_clear();
    fit.map_err(|failure| NoDevice(failure.message))?
}

fn file(name: &str, what: &Survey, fit: Fit) -> File {
    File {
        weights: name.to_owned(),
        arch: what.arch.name.clone(),
        input: what.arch.input,
        numbers: fit.numbers,
        probe: fit.probe,
        neighbours: fit.neighbours,
        log_me: fit.log_me,
        h_score: fit.h_score,
        leep: fit.leep,
        macs: fit.macs,
        params: fit.params,
        images_per_second: fit.images_per_second,
    }
}

/// In the scenarios of an experiment that are on these very images.
fn foresight(ranking: &Ranking, store: &Store, name: &str, dataset: &Dataset) -> anyhow::Result<Vec<Foresight>> {
    let experiment = findings::experiment(store, Some(name))?;
    let scenarios = store.scenarios_on(&experiment, dataset.manifest.fingerprint)?;
    Ok(ranking.foresight(&findings::gather(store, Some(name))?, &scenarios))
}
