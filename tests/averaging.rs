//! Weights averaged over the end of training: what they are, that they are trained once for all shares, and what makes no sense.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use crate::builder::World;
use crate::chosen::{file, refused};
use crate::sharing::{foreseen, found};

const NET: &str = "freeze = \"layer1\"\nbatch_norm = \"train\"\nschedule = \"constant\"\n";
const HEAD: &str = "freeze = \"all\"\nschedule = \"constant\"\n";
const LEGS: &str = "schedule = \"constant\"\nphases = [{ freeze = \"all\", steps = 4 }, { freeze = \"none\", steps = 8, batch_norm = \"train\" }]\n";

/// Networks and heads after each of the last steps of eight, and what is averaged over these.
fn recipes() -> Vec<(String, String)> {
    let mut recipes = Vec::new();
    for (name, body) in [("net", NET), ("head", HEAD)] {
        recipes.extend((5..=8).map(|steps| (format!("{name}-{steps}"), format!("{body}steps = {steps}"))));
        for (share, average) in [("half", 0.5), ("quarter", 0.25), ("last", 0.01)] {
            recipes.push((format!("{name}-{share}"), format!("{body}steps = 8\naverage = {average}")));
        }
    }
    recipes
}

fn world(recipes: &[(String, String)], more: &str) -> World {
    let recipes: Vec<(&str, &str)> = recipes.iter().map(|(name, body)| (name.as_str(), body.as_str())).collect();
    World::new().file("x.toml", file(&recipes).replace("seed = 5\n", &format!("seed = 5\n{more}\n")))
}

fn key(world: &World, recipe: &str) -> String {
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let text = "SELECT trial FROM result WHERE recipe = ?1 AND replicate = 0";
    store.query_row(text, [recipe], |row| row.get(0)).unwrap()
}

fn tensors(world: &World, recipe: &str) -> HashMap<String, Vec<f32>> {
    let said = world.run(&["export", "x.toml", &key(world, recipe), "--out", "one.safetensors"]).exits(0).out;
    assert!(said.contains("to the bit"), "{said}");
    let read = candle_core::safetensors::load(world.path("one.safetensors"), &Device::Cpu).unwrap();
    let numbers = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    read.into_iter().map(|(name, tensor)| (name, numbers(tensor))).collect()
}

/// The mean of numbers of several steps, summed as they come.
fn mean(steps: &[&Vec<f32>]) -> Vec<f32> {
    let mut mean = steps[0].clone();
    for (count, step) in steps.iter().enumerate().skip(1) {
        let part = (1.0 / (count + 1) as f64) as f32;
        mean.iter_mut().zip(*step).for_each(|(mean, own)| *mean += (own - *mean) * part);
    }
    mean
}

#[test]
fn weights_are_the_mean_over_the_last_steps_and_shares_of_one_training_are_trained_once() {
    let world = world(&recipes(), "");
    world.run(&["run", "x.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "x.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, _), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!((shared.len(), &shared), (recipes().len() * 2, &alone));
    let said = world.run(&["verify", "x.toml", "--all"]).exits(0).out;
    assert!(said.contains("28 of 28 trials"), "{said}");
    for (name, least) in [("net", 20), ("head", 2)] {
        let steps: Vec<HashMap<String, Vec<f32>>> =
            (5..=8).map(|steps| tensors(&world, &format!("{name}-{steps}"))).collect();
        for (share, first) in [("half", 0), ("quarter", 2), ("last", 3)] {
            let own = tensors(&world, &format!("{name}-{share}"));
            let mut moved = 0;
            assert_eq!(own.len(), steps[0].len());
            for (tensor, numbers) in &own {
                let over: Vec<&Vec<f32>> = steps[first..].iter().map(|step| &step[tensor]).collect();
                assert_eq!(*numbers, mean(&over), "{name}-{share}: {tensor}");
                moved += usize::from(over[0] != *over.last().unwrap());
            }
            // Weights, scales, shifts and running statistics of what trains; the head.
            assert!(share == "last" || moved >= least, "{name}-{share}: {moved}");
        }
    }
    // Three shares and the last weights are one training, and each share is scored once more.
    let of = |db: &str, recipe: &str| {
        let store = rusqlite::Connection::open(world.path(db)).unwrap();
        let text =
            format!("SELECT sum(macs) FROM trial WHERE key IN (SELECT trial FROM result WHERE recipe = '{recipe}')");
        store.query_row(&text, [], |row| row.get::<_, f64>(0)).unwrap()
    };
    let [shared, last] = ["net-half", "net-8"].map(|recipe| of("results/tl-sweep.sqlite", recipe));
    let alone = of("alone/r.sqlite", "net-half");
    assert!(shared > last && shared < 0.6 * alone, "{shared} {last} {alone}");
}

#[test]
fn the_mean_is_the_end_of_the_way_of_the_last_phase_and_is_calibrated() {
    let of = |name: &str, more: &str| (name.to_owned(), format!("{LEGS}{more}"));
    let recipes = [
        ("start".to_owned(), "schedule = \"constant\"\nphases = [{ freeze = \"all\", steps = 4 }]\n".to_owned()),
        of("last", ""),
        of("mean", "average = 0.5"),
        of("between", "average = 0.5\ninterpolate = 0.25"),
        of("cooled", "average = 0.5\ncalibrate = \"temperature\""),
    ];
    for more in ["", "refit = true"] {
        let world = world(&recipes, more);
        let plan: serde_json::Value =
            serde_json::from_str(&world.run(&["plan", "x.toml", "--format", "json"]).exits(0).out).unwrap();
        world.run(&["run", "x.toml", "--slots", "1"]).exits(0);
        world.run(&["run", "x.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
        let ((shared, _), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
        assert_eq!((shared.len(), &shared), (recipes.len() * 2, &alone));
        let [start, last, mean, between, cooled] = recipes.each_ref().map(|(name, _)| tensors(&world, name));
        let mut other = 0;
        for (name, numbers) in &between {
            let way = start[name].iter().zip(&mean[name]).map(|(start, end)| (end - start) * 0.25 + start);
            assert!(numbers.iter().zip(way).all(|(own, expected)| *own == expected), "{name}");
            other += usize::from(last[name] != mean[name]);
            assert_eq!(cooled[name] == mean[name], !name.starts_with("head."), "{name}");
        }
        assert!(other > 20, "{other}");
        // The forecast knows of the scores.
        foreseen(&world, &plan);
    }
}

#[test]
fn a_mean_of_what_may_not_come_is_refused() {
    refused(&[
        ("average = 0.5\nkeep_weights = \"best\"", "is not what keep_weights = \"best\" takes"),
        ("average = 0.5\nearly_stop = { patience = 2 }", "its last steps are not known before"),
        ("average = 1.5", "a number from 0 to 1"),
    ]);
    let none = [("plain".to_owned(), NET.to_owned()), ("same".to_owned(), format!("{NET}average = 0"))];
    let said = world(&none, "").run(&["plan", "x.toml"]).exits(0).out;
    assert!(said.contains("2 distinct trials"), "{said}");
}
