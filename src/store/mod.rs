//! The store: one SQLite file, one writer. The only folder that knows SQL.

pub mod answers;
pub mod merge;
pub mod near;
pub mod part;
pub mod query;
pub mod record;
pub mod schema;
pub mod shifted;
pub mod splits;
pub mod standing;
pub mod sweeps;

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// Why a store cannot be used; the program ends with 7.
#[derive(Debug)]
pub struct Unusable(pub String);

impl std::error::Error for Unusable {}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

pub struct Store {
    connection: Connection,
    /// Held by the one process that writes, for as long as it lives; the system lets go of it even after kill -9.
    _lock: Option<std::fs::File>,
    /// Of datasets whose test answers have been read.
    truths: answers::Truths,
}

impl Store {
    /// Opens for writing, and makes or migrates the tables. Only one process may hold a store like this.
    ///
    /// # Errors
    /// `Unusable`: on a network filesystem, locked by another sweep, of a newer version, or no database.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|error| Unusable(format!("cannot create '{}': {error}", folder.display())))?;
            refuse_network(folder)?;
        }
        let lock = lock(path)?;
        let refused = |error: rusqlite::Error| unusable(&shown, &error);
        let connection = Connection::open(path).map_err(refused)?;
        connection.busy_timeout(Duration::from_millis(500)).map_err(refused)?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
            .map_err(refused)?;
        let store = Self { connection, _lock: Some(lock), truths: answers::Truths::default() };
        store.migrate(&shown)?;
        Ok(store)
    }

    /// Opens for reading only.
    ///
    /// # Errors
    /// There is no store at `path`, or it is `Unusable`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        anyhow::ensure!(
            path.exists(),
            Unusable(format!("there is no store at '{shown}' (`tl-sweep run FILE` makes one; --db names another)"))
        );
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(|error| unusable(&shown, &error))?;
        connection.busy_timeout(Duration::from_secs(10))?;
        let store = Self { connection, _lock: None, truths: answers::Truths::default() };
        let version = store.version(&shown)?;
        anyhow::ensure!(version == schema::MIGRATIONS.len(), newer_or_older(&shown, version));
        Ok(store)
    }

    fn version(&self, shown: &str) -> anyhow::Result<usize> {
        let version: i64 = self
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(|error| unusable(shown, &error))?;
        Ok(usize::try_from(version).unwrap_or(usize::MAX))
    }

    fn migrate(&self, shown: &str) -> anyhow::Result<()> {
        let version = self.version(shown)?;
        anyhow::ensure!(version <= schema::MIGRATIONS.len(), newer_or_older(shown, version));
        for index in version..schema::MIGRATIONS.len() {
            let text =
                format!("BEGIN IMMEDIATE; {} PRAGMA user_version = {}; COMMIT;", schema::migration(index), index + 1);
            self.connection.execute_batch(&text).map_err(|error| unusable(shown, &error))?;
        }
        for (name, kind, meaning) in schema::COLUMNS {
            self.connection
                .execute("INSERT OR REPLACE INTO column_kind VALUES (?, ?, ?)", (name, kind, meaning))
                .map_err(|error| unusable(shown, &error))?;
        }
        Ok(())
    }
}

/// Takes the lock file beside the store, so that two sweeps never write to one.
fn lock(path: &Path) -> anyhow::Result<std::fs::File> {
    let shown = path.display();
    let beside = path.with_extension("lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&beside);
    let file = file.map_err(|error| Unusable(format!("cannot write '{}': {error}", beside.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => anyhow::bail!(Unusable(format!(
            "another sweep is writing to the store '{shown}': wait for it, or use another --db"
        ))),
    }
}

fn newer_or_older(shown: &str, version: usize) -> Unusable {
    let own = schema::MIGRATIONS.len();
    Unusable(format!(
        "the store '{shown}' has schema {version}, this program reads {own}: {}",
        if version > own { "use a newer tl-sweep" } else { "`run` brings it up to date" }
    ))
}

fn unusable(shown: &str, error: &rusqlite::Error) -> Unusable {
    let cure = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            "another sweep is writing to it: wait for it, or use another --db"
        }
        Some(rusqlite::ErrorCode::NotADatabase) => "it is no SQLite database",
        _ => "check the path and its permissions",
    };
    Unusable(format!("the store '{shown}' cannot be used: {cure} ({error})"))
}

/// The network filesystem that something lies on, if it does.
pub fn network_of(path: &Path) -> Option<String> {
    rustix::fs::statfs(path).ok().and_then(|facts| network(&facts))
}

/// SQLite's write-ahead log needs shared memory, which network filesystems have not got.
fn refuse_network(folder: &Path) -> anyhow::Result<()> {
    if let Some(name) = network_of(folder) {
        anyhow::bail!(Unusable(format!(
            "'{}' lies on a network filesystem ({name}), where SQLite's write-ahead log does not work: put the store on a local disk with --db",
            folder.display()
        )));
    }
    Ok(())
}

/// Which network filesystem it is, if it is one, by the numbers of Linux.
#[cfg(not(target_vendor = "apple"))]
fn network(facts: &rustix::fs::StatFs) -> Option<String> {
    const NETWORK: [(u32, &str); 8] = [
        (0x6969, "NFS"),
        (0xFF53_4D42, "SMB"),
        (0xFE53_4D42, "SMB2"),
        (0x517B, "SMB"),
        (0x0BD0_0BD0, "Lustre"),
        (0x4750_4653, "GPFS"),
        (0x00C3_6400, "Ceph"),
        (0x0102_1997, "9P"),
    ];
    #[allow(clippy::unnecessary_cast, reason = "the type of f_type differs between targets")]
    let kind = facts.f_type as u64 as u32;
    NETWORK.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| (*name).to_owned())
}

/// The same on a Mac, which says by itself what is not local, and names it.
#[cfg(target_vendor = "apple")]
fn network(facts: &rustix::fs::StatFs) -> Option<String> {
    /// `MNT_LOCAL` of macOS' sys/mount.h.
    const LOCAL: u32 = 0x1000;
    let name = facts.f_fstypename.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8 as char).collect();
    (facts.f_flags & LOCAL == 0).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of a store, sorted, but for the one that describes columns.
    pub fn tables() -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("all.sqlite")).expect("a store");
        let text = "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'column_kind' ORDER BY name";
        let mut statement = store.connection.prepare(text).expect("SQL");
        statement.query_map([], |row| row.get(0)).expect("rows").map(|name| name.expect("a name")).collect()
    }
}
