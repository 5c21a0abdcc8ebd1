//! How far probabilities can be trusted: how sure recipes are of their answers, beside how often these are right.

use std::collections::HashSet;

use serde::Serialize;
use statrs::distribution::{Binomial, Discrete, DiscreteCDF};

use super::compare::{Difference, Scored, difference, mean};
use super::findings::{Findings, fraction, shown_difference};
use super::sheets::{Kind, Sheet};

/// Bins of confidence, of one width (Guo et al., 2017).
const BINS: usize = 15;
/// The least probability of a true class that counts, that of f32's least number: what is beyond was no number when it was stored.
const LEAST: f64 = f32::MIN_POSITIVE as f64;

/// The answers of one replicate to test images.
pub struct Answered {
    /// Which image each is: a number, equal for an image in all replicates.
    pub images: Vec<u32>,
    pub right: Vec<bool>,
    /// Of the predicted class, and of the true one.
    pub confidence: Vec<f64>,
    pub probability: Vec<f32>,
}

/// How far the probabilities of a recipe's selected setting can be trusted.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    pub scenario: String,
    /// As tables name it.
    pub recipe: String,
    /// Whether it is of what is tested as well, all of it together.
    pub shifted: bool,
    pub replicates: usize,
    /// Share of answers that are right.
    pub right: f64,
    /// The same of the surest half of a replicate's answers (selective prediction; El-Yaniv and Wiener, 2010).
    pub right_when_sure: f64,
    /// Mean confidence.
    pub sure: f64,
    /// Mean confidence less the share that is right.
    pub overconfidence: Difference,
    /// Expected calibration error.
    pub error: f64,
    /// What it would be of answers that are right as often as they are sure, on so many images.
    pub by_chance: f64,
    /// Mean cross-entropy, nats.
    pub log_loss: f64,
    pub bins: Vec<Bin>,
}

/// Answers with a confidence between two bounds, of all replicates.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bin {
    pub answers: usize,
    /// Mean confidence, and the share that is right.
    pub sure: f64,
    pub right: f64,
    /// Where that share lies 95 times of 100 if answers are right as often as they are sure, on the images of one replicate.
    pub expected: [f64; 2],
}

impl Calibration {
    /// Of the answers of replicates; none where there are none.
    pub fn of(scenario: &str, recipe: &str, shifted: bool, answers: &[Answered]) -> Option<Self> {
        if answers.is_empty() || answers.iter().any(|own| own.images.is_empty()) {
            return None;
        }
        let side = |of: fn(&Answered) -> Vec<f64>| -> Vec<Scored> {
            let one = |own: &Answered| scored(&of(own)).on(own.images.clone());
            answers.iter().map(one).collect()
        };
        let sure = side(|own| own.confidence.clone());
        let right = side(|own| own.right.iter().map(|right| f64::from(u8::from(*right))).collect());
        let over = |of: &[Scored]| mean(&of.iter().map(|own| own.metric).collect::<Vec<_>>()).mean;
        let bins: Vec<Vec<Tally>> = answers.iter().map(tallies).collect();
        let errors: Vec<[f64; 2]> = bins.iter().zip(answers).map(|(bins, own)| error(bins, own.distinct())).collect();
        let of_errors = |which: usize| errors.iter().map(|error| error[which]).sum::<f64>() / errors.len() as f64;
        let losses = answers.iter().map(|own| -log_loss(&own.probability).metric);
        Some(Self {
            scenario: scenario.to_owned(),
            recipe: recipe.to_owned(),
            shifted,
            replicates: answers.len(),
            right: over(&right),
            right_when_sure: mean(&answers.iter().map(Answered::right_when_sure).collect::<Vec<_>>()).mean,
            sure: over(&sure),
            overconfidence: difference(&sure, &right),
            error: of_errors(0),
            by_chance: of_errors(1),
            log_loss: losses.sum::<f64>() / answers.len() as f64,
            bins: pooled(&bins, answers[0].distinct()),
        })
    }

