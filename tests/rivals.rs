//! The table of those who read one: what is used, what is not shown to be worse, what is, and that these are shown rightly.

use std::collections::HashMap;

use tl_sweep::expense::Expense;
use tl_sweep::key::Key;
use tl_sweep::report::arm::Arm;
use tl_sweep::report::compare::{Scored, scored};
use tl_sweep::report::rivals::{Rivals, rivals};
use tl_sweep::seed::{Stream, stream};

use crate::builder::World;
use crate::choices::{Place, REPLICATES, answers, trials, verdicts};

fn found(places: &[Place], expenses: &HashMap<Key, Expense>) -> Vec<Rivals> {
    let (_, arms) = verdicts(&[], &trials(places));
    let scenarios: Vec<String> = places.iter().map(|(scenario, ..)| (*scenario).to_owned()).collect();
    rivals(&scenarios, &arms, REPLICATES, expenses, answers).unwrap()
}

const PLACES: &[Place] = &[
    (
        "few",
        "near",
        &[
            ("tune", 0.9, Some(0.7)),
            ("lucky", 0.8, Some(0.95)),
            ("equal", 0.7, Some(0.7)),
            ("probe", 0.6, Some(0.68)),
            ("early", 0.5, Some(0.2)),
            ("scratch", 0.4, None),
        ],
    ),
    ("alone", "near", &[("tune", 0.9, Some(0.7))]),
];

fn costs(all: &[(&str, f64)]) -> HashMap<Key, Expense> {
    let one = |(recipe, macs): &(&str, f64)| {
        (Key::of("c", &("few", recipe)), Expense { own: *macs, shared: Vec::new(), price: None })
    };
    all.iter().map(one).collect()
}

#[test]
fn the_choice_of_validation_stands_beside_all_others_the_cheapest_first() {
    let costs =
        costs(&[("tune", 8.0), ("lucky", 9.0), ("equal", 8.0), ("probe", 1.0), ("early", 0.5), ("scratch", 8.0)]);
    let found = found(PLACES, &costs);
    let [few] = &found[..] else { panic!("one recipe alone has no rivals: {found:?}") };
    assert_eq!((few.scenario.as_str(), few.recipe.as_str(), few.unfinished), ("few", "tune", 0));
    assert!((few.test.mean - 0.7).abs() < 1e-12 && few.macs == Some(8.0));
    let told: Vec<(&str, Option<bool>, f64)> = few
        .rivals
        .iter()
        .map(|rival| (rival.recipe.as_str(), rival.shown(), (100.0 * rival.difference.mean).round()))
        .collect();
    let expected = [
        ("early", Some(false), -50.0),
        ("probe", None, -2.0),
        ("equal", None, 0.0),
        // Test may say so, and does not choose.
        ("lucky", Some(true), 25.0),
        // What diverged names the largest class, and has no setting that would cost anything.
        ("scratch", Some(false), -60.0),
    ];
    assert_eq!(told, expected);
    // Holm: the largest of five p values is itself, and none is below its own.
    assert!(few.rivals.iter().all(|rival| rival.adjusted_p >= rival.difference.p && rival.adjusted_p <= 1.0));
    let unknown = found_order(&HashMap::new());
    assert_eq!(unknown, ["lucky", "equal", "probe", "early", "scratch"], "no cost is known: the best on test first");
}

fn found_order(expenses: &HashMap<Key, Expense>) -> Vec<String> {
    found(PLACES, expenses)[0].rivals.iter().map(|rival| rival.recipe.clone()).collect()
}

#[test]
fn one_configuration_under_two_names_is_no_rival_of_itself() {
    let mut all =
        trials(&[("few", "near", &[("tune", 0.9, Some(0.7)), ("probe", 0.6, Some(0.6)), ("same", 0.6, Some(0.6))])]);
    let probe = Key::of("c", &("few", "probe"));
    all.iter_mut().filter(|trial| trial.settings["recipe"] == "same").for_each(|trial| trial.cell = probe);
    let (_, arms) = verdicts(&[], &all);
    let found = rivals(&["few".to_owned()], &arms, REPLICATES, &HashMap::new(), answers).unwrap();
    assert_eq!(found[0].rivals.iter().map(|rival| rival.recipe.as_str()).collect::<Vec<_>>(), ["probe"]);
}

