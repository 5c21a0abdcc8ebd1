//! Verdicts: selection on validation, unequal budgets, too few replicates, and each answer in its order.

use std::rc::Rc;

use tl_sweep::key::Key;
use tl_sweep::report::arm::{Arm, Repeats, Settings, Trial, arms};
use tl_sweep::report::compare::{Scored, scored};
use tl_sweep::report::findings::further_context;
use tl_sweep::report::inquiry::inquire;
use tl_sweep::report::verdict::{Answer, Asked, Reach, Rule, Verdict};

pub fn trial(recipe: &str, lr: &str, replicate: usize, val: f64, test: f64) -> Trial {
    let settings: Settings = [("scenario", "s"), ("recipe", recipe), ("dataset", "d"), ("lr", lr)]
        .map(|(key, value)| (key, value.to_owned()))
        .into();
    Trial {
        key: Key::of("t", &(recipe, lr, replicate)),
        cell: Key::of("c", &(recipe, lr)),
        replicate,
        status: "done".to_owned(),
        settings: Rc::new(settings),
        val: Some(val),
        test: Some(test),
        at_chance: false,
        under_trained: false,
        seconds: 1.0,
    }
}

/// An arm whose test answers are right on the first `right` of 200 images, give or take the replicate.
fn answers(arm: &Arm, _: Asked) -> anyhow::Result<Vec<Scored>> {
    let setting = arm.best().unwrap();
    Ok(setting
        .trials
        .iter()
        .map(|trial| {
            let right = (trial.test.unwrap() * 200.0).round() as usize;
            let predicted: Vec<u16> = (0..200).map(|image| u16::from((image * 37) % 200 >= right)).collect();
            scored("accuracy", &predicted, &[0; 200])
        })
        .collect())
}

fn judge(trials: &[Trial], replicates: usize, margin: f64) -> Verdict {
    let [scenario, better, worse] = ["*", "a", "b"].map(str::to_owned);
    let rule = Rule { scenario, better, worse, margin, on: None, metric: None };
    let reach = Reach { matches: &|_, _| true, tests: &|_, _| false };
    let found = inquire(&[rule], trials, Repeats::all(replicates), reach, &|_| None, &answers);
    found.unwrap().verdicts.remove(0)
}

fn pair(a: [f64; 3], b: [f64; 3]) -> Vec<Trial> {
    let side = |recipe: &'static str, tests: [f64; 3]| {
        tests.into_iter().enumerate().map(move |(replicate, test)| trial(recipe, "1", replicate, 0.5, test))
    };
    side("a", a).chain(side("b", b)).collect()
}

#[test]
fn selection_reads_validation_only() {
    let mut trials = Vec::new();
    for replicate in 0..3 {
        trials.push(trial("a", "0.1", replicate, 0.9, 0.1));
        trials.push(trial("a", "0.2", replicate, 0.8, 1.0));
        trials.push(trial("a", "0.3", replicate, 0.9, 0.2));
    }
    let arms = arms(&trials, Repeats::all(3));
    assert_eq!(arms[0].best().unwrap().label, "lr = 0.1", "ties go to the first in the file");
}

/// A rate of a logarithmic axis has three digits that matter; near ones get as many as tell them apart.
#[test]
fn settings_are_named_by_the_digits_that_tell_them_apart() {
    let names = |rates: &[&str]| -> Vec<String> {
        let trials: Vec<Trial> =
            rates.iter().flat_map(|lr| (0..3).map(|replicate| trial("a", lr, replicate, 0.5, 0.5))).collect();
        arms(&trials, Repeats::all(3))[0].settings.iter().map(|setting| setting.label.clone()).collect()
    };
    let expected = ["lr = 0.00979", "lr = 0.1", "lr = 0.00313", "lr = 1e-4"];
    assert_eq!(names(&["0.009791483623609768", "0.1", "0.0031279123456", "0.0001"]), expected);
    assert_eq!(names(&["0.123456", "0.123412"]), ["lr = 0.1235", "lr = 0.1234"]);
    assert_eq!(names(&["0.30000000000000004", "0.3"]), ["lr = 0.30000000000000004", "lr = 0.3"]);
}

