//! What the trials say of a rule at one look.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::arm::{Arm, Context};
use super::compare::{Difference, Scored, difference, holm};
use super::interim::Look;

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
    /// Of what it is claimed; none: of the experiment's metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
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

/// The difference, where both were tested on the same images in as many replicates as decide something.
pub(super) fn told_apart(one: &[Scored], other: &[Scored]) -> Option<Difference> {
    let same = one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.images == other.images);
    (same && one.len() >= LEAST_REPLICATES).then(|| difference(one, other))
}

/// What a rule asks of answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// On which other datasets; none: on the own test images.
    pub on: Option<&'a str>,
    /// None: the experiment's metric.
    pub metric: Option<&'a str>,
}

/// The test answers of an arm's selected setting by replicate; where every setting diverged, those of naming the largest class, or
/// of finding all classes alike.
pub type Answers<'a> = &'a dyn Fn(&Arm, Asked) -> anyhow::Result<Vec<Scored>>;

impl Rule {
    pub fn asked(&self) -> Asked<'_> {
        Asked { on: self.on.as_deref(), metric: self.metric.as_deref() }
    }

    /// As tables name it.
    pub fn claim(&self) -> String {
        let by = self.metric.as_ref().map_or_else(String::new, |metric| format!(" by {}", metric.replace('-', " ")));
        format!("{} > {}{by}", self.better, self.worse)
    }
}

/// Which contexts rules speak of.
#[derive(Clone, Copy)]
pub struct Reach<'a> {
    /// Whether a pattern matches a name.
    pub matches: &'a dyn Fn(&str, &str) -> bool,
    /// Whether a dataset's trials are tested on others that match a pattern.
    pub tests: &'a dyn Fn(&str, &str) -> bool,
}

impl Verdict {
    pub(super) fn speaks_of(&self, arm: &Arm) -> bool {
        (arm.recipe == self.rule.better || arm.recipe == self.rule.worse) && arm.context == self.context
    }
}

pub(super) fn place(arms: &[Arm], recipe: &str, context: &Context) -> Option<usize> {
    arms.iter().position(|arm| arm.recipe == recipe && arm.context == *context)
}

/// What there is to find out.
pub(super) fn stated(rules: &[Rule], arms: &[Arm], reach: Reach) -> Vec<Verdict> {
    let mut found = Vec::new();
    for rule in rules {
        let mut contexts: Vec<&Context> = Vec::new();
        let on = |arm: &Arm| rule.on.as_ref().is_none_or(|on| (reach.tests)(arm.context_value("dataset"), on));
        let spoken_of = |arm: &&Arm| (reach.matches)(&rule.scenario, arm.context_value("scenario")) && on(arm);
        for arm in arms.iter().filter(spoken_of) {
            if (arm.recipe == rule.better || arm.recipe == rule.worse) && !contexts.contains(&&arm.context) {
                contexts.push(&arm.context);
            }
        }
        found.extend(contexts.into_iter().map(|context| Verdict {
            rule: rule.clone(),
            context: context.clone(),
            answer: Answer::NotTested,
            difference: None,
            adjusted_p: None,
            settings: [0; 2],
            notes: Vec::new(),
        }));
    }
    found
}

/// The difference between two arms at a look, or why there is none.
pub(super) fn examine(stated: &Verdict, arms: &[Arm], answers: Answers, look: Look) -> anyhow::Result<Verdict> {
    let Verdict { rule, context, .. } = stated;
    let side = |recipe: &str| place(arms, recipe, context).map(|index| &arms[index]);
    let (better, worse) = (side(&rule.better), side(&rule.worse));
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
        note(arm, rule, &mut verdict.notes);
        if arm.missing() > 0 {
            verdict.notes.push(format!("{name}: {} trials are missing", arm.missing()));
            continue;
        }
        sides.push(answers(arm, rule.asked())?);
    }
    if let [better, worse] = sides.as_slice() {
        if better.len() < LEAST_REPLICATES {
            verdict.notes.push(format!("{} replicates; {LEAST_REPLICATES} are needed", better.len()));
        } else {
            verdict.difference = Some(difference(better, worse).at(look.share));
        }
    }
    if verdict.settings[0] != verdict.settings[1] && verdict.settings.iter().all(|count| *count > 0) {
        verdict.notes.push("unequal numbers of settings tried".to_owned());
    }
    Ok(verdict)
}

