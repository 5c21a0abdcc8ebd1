//! Why a trial stands as it does: how it ended, what its flags rest on, whether it is selected, in which verdicts it counts.

use std::collections::{BTreeMap, BTreeSet};

use super::arm::{Arm, Repeats, Screening, Setting, Trial};
use super::findings::{Findings, fraction};
use super::naming::shown;
use super::sheets::place_of;
use super::verdict::Verdict;
use crate::key::Key;

/// Columns of a trial by their names.
type Columns = BTreeMap<&'static str, String>;

/// What is known of a trial.
pub struct Known<'a> {
    pub key: Key,
    pub columns: &'a Columns,
    /// Those of all cells that are this trial, itself among them.
    pub cells: &'a [Columns],
    /// Other experiments that plan it.
    pub others: &'a [String],
    /// step, epoch, lr, train_loss, val_loss, val_accuracy.
    pub curve: &'a [[f64; 6]],
    /// Test images, and how many of them are of the largest class.
    pub test: Option<(usize, usize)>,
    /// How the last sweep of its experiment ended; None where it is running or was killed.
    pub ended: Option<&'a str>,
    pub findings: &'a Findings,
}

/// What a reason is about, and the reason.
pub type Reason = (&'static str, String);

/// All reasons, the most telling first.
pub fn reasons(known: &Known) -> Vec<Reason> {
    let mut found = vec![("status", status(known))];
    let mut add = |about: &'static str, reason: Option<String>| found.extend(reason.map(|reason| (about, reason)));
    add("one trial", cells(known));
    let place = known.findings.arms.iter().find_map(|arm| {
        let own = |setting: &&Setting| setting.trials.iter().any(|trial| trial.key == known.key);
        Some((arm, arm.settings.iter().find(own)?))
    });
    let screened = known.findings.arms.iter().find_map(|arm| {
        let own = |setting: &Setting| setting.short.iter().any(|trial| trial.key == known.key);
        Some((arm, arm.screening.as_ref()?, arm.settings.iter().position(own)?))
    });
    add("share", screened.map(|(arm, screening, index)| whether_kept(known, arm, screening, index)));
    add("selection", place.map(|(arm, setting)| selection(known, arm, setting) + &in_folds(known, arm)));
    add("at chance", at_chance(known));
    add("under-trained", under_trained(known));
    for warning in warnings(known) {
        add("warning", Some(warning));
    }
    if let Some((arm, _)) = place {
        for verdict in known.findings.verdicts.iter().filter(|verdict| verdict.context == arm.context) {
            add("verdict", counted(verdict, arm, known.key));
        }
    }
    found
}

fn text<'a>(known: &'a Known, column: &str) -> &'a str {
    known.columns.get(column).map_or("", String::as_str)
}

fn number(known: &Known, column: &str) -> Option<f64> {
    text(known, column).parse().ok()
}

fn status(known: &Known) -> String {
    let again = "`tl-sweep run FILE` tries it again";
    match text(known, "status") {
        "done" => {
            let early = if text(known, "stopped_early") == "1" { ", where early_stop ended it" } else { "" };
            format!("it ran to its end: {} steps{early}; {}", text(known, "steps_run"), circumstances(known))
        }
        "diverged" => {
            let last = known.curve.last().map_or_else(String::new, |point| {
                format!(", behind step {:.0} with a training loss of {:.3}", point[0], point[3])
            });
            format!(
                "it diverged: its loss or a parameter was no finite number any more within {} steps{last}; {}",
                text(known, "steps_run"),
                circumstances(known)
            )
        }
        "failed" => format!("it failed ({}): {}. {again}", text(known, "failure"), text(known, "message")),
        "blocked" => format!("it was not run: {}. {again}", text(known, "message")),
        _ => {
            let sweep = match known.ended {
                None => "the last sweep of its experiment is running, or was killed before it came to this trial",
                Some("complete" | "failures") => "the last sweep did not ask for it (--only, --limit)",
                Some(_) => "the last sweep was stopped, or limited, before it came to this trial",
            };
            format!("it has no result: {sweep}. `tl-sweep run FILE` runs what is missing")
        }
    }
}

