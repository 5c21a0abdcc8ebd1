//! Which images are tested where a dataset brings no split of them: a share once and for all, or each fold in its turn.
//!
//! Images of one group, and images with the same bytes, are dealt as one, so that none is tested on what it was trained
//! on; classes are dealt evenly. What is dealt depends on the images alone and not on an experiment's seed: every
//! experiment on a dataset tests on the same ones.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::manifest::{Manifest, Part};
use crate::seed::{Stream, stream};

/// How test images are taken from a dataset that has no split of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Holdout {
    /// A share of the images of each class; of 1, all: for a dataset that is only tested.
    Share(f64),
    /// K-fold cross-validation: replicate r tests on fold r; after K replicates all is dealt anew.
    Folds(usize),
}

/// Takes test images from those to train on.
///
/// # Errors
/// A class has too few images, or too few groups of images, to be trained and tested on.
pub fn deal(manifest: &mut Manifest, name: &str, holdout: Holdout) -> anyhow::Result<()> {
    if let Holdout::Share(1.0) = holdout {
        manifest.samples.iter_mut().for_each(|sample| sample.part = Part::Test);
        manifest.seal();
        return Ok(());
    }
    let own: Vec<u32> = of(manifest, Part::Train).collect();
    let shares = match holdout {
        Holdout::Share(share) => vec![share, 1.0 - share],
        Holdout::Folds(folds) => vec![1.0; folds],
    };
    let piles = piles(manifest, &own, &shares, 0);
    let mut met = vec![BTreeSet::new(); manifest.classes.len()];
    own.iter().zip(&piles).for_each(|(at, pile)| {
        met[manifest.samples[*at as usize].class as usize].insert(*pile);
    });
    let filled = piles.iter().collect::<BTreeSet<_>>().len();
    anyhow::ensure!(
        filled == shares.len() || matches!(holdout, Holdout::Share(_)),
        "the dataset '{name}' has {} images, with those of one group or with the same bytes counted once {}: that is too few to be \
         dealt into {} folds",
        own.len(),
        units(manifest, &own, &[]).len(),
        shares.len()
    );
    if let Some(class) = met.iter().position(|piles| piles.len() < 2) {
        let images = manifest.counts(Part::Train)[class];
        anyhow::bail!(
            "the dataset '{name}' cannot be dealt into images to train and to test on: class '{}' has {images}, and those of one \
             group, or with the same bytes, stay together",
            manifest.classes[class]
        );
    }
    for (at, pile) in own.iter().zip(piles) {
        manifest.samples[*at as usize].part = match holdout {
            Holdout::Share(_) if pile == 0 => Part::Test,
            Holdout::Share(_) => Part::Train,
            Holdout::Folds(_) => Part::Fold,
        };
    }
    manifest.folds = match holdout {
        Holdout::Share(_) => None,
        Holdout::Folds(folds) => Some(folds),
    };
    manifest.seal();
    Ok(())
}

/// The images that a replicate tests on of those in folds; none of a dataset without.
pub fn tested(manifest: &Manifest, replicate: u64) -> BTreeSet<u32> {
    let Some(folds) = manifest.folds else { return BTreeSet::new() };
    let own: Vec<u32> = of(manifest, Part::Fold).collect();
    let (round, fold) = (replicate / folds as u64, replicate as usize % folds);
    let piles = piles(manifest, &own, &vec![1.0; folds], round);
    own.into_iter().zip(piles).filter(|(_, pile)| *pile == fold).map(|(at, _)| at).collect()
}

/// Makes images to be dealt that are pairs, and what hangs together by these, one group.
pub fn bind(manifest: &mut Manifest, pairs: &[(u32, u32)]) {
    let own: Vec<u32> = of(manifest, Part::Train).collect();
    for unit in units(manifest, &own, pairs).into_iter().filter(|unit| unit.len() > 1) {
        let samples = || unit.iter().map(|place| own[*place] as usize);
        let named = samples().find_map(|at| manifest.samples[at].group.clone());
        let group = named.unwrap_or_else(|| format!("like {}", manifest.samples[own[unit[0]] as usize].id));
        samples().for_each(|at| manifest.samples[at].group = Some(group.clone()));
    }
    manifest.seal();
}

