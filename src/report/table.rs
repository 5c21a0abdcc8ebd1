//! Findings as tables in a terminal or in Markdown.

use comfy_table::{ContentArrangement, Table, presets};

use super::findings::Findings;
use super::sheets::{Sheet, sheets};

/// How tables are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Terminal { width: u16 },
    Markdown,
}

/// A table with a heading row.
pub fn table(style: Style, heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    match style {
        Style::Terminal { width } => table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width),
        Style::Markdown => table.load_style(presets::ASCII_MARKDOWN),
    };
    table.set_header(heading.to_vec());
    table.add_rows(rows.to_vec());
    table.to_string()
}

/// The whole report.
pub fn report(findings: &Findings, style: Style) -> String {
    let found = sheets(findings);
    let title = if style == Style::Markdown { format!("# {}", found.name) } else { found.name };
    let mut heading = vec![title];
    heading.extend(Some(found.question).filter(|question| !question.is_empty()));
    heading.extend(found.state);
    let mut parts = vec![heading.join("\n")];
    let short = found.short.iter().filter(|_| style == Style::Markdown);
    for sheet in short.chain(&found.sheets) {
        parts.extend(section(style, sheet));
    }
    parts.extend(found.sharing);
    if let Style::Terminal { .. } = style {
        parts.extend(found.short.iter().flat_map(|sheet| section(style, sheet)));
    }
    parts.join("\n\n")
}

/// A table under its title, and its notes.
fn section(style: Style, sheet: &Sheet) -> Vec<String> {
    let heading: Vec<&str> = sheet.heading.iter().map(String::as_str).collect();
    let drawn = match style {
        Style::Markdown => {
            let cell = |cell: &String| cell.replace('\n', " <br> ");
            let rows: Vec<Vec<String>> = sheet.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
            format!("## {}\n\n{}", sheet.title, table(style, &heading, &rows))
        }
        Style::Terminal { .. } => format!("{}\n{}", sheet.title, table(style, &heading, &sheet.rows)),
    };
    let notes = Some(sheet.notes.join("\n")).filter(|notes| !notes.is_empty());
    std::iter::once(drawn).chain(notes).collect()
}
