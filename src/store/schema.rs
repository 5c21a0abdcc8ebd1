//! The tables. Migrations are only ever appended; `PRAGMA user_version` counts those that a file has.

/// Settings as columns, named as in the experiment file. A test compares them with the table of keys.
pub const SETTINGS: &[&str] = &[
    "scenario",
    "recipe",
    "dataset",
    "per_class",
    "size",
    "similarity",
    "arch",
    "weights",
    "input",
    "width",
    "preprocess",
    "freeze",
    "tap",
    "pool",
    "head",
    "batch_norm",
    "phases",
    "steps",
    "epochs",
    "batch",
    "optimizer",
    "lr",
    "backbone_lr",
    "momentum",
    "nesterov",
    "weight_decay",
    "decay",
    "schedule",
    "warmup",
    "label_smoothing",
    "dropout",
    "augment",
    "keep_weights",
    "early_stop",
    // From the second migration on.
    "class_weights",
    "clip",
    // From the third migration on.
    "resize",
    // From the fourth migration on.
    "views",
    "lambda",
    // From the fifth migration on.
    "precision",
    // From the eighth migration on.
    "trains",
    "layer_decay",
    "start_decay",
    // From the tenth migration on.
    "transfer",
    // From the twelfth migration on.
    "interpolate",
    "layer_rates",
    // From the fourteenth migration on.
    "calibrate",
    // From the fifteenth migration on.
    "tune_share",
    // From the seventeenth migration on.
    "average",
    // From the eighteenth migration on.
    "head_start",
    "prompts",
];

/// How many settings each migration knew.
const KNOWN_SETTINGS: &[usize] = &[34, 36, 37, 39, 40, 40, 40, 43, 43, 44, 44, 46, 46, 47, 48, 48, 49, SETTINGS.len()];

/// Columns of `trial` that a configuration alone decides: equal for equal keys, on any machine of one numerics class.
pub const RESULTS: &[&str] = &[
    "status",
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "val_macro_f1",
    "test_loss",
    "test_accuracy",
    "test_balanced_accuracy",
    "test_macro_f1",
    "steps_run",
    "at_chance",
    "under_trained",
    "stopped_early",
    "trainable",
    "frozen",
    // From the fourth migration on.
    "chosen_lambda",
    // From the fourteenth migration on.
    "temperature",
];

/// How many results each migration knew.
const KNOWN_RESULTS: &[usize] = &[15, 15, 15, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 17, 17, 17, 17, RESULTS.len()];

pub const MIGRATIONS: &[&str] = &[
    FIRST,
    CLASS_WEIGHTS_AND_CLIP,
    RESIZE,
    SHARING,
    PRECISION,
    ONE_CLASS,
    NEAR_DUPLICATES,
    TRAINS,
    TUNE_REPLICATES,
    FOLDS_AND_TRANSFER,
    SHIFTED,
    INTERPOLATE_AND_LAYER_RATES,
    MAX_REPLICATES,
    CALIBRATION,
    TUNE_SHARE,
    EXPENSE,
    AVERAGE,
    CLASS_NAMES,
];

