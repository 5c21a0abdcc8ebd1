//! A family of image tasks whose similarity to its source is a dial.
//!
//! Every image is 16 x 16 RGB: grey, faint smooth clutter of any colour, noise, and small patterns (motifs) at random
//! places. A class is a set of four motifs out of a dictionary of sixteen; an image shows its class's motifs and two of
//! any. A source motif is a 5 x 5 pattern along one axis of colour space; a fresh motif is another pattern, orthogonal to
//! all of the source's, along an axis of colour orthogonal to the source's. A dictionary at distance `shift` is
//! cos(shift pi/2) times the source's motifs plus sin(shift pi/2) times fresh ones: at 0 a target is made of the source's
//! parts in new combinations (another `task`), at 1 it shares neither pattern nor colour with any of them. Nothing else
//! depends on `shift`, and nothing is fitted to any recipe.

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::decode::Rgb;
use super::manifest::{Manifest, Part, Sample};
use crate::key::Key;
use crate::seed::{Rng, Stream, stream};

const SIDE: usize = 16;
const MOTIF: usize = 5;
const PATTERN: usize = MOTIF * MOTIF;
const DICTIONARY: usize = 16;
const PER_CLASS: usize = 4;
const DISTRACTORS: usize = 2;
/// The seed of the family itself: dictionaries and images are the same on every machine.
const FAMILY: u64 = 0x7_5EED;

/// One task of the family; counts are images per class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Family {
    pub classes: usize,
    pub shift: f64,
    pub task: u64,
    pub train: usize,
    pub test: usize,
}

impl Family {
    /// The samples; ids are part/class/number, and all that an image depends on.
    ///
    /// # Errors
    /// Fewer than two classes.
    pub fn manifest(&self, name: &str) -> anyhow::Result<Manifest> {
        let identity = Key::of("synthetic", self);
        let mut samples = Vec::new();
        for (part, count) in [(Part::Train, self.train), (Part::Test, self.test)] {
            for class in 0..self.classes {
                for index in 0..count {
                    let id = format!("{}/{class:03}/{index:05}", part.name());
                    let content = Key::of("synthetic image", &(identity, &id));
                    samples.push(Sample { id, class: class as u32, part, group: None, content });
                }
            }
        }
        let classes = (0..self.classes).map(|class| format!("{class:03}")).collect();
        Manifest::new(name, classes, samples, super::digest::sha256([identity.to_string().as_bytes()]))
    }

    /// The image of a sample.
    ///
    /// # Errors
    /// The id is not one of `manifest`'s.
    pub fn image(&self, id: &str) -> anyhow::Result<Rgb> {
        let fields: Vec<&str> = id.split('/').collect();
        let [part, class, index] = fields.as_slice() else { anyhow::bail!("'{id}' is no synthetic image") };
        let part = Part::parse(part).context("unknown part")?;
        let (class, index): (u64, u64) = (class.parse()?, index.parse()?);
        let mut rng = stream(FAMILY, Stream::Synthetic, &[2, self.task, part as u64, class, index]);
        let mut canvas = vec![0f64; SIDE * SIDE * 3];
        clutter(&mut rng, &mut canvas);
        let dictionary = self.dictionary();
        let mut shown = self.class_motifs(class);
        shown.extend((0..DISTRACTORS).map(|_| rng.below(DICTIONARY)));
        for motif in shown {
            paste(&mut rng, &dictionary[motif], &mut canvas);
        }
        let pixels =
            canvas.iter().map(|value| (128.0 + 40.0 * (value + 0.25 * rng.normal())).clamp(0.0, 255.0) as u8).collect();
        Ok(Rgb { width: SIDE as u32, height: SIDE as u32, pixels })
    }

    fn class_motifs(&self, class: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..DICTIONARY).collect();
        stream(FAMILY, Stream::Synthetic, &[1, self.task, class]).shuffle(&mut order);
        order.truncate(PER_CLASS);
        order
    }

    fn dictionary(&self) -> Vec<Vec<f64>> {
        let mut rng = stream(FAMILY, Stream::Synthetic, &[0]);
        let colours = orthonormal(&mut rng, 2, 3);
        let (source, fresh) = (patterns(&mut rng), patterns(&mut rng));
        let angle = self.shift * std::f64::consts::FRAC_PI_2;
        let (kept, new) = (libm::cos(angle), libm::sin(angle));
        // The length of a motif whose every number has size one.
        let length = ((PATTERN * 3) as f64).sqrt();
        let mixed = |(source, fresh): (&Vec<f64>, &Vec<f64>)| {
            let at = |place: usize| {
                let (pixel, channel) = (place / 3, place % 3);
                length * (kept * source[pixel] * colours[0][channel] + new * fresh[pixel] * colours[1][channel])
            };
            (0..PATTERN * 3).map(at).collect()
        };
        source.iter().zip(&fresh).map(mixed).collect()
    }
}

/// Patterns of length one for a whole dictionary, orthogonal to each other and to a flat field.
fn patterns(rng: &mut Rng) -> Vec<Vec<f64>> {
    let flat = vec![1.0 / (PATTERN as f64).sqrt(); PATTERN];
    let mut found = vec![flat];
    extend(rng, &mut found, DICTIONARY + 1, PATTERN);
    found.split_off(1)
}

/// `count` random directions of length one, at right angles.
fn orthonormal(rng: &mut Rng, count: usize, size: usize) -> Vec<Vec<f64>> {
    let mut found = Vec::new();
    extend(rng, &mut found, count, size);
    found
}

/// Adds random directions up to `count` (Gram and Schmidt).
fn extend(rng: &mut Rng, found: &mut Vec<Vec<f64>>, count: usize, size: usize) {
    while found.len() < count {
        let mut next: Vec<f64> = (0..size).map(|_| rng.normal()).collect();
        for earlier in found.iter() {
            let along: f64 = next.iter().zip(earlier).map(|(a, b)| a * b).sum();
            next.iter_mut().zip(earlier).for_each(|(a, b)| *a -= along * b);
        }
        let length = next.iter().map(|value| value * value).sum::<f64>().sqrt();
        next.iter_mut().for_each(|value| *value /= length);
        found.push(next);
    }
}

/// A coarse 4 x 4 pattern per channel, blown up: light and colour that say nothing about the class.
fn clutter(rng: &mut Rng, canvas: &mut [f64]) {
    let coarse: Vec<f64> = (0..4 * 4 * 3).map(|_| 0.35 * rng.normal()).collect();
    for y in 0..SIDE {
        for x in 0..SIDE {
            for channel in 0..3 {
                canvas[(y * SIDE + x) * 3 + channel] = coarse[(y * 4 / SIDE * 4 + x * 4 / SIDE) * 3 + channel];
            }
        }
    }
}

fn paste(rng: &mut Rng, motif: &[f64], canvas: &mut [f64]) {
    let (top, left) = (rng.below(SIDE - MOTIF + 1), rng.below(SIDE - MOTIF + 1));
    let strength = rng.range(0.7, 1.3);
    for y in 0..MOTIF {
        for x in 0..MOTIF {
            for channel in 0..3 {
                canvas[((top + y) * SIDE + left + x) * 3 + channel] += strength * motif[(y * MOTIF + x) * 3 + channel];
            }
        }
    }
}
