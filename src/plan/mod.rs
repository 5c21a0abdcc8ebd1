//! From an experiment and what is known of the world to trials, stages and their cost. No threads, files or tensors.

pub mod bond;
pub mod canonical;
pub mod chain;
pub mod cost;
pub mod cross;
mod depth;
mod effect;
pub mod facts;
mod lone;
pub mod shard;
mod short;
mod solved_start;
pub mod space;
pub mod stage;
pub mod tier;
pub mod transfer;
pub mod zero_shot;

pub use canonical::own_name;
pub use facts::{DatasetFact, Facts, WeightsFact};
pub use stage::{Backbone, Encode, Pretrain, Stage, Start, Train};

use std::collections::{HashMap, HashSet};

use crate::experiment::Experiment;
use crate::experiment::problem::Problem;
use crate::key::Key;
use crate::value::Layer;
use space::{Point, Space};

/// One point of the cross, before replicates.
pub struct Cell {
    /// Every setting as the file asks for it.
    asked: Point,
    /// The settings that have an effect; what the key is made of.
    settled: Point,
    /// Of one whose budget is cut short, these as they are without that.
    uncut: Option<Point>,
    pub key: Key,
    /// Equal for cells that differ only in numbers that change neither stages nor cost.
    shape: u64,
}

impl Cell {
    /// Equal for cells that need the same stages and cost the same.
    pub fn shape(&self) -> u64 {
        self.shape
    }

    /// Whether it has but a share of its budget, on which settings are compared first.
    pub fn is_short(&self) -> bool {
        self.uncut.is_some()
    }
}

/// A replicate of a cell.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Its place among the cells; the first of those that are one configuration.
    pub cell: usize,
    pub replicate: usize,
    pub key: Key,
}

/// All cells, in the fixed order of the cross.
pub struct Plan {
    space: Space,
    /// Where settings are first compared on a share of their budget, each behind the same one with that share.
    pub cells: Vec<Cell>,
    pub replicates: usize,
    /// On how many of them the settings of an arm are compared.
    pub tune_replicates: usize,
    /// On what share of the budget they are compared first.
    pub tune_share: Option<f64>,
    /// Replicates that recipes may run on to, where rules are open.
    pub max_replicates: usize,
    /// On how many replicates cells run that are worth something else than the first comparison of settings.
    chosen: HashMap<Key, usize>,
    /// Reason and number of cells of each exclude.
    pub excluded: Vec<(String, usize)>,
    seed: u64,
    metric: crate::recipe::Metric,
    refit: bool,
    pretrain: Option<crate::experiment::Pretrain>,
}

impl Plan {
    /// Crosses, settles and keys.
    ///
    /// # Errors
    /// What only the cross and the networks can tell: an exclude that matches nothing, a layer that the backbone has
    /// not got, weights without an architecture, a class with too few images, a batch that a batch norm cannot train on.
    pub fn new(experiment: &Experiment, facts: &Facts) -> Result<Self, Vec<Problem>> {
        let mut space = Space::default();
        let (points, excluded) = cross::cross(experiment, &mut space)?;
        let cells = canonical::settle(experiment, facts, &mut space, points)?;
        let plan = Self {
            space,
            cells,
            replicates: experiment.replicates,
            tune_replicates: experiment.tune_replicates,
            tune_share: experiment.tune_share,
            max_replicates: experiment.max_replicates,
            chosen: HashMap::new(),
            excluded,
            seed: experiment.seed,
            metric: experiment.metric,
            refit: experiment.refit,
            pretrain: experiment.pretrain.clone(),
        };
        let problems = lone::found(&plan, experiment, facts);
        if problems.is_empty() { Ok(plan) } else { Err(problems) }
    }

    /// Every setting of a cell as the file asks for it: what labels and tables show.
    pub fn asked(&self, cell: &Cell) -> Layer {
        self.space.layer(&cell.asked)
    }

    /// The settings of a cell that have an effect.
    pub fn settled(&self, cell: &Cell) -> Layer {
        self.space.layer(&cell.settled)
    }

    /// The same, with the whole budget.
    pub fn uncut(&self, cell: &Cell) -> Layer {
        self.space.layer(cell.uncut.as_ref().unwrap_or(&cell.settled))
    }

