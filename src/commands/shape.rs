//! What the cells of one structure have in common: what a trial of theirs costs, how fast it runs here, and the stages that
//! stand before it.

use super::jobs::{Kept, weight_file};
use super::world::World;
use crate::key::Key;
use crate::plan::chain::Chain;
use crate::plan::cost::{self, Cost, Pass, TrialCost};
use crate::plan::stage::{Encode, Stage, Work};
use crate::plan::tier::Tier;
use crate::plan::{Cell, Plan, bond};
use crate::train::pace::{Effort, Subject};

/// What cells of one structure have in common: cost, and the stages before them.
#[derive(Clone)]
pub struct Shape {
    pub cost: TrialCost,
    /// What solving the head that its trials start from takes, once for each replicate.
    pub start: Option<(Key, f64)>,
    pub pretrain: Option<(Work, Cost)>,
    /// With the images that it encodes.
    pub encode: Option<(Encode, Cost, f64)>,
    pub weights: Option<std::path::PathBuf>,
    pub bond: Bond,
    /// Of each phase, where trials may have a beginning in common.
    pub legs: Vec<f64>,
    /// Of its frozen layers, as far as trials share them.
    pub passes: Vec<Pass>,
    pub probe: bool,
    pub pace: Pace,
    /// Memory of its parameters in training.
    pub bytes: f64,
}

/// Multiply-accumulates per second of one slot.
#[derive(Clone, Copy)]
pub struct Pace {
    pub forward: f64,
    /// Of what the trial does above what it shares.
    pub own: f64,
    /// Of all of it.
    pub alone: f64,
    /// Of training the source model, if there is one.
    pub source: f64,
}

#[derive(Clone, Copy)]
pub enum Bond {
    None,
    /// The same for all cells of the shape, but for the replicate.
    Shape(Key),
    /// To be worked out for each trial.
    Cell,
}

impl Shape {
    pub fn of(plan: &Plan, cell: &Cell, world: &World) -> Result<Self, String> {
        let chain = Kept::default().chain(plan.stages(cell, 0, &world.facts)?, world);
        let train = &chain.train;
        let data =
            world.facts.datasets.values().find(|data| data.fingerprint == train.data).ok_or("no such dataset")?;
        let counts = data.counts(train.per_class)?;
        let mut cost = cost::trial(train, counts)?;
        let start = cost::start(train, counts, chain.stores_all())?.filter(|_| world.share);
        if !chain.prefix {
            // One by one, each solves its own.
            let apart = start.map_or(0.0, |(_, macs)| macs);
            (cost.shared, cost.lockstep) = (cost.alone - apart, 0.0);
        }
        let weights = weight_file(&train.backbone.start, world);
        let pretrain = cost::pretrain(&chain, &world.facts)?.map(|(stage, cost)| {
            (Work { stage, pretrain: None, encode: None, prefix: false, weights: None, keep: None }, cost)
        });
        let encode = match &chain.encode {
            Some(stage) => {
                let images = world.encoded(stage)?;
                Some((stage.clone(), cost::encode(stage, train, images)?, images as f64))
            }
            None => None,
        };
        let branches = chain.branches;
        let bond = match bond::of_trial(&chain) {
            _ if !world.share => Bond::None,
            Some(bond) if !branches => Bond::Shape(bond),
            None if !branches => Bond::None,
            _ => Bond::Cell,
        };
        let (network, _) = train.network()?;
        let params: usize = network.total_params();
        let probe = Stage::Train(Box::new(train.clone())).kind() == "probe";
        // The numbers, their gradients and what an optimiser remembers of them.
        let bytes = if probe { 0.0 } else { 16.0 * params as f64 };
        let pace = Pace::of(&chain, probe, world).map_err(|error| format!("{error:#}"))?;
        let legs = if branches { cost::legs(train, counts, chain.prefix)? } else { Vec::new() };
        let passes = if chain.prefix { cost::passes(train, counts)? } else { Vec::new() };
        Ok(Self { cost, start, passes, pretrain, encode, weights, bond, legs, probe, pace, bytes })
    }

    pub fn bond_of(&self, replicate: usize) -> Option<Key> {
        match self.bond {
            Bond::Shape(bond) => Some(Key::of("bond", &(bond, replicate))),
            _ => None,
        }
    }

    /// A fixed order: of the encodings, whose memory is given out in it.
    pub fn order(&self) -> Option<Key> {
        self.encode.as_ref().map(|(stage, ..)| Key::of("encode", stage))
    }

    pub fn stored(&self, kept: &Kept) -> Option<&(Encode, Cost, f64)> {
        self.encode.as_ref().filter(|(stage, ..)| {
            kept.0.get(&Key::of("encode", stage)).is_none_or(|known| known.choice.tier != Tier::Recompute)
        })
    }
}

impl Pace {
    fn of(chain: &Chain, probe: bool, world: &World) -> anyhow::Result<Self> {
        let subject = |stage| Subject::of(&stage).map_err(anyhow::Error::msg);
        let training = subject(Stage::Train(Box::new(chain.train.clone())))?;
        let shares = chain.encode.is_some() || chain.prefix;
        let forward = world.rates.pace(&training.doing(Effort::Forward))?;
        let (own, alone) = match probe {
            // With nothing to share, a probe runs its frozen layers all the time.
            true if world.share => (world.rates.pace(&training.doing(Effort::Heads))?, forward),
            true => (forward, forward),
            false if shares => {
                let own = Subject::above_the_cut(&chain.train).map_err(anyhow::Error::msg)?;
                (world.rates.pace(&own)?, world.rates.pace(&training)?)
            }
            false => (world.rates.pace(&training)?, world.rates.pace(&training)?),
        };
        let source = match &chain.pretrain {
            Some(source) => world.rates.pace(&subject(Stage::Pretrain(source.clone()))?)?,
            None => 1.0,
        };
        Ok(Self { forward, own, alone, source })
    }
}
