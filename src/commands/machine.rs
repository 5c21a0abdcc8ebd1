//! What this machine does in a second: each rate is measured when it is first asked for, and kept beside the cache.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::devices::Devices;
use super::gauge::Gauge;
use super::host;
use crate::plan::tier::Machine;
use crate::temporary;
use crate::train::pace::{Effort, Subject};

/// Bytes that are written and read to measure the disk.
const PROBE: usize = 64 << 20;

/// Multiply-accumulates per second of a device that could not be measured.
const GUESS: f64 = 1e11;

/// The rates of this machine, known or measured.
pub struct Rates {
    cache: PathBuf,
    known: RefCell<Measured>,
    /// What computes, where rates are measured, and what measures the first of them, once it was asked.
    devices: Option<Devices>,
    gauge: RefCell<Option<Gauge>>,
    /// Whether it could not measure something.
    guesses: Cell<bool>,
}

/// What was measured, and on which machine: another one measures anew.
#[derive(Default, Serialize, Deserialize)]
struct Measured {
    machine: String,
    disks: Option<Machine>,
    /// Multiply-accumulates per second of one slot, by what runs.
    paces: BTreeMap<String, f64>,
}

impl Rates {
    /// Those that are kept in `cache`, for now, of what computes on `devices`.
    pub fn open(cache: &Path, devices: &Devices) -> Self {
        let text = std::fs::read(cache.join("machine.json")).ok();
        let kept = text.and_then(|text| serde_json::from_slice::<Measured>(&text).ok());
        let own = name(devices);
        let known =
            kept.filter(|kept| kept.machine == own).unwrap_or_else(|| Measured { machine: own, ..Measured::default() });
        let (known, gauge, guesses) = (RefCell::new(known), RefCell::default(), Cell::default());
        Self { cache: cache.to_owned(), known, devices: Some(devices.clone()), gauge, guesses }
    }

    /// For those who ask what there is to do, and not how long it takes: every rate is one a second.
    pub fn unmeasured(cache: &Path) -> Self {
        let (known, gauge, guesses) = (RefCell::default(), RefCell::default(), Cell::default());
        Self { cache: cache.to_owned(), known, devices: None, gauge, guesses }
    }

    /// Memory and disk. What is free is always looked up.
    pub fn machine(&self) -> Machine {
        let mut known = self.known.borrow_mut();
        let mut machine = *known.disks.get_or_insert_with(|| {
            if self.devices.is_none() {
                return Machine { memory: 1.0, disk_read: 1.0, disk_write: 1.0, memory_free: 0.0, disk_free: 0.0 };
            }
            // Where nothing can be written, nothing will be kept.
            let (disk_write, disk_read) = disk(&self.cache).unwrap_or((1e6, 1e6));
            Machine { memory: memory(), disk_read, disk_write, memory_free: 0.0, disk_free: 0.0 }
        });
        machine.memory_free = host::memory_free();
        machine.disk_free = disk_free(&self.cache);
        machine
    }

    /// Multiply-accumulates per second of one slot at what is asked for.
    ///
    /// # Errors
    /// The process that measures cannot be started.
    pub fn pace(&self, subject: &Subject) -> anyhow::Result<f64> {
        if self.devices.is_none() {
            return Ok(1.0);
        }
        self.known(self.name_of(subject), || self.gauged(1, subject))
    }

    /// How much faster so many streams of a GPU are together at some work than one of them.
    ///
    /// # Errors
    /// As `pace`.
    pub fn gain(&self, lanes: usize, subject: &Subject) -> anyhow::Result<f64> {
        if lanes < 2 {
            return Ok(1.0);
        }
        let name = format!("{}, {lanes} at once", self.name_of(subject));
        let together = self.known(name, || self.gauged(lanes, subject))?;
        if self.guesses.get() {
            return Ok(1.0);
        }
        Ok((together / self.pace(subject)?).max(1.0))
    }