const FIRST: &str = "
CREATE TABLE experiment (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  question TEXT NOT NULL,
  metric TEXT NOT NULL,
  replicates INTEGER NOT NULL,
  seed INTEGER NOT NULL,
  rules TEXT NOT NULL,      -- JSON: the claims of the file
  scenarios TEXT NOT NULL,  -- JSON: name, size, similarity, dataset, per_class, in the order of the file
  text TEXT NOT NULL        -- the file, with all that it extends
);
CREATE TABLE sweep (
  id INTEGER PRIMARY KEY,
  experiment INTEGER NOT NULL REFERENCES experiment(id),
  started TEXT NOT NULL,
  finished TEXT,            -- NULL: still running, or killed
  ended TEXT,               -- complete, stopped, failures
  text TEXT NOT NULL,       -- the file as it was run
  version TEXT NOT NULL,
  build TEXT NOT NULL,      -- commit of the program
  device TEXT NOT NULL,
  numerics TEXT NOT NULL,
  slots INTEGER NOT NULL,
  machine TEXT NOT NULL
);
CREATE TABLE cell (
  experiment INTEGER NOT NULL REFERENCES experiment(id),
  position INTEGER NOT NULL, -- in the order of the cross
  key TEXT NOT NULL,         -- of the settings that have an effect; equal keys are one configuration
  data TEXT NOT NULL,        -- fingerprint of the dataset
  start TEXT NOT NULL,       -- SHA-256 of the weight file, key of the pretrain stage, or random
  {settings},
  PRIMARY KEY (experiment, position)
) WITHOUT ROWID;
CREATE TABLE planned (
  experiment INTEGER NOT NULL,
  position INTEGER NOT NULL,
  replicate INTEGER NOT NULL,
  trial TEXT NOT NULL,
  PRIMARY KEY (experiment, position, replicate)
) WITHOUT ROWID;
CREATE TABLE trial (
  key TEXT PRIMARY KEY,
  status TEXT NOT NULL,      -- done, diverged, failed, blocked
  val_loss REAL, val_accuracy REAL, val_balanced_accuracy REAL, val_macro_f1 REAL,
  test_loss REAL, test_accuracy REAL, test_balanced_accuracy REAL, test_macro_f1 REAL,
  steps_run INTEGER, at_chance INTEGER, under_trained INTEGER, stopped_early INTEGER,
  trainable INTEGER, frozen INTEGER,
  split TEXT,                -- key of its split
  seconds REAL, macs REAL, numerics TEXT, device TEXT, version TEXT, build TEXT, finished TEXT,
  sweep INTEGER, failure TEXT, message TEXT, warnings TEXT
) WITHOUT ROWID;
CREATE TABLE curve (
  trial TEXT NOT NULL, step INTEGER NOT NULL, epoch REAL NOT NULL, lr REAL NOT NULL, train_loss REAL NOT NULL,
  val_loss REAL NOT NULL, val_accuracy REAL NOT NULL, val_balanced_accuracy REAL NOT NULL, val_macro_f1 REAL NOT NULL,
  PRIMARY KEY (trial, step)
) WITHOUT ROWID;
CREATE TABLE prediction (
  trial TEXT NOT NULL,
  part TEXT NOT NULL,        -- val or test
  predicted BLOB NOT NULL,   -- class indices, u16 little-endian, in the order of the split's samples
  probability BLOB NOT NULL, -- of the true class, f32 little-endian, in the same order
  PRIMARY KEY (trial, part)
) WITHOUT ROWID;
CREATE TABLE split (
  key TEXT PRIMARY KEY,
  data TEXT NOT NULL, per_class INTEGER, seed INTEGER NOT NULL, replicate INTEGER NOT NULL,
  train BLOB NOT NULL, val BLOB NOT NULL, test BLOB NOT NULL -- positions in sample, u32 little-endian
) WITHOUT ROWID;
CREATE TABLE dataset (
  fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, classes TEXT NOT NULL -- JSON, in the order of the indices
) WITHOUT ROWID;
CREATE TABLE sample (
  data TEXT NOT NULL, position INTEGER NOT NULL, id TEXT NOT NULL, class INTEGER NOT NULL, part TEXT NOT NULL, grouping TEXT,
  PRIMARY KEY (data, position)
) WITHOUT ROWID;
CREATE TABLE stage (
  key TEXT PRIMARY KEY, kind TEXT NOT NULL, seconds REAL NOT NULL, macs REAL NOT NULL, numerics TEXT NOT NULL, device TEXT NOT NULL,
  finished TEXT NOT NULL, sweep INTEGER NOT NULL, warnings TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE column_kind (
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, meaning TEXT NOT NULL -- of the columns of the view `result`
) WITHOUT ROWID;
{view}
";

const CLASS_WEIGHTS_AND_CLIP: &str = "
ALTER TABLE cell ADD COLUMN class_weights;
ALTER TABLE cell ADD COLUMN clip;
DROP VIEW result;
{view}
";

const RESIZE: &str = "
ALTER TABLE cell ADD COLUMN resize;
DROP VIEW result;
{view}
";

const SHARING: &str = "
ALTER TABLE cell ADD COLUMN views;
ALTER TABLE cell ADD COLUMN lambda;
ALTER TABLE trial ADD COLUMN group_size INTEGER; -- trials that ran together, this one included
ALTER TABLE trial ADD COLUMN chosen_lambda REAL; -- the strength that validation chose on a path
ALTER TABLE sweep ADD COLUMN forecast REAL;      -- seconds
ALTER TABLE sweep ADD COLUMN seconds REAL;
ALTER TABLE sweep ADD COLUMN macs_alone REAL;    -- multiply-accumulates of its trials one by one
ALTER TABLE sweep ADD COLUMN macs_shared REAL;   -- the same with what was shared counted once
CREATE TABLE audit (
  trial TEXT NOT NULL, at TEXT NOT NULL, numerics TEXT NOT NULL,
  equal INTEGER NOT NULL,   -- 1: the trial alone gave what the store holds
  difference TEXT NOT NULL, -- what differed
  PRIMARY KEY (trial, at)
) WITHOUT ROWID;
DROP VIEW result;
{view}
";

const PRECISION: &str = "
ALTER TABLE cell ADD COLUMN precision;
DROP VIEW result;
{view}
";

/// AVX-512, AVX2 and NEON are one class since. What AVX-512 computed has its bits; AVX2 had others for some shapes.
const ONE_CLASS: &str = "
ALTER TABLE sweep ADD COLUMN engine INTEGER; -- of the program; NULL before this migration
UPDATE trial SET numerics = 'cpu-fma' WHERE numerics = 'cpu-avx512';
UPDATE stage SET numerics = 'cpu-fma' WHERE numerics = 'cpu-avx512';
UPDATE sweep SET numerics = 'cpu-fma' WHERE numerics = 'cpu-avx512';
UPDATE audit SET numerics = 'cpu-fma' WHERE numerics = 'cpu-avx512';
";

const NEAR_DUPLICATES: &str = "
CREATE TABLE near_duplicate (
  data TEXT NOT NULL, test INTEGER NOT NULL, train INTEGER NOT NULL, -- positions in sample
  distance REAL NOT NULL,    -- one minus the correlation of the thumbnails
  mirrored INTEGER NOT NULL,
  PRIMARY KEY (data, test, train)
) WITHOUT ROWID;
";

const TRAINS: &str = "
ALTER TABLE cell ADD COLUMN trains;
ALTER TABLE cell ADD COLUMN layer_decay;
ALTER TABLE cell ADD COLUMN start_decay;
DROP VIEW result;
{view}
";

const TUNE_REPLICATES: &str = "
ALTER TABLE experiment ADD COLUMN tune_replicates INTEGER; -- on how many replicates settings are compared; NULL: on all
";

const FOLDS_AND_TRANSFER: &str = "
ALTER TABLE dataset ADD COLUMN folds INTEGER; -- in how many folds replicates test on it in turn; NULL: it has a test split
ALTER TABLE cell ADD COLUMN transfer;
DROP VIEW result;
{view}
";

const SHIFTED: &str = "
ALTER TABLE sample ADD COLUMN origin TEXT;       -- the dataset that it is of, where that is another one (part: shifted)
CREATE TABLE shifted (
  trial TEXT NOT NULL,
  dataset TEXT NOT NULL,     -- another one, whose test images the trial was tested on as well
  images INTEGER NOT NULL,
  accuracy REAL NOT NULL, balanced_accuracy REAL NOT NULL, macro_f1 REAL NOT NULL,
  PRIMARY KEY (trial, dataset)
) WITHOUT ROWID;
";

const INTERPOLATE_AND_LAYER_RATES: &str = "
ALTER TABLE cell ADD COLUMN interpolate;
ALTER TABLE cell ADD COLUMN layer_rates;
DROP VIEW result;
{view}
";

const MAX_REPLICATES: &str = "
ALTER TABLE experiment ADD COLUMN max_replicates INTEGER; -- replicates that rules which are open may run on to; NULL: none
";

const CALIBRATION: &str = "
ALTER TABLE cell ADD COLUMN calibrate;
ALTER TABLE trial ADD COLUMN temperature REAL; -- what logits were divided by, where that was chosen on validation
ALTER TABLE prediction ADD COLUMN confidence BLOB; -- of the predicted class, f32 like probability; NULL before this migration
DROP VIEW result;
{view}
";

const TUNE_SHARE: &str = "
ALTER TABLE experiment ADD COLUMN tune_share REAL; -- on what share of the budget settings are compared first; NULL: on all of it
ALTER TABLE cell ADD COLUMN tune_share;            -- the share of its budget that this one has, for that comparison; NULL: all of it
DROP VIEW result;
{view}
";

const EXPENSE: &str = "
ALTER TABLE cell ADD COLUMN expense TEXT; -- JSON: multiply-accumulates of one of its trials, and what it may share; NULL: of a sweep before this
";

const AVERAGE: &str = "
ALTER TABLE cell ADD COLUMN average;
DROP VIEW result;
{view}
";

const CLASS_NAMES: &str = "
ALTER TABLE cell ADD COLUMN head_start;
ALTER TABLE cell ADD COLUMN prompts;
ALTER TABLE cell ADD COLUMN tokenizer TEXT; -- SHA-256 of the one that read class names; NULL where none were read
DROP VIEW result;
{view}
";

/// What people query: a row for each planned trial.
const RESULT: &str = "
CREATE VIEW result AS
  SELECT experiment.name AS experiment, cell.position, planned.replicate, planned.trial, cell.data, cell.start,
         {cell_settings},
         coalesce(trial.status, 'planned') AS status,
         {trial_results},
         trial.seconds, trial.macs, trial.numerics, trial.device, trial.version, trial.build, trial.finished,
         trial.failure, trial.message, trial.warnings{group_size}
  FROM planned
  JOIN cell ON cell.experiment = planned.experiment AND cell.position = planned.position
  JOIN experiment ON experiment.id = planned.experiment
  LEFT JOIN trial ON trial.key = planned.trial;
";

/// The text of a migration with its lists of columns filled in.
pub fn migration(index: usize) -> String {
    let list = |prefix: &str, names: &[&str]| {
        names.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>().join(", ")
    };
    let settings = &SETTINGS[..KNOWN_SETTINGS[index]];
    MIGRATIONS[index]
        .replace("{view}", RESULT)
        .replace("{settings}", &list("", settings))
        .replace("{cell_settings}", &list("cell.", settings))
        .replace("{group_size}", if index >= 3 { ", trial.group_size" } else { "" })
        .replace("{trial_results}", &list("trial.", &RESULTS[1..KNOWN_RESULTS[index]]))
}

/// What the columns of `result` are, for the table `column_kind`.
pub const COLUMNS: &[(&str, &str, &str)] = &[
    ("experiment", "label", "name of the experiment"),
    ("position", "label", "place of the cell in the cross"),
    ("replicate", "label", "number of the paired repetition"),
    ("trial", "label", "key of the trial: hash of everything that decides its result"),
    ("data", "label", "fingerprint of the dataset: ids, classes, splits, groups and bytes of all samples"),
    ("start", "label", "SHA-256 of the weight file, key of the pretrain stage, or random"),
    ("status", "result", "planned, done, diverged, failed or blocked"),
    ("val_loss", "result", "mean cross-entropy on validation, nats"),
    ("val_accuracy", "result", "share of validation images classified right; selects settings"),
    ("val_balanced_accuracy", "result", "mean over classes of accuracy, on validation"),
    ("val_macro_f1", "result", "mean over classes of F1, on validation"),
    ("test_loss", "result", "mean cross-entropy on test, nats"),
    ("test_accuracy", "result", "share of test images classified right; read once"),
    ("test_balanced_accuracy", "result", "mean over classes of accuracy, on test"),
    ("test_macro_f1", "result", "mean over classes of F1, on test"),
    ("steps_run", "result", "optimiser steps done"),
    ("at_chance", "result", "1: test accuracy within two standard errors of naming the largest class"),
    ("under_trained", "result", "1: validation loss still fell by more than 1% over the last tenth"),
    ("stopped_early", "result", "1: early_stop ended the training"),
    ("trainable", "result", "numbers that trained, at most in any phase"),
    ("frozen", "result", "numbers held fixed, at least in every phase"),
    ("seconds", "circumstance", "time that the stage took"),
    ("macs", "circumstance", "multiply-accumulates done"),
    ("numerics", "circumstance", "class within which results are equal bit for bit"),
    ("device", "circumstance", "where it ran"),
    ("version", "circumstance", "of the program"),
    ("build", "circumstance", "commit of the program"),
    ("finished", "circumstance", "UTC"),
    ("failure", "circumstance", "class of the failure"),
    ("message", "circumstance", "what the failure said"),
    ("warnings", "circumstance", "JSON list of what a person should know"),
    (
        "chosen_lambda",
        "result",
        "the strength of regularisation that validation chose on the path of a solved head, or of the one that training started from",
    ),
    ("temperature", "result", "what logits were divided by, chosen on validation, where `calibrate` asks for it"),
    ("group_size", "circumstance", "trials that ran together, this one included; 1: alone"),
];
