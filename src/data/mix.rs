//! Images of a batch mixed with one another: MixUp (Zhang et al., 2018) and CutMix (Yun et al., 2019), as their authors'
//! code has them: one share for all of a batch, and a random order of it for the partners.

use rayon::prelude::*;

use crate::augmentation::Augmentation;
use crate::seed::Rng;

/// How the images of a batch are mixed.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// Of each image, the place of the one that it is mixed with.
    partners: Vec<usize>,
    /// What an image and its label count beside its partner's.
    share: f64,
    /// Where the partner is seen, in CutMix: rows and columns, the ends not among them.
    window: Option<[[usize; 2]; 2]>,
}

impl Mix {
    /// Draws how a batch of so many squares is mixed, if `list` says that it is; by a fair coin where it names both ways.
    pub fn drawn(list: &[Augmentation], images: usize, side: usize, rng: &mut Rng) -> Option<Self> {
        let ways: Vec<Augmentation> = list.iter().copied().filter(|augmentation| augmentation.mixes()).collect();
        let way = match ways.as_slice() {
            [] => return None,
            [way] => *way,
            ways => ways[rng.below(ways.len())],
        };
        let mut partners: Vec<usize> = (0..images).collect();
        rng.shuffle(&mut partners);
        Some(match way {
            Augmentation::CutMix(alpha) => {
                let window = window(rng.beta(alpha), side, rng);
                let [rows, columns] = window.map(|[start, end]| end - start);
                let share = 1.0 - (rows * columns) as f64 / (side * side) as f64;
                Self { partners, share, window: Some(window) }
            }
            Augmentation::MixUp(alpha) => Self { partners, share: rng.beta(alpha), window: None },
            _ => return None,
        })
    }

    /// Mixes squares of RGB bytes that stand one behind the other. What MixUp makes is rounded to whole numbers.
    pub fn blend(&self, images: &mut [u8], side: usize) {
        let (before, size) = (images.to_vec(), 3 * side * side);
        images.par_chunks_exact_mut(size).zip(&self.partners).for_each(|(own, partner)| {
            let other = &before[partner * size..][..size];
            match self.window {
                None => own.iter_mut().zip(other).for_each(|(own, other)| {
                    *own = (self.share * f64::from(*own) + (1.0 - self.share) * f64::from(*other)).round() as u8;
                }),
                Some([[top, bottom], [left, right]]) => {
                    for row in top..bottom {
                        let seen = 3 * (row * side + left)..3 * (row * side + right);
                        own[seen.clone()].copy_from_slice(&other[seen]);
                    }
                }
            }
        });
    }

    /// What an image's own label counts; its partner's counts what is left of one.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// The labels of the partners.
    pub fn others(&self, labels: &[u32]) -> Vec<u32> {
        self.partners.iter().map(|partner| labels[*partner]).collect()
    }
}

/// A square of the share of the area that is not the image's own, around a random place, what is outside cut off.
fn window(share: f64, side: usize, rng: &mut Rng) -> [[usize; 2]; 2] {
    let half = (side as f64 * (1.0 - share).sqrt()) as usize / 2;
    [0; 2].map(|_| {
        let middle = rng.below(side);
        [middle.saturating_sub(half), (middle + half).min(side)]
    })
}
