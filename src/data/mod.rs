//! Datasets: where images come from, which of them a replicate trains, validates and tests on, and how they become
//! numbers. No tensors here.

pub mod archive;
pub mod augment;
pub mod batch;
pub mod cifar;
pub mod corrupt;
pub mod deal;
pub mod decode;
pub mod digest;
pub mod folder;
pub mod formats;
pub mod idx;
pub mod known;
pub mod loose;
pub mod manifest;
pub mod mix;
pub mod near;
pub mod npz;
pub mod open;
pub mod packed;
pub mod pages;
pub mod picture;
pub mod policy;
pub mod resample;
pub mod split;
pub mod synthetic;
pub mod table;
pub mod unpack;

pub use deal::Holdout;
pub use manifest::{Manifest, Part, Sample, Shifted};
pub use open::{Dataset, Spec, open};
