//! `keep`: trained networks that stay are those that training again would give, and only those asked for stay.

use std::collections::BTreeSet;

use tl_sweep::model::arch::Arch;

use crate::builder::{World, listed};
use crate::materials::network;
use crate::predictions::experiment;

/// An experiment that keeps networks.
fn world(keep: &str, recipes: &[&str]) -> World {
    let text = experiment(recipes).replacen("[experiment]\n", &format!("[experiment]\nkeep = \"{keep}\"\n"), 1);
    let world = World::new().images("mine", &["ants", "bees", "cats"], 12, 8).file("x.toml", text);
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    world
}

/// Keys of the networks that are there.
pub fn kept(world: &World) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let Ok(classes) = std::fs::read_dir(world.path("results/networks")) else { return found };
    for class in classes {
        for file in std::fs::read_dir(class.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            assert_eq!(path.extension().unwrap(), "safetensors", "{}", path.display());
            found.insert(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

/// Keys of trials that `fits` picks by recipe, learning rate and status.
fn keys(world: &World, fits: impl Fn(&serde_json::Value) -> bool) -> BTreeSet<String> {
    let said = world.run(&["status", "mine", "--format", "json"]).exits(0).out;
    let rows = listed(&said);
    rows.into_iter().filter(|(_, columns)| fits(columns)).map(|(key, _)| key).collect()
}

#[test]
fn what_is_kept_is_what_training_again_gives_to_the_byte() {
    let all = ["linear-probe", "early-features", "fine-tune", "two-phases", "solved", "from-scratch"];
    for (recipes, refit) in [(&all[..], "refit=false"), (&["linear-probe", "fine-tune", "solved"][..], "refit=true")] {
        let world = world("all", recipes);
        let set = ["--set", "axes.lr=[0.01, 0.05]", "--set", refit];
        world.run(&[&["run", "x.toml", "--quiet"], &set[..]].concat()).exits(0);
        let trials = keys(&world, |columns| columns["status"] == "done");
        assert!(trials.len() > recipes.len());
        assert_eq!(kept(&world), trials);
        let export = |trial: &str, out: &str| {
            let said = world.run(&[&["export", "x.toml", trial, "--out", out], &set[..]].concat()).exits(0);
            (std::fs::read(world.path(out)).unwrap(), said)
        };
        let now: Vec<_> = trials.iter().map(|trial| export(trial, "kept.safetensors")).collect();
        std::fs::remove_dir_all(world.path("results/networks")).unwrap();
        for (trial, (bytes, said)) in trials.iter().zip(now) {
            assert!(said.out.contains("kept since it was trained; its 24 answers on test are those"), "{}", said.out);
            assert!(!said.err.contains("running trial"), "{}", said.err);
            let (again, said) = export(trial, "again.safetensors");
            assert!(said.err.contains("running trial") && said.out.contains("to the bit"), "{}", said.out);
            assert!(bytes == again, "{trial}: {} and {} bytes", bytes.len(), again.len());
        }
    }
}

#[test]
fn the_best_stay_once_all_has_run_and_only_those_of_this_experiment_go() {
    let world = world("best-per-scenario", &["linear-probe", "fine-tune"]);
    let set = ["--set", "axes.lr=[0.01, 0.05]", "--set", "replicates=2"];
    world.run(&[&["run", "x.toml", "--quiet", "--limit", "5"], &set[..]].concat()).exits(5);
    let first = kept(&world).pop_first().unwrap();
    world.run(&[&["rerun", "x.toml", &first], &set[..]].concat()).exits(0);
    assert_eq!(kept(&world).len(), 5, "nothing goes before all has run");
    // A network of nobody's here.
    let class = std::fs::read_dir(world.path("results/networks")).unwrap().next().unwrap().unwrap().path();
    let other = "0123456789abcdef0123456789abcdef";
    std::fs::write(class.join(format!("{other}.safetensors")), "another's").unwrap();
    world.run(&[&["run", "x.toml", "--quiet"], &set[..]].concat()).exits(0);
    let report = world.run(&["report", "--format", "json"]).exits(0).out;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let recipe = &report["best"][0]["recipe"];
    let best = report["arms"].as_array().unwrap().iter().find(|arm| arm["recipe"] == *recipe).unwrap();
    let mut wanted: BTreeSet<String> =
        best["trials"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect();
    assert_eq!(wanted.len(), 2);
    wanted.insert(other.to_owned());
    assert_eq!(kept(&world), wanted);
    wanted.remove(other);

    // Damaged: told, not exported.
    let [first, second] = &wanted.iter().collect::<Vec<_>>()[..] else { panic!("two") };
    let file = |key: &str| class.join(format!("{key}.safetensors"));
    let export = |key: &str| world.run(&[&["export", "x.toml", key, "--out", "m.safetensors"], &set[..]].concat());
    export(first).exits(0);
    let good = std::fs::read(file(first)).unwrap();
    std::fs::write(file(first), &good[..good.len() / 2]).unwrap();
    let said = export(first).exits(1);
    assert!(said.err.contains("is damaged: delete it, and the trial is run again"), "{}", said.err);
    // Gone, it is trained again, and what is kept is left alone.
    std::fs::remove_file(file(first)).unwrap();
    assert!(export(first).exits(0).out.contains("to the bit"));
    assert!(!file(first).exists(), "who only exports keeps nothing");
    assert!(export(second).exits(0).out.contains("kept since it was trained"));
}

#[test]
fn trials_that_ran_before_are_named_and_kept_when_they_run_again() {
    let world = world("none", &["linear-probe"]);
    world.run(&["run", "x.toml"]).exits(0);
    assert!(kept(&world).is_empty());
    let said = world.run(&["run", "x.toml", "--set", "keep=all"]).exits(0);
    let all = keys(&world, |columns| columns["status"] == "done");
    let named = said.err.lines().find(|line| line.contains("networks to keep are not there")).unwrap();
    assert!(all.iter().all(|key| named.contains(&key[..12])), "{named}");
    let first = all.iter().next().unwrap();
    world.run(&["rerun", "x.toml", first, "--set", "keep=all"]).exits(0);
    assert_eq!(kept(&world), [first.clone()].into());
    // Nothing is kept by what only looks.
    world.run(&["verify", "x.toml", "--all"]).exits(0);
    assert_eq!(kept(&world).len(), 1);
}
