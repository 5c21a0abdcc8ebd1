//! What more images buy, and for how many of them which recipe is better: scenarios of one dataset that differ in their number alone.

use std::collections::BTreeMap;

use serde::Serialize;

use super::arm::Arm;
use super::choice::{candidates, standing};
use super::compare::{Difference, Mean, Scored, holm};
use super::findings::Scenario;
use super::selection::leading;
use super::sheets::named;
use super::verdict::{Rule, told_apart};

/// What takes more steps with more images is another budget, and not another question.
const BUDGET: [&str; 2] = ["steps", "epochs"];

/// Scenarios of one dataset, the fewest images first.
#[derive(Clone, Debug, Serialize)]
pub struct Growth {
    pub dataset: String,
    pub sizes: Vec<Size>,
    /// What validation chooses at each size, then each recipe, the best with most images first.
    pub lines: Vec<Line>,
    pub turns: Vec<Turn>,
    /// What a person should know before believing it.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Size {
    pub scenario: String,
    /// None: all.
    pub per_class: Option<usize>,
    /// For training, the mean over replicates.
    pub images: f64,
    pub classes: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// As tables name it; none: what validation chooses at each size.
    pub recipe: Option<String>,
    /// At each size; none where it does not stand or has not been run to its end.
    pub points: Vec<Option<Point>>,
    pub doubling: Option<Doubling>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Point {
    pub recipe: String,
    pub test: Mean,
}

/// What twice the images bought, between the two largest sizes: the gain over the times that they doubled.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Doubling {
    pub mean: f64,
    /// Of the 95% interval.
    pub half_width: f64,
    /// The whole gain between the two, and how often the images doubled.
    pub gain: Difference,
    pub times: f64,
}

/// Two recipes at all sizes: `better` is the better one with most images.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    pub better: String,
    pub worse: String,
    pub points: Vec<Option<Paired>>,
    /// How much the difference grows with each doubling of the images: its slope over the logarithm of their number, by least
    /// squares.
    pub slope: Option<Difference>,
    /// Images per class at which they are even, where each is shown to be better somewhere and one change lies between.
    pub even: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Paired {
    pub difference: Difference,
    /// Holm's, over all pairs and sizes of the dataset.
    pub adjusted_p: f64,
}

/// A recipe at each size, with its answers where it has been run to its end.
struct Row<'a> {
    name: String,
    recipe: &'a str,
    points: Vec<Option<(&'a Arm, Vec<Scored>)>>,
}

/// Everything that grows, on the first replicates, which all arms have. `images` gives the number of training images and of
/// classes of a dataset at a size, `answers` the test answers of an arm's selected setting by replicate.
///
/// # Errors
/// What `answers` returns.
pub fn growths(
    scenarios: &[Scenario],
    arms: &[Arm],
    rules: &[Rule],
    first: usize,
    images: impl Fn(&str, Option<usize>) -> Option<(f64, usize)>,
    answers: impl Fn(&Arm) -> anyhow::Result<Vec<Scored>>,
) -> anyhow::Result<Vec<Growth>> {
    let mut found = Vec::new();
    for family in families(scenarios) {
        let begun = |own: &&Scenario| leading(standing(arms, &own.name), first).is_some();
        let mut sizes: Vec<Size> = family.iter().copied().filter(begun).filter_map(|own| size(own, &images)).collect();
        sizes.sort_by(|one, other| one.images.total_cmp(&other.images));
        // Of all images where these are as many as asked for elsewhere, nothing grows.
        sizes.dedup_by(|next, kept| next.images < 1.01 * kept.images);
        if sizes.len() < 2 {
            continue;
        }
        let told = |arm: &Arm| -> anyhow::Result<Vec<Scored>> { Ok(answers(arm)?.into_iter().take(first).collect()) };
        let names: Vec<String> = sizes.iter().map(|size| size.scenario.clone()).collect();
        let rows = rows(&names, arms, told)?;
        let best: Vec<&Arm> = names.iter().filter_map(|name| leading(standing(arms, name), first)).collect();
        let chosen = best.iter().map(|arm| Ok(Some((*arm, told(arm)?)))).collect::<anyhow::Result<Vec<_>>>()?;
        let mut lines: Vec<Line> = rows.iter().map(|row| line(Some(row.name.clone()), &row.points, &sizes)).collect();
        let last =
            |line: &Line| line.points.last().and_then(Option::as_ref).map_or(f64::NEG_INFINITY, |own| own.test.mean);
        lines.sort_by(|one, other| last(other).total_cmp(&last(one)));
        lines.insert(0, line(None, &chosen, &sizes));
        let turns = turns(&rows, &pairs(&rows, rules, &best), &sizes);
        found.push(Growth {
            dataset: family[0].dataset.clone(),
            notes: notes(&family, &rows, arms),
            sizes,
            lines,
            turns,
        });
    }
    Ok(found)
}

