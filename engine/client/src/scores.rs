//! To which digits scores are rounded.

use cryptodl_core::ckks::{ClientSpec, noise};

/// Standard deviations of a score's noise in a unit, at least: rounding to it leaves next to nothing of the noise, on which
/// the secret key depends.
const DEVIATIONS: f64 = 8.0;
/// Exponent of the finest unit: an `f32` holds about so many decimals.
const FINEST: i32 = -6;

/// A step of 1, 2 or 5 times a power of ten. Scores are rounded to its multiples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreUnit {
    /// 1, 2 or 5.
    digit: u8,
    /// Of the power of ten, -6 or more.
    exponent: i32,
}

impl ScoreUnit {
    /// The unit for the scores of a Program: the least of at least eight standard deviations of
    /// their noise. The spec states a noise, but it may come from a stranger, so that the client's
    /// own bound (from re-randomisation and division) counts where it is larger.
    pub fn of(spec: &ClientSpec) -> Self {
        Self::at_least(DEVIATIONS * spec.output.noise.max(least_noise(spec)))
    }

    /// The least unit that is not below `bound`, which is at most 1e300.
    fn at_least(bound: f64) -> Self {
        let units = (FINEST..=300).flat_map(|exponent| [1, 2, 5].map(|digit| ScoreUnit { digit, exponent }));
        units.clone().find(|unit| unit.value() >= bound).unwrap_or(ScoreUnit { digit: 5, exponent: 300 })
    }

    /// The unit as a number.
    pub fn value(self) -> f64 {
        let (digit, power) = (f64::from(self.digit), 10f64.powi(self.exponent.abs()));
        if self.exponent < 0 { digit / power } else { digit * power }
    }

    /// Decimals that multiples of the unit need.
    pub fn decimals(self) -> usize {
        usize::try_from(-self.exponent).unwrap_or(0)
    }

    /// The multiple nearest to `score`.
    pub fn round(self, score: f64) -> f64 {
        let (digit, power) = (f64::from(self.digit), 10f64.powi(self.exponent.abs()));
        // Adding zero turns -0 into 0.
        if self.exponent < 0 {
            (score * power / digit).round() * digit / power + 0.0
        } else {
            (score / (digit * power)).round() * (digit * power) + 0.0
        }
    }
}

/// Noise that a score has whatever its spec says, root mean square: a server that follows the
/// protocol re-randomises a result of this ring and so many components, and most divide it before.
fn least_noise(spec: &ClientSpec) -> f64 {
    let (n, output) = (spec.params.n, &spec.output);
    let [rerandomisation, division] = [noise::rerandomise, noise::divide].map(|noise| noise(n, output.components));
    rerandomisation.plus(division).rms / output.scale.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_the_next_of_one_two_and_five() {
        let cases = [
            (0.0, "0.000001"),
            (1.5e-6, "0.000002"),
            (0.01, "0.01"),
            (0.0101, "0.02"),
            (0.3, "0.5"),
            (0.51, "1"),
            (2.2, "5"),
            (5.1, "10"),
            (777.0, "1000"),
        ];
        for (bound, expected) in cases {
            let unit = ScoreUnit::at_least(bound);
            assert_eq!(format!("{:.*}", unit.decimals(), unit.value()), expected, "at least {bound}");
        }
        assert!(ScoreUnit::at_least(f64::INFINITY).value() > 1e300);
    }

    #[test]
    fn scores_become_the_nearest_multiple() {
        let unit = ScoreUnit::at_least(0.3);
        assert_eq!([-0.2, 0.26, -7.3, 7.75].map(|score| unit.round(score).to_string()), ["0", "0.5", "-7.5", "8"]);
        let unit = ScoreUnit::at_least(15.0);
        assert_eq!([-9.0, 11.0, -31.0, 1234.0].map(|score| unit.round(score).to_string()), ["0", "20", "-40", "1240"]);
        let unit = ScoreUnit::at_least(0.0);
        assert_eq!(unit.round(0.123_456_789), 0.123_457);
    }
}
