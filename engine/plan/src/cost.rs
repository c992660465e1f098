//! The fixed cost table: what an operation costs on the machine that the planner has in mind.

use serde::Serialize;

/// Costs of operations in nanoseconds of one core.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CostTable {
    /// One byte plane of one residue times one weight.
    pub multiply_add_plane: f64,
    /// One residue that one position of a linear map takes: loaded, cut into digits and packed.
    pub map_read: f64,
    /// One residue written by a linear map: its sums reduced and stored.
    pub map_write: f64,
    /// Unpacking or packing one residue.
    pub pack: f64,
    /// Drawing one uniform residue once. It is drawn again while one of those drawn with it is not below the prime.
    pub expand: f64,
    /// One residue of a fresh encryption of zero, of which a result takes one less than it has components.
    #[serde(rename = "mask")]
    pub zero_encryption: f64,
    /// One product of residues, modular.
    pub multiply: f64,
    /// One coefficient in one layer of a transform.
    pub ntt_layer: f64,
    /// One residue converted from one prime to another.
    pub convert: f64,
    /// One residue written to memory by one step and read by another, a line of lanes of every value at a time.
    pub stream: f64,
    /// One byte sent or received, which also stands for the client's work on it. Not a measure of a machine: how much of the
    /// server's time a smaller upload is worth.
    pub byte: f64,
    /// The same where few images are sent, who wait for it: a line of 100 megabits in a second.
    pub small_byte: f64,
}

impl CostTable {
    /// The table that ships. Programs never depend on the machine that plans them; only the ratios matter.
    ///
    /// Measured by `cryptodl bench --calibrate` on one core with 512-bit byte dot products (AMD EPYC, Zen 5), rounded:
    /// `benches/results/README.md`.
    pub const SHIPPED: CostTable = CostTable {
        multiply_add_plane: 0.0021,
        map_read: 0.15,
        map_write: 0.49,
        pack: 1.2,
        expand: 0.76,
        zero_encryption: 28.5,
        multiply: 0.095,
        ntt_layer: 0.040,
        convert: 0.19,
        stream: 1.08,
        byte: 0.25,
        small_byte: 80.0,
    };
}

/// Bytes that a residue of `prime_bits` bits takes in the byte kernels.
pub fn planes(prime_bits: u32) -> f64 {
    f64::from(prime_bits.div_ceil(8))
}

/// `log2` of the residues that the kernels draw together: all are drawn again while one of them is not below the prime.
const LOG_DRAWN_TOGETHER: u32 = 8;

/// How often residues modulo `q`, which is below `2^31`, are drawn from as many bits as `q` has, on average over batches.
pub fn draws(q: u32) -> f64 {
    let refused = 1.0 - f64::from(q) / f64::from(1u32 << (32 - q.leading_zeros()));
    let (mut draws, mut pending) = (0.0, 1.0);
    // Before draw k a batch waits unless each of its residues was below `q` once in k draws.
    while pending > 1e-9 {
        let mut all = 1.0 - pending;
        (0..LOG_DRAWN_TOGETHER).for_each(|_| all *= all);
        draws += 1.0 - all;
        pending *= refused;
    }
    draws
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_near_a_power_of_two_are_drawn_once() {
        assert!((draws((1 << 30) - 1) - 1.0).abs() < 1e-5);
        // One in 128 is refused: 1 + P(any of 256 is) + P(any is twice) + ...
        let (one, two) = (1.0 - (127.0f64 / 128.0).powi(256), 1.0 - (1.0 - 128f64.powi(-2)).powi(256));
        assert!((draws(127 << 17) - (1.0 + one + two)).abs() < 2e-4);
    }
}
