//! Polynomials in a basis with a three-term recurrence.

use crate::Interval;

/// The monic polynomials `p_0 = 1, p_(k+1)(t) = (t - alpha_k) p_k(t) - beta_k p_(k-1)(t)`.
///
/// Every family of orthogonal polynomials is of this kind (Gautschi, Orthogonal Polynomials, 2004, section 1.3), and so are
/// the powers of `t - t_0`: `alpha = t_0, beta = 0`.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrence {
    /// `alpha_0, alpha_1, ...`
    pub alpha: Vec<f64>,
    /// `beta_0, beta_1, ...`; `beta_0` multiplies `p_(-1) = 0` and is 0.
    pub beta: Vec<f64>,
}

impl Recurrence {
    /// Monic Chebyshev polynomials of the first kind, `2^(1-k) T_k`, up to degree `degree`.
    pub fn chebyshev(degree: usize) -> Self {
        let beta = (0..degree.max(1)).map(|k| [0.0, 0.5, 0.25][k.min(2)]).collect();
        Recurrence { alpha: vec![0.0; degree.max(1)], beta }
    }

    /// Powers of `t - origin` up to degree `degree`.
    pub fn powers(origin: f64, degree: usize) -> Self {
        Recurrence { alpha: vec![origin; degree.max(1)], beta: vec![0.0; degree.max(1)] }
    }
}

/// `sum_k c_k p_k(t)` with `t` in [-1, 1] where `x` is in the interval: a polynomial in its stable form, for any degree.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    interval: Interval,
    recurrence: Recurrence,
    coefficients: Vec<f64>,
}

impl Series {
    /// `sum_k coefficients[k] p_k`.
    ///
    /// # Panics
    /// Without coefficients, or if the recurrence is shorter than the degree.
    pub fn new(interval: Interval, recurrence: Recurrence, coefficients: Vec<f64>) -> Self {
        assert!(!coefficients.is_empty(), "a series needs a coefficient");
        let steps = recurrence.alpha.len().min(recurrence.beta.len());
        assert!(coefficients.len() <= steps + 1, "{} coefficients, {steps} recurrence steps", coefficients.len());
        Series { interval, recurrence, coefficients }
    }

    /// `sum_k coefficients[k] T_k(t)`, Chebyshev polynomials of the first kind in their usual scaling.
    ///
    /// # Panics
    /// Without coefficients.
    pub fn from_chebyshev(interval: Interval, coefficients: &[f64]) -> Self {
        // T_k = 2^(k-1) times the monic one; powers of two are exact.
        let monic = |(k, c): (usize, &f64)| if k == 0 { *c } else { libm::scalbn(*c, k as i32 - 1) };
        let degree = coefficients.len().saturating_sub(1);
        Series::new(interval, Recurrence::chebyshev(degree), coefficients.iter().enumerate().map(monic).collect())
    }

    /// Where it approximates.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// The basis.
    pub fn recurrence(&self) -> &Recurrence {
        &self.recurrence
    }

    /// Coefficients in the basis, lowest degree first.
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// Formal degree: the leading coefficient may be zero.
    pub fn degree(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// The value at `x`, by Clenshaw's recurrence (Clenshaw, A note on the summation of Chebyshev series, 1955).
    pub fn value(&self, x: f64) -> f64 {
        self.value_and_derivative(x).0
    }

    /// The derivative at `x`, by Clenshaw's recurrence differentiated.
    pub fn derivative(&self, x: f64) -> f64 {
        self.value_and_derivative(x).1
    }

    fn value_and_derivative(&self, x: f64) -> (f64, f64) {
        let t = self.interval.to_unit(x);
        let Recurrence { alpha, beta } = &self.recurrence;
        let (mut u, mut u_next) = (0.0, 0.0);
        let (mut du, mut du_next) = (0.0, 0.0);
        for (k, &c) in self.coefficients.iter().enumerate().rev() {
            // The last pass of the loop multiplies zeros where the recurrence ends.
            let a = alpha.get(k).map_or(0.0, |alpha| t - alpha);
            let b = beta.get(k + 1).copied().unwrap_or(0.0);
            (du, du_next) = (u + a * du - b * du_next, du);
            (u, u_next) = (c + a * u - b * u_next, u);
        }
        (u, du / self.interval.half_length())
    }
}

/// Coefficients `c_k` of `sum_k c_k T_k(t)`, of the polynomial of degree `degree` that agrees with `value` in the zeros of
/// `T_(degree+1)` (Mason and Handscomb, Chebyshev Polynomials, 2003, section 6.3). `value` takes `t` in [-1, 1].
pub(crate) fn chebyshev_interpolant(degree: usize, value: impl Fn(f64) -> f64) -> Vec<f64> {
    let count = degree + 1;
    let angle = |j: usize, k: usize| std::f64::consts::PI * (k * (2 * j + 1)) as f64 / (2 * count) as f64;
    let values: Vec<f64> = (0..count).map(|j| value(libm::cos(angle(j, 1)))).collect();
    (0..count)
        .map(|k| {
            let sum: f64 = values.iter().enumerate().map(|(j, value)| value * libm::cos(angle(j, k))).sum();
            sum * if k == 0 { 1.0 } else { 2.0 } / count as f64
        })
        .collect()
}
