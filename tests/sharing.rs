//! Work that trials share changes no bit: everything that can be shared beside the same trials alone.

use std::collections::BTreeMap;

use crate::builder::World;

/// Every way of sharing in one small grid: heads in a bank, several taps of one pass, lock-step on a prefix, beginnings in
/// common, stored views; and heads that are solved.
pub const GRID: &str = r#"
[experiment]
name = "grid"
replicates = 2
seed = 5
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
synthetic = { classes = 4, task = 1, shift = 0.3, train = 14, test = 6 }
[scenarios.few]
dataset = "mine"
per_class = 6
[train]
steps = 12
batch = 8
augment = []
[recipes.probe]
freeze = "all"
[recipes.early]
freeze = "all"
tap = "layer2.0.relu2"
[recipes.best]
freeze = "all"
keep_weights = "best"
early_stop = { patience = 2 }
class_weights = "balanced"
label_smoothing = 0.1
clip = 0.5
[recipes.hidden]
freeze = "all"
head = { mlp = [6] }
[recipes.adam]
freeze = "all"
optimizer = "adamw"
[recipes.flipped]
freeze = "all"
augment = ["flip", "crop"]
[recipes.flipped-layer1]
freeze = "layer1"
augment = ["flip", "crop"]
batch_norm = "train"
[recipes.flipped-layer2]
freeze = "layer2"
augment = ["flip", "crop"]
head = { mlp = [6] }
dropout = 0.3
[recipes.views]
freeze = "all"
augment = ["flip", "crop"]
views = 3
[recipes.legs]
phases = [{ freeze = "all", steps = 8 }, { freeze = "layer1", steps = 6 }]
[recipes.longer-legs]
phases = [{ freeze = "all", steps = 8 }, { freeze = "layer1", steps = 6 }, { freeze = "layer2", steps = 4 }]
[recipes.norms-later]
phases = [{ freeze = "all", steps = 6 }, { trains = "norms", steps = 6 }]
[recipes.head-later]
phases = [{ freeze = 2, steps = 6 }, { freeze = "all", steps = 6 }]
[recipes.step]
freeze = "layer1"
schedule = { step = [0.5], factor = 0.1 }
[recipes.late-step]
freeze = "layer1"
schedule = { step = [0.8], factor = 0.1 }
[recipes.logistic]
freeze = "all"
optimizer = "lbfgs"
lambda = { log = [1e-4, 1e1], n = 6 }
[recipes.ridge]
freeze = "all"
optimizer = "ridge"
lambda = { log = [1e-4, 1e1], n = 6 }
[recipes.lda]
freeze = "all"
optimizer = "lda"
lambda = { log = [1e-4, 1e1], n = 6 }
[axes]
recipe = ["probe", "early", "best", "hidden", "adam", "flipped", "flipped-layer1", "flipped-layer2", "views", "legs", "longer-legs", "norms-later", "head-later", "step", "late-step", "logistic", "ridge", "lda"]
lr = [0.01, 0.1, 30.0]
"#;

fn grid(head: &str) -> World {
    World::new().file("grid.toml", GRID.replace("seed = 5\n", &format!("seed = 5\n{head}\n")))
}

/// What a sweep into the default store has done is what its plan foresaw, to the last operation.
pub fn foreseen(world: &World, plan: &serde_json::Value) {
    let store = store(world, "results/tl-sweep.sqlite");
    let sum = |what: &str| store.query_row(what, [], |row| row.get::<_, f64>(0)).unwrap();
    let done = sum("SELECT total(macs) FROM trial") + sum("SELECT total(macs) FROM stage");
    let foreseen = plan["macs"]["shared"].as_f64().unwrap();
    assert!((done / foreseen - 1.0).abs() < 1e-9, "{done} for {foreseen}");
}

fn store(world: &World, db: &str) -> rusqlite::Connection {
    rusqlite::Connection::open(world.path(db)).unwrap()
}

