//! What the tool itself costs, apart from training: planning 10,000 trials, running trials of one tiny step, and reporting
//! 100,000 finished trials; and what augmentations cost. `just bench-costs` builds and runs it; it needs nothing but the program.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use tl_sweep::augmentation::{Augmentation, WORDS};
use tl_sweep::cli::{Cli, Verb};
use tl_sweep::commands::recorder::{begin, circumstance};
use tl_sweep::commands::world::World;
use tl_sweep::data::augment::augment;
use tl_sweep::data::mix::Mix;
use tl_sweep::data::split::split;
use tl_sweep::experiment::Experiment;
use tl_sweep::key::Key;
use tl_sweep::outcome::{Ending, Outcome, Point, Predictions, Scores, TrialOutcome};
use tl_sweep::plan::{Plan, trial_key};
use tl_sweep::seed::{Stream, stream};
use tl_sweep::store::Store;
use tl_sweep::store::record::{FinishedTrial, SweepCost};

/// Numbers of learning rates and of weight decays; times 2 scenarios, 5 freeze depths and 5 replicates that many trials.
const PLANNED: [usize; 2] = [20, 10];
const TINY: [usize; 2] = [8, 3];
const REPORTED: [usize; 2] = [100, 20];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [program, folder] = &arguments[..] else {
        println!("usage: costs PROGRAM FOLDER (benches/costs.sh runs it)");
        return;
    };
    let bench = Bench { program: program.into(), folder: folder.into() };
    println!("| what | seconds | peak memory | |\n|---|---|---|---|");
    bench.plan();
    bench.run();
    bench.report();
    augmentations();
}

/// Images of 224 pixels, changed by each word of `augment` on one thread.
fn augmentations() {
    const IMAGES: usize = 64;
    const SIDE: usize = 224;
    let image: Vec<u8> = (0..3 * SIDE * SIDE).map(|at| (at * 7 % 251) as u8).collect();
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for word in WORDS {
        let list = [Augmentation::parse(word).unwrap()];
        let start = Instant::now();
        let mut images: Vec<u8> = (0..IMAGES as u64)
            .flat_map(|sample| augment(&list, &image, SIDE, &mut stream(0, Stream::Augment, &[sample])))
            .collect();
        if let Some(mix) = Mix::drawn(&list, IMAGES, SIDE, &mut stream(0, Stream::Mix, &[])) {
            one_thread.install(|| mix.blend(&mut images, SIDE));
        }
        let seconds = start.elapsed().as_secs_f64();
        let each = 1000.0 * seconds / IMAGES as f64;
        println!("| {IMAGES} images of {SIDE} pixels, augment = [\"{word}\"] | {seconds:.3} | | {each:.2} ms each |");
    }
}

struct Bench {
    program: PathBuf,
    folder: PathBuf,
}

impl Bench {
    /// An experiment file with so many learning rates and weight decays.
    fn file(&self, name: &str, [rates, decays]: [usize; 2]) -> PathBuf {
        let file = self.folder.join(format!("{name}.toml"));
        let text = include_str!("costs.toml").replace("RATES", &rates.to_string());
        std::fs::write(&file, text.replace("DECAYS", &decays.to_string())).unwrap();
        file
    }

