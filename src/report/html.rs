//! A report as one page that needs nothing else: its tables, and what they say as pictures.

use super::choice;
use super::curves::by_depth;
use super::errors::Errors;
use super::figure::{Row, intervals};
use super::findings::{Findings, fraction};
use super::growth_sheets;
use super::price;
use super::reliability;
use super::settings::{Tuned, tuned};
use super::sheets::{Kind, Sheet, named, place_of, sheets};
use super::shift::{self, Part};
use super::verdict::{Answer, Verdict};

/// Classes and images of a scenario that are named, at most.
const CLASSES: usize = 12;
const MISSED: usize = 12;

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub fn report(findings: &Findings, errors: &[Errors]) -> String {
    let found = sheets(findings);
    let mut body = vec![format!("<h1>{}</h1>", escaped(&found.name))];
    body.extend(Some(&found.question).filter(|text| !text.is_empty()).map(|text| paragraph("question", text)));
    body.extend(found.state.iter().map(|text| paragraph("state", text)));
    for sheet in found.short.iter().chain(&found.sheets) {
        body.push(table(sheet));
        match sheet.kind {
            Kind::Rivals | Kind::Best | Kind::Variance | Kind::Gains | Kind::Turns => {}
            Kind::Shifts(Part::Each) | Kind::Errors => {}
            Kind::Growth(at) => body.extend(growth(findings, at)),
            Kind::Prices => body.extend(price::drawn(findings).and_then(picture)),
            Kind::Choices => body.extend(choice::drawn(findings).and_then(picture)),
            Kind::Shifts(Part::Lost) => body.extend(picture(shift::drawn(findings))),
            Kind::Arms => {
                body.extend(picture(arms(findings)));
                body.extend(settings(findings));
            }
            Kind::Depths => body.extend(depths(findings)),
            Kind::Calibration => body.extend(trust(findings)),
            Kind::Rules => body.extend(rules(findings).into_iter().filter_map(picture)),
        }
    }
    for wrong in errors {
        body.push(table(&sheet_of(wrong)));
    }
    body.extend(found.sharing.iter().map(|text| paragraph("state", text)));
    body.push(paragraph("made", concat!("Made by tl-sweep ", env!("CARGO_PKG_VERSION"))));
    page(&found.name, &body.join("\n"))
}

/// What a scenario's best recipe gets wrong.
fn sheet_of(errors: &Errors) -> Sheet {
    let all = errors.classes.len();
    let some =
        if all > CLASSES { format!(", {CLASSES} of {all} classes with the lowest recall") } else { String::new() };
    let over = if errors.replicates > 1 { format!(" over {} replicates", errors.replicates) } else { String::new() };
    Sheet {
        notes: vec![errors.missed_words(MISSED)],
        ..Sheet::new(
            Kind::Errors,
            format!("What {} gets wrong in {}{over}{some}", errors.recipe, errors.scenario),
            &Errors::HEADING,
            errors.rows(CLASSES),
        )
    }
}

/// A page that needs nothing else.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n",
        escaped(title)
    )
}

fn paragraph(class: &str, text: &str) -> String {
    format!("<p class=\"{class}\">{}</p>", escaped(text))
}

fn picture((title, rows, zero): (String, Vec<Row>, bool)) -> Option<String> {
    Some(figure(&intervals(&title, &rows, zero)?, &title))
}

fn figure(drawn: &str, title: &str) -> String {
    format!("<figure>\n{drawn}\n<figcaption>{}</figcaption>\n</figure>", escaped(title))
}

/// A picture for each scenario and each key that tunes.
fn settings(findings: &Findings) -> Vec<String> {
    let drawn = tuned(findings).into_iter().filter_map(|Tuned { key, beside, curves }| {
        let best = if beside { ", each with the best of the other settings" } else { "" };
        let of = findings.repeats.first().unwrap_or_else(|| "all replicates".to_owned());
        let lines = if findings.repeats.tuned > 1 { "lines: 95% over" } else { "on" };
        let title = format!("{}: {} on validation by {key}{best}; {lines} {of}", curves.name, findings.metric);
        Some(figure(&curves.drawn(&title)?, &title))
    });
    drawn.collect()
}

