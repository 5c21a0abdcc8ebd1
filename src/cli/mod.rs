//! What a person may type. The only folder that knows clap.

mod materials;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use materials::*;

/// Which transfer-learning recipe should I use for my images? Declarative sweeps, with evidence.
#[derive(Debug, Parser)]
#[command(name = "tl-sweep", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
    #[command(flatten)]
    pub common: Common,
}

/// Flags that every verb takes.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The store
    #[arg(long, global = true, value_name = "FILE", default_value = "results/tl-sweep.sqlite")]
    pub db: PathBuf,
    /// Where datasets are looked up; without it $TL_SWEEP_DATA, else the folder of the experiment file
    #[arg(long, global = true, value_name = "FOLDER", env = "TL_SWEEP_DATA")]
    pub data: Option<PathBuf>,
    /// Where weights are looked up; without it $TL_SWEEP_WEIGHTS, else `weights` under --data
    #[arg(long, global = true, value_name = "FOLDER", env = "TL_SWEEP_WEIGHTS")]
    pub weights: Option<PathBuf>,
    /// auto, cpu, or cuda:0,cuda:1
    #[arg(long, global = true, value_name = "LIST", default_value = "auto")]
    pub devices: String,
    /// Trials side by side on each device; on CPU one per core unless given; on a GPU as many streams of one process, up to 8,
    /// as do more together, which is measured, and as its memory has room for
    #[arg(long, global = true, value_name = "N")]
    pub slots: Option<usize>,
    /// Instructions of the CPU's loops: avx512, avx2, neon or portable, all but the last with the same bits; without it the
    /// widest there is
    #[arg(long, global = true, value_name = "PATH", env = "TL_SWEEP_CPU_PATH")]
    pub cpu_path: Option<String>,
    /// Colours and boxes
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// No progress, no hints
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Md,
    Csv,
    Json,
}

/// How an answer is written that only people or programs read, no paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Answer {
    Table,
    Json,
}

/// How an answer is written that is no list of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sheet {
    Table,
    Md,
    Json,
}