/// Recipes that are all right equally often: one is shown to be better or worse in one of twenty sweeps at most. Of one that is
/// right less often that is shown.
#[test]
fn what_is_as_good_is_hardly_ever_shown_to_be_worse() {
    const SWEEPS: usize = 400;
    let recipes = &[("a", 0.9, Some(0.4)), ("b", 0.8, Some(0.4)), ("c", 0.7, Some(0.4)), ("worse", 0.6, Some(0.4))];
    let (_, arms) = verdicts(&[], &trials(&[("few", "near", recipes), ("many", "near", recipes)]));
    let scenarios = ["few", "many"].map(str::to_owned);
    let (mut wrong, mut right) = (0, 0);
    for sweep in 0..SWEEPS {
        let drawn = |arm: &Arm| -> anyhow::Result<Vec<Scored>> {
            let name = |text: &str| text.bytes().fold(0, |sum, byte| 31 * sum + u64::from(byte));
            let names = [name(arm.context_value("scenario")), name(&arm.recipe)];
            let mut rng = stream(sweep as u64, Stream::Synthetic, &names);
            let share = if arm.recipe == "worse" { 0.2 } else { 0.4 };
            let replicate = |_| {
                let predicted: Vec<u16> = (0..200).map(|_| u16::from(!rng.chance(share))).collect();
                scored("accuracy", &predicted, &[0; 200])
            };
            Ok((0..REPLICATES).map(replicate).collect())
        };
        let found = rivals(&scenarios, &arms, REPLICATES, &HashMap::new(), drawn).unwrap();
        let all = || found.iter().flat_map(|own| &own.rivals);
        assert_eq!(all().count(), 6);
        wrong += usize::from(all().any(|rival| rival.recipe != "worse" && rival.shown().is_some()));
        right += all().filter(|rival| rival.recipe == "worse" && rival.shown() == Some(false)).count();
    }
    assert!(wrong * 100 <= SWEEPS * 7, "{wrong} of {SWEEPS}");
    assert!(right * 100 >= 2 * SWEEPS * 80, "{right} of {}", 2 * SWEEPS);
}

const SWEEP: &str = r#"
[experiment]
name = "short"
replicates = 3
[backbone]
arch = "resnet8"
input = 12
weights = "random"
[datasets.mine]
synthetic = { classes = 4, train = 25, test = 30 }
[scenarios.mine]
dataset = "mine"
per_class = 8
[train]
steps = 20
batch = 8
[axes]
recipe = ["linear-probe", "fine-tune"]
"#;

#[test]
fn a_terminal_ends_with_the_table_and_a_page_begins_with_it() {
    let world = World::new().file("x.toml", SWEEP);
    world.run(&["run", "x.toml", "--quiet"]).exits(0);
    let title = "In short: which recipe, chosen on validation";
    let said = world.run(&["report", "short"]).exits(0).out;
    let behind = said.split(title).nth(1).unwrap_or_else(|| panic!("{said}"));
    assert!(!behind.contains("Sharing:") && behind.contains("not shown to be worse"), "{said}");
    let found: serde_json::Value =
        serde_json::from_str(&world.run(&["report", "short", "--format", "json"]).exits(0).out).unwrap();
    let own = &found["rivals"][0];
    assert_eq!(own["recipe"], found["best"][0]["recipe"]);
    let of = |recipe: &serde_json::Value| {
        let mut arms = found["arms"].as_array().unwrap().iter().filter(|arm| arm["recipe"] == *recipe);
        arms.next().unwrap()["test_mean"].as_f64().unwrap()
    };
    let rival = &own["rivals"][0];
    let apart = rival["difference"]["mean"].as_f64().unwrap();
    assert!((apart - (of(&rival["recipe"]) - of(&own["recipe"]))).abs() < 1e-9, "{apart}");
    for (format, next) in [("md", "## Best recipe"), ("html", "Best recipe"), ("latex", "Best recipe")] {
        let page = world.run(&["report", "short", "--format", format]).exits(0).out;
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
        assert!(at(title) < at(next), "{format}");
    }
    // Two replicates tell nothing apart.
    let world = World::new().file("x.toml", SWEEP.replace("replicates = 3", "replicates = 2"));
    world.run(&["run", "x.toml", "--quiet"]).exits(0);
    assert!(!world.run(&["report", "short"]).exits(0).out.contains(title));
}
