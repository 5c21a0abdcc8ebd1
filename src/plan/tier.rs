//! Where features live: in memory, on the disk, or nowhere, computed again whenever they are read. Whichever costs least on
//! this machine (rule B3: keep what is read faster than it is computed).

use serde::{Deserialize, Serialize};

/// What this machine does in a second, measured once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Bytes of features that one slot copies out of the page cache.
    pub memory: f64,
    /// Bytes from and to the disk that holds the cache.
    pub disk_read: f64,
    pub disk_write: f64,
    /// Bytes that files may take in memory, and that are free on the disk.
    pub memory_free: f64,
    pub disk_free: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// A file that stays in the page cache.
    Memory,
    /// A file that is read from the disk each time.
    Disk,
    /// No file.
    Recompute,
}

/// What is to be kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Rows of the feature file, and bytes of one.
    pub images: f64,
    pub row: f64,
    /// Seconds of one slot in which a row is computed.
    pub compute: f64,
    /// Rows that are read over the whole sweep.
    pub reads: f64,
    /// Whether the file is there from an earlier sweep.
    pub made: bool,
}

/// A choice, and seconds of one slot for each tier; none where it cannot be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub tier: Tier,
    pub seconds: [Option<f64>; 3],
}

/// The part of free memory that features may take: workers need the rest.
const MEMORY_PART: f64 = 0.5;
/// The part of the free disk likewise.
const DISK_PART: f64 = 0.9;

impl Tier {
    pub const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Recompute];

    /// The word for it in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Recompute => "recompute",
        }
    }
}

impl Demand {
    pub fn bytes(&self) -> f64 {
        self.images * self.row
    }
}

/// Chooses for each demand in turn; what one takes is not there for the next.
pub fn choose(demands: &[Demand], machine: &Machine) -> Vec<Choice> {
    let (mut memory, mut disk) = (MEMORY_PART * machine.memory_free, DISK_PART * machine.disk_free);
    let mut choices = Vec::new();
    for demand in demands {
        let bytes = demand.bytes();
        let making = demand.images * demand.compute + bytes / machine.disk_write;
        let making = if demand.made { 0.0 } else { making };
        let kept = |rate: f64| making + demand.reads * demand.row / rate;
        let fits = bytes <= disk;
        let seconds = [
            (fits && bytes <= memory).then(|| kept(machine.memory)),
            fits.then(|| kept(machine.disk_read)),
            Some(demand.reads * demand.compute),
        ];
        let cost = |tier: &Tier| seconds[*tier as usize].unwrap_or(f64::INFINITY);
        let tier =
            Tier::ALL.into_iter().fold(Tier::Memory, |best, tier| if cost(&tier) < cost(&best) { tier } else { best });
        memory -= if tier == Tier::Memory { bytes } else { 0.0 };
        disk -= if tier == Tier::Recompute { 0.0 } else { bytes };
        choices.push(Choice { tier, seconds });
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GPU, its host's memory and a solid-state disk of the reference's table B3 (VGG19 at 224 pixels, f32).
    const MACHINE: Machine =
        Machine { memory: 25e9, disk_read: 3e9, disk_write: 3e9, memory_free: 64e9, disk_free: 1e12 };
    const BLOCK2_POOL: Demand = Demand { images: 1e4, row: 1.61e6, compute: 4.71e9 / 15e12, reads: 1e7, made: false };

    fn tier(demand: Demand, machine: Machine) -> Tier {
        choose(&[demand], &machine)[0].tier
    }

    #[test]
    fn early_maps_are_kept_in_memory_and_never_read_from_a_disk_that_is_slower_than_computing() {
        assert_eq!(tier(BLOCK2_POOL, MACHINE), Tier::Memory);
        let small = Machine { memory_free: 1e9, ..MACHINE };
        assert_eq!(tier(BLOCK2_POOL, small), Tier::Recompute);
    }

    #[test]
    fn short_codes_are_kept_wherever_there_is_room() {
        let codes = Demand { row: 2048.0, compute: 19.5e9 / 15e12, ..BLOCK2_POOL };
        assert_eq!(tier(codes, MACHINE), Tier::Memory);
        assert_eq!(tier(codes, Machine { memory_free: 1e7, ..MACHINE }), Tier::Disk);
        assert_eq!(tier(codes, Machine { memory_free: 1e7, disk_free: 1e7, ..MACHINE }), Tier::Recompute);
    }

    #[test]
    fn what_is_read_once_is_not_kept() {
        let once = Demand { reads: 1e4, ..BLOCK2_POOL };
        assert_eq!(tier(once, MACHINE), Tier::Recompute);
        assert_eq!(tier(Demand { made: true, ..once }, MACHINE), Tier::Memory, "what is there costs nothing to make");
    }

    #[test]
    fn memory_is_given_once() {
        let machine = Machine { memory_free: 2.5 * BLOCK2_POOL.bytes(), ..MACHINE };
        let tiers: Vec<Tier> = choose(&[BLOCK2_POOL; 2], &machine).iter().map(|choice| choice.tier).collect();
        assert_eq!(tiers, [Tier::Memory, Tier::Recompute]);
    }
}
