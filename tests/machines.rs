//! A sweep on several machines: parts that leave out nothing and run nothing twice, and stores that become one.

use std::collections::BTreeSet;
use std::process::Stdio;

use crate::builder::{Said, World};

/// Two datasets with features of their own, probes at two depths, and networks that train.
const GRID: &str = r#"
[experiment]
name = "grid"
replicates = 3
[backbone]
arch = "resnet8"
input = 12
weights = "random"
[datasets.one]
path = "one"
[datasets.two]
path = "two"
[scenarios.a]
dataset = "one"
per_class = 5
[scenarios.b]
dataset = "two"
per_class = 5
[train]
steps = 20
batch = 8
[recipes.early]
tap = "layer1.0.relu2"
freeze = "all"
[recipes.late]
freeze = "all"
[recipes.part]
freeze = "layer2"
augment = ["flip"]
[axes]
recipe = ["early", "late", "part"]
lr = [0.1, 0.05]
[[rule]]
claim = "late > early"
"#;

const TRIALS: usize = 2 * 3 * 2 * 3;

fn grid() -> World {
    World::new().images("one", &["ants", "bees"], 12, 8).images("two", &["cats", "dogs"], 12, 8).file("x.toml", GRID)
}

/// All finished trials of a store with their results, a line each.
fn finished(world: &World, db: &str) -> BTreeSet<String> {
    let csv = world.run(&["status", "grid", "--format", "csv", "--db", db]).exits(0).out;
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let heading: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let column = |name: &str| heading.iter().position(|own| own == name).unwrap();
    let (status, last) = (column("status"), column("seconds"));
    let rows = reader.records().map(Result::unwrap).filter(|row| &row[status] == "done");
    rows.map(|row| row.iter().take(last).collect::<Vec<_>>().join(",")).collect()
}

fn run(world: &World, shard: &str, db: &str) -> Said {
    world.run(&["run", "x.toml", "--shard", shard, "--db", db])
}

fn count(world: &World, folder: &str, ending: &str) -> usize {
    let folders = [world.path(folder).join("cache"), world.path(folder).join("cache/cpu-fma")];
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    files.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|own| own == ending)).count()
}

#[test]
fn parts_leave_out_nothing_run_nothing_twice_and_join_to_the_same_results() {
    let world = grid();
    world.run(&["run", "x.toml", "--db", "whole/r.sqlite"]).exits(0);
    let whole = finished(&world, "whole/r.sqlite");
    assert_eq!(whole.len(), TRIALS);
    for of in [2, 5] {
        let mut joined = BTreeSet::new();
        let mut stores = Vec::new();
        for number in 1..=of {
            let db = format!("part{number}of{of}/r.sqlite");
            // What a store holds already moves no trial to another part.
            if number == 2 {
                world.run(&["run", "x.toml", "--shard", &format!("2/{of}"), "--limit", "1", "--db", &db]).exits(5);
            }
            let said = run(&world, &format!("{number}/{of}"), &db).exits(0);
            let own = finished(&world, &db);
            let plan = world.run(&["plan", "x.toml", "--shard", &format!("{number}/{of}"), "--db", &db]).exits(0).out;
            let size = format!("part {number}/{of} of 12 cells x 3 replicates: {0} distinct trials, {0} of", own.len());
            assert!(plan.contains(&size), "{plan}");
            assert!(
                said.out.contains(&format!("part {number}/{of}: {0} of {0} trials are done", own.len())),
                "{}",
                said.out
            );
            assert!((1..=2 * TRIALS / of).contains(&own.len()), "{} of {TRIALS} in part {number} of {of}", own.len());
            assert!(own.is_disjoint(&joined), "a trial in two parts");
            joined.extend(own);
            stores.push(db);
        }
        assert_eq!(joined, whole);
        let db = format!("all{of}/r.sqlite");
        let merge = |stores: &[String]| {
            let stores = stores.iter().map(String::as_str);
            world.run(&["merge", "--db", &db].into_iter().chain(stores).collect::<Vec<_>>())
        };
        // One after the other, then all of them again.
        let some = merge(&stores[..1]).exits(0).out;
        assert!(some.contains(&format!("of {TRIALS} trials are here; `tl-sweep run FILE` runs the rest")), "{some}");
        merge(&stores).exits(0);
        let again = merge(&stores).exits(0).out;
        assert_eq!(again.matches(": 0 trials new, ").count(), of, "{again}");
        assert!(
            again.contains(&format!("grid: {TRIALS} of {TRIALS} trials are here; `tl-sweep report grid`")),
            "{again}"
        );
        assert_eq!(finished(&world, &db), whole);
        let again = world.run(&["run", "x.toml", "--db", &db]).exits(0);
        assert!(again.err.contains(&format!("{TRIALS} in the store, 0 to run")), "{}", again.err);
        let alone = |text: &str| text.split("\n\nSharing").next().unwrap().to_owned();
        assert_eq!(alone(&again.out), alone(&world.run(&["report", "--db", "whole/r.sqlite"]).exits(0).out));
        assert!(again.out.contains("Sharing: "), "what the parts cost is known: {}", again.out);
        world.run(&["verify", "x.toml", "--sample", "2", "--db", &db]).exits(0);
    }
}

