//! How far the probabilities of recipes can be trusted: of the best of each scenario, or of all where the file asks for it.

use crate::key::Key;
use crate::report::arm::Arm;
use crate::report::calibration::{Answered, Calibration, calibrates};
use crate::report::findings::Findings;
use crate::report::sheets::named;
use crate::store::Store;
use crate::store::answers::TestAnswers;

/// Adds it to findings.
///
/// # Errors
/// The store cannot be read.
pub fn add(store: &Store, found: &mut Findings) -> anyhow::Result<()> {
    let asked = asks(found);
    let (mut all, mut without) = (Vec::new(), 0);
    for scenario in &found.scenarios {
        let best = found.best(&scenario.name).map(|(arm, _)| std::ptr::from_ref(arm));
        let shown = |arm: &&Arm| asked || best == Some(std::ptr::from_ref(*arm));
        for arm in found.of(&scenario.name).filter(shown) {
            let trials: Vec<Key> = arm.tested().iter().map(|trial| trial.key).collect();
            let shifted = found.shifts.iter().any(|shift| shift.recipe == arm.recipe && shift.context == arm.context);
            for on_others in [false, true].into_iter().take(1 + usize::from(shifted)) {
                let own = trials.iter().map(|trial| match on_others {
                    false => store.test_answers(*trial),
                    true => store.shifted_answers(*trial, |_| true),
                });
                let own = own.map(|answers| Ok(answered(answers?))).collect::<anyhow::Result<Vec<_>>>()?;
                without += if on_others { 0 } else { own.iter().filter(|own| own.is_none()).count() };
                let own: Option<Vec<Answered>> = own.into_iter().collect();
                let name = named(arm);
                all.extend(own.and_then(|own| Calibration::of(&scenario.name, &name, on_others, &own)));
            }
        }
    }
    (found.calibration, found.without_confidence) = (all, without);
    Ok(())
}

/// Whether the file calibrates probabilities, or claims something of them.
fn asks(found: &Findings) -> bool {
    let claims = |metric: Option<&String>| metric.is_some_and(|metric| metric == "log-loss");
    calibrates(found) || found.verdicts.iter().any(|verdict| claims(verdict.rule.metric.as_ref()))
}

/// None of a trial that ran before confidences were stored.
fn answered(answers: TestAnswers) -> Option<Answered> {
    let TestAnswers { samples, predicted, truth, probability, confidence } = answers;
    Some(Answered {
        images: samples,
        right: predicted.iter().zip(&truth).map(|(predicted, truth)| u32::from(*predicted) == *truth).collect(),
        confidence: confidence?.into_iter().map(f64::from).collect(),
        probability,
    })
}
