//! `export FILE TRIAL`: a trial's trained network as a weight file that Keras or PyTorch loads, or as one that runtimes of ONNX run.
//! `export FILE --bundle`: the experiment and its results, for others to repeat.

use std::path::Path;

use super::jobs;
use super::verify::difference;
use super::world::World;
use super::{Exit, NoDevice, Usage, bundle, findings, prepare, print};
use crate::cli::{Asked, Common, Names};
use crate::experiment::Experiment;
use crate::key::Key;
use crate::model::graph::Framework;
use crate::outcome::{Ending, Outcome};
use crate::plan::{Plan, trial_key};
use crate::store::Store;
use crate::store::query::Recorded;
use crate::train::{self, Form, Origin, Shelf};

pub fn run(asked: &Asked, prefix: &str, out: &Path, names: Option<Names>, common: &Common) -> anyhow::Result<Exit> {
    let form = form(out, names)?;
    let experiment = Experiment::load(&asked.file, &asked.set)?;
    let mut world = World::gather(&experiment, &asked.file, common)?;
    world.keep = true;
    let mut plan = Plan::new(&experiment, &world.facts).map_err(|list| experiment.problems(list))?;
    let (index, replicate, key) = find(&plan, prefix)?;
    plan.choose([(plan.cells[index].key, plan.max_replicates)].into());
    let recorded = recorded(common, key);
    let all = jobs::jobs(&plan, &[index], &Default::default(), &world).map_err(anyhow::Error::msg)?;
    let work = jobs::trial_work(&plan, &plan.cells[index], replicate, &world, &all.kept).map_err(anyhow::Error::msg)?;
    train::exportable(&work, form).map_err(|error| Usage(format!("{error:#}")))?;
    prepare::prepare_data(&plan, &all, &world)?;
    if !common.quiet && !world.places.network(key).is_file() {
        eprintln!("running trial {} again: its weights follow from its settings, to the bit", key.short());
    }
    world.rates.rest();
    let places = world.places.clone();
    let facts = [("trial".to_owned(), key.to_string()), ("experiment".to_owned(), experiment.name.clone())];
    let target = out.to_owned();
    let done = train::on_device(world.devices.uuid(), work.stage.precision(), move |device| {
        train::export(&work, &mut Shelf::new(places, device)?, form, &target, &facts)
    })
    .map_err(|failure| NoDevice(failure.message))??;
    let test = match &done.origin {
        Origin::Kept { accuracy, .. } => format!("{accuracy:.4}"),
        Origin::Again(outcome) => {
            let trial = outcome.trial.as_ref().ok_or_else(|| anyhow::anyhow!("the trial left no scores"))?;
            if trial.ending == Ending::Diverged {
                print("this trial diverged: what is written is where it stopped")?;
            }
            trial.test.map_or_else(|| "none".to_owned(), |scores| format!("{:.4}", scores.accuracy))
        }
    };
    print(&format!("{}: {} tensors, {} numbers; test accuracy {test}", out.display(), done.tensors, done.numbers))?;
    if done.merged {
        print(
            "what was added to dense layers is merged into them: what the file answers is what the trial did, to rounding; a .safetensors without --names does so to the bit",
        )?;
    }
    if form == Form::Onnx {
        print(ONNX)?;
    }
    let Some(recorded) = recorded else {
        print("the store has no results of this trial to compare with")?;
        return Ok(Exit::Complete);
    };
    match &done.origin {
        Origin::Kept { predicted, .. } => compared_answers(&recorded, predicted),
        Origin::Again(outcome) => compared(&recorded, outcome),
    }
}

/// What a person must know who runs such a file.
pub const ONNX: &str = "it reads `images`, float32 [n, 3, side, side], red, green and blue from 0 to 255, prepares them itself, and gives `logits` and \
    `probabilities`; its metadata have the names of the classes and how images become squares (`resize`)";

/// What is to be written, by the ending of a file.
///
/// # Errors
/// The ending is neither of both, or names are asked for that such a file has not got.
pub fn form(out: &Path, names: Option<Names>) -> anyhow::Result<Form> {
    match out.extension().and_then(|ending| ending.to_str()) {
        Some("safetensors") => Ok(Form::Tensors(names.map(framework))),
        Some("onnx") if names.is_none() => Ok(Form::Onnx),
        Some("onnx") => Err(Usage("a file for ONNX has no framework's names: leave --names out".to_owned()).into()),
        _ => Err(Usage(format!("'{}' should end in .safetensors, or in .onnx", out.display())).into()),
    }
}

/// Whether what was kept answers as the store says.
fn compared_answers(recorded: &Recorded, predicted: &[u16]) -> anyhow::Result<Exit> {
    let answers = recorded.test_predicted.len();
    if recorded.test_predicted == predicted {
        print(&format!("kept since it was trained; its {answers} answers on test are those in the store"))?;
        return Ok(Exit::Complete);
    }
    print(
        "what was kept is NOT what the store holds: delete it from `networks` beside the store, and the trial is run again",
    )?;
    Ok(Exit::Mismatch)
}

