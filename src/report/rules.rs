//! The table of rules: what the file claims, and what was found of it.

use super::arm::Repeats;
use super::findings::{Findings, fraction, shown_difference};
use super::interim::looks;
use super::sheets::{Kind, Sheet, place_of};
use super::verdict::Verdict;

/// The table, where there are rules.
pub fn sheet(findings: &Findings) -> Option<Sheet> {
    if findings.verdicts.is_empty() {
        return None;
    }
    let rows: Vec<Vec<String>> =
        findings.verdicts.iter().enumerate().map(|(index, verdict)| verdict_row(index, verdict)).collect();
    let heading = ["", "where", "claim", "verdict", "difference [95% CI]", "p (Holm)", "tried"];
    let mut sheet = Sheet { notes: notes(&findings.verdicts), ..Sheet::new(Kind::Rules, "Rules", &heading, rows) };
    if findings.repeats.most > findings.repeats.replicates {
        sheet.heading.push("replicates".to_owned());
        for (row, verdict) in sheet.rows.iter_mut().zip(&findings.verdicts) {
            row.push(verdict.difference.map_or_else(|| "-".to_owned(), |found| found.replicates.to_string()));
        }
        sheet.notes.push(looked(findings.repeats));
    }
    Some(sheet)
}

/// When rules were looked at, where that was more than once.
fn looked(Repeats { replicates, most, .. }: Repeats) -> String {
    let mut at: Vec<String> = looks(replicates, most).iter().map(|look| look.replicates.to_string()).collect();
    let last = at.pop().unwrap_or_default();
    format!(
        "looked at after {} and {last} replicates until settled, or hardly to be; intervals and p hold at all looks together",
        at.join(", ")
    )
}

fn verdict_row(index: usize, verdict: &Verdict) -> Vec<String> {
    let (difference, p) = match (verdict.difference, verdict.adjusted_p) {
        (Some(difference), Some(p)) => {
            (shown_difference(&difference), if p < 0.001 { "< .001".to_owned() } else { fraction(p) })
        }
        _ => ("-".to_owned(), "-".to_owned()),
    };
    let tried = format!(
        "{} vs {}{}",
        verdict.settings[0],
        verdict.settings[1],
        if verdict.settings[0] == verdict.settings[1] { "" } else { " (!)" }
    );
    let mark = if verdict.notes.is_empty() { String::new() } else { format!("[{}]", index + 1) };
    vec![mark, place_of(verdict), verdict.rule.claim(), verdict.answer.to_string(), difference, p, tried]
}

/// What is to be known of verdicts, each note once with the numbers of all that it is about, in the order of the first.
fn notes(verdicts: &[Verdict]) -> Vec<String> {
    let mut found: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, verdict) in verdicts.iter().enumerate().filter(|(_, verdict)| !verdict.notes.is_empty()) {
        let note = verdict.notes.join("; ");
        match found.iter_mut().find(|(own, _)| *own == note) {
            Some((_, numbers)) => numbers.push(index + 1),
            None => found.push((note, vec![index + 1])),
        }
    }
    found.into_iter().map(|(note, numbers)| format!("[{}] {note}", ranges(&numbers))).collect()
}

/// `1-3, 5`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|one, other| one + 1 == *other);
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        _ => run.iter().map(usize::to_string).collect(),
    };
    runs.map(run).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn numbers_in_a_row_are_a_range() {
        assert_eq!(ranges(&[4]), "4");
        assert_eq!(ranges(&[1, 2, 3, 5, 7, 8]), "1-3, 5, 7-8");
    }
}
