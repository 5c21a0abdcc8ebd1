//! How often answers are right beside how sure they are, as a picture: a panel for each recipe (Niculescu-Mizil and Caruana, 2005).

use super::calibration::{Bin, Calibration};
use super::findings::Findings;
use super::html::escaped;

const SIDE: f64 = 170.0;
const LEFT: f64 = 34.0;
const ABOVE: f64 = 38.0;
const BELOW: f64 = 26.0;
const ROW: usize = 4;
/// The area of the largest dot is that of this radius; dots have the share of their bin's answers of it, but not less than the
/// least can be seen.
const RADIUS: f64 = 9.0;
const LEAST: f64 = 2.0;

/// The picture; nothing without answers.
pub fn drawn(findings: &Findings, title: &str) -> Option<String> {
    let all = &findings.calibration;
    if all.is_empty() {
        return None;
    }
    let (wide, high) = (LEFT + SIDE + 14.0, ABOVE + SIDE + BELOW);
    let panels = all.iter().enumerate().map(|(at, of)| {
        let (x, y) = ((at % ROW) as f64 * wide, (at / ROW) as f64 * high);
        format!("<g transform=\"translate({x:.0} {y:.0})\">\n{}\n</g>", panel(of))
    });
    let (width, height) = (all.len().min(ROW) as f64 * wide, all.len().div_ceil(ROW) as f64 * high);
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n<title>{}</title>\n{}\n</svg>",
        escaped(title),
        panels.collect::<Vec<_>>().join("\n")
    ))
}

fn panel(of: &Calibration) -> String {
    let x = |sure: f64| LEFT + SIDE * sure;
    let y = |right: f64| ABOVE + SIDE * (1.0 - right);
    let mut parts = vec![
        format!("<text class=\"group\" x=\"{LEFT}\" y=\"14\">{}</text>", escaped(&fitting(&of.scenario))),
        format!("<text x=\"{LEFT}\" y=\"30\">{}</text>", escaped(&fitting(&name(of)))),
    ];
    parts.extend([0.0, 0.5, 1.0].map(|tick| {
        format!(
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/><text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text><text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
            x(1.0),
            LEFT - 6.0,
            y(tick) + 4.0,
            x(tick),
            y(0.0) + 18.0,
            at = y(tick),
        )
    }));
    parts.push(format!(
        "<line class=\"zero\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        x(0.0),
        y(0.0),
        x(1.0),
        y(1.0)
    ));
    let all = of.bins.iter().map(|bin| bin.answers).sum::<usize>().max(1) as f64;
    parts.extend(of.bins.iter().map(|bin| dot(bin, all, &x, &y)));
    parts.join("\n")
}

/// A bin: its dot, and beside the diagonal where that is to be expected.
fn dot(bin: &Bin, all: f64, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let [low, high] = bin.expected;
    let inside = (low..=high).contains(&bin.right);
    format!(
        "<g class=\"{}\"><line class=\"bar\" x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{:.1}\"/><circle class=\"dot\" cx=\"{at:.1}\" cy=\"{:.1}\" r=\"{:.1}\"/></g>",
        if inside { "arm" } else { "refuted" },
        y(low),
        y(high),
        y(bin.right),
        (RADIUS * (bin.answers as f64 / all).sqrt()).max(LEAST),
        at = x(bin.sure),
    )
}

fn name(of: &Calibration) -> String {
    if of.shifted { format!("{}, under shift", of.recipe) } else { of.recipe.clone() }
}

/// As many letters as a panel is wide.
fn fitting(text: &str) -> String {
    const MOST: usize = 27;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_stands_where_it_is_right_and_is_marked_beyond_chance() {
        let bin = |right: f64| Bin { answers: 25, sure: 0.5, right, expected: [0.4, 0.6] };
        let drawn = |right: f64| dot(&bin(right), 100.0, &|x| 100.0 * x, &|y| 100.0 - 100.0 * y);
        let found = drawn(0.8);
        assert!(found.contains("refuted") && found.contains("cx=\"50.0\" cy=\"20.0\" r=\"4.5\""), "{found}");
        assert!(found.contains("y1=\"60.0\"") && found.contains("y2=\"40.0\""), "{found}");
        assert!(drawn(0.6).contains("arm"));
    }
}