fn of(manifest: &Manifest, part: Part) -> impl Iterator<Item = u32> {
    (0..manifest.samples.len() as u32).filter(move |at| manifest.samples[*at as usize].part == part)
}

/// Deals samples onto piles whose sizes are to be as `shares`: for each sample, which. The largest unit comes first, and
/// each goes where its classes are scarcest: where it adds least to the sum of squared counts over shares, which is least
/// where counts are as the shares are.
fn piles(manifest: &Manifest, own: &[u32], shares: &[f64], round: u64) -> Vec<usize> {
    let mut units = units(manifest, own, &[]);
    stream(0, Stream::Fold, &[round]).shuffle(&mut units);
    units.sort_by_key(|unit| std::cmp::Reverse(unit.len()));
    let class = |place: usize| manifest.samples[own[place] as usize].class as usize;
    let mut totals = vec![0f64; manifest.classes.len()];
    (0..own.len()).for_each(|place| totals[class(place)] += 1.0);
    let mut counts = vec![vec![0f64; totals.len()]; shares.len()];
    let mut found = vec![0; own.len()];
    for unit in units {
        let mut more = vec![];
        for place in &unit {
            match more.iter_mut().find(|(known, _)| *known == class(*place)) {
                Some((_, count)) => *count += 1.0,
                None => more.push((class(*place), 1.0)),
            }
        }
        let adds = |pile: usize| -> f64 {
            let one = |(class, more): &(usize, f64)| more * (2.0 * counts[pile][*class] + more) / totals[*class];
            more.iter().map(one).sum::<f64>() / shares[pile]
        };
        let filled = |pile: usize| counts[pile].iter().sum::<f64>() / shares[pile];
        let order = |one: &usize, other: &usize| {
            adds(*one).total_cmp(&adds(*other)).then(filled(*one).total_cmp(&filled(*other)))
        };
        let pile = (0..shares.len()).min_by(order).unwrap_or(0);
        more.iter().for_each(|(class, more)| counts[pile][*class] += more);
        unit.into_iter().for_each(|place| found[place] = pile);
    }
    found
}

/// Samples that stay together, as places in `own`: those of a group, with the same bytes, or of `pairs`, and what hangs
/// together by these.
fn units(manifest: &Manifest, own: &[u32], pairs: &[(u32, u32)]) -> Vec<Vec<usize>> {
    let (mut contents, mut groups) = (HashMap::new(), HashMap::new());
    let mut ties = Vec::new();
    for (place, at) in own.iter().enumerate() {
        let sample = &manifest.samples[*at as usize];
        ties.push((place, *contents.entry(sample.content).or_insert(place)));
        ties.extend(sample.group.as_deref().map(|group| (place, *groups.entry(group).or_insert(place))));
    }
    let place_of: HashMap<u32, usize> = own.iter().copied().zip(0..).collect();
    ties.extend(pairs.iter().filter_map(|(one, other)| Some((*place_of.get(one)?, *place_of.get(other)?))));
    // Of each place one of its unit before it; the first of a unit is its own.
    let mut before: Vec<usize> = (0..own.len()).collect();
    for (one, other) in ties {
        let (one, other) = (first(&mut before, one), first(&mut before, other));
        before[one.max(other)] = one.min(other);
    }
    let mut units = vec![Vec::new(); own.len()];
    (0..own.len()).for_each(|place| units[first(&mut before, place)].push(place));
    units.retain(|unit| !unit.is_empty());
    units
}

