//! `data TARGET --corruptions PAGE` and `--augmentations PAGE`: what the words of `corrupt` and `augment` do to images of a
//! dataset, as pages of pictures.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use super::{Exit, Usage, print};
use crate::augmentation::{Augmentation, WORDS};
use crate::corruption::{Corruption, Kind, SEVERITIES};
use crate::data::augment::augment;
use crate::data::corrupt::corrupt;
use crate::data::mix::Mix;
use crate::data::picture::Picture;
use crate::data::{Dataset, Part, Sample};
use crate::frame::{Frame, Resize};
use crate::report::html::{escaped, page};
use crate::report::look::{Shown, shown};
use crate::seed::{Stream, stream};
use crate::value::Value;

/// Screen pixels of a picture.
const WIDTH: usize = 112;

/// Images, draws or epochs that are shown.
const MANY: usize = 6;

/// Writes the page of corruptions of a test image, for squares of `side` pixels.
///
/// # Errors
/// An image cannot be used, or the page cannot be written.
pub fn corruptions(dataset: &Dataset, side: usize, out: &Path) -> anyhow::Result<Exit> {
    let (index, pixels) = squares(dataset, Part::Test, 1, side)?.remove(0);
    let sample = &dataset.manifest.samples[index];
    let mut body = vec![format!("<p class=\"state\">{}, {side} pixels</p>", escaped(&sample.id))];
    for (kind, name) in Kind::ALL {
        let mut pictures = vec![picture(side, &pixels, "as it is".to_owned())?];
        for severity in SEVERITIES {
            let what = Corruption { kind, severity };
            let changed = corrupt(what, &pixels, side, sample.content).map_err(anyhow::Error::msg)?;
            pictures.push(picture(side, &changed, what.to_string())?);
        }
        body.push(row(name, &pictures));
    }
    write(dataset, &body, out)?;
    print(&format!("{} kinds of corruption at severities 1 to 5: '{}'", Kind::ALL.len(), out.display()))?;
    Ok(Exit::Complete)
}

/// Writes the page of augmentations of training images: of each word by itself, or of a list as epochs have it.
///
/// # Errors
/// As `corruptions`, or the list is none.
pub fn augmentations(dataset: &Dataset, side: usize, list: Option<&str>, out: &Path) -> anyhow::Result<Exit> {
    let batch = Batch { dataset, side, images: squares(dataset, Part::Train, MANY, side)? };
    let mut body = vec![format!("<p class=\"state\">training images, {side} pixels</p>")];
    match list {
        None => {
            for word in WORDS {
                let one = Augmentation::parse(word).map_err(anyhow::Error::msg)?;
                let pictures = if one.mixes() { batch.epoch(&[one], 1) } else { batch.draws(one) };
                body.push(row(word, &pictures?));
            }
        }
        Some(list) => {
            let words = list.split(',').map(|word| Value::Text(word.trim().to_owned())).collect();
            let list = Augmentation::parse_list(&Value::List(words));
            let list = list.map_err(|wrong| Usage(format!("--augment: {wrong}")))?;
            body.push(row("as they are", &batch.epoch(&[], 0)?));
            for epoch in 1..=MANY {
                body.push(row(&format!("epoch {epoch}"), &batch.epoch(&list, epoch)?));
            }
        }
    }
    write(dataset, &body, out)?;
    let what = list.map_or_else(|| format!("{} augmentations", WORDS.len()), |list| format!("{MANY} epochs of {list}"));
    print(&format!("{what}: '{}'", out.display()))?;
    Ok(Exit::Complete)
}

/// Training images that are shown together.
struct Batch<'a> {
    dataset: &'a Dataset,
    side: usize,
    /// With their places.
    images: Vec<(usize, Vec<u8>)>,
}

