//! `data TARGET --corruptions PAGE`: what each kind and severity of `corrupt` does to a test image, as a page of pictures.

use std::path::Path;
use std::sync::Mutex;

use anyhow::Context;

use super::{Exit, print};
use crate::corruption::{Corruption, Kind, SEVERITIES};
use crate::data::corrupt::corrupt;
use crate::data::picture::Picture;
use crate::data::{Dataset, Part};
use crate::frame::{Frame, Resize};
use crate::report::html::{escaped, page};
use crate::report::look::{Shown, shown};

/// Screen pixels of a picture.
const WIDTH: usize = 112;

/// Writes the page, for squares of `side` pixels.
///
/// # Errors
/// An image cannot be used, or the page cannot be written.
pub fn write(dataset: &Dataset, side: usize, out: &Path) -> anyhow::Result<Exit> {
    let frame = Frame { side, resize: Resize::WHOLE };
    let mut body = vec![format!("<h1>{}</h1>", escaped(&dataset.name))];
    let (index, pixels) = square(dataset, frame)?;
    let sample = &dataset.manifest.samples[index];
    body.push(format!("<p class=\"state\">{}, {side} pixels</p>", escaped(&sample.id)));
    for (kind, name) in Kind::ALL {
        let mut pictures = vec![picture(side, &pixels, "as it is".to_owned())?];
        for severity in SEVERITIES {
            let what = Corruption { kind, severity };
            let changed = corrupt(what, &pixels, side, sample.content).map_err(anyhow::Error::msg)?;
            pictures.push(picture(side, &changed, what.to_string())?);
        }
        let row: String = pictures.iter().map(shown).collect();
        body.push(format!("<h2>{name}</h2>\n<div class=\"row\">{row}</div>"));
    }
    std::fs::write(out, page(&dataset.name, &body.join("\n")))
        .with_context(|| format!("cannot write '{}'", out.display()))?;
    print(&format!("{} kinds of corruption at severities 1 to 5: '{}'", Kind::ALL.len(), out.display()))?;
    Ok(Exit::Complete)
}

/// The first test image, with its place.
fn square(dataset: &Dataset, frame: Frame) -> anyhow::Result<(usize, Vec<u8>)> {
    let first = dataset.manifest.samples.iter().position(|sample| sample.part == Part::Test);
    let first = first.context("the dataset has no test image")?;
    let found = Mutex::new(Vec::new());
    dataset.squares(&[first], frame, &|_, pixels| {
        *found.lock().map_err(|_| anyhow::anyhow!("the image has failed"))? = pixels.to_vec();
        Ok(())
    })?;
    Ok((first, found.into_inner()?))
}

fn picture(side: usize, pixels: &[u8], caption: String) -> anyhow::Result<Shown> {
    Ok(Shown { png: Picture::square(side, pixels).png()?, caption, width: WIDTH })
}