/// Everything that a trial left, by its key; and by recipe the largest group that a trial ran in.
pub fn found(world: &World, db: &str) -> (BTreeMap<String, String>, BTreeMap<String, i64>) {
    let store = store(world, db);
    let mut trials = BTreeMap::new();
    let mut statement = store
        .prepare(
            "SELECT trial.key, trial.status || printf(' %.17g %.17g %d %d ', coalesce(val_loss, 0), coalesce(test_loss, 0), steps_run, stopped_early)
               || coalesce(chosen_lambda, '') || ' ' || coalesce((SELECT group_concat(printf('%d %.17g %.17g %.17g', step, lr, train_loss, val_loss)) FROM curve WHERE trial = trial.key), '')
               || ' ' || coalesce((SELECT group_concat(hex(predicted) || hex(probability) || hex(confidence)) FROM prediction WHERE trial = trial.key), '')
             FROM trial",
        )
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        trials.insert(row.get(0).unwrap(), row.get(1).unwrap());
    }
    let mut groups = BTreeMap::new();
    let mut statement = store
        .prepare("SELECT recipe, max(group_size) FROM result WHERE group_size IS NOT NULL GROUP BY recipe")
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        groups.insert(row.get(0).unwrap(), row.get(1).unwrap());
    }
    (trials, groups)
}