    /// What a rate is of.
    fn name_of(&self, subject: &Subject) -> String {
        let gpu = self.devices.as_ref().is_some_and(|devices| devices.uuid().is_some());
        let graph = &subject.graph;
        let what = match subject.effort {
            Effort::Heads => return "linear heads".to_owned(),
            Effort::Forward => "forward",
            Effort::Training => "training",
        };
        let network = format!("{}, {:.1} MFLOP, {what}", graph.arch, 2e-6 * graph.total_macs() as f64);
        if gpu { format!("{network}, {} images, {}", subject.batch, subject.precision.name()) } else { network }
    }

    fn known(&self, name: String, measure: impl FnOnce() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
        if let Some(pace) = self.known.borrow().paces.get(&name) {
            return Ok(*pace);
        }
        let pace = measure()?;
        if !self.guesses.get() {
            self.known.borrow_mut().paces.insert(name, pace);
        }
        Ok(pace)
    }

    /// A device that cannot be measured cannot be used either, as a rule: its workers say what is wrong, and how it ends.
    fn gauged(&self, lanes: usize, subject: &Subject) -> anyhow::Result<f64> {
        let Some(devices) = &self.devices else { return Ok(1.0) };
        let mut gauge = self.gauge.borrow_mut();
        let gauge = match &mut *gauge {
            Some(gauge) => gauge,
            empty => empty.insert(Gauge::start(devices)?),
        };
        gauge.pace(lanes, subject).or_else(|error| {
            if !self.guesses.replace(true) {
                eprintln!("{}: its speed cannot be measured, and times are a guess: {error:#}", devices.first());
            }
            Ok(GUESS)
        })
    }

    /// Ends what measures, so that a GPU is free for others.
    pub fn rest(&self) {
        self.gauge.replace(None);
    }

    /// Keeps what is known for the next time, in a cache that is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self) -> anyhow::Result<()> {
        let path = self.cache.join("machine.json");
        let text = serde_json::to_vec_pretty(&*self.known.borrow())?;
        std::fs::write(&path, text).with_context(|| format!("cannot write '{}'", path.display()))
    }
}

fn name(devices: &Devices) -> String {
    let gpus = devices.models().map_or_else(String::new, |models| format!(", {models}"));
    let path = crate::device::CpuPath::current().name();
    format!("{}, {} threads, {path}{gpus}", host::processor(), host::threads())
}

/// Bytes per second at which rows are copied.
fn memory() -> f64 {
    let from = vec![1u8; PROBE];
    let mut into = vec![0u8; PROBE];
    let rate = |_: usize| {
        let start = Instant::now();
        into.copy_from_slice(&from);
        std::hint::black_box(&into);
        PROBE as f64 / start.elapsed().as_secs_f64()
    };
    (0..4).map(rate).fold(0.0, f64::max)
}

/// Bytes per second to and from the disk, past the page cache.
fn disk(cache: &Path) -> std::io::Result<(f64, f64)> {
    // The folder may not be there before the first sweep; what holds it is of the same disk.
    let place = cache.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("."));
    let path = temporary::beside(&place.join("probe"));
    let rates = probe(&path);
    std::fs::remove_file(&path)?;
    rates
}

fn probe(path: &Path) -> std::io::Result<(f64, f64)> {
    let mut bytes = vec![0u8; PROBE];
    // Zeros might be stored as nothing.
    bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = ((index * 2_654_435_761) >> 7) as u8);
    let start = Instant::now();
    let mut file = std::fs::File::create(path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    let write = PROBE as f64 / start.elapsed().as_secs_f64();
    let mut file = std::fs::File::open(path)?;
    past_the_cache(&file)?;
    let start = Instant::now();
    file.read_exact(&mut bytes)?;
    Ok((write, PROBE as f64 / start.elapsed().as_secs_f64()))
}

/// Makes reading a file ask the disk.
#[cfg(target_vendor = "apple")]
fn past_the_cache(file: &std::fs::File) -> std::io::Result<()> {
    Ok(rustix::fs::fcntl_nocache(file, true)?)
}

#[cfg(not(target_vendor = "apple"))]
fn past_the_cache(file: &std::fs::File) -> std::io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Bytes that a disk still takes.
pub fn disk_free(cache: &Path) -> f64 {
    let place = cache.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("."));
    rustix::fs::statvfs(place).map_or(0.0, |facts| facts.f_bavail as f64 * facts.f_frsize as f64)
}
