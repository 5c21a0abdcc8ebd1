//! Which images a replicate trains, validates and tests on. Pure: the same answer everywhere for the same manifest,
//! size, seed and replicate.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::deal::tested;
use super::manifest::{Manifest, Part};
use crate::seed::{Stream, stream};

/// Indices into the manifest; ascending, disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    pub train: Vec<u32>,
    pub val: Vec<u32>,
    pub test: Vec<u32>,
    /// Those of other datasets, tested as well.
    #[serde(default)]
    pub shifted: Vec<u32>,
}

impl Split {
    /// Whatever is looked at and not learned from.
    pub fn evaluated(&self) -> impl Iterator<Item = u32> {
        self.val.iter().chain(&self.test).chain(&self.shifted).copied()
    }
}

/// One image in five of each class is set aside for validation before anything else, where the data brings no
/// validation part of its own.
const CARVED: usize = 5;

/// Carves validation off the training part, class by class, and then takes `per_class` images of each class from the
/// rest (all without it). Both come from one shuffled list per class, validation from its front and training behind
/// the reserved fifth: so k images are a subset of 2k, and no image is ever in both. Validation takes at most
/// `per_class` images of each class. Where the data has groups, whole ones are reserved, about a fifth of each class.
///
/// # Errors
/// A class has too few images; says which and how many there are.
pub fn split(manifest: &Manifest, per_class: Option<usize>, seed: u64, replicate: u64) -> Result<Split, String> {
    let own_validation = manifest.samples.iter().any(|sample| sample.part == Part::Val);
    let tested = tested(manifest, replicate);
    let pool = pool(manifest, &tested);
    let reserved_groups = reserved_groups(manifest, &pool, seed, replicate);
    let mut split = Split::default();
    for class in 0..manifest.classes.len() {
        let order = shuffled(manifest, &pool, class, seed, replicate);
        let (front, rest): (Vec<u32>, Vec<u32>) = match &reserved_groups {
            _ if own_validation => (Vec::new(), order.clone()),
            Some(groups) => order.iter().partition(|index| groups.contains(group(manifest, **index))),
            None => {
                let (front, rest) = order.split_at((order.len() / CARVED).max(1).min(order.len()));
                (front.to_vec(), rest.to_vec())
            }
        };
        let name = &manifest.classes[class];
        let wanted = per_class.unwrap_or(rest.len());
        if rest.len() < wanted || rest.is_empty() {
            let aside = if own_validation {
                String::new()
            } else {
                format!(" after {} of {} are set aside for validation", front.len(), order.len())
            };
            return Err(format!(
                "per_class = {}, but class '{name}' has {} images for training{aside}",
                wanted.max(1),
                rest.len()
            ));
        }
        split.train.extend(&rest[..wanted]);
        split.val.extend(&front[..front.len().min(wanted)]);
    }
    for (index, sample) in manifest.samples.iter().enumerate() {
        match sample.part {
            Part::Val => split.val.push(index as u32),
            Part::Test => split.test.push(index as u32),
            Part::Shifted => split.shifted.push(index as u32),
            Part::Train | Part::Fold => {}
        }
    }
    split.test.extend(tested);
    if split.val.is_empty() {
        return Err("no group could be set aside for validation".to_owned());
    }
    [&mut split.train, &mut split.val, &mut split.test].into_iter().for_each(|list| list.sort_unstable());
    Ok(split)
}

/// Training images to look at without training: at most `count`, and at least two of each class that has two, in lots of one of
/// each class. Of images with the same bytes there is one: the others would give its class away.
pub fn glance(manifest: &Manifest, count: usize, seed: u64) -> Vec<Vec<u32>> {
    let classes = manifest.classes.len();
    let pool = pool(manifest, &tested(manifest, 0));
    let orders: Vec<Vec<u32>> = (0..classes).map(|class| shuffled(manifest, &pool, class, seed, 0)).collect();
    let mut contents = BTreeSet::new();
    let mut new = |index: &u32| contents.insert(manifest.samples[*index as usize].content);
    let mut orders: Vec<_> =
        orders.iter().map(|order| order.iter().copied().filter(&mut new).collect::<Vec<u32>>().into_iter()).collect();
    let most = count.max(2 * classes);
    let (mut lots, mut chosen) = (Vec::new(), 0);
    loop {
        let lot: Vec<u32> = orders.iter_mut().filter_map(Iterator::next).collect();
        chosen += lot.len();
        if lot.is_empty() || chosen > most {
            return lots;
        }
        lots.push(lot);
    }
}

