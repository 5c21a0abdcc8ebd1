//! Means as a picture of lines with intervals: by freeze depth, a line for each scenario; `settings` draws others.

use std::collections::BTreeSet;

use super::arm::Arm;
use super::figure::{number, range_of, shortened, step};
use super::findings::Findings;
use super::html::escaped;

/// A line: at each place a mean and half of its interval, where there are any.
pub struct Line {
    pub name: String,
    pub points: Vec<Option<(f64, Option<f64>)>>,
}

/// Lines over the same places: of a recipe over its depths in the order of the file, say.
pub struct Curves {
    pub name: String,
    pub places: Vec<String>,
    pub lines: Vec<Line>,
}

const LEFT: f64 = 52.0;
const PLOT: [f64; 2] = [560.0, 260.0];
const TOP: f64 = 12.0;
const LEGEND: f64 = 300.0;
const AXIS: f64 = 40.0;
/// Lines are told apart by so many colours, then by dashes.
const COLOURS: usize = 6;
/// Intervals of one place stand side by side.
const DODGE: f64 = 5.0;

/// The recipes that stand at several depths.
pub fn by_depth(findings: &Findings) -> Vec<Curves> {
    let (key, mut recipes) = (findings.depth_key(), Vec::<&str>::new());
    for arm in findings.arms.iter().filter(|arm| !arm.context_value(key).is_empty()) {
        if !recipes.contains(&arm.recipe.as_str()) {
            recipes.push(&arm.recipe);
        }
    }
    let of = |recipe: &&str| -> Vec<&Arm> { findings.arms.iter().filter(|arm| arm.recipe == *recipe).collect() };
    let found = recipes.iter().map(|recipe| Curves::of(recipe, key, &of(recipe)));
    found.filter(|curves| curves.places.len() > 1).collect()
}

/// What lines of these arms differ in beside their scenario. A key that has no effect at some depth is absent there, which is
/// no value of it.
fn telling<'a>(arms: &[&'a Arm], depth: &str) -> Vec<&'a str> {
    let keys: BTreeSet<&str> = arms.iter().flat_map(|arm| arm.context.iter().map(|(key, _)| key.as_str())).collect();
    let values = |key: &str| -> BTreeSet<&str> {
        arms.iter().map(|arm| arm.context_value(key)).filter(|value| !value.is_empty()).collect()
    };
    let known = |key: &&str| matches!(*key, "scenario" | "dataset" | "per_class") || *key == depth;
    keys.into_iter().filter(|key| !known(key) && values(key).len() > 1).collect()
}

impl Curves {
    fn of(recipe: &str, key: &str, arms: &[&Arm]) -> Self {
        let mut curves = Self { name: recipe.to_owned(), places: Vec::new(), lines: Vec::new() };
        let keys = telling(arms, key);
        for arm in arms {
            let depth = curves.depth(arm.context_value(key));
            let further = keys.iter().map(|key| (key, arm.context_value(key))).filter(|(_, value)| !value.is_empty());
            let further: String = further.map(|(key, value)| format!(", {key} = {value}")).collect();
            let line = curves.named(format!("{}{further}", arm.context_value("scenario")));
            line.points.resize(line.points.len().max(depth + 1), None);
            let test = Findings::test(arm).map(|test| (test.mean, test.half_width));
            line.points[depth] = line.points[depth].or(test);
        }
        curves
    }

    fn depth(&mut self, depth: &str) -> usize {
        self.places.iter().position(|known| known == depth).unwrap_or_else(|| {
            self.places.push(depth.to_owned());
            self.places.len() - 1
        })
    }

