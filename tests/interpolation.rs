//! Weights between where a last phase began and where it ended: what they are, that they are trained once for all shares, and
//! what makes no sense.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use crate::builder::World;
use crate::chosen::{file, refused};
use crate::sharing::{foreseen, found};

const HEAD: &str = "phases = [{ freeze = \"all\", steps = 6 }]";
const LEGS: &str =
    "phases = [{ freeze = \"all\", steps = 6 }, { freeze = \"layer1\", steps = 6, batch_norm = \"train\" }]";

fn world(more: &str) -> World {
    let with = |share: &str| format!("{LEGS}\n{share}");
    let (quarter, half, most) = (with("interpolate = 0.25"), with("interpolate = 0.5"), with("interpolate = 0.9"));
    let best = with("interpolate = 0.5\nkeep_weights = \"best\"");
    let recipes =
        [("head", HEAD), ("whole", LEGS), ("quarter", &quarter), ("half", &half), ("most", &most), ("best", &best)];
    let chosen = if more.is_empty() { &recipes[..] } else { &recipes[..5] };
    World::new().file("x.toml", file(chosen).replace("seed = 5\n", &format!("seed = 5\n{more}\n")))
}

fn key(world: &World, recipe: &str) -> String {
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let text = "SELECT trial FROM result WHERE recipe = ?1 AND replicate = 0";
    store.query_row(text, [recipe], |row| row.get(0)).unwrap()
}

fn tensors(world: &World, recipe: &str) -> HashMap<String, Tensor> {
    let said = world.run(&["export", "x.toml", &key(world, recipe), "--out", "one.safetensors"]).exits(0).out;
    assert!(said.contains("to the bit"), "{said}");
    candle_core::safetensors::load(world.path("one.safetensors"), &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(world: &World, file: &str) -> Vec<(String, Vec<f32>)> {
    let read = candle_core::safetensors::load(world.path(&format!("{file}.safetensors")), &Device::Cpu).unwrap();
    let mut all: Vec<_> = read.into_iter().map(|(name, tensor)| (name, numbers(&tensor))).collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

#[test]
fn weights_lie_on_the_way_and_shares_of_it_are_trained_once() {
    let world = world("");
    let plan: serde_json::Value =
        serde_json::from_str(&world.run(&["plan", "x.toml", "--format", "json"]).exits(0).out).unwrap();
    world.run(&["run", "x.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "x.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, _), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!((shared.len(), &shared), (6 * 2, &alone));
    // Kept, it is what it is trained again.
    world.run(&["run", "x.toml", "--db", "kept/r.sqlite", "--set", "experiment.keep=\"all\""]).exits(0);
    let key = key(&world, "half");
    for (db, out, told) in
        [("kept/r.sqlite", "kept", "kept since it was trained"), ("results/tl-sweep.sqlite", "again", "to the bit")]
    {
        let said =
            world.run(&["export", "x.toml", &key, "--db", db, "--out", &format!("{out}.safetensors")]).exits(0).out;
        assert!(said.contains(told), "{said}");
    }
    assert_eq!(bits(&world, "kept"), bits(&world, "again"));
    let said = world.run(&["verify", "x.toml", "--all"]).exits(0).out;
    assert!(said.contains("12 of 12 trials"), "{said}");
    let [start, end] = ["head", "whole"].map(|recipe| tensors(&world, recipe));
    for (recipe, share) in [("quarter", 0.25), ("half", 0.5), ("most", 0.9)] {
        let (found, mut moved) = (tensors(&world, recipe), 0);
        assert_eq!(found.len(), end.len());
        for (name, tensor) in &found {
            let (own, start, end) = (numbers(tensor), numbers(&start[name]), numbers(&end[name]));
            let between = start.iter().zip(&end).map(|(start, end)| (end - start) * share as f32 + start);
            assert!(own.iter().zip(between).all(|(own, expected)| *own == expected), "{recipe}: {name}");
            moved += usize::from(start != end);
        }
        // Of the layers that train: weights, scales, shifts and running statistics; and the head.
        assert!(moved > 20, "{moved}");
    }
    // Three shares and the whole way are one training, and each share is scored once more.
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let sum = |what: &str| store.query_row(what, [], |row| row.get::<_, f64>(0)).unwrap();
    let of = |recipe: &str| {
        sum(&format!("SELECT sum(macs) FROM trial WHERE key IN (SELECT trial FROM result WHERE recipe = '{recipe}')"))
    };
    assert!(of("quarter") < 0.5 * of("best") && of("quarter") > of("whole"), "{} {}", of("quarter"), of("best"));
    foreseen(&world, &plan);
}

#[test]
fn a_second_training_goes_the_same_way() {
    let world = world("refit = true");
    world.run(&["run", "x.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "x.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, _), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!((shared.len(), &shared), (5 * 2, &alone));
    let [start, end, half] = ["head", "whole", "half"].map(|recipe| tensors(&world, recipe));
    for (name, tensor) in &half {
        let ends = numbers(&start[name]).into_iter().zip(numbers(&end[name]));
        assert!(numbers(tensor).into_iter().zip(ends).all(|(own, (start, end))| own == (end - start) * 0.5 + start));
    }
}

#[test]
fn a_way_that_leads_nowhere_is_refused() {
    refused(&[
        ("interpolate = 0.5", "it needs a phase before that, such as a head first"),
        ("phases = [{ freeze = \"none\", steps = 4 }]\ninterpolate = 0.5", "it needs a phase before that"),
        (&format!("{LEGS}\ninterpolate = 0"), "a number above 0 and up to 1"),
        (&format!("{LEGS}\ninterpolate = 1.5"), "a number above 0 and up to 1"),
    ]);
    let world = World::new().file("x.toml", file(&[("whole", LEGS), ("same", &format!("{LEGS}\ninterpolate = 1"))]));
    let said = world.run(&["plan", "x.toml"]).exits(0).out;
    assert!(said.contains("2 distinct trials"), "{said}");
}
