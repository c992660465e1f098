//! How many labels may change.

use serde::Serialize;

/// A tolerance that is none.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a tolerance of {percent} % is not allowed: more than 0 % and at most 50 %")]
pub struct ToleranceError {
    /// What was asked for.
    pub percent: f64,
}

/// The largest predicted share of labels that may differ from those of the network in the clear, for whatever reason: weight
/// rounding, encryption noise, re-randomisation.
///
/// More than 0 and at most 0.5: at one half, labels are little more than chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tolerance(f64);

impl Tolerance {
    /// Of a share in (0, 0.5].
    ///
    /// # Errors
    /// A share outside this interval.
    pub fn new(share: f64) -> Result<Self, ToleranceError> {
        if share > 0.0 && share <= 0.5 { Ok(Tolerance(share)) } else { Err(ToleranceError { percent: 100.0 * share }) }
    }

    /// The least, in two digits, that bears these shares changed by encryption and in all; none above one half.
    pub fn at_least(encryption: f64, total: f64) -> Option<Self> {
        let share = total.max(1.5 * encryption);
        let unit = libm::pow(10.0, libm::floor(libm::log10(share)) - 1.0);
        Tolerance::new(libm::ceil(share / unit * (1.0 + 1e-9)) * unit).ok()
    }

    /// The smaller of two.
    pub fn min(self, other: Self) -> Self {
        Tolerance(self.0.min(other.0))
    }

    /// This one so many times, at most one half; nothing where it is one half already.
    pub fn times(self, factor: f64) -> Option<Self> {
        (self.0 < 0.5).then(|| Tolerance((self.0 * factor).min(0.5)))
    }

    /// As a percentage with as many digits as it needs, such as `0.15%`.
    pub fn percent(self) -> String {
        let text = format!("{:.9}", 100.0 * self.0);
        format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
    }

    /// The share that all causes together may change.
    pub fn total(self) -> f64 {
        self.0
    }

    /// The share that encryption noise alone may change: two thirds of the whole, so that rounding keeps some of it.
    pub fn encryption(self) -> f64 {
        self.0 * 2.0 / 3.0
    }
}

impl Default for Tolerance {
    /// 0.15 %, a third of what would keep 99.5 % of the labels on average: the number that changes is random, and a run of a few
    /// hundred or thousand images should keep them too.
    fn default() -> Self {
        Tolerance(0.0015)
    }
}

impl Tolerance {
    /// Whether `changed` of `images` labels are no more than chance explains where each changes with this probability: as many or
    /// more would be seen at least once in a thousand runs. Poisson's distribution, which bounds the binomial one there.
    pub fn explains(self, changed: usize, images: usize) -> bool {
        let expected = self.0 * images as f64;
        let log_term = |k: usize| k as f64 * libm::log(expected) - expected - libm::lgamma(k as f64 + 1.0);
        let fewer: f64 = (0..changed).map(|k| libm::exp(log_term(k))).sum();
        1.0 - fewer >= 1e-3
    }
}
