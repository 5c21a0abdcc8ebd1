//! Whole sweeps: idempotent, the same bits for any number of slots, and after any death.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tl_sweep::model::arch::Arch;

use crate::builder::{World, png};
use crate::materials::network;

/// Six trials on a small folder of images: probes that share an encoding, and fine-tuning.
const SMALL: &str = r#"
[experiment]
name = "small"
replicates = 3
[backbone]
arch = "resnet8"
input = 12
weights = "pretrain"
[pretrain]
dataset = "source"
steps = 20
lr = 0.05
[datasets.source]
synthetic = { classes = 4, train = 20, test = 5 }
[datasets.mine]
path = "mine"
[scenarios.few]
dataset = "mine"
per_class = 5
[train]
steps = 60
batch = 8
augment = ["flip"]
[axes]
recipe = ["linear-probe", "fine-tune"]
[[rule]]
claim = "linear-probe > fine-tune"
"#;

fn small() -> World {
    World::new().images("mine", &["ants", "bees", "cats"], 12, 8).file("small.toml", SMALL)
}

/// Result columns of all trials, by key: what must be the same whatever happened.
fn results(world: &World, name: &str, db: &str) -> Vec<String> {
    let csv = world.run(&["status", name, "--format", "csv", "--db", db]).exits(0).out;
    let heading: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let last = heading.iter().position(|column| *column == "seconds").unwrap();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    reader.records().map(|row| row.unwrap().iter().take(last).collect::<Vec<_>>().join(",")).collect()
}

#[test]
fn a_sweep_runs_once_and_then_nothing_is_left() {
    let world = small();
    let first = world.run(&["run", "small.toml"]).exits(0);
    assert!(first.out.contains("6 of 6 trials done"), "{}", first.out);
    assert!(first.out.contains("linear-probe > fine-tune"), "{}", first.out);
    let again = world.run(&["run", "small.toml"]).exits(0);
    assert!(again.err.contains("6 in the store, 0 to run"), "{}", again.err);
    assert_eq!(first.out, again.out);
    world.run(&["report", "--format", "json"]).exits(0);
    let status = world.run(&["status", "small"]).exits(0);
    assert_eq!(status.out.matches("done").count(), 6, "{}", status.out);
}

#[test]
fn any_number_of_slots_gives_the_same_bits() {
    let world = small();
    world.run(&["run", "small.toml", "--db", "one/r.sqlite", "--slots", "1"]).exits(0);
    world.run(&["run", "small.toml", "--db", "three/r.sqlite", "--slots", "3"]).exits(0);
    assert_eq!(results(&world, "small", "one/r.sqlite"), results(&world, "small", "three/r.sqlite"));
}

#[test]
fn a_killed_sweep_goes_on_to_the_same_bits_and_leaves_no_orphan() {
    let world = small();
    world.run(&["run", "small.toml", "--db", "whole/r.sqlite"]).exits(0);
    for (round, wait) in [30, 120, 250, 400, 600, 900].into_iter().enumerate() {
        let db = format!("cut{}/r.sqlite", round % 2);
        let mut child = world
            .command(&["run", "small.toml", "--db", &db])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for_no_worker(&world, &format!("cut{}", round % 2));
    }
    for db in ["cut0/r.sqlite", "cut1/r.sqlite"] {
        world.run(&["run", "small.toml", "--db", db]).exits(0);
        assert_eq!(results(&world, "small", db), results(&world, "small", "whole/r.sqlite"));
    }
}

