//! A disk that takes no more ends a sweep in words, blames no trial and loses nothing.

use crate::builder::{Said, World};
use crate::sharing::GRID;

/// Runs a sweep whose cache lies on a disk of so many kilobytes, in a namespace of its own; nothing where this machine allows none.
fn on_a_small_disk(world: &World, kilobytes: usize) -> Option<Said> {
    let run = world.command(&["run", "x.toml"]);
    let mount = format!("mkdir -p results/cache && mount -t tmpfs -o size={kilobytes}k tmpfs results/cache");
    let inside = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
        command.arg(run.get_program()).args(run.get_args()).current_dir(world.path(""));
        command.output().ok()
    };
    inside(&mount).filter(|output| output.status.success()).or_else(|| {
        eprintln!("no disk can be mounted here: not tested");
        None
    })?;
    let output = inside(&format!("{mount} && \"$@\""))?;
    Some(Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    })
}

fn results(world: &World, db: &str) -> Vec<Vec<String>> {
    let store = rusqlite::Connection::open(world.path(db)).unwrap();
    let text = "SELECT key, status, val_loss, test_loss FROM trial ORDER BY key";
    let mut statement = store.prepare(text).unwrap();
    let row = |row: &rusqlite::Row| (0..4).map(|at| Ok(format!("{:?}", row.get_ref(at)?))).collect();
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_full_disk_ends_a_sweep_in_words_and_loses_nothing() {
    let world = World::new().file("x.toml", GRID);
    let help = "= help: make room";
    // Too small for the pixels: nothing is decoded.
    let Some(said) = on_a_small_disk(&world, 40) else { return };
    let said = said.exits(1);
    assert!(said.err.contains("the decoded images of this experiment take") && said.err.contains(help), "{}", said.err);
    // Too small for the source model that the first stage makes.
    let said = on_a_small_disk(&world, 200).unwrap().exits(1);
    assert!(said.err.contains("No space left on device") && said.err.contains(help), "{}", said.err);
    assert!(said.err.contains("trials: 0 in the store"), "it had begun: {}", said.err);
    let watched = world.run(&["watch", "--once"]).exits(1).out;
    assert!(watched.contains(", 0 failed;") && watched.contains("the disk was full"), "{watched}");
    assert_eq!(results(&world, "results/tl-sweep.sqlite"), Vec::<Vec<String>>::new(), "no trial is to blame");
    world.run(&["run", "x.toml"]).exits(0);
    world.run(&["run", "x.toml", "--db", "whole/r.sqlite"]).exits(0);
    let whole = results(&world, "whole/r.sqlite");
    assert!(!whole.is_empty());
    assert_eq!(results(&world, "results/tl-sweep.sqlite"), whole);
}