#[test]
fn trials_that_share_features_stay_on_one_machine() {
    let world = grid().file("x.toml", GRID.replace("\"early\", \"late\", \"part\"", "\"early\", \"late\""));
    world.run(&["run", "x.toml", "--db", "whole/r.sqlite"]).exits(0);
    for number in 1..=2 {
        run(&world, &format!("{number}/2"), &format!("part{number}/r.sqlite")).exits(0);
    }
    // Each dataset's images are read in one place only.
    assert_eq!(count(&world, "whole", "pixels"), 2);
    assert_eq!([1, 2].map(|number| count(&world, &format!("part{number}"), "pixels")), [1, 1]);
    let datasets = |db: &str| -> BTreeSet<String> {
        let csv = world.run(&["status", "grid", "--format", "csv", "--db", db]).exits(0).out;
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let heading = reader.headers().unwrap().clone();
        let column = |name: &str| heading.iter().position(|own| own == name).unwrap();
        let (status, dataset) = (column("status"), column("dataset"));
        reader
            .records()
            .map(Result::unwrap)
            .filter(|row| &row[status] == "done")
            .map(|row| row[dataset].to_owned())
            .collect()
    };
    assert_eq!(datasets("part1/r.sqlite"), ["one".to_owned()].into());
    assert_eq!(datasets("part2/r.sqlite"), ["two".to_owned()].into());
}

