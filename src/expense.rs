//! What a trial takes in multiply-accumulates, how much of that others of its kind take with it, and what its answers take.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::key::Key;

/// Of one trial, where nothing is done twice that is exact to share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expense {
    pub own: f64,
    /// What whoever has the same key needs as well: the most of them pays for all.
    pub shared: Vec<(Key, f64)>,
    /// Of an answer of what it trains; none of a sweep before this was stored.
    #[serde(default)]
    pub price: Option<Price>,
}

/// What one answer of a trained network takes: multiply-accumulates for one image, and numbers to keep, running statistics among
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    pub macs: f64,
    pub params: usize,
}

impl Expense {
    /// Of the trial by itself.
    pub fn alone(&self) -> f64 {
        Self::of_all(std::iter::once(self))
    }

    /// Of several, with what they share counted once.
    pub fn of_all<'a>(all: impl Iterator<Item = &'a Self>) -> f64 {
        let (mut own, mut shared) = (0.0, BTreeMap::<Key, f64>::new());
        for expense in all {
            own += expense.own;
            for (key, macs) in &expense.shared {
                let most = shared.entry(*key).or_default();
                *most = most.max(*macs);
            }
        }
        own + shared.values().sum::<f64>()
    }
}
