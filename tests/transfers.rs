//! `transfer`: the first layers start from the weights, those above at random.

use std::collections::{BTreeMap, HashMap};

use safetensors::SafeTensors;

use crate::builder::World;
use crate::chosen::{file, refused};

/// Recipes that share features, batches and beginnings with others of another `transfer`.
const RECIPES: &[(&str, &str)] = &[
    ("whole", "batch_norm = \"train\""),
    ("all", "transfer = \"all\"\nbatch_norm = \"train\""),
    ("two", "transfer = \"layer2\""),
    ("last-of-two", "transfer = \"layer2.0.bn2\""),
    ("one", "transfer = \"layer1\""),
    ("one-frozen", "transfer = \"layer1\"\nfreeze = \"transferred\""),
    ("one-frozen-by-name", "transfer = \"layer1\"\nfreeze = \"layer1\""),
    ("two-frozen", "transfer = \"layer2\"\nfreeze = \"transferred\"\naugment = []"),
    ("two-half-frozen", "transfer = \"layer2\"\nfreeze = \"layer1\"\naugment = []"),
    ("step", "transfer = \"layer1\"\nschedule = { step = [0.5], factor = 0.1 }"),
    ("late-step", "transfer = \"layer1\"\nschedule = { step = [0.75], factor = 0.1 }"),
    ("two-step", "transfer = \"layer2\"\nschedule = { step = [0.75], factor = 0.1 }"),
    (
        "legs",
        "transfer = \"layer1\"\nphases = [{ freeze = \"transferred\", steps = 4 }, { freeze = \"none\", steps = 4 }]",
    ),
    // A block is called conv1, too, and has the batch norm behind it.
    ("one-layer", "transfer = 2"),
    ("one-block", "transfer = \"conv1\""),
    ("scratch", "weights = \"random\"\ntransfer = \"layer1\""),
    ("plain-scratch", "weights = \"random\""),
];

#[test]
fn what_is_transferred_alike_is_one_configuration_and_shared_to_the_bit() {
    let world = World::new().file("x.toml", file(RECIPES));
    let csv = world.run(&["plan", "x.toml", "--format", "csv"]).exits(0).out;
    let rows = csv::Reader::from_reader(csv.as_bytes()).into_deserialize().map(Result::unwrap);
    let cells: HashMap<String, HashMap<String, String>> =
        rows.map(|row: HashMap<String, String>| (row["recipe"].clone(), row)).collect();
    let key = |name: &str| &cells[name]["key"];
    for [one, other] in
        [["whole", "all"], ["two", "last-of-two"], ["one-frozen", "one-frozen-by-name"], ["scratch", "plain-scratch"]]
    {
        assert_eq!(key(one), key(other), "{one} {other}");
    }
    let mut distinct: Vec<&String> = cells.values().map(|row| &row["key"]).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), RECIPES.len() - 4);
    let of = |name: &str, column: &str| cells[name][column].clone();
    assert_eq!([of("two", "batch_norm"), of("two", "transfer")], ["train", "layer2.0.bn2"]);
    assert_eq!([of("one-layer", "transfer"), of("one-block", "transfer")], ["2", "bn1"].map(str::to_owned));
    assert_eq!([of("one-frozen", "freeze"), of("all", "transfer")], ["layer1.0.bn2", ""]);
    let plan = world.run(&["plan", "x.toml"]).exits(0).out;
    assert!(
        plan.contains("freeze = transferred: ") && plan.contains("what is above layer1.0.bn2 starts at random"),
        "{plan}"
    );
    world.run(&["run", "x.toml"]).exits(0);
    let said = world.run(&["verify", "x.toml", "--all"]).exits(0).out;
    assert!(said.contains("26 of 26 trials, run alone, gave what the store holds"), "{said}");
}

type Numbers = BTreeMap<String, Vec<f32>>;

fn numbers(path: &std::path::Path) -> Numbers {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |data: &[u8]| data.chunks_exact(4).map(|at| f32::from_le_bytes(at.try_into().unwrap())).collect();
    tensors.tensors().into_iter().map(|(name, tensor)| (name, floats(tensor.data()))).collect()
}

