//! Which parameters train, how far they step and what pulls them back: one configuration for one effect, refusals, and the
//! same bits shared and alone. The numbers themselves are tested in `train/descent.rs`.

use std::collections::HashMap;

use crate::builder::World;
use crate::sharing::GRID;

/// The settled cells of an experiment with these recipes, by name.
pub fn cells(recipes: &[(&str, &str)]) -> HashMap<String, HashMap<String, String>> {
    let world = World::new().file("x.toml", file(recipes));
    let csv = world.run(&["plan", "x.toml", "--format", "csv"]).exits(0).out;
    let rows = csv::Reader::from_reader(csv.as_bytes()).into_deserialize().map(Result::unwrap);
    rows.map(|row: HashMap<String, String>| (row["recipe"].clone(), row)).collect()
}

/// On the data of the grid that shares everything, for fewer steps.
pub fn file(recipes: &[(&str, &str)]) -> String {
    let head = GRID.split("[recipes.probe]").next().unwrap().replace("steps = 12", "steps = 8");
    let tables: String = recipes.iter().map(|(name, body)| format!("[recipes.{name}]\n{body}\n")).collect();
    let names: Vec<String> = recipes.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    format!("{head}{tables}[axes]\nrecipe = [{}]\n", names.join(", "))
}

/// Recipes are refused with what each of them is told, and where.
pub fn refused(cases: &[(&str, &str)]) {
    for (body, message) in cases {
        let world = World::new().file("x.toml", file(&[("mine", body)]));
        let said = world.run(&["check", "x.toml"]).exits(2);
        assert!(said.err.contains(message), "{body}: {}", said.err);
        assert!(said.err.contains("x.toml:"), "{}", said.err);
    }
}

#[test]
fn what_has_one_effect_is_one_configuration() {
    let found = cells(&[
        ("all", ""),
        ("every-block", "trains = [\"layer3\", \"conv1\", \"layer1\", \"layer2\"]"),
        ("last", "trains = \"layer3\""),
        ("below", "freeze = \"layer2\""),
        ("two", "trains = [\"layer3\", \"layer1\"]"),
        ("turned", "trains = [\"layer1\", \"layer3\", \"layer1\"]"),
        ("probe", "freeze = \"all\"\naugment = []"),
        ("chosen-probe", "freeze = \"all\"\ntrains = \"norms\"\nlayer_decay = 0.5\nstart_decay = 0.1\naugment = []"),
        ("no-numbers", "layer_decay = 1.0\nstart_decay = 0.0"),
        ("graded", "layer_decay = 0.5"),
        ("graded-last", "freeze = \"layer2\"\nlayer_decay = 0.5"),
    ]);
    let key = |name: &str| &found[name]["key"];
    for same in [
        &["all", "every-block", "no-numbers"][..],
        &["last", "below", "graded-last"],
        &["two", "turned"],
        &["probe", "chosen-probe"],
    ] {
        same.iter().for_each(|name| assert_eq!(key(same[0]), key(name), "{name}"));
    }
    let mut distinct: Vec<&String> = found.values().map(|row| &row["key"]).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 5);
    assert_eq!(found["two"]["trains"], "[layer1, layer3]");
    assert_eq!((&*found["last"]["trains"], &*found["last"]["freeze"]), ("", "layer2.0.bn2"));
}

/// Frozen batch norms are the default, and would leave nothing to train of them.
#[test]
fn norms_that_are_asked_to_train_are_not_frozen() {
    let found = cells(&[
        ("norms", "trains = \"norms\""),
        ("biases", "trains = \"biases\""),
        ("moving", "trains = \"norms\"\nbatch_norm = \"train\""),
        ("block", "trains = \"layer2\""),
        ("legs", "phases = [{ freeze = \"all\", steps = 4 }, { freeze = \"none\", trains = \"norms\", steps = 4 }]"),
    ]);
    let policy = |name: &str| found[name]["batch_norm"].as_str();
    assert_eq!(["norms", "biases", "moving", "block"].map(policy), ["affine", "affine", "train", "frozen"]);
    assert!(found["legs"]["phases"].contains("affine"), "{}", found["legs"]["phases"]);
}

#[test]
fn choices_of_nothing_are_refused() {
    refused(&[
        ("trains = \"layer9\"", "resnet8 has no layer or block 'layer9'; its blocks are input, conv1, layer1"),
        (
            "trains = [\"layer3\", \"layer1\"]\nfreeze = \"layer2\"",
            "nothing of 'layer1' would train: `freeze` holds all of it",
        ),
        ("trains = \"avgpool\"", "nothing of 'avgpool' would train: it has no parameters"),
        ("trains = []", "expected 'all', 'norms', 'biases', a layer, a block, a list of them, or { lora = 8 }"),
        (
            "trains = \"norms\"\nbatch_norm = \"frozen\"",
            "batch_norm = \"frozen\" holds fixed what trains = \"norms\" asks to train",
        ),
        ("trains = \"norms\"\narch = \"vgg_small\"", "nothing would train: vgg_small has no norms"),
        ("weights = \"random\"\nstart_decay = 0.1", "there is nothing to be pulled back to: these weights are random"),
        ("layer_decay = 0.0", "expected a number"),
        ("layer_decay = 1.5", "expected a number"),
        ("optimizer = \"lbfgs\"\ntrains = \"norms\"", "solves a linear head on fixed features"),
    ]);
}

