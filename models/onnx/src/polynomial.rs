//! Polynomials of the values of a network, one for all channels or one for each.

use cryptodl_network::limits::MAX_COEFFICIENTS;

use crate::error::Refusal;

/// Coefficients with the constant term first: one row for all channels, or one row for each. All
/// rows have the same length, at least 1, and rows of several channels are not all equal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Polynomial {
    rows: Vec<Vec<f64>>,
}

impl Polynomial {
    /// The value itself.
    pub(crate) fn identity() -> Self {
        Self { rows: vec![vec![0.0, 1.0]] }
    }

    /// A constant: one for all channels, or one for each.
    pub(crate) fn constant(values: Vec<f64>) -> Self {
        Self { rows: values.into_iter().map(|value| vec![value]).collect() }.normal()
    }

    /// For each channel, what brings 0 and 1 to these two numbers.
    pub(crate) fn affine(ends: &[[f64; 2]]) -> Self {
        Self { rows: ends.iter().map(|[low, high]| vec![*low, high - low]).collect() }.normal()
    }

    pub(crate) fn is_identity(&self) -> bool {
        self.rows.len() == 1 && self.rows[0] == [0.0, 1.0]
    }

    pub(crate) fn degree(&self) -> usize {
        self.rows[0].len() - 1
    }

    /// One row, or one for each channel.
    pub(crate) fn rows(&self) -> &[Vec<f64>] {
        &self.rows
    }

    pub(crate) fn is_per_channel(&self) -> bool {
        self.rows.len() > 1
    }

    /// Number of coefficients, for budgets.
    pub(crate) fn size(&self) -> usize {
        self.rows.len() * self.rows[0].len()
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        self.joined(other, |a, b| {
            let at = |row: &[f64], power: usize| row.get(power).copied().unwrap_or(0.0);
            (0..a.len().max(b.len())).map(|power| at(a, power) + at(b, power)).collect()
        })
    }

    /// The product; its degree is the sum of theirs.
    pub(crate) fn times(&self, other: &Self) -> Result<Self, Refusal> {
        let length = self.rows[0].len() + other.rows[0].len() - 1;
        if length > MAX_COEFFICIENTS {
            return Err(format!(
                "it makes a polynomial of degree {}; at most {} is supported, and each doubling of the degree costs depth: \
                 put a linear layer between the activations, or use lower degrees",
                length - 1,
                MAX_COEFFICIENTS - 1
            ));
        }
        Ok(self.joined(other, |a, b| {
            let mut product = vec![0.0; length];
            for (i, x) in a.iter().enumerate() {
                for (j, y) in b.iter().enumerate() {
                    product[i + j] += x * y;
                }
            }
            product
        }))
    }

    /// A whole power, at least 1.
    pub(crate) fn power(&self, exponent: usize) -> Result<Self, Refusal> {
        (1..exponent).try_fold(self.clone(), |power, _| power.times(self))
    }

    pub(crate) fn is_finite(&self) -> bool {
        self.rows.iter().flatten().all(|c| c.is_finite())
    }

    fn joined(&self, other: &Self, join: impl Fn(&[f64], &[f64]) -> Vec<f64>) -> Self {
        let count = self.rows.len().max(other.rows.len());
        let row = |polynomial: &'_ Self, at: usize| -> usize { if polynomial.rows.len() == 1 { 0 } else { at } };
        let rows = (0..count).map(|at| join(&self.rows[row(self, at)], &other.rows[row(other, at)])).collect();
        Self { rows }.normal()
    }

    /// Without leading coefficients that are zero in every channel; one row if all are equal.
    fn normal(mut self) -> Self {
        while self.rows[0].len() > 1 && self.rows.iter().all(|row| row.last() == Some(&0.0)) {
            self.rows.iter_mut().for_each(|row| {
                row.pop();
            });
        }
        if self.rows.iter().all(|row| *row == self.rows[0]) {
            self.rows.truncate(1);
        }
        self
    }
}

/// A number as nine decimal digits say it, which tell any two f32 numbers apart. Coefficients of
/// ONNX are f32 numbers or made of some, and a description is read by people.
pub(crate) fn nine_digits(value: f64) -> f64 {
    format!("{value:.8e}").parse().expect("a number that was just written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(polynomial: &Polynomial, channel: usize, x: f64) -> f64 {
        let row = &polynomial.rows[if polynomial.is_per_channel() { channel } else { 0 }];
        row.iter().rev().fold(0.0, |y, c| y * x + c)
    }

    #[test]
    fn horner_and_powers_give_the_same_polynomial() {
        let x = Polynomial::identity();
        let c = |value: f64| Polynomial::constant(vec![value]);
        // ((0.25 x + 0.5) x + 2) and 0.25 x^2 + 0.5 x + 2.
        let horner = c(0.25).times(&x).unwrap().plus(&c(0.5)).times(&x).unwrap().plus(&c(2.0));
        let powers = c(0.25).times(&x.power(2).unwrap()).unwrap().plus(&c(0.5).times(&x).unwrap()).plus(&c(2.0));
        assert_eq!(horner, powers);
        assert_eq!(horner.rows(), [vec![2.0, 0.5, 0.25]]);
    }

    #[test]
    fn algebra_is_that_of_values_in_every_channel() {
        let p = Polynomial::constant(vec![1.0, -2.0, 0.5]).times(&Polynomial::identity()).unwrap();
        let q = p.plus(&Polynomial::constant(vec![3.0]));
        let cube = q.power(3).unwrap();
        let sum = cube.plus(&p);
        for channel in 0..3 {
            for x in [-1.5, 0.0, 0.75] {
                let (a, b) = (value(&p, channel, x), value(&q, channel, x));
                assert!((value(&cube, channel, x) - b.powi(3)).abs() < 1e-12);
                assert!((value(&sum, channel, x) - (b.powi(3) + a)).abs() < 1e-12);
            }
        }
        assert_eq!(cube.degree(), 3);
    }

    #[test]
    fn what_cancels_is_gone_and_equal_rows_are_one() {
        let p = Polynomial::constant(vec![1.0, 2.0]).times(&Polynomial::identity()).unwrap();
        let minus = p.times(&Polynomial::constant(vec![-1.0])).unwrap();
        let zero = p.plus(&minus);
        assert_eq!((zero.degree(), zero.rows().len()), (0, 1));
        assert!(Polynomial::identity().power(2).unwrap().power(32).unwrap_err().contains("degree 64"));
    }

    #[test]
    fn nine_digits_keep_every_f32() {
        for bits in (0..0x7f80_0000u32).step_by(7_654_321) {
            let x = f32::from_bits(bits);
            assert_eq!(nine_digits(x.into()) as f32, x);
        }
        assert_eq!(nine_digits(f64::from(0.104_211_4_f32)), 0.104211397);
    }
}