#[test]
fn parts_that_run_at_the_same_time_may_share_a_folder() {
    let world = grid();
    world.run(&["run", "x.toml", "--db", "whole/r.sqlite"]).exits(0);
    let start = |number: usize| {
        let shard = format!("{number}/3");
        let db = format!("results/part{number}.sqlite");
        let mut command = world.command(&["run", "x.toml", "--shard", &shard, "--db", &db]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let running: Vec<_> = (1..=3).map(start).collect();
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    let parts = ["results/part1.sqlite", "results/part2.sqlite", "results/part3.sqlite"];
    world.run(&["merge", parts[0], parts[1], parts[2]]).exits(0);
    assert_eq!(finished(&world, "results/tl-sweep.sqlite"), finished(&world, "whole/r.sqlite"));
    assert_eq!(count(&world, "results", "tmp"), 0);
}

#[test]
fn other_results_are_told_and_take_no_place() {
    let world = grid();
    run(&world, "1/3", "part1/r.sqlite").exits(0);
    world.run(&["merge", "part1/r.sqlite"]).exits(0);
    let before = finished(&world, "results/tl-sweep.sqlite");
    let store = rusqlite::Connection::open(world.path("part1/r.sqlite")).unwrap();
    let change = |text: &str| {
        let key: String = store.query_row("SELECT min(key) FROM trial", [], |row| row.get(0)).unwrap();
        assert_eq!(store.execute(text, [&key]).unwrap(), 1);
        key
    };
    for text in [
        "UPDATE trial SET test_loss = test_loss + 1e-9 WHERE key = ?",
        "UPDATE prediction SET probability = zeroblob(length(probability)) WHERE part = 'test' AND trial = ?",
    ] {
        let key = change(text);
        let said = world.run(&["merge", "part1/r.sqlite"]).exits(6).out;
        let expected =
            format!("1 of them with other results there, though of one class: {}; what is here stays", &key[..12]);
        assert!(said.contains(&expected), "{said}");
        assert_eq!(finished(&world, "results/tl-sweep.sqlite"), before);
    }
    // What has failed here is taken from where it has not; what failed there takes nothing away.
    let own = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let key: String = own.query_row("SELECT max(key) FROM trial", [], |row| row.get(0)).unwrap();
    own.execute("UPDATE trial SET status = 'failed', message = 'a disk' WHERE key = ?", [&key]).unwrap();
    store.execute("UPDATE trial SET status = 'failed' WHERE key = (SELECT min(key) FROM trial)", []).unwrap();
    assert!(world.run(&["merge", "part1/r.sqlite"]).exits(0).out.contains("1 trials new, "));
    assert_eq!(finished(&world, "results/tl-sweep.sqlite"), before);
}

#[test]
fn what_does_not_go_together_is_refused_whole() {
    let world = grid();
    run(&world, "1/2", "part1/r.sqlite").exits(0);
    world.run(&["merge", "part1/r.sqlite"]).exits(0);
    let refused = |world: &World, code: i32, expected: &str| {
        let before = finished(world, "results/tl-sweep.sqlite");
        let said = world.run(&["merge", "part2/r.sqlite"]).exits(code);
        assert!(said.err.contains(expected), "{}", said.err);
        assert_eq!(finished(world, "results/tl-sweep.sqlite"), before);
    };
    // The same name, other trials.
    let world = world.file("x.toml", GRID.replace("steps = 20", "steps = 21"));
    run(&world, "2/2", "part2/r.sqlite").exits(0);
    refused(
        &world,
        2,
        "its experiment 'grid' is another one: 36 of its trials are not planned here, and 36 of those here",
    );
    // Another class, in a file that does not say that it may be.
    std::fs::remove_file(world.path("part2/r.sqlite")).unwrap();
    let world = world.file("x.toml", GRID);
    run(&world, "2/2", "part2/r.sqlite").exits(0);
    let store = rusqlite::Connection::open(world.path("part2/r.sqlite")).unwrap();
    store.execute_batch("UPDATE trial SET numerics = 'cuda-h200'").unwrap();
    refused(&world, 2, "'grid' would hold results of cpu-fma and cuda-h200");
    let text = "UPDATE experiment SET text = replace(text, 'replicates = 3', 'replicates = 3\nmix_numerics = true')";
    store.execute_batch(text).unwrap();
    world.run(&["merge", "part2/r.sqlite"]).exits(0);
    let report = world.run(&["report"]).exits(0).out;
    assert!(report.contains("results of several numerics classes are mixed here"), "{report}");
    // An older schema, no store, itself.
    store.execute_batch("PRAGMA user_version = 1").unwrap();
    refused(&world, 7, "has schema 1");
    drop(store);
    let world = world.file("part2/r.sqlite", "no database");
    refused(&world, 7, "it is no SQLite database");
    assert!(world.run(&["merge", "gone.sqlite"]).exits(2).err.contains("there is nothing at 'gone.sqlite'"));
    let itself = world.run(&["merge", "results/../results/tl-sweep.sqlite"]).exits(2);
    assert!(itself.err.contains("is the store that is merged into"), "{}", itself.err);
    for wrong in ["0/2", "3/2", "2", "a/b", "1/0"] {
        let said = run(&world, wrong, "new/r.sqlite");
        assert_eq!(said.code, 2, "{wrong}: {}", said.err);
        assert!(said.err.contains("K/N"), "{wrong}: {}", said.err);
    }
}

#[test]
fn a_bundle_is_taken_over_as_a_store_is() {
    let world = grid();
    run(&world, "1/2", "part1/r.sqlite").exits(0);
    world.run(&["export", "x.toml", "--bundle", "--out", "part1.tar.gz", "--db", "part1/r.sqlite"]).exits(0);
    let said = world.run(&["merge", "part1.tar.gz"]).exits(0).out;
    assert!(said.contains("part1.tar.gz: ") && said.contains("0 known"), "{said}");
    assert_eq!(finished(&world, "results/tl-sweep.sqlite"), finished(&world, "part1/r.sqlite"));
    assert!(world.run(&["merge", "part1/r.sqlite"]).exits(0).out.contains(": 0 trials new, "));
}
