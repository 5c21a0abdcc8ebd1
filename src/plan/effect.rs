//! Which settings have an effect beside the others: those without are taken out, those that contradict are refused.

use super::solved_start::{begins_trained, solver as start_solver};
use super::zero_shot;
use crate::augmentation::Augmentation;
use crate::device::Precision;
use crate::freeze::Freeze;
use crate::model::freezing::{depth_name, frozen_layers, taps};
use crate::model::graph::{Graph, Op};
use crate::phase::PHASE_KEYS;
use crate::trains::Trains;
use crate::value::{Layer, Value};

/// A setting that cannot stand where it does: its key, its value, and why.
pub struct Fault {
    pub key: &'static str,
    pub value: Value,
    pub message: String,
}

/// One of them.
pub fn fault(key: &'static str, value: &Value, message: impl Into<String>) -> Fault {
    Fault { key, value: value.clone(), message: message.into() }
}

/// Settings of training step by step.
const OF_STEPS: &[&str] = &[
    "steps",
    "epochs",
    "batch",
    "lr",
    "backbone_lr",
    "layer_decay",
    "layer_rates",
    "momentum",
    "nesterov",
    "weight_decay",
    "decay",
    "start_decay",
    "schedule",
    "warmup",
    "clip",
    "dropout",
    "keep_weights",
    "average",
    "early_stop",
    "batch_norm",
    "trains",
];

/// Takes out every setting that changes nothing under the others.
pub fn drop_without_effect(layer: &mut Layer, backbone: &Graph) {
    write_augmentations(layer);
    if layer.get("precision").and_then(Value::text) == Some(Precision::default().name()) {
        layer.remove("precision");
    }
    let vector = |tap: usize| backbone.layers[tap].shape[1..] == [1, 1];
    if taps(backbone).into_iter().all(vector) {
        layer.remove("pool");
    }
    let random = layer.get("weights").and_then(Value::text) == Some("random");
    let default = if random { "train" } else { "frozen" };
    layer.entry("batch_norm".to_owned()).or_insert(Value::Text(default.to_owned()));
    if let Some(Value::List(phases)) = layer.get("phases").cloned() {
        let phases: Vec<Layer> = phases
            .iter()
            .filter_map(|phase| if let Value::Table(own) = phase { Some(own.clone()) } else { None })
            .collect();
        // What every phase says for itself is said by nobody else.
        let budget = |own: &Layer| own.contains_key("steps") || own.contains_key("epochs");
        layer.retain(|key, _| match key.as_str() {
            "steps" | "epochs" => !phases.iter().all(budget),
            key => !PHASE_KEYS.contains(&key) || !phases.iter().all(|own| own.contains_key(key)),
        });
        return;
    }
    let is = |layer: &Layer, key: &str, text: &str| layer.get(key).and_then(Value::text) == Some(text);
    let zero = |layer: &Layer, key: &str| layer.get(key).and_then(Value::number) == Some(0.0);
    let all = Freeze::parse(layer.get("freeze").unwrap_or(&Value::Text("none".to_owned())))
        .ok()
        .and_then(|freeze| frozen_layers(backbone, &freeze).ok())
        .is_some_and(|frozen| depth_name(backbone, frozen) == "all");
    let norms = backbone.layers.iter().any(|layer| matches!(layer.op, Op::BatchNorm { .. }));
    let same_rate = layer.get("backbone_lr").zip(layer.get("lr")).is_some_and(|(own, lr)| own.same(lr));
    if is(layer, "optimizer", "adamw") {
        layer.remove("momentum");
    }
    if !layer.contains_key("momentum") || zero(layer, "momentum") {
        layer.remove("nesterov");
    }
    if zero(layer, "weight_decay") {
        layer.remove("decay");
    }
    if all || same_rate {
        layer.remove("backbone_lr");
    }
    if all || !norms {
        layer.remove("batch_norm");
    }
}

