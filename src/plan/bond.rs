//! Which stages may run as a group, because they share work. Bonds stand in no key: how stages are grouped changes no bit.

use super::stage::{Backbone, Chain, Encode, Encoded, Start, Train};
use crate::freeze::Freeze;
use crate::key::Key;
use crate::phase::Phase;
use crate::recipe::{Budget, Schedule};

/// Encodings that one pass over the images can serve: those of one backbone, whatever their layers.
pub fn of_encode(stage: &Encode) -> Key {
    let backbone = untapped(&stage.backbone);
    Key::of(
        "encode bond",
        &(backbone, (stage.data, stage.per_class, stage.seed, stage.replicates), stage.images, &stage.augment),
    )
}

/// What ties a trial to others: a bank of linear heads, the frozen layers that one pass over each batch runs for all of
/// them, or a beginning that they share.
pub fn of_trial(chain: &Chain) -> Option<Key> {
    let train = &chain.train;
    // A path of strengths is one trial, and already one problem.
    if train.solves() {
        return None;
    }
    let read = (train.data, train.per_class, train.seed, train.replicate);
    if let Some(encode) = chain.encode.as_ref().filter(|encode| encode.images != Encoded::Evaluated)
        && train.phases.iter().all(|phase| phase.freeze == Freeze::All)
    {
        return Some(Key::of("heads", &(encode, read)));
    }
    if train.augments() && chain.prefix && train.backbone.start != Start::Random {
        return Some(Key::of("prefix", &(untapped(&train.backbone), read)));
    }
    let branches = train.phases.len() > 1 || matches!(train.phases[0].schedule, Schedule::Step { .. });
    branches.then(|| Key::of("trunk", &(&train.backbone, read, (train.pool, &train.head), trunk(train))))
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
