//! Statistics, pure: confidence intervals of means, and paired differences over replicates and test images.

use std::collections::BTreeMap;

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean with its 95% interval; no interval from one value.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Mean {
    pub mean: f64,
    pub half_width: Option<f64>,
    pub n: usize,
}

/// The mean of `values` with Student's t interval.
pub fn mean(values: &[f64]) -> Mean {
    mean_over(values, values.len())
}

/// The mean of values of which only so many were tested on other images than all before them: of repeated
/// cross-validation, the folds. The others repeat what these say, and make no interval narrower.
pub fn mean_over(values: &[f64], folds: usize) -> Mean {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n.max(1) as f64;
    let error = || (variance(values) / n.min(folds) as f64).sqrt();
    let half_width = (n > 1).then(|| quantile(0.975, (n - 1) as f64) * error());
    Mean { mean, half_width, n }
}

/// The unbiased variance; zero for fewer than two values.
pub fn variance(values: &[f64]) -> f64 {
    let n = values.len();
    if n < 2 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1) as f64
}

/// A 95% interval of a share, from `right` of `of` (Wilson, 1927).
pub fn share_interval(right: usize, of: usize) -> [f64; 2] {
    /// The normal distribution's quantile at .975.
    const Z: f64 = 1.959_963_984_540_054;
    let n = of.max(1) as f64;
    let share = right as f64 / n;
    let middle = share + Z * Z / (2.0 * n);
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let whole = 1.0 + Z * Z / n;
    [((middle - half) / whole).max(0.0), ((middle + half) / whole).min(1.0)]
}

/// One replicate of one arm on the test images: its metric, and for each image how the metric would change with that
/// image's weight (the influence function, which sums to zero): for accuracy, right or wrong less the accuracy.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    pub metric: f64,
    pub influence: Vec<f64>,
    /// Which image each is: a number, equal for an image in all replicates.
    pub images: Vec<u32>,
}

impl Scored {
    /// The same of these images.
    pub fn on(self, images: Vec<u32>) -> Self {
        Self { images, ..self }
    }
}

/// A paired difference between two arms.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    pub mean: f64,
    pub standard_error: f64,
    /// Satterthwaite's.
    pub degrees: f64,
    /// Two-sided, over `share`.
    pub p: f64,
    pub replicates: usize,
    pub images: usize,
    /// The part of the error level that this look at the data may spend; 1 where there is no other.
    pub share: f64,
    /// The variance over replicates: a part of the squared error for one of them.
    pub(super) between: f64,
    /// The part that is the images'.
    pub(super) within: f64,
    /// What of that is the chance of each training on each image, which more replicates shrink as well.
    pub(super) chance: f64,
}