/// Who is left out with whom, by numbers, for each image of some lots in their order: the images of a group; without groups those
/// of a lot, so that as many of each class stay. One image less of a class makes the others likelier, and what knows nothing
/// would answer worse than by chance.
pub fn left_out_together(manifest: &Manifest, lots: &[Vec<u32>]) -> Vec<u32> {
    if manifest.samples.iter().all(|sample| sample.group.is_none()) {
        return lots.iter().zip(0..).flat_map(|(lot, number)| lot.iter().map(move |_| number)).collect();
    }
    let samples = lots.iter().flatten();
    let names: BTreeSet<&str> = samples.clone().map(|index| group(manifest, *index)).collect();
    let numbers: BTreeMap<&str, u32> = names.into_iter().zip(0..).collect();
    samples.map(|index| numbers[group(manifest, *index)]).collect()
}

/// What there is to train on and to carve validation from.
fn pool(manifest: &Manifest, tested: &BTreeSet<u32>) -> Vec<u32> {
    let own = |index: &u32| match manifest.samples[*index as usize].part {
        Part::Train => true,
        Part::Fold => !tested.contains(index),
        Part::Val | Part::Test | Part::Shifted => false,
    };
    (0..manifest.samples.len() as u32).filter(own).collect()
}

/// The images of a class in random order.
fn shuffled(manifest: &Manifest, pool: &[u32], class: usize, seed: u64, replicate: u64) -> Vec<u32> {
    let own = |index: &u32| manifest.samples[*index as usize].class as usize == class;
    let mut order: Vec<u32> = pool.iter().copied().filter(own).collect();
    stream(seed, Stream::Subset, &[replicate, class as u64]).shuffle(&mut order);
    order
}

/// A sample without a group is a group of its own.
fn group(manifest: &Manifest, index: u32) -> &str {
    let sample = &manifest.samples[index as usize];
    sample.group.as_deref().unwrap_or(&sample.id)
}

/// The groups whose training images are kept for validation, about a fifth of each class; `None` where the data has no groups.
/// In random order, each is taken that brings the classes nearer to a fifth: a random fifth of all groups may be one class's.
fn reserved_groups<'a>(manifest: &'a Manifest, pool: &[u32], seed: u64, replicate: u64) -> Option<BTreeSet<&'a str>> {
    if !manifest.carves_groups() {
        return None;
    }
    let mut sizes: BTreeMap<&str, BTreeMap<usize, f64>> = BTreeMap::new();
    let mut totals = vec![0.0; manifest.classes.len()];
    for index in pool {
        let class = manifest.samples[*index as usize].class as usize;
        *sizes.entry(group(manifest, *index)).or_default().entry(class).or_default() += 1.0;
        totals[class] += 1.0;
    }
    let mut order: Vec<&str> = sizes.keys().copied().collect();
    stream(seed, Stream::Subset, &[replicate, u64::MAX]).shuffle(&mut order);
    // How much further from a fifth of each class a group leads: the change in the sum of squares over totals.
    let further = |taken: &[f64], name: &str| -> f64 {
        let one = |(class, more): (&usize, &f64)| {
            let off = taken[*class] - totals[*class] / CARVED as f64;
            ((off + more).powi(2) - off.powi(2)) / totals[*class]
        };
        sizes[name].iter().map(one).sum()
    };
    let (mut reserved, mut taken) = (BTreeSet::new(), vec![0.0; totals.len()]);
    for name in &order {
        if further(&taken, name) < 0.0 {
            reserved.insert(*name);
            sizes[name].iter().for_each(|(class, more)| taken[*class] += more);
        }
    }
    if reserved.is_empty() {
        // Few and large: one has to be taken all the same, and not one with all that there is of a class.
        let leaves = |name: &&&str| sizes[**name].iter().all(|(class, more)| *more < totals[*class]);
        let least = |one: &&&str, other: &&&str| further(&taken, one).total_cmp(&further(&taken, other));
        reserved.extend(order.iter().filter(leaves).min_by(least).copied());
    }
    Some(reserved)
}
