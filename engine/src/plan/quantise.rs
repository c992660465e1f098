//! Pass 3: real weights become small integers with one scale per map.

use cryptodl_core::backend::{LinearMap, LinearMapError};
use cryptodl_core::ring::RnsBasis;
use serde::Serialize;

use super::{Geometry, RealMap};

/// Weight sizes that the planner considers, in half bits with sign. Below four bits, rounding is no longer like independent
/// noise, and predictions fail.
pub const WEIGHT_HALF_BITS: std::ops::RangeInclusive<u32> = 8..=16;

/// An integer linear map of a Program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuantisedMap {
    /// Shape.
    pub geometry: Geometry,
    /// `[channel][tap]`, in `[-127, 127]`.
    pub weights: Vec<i16>,
    /// A weight `w` stands for the real `w / weight_scale`.
    pub weight_scale: f64,
}

/// Largest integer of `half_bits / 2` bits with sign: `2^(half_bits / 2 - 1) - 1`, rounded.
pub fn max_integer(half_bits: u32) -> f64 {
    libm::rint(libm::exp2(f64::from(half_bits) / 2.0 - 1.0)) - 1.0
}

/// The scale at which the largest weight becomes the largest integer of `half_bits / 2` bits.
pub fn weight_scale(map: &RealMap, half_bits: u32) -> f64 {
    let max = map.max_weight();
    if max > 0.0 { max_integer(half_bits) / max } else { 1.0 }
}

/// Mean over output channels of the squared rounding errors of a channel's weights: the output variance per unit mean square of
/// the input.
pub fn rounding_gain(map: &RealMap, weight_scale: f64) -> f64 {
    let error = |w: &f64| w - libm::rint(w * weight_scale) / weight_scale;
    let sum: f64 = map.weights.iter().map(|w| error(w) * error(w)).sum();
    sum / map.geometry.channels as f64
}

/// A map of each channel by itself whose factors are integers of any size: a branch of a sum that skips layers. It is exact, costs
/// headroom and no level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiagonalMap {
    /// Channels, rows, columns.
    pub shape: [usize; 3],
    /// One integer-valued factor per channel.
    pub factors: Vec<f64>,
    /// A factor `w` stands for the real `w / weight_scale`.
    pub weight_scale: f64,
}

impl DiagonalMap {
    /// Rounds `map` at `weight_scale`.
    pub fn new(map: &RealMap, weight_scale: f64) -> Self {
        DiagonalMap {
            shape: map.geometry.input,
            factors: map.weights.iter().map(|w| libm::rint(w * weight_scale)).collect(),
            weight_scale,
        }
    }
}

impl QuantisedMap {
    /// Rounds `map` at `weight_scale`.
    pub fn new(map: &RealMap, weight_scale: f64) -> Self {
        QuantisedMap {
            geometry: map.geometry.clone(),
            weights: map.weights.iter().map(|w| libm::rint(w * weight_scale) as i16).collect(),
            weight_scale,
        }
    }

    /// The form that backends take, which adds `constants`: integer-valued, one per channel, or none.
    ///
    /// # Errors
    /// A map beyond the exactness bounds of the kernels, for example too many taps.
    pub fn prepare(&self, basis: &RnsBasis, constants: &[f64]) -> Result<LinearMap, LinearMapError> {
        let g = &self.geometry;
        LinearMap::new(
            basis,
            g.inputs(),
            g.channels,
            g.taps(),
            g.groups,
            g.group_stride() as u32,
            self.weights.clone(),
            g.gather(),
            constants,
        )
    }

    /// Real weights that the integers stand for.
    pub fn real_weights(&self) -> Vec<f64> {
        self.weights.iter().map(|&w| f64::from(w) / self.weight_scale).collect()
    }
}
