//! After how many replicates a sweep looks at its verdicts, how much each look may spend of the error level, and what more
//! replicates would tell.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::compare::{Difference, quantile, satterthwaite};

/// One look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    pub replicates: usize,
    /// Its part of the error level; those of all looks are one together.
    pub share: f64,
}

/// A look that would come when so much of all is there is the last one, with all.
const NEAR_THE_END: f64 = 0.8;

/// After `first` replicates, then after half as many again each time, and after `most`. Each may spend in proportion to the
/// replicates that it adds (the spending function alpha t of Lan and DeMets, 1983). The errors of the looks are added up, which holds
/// however they depend on each other: on replicates that all of them read, and on test images that none of them adds.
pub fn looks(first: usize, most: usize) -> Vec<Look> {
    let mut at = vec![first];
    let mut last = first;
    while last < most {
        let next = (last + last.div_ceil(2)).max(last + 1);
        last = if next as f64 >= NEAR_THE_END * most as f64 { most } else { next };
        at.push(last);
    }
    let before = [0].into_iter().chain(at.clone());
    let share = |(replicates, before): (&usize, usize)| (replicates - before) as f64 / last as f64;
    at.iter().zip(before).map(|(at, before)| Look { replicates: *at, share: share((at, before)) }).collect()
}

impl Difference {
    /// How likely `last`, a look at more replicates, is to tell the two apart at `alpha` or to find them within `margin`, by what
    /// is seen so far: the mean is then spread about the present one as the replicates to come make it (the predictive power
    /// of Spiegelhalter, Freedman and Blackburn, 1986).
    pub fn chance_to_settle(&self, last: Look, alpha: f64, margin: f64) -> f64 {
        let (error, degrees) = self.foreseen(last.replicates);
        let width = |tail: f64| quantile(1.0 - last.share * tail, degrees) * error;
        let ahead = 1.0 / self.replicates as f64 - 1.0 / last.replicates as f64;
        let spread = (self.between * ahead).sqrt();
        let below = |mean: f64| match (spread > 0.0, StudentsT::new(0.0, 1.0, (self.replicates - 1) as f64)) {
            (true, Ok(t)) => t.cdf((mean - self.mean) / spread),
            _ => f64::from(u8::from(self.mean < mean)),
        };
        let apart = width(alpha / 2.0);
        let room = margin - width(0.05);
        let within = if room > 0.0 { below(room) - below(-room) } else { 0.0 };
        1.0 - below(apart) + below(-apart) + within
    }

    /// The standard error that so many replicates are to have, and its degrees of freedom.
    fn foreseen(&self, replicates: usize) -> (f64, f64) {
        let ratio = self.replicates as f64 / replicates as f64;
        let (first, second) = (self.between / replicates as f64, self.within - self.chance * (1.0 - ratio));
        ((first + second).sqrt(), satterthwaite(first, replicates, second, self.images))
    }

