//! `--shard K/N`: which trials of a plan are one machine's, so that all N parts cost about the same and trials that share
//! work stay together.
//!
//! It follows from the file and the data alone. Neither the machine nor what its store holds moves a trial to another part,
//! so that N machines that know nothing of each other leave out nothing and run nothing twice.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use super::cost;
use super::{Facts, Plan, bond, trial_key};
use crate::key::Key;

/// Part `number` of `of`, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub number: usize,
    pub of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected K/N with 1 <= K <= N, such as 2/4, found '{text}'");
        let (number, of) = text.split_once('/').ok_or_else(wrong)?;
        let [number, of]: [usize; 2] =
            [number.trim().parse().map_err(|_| wrong())?, of.trim().parse().map_err(|_| wrong())?];
        if (1..=of).contains(&number) { Ok(Self { number, of }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// What the cells of one shape have in common: what they share with others, and what that and the rest of a trial cost, in
/// multiply-accumulates.
struct Kin {
    /// Encodings that one pass serves.
    pass: (usize, f64),
    encoding: usize,
    /// Trials of one replicate that run as a group.
    group: (usize, f64),
    own: f64,
}

/// Numbers things in the order in which they are met.
#[derive(Default)]
struct Ranks(HashMap<Key, usize>);

impl Ranks {
    fn of(&mut self, key: Key) -> usize {
        let next = self.0.len();
        *self.0.entry(key).or_insert(next)
    }
}

/// The trials of `cells` that are the part's: trials in an order in which neighbours share work, cut into N runs of equal
/// cost.
///
/// # Errors
/// A cell that cannot be read: impossible for a plan that was built.
pub fn part(plan: &Plan, cells: &[usize], shard: Shard, facts: &Facts) -> Result<HashSet<Key>, String> {
    let (mut kin, mut ranks): (HashMap<u64, Kin>, [Ranks; 3]) = Default::default();
    let mut seen = HashSet::new();
    let mut trials = Vec::new();
    for replicate in 0..plan.replicates {
        for index in cells {
            let cell = &plan.cells[*index];
            let key = trial_key(cell.key, replicate);
            if !seen.insert(key) {
                continue;
            }
            let kin = match kin.entry(cell.shape()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(Kin::of(plan, *index, facts, &mut ranks)?),
            };
            let order = (kin.pass.0, kin.encoding, kin.group.0, replicate);
            trials.push((order, trials.len(), key, [kin.pass.1, kin.group.1, kin.own]));
        }
    }
    trials.sort_unstable_by_key(|(order, met, ..)| (*order, *met));
    let mut before = None;
    let costs = trials.iter().map(|(order, .., [pass, group, own])| {
        let last = before.replace(*order);
        let new_pass = last.is_none_or(|last| last.0 != order.0);
        let new_group = last.is_none_or(|last| (last.0, last.2, last.3) != (order.0, order.2, order.3));
        // A trial that costs nothing is handed out and stored.
        1.0 + own + if new_pass { *pass } else { 0.0 } + if new_group { *group } else { 0.0 }
    });
    let costs: Vec<f64> = costs.collect();
    let all: f64 = costs.iter().sum();
    let mut sum = 0.0;
    let own = trials.iter().zip(costs).filter(|(_, cost)| {
        let middle = sum + cost / 2.0;
        sum += cost;
        (middle / all * shard.of as f64) as usize == shard.number - 1
    });
    Ok(own.map(|((_, _, key, _), _)| *key).collect())
}

impl Kin {
    fn of(plan: &Plan, index: usize, facts: &Facts, ranks: &mut [Ranks; 3]) -> Result<Self, String> {
        let cell = &plan.cells[index];
        let chain = plan.stages(cell, 0, facts)?;
        let train = &chain.train;
        let data = facts.datasets.values().find(|data| data.fingerprint == train.data).ok_or("no such dataset")?;
        let counts = data.counts(train.per_class)?;
        let trial = cost::trial(train, counts)?;
        let alone = Key::of("shape", &cell.shape());
        let (pass, encoding) = match &chain.encode {
            Some(encode) => {
                let images = counts.test + plan.replicates * (counts.train + counts.val);
                let macs = cost::encode(encode, train, images)?.macs;
                ((ranks[0].of(bond::of_encode(encode)), macs), ranks[1].of(Key::of("encode", encode)))
            }
            None => ((ranks[0].of(alone), 0.0), ranks[1].of(alone)),
        };
        let group = ranks[2].of(bond::of_trial(&chain).unwrap_or(alone));
        Ok(Self { pass, encoding, group: (group, trial.lockstep), own: trial.shared })
    }
}