/// Scenarios that differ in their number of images and in their budget alone; of stores that do not know that, none.
fn families(scenarios: &[Scenario]) -> Vec<Vec<&Scenario>> {
    let held = |scenario: &Scenario| -> Option<BTreeMap<String, String>> {
        let own = scenario.own.clone()?;
        Some(own.into_iter().filter(|(key, _)| !BUDGET.contains(&key.as_str())).collect())
    };
    let mut found: Vec<Vec<&Scenario>> = Vec::new();
    for scenario in scenarios.iter().filter(|scenario| scenario.own.is_some()) {
        let alike =
            |family: &&mut Vec<&Scenario>| family[0].dataset == scenario.dataset && held(family[0]) == held(scenario);
        match found.iter_mut().find(alike) {
            Some(family) => family.push(scenario),
            None => found.push(vec![scenario]),
        }
    }
    found
}

fn size(scenario: &Scenario, images: impl Fn(&str, Option<usize>) -> Option<(f64, usize)>) -> Option<Size> {
    let (images, classes) = images(&scenario.dataset, scenario.per_class)?;
    Some(Size { scenario: scenario.name.clone(), per_class: scenario.per_class, images, classes })
}

fn rows<'a>(
    names: &[String],
    arms: &'a [Arm],
    told: impl Fn(&Arm) -> anyhow::Result<Vec<Scored>>,
) -> anyhow::Result<Vec<Row<'a>>> {
    let mut found = Vec::new();
    for candidate in candidates(names, arms) {
        let Some(any) = candidate.iter().flatten().next() else { continue };
        let point = |arm: &Option<&'a Arm>| -> anyhow::Result<Option<(&'a Arm, Vec<Scored>)>> {
            let arm = arm.filter(|arm| arm.missing() == 0);
            arm.map(|arm| Ok((arm, told(arm)?))).transpose()
        };
        let points = candidate.iter().map(point).collect::<anyhow::Result<Vec<_>>>()?;
        found.push(Row { name: named(any), recipe: &any.recipe, points });
    }
    Ok(found)
}

fn line(recipe: Option<String>, points: &[Option<(&Arm, Vec<Scored>)>], sizes: &[Size]) -> Line {
    let point = |(arm, scored): &(&Arm, Vec<Scored>)| Point { recipe: named(arm), test: arm.mean_of(scored) };
    let doubling = match (points, sizes) {
        ([.., Some((_, few)), Some((_, many))], [.., before, last]) => told_apart(many, few).map(|gain| {
            let times = (last.images / before.images).log2();
            Doubling { mean: gain.mean / times, half_width: gain.half_width(0.95) / times, gain, times }
        }),
        _ => None,
    };
    Line { recipe, points: points.iter().map(|own| own.as_ref().map(point)).collect(), doubling }
}

