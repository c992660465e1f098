//! Pass 3: real weights become small integers with one scale per map.

use cryptodl_program::{DiagonalMap, QuantisedMap};

use super::RealMap;

/// Weight sizes that the planner considers, in bits with sign, in steps of half a bit. Below four
/// bits, rounding is no longer like independent noise, and predictions fail.
pub const WEIGHT_BITS: std::ops::RangeInclusive<f64> = 4.0..=8.0;

/// Largest integer of so many bits with sign: `2^(bits - 1) - 1`, rounded.
pub fn max_integer(bits: f64) -> f64 {
    libm::rint(libm::exp2(bits - 1.0)) - 1.0
}

/// The scale at which the largest weight becomes the largest integer of so many bits.
pub fn weight_scale(map: &RealMap, bits: f64) -> f64 {
    let max = map.max_weight();
    if max > 0.0 { max_integer(bits) / max } else { 1.0 }
}

/// Mean over output channels of the squared rounding errors of a channel's weights: the output variance per unit mean square of
/// the input.
pub fn rounding_gain(map: &RealMap, weight_scale: f64) -> f64 {
    let error = |w: &f64| w - libm::rint(w * weight_scale) / weight_scale;
    let sum: f64 = map.weights.iter().map(|w| error(w) * error(w)).sum();
    sum / map.geometry.channels as f64
}

/// `map` with its weights rounded at `weight_scale`.
pub fn quantised(map: &RealMap, weight_scale: f64) -> QuantisedMap {
    let weights = map.weights.iter().map(|w| libm::rint(w * weight_scale) as i16).collect();
    QuantisedMap { geometry: map.geometry.clone(), weights, weight_scale }
}

/// A diagonal `map` with its factors rounded at `weight_scale`.
pub fn quantised_diagonal(map: &RealMap, weight_scale: f64) -> DiagonalMap {
    let factors = map.weights.iter().map(|w| libm::rint(w * weight_scale)).collect();
    DiagonalMap { shape: map.geometry.input, factors, weight_scale }
}
