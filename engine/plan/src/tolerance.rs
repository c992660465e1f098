//! How much noise a tolerance bears.

use cryptodl_network::Histogram;
use cryptodl_program::Tolerance;

/// Largest noise on a logit that the labels bear.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Standard deviation that encryption alone may make.
    pub encryption: f64,
    /// The same with weight rounding.
    pub total: f64,
    /// How much larger noise is than the search takes it to be.
    pub corrections: Corrections,
}

/// Factors from noise as the search takes it to noise as it is. What is not known otherwise is 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Corrections {
    /// Of encryption noise on a logit.
    pub encryption: f64,
    /// Of weight rounding on a logit.
    pub rounding: f64,
    /// Of encryption noise beside the calibrated values, in any place.
    pub crowding: f64,
}

impl Limits {
    /// What keeps the predicted share within the tolerance.
    pub fn new(margins: &Histogram, tolerance: Tolerance) -> Self {
        Limits {
            encryption: largest_noise(margins, tolerance.encryption()),
            total: largest_noise(margins, tolerance.total()),
            corrections: Corrections { encryption: 1.0, rounding: 1.0, crowding: 1.0 },
        }
    }

    /// Both times `factor`.
    pub fn times(self, factor: f64) -> Self {
        Limits { encryption: self.encryption * factor, total: self.total * factor, ..self }
    }
}

/// Predicted share of changed labels under a noise of standard deviation `sigma` on every logit: the mean over the stored
/// margins of `Q(margin / (sqrt 2 sigma))`, `Q` the tail of the normal distribution (docs/planner.md, "What labels bear").
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
