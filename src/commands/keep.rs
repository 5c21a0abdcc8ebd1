//! Whose trained networks stay when a sweep ends.

use std::collections::HashSet;

use anyhow::Context;

use super::world::World;
use crate::experiment::Experiment;
use crate::key::Key;
use crate::recipe::Keep;
use crate::report::findings::Findings;
use crate::store::Store;

/// Removes what shall not stay of an experiment's networks, once all of it has run, and says what is not there and how it comes
/// there.
///
/// # Errors
/// The folder or the store cannot be read, or a file cannot be removed.
pub fn settle(
    experiment: &Experiment,
    found: &Findings,
    world: &World,
    store: &Store,
) -> anyhow::Result<Option<String>> {
    if experiment.keep == Keep::None {
        return Ok(None);
    }
    let done = |trial: &&crate::report::arm::Trial| trial.status == "done";
    let wanted: HashSet<Key> = match experiment.keep {
        Keep::BestPerScenario => {
            let best = found.scenarios.iter().filter_map(|scenario| found.best(&scenario.name));
            best.flat_map(|(_, setting)| setting.trials.iter().map(|trial| trial.key)).collect()
        }
        _ => {
            let settings = found.arms.iter().flat_map(|arm| &arm.settings);
            settings.flat_map(|setting| setting.trials.iter().filter(done).map(|trial| trial.key)).collect()
        }
    };
    let folder = world.places.networks();
    let complete = found.counts.missing + found.counts.failed == 0;
    if complete && folder.is_dir() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read '{}'", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let key = path.file_stem().and_then(|stem| Key::parse(stem.to_str()?));
            // Those of other experiments are for these to keep.
            let own = |key: &Key| anyhow::Ok(store.experiments_of(*key)? == [experiment.name.as_str()]);
            if let Some(key) = key.filter(|key| !wanted.contains(key))
                && own(&key)?
            {
                std::fs::remove_file(&path).with_context(|| format!("cannot remove '{}'", path.display()))?;
            }
        }
    }
    let mut missing: Vec<String> =
        wanted.iter().filter(|key| !world.places.network(**key).is_file()).map(|key| key.short()).collect();
    missing.sort();
    Ok((!missing.is_empty()).then(|| {
        format!(
            "{} of {} networks to keep are not there, since these trials ran before: `tl-sweep rerun FILE {}` keeps them",
            missing.len(),
            wanted.len(),
            missing.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(" ")
        )
    }))
}
