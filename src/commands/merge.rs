//! `merge STORE...`: takes over what other stores hold, the parts of a sweep on several machines or a bundle, and compares
//! what is in both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::bundle::Bundle;
use super::{Exit, Usage, print};
use crate::cli::Common;
use crate::experiment::mixes_numerics;
use crate::store::merge::{Apart, Merged};
use crate::store::{Store, network_of};

/// At most so many trials are named.
const NAMED: usize = 5;

pub fn run(stores: &[PathBuf], common: &Common) -> anyhow::Result<Exit> {
    let own = common.db.canonicalize().ok();
    let itself = stores.iter().find(|path| own.is_some() && path.canonicalize().ok() == own);
    if let Some(path) = itself {
        return Err(Usage(format!("'{}' is the store that is merged into (--db)", path.display())).into());
    }
    if let Some(path) = stores.iter().find(|path| !path.exists()) {
        return Err(Usage(format!("there is nothing at '{}'", path.display())).into());
    }
    let mut store = Store::open(&common.db)?;
    let (mut experiments, mut different) = (BTreeSet::new(), 0);
    for path in stores {
        let merged = take(&mut store, path)?;
        print(&format!("{}: {}", path.display(), words(&merged)))?;
        different += merged.different.len();
        experiments.extend(merged.experiments);
    }
    for row in store.overview()? {
        let get = |column: &str| row.get(column).map_or("0", String::as_str);
        if experiments.contains(get("name")) {
            let name = get("name");
            let rest = if get("done") == get("trials") {
                format!("`tl-sweep report {name}` shows them")
            } else {
                "`tl-sweep run FILE` runs the rest".to_owned()
            };
            print(&format!("{name}: {} of {} trials are here; {rest}", get("done"), get("trials")))?;
        }
    }
    Ok(if different > 0 { Exit::Mismatch } else { Exit::Complete })
}

fn take(store: &mut Store, path: &Path) -> anyhow::Result<Merged> {
    let bundle = if Bundle::is_one(path) { Some(Bundle::open(path)?) } else { None };
    let folder = tempfile::tempdir()?;
    let file = match &bundle {
        Some(bundle) => bundle.store(),
        // SQLite would want shared memory there.
        None if network_of(path).is_some() => {
            let copy = folder.path().join("store.sqlite");
            std::fs::copy(path, &copy)?;
            copy
        }
        None => path.to_owned(),
    };
    store.merge(&file, mixes_numerics).map_err(|error| match error.downcast_ref::<Apart>() {
        Some(apart) => Usage(format!("'{}' cannot be merged: {apart}", path.display())).into(),
        None => error,
    })
}

fn words(merged: &Merged) -> String {
    let mut text = format!("{} trials new, {} known", merged.new, merged.known);
    if !merged.different.is_empty() {
        let named: Vec<&str> = merged.different.iter().take(NAMED).map(|key| &key[..12]).collect();
        let more = merged.different.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        text.push_str(&format!(
            ", {} of them with other results there, though of one class: {}{more}; what is here stays",
            merged.different.len(),
            named.join(", ")
        ));
    }
    text
}
