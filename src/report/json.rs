//! Findings as JSON for machines: versioned, only ever appended to.

use serde_json::{Value, json};

use super::arm::Arm;
use super::errors::Errors;
use super::findings::{Findings, further_context};

const VERSION: u32 = 1;

/// The whole report.
pub fn report(findings: &Findings, errors: &[Errors]) -> Value {
    json!({
        "version": VERSION,
        "experiment": findings.experiment,
        "question": findings.question,
        "set": findings.set,
        "metric": findings.metric,
        "replicates": findings.repeats.replicates,
        "max_replicates": findings.repeats.most,
        "tune_replicates": findings.repeats.tuned,
        "tune_share": findings.repeats.share,
        "numerics": findings.numerics,
        "counts": findings.counts,
        "sharing": findings.sharing,
        "near_duplicates": findings.near,
        "near_duplicates_of_others": findings.near_others,
        "folds": findings.folds,
        "scenarios": findings.scenarios,
        "best": findings.scenarios.iter().map(|scenario| json!({
            "scenario": scenario.name,
            "recipe": findings.best(&scenario.name).map(|(arm, _)| arm.recipe.clone()),
        })).collect::<Vec<_>>(),
        "arms": findings.arms.iter().map(|own| arm(findings, own)).collect::<Vec<_>>(),
        "verdicts": findings.verdicts,
        "gains": findings.gains,
        "choices": findings.choices,
        "rivals": findings.rivals,
        "prices": findings.prices,
        "growth": findings.growth,
        "variance": findings.variance,
        "shifts": findings.shifts,
        "calibration": findings.calibration,
        "errors": errors,
    })
}

fn arm(findings: &Findings, arm: &Arm) -> Value {
    let context: serde_json::Map<String, Value> =
        arm.context.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let test = Findings::test(arm);
    json!({
        "context": context,
        "recipe": arm.recipe,
        "named": further_context(arm),
        "tried": arm.tried(),
        "with_whole_budget": arm.screening.as_ref().and_then(|screening| Some(screening.kept.as_ref()?.len())),
        "missing": arm.missing(),
        "at_ends": arm.at_ends(),
        "selected": arm.best().map(|setting| setting.label.clone()),
        "test_mean": test.map(|test| test.mean),
        "test_ci95": test.and_then(|test| test.half_width),
        "n": test.map_or(0, |test| test.n),
        "macs": findings.macs(arm),
        "test": arm.best().map(|_| arm.test()),
        "trials": arm.best().map(|_| arm.tested().iter().map(|trial| trial.key.to_string()).collect::<Vec<_>>()),
    })
}
