//! Conversion to powers of `x`, which is how a network describes an activation.

use serde::Serialize;

use crate::{Error, Series};

/// Bits that monomial coefficients may lose to cancellation: half of a double's.
pub const MAX_LOST_BITS: u32 = 26;

/// `a_0 + a_1 x + ... + a_d x^d`, and how stable this form is on its interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Monomial {
    /// `a_0, a_1, ...`: constant term first; the last one is not zero unless it is the only one.
    pub coefficients: Vec<f64>,
    /// Condition of the form: log2 of `sum |a_k| X^k / max |p|`, where `X` is the largest `|x|`. So many bits of the working
    /// precision, of doubles or of ciphertexts, cancel in an evaluation.
    pub lost_bits: f64,
    /// Largest difference between Horner's rule on the coefficients and the stable form, as a share of `max |p|`.
    pub deviation: f64,
}

impl Monomial {
    /// Converts a series.
    ///
    /// Terms `a_k X^k` that rounding cannot tell from zero, below `64 (d+1) 2^-53` of the sum of all terms, become zero: an odd
    /// function keeps no even terms, and a vanishing leading term lowers the degree.
    ///
    /// # Errors
    /// [`Error::Unstable`] where more than [`MAX_LOST_BITS`] bits would be lost, by the condition or by the deviation.
    pub fn new(series: &Series) -> Result<Self, Error> {
        let interval = series.interval();
        let (points, degree) = (8 * (series.degree() + 1), series.degree());
        let grid =
            || (0..=points).map(|i| interval.from_unit(-libm::cos(std::f64::consts::PI * i as f64 / points as f64)));
        let largest = grid().map(|x| series.value(x).abs()).fold(0.0, f64::max);
        let mut coefficients = shift(unit_coefficients(series), interval.centre(), interval.half_length());
        let term = |k: usize, a: f64| a.abs() * libm::pow(interval.magnitude(), k as f64);
        let sum: f64 = coefficients.iter().enumerate().map(|(k, &a)| term(k, a)).sum();
        let noise = 64.0 * (degree + 1) as f64 * 0.5 * f64::EPSILON * sum;
        for (k, a) in coefficients.iter_mut().enumerate() {
            if term(k, *a) <= noise {
                *a = 0.0;
            }
        }
        while coefficients.len() > 1 && coefficients.last() == Some(&0.0) {
            coefficients.pop();
        }
        let share = |error: f64| if largest > 0.0 { error / largest } else { error };
        let deviation = share(grid().map(|x| (horner(&coefficients, x) - series.value(x)).abs()).fold(0.0, f64::max));
        let lost_bits = if sum > 0.0 { libm::log2(share(sum)).max(0.0) } else { 0.0 };
        let seen_bits = if deviation > 0.0 { 53.0 + libm::log2(deviation) } else { 0.0 };
        let worst = if sum.is_finite() { lost_bits.max(seen_bits) } else { f64::INFINITY };
        if worst > f64::from(MAX_LOST_BITS) {
            return Err(Error::Unstable { degree, low: interval.low(), high: interval.high(), lost_bits: worst });
        }
        Ok(Monomial { coefficients, lost_bits, deviation })
    }

    /// Index of the last coefficient that is not zero; 0 for a constant.
    pub fn degree(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// The value at `x`, by Horner's rule.
    pub fn value(&self, x: f64) -> f64 {
        horner(&self.coefficients, x)
    }
}

fn horner(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, a| sum * x + a)
}

/// Coefficients of the powers of `t`: Clenshaw's recurrence on polynomials.
fn unit_coefficients(series: &Series) -> Vec<f64> {
    let (alpha, beta) = (&series.recurrence().alpha, &series.recurrence().beta);
    let count = series.coefficients().len();
    let (mut u, mut u_next) = (vec![0.0; count], vec![0.0; count]);
    for (k, &c) in series.coefficients().iter().enumerate().rev() {
        let a = alpha.get(k).copied().unwrap_or(0.0);
        let b = beta.get(k + 1).copied().unwrap_or(0.0);
        let mut next: Vec<f64> = (0..count)
            .map(|i| {
                let shifted = if i == 0 { 0.0 } else { u[i - 1] };
                shifted - a * u[i] - b * u_next[i]
            })
            .collect();
        next[0] += c;
        (u, u_next) = (next, u);
    }
    u
}

/// The polynomial `q((x - centre) / half)` in powers of `x`.
fn shift(mut q: Vec<f64>, centre: f64, half: f64) -> Vec<f64> {
    let mut power = 1.0;
    for a in &mut q {
        *a /= power;
        power *= half;
    }
    // Synthetic division, again and again: Taylor's shift by -centre.
    if centre != 0.0 {
        for low in 0..q.len() {
            for k in (low..q.len() - 1).rev() {
                q[k] -= centre * q[k + 1];
            }
        }
    }
    q
}
