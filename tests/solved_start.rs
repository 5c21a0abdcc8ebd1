//! Heads that start where a solution lies: that it is the head of the trial that only solves, that it is solved once for all
//! trials that start there, and what it cannot be.

use std::collections::BTreeMap;

use crate::builder::World;
use crate::chosen::{cells, file, refused};
use crate::sharing::{foreseen, found};

const PATH: &str = "lambda = { log = [1e-4, 1e1], n = 6 }";
/// Nothing moves.
const STILL: &str = "lr = 0.0\nsteps = 2";

struct Row {
    lambda: Option<f64>,
    val: f64,
    test: f64,
    macs: f64,
    predicted: Vec<u8>,
}

/// The trials of a replicate.
fn rows(world: &World, replicate: usize) -> BTreeMap<String, Row> {
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let text = "SELECT recipe, chosen_lambda, val_loss, test_loss, macs, predicted
                FROM result JOIN prediction ON prediction.trial = result.trial AND part = 'test' WHERE replicate = ?";
    let mut statement = store.prepare(text).unwrap();
    let row = |row: &rusqlite::Row| {
        let own =
            Row { lambda: row.get(1)?, val: row.get(2)?, test: row.get(3)?, macs: row.get(4)?, predicted: row.get(5)? };
        Ok((row.get::<_, String>(0)?, own))
    };
    statement.query_map([replicate], row).unwrap().map(Result::unwrap).collect()
}

fn world(head: &str, recipes: &[(String, String)]) -> World {
    let recipes: Vec<(&str, &str)> = recipes.iter().map(|(name, body)| (name.as_str(), body.as_str())).collect();
    World::new().file("x.toml", file(&recipes).replace("seed = 5\n", &format!("seed = 5\n{head}\n")))
}

/// Ways to begin, whatever is frozen: of features that are kept, of a prefix that runs for each batch, of whole networks.
const WAYS: [(&str, &str); 6] = [
    ("probe", "freeze = \"all\""),
    ("block", "freeze = \"layer2\""),
    ("whole", "freeze = \"none\""),
    ("flipped", "freeze = \"layer1\"\naugment = [\"flip\"]"),
    ("views", "freeze = \"layer1\"\naugment = [\"flip\"]\nviews = 2"),
    ("legs", "phases = [{ freeze = \"all\" }, { freeze = \"layer1\" }]"),
];

#[test]
fn what_does_not_move_answers_as_the_solution_does() {
    for head in ["", "refit = true"] {
        let mut recipes = Vec::new();
        for solver in ["lbfgs", "ridge", "lda"] {
            let own = "class_weights = \"balanced\"";
            let solved = format!("freeze = \"all\"\noptimizer = \"{solver}\"\n{own}\n{PATH}");
            recipes.push((solver.to_owned(), format!("{solved}\ncalibrate = \"temperature\"")));
            for (name, way) in WAYS {
                let start = format!("{way}\nhead_start = \"{solver}\"\n{own}\n{PATH}\n{STILL}");
                recipes.push((format!("{name}-{solver}"), start));
            }
        }
        let world = world(head, &recipes);
        world.run(&["run", "x.toml"]).exits(0);
        for replicate in 0..2 {
            let found = rows(&world, replicate);
            assert_eq!(found.len(), recipes.len());
            for solver in ["lbfgs", "ridge", "lda"] {
                let solved = &found[solver];
                for (name, _) in WAYS {
                    let own = &found[&format!("{name}-{solver}")];
                    let said = format!("{name}, {solver}, '{head}'");
                    assert_eq!(own.lambda, solved.lambda, "{said}");
                    assert_eq!(own.predicted, solved.predicted, "{said}");
                    // Batch norms that may train are computed apart from their convolutions.
                    let close = |one: f64, other: f64| (one - other).abs() <= 2e-5 * one.abs().max(1.0);
                    assert!(close(own.val, solved.val), "{said}: {} instead of {}", own.val, solved.val);
                    assert!(close(own.test, solved.test), "{said}: {} instead of {}", own.test, solved.test);
                }
            }
        }
    }
}

