//! The reference page and the JSON Schema, written from the table of keys.

use serde_json::{Map, Value as Json, json};

use super::keys::{self, Group, Key, TABLES};

/// The page `docs/reference.md`: every key with what it accepts, its default and its meaning.
pub fn page() -> String {
    let mut page = String::from(
        "# Every key of an experiment file\n\nGenerated from `src/experiment/keys`; a test keeps it true. \
         Editors can use [experiment.schema.json](experiment.schema.json).\n\n## Tables\n\n| table | what it is for |\n|---|---|\n",
    );
    for (name, meaning) in TABLES {
        page.push_str(&format!("| `{name}` | {meaning} |\n"));
    }
    for (title, group) in SECTIONS {
        page.push_str(&format!("\n## {title}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"));
        for key in keys::of(*group) {
            page.push_str(&row(key));
        }
    }
    page.push_str(&format!(
        "\n## Conditions\n\n`==  !=  <  <=  >  >=`, `~` and `!~` for patterns with `*`, `&&`, `||`, `!`, parentheses. \
         They may ask for every setting above and for {}.\n\nKeys that only tune ({}) are selected over on validation; \
         every other key is context, and each context gets a verdict of its own.\n",
        listed(keys::CELL_KEYS),
        listed(keys::TUNING),
    ));
    page
}

/// The tables that keys belong to.
pub const SECTIONS: &[(&str, Group)] = &[
    ("[experiment]", Group::Experiment),
    ("[backbone]", Group::Backbone),
    ("[recipes.NAME]", Group::Recipe),
    ("[train]", Group::Train),
    ("[pretrain]", Group::Pretrain),
    ("[datasets.NAME]", Group::Dataset),
    ("[scenarios.NAME]", Group::Scenario),
    ("[[rule]]", Group::Rule),
    ("[[when]] and [[exclude]]", Group::Condition),
];

fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn row(key: &Key) -> String {
    let default = if key.default.is_empty() { "-".to_owned() } else { key.default.to_owned() };
    format!("| `{}` | {} | {default} | {} |\n", key.name, kind(key), key.meaning.replace('|', "\\|"))
}

/// The type column: what the schema fragment says, in words.
fn kind(key: &Key) -> String {
    let schema = fragment(key);
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().filter_map(Json::as_str).map(str::to_owned).collect();
        return words.join(", ");
    }
    match &schema["type"] {
        Json::String(name) => name.clone(),
        Json::Array(names) => names.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    }
}

fn fragment(key: &Key) -> Json {
    serde_json::from_str(key.schema).unwrap_or(Json::Null)
}

/// The JSON Schema (draft 2020-12) of an experiment file.
pub fn schema() -> String {
    let settings = [Group::Recipe, Group::Train, Group::Backbone];
    let with = |groups: &[Group]| groups.iter().copied().chain(settings).collect::<Vec<_>>();
    let family = |groups: &[Group]| json!({"type": "object", "additionalProperties": table(groups)});
    let list = |schema: Json| json!({"type": "array", "items": schema});
    let free = || json!({"type": "object"});
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tl-sweep experiment",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "extends": {"type": "string", "description": TABLES[0].1},
            "experiment": table(&[Group::Experiment]),
            "backbone": table(&[Group::Backbone]),
            "pretrain": pretrain(),
            "datasets": family(&[Group::Dataset]),
            "scenarios": family(&with(&[Group::Scenario])),
            "recipes": family(&settings),
            "train": table(&[Group::Train]),
            "axes": free(),
            "zip": list(free()),
            "when": list(free()),
            "exclude": list(table(&[Group::Condition])),
            "include": list(free()),
            "rule": list(table(&[Group::Rule])),
        },
    });
    format!("{schema:#}\n")
}

fn pretrain() -> Json {
    let mut table = table(&[Group::Pretrain, Group::Train]);
    if let Some(properties) = table["properties"].as_object_mut() {
        properties.retain(|key, _| !keys::IDLE_IN_PRETRAIN.contains(&key.as_str()));
        properties["optimizer"]["enum"] = json!(["sgd", "adamw"]);
    }
    table
}

fn table(groups: &[Group]) -> Json {
    let mut properties = Map::new();
    for key in groups.iter().flat_map(|group| keys::of(*group)) {
        let mut fragment = fragment(key);
        fragment["description"] = json!(key.meaning);
        properties.insert(key.name.to_owned(), fragment);
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}
