//! `look MODEL IMAGES`: pictures of what a network that `export` wrote looks at.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::Path;

use anyhow::Context;

use super::devices::Devices;
use super::{Exit, NoDevice, Usage, print};
use crate::cli::{Common, LookAt};
use crate::data::loose::{self, Loose, Read, Square};
use crate::data::picture::Picture;
use crate::key::Key;
use crate::model::trained::{Opened, Trained};
use crate::report::look::{Look, Looked, Shown};
use crate::report::predictions::ranked;
use crate::train::{self, Filters, Sight};

/// How wide pictures stand on the page, in its pixels; filters are enlarged so many times.
const WIDTH: usize = 160;
const ENLARGED: usize = 6;

pub fn run(asked: &LookAt, common: &Common) -> anyhow::Result<Exit> {
    let usage = |error: anyhow::Error| Usage(format!("{error:#}"));
    let json = match asked.out.extension().and_then(|ending| ending.to_str()) {
        Some("html") => false,
        Some("json") => true,
        _ => return Err(Usage(format!("'{}' should end in .html or .json", asked.out.display())).into()),
    };
    if asked.images == 0 {
        return Err(Usage("--images needs at least 1".to_owned()).into());
    }
    let devices = Devices::choose(&common.devices)?;
    let trained = Opened::read(&asked.model).map_err(usage)?;
    let files = loose::list(&asked.paths).map_err(usage)?;
    let Chosen { images, of, broken } = chosen(&files, &trained.model, asked.images);
    for (file, reason) in &broken {
        eprintln!("no picture of '{}': {reason}", file.path.display());
    }
    if images.is_empty() {
        return Err(Usage("there are no images there".to_owned()).into());
    }
    let sights = sights(&trained, &images, &devices, common)?;
    let looked = put_together(&asked.model, &trained, images, &sights, of)?;
    let text = if json { serde_json::to_string_pretty(&looked.json())? } else { looked.html() };
    std::fs::write(&asked.out, text).with_context(|| format!("cannot write '{}'", asked.out.display()))?;
    print(&format!("'{}': {} of {of} images", asked.out.display(), looked.images.len()))?;
    Ok(if broken.is_empty() { Exit::Complete } else { Exit::SomeFailed })
}

/// What is to be looked at, of what there is.
struct Chosen {
    /// As networks read them.
    images: Vec<(Loose, Square)>,
    /// Images that there are.
    of: usize,
    /// Those that cannot be read, and why.
    broken: Vec<(Loose, String)>,
}

/// Evenly of all that are images.
fn chosen(files: &[Loose], model: &Trained, wanted: usize) -> Chosen {
    let (mut images, mut broken) = (Vec::new(), Vec::new());
    for (file, read) in files.iter().zip(loose::read(files, model.frame(), model.white)) {
        match read {
            Read::Image(square) => images.push((file.clone(), square)),
            Read::Broken(reason) => broken.push((file.clone(), reason)),
            Read::Other => {}
        }
    }
    let of = images.len();
    let kept = wanted.min(of);
    let places: HashSet<usize> = (0..kept).map(|place| (2 * place + 1) * of / (2 * kept)).collect();
    let mut place = 0..;
    images.retain(|_| place.next().is_some_and(|place| places.contains(&place)));
    Chosen { images, of, broken }
}

fn sights(
    trained: &Opened,
    images: &[(Loose, Square)],
    devices: &Devices,
    common: &Common,
) -> anyhow::Result<Vec<Sight>> {
    let shown = !common.quiet && std::io::stderr().is_terminal();
    let bar = if shown { indicatif::ProgressBar::new(images.len() as u64) } else { indicatif::ProgressBar::hidden() };
    devices.tell(common);
    let squares: Vec<&[u8]> = images.iter().map(|(_, square)| &square.pixels[..]).collect();
    let sights = train::on_device(devices.uuid(), trained.model.precision, |device| {
        train::look(trained, &squares, &device, &mut |done| bar.set_position(done as u64))
    });
    bar.finish_and_clear();
    sights.map_err(|failure| NoDevice(failure.message))?
}

fn put_together(
    file: &Path,
    trained: &Opened,
    images: Vec<(Loose, Square)>,
    sights: &[Sight],
    of: usize,
) -> anyhow::Result<Look> {
    let (model, side) = (&trained.model, trained.model.arch.input);
    let known: HashSet<Key> = model.seen.iter().copied().collect();
    let named = |ranked: Vec<(usize, f64)>| {
        ranked.into_iter().map(|(class, probability)| (model.classes[class].clone(), probability)).collect()
    };
    let looked = images.into_iter().zip(sights).map(|((file, square), sight)| {
        Ok(Looked {
            path: file.path,
            seen: known.contains(&square.content),
            ranked: named(ranked(&sight.log_probabilities)),
            log_odds: sight.log_odds,
            starts: sight.starts.clone(),
            patch: sight.patch,
            drops: sight.drops.clone(),
            pictures: pictures(side, &square, sight)?,
        })
    });
    let images = looked.collect::<anyhow::Result<_>>()?;
    let mut facts = trained.facts.clone();
    facts.insert("file".to_owned(), file.display().to_string());
    let filters = train::filters(trained)?.map(|filters| filter_picture(&filters)).transpose()?;
    Ok(Look { facts, classes: model.classes.clone(), filters, images, of })
}

fn pictures(side: usize, square: &Square, sight: &Sight) -> anyhow::Result<Vec<Shown>> {
    let picture = |picture: Picture, caption: String| anyhow::Ok(Shown { png: picture.png()?, caption, width: WIDTH });
    let most = sight.drops.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut shown = vec![
        picture(Picture::square(side, &square.pixels), format!("as it is read, {side} pixels"))?,
        picture(
            Picture::heated(side, &square.pixels, &sight.heat(side)),
            format!("what the answer rests on; a patch takes up to {most:.2} nats of log odds"),
        )?,
    ];
    for map in &sight.maps {
        let caption = format!("{}, {} x {}", map.layer, map.height, map.width);
        shown.push(picture(Picture::grey(map.width, map.height, &map.values), caption)?);
    }
    Ok(shown)
}

fn filter_picture(filters: &Filters) -> anyhow::Result<Shown> {
    let picture = Picture::filters(filters.count, filters.kernel, &filters.numbers, filters.reversed);
    let state = if filters.frozen { "held fixed in training" } else { "as training left them" };
    let [height, width] = filters.kernel;
    let caption = format!(
        "{}: {} filters of {height} x {width}, {state}; each scaled by its own numbers",
        filters.layer, filters.count
    );
    Ok(Shown { png: picture.png()?, caption, width: ENLARGED * picture.width })
}