    /// The cells of the cross: those with their whole budget.
    pub fn whole(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|cell| !cell.is_short())
    }

    /// Groups of cells that are one configuration, in the order of the cross; only groups of more than one.
    pub fn collapsed(&self) -> Vec<Vec<&Cell>> {
        let mut places: HashMap<Key, usize> = HashMap::new();
        let mut groups: Vec<Vec<&Cell>> = Vec::new();
        for cell in self.whole() {
            let place = *places.entry(cell.key).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[place].push(cell);
        }
        groups.retain(|group| group.len() > 1);
        groups
    }

    /// Distinct configurations.
    pub fn distinct(&self) -> usize {
        self.whole().map(|cell| cell.key).collect::<HashSet<_>>().len()
    }

    /// Says which cells are worth how many replicates; of the others only those run on which settings are compared, or none
    /// where these are compared on a share of the budget first. Whether that is something else than before.
    pub fn choose(&mut self, chosen: HashMap<Key, usize>) -> bool {
        let other = self.chosen != chosen;
        self.chosen = chosen;
        other
    }

    /// Replicates of a cell that run.
    pub fn replicates_of(&self, cell: &Cell) -> usize {
        self.worth(&self.chosen, cell.key)
    }

    /// Replicates that a cell would run by such a choice.
    pub fn worth(&self, chosen: &HashMap<Key, usize>, cell: Key) -> usize {
        let others = if self.tune_share.is_some() { 0 } else { self.tune_replicates };
        chosen.get(&cell).copied().unwrap_or(others)
    }

    /// Trials that another choice would add.
    pub fn more(&self, chosen: &HashMap<Key, usize>) -> usize {
        chosen.iter().map(|(cell, replicates)| replicates.saturating_sub(self.worth(&self.chosen, *cell))).sum()
    }

    /// Whether settings are compared on less than what is run of the best.
    pub fn compares_first(&self) -> bool {
        self.tune_replicates < self.replicates || self.tune_share.is_some()
    }

    /// The trials of `cells` that run, each distinct one once: every replicate of all cells before the next.
    pub fn trials(&self, cells: &[usize]) -> Vec<Trial> {
        let mut seen: HashSet<Key> = HashSet::new();
        let mut trials = Vec::new();
        for replicate in 0..self.max_replicates {
            for cell in cells.iter().copied().filter(|cell| replicate < self.replicates_of(&self.cells[*cell])) {
                let key = trial_key(self.cells[cell].key, replicate);
                if seen.insert(key) {
                    trials.push(Trial { cell, replicate, key });
                }
            }
        }
        trials
    }

    /// Of all cells.
    pub fn all_trials(&self) -> Vec<Trial> {
        self.trials(&(0..self.cells.len()).collect::<Vec<_>>())
    }

    /// The stages of one replicate of a cell: what must be there first, and the trial itself.
    ///
    /// # Errors
    /// A setting that cannot be read: impossible for a plan that was built.
    pub fn stages(&self, cell: &Cell, replicate: usize, facts: &Facts) -> Result<chain::Chain, String> {
        let mut reach = chain::Reach {
            seed: self.seed,
            replicates: self.max_replicates,
            metric: self.metric,
            refit: self.refit,
            per_class: None,
            pretrain: self.pretrain.as_ref(),
            twins: ["calibrate", "average", "interpolate"].iter().any(|key| self.space.knows(key)),
        };
        reach.per_class = self.widest(cell);
        chain::chain(&self.settled(cell), cell.key, replicate, &reach, facts)
    }

    /// Where a cell's backbone starts: the SHA-256 of a weight file, the key of a pretrain stage, or `random`.
    pub fn start(&self, cell: &Cell, facts: &Facts) -> String {
        match chain::start(&self.settled(cell), facts, self.pretrain.as_ref(), self.seed) {
            Ok(Start::File(sha256)) => sha256,
            Ok(Start::Pretrained(key)) => key.to_string(),
            Ok(Start::Random) | Err(_) => "random".to_owned(),
        }
    }

    /// The largest `per_class` that any cell asks of this cell's dataset: nested subsets share one encoding.
    fn widest(&self, cell: &Cell) -> Option<usize> {
        self.space.widest(&cell.settled)
    }
}

/// The key of one replicate of a cell.
pub fn trial_key(cell: Key, replicate: usize) -> Key {
    Key::of("trial", &(cell, replicate))
}