    /// Whether it is surer, or less sure, than it is right, beyond chance.
    fn is_apart(&self) -> bool {
        self.replicates > 1 && self.overconfidence.mean.abs() > self.overconfidence.half_width(0.95)
    }

    fn row(&self) -> Vec<String> {
        let recipe = if self.shifted { format!("{}, under shift", self.recipe) } else { self.recipe.clone() };
        let over = &self.overconfidence;
        let over = if self.replicates > 1 { shown_difference(over) } else { format!("{:+.3}", over.mean) };
        let error = format!("{} ({})", fraction(self.error), fraction(self.by_chance));
        let [right, half, sure] = [self.right, self.right_when_sure, self.sure].map(fraction);
        vec![self.scenario.clone(), recipe, right, half, sure, over, error, format!("{:.3}", self.log_loss)]
    }
}

impl Answered {
    /// The share that is right of the surest half; of equals, those come first that come first.
    fn right_when_sure(&self) -> f64 {
        let mut order: Vec<usize> = (0..self.right.len()).collect();
        order.sort_by(|one, other| self.confidence[*other].total_cmp(&self.confidence[*one]));
        let half = &order[..order.len().div_ceil(2)];
        half.iter().filter(|at| self.right[**at]).count() as f64 / half.len() as f64
    }

    /// Images for each answer: less than one where several answers are to the same picture, as to its corruptions.
    fn distinct(&self) -> f64 {
        self.images.iter().collect::<HashSet<_>>().len() as f64 / self.images.len() as f64
    }
}

/// The log loss of probabilities of true classes as a metric: the higher the better.
pub fn log_loss(probability: &[f32]) -> Scored {
    scored(&probability.iter().map(|own| f64::from(*own).max(LEAST).ln()).collect::<Vec<_>>())
}

/// The mean of values of images as a metric.
fn scored(values: &[f64]) -> Scored {
    let metric = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let influence = values.iter().map(|value| value - metric).collect();
    Scored { metric, influence, images: (0..values.len() as u32).collect() }
}

/// Answers in a bin.
#[derive(Clone, Copy, Default)]
struct Tally {
    answers: usize,
    right: usize,
    /// The sum of confidences.
    sure: f64,
}

fn tallies(of: &Answered) -> Vec<Tally> {
    let mut bins = vec![Tally::default(); BINS];
    for (confidence, right) in of.confidence.iter().zip(&of.right) {
        // Bins hold their upper bounds.
        let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        bins[bin].answers += 1;
        bins[bin].right += usize::from(*right);
        bins[bin].sure += confidence;
    }
    bins
}

/// The expected calibration error, and what it would be by chance: answers to the same picture count for chance as one.
fn error(bins: &[Tally], distinct: f64) -> [f64; 2] {
    let all = bins.iter().map(|bin| bin.answers).sum::<usize>().max(1) as f64;
    let apart = bins.iter().map(|bin| (bin.sure - bin.right as f64).abs());
    let chance = bins.iter().filter(|bin| bin.answers > 0).map(|bin| {
        let answers = bin.answers as f64;
        let images = (answers * distinct).ceil();
        apart_by_chance(images as u64, bin.sure / answers) * answers / images
    });
    [apart.sum::<f64>() / all, chance.sum::<f64>() / all]
}

/// The mean absolute deviation of a binomial variable from its mean (de Moivre, 1730).
fn apart_by_chance(n: u64, p: f64) -> f64 {
    let above = (n as f64 * p).floor() as u64 + 1;
    match Binomial::new(p, n) {
        Ok(binomial) if above <= n => 2.0 * above as f64 * (1.0 - p) * binomial.pmf(above),
        _ => 0.0,
    }
}

