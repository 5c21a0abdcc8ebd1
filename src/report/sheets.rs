//! What the tables of a report say, whatever they are drawn in: each with its title, its heading and its rows.

use super::arm::{Arm, Context, Setting};
use super::calibration;
use super::choice;
use super::findings::{Findings, further_context, shown_difference, shown_mean, tera};
use super::growth_sheets;
use super::price;
use super::protocol::{cross_validated, tuned};
use super::rivals;
use super::rules;
use super::shift;
use super::variance;
use super::verdict::Verdict;

/// What a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Which recipe to use, and what stands beside it.
    Rivals,
    Best,
    /// What pretrained weights are worth.
    Gains,
    /// What each way to choose a recipe is worth over all scenarios.
    Choices,
    /// What an answer costs, and what a dearer one is worth.
    Prices,
    /// What more images buy, of the first dataset of which scenarios differ in their number, of the second, ...
    Growth(usize),
    /// Which recipe is better for how many images.
    Turns,
    Arms,
    /// How much of the variance each choice makes.
    Variance,
    Depths,
    /// What recipes score on other datasets.
    Shifts(shift::Part),
    /// How far probabilities can be trusted.
    Calibration,
    Rules,
    /// What a recipe gets wrong.
    Errors,
}

/// A table. A cell may have several lines.
pub struct Sheet {
    pub kind: Kind,
    pub title: String,
    pub heading: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// What rows refer to as `[1]`, line by line.
    pub notes: Vec<String>,
}

/// A report.
pub struct Sheets {
    pub name: String,
    pub question: String,
    /// How far it is, line by line.
    pub state: Vec<String>,
    /// The table for those who read one: first on a page, last in a terminal.
    pub short: Option<Sheet>,
    pub sheets: Vec<Sheet>,
    /// What sharing saved, and what running trials alone found.
    pub sharing: Option<String>,
}

/// The whole report.
pub fn sheets(findings: &Findings) -> Sheets {
    let title = |kind: &str| format!("{} on test by {kind}", findings.metric);
    let mut sheets = vec![
        square(findings, "Best recipe per scenario, selected on validation"),
        arms(findings, format!("{}: mean, 95% CI over replicates", title("recipe"))),
    ];
    sheets.extend(variance::sheet(findings));
    sheets.extend(choice::sheet(findings));
    sheets.extend(growth_sheets::sheets(findings));
    sheets.extend(price::sheet(findings));
    sheets.extend(gains(findings));
    sheets.extend(depths(findings, title(findings.depth_words())));
    sheets.extend(shift::sheets(findings));
    sheets.extend(calibration::sheet(findings));
    sheets.extend(rules::sheet(findings));
    Sheets {
        name: findings.experiment.clone(),
        question: findings.question.clone(),
        state: state_of(findings),
        short: rivals::sheet(findings),
        sheets,
        sharing: sharing(findings),
    }
}

impl Sheet {
    pub fn new(kind: Kind, title: impl Into<String>, heading: &[&str], rows: Vec<Vec<String>>) -> Self {
        let heading = heading.iter().map(|name| (*name).to_owned()).collect();
        Self { kind, title: title.into(), heading, rows, notes: Vec::new() }
    }
}

