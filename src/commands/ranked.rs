//! The experiment file that tests the order of `rank`.

use super::data::reading_lines;
use super::materials::Prepared;
use super::recommended::{place, quoted, stem};
use crate::cli::{Common, Rank};
use crate::model::catalogue::identify;

/// The text of the file: each weight file probed and fine-tuned on all images.
///
/// # Errors
/// A weight file cannot be read.
pub fn experiment(asked: &Rank, common: &Common, prepared: &[Prepared]) -> anyhow::Result<String> {
    let reading = reading_lines(&asked.reading);
    Ok(format!(
        r#"# Written by `tl-sweep rank`: is its order of these weights true? `tl-sweep plan FILE` says what that costs,
# `tl-sweep rank` with --against {name} what each score was worth.

[experiment]
name            = {name}
question        = "Which weights for these images?"
replicates      = 3
tune_replicates = 2

[datasets.mine]
path = {path}
{reading}
[scenarios.all]
dataset = "mine"

[train]
steps = 500
batch = 32

[axes]
recipe = ["linear-probe", "fine-tune"]
lr     = {{ log = [1e-3, 1e-1], n = 3 }}

[[zip]]
{zip}"#,
        name = quoted(&format!("ranked-{}", stem(&asked.dataset))),
        path = quoted(&place(&asked.dataset, asked.out.as_deref(), common)),
        zip = zip(asked, prepared)?,
    ))
}

/// The weights as they were named, and what does not come with them.
fn zip(asked: &Rank, prepared: &[Prepared]) -> anyhow::Result<String> {
    let list = |values: Vec<String>| values.join(", ");
    let mut text = format!("weights = [{}]\n", list(asked.files.iter().map(|file| quoted(&file.name)).collect()));
    let mut unknown = false;
    for one in prepared {
        unknown |= identify(&one.weights)?.known.is_none();
    }
    if unknown {
        let all = |of: fn(&Prepared) -> String| list(prepared.iter().map(of).collect());
        text.push_str(&format!("arch = [{}]\n", all(|one| quoted(&one.arch.name))));
        text.push_str(&format!("preprocess = [{}]\n", all(|one| quoted(&one.preprocess.to_string()))));
        text.push_str(&format!("width = [{}]\n", all(|one| format!("{:?}", one.arch.width))));
    }
    text.extend(asked.input.map(|input| format!("input = [{}]\n", vec![input.to_string(); prepared.len()].join(", "))));
    Ok(text)
}