/// The bins of all replicates together; those with answers.
fn pooled(replicates: &[Vec<Tally>], distinct: f64) -> Vec<Bin> {
    let bin = |at: usize| {
        let own = replicates.iter().map(|bins| bins[at]);
        let of = own.fold(Tally::default(), |sum, one| Tally {
            answers: sum.answers + one.answers,
            right: sum.right + one.right,
            sure: sum.sure + one.sure,
        });
        let count = of.answers as f64;
        (of.answers > 0).then(|| Bin {
            answers: of.answers,
            sure: of.sure / count,
            right: of.right as f64 / count,
            expected: expected((count / replicates.len() as f64 * distinct).ceil() as u64, of.sure / count),
        })
    };
    (0..BINS).filter_map(bin).collect()
}

/// Between which shares of `n` a binomial variable lies 95 times of 100.
fn expected(n: u64, p: f64) -> [f64; 2] {
    let share = |count: u64| count as f64 / n as f64;
    Binomial::new(p.clamp(0.0, 1.0), n)
        .map_or([p, p], |binomial| [0.025, 0.975].map(|level| share(binomial.inverse_cdf(level).min(n))))
}

/// Whether any trial calibrates its probabilities.
pub fn calibrates(findings: &Findings) -> bool {
    let mut settings = findings.arms.iter().flat_map(|arm| &arm.settings);
    settings.any(|setting| setting.text("calibrate").is_some())
}

const HEADING: [&str; 8] = [
    "scenario",
    "recipe",
    "right",
    "surest half",
    "sure",
    "overconfident by [95% CI]",
    "error (by chance)",
    "log loss",
];

const MEANING: &str = "surest half: what is right of it; error: how far sure and right are apart, over 15 bins of confidence; by chance: \
                       that of answers right as often as sure, on so many images";
const CURE: &str = "calibrate = \"temperature\" brings sure and right together, by validation: no answer changes, no network is trained \
                    again for it";

/// The table of what was found; nothing without.
pub fn sheet(findings: &Findings) -> Option<Sheet> {
    let found = &findings.calibration;
    let rows = found.iter().map(Calibration::row).collect();
    let mut sheet = Sheet::new(Kind::Calibration, "How far probabilities can be trusted, on test", &HEADING, rows);
    sheet.notes.push(MEANING.to_owned());
    if !calibrates(findings) && found.iter().any(Calibration::is_apart) {
        sheet.notes.push(CURE.to_owned());
    }
    (!found.is_empty()).then_some(sheet)
}