fn circumstances(known: &Known) -> String {
    let group = match number(known, "group_size") {
        Some(count) if count > 1.0 => format!(" in a group of {count} trials that shared work"),
        _ => String::new(),
    };
    format!(
        "{:.1} s on {} ({}){group}, {}",
        number(known, "seconds").unwrap_or(0.0),
        text(known, "device"),
        text(known, "numerics"),
        text(known, "finished")
    )
}

/// What cells differ in that are one trial.
fn cells(known: &Known) -> Option<String> {
    let others = (!known.others.is_empty())
        .then(|| format!("it stands in {} as well, and is run once for all", known.others.join(", ")));
    let names: BTreeSet<&str> = known.cells.iter().flat_map(|cell| cell.keys().copied()).collect();
    let values = |name: &str| -> BTreeSet<&str> {
        known.cells.iter().map(|cell| cell.get(name).map_or("none", String::as_str)).collect()
    };
    let differing = names.into_iter().map(|name| (name, values(name))).filter(|(_, values)| values.len() > 1);
    let differing: Vec<String> = differing
        .map(|(name, values)| format!("{name} ({})", values.into_iter().map(shown).collect::<Vec<_>>().join(", ")))
        .collect();
    let collapsed = (known.cells.len() > 1).then(|| match differing.is_empty() {
        true => format!(
            "{} cells of the cross are this trial: they differ in nothing that has an effect (`tl-sweep plan` lists such cells)",
            known.cells.len()
        ),
        false => format!(
            "{} cells of the cross are this trial, under several labels: {}",
            known.cells.len(),
            differing.join(", ")
        ),
    });
    let parts: Vec<String> = collapsed.into_iter().chain(others).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Whether validation selects its setting within its arm.
fn selection(known: &Known, arm: &Arm, own: &Setting) -> String {
    let (metric, repeats) = (&known.findings.metric, known.findings.repeats);
    let shown = |(mean, on): (f64, usize)| match repeats.tuned < arm.replicates && arm.settings.len() > 1 {
        true => format!("{} over {on} of {} replicates", fraction(mean), arm.replicates),
        false => fraction(mean),
    };
    let named = |setting: &Setting| match setting.label.as_str() {
        "" => "the only setting".to_owned(),
        label => label.to_owned(),
    };
    let of = format!("of '{}' in {}", arm.recipe, arm.context_value("scenario"));
    let Some(mean) = own.validation else {
        let instead = arm.best().map_or_else(String::new, |best| format!("; {} is selected {of}", named(best)));
        return format!(
            "its setting ({}) cannot be selected: {}{instead}",
            named(own),
            not_selectable(own, repeats.on(arm.replicates))
        );
    };
    let Some((best, most)) = arm.best().and_then(|best| Some((best, best.validation?))) else {
        return format!("no setting {of} is selected");
    };
    let count = arm.settings.len();
    if std::ptr::eq(best, own) {
        if count == 1 {
            return format!("there is one setting {of}: mean validation {metric} {}", shown(mean));
        }
        let others = arm.settings.iter().filter(|setting| !std::ptr::eq(*setting, own));
        let next = others
            .filter_map(|setting| setting.validation)
            .reduce(|one, other| if other.0 > one.0 { other } else { one });
        let next = next.map_or_else(String::new, |next| format!(", the next one {}", shown(next)));
        return format!(
            "validation selects its setting ({}) among {count} {of}: mean {metric} {}{next}",
            named(own),
            shown(mean)
        );
    }
    let tie = if most.0 == mean.0 { ": of equals the first in the file" } else { "" };
    format!(
        "validation selects another of {count} settings {of}: {} with a mean {metric} of {}, this one ({}) has {}{tie}",
        named(best),
        shown(most),
        named(own),
        shown(mean)
    )
}

/// Whether its setting was worth the whole budget, by what it reached on a share.
fn whether_kept(known: &Known, arm: &Arm, screening: &Screening, index: usize) -> String {
    let (metric, repeats, own) = (&known.findings.metric, known.findings.repeats, &arm.settings[index]);
    let Screening { share, most, kept } = screening;
    let of = format!("of '{}' in {}", arm.recipe, arm.context_value("scenario"));
    let whole = format!("{most} of {} settings {of} run all of it", arm.settings.len());
    let reached = match own.short_scores(repeats.tuned) {
        Some(scores) => {
            format!("reaches a mean {metric} of {}", fraction(scores.iter().sum::<f64>() / scores.len() as f64))
        }
        None => format!("has diverged in {} of {} replicates", own.count_short("diverged"), own.short.len()),
    };
    match kept {
        None => format!("it has {share} of its budget; {whole}, by what they reach on that: not all have run yet"),
        Some(kept) if kept.contains(&index) => {
            format!("with {share} of its budget its setting ({}) {reached}; {whole}, this one among them", own.label)
        }
        Some(kept) => {
            let others: Vec<&str> = kept.iter().map(|index| arm.settings[*index].label.as_str()).collect();
            let others = if others.is_empty() { "none".to_owned() } else { others.join(" and ") };
            format!("with {share} of its budget its setting ({}) {reached}; {whole}, not this one: {others}", own.label)
        }
    }
}

/// What its replicate selects, where each does for itself.
fn in_folds(known: &Known, arm: &Arm) -> String {
    if arm.folds.is_none() || arm.settings.len() == 1 || arm.best().is_none() {
        return String::new();
    }
    let own = arm.tested().iter().any(|tested| tested.key == known.key);
    let what = if own { "this one" } else { "another" };
    format!("; in folds each replicate is tested with the setting that its own validation selects: {what}")
}

fn not_selectable(own: &Setting, Repeats { replicates, tuned, .. }: Repeats) -> String {
    let gone = own.count("diverged");
    if gone > 0 {
        return format!("{gone} of its {} replicates diverged", own.trials.len());
    }
    let first = |trial: &&Trial| trial.replicate < tuned && trial.status == "done";
    let missing = tuned - own.trials.iter().filter(first).count();
    let of = if tuned < replicates { format!("first {tuned}") } else { replicates.to_string() };
    format!("{missing} of its {of} replicates have no result")
}

/// What the flag rests on.
fn at_chance(known: &Known) -> Option<String> {
    let (images, largest) = known.test.filter(|_| text(known, "at_chance") == "1")?;
    let majority = largest as f64 / images.max(1) as f64;
    let bound = majority + 2.0 * (majority * (1.0 - majority) / images.max(1) as f64).sqrt();
    Some(format!(
        "test accuracy {} is not above {}: naming the largest class gets {} of {images} images, and two standard errors are added",
        fraction(number(known, "test_accuracy")?),
        fraction(bound),
        fraction(majority)
    ))
}

fn under_trained(known: &Known) -> Option<String> {
    if text(known, "under_trained") != "1" {
        return None;
    }
    let last = known.curve.last()?;
    let before = known.curve.iter().rfind(|point| point[0] * 10.0 <= last[0] * 9.0);
    Some(match before {
        Some(before) if last[4] < 0.99 * before[4] => format!(
            "validation loss still fell by {:.1}% over the last tenth, from {:.4} at step {:.0} to {:.4} at step {:.0}: more steps \
             may do better",
            100.0 * (1.0 - last[4] / before[4]),
            before[4],
            before[0],
            last[4],
            last[0]
        ),
        _ => "its head was not solved to the end: more steps may do better".to_owned(),
    })
}

fn warnings(known: &Known) -> Vec<String> {
    serde_json::from_str(text(known, "warnings")).unwrap_or_default()
}

/// Whether it counts in a verdict of its context, and how.
fn counted(verdict: &Verdict, arm: &Arm, trial: Key) -> Option<String> {
    let side = [(&verdict.rule.better, "first"), (&verdict.rule.worse, "second")]
        .into_iter()
        .find_map(|(recipe, side)| (*recipe == arm.recipe).then_some(side))?;
    let claim = format!("{} > {} in {}", verdict.rule.better, verdict.rule.worse, place_of(verdict));
    Some(match arm.tested().iter().any(|tested| tested.key == trial) {
        true => format!("it counts in {claim}, on the {side} side: {}", verdict.answer),
        false => format!("it does not count in {claim} ({}): only the selected setting is tested", verdict.answer),
    })
}
