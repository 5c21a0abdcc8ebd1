//! The tables and the pictures of what more images buy.

use super::curves::{Curves, Line as Drawn};
use super::findings::{Findings, fraction, shown_difference, shown_mean};
use super::growth::{Growth, Line, Paired, Size, Turn};
use super::sheets::{Kind, Sheet};

/// Rows of a table at most.
const MOST: usize = 16;

/// For each dataset what more images buy, and which recipe is better for how many.
pub fn sheets(findings: &Findings) -> Vec<Sheet> {
    let mut found = Vec::new();
    for (at, growth) in findings.growth.iter().enumerate() {
        found.push(bought(growth, at, findings));
        found.extend(turned(growth, findings));
    }
    found
}

fn bought(growth: &Growth, at: usize, findings: &Findings) -> Sheet {
    let row = |line: &Line| {
        let mut row = vec![line.recipe.clone().unwrap_or_else(|| "chosen in each by validation".to_owned())];
        row.extend(line.points.iter().map(|point| match point {
            None => "-".to_owned(),
            Some(point) if line.recipe.is_some() => shown_mean(point.test),
            Some(point) => format!("{}\n{}", shown_mean(point.test), point.recipe),
        }));
        row.push(line.doubling.map_or_else(
            || "-".to_owned(),
            |own| format!("{:+.3} [{:+.3}, {:+.3}]", own.mean, own.mean - own.half_width, own.mean + own.half_width),
        ));
        row
    };
    let title =
        format!("What more images of {} buy: {} on test by training images per class", growth.dataset, findings.metric);
    let last: Vec<String> = growth.sizes.iter().rev().take(2).rev().map(|size| whole(size.images)).collect();
    let mut notes = vec![format!(
        "a doubling: the gain from {} images, for each time that they double [95% CI]; as errors tend to fall by a power law \
         (Hestness et al., 2017), the next one tends to buy less",
        last.join(" to ")
    )];
    let left = growth.lines.len().saturating_sub(MOST);
    notes.extend((left > 0).then(|| format!("{left} more recipes, worse than these with most images")));
    notes.extend(growth.notes.iter().cloned());
    let rows = growth.lines.iter().take(MOST).map(row).collect();
    Sheet { kind: Kind::Growth(at), title, heading: heading(growth, "recipe", &["a doubling"]), rows, notes }
}

fn heading(growth: &Growth, first: &str, last: &[&str]) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    [words(&[first]), growth.sizes.iter().map(label).collect(), words(last)].concat()
}

fn turned(growth: &Growth, findings: &Findings) -> Option<Sheet> {
    let row = |turn: &Turn| {
        let mut row = vec![format!("{} - {}", turn.better, turn.worse)];
        row.extend(turn.points.iter().map(|point| point.as_ref().map_or_else(|| "-".to_owned(), difference)));
        row.push(turn.slope.as_ref().map_or_else(|| "-".to_owned(), shown_difference));
        row.push(words(turn, growth));
        row
    };
    let rows: Vec<Vec<String>> = growth.turns.iter().take(MOST).map(row).collect();
    let title = format!(
        "For how many images of {} which recipe: differences in {} on test by training images per class",
        growth.dataset, findings.metric
    );
    let left = growth.turns.len().saturating_sub(MOST);
    let mut notes = vec![
        "*: p < .05 by Holm, over the differences of all pairs and sizes; ±: 95% of each by itself".to_owned(),
        "a doubling adds: the slope of the difference over the logarithm of the number of images [95% CI]".to_owned(),
    ];
    notes.extend((left > 0).then(|| format!("{left} more pairs")));
    let heading = heading(growth, "difference", &["a doubling adds", "better, as far as shown"]);
    (!growth.turns.is_empty()).then_some(Sheet { kind: Kind::Turns, title, heading, rows, notes })
}

fn difference(point: &Paired) -> String {
    let mark = if point.shown().is_some() { " *" } else { "" };
    let (mean, half) = (point.difference.mean, point.difference.half_width(0.95));
    let sign = if mean < 0.0 { "" } else { "+" };
    format!("{sign}{} ± {}{mark}", fraction(mean), fraction(half))
}

/// `linear-probe up to 5, fine-tune from 20; even near 11`.
fn words(turn: &Turn, growth: &Growth) -> String {
    let label = |at: usize| label(&growth.sizes[at]);
    let listed = |of: &[usize]| of.iter().map(|at| label(*at)).collect::<Vec<_>>().join(", ");
    let (few, many) = (turn.shown(false), turn.shown(true));
    let alone = |name: &str, of: &[usize]| match *of {
        _ if of.len() == turn.points.iter().flatten().count() => format!("{name} at every size"),
        [first, ..] if of.len() > 1 && of.len() == turn.points.len() - first => format!("{name} from {}", label(first)),
        [.., last] if of.len() > 1 && of.len() == last + 1 => format!("{name} up to {}", label(last)),
        _ => format!("{name} at {}", listed(of)),
    };
    match (&few[..], &many[..]) {
        ([], []) => "neither".to_owned(),
        ([], many) => alone(&turn.better, many),
        (few, []) => alone(&turn.worse, few),
        ([.., few], [many, ..]) if turn.changes_once() => {
            let even = turn.even.map_or_else(String::new, |even| format!("; even near {}", whole(even)));
            format!("{} up to {}, {} from {}{even}", turn.worse, label(*few), turn.better, label(*many))
        }
        (few, many) => format!("{} at {}, {} at {}", turn.worse, listed(few), turn.better, listed(many)),
    }
}

/// The picture of one dataset: a line for each recipe.
pub fn drawn(growth: &Growth) -> Curves {
    let line = |line: &Line| {
        let points = line.points.iter().map(|own| own.as_ref().map(|own| (own.test.mean, own.test.half_width)));
        Some(Drawn { name: line.recipe.clone()?, points: points.collect() })
    };
    let lines = growth.lines.iter().filter_map(line).take(MOST).collect();
    Curves { name: growth.dataset.clone(), places: growth.sizes.iter().map(label).collect(), lines }
}

/// `5`, `20`, `all (37)`: images per class.
fn label(size: &Size) -> String {
    match size.per_class {
        Some(count) => count.to_string(),
        None => format!("all ({})", whole(size.images / size.classes as f64)),
    }
}

fn whole(value: f64) -> String {
    if value < 10.0 && value.fract() != 0.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}
