//! Which weights fit a dataset: what each says of it before anything is trained, which of them cannot be told apart, and what
//! that costs. A hypothesis, not a finding: an experiment tests it.

use serde_json::{Value, json};

use super::advice::looked_at;
use super::arm::Arm;
use super::compare::{Difference, kendall, paired, share, share_interval};
use super::findings::{Findings, fraction};
use super::table::{Style, table};

/// What one weight file says. Of each image, whether its class was found without it.
pub struct File {
    /// As it was named.
    pub weights: String,
    pub arch: String,
    pub input: usize,
    pub numbers: usize,
    pub probe: Vec<bool>,
    pub neighbours: Vec<bool>,
    pub log_me: f64,
    pub h_score: f64,
    pub leep: Option<f64>,
    /// Multiply-accumulates of an image, parameters, and images that this machine reads in a second.
    pub macs: f64,
    pub params: usize,
    pub images_per_second: f64,
}

/// Everything that was looked at.
pub struct Ranking {
    pub dataset: String,
    pub classes: usize,
    pub images: usize,
    /// The share of the largest class.
    pub largest: f64,
    /// The best first.
    files: Vec<File>,
}

/// How well each score foresaw what an experiment has tested, in one scenario with one recipe.
pub struct Foresight {
    pub scenario: String,
    pub recipe: String,
    pub files: usize,
    /// Kendall's tau of each score with the tested metric, in the order of `SCORES`; none of scores that not all files have.
    pub taus: [Option<f64>; SCORES.len()],
}

/// The scores, as tables name them.
pub const SCORES: [&str; 5] = ["linear model", "neighbours", "LogME", "H-score", "LEEP"];

/// Fewer files have no order worth speaking of.
const LEAST: usize = 3;

impl File {
    fn scores(&self) -> [Option<f64>; SCORES.len()] {
        [Some(share(&self.probe)), Some(share(&self.neighbours)), Some(self.log_me), Some(self.h_score), self.leep]
    }
}

impl Ranking {
    /// The best by the linear model first; of equals, the cheaper one.
    pub fn new(dataset: String, classes: usize, largest: f64, mut files: Vec<File>) -> Self {
        files.sort_by(|one, other| {
            share(&other.probe).total_cmp(&share(&one.probe)).then(one.macs.total_cmp(&other.macs))
        });
        let images = files.first().map_or(0, |file| file.probe.len());
        Self { dataset, classes, images, largest, files }
    }

    /// How far a file is behind the best one.
    fn behind(&self, file: &File) -> Difference {
        paired(&file.probe, &self.files[0].probe)
    }

    /// At which each file is compared with the best one, for 95% of all together (Bonferroni).
    fn level(&self) -> f64 {
        1.0 - 0.05 / self.files.len().saturating_sub(1).max(1) as f64
    }

    /// Files that are not clearly behind the best one, itself among them.
    fn near(&self) -> Vec<&File> {
        let clearly = |file: &&File| {
            let difference = self.behind(file);
            difference.mean + difference.half_width(self.level()) < 0.0
        };
        self.files.iter().filter(|file| !clearly(file)).collect()
    }

    /// The cheapest of those that are not clearly behind.
    fn first(&self) -> &File {
        let near = self.near().into_iter();
        near.reduce(|one, other| if other.macs < one.macs { other } else { one }).unwrap_or(&self.files[0])
    }

    /// For people.
    pub fn text(&self, foresight: &[Foresight], against: Option<&str>, style: Style) -> String {
        let rows: Vec<Vec<String>> = self.files.iter().map(|file| self.row(file)).collect();
        let heading = [
            "weights",
            "input",
            "numbers",
            "linear model [95% CI]",
            "to the best",
            "neighbours",
            "LogME",
            "H-score",
            "LEEP",
            "GMAC",
            "images/s",
        ];
        let mut parts = vec![
            looked_at(&self.dataset, self.images, self.classes, self.largest),
            format!(
                "How many classes are read right from the last features, each image by others; and the scores of the field\n{}",
                table(style, &heading, &rows)
            ),
            self.advice(),
        ];
        parts.extend(against.map(|name| foreseen(name, foresight, style)));
        parts.join("\n\n")
    }