/// The pairs that rules speak of, and those of what validation chooses at one size and at another.
fn pairs(rows: &[Row], rules: &[Rule], best: &[&Arm]) -> Vec<[usize; 2]> {
    let beyond = |row: &Row| row.name.strip_prefix(row.recipe).map(str::to_owned);
    let mut found: Vec<[usize; 2]> = Vec::new();
    let mut add = |one: usize, other: usize| {
        if one != other && !found.iter().any(|pair| *pair == [one, other] || *pair == [other, one]) {
            found.push([one, other]);
        }
    };
    let holds = |row: &Row, arm: &Arm| row.points.iter().flatten().any(|(own, _)| std::ptr::eq(*own, arm));
    let leaders: Vec<usize> = best.iter().filter_map(|arm| rows.iter().position(|row| holds(row, arm))).collect();
    for (at, one) in leaders.iter().enumerate() {
        leaders[..at].iter().for_each(|other| add(*one, *other));
    }
    for rule in rules.iter().filter(|rule| rule.on.is_none() && rule.metric.is_none()) {
        for (one, better) in rows.iter().enumerate().filter(|(_, row)| row.recipe == rule.better) {
            let alike = |row: &Row| row.recipe == rule.worse && beyond(row) == beyond(better);
            rows.iter().enumerate().filter(|(_, row)| alike(row)).for_each(|(other, _)| add(one, other));
        }
    }
    found
}

fn turns(rows: &[Row], pairs: &[[usize; 2]], sizes: &[Size]) -> Vec<Turn> {
    let differences = |[one, other]: [usize; 2]| -> Vec<Option<Difference>> {
        let both = rows[one].points.iter().zip(&rows[other].points);
        both.map(|(one, other)| told_apart(&one.as_ref()?.1, &other.as_ref()?.1)).collect()
    };
    let oriented = pairs.iter().filter_map(|[one, other]| {
        let found = differences([*one, *other]);
        match found.iter().flatten().next_back()?.mean {
            last if last < 0.0 => Some(([*other, *one], differences([*other, *one]))),
            _ => Some(([*one, *other], found)),
        }
    });
    let oriented: Vec<_> = oriented.filter(|(_, found)| found.iter().flatten().count() > 1).collect();
    let p: Vec<f64> = oriented.iter().flat_map(|(_, found)| found.iter().flatten().map(|own| own.p)).collect();
    let mut adjusted = holm(&p).into_iter();
    let mut found = Vec::new();
    for ([better, worse], differences) in oriented {
        let point = |difference: Option<Difference>| {
            let difference = difference?;
            Some(Paired { difference, adjusted_p: adjusted.next()? })
        };
        let points = differences.into_iter().map(point).collect();
        let slope = slope(&rows[better], &rows[worse], sizes);
        let (better, worse) = (rows[better].name.clone(), rows[worse].name.clone());
        let turn = Turn { better, worse, points, slope, even: None };
        found.push(Turn { even: turn.crossing(sizes), ..turn });
    }
    found
}

/// The slope as one difference of weighted sums over sizes, which all test the same images: so it heeds replicates and images as
/// any other does.
fn slope(better: &Row, worse: &Row, sizes: &[Size]) -> Option<Difference> {
    let both = better.points.iter().zip(&worse.points).zip(sizes);
    let known: Vec<(&[Scored], &[Scored], f64)> = both
        .filter_map(|((one, other), size)| Some((&*one.as_ref()?.1, &*other.as_ref()?.1, size.images.log2())))
        .collect();
    let [(first, ..), _, ..] = known[..] else { return None };
    let middle = known.iter().map(|(.., at)| at).sum::<f64>() / known.len() as f64;
    let spread: f64 = known.iter().map(|(.., at)| (at - middle).powi(2)).sum();
    let weights: Vec<f64> = known.iter().map(|(.., at)| (at - middle) / spread).collect();
    let alike = |own: &[Scored]| {
        own.len() == first.len() && own.iter().zip(first).all(|(own, first)| own.images == first.images)
    };
    if !known.iter().all(|(one, other, _)| alike(one) && alike(other)) {
        return None;
    }
    let one: Vec<&[Scored]> = known.iter().map(|(one, ..)| *one).collect();
    let other: Vec<&[Scored]> = known.iter().map(|(_, other, _)| *other).collect();
    told_apart(&weighted(&one, &weights), &weighted(&other, &weights))
}

