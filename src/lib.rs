//! tl-sweep: which transfer-learning recipe should I use for my images?
//!
//! ```text
//! experiments/*.toml
//!     |  experiment/   parse, refuse (every problem at once), resolve
//!     v
//! Experiment
//!     |  plan/         cross the axes, drop what has no effect, key, cost
//!     v
//! Plan                 minus what the store already holds
//!     |  schedule/     a pure queue: which stage next, on which slot
//!     v
//! worker process per slot:  data/ -> model/ -> exec/ over nn/ -> train/ -> Outcome
//!     |  events, one JSON line each, to the main process
//!     v
//! store/               SQLite, one writer
//!     |  report/       statistics, tables, verdicts
//!     v
//! what a person reads
//! ```
//!
//! **experiment**: one TOML file. **scenario**: a target at a size, with labels small or large, similar or different.
//! **source**, **target**: what the backbone was trained on, what it is moved to. **recipe**: a named way to transfer.
//! **freeze depth**: how much of the backbone, from the input, is held fixed. **tap**: the layer whose output is the
//! feature. **trial**: one point of the cross with its replicate. **replicate**: a seed shared by all arms. **stage**:
//! a unit of device work (pretrain, encode, probe, finetune). **slot**: a place to run on a device. **outcome**: what a
//! stage leaves. **verdict**: what the trials say of a rule.
//!
//! Modules in reading order: [`cli`] and [`commands`] (start at `commands/run.rs`); the nouns [`value`], [`scenario`],
//! [`freeze`], [`trains`], [`frame`], [`preprocess`], [`corruption`], [`augmentation`], [`recipe`], [`phase`], [`outcome`], [`expense`], [`key`], [`seed`], [`device`], [`spelling`], [`temporary`]; then the steps
//! [`experiment`], [`plan`], [`schedule`], [`data`], [`model`], [`nn`], [`exec`], [`train`], [`store`], [`report`].

pub mod augmentation;
pub mod cli;
pub mod commands;
pub mod corruption;
pub mod data;
pub mod device;
pub mod exec;
pub mod expense;
pub mod experiment;
pub mod frame;
pub mod freeze;
pub mod key;
pub mod model;
pub mod nn;
pub mod outcome;
pub mod phase;
pub mod plan;
pub mod preprocess;
pub mod recipe;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod seed;
pub mod spelling;
pub mod store;
pub mod temporary;
pub mod train;
pub mod trains;
pub mod value;