/// The first of the unit that a place is in; the way there is halved for the next time.
fn first(before: &mut [usize], mut place: usize) -> usize {
    while before[place] != place {
        before[place] = before[before[place]];
        place = before[place];
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Sample;
    use crate::key::Key;

    /// Images of classes with so many each; `group` and `content` of the n-th image.
    fn manifest(
        counts: &[usize],
        group: impl Fn(usize) -> Option<String>,
        content: impl Fn(usize) -> usize,
    ) -> Manifest {
        let classes = (0..counts.len()).map(|class| format!("class {class}")).collect();
        let class_of = counts.iter().enumerate().flat_map(|(class, count)| vec![class as u32; *count]);
        let sample = |(at, class): (usize, u32)| Sample {
            id: format!("{at:05}"),
            class,
            part: Part::Train,
            group: group(at),
            content: Key::of("image", &content(at)),
        };
        let samples = class_of.enumerate().map(sample).collect();
        Manifest::new("some", classes, samples, String::new()).expect("a manifest")
    }

    fn dealt(mut manifest: Manifest, holdout: Holdout) -> Manifest {
        deal(&mut manifest, "some", holdout).expect("enough images");
        manifest
    }

    #[test]
    fn every_image_is_tested_once_in_as_many_replicates_as_folds_and_classes_stay_even() {
        let manifest = dealt(manifest(&[23, 11, 40], |_| None, |at| at), Holdout::Folds(5));
        for round in 0..2 {
            let mut all = BTreeSet::new();
            for replicate in 5 * round..5 * round + 5 {
                let fold = tested(&manifest, replicate);
                for (class, count) in [23, 11, 40].into_iter().enumerate() {
                    let own = fold.iter().filter(|at| manifest.samples[**at as usize].class as usize == class).count();
                    assert!(own == count / 5 || own == count.div_ceil(5), "{own} of {count}");
                }
                assert!((14..=16).contains(&fold.len()), "{}", fold.len());
                assert!(fold.iter().all(|at| all.insert(*at)), "tested twice");
            }
            assert_eq!(all.len(), 74);
        }
        assert_ne!(tested(&manifest, 0), tested(&manifest, 5), "dealt anew");
    }

    #[test]
    fn a_share_is_taken_of_each_class() {
        for share in [0.1, 0.2, 0.25, 0.5] {
            let manifest = dealt(manifest(&[40, 200, 20], |_| None, |at| at), Holdout::Share(share));
            for (test, count) in manifest.counts(Part::Test).into_iter().zip([40.0, 200.0, 20.0]) {
                assert!((test as f64 - share * count).abs() < 1.0, "{test} of {count} at {share}");
            }
        }
    }

    #[test]
    fn groups_and_equal_bytes_hang_together() {
        // Groups of three; the last image of each has the bytes of the first of the next but one, in chains of two groups.
        let group = |at: usize| Some(format!("subject {}", at / 3));
        let content = |at: usize| if at % 12 == 2 { at + 4 } else { at };
        let manifest = dealt(manifest(&[60, 60], group, content), Holdout::Folds(4));
        let folds: Vec<BTreeSet<u32>> = (0..4).map(|replicate| tested(&manifest, replicate)).collect();
        let fold_of = |at: usize| folds.iter().position(|fold| fold.contains(&(at as u32)));
        for at in 0..120 {
            assert_eq!(fold_of(at), fold_of(at / 3 * 3), "a group is whole");
            if at % 12 == 2 {
                assert_eq!(fold_of(at), fold_of(at + 4), "the same bytes");
            }
        }
        assert!(folds.iter().all(|fold| (24..=36).contains(&fold.len())), "{:?}", folds.iter().map(BTreeSet::len));
    }

    #[test]
    fn a_class_that_is_one_group_cannot_be_dealt() {
        let mut one_group = manifest(&[6, 6], |at| (at < 6).then(|| "all".to_owned()), |at| at);
        let error = deal(&mut one_group, "some", Holdout::Folds(3)).expect_err("one group");
        assert!(error.to_string().contains("class 'class 0' has 6"), "{error}");
    }
}
