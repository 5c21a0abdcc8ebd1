//! Sweeps of recipes that nobody would write together, drawn at random: what passes `check` runs, what trials share changes no bit,
//! a kill loses nothing, what is exported answers as in its trial. TL_SWEEP_TEST_SWEEPS says how many, TL_SWEEP_TEST_FIRST the first.

use std::collections::BTreeSet;
use std::time::Duration;

use tl_sweep::model::arch::Arch;
use tl_sweep::seed::{Rng, Stream, stream};

use crate::builder::{World, listed, png};
use crate::onnx::answered_by;
use crate::predictions::{of_truth, predict, trials};
use crate::sharing::{foreseen, found};

/// Architecture, side of the input, times the channels.
const NETWORKS: [(&str, usize, f64); 9] = [
    ("resnet8", 16, 1.0),
    ("resnet18", 32, 0.25),
    ("vgg_small", 32, 0.5),
    ("mobilenet_v2_torchvision", 32, 0.35),
    ("mobilenet_v3_small", 32, 0.5),
    ("efficientnet_b0_torchvision", 32, 0.25),
    ("vit_tiny_patch16", 32, 0.34),
    ("swin_t", 64, 0.1),
    ("convnextv2_atto", 64, 0.5),
];

const AUGMENTATIONS: [&str; 9] =
    ["flip", "crop", "resized-crop", "jitter", "trivial-augment", "rotate 15", "mixup 0.2", "cutmix 1", "erase 0.25"];

/// Settings of recipes: how often each stands, and what it may be. BLOCK is a block of the network.
const SETTINGS: [(f64, &str, &[&str]); 30] = [
    (0.8, "freeze", &["\"all\"", "\"all\"", "\"none\"", "\"BLOCK\"", "\"BLOCK\"", "2", "3", "5"]),
    (0.2, "tap", &["\"BLOCK.last\"", "[\"BLOCK.last\", \"BLOCK.last\"]"]),
    (0.2, "pool", &["\"max\"", "\"flatten\"", "{ avg = 2 }"]),
    (0.15, "head", &["{ mlp = [8] }"]),
    (0.12, "dropout", &["0.3"]),
    (0.2, "trains", &["\"norms\"", "\"biases\"", "\"BLOCK\"", "[\"BLOCK\", \"BLOCK\"]", "{ lora = 2 }"]),
    (0.15, "batch_norm", &["\"frozen\"", "\"affine\"", "\"train\""]),
    (0.12, "interpolate", &["0.5"]),
    (0.15, "average", &["0.3", "0.6"]),
    (0.1, "layer_decay", &["0.7"]),
    (0.1, "start_decay", &["0.05"]),
    (0.1, "layer_rates", &["\"rgn\""]),
    (0.2, "calibrate", &["\"temperature\""]),
    (0.1, "label_smoothing", &["0.1"]),
    (0.1, "class_weights", &["\"balanced\""]),
    (0.1, "clip", &["1.0"]),
    (0.2, "weight_decay", &["0.01"]),
    (0.2, "decay", &["\"decoupled\"", "\"over-lr\""]),
    (0.2, "schedule", &["\"constant\"", "{ step = [0.5, 0.75], factor = 0.1 }"]),
    (0.15, "warmup", &["0.2"]),
    (0.2, "optimizer", &["\"adamw\"", "\"lbfgs\"", "\"ridge\"", "\"lda\""]),
    (0.15, "head_start", &["\"lbfgs\"", "\"ridge\"", "\"lda\""]),
    (0.1, "views", &["2"]),
    (0.15, "keep_weights", &["\"best\""]),
    (0.1, "early_stop", &["{ patience = 2 }"]),
    (0.1, "weights", &["\"random\""]),
    (0.1, "transfer", &["\"BLOCK\""]),
    (0.2, "backbone_lr", &["0.003"]),
    (0.15, "epochs", &["3"]),
    (0.1, "batch", &["5"]),
];

const PHASES: [&str; 3] =
    ["{ freeze = \"all\", steps = 4 }", "{ freeze = \"BLOCK\", steps = 4 }", "{ freeze = 2, steps = 5, lr = 0.005 }"];

/// The dataset `mine` where something says which images are tested, and where nothing does.
const MINE: [&str; 4] = ["path = \"mine\"", "path = \"mine\"", "path = \"with-val\"", "path = \"listed.csv\""];
const DEALT: [&str; 4] = [
    "path = \"dealt\"\nfolds = 3",
    "path = \"dealt\"\nsplits = { test = 0.3 }",
    "path = \"dealt.csv\"\nfolds = 3",
    "path = \"dealt.csv\"\nnear_duplicates = \"together\"\nsplits = { test = 0.3 }",
];