fn note(arm: &Arm, rule: &Rule, notes: &mut Vec<String>) {
    if arm.all_diverged() {
        let counted = match rule.metric.as_deref() {
            Some("log-loss") => "finding all classes equally probable",
            _ => "naming the largest class",
        };
        notes.push(format!("{}: every setting diverged; counted as {counted}", arm.recipe));
    }
    notes.extend(doubts(arm));
}

/// What may make an arm's score other than its recipe is worth.
pub(super) fn doubts(arm: &Arm) -> Vec<String> {
    let mut notes: Vec<String> = arm.at_ends().iter().map(|end| format!("{}: its {end} tried", arm.recipe)).collect();
    let tested = arm.tested();
    let under_trained = tested.iter().filter(|trial| trial.under_trained).count();
    if under_trained > 0 {
        notes.push(format!("{}: {under_trained} of {} under-trained", arm.recipe, tested.len()));
    }
    let at_chance = tested.iter().filter(|trial| trial.at_chance).count();
    if at_chance > 0 {
        notes.push(format!("{}: {at_chance} of {} at chance", arm.recipe, tested.len()));
    }
    notes
}

/// How likely a rule must be to be settled by the last look for another one to be worth its trials.
const HOPE: f64 = 0.05;

/// EQUIVALENT if the 90% interval lies within the margin; else by sign if the adjusted p is below .05; else INCONCLUSIVE. Of
/// those seen at this look, says which are settled; what further looks will hardly settle is not worth them.
pub(super) fn decide(verdicts: &mut [Verdict], seen: &[usize], look: Look, looks: &[Look]) -> Vec<usize> {
    let p: Vec<f64> = verdicts.iter().filter_map(|verdict| verdict.difference.map(|difference| difference.p)).collect();
    let adjusted = holm(&p).into_iter();
    let tests = p.len();
    verdicts.iter_mut().filter(|verdict| verdict.difference.is_some()).zip(adjusted).for_each(|(verdict, p)| {
        verdict.adjusted_p = Some(p);
    });
    let last = looks.last().copied().unwrap_or(look);
    let mut settled = Vec::new();
    for index in seen {
        let verdict = &mut verdicts[*index];
        let (Some(difference), Some(p)) = (verdict.difference, verdict.adjusted_p) else { continue };
        verdict.answer = answer(&difference, p, verdict.rule.margin);
        let hope = || difference.chance_to_settle(last, 0.05 / seen.len() as f64, verdict.rule.margin);
        if verdict.answer == Answer::Inconclusive && look.replicates < last.replicates && hope() >= HOPE {
            continue;
        }
        settled.push(*index);
        if verdict.answer == Answer::Inconclusive {
            verdict.notes.push(match difference.replicates_to_settle(last.share * 0.05 / tests as f64) {
                None => {
                    "more replicates would not settle it: the difference is too small for the test images".to_owned()
                }
                Some(_) if look.replicates < last.replicates => {
                    format!("{} replicates would hardly settle it", last.replicates)
                }
                Some(needed) => format!("about {needed} replicates would settle a difference of this size"),
            });
        }
    }
    settled
}

fn answer(difference: &Difference, p: f64, margin: f64) -> Answer {
    let half = difference.half_width(0.90);
    if difference.mean + half <= margin && difference.mean - half >= -margin {
        Answer::Equivalent
    } else if p >= 0.05 {
        Answer::Inconclusive
    } else if difference.mean > 0.0 {
        Answer::Supported
    } else {
        Answer::Refuted
    }
}
