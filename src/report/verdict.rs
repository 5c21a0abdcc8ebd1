//! What the trials say of a rule.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::arm::{Arm, Context};
use super::compare::{Difference, Scored, difference, holm};

/// A claim of the file: in these scenarios, `better` scores higher than `worse`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    pub scenario: String,
    pub better: String,
    pub worse: String,
    pub margin: f64,
    /// A pattern over names of other datasets, on whose test images it is claimed; none: on the scenario's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum Answer {
    Supported,
    Refuted,
    Equivalent,
    Inconclusive,
    NotTested,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Supported => "SUPPORTED",
            Self::Refuted => "REFUTED",
            Self::Equivalent => "EQUIVALENT",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::NotTested => "NOT TESTED",
        })
    }
}

/// What was found of one rule in one context.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub rule: Rule,
    pub context: Context,
    pub answer: Answer,
    pub difference: Option<Difference>,
    /// Holm's, over all verdicts of the file that have a difference.
    pub adjusted_p: Option<f64>,
    /// Settings tried for better and worse.
    pub settings: [usize; 2],
    /// What a person should know before believing it.
    pub notes: Vec<String>,
}

/// Fewer replicates than this decide nothing.
pub const LEAST_REPLICATES: usize = 3;

/// Verdicts on all rules, one for each context in which both arms stand. `answers` gives the test answers of an
/// arm's selected setting by replicate, on its own test images or on those of other datasets; where every setting diverged,
/// those of naming the largest class. `tests` says whether a dataset's trials are tested on others that match a pattern.
///
/// # Errors
/// What `answers` returns.
pub fn verdicts(
    rules: &[Rule],
    arms: &[Arm],
    matches: impl Fn(&str, &str) -> bool,
    tests: impl Fn(&str, &str) -> bool,
    answers: impl Fn(&Arm, Option<&str>) -> anyhow::Result<Vec<Scored>>,
) -> anyhow::Result<Vec<Verdict>> {
    let mut found = Vec::new();
    for rule in rules {
        let mut contexts: Vec<&Context> = Vec::new();
        let on = |arm: &Arm| rule.on.as_ref().is_none_or(|on| tests(arm.context_value("dataset"), on));
        let spoken_of = |arm: &&Arm| matches(&rule.scenario, arm.context_value("scenario")) && on(arm);
        for arm in arms.iter().filter(spoken_of) {
            if (arm.recipe == rule.better || arm.recipe == rule.worse) && !contexts.contains(&&arm.context) {
                contexts.push(&arm.context);
            }
        }
        for context in contexts {
            let side = |recipe: &str| arms.iter().find(|arm| arm.recipe == recipe && arm.context == *context);
            found.push(examine(rule, context, side(&rule.better), side(&rule.worse), &answers)?);
        }
    }
    decide(&mut found);
    Ok(found)
}

/// The difference between two arms, or why there is none.
fn examine(
    rule: &Rule,
    context: &Context,
    better: Option<&Arm>,
    worse: Option<&Arm>,
    answers: &impl Fn(&Arm, Option<&str>) -> anyhow::Result<Vec<Scored>>,
) -> anyhow::Result<Verdict> {
    let tried = |arm: Option<&Arm>| arm.map_or(0, Arm::tried);
    let mut verdict = Verdict {
        rule: rule.clone(),
        context: context.clone(),
        answer: Answer::NotTested,
        difference: None,
        adjusted_p: None,
        settings: [tried(better), tried(worse)],
        notes: Vec::new(),
    };
    let mut sides = Vec::new();
    for (arm, name) in [(better, &rule.better), (worse, &rule.worse)] {
        let Some(arm) = arm else {
            verdict.notes.push(format!("{name} does not stand in this context"));
            continue;
        };
        note(arm, &mut verdict.notes);
        if arm.missing() > 0 {
            verdict.notes.push(format!("{name}: {} trials are missing", arm.missing()));
            continue;
        }
        sides.push(answers(arm, rule.on.as_deref())?);
    }
    if let [better, worse] = sides.as_slice() {
        if better.len() < LEAST_REPLICATES {
            verdict.notes.push(format!("{} replicates; {LEAST_REPLICATES} are needed", better.len()));
        } else {
            verdict.difference = Some(difference(better, worse));
        }
    }
    if verdict.settings[0] != verdict.settings[1] && verdict.settings.iter().all(|count| *count > 0) {
        verdict.notes.push("unequal numbers of settings tried".to_owned());
    }
    Ok(verdict)
}

fn note(arm: &Arm, notes: &mut Vec<String>) {
    if arm.all_diverged() {
        notes.push(format!("{}: every setting diverged; counted as naming the largest class", arm.recipe));
    }
    let tested = arm.tested();
    let under_trained = tested.iter().filter(|trial| trial.under_trained).count();
    if under_trained > 0 {
        notes.push(format!("{}: {under_trained} of {} under-trained", arm.recipe, tested.len()));
    }
    let at_chance = tested.iter().filter(|trial| trial.at_chance).count();
    if at_chance > 0 {
        notes.push(format!("{}: {at_chance} of {} at chance", arm.recipe, tested.len()));
    }
}

/// EQUIVALENT if the 90% interval lies within the margin; else by sign if the adjusted p is below .05; else INCONCLUSIVE.
fn decide(verdicts: &mut [Verdict]) {
    let p: Vec<f64> = verdicts.iter().filter_map(|verdict| verdict.difference.map(|difference| difference.p)).collect();
    let mut adjusted = holm(&p).into_iter();
    let tests = p.len();
    for verdict in verdicts {
        let Some(difference) = verdict.difference else { continue };
        let Some(p) = adjusted.next() else { continue };
        verdict.adjusted_p = Some(p);
        let half = difference.half_width(0.90);
        let margin = verdict.rule.margin;
        verdict.answer = if difference.mean + half <= margin && difference.mean - half >= -margin {
            Answer::Equivalent
        } else if p < 0.05 {
            if difference.mean > 0.0 { Answer::Supported } else { Answer::Refuted }
        } else {
            verdict.notes.push(match difference.replicates_to_settle(0.05 / tests as f64) {
                Some(needed) => format!("about {needed} replicates would settle a difference of this size"),
                None => {
                    "more replicates would not settle it: the difference is too small for the test images".to_owned()
                }
            });
            Answer::Inconclusive
        };
    }
}