/// Datasets as the experiments name them: folders with and without images for validation, tables whose images belong together,
/// another set of fewer classes, and squares of the size of a network.
fn datasets(side: usize) -> World {
    let classes = ["ants", "bees", "cats", "dogs"];
    let mut world = World::new().images("mine", &classes, 14, 6).images("other", &classes[..3], 12, 5);
    world = world.images("with-val", &classes, 12, 6).images("val", &classes, 0, 4).images("more", &classes, 16, 1);
    std::fs::rename(world.path("val/test"), world.path("with-val/val")).unwrap();
    std::fs::rename(world.path("more/train"), world.path("dealt")).unwrap();
    // Few dogs.
    for image in 7..14 {
        std::fs::remove_file(world.path(&format!("mine/train/dogs/{image:03}.png"))).unwrap();
    }
    let (mut listed, mut dealt) = ("path,label,split,group\n".to_owned(), "path,label,group\n".to_owned());
    for class in classes {
        for image in 0..14 {
            if class != "dogs" || image < 7 {
                listed += &format!("mine/train/{class}/{image:03}.png,{class},train,of {}\n", image / 2);
            }
        }
        for image in 0..6 {
            listed += &format!("mine/test/{class}/{image:03}.png,{class},test,test {}\n", image % 3);
        }
        for image in 0..16 {
            dealt += &format!("dealt/{class}/{image:03}.png,{class},{class} {}\n", image / 2);
        }
    }
    for image in 0..5u32 {
        let name = format!("squares/{image}.png");
        world = world.file(&name, png(side as u32, side as u32, image, 7 * image));
    }
    world.file("listed.csv", listed).file("dealt.csv", dealt)
}

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.below(of.len())]
}

/// A recipe, a line for each setting.
fn recipe(rng: &mut Rng, blocks: &[&str]) -> Vec<(String, String)> {
    let mut own: Vec<(String, String)> = Vec::new();
    for (often, key, of) in SETTINGS {
        if rng.chance(often) {
            own.push((key.to_owned(), one(rng, of).to_owned()));
        }
    }
    if rng.chance(0.4) {
        let list: BTreeSet<&str> = (0..rng.below(3)).map(|_| one(rng, &AUGMENTATIONS)).collect();
        own.push(("augment".to_owned(), format!("{list:?}").replace('{', "[").replace('}', "]")));
    }
    if rng.chance(0.2) {
        own.retain(|(key, _)| !matches!(key.as_str(), "freeze" | "epochs"));
        let last = if rng.chance(0.5) { "{ freeze = \"none\", steps = 5 }" } else { one(rng, &PHASES) };
        own.push(("phases".to_owned(), format!("[{}, {last}]", one(rng, &PHASES))));
    }
    for (_, value) in &mut own {
        while let Some(at) = value.find("BLOCK") {
            value.replace_range(at..at + 5, one(rng, blocks));
        }
    }
    own
}

/// The experiment without its recipes.
fn head(rng: &mut Rng, (arch, input, width): (&str, usize, f64)) -> String {
    let maybe =
        |rng: &mut Rng, often: f64, line: &str| if rng.chance(often) { format!("{line}\n") } else { String::new() };
    let experiment = [
        (0.2, "refit = true"),
        (0.3, "tune_replicates = 1"),
        (0.2, "tune_share = 0.4"),
        (0.2, "max_replicates = 5"),
        (0.2, "metric = \"macro-f1\""),
        (0.2, "keep = \"all\""),
    ];
    let experiment: String = experiment.iter().map(|(often, line)| maybe(rng, *often, line)).collect();
    let weights = if rng.chance(0.25) { "random" } else { "pretrain" };
    let shifted = maybe(rng, 0.3, "also_test = [\"fog 3\"]");
    let mine = if rng.chance(0.75) { one(rng, &MINE) } else { one(rng, &DEALT) };
    let second = if rng.chance(0.3) { "other" } else { "mine" };
    let sizes = if rng.chance(0.2) { "[3, 5]" } else { "4" };
    // In folds each replicate chooses for itself, and nothing is tested twice.
    let shifted = if mine.contains("folds") { String::new() } else { shifted };
    let kept = |line: &&str| !mine.contains("folds") || !["tune_", "max_"].iter().any(|key| line.starts_with(key));
    let experiment: String = experiment.lines().filter(kept).map(|line| format!("{line}\n")).collect();
    let (steps, batch) = (10 + 10 * rng.below(2), 6 + rng.below(4));
    let augment = maybe(rng, 0.3, "augment = [\"flip\"]");
    format!(
        "[experiment]\nname = \"random\"\nreplicates = 3\nseed = {seed}\n{experiment}\
         [backbone]\narch = \"{arch}\"\ninput = {input}\nwidth = {width}\nweights = \"{weights}\"\n\
         [pretrain]\ndataset = \"source\"\nsteps = 20\nbatch = 16\nlr = 0.001\n\
         [datasets.source]\nsynthetic = {{ classes = 5, train = 12, test = 4 }}\n\
         [datasets.mine]\n{mine}\n{shifted}[datasets.other]\npath = \"other\"\n\
         [scenarios.a]\ndataset = \"mine\"\nper_class = {sizes}\n[scenarios.b]\ndataset = \"{second}\"\n\
         [train]\nsteps = {steps}\nbatch = {batch}\n{augment}",
        seed = rng.below(1000),
    )
}

