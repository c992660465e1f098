//! Bounded intervals.

use serde::{Serialize, Serializer};

use crate::Error;

/// Half-lengths below this share of the largest magnitude leave too few digits to tell points apart.
const NARROWEST: f64 = 1e-9;

/// `[a, b]` with finite `a < b`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    low: f64,
    high: f64,
}

impl Interval {
    /// `[low, high]`.
    ///
    /// # Errors
    /// [`Error::Interval`] unless both ends are finite, `low < high`, and the length is at least 2e-9 of the larger magnitude.
    pub fn new(low: f64, high: f64) -> Result<Self, Error> {
        let proper = low.is_finite() && high.is_finite() && (high - low).is_finite() && low < high;
        if !proper || 0.5 * (high - low) < (NARROWEST * low.abs().max(high.abs())).max(f64::MIN_POSITIVE) {
            return Err(Error::Interval { low, high });
        }
        Ok(Interval { low, high })
    }

    /// `[-l, l]`.
    ///
    /// # Errors
    /// [`Error::Interval`] unless `l` is finite and positive.
    pub fn symmetric(l: f64) -> Result<Self, Error> {
        Interval::new(-l, l)
    }

    /// Left end.
    pub fn low(&self) -> f64 {
        self.low
    }

    /// Right end.
    pub fn high(&self) -> f64 {
        self.high
    }

    /// The point half way.
    pub fn centre(&self) -> f64 {
        0.5 * self.low + 0.5 * self.high
    }

    /// Half the length: `l` of `[-l, l]`.
    pub fn half_length(&self) -> f64 {
        0.5 * self.high - 0.5 * self.low
    }

    /// The largest magnitude of a point.
    pub fn magnitude(&self) -> f64 {
        self.low.abs().max(self.high.abs())
    }

    /// Whether `x` lies in it, ends included.
    pub fn contains(&self, x: f64) -> bool {
        (self.low..=self.high).contains(&x)
    }

    /// The affine map to `[-1, 1]`.
    pub fn to_unit(&self, x: f64) -> f64 {
        (x - self.centre()) / self.half_length()
    }

    /// The affine map from `[-1, 1]`, whose ends meet exactly.
    pub fn from_unit(&self, t: f64) -> f64 {
        if t == -1.0 {
            self.low
        } else if t == 1.0 {
            self.high
        } else {
            self.centre() + self.half_length() * t
        }
    }

    /// The ends and those of `points` that lie strictly inside, ascending.
    pub(crate) fn split_at(&self, points: &[f64]) -> Vec<f64> {
        let mut all: Vec<f64> = points.iter().copied().filter(|&x| self.low < x && x < self.high).collect();
        all.extend([self.low, self.high]);
        all.sort_by(f64::total_cmp);
        all.dedup();
        all
    }
}

/// As `[low, high]`.
impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.low, self.high].serialize(serializer)
    }
}