    /// Runs the program, prints a row's first cells, and returns its seconds.
    fn timed(&self, what: &str, arguments: &[&str], db: &Path) -> f64 {
        let said = self.folder.join("said");
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--db").arg(db).stdout(Stdio::null()).stderr(File::create(&said).unwrap());
        let start = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut most = 0;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            most = most.max(memory(child.id()));
            std::thread::sleep(Duration::from_millis(10));
        };
        let seconds = start.elapsed().as_secs_f64();
        assert!(status.success(), "{what} failed: {}", std::fs::read_to_string(&said).unwrap());
        print!("| {what} | {seconds:.2} | {:.0} MB | ", most as f64 / 1e6);
        seconds
    }

    fn plan(&self) {
        let file = self.file("plan", PLANNED);
        self.timed("plan of 10,000 trials", &["plan", file.to_str().unwrap()], &self.folder.join("plan.sqlite"));
        println!("|");
    }

    /// Trials of one step: what is not spent within them is the tool's.
    fn run(&self) {
        let (file, db) = (self.file("tiny", TINY), self.folder.join("tiny.sqlite"));
        // The first trial makes pixels, features and the source model.
        let once = ["run", file.to_str().unwrap(), "--limit", "1"];
        self.once(&once, &db);
        let seconds = self.timed("run of trials of one step", &once[..2], &db);
        let store = rusqlite::Connection::open(&db).unwrap();
        let number = |what: &str| store.query_row(what, [], |row| row.get::<_, f64>(0)).unwrap();
        let (within, trials) = (number("SELECT sum(seconds) FROM trial"), number("SELECT count(*) FROM trial"));
        let slots = number("SELECT max(slots) FROM sweep");
        let own = 1e3 * (seconds - within / slots) / (trials - 1.0);
        println!("{trials} trials, {within:.2} s within them on {slots} slots; {own:.2} ms a trial are the tool's |");
    }

    /// Runs a command that may say that trials are left.
    fn once(&self, arguments: &[&str], db: &Path) {
        let out = Command::new(&self.program).args(arguments).arg("--db").arg(db).output().unwrap();
        assert!(matches!(out.status.code(), Some(0 | 5)), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// A store that has every trial of a large experiment, made up, and its report.
    fn report(&self) {
        let (file, db) = (self.file("large", REPORTED), self.folder.join("large.sqlite"));
        let cli = Cli::parse_from(["tl-sweep", "plan", file.to_str().unwrap(), "--db", db.to_str().unwrap()]);
        let (Verb::Plan { asked, .. }, common) = (cli.verb, cli.common) else { return };
        let experiment = Experiment::load(&asked.file, &asked.set).unwrap();
        let world = World::gather(&experiment, &file, &common).unwrap();
        let plan = Plan::new(&experiment, &world.facts).map_err(|problems| experiment.problems(problems)).unwrap();
        let mut store = Store::open(&db).unwrap();
        let circumstance = circumstance(&world);
        let sweep = begin(&mut store, &experiment, &plan, &world, &circumstance).unwrap();
        let start = Instant::now();
        let mut splits = std::collections::HashMap::new();
        let mut written = 0;
        for (index, cell) in plan.cells.iter().enumerate() {
            for replicate in 0..plan.replicates {
                let stage = plan.stages(cell, replicate, &world.facts).unwrap().train;
                let key = Key::of("split", &(stage.data, stage.per_class, replicate));
                let tested = *splits.entry(key).or_insert_with(|| {
                    let data = world.datasets.values().find(|own| own.manifest.fingerprint == stage.data).unwrap();
                    let split = split(&data.manifest, stage.per_class, stage.seed, replicate as u64).unwrap();
                    let lists = [&split.train[..], &split.val, &split.test];
                    store.split(key, stage.data, stage.per_class, stage.seed, replicate, lists).unwrap();
                    split.test.len()
                });
                let trial = made_up(index, replicate, tested);
                let outcome = Outcome {
                    seconds: 1.0,
                    macs: 1e9,
                    numerics: circumstance.numerics.clone(),
                    trial: None,
                    warnings: Vec::new(),
                    group: 1,
                    abreast: None,
                    part: 1.0,
                };
                let finished = FinishedTrial { split: key, outcome: &outcome, trial: &trial, shifted: Vec::new() };
                store.trial(trial_key(cell.key, replicate), &finished, &circumstance, sweep).unwrap();
                written += 1;
            }
        }
        store.end(sweep, "complete", &SweepCost::default()).unwrap();
        let each = 1e3 * start.elapsed().as_secs_f64() / written as f64;
        drop(store);
        self.timed(&format!("report of {written} trials"), &["report"], &db);
        println!("written to the store in {each:.2} ms each |");
    }
}

/// A finished trial whose accuracy depends on its setting and replicate.
fn made_up(cell: usize, replicate: usize, tested: usize) -> TrialOutcome {
    let accuracy = 0.5 + 0.4 * ((cell * 7919 + replicate * 104_729) % 1000) as f64 / 1000.0;
    let scores = Scores { loss: 1.0 - accuracy, accuracy, balanced_accuracy: accuracy, macro_f1: accuracy };
    let predictions = Predictions {
        samples: Vec::new(),
        predicted: (0..tested).map(|sample| ((sample + cell + replicate) % 3) as u16).collect(),
        probability: vec![0.4; tested],
        confidence: vec![0.5; tested],
    };
    let point = |step: usize| Point { step, epoch: step as f64, lr: 0.1, train_loss: 1.0, val: scores };
    TrialOutcome {
        ending: Ending::Finished,
        steps: 5,
        curve: (1..=5).map(point).collect(),
        val: Some(scores),
        test: Some(scores),
        val_predictions: predictions.clone(),
        test_predictions: predictions,
        shifted_predictions: Predictions::default(),
        at_chance: false,
        under_trained: false,
        stopped_early: false,
        trainable: 1000,
        frozen: 1000,
        lambda: None,
        temperature: None,
    }
}

/// Bytes that a process and its children hold, shared pages counted once; nothing where `/proc` is not there.
fn memory(process: u32) -> u64 {
    let own = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let pss = own.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    1024 * pss.unwrap_or(0) + children.map(memory).sum::<u64>()
}