/// Lists of augmentations with their numbers written in the one way, in phases too.
fn write_augmentations(layer: &mut Layer) {
    let write = |layer: &mut Layer| {
        layer.entry("augment".to_owned()).and_modify(|list| *list = Augmentation::settled(list));
    };
    write(layer);
    if let Some(Value::List(phases)) = layer.get_mut("phases") {
        for phase in phases {
            if let Value::Table(own) = phase {
                write(own);
            }
        }
    }
}

/// Stored views need something frozen that can be stored, and one way of changing images; without a way they are
/// nothing.
pub fn settle_views(layer: &mut Layer) -> Result<(), Fault> {
    let Some(views) = layer.get("views").cloned() else { return Ok(()) };
    let none = Value::List(Vec::new());
    let common = layer.get("augment").unwrap_or(&none).clone();
    let (mut lists, mut frozen) = (vec![common], layer.get("freeze").and_then(Value::text) != Some("none"));
    if let Some(Value::List(phases)) = layer.get("phases") {
        for phase in phases {
            let Value::Table(own) = phase else { continue };
            lists.extend(own.get("augment").cloned());
            frozen &= own.get("freeze").and_then(Value::text) != Some("none");
        }
    }
    let wrong = |message: &str| Err(fault("views", &views, message));
    if lists.iter().any(|list| *list != lists[0]) {
        return wrong("stored views are made in one way: all phases need the same `augment`");
    }
    if lists[0] == none {
        layer.remove("views");
        return Ok(());
    }
    if Augmentation::parse_list(&lists[0]).is_ok_and(|list| list.iter().any(|augmentation| augmentation.mixes())) {
        return wrong(
            "a view is stored of one image, and 'mixup' and 'cutmix' make one of two: leave them or `views` out",
        );
    }
    if !frozen || layer.get("weights").and_then(Value::text) == Some("random") {
        return wrong(
            "views of the images can be stored only below frozen layers: freeze something, or leave `views` out",
        );
    }
    Ok(())
}

/// The way from where the last phase began makes sense only where the phase began with something trained, and is straight only
/// in numbers of which the network is a sum.
pub fn settle_interpolation(layer: &mut Layer) -> Result<(), Fault> {
    let Some(value) = layer.get("interpolate").cloned() else { return Ok(()) };
    if value.number() == Some(1.0) {
        layer.remove("interpolate");
        return Ok(());
    }
    let last = match layer.get("phases") {
        Some(Value::List(phases)) if phases.len() > 1 => phases.last(),
        phases if begins_trained(layer) => match phases {
            Some(Value::List(phases)) => phases.last(),
            _ => None,
        },
        _ => {
            return Err(fault(
                "interpolate",
                &value,
                "lies between where the last phase began and where it ended: it needs a phase before that, such as a head first, \
                 phases = [{ freeze = \"all\", steps = 250 }, { freeze = \"none\", steps = 250 }], or a head that starts from \
                 class names or from a solution (head_start = \"lda\")",
            ));
        }
    };
    let own = if let Some(Value::Table(own)) = last { own.get("trains") } else { None };
    let trains = own.or_else(|| layer.get("trains"));
    match trains.map(Trains::parse) {
        Some(Ok(Trains::Lora(_))) => Err(fault(
            "interpolate",
            &value,
            "low-rank additions are products: half of the way of their factors is not half of the way of the network",
        )),
        _ => Ok(()),
    }
}

/// A mean over the last steps needs them to come, and is not the weights of one evaluation.
pub fn settle_average(layer: &mut Layer) -> Result<(), Fault> {
    let Some(value) = layer.get("average").cloned() else { return Ok(()) };
    if value.number() == Some(0.0) {
        layer.remove("average");
        return Ok(());
    }
    if layer.get("keep_weights").and_then(Value::text) == Some("best") {
        let message = "the mean over the last steps is not what keep_weights = \"best\" takes: leave one of them out";
        return Err(fault("average", &value, message));
    }
    if layer.contains_key("early_stop") {
        let message =
            "where training may stop early its last steps are not known before: leave `early_stop` or `average` out";
        return Err(fault("average", &value, message));
    }
    Ok(())
}