impl Batch<'_> {
    fn sample(&self, at: usize) -> &Sample {
        &self.dataset.manifest.samples[self.images[at].0]
    }

    fn changed(&self, at: usize, list: &[Augmentation], epoch: usize) -> Vec<u8> {
        let (index, pixels) = &self.images[at];
        augment(list, pixels, self.side, &mut stream(0, Stream::Augment, &[0, epoch as u64, *index as u64]))
    }

    /// The first image, as it is and as some epochs would have it.
    fn draws(&self, one: Augmentation) -> anyhow::Result<Vec<Shown>> {
        let plain = picture(self.side, &self.images[0].1, "as it is".to_owned());
        let drawn = (1..MANY).map(|epoch| picture(self.side, &self.changed(0, &[one], epoch), format!("draw {epoch}")));
        std::iter::once(plain).chain(drawn).collect()
    }

    /// All images as a batch of an epoch would have them, with what they are by then.
    fn epoch(&self, list: &[Augmentation], epoch: usize) -> anyhow::Result<Vec<Shown>> {
        let mut bytes: Vec<u8> = (0..self.images.len()).flat_map(|at| self.changed(at, list, epoch)).collect();
        let classes: Vec<u32> = (0..self.images.len()).map(|at| self.sample(at).class).collect();
        let mut rng = stream(0, Stream::Mix, &[0, epoch as u64, 0]);
        let mix = Mix::drawn(list, self.images.len(), self.side, &mut rng);
        let (others, share) = match &mix {
            Some(mix) => (mix.others(&classes), mix.share()),
            None => (classes.clone(), 1.0),
        };
        if let Some(mix) = mix {
            mix.blend(&mut bytes, self.side);
        }
        let images = bytes.chunks_exact(3 * self.side * self.side).zip(classes.iter().zip(others));
        images.map(|(image, (own, other))| picture(self.side, image, self.told(*own, other, share))).collect()
    }

    /// What an image is: its class, or two with their shares.
    fn told(&self, own: u32, other: u32, share: f64) -> String {
        let mut shares = BTreeMap::from([(own, 0.0)]);
        *shares.entry(own).or_default() += share;
        *shares.entry(other).or_default() += 1.0 - share;
        let name = |class: u32| &self.dataset.manifest.classes[class as usize];
        if shares.len() == 1 {
            return name(own).clone();
        }
        let part = |class: u32| format!("{} {:.0}%", name(class), 100.0 * shares[&class]);
        format!("{}, {}", part(own), part(other))
    }
}

/// So many images of a part, from all over it and so of several classes, with their places.
fn squares(dataset: &Dataset, part: Part, many: usize, side: usize) -> anyhow::Result<Vec<(usize, Vec<u8>)>> {
    let samples = &dataset.manifest.samples;
    let own: Vec<usize> = (0..samples.len()).filter(|index| samples[*index].part == part).collect();
    anyhow::ensure!(
        !own.is_empty(),
        "the dataset has no {} image",
        if part == Part::Test { "test" } else { "training" }
    );
    let many = many.min(own.len());
    let wanted: Vec<usize> = (0..many).map(|index| own[index * own.len() / many]).collect();
    Ok(dataset.few_squares(&wanted, Frame { side, resize: Resize::WHOLE })?.into_iter().collect())
}

fn picture(side: usize, pixels: &[u8], caption: String) -> anyhow::Result<Shown> {
    Ok(Shown { png: Picture::square(side, pixels).png()?, caption, width: WIDTH })
}

fn row(title: &str, pictures: &[Shown]) -> String {
    let row: String = pictures.iter().map(shown).collect();
    format!("<h2>{}</h2>\n<div class=\"row\">{row}</div>", escaped(title))
}

fn write(dataset: &Dataset, body: &[String], out: &Path) -> anyhow::Result<()> {
    let body = format!("<h1>{}</h1>\n{}", escaped(&dataset.name), body.join("\n"));
    std::fs::write(out, page(&dataset.name, &body)).with_context(|| format!("cannot write '{}'", out.display()))
}
