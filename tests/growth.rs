//! What more images buy: which scenarios are one target at several sizes, what a doubling bought, and where which recipe is better.

use std::collections::BTreeMap;

use tl_sweep::report::arm::Arm;
use tl_sweep::report::compare::{Scored, scored};
use tl_sweep::report::findings::Scenario;
use tl_sweep::report::growth::{Growth, growths};
use tl_sweep::report::verdict::Rule;
use tl_sweep::seed::{Stream, stream};

use crate::builder::World;
use crate::choices::{Place, REPLICATES, answers, trials, verdicts};

fn scenario(name: &str, dataset: &str, per_class: Option<usize>, own: &[(&str, &str)]) -> Scenario {
    let own = own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>();
    let (name, dataset) = (name.to_owned(), dataset.to_owned());
    Scenario { name, size: None, similarity: None, dataset, per_class, own: Some(own) }
}

/// Of ten classes; all are as many as 80 of each.
fn images(_: &str, per_class: Option<usize>) -> Option<(f64, usize)> {
    Some((10.0 * per_class.unwrap_or(80) as f64, 10))
}

fn grown(scenarios: &[Scenario], places: &[Place], claims: &[(&str, &str)]) -> Vec<Growth> {
    let claims: Vec<(&str, &str, &str)> = claims.iter().map(|(better, worse)| ("*", *better, *worse)).collect();
    let (found, arms) = verdicts(&claims, &trials(places));
    let rules: Vec<Rule> = found.into_iter().map(|verdict| verdict.rule).collect();
    growths(scenarios, &arms, &rules, REPLICATES, images, answers).unwrap()
}

const PLACES: &[Place] = &[
    ("many", "near", &[("probe", 0.6, Some(0.62)), ("tune", 0.9, Some(0.9)), ("odd", 0.1, Some(0.62))]),
    ("few", "near", &[("probe", 0.5, Some(0.5)), ("tune", 0.2, Some(0.3))]),
    ("some", "near", &[("probe", 0.6, Some(0.6)), ("tune", 0.7, Some(0.7))]),
    ("far", "far", &[("probe", 0.6, Some(0.6)), ("tune", 0.7, Some(0.7))]),
];

fn sized() -> Vec<Scenario> {
    vec![
        scenario("many", "near", None, &[]),
        scenario("few", "near", Some(5), &[]),
        scenario("some", "near", Some(20), &[]),
        scenario("far", "far", Some(5), &[]),
    ]
}

#[test]
fn one_target_at_several_sizes_is_found_and_what_turns_there() {
    let found = grown(&sized(), PLACES, &[("probe", "tune"), ("tune", "probe"), ("probe", "odd")]);
    let [growth] = &found[..] else { panic!("{} datasets grow", found.len()) };
    let sizes: Vec<(&str, Option<usize>)> =
        growth.sizes.iter().map(|size| (size.scenario.as_str(), size.per_class)).collect();
    assert_eq!(sizes, [("few", Some(5)), ("some", Some(20)), ("many", None)]);
    // Validation's choices first, then the best with most images.
    let lines: Vec<Option<&str>> = growth.lines.iter().map(|line| line.recipe.as_deref()).collect();
    assert_eq!(lines, [None, Some("tune"), Some("probe"), Some("odd")]);
    let chosen: Vec<&str> = growth.lines[0].points.iter().flatten().map(|point| point.recipe.as_str()).collect();
    assert_eq!(chosen, ["probe", "tune", "tune"]);
    // From 20 to 80 they double twice.
    let doubling = growth.lines[1].doubling.expect("two sizes");
    assert!((doubling.mean - 0.1).abs() < 1e-9 && (doubling.times - 2.0).abs() < 1e-9, "{doubling:?}");
    assert!((doubling.half_width - doubling.gain.half_width(0.95) / 2.0).abs() < 1e-12 && doubling.half_width > 0.0);
    assert!(growth.lines[3].doubling.is_none(), "it does not stand at 20");
    // Both rules and what validation chooses are one pair; `odd` stands beside the probe in one place alone.
    let [turn] = &growth.turns[..] else { panic!("{:?}", growth.turns) };
    assert_eq!((turn.better.as_str(), turn.worse.as_str()), ("tune", "probe"));
    assert_eq!((turn.shown(false), turn.shown(true)), (vec![0], vec![1, 2]));
    // -.2, .1 and .28 at 5, 20 and 80.
    let slope = turn.slope.expect("three sizes");
    assert!((slope.mean - 0.12).abs() < 1e-9 && slope.half_width(0.95) > 0.01, "{slope:?}");
    let expected = 5.0 * (2.0f64 * 0.2 / 0.3).exp2();
    assert!(turn.even.is_some_and(|even| (even - expected).abs() < 1e-6), "{:?} for {expected}", turn.even);
}

