//! Pixels, manifests and the heads of class names in the cache, before any worker asks for them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use anyhow::Context;
use indicatif::DecimalBytes;

use super::DiskFull;
use super::jobs::{Jobs, What};
use super::machine::disk_free;
use super::world::World;
use crate::data::{Dataset, packed, split};
use crate::frame::Frame;
use crate::key::Key;
use crate::plan::Plan;
use crate::plan::stage::{Stage, Start, Texts};
use crate::temporary;
use crate::train;

/// What is ready.
#[derive(Default)]
pub struct Prepared {
    /// Images that were decoded now.
    pub decoded: usize,
    /// Datasets whose images are packed, and how.
    pub packed: Vec<(Key, Frame)>,
}

/// Decodes every image that the jobs will read, and writes the manifests that workers read.
///
/// # Errors
/// An image that cannot be used; the cache cannot be written.
pub fn prepare_data(plan: &Plan, jobs: &Jobs, world: &World) -> anyhow::Result<Prepared> {
    let mut wanted: BTreeMap<(Key, Frame), BTreeSet<usize>> = BTreeMap::new();
    let mut asked: HashSet<(Key, Frame, Option<usize>, usize)> = HashSet::new();
    let mut named = HashSet::new();
    for job in &jobs.list {
        match &job.what {
            What::Shared(work) => {
                if let Stage::Pretrain(stage) = &work.stage {
                    let all = all_of(world, stage.data);
                    wanted.entry((stage.data, stage.frame())).or_default().extend(all);
                }
                if let Stage::Encode(stage) = &work.stage {
                    for replicate in 0..stage.replicates {
                        want(
                            world,
                            &mut asked,
                            &mut wanted,
                            (stage.data, stage.backbone.frame(), stage.per_class, replicate),
                            stage.seed,
                        )?;
                    }
                }
            }
            What::Trial { cell, replicate } => {
                let train =
                    plan.stages(&plan.cells[*cell], *replicate, &world.facts).map_err(anyhow::Error::msg)?.train;
                if let (Some(texts), Start::File(sha256)) = (&train.texts, &train.backbone.start) {
                    named.insert((sha256.clone(), train.backbone.arch.name.clone(), texts.clone()));
                }
                want(
                    world,
                    &mut asked,
                    &mut wanted,
                    (train.data, train.backbone.frame(), train.per_class, *replicate),
                    train.seed,
                )?;
            }
        }
    }
    class_names(named, world)?;
    let of = |data: Key| world.datasets.values().find(|dataset| dataset.manifest.fingerprint == data);
    let wanted: Vec<(&Dataset, Frame, Vec<usize>)> = wanted
        .into_iter()
        .filter_map(|((data, frame), indices)| Some((&**of(data)?, frame, indices.into_iter().collect())))
        .collect();
    refuse_full(&wanted, world)?;
    let mut prepared = Prepared::default();
    for (dataset, frame, indices) in wanted {
        let data = dataset.manifest.fingerprint;
        prepared.decoded += packed::prepare(dataset, frame, &indices, &world.places.cache)?;
        let path = world.places.cache.join(format!("{data}.json"));
        if !path.exists() {
            let temporary = temporary::beside(&path);
            std::fs::write(&temporary, serde_json::to_vec(&dataset.manifest)?)?;
            std::fs::rename(&temporary, &path)?;
        }
        prepared.packed.push((data, frame));
    }
    Ok(prepared)
}

/// Reads the class names that heads start from, each list of them once.
fn class_names(named: HashSet<(String, String, Texts)>, world: &World) -> anyhow::Result<()> {
    for (sha256, arch, texts) in named {
        let fact = world.facts.weights.values().find(|fact| fact.sha256 == sha256);
        let fact = fact.context("the weights of class names are gone")?;
        train::prepared_head(&texts, Path::new(&fact.path), &sha256, &arch, &world.places)?;
    }
    Ok(())
}

/// Nothing is decoded that the disk has no room for.
fn refuse_full(wanted: &[(&Dataset, Frame, Vec<usize>)], world: &World) -> anyhow::Result<()> {
    let cache = &world.places.cache;
    let bytes = |(dataset, frame, indices): &(&Dataset, Frame, Vec<usize>)| {
        packed::lacking(dataset, *frame, indices, cache).len() * packed::bytes(*frame)
    };
    let (needed, free) = (wanted.iter().map(bytes).sum::<usize>() as u64, disk_free(cache) as u64);
    // Not every filesystem says.
    anyhow::ensure!(
        needed <= free || free == 0,
        DiskFull(format!(
            "the decoded images of this experiment take {}, and the disk of '{}' has {} free",
            DecimalBytes(needed),
            cache.display(),
            DecimalBytes(free)
        ))
    );
    Ok(())
}

fn all_of(world: &World, data: Key) -> Vec<usize> {
    let dataset = world.datasets.values().find(|dataset| dataset.manifest.fingerprint == data);
    dataset.map_or_else(Vec::new, |dataset| {
        (0..dataset.manifest.samples.len()).filter(|index| dataset.manifest.samples[*index].part.is_learned()).collect()
    })
}

fn want(
    world: &World,
    asked: &mut HashSet<(Key, Frame, Option<usize>, usize)>,
    wanted: &mut BTreeMap<(Key, Frame), BTreeSet<usize>>,
    what: (Key, Frame, Option<usize>, usize),
    seed: u64,
) -> anyhow::Result<()> {
    if !asked.insert(what) {
        return Ok(());
    }
    let (data, frame, per_class, replicate) = what;
    let Some(dataset) = world.datasets.values().find(|dataset| dataset.manifest.fingerprint == data) else {
        return Ok(());
    };
    let split = split::split(&dataset.manifest, per_class, seed, replicate as u64).map_err(anyhow::Error::msg)?;
    let all = split.train.iter().copied().chain(split.evaluated());
    wanted.entry((data, frame)).or_default().extend(all.map(|index| index as usize));
    Ok(())
}