/// The file with these recipes, and the line on which each begins.
fn file(head: &str, recipes: &[Vec<(String, String)>]) -> (String, Vec<usize>) {
    let (mut text, mut begins) = (head.to_owned(), Vec::new());
    for (at, own) in recipes.iter().enumerate() {
        begins.push(text.lines().count() + 1);
        text += &format!("[recipes.r{at}]\n");
        text.extend(own.iter().map(|(key, value)| format!("{key} = {value}\n")));
    }
    let names: Vec<String> = (0..recipes.len()).map(|at| format!("r{at}")).collect();
    text += &format!("[axes]\nscenario = [\"a\", \"b\"]\nrecipe = {names:?}\nlr = [0.01, 0.05]\n");
    text.extend(names.windows(2).map(|pair| format!("[[rule]]\nclaim = \"{} > {}\"\n", pair[0], pair[1])));
    (text, begins)
}

/// Ten recipes. Half of them differ from another in one setting: so they share more.
fn several(rng: &mut Rng, blocks: &[&str]) -> Vec<Vec<(String, String)>> {
    let mut recipes: Vec<Vec<(String, String)>> = Vec::new();
    for _ in 0..10 {
        let mut own = recipe(rng, blocks);
        if !recipes.is_empty() && rng.chance(0.5) {
            own.truncate(1);
            let mut other = recipes[rng.below(recipes.len())].clone();
            other.retain(|(key, _)| own.iter().all(|(known, _)| known != key));
            own.extend(other);
        }
        recipes.push(own);
    }
    recipes
}

/// A file that `check` finds nothing wrong with: what it refuses is left out, and where nothing is left others are drawn.
fn drawn(world: &World, seed: u64) -> String {
    let mut rng = stream(seed, Stream::Synthetic, &[]);
    let network = NETWORKS[rng.below(NETWORKS.len())];
    let graph = Arch::new(network.0, network.1, network.2).graph(4).unwrap();
    let mut blocks: Vec<&str> = graph.layers.iter().map(|layer| layer.block.as_str()).collect();
    blocks.dedup();
    let head = head(&mut rng, network);
    let mut refused = serde_json::Value::Null;
    for _ in 0..5 {
        let mut recipes = several(&mut rng, &blocks[1..]);
        while !recipes.is_empty() {
            let (text, begins) = file(&head, &recipes);
            std::fs::write(world.path("x.toml"), &text).unwrap();
            let said = world.run(&["check", "x.toml", "--format", "json"]);
            if said.code == 0 {
                return text;
            }
            refused = serde_json::from_str(&said.exits(2).out).unwrap();
            let lines = refused["problems"].as_array().unwrap().iter().filter_map(|problem| problem["line"].as_u64());
            let wrong = |line: u64| begins.partition_point(|begin| *begin as u64 <= line).checked_sub(1);
            // What has no line, or stands before the recipes, is of the first one that is left.
            let mut wrong: BTreeSet<usize> = lines.map(|line| wrong(line).unwrap_or(0)).collect();
            if wrong.is_empty() {
                wrong.insert(0);
            }
            let mut at = 0..;
            recipes.retain(|_| at.next().is_some_and(|at| !wrong.contains(&at)));
        }
    }
    panic!("seed {seed}: nothing passes: {refused}");
}

/// The file in another store, after which nothing is there that the first has not, and nothing is missing.
fn same(world: &World, name: &str, context: &str) {
    let (own, _) = found(world, "results/tl-sweep.sqlite");
    let (found, _) = found(world, &format!("{name}/r.sqlite"));
    let differing: Vec<&String> = own.keys().filter(|key| found.get(*key) != Some(&own[*key])).collect();
    assert!(
        found.len() == own.len() && differing.is_empty(),
        "{context}\n{name}: {} for {}\n{differing:?}",
        found.len(),
        own.len()
    );
}

/// Each trial alone, on the narrowest loops that have the same bits.
fn alone(world: &World) {
    let mut args = vec!["run", "x.toml", "--quiet", "--no-share", "--db", "alone/r.sqlite"];
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        args.extend(["--cpu-path", "avx2"]);
    }
    world.run(&args).exits(0);
}