/// The mean over replicates of the paired difference of `better` and `worse`. Its squared standard error is the
/// variance over replicates / R plus the variance over test images of the replicate-mean difference / N.
///
/// Replicates may test on images of their own, as in cross-validation. An image's difference is then the mean over the
/// replicates that tested on it, and N counts each image once. Variance over folds alone takes their overlapping training
/// sets for independent, and rejects what is true far too often where folds are dealt anew (Nadeau and Bengio, 2003); with
/// the images' variance it does not (a test below tries both).
///
/// # Panics
/// The two have different numbers of replicates, or a replicate other images in one than in the other: they would not be
/// paired.
pub fn difference(better: &[Scored], worse: &[Scored]) -> Difference {
    assert_eq!(better.len(), worse.len(), "paired replicates");
    let replicates = better.len();
    let differences: Vec<f64> = better.iter().zip(worse).map(|(better, worse)| better.metric - worse.metric).collect();
    let mut tested: BTreeMap<u32, Tested> = BTreeMap::new();
    for (better, worse) in better.iter().zip(worse) {
        assert_eq!(better.images, worse.images, "paired test images");
        for (image, (better, worse)) in better.images.iter().zip(better.influence.iter().zip(&worse.influence)) {
            tested.entry(*image).or_default().add(better - worse);
        }
    }
    let images = tested.len();
    let times: f64 = tested.values().map(|image| image.times).sum();
    let per_image: Vec<f64> = tested.values().map(|image| image.sum / image.times).collect();
    let between = variance(&differences);
    // The influences of each set of test images sum to zero: so many numbers are not free.
    let sets = images as f64 * replicates as f64 / times.max(1.0);
    let free = if sets > 1.0 { (images as f64 - 1.0) / (images as f64 - sets).max(1.0) } else { 1.0 };
    let of_mean = |of: f64| of * free / images.max(1) as f64;
    let within = of_mean(variance(&per_image));
    let chance = of_mean(tested.values().map(Tested::chance).sum::<f64>() / images.max(1) as f64).min(within);
    let (first, second) = (between / replicates.max(1) as f64, within);
    let standard_error = (first + second).sqrt();
    let degrees = satterthwaite(first, replicates, second, images);
    let mean = differences.iter().sum::<f64>() / replicates.max(1) as f64;
    let p = match (standard_error > 0.0, mean == 0.0) {
        (true, _) => {
            2.0 * (1.0
                - StudentsT::new(0.0, 1.0, degrees.max(1.0)).map_or(0.5, |t| t.cdf((mean / standard_error).abs())))
        }
        (false, true) => 1.0,
        (false, false) => 0.0,
    };
    Difference { mean, standard_error, degrees, p, replicates, images, share: 1.0, between, within, chance }
}

/// The differences of one image.
#[derive(Clone, Copy, Default)]
struct Tested {
    sum: f64,
    squares: f64,
    times: f64,
}

impl Tested {
    fn add(&mut self, difference: f64) {
        self.sum += difference;
        self.squares += difference * difference;
        self.times += 1.0;
    }

    /// What the variance of its mean owes to the replicates that tested it being so many and not more; of one, nothing is known.
    fn chance(&self) -> f64 {
        if self.times < 2.0 {
            return 0.0;
        }
        (self.squares - self.sum * self.sum / self.times).max(0.0) / (self.times - 1.0) / self.times
    }
}

/// The share of answers that are right.
pub fn share(right: &[bool]) -> f64 {
    right.iter().filter(|right| **right).count() as f64 / right.len().max(1) as f64
}

/// The difference of two sets of answers to the same images.
///
/// # Panics
/// They are of different numbers of images.
pub fn paired(better: &[bool], worse: &[bool]) -> Difference {
    let scored = |right: &[bool]| {
        let metric = share(right);
        let influence = right.iter().map(|right| f64::from(*right) - metric).collect();
        Scored { metric, influence, images: (0..right.len() as u32).collect() }
    };
    difference(&[scored(better)], &[scored(worse)])
}

/// How alike two orders are: Kendall's tau-b (1945), from -1 to 1; none where either has no order at all.
pub fn kendall(one: &[f64], other: &[f64]) -> Option<f64> {
    let pairs = (0..one.len()).flat_map(|first| (first + 1..one.len()).map(move |second| (first, second)));
    let sign = |values: &[f64], (first, second): (usize, usize)| {
        f64::from(values[second].total_cmp(&values[first]) as i8) * f64::from(values[first] != values[second])
    };
    let (mut alike, mut own, mut others) = (0.0, 0.0, 0.0);
    for pair in pairs {
        let (left, right) = (sign(one, pair), sign(other, pair));
        alike += left * right;
        own += left.abs();
        others += right.abs();
    }
    (own > 0.0 && others > 0.0).then(|| alike / f64::sqrt(own * others))
}

impl Difference {
    /// The same, seen at a look that may spend this part of the error level.
    pub fn at(self, share: f64) -> Self {
        Self { p: (self.p / share).min(1.0), share, ..self }
    }

