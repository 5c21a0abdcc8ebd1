//! Takes over what another store holds: the parts of a sweep that ran on several machines, or what others have published.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use rusqlite::{Transaction, params};

use super::Store;
use super::schema::RESULTS;

/// What was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    pub experiments: Vec<String>,
    /// Trials that were not here, or had failed here.
    pub new: usize,
    /// Finished ones that are in both.
    pub known: usize,
    /// Keys of those that gave something else there, on devices of the same class; what is here stays.
    pub different: Vec<String>,
}

/// Why two stores do not go together.
#[derive(Debug)]
pub struct Apart(pub String);

impl std::error::Error for Apart {}

impl std::fmt::Display for Apart {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tables whose rows say the same in every store, or say it of no sweep.
const SAME: [&str; 5] = ["dataset", "sample", "split", "near_duplicate", "audit"];
/// What goes with a trial, each with the column that holds its key.
const OF_TRIALS: [(&str, &str); 4] =
    [("trial", "key"), ("curve", "trial"), ("prediction", "trial"), ("shifted", "trial")];

const FINISHED: &str = "status IN ('done', 'diverged')";

impl Store {
    /// Takes over everything that the store at `path` holds and this one does not; all of it or, on an error, nothing.
    /// `mixes` says of an experiment's text whether results of several numerics classes may stand in it.
    ///
    /// # Errors
    /// `Apart`: an experiment of one name has other trials there, or results of another class. `Unusable`: it cannot be read.
    pub fn merge(&mut self, path: &Path, mixes: impl Fn(&str) -> bool) -> anyhow::Result<Merged> {
        // Says what is wrong with it: not there, of another version.
        drop(Self::read(path)?);
        let name = path.to_str().context("a path that is no UTF-8")?;
        self.connection.execute("ATTACH ? AS other", [name])?;
        let merged = self.take(&mixes);
        self.connection.execute_batch("DETACH other")?;
        merged
    }