    fn named(&mut self, name: String) -> &mut Line {
        let place = self.lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
            self.lines.push(Line { name, points: Vec::new() });
            self.lines.len() - 1
        });
        &mut self.lines[place]
    }

    /// The picture; nothing without results.
    pub fn drawn(&self, title: &str) -> Option<String> {
        let all = self.lines.iter().flat_map(|line| line.points.iter().flatten());
        let [low, high] = range_of(all.flat_map(|point| ends(*point)).map(|end| (end, 0.0)), false)?;
        let step = step(high - low);
        let (first, last) = ((low / step).floor() * step, (high / step).ceil() * step);
        let y = |value: f64| TOP + PLOT[1] * (last - value) / (last - first);
        let gap = PLOT[0] / self.places.len() as f64;
        let x = |at: usize| LEFT + gap * (at as f64 + 0.5);
        let mut parts: Vec<String> = (0..=((last - first) / step).round() as usize)
            .map(|tick| {
                let value = first + step * tick as f64;
                let at = y(value);
                format!(
                    "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/><text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    LEFT + PLOT[0],
                    LEFT - 8.0,
                    at + 4.0,
                    number(value, step)
                )
            })
            .collect();
        parts.extend(self.places.iter().enumerate().map(|(at, place)| {
            format!(
                "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(at),
                TOP + PLOT[1] + 20.0,
                escaped(place)
            )
        }));
        parts.extend(self.lines.iter().enumerate().map(|(index, line)| self.line(index, line, &x, &y)));
        let (width, height) = (LEFT + PLOT[0] + LEGEND, (TOP + PLOT[1] + AXIS).max(self.legend(self.lines.len())));
        Some(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n<title>{}</title>\n{}\n</svg>",
            escaped(title),
            parts.join("\n")
        ))
    }

    /// Where a line is named.
    fn legend(&self, index: usize) -> f64 {
        TOP + 10.0 + 20.0 * index as f64
    }

    fn line(&self, index: usize, line: &Line, x: &impl Fn(usize) -> f64, y: &impl Fn(f64) -> f64) -> String {
        let aside = DODGE * (index as f64 - (self.lines.len() - 1) as f64 / 2.0);
        let found = line.points.iter().enumerate().filter_map(|(at, point)| Some((x(at) + aside, (*point)?)));
        let found: Vec<(f64, (f64, Option<f64>))> = found.collect();
        let corners: Vec<String> = found.iter().map(|(x, (mean, _))| format!("{x:.1},{:.1}", y(*mean))).collect();
        let marks = found.iter().map(|(x, (mean, half))| {
            let bar = half.map_or_else(String::new, |half| {
                let [lower, upper] = ends((*mean, Some(half))).map(y);
                format!("<line class=\"bar\" x1=\"{x:.1}\" y1=\"{upper:.1}\" x2=\"{x:.1}\" y2=\"{lower:.1}\"/>")
            });
            format!("{bar}<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\"/>", y(*mean))
        });
        let (left, at) = (LEFT + PLOT[0] + 14.0, self.legend(index));
        let dashed = if index >= COLOURS { " dashed" } else { "" };
        format!(
            "<g class=\"line{}{dashed}\"><polyline points=\"{}\"/>{}<polyline points=\"{left},{at} {:.1},{at}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            index % COLOURS,
            corners.join(" "),
            marks.collect::<String>(),
            left + 20.0,
            left + 26.0,
            at + 4.0,
            escaped(&shortened(&line.name))
        )
    }
}

/// The ends of an interval, no further than a share can be.
fn ends((mean, half): (f64, Option<f64>)) -> [f64; 2] {
    let half = half.unwrap_or(0.0);
    [(mean - half).max(0.0), (mean + half).min(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_at_their_depths_and_hold_their_gaps() {
        let line =
            |name: &str, points: &[Option<(f64, Option<f64>)>]| Line { name: name.to_owned(), points: points.to_vec() };
        let curves = Curves {
            name: "fine-tune".to_owned(),
            places: ["none", "layer1", "all"].map(str::to_owned).to_vec(),
            lines: vec![
                line("a < b", &[Some((0.5, Some(0.1))), None, Some((0.7, None))]),
                line("other", &[Some((0.6, Some(0.05)))]),
            ],
        };
        let drawn = curves.drawn("t").expect("results");
        assert_eq!((drawn.matches("class=\"dot\"").count(), drawn.matches("class=\"bar\"").count()), (3, 2));
        assert!(drawn.contains("a &lt; b") && drawn.contains(">layer1<") && !drawn.contains("NaN"), "{drawn}");
        // The first line passes its gap: two corners, at the first and the last depth.
        let corners =
            drawn.split("<polyline points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a line");
        let x: Vec<f64> = corners.split(' ').filter_map(|at| at.split(',').next()?.parse().ok()).collect();
        assert_eq!(x.len(), 2);
        assert!((x[1] - x[0] - 2.0 * PLOT[0] / 3.0).abs() < 0.2, "{x:?}");
        let empty = Curves { lines: vec![line("a", &[None])], ..curves };
        assert!(empty.drawn("t").is_none());
    }
}