/// By replicate the weighted sum of the answers at each size.
fn weighted(told: &[&[Scored]], weights: &[f64]) -> Vec<Scored> {
    let of = |replicate: usize| {
        let parts = || told.iter().zip(weights).map(|(own, weight)| (&own[replicate], weight));
        let influence = |image: usize| parts().map(|(own, weight)| weight * own.influence[image]).sum();
        Scored {
            metric: parts().map(|(own, weight)| weight * own.metric).sum(),
            influence: (0..told[0][replicate].influence.len()).map(influence).collect(),
            images: told[0][replicate].images.clone(),
        }
    };
    (0..told[0].len()).map(of).collect()
}

impl Paired {
    /// Whether one of the two is shown to be better: the sign of the difference.
    pub fn shown(&self) -> Option<bool> {
        (self.adjusted_p < 0.05).then_some(self.difference.mean > 0.0)
    }
}

impl Turn {
    /// The sizes at which the one, or the other, is shown to be better.
    pub fn shown(&self, better: bool) -> Vec<usize> {
        let at = |(at, own): (usize, &Option<Paired>)| (own.as_ref()?.shown()? == better).then_some(at);
        self.points.iter().enumerate().filter_map(at).collect()
    }

    /// Whether the other one is better with few images and this one with more, as far as shown.
    pub fn changes_once(&self) -> bool {
        let (few, many) = (self.shown(false), self.shown(true));
        few.last().zip(many.first()).is_some_and(|(few, many)| few < many)
    }

    /// Images per class at which the difference is nothing: between two sizes it is taken for a line over the logarithm of
    /// their number.
    fn crossing(&self, sizes: &[Size]) -> Option<f64> {
        let from = self.shown(false).last().copied().filter(|_| self.changes_once())?;
        let known = self.points.iter().zip(sizes).skip(from).filter_map(|(own, size)| {
            Some(((size.images / size.classes as f64).log2(), own.as_ref()?.difference.mean))
        });
        let known: Vec<(f64, f64)> = known.collect();
        let between = known.windows(2).find(|pair| pair[0].1 < 0.0 && pair[1].1 >= 0.0)?;
        let [(before, below), (behind, above)] = [between[0], between[1]];
        Some((before + (behind - before) * below / (below - above)).exp2())
    }
}

fn notes(family: &[&Scenario], rows: &[Row], arms: &[Arm]) -> Vec<String> {
    let budgets = |key: &str| {
        let mut values: Vec<&str> = Vec::new();
        for own in family.iter().filter_map(|scenario| scenario.own.as_ref()?.get(key)) {
            if !values.contains(&own.as_str()) {
                values.push(own);
            }
        }
        let alike =
            values.len() < 2 && family.iter().all(|own| own.own.as_ref().is_some_and(|own| own.contains_key(key)));
        (!values.is_empty() && !alike).then(|| format!("`{key}` differs between these sizes: {}", values.join(", ")))
    };
    let mut notes: Vec<String> = BUDGET.iter().filter_map(|key| budgets(key)).collect();
    for row in rows {
        let diverged = row.points.iter().flatten().filter(|(arm, _)| arm.all_diverged());
        let places: Vec<&str> = diverged.map(|(arm, _)| arm.context_value("scenario")).collect();
        if !places.is_empty() {
            let (name, places) = (&row.name, places.join(", "));
            notes.push(format!("{name}: every setting diverged in {places}; counted as naming the largest class"));
        }
    }
    let own = |arm: &&Arm| family.iter().any(|scenario| scenario.name == arm.context_value("scenario"));
    let open = arms.iter().filter(own).filter(|arm| arm.missing() > 0).count();
    notes.extend((open > 0).then(|| format!("{open} recipes have not been run to their end in some scenario")));
    notes
}
