//! Means and differences with their intervals as a picture: one line of an SVG each, on one axis.

use super::html::escaped;

/// A mean or a difference.
pub struct Row {
    /// Rows of one group stand together, below its name.
    pub group: String,
    pub label: String,
    pub value: f64,
    /// Half of its interval, where it has one.
    pub half: Option<f64>,
    /// What stands at its right.
    pub shown: String,
    pub class: &'static str,
}

const LINE: usize = 20;
const LABELS: usize = 260;
const PLOT: usize = 480;
const SHOWN: usize = 130;
const AXIS: usize = 28;

/// The picture, as wide as its labels need; nothing without rows. `zero` draws a line there.
pub fn intervals(title: &str, rows: &[Row], zero: bool) -> Option<String> {
    let spans = rows.iter().map(|row| (row.value, row.half.unwrap_or(0.0)));
    let [low, high] = range_of(spans, zero).filter(|_| !rows.is_empty())?;
    let step = step(high - low);
    let (first, last) = ((low / step).floor() * step, (high / step).ceil() * step);
    let x = |value: f64| LABELS as f64 + PLOT as f64 * (value - first) / (last - first);
    let (mut y, mut group, mut drawn) = (LINE, "", Vec::new());
    for row in rows {
        if row.group != group {
            group = &row.group;
            drawn.push(format!("<text class=\"group\" x=\"0\" y=\"{}\">{}</text>", y + 4, escaped(group)));
            y += LINE;
        }
        drawn.push(line(row, y, x));
        y += LINE;
    }
    let (width, bottom) = (LABELS + PLOT + SHOWN, y - LINE / 2);
    let ticks = ((last - first) / step).round() as usize;
    let axis = (0..=ticks).map(|tick| {
        let value = first + step * tick as f64;
        // A zero that rounding has left a little below is no negative number.
        let (at, value) = (x(value), if value.abs() < step / 1e6 { 0.0 } else { value });
        let class = if zero && value == 0.0 { "zero" } else { "grid" };
        format!(
            "<line class=\"{class}\" x1=\"{at:.1}\" y1=\"4\" x2=\"{at:.1}\" y2=\"{bottom}\"/><text class=\"axis\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16,
            number(value, step)
        )
    });
    let height = bottom + AXIS;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n<title>{}</title>\n{}\n{}\n</svg>",
        escaped(title),
        axis.collect::<Vec<_>>().join("\n"),
        drawn.join("\n")
    ))
}

fn line(row: &Row, y: usize, x: impl Fn(f64) -> f64) -> String {
    let at = x(row.value);
    let bar = row.half.map_or_else(String::new, |half| {
        format!(
            "<line class=\"bar\" x1=\"{:.1}\" y1=\"{y}\" x2=\"{:.1}\" y2=\"{y}\"/>",
            x(row.value - half),
            x(row.value + half)
        )
    });
    format!(
        "<g class=\"{}\"><text x=\"12\" y=\"{text}\">{}</text>{bar}<circle class=\"dot\" cx=\"{at:.1}\" cy=\"{y}\" r=\"4\"/><text x=\"{}\" y=\"{text}\">{}</text></g>",
        row.class,
        escaped(&shortened(&row.label)),
        LABELS + PLOT + 12,
        escaped(&row.shown),
        text = y + 4,
    )
}

/// What all intervals, values and half of their widths, span, and zero where it is drawn; never nothing.
pub fn range_of(intervals: impl Iterator<Item = (f64, f64)>, zero: bool) -> Option<[f64; 2]> {
    let ends = intervals.flat_map(|(value, half)| [value - half, value + half]);
    let mut ends: Vec<f64> = ends.chain(zero.then_some(0.0)).filter(|end| end.is_finite()).collect();
    ends.sort_by(f64::total_cmp);
    let (low, high) = (*ends.first()?, *ends.last()?);
    Some(if high > low { [low, high] } else { [low - 0.05, high + 0.05] })
}

/// A round distance between ticks, for five to ten of them.
pub fn step(span: f64) -> f64 {
    let power = 10f64.powf((span / 5.0).log10().floor());
    [5.0, 2.0].into_iter().map(|factor| factor * power).find(|step| span / step >= 5.0).unwrap_or(power)
}

pub fn number(value: f64, step: f64) -> String {
    let places = (-step.log10()).ceil().max(0.0) as usize;
    format!("{value:.places$}")
}

/// As many letters as fit.
pub fn shortened(label: &str) -> String {
    const MOST: usize = 38;
    if label.chars().count() <= MOST { label.to_owned() } else { label.chars().take(MOST - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64, half: f64) -> Row {
        let text = || "a < b".to_owned();
        Row { group: text(), label: text(), value, half: Some(half), shown: text(), class: "arm" }
    }

    #[test]
    fn ticks_are_round_and_hold_every_interval() {
        for (span, expected) in [(1.0, 0.2), (0.3, 0.05), (0.07, 0.01), (0.012, 0.002), (9.0, 1.0)] {
            assert!((step(span) - expected).abs() < 1e-12, "{span}: {}", step(span));
        }
        let drawn = intervals("t", &[row(0.5, 0.1), row(0.83, 0.02)], false).expect("rows");
        for tick in [">0.40<", ">0.85<", "a &lt; b"] {
            assert!(drawn.contains(tick), "{tick}: {drawn}");
        }
        assert!(!drawn.contains("class=\"zero\""));
    }

    #[test]
    fn a_difference_stands_beside_zero_and_one_value_has_room() {
        let drawn = intervals("t", &[row(0.3, 0.1)], true).expect("rows");
        assert!(drawn.contains("class=\"zero\"") && !drawn.contains("-0.0<"), "{drawn}");
        assert!(intervals("t", &[row(0.5, 0.0)], false).is_some_and(|drawn| !drawn.contains("NaN")));
        assert!(intervals("t", &[], true).is_none());
    }
}
