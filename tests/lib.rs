//! One test binary. Each file is a room or a promise; `builder` makes the small worlds they run in.

mod advice;
mod architecture;
mod backbones;
mod builder;
mod bundles;
mod chosen;
mod corruptions;
mod datasets;
mod docs;
mod downloads;
mod engine;
mod files;
mod folds;
mod following;
mod golden;
mod keeping;
mod looks;
mod machines;
mod materials;
#[cfg(feature = "cuda")]
mod on_gpu;
mod operators;
mod overrides;
mod plans;
mod predictions;
mod published;
mod ranking;
mod sharing;
mod shifts;
mod side;
mod sweeps;
mod taps;
mod transfers;
mod tuning;
mod verdicts;
mod weights;