/// No process of this world's cache is left within some seconds.
fn wait_for_no_worker(world: &World, folder: &str) {
    let cache = format!("{folder}/cache");
    let own = world.path("").canonicalize().unwrap();
    let start = Instant::now();
    loop {
        let alive = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter(|entry| {
            let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
            let here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == own);
            here && command.contains("worker") && command.contains(&cache)
        });
        if alive.count() == 0 {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "a worker outlives its parent");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_killed_worker_costs_its_stage_and_not_the_sweep() {
    let world = small();
    let slow = SMALL.replace("steps = 60", "steps = 400");
    let world = world.file("slow.toml", slow);
    let mut child = world.command(&["run", "slow.toml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let own = world.path("").canonicalize().unwrap();
    let start = Instant::now();
    let mut killed = 0;
    while killed < 1 && start.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(300));
        for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == own);
            if here && String::from_utf8_lossy(&command).contains("worker") && killed < 1 {
                std::process::Command::new("kill").args(["-9", &entry.file_name().to_string_lossy()]).status().unwrap();
                killed += 1;
            }
        }
    }
    assert_eq!(killed, 1);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(world.run(&["status", "small"]).exits(0).out.matches("done").count(), 6);
}

#[test]
fn only_asks_for_what_cells_have() {
    let world = small();
    let asked = |only: &str| world.run(&["run", "small.toml", "--only", only]);
    for (only, message) in [
        ("recipe == 'linear-probe' || lrr > 0.1", "a condition cannot ask for `lrr` (did you mean `lr`?)"),
        (
            "replicate == 1",
            "a condition cannot ask for `replicate`: it speaks of the settings of recipes, and of scenario, recipe",
        ),
        ("recipe == ", "(at byte 10)"),
        ("recipe == 'linear'", "matches none of the"),
    ] {
        let said = asked(only).exits(2).err;
        assert!(said.contains(message) && said.contains("--only"), "{said}");
    }
    // As in a file, the table may be named before the key.
    asked("recipe == 'linear-probe' && train.batch > 0").exits(5);
}