/// An experiment file, and what is changed in it for this call.
#[derive(Clone, Debug, Args)]
pub struct Asked {
    /// The experiment; `verify` takes a bundle of `export --bundle` as well
    pub file: PathBuf,
    /// Change a setting for this call, recorded with the experiment: train.steps=100, lr=0.01, recipes.fine-tune.backbone_lr=1e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl std::fmt::Display for Asked {
    /// As it is typed.
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}", self.file.display())?;
        self.set.iter().try_for_each(|change| write!(f, " --set '{}'", change.replace('\'', "'\\''")))
    }
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Published {
    Table,
    Md,
    Csv,
    Json,
    Latex,
    Html,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write a commented starter file; never over an existing one
    Init {
        /// Which starter: folder, weights or synthetic
        #[arg(default_value = "folder")]
        template: String,
        /// Where to write it
        #[arg(long, short, value_name = "FILE", default_value = "experiment.toml")]
        output: PathBuf,
    },
    /// Find every problem of the file, its data, weights and layer names, before any compute
    Check {
        #[command(flatten)]
        asked: Asked,
        /// json has problems with file, line and column, and warnings
        #[arg(long, value_enum, default_value_t = Answer::Table)]
        format: Answer,
    },
    /// Show trials, shared stages, cost and what the store already holds
    Plan {
        #[command(flatten)]
        asked: Asked,
        /// Of part K of N alone, as `run --shard` takes it
        #[arg(long, value_name = "K/N")]
        shard: Option<String>,
        /// What `run --budget` would have run after so long, such as 6h or 1h30m
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        budget: Option<Duration>,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Make the store match the file; run it again and only what is missing runs
    Run {
        #[command(flatten)]
        asked: Asked,
        /// Only cells that meet a condition, such as "recipe == 'fine-tune'"
        #[arg(long, value_name = "EXPR")]
        only: Option<String>,
        /// At most so many trials
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// How long it may take, such as 6h or 1h30m: nothing is started that would end later; every replicate goes through all
        /// cells before the next, so that what has run is balanced
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        budget: Option<Duration>,
        /// Part K of N, for N machines that share nothing: parts cost about the same; `merge` joins their stores
        #[arg(long, value_name = "K/N")]
        shard: Option<String>,
        /// Run every trial alone, nothing shared: the same results, for audit, at the full price
        #[arg(long)]
        no_share: bool,
        /// How the report at the end is written, as by `report`
        #[arg(long, value_enum, default_value_t = Published::Table, conflicts_with = "shard")]
        format: Published,
    },
    /// Run finished trials again, compare, and keep what they give this time
    Rerun {
        #[command(flatten)]
        asked: Asked,
        /// The first digits of their keys; those of --only without any
        #[arg(required_unless_present = "only", value_name = "TRIAL")]
        trials: Vec<String>,
        /// Only cells that meet a condition, such as "recipe == 'fine-tune'"
        #[arg(long, value_name = "EXPR")]
        only: Option<String>,
    },
    /// Run finished trials again, each alone, and compare with the store, or with a bundle, to the bit
    Verify {
        #[command(flatten)]
        asked: Asked,
        /// How many trials, spread over scenarios and recipes
        #[arg(long, value_name = "N", default_value_t = 5)]
        sample: usize,
        /// All of them
        #[arg(long, conflicts_with = "sample")]
        all: bool,
        #[arg(long, value_enum, default_value_t = Answer::Table)]
        format: Answer,
    },
    /// Take over into --db what other stores or bundles hold: the parts of `run --shard`; what is in both is compared
    Merge {
        /// Stores of other machines, or bundles of `export --bundle`
        #[arg(required = true, value_name = "STORE")]
        stores: Vec<PathBuf>,
    },
    /// Tables, verdicts, the best recipe per scenario
    Report {
        /// Name of the experiment; the last one run without it
        name: Option<String>,
        /// latex is tables for a paper, html one page with pictures
        #[arg(long, value_enum, default_value_t = Published::Table)]
        format: Published,
    },
    /// How far each experiment is
    Status {
        /// Name of an experiment: its trials one by one
        name: Option<String>,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Follow the sweep that runs on the store, from another terminal, and end as it ends
    Watch {
        /// Say once how far it is
        #[arg(long)]
        once: bool,
        /// json says once how far it is: null where no sweep runs
        #[arg(long, value_enum, default_value_t = Answer::Table)]
        format: Answer,
    },
    /// Everything about one trial: settings, scores, curve, what it gets wrong class by class
    Show {
        /// The first digits of its key
        trial: String,
        #[arg(long, value_enum, default_value_t = Sheet::Table)]
        format: Sheet,
    },
    /// Why a trial stands as it does: how it ended, what its flags rest on, whether it is selected and where it counts
    Why {
        /// The first digits of its key
        trial: String,
        #[arg(long, value_enum, default_value_t = Answer::Table)]
        format: Answer,
    },
    /// What two trials differ in: settings, results, answers to the same test images
    Compare {
        /// The first digits of a trial's key
        #[arg(value_name = "A")]
        one: String,
        /// Those of another
        #[arg(value_name = "B")]
        other: String,
        #[arg(long, value_enum, default_value_t = Sheet::Table)]
        format: Sheet,
    },
    /// Say which images are probably labelled wrong: those that most recipes, not having learned from them, surely take for another
    /// class
    Labels(LabelsOf),
    /// Look at a dataset: classes, counts, hashes, leaks; export an experiment's splits; or fetch a public one
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Data {
        #[command(subcommand)]
        what: Option<DataVerb>,
        /// A folder, .tar, .tar.gz, .zip, .npz or .csv, or with --splits the name of an experiment
        #[arg(required = true)]
        target: Option<String>,
        /// Print the splits of an experiment as CSV
        #[arg(long)]
        splits: bool,
        /// Print as CSV which test images are training or validation images once more: compressed, scaled, brightened,
        /// mirrored or cut a little otherwise
        #[arg(long, conflicts_with = "splits")]
        near_duplicates: bool,
        /// Write a page of one test image in every kind and severity of `corrupt` that an experiment may ask for
        #[arg(long, value_name = "PAGE", group = "page", conflicts_with_all = ["splits", "near_duplicates"])]
        corruptions: Option<PathBuf>,
        /// Write a page of training images with each word of `augment` that an experiment may ask for
        #[arg(long, value_name = "PAGE", group = "page", conflicts_with_all = ["splits", "near_duplicates"])]
        augmentations: Option<PathBuf>,
        /// Show there what epochs make of this list instead: "flip, rotate 15, mixup 0.2"
        #[arg(long, value_name = "LIST", requires = "augmentations")]
        augment: Option<String>,
        /// Side in pixels of the square that networks are to read of it
        #[arg(long, value_name = "SIDE", default_value_t = 224, value_parser = clap::value_parser!(u16).range(8..=1024), requires = "page")]
        input: u16,
        #[command(flatten)]
        reading: Reading,
        /// Splits and near-duplicates are CSV without it
        #[arg(long, value_enum, default_value_t = Answer::Table, conflicts_with = "page")]
        format: Answer,
    },
    /// A network layer by layer, as Keras prints it
    Summary {
        /// An architecture, or a .toml of your own; without it the architectures are listed
        arch: Option<String>,
        /// Side of the input in pixels
        #[arg(long)]
        input: Option<usize>,
        /// Times the channels
        #[arg(long, default_value_t = 1.0)]
        width: f64,
        /// Classes of the classifier
        #[arg(long, default_value_t = 1000)]
        classes: usize,
        /// Without the classifier: Keras' include_top=False
        #[arg(long)]
        no_top: bool,
        /// A freeze depth to mark: none, all, a layer, a block, or a number
        #[arg(long)]
        freeze: Option<String>,
        /// Print it as a file that `arch` can name, to write a network of your own from
        #[arg(long, conflicts_with = "format")]
        toml: bool,
        #[arg(long, value_enum, default_value_t = Answer::Table)]
        format: Answer,
    },
    /// Write features of images into a file for other programs: .h5, .npy or .safetensors
    Extract(Extract),
    /// Write a trial's trained backbone and head as .safetensors, or a whole experiment for others to repeat
    Export {
        #[command(flatten)]
        asked: Asked,
        /// The first digits of the trial's key
        #[arg(required_unless_present_any = ["bundle", "best"], conflicts_with_all = ["bundle", "best"])]
        trial: Option<String>,
        /// Of the best recipe of a scenario, the replicate that validation scores highest
        #[arg(long, value_name = "SCENARIO", conflicts_with = "bundle")]
        best: Option<String>,
        /// The experiment, its results, splits and all hashes in one .tar.gz, which `verify` repeats elsewhere
        #[arg(long)]
        bundle: bool,
        /// Where to write: .safetensors, or .onnx, which answers pixels with probabilities wherever ONNX runs
        #[arg(long, short)]
        out: PathBuf,
        /// Whose names and layouts; without it those of the network's own framework
        #[arg(long, value_enum, conflicts_with = "bundle")]
        names: Option<Names>,
    },
    /// Answer images with a network that `export` wrote
    Predict(Predict),
    /// Show what a network that `export` wrote looks at: where its answers rest, what its layers pass on, its first filters
    Look(LookAt),
    /// Say which recipe to try first, from features of the training images alone, and write the experiment that tests it
    Recommend(Recommend),
    /// Say which weight files fit a dataset, from features of the training images alone, and write the experiment that tests it
    Rank(Rank),
    /// Which weight files are known, and what is in a file
    Weights {
        #[command(subcommand)]
        what: WeightsVerb,
    },
    /// Show what the cache holds, and remove what was used longest ago
    Gc {
        /// How much may stay, such as 10GB; without it only leftovers of killed writers go
        #[arg(long, value_name = "SIZE")]
        cache_limit: Option<String>,
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
        #[arg(long, value_enum, default_value_t = Answer::Table)]
        format: Answer,
    },
    /// Show what this machine can compute on, and what is missing for more
    Doctor {
        #[arg(long, value_enum, default_value_t = Answer::Table)]
        format: Answer,
    },
    /// Measures a device for a forecast; started by `plan` and `run`
    #[command(hide = true)]
    Gauge {
        #[arg(long)]
        device: String,
    },
    /// Runs stages for a sweep; started by `run`
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        device: String,
        /// The class of the device.
        #[arg(long)]
        numerics: String,
        #[arg(long, default_value_t = 1)]
        lanes: usize,
        #[arg(long)]
        cache: PathBuf,
    },
}