#[test]
fn what_differs_in_more_is_another_target() {
    let mut scenarios = sized();
    // Another size of the input is another target; more steps with more images are told.
    scenarios[0].own = Some([("input".to_owned(), "64".to_owned())].into());
    scenarios[2].own = Some([("steps".to_owned(), "900".to_owned())].into());
    let found = grown(&scenarios, PLACES, &[]);
    let [growth] = &found[..] else { panic!("{} datasets grow", found.len()) };
    assert_eq!(growth.sizes.iter().map(|size| size.scenario.as_str()).collect::<Vec<_>>(), ["few", "some"]);
    assert_eq!(growth.notes, ["`steps` differs between these sizes: 900"]);
    // As many as all are no further size.
    let mut scenarios = sized();
    scenarios[2].per_class = Some(80);
    assert_eq!(grown(&scenarios, PLACES, &[])[0].sizes.len(), 2);
    // A store of before settings of scenarios were kept knows of none.
    scenarios.iter_mut().for_each(|scenario| scenario.own = None);
    assert!(grown(&scenarios, PLACES, &[]).is_empty());
}

/// Two recipes that are right equally often at every size: one is shown to be better somewhere in about one of twenty sweeps.
#[test]
fn what_is_even_everywhere_turns_nowhere() {
    const SWEEPS: usize = 400;
    let scenarios = [
        scenario("few", "near", Some(5), &[]),
        scenario("some", "near", Some(20), &[]),
        scenario("many", "near", None, &[]),
    ];
    let both = &[("probe", 0.6, Some(0.6)), ("tune", 0.6, Some(0.6))];
    let places: Vec<Place> = ["few", "some", "many"].map(|name| (name, "near", both as &[_])).to_vec();
    let (_, arms) = verdicts(&[("*", "tune", "probe")], &trials(&places));
    let rules = [Rule {
        scenario: "*".into(),
        better: "tune".into(),
        worse: "probe".into(),
        margin: 0.0,
        on: None,
        metric: None,
    }];
    let (mut shown, mut signs, mut sloped) = (0, 0, 0);
    for sweep in 0..SWEEPS {
        let drawn = |arm: &Arm| -> anyhow::Result<Vec<Scored>> {
            let name = |text: &str| text.bytes().fold(0, |sum, byte| 31 * sum + u64::from(byte));
            let names = [name(arm.context_value("scenario")), name(&arm.recipe)];
            let mut rng = stream(sweep as u64, Stream::Synthetic, &names);
            let replicate = |_| {
                let predicted: Vec<u16> = (0..200).map(|_| u16::from(rng.chance(0.4))).collect();
                scored("accuracy", &predicted, &[0; 200])
            };
            Ok((0..REPLICATES).map(replicate).collect())
        };
        let found = growths(&scenarios, &arms, &rules, REPLICATES, images, drawn).unwrap();
        let turn = &found[0].turns[0];
        assert_eq!(turn.points.iter().flatten().count(), 3);
        shown += usize::from(!turn.shown(true).is_empty() || !turn.shown(false).is_empty());
        sloped += usize::from(turn.slope.expect("three sizes").p < 0.05);
        signs += usize::from(turn.points.iter().flatten().any(|point| point.difference.mean < 0.0));
    }
    assert!(shown * 100 <= SWEEPS * 7 && sloped * 100 <= SWEEPS * 7, "{shown} and {sloped} of {SWEEPS}");
    // With most images the better one is named first; with fewer, the other one is better in three of four sweeps somewhere.
    assert!((SWEEPS * 6 / 10..SWEEPS * 9 / 10).contains(&signs), "the differences are drawn: {signs}");
}

const SWEEP: &str = r#"
[experiment]
name = "grown"
replicates = 3
[backbone]
arch = "resnet8"
input = 12
weights = "random"
[datasets.mine]
synthetic = { classes = 4, train = 25, test = 30 }
[scenarios.mine]
dataset = "mine"
per_class = [2, 8, "all"]
[scenarios.other]
dataset = "mine"
per_class = 5
augment = ["flip"]
[train]
steps = 20
batch = 8
[axes]
scenario = ["mine", "other"]
recipe = ["linear-probe", "fine-tune"]
[[rule]]
scenario = "mine"
claim = "fine-tune > linear-probe"
"#;