    fn take(&mut self, mixes: &impl Fn(&str) -> bool) -> anyhow::Result<Merged> {
        let transaction = self.connection.transaction()?;
        let experiments = experiments(&transaction, mixes)?;
        for table in SAME {
            transaction.execute(&format!("INSERT OR IGNORE INTO main.{table} SELECT * FROM other.{table}"), [])?;
        }
        sweeps(&transaction, &experiments)?;
        let mut merged = trials(&transaction)?;
        transaction.execute_batch("DROP TABLE temp.new_sweep; DROP TABLE temp.new_trial;")?;
        transaction.commit()?;
        merged.experiments = experiments.into_values().map(|(name, _)| name).collect();
        Ok(merged)
    }
}

/// Takes over experiments that are not here, with their cells. Returns name and own number of each of the other's.
fn experiments(
    transaction: &Transaction,
    mixes: &impl Fn(&str) -> bool,
) -> anyhow::Result<BTreeMap<i64, (String, i64)>> {
    let mut statement = transaction.prepare("SELECT id, name, text FROM other.experiment ORDER BY id")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let all: Vec<(i64, String, String)> = rows.collect::<Result<_, _>>()?;
    let mut found = BTreeMap::new();
    for (other, name, text) in all {
        let own: Vec<i64> = transaction
            .prepare("SELECT id FROM main.experiment WHERE name = ?")?
            .query_map([&name], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let own = match own.first() {
            Some(own) => *own,
            None => new_experiment(transaction, other)?,
        };
        same_trials(transaction, &name, own, other)?;
        if !mixes(&text) {
            one_class(transaction, &name, own)?;
        }
        found.insert(other, (name, own));
    }
    Ok(found)
}

fn new_experiment(transaction: &Transaction, other: i64) -> anyhow::Result<i64> {
    let columns = columns(transaction, "experiment", &["id"])?;
    let copy = format!("INSERT INTO main.experiment ({columns}) SELECT {columns} FROM other.experiment WHERE id = ?");
    transaction.execute(&copy, [other])?;
    let own = transaction.last_insert_rowid();
    for table in ["cell", "planned"] {
        let columns = self::columns(transaction, table, &["experiment"])?;
        let copy = format!(
            "INSERT INTO main.{table} (experiment, {columns}) SELECT ?, {columns} FROM other.{table} WHERE experiment = ?"
        );
        transaction.execute(&copy, [own, other])?;
    }
    Ok(own)
}

/// An experiment has the same trials in both stores: they come from one file, or from files that ask for the same. Later
/// replicates than those on which settings are compared are planned where it is known which is selected, and the whole budget
/// behind a share of it where it is known which settings are worth it; here then, too.
fn same_trials(transaction: &Transaction, name: &str, own: i64, other: i64) -> anyhow::Result<()> {
    let repeats = |store: &str, id: i64| -> anyhow::Result<([i64; 3], Option<f64>)> {
        let text = format!(
            "SELECT replicates, coalesce(tune_replicates, replicates), coalesce(max_replicates, replicates), tune_share \
             FROM {store}.experiment WHERE id = {id}"
        );
        Ok(transaction.query_row(&text, [], |row| Ok(([row.get(0)?, row.get(1)?, row.get(2)?], row.get(3)?)))?)
    };
    let (own_repeats, other_repeats) = (repeats("main", own)?, repeats("other", other)?);
    let first = if own_repeats == other_repeats { own_repeats.0[1] } else { i64::MAX };
    let planned = |store: &str, id: i64| {
        format!(
            "SELECT replicate, trial FROM {store}.planned AS own WHERE experiment = {id} AND replicate < {first} AND NOT EXISTS \
             (SELECT 1 FROM {store}.planned AS short JOIN {store}.cell ON cell.experiment = {id} AND cell.position = short.position \
             WHERE short.experiment = {id} AND short.position = own.position - 1 AND cell.tune_share IS NOT NULL)"
        )
    };
    let lacks = |one: &str, other: &str| -> anyhow::Result<i64> {
        Ok(transaction.query_row(&format!("SELECT count(*) FROM ({one} EXCEPT {other})"), [], |row| row.get(0))?)
    };
    let (here, there) = (planned("main", own), planned("other", other));
    let (more, less) = (lacks(&there, &here)?, lacks(&here, &there)?);
    anyhow::ensure!(
        more == 0 && less == 0,
        Apart(format!(
            "its experiment '{name}' is another one: {more} of its trials are not planned here, and {less} of those here not there. \
             Other settings, data, weights or another version of the program make other trials; run the same file, or use another --db"
        ))
    );
    let later = "INSERT OR IGNORE INTO main.planned (experiment, position, replicate, trial)
                 SELECT here.experiment, here.position, planned.replicate, planned.trial FROM other.planned AS planned
                 JOIN other.cell AS there ON there.experiment = planned.experiment AND there.position = planned.position
                 JOIN main.cell AS here ON here.experiment = ? AND here.key = there.key AND here.tune_share IS there.tune_share
                 WHERE planned.experiment = ?";
    transaction.execute(later, [own, other])?;
    Ok(())
}

fn one_class(transaction: &Transaction, name: &str, own: i64) -> anyhow::Result<()> {
    let classes = |store: &str| {
        format!(
            "SELECT DISTINCT numerics FROM {store}.trial
             WHERE {FINISHED} AND key IN (SELECT trial FROM main.planned WHERE experiment = {own})"
        )
    };
    let both = format!("{} UNION {}", classes("main"), classes("other"));
    let mut statement = transaction.prepare(&both)?;
    let found: BTreeSet<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let list: Vec<&str> = found.iter().map(String::as_str).collect();
    anyhow::ensure!(
        list.len() < 2,
        Apart(format!(
            "'{name}' would hold results of {}, which may differ in the last digits: set mix_numerics = true under \
             [experiment] in the file that all machines run, or use another --db",
            list.join(" and ")
        ))
    );
    Ok(())
}

/// Takes over sweeps that are not here, and notes the numbers that they have here.
fn sweeps(transaction: &Transaction, experiments: &BTreeMap<i64, (String, i64)>) -> anyhow::Result<()> {
    transaction.execute_batch("CREATE TEMP TABLE new_sweep (other INTEGER PRIMARY KEY, own INTEGER NOT NULL)")?;
    let columns = columns(transaction, "sweep", &["id", "experiment"])?;
    let same: Vec<String> = columns.split(", ").map(|name| format!("here.{name} IS there.{name}")).collect();
    let known = format!(
        "SELECT here.id FROM main.sweep AS here, other.sweep AS there WHERE there.id = ? AND here.experiment = ? AND {}",
        same.join(" AND ")
    );
    let copy =
        format!("INSERT INTO main.sweep (experiment, {columns}) SELECT ?, {columns} FROM other.sweep WHERE id = ?");
    let mut statement = transaction.prepare("SELECT id, experiment FROM other.sweep ORDER BY id")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    for row in rows.collect::<Result<Vec<_>, _>>()? {
        let (sweep, experiment) = row;
        let Some((_, own_experiment)) = experiments.get(&experiment) else { continue };
        let mut known = transaction.prepare_cached(&known)?;
        let mut found = known.query_map([sweep, *own_experiment], |row| row.get::<_, i64>(0))?;
        let own = match found.next().transpose()? {
            Some(own) => own,
            None => {
                transaction.execute(&copy, [*own_experiment, sweep])?;
                transaction.last_insert_rowid()
            }
        };
        transaction.execute("INSERT INTO temp.new_sweep VALUES (?, ?)", params![sweep, own])?;
    }
    Ok(())
}

/// Takes over trials that are not finished here, and compares those that are finished in both.
fn trials(transaction: &Transaction) -> anyhow::Result<Merged> {
    let different = different(transaction)?;
    let known = format!(
        "SELECT count(*) FROM main.trial AS here JOIN other.trial AS there USING (key) WHERE here.{FINISHED} AND there.{FINISHED}"
    );
    let known = transaction.query_row(&known, [], |row| row.get(0))?;
    transaction.execute_batch(&format!(
        "CREATE TEMP TABLE new_trial AS SELECT key FROM other.trial AS there WHERE NOT EXISTS (
           SELECT 1 FROM main.trial AS here WHERE here.key = there.key AND (here.{FINISHED} OR NOT there.{FINISHED}))"
    ))?;
    for (table, key) in OF_TRIALS {
        let new = format!("WHERE {key} IN (SELECT key FROM temp.new_trial)");
        transaction.execute(&format!("DELETE FROM main.{table} {new}"), [])?;
        transaction.execute(&format!("INSERT INTO main.{table} SELECT * FROM other.{table} {new}"), [])?;
    }
    let own = "coalesce((SELECT own FROM temp.new_sweep WHERE other = sweep), sweep)";
    transaction
        .execute(&format!("UPDATE main.trial SET sweep = {own} WHERE key IN (SELECT key FROM temp.new_trial)"), [])?;
    let columns = columns(transaction, "stage", &["sweep"])?;
    let copy = format!("INSERT OR IGNORE INTO main.stage ({columns}, sweep) SELECT {columns}, {own} FROM other.stage");
    transaction.execute(&copy, [])?;
    let new = format!("SELECT count(*) FROM temp.new_trial JOIN main.trial USING (key) WHERE {FINISHED}");
    let new = transaction.query_row(&new, [], |row| row.get(0))?;
    Ok(Merged { experiments: Vec::new(), new, known, different })
}

/// Finished trials of one class that have other results or other answers there.
fn different(transaction: &Transaction) -> anyhow::Result<Vec<String>> {
    let both = format!(
        "main.trial AS here JOIN other.trial AS there ON here.key = there.key
         AND here.{FINISHED} AND there.{FINISHED} AND here.numerics = there.numerics"
    );
    let other: Vec<String> = RESULTS.iter().map(|name| format!("here.{name} IS NOT there.{name}")).collect();
    let answers = "SELECT 1 FROM main.prediction AS own JOIN other.prediction AS new ON own.trial = new.trial AND own.part = new.part
                   WHERE own.trial = here.key AND (own.predicted IS NOT new.predicted OR own.probability IS NOT new.probability)";
    let text = format!("SELECT here.key FROM {both} WHERE {} OR EXISTS ({answers}) ORDER BY 1", other.join(" OR "));
    let mut statement = transaction.prepare(&text)?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// The columns of a table but for some, as SQL lists them.
fn columns(transaction: &Transaction, table: &str, without: &[&str]) -> anyhow::Result<String> {
    let mut statement = transaction.prepare("SELECT name FROM pragma_table_info(?)")?;
    let names: Vec<String> = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let names: Vec<String> = names.into_iter().filter(|name| !without.contains(&name.as_str())).collect();
    Ok(names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_taken_over() {
        let one_by_one = ["experiment", "cell", "planned", "sweep", "stage"];
        let mut own: Vec<&str> = SAME.into_iter().chain(OF_TRIALS.map(|(table, _)| table)).chain(one_by_one).collect();
        own.sort_unstable();
        assert_eq!(crate::store::tests::tables(), own);
    }
}