fn state_of(findings: &Findings) -> Vec<String> {
    let counts = &findings.counts;
    let mut text = format!("{} of {} trials done", counts.done, counts.planned);
    for (count, word) in [
        (counts.diverged, "diverged"),
        (counts.failed, "failed"),
        (counts.missing, "missing"),
        (counts.at_chance, "at chance"),
        (counts.under_trained, "under-trained"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    let mixed = (findings.numerics.len() > 1)
        .then(|| format!("results of several numerics classes are mixed here: {}", findings.numerics.join(", ")));
    let set = (!findings.set.is_empty()).then(|| format!("with --set {}", findings.set.join(", ")));
    std::iter::once(text).chain(set).chain(mixed).chain(calibration::unknown(findings)).collect()
}

/// What sharing saved, and what running trials alone found.
fn sharing(findings: &Findings) -> Option<String> {
    let sharing = &findings.sharing;
    if sharing.macs <= 0.0 {
        return None;
    }
    let audit = match (sharing.audited, sharing.wrong) {
        (0, _) => "no trial was run again alone (`tl-sweep verify FILE` does)".to_owned(),
        (audited, 0) => format!("{audited} trials were run again alone, and gave the same bit for bit"),
        (audited, wrong) => format!("{wrong} of {audited} trials that were run again alone gave something else"),
    };
    let factor = sharing.macs_alone / sharing.macs;
    Some(format!(
        "Sharing: {:.2} TFLOP instead of {:.2}, a factor of {factor:.1}; {audit}",
        2e-12 * sharing.macs,
        2e-12 * sharing.macs_alone
    ))
}

/// What pretrained weights are worth in each scenario: the best recipe that starts from them beside the best that does not.
fn gains(findings: &Findings) -> Option<Sheet> {
    let mut notes = Vec::new();
    let told: Vec<(String, String)> = findings
        .gains
        .iter()
        .map(|gain| {
            let get = |key: &str| {
                gain.context.iter().find(|(name, _)| name == key).map_or(String::new(), |(_, value)| value.clone())
            };
            let further = further(&gain.context);
            let mark = match gain.notes.is_empty() {
                true => String::new(),
                false => {
                    notes.push(format!("[{}] {}", notes.len() + 1, gain.notes.join("; ")));
                    format!(" [{}]", notes.len())
                }
            };
            let place = if further.is_empty() { String::new() } else { format!(" ({further})") };
            let text = format!(
                "{}{mark}\n{} over {}{place}",
                shown_difference(&gain.difference),
                gain.pretrained,
                if gain.random == gain.pretrained { "the same at random" } else { &gain.random }
            );
            (get("scenario"), text)
        })
        .collect();
    let of = |scenario: &str| {
        let own: Vec<&str> = told.iter().filter(|(name, _)| name == scenario).map(|(_, text)| text.as_str()).collect();
        if own.is_empty() { "-".to_owned() } else { own.join("\n\n") }
    };
    let title = format!("What pretrained weights are worth: {} on test, 95% CI", findings.metric);
    let sheet = by_scenario(findings, Kind::Gains, &title, "gain", of);
    (!told.is_empty()).then_some(Sheet { notes, ..sheet })
}

/// The two by two of size and similarity; scenarios without both labels get rows of their own.
fn square(findings: &Findings, title: &str) -> Sheet {
    let best = |name: &str| match findings.best(name) {
        None => "missing".to_owned(),
        Some((arm, setting)) => {
            let test = Findings::test(arm).map_or_else(String::new, shown_mean);
            let setting = if setting.label.is_empty() { String::new() } else { format!(" ({})", setting.label) };
            format!("{}{setting}\n{test}", named(arm))
        }
    };
    // Settings are selected in each fold for itself, recipes by the mean over folds.
    let seen =
        "in folds the best recipe is chosen on images that other replicates test: its score may be a little too good";
    let notes = if findings.folds.is_empty() { Vec::new() } else { vec![seen.to_owned()] };
    Sheet { notes, ..by_scenario(findings, Kind::Best, title, "best recipe", best) }
}

fn by_scenario(findings: &Findings, kind: Kind, title: &str, what: &str, of: impl Fn(&str) -> String) -> Sheet {
    let cell = |size: &str, similarity: &str| {
        let inside = findings.scenarios.iter().filter(|scenario| {
            scenario.size.as_deref() == Some(size) && scenario.similarity.as_deref() == Some(similarity)
        });
        let parts: Vec<String> =
            inside.map(|scenario| format!("{}\n{}", place(scenario), of(&scenario.name))).collect();
        if parts.is_empty() { "-".to_owned() } else { parts.join("\n\n") }
    };
    let labelled = findings.scenarios.iter().any(|scenario| scenario.size.is_some() && scenario.similarity.is_some());
    if !labelled {
        let rows: Vec<Vec<String>> =
            findings.scenarios.iter().map(|scenario| vec![place(scenario), lines(&of(&scenario.name))]).collect();
        return Sheet::new(kind, title, &["scenario", what], rows);
    }
    let rows = ["small", "large"].map(|size| vec![size.to_owned(), cell(size, "similar"), cell(size, "different")]);
    Sheet::new(kind, title, &["", "similar", "different"], rows.into())
}

/// What stands below each other, each on one line.
fn lines(text: &str) -> String {
    text.split("\n\n").map(|one| one.replace('\n', "  ")).collect::<Vec<_>>().join("\n")
}

fn place(scenario: &super::findings::Scenario) -> String {
    let size = scenario.per_class.map_or_else(|| "all images".to_owned(), |count| format!("{count} per class"));
    format!("{}: {}, {size}", scenario.name, scenario.dataset)
}

pub fn named(arm: &Arm) -> String {
    let further = further_context(arm);
    if further.is_empty() { arm.recipe.clone() } else { format!("{} [{further}]", arm.recipe) }
}

fn arms(findings: &Findings, title: String) -> Sheet {
    let known = !findings.expenses.is_empty();
    let mut rows = Vec::new();
    for scenario in &findings.scenarios {
        for arm in findings.of(&scenario.name) {
            let state = state(arm);
            let test = match (Findings::test(arm), arm.all_diverged()) {
                (Some(test), _) => shown_mean(test),
                (None, true) => "diverged".to_owned(),
                (None, false) => "missing".to_owned(),
            };
            let n = arm.test().len();
            let setting = arm.best().map_or_else(String::new, |setting| setting.label.clone());
            let data = format!("{} {}", arm.context_value("dataset"), size(arm));
            let mut row = vec![scenario.name.clone(), data, named(arm), test, n.to_string()];
            row.extend(known.then(|| findings.macs(arm).map_or_else(|| "-".to_owned(), tera)));
            rows.push(row.into_iter().chain([setting, arm.tried().to_string(), state]).collect());
        }
    }
    let cost = known.then_some("TFLOP");
    let heading: Vec<&str> = ["scenario", "data", "recipe", "test", "n"]
        .into_iter()
        .chain(cost)
        .chain(["selected", "tried", "state"])
        .collect();
    let near = findings.near.iter().map(|found| {
        format!(
            "{}: {} of {} test images are near-duplicates of images trained or validated on",
            found.dataset, found.near, found.of
        )
    });
    let folds = findings.folds.iter().map(|of| cross_validated(of, findings));
    let cost = known.then(|| "TFLOP: one trial with the selected setting, by itself".to_owned());
    let notes = tuned(findings).into_iter().chain(near).chain(folds).chain(cost).collect();
    Sheet { notes, ..Sheet::new(Kind::Arms, title, &heading, rows) }
}

fn size(arm: &Arm) -> String {
    match arm.context_value("per_class") {
        "" => "(all)".to_owned(),
        count => format!("({count} per class)"),
    }
}

/// What is not plainly done, counted over all settings of an arm.
fn state(arm: &Arm) -> String {
    let of = |setting: &Setting, status: &str| setting.count(status) + setting.count_short(status);
    let total = |status: &str| arm.settings.iter().map(|setting| of(setting, status)).sum::<usize>();
    let flagged = |flag: fn(&super::arm::Trial) -> bool| arm.tested().into_iter().filter(|trial| flag(trial)).count();
    let parts = [
        (total("diverged"), "diverged"),
        (total("failed") + total("blocked"), "failed"),
        (total("planned") + arm.unplanned, "missing"),
        (flagged(|trial| trial.at_chance), "at-chance"),
        (flagged(|trial| trial.under_trained), "under-trained"),
    ];
    let counted = parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    counted.chain(arm.at_ends()).collect::<Vec<_>>().join(", ")
}

/// Depths by scenario, where one is an axis.
fn depths(findings: &Findings, title: String) -> Option<Sheet> {
    let (key, mut depths) = (findings.depth_key(), Vec::<&str>::new());
    for arm in &findings.arms {
        let depth = arm.context_value(key);
        if !depth.is_empty() && !depths.contains(&depth) {
            depths.push(depth);
        }
    }
    if depths.len() < 2 {
        return None;
    }
    let mut recipes: Vec<&str> = Vec::new();
    for arm in &findings.arms {
        if !recipes.contains(&arm.recipe.as_str()) {
            recipes.push(&arm.recipe);
        }
    }
    let mut rows = Vec::new();
    for recipe in &recipes {
        let one = depthless(findings, recipe);
        for depth in depths.iter().take(if one { 1 } else { depths.len() }) {
            let mut row = vec![match (one, recipes.len()) {
                (true, _) => (*recipe).to_owned(),
                (_, 1) => (*depth).to_owned(),
                _ => format!("{recipe}, {depth}"),
            }];
            for scenario in &findings.scenarios {
                let cells: Vec<String> = findings
                    .of(&scenario.name)
                    .filter(|arm| arm.recipe == *recipe && arm.context_value(key) == *depth)
                    .map(|arm| {
                        Findings::test(arm).map_or_else(
                            || "missing".to_owned(),
                            |test| format!("{} (n = {})", shown_mean(test), test.n),
                        )
                    })
                    .collect();
                row.push(if cells.is_empty() { "-".to_owned() } else { cells.join("; ") });
            }
            rows.push(row);
        }
    }
    let mut heading = vec![key];
    heading.extend(findings.scenarios.iter().map(|scenario| scenario.name.as_str()));
    Some(Sheet::new(Kind::Depths, title, &heading, rows))
}

/// Whether a recipe is the same configuration at all depths.
fn depthless(findings: &Findings, recipe: &str) -> bool {
    findings.scenarios.iter().all(|scenario| {
        let arms = findings.of(&scenario.name).filter(|arm| arm.recipe == recipe);
        let cells: Vec<_> = arms.map(|arm| arm.settings.iter().map(|own| own.cell).collect::<Vec<_>>()).collect();
        cells.windows(2).all(|pair| pair[0] == pair[1])
    })
}

/// A context beyond scenario, dataset and size, as `freeze = layer1, lr = 0.1`.
fn further(context: &Context) -> String {
    let further = context
        .iter()
        .filter(|(key, value)| !matches!(key.as_str(), "scenario" | "dataset" | "per_class") && !value.is_empty());
    further.map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ")
}

pub fn place_of(verdict: &Verdict) -> String {
    let get = |key: &str| verdict.context.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value.as_str());
    let further = match further(&verdict.context) {
        text if text.is_empty() => text,
        text => format!(", {text}"),
    };
    let size = if get("per_class").is_empty() { "all".to_owned() } else { get("per_class").to_owned() };
    let on = verdict.rule.on.as_ref().map_or_else(String::new, |on| format!(" on {on}"));
    format!("{} ({} {size}{further}){on}", get("scenario"), get("dataset"))
}