    /// How many replicates would make the difference seen here significant at `alpha`, if its size and spread stayed
    /// as they are; `None` where ten thousand would not, for want of test images.
    pub fn replicates_to_settle(&self, alpha: f64) -> Option<usize> {
        let significant = |replicates: usize| {
            let (error, degrees) = self.foreseen(replicates);
            self.mean.abs() > quantile(1.0 - alpha / 2.0, degrees) * error
        };
        let most = 10_000;
        if !significant(most) {
            return None;
        }
        let (mut low, mut high) = (self.replicates, most);
        while high - low > 1 {
            let middle = low.midpoint(high);
            if significant(middle) { high = middle } else { low = middle }
        }
        Some(high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::{Scored, difference, variance};
    use crate::seed::{Stream, stream};

    #[test]
    fn looks_grow_by_half_and_spend_what_they_add() {
        let at = |first: usize, most: usize| looks(first, most).iter().map(|look| look.replicates).collect::<Vec<_>>();
        assert_eq!(at(5, 20), [5, 8, 12, 20]);
        assert_eq!(at(3, 20), [3, 5, 8, 12, 20]);
        assert_eq!(at(3, 4), [3, 4]);
        assert_eq!(at(4, 4), [4]);
        let shares: Vec<f64> = looks(5, 20).iter().map(|look| look.share).collect();
        assert_eq!(shares, [0.25, 0.15, 0.2, 0.4]);
        assert_eq!(looks(4, 4)[0].share, 1.0);
    }

    /// Replicates whose difference is these numbers, on images of which all weigh alike.
    fn seen(differences: [f64; 5]) -> Difference {
        let side = |metric: f64| Scored { metric, influence: vec![0.0; 10], images: (0..10).collect() };
        difference(&differences.map(side), &[0.0; 5].map(side))
    }

    #[test]
    fn a_look_divides_p_and_widens_the_interval() {
        let whole = seen([0.1, 0.0, 0.2, 0.1, 0.1]);
        let look = whole.at(0.25);
        assert!((look.p - 4.0 * whole.p).abs() < 1e-15);
        assert!((look.half_width(0.95) - whole.half_width(1.0 - 0.25 * 0.05)).abs() < 1e-12);
        assert_eq!(seen([0.1, -0.1, 0.1, -0.1, 0.0]).at(0.25).p, 1.0);
    }

    /// An image is as hard in all replicates, and answered by chance in each: the first stays, the second is averaged away.
    #[test]
    fn what_more_replicates_will_tell_is_foreseen_from_few() {
        const IMAGES: usize = 100;
        let (mut foreseen, mut seen, mut without) = (0.0, 0.0, 0.0);
        for data in 0..200 {
            let mut random = stream(data, Stream::Synthetic, &[]);
            let hard: Vec<f64> = (0..IMAGES).map(|_| random.normal()).collect();
            let mut side = |spread: f64| -> Vec<Scored> {
                let mut one = || {
                    let shift = 0.1 * random.normal();
                    let own: Vec<f64> =
                        hard.iter().map(|hard| spread * (hard + shift + 3.0 * random.normal())).collect();
                    let metric = own.iter().sum::<f64>() / IMAGES as f64;
                    let influence = own.iter().map(|value| value - metric).collect();
                    Scored { metric, influence, images: (0..IMAGES as u32).collect() }
                };
                (0..20).map(|_| one()).collect()
            };
            let (better, worse) = (side(1.0), side(0.0));
            let few = difference(&better[..5], &worse[..5]);
            foreseen += few.foreseen(20).0;
            seen += difference(&better, &worse).standard_error;
            without += (few.standard_error.powi(2) - 0.75 * variance_over_replicates(&better[..5]) / 5.0).sqrt();
        }
        assert!((foreseen / seen - 1.0).abs() < 0.02, "{foreseen} {seen}");
        assert!(without / seen > 1.2, "what only images shrink is not all that images vary by: {without} {seen}");
    }

    fn variance_over_replicates(scored: &[Scored]) -> f64 {
        variance(&scored.iter().map(|scored| scored.metric).collect::<Vec<_>>())
    }

    #[test]
    fn the_chance_to_settle_is_that_of_the_predictive_distribution() {
        // scipy 1.17: with s = sqrt(.005 (1/5 - 1/20)), t of 4 degrees beyond c = t.ppf(1 - .4 * .025, 19) sqrt(.005 / 20) from either side,
        // and within a margin of .06 less t.ppf(1 - .4 * .05, 19) sqrt(.005 / 20).
        let last = Look { replicates: 20, share: 0.4 };
        let chance = |shift: f64, margin: f64| {
            let differences = [0.1, 0.0, 0.2, 0.1, 0.1].map(|value| value - shift);
            seen(differences).chance_to_settle(last, 0.05, margin)
        };
        assert!((chance(0.0, 0.0) - 0.956_356_789).abs() < 1e-6, "{}", chance(0.0, 0.0));
        assert!((chance(0.08, 0.0) - 0.297_823_183).abs() < 1e-6, "{}", chance(0.08, 0.0));
        assert!((chance(0.08, 0.06) - 0.780_383_958).abs() < 1e-6, "{}", chance(0.08, 0.06));
    }
}
