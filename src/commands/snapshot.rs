//! What a running sweep lets others see of it: a small file beside the store, for `watch`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The file is not written more often.
const PERIOD: Duration = Duration::from_millis(500);

/// How far a sweep is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Later ones only add to it.
    pub version: u32,
    pub experiment: String,
    /// Of the process that runs it.
    pub pid: i32,
    /// Seconds since it began; while data are read and devices measured there are no stages yet.
    pub seconds: f64,
    /// 0 to 1, by predicted cost.
    pub share: f64,
    pub stages: usize,
    pub finished: usize,
    pub seconds_left: f64,
    /// A line for each group that runs.
    pub running: Vec<String>,
    pub failed: Vec<String>,
}

impl Snapshot {
    fn path(db: &Path) -> PathBuf {
        db.with_extension("progress.json")
    }

    /// That of the sweep that runs on the store; none if none does.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(db: &Path) -> anyhow::Result<Option<Self>> {
        let path = Self::path(db);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read '{}'", path.display()))?,
        };
        let snapshot: Self =
            serde_json::from_slice(&text).with_context(|| format!("'{}' is damaged", path.display()))?;
        // A killed process leaves its file.
        let pid = rustix::process::Pid::from_raw(snapshot.pid);
        let alive = |pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH);
        Ok(pid.is_some_and(alive).then_some(snapshot))
    }
}

/// Writes snapshots for as long as it lives.
pub struct Beacon {
    path: PathBuf,
    begun: Instant,
    last: Option<Instant>,
    experiment: String,
}

impl Beacon {
    /// Says that a sweep begins.
    pub fn light(db: &Path, experiment: &str) -> Self {
        let mut beacon =
            Self { path: Snapshot::path(db), begun: Instant::now(), last: None, experiment: experiment.to_owned() };
        beacon.show(Snapshot::default);
        beacon
    }

    /// Shows how far it is, unless that was just done. A disk that is full stops no sweep: the store says what is wrong.
    pub fn show(&mut self, state: impl FnOnce() -> Snapshot) {
        if self.last.is_some_and(|last| last.elapsed() < PERIOD) {
            return;
        }
        self.last = Some(Instant::now());
        let snapshot = Snapshot {
            version: 1,
            experiment: self.experiment.clone(),
            pid: rustix::process::getpid().as_raw_pid(),
            seconds: self.begun.elapsed().as_secs_f64(),
            ..state()
        };
        let temporary = self.path.with_extension("tmp");
        if let Ok(text) = serde_json::to_vec(&snapshot)
            && std::fs::write(&temporary, text).is_ok()
        {
            _ = std::fs::rename(&temporary, &self.path);
        }
    }
}

impl Drop for Beacon {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.path);
    }
}
