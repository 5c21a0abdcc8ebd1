//! What `plan` says of class names: the texts that heads start from, to be read before they are believed.

use std::collections::HashSet;

use crate::plan::stage::Texts;
use crate::plan::{Facts, Plan};
use crate::recipe::NAME_HERE;
use crate::value::Value;

/// Texts that are shown of a dataset; of more, the first and the last.
const SHOWN: usize = 4;

/// A line for each dataset and list of prompts; nothing where no head starts so.
pub fn echo(plan: &Plan, facts: &Facts) -> Option<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    for cell in plan.cells.iter().filter(|cell| seen.insert(cell.shape())) {
        let Ok(chain) = plan.stages(cell, 0, facts) else { continue };
        let Some(texts) = &chain.train.texts else { continue };
        let dataset = plan.settled(cell).get("dataset").map_or_else(String::new, Value::to_string);
        let line = format!("  {dataset}: {}", shown(texts));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    (!lines.is_empty()).then(|| format!("class names\n{}", lines.join("\n")))
}

/// Its texts in the first prompt, and how many prompts there are.
pub fn shown(texts: &Texts) -> String {
    let Some(first) = texts.prompts.first() else { return String::new() };
    let said: Vec<String> = texts.names.iter().map(|name| format!("\"{}\"", first.replace(NAME_HERE, name))).collect();
    let all = match said.len() {
        all if all > SHOWN => format!("{}, ... {}", said[..SHOWN - 1].join(", "), said[all - 1]),
        _ => said.join(", "),
    };
    match texts.prompts.len() - 1 {
        0 => all,
        1 => format!("{all}, and in one more prompt"),
        more => format!("{all}, and in {more} more prompts"),
    }
}