/// What a trial hardly moves is what it started from: the source's numbers up to the depth, others in each replicate above it.
#[test]
fn layers_above_the_depth_start_at_random_in_each_replicate() {
    let still = "lr = 1e-30\naugment = []\n";
    let recipes = [
        ("source", still.to_owned() + "batch_norm = \"frozen\""),
        ("part", still.to_owned() + "transfer = \"layer2\""),
        ("scratch", still.to_owned() + "weights = \"random\""),
    ];
    let recipes = recipes.each_ref().map(|(name, body)| (*name, body.as_str()));
    let world = World::new().file("x.toml", file(&recipes));
    world.run(&["run", "x.toml"]).exits(0);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let start = |recipe: &str, replicate: usize| -> Numbers {
        let sql = "SELECT trial FROM result WHERE recipe = ? AND replicate = ?";
        let key: String = store.query_row(sql, rusqlite::params![recipe, replicate], |row| row.get(0)).unwrap();
        let out = format!("{recipe}{replicate}.safetensors");
        world.run(&["export", "x.toml", &key, "--out", &out]).exits(0);
        numbers(&world.path(&out))
    };
    let [source, part, other, scratch] = [start("source", 0), start("part", 0), start("part", 1), start("scratch", 0)];
    let moves = |name: &str| name.contains("running") || name.contains("mean") || name.contains("variance");
    let mut seen = [0, 0];
    for (name, values) in part.iter().filter(|(name, _)| name.contains("weight") && values_of(&part, name).len() > 100)
    {
        if moves(name) || name.starts_with("head") {
            continue;
        }
        let above = name.starts_with("layer3");
        seen[usize::from(above)] += 1;
        if above {
            assert_eq!(values, values_of(&scratch, name), "{name}: as in a network that starts at random");
            assert!(values != values_of(&source, name) && values != values_of(&other, name), "{name}");
        } else {
            assert!(values == values_of(&source, name) && values == values_of(&other, name), "{name}");
        }
    }
    assert!(seen[0] >= 4 && seen[1] >= 2, "{seen:?}");
}

fn values_of<'a>(numbers: &'a Numbers, name: &str) -> &'a Vec<f32> {
    &numbers[name]
}

#[test]
fn what_would_stay_at_random_is_refused() {
    refused(&[
        ("transfer = \"layer1\"\nfreeze = \"layer2\"", "would hold layers fixed that start at random"),
        ("transfer = \"layer1\"\nfreeze = \"all\"\naugment = []", "would hold layers fixed that start at random"),
        (
            "transfer = \"layer1\"\nphases = [{ freeze = \"all\", steps = 4 }, { freeze = \"none\", steps = 4 }]",
            "would hold layers fixed that start at random",
        ),
        ("transfer = \"layer1\"\ntrains = \"layer3\"", "all of them must train"),
        ("transfer = \"layer1\"\nbatch_norm = \"frozen\"", "start without statistics"),
        ("transfer = \"layer1\"\nstart_decay = 0.1", "nothing to be pulled back to"),
        ("transfer = \"none\"", "say weights = \"random\""),
        ("transfer = \"layer9\"", "has no layer or block 'layer9'"),
        ("weights = \"random\"\nfreeze = \"transferred\"", "nothing is transferred where the weights are random"),
    ]);
}

#[test]
fn the_depth_of_what_is_transferred_has_a_table_and_a_picture() {
    let text = file(&[
        ("scratch", "weights = \"random\""),
        ("frozen", "freeze = \"transferred\"\nbatch_norm = \"train\""),
        ("tuned", "batch_norm = \"train\""),
    ]);
    let world = World::new().file("x.toml", text + "transfer = [\"layer1\", \"layer2\", \"all\"]\n");
    let said = world.run(&["run", "x.toml"]).exits(0).out;
    assert!(said.contains("accuracy on test by depth of what is transferred"), "{said}");
    assert!(said.contains("│ frozen, layer1") && said.contains("│ tuned, all"), "{said}");
    assert!(said.contains("│ scratch ") && !said.contains("scratch, "), "the same at every depth: {said}");
    let status = world.run(&["status", "grid"]).exits(0).out;
    assert!(status.contains("┆ transfer ┆ # ┆ status"), "{status}");
    let html = world.run(&["report", "--format", "html"]).exits(0).out;
    assert!(
        html.contains("tuned: accuracy on test by depth of what is transferred, in the order of the file"),
        "no picture"
    );
}
