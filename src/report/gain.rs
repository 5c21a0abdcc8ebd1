//! What pretrained weights are worth: the best recipe that starts from them, less the best that starts at random.

use serde::Serialize;

use super::arm::{Arm, Context};
use super::compare::{Difference, Scored, difference};
use super::interim::Look;
use super::selection::leading;
use super::verdict::LEAST_REPLICATES;

/// In one context.
#[derive(Clone, Debug, Serialize)]
pub struct Gain {
    pub context: Context,
    /// The recipes with the best validation metric of their kind.
    pub pretrained: String,
    pub random: String,
    pub difference: Difference,
    /// What a person should know before believing it.
    pub notes: Vec<String>,
}

/// Gains of all contexts in which recipes of both kinds have been run, in the order of the arms, on the replicates that both have.
/// `answers` gives the test answers of an arm's selected setting by replicate.
///
/// # Errors
/// What `answers` returns.
pub fn gains(
    arms: &[Arm],
    looks: &[Look],
    answers: impl Fn(&Arm) -> anyhow::Result<Vec<Scored>>,
) -> anyhow::Result<Vec<Gain>> {
    let first = looks[0].replicates;
    let mut contexts: Vec<Context> = Vec::new();
    for arm in arms {
        let context = held(&arm.context);
        if !contexts.contains(&context) {
            contexts.push(context);
        }
    }
    let mut found = Vec::new();
    for context in contexts {
        let own = || arms.iter().filter(|arm| held(&arm.context) == context);
        let of = |random: bool| leading(own().filter(|arm| is_random(arm) == random), first);
        let (Some(pretrained), Some(random)) = (of(false), of(true)) else { continue };
        let (mut better, mut worse) = (answers(pretrained)?, answers(random)?);
        let both = better.len().min(worse.len());
        let [one, other] = [pretrained, random].map(|arm| arm.tested().into_iter().map(|trial| trial.replicate));
        if both < LEAST_REPLICATES || !one.zip(other).all(|(one, other)| one == other) {
            continue;
        }
        better.truncate(both);
        worse.truncate(both);
        let share = looks.iter().find(|look| look.replicates >= both).map_or(1.0, |look| look.share);
        let open = own().filter(|arm| arm.missing() > 0).count();
        let mut notes: Vec<String> = [pretrained, random].into_iter().filter_map(under_trained).collect();
        notes.extend((open > 0).then(|| format!("{open} recipes have not been run to their end")));
        found.push(Gain {
            pretrained: pretrained.recipe.clone(),
            random: random.recipe.clone(),
            difference: difference(&better, &worse).at(share),
            notes,
            context,
        });
    }
    Ok(found)
}

/// What is held equal: all of a context but the weights, where they are an axis.
fn held(context: &Context) -> Context {
    context.iter().filter(|(key, _)| key != "weights").cloned().collect()
}

/// Whether all of an arm starts at random.
fn is_random(arm: &Arm) -> bool {
    arm.settings.iter().all(|setting| setting.text("weights") == Some("random"))
}

fn under_trained(arm: &Arm) -> Option<String> {
    let trials = arm.tested();
    let count = trials.iter().filter(|trial| trial.under_trained).count();
    (count > 0).then(|| format!("{}: {count} of {} under-trained", arm.recipe, trials.len()))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::key::Key;
    use crate::report::arm::{Setting, Trial};

    fn arm(scenario: &str, recipe: &str, weights: &str, val: f64, under_trained: bool) -> Arm {
        let settings = Rc::new([("weights", weights.to_owned())].into());
        let key = Key::of("trial", &(scenario, recipe));
        let trial = |replicate: usize| Trial {
            key,
            cell: key,
            replicate,
            status: "done".to_owned(),
            settings: Rc::clone(&settings),
            val: Some(val),
            test: Some(val),
            at_chance: false,
            under_trained,
            seconds: 1.0,
        };
        let trials = (0..3).map(trial).collect();
        Arm {
            context: vec![("scenario".to_owned(), scenario.to_owned())],
            recipe: recipe.to_owned(),
            replicates: 3,
            settings: vec![Setting { trials, validation: Some((val, 3)), ..Setting::new(key, &settings) }],
            selected: Some(0),
            screening: None,
            worth: vec![0],
            unplanned: 0,
            folds: None,
        }
    }

    #[test]
    fn the_best_of_each_kind_is_compared_in_each_context() {
        let mut axis = [arm("d", "tune", "w", 0.8, false), arm("d", "tune", "random", 0.3, false)];
        axis.iter_mut().zip(["w", "random"]).for_each(|(arm, weights)| {
            arm.context.push(("weights".to_owned(), weights.to_owned()));
        });
        let [learned, fresh] = axis;
        let arms = [
            arm("a", "probe", "w", 0.5, false),
            arm("a", "tune", "w", 0.7, false),
            arm("a", "scratch", "random", 0.3, true),
            arm("b", "tune", "w", 0.9, false),
            arm("c", "scratch", "random", 0.4, false),
            learned,
            fresh,
        ];
        // Every second image more is right, as validation says.
        let answers = |arm: &Arm| {
            let metric = arm.settings[0].trials[0].val.unwrap_or(0.0);
            let one = |image: usize| f64::from((image as f64) < 10.0 * metric) - metric;
            let scored = Scored { metric, influence: (0..10).map(one).collect(), images: (0..10).collect() };
            Ok(vec![scored; 3])
        };
        let looks = super::super::interim::looks(3, 3);
        let found = gains(&arms, &looks, answers).expect("answers are there");
        let told: Vec<(&str, &str)> =
            found.iter().map(|gain| (gain.pretrained.as_str(), gain.random.as_str())).collect();
        assert_eq!(told, [("tune", "scratch"), ("tune", "tune")]);
        assert!((found[0].difference.mean - 0.4).abs() < 1e-12);
        assert_eq!(found[0].notes, ["scratch: 3 of 3 under-trained"]);
    }
}
