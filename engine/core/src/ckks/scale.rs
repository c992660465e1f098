//! The factor between a real value and the integer that carries it.

use serde::{Deserialize, Serialize};

/// A positive scale: an integer `m` in a ciphertext stands for the real value `m / scale`. Computed only with IEEE
/// operations, so every machine tracks the same bits.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Scale(f64);

/// Largest `log2` of a scale: far from overflow of an `f64`.
pub const MAX_LOG2_SCALE: f64 = 900.0;

impl Scale {
    /// A scale from its value. `None` unless `1 <= value <= 2^900`.
    pub fn new(value: f64) -> Option<Self> {
        (value >= 1.0 && libm::log2(value) <= MAX_LOG2_SCALE).then_some(Scale(value))
    }

    /// `2^log2`, for `log2` on the grid of half bits on which scales are chosen: 0, 0.5, ... 900.
    ///
    /// # Panics
    /// If `log2` is not on this grid.
    pub fn from_log2(log2: f64) -> Self {
        let root = match log2.fract() {
            0.0 => 1.0,
            0.5 => std::f64::consts::SQRT_2,
            _ => panic!("{log2} is no multiple of one half"),
        };
        Scale::new(libm::ldexp(root, log2 as i32)).expect("a scale of 1 to 2^900")
    }

    /// The scale as a number.
    pub fn value(self) -> f64 {
        self.0
    }

    /// `log2` of the scale.
    pub fn log2(self) -> f64 {
        libm::log2(self.0)
    }

    /// The scale of a product.
    pub fn times(self, factor: f64) -> Self {
        Scale(self.0 * factor)
    }

    /// The scale after an exact division by `divisor` (a rescale).
    pub fn over(self, divisor: u32) -> Self {
        Scale(self.0 / f64::from(divisor))
    }

    /// The largest exact power of two that is not above the scale.
    pub fn floor_power_of_two(self) -> Self {
        let (_, exponent) = libm::frexp(self.0);
        Scale(libm::ldexp(1.0, exponent - 1))
    }

    /// The integer that carries the constant `value` at this scale, rounded half to even, as an exact `f64`.
    pub fn integer(self, value: f64) -> f64 {
        libm::rint(value * self.0)
    }
}

impl From<Scale> for f64 {
    fn from(scale: Scale) -> f64 {
        scale.0
    }
}

impl TryFrom<f64> for Scale {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        Scale::new(value).ok_or_else(|| format!("scale {value} is not allowed: 1 to 2^{MAX_LOG2_SCALE}"))
    }
}
