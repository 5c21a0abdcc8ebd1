//! Temperature scaling: the one number by which logits are divided so that probabilities say how often answers are right (Guo et
//! al., 2017).

use candle_core::{Result, bail};

use super::exponential::exponentials;

/// ln T is looked for between these, first at so many places.
const RANGE: [f64; 2] = [-5.0, 5.0];
const PLACES: usize = 41;
/// ln T is found to this.
const CLOSE: f64 = 1e-9;
/// The golden section (Kiefer, 1953).
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// The temperature with which the sum of the log losses of `logits` (rows of `classes` numbers) with their `labels` is least, and
/// with it a prior of ln T: normal, of variance 1. Without the prior, validation images that are all answered right would ask for a
/// temperature of zero, and every later error would be certain of itself; beside many images it weighs nothing.
///
/// # Errors
/// The shapes do not fit, a label is not below the number of classes, or a logit is no number.
pub fn temperature(logits: &[f32], labels: &[u32], classes: usize) -> Result<f64> {
    if classes == 0 || labels.is_empty() || logits.len() != labels.len() * classes {
        bail!("{} logits are not those of {} rows of {classes} classes", logits.len(), labels.len());
    }
    if let Some(label) = labels.iter().find(|label| **label as usize >= classes) {
        bail!("label {label} is not below {classes} classes");
    }
    if !logits.iter().all(|logit| logit.is_finite()) {
        bail!("the logits hold NaN or infinity");
    }
    // Of each row the distances to its largest number.
    let below = |row: &[f32]| {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter().map(|logit| f64::from(*logit) - f64::from(top)).collect::<Vec<f64>>()
    };
    let shifted: Vec<f64> = logits.chunks_exact(classes).flat_map(below).collect();
    let mut space = [vec![0.0; classes], vec![0.0; classes]];
    let mut loss = |log_temperature: f64| {
        let [scaled, powers] = &mut space;
        let factor = libm::exp(-log_temperature);
        let mut sum = log_temperature * log_temperature / 2.0;
        for (row, label) in shifted.chunks_exact(classes).zip(labels) {
            scaled.iter_mut().zip(row).for_each(|(into, number)| *into = number * factor);
            exponentials(scaled, powers);
            sum += libm::log(powers.iter().sum()) - scaled[*label as usize];
        }
        sum
    };
    let step = (RANGE[1] - RANGE[0]) / (PLACES - 1) as f64;
    let place = |index: usize| RANGE[0] + step * index as f64;
    let best = (0..PLACES).map(|index| (loss(place(index)), index));
    let best = best.fold((f64::INFINITY, 0), |best, own| if own.0 < best.0 { own } else { best }).1;
    let (mut low, mut high) = (place(best) - step, place(best) + step);
    while high - low > CLOSE {
        let (left, right) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
        if loss(left) <= loss(right) {
            high = right;
        } else {
            low = left;
        }
    }
    Ok(libm::exp((low + high) / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Stream, stream};

    /// Rows of logits, and labels drawn from the probabilities that the logits over `temperature` give.
    fn drawn(rows: usize, classes: usize, temperature: f64) -> (Vec<f32>, Vec<u32>) {
        let mut rng = stream(7, Stream::Init, &[]);
        let (mut logits, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..rows {
            let row: Vec<f32> = (0..classes).map(|_| (8.0 * rng.unit()) as f32).collect();
            let weights: Vec<f64> = row.iter().map(|logit| libm::exp(f64::from(*logit) / temperature)).collect();
            let mut at = rng.unit() * weights.iter().sum::<f64>();
            let label = weights.iter().position(|weight| {
                at -= weight;
                at <= 0.0
            });
            labels.push(label.unwrap_or(classes - 1) as u32);
            logits.extend(row);
        }
        (logits, labels)
    }

    #[test]
    fn the_temperature_behind_many_labels_is_found() {
        for temperature in [0.5, 1.0, 2.5] {
            let (logits, labels) = drawn(20_000, 10, temperature);
            let found = super::temperature(&logits, &labels, 10).expect("numbers");
            assert!((found / temperature - 1.0).abs() < 0.03, "{found} instead of {temperature}");
        }
    }

    /// scipy 1.17.1: minimize_scalar of the same sum, by Brent's method to 1e-12.
    #[test]
    fn of_a_few_rows_it_is_scipys() {
        let logits = [2.0, 0.5, -1.0, 0.1, 0.3, 0.2, 3.0, -2.0, 0.0, 1.0, 4.0, -1.0];
        let found = temperature(&logits, &[0, 2, 2, 1], 3).expect("numbers");
        assert!((found - 1.735_690_582).abs() < 1e-6, "{found}");
    }

    #[test]
    fn what_is_all_right_does_not_become_certain() {
        let (rows, classes) = (30, 3);
        let logits: Vec<f32> = (0..rows).flat_map(|_| [4.0, 0.0, 0.0]).collect();
        let found = temperature(&logits, &vec![0; rows], classes).expect("numbers");
        assert!((0.3..0.9).contains(&found), "{found}");
        // Nothing is learned from logits that say nothing.
        let even = temperature(&[1.0; 9], &[0, 1, 2], 3).expect("numbers");
        assert!((even - 1.0).abs() < 1e-6, "{even}");
        assert!(temperature(&[f32::NAN, 1.0], &[0], 2).is_err() && temperature(&[1.0; 5], &[0, 1], 2).is_err());
        assert!(temperature(&[0.0, 1.0], &[2], 2).is_err());
    }
}
