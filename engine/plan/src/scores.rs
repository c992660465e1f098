//! How the scores of few images become few ciphertexts (docs/scheme.md, "Few scores").

use std::ops::RangeInclusive;

use cryptodl_core::backend::CiphertextShape;
use cryptodl_core::ckks::noise::{self, Noise};
use cryptodl_program::ScorePacking;

use super::ring::Ring;
use super::schedule::{Ciphertext, headroom};

/// Bits of modulus that a result keeps at least: what scores need above the noise of the masks.
const RESULT_BITS: u32 = 29;

/// Root mean square of scores beside the largest, over moved images as well: no more than this.
const SCORES: f64 = 0.5;

/// A packing of scores as planned.
#[derive(Clone, Copy, Debug)]
pub struct PackedScores {
    /// What the executor does.
    pub packing: ScorePacking,
    /// Noise of the packing, in units of a score, re-randomisation not included.
    pub noise: Noise,
    /// What sums of several scores make of the noise of each, root mean square over scores.
    pub factor: f64,
    /// The ciphertexts afterwards.
    pub result: Ciphertext,
    /// Bits to spare in them.
    pub headroom: f64,
}

/// `log2` of the scores of an image that can go together: as many as there is room for copies of every image.
pub fn together(scores: usize, room: usize) -> RangeInclusive<u32> {
    0..=scores.next_power_of_two().ilog2().min(room.checked_ilog2().unwrap_or(0))
}

/// The ciphertexts of packed scores: the fewest limbs that have [`RESULT_BITS`].
pub fn result(scores: CiphertextShape, prime_bits: u32) -> CiphertextShape {
    let limbs = RESULT_BITS.div_ceil(prime_bits) as usize;
    CiphertextShape { level: scores.level.min(limbs), components: 2 }
}

impl PackedScores {
    /// Packs `scores` ciphertexts `output` with scores of magnitude `bound`.
    pub fn plan(ring: &Ring, output: Ciphertext, scores: usize, bound: f64) -> Self {
        let Ciphertext { level, components, scale } = output;
        let after = result(CiphertextShape { level, components }, ring.shape.prime_bits);
        let divided = ring.primes[after.level..level].iter().fold(scale, |scale, &q| scale.over(q));
        let result = Ciphertext { level: after.level, components: after.components, scale: divided };

        let switches = (2..components).map(|_| ring.key_switch(level).plus(noise::divide(ring.shape.n, 2)));
        let relinearised = switches.fold(Noise::even(0.0), Noise::plus).times(1.0 / scale.value());
        let drop = level - after.level;
        let division = if drop > 0 { noise::divide(ring.shape.n, 2) } else { Noise::even(0.0) };
        let noise = relinearised.plus(division.times(1.0 / divided.value()));

        // Factors have the mean square 1 in part 0 and 2 in the others. A score is a mean over copies, whose noises are those of all
        // parts of its ciphertext. Where its own factor has the mean square 2, half of their variance is left.
        let leaves = ring.scores();
        let parts = (1usize << leaves.log) as f64;
        let squares = 2.0 * parts - 1.0;
        let first = leaves.ciphertexts(scores) as f64 / scores as f64;
        let factor = libm::sqrt(squares / parts * (first + (1.0 - first) / 2.0)).max(1.0);
        let largest = bound * (SCORES * libm::sqrt(squares)).max(1.0);
        let headroom = headroom(ring, result.level, result.scale, largest);
        PackedScores { packing: ScorePacking { drop }, noise, factor, result, headroom }
    }
}
