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
use super::{Facts, Plan, Trial, bond};
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

/// A trial in the order in which parts are cut.
struct Point {
    key: Key,
    /// Pass, encoding, group and replicate: neighbours share work.
    order: (usize, usize, usize, usize),
    pass: f64,
    group: f64,
    own: f64,
}

impl Point {
    /// What it costs behind another trial of the same machine, or first.
    fn behind(&self, last: Option<&Self>) -> f64 {
        let (pass, encoding, group, replicate) = self.order;
        let shares = last.is_some_and(|last| last.order.0 == pass);
        let grouped = last.is_some_and(|last| last.order == (pass, encoding, group, replicate));
        // A trial that costs nothing is handed out and stored.
        1.0 + self.own + if shares { 0.0 } else { self.pass } + if grouped { 0.0 } else { self.group }
    }
}

/// The trials of `cells` that are the part's: trials in an order in which neighbours share work, cut so that the dearest
/// part costs as little as it can.
///
/// # Errors
/// A cell that cannot be read: impossible for a plan that was built.
pub fn part(plan: &Plan, cells: &[usize], shard: Shard, facts: &Facts) -> Result<HashSet<Key>, String> {
    let points = points(plan, cells, facts)?;
    let parts = cut(&points, shard.of, least(&points, shard.of));
    let own = points.iter().zip(parts).filter(|(_, part)| *part == shard.number - 1);
    Ok(own.map(|(point, _)| point.key).collect())
}

fn points(plan: &Plan, cells: &[usize], facts: &Facts) -> Result<Vec<Point>, String> {
    let (mut kin, mut ranks): (HashMap<u64, Kin>, [Ranks; 3]) = Default::default();
    let mut points = Vec::new();
    for Trial { cell, replicate, key } in plan.trials(cells) {
        let kin = match kin.entry(plan.cells[cell].shape()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Kin::of(plan, cell, facts, &mut ranks)?),
        };
        let order = (kin.pass.0, kin.encoding, kin.group.0, replicate);
        points.push(Point { key, order, pass: kin.pass.1, group: kin.group.1, own: kin.own });
    }
    points.sort_by_key(|point| point.order);
    // Several layers come out of one pass: the deepest pays.
    let mut deepest: HashMap<usize, f64> = HashMap::new();
    for point in &points {
        let known = deepest.entry(point.order.0).or_default();
        *known = known.max(point.pass);
    }
    points.iter_mut().for_each(|point| point.pass = deepest[&point.order.0]);
    Ok(points)
}

/// How many parts it takes, if none of them may cost more than `most`.
fn needed(points: &[Point], most: f64) -> usize {
    let (mut parts, mut cost, mut last) = (0, f64::INFINITY, None);
    for point in points {
        cost += point.behind(last);
        if cost > most {
            parts += 1;
            cost = point.behind(None);
        }
        last = Some(point);
    }
    parts
}

/// What the dearest of `of` parts costs at least.
fn least(points: &[Point], of: usize) -> f64 {
    let mut low = points.iter().map(|point| point.behind(None)).fold(0.0, f64::max);
    let mut high = whole(points);
    // Halves a span of any size to a millionth of it.
    for _ in 0..20 {
        let middle = low.midpoint(high);
        if needed(points, middle) <= of { high = middle } else { low = middle }
    }
    high
}

fn whole(points: &[Point]) -> f64 {
    let mut last = None;
    points.iter().map(|point| point.behind(last.replace(point))).sum()
}

/// The part of each point: as full as `most` allows, and ended where a pass ends if that is its share of what was left.
fn cut(points: &[Point], of: usize, most: f64) -> Vec<usize> {
    let (mut part, mut cost, mut share) = (0, 0.0, whole(points) / of as f64);
    let mut parts = Vec::with_capacity(points.len());
    for (at, point) in points.iter().enumerate() {
        let last = at.checked_sub(1).map(|before| &points[before]);
        let more = point.behind(last);
        let ends = last.is_some_and(|last| last.order.0 != point.order.0) && cost >= share;
        let left = of - part - 1;
        if at > 0 && (cost + more > most || ends && left > 0 && needed(&points[at..], most) <= left) {
            part = (part + 1).min(of - 1);
            cost = point.behind(None);
            share = whole(&points[at..]) / (of - part) as f64;
        } else {
            cost += more;
        }
        parts.push(part);
    }
    parts
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
        let start = cost::start(train, counts, chain.stores_all())?.map_or(0.0, |(_, macs)| macs);
        let group = ranks[2].of(bond::of_trial(&chain).unwrap_or(alone));
        Ok(Self { pass, encoding, group: (group, trial.lockstep), own: trial.shared + start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes of so many trials each: what the pass costs, and each trial.
    fn points(passes: &[(usize, f64, f64)]) -> Vec<Point> {
        let passes = passes.iter().enumerate();
        let all = passes.flat_map(|(pass, (trials, cost, own))| {
            (0..*trials).map(move |trial| Point {
                key: Key::of("point", &(pass, trial)),
                order: (pass, pass, pass, 0),
                pass: *cost,
                group: 0.0,
                own: *own,
            })
        });
        all.collect()
    }

    fn sizes(passes: &[(usize, f64, f64)], of: usize) -> Vec<usize> {
        let points = points(passes);
        let parts = cut(&points, of, least(&points, of));
        assert!(parts.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1), "{parts:?}");
        (0..of).map(|part| parts.iter().filter(|own| **own == part).count()).collect()
    }

    #[test]
    fn passes_stay_whole_where_that_costs_no_time() {
        // Probes: all of the work is in the passes.
        assert_eq!(sizes(&[(120, 1e9, 10.0); 4], 4), [120; 4]);
        assert_eq!(sizes(&[(120, 1e9, 10.0); 4], 2), [240; 2]);
        assert_eq!(sizes(&[(120, 1e9, 10.0); 4], 3), [240, 120, 120]);
        assert_eq!(sizes(&[(120, 1e7, 10.0), (120, 1e9, 10.0), (120, 1e9, 10.0)], 2), [240, 120]);
    }

    #[test]
    fn what_costs_more_than_its_pass_is_cut() {
        // Trainings: a pass is worth one trial, and all parts make it.
        assert_eq!(sizes(&[(30, 1e6, 1e6)], 3), [10; 3]);
        assert_eq!(sizes(&[(7, 0.0, 1e6)], 3), [3, 3, 1]);
        // More machines than trials.
        assert_eq!(sizes(&[(2, 0.0, 1e6)], 4), [1, 1, 0, 0]);
    }

    #[test]
    fn a_part_is_written_as_two_numbers() {
        assert_eq!("2/4".parse(), Ok(Shard { number: 2, of: 4 }));
        assert!(["0/4", "5/4", "2", "/", "2/", "a/b", "1/0"].iter().all(|text| text.parse::<Shard>().is_err()));
    }
}