/// What is not known of some trials, because they ran before it was stored.
pub fn unknown(findings: &Findings) -> Option<String> {
    let trials = findings.without_confidence;
    (trials > 0).then(|| {
        format!(
            "how far probabilities can be trusted is not known of {trials} trials, which an earlier program ran: `tl-sweep rerun` tells"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Rng, Stream, stream};

    /// Answers that are right as often as they are sure, or less.
    fn drawn(images: usize, less: f64, rng: &mut Rng) -> Answered {
        let confidence: Vec<f64> = (0..images).map(|_| rng.range(0.4, 1.0)).collect();
        let right: Vec<bool> = confidence.iter().map(|sure| rng.chance(sure - less)).collect();
        let probability = confidence.iter().zip(&right).map(|(sure, right)| if *right { *sure } else { 1.0 - sure });
        Answered {
            images: (0..images as u32).collect(),
            probability: probability.map(|own| own as f32).collect(),
            right,
            confidence,
        }
    }

    fn of(answers: &[Answered]) -> Calibration {
        Calibration::of("s", "r", false, answers).expect("answers")
    }

    #[test]
    fn the_error_of_a_few_answers_is_guos() {
        // By hand, bins (9/15, 10/15], (13/15, 14/15] and (14/15, 1]: |.62 + .65 - 1| + |.9 - 0| + |.95 + 1 - 2| over five.
        let own = Answered {
            images: (0..5).collect(),
            right: vec![true, false, false, true, true],
            confidence: vec![0.62, 0.65, 0.9, 0.95, 1.0],
            probability: vec![0.62, 0.3, 0.05, 0.95, 1.0],
        };
        let own = [own];
        let found = of(&own);
        let own = &own[0];
        assert!((found.error - (0.27 + 0.9 + 0.05) / 5.0).abs() < 1e-12, "{}", found.error);
        assert!((found.right - 0.6).abs() < 1e-12 && (found.sure - 0.824).abs() < 1e-12);
        assert!((found.overconfidence.mean - 0.224).abs() < 1e-12);
        // Of 1, .95 and .9 the last is wrong.
        assert!((found.right_when_sure - 2.0 / 3.0).abs() < 1e-12);
        let loss = -(0.62f64.ln() + 0.3f64.ln() + 0.05f64.ln() + 0.95f64.ln()) / 5.0;
        assert!((found.log_loss - loss).abs() < 1e-7, "{} {loss}", found.log_loss);
        let counts: Vec<(usize, f64)> = found.bins.iter().map(|bin| (bin.answers, bin.right)).collect();
        assert_eq!(counts, [(2, 0.5), (1, 0.0), (2, 1.0)]);
        assert!(Calibration::of("s", "r", false, &[]).is_none());
        // Twice the same pictures are no more pictures.
        let twice = |own: &Answered| Answered {
            images: [&own.images[..], &own.images].concat(),
            right: [&own.right[..], &own.right].concat(),
            confidence: [&own.confidence[..], &own.confidence].concat(),
            probability: [&own.probability[..], &own.probability].concat(),
        };
        let again = of(&[twice(own)]);
        assert_eq!((again.error, again.by_chance), (found.error, found.by_chance));
        assert_eq!(
            again.bins.iter().map(|bin| bin.expected).collect::<Vec<_>>(),
            found.bins.iter().map(|bin| bin.expected).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_error_by_chance_is_what_simulated_answers_have() {
        let mut rng = stream(3, Stream::Init, &[]);
        for images in [30, 300] {
            let all: Vec<Calibration> = (0..400).map(|_| of(&[drawn(images, 0.0, &mut rng)])).collect();
            let mean = |of: fn(&Calibration) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
            let (error, by_chance) = (mean(|own| own.error), mean(|own| own.by_chance));
            assert!((error / by_chance - 1.0).abs() < 0.05, "{images}: {error} and {by_chance}");
        }
    }

    #[test]
    fn overconfidence_is_found_and_its_interval_holds() {
        let mut rng = stream(4, Stream::Init, &[]);
        let mut outside = 0;
        for _ in 0..300 {
            let replicates: Vec<Answered> = (0..3).map(|_| drawn(200, 0.0, &mut rng)).collect();
            let found = of(&replicates).overconfidence;
            outside += usize::from(found.mean.abs() > found.half_width(0.95));
        }
        assert!(outside < 25, "{outside} of 300");
        let found = of(&(0..3).map(|_| drawn(400, 0.2, &mut rng)).collect::<Vec<_>>());
        assert!(found.overconfidence.mean - found.overconfidence.half_width(0.95) > 0.1, "{found:?}");
        assert!(found.error > 3.0 * found.by_chance, "{found:?}");
    }

    /// scipy 1.17.1: sum of binom.pmf(k, 12, 0.3) * |k - 3.6|, and binom.ppf([0.025, 0.975], 12, 0.3) / 12.
    #[test]
    fn chance_is_that_of_a_binomial() {
        assert!((apart_by_chance(12, 0.3) - 1.294_382_298_132).abs() < 1e-9, "{}", apart_by_chance(12, 0.3));
        assert_eq!(apart_by_chance(5, 1.0), 0.0);
        assert_eq!(expected(12, 0.3), [1.0 / 12.0, 7.0 / 12.0]);
    }

    #[test]
    fn a_probability_of_nothing_counts_as_the_least_there_is() {
        let found = log_loss(&[1.0, 0.0]);
        assert!((found.metric + 43.668_6).abs() < 1e-3, "{}", found.metric);
    }
}
