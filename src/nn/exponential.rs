//! e^x in f64 and in f32 by the same operations on every processor and system: the standard library's is the system's, whose
//! last bit differs from one to the next, and `libm`'s does one number at a time.

use super::kernel::on_every_path;

/// Beyond it e^x leaves the numbers of f32.
const FARTHEST: f32 = 87.0;
/// ln 2 in two parts of f32, the first with zeros at its end.
const LN_2_F32: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Added to a number below 2^22 it rounds that to a whole one, which stands in the last bits.
const TO_WHOLE_F32: f32 = 12_582_912.0;
/// 1/n! from n = 7 down to 0: the rest is below 2^-27 where |r| <= ln 2 / 2.
const TAYLOR_F32: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// e^x in f32 to the last places; what is beyond 87 on either side counts as that, and what is no number stays none. Nothing is
/// fused: all paths give the same bits.
#[inline(always)]
pub fn exponential(x: f32) -> f32 {
    // `clamp` would do as well, but not in one instruction.
    let x = if x < -FARTHEST { -FARTHEST } else { x };
    let x = if x > FARTHEST { FARTHEST } else { x };
    let whole = x * std::f32::consts::LOG2_E + TO_WHOLE_F32;
    let count = whole - TO_WHOLE_F32;
    let rest = x - count * LN_2_F32[0] - count * LN_2_F32[1];
    let mut sum = TAYLOR_F32[0];
    for term in &TAYLOR_F32[1..] {
        sum = sum * rest + term;
    }
    sum * f32::from_bits(whole.to_bits().wrapping_add(127) << 23)
}

/// Below it, e^x is nothing beside the 1 that every softmax has in its sum.
const LEAST: f64 = -700.0;
/// ln 2 in two parts, the first with zeros at its end: whole multiples of it are exact (Cody and Waite, 1980).
const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
/// Added to a number below 2^51 it rounds that to a whole one, which stands in the last bits.
const TO_WHOLE: f64 = 6_755_399_441_055_744.0;

/// 1/n! from n = 13 down to 0: the rest is below 2^-57 where |r| <= ln 2 / 2.
const TAYLOR: [f64; 14] = {
    let mut terms = [1.0; 14];
    let (mut n, mut factorial) = (1, 1.0);
    while n < 14 {
        factorial *= n as f64;
        terms[13 - n] = 1.0 / factorial;
        n += 1;
    }
    terms
};

on_every_path! {
    /// Writes e^x for each x of `from`, none above 0, to within one and a half units in the last place; what is below -700
    /// counts as that. Nothing is fused: all paths give the same bits.
    ///
    /// # Panics
    /// The slices are of different lengths.
    pub fn exponentials(from: &[f64], into: &mut [f64]) {
        assert_eq!(from.len(), into.len());
        for (x, into) in from.iter().zip(into) {
            // What is no number stays none: `max` would lose it.
            let x = if *x < LEAST { LEAST } else { *x };
            let whole = x * std::f64::consts::LOG2_E + TO_WHOLE;
            let count = whole - TO_WHOLE;
            let rest = x - count * LN_2[0] - count * LN_2[1];
            let mut sum = TAYLOR[0];
            for term in &TAYLOR[1..] {
                sum = sum * rest + term;
            }
            *into = sum * f64::from_bits(whole.to_bits().wrapping_add(1023) << 52);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(x: f64) -> f64 {
        let mut into = [0.0];
        exponentials(&[x], &mut into);
        into[0]
    }

    #[test]
    fn exponentials_are_right_to_the_last_place() {
        let worst = (0..200_000).map(|at| {
            let x = -f64::from(at) * f64::from(at) * 1.7e-8;
            let (own, exact) = (of(x), x.exp());
            ((own - exact) / (exact * f64::EPSILON)).abs()
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst <= 1.5, "{worst} units");
    }

    #[test]
    fn the_ends_are_told_from_each_other() {
        assert_eq!(of(0.0), 1.0);
        assert_eq!(of(-0.0), 1.0);
        assert!(of(f64::NAN).is_nan());
        for x in [-1e3, f64::NEG_INFINITY] {
            assert!(of(x) > 0.0 && of(x) < 1e-300);
        }
    }
}