/// Killed once or twice; what it had in its cache is lost, or is not.
fn killed(world: &World, seed: u64) {
    let args = ["run", "x.toml", "--quiet", "--db", "killed/r.sqlite"];
    for kill in 0..1 + seed % 2 {
        let mut command = world.command(&args);
        let silent = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut running = silent.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300 + 400 * ((seed + kill) % 4)));
        running.kill().unwrap();
        running.wait().unwrap();
        if seed.is_multiple_of(3) {
            let said = world.run(&["gc", "--cache-limit", "0", "--db", "killed/r.sqlite"]);
            assert!(said.code == 0 || !world.path("killed/r.sqlite").exists(), "{}", said.err);
        }
    }
    world.run(&args).exits(0);
}

/// On two machines, whose stores are joined; what no machine knows before that is run then.
fn divided(world: &World) {
    for part in ["1/2", "2/2"] {
        let db = format!("part{}/r.sqlite", &part[..1]);
        world.run(&["run", "x.toml", "--quiet", "--shard", part, "--db", &db]).exits(0);
    }
    world.run(&["merge", "part1/r.sqlite", "part2/r.sqlite", "--db", "divided/r.sqlite"]).exits(0);
    world.run(&["run", "x.toml", "--quiet", "--db", "divided/r.sqlite"]).exits(0);
}

/// A trial's network answers as in its trial, here to the bit, and elsewhere.
fn exported(world: &World, (trial, recipe, probabilities): &(String, String, Vec<f32>), context: &str) {
    let out = world.run(&["export", "x.toml", trial, "--out", "m.safetensors"]);
    assert_eq!(out.code, 0, "{context}\n{}", out.err);
    let folder = if probabilities.len() == 15 { "other/test" } else { "mine/test" };
    let said = predict(world, &["m.safetensors", folder]);
    assert_eq!(of_truth(&said), *probabilities, "{context}, predict of {recipe}");
    world.run(&["export", "x.toml", trial, "--out", "m.onnx"]).exits(0);
    let said = predict(world, &["m.safetensors", "squares"]);
    answered_by(&world.path("m.onnx"), world, &said, &format!("{context}, {recipe}"));
}

fn swept(seed: u64) {
    let network = NETWORKS[stream(seed, Stream::Synthetic, &[]).below(NETWORKS.len())];
    let world = datasets(network.1);
    let text = drawn(&world, seed);
    let context = |what: &str| format!("seed {seed}, {what}:\n{text}");
    let plan = world.run(&["plan", "x.toml", "--format", "json", "--slots", "1"]).exits(0).out;
    // What is kept in memory is made by each process: one does what the plan foresees.
    let ran = world.run(&["run", "x.toml", "--quiet", "--slots", "1"]);
    assert_eq!(ran.code, 0, "{}\n{}", context("run"), ran.err);
    eprintln!("{}", context("alone, killed, divided"));
    alone(&world);
    same(&world, "alone", &context("alone"));
    killed(&world, seed);
    same(&world, "killed", &context("killed"));
    divided(&world);
    same(&world, "divided", &context("divided"));
    let listed = listed(&world.run(&["status", "random", "--format", "json"]).exits(0).out);
    let whole = listed.iter().all(|(_, columns)| columns["status"] == "done" && columns["stopped_early"] == "0");
    // Folds differ in size, and so does what groups set aside for validation; how long L-BFGS iterates is known when it has.
    if whole && !["tune_", "max_replicates", "folds", ".csv", "lbfgs"].iter().any(|key| text.contains(key)) {
        eprintln!("{}", context("what was done beside its plan"));
        foreseen(&world, &serde_json::from_str(&plan).unwrap());
    }
    for format in ["table", "json", "html", "latex"] {
        world.run(&["report", "--format", format]).exits(0);
    }
    let tested: Vec<_> = trials(&world).into_iter().filter(|(.., probabilities)| !probabilities.is_empty()).collect();
    if tested.is_empty() {
        assert!(listed.iter().all(|(_, columns)| columns["status"] == "diverged"), "{}", context("test"));
        return;
    }
    let told = |(.., probabilities): &&(_, _, Vec<f32>)| probabilities.len() == 15 || !text.contains("path = \"dealt");
    let tested: Vec<_> = tested.iter().filter(told).collect();
    if let Some(trial) = tested.get(seed as usize % tested.len().max(1)) {
        exported(&world, trial, &context("export"));
    }
}

#[test]
fn random_recipes_hold_what_is_promised_of_all() {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let first = number("TL_SWEEP_TEST_FIRST", 1);
    for seed in first..first + number("TL_SWEEP_TEST_SWEEPS", 4) {
        swept(seed);
    }
}
