//! `labels FILE`: which images of an experiment are probably labelled wrong, by all that its recipes answered; with `--out`,
//! as a page of pictures.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;

use super::{Exit, Usage, findings, opened, print, table_style, world};
use crate::cli::{Asked, Common, Format, LabelsOf};
use crate::data::Dataset;
use crate::data::picture::Picture;
use crate::experiment::Experiment;
use crate::frame::{Frame, Resize};
use crate::key::Key;
use crate::report::arm::Arm;
use crate::report::findings::Findings;
use crate::report::labels::{self, HeldOut, Labels};
use crate::report::look::Shown;
use crate::report::table::Style;
use crate::store::Store;
use crate::store::answers::{Images, TestAnswers};

/// Pixels of a picture, and as many on the screen.
const SIDE: usize = 160;

pub fn run(asked: &LabelsOf, common: &Common) -> anyhow::Result<Exit> {
    let experiment = Experiment::load(&asked.asked.file, &asked.asked.set)?;
    let store = Store::read(&common.db)?;
    let found = findings::gather(&store, Some(&experiment.name))?;
    let heard = heard(&store, &found, &asked.asked)?;
    if heard.is_empty() {
        let cure = format!("`tl-sweep run {}` first", asked.asked);
        return Err(Usage(format!("no trial of '{}' has finished: {cure}", experiment.name)).into());
    }
    if let Some(out) = &asked.out {
        let pictures = pictures(&experiment, &heard, asked.images, &asked.asked.file, common)?;
        let all: Vec<Labels> = heard.into_iter().map(|(labels, _)| labels).collect();
        std::fs::write(out, labels::html(&experiment.name, &all, &pictures))
            .with_context(|| format!("cannot write '{}'", out.display()))?;
        let shown: usize = pictures.iter().map(Vec::len).sum();
        print(&format!("'{}': {shown} images", out.display()))?;
        return Ok(Exit::Complete);
    }
    let all: Vec<Labels> = heard.into_iter().map(|(labels, _)| labels).collect();
    let text = match asked.format {
        Format::Json => serde_json::to_string_pretty(&labels::json(&experiment.name, &all))?,
        Format::Csv => labels::csv(&all)?,
        Format::Table => told(&all, table_style(), asked.images),
        Format::Md => told(&all, Style::Markdown, asked.images),
    };
    print(text.trim_end())?;
    Ok(Exit::Complete)
}

fn told(all: &[Labels], style: Style, most: usize) -> String {
    let one = |labels: &Labels| match labels.in_question().count() {
        0 => labels.said(),
        found => {
            let more = if found > most { format!("\nand {} more", found - most) } else { String::new() };
            format!("{}\n{}{more}", labels.said(), labels.table(style, most))
        }
    };
    let mut parts: Vec<String> = all.iter().map(one).collect();
    if all.iter().any(|labels| labels.in_question().next().is_some()) {
        parts.push(
            "that they are sure does not make a label wrong, least where they are often wrong: --out PAGE.html shows the images"
                .to_owned(),
        );
    }
    parts.join("\n\n")
}

/// What all recipes say of each dataset that they were tested on, with its images.
fn heard(store: &Store, found: &Findings, asked: &Asked) -> anyhow::Result<Vec<(Labels, Images)>> {
    let mut datasets: Vec<&str> = Vec::new();
    for arm in &found.arms {
        let name = arm.context_value("dataset");
        if !datasets.contains(&name) && !arm.tested().is_empty() {
            datasets.push(name);
        }
    }
    datasets.into_iter().map(|name| of_dataset(store, found, name, asked)).collect()
}

fn of_dataset(store: &Store, found: &Findings, name: &str, asked: &Asked) -> anyhow::Result<(Labels, Images)> {
    let arms: Vec<&Arm> = found.arms.iter().filter(|arm| arm.context_value("dataset") == name).collect();
    let trials: Vec<Vec<Key>> =
        arms.into_iter().map(|arm| arm.tested().iter().map(|trial| trial.key).collect()).collect();
    let first = trials.iter().flatten().next().ok_or_else(|| anyhow::anyhow!("nothing was tested on '{name}'"))?;
    let images = store.images_of(*first)?;
    let (mut recipes, mut without) = (Vec::new(), 0);
    for keys in trials {
        let mut own = Vec::new();
        for key in keys {
            match held_out(store.held_out_answers(key, &images)?) {
                Some(answers) => own.push(answers),
                None => without += 1,
            }
        }
        recipes.extend(Some(own).filter(|own| !own.is_empty()));
    }
    if recipes.is_empty() {
        return Err(Usage(format!(
            "of {without} trials on '{name}' it is not known how sure they were: they ran before it was stored; `tl-sweep rerun {asked} \
             --only \"dataset == '{name}'\"` runs them again"
        ))
        .into());
    }
    Ok((Labels { without, ..Labels::of(name, &images.classes, &images.list, &recipes) }, images))
}

/// Both parts as one; none of a trial that ran before confidences were stored.
fn held_out(parts: [TestAnswers; 2]) -> Option<HeldOut> {
    let mut all = HeldOut::default();
    for TestAnswers { samples, predicted, truth, probability, confidence } in parts {
        all.samples.extend(samples);
        all.labels.extend(truth);
        all.answers.extend(predicted);
        all.of_label.extend(probability);
        all.of_answer.extend(confidence?);
    }
    Some(all)
}

/// Of each dataset the first images in question.
fn pictures(
    experiment: &Experiment,
    heard: &[(Labels, Images)],
    most: usize,
    file: &Path,
    common: &Common,
) -> anyhow::Result<Vec<Vec<Shown>>> {
    let used: BTreeSet<String> = heard.iter().map(|(labels, _)| labels.dataset.clone()).collect();
    let (cache, mut problems) = (common.db.parent().unwrap_or(Path::new("")).join("cache"), Vec::new());
    let datasets = opened::datasets(experiment, &used, &world::data_folder(file, common), &cache, &mut problems);
    if !problems.is_empty() {
        return Err(experiment.problems(problems).into());
    }
    let one = |(labels, images): &(Labels, Images)| {
        let dataset = &datasets[&labels.dataset];
        if dataset.manifest.fingerprint.to_string() != images.data {
            let name = &labels.dataset;
            return Err(Usage(format!(
                "the images of '{name}' are not those that the trials were tested on: they have changed since; `tl-sweep run` \
                 takes them as they are now"
            ))
            .into());
        }
        shown(dataset, labels, most)
    };
    heard.iter().map(one).collect()
}

fn shown(dataset: &Dataset, labels: &Labels, most: usize) -> anyhow::Result<Vec<Shown>> {
    let images: Vec<_> = labels.in_question().take(most).collect();
    let wanted: Vec<usize> = images.iter().map(|image| image.sample as usize).collect();
    let squares = dataset.few_squares(&wanted, Frame { side: SIDE, resize: Resize::WHOLE })?;
    let picture = |image: &&labels::Examined| {
        let pixels =
            squares.get(&(image.sample as usize)).with_context(|| format!("'{}' was not read", image.image))?;
        Ok(Shown { png: Picture::square(SIDE, pixels).png()?, caption: labels::caption(image), width: SIDE })
    };
    images.iter().map(picture).collect()
}