/// All of them in one grid: what is shared below the first layer that trains changes no bit.
#[test]
fn choices_and_rates_by_depth_are_shared_to_the_bit() {
    let recipes = [
        ("norms", "trains = \"norms\""),
        ("moving", "trains = \"norms\"\nbatch_norm = \"train\""),
        ("biases", "trains = \"biases\"\noptimizer = \"adamw\""),
        ("middle", "trains = \"layer2\"\naugment = [\"flip\"]"),
        ("ends", "trains = [\"layer1\", \"layer3\"]\nbatch_norm = \"train\""),
        ("graded", "layer_decay = 0.5\nweight_decay = 0.1\ndecay = \"over-lr\""),
        ("pulled", "start_decay = 0.5\nweight_decay = 0.01\nfreeze = \"layer1\""),
        (
            "legs",
            "phases = [{ freeze = \"all\", steps = 4 }, { freeze = \"layer1\", trains = \"norms\", start_decay = 0.5, steps = 4 }]",
        ),
        (
            "other-legs",
            "phases = [{ freeze = \"all\", steps = 4 }, { freeze = \"none\", steps = 4, start_decay = 0.5 }]",
        ),
        ("two-layers", "freeze = 2\nbatch_norm = \"train\""),
        ("random-norms", "weights = \"random\"\ntrains = \"norms\""),
    ];
    let world = World::new().file("x.toml", file(&recipes));
    world.run(&["run", "x.toml"]).exits(0);
    let said = world.run(&["verify", "x.toml", "--all"]).exits(0);
    assert!(said.out.contains("22 of 22 trials, run alone, gave what the store holds"), "{}", said.out);
    let key = |store: &rusqlite::Connection, recipe: &str| -> String {
        store.query_row("SELECT trial FROM result WHERE recipe = ?", [recipe], |row| row.get(0)).unwrap()
    };
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let trainable = |recipe: &str| -> i64 {
        let sql = "SELECT trainable FROM result WHERE recipe = ? AND replicate = 0";
        store.query_row(sql, [recipe], |row| row.get(0)).unwrap()
    };
    // Two numbers for each of 16 x 3, 32 x 2 and 64 x 2 channels that are normed, and a head of 4 x 64 + 4.
    assert_eq!(trainable("norms"), 2 * (16 * 3 + 32 * 2 + 64 * 2) + 260);
    assert_eq!(trainable("biases"), 16 * 3 + 32 * 2 + 64 * 2 + 260);
    assert_eq!(trainable("graded"), trainable("other-legs"));
    // A block is called conv1, too, and has the batch norm behind it.
    assert_eq!(trainable("two-layers"), trainable("graded") + trainable("norms") - 260 - 3 * 16 * 9);
    for recipe in ["ends", "legs"] {
        let said = world.run(&["export", "x.toml", &key(&store, recipe), "--out", &format!("{recipe}.safetensors")]);
        assert!(said.exits(0).out.contains("to the bit"), "{recipe}");
    }
    let plan = world.run(&["plan", "x.toml"]).exits(0).out;
    assert!(
        plan.contains("trains = layer2: 13824 of 75120 parameters train; all up to layer1.0.bn2 stands still"),
        "{plan}"
    );
}

/// What is trained in phases is told leg by leg, and not as the depth that a recipe without them would have.
#[test]
fn the_plan_says_what_each_phase_holds_fixed() {
    let legs = "phases = [{ freeze = \"all\", steps = 3 }, { trains = \"layer2\", steps = 4 }, { freeze = \"layer1\", steps = 2 }]";
    let world = World::new().file("x.toml", file(&[("mine", legs), ("whole", "")]));
    let plan = world.run(&["plan", "x.toml"]).exits(0).out;
    let told: Vec<&str> =
        plan.split("freezing\n").nth(1).unwrap().lines().filter(|line| line.contains("freeze =")).collect();
    // Up to layer1: 27 x 16 and two of 144 x 16 weights, and three batch norms of 16 channels with four numbers each.
    let begins = [
        "  phase 1 of 3: resnet8 up to avgpool, freeze = all: 75120 of 75120 parameters fixed",
        "  phase 2 of 3: resnet8 up to avgpool, freeze = none, trains = layer2: 13824 of 75120 parameters train",
        "  phase 3 of 3: resnet8 up to avgpool, freeze = layer1: 5232 of 75120 parameters fixed (conv1, bn1, layer1.0.conv1,",
        "  resnet8 up to avgpool, freeze = none: 0 of 75120 parameters fixed",
    ];
    assert_eq!(told.len(), begins.len(), "{plan}");
    assert!(told.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{plan}");
}
