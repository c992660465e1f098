//! How much noise the labels bear.

use cryptodl_models::network::Histogram;

/// Largest predicted share of labels that encryption noise alone may change.
pub const ENCRYPTION_SHARE: f64 = 0.001;
/// The same with weight rounding added.
///
/// A third of what would keep 99.5 % of the labels on average: the number that changes is random, and a run of a few hundred or
/// thousand images should keep them too.
pub const TOTAL_SHARE: f64 = 0.0015;

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