#[test]
fn features_that_are_damaged_are_made_again_with_a_warning() {
    let world = small();
    world.run(&["run", "small.toml", "--only", "recipe == 'linear-probe'"]).exits(5);
    let whole = results(&world, "small", "results/tl-sweep.sqlite");
    for path in world.cached("features") {
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 500;
        bytes[last] ^= 64;
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::remove_file(world.path("results/tl-sweep.sqlite")).unwrap();
    let said = world.run(&["run", "small.toml", "--only", "recipe == 'linear-probe'"]).exits(5);
    assert!(said.err.contains("features are made again"), "{}", said.err);
    assert_eq!(results(&world, "small", "results/tl-sweep.sqlite"), whole);
}

#[test]
fn cached_features_give_the_bits_of_the_whole_network() {
    // The second recipe's last phase changes nothing (its rate is zero) but augments, so nothing of it may be encoded.
    let world = small().file("symmetric.toml", SMALL.replace("[\"flip\"]", "[]").replace("\"linear-probe\", \"fine-tune\"", "\"shared\", \"alone\"").replace(
        "[[rule]]\nclaim = \"linear-probe > fine-tune\"",
        "[recipes.shared]\nfreeze = \"layer3\"\n[recipes.alone]\nphases = [{ freeze = \"layer3\", steps = 60, augment = [] }, { freeze = \"layer3\", steps = 1, lr = 0.0, augment = [\"flip\"] }]",
    ));
    world.run(&["run", "symmetric.toml"]).exits(0);
    let rows = results(&world, "small", "results/tl-sweep.sqlite");
    let numbers = |recipe: &str, replicate: &str| {
        let mut found =
            rows.iter().filter(|row| row.contains(&format!(",{recipe},")) && row.split(',').nth(1) == Some(replicate));
        let row: Vec<String> = found.next().unwrap().split(',').map(str::to_owned).collect();
        // Losses and accuracies on validation and test, without status and steps.
        let from = row.iter().position(|column| column == "done").unwrap();
        row[from + 1..from + 9].to_vec()
    };
    for replicate in ["0", "1", "2"] {
        assert_eq!(numbers("shared", replicate), numbers("alone", replicate));
    }
}

#[test]
fn phases_run_one_after_another() {
    let text = SMALL
        .replace(
            "[[rule]]\nclaim = \"linear-probe > fine-tune\"",
            "[recipes.both]\nphases = [{ freeze = \"all\", steps = 20 }, { freeze = \"none\", steps = 30, lr = 1e-3 }]",
        )
        .replace("\"linear-probe\", \"fine-tune\"", "\"both\"");
    let world = small().file("phases.toml", text);
    world.run(&["run", "phases.toml"]).exits(0);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let (steps, points, frozen): (i64, i64, i64) = store
        .query_row("SELECT steps_run, (SELECT count(*) FROM curve WHERE trial = key), frozen FROM trial", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!((steps, points), (50, 20));
    assert!(frozen > 0, "running statistics are fixed in both phases");
}

#[test]
fn interrupting_finishes_what_runs_and_says_what_is_left() {
    let world = small().file("slow.toml", SMALL.replace("steps = 60", "steps = 2000"));
    let child = world
        .command(&["run", "slow.toml", "--slots", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{err}");
    assert!(err.contains("goes on from here"), "{err}");
    assert!(world.run(&["report"]).exits(0).out.contains("missing"));
}

#[test]
fn a_limit_takes_the_first_trials_and_the_rest_later() {
    let world = small();
    let said = world.run(&["run", "small.toml", "--limit", "0"]).exits(5);
    assert!(said.out.contains("0 of 6 trials done") && !said.err.contains("stages in"), "{}\n{}", said.out, said.err);
    let said = world.run(&["run", "small.toml", "--limit", "2"]).exits(5);
    assert!(said.out.contains("2 of 6 trials done"), "{}", said.out);
    assert!(world.run(&["run", "small.toml"]).exits(0).out.contains("6 of 6 trials done"));
}

#[test]
fn a_diverged_trial_is_an_outcome_and_cannot_be_selected() {
    let text = SMALL.replace(
        "recipe = [\"linear-probe\", \"fine-tune\"]",
        "recipe = [\"linear-probe\", \"fine-tune\"]\nlr = [0.01, 1e30]",
    );
    let world = small().file("hot.toml", text);
    let said = world.run(&["run", "hot.toml"]).exits(0);
    assert!(said.out.contains("12 of 12 trials done, 3 diverged"), "{}", said.out);
    assert!(said.out.contains("lr = 0.01"), "{}", said.out);
    assert!(!said.out.contains("lr = 1e30"), "{}", said.out);
    let all = SMALL.replace("[[rule]]", "[recipes.fine-tune]\nlr = 1e30\n[[rule]]");
    let world = world.file("all.toml", all);
    let said = world.run(&["run", "all.toml", "--db", "all/r.sqlite"]).exits(0);
    assert!(said.out.contains("every setting diverged; counted as naming the largest class"), "{}", said.out);
    assert!(said.out.contains("SUPPORTED"), "{}", said.out);
}

#[test]
fn a_missing_gpu_is_exit_3_and_never_a_silent_cpu_run() {
    if cfg!(feature = "cuda") {
        return;
    }
    let said = small().run(&["run", "small.toml", "--devices", "cuda:0"]).exits(3);
    assert!(said.err.contains("cuda:0 was asked for, and this program was built without CUDA"), "{}", said.err);
    assert!(said.err.contains("--features cudnn"), "{}", said.err);
    small().run(&["doctor", "--devices", "cuda:0"]).exits(3);
}

#[test]
fn a_precision_of_gpus_is_refused_on_the_cpu_and_stands_in_the_key() {
    let rounded = |word: &str| SMALL.replace("[train]", &format!("[train]\nprecision = \"{word}\""));
    let world = small().file("tf32.toml", rounded("tf32")).file("f32.toml", rounded("f32"));
    let said = world.run(&["run", "tf32.toml", "--devices", "cpu"]).exits(3);
    assert!(said.err.contains("precision = \"tf32\" needs an NVIDIA GPU: the CPU computes f32 only"), "{}", said.err);
    let wrong = world.file("wrong.toml", rounded("f64")).run(&["check", "wrong.toml"]).exits(2);
    assert!(wrong.err.contains("'f32', 'tf32' or 'bf16'"), "{}", wrong.err);
}

#[test]
fn doctor_tells_what_there_is_and_what_is_missing() {
    let said = small().run(&["doctor", "--devices", "cpu"]).exits(0);
    for line in ["built with", "CPU", "NVIDIA driver", "libcudnn.so.9", "--devices auto is"] {
        assert!(said.out.contains(line), "{line}: {}", said.out);
    }
    let said = small().run(&["doctor", "--format", "json"]).exits(0);
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value["built_with"]["cuda"], cfg!(feature = "cuda"));
    assert!(value["cpu"]["memory_free"].as_u64().unwrap() > 0, "{value}");
}

#[test]
fn a_store_of_a_newer_version_or_of_another_kind_is_exit_7() {
    let world = small().file("results/tl-sweep.sqlite", "this is no database, but long enough to look at: ".repeat(40));
    assert!(world.run(&["run", "small.toml"]).exits(7).err.contains("no SQLite database"));
    let world = small();
    world.run(&["run", "small.toml", "--limit", "1"]).exits(5);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    store.execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(world.run(&["run", "small.toml"]).exits(7).err.contains("newer"));
}

/// A store of the first schema is brought up to date by `run`, with what it holds; readers say so until then.
#[test]
fn a_store_of_an_older_version_is_brought_up_to_date() {
    let world = small().file("results/README.md", "");
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    store.execute_batch(&tl_sweep::store::schema::migration(0)).unwrap();
    let old = "INSERT INTO experiment VALUES (7, 'old', 'why', 'accuracy', 3, 0, '[]', '[]', 'text');
               INSERT INTO trial (key, status, numerics) VALUES ('a', 'done', 'cpu-avx512'), ('b', 'done', 'cpu-avx2');
               PRAGMA user_version = 1;";
    store.execute_batch(old).unwrap();
    assert!(world.run(&["status"]).exits(7).err.contains("`run` brings it up to date"));
    world.run(&["run", "small.toml", "--limit", "1"]).exits(5);
    let name: String = store.query_row("SELECT name FROM experiment WHERE id = 7", [], |row| row.get(0)).unwrap();
    assert_eq!(name, "old");
    let class = |key: &str| {
        store.query_row("SELECT numerics FROM trial WHERE key = ?", [key], |row| row.get::<_, String>(0)).unwrap()
    };
    assert_eq!([class("a"), class("b")], ["cpu-fma", "cpu-avx2"], "AVX2 gave other bits for some shapes");
    let weights = "SELECT DISTINCT class_weights FROM result WHERE experiment = 'small'";
    assert_eq!(store.query_row(weights, [], |row| row.get::<_, String>(0)).unwrap(), "none");
}

#[test]
fn two_sweeps_never_write_to_one_store() {
    let world = small().file("slow.toml", SMALL.replace("steps = 60", "steps = 3000"));
    let mut first = world.command(&["run", "slow.toml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !world.path("results/tl-sweep.sqlite").exists() && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = world.run(&["run", "small.toml"]).exits(7);
    assert!(said.err.contains("another sweep is writing"), "{}", said.err);
    first.kill().unwrap();
    first.wait().unwrap();
    world.run(&["run", "small.toml"]).exits(0);
}

#[test]
fn every_planned_cell_has_a_row_and_predictions_recompute_the_scores() {
    let world = small();
    world.run(&["run", "small.toml", "--limit", "4"]).exits(5);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let count = |text: &str| store.query_row(text, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM result"), 6);
    assert_eq!(count("SELECT count(*) FROM result WHERE status = 'planned'"), 2);
    assert_eq!(count("SELECT count(*) FROM result WHERE freeze = 'all' AND recipe = 'linear-probe'"), 3);
    let mut statement = store
        .prepare("SELECT trial.test_accuracy, prediction.predicted, split.test, split.train, split.val FROM trial JOIN prediction ON prediction.trial = trial.key AND part = 'test' JOIN split ON split.key = trial.split")
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    let classes: Vec<i64> = {
        let mut all = store.prepare("SELECT class FROM sample JOIN dataset ON dataset.fingerprint = sample.data WHERE dataset.name = 'mine' ORDER BY position").unwrap();
        all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let mut seen = 0;
    while let Some(row) = rows.next().unwrap() {
        let accuracy: f64 = row.get(0).unwrap();
        let blob = |index: usize| row.get::<_, Vec<u8>>(index).unwrap();
        let ids = |index: usize| {
            blob(index).chunks(4).map(|id| u32::from_le_bytes(id.try_into().unwrap())).collect::<Vec<_>>()
        };
        let (test, train, val) = (ids(2), ids(3), ids(4));
        let right = blob(1)
            .chunks(2)
            .zip(&test)
            .filter(|(class, id)| i64::from(u16::from_le_bytes((*class).try_into().unwrap())) == classes[**id as usize])
            .count();
        assert!((accuracy - right as f64 / test.len() as f64).abs() < 1e-12);
        assert!(
            train.iter().all(|id| !val.contains(id) && !test.contains(id)) && val.iter().all(|id| !test.contains(id))
        );
        seen += 1;
    }
    assert_eq!(seen, 4);
    let splits = world.run(&["data", "small", "--splits"]).exits(0);
    assert!(splits.out.starts_with("dataset,per_class,replicate,part,sample,class"), "{}", splits.out);
    assert!(splits.out.contains("mine,5,0,train,train/"), "{}", splits.out);
}

#[test]
fn show_finds_a_trial_by_the_first_digits_of_its_key() {
    let world = small();
    world.run(&["run", "small.toml", "--limit", "1"]).exits(5);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let key: String = store.query_row("SELECT key FROM trial", [], |row| row.get(0)).unwrap();
    let said = world.run(&["show", &key[..8]]).exits(0);
    assert!(said.out.contains(&key) && said.out.contains("val loss"), "{}", said.out);
    world.run(&["show", "zzzz"]).exits(2);
}

/// What a probe on pretrained features gains over one on untrained features (random weights, batch norms settled by a
/// few steps at a rate of zero) falls as the target moves away, and is about zero where the two share nothing.
#[test]
fn what_pretraining_gains_falls_with_distance_and_vanishes() {
    let file = |name: &str, lr: f64, steps: usize| {
        let mut text = format!(
            "[experiment]\nname = \"{name}\"\n[backbone]\narch = \"resnet8\"\ninput = 16\nweights = \"pretrain\"\n\
             [pretrain]\ndataset = \"source\"\nsteps = {steps}\nbatch = 32\nlr = {lr}\n\
             [datasets.source]\nsynthetic = {{ classes = 20, task = 0, train = 150, test = 2 }}\n\
             [train]\nsteps = 200\nlr = 0.3\n[axes]\nrecipe = [\"linear-probe\"]\n"
        );
        for (scenario, shift) in [("near", 0.0), ("between", 0.7), ("apart", 1.0)] {
            text.push_str(&format!(
                "[datasets.{scenario}]\nsynthetic = {{ classes = 10, task = 1, shift = {shift}, train = 80, test = 60 }}\n\
                 [scenarios.{scenario}]\ndataset = \"{scenario}\"\nper_class = 60\n"
            ));
        }
        text
    };
    let world =
        World::new().file("learned.toml", file("learned", 0.1, 700)).file("untrained.toml", file("untrained", 0.0, 40));
    let accuracy = |name: &str| {
        world.run(&["run", &format!("{name}.toml"), "--quiet"]).exits(0);
        let report: serde_json::Value =
            serde_json::from_str(&world.run(&["report", name, "--format", "json"]).exits(0).out).unwrap();
        let arms = report["arms"].as_array().unwrap().clone();
        ["near", "between", "apart"].map(|scenario| {
            arms.iter().find(|arm| arm["context"]["scenario"] == scenario).unwrap()["test_mean"].as_f64().unwrap()
        })
    };
    let (learned, untrained) = (accuracy("learned"), accuracy("untrained"));
    let gain: Vec<f64> = learned.iter().zip(untrained).map(|(learned, untrained)| learned - untrained).collect();
    assert!(gain[0] > 0.3, "{gain:?}");
    assert!(gain[0] > gain[1] + 0.1 && gain[1] > gain[2] + 0.1, "{gain:?}");
    assert!(gain[2].abs() < 0.05, "{gain:?}");
}

/// A limit that no gradient reaches, and weights of classes of one size, change no bit; others do.
#[test]
fn clipping_and_class_weights_act_where_they_must() {
    let mut world = World::new().images("mine", &["ants", "bees"], 8, 4);
    for index in 0..8 {
        world = world.file(&format!("mine/train/ants/more{index}.png"), png(12, 12, 0, 9000 + index));
    }
    let world = world.file(
        "clip.toml",
        r#"
[experiment]
name = "clip"
replicates = 1
[backbone]
arch = "resnet8"
input = 12
weights = "random"
[datasets.mine]
path = "mine"
[scenarios.even]
dataset = "mine"
per_class = 5
[scenarios.uneven]
dataset = "mine"
[train]
steps = 12
batch = 8
[recipes.plain]
freeze = "none"
[recipes.wide]
clip = 1e9
[recipes.tight]
clip = 0.01
[recipes.balanced]
class_weights = "balanced"
[axes]
scenario = ["even", "uneven"]
recipe = ["plain", "wide", "tight", "balanced"]
"#,
    );
    world.run(&["run", "clip.toml"]).exits(0);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let loss = |scenario: &str, recipe: &str| -> f64 {
        let sql = "SELECT val_loss FROM result WHERE scenario = ? AND recipe = ?";
        store.query_row(sql, [scenario, recipe], |row| row.get(0)).unwrap()
    };
    for scenario in ["even", "uneven"] {
        assert_eq!(loss(scenario, "wide"), loss(scenario, "plain"), "{scenario}");
        assert_ne!(loss(scenario, "tight"), loss(scenario, "plain"), "{scenario}");
    }
    assert_eq!(loss("even", "balanced"), loss("even", "plain"));
    assert_ne!(loss("uneven", "balanced"), loss("uneven", "plain"));
    let said =
        world.file("bad.toml", "[train]\nclip = 0\nclass_weights = \"even\"\n").run(&["check", "bad.toml"]).exits(2);
    assert!(said.err.contains("a number above 0") && said.err.contains("'none' or 'balanced'"), "{}", said.err);
}

/// Weights of which features are no numbers: heads that are solved diverge as those do that are trained.
#[test]
fn features_that_are_no_numbers_make_every_head_diverge() {
    const FILE: &str = r#"
[experiment]
name = "broken"
[backbone]
arch = "resnet8"
weights = "broken.safetensors"
preprocess = "torch"
[datasets.mine]
path = "mine"
[scenarios.mine]
dataset = "mine"
per_class = 4
[recipes.logistic]
freeze = "all"
optimizer = "lbfgs"
[recipes.ridge]
freeze = "all"
optimizer = "ridge"
[recipes.lda]
freeze = "all"
optimizer = "lda"
[train]
steps = 4
batch = 4
[axes]
recipe = ["linear-probe", "logistic", "ridge", "lda"]
"#;
    let world = World::new().images("mine", &["ants", "bees", "cats"], 8, 4).file("x.toml", FILE);
    let mut weights = network(&world, "broken.safetensors", &Arch::new("resnet8", 32, 1.0));
    for tensor in weights.0.values_mut().filter(|tensor| tensor.rank() == 4) {
        *tensor = tensor.affine(1e37, 0.0).unwrap();
    }
    weights.write(&world.path("broken.safetensors")).unwrap();
    let said = world.run(&["run", "x.toml"]).exits(0);
    assert!(said.out.contains("12 of 12 trials done, 12 diverged"), "{}", said.out);
}