/// The best of a grid at its end is the best of what was tried and no more.
#[test]
fn what_is_selected_at_the_end_of_a_grid_is_marked() {
    let ends = |rates: &[&str], best: usize| {
        let of = |(at, lr): (usize, &&str)| {
            let val = if at == best { 0.9 } else { 0.5 };
            let lr = (*lr).to_owned();
            (0..3).map(move |replicate| trial("a", &lr, replicate, val, val)).collect::<Vec<_>>()
        };
        let trials: Vec<Trial> = rates.iter().enumerate().flat_map(of).collect();
        arms(&trials, Repeats::all(3))[0].at_ends()
    };
    assert_eq!(ends(&["0.01", "0.1", "0.001"], 1), ["lr is the largest of 3"]);
    assert_eq!(ends(&["0.01", "0.1", "1e-3"], 2), ["lr is the smallest of 3"]);
    assert!(ends(&["0.01", "0.1", "1e-3"], 0).is_empty());
    assert!(ends(&["0.01", "0.1"], 0).is_empty(), "of two each is an end");
    let with = |key: &'static str, value: &[&str]| {
        let of = |(at, value): (usize, &&str)| {
            let value = (*value).to_owned();
            (0..3).map(move |replicate| {
                let mut own = trial("a", &format!("0.{}", at + 1), replicate, 0.9 - at as f64 / 10.0, 0.5);
                Rc::make_mut(&mut own.settings).extend([(key, value.clone()), ("lr", "0.1".to_owned())]);
                own
            })
        };
        let trials: Vec<Trial> = value.iter().enumerate().flat_map(of).collect();
        arms(&trials, Repeats::all(3))[0].at_ends()
    };
    assert_eq!(with("weight_decay", &["0.01", "0.001", "0"]), ["weight_decay is the largest of 3"]);
    assert!(with("weight_decay", &["0", "0.001", "0.01"]).is_empty(), "below none there is nothing");
    assert!(with("layer_decay", &["1", "0.9", "0.8"]).is_empty());
    let mut trials = pair([0.9; 3], [0.5; 3]);
    for (lr, val) in [("2", 0.4), ("3", 0.3)] {
        trials.extend((0..3).map(|replicate| trial("a", lr, replicate, val, 0.9)));
    }
    let notes = judge(&trials, 3, 0.01).notes;
    assert!(notes.contains(&"a: its lr is the smallest of 3 tried".to_owned()), "{notes:?}");
}

#[test]
fn unequal_budgets_are_marked() {
    let mut trials = pair([0.9; 3], [0.5; 3]);
    trials.extend((0..3).map(|replicate| trial("a", "2", replicate, 0.4, 0.9)));
    let verdict = judge(&trials, 3, 0.01);
    assert_eq!(verdict.settings, [2, 1]);
    assert!(verdict.notes.iter().any(|note| note.contains("unequal")), "{:?}", verdict.notes);
}

/// A path of strengths is a grid that validation chooses from, like any other.
#[test]
fn strengths_on_a_path_are_settings_tried() {
    let mut trials = pair([0.9; 3], [0.5; 3]);
    let solved = |trial: &mut Trial, lambda: Option<&str>| {
        let mut settings = (*trial.settings).clone();
        settings.insert("optimizer", "lbfgs".to_owned());
        settings.extend(lambda.map(|lambda| ("lambda", lambda.to_owned())));
        trial.settings = Rc::new(settings);
    };
    trials.iter_mut().filter(|trial| trial.settings["recipe"] == "a").for_each(|trial| solved(trial, None));
    let verdict = judge(&trials, 3, 0.01);
    assert_eq!(verdict.settings, [45, 1]);
    assert!(verdict.notes.iter().any(|note| note.contains("unequal")), "{:?}", verdict.notes);
    trials.iter_mut().filter(|trial| trial.settings["recipe"] == "a").for_each(|trial| solved(trial, Some("[1, 10]")));
    assert_eq!(judge(&trials, 3, 0.01).settings, [2, 1]);
}

#[test]
fn fewer_than_three_replicates_decide_nothing() {
    let trials: Vec<Trial> = pair([0.9; 3], [0.5; 3]).into_iter().filter(|trial| trial.replicate < 2).collect();
    let verdict = judge(&trials, 2, 0.01);
    assert_eq!(verdict.answer, Answer::NotTested);
    assert!(verdict.notes[0].contains("3 are needed"));
}

#[test]
fn every_answer_can_be_given() {
    assert_eq!(judge(&pair([0.9, 0.91, 0.92], [0.5, 0.52, 0.51]), 3, 0.01).answer, Answer::Supported);
    assert_eq!(judge(&pair([0.5, 0.52, 0.51], [0.9, 0.91, 0.92]), 3, 0.01).answer, Answer::Refuted);
    assert_eq!(judge(&pair([0.7; 3], [0.7; 3]), 3, 0.01).answer, Answer::Equivalent);
    let verdict = judge(&pair([0.7, 0.5, 0.9], [0.6, 0.7, 0.5]), 3, 0.01);
    assert_eq!(verdict.answer, Answer::Inconclusive);
    assert!(verdict.notes.iter().any(|note| note.contains("replicates")), "{:?}", verdict.notes);
    assert_eq!(judge(&pair([0.7; 3], [0.7; 3])[..3], 3, 0.01).answer, Answer::NotTested);
}

#[test]
fn a_missing_trial_leaves_its_setting_unselected_and_its_rule_untested() {
    let mut trials = pair([0.9; 3], [0.5; 3]);
    trials[1].status = "failed".to_owned();
    let verdict = judge(&trials, 3, 0.01);
    assert_eq!(verdict.answer, Answer::NotTested);
    assert!(verdict.notes[0].contains("a: 1 trials are missing"), "{:?}", verdict.notes);
}

#[test]
fn preprocessing_against_the_weights_is_named_in_every_table() {
    let with = |text: &str| {
        let mut trials = pair([0.5, 0.6, 0.7], [0.4, 0.5, 0.6]);
        for trial in &mut trials {
            Rc::make_mut(&mut trial.settings).insert("preprocess", text.to_owned());
        }
        arms(&trials, Repeats::all(3)).iter().map(further_context).collect::<Vec<_>>()
    };
    assert_eq!(with("torch instead of tf"), ["preprocess = torch instead of tf"; 2]);
    assert_eq!(with("torch"), ["", ""]);
}