    fn row(&self, file: &File) -> Vec<String> {
        let of = file.probe.len();
        let right = file.probe.iter().filter(|right| **right).count();
        let [low, high] = share_interval(right, of);
        let behind = match std::ptr::eq(file, &self.files[0]) {
            true => "-".to_owned(),
            false => {
                let difference = self.behind(file);
                let half = difference.half_width(self.level());
                format!("{:+.3} [{:+.3}, {:+.3}]", difference.mean, difference.mean - half, difference.mean + half)
            }
        };
        vec![
            file.weights.clone(),
            file.input.to_string(),
            file.numbers.to_string(),
            format!("{} [{}, {}]", fraction(share(&file.probe)), fraction(low), fraction(high)),
            behind,
            fraction(share(&file.neighbours)),
            format!("{:.3}", file.log_me),
            format!("{:.2}", file.h_score),
            file.leep.map_or_else(|| "-".to_owned(), |leep| format!("{leep:.3}")),
            format!("{:.2}", file.macs * 1e-9),
            format!("{:.0}", file.images_per_second),
        ]
    }

    fn advice(&self) -> String {
        let (best, first) = (&self.files[0], self.first());
        let mut others = self.near();
        others.retain(|file| !std::ptr::eq(*file, best));
        if others.is_empty() && self.files.len() > 1 {
            return format!("Try first: {}, which is clearly read best", best.weights);
        }
        let cost = first.macs / best.macs;
        let why = match std::ptr::eq(first, best) {
            true => "read best, and none of those that cannot be told from it costs less".to_owned(),
            false => format!("cannot be told from the best, {}, and costs {} of it", best.weights, fraction(cost)),
        };
        let names: Vec<&str> = others.iter().map(|file| file.weights.as_str()).collect();
        let level = "95% for all comparisons together";
        let told = match names.is_empty() {
            true => String::new(),
            false => format!("\nnot told from {} ({level}): {}", best.weights, names.join(", ")),
        };
        format!("Try first: {}: {why}{told}", first.weights)
    }

    /// How well the scores foresaw what has been tested with these files, in each of `scenarios` and with each recipe.
    pub fn foresight(&self, findings: &Findings, scenarios: &[String]) -> Vec<Foresight> {
        let mut found: Vec<Foresight> = Vec::new();
        for scenario in scenarios {
            let arms: Vec<&Arm> = findings.of(scenario).collect();
            let mut recipes: Vec<&str> = arms.iter().map(|arm| arm.recipe.as_str()).collect();
            recipes.dedup();
            for recipe in recipes {
                let tested = |file: &File| {
                    let own = arms.iter().filter(|arm| arm.recipe == recipe);
                    let mut own = own.filter(|arm| arm.context_value("weights") == file.weights);
                    let arm = own.next().filter(|_| own.next().is_none())?;
                    // To leave out what diverged would be to choose by the outcome: it names the largest class.
                    Findings::test(arm).map(|test| test.mean).or(arm.all_diverged().then_some(self.largest))
                };
                let pairs: Vec<(&File, f64)> =
                    self.files.iter().filter_map(|file| Some((file, tested(file)?))).collect();
                if pairs.len() >= LEAST && !found.iter().any(|own| own.scenario == *scenario && own.recipe == recipe) {
                    found.push(Foresight::of(scenario, recipe, &pairs));
                }
            }
        }
        found
    }

    /// For machines.
    pub fn json(&self, foresight: &[Foresight], against: Option<&str>) -> Value {
        let near: Vec<&str> = self.near().iter().map(|file| file.weights.as_str()).collect();
        json!({
            "version": 1,
            "dataset": self.dataset,
            "images": self.images,
            "classes": self.classes,
            "largest": self.largest,
            "files": self.files.iter().map(|file| self.told(file)).collect::<Vec<_>>(),
            "near_the_best": near,
            "first": self.first().weights,
            "against": against,
            "foresight": foresight.iter().map(Foresight::json).collect::<Vec<_>>(),
        })
    }

    fn told(&self, file: &File) -> Value {
        let behind = self.behind(file);
        json!({
            "weights": file.weights,
            "arch": file.arch,
            "input": file.input,
            "numbers": file.numbers,
            "linear": share(&file.probe),
            "to_the_best": behind.mean,
            "to_the_best_half_width": behind.half_width(self.level()),
            "neighbours": share(&file.neighbours),
            "log_me": file.log_me,
            "h_score": file.h_score,
            "leep": file.leep,
            "macs": file.macs,
            "params": file.params,
            "images_per_second": file.images_per_second,
        })
    }
}