/// What each recipe reaches with how many images of a dataset.
fn growth(findings: &Findings, at: usize) -> Option<String> {
    let curves = growth_sheets::drawn(findings.growth.get(at)?);
    let title = format!(
        "{}: {} on test by training images per class; lines: 95% over replicates",
        curves.name, findings.metric
    );
    Some(figure(&curves.drawn(&title)?, &title))
}

/// A picture for each recipe that stands at several depths.
fn depths(findings: &Findings) -> Vec<String> {
    let drawn = by_depth(findings).into_iter().filter_map(|curves| {
        let title = format!(
            "{}: {} on test by {}, in the order of the file; lines: 95% over replicates",
            curves.name,
            findings.metric,
            findings.depth_words()
        );
        Some(figure(&curves.drawn(&title)?, &title))
    });
    drawn.collect()
}

/// Each arm's mean on test with its interval, scenario by scenario.
fn arms(findings: &Findings) -> (String, Vec<Row>, bool) {
    let mut rows = Vec::new();
    for scenario in &findings.scenarios {
        let best = findings.best(&scenario.name).map(|(arm, _)| std::ptr::from_ref(arm));
        for arm in findings.of(&scenario.name) {
            let Some(mean) = Findings::test(arm) else { continue };
            rows.push(Row {
                group: scenario.name.clone(),
                label: named(arm),
                value: mean.mean,
                half: mean.half_width,
                shown: fraction(mean.mean),
                class: if best == Some(std::ptr::from_ref(arm)) { "best" } else { "arm" },
            });
        }
    }
    let title =
        format!("{} on test by recipe; filled: selected on validation; lines: 95% over replicates", findings.metric);
    (title, rows, false)
}

/// How often answers are right by how sure they are.
fn trust(findings: &Findings) -> Option<String> {
    let title = "how often answers are right (up) by how sure they are (right), in 15 bins over all replicates; lines: where 95 of 100 bins \
                 lie whose answers are right as often as they are sure; below the diagonal they are too sure";
    Some(figure(&reliability::drawn(findings, title)?, title))
}

/// Each rule's difference with its interval, a picture for each metric.
fn rules(findings: &Findings) -> Vec<(String, Vec<Row>, bool)> {
    let mut metrics: Vec<&str> = Vec::new();
    for verdict in &findings.verdicts {
        let own = metric(verdict, findings);
        if !metrics.contains(&own) {
            metrics.push(own);
        }
    }
    metrics.into_iter().map(|metric| rules_by(findings, metric)).collect()
}

fn metric<'a>(verdict: &'a Verdict, findings: &'a Findings) -> &'a str {
    verdict.rule.metric.as_deref().unwrap_or(&findings.metric)
}

fn rules_by(findings: &Findings, by: &str) -> (String, Vec<Row>, bool) {
    let row = |verdict: &Verdict| {
        let difference = verdict.difference?;
        Some(Row {
            group: place_of(verdict),
            label: format!("{} > {}", verdict.rule.better, verdict.rule.worse),
            value: difference.mean,
            half: Some(difference.half_width(0.95)),
            shown: verdict.answer.to_string(),
            class: match verdict.answer {
                Answer::Supported => "supported",
                Answer::Refuted => "refuted",
                _ => "open",
            },
        })
    };
    let rows = findings.verdicts.iter().filter(|verdict| metric(verdict, findings) == by).filter_map(row).collect();
    let less = if by == "log-loss" { " (how much more the second loses, nats)" } else { "" };
    (format!("differences in {by}{less} that the rules claim; lines: 95%"), rows, true)
}

fn table(sheet: &Sheet) -> String {
    let cell = |tag: &str, text: &str| format!("<{tag}>{}</{tag}>", escaped(text).replace('\n', "<br>"));
    let row = |tag: &str, cells: &[String]| {
        format!("<tr>{}</tr>", cells.iter().map(|text| cell(tag, text)).collect::<String>())
    };
    let rows: Vec<String> = sheet.rows.iter().map(|cells| row("td", cells)).collect();
    let notes: String = sheet.notes.iter().map(|note| paragraph("note", note)).collect();
    format!(
        "<h2>{}</h2>\n<div class=\"wide\"><table>\n<thead>{}</thead>\n<tbody>\n{}\n</tbody>\n</table></div>\n{notes}",
        escaped(&sheet.title),
        row("th", &sheet.heading),
        rows.join("\n"),
    )
}

/// Text without any meaning to HTML.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            letter => safe.push(letter),
        }
    }
    safe
}
