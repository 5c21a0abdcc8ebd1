//! A report as LaTeX: tables of booktabs to be read into a paper.

use super::findings::Findings;
use super::sheets::{Sheet, sheets};

/// The whole report, a table after the other; the rows' notes stand below each.
pub fn report(findings: &Findings) -> String {
    let found = sheets(findings);
    let mut parts = vec![format!(
        "% {}, by tl-sweep {}. \\usepackage{{booktabs}} is needed, and \\usepackage{{graphicx}} for wide tables.",
        found.name.replace('\n', " "),
        env!("CARGO_PKG_VERSION")
    )];
    let mut state = vec![found.question];
    state.extend(found.state);
    state.extend(found.sharing);
    parts.extend(state.iter().flat_map(|text| text.lines()).map(|line| format!("% {line}")));
    parts.extend(found.short.iter().chain(&found.sheets).map(sheet));
    parts.join("\n")
}

fn sheet(sheet: &Sheet) -> String {
    let row =
        |cells: &[String]| format!("{} \\\\", cells.iter().map(|text| cell(text)).collect::<Vec<_>>().join(" & "));
    let rows: Vec<String> = sheet.rows.iter().map(|cells| row(cells)).collect();
    let notes: String = sheet.notes.iter().map(|note| format!("\n\\par\\footnotesize {}", escaped(note))).collect();
    format!(
        "\n\\begin{{table}}\n\\centering\n\\caption{{{}}}\n\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n\\begin{{tabular}}{{{}}}\n\\toprule\n{}\n\\midrule\n{}\n\\bottomrule\n\\end{{tabular}}}}{notes}\n\\end{{table}}",
        escaped(&sheet.title),
        "l".repeat(sheet.heading.len()),
        row(&sheet.heading),
        rows.join("\n"),
    )
}

/// A cell of several lines is a table of its own.
fn cell(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(escaped).collect();
    match &lines[..] {
        [] => String::new(),
        [line] => line.clone(),
        lines => format!("\\begin{{tabular}}[t]{{@{{}}l@{{}}}}{}\\end{{tabular}}", lines.join(" \\\\ ")),
    }
}

/// Text without any meaning to TeX.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => safe.extend(['\\', letter]),
            '\\' => safe.push_str("\\textbackslash{}"),
            '~' => safe.push_str("\\textasciitilde{}"),
            '^' => safe.push_str("\\textasciicircum{}"),
            '<' => safe.push_str("$<$"),
            '>' => safe.push_str("$>$"),
            '±' => safe.push_str("$\\pm$"),
            // A row that begins with a bracket would be taken for a length behind the last one's end.
            '[' => safe.push_str("{[}"),
            ']' => safe.push_str("{]}"),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_tex_is_escaped() {
        assert_eq!(escaped("a_b & 5% [1] < .001 ± {x}"), "a\\_b \\& 5\\% {[}1{]} $<$ .001 $\\pm$ \\{x\\}");
        assert_eq!(cell("one\ntwo_2"), "\\begin{tabular}[t]{@{}l@{}}one \\\\ two\\_2\\end{tabular}");
    }
}