#[test]
fn one_solution_serves_all_trials_and_changes_no_bit() {
    let start = |way: &str, more: &str| format!("{way}\nhead_start = \"lda\"\n{PATH}\n{more}");
    let mut recipes: Vec<(String, String)> = Vec::new();
    for (name, way) in WAYS {
        recipes.push((name.to_owned(), start(way, "")));
        recipes.push((format!("{name}-slower"), start(way, "lr = 0.002")));
    }
    // Heads that are in no bank with others.
    recipes.push(("small-batches".to_owned(), start(WAYS[0].1, "batch = 5")));
    recipes.push(("smaller-batches".to_owned(), start(WAYS[0].1, "batch = 4")));
    recipes.push(("other".to_owned(), WAYS[2].1.to_owned()));
    recipes.push(("half".to_owned(), start(WAYS[2].1, "interpolate = 0.5")));
    recipes.push(("random".to_owned(), start("weights = \"random\"", "")));
    recipes.push(("half-copied".to_owned(), start("transfer = \"layer1\"", "")));
    let world = world("", &recipes);
    let plan: serde_json::Value =
        serde_json::from_str(&world.run(&["plan", "x.toml", "--format", "json"]).exits(0).out).unwrap();
    world.run(&["run", "x.toml", "--slots", "1"]).exits(0);
    foreseen(&world, &plan);
    world.run(&["run", "x.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, groups), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!(shared, alone);
    assert!(groups["probe"] > 1 && groups["flipped"] > 1 && groups["half"] > 1, "{groups:?}");
    let found = rows(&world, 0);
    assert_ne!(found["whole"].predicted, found["other"].predicted, "the start bears on the end");
    assert_eq!(found["other"].lambda, None);
    // Whoever comes second to a start pays nothing for it.
    assert_eq!(found["whole-slower"].macs, found["other"].macs);
    let trunk = found["whole"].macs + found["half"].macs;
    assert!(trunk > found["other"].macs, "{trunk} {}", found["other"].macs);
    world.run(&["verify", "x.toml", "--all"]).exits(0);
}

/// What is added beside layers is nothing before it trains, and a cut may lie within a block.
#[test]
fn additions_and_tokens_start_from_the_same_solution() {
    let start = format!("head_start = \"lda\"\n{PATH}");
    let recipes = [
        ("lda", format!("freeze = \"all\"\noptimizer = \"lda\"\n{PATH}")),
        ("lora", format!("trains = {{ lora = 2 }}\n{start}\n{STILL}")),
        ("trained-lora", format!("trains = {{ lora = 2 }}\n{start}")),
        ("inside", format!("freeze = \"blocks.9.attn.qkv\"\n{start}")),
    ];
    let recipes: Vec<(&str, &str)> = recipes.iter().map(|(name, body)| (*name, body.as_str())).collect();
    let network = "arch = \"dinov2_vits14_reg\"\nwidth = 0.17\ninput = 28\n";
    let text = file(&recipes).replace("arch = \"resnet8\"\ninput = 12\n", network);
    let world = World::new().file("x.toml", text);
    world.run(&["run", "x.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "x.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    assert_eq!(found(&world, "results/tl-sweep.sqlite").0, found(&world, "alone/r.sqlite").0);
    let rows = rows(&world, 0);
    assert_eq!(rows["lora"].predicted, rows["lda"].predicted);
    assert_ne!(rows["trained-lora"].val, rows["lda"].val);
}

#[test]
fn what_has_no_effect_is_no_setting_of_its_own() {
    let found = cells(&[
        ("plain", "freeze = \"none\""),
        ("random", "freeze = \"none\"\nhead_start = \"random\"\nlambda = 0.5"),
        ("lda", "freeze = \"none\"\nhead_start = \"lda\""),
        ("weak", "freeze = \"none\"\nhead_start = \"lda\"\nlambda = 0.5"),
    ]);
    let key = |name: &str| &found[name]["key"];
    assert_eq!(key("plain"), key("random"));
    assert_ne!(key("plain"), key("lda"));
    assert_ne!(key("lda"), key("weak"));
}

#[test]
fn a_start_that_cannot_be_is_refused_with_the_cure() {
    refused(&[
        ("freeze = \"all\"\noptimizer = \"lda\"\nhead_start = \"ridge\"", "leave `head_start` out"),
        ("freeze = \"all\"\noptimizer = \"none\"\nhead_start = \"ridge\"", "is optimizer = \"ridge\""),
        ("head_start = \"lda\"\nhead = { mlp = [5] }", "head = \"linear\""),
        ("head_start = \"svm\"", "'random', 'class-names', 'lbfgs', 'ridge' or 'lda'"),
        ("head_start = \"lda\"\nlambda = 0.0", "above 0"),
        ("interpolate = 0.5", "head_start = \"lda\""),
    ]);
}