    /// Half the width of the interval at a level such as 0.95, which holds at all looks together.
    pub fn half_width(&self, level: f64) -> f64 {
        quantile(1.0 - self.share * (1.0 - level) / 2.0, self.degrees) * self.standard_error
    }
}

/// Degrees of freedom of a sum of two independent estimates of variance (Satterthwaite, 1946).
pub(super) fn satterthwaite(first: f64, replicates: usize, second: f64, images: usize) -> f64 {
    let spread = |part: f64, n: usize| if n > 1 { part * part / (n - 1) as f64 } else { 0.0 };
    let denominator = spread(first, replicates) + spread(second, images);
    if denominator > 0.0 { (first + second).powi(2) / denominator } else { 1.0 }
}

pub(super) fn quantile(p: f64, degrees: f64) -> f64 {
    StudentsT::new(0.0, 1.0, degrees.max(1.0)).map_or(f64::INFINITY, |t| t.inverse_cdf(p))
}

/// Holm's step-down adjustment (1979) of p values, in their order.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|left, right| p[*left].total_cmp(&p[*right]));
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0f64;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max(((p.len() - rank) as f64 * p[index]).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

/// The metric of one replicate and its influence per image, for accuracy, balanced accuracy or macro-F1; images are numbered
/// in their order.
pub fn scored(metric: &str, predicted: &[u16], truth: &[u32]) -> Scored {
    let classes = truth
        .iter()
        .copied()
        .chain(predicted.iter().map(|class| u32::from(*class)))
        .max()
        .map_or(1, |class| class as usize + 1);
    let mut table = vec![[0f64; 3]; classes];
    for (predicted, truth) in predicted.iter().zip(truth) {
        table[*truth as usize][0] += 1.0;
        table[usize::from(*predicted)][1] += 1.0;
        table[*truth as usize][2] += f64::from(u32::from(*predicted) == *truth);
    }
    let images = truth.len() as f64;
    let present: Vec<usize> = (0..classes).filter(|class| table[*class][0] > 0.0).collect();
    let share = images / present.len().max(1) as f64;
    let recall = |class: usize| if table[class][0] > 0.0 { table[class][2] / table[class][0] } else { 0.0 };
    let f1 = |class: usize| 2.0 * table[class][2] / (table[class][0] + table[class][1]).max(1.0);
    let mean =
        |of: &dyn Fn(usize) -> f64| present.iter().map(|class| of(*class)).sum::<f64>() / present.len().max(1) as f64;
    let value = match metric {
        "balanced-accuracy" => mean(&recall),
        "macro-f1" => mean(&f1),
        _ => {
            predicted.iter().zip(truth).filter(|(predicted, truth)| u32::from(**predicted) == **truth).count() as f64
                / images.max(1.0)
        }
    };
    let influence = predicted.iter().zip(truth).map(|(predicted, truth)| {
        let (predicted, truth) = (usize::from(*predicted), *truth as usize);
        let right = f64::from(predicted == truth);
        match metric {
            "balanced-accuracy" => share * (right - recall(truth)) / table[truth][0],
            "macro-f1" => {
                let own = |class: usize, hit: f64| {
                    if table[class][0] > 0.0 { (hit - f1(class)) / (table[class][0] + table[class][1]) } else { 0.0 }
                };
                if predicted == truth {
                    share * (2.0 * own(truth, 1.0))
                } else {
                    share * (own(truth, 0.0) + own(predicted, 0.0))
                }
            }
            _ => right - value,
        }
    });
    Scored { metric: value, influence: influence.collect(), images: (0..truth.len() as u32).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Stream, stream};

    #[test]
    fn the_interval_of_a_share_is_wilsons() {
        // statsmodels 0.15: proportion_confint(37, 40, method="wilson"), and of (0, 10).
        let near =
            |found: [f64; 2], known: [f64; 2]| found.iter().zip(known).all(|(one, other)| (one - other).abs() < 1e-6);
        assert!(near(share_interval(37, 40), [0.801_357_7, 0.974_164_0]), "{:?}", share_interval(37, 40));
        assert!(near(share_interval(0, 10), [0.0, 0.277_532_8]), "{:?}", share_interval(0, 10));
    }

    #[test]
    fn a_known_interval() {
        // scipy 1.17: t.interval(0.95, 4, loc=mean, scale=sem) of [1, 2, 3, 4, 5] is 3 -+ 1.9632432.
        let found = mean(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((found.half_width.expect("several values") - 1.963_243_2).abs() < 1e-6);
        assert_eq!(mean(&[0.5]).half_width, None);
    }

    #[test]
    fn the_likeness_of_orders_is_kendalls() {
        // scipy 1.17: kendalltau([1, 2, 3, 4, 5], [1, 3, 2, 5, 4]) is 0.6, of ([1, 2, 2, 3], [1, 2, 3, 3]) 0.8.
        let tau = |one: &[f64], other: &[f64]| kendall(one, other).expect("orders");
        assert!((tau(&[1.0, 2.0, 3.0, 4.0, 5.0], &[1.0, 3.0, 2.0, 5.0, 4.0]) - 0.6).abs() < 1e-12);
        assert!((tau(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 3.0]) - 0.8).abs() < 1e-12);
        assert_eq!(kendall(&[1.0, 1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn holm_against_r() {
        // R 4.4: p.adjust(c(0.01, 0.04, 0.03, 0.5), "holm") is 0.04 0.09 0.09 0.50.
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.5]);
        for (found, expected) in adjusted.iter().zip([0.04, 0.09, 0.09, 0.5]) {
            assert!((found - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn the_influence_of_every_metric_is_its_derivative() {
        let truth = [0, 0, 0, 1, 1, 2, 2, 2, 2, 1];
        let predicted = [0, 1, 0, 1, 2, 2, 2, 0, 2, 1];
        for metric in ["accuracy", "balanced-accuracy", "macro-f1"] {
            let base = scored(metric, &predicted, &truth);
            assert!(base.influence.iter().sum::<f64>().abs() < 1e-9, "{metric}");
            // Every image a hundred times, one of them once more: the change is the influence over the weight.
            for extra in 0..truth.len() {
                let repeat = |index: usize| 1000 + usize::from(index == extra);
                let many_truth: Vec<u32> = (0..10).flat_map(|index| vec![truth[index]; repeat(index)]).collect();
                let many: Vec<u16> = (0..10).flat_map(|index| vec![predicted[index]; repeat(index)]).collect();
                let change = (scored(metric, &many, &many_truth).metric - base.metric) * 10_000.0;
                assert!(
                    (change - base.influence[extra]).abs() < 2e-3,
                    "{metric} {extra}: {change} {}",
                    base.influence[extra]
                );
            }
        }
    }

    #[test]
    fn deterministic_arms_still_differ_by_chance_over_images() {
        let one = scored("accuracy", &[0, 0, 1, 1], &[0, 0, 1, 0]);
        let two = scored("accuracy", &[0, 1, 1, 1], &[0, 0, 1, 0]);
        let found = difference(&[one.clone(), one.clone(), one], &[two.clone(), two.clone(), two]);
        assert!((found.mean - 0.25).abs() < 1e-12);
        assert!((found.standard_error - 0.25).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn arms_that_are_the_same_do_not_differ() {
        let one = scored("accuracy", &[0, 1], &[0, 0]);
        let found = difference(&[one.clone(), one.clone()], &[one.clone(), one]);
        assert_eq!((found.mean, found.p), (0.0, 1.0));
    }

    /// Two learners that are as good as each other: each reads three numbers of its own, which tell as much of the class, and
    /// answers by the nearer mean. Their scores on each fold, dealt anew after every five.
    fn equals(data: u64, replicates: usize) -> [Vec<Scored>; 2] {
        const IMAGES: usize = 60;
        const FOLDS: usize = 5;
        let mut random = stream(data, Stream::Synthetic, &[]);
        let class = |image: usize| image % 2;
        let mut number = |image: usize| random.normal() + 0.45 * (2.0 * class(image) as f64 - 1.0);
        let numbers: Vec<[f64; 6]> = (0..IMAGES).map(|image| [image; 6].map(&mut number)).collect();
        let mut found = [Vec::new(), Vec::new()];
        let mut order: Vec<usize> = Vec::new();
        for replicate in 0..replicates {
            if replicate % FOLDS == 0 {
                order = (0..IMAGES / 2).collect();
                stream(data, Stream::Fold, &[replicate as u64]).shuffle(&mut order);
            }
            let fold = |image: usize| order.iter().position(|pair| *pair == image / 2).map(|place| place % FOLDS);
            let tested: Vec<usize> = (0..IMAGES).filter(|image| fold(*image) == Some(replicate % FOLDS)).collect();
            let truth: Vec<u32> = tested.iter().map(|image| class(*image) as u32).collect();
            for (own, found) in [0..3, 3..6].into_iter().zip(&mut found) {
                let mean = |of: usize, at: usize| {
                    let read = (0..IMAGES).filter(|image| class(*image) == of && !tested.contains(image));
                    read.map(|image| numbers[image][at]).sum::<f64>()
                };
                let side = |image: usize| -> f64 {
                    let one = |at: usize| {
                        let [low, high] =
                            [mean(0, at), mean(1, at)].map(|sum| sum / (IMAGES / 2 - tested.len() / 2) as f64);
                        (high - low) * (numbers[image][at] - 0.5 * (low + high))
                    };
                    own.clone().map(one).sum()
                };
                let predicted: Vec<u16> = tested.iter().map(|image| u16::from(side(*image) > 0.0)).collect();
                let images = tested.iter().map(|image| *image as u32).collect();
                found.push(scored("accuracy", &predicted, &truth).on(images));
            }
        }
        found
    }

    /// How often what is true, that two learners are equally good, is rejected at .05: by `difference`, and by a t test that
    /// takes folds for independent.
    fn rejected(replicates: usize) -> [f64; 2] {
        const TIMES: u64 = 400;
        let mut found = [0.0; 2];
        for data in 0..TIMES {
            let [one, other] = equals(data, replicates);
            found[0] += f64::from(u8::from(difference(&one, &other).p < 0.05)) / TIMES as f64;
            let folds: Vec<f64> = one.iter().zip(&other).map(|(one, other)| one.metric - other.metric).collect();
            let Mean { mean, half_width, .. } = mean(&folds);
            found[1] += f64::from(u8::from(half_width.is_some_and(|half| mean.abs() > half))) / TIMES as f64;
        }
        found
    }

    #[test]
    fn cross_validation_rejects_what_is_true_no_more_often_than_it_says() {
        let (once, thrice) = (rejected(5), rejected(15));
        assert!(once[0] <= 0.05 && thrice[0] <= 0.05, "{once:?} {thrice:?}");
        assert!(thrice[0] > 0.005 && thrice[1] > 0.15, "folds are not independent: {once:?} {thrice:?}");
    }

    #[test]
    fn repeated_folds_make_no_mean_narrower() {
        let once = [0.8, 0.7, 0.9];
        let twice: Vec<f64> = once.iter().chain(&once).copied().collect();
        let half = |values: &[f64], folds: usize| mean_over(values, folds).half_width.expect("several values");
        assert_eq!(half(&once, 3), mean(&once).half_width.expect("several values"));
        // The variance of six is 4/5 of that of three, and t has five degrees of freedom instead of two.
        let expected = quantile(0.975, 5.0) / quantile(0.975, 2.0) * f64::sqrt(0.8) * half(&once, 3);
        assert!((half(&twice, 3) - expected).abs() < 1e-12);
    }
}
