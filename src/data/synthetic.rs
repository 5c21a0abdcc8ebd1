//! A family of image tasks whose similarity to its source is a dial.
//!
//! Every image is 16 x 16 RGB: grey, faint smooth clutter, noise, and small coloured patterns (motifs) at random places.
//! A class is a set of four motifs out of a dictionary of sixteen; an image shows its class's motifs and two of any.
//! A dictionary at distance `shift` is cos(shift π/2) times the source's motifs plus sin(shift π/2) times fresh ones that
//! are orthogonal to all of the source's: at 0 a target is made of the source's parts in new combinations (another `task`),
//! at 1 it shares no part with it. Nothing else depends on `shift`, and nothing is fitted to any recipe.

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::decode::Rgb;
use super::manifest::{Manifest, Part, Sample};
use crate::key::Key;
use crate::seed::{Rng, Stream, stream};

const SIDE: usize = 16;
const MOTIF: usize = 5;
const MOTIF_SIZE: usize = MOTIF * MOTIF * 3;
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
        Manifest::new(name, classes, samples, super::open::sha256([identity.to_string().as_bytes()]))
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
        // Source motifs first, then fresh ones, each orthogonal to all before it.
        let mut rng = stream(FAMILY, Stream::Synthetic, &[0]);
        let mut basis: Vec<Vec<f64>> = Vec::new();
        while basis.len() < 2 * DICTIONARY {
            let mut motif: Vec<f64> = (0..MOTIF_SIZE).map(|_| rng.normal()).collect();
            for earlier in &basis {
                let along: f64 = motif.iter().zip(earlier).map(|(a, b)| a * b).sum();
                motif.iter_mut().zip(earlier).for_each(|(a, b)| *a -= along * b);
            }
            let length = motif.iter().map(|value| value * value).sum::<f64>().sqrt();
            motif.iter_mut().for_each(|value| *value /= length);
            basis.push(motif);
        }
        let angle = self.shift * std::f64::consts::FRAC_PI_2;
        let mixed = |index: usize| {
            let pairs = basis[index].iter().zip(&basis[DICTIONARY + index]);
            pairs
                .map(|(source, fresh)| (MOTIF_SIZE as f64).sqrt() * (angle.cos() * source + angle.sin() * fresh))
                .collect()
        };
        (0..DICTIONARY).map(mixed).collect()
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
