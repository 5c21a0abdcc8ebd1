//! One experiment in one file: what it holds, that others can repeat it, and what is refused.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tl_sweep::key::ENGINE;

use crate::builder::World;

const BASE: &str = "
[experiment]
replicates = 3
[datasets.mine]
path = \"mine\"
[scenarios.few]
dataset = \"mine\"
per_class = 5
[train]
steps = 20
batch = 8
";

/// Extends another file, and names a network of its own.
const OWN: &str = "
extends = \"../base.toml\"
[experiment]
name = \"own\"
[backbone]
arch = \"net.toml\"
weights = \"random\"
input = 12
[axes]
recipe = [\"from-scratch\"]
lr = [0.01, 0.05]
";

/// A network of one's own, two experiments in one store, one of them bundled.
fn packed() -> World {
    let world = images(World::new()).file("base.toml", BASE);
    let net = world.run(&["summary", "resnet8", "--input", "12", "--toml"]).exits(0).out;
    let other = OWN.replace("\"own\"", "\"other\"").replace("net.toml", "resnet8").replace("../", "");
    let world = world.file("sub/net.toml", net).file("sub/own.toml", OWN).file("other.toml", other);
    world.run(&["run", "other.toml", "--limit", "1"]).exits(5);
    world.run(&["run", "sub/own.toml", "--data", ".", "--limit", "4"]).exits(5);
    let said = world.run(&["export", "sub/own.toml", "--bundle", "--out", "own.tar.gz"]).exits(0).out;
    assert!(said.contains("own.tar.gz: 6 trials") && said.contains("2 of them have no result"), "{said}");
    world
}

fn images(world: World) -> World {
    world.images("mine", &["ants", "bees", "cats"], 12, 8)
}

fn entries(bundle: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(GzDecoder::new(bundle));
    let read = |entry: Result<tar::Entry<_>, _>| {
        let mut entry: tar::Entry<_> = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

fn repacked(entries: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

#[test]
fn a_bundle_is_repeated_elsewhere_to_the_bit() {
    let world = packed();
    let bundle = std::fs::read(world.path("own.tar.gz")).unwrap();
    let held = entries(&bundle);
    let names: Vec<&str> = held.keys().map(|name| name.strip_prefix("bundle/").unwrap()).collect();
    let files = ["files/base.toml", "files/sub/net.toml", "files/sub/own.toml"];
    let results = ["lock.json", "report.md", "results.csv", "results.sqlite", "splits.csv"];
    assert_eq!(names, ["README.md"].into_iter().chain(files).chain(results).collect::<Vec<_>>());
    let lock: serde_json::Value = serde_json::from_slice(&held["bundle/lock.json"]).unwrap();
    assert_eq!((&lock["engine"], &lock["file"]), (&ENGINE.into(), &"files/sub/own.toml".into()));
    assert_eq!(lock["weights"][0]["start"], "random");

    let there = images(World::new()).file("own.tar.gz", &bundle).file("alone.sqlite", &held["bundle/results.sqlite"]);
    let status = there.run(&["status", "--db", "alone.sqlite"]).exits(0).out;
    assert!(status.contains("own") && !status.contains("other"), "{status}");
    let said = there.run(&["verify", "own.tar.gz", "--all"]).exits(0).out;
    assert!(said.contains("the same class, so every bit must be the same"), "{said}");
    assert!(said.contains("4 of 4 trials, run alone, gave what the bundle holds"), "{said}");
    assert!(!there.path("results/tl-sweep.sqlite").exists(), "what others found is not one's own");
}

#[test]
fn other_images_than_those_of_a_bundle_are_named() {
    let bundle = std::fs::read(packed().path("own.tar.gz")).unwrap();
    let there = World::new().file("own.tar.gz", &bundle);
    let said = there.run(&["verify", "own.tar.gz"]).exits(2).err;
    assert!(said.contains("there is nothing at './mine'") && said.contains("--data FOLDER"), "{said}");
    let there = there.images("mine", &["ants", "bees", "cats"], 12, 7);
    let said = there.run(&["verify", "own.tar.gz"]).exits(6).out;
    assert!(said.contains("was computed of other bytes than are here") && said.contains("dataset 'mine'"), "{said}");
}

#[test]
fn what_is_damaged_or_was_computed_otherwise_is_refused() {
    let world = packed();
    let held = entries(&std::fs::read(world.path("own.tar.gz")).unwrap());
    let changed = |name: &str, from: &str, to: &str| {
        let mut held = held.clone();
        let text = String::from_utf8(held[name].clone()).unwrap();
        assert!(text.contains(from), "{text}");
        held.insert(name.to_owned(), text.replace(from, to).into_bytes());
        repacked(&held)
    };
    let mut more = held.clone();
    more.insert("elsewhere.toml".to_owned(), Vec::new());
    let mut less = held.clone();
    less.remove("bundle/results.sqlite");
    let engine = format!("\"engine\": {ENGINE}");
    let cases = [
        (changed("bundle/report.md", "own", "mine"), "report.md is not what lock.json says it is"),
        (repacked(&less), "results.sqlite is not what lock.json says it is"),
        (repacked(&more), "it holds 'elsewhere.toml'"),
        (changed("bundle/lock.json", &engine, "\"engine\": 1"), "was computed by engine 1"),
        (
            changed("bundle/lock.json", "files/sub/own.toml\",\n  \"datasets", "/own.toml\",\n  \"datasets"),
            "has no '/own.toml'",
        ),
        (vec![0x1f, 0x8b, 8, 0], "is no bundle, or is damaged"),
    ];
    for (bytes, wanted) in cases {
        std::fs::write(world.path("changed.tar.gz"), bytes).unwrap();
        let said = world.run(&["verify", "changed.tar.gz"]).exits(2).err;
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn what_would_not_be_what_was_run_is_not_bundled() {
    let world = packed();
    let said = world.run(&["export", "sub/own.toml", "--bundle", "--out", "own.zip"]).exits(2).err;
    assert!(said.contains("should end in .tar.gz"), "{said}");
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    store.execute("UPDATE sweep SET engine = engine - 1", []).unwrap();
    let said = world.run(&["export", "sub/own.toml", "--bundle", "--out", "own.tar.gz"]).exits(2).err;
    assert!(said.contains("another tl-sweep has run 'sub/own.toml' last"), "{said}");
    let changed = std::fs::read_to_string(world.path("base.toml")).unwrap().replace("steps = 20", "steps = 30");
    let world = world.file("base.toml", changed);
    let said = world.run(&["export", "sub/own.toml", "--bundle", "--out", "own.tar.gz"]).exits(2).err;
    assert!(said.contains("has changed since it was run: `tl-sweep run sub/own.toml` first"), "{said}");
    // A name that begins at the root of the disk leads out of the bundle.
    let root = world.path("base.toml").display().to_string();
    let world = world.file("root.toml", OWN.replace("../base.toml", &root).replace("net.toml", "resnet8"));
    world.run(&["run", "root.toml", "--limit", "1"]).exits(5);
    let said = world.run(&["export", "root.toml", "--bundle", "--out", "root.tar.gz"]).exits(2).err;
    assert!(said.contains("would not be found elsewhere") && said.contains("base.toml"), "{said}");
    assert!(!world.path("root.tar.gz").exists());
}