/// Whether a trial that was run again gave what the store holds.
fn compared(recorded: &Recorded, outcome: &Outcome) -> anyhow::Result<Exit> {
    let answers = recorded.test_predicted.len();
    match difference(recorded, outcome).as_str() {
        "" if recorded.numerics == outcome.numerics => {
            print(&format!(
                "its curve, its losses and its {answers} answers on test are those in the store, to the bit"
            ))?;
        }
        "" => print(&format!(
            "its losses and its {answers} answers on test are near those in the store, which {} computed",
            recorded.numerics
        ))?,
        difference => {
            print(&format!(
                "it is NOT what the store holds: {difference}; another engine, instruction path or data made that"
            ))?;
            return Ok(Exit::Mismatch);
        }
    }
    Ok(Exit::Complete)
}

/// The key of the trial that is best in a scenario: the recipe and setting that validation selects over all replicates,
/// and of these the replicate that it scores highest.
///
/// # Errors
/// The experiment has no such scenario, or nothing finished in it.
pub fn best(asked: &Asked, scenario: &str, common: &Common) -> anyhow::Result<String> {
    let experiment = Experiment::load(&asked.file, &asked.set)?;
    let findings = findings::gather(&Store::read(&common.db)?, Some(&experiment.name))?;
    let names: Vec<&str> = findings.scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    if !names.contains(&scenario) {
        let known = names.join(", ");
        return Err(Usage(format!("'{}' has no scenario '{scenario}'; it has {known}", experiment.name)).into());
    }
    let (arm, setting) = findings
        .best(scenario)
        .ok_or_else(|| Usage(format!("nothing has finished in '{scenario}' yet: `tl-sweep run {asked}` runs it")))?;
    let mut highest = &setting.trials[0];
    for trial in &setting.trials {
        if trial.val > highest.val {
            highest = trial;
        }
    }
    if !common.quiet {
        let validation =
            highest.val.map_or_else(String::new, |value| format!(", {} {value:.4} on validation", findings.metric));
        let label = if setting.label.is_empty() { String::new() } else { format!(" ({})", setting.label) };
        eprintln!("best in {scenario}: {}{label}, replicate {}{validation}", arm.recipe, highest.replicate);
    }
    Ok(highest.key.to_string())
}

/// Writes a whole experiment.
pub fn bundle(asked: &Asked, out: &Path, common: &Common) -> anyhow::Result<Exit> {
    if !out.to_string_lossy().ends_with(".tar.gz") {
        return Err(Usage(format!("'{}' should end in .tar.gz", out.display())).into());
    }
    let experiment = Experiment::load(&asked.file, &asked.set)?;
    let packed = bundle::pack(asked, &experiment, &Store::read(&common.db)?, out)?;
    let bundle::Packed { trials, missing, bytes } = packed;
    print(&format!("{}: {trials} trials, {} kB", out.display(), bytes.div_ceil(1000)))?;
    if missing > 0 {
        print(&format!("{missing} of them have no result: `tl-sweep run {asked}` runs what is missing"))?;
    }
    print(&format!(
        "`tl-sweep verify {}` repeats a sample of them wherever the same images and weights are: --data and --weights say where",
        out.display()
    ))?;
    Ok(Exit::Complete)
}

/// The names that a person asked for.
pub fn framework(names: Names) -> Framework {
    match names {
        Names::Keras => Framework::Keras,
        Names::Torch => Framework::Torch,
    }
}

/// The cell, the replicate and the key of the trial that `prefix` begins.
fn find(plan: &Plan, prefix: &str) -> anyhow::Result<(usize, usize, Key)> {
    let mut found: Vec<(usize, usize, Key)> = Vec::new();
    for replicate in 0..plan.max_replicates {
        for (index, cell) in plan.cells.iter().enumerate() {
            let key = trial_key(cell.key, replicate);
            if key.to_string().starts_with(prefix) && !found.iter().any(|(.., other)| *other == key) {
                found.push((index, replicate, key));
            }
        }
    }
    match found[..] {
        [one] => Ok(one),
        [] => Err(Usage(format!(
            "no trial of this file has a key that starts with '{prefix}' (`tl-sweep status NAME` lists them)"
        ))
        .into()),
        _ => Err(Usage(format!("{} trials' keys start with '{prefix}': give more digits", found.len())).into()),
    }
}

/// What the store holds of the trial, if it has finished.
fn recorded(common: &Common, key: Key) -> Option<Recorded> {
    let store = Store::read(&common.db).ok()?;
    let finished = store.finished().ok()?.contains(&key);
    finished.then(|| store.recorded(key).ok()).flatten()
}
