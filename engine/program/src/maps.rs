//! Integer linear maps of a Program.

use cryptodl_core::backend::{LinearMap, LinearMapError};
use cryptodl_core::ring::RnsBasis;

use crate::Geometry;

/// An integer linear map of a Program.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantisedMap {
    /// Shape.
    pub geometry: Geometry,
    /// `[channel][tap]`, in `[-127, 127]`.
    pub weights: Vec<i16>,
    /// A weight `w` stands for the real `w / weight_scale`.
    pub weight_scale: f64,
}

/// A map of each channel by itself whose factors are integers of any size: a branch of a sum that skips layers. It is exact, costs
/// headroom and no level.
#[derive(Clone, Debug, PartialEq)]
pub struct DiagonalMap {
    /// Channels, rows, columns.
    pub shape: [usize; 3],
    /// One integer-valued factor per channel.
    pub factors: Vec<f64>,
    /// A factor `w` stands for the real `w / weight_scale`.
    pub weight_scale: f64,
}

impl QuantisedMap {
    /// The form that backends take, which adds `constants`: integer-valued, one per channel, or none.
    ///
    /// # Errors
    /// A map beyond the exactness bounds of the kernels, for example too many taps.
    pub fn prepare(&self, basis: &RnsBasis, constants: &[f64]) -> Result<LinearMap, LinearMapError> {
        let g = &self.geometry;
        // Kernels take neighbouring taps together. Those of one pixel in several channels are together at every position that sees
        // the pixel, and are padding all at once.
        let channels_last = |taps: &[u32]| -> Vec<u32> {
            let pixels = taps.len() / g.group_channels();
            (0..pixels).flat_map(|pixel| taps.iter().skip(pixel).step_by(pixels).copied()).collect()
        };
        let order = channels_last(&Vec::from_iter(0..g.taps() as u32));
        let weights = self.weights.chunks_exact(g.taps()).flat_map(|row| order.iter().map(|&tap| row[tap as usize]));
        let gather = g.gather();
        LinearMap::new(
            basis,
            g.inputs(),
            g.channels,
            g.taps(),
            g.groups,
            g.group_stride() as u32,
            weights.collect(),
            gather.chunks_exact(g.taps()).flat_map(channels_last).collect(),
            constants,
        )
    }

    /// Real weights that the integers stand for.
    pub fn real_weights(&self) -> Vec<f64> {
        self.weights.iter().map(|&w| f64::from(w) / self.weight_scale).collect()
    }
}
