//! Heads that start from the names of classes: what they need, and the texts that decide where they start.

use super::effect::{Fault, fault};
use super::facts::Facts;
use super::stage::Texts;
use crate::model::vit::{EMBEDS, reads_texts};
use crate::recipe::{self, HeadStart, PROMPT};
use crate::value::{Layer, Value};

/// Whether the head of a layer starts so.
pub fn starts(layer: &Layer) -> bool {
    let start = layer.get("head_start").map(|value| recipe::word::<HeadStart>(value, recipe::HEAD_START));
    start == Some(Ok(HeadStart::ClassNames))
}

/// Taps what such a head reads, where nothing else is asked for.
///
/// # Errors
/// The network has never seen texts.
pub fn settle_tap(layer: &mut Layer) -> Result<(), Fault> {
    if !starts(layer) {
        return Ok(());
    }
    let arch = layer.get("arch").map_or_else(String::new, Value::to_string);
    if !reads_texts(&arch) {
        let message = format!(
            "class names are read by a network that has seen texts beside images: {arch} has not, the networks clip_* have"
        );
        return Err(fault("head_start", &layer["head_start"], message));
    }
    layer.entry("tap".to_owned()).or_insert(Value::Text(EMBEDS.to_owned()));
    Ok(())
}

/// Takes out what has no effect, and says what the head starts from; of other heads nothing.
///
/// # Errors
/// Something else is tapped, or the weights have no side of texts or no tokenizer.
pub fn settle(layer: &mut Layer, facts: &Facts) -> Result<Option<Texts>, Fault> {
    if !starts(layer) {
        layer.remove("prompts");
        return Ok(None);
    }
    let start = layer["head_start"].clone();
    let refused = |message: String| fault("head_start", &start, message);
    let text = |key: &str| layer.get(key).map_or_else(String::new, Value::to_string);
    let [tap, weights, dataset] = ["tap", "weights", "dataset"].map(text);
    if tap != EMBEDS {
        let message = format!("class names and images are compared at '{EMBEDS}', not at '{tap}': leave `tap` out");
        return Err(fault("tap", &layer["tap"], message));
    }
    if layer.contains_key("transfer") {
        let message = "layers that start at random do not bring images to where class names are: leave `transfer` out";
        return Err(refused(message.to_owned()));
    }
    if layer.get("head").is_some_and(|head| head.text() != Some("linear")) {
        return Err(fault("head", &layer["head"], "class names are the start of a linear head: head = \"linear\""));
    }
    let Some(fact) = facts.weights.get(&weights) else {
        return Err(refused(format!("class names are read by weights from a file, and these are \"{weights}\"")));
    };
    let tokenizer = fact.texts.clone().map_err(refused)?;
    let prompts = prompts(layer).map_err(|message| fault("prompts", &layer["prompts"], message))?;
    if prompts == [PROMPT] {
        layer.remove("prompts");
    }
    let names = facts.datasets.get(&dataset).map_or_else(Vec::new, |data| data.names.clone());
    if let Some(why) = unspeakable(&names) {
        return Err(refused(format!("{why}: say what they are called with `names` under [datasets.{dataset}]")));
    }
    Ok(Some(Texts { prompts, names, tokenizer }))
}

/// Why texts cannot tell classes of these names, if they cannot.
pub fn unspeakable(names: &[String]) -> Option<String> {
    // WordNet's numbers, as ImageNet's folders have them.
    let of_wordnet = |name: &&String| {
        name.strip_prefix('n')
            .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if let Some(name) = names.iter().find(of_wordnet) {
        return Some(format!("'{name}' is a number of WordNet's, which no text about images says"));
    }
    let twice = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name))?;
    Some(format!("two classes are called '{}' in texts, and would be one", twice.1))
}

fn prompts(layer: &Layer) -> Result<Vec<String>, String> {
    layer.get("prompts").map_or_else(|| Ok(vec![PROMPT.to_owned()]), recipe::prompts)
}

/// What the head of a settled layer starts from.
///
/// # Errors
/// As `settle`, which comes before.
pub fn texts(layer: &Layer, facts: &Facts) -> Result<Option<Texts>, String> {
    settle(&mut layer.clone(), facts).map_err(|fault| fault.message)
}
