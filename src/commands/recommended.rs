//! The experiment file that tests what `recommend` says.

use std::path::Path;

use super::data::reading_lines;
use crate::cli::{Common, Recommend, Seen};
use crate::data::open::named;
use crate::model::arch::Arch;
use crate::model::catalogue::identify;
use crate::recipe::AND;
use crate::report::advice::{Advice, Panel};
use crate::train::Survey;

/// The text of the file: the recipes of the advice on all images, and the claim that the first is better than each other.
///
/// # Errors
/// The weights cannot be read.
pub fn experiment(
    asked: &Recommend,
    common: &Common,
    what: &Survey,
    panel: &Panel,
    advice: &Advice,
) -> anyhow::Result<String> {
    let seen = &asked.seen;
    let reading = reading_lines(&seen.reading);
    let scenario = format!("{}-{}", advice.size, advice.similarity);
    let names: Vec<String> = advice.recipes.iter().map(|recipe| quoted(recipe.name)).collect();
    Ok(format!(
        r#"# Written by `tl-sweep recommend`: is what it says of this dataset true? `tl-sweep plan FILE` says what that costs.

[experiment]
name           = {name}
question       = "Is {first} the recipe for these images?"
replicates     = 3
max_replicates = 12     # what these leave open runs on, until it is settled

[backbone]
{backbone}
[datasets.mine]
path = {path}
{reading}
[scenarios.{scenario}]
size       = "{size}"
similarity = "{similarity}"
dataset    = "mine"
{recipes}
[train]
steps = 500
batch = 32

[axes]
recipe = [{names}]
lr     = {{ log = [1e-3, 1e-1], n = 3 }}
{rules}"#,
        name = quoted(&format!("recommended-{}", stem(&seen.dataset))),
        first = advice.recipes[0].name,
        backbone = backbone(seen, what)?,
        path = quoted(&place(&seen.dataset, asked.out.as_deref(), common)),
        size = advice.size,
        similarity = advice.similarity,
        recipes = recipes(what, panel, advice)?,
        names = names.join(", "),
        rules = rules(&scenario, advice),
    ))
}

/// A text as TOML has it.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The weights as they were named, and what does not come with them.
fn backbone(seen: &Seen, what: &Survey) -> anyhow::Result<String> {
    let known = identify(&what.weights)?.known.is_some();
    let recognised = (!known).then(|| what.arch.name.clone());
    let mut text = format!("weights = {}\n", quoted(&seen.from));
    let arch = seen.arch.clone().or(recognised);
    for (key, value) in [("arch", &arch), ("preprocess", &seen.preprocess), ("resize", &seen.resize)] {
        text.extend(value.iter().map(|value| format!("{key} = {}\n", quoted(value))));
    }
    text.extend(seen.input.map(|input| format!("input = {input}\n")));
    if !known && what.arch.width != 1.0 {
        text.push_str(&format!("width = {:?}\n", what.arch.width));
    }
    Ok(text)
}

/// Those recipes that are not built in, or not as these features want them.
fn recipes(what: &Survey, panel: &Panel, advice: &Advice) -> anyhow::Result<String> {
    let named = |name: &str| advice.recipes.iter().any(|recipe| recipe.name == name);
    let mut text = String::new();
    let taps = [("early-features", advice.earlier, "{ mlp = [256] }"), ("grid-probe", advice.grid, "\"linear\"")];
    for (name, place, head) in taps {
        if let Some((place, _)) = place.filter(|_| named(name)) {
            let (tap, pool) = (quoted(&panel.taps[place].name), &panel.taps[place].pool);
            text.push_str(&format!(
                "\n[recipes.{name}]\nfreeze = \"all\"\ntap    = {tap}\npool   = {pool}\nhead   = {head}\n"
            ));
        }
    }
    if let Some(own) = panel.together.as_ref().filter(|_| named("all-layers")) {
        let taps: Vec<String> = own.name.split(AND).map(quoted).collect();
        text.push_str(&format!(
            "\n[recipes.all-layers]\nfreeze = \"all\"\ntap    = [{}]\npool   = {}\n",
            taps.join(", "),
            own.pool
        ));
    }
    if named("lda") {
        text.push_str("\n[recipes.lda]\nfreeze    = \"all\"\noptimizer = \"lda\"\n");
    }
    if named("last-block") {
        let below = quoted(&below_the_last_block(&what.arch)?);
        text.push_str(&format!("\n[recipes.last-block]\nfreeze     = {below}\nhead_start = \"lda\"\n"));
    }
    Ok(text)
}

fn rules(scenario: &str, advice: &Advice) -> String {
    let first = advice.recipes[0].name;
    let rule = |other: &str| {
        format!("\n[[rule]]\nscenario = \"{scenario}\"\nclaim    = \"{first} > {other}\"\nmargin   = 0.01\n")
    };
    advice.recipes[1..].iter().map(|recipe| rule(recipe.name)).collect()
}

/// The dataset as a file at `out` finds it: under --data by its name, or beside the file, or wherever it is.
pub(super) fn place(typed: &str, out: Option<&Path>, common: &Common) -> String {
    let folder = common.data.as_ref().filter(|_| !Path::new(typed).exists());
    let under = folder.and_then(|folder| Some(named(folder, typed)?.strip_prefix(folder).ok()?.display().to_string()));
    let beside = out.and_then(Path::parent).is_none_or(|folder| folder.as_os_str().is_empty());
    match (under, std::path::absolute(typed)) {
        (Some(name), _) => name,
        (None, Ok(whole)) if common.data.is_some() || !beside => whole.display().to_string(),
        _ => typed.to_owned(),
    }
}

pub(super) fn stem(dataset: &str) -> String {
    let name = Path::new(dataset).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    name.split('.').next().unwrap_or_default().to_owned()
}

/// The block that everything up to is frozen where only the last block with weights trains.
fn below_the_last_block(arch: &Arch) -> anyhow::Result<String> {
    let graph = arch.backbone("features").map_err(anyhow::Error::msg)?;
    let weighs = |block: &&str| {
        (0..graph.layers.len()).any(|layer| graph.layers[layer].block == **block && graph.param_count(layer) > 0)
    };
    let blocks: Vec<&str> = graph.blocks().into_iter().filter(weighs).collect();
    Ok(match blocks[..] {
        [.., below, _] => below.to_owned(),
        _ => "none".to_owned(),
    })
}