/// What calibrates nothing stands in no key.
pub fn settle_calibration(layer: &mut Layer) {
    if layer.get("calibrate").and_then(Value::text) == Some("none") {
        layer.remove("calibrate");
    }
}

/// A head that is solved has no steps, and so no settings of steps. True where it is solved.
pub fn settle_solver(layer: &mut Layer) -> Result<bool, Fault> {
    let optimizer = layer.get("optimizer").cloned().unwrap_or(Value::Bool(false));
    let phased = match layer.get("phases") {
        Some(Value::List(phases)) => phases.iter().find_map(|phase| match phase {
            Value::Table(own) => own.get("optimizer").filter(|value| solver(value)).cloned(),
            _ => None,
        }),
        _ => None,
    };
    if let Some(value) = phased {
        return Err(fault("optimizer", &value, "a head that is solved has no phases"));
    }
    if !solver(&optimizer) {
        if start_solver(layer).is_none() {
            layer.remove("lambda");
        }
        return Ok(false);
    }
    if start_solver(layer).is_some() {
        let start = layer["head_start"].clone();
        let message = match optimizer.text() {
            Some("none") => format!("a head that starts from a solution and stays there is optimizer = \"{start}\""),
            _ => format!("optimizer = \"{optimizer}\" finds the same head wherever it starts: leave `head_start` out"),
        };
        return Err(fault("head_start", &start, message));
    }
    if optimizer.text() == Some("none") && !zero_shot::starts(layer) {
        let message =
            "a head that starts at random must be trained; optimizer = \"none\" is for head_start = \"class-names\"";
        return Err(fault("optimizer", &optimizer, message));
    }
    if matches!(optimizer.text(), Some("lbfgs" | "ridge" | "lda")) && zero_shot::starts(layer) {
        let message =
            format!("optimizer = \"{optimizer}\" finds the same head wherever it starts: leave `head_start` out");
        return Err(fault("head_start", &layer["head_start"], message));
    }
    let is = |key: &str, text: &str| layer.get(key).is_none_or(|value| value.text() == Some(text));
    let fixed = layer.get("augment").is_none_or(|list| *list == Value::List(Vec::new()));
    if !(is("freeze", "all") && is("head", "linear") && fixed && !layer.contains_key("phases")) {
        let does = if optimizer.text() == Some("none") { "leaves" } else { "solves" };
        let message = format!(
            "optimizer = \"{optimizer}\" {does} a linear head on fixed features: it needs freeze = \"all\", head = \"linear\", augment = [] and no phases"
        );
        return Err(fault("optimizer", &optimizer, message));
    }
    layer.retain(|key, _| !OF_STEPS.contains(&key.as_str()));
    match optimizer.text() {
        // Its targets are the classes themselves.
        Some("ridge" | "lda") => _ = layer.remove("label_smoothing"),
        Some("none") => ["label_smoothing", "class_weights", "lambda"].iter().for_each(|key| _ = layer.remove(*key)),
        _ => {}
    }
    Ok(true)
}

/// Training again on more images needs to know how long: a stop or a choice on validation has no meaning there.
pub fn refuse_refit(layer: &Layer) -> Result<(), Fault> {
    let best = layer.get("keep_weights").filter(|value| value.text() == Some("best"));
    let found =
        layer.get("early_stop").map(|value| ("early_stop", value)).or(best.map(|value| ("keep_weights", value)));
    match found {
        Some((key, value)) => Err(fault(
            key,
            value,
            "with refit = true there is no validation left in the second training: take out `early_stop` and keep_weights = \"best\"",
        )),
        None => Ok(()),
    }
}

fn solver(value: &Value) -> bool {
    matches!(value.text(), Some("lbfgs" | "ridge" | "lda" | "none"))
}