impl Foresight {
    fn of(scenario: &str, recipe: &str, pairs: &[(&File, f64)]) -> Self {
        let tested: Vec<f64> = pairs.iter().map(|(_, test)| *test).collect();
        let tau = |score: usize| {
            let scores: Option<Vec<f64>> = pairs.iter().map(|(file, _)| file.scores()[score]).collect();
            kendall(&scores?, &tested)
        };
        Self {
            scenario: scenario.to_owned(),
            recipe: recipe.to_owned(),
            files: pairs.len(),
            taus: std::array::from_fn(tau),
        }
    }

    fn json(&self) -> Value {
        let taus: serde_json::Map<String, Value> =
            SCORES.iter().zip(self.taus).map(|(score, tau)| ((*score).to_owned(), json!(tau))).collect();
        json!({"scenario": self.scenario, "recipe": self.recipe, "files": self.files, "kendall": taus})
    }
}

/// What an experiment says of the scores.
fn foreseen(name: &str, foresight: &[Foresight], style: Style) -> String {
    if foresight.is_empty() {
        return format!("'{name}' has not tested {LEAST} of these files on these images");
    }
    let shown = |tau: &Option<f64>| tau.map_or_else(|| "-".to_owned(), |tau| format!("{tau:+.2}"));
    let rows: Vec<Vec<String>> = foresight
        .iter()
        .map(|own| {
            let head = [own.scenario.clone(), own.recipe.clone(), own.files.to_string()];
            head.into_iter().chain(own.taus.iter().map(shown)).collect()
        })
        .collect();
    let heading: Vec<&str> = ["scenario", "recipe", "files"].into_iter().chain(SCORES).collect();
    format!(
        "How well each foresaw the order that '{name}' found on test (Kendall's tau; 1: the same order, 0: none, -1: the opposite)\n{}",
        table(style, &heading, &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(weights: &str, right: usize, macs: f64) -> File {
        let found = |right: usize| (0..200).map(|image| (image * 37) % 200 < right).collect::<Vec<bool>>();
        File {
            weights: weights.to_owned(),
            arch: "a".to_owned(),
            input: 32,
            numbers: 8,
            probe: found(right),
            neighbours: found(right / 2),
            log_me: -0.1,
            h_score: right as f64,
            leep: None,
            macs,
            params: 10,
            images_per_second: 100.0,
        }
    }

    fn ranking(files: Vec<File>) -> Ranking {
        Ranking::new("mine".to_owned(), 4, 0.25, files)
    }

    #[test]
    fn the_cheapest_of_those_that_cannot_be_told_from_the_best_comes_first() {
        let names = |ranking: &Ranking| {
            let near: Vec<String> = ranking.near().iter().map(|file| file.weights.clone()).collect();
            (near.join(" "), ranking.first().weights.clone())
        };
        let told = |near: &str, first: &str| (near.to_owned(), first.to_owned());
        let found = ranking(vec![file("far", 100, 1e6), file("large", 160, 9e9), file("small", 158, 1e8)]);
        assert_eq!(names(&found), told("large small", "small"));
        let text = found.text(&[], None, Style::Markdown);
        assert!(text.contains("Try first: small: cannot be told from the best, large, and costs .011 of it"), "{text}");
        let found = ranking(vec![file("far", 100, 1e6), file("large", 160, 9e9)]);
        assert_eq!(names(&found), told("large", "large"));
        assert!(found.text(&[], None, Style::Markdown).contains("large, which is clearly read best"));
        // Of equals the cheaper one leads.
        assert_eq!(names(&ranking(vec![file("b", 150, 2e9), file("a", 150, 1e9)])), told("a b", "a"));
        assert_eq!(names(&ranking(vec![file("alone", 150, 2e9)])), told("alone", "alone"));
    }

    #[test]
    fn a_score_that_not_all_files_have_foresees_nothing() {
        let files = [file("a", 150, 1.0), file("b", 140, 1.0), file("c", 120, 1.0)];
        let tests = [0.9, 0.7, 0.8];
        let pairs: Vec<(&File, f64)> = files.iter().zip(tests).collect();
        let found = Foresight::of("s", "probe", &pairs);
        let third = 1.0 / 3.0;
        assert!(found.taus[0].is_some_and(|tau| (tau - third).abs() < 1e-12));
        assert_eq!((found.taus[2], found.taus[4]), (None, None), "LogME is the same for all, LEEP is there for none");
    }
}
