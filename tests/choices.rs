//! Ways to choose a recipe for all scenarios: which they are, what they take, and that their intervals hold; and what answers cost.

use std::collections::HashMap;
use std::rc::Rc;

use tl_sweep::expense::{Expense, Price};
use tl_sweep::key::Key;
use tl_sweep::model::arch::Arch;
use tl_sweep::report::arm::{Arm, Repeats, Settings, Trial, arms};
use tl_sweep::report::choice::{Choice, Choices, Way, choices};
use tl_sweep::report::compare::{Scored, scored};
use tl_sweep::report::inquiry::inquire;
use tl_sweep::report::price::prices;
use tl_sweep::report::verdict::{Reach, Rule, Verdict};
use tl_sweep::seed::{Stream, stream};

use crate::builder::World;
use crate::materials::network;

/// A scenario's dataset, and what recipes reach on validation and on test there; on test nothing where they diverge.
pub type Place<'a> = (&'a str, &'a str, &'a [(&'a str, f64, Option<f64>)]);

pub const REPLICATES: usize = 3;

pub fn trials(places: &[Place]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (scenario, dataset, recipes) in places {
        for (recipe, val, test) in *recipes {
            let settings = [("scenario", *scenario), ("recipe", *recipe), ("dataset", *dataset)];
            let settings: Rc<Settings> = Rc::new(settings.map(|(key, value)| (key, value.to_owned())).into());
            trials.extend((0..REPLICATES).map(|replicate| Trial {
                key: Key::of("t", &(scenario, recipe, replicate)),
                cell: Key::of("c", &(scenario, recipe)),
                replicate,
                status: if test.is_some() { "done" } else { "diverged" }.to_owned(),
                settings: Rc::clone(&settings),
                val: test.map(|_| *val),
                test: *test,
                at_chance: false,
                under_trained: false,
                seconds: 1.0,
            }));
        }
    }
    trials
}

/// On a hundred images, of which the first are right; a tenth where all settings diverged.
pub fn answers(arm: &Arm) -> anyhow::Result<Vec<Scored>> {
    let right = arm.test().first().map_or(10, |test| (test * 100.0).round() as usize);
    let predicted: Vec<u16> = (0..100).map(|image| u16::from(image >= right)).collect();
    Ok(vec![scored("accuracy", &predicted, &[0; 100]); REPLICATES])
}

pub fn verdicts(rules: &[(&str, &str, &str)], trials: &[Trial]) -> (Vec<Verdict>, Vec<Arm>) {
    let rule = |(scenario, better, worse): &(&str, &str, &str)| {
        let [scenario, better, worse] = [scenario, better, worse].map(|text| (*text).to_owned());
        Rule { scenario, better, worse, margin: 0.0, on: None, metric: None }
    };
    let rules: Vec<Rule> = rules.iter().map(rule).collect();
    let reach = Reach { matches: &|pattern, name| pattern == "*" || pattern == name, tests: &|_, _| false };
    let answers = |arm: &Arm, _: tl_sweep::report::verdict::Asked| answers(arm);
    inquire(&rules, trials, Repeats::all(REPLICATES), reach, &|_| None, &answers).unwrap().into_parts()
}

fn chosen(places: &[Place], rules: &[(&str, &str, &str)]) -> Option<Choices> {
    let trials = trials(places);
    let (verdicts, arms) = verdicts(rules, &trials);
    let scenarios: Vec<String> = places.iter().map(|(scenario, ..)| (*scenario).to_owned()).collect();
    choices(&scenarios, &arms, &verdicts, REPLICATES, &HashMap::new(), answers).unwrap()
}

fn mean(of: &Choice) -> f64 {
    of.test.iter().sum::<f64>() / of.test.len() as f64
}

const PLACES: &[Place] = &[
    ("few", "near", &[("probe", 0.5, Some(0.6)), ("tune", 0.6, Some(0.5)), ("scratch", 0.1, None)]),
    ("many", "near", &[("probe", 0.7, Some(0.7)), ("tune", 0.9, Some(0.9)), ("scratch", 0.4, Some(0.7))]),
    (
        "far",
        "far",
        &[("probe", 0.4, Some(0.4)), ("tune", 0.3, Some(0.2)), ("scratch", 0.2, Some(0.3)), ("odd", 0.1, Some(1.0))],
    ),
];

#[test]
fn each_way_takes_what_it_says() {
    let found =
        chosen(PLACES, &[("few", "probe", "tune"), ("many", "tune", "probe"), ("far", "scratch", "probe")]).unwrap();
    assert_eq!(found.scenarios, ["few", "many", "far"]);
    let told: Vec<(Way, Vec<&str>, f64, bool)> = found
        .choices
        .iter()
        .map(|own| {
            (own.way, own.recipes.iter().map(String::as_str).collect(), (mean(own) * 300.0).round(), own.selected)
        })
        .collect();
    let expected = [
        // What is best on validation, and not on test.
        (Way::Validation, vec!["tune", "tune", "probe"], 180.0, false),
        (Way::Rules, vec!["probe", "tune", "scratch"], 180.0, false),
        // Validation's choice first, then the best on test.
        (Way::One, vec!["tune"; 3], 160.0, true),
        (Way::One, vec!["probe"; 3], 170.0, false),
        // Where it diverged it is right as often as the largest class is there.
        (Way::One, vec!["scratch"; 3], 110.0, false),
    ];
    assert_eq!(told, expected);
    // On few probe is first of three, on many behind tune with scratch, on far first: the mean of 1, 2.5 and 1.
    let ranks: Vec<Option<f64>> = found.choices.iter().map(|own| own.rank).collect();
    assert_eq!(ranks, [None, None, Some((2.0 + 1.0 + 3.0) / 3.0), Some(1.5), Some((3.0 + 2.5 + 2.0) / 3.0)]);
    let rules = found.choices[1].difference.expect("another choice");
    assert!(rules.mean.abs() < 1e-12 && rules.replicates == REPLICATES && rules.images == 200, "{rules:?}");
    let notes = found.notes.join("\n");
    assert!(notes.contains("scratch: every setting diverged in few"), "{notes}");
    assert!(notes.contains("not in all scenarios, and so no one for all: odd"), "{notes}");
}

#[test]
fn rules_that_name_no_single_best_are_no_way_to_choose() {
    let ways = |rules: &[(&str, &str, &str)]| -> Vec<Way> {
        chosen(PLACES, rules).unwrap().choices.iter().map(|own| own.way).collect()
    };
    let has = |rules: &[(&str, &str, &str)]| ways(rules).contains(&Way::Rules);
    assert!(has(&[("*", "tune", "probe")]));
    assert!(!has(&[("few", "tune", "probe")]), "other scenarios have no rule");
    assert!(!has(&[("*", "tune", "scratch"), ("few", "probe", "scratch")]), "two are best");
    assert!(has(&[("*", "tune", "scratch"), ("few", "probe", "tune")]), "a chain has a first");
    assert!(!has(&[("*", "tune", "probe"), ("far", "probe", "tune")]), "a circle has none");
    assert!(!has(&[("*", "odd", "probe")]), "it does not stand everywhere");
}

#[test]
fn what_validation_selects_everywhere_is_the_same() {
    let found = chosen(
        &[
            ("a", "a", &[("probe", 0.5, Some(0.6)), ("tune", 0.6, Some(0.5))]),
            ("b", "b", &[("probe", 0.5, Some(0.6)), ("tune", 0.6, Some(0.5))]),
        ],
        &[],
    )
    .unwrap();
    let differences: Vec<bool> = found.choices.iter().map(|own| own.difference.is_some()).collect();
    assert_eq!(differences, [false, false, true], "chosen in each, tune, probe");
}

#[test]
fn one_scenario_or_one_recipe_asks_no_such_question() {
    assert!(chosen(&PLACES[..1], &[]).is_none());
    let one: &[(&str, f64, Option<f64>)] = &[("tune", 0.5, Some(0.5))];
    assert!(chosen(&[("a", "a", one), ("b", "b", one)], &[]).is_none());
}

/// Two scenarios of one dataset and one of another with more images. Images are easier for one recipe or for the other, in all
/// scenarios alike; replicates are better for one or for the other, in all alike; in truth there is no difference. How many of so
/// many 95% intervals miss that.
fn missed(simulations: usize, datasets: [&str; 3]) -> usize {
    let both: &[(&str, f64, Option<f64>)] = &[("x", 0.4, Some(0.5)), ("y", 0.5, Some(0.5))];
    let [one, two, three] = datasets;
    let trials = trials(&[("few", one, both), ("many", two, both), ("other", three, both)]);
    let arms = arms(&trials, Repeats::all(REPLICATES));
    let names = ["few", "many", "other"].map(str::to_owned);
    let mut missed = 0;
    for simulation in 0..simulations {
        let mut random = stream(1, Stream::Synthetic, &[simulation as u64]);
        let mut favour = |images: usize| -> Vec<f64> {
            (0..images).map(|_| if random.chance(0.5) { 0.35 } else { -0.35 }).collect()
        };
        let (near, far) = (favour(240), favour(400));
        let shift: Vec<f64> = (0..REPLICATES).map(|_| random.range(-0.01, 0.01)).collect();
        let told: Vec<Vec<Scored>> = arms
            .iter()
            .map(|arm| {
                let sign = if arm.recipe == "x" { 1.0 } else { -1.0 };
                let images = if arm.context_value("scenario") == "other" { &far } else { &near };
                let one = |shift: &f64| {
                    let right = images.iter().map(|own| random.chance(0.6 + sign * (own + shift)));
                    let predicted: Vec<u16> = right.map(|right| u16::from(!right)).collect();
                    scored("accuracy", &predicted, &vec![0; images.len()])
                };
                shift.iter().map(one).collect()
            })
            .collect();
        let place = |arm: &Arm| arms.iter().position(|own| own.recipe == arm.recipe && own.context == arm.context);
        let found =
            choices(&names, &arms, &[], REPLICATES, &HashMap::new(), |arm| Ok(told[place(arm).unwrap()].clone()))
                .unwrap()
                .unwrap();
        let x = found.choices.iter().find(|own| own.way == Way::One && own.recipes[0] == "x").unwrap();
        let difference = x.difference.unwrap();
        missed += usize::from(difference.mean.abs() > difference.half_width(0.95));
    }
    missed
}

#[test]
fn intervals_hold_where_scenarios_share_images() {
    let shared = missed(400, ["near", "near", "far"]);
    assert!((4..=28).contains(&shared), "{shared} of 400");
    // Were the images of the two taken for others, twice as many would miss.
    let apart = missed(400, ["near", "as near", "far"]);
    assert!(2 * apart > 3 * shared, "{apart} and {shared} of 400");
}

const SWEEP: &str = r#"
[experiment]
name = "choices"
replicates = 3
seed = 5
[backbone]
arch = "resnet8"
input = 12
weights = "w.safetensors"
preprocess = "torch"
[datasets.near]
synthetic = { classes = 4, task = 1, shift = 0.3, train = 14, test = 20 }
[datasets.far]
synthetic = { classes = 3, task = 2, shift = 0.7, train = 14, test = 10 }
[scenarios.few]
dataset = "near"
per_class = 4
[scenarios.many]
dataset = "near"
per_class = 10
[scenarios.other]
dataset = "far"
per_class = 4
[train]
steps = 4
batch = 8
augment = []
[recipes.probe]
freeze = "all"
[recipes.flipped]
freeze = "all"
augment = ["flip"]
[recipes.tune]
freeze = "none"
[axes]
scenario = ["few", "many", "other"]
recipe = ["probe", "flipped", "tune"]
lr = [0.01, 0.1]
[[rule]]
claim = "tune > probe"
"#;

/// What all see of it: a table, a picture, and numbers that follow from those of its arms.
#[test]
fn a_report_tells_what_one_recipe_for_all_is_worth() {
    let world = World::new().file("x.toml", SWEEP);
    network(&world, "w.safetensors", &Arch::new("resnet8", 12, 1.0));
    let part = world.run(&["run", "x.toml", "--quiet", "--only", "recipe == 'probe'"]);
    assert!(!part.out.contains("One recipe for all"), "of one recipe: {}", part.out);
    let said = world.run(&["run", "x.toml", "--quiet"]).exits(0).out;
    for text in [
        "One recipe for all 3 scenarios? accuracy on test, mean over them",
        "chosen in each by the rules",
        "(validation's choice)",
        "TFLOP: one replicate of all settings",
        "TFLOP: one trial",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let page = world.run(&["report", "--format", "html"]).exits(0).out;
    assert!(page.contains("less that of what validation selects in each"), "no picture");
    let latex = world.run(&["report", "--format", "latex"]).exits(0).out;
    assert!(latex.contains("One recipe for all 3 scenarios?"), "{latex}");

    let json: serde_json::Value =
        serde_json::from_str(&world.run(&["report", "--format", "json"]).exits(0).out).unwrap();
    let found = &json["choices"];
    assert_eq!(found["scenarios"], serde_json::json!(["few", "many", "other"]));
    let arms = json["arms"].as_array().unwrap();
    let of = |recipe: &str| -> f64 {
        let own = arms.iter().filter(|arm| arm["recipe"] == recipe);
        own.map(|arm| arm["test_mean"].as_f64().unwrap()).sum::<f64>() / 3.0
    };
    for own in found["choices"].as_array().unwrap() {
        let test = own["test"].as_array().unwrap();
        let mean = test.iter().map(|value| value.as_f64().unwrap()).sum::<f64>() / test.len() as f64;
        let expected = match own["way"].as_str().unwrap() {
            "one" => of(own["recipes"][0].as_str().unwrap()),
            "rules" => of("tune"),
            _ => {
                let best = json["best"].as_array().unwrap().iter().zip(own["recipes"].as_array().unwrap());
                best.for_each(|(best, taken)| assert_eq!(best["recipe"], *taken));
                continue;
            }
        };
        assert!((mean - expected).abs() < 1e-9, "{own}: {expected}");
    }
    // What the plan of one replicate runs, of all recipes and of one.
    let planned = |recipes: &str| -> f64 {
        let text = SWEEP.replace("recipe = [\"probe\", \"flipped\", \"tune\"]", &format!("recipe = [{recipes}]"));
        let world = World::new().file("x.toml", text.split("[[rule]]").next().unwrap());
        network(&world, "w.safetensors", &Arch::new("resnet8", 12, 1.0));
        let args = ["plan", "x.toml", "--set", "experiment.replicates=1", "--format", "json"];
        let said = world.run(&args).exits(0).out;
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["macs"]["shared"].as_f64().unwrap()
    };
    let macs = |way: &str, recipe: &str| -> f64 {
        let mut all = found["choices"].as_array().unwrap().iter();
        all.find(|own| own["way"] == way && (way != "one" || own["recipes"][0] == recipe)).unwrap()["macs"]
            .as_f64()
            .unwrap()
    };
    let near = |one: f64, other: f64| assert!((one - other).abs() < 1e-6 * other, "{one} and {other}: {found}");
    near(macs("validation", ""), planned("\"probe\", \"flipped\", \"tune\""));
    for recipe in ["probe", "flipped", "tune"] {
        near(macs("one", recipe), planned(&format!("\"{recipe}\"")));
        // By itself a trial has all that its two settings share, and half of the rest.
        let own = arms.iter().filter(|arm| arm["recipe"] == recipe).map(|arm| arm["macs"].as_f64().unwrap());
        let (alone, both) = (own.sum::<f64>(), macs("one", recipe));
        assert!(
            if recipe == "tune" { (2.0 * alone - both).abs() < 1e-6 * both } else { alone > 0.8 * both },
            "{recipe}"
        );
    }
    near(macs("rules", ""), macs("one", "tune"));
    let images = found["choices"].as_array().unwrap().iter().find_map(|own| own["difference"]["images"].as_u64());
    assert_eq!(images, Some(4 * 20 + 3 * 10), "those of a dataset count once");
}

fn priced(all: &[(&str, f64)]) -> HashMap<Key, Expense> {
    let one = |(recipe, macs): &(&str, f64)| {
        let price = Some(Price { macs: *macs, params: 7 });
        (Key::of("c", &("few", recipe)), Expense { own: 1.0, shared: Vec::new(), price })
    };
    all.iter().map(one).collect()
}

#[test]
fn the_best_at_each_price_is_what_validation_scores_higher_than_all_that_is_cheaper() {
    let recipes: &[(&str, f64, Option<f64>)] = &[
        ("dear", 0.9, Some(0.8)),
        ("middle", 0.8, Some(0.85)),
        ("dominated", 0.8, Some(0.99)),
        ("cheap", 0.5, Some(0.4)),
        ("as cheap and worse", 0.4, Some(0.9)),
        ("dearest and no better", 0.9, Some(0.95)),
        ("diverged", 0.0, None),
    ];
    let trials = trials(&[("few", "near", recipes)]);
    let (_, arms) = verdicts(&[], &trials);
    let macs = [
        ("dear", 9.0),
        ("middle", 5.0),
        ("dominated", 6.0),
        ("cheap", 1.0),
        ("as cheap and worse", 1.0),
        ("dearest and no better", 10.0),
        ("diverged", 0.5),
    ];
    let found = prices(&arms, REPLICATES, &priced(&macs), answers).unwrap();
    let steps: Vec<(&str, f64)> = found[0].steps.iter().map(|step| (step.recipe.as_str(), step.price.macs)).collect();
    // What scores best on test is neither listed nor left out for that.
    assert_eq!(steps, [("cheap", 1.0), ("middle", 5.0), ("dear", 9.0)]);
    let apart: Vec<Option<f64>> =
        found[0].steps.iter().map(|step| step.difference.map(|found| (100.0 * found.mean).round())).collect();
    assert_eq!(apart, [Some(-40.0), Some(5.0), None]);
    assert_eq!(found[0].open, 0);

    // Nothing to choose: the best is the cheapest, or a store of before has no prices.
    let flat: Vec<(&str, f64)> = macs.iter().map(|(recipe, _)| (*recipe, 3.0)).collect();
    assert!(prices(&arms, REPLICATES, &priced(&flat), answers).unwrap().is_empty());
    assert!(prices(&arms, REPLICATES, &HashMap::new(), answers).unwrap().is_empty());
}

/// Of networks, of depths and of inputs; what is added to train is none of it, and a store of before says nothing.
#[test]
fn an_answer_costs_what_its_network_does() {
    const FILE: &str = r#"
[experiment]
name = "mine"
[backbone]
arch = "vit_tiny_patch16"
width = 0.17
weights = "random"
[datasets.mine]
path = "mine"
[scenarios.s]
dataset = "mine"
[train]
steps = 2
batch = 4
[recipes.all]
[recipes.some]
tap = "blocks.3.last"
pool = "class"
[recipes.added]
trains = { lora = 2 }
[axes]
recipe = ["all", "some", "added"]
input = [16, 32]
"#;
    let world = World::new().images("mine", &["ants", "bees"], 12, 8).file("e.toml", FILE);
    let said = world.run(&["run", "e.toml", "--quiet", "--format", "json"]).exits(0).out;
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let mut cells = store.prepare("SELECT recipe, input, expense FROM cell").unwrap();
    let rows = cells.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let prices: HashMap<(String, i64), Price> = rows
        .unwrap()
        .map(|row: rusqlite::Result<(String, i64, String)>| {
            let (recipe, input, expense) = row.unwrap();
            ((recipe, input), serde_json::from_str::<Expense>(&expense).unwrap().price.unwrap())
        })
        .collect();
    for input in [16, 32] {
        let whole = Arch::new("vit_tiny_patch16", input, 0.17).graph(2).unwrap();
        let own = |recipe: &str| prices[&(recipe.to_owned(), input as i64)];
        assert_eq!(own("all"), Price { macs: whole.total_macs() as f64, params: whole.total_params() });
        assert_eq!(own("added"), own("all"));
        assert!(own("some").macs < 0.5 * own("all").macs && own("some").params < own("all").params);
    }
    assert!(prices[&("all".to_owned(), 16)].macs < prices[&("all".to_owned(), 32)].macs);
    drop(cells);
    let listed = report["prices"].as_array().unwrap().iter().flat_map(|own| own["steps"].as_array().unwrap());
    let macs: Vec<f64> = listed.map(|step| step["price"]["macs"].as_f64().unwrap()).collect();
    assert!(macs.is_sorted(), "{macs:?}");
    store.execute("UPDATE cell SET expense = json_remove(expense, '$.price')", []).unwrap();
    let said = world.run(&["report"]).exits(0).out;
    assert!(said.contains("TFLOP") && !said.contains("What answers cost"), "{said}");
}
