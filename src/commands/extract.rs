//! `extract WEIGHTS DATA`: features of images in a file for other programs.

use std::io::IsTerminal;

use super::devices::Devices;
use super::materials::{self, Prepared};
use super::{Exit, NoDevice, Usage, print};
use crate::cli::{Common, Extract};
use crate::data::{Part, packed};
use crate::model::freezing::taps;
use crate::recipe::{AND, Pool};
use crate::train::{self, Extraction, FeatureKind};

pub fn run(asked: &Extract, common: &Common) -> anyhow::Result<Exit> {
    FeatureKind::of(&asked.out).map_err(Usage)?;
    let devices = Devices::choose(&common.devices)?;
    let Prepared { arch, weights, preprocess, resize, precision } = materials::prepared(&asked.seen, &devices, common)?;
    let backbone = arch.backbone(&asked.tap.join(AND)).map_err(Usage)?;
    let names: Vec<&str> = taps(&backbone).into_iter().map(|tap| backbone.layers[tap].name.as_str()).collect();
    if names.len() > 1 && asked.pool.is_none() {
        let message = "maps of several layers do not fit beside each other: --pool avg makes vectors of them";
        return Err(Usage(message.to_owned()).into());
    }
    let tap = names.join(AND);
    let part = match asked.part.as_deref() {
        None | Some("all") => None,
        Some(name) => Some(
            Part::parse(name)
                .ok_or_else(|| Usage(format!("there is no part '{name}': --part takes train, val, test or all")))?,
        ),
    };
    let dataset = super::data::opened(&asked.seen.dataset, &asked.seen.reading, common)?;
    let manifest = &dataset.manifest;
    let chosen = |index: &usize| part.is_none_or(|part| manifest.samples[*index].part == part);
    let samples: Vec<usize> = (0..manifest.samples.len()).filter(chosen).collect();
    if samples.is_empty() {
        return Err(Usage(format!("'{}' has no images in that part", asked.seen.dataset)).into());
    }
    let cache = common.db.parent().unwrap_or(std::path::Path::new("")).join("cache");
    let what = Extraction {
        arch,
        weights,
        preprocess,
        resize,
        tap,
        pool: asked.pool.as_deref().map(pool).transpose()?,
        samples: samples.iter().map(|index| *index as u32).collect(),
        precision,
        out: asked.out.clone(),
    };
    packed::prepare(&dataset, what.frame(), &samples, &cache)?;
    let shape = extracted(&what, manifest, &cache, &devices, common)?;
    print(&format!(
        "{}: features {:?} of {} images at {}, {} classes; ids, labels and class names are beside them",
        asked.out.display(),
        std::iter::once(samples.len()).chain(shape).collect::<Vec<_>>(),
        samples.len(),
        what.tap,
        manifest.classes.len()
    ))?;
    Ok(Exit::Complete)
}

fn extracted(
    what: &Extraction,
    manifest: &crate::data::Manifest,
    cache: &std::path::Path,
    devices: &Devices,
    common: &Common,
) -> anyhow::Result<Vec<usize>> {
    let shown = !common.quiet && std::io::stderr().is_terminal();
    let bar =
        if shown { indicatif::ProgressBar::new(what.samples.len() as u64) } else { indicatif::ProgressBar::hidden() };
    devices.tell(common);
    let extracted = train::on_device(devices.uuid(), what.precision, |device| {
        train::extract(what, manifest, cache, &device, &mut |done| bar.set_position(done as u64))
    });
    bar.finish_and_clear();
    let (shape, warning) = extracted.map_err(|failure| NoDevice(failure.message))??;
    warning.iter().for_each(|warning| eprintln!("{warning}"));
    Ok(shape)
}

/// `flatten`, `avg`, `max`, `class`, `class-avg`, or over a grid: `avg=4`.
fn pool(text: &str) -> anyhow::Result<Pool> {
    let wrong = || {
        Usage(format!("--pool takes flatten, avg, max, class, class-avg, or over a grid avg=4, max=4, not '{text}'"))
    };
    let (kind, grid) = text.split_once('=').map_or((text, Ok(1)), |(kind, grid)| (kind, grid.parse()));
    let grid: usize = grid.ok().filter(|grid| *grid > 0).ok_or_else(wrong)?;
    match kind {
        "flatten" => Ok(Pool::Flatten),
        "class" => Ok(Pool::Class),
        "class-avg" => Ok(Pool::ClassAvg),
        "avg" => Ok(Pool::Avg(grid)),
        "max" => Ok(Pool::Max(grid)),
        _ => Err(wrong().into()),
    }
}