#[test]
fn shared_trials_have_the_bits_of_trials_alone() {
    let world = grid("");
    world.run(&["run", "grid.toml", "--slots", "1"]).exits(0);
    let said = world.run(&["run", "grid.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    assert!(said.err.contains("trials"), "{}", said.err);
    let ((shared, groups), (alone, single)) =
        (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!(shared.len(), 15 * 3 * 2 + 3 * 2);
    for (trial, result) in &shared {
        assert_eq!(result, &alone[trial], "trial {trial}");
    }
    assert!(single.values().all(|size| *size == 1), "{single:?}");
    let together =
        ["probe", "early", "best", "hidden", "adam", "flipped", "flipped-layer1", "views", "legs", "step", "late-step"];
    assert!(together.iter().all(|recipe| groups[*recipe] > 1), "{groups:?}");
    assert!(shared.values().any(|result| result.starts_with("diverged")), "a rate of 30 should diverge");
}

/// An EfficientNet that prepares images itself: freeze depths at a block, inside of one whose gate and stochastic depth lie
/// above the cut, and at all of it; export and `predict` give the answers of the trial.
#[test]
fn gates_and_stochastic_depth_are_shared_to_the_bit() {
    let recipes = "[recipes.probe]\nfreeze = \"all\"\n[recipes.early]\nfreeze = \"all\"\ntap = \"early\"\npool = { max = 2 }\n\
        [recipes.block]\nfreeze = \"block3\"\naugment = [\"flip\"]\n[recipes.inside]\nfreeze = \"block4b_dwconv\"\n\
        [recipes.whole]\nfreeze = \"none\"\n";
    let axes = "[axes]\nrecipe = [\"probe\", \"early\", \"block\", \"inside\", \"whole\"]\nlr = [0.01, 0.05]\n";
    let network = "arch = \"efficientnet_b0\"\nwidth = 0.125\ninput = 32\n";
    let text = GRID.split("[recipes.probe]").next().unwrap();
    let text = text.replace("arch = \"resnet8\"\ninput = 12\n", network).replace("steps = 12", "steps = 6");
    let world = World::new().file("grid.toml", format!("{text}{recipes}{axes}"));
    world.run(&["run", "grid.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "grid.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, groups), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!((shared.len(), &shared), (5 * 2 * 2, &alone));
    assert!(["probe", "early", "block"].iter().all(|recipe| groups[*recipe] > 1), "{groups:?}");
    world.run(&["verify", "grid.toml", "--all"]).exits(0);
    let key: String = store(&world, "results/tl-sweep.sqlite")
        .query_row("SELECT trial FROM result WHERE recipe = 'inside'", [], |row| row.get(0))
        .unwrap();
    let said = world.run(&["export", "grid.toml", &key, "--out", "best.safetensors", "--names", "keras"]).exits(0).out;
    assert!(said.contains("to the bit"), "{said}");
    // Prepared twice they would be, with any other word.
    let twice = world
        .file("twice.toml", format!("{text}{recipes}{axes}").replace("input = 32", "input = 32\npreprocess = \"tf\""));
    let said = twice.run(&["check", "twice.toml"]).exits(2);
    assert!(
        said.err.contains("efficientnet_b0 prepares images itself") && said.err.contains("twice.toml:"),
        "{}",
        said.err
    );
}

/// The same with attention: the class token, the patches' mean and a grid of them, at the end of blocks and within one.
#[test]
fn attention_and_tokens_are_shared_to_the_bit() {
    let recipes = "[recipes.probe]\nfreeze = \"all\"\n\
        [recipes.both]\nfreeze = \"all\"\ntap = \"blocks.5.add2\"\npool = \"class-avg\"\n\
        [recipes.grid]\nfreeze = \"all\"\ntap = \"early\"\npool = { max = 2 }\n\
        [recipes.class]\nfreeze = \"blocks.2\"\ntap = \"blocks.3.add2\"\npool = \"class\"\n\
        [recipes.block]\nfreeze = \"blocks.8\"\naugment = [\"flip\"]\n[recipes.inside]\nfreeze = \"blocks.9.attn.qkv\"\n\
        [recipes.whole]\nfreeze = \"none\"\n";
    let names = ["probe", "both", "grid", "class", "block", "inside", "whole"];
    let axes = format!("[axes]\nrecipe = {names:?}\nlr = [0.01, 0.05]\n");
    let network = "arch = \"dinov2_vits14_reg\"\nwidth = 0.17\ninput = 28\n";
    let text = GRID.split("[recipes.probe]").next().unwrap();
    let text = text.replace("arch = \"resnet8\"\ninput = 12\n", network).replace("steps = 12", "steps = 4");
    let world = World::new().file("grid.toml", format!("{text}{recipes}{axes}"));
    world.run(&["run", "grid.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "grid.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, groups), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!((shared.len(), &shared), (names.len() * 2 * 2, &alone));
    assert!(["probe", "both", "grid", "block"].iter().all(|recipe| groups[*recipe] > 1), "{groups:?}");
    world.run(&["verify", "grid.toml", "--all"]).exits(0);
    let key: String = store(&world, "results/tl-sweep.sqlite")
        .query_row("SELECT trial FROM result WHERE recipe = 'both'", [], |row| row.get(0))
        .unwrap();
    let said = world.run(&["export", "grid.toml", &key, "--out", "best.safetensors", "--names", "torch"]).exits(0).out;
    assert!(said.contains("to the bit"), "{said}");
    // A class token is asked of a network that has none; an input is no multiple of the patches.
    for (old, new, said) in [
        (network, "arch = \"resnet8\"\ninput = 12\n", "has no layer"),
        ("input = 28", "input = 30", "28 and 42 are"),
        (
            "tap = \"blocks.5.add2\"",
            "tap = \"patch_embed.proj\"",
            "\"class-avg\" asks for a class token, and 'patch_embed.proj'",
        ),
    ] {
        let other = World::new().file("grid.toml", format!("{text}{recipes}{axes}").replace(old, new));
        let refused = other.run(&["check", "grid.toml"]).exits(2);
        assert!(refused.err.contains(said) && refused.err.contains("grid.toml:"), "{}", refused.err);
    }
}

/// Trunks are run once: what they spare is foreseen, and is what happens.
#[test]
fn plan_foresees_what_sharing_spares() {
    let recipes = ["probe", "hidden", "flipped", "flipped-layer1", "legs", "longer-legs", "step", "late-step"];
    let axes = format!("[axes]\nrecipe = {recipes:?}\nlr = [0.01, 0.02]\n");
    let world = World::new().file("grid.toml", format!("{}{axes}", GRID.split("[axes]").next().unwrap()));
    let plan: serde_json::Value =
        serde_json::from_str(&world.run(&["plan", "grid.toml", "--format", "json"]).exits(0).out).unwrap();
    world.run(&["run", "grid.toml", "--slots", "1"]).exits(0);
    let store = store(&world, "results/tl-sweep.sqlite");
    let sum = |what: &str| store.query_row(what, [], |row| row.get::<_, f64>(0)).unwrap();
    foreseen(&world, &plan);
    let of = |recipe: &str| {
        sum(&format!("SELECT total(macs) FROM trial WHERE key IN (SELECT trial FROM result WHERE recipe = '{recipe}')"))
    };
    world.run(&["run", "grid.toml", "--db", "alone/r.sqlite", "--no-share", "--slots", "1"]).exits(0);
    let shared = ["legs", "longer-legs", "step", "late-step"].map(of);
    let store = rusqlite::Connection::open(world.path("alone/r.sqlite")).unwrap();
    for (recipe, shared) in ["legs", "longer-legs", "step", "late-step"].into_iter().zip(shared) {
        let text =
            format!("SELECT total(macs) FROM trial WHERE key IN (SELECT trial FROM result WHERE recipe = '{recipe}')");
        let alone: f64 = store.query_row(&text, [], |row| row.get(0)).unwrap();
        assert!(shared < 0.9 * alone, "{recipe}: {shared} of {alone}");
    }
}

#[test]
fn refit_trains_again_on_training_and_validation_images_and_changes_only_test() {
    let world = grid("refit = true");
    let only = "recipe != 'best'";
    let wrong = world.run(&["run", "grid.toml"]).exits(2);
    assert!(wrong.err.contains("refit"), "{}", wrong.err);
    let world = World::new()
        .file("grid.toml", GRID.replace("\"best\", ", "").replace("seed = 5\n", "seed = 5\nrefit = true\n"));
    world.run(&["run", "grid.toml"]).exits(0);
    world.run(&["run", "grid.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, _), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!(shared, alone);
    let plain = grid("");
    plain.run(&["run", "grid.toml", "--only", only]).exits(5);
    let losses = |world: &World| -> Vec<(String, Option<f64>, Option<f64>, i64)> {
        let store = store(world, "results/tl-sweep.sqlite");
        let mut statement = store
            .prepare("SELECT recipe || coalesce(lr, '') || ' ' || replicate, val_loss, test_loss, steps_run FROM result WHERE recipe <> 'best' AND status = 'done' ORDER BY 1")
            .unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let (again, once) = (losses(&world), losses(&plain));
    let same_name: Vec<_> =
        again.iter().filter_map(|own| Some((own, once.iter().find(|other| other.0 == own.0)?))).collect();
    assert!(same_name.len() > 20);
    for (again, once) in same_name {
        assert_eq!(again.1, once.1, "{}: validation is that of the first training", again.0);
        assert_ne!(again.2, once.2, "{}: test is that of the second", again.0);
    }
}

#[test]
fn verify_runs_trials_alone_and_finds_what_was_changed() {
    let world = grid("");
    world.run(&["run", "grid.toml", "--only", "recipe == 'probe' || recipe == 'legs'"]).exits(5);
    let said = world.run(&["verify", "grid.toml", "--sample", "4"]).exits(0);
    assert!(said.out.contains("4 of 4 trials, run alone, gave what the store holds"), "{}", said.out);
    let report = world.run(&["report"]).exits(0).out;
    assert!(report.contains("4 trials were run again alone, and gave the same bit for bit"), "{report}");
    let changed = "UPDATE trial SET test_loss = test_loss + 1e-12";
    store(&world, "results/tl-sweep.sqlite").execute(changed, []).unwrap();
    let said = world.run(&["verify", "grid.toml", "--sample", "2"]).exits(6);
    assert!(said.out.contains("test loss"), "{}", said.out);
}

#[test]
fn a_single_stored_view_is_refused_and_so_are_views_of_nothing_frozen() {
    let with = |train: &str| {
        let world = World::new().file(
            "x.toml",
            format!("[backbone]\narch = \"resnet8\"\ninput = 12\nweights = \"pretrain\"\n[pretrain]\ndataset = \"a\"\n[datasets.a]\nsynthetic = {{ classes = 3 }}\n[scenarios.s]\ndataset = \"a\"\n[train]\n{train}\n[axes]\nrecipe = [\"fine-tune\", \"mine\"]\n[recipes.mine]\nfreeze = \"all\"\n"),
        );
        world.run(&["plan", "x.toml"]).exits(2).err
    };
    let single = with("augment = [\"flip\"]\nviews = 1");
    assert!(single.contains("x.toml:") && single.contains("at least 2"), "{single}");
    let unfrozen = with("augment = [\"flip\"]\nviews = 2");
    assert!(unfrozen.contains("below frozen layers"), "{unfrozen}");
    let solved = with("optimizer = \"lbfgs\"");
    assert!(solved.contains("freeze = \"all\""), "{solved}");
    let strength = with("lambda = [1.0, 0.0]");
    assert!(strength.contains("above 0"), "{strength}");
}

#[test]
fn gc_keeps_the_cache_within_its_budget_and_what_went_is_made_again() {
    let world = grid("").file("results/cache/left.tmp1", "of a killed writer");
    let only = ["--only", "recipe == 'probe'"];
    world.run(&[&["run", "grid.toml"][..], &only].concat()).exits(5);
    let before = found(&world, "results/tl-sweep.sqlite").0;
    let dry = world.run(&["gc", "--cache-limit", "0", "--dry-run"]).exits(0).out;
    assert!(dry.contains("would go"), "{dry}");
    let count = |ending: &str| world.cached(ending).len();
    assert!(count("features") > 0 && count("pixels") > 0 && count("tmp1") == 1);
    world.run(&["gc", "--cache-limit", "100GB"]).exits(0);
    assert!(count("features") > 0 && count("tmp1") == 0, "leftovers go, the rest fits");
    world.run(&["gc", "--cache-limit", "0"]).exits(0);
    assert_eq!(count("features") + count("pixels") + count("safetensors"), 0);
    world.run(&["gc", "--cache-limit", "many"]).exits(2);
    store(&world, "results/tl-sweep.sqlite").execute("DELETE FROM trial", []).unwrap();
    world.run(&[&["run", "grid.toml"][..], &only].concat()).exits(5);
    assert_eq!(found(&world, "results/tl-sweep.sqlite").0, before);
}

#[test]
fn what_another_class_of_devices_computed_is_not_taken_for_its_own() {
    let run = |world: &World, db: &str, path: &[&str]| {
        let only = ["run", "grid.toml", "--db", db, "--only", "recipe == 'probe' && lr == 0.1"];
        world.run(&[&only[..], path].concat()).exits(5);
        found(world, db).0
    };
    // Two stores of one folder share its cache: the source model and the features of one class are not the other's.
    let both = grid("");
    let portable = run(&both, "results/portable.sqlite", &["--cpu-path", "portable"]);
    let behind = run(&both, "results/own.sqlite", &[]);
    let alone = run(&grid(""), "results/own.sqlite", &[]);
    assert_ne!(portable, alone, "this processor has a path of its own");
    assert_eq!(behind, alone);
}

#[test]
fn a_solved_head_is_exported_and_is_the_one_that_was_scored() {
    let world = grid("refit = true").file(
        "solved.toml",
        GRID.replace("seed = 5\n", "seed = 5\nrefit = true\n")
            .replace("recipe = [\"probe\"", "recipe = [\"ridge\", \"logistic\", \"lda\"]\n#"),
    );
    world.run(&["run", "solved.toml"]).exits(0);
    assert!(world.path("results/cache/machine.json").exists(), "rates are measured once");
    let store = store(&world, "results/tl-sweep.sqlite");
    for recipe in ["ridge", "logistic", "lda"] {
        let key: String = store
            .query_row("SELECT trial FROM result WHERE recipe = ? AND replicate = 1", [recipe], |row| row.get(0))
            .unwrap();
        let said = world.run(&["export", "solved.toml", &key, "--out", "head.safetensors"]).exits(0);
        assert!(said.out.contains("are those in the store"), "{}", said.out);
    }
}
