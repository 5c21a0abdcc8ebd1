//! What recipes score on validation by the value of a setting, as a picture for each scenario and each key that tunes.

use super::arm::{Arm, Setting, TUNING};
use super::compare::mean;
use super::curves::{Curves, Line};
use super::findings::Findings;
use super::naming::told_apart;
use super::sheets::named;

/// A key that tunes, and its picture in one scenario: a line for each recipe that tries several values of it.
pub struct Tuned {
    pub key: &'static str,
    /// Whether other keys are tried beside it: then each value stands with the best of them.
    pub beside: bool,
    pub curves: Curves,
}

/// Those of all scenarios, key by key. Of each value the setting that is best on the replicates on which settings are compared,
/// and with the share of the budget that they are compared on first.
pub fn tuned(findings: &Findings) -> Vec<Tuned> {
    let replicates = findings.repeats.tuned;
    let of = |scenario: &str, key: &'static str| {
        let arms: Vec<&Arm> = findings.of(scenario).filter(|arm| values(&[*arm], key).len() > 1).collect();
        let all = values(&arms, key);
        let line = |arm: &&Arm| Line {
            name: match &arm.screening {
                Some(screening) => format!("{}, on {} of its budget", named(arm), screening.share),
                None => named(arm),
            },
            points: all.iter().map(|value| best(arm, key, *value, replicates)).collect(),
        };
        let lines: Vec<Line> = arms.iter().map(line).collect();
        let varies = |arm: &&Arm| TUNING.iter().filter(|other| values(&[*arm], other).len() > 1).count();
        let beside = arms.iter().any(|arm| varies(arm) > 1);
        let curves = Curves { name: scenario.to_owned(), places: told_apart(&all), lines };
        (!arms.is_empty()).then_some(Tuned { key, beside, curves })
    };
    let scenarios = findings.scenarios.iter().map(|scenario| scenario.name.as_str());
    scenarios.flat_map(|scenario| TUNING.iter().filter_map(move |key| of(scenario, key))).collect()
}

/// The values of a key that arms try, the smallest first.
fn values(arms: &[&Arm], key: &str) -> Vec<f64> {
    let settings = arms.iter().flat_map(|arm| &arm.settings);
    let mut all: Vec<f64> = settings.filter_map(|setting| setting.number(key)).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

/// The mean and half of its interval; of what diverged or is missing there is none.
fn best(arm: &Arm, key: &str, value: f64, replicates: usize) -> Option<(f64, Option<f64>)> {
    let own = arm.settings.iter().filter(|setting| setting.number(key) == Some(value));
    let scores = |setting: &Setting| match &arm.screening {
        Some(_) => setting.short_scores(replicates),
        None => setting.scores(replicates),
    };
    let means = own.filter_map(scores).map(|scores| mean(&scores));
    let best = means.reduce(|best, own| if own.mean > best.mean { own } else { best })?;
    Some((best.mean, best.half_width))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::key::Key;
    use crate::report::arm::{Repeats, Settings, Trial, arms};

    /// Trials of a recipe at a rate and a decay, with the validation score of each replicate: one without has diverged.
    fn trials(rate: &str, decay: &str, scores: [Option<f64>; 2]) -> Vec<Trial> {
        let pairs = [("scenario", "s"), ("recipe", "r"), ("lr", rate), ("weight_decay", decay)];
        let settings: Settings = pairs.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
        let settings = Rc::new(settings);
        let one = |(replicate, val): (usize, Option<f64>)| Trial {
            key: Key::of("trial", &(rate, decay, replicate)),
            cell: Key::of("cell", &(rate, decay)),
            replicate,
            status: if val.is_some() { "done" } else { "diverged" }.to_owned(),
            settings: Rc::clone(&settings),
            val,
            test: val,
            at_chance: false,
            under_trained: false,
            seconds: 1.0,
        };
        scores.into_iter().enumerate().map(one).collect()
    }

    #[test]
    fn each_value_stands_with_the_best_of_the_other_keys() {
        let all = [
            trials("0.1", "0.0", [Some(0.7), Some(0.9)]),
            trials("0.01", "0.0", [Some(0.5), Some(0.5)]),
            trials("0.01", "0.001", [Some(0.6), Some(0.8)]),
            trials("1.0", "0.0", [Some(0.9), None]),
        ];
        let arms = arms(&all.concat(), Repeats::all(2));
        let [arm] = &arms[..] else { panic!("one arm") };
        assert_eq!(values(&[arm], "lr"), [0.01, 0.1, 1.0]);
        assert_eq!(told_apart(&[0.0001, 0.00979148, 0.1]), ["1e-4", "0.00979", "0.1"]);
        let (mean, half) = best(arm, "lr", 0.01, 2).expect("two scores");
        assert!((mean - 0.7).abs() < 1e-12 && half.is_some_and(|half| half > 1.0), "{mean} {half:?}");
        assert_eq!(best(arm, "lr", 1.0, 2), None, "a replicate diverged");
        assert!((best(arm, "weight_decay", 0.0, 2).expect("scores").0 - 0.8).abs() < 1e-12);
    }
}
