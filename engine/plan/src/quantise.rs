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

/// The largest integer of a map whose weights are integers times one number, as training on a grid leaves them; `None` of
/// any other map, and where that integer is beyond [`WEIGHT_BITS`].
///
/// Weights come in single precision, so they are on the grid up to their own rounding.
pub fn grid(map: &RealMap) -> Option<f64> {
    const TOLERANCE: f64 = 1e-4;
    let max = map.max_weight();
    let largest = max_integer(*WEIGHT_BITS.end()) as u32;
    let on_grid = |&k: &u32| {
        let scale = f64::from(k) / max;
        map.weights.iter().all(|w| (w * scale - libm::rint(w * scale)).abs() <= TOLERANCE)
    };
    (1..=largest).find(|k| max > 0.0 && on_grid(k)).map(f64::from)
}

/// The scale at which the largest weight becomes the largest integer of so many bits. Weights on a [`grid`] become integers
/// without rounding: the largest multiples of the grid's that have so many bits, or the grid's own where none has.
pub fn weight_scale(map: &RealMap, grid: Option<f64>, bits: f64) -> f64 {
    let (max, most) = (map.max_weight(), max_integer(bits));
    let largest = grid.map_or(most, |grid| libm::floor(most / grid).max(1.0) * grid);
    if max > 0.0 { largest / max } else { 1.0 }
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
