//! How many labels may change, and how much noise that bears.

use cryptodl_network::Histogram;
use serde::Serialize;

use super::PlanError;

/// The largest predicted share of labels that may differ from those of the network in the clear, for whatever reason: weight
/// rounding, encryption noise, masks.
///
/// More than 0 and at most 0.5: at one half, labels are little more than chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tolerance(f64);

impl Tolerance {
    /// Of a share in (0, 0.5].
    ///
    /// # Errors
    /// A share outside this interval.
    pub fn new(share: f64) -> Result<Self, PlanError> {
        if share > 0.0 && share <= 0.5 {
            return Ok(Tolerance(share));
        }
        let value = format!("{} %", 100.0 * share);
        Err(PlanError::Pin { what: "--tolerance", value, allowed: "more than 0 % and at most 50 %".into() })
    }

    /// The least, in two digits, that bears these shares changed by encryption and in all; none above one half.
    pub(super) fn at_least(encryption: f64, total: f64) -> Option<Self> {
        let share = total.max(1.5 * encryption);
        let unit = libm::pow(10.0, libm::floor(libm::log10(share)) - 1.0);
        Tolerance::new(libm::ceil(share / unit * (1.0 + 1e-9)) * unit).ok()
    }

    /// The smaller of two.
    pub(super) fn min(self, other: Self) -> Self {
        Tolerance(self.0.min(other.0))
    }

    /// This one so many times, at most one half; nothing where it is one half already.
    pub(super) fn times(self, factor: f64) -> Option<Self> {
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

/// Largest noise on a logit that the labels bear.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Standard deviation that encryption alone may make.
    pub encryption: f64,
    /// The same with weight rounding.
    pub total: f64,
    /// How much larger noise is than the search takes it to be: noise of encryption, of rounding, and before activations. What is not
    /// known otherwise is 1.
    pub corrections: [f64; 3],
}

impl Limits {
    /// What keeps the predicted share within the tolerance.
    pub fn new(margins: &Histogram, tolerance: Tolerance) -> Self {
        Limits {
            encryption: largest_noise(margins, tolerance.encryption()),
            total: largest_noise(margins, tolerance.total()),
            corrections: [1.0; 3],
        }
    }

    /// Both times `factor`.
    pub fn times(self, factor: f64) -> Self {
        Limits { encryption: self.encryption * factor, total: self.total * factor, ..self }
    }
}

/// Predicted share of changed labels under a noise of standard deviation `sigma` on every logit: the mean over the stored
/// margins of `Q(margin / (sqrt 2 sigma))`, `Q` the tail of the normal distribution (design: planner.md, "Tolerance").
pub fn changed_share(margins: &Histogram, sigma: f64) -> f64 {
    if sigma <= 0.0 {
        return 0.0;
    }
    // Q(x) = erfc(x / sqrt 2) / 2, and x = margin / (sqrt 2 sigma).
    margins.shares().map(|(margin, share)| share * 0.5 * libm::erfc(margin / (2.0 * sigma))).sum()
}

/// The largest noise on a logit under which at most `share` of the labels change.
pub fn largest_noise(margins: &Histogram, share: f64) -> f64 {
    let (mut low, mut high) = (0.0, margins.high);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if changed_share(margins, middle) <= share { low = middle } else { high = middle }
    }
    low
}
