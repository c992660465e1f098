//! Counts of values in equal bins.

/// Counts of values in equal bins over an interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Lower end of the first bin.
    pub low: f64,
    /// Upper end of the last bin; greater than `low`.
    pub high: f64,
    /// Values per bin; not all zero.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// The middle of every bin, in order.
    pub fn centres(&self) -> impl Iterator<Item = f64> + '_ {
        let width = (self.high - self.low) / self.counts.len() as f64;
        (0..self.counts.len()).map(move |i| self.low + (i as f64 + 0.5) * width)
    }

    /// The middle of every bin with its share of all values; the shares add up to one.
    pub fn shares(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let total: f64 = self.counts.iter().map(|&count| count as f64).sum();
        self.centres().zip(self.counts.iter().map(move |&count| count as f64 / total))
    }
}
