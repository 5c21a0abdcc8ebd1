//! `compare A B`: what two trials differ in, and how sure it is that one of them is better.

use super::{Exit, Usage, print, table_style};
use crate::cli::{Common, Sheet};
use crate::report::compare::{Difference, difference, scored};
use crate::report::findings::fraction;
use crate::report::table::{Style, table};
use crate::store::Store;
use crate::store::query::{CIRCUMSTANCES, TrialRow};
use crate::store::schema::{RESULTS, SETTINGS};

/// What decides a trial beside its settings.
const ORIGIN: &[&str] = &["data", "start"];

/// What is told of two trials.
struct Compared {
    /// Names of experiments, and the trials.
    sides: [(String, TrialRow); 2],
    /// Column, A, B; by kind of column.
    differing: Vec<(&'static str, Vec<Vec<String>>)>,
    paired: Option<Paired>,
}

pub fn run(names: [&str; 2], format: Sheet, common: &Common) -> anyhow::Result<Exit> {
    let compared = Compared::read(&Store::read(&common.db)?, names)?;
    print(&match format {
        Sheet::Table => compared.text(table_style()),
        Sheet::Md => compared.text(Style::Markdown),
        Sheet::Json => serde_json::to_string_pretty(&compared.json())?,
    })?;
    Ok(Exit::Complete)
}

impl Compared {
    fn read(store: &Store, names: [&str; 2]) -> anyhow::Result<Self> {
        let find = |name: &str| store.find(name).map_err(|error| Usage(format!("{error:#}")));
        let sides = [find(names[0])?, find(names[1])?];
        let [(_, one), (_, other)] = &sides;
        if one.key == other.key {
            return Err(Usage(format!("'{}' and '{}' are one trial, {}", names[0], names[1], one.key)).into());
        }
        let kinds = [
            ("settings", [ORIGIN, SETTINGS].concat()),
            ("results", RESULTS.to_vec()),
            ("circumstances", CIRCUMSTANCES.to_vec()),
        ];
        let differing = kinds.into_iter().map(|(kind, columns)| (kind, rows(&columns, one, other))).collect();
        let paired = paired(store, one, other)?;
        Ok(Self { sides, differing, paired })
    }

    fn text(&self, style: Style) -> String {
        let side = |name: &str, (experiment, trial): &(String, TrialRow)| {
            format!("{name}: trial {} of '{experiment}', replicate {}", trial.key, trial.replicate)
        };
        let mut parts = vec![format!("{}\n{}", side("A", &self.sides[0]), side("B", &self.sides[1]))];
        parts.extend(self.differing.iter().map(|(kind, rows)| match rows.is_empty() {
            true => format!("{kind}: the same"),
            false => format!("{kind} that differ\n{}", table(style, &["column", "A", "B"], rows)),
        }));
        parts.push(self.paired.as_ref().map_or_else(|| NOT_PAIRED.to_owned(), Paired::said));
        parts.join("\n\n")
    }

    fn json(&self) -> serde_json::Value {
        let sides = self.sides.each_ref().map(|(experiment, trial)| {
            serde_json::json!({"experiment": experiment, "trial": trial.key, "replicate": trial.replicate})
        });
        let differing: serde_json::Map<String, serde_json::Value> =
            self.differing.iter().map(|(kind, rows)| ((*kind).to_owned(), serde_json::json!(rows))).collect();
        let paired = self.paired.as_ref().map(|paired| {
            serde_json::json!({
                "images": paired.images,
                "accuracy": paired.accuracy,
                "alone_right": paired.alone,
                "difference": paired.difference.mean,
                "half_width": paired.difference.half_width(0.95),
            })
        });
        serde_json::json!({"version": 1, "trials": sides, "differ": differing, "test": paired})
    }
}

const NOT_PAIRED: &str = "no test images that both have answered: there is no paired difference";

/// The columns in which they differ.
fn rows(columns: &[&'static str], one: &TrialRow, other: &TrialRow) -> Vec<Vec<String>> {
    let differing = columns.iter().filter(|column| one.columns.get(*column) != other.columns.get(*column));
    differing
        .map(|column| vec![(*column).to_owned(), one.text(column).to_owned(), other.text(column).to_owned()])
        .collect()
}

/// Two trials on the same test images.
struct Paired {
    images: usize,
    accuracy: [f64; 2],
    /// Images that A alone answers right, and B alone.
    alone: [usize; 2],
    difference: Difference,
}

fn paired(store: &Store, one: &TrialRow, other: &TrialRow) -> anyhow::Result<Option<Paired>> {
    let tested = |trial: &TrialRow| trial.number("test_loss").is_some();
    if !(tested(one) && tested(other) && one.text("data") == other.text("data")) {
        return Ok(None);
    }
    let (one, other) = (store.test_answers(one.key)?, store.test_answers(other.key)?);
    // Replicates of a dataset in folds have test images of their own.
    if one.samples != other.samples || one.samples.is_empty() {
        return Ok(None);
    }
    let (truth, [a, b]) = (one.truth, [one.predicted, other.predicted]);
    let right = |answer: &u16, truth: &u32| u32::from(*answer) == *truth;
    let alone = |own: &[u16], others: &[u16]| {
        own.iter()
            .zip(others)
            .zip(&truth)
            .filter(|((own, other), truth)| right(own, truth) && !right(other, truth))
            .count()
    };
    let scores = [scored("accuracy", &a, &truth), scored("accuracy", &b, &truth)];
    Ok(Some(Paired {
        images: truth.len(),
        accuracy: [scores[0].metric, scores[1].metric],
        alone: [alone(&a, &b), alone(&b, &a)],
        difference: difference(&scores[..1], &scores[1..]),
    }))
}

impl Paired {
    fn said(&self) -> String {
        let (mean, half) = (self.difference.mean, self.difference.half_width(0.95));
        format!(
            "on the same {} test images A is right on {}, B on {}: {mean:+.3} [{:+.3}, {:+.3}] (95% over images)\n{} are right in A alone, {} in B alone; one run of each says nothing of the chance in training: `tl-sweep report` compares replicates",
            self.images,
            fraction(self.accuracy[0]),
            fraction(self.accuracy[1]),
            mean - half,
            mean + half,
            self.alone[0],
            self.alone[1],
        )
    }
}
