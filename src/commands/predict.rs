//! `predict MODEL IMAGES`: what a network that `export` wrote says of images.

use std::collections::HashSet;
use std::io::IsTerminal;

use super::devices::Devices;
use super::{Exit, NoDevice, Usage, print, table_style};
use crate::cli::{Common, Format, Predict};
use crate::data::loose::{self, Loose};
use crate::key::Key;
use crate::model::trained::{Opened, Trained};
use crate::report::predictions::{Answered, Predictions};
use crate::report::table::Style;
use crate::train::{self, Said};

/// Names of files that were left alone, at most so many.
const NAMED: usize = 5;

pub fn run(asked: &Predict, common: &Common) -> anyhow::Result<Exit> {
    let usage = |error: anyhow::Error| Usage(format!("{error:#}"));
    if asked.sure.is_some_and(|sure| !(0.0..=1.0).contains(&sure)) {
        return Err(Usage("--sure takes a probability between 0 and 1".to_owned()).into());
    }
    let devices = Devices::choose(&common.devices)?;
    let trained = Opened::read(&asked.model).map_err(usage)?;
    let files = loose::list(&asked.images).map_err(usage)?;
    let said = said(&trained, &files, &devices, common)?;
    let (images, others) = sorted(&trained.model, files, said);
    if images.is_empty() {
        return Err(Usage("there are no images there".to_owned()).into());
    }
    let Opened { model, mut facts, .. } = trained;
    facts.insert("file".to_owned(), asked.model.display().to_string());
    let predictions = Predictions { facts, classes: model.classes, images, sure: asked.sure };
    let text = match asked.format {
        Format::Table => predictions.table(table_style(), asked.top),
        Format::Md => predictions.table(Style::Markdown, asked.top),
        Format::Csv => predictions.csv(asked.top)?,
        Format::Json => serde_json::to_string_pretty(&predictions.json())?,
    };
    print(text.trim_end())?;
    close(&predictions, &others, asked.format, common)
}

fn said(trained: &Opened, files: &[Loose], devices: &Devices, common: &Common) -> anyhow::Result<Vec<Said>> {
    let shown = !common.quiet && std::io::stderr().is_terminal();
    let bar = if shown { indicatif::ProgressBar::new(files.len() as u64) } else { indicatif::ProgressBar::hidden() };
    devices.tell(common);
    let said = train::on_device(devices.uuid(), trained.model.precision, |device| {
        train::predict(trained, files, &device, &mut |done| bar.set_position(done as u64))
    });
    bar.finish_and_clear();
    said.map_err(|failure| NoDevice(failure.message))?
}

/// Images and what is said of them; files that are none.
fn sorted(model: &Trained, files: Vec<Loose>, said: Vec<Said>) -> (Vec<Answered>, Vec<Loose>) {
    let known: HashSet<Key> = model.seen.iter().copied().collect();
    let (mut images, mut others) = (Vec::new(), Vec::new());
    for (file, said) in files.into_iter().zip(said) {
        let path = file.path.clone();
        match said {
            Said::Answer { log_probabilities, content } => {
                images.push(Answered { path, found: Ok(log_probabilities), seen: known.contains(&content) });
            }
            Said::Broken(reason) => images.push(Answered { path, found: Err(reason), seen: false }),
            Said::Other => others.push(file),
        }
    }
    (images, others)
}

/// What a person should know beside the answers. A machine that reads them finds all of it there.
fn close(predictions: &Predictions, others: &[Loose], format: Format, common: &Common) -> anyhow::Result<Exit> {
    let people = matches!(format, Format::Table | Format::Md);
    for line in [predictions.left_open_words(), predictions.agreement_words()].into_iter().flatten().filter(|_| people)
    {
        print(&line)?;
    }
    if !common.quiet && !others.is_empty() {
        let names: Vec<String> = others.iter().take(NAMED).map(|file| file.path.display().to_string()).collect();
        let more = if others.len() > NAMED { ", ..." } else { "" };
        eprintln!("{} files are no images and were left alone: {}{more}", others.len(), names.join(", "));
    }
    let broken = predictions.broken().count();
    for (path, reason) in predictions.broken() {
        eprintln!("no answer to '{}': {reason}", path.display());
    }
    Ok(if broken > 0 { Exit::SomeFailed } else { Exit::Complete })
}
