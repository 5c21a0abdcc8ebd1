//! Which stages may run as a group, because they share work. Bonds stand in no key: how stages are grouped changes no bit.

use super::chain::Chain;
use super::stage::{Backbone, Encode, Encoded, Start, Train};
use crate::freeze::Freeze;
use crate::key::Key;
use crate::phase::Phase;
use crate::recipe::{Budget, Head, Schedule};

/// Encodings that one pass over the images can serve: those of one backbone, whatever their layers. What a deeper pass computes as
/// one with the layer behind it takes a pass of its own.
pub fn of_encode(stage: &Encode) -> Key {
    let backbone = untapped(&stage.backbone);
    let read = (stage.data, stage.per_class, stage.seed, stage.replicates);
    let bond = (backbone, read, stage.images, &stage.augment, stage.precision);
    let own = stage.backbone.arch.backbone(&stage.backbone.tap).ok();
    let merged = own.is_some_and(|graph| graph.find(&stage.cut).is_some_and(|cut| graph.absorber(cut).is_some()));
    match merged {
        true => Key::of("encode bond", &(bond, &stage.cut)),
        false => Key::of("encode bond", &bond),
    }
}

/// What ties a trial to others: a bank of linear heads, the frozen layers that one pass over each batch runs for all of
/// them, or a beginning that they share.
pub fn of_trial(chain: &Chain) -> Option<Key> {
    let train = &chain.train;
    // A path of strengths is one trial, and already one problem.
    if train.solves() {
        return None;
    }
    // Trials that end otherwise end apart.
    let end = (train.refit, train.untested);
    let read = (train.data, train.per_class, train.seed, train.replicate, train.precision, end);
    if let Some(encode) = chain.encode.as_ref().filter(|encode| encode.images != Encoded::Evaluated)
        && train.phases.iter().all(|phase| phase.freeze == Freeze::All)
    {
        return Some(Key::of("heads", &(encode, read)));
    }
    if train.augments() && chain.prefix && train.backbone.start != Start::Random {
        // Who reads other batches from the first one on has no pass in common with these.
        let batches = train.phases.first().map(|phase| (phase.batch, &phase.augment));
        return Some(Key::of("prefix", &(untapped(&train.backbone), read, batches)));
    }
    // Networks that read features of other layers have no step in common.
    let cut = train.shared_cut().ok()?.filter(|_| chain.prefix);
    chain.branches.then(|| {
        Key::of(
            "trunk",
            &(
                &train.backbone,
                cut,
                read,
                (train.pool, &train.head, train.copied, &train.texts, &train.solved_start),
                trunk(train),
            ),
        )
    })
}

/// The beginnings that a trial may have in common with others of its bond: each with the phase that it ends in, and how
/// much of that phase it is. Trials whose beginnings have one key run the shorter one of them together.
pub fn beginnings(bond: Key, train: &Train) -> Vec<(Key, usize, f64)> {
    // Linear heads train as one product, each for itself.
    let heads = |phase: &Phase| {
        let whole = phase.dropout == 0.0 && train.interpolate == 1.0;
        phase.freeze == Freeze::All && whole && train.head == Head::Linear
    };
    if let [only] = &train.phases[..]
        && heads(only)
    {
        return Vec::new();
    }
    let network = (train.shared_cut().ok(), train.pool, &train.head, train.copied, &train.texts);
    let network = (network, train.lora().ok(), &train.solved_start);
    let trunk = Key::of("network", &(bond, network, train.keep_weights, train.early_stop, train.views));
    let mut found = Vec::new();
    for (leg, phase) in train.phases.iter().enumerate() {
        let before = &train.phases[..leg];
        let Schedule::Step { at, factor } = &phase.schedule else {
            found.push((Key::of("beginning", &(trunk, before, phase, 0)), leg, 1.0));
            continue;
        };
        let manner = Phase { schedule: Schedule::Constant, ..phase.clone() };
        let ends: Vec<f64> = at.iter().copied().chain([1.0]).collect();
        let mut start = 0.0;
        for (drops, end) in ends.iter().enumerate() {
            let key = match drops {
                0 => Key::of("beginning", &(trunk, before, &manner, 0)),
                _ => Key::of("beginning", &(trunk, before, &manner, drops, &at[..drops], factor)),
            };
            found.push((key, leg, (end - start).max(0.0)));
            start = *end;
        }
    }
    found
}

/// The first phase, without what bears on its later steps only.
fn trunk(train: &Train) -> Phase {
    let mut phase = train.phases[0].clone();
    if matches!(phase.schedule, Schedule::Step { .. }) {
        phase.schedule = Schedule::Constant;
    }
    if phase.schedule == Schedule::Constant && phase.warmup == 0.0 {
        phase.budget = Budget::Steps(0);
    }
    phase
}

/// A backbone, whatever is read of it.
fn untapped(backbone: &Backbone) -> Backbone {
    Backbone { tap: String::new(), ..backbone.clone() }
}