#[test]
fn a_list_of_sizes_is_a_scenario_of_each() {
    let world = World::new().file("x.toml", SWEEP);
    let plan = world.run(&["plan", "x.toml"]).exits(0).out;
    assert!(plan.contains("8 cells x 3 replicates = 24 distinct trials"), "{plan}");
    world.run(&["run", "x.toml", "--quiet"]).exits(0);
    let said = world.run(&["report", "grown"]).exits(0).out;
    for told in [
        "What more images of mine buy: accuracy on test by training images per class",
        "For how many images of mine which recipe: differences in accuracy on test",
        "┆ 2 ",
        "┆ all (20) ",
        "fine-tune - linear-probe",
        "the gain from 32 to 80 images",
    ] {
        let turned = said.contains("linear-probe - fine-tune") && told.starts_with("fine-tune -");
        assert!(said.contains(told) || turned, "{told}: {said}");
    }
    let found: serde_json::Value =
        serde_json::from_str(&world.run(&["report", "grown", "--format", "json"]).exits(0).out).unwrap();
    let growth = &found["growth"];
    assert_eq!(growth.as_array().unwrap().len(), 1, "flips make another target");
    let names: Vec<&str> =
        growth[0]["sizes"].as_array().unwrap().iter().map(|own| own["scenario"].as_str().unwrap()).collect();
    assert_eq!(names, ["mine-2", "mine-8", "mine-all"]);
    // A rule of the table is one of each size.
    assert_eq!(found["verdicts"].as_array().unwrap().len(), 3);
    let of = |scenario: &str, recipe: &str| {
        let arms = found["arms"].as_array().unwrap().iter();
        let mut own = arms.filter(|arm| arm["context"]["scenario"] == scenario && arm["recipe"] == recipe);
        own.next().unwrap()["test_mean"].as_f64().unwrap()
    };
    for line in growth[0]["lines"].as_array().unwrap() {
        let Some(recipe) = line["recipe"].as_str() else { continue };
        for (name, point) in names.iter().zip(line["points"].as_array().unwrap()) {
            assert_eq!(point["test"]["mean"].as_f64().unwrap(), of(name, recipe));
        }
        let gain = of("mine-all", recipe) - of("mine-8", recipe);
        let doubling = line["doubling"]["mean"].as_f64().unwrap();
        assert!((doubling - gain / (80f64 / 32.0).log2()).abs() < 1e-9, "{doubling} of {gain}");
    }
    let html = world.run(&["report", "grown", "--format", "html"]).exits(0).out;
    assert!(
        html.contains("mine: accuracy on test by training images per class; lines: 95% over replicates"),
        "a picture"
    );
    let latex = world.run(&["report", "grown", "--format", "latex"]).exits(0).out;
    assert!(latex.contains("What more images of mine buy"), "{latex}");
}

#[test]
fn lists_of_sizes_that_say_nothing_or_two_things_are_refused() {
    let refused = |old: &str, new: &str, said: &str, place: &str| {
        assert!(SWEEP.contains(old), "{old}");
        let world = World::new().file("x.toml", SWEEP.replace(old, new));
        let found = world.run(&["check", "x.toml"]).exits(2);
        let found = format!("{}{}", found.out, found.err);
        assert!(found.contains(said) && found.contains(place) && found.contains("1 problem;"), "{found}");
    };
    let list = "per_class = [2, 8, \"all\"]";
    refused(list, "per_class = []", "the list is empty", "x.toml:13:13");
    refused(list, "per_class = [2, 8, 2]", "2 stands twice in the list", "x.toml:13:13");
    refused(list, "per_class = [2, \"most\"]", "\"all\", or a list of these, found 'most'", "x.toml:13:13");
    refused(list, "per_class = [2, 0]", "a whole number of at least 1", "x.toml:13:13");
    refused(
        list,
        "per_class = [2, 8]\nsize = \"small\"",
        "has one `size`, and several numbers of images",
        "x.toml:14:1",
    );
    refused(list, "per_class = [2, 21]", "per_class = 21, but a class has only 20 images", "x.toml:13:17");
    refused(
        "[axes]",
        "[axes]\nper_class = [5, 10]",
        "`per_class` is no axis: a scenario is one dataset at one size",
        "x.toml:22:1",
    );
    refused(
        "[axes]",
        "[[include]]\nscenario = \"other\"\nrecipe = \"fine-tune\"\ndataset = \"mine\"\n[axes]",
        "`dataset` is no axis",
        "x.toml:24:1",
    );
    refused(
        "[scenarios.other]",
        "[scenarios.mine-8]\ndataset = \"mine\"\n[scenarios.other]",
        "two scenarios are called 'mine-8'",
        "x.toml:14:1",
    );
    refused(
        "scenario = [\"mine\", \"other\"]",
        "scenario = [\"mine\", \"mine-8\"]",
        "has the value mine-8 twice",
        "x.toml:22:",
    );
}
