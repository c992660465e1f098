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
    /// Expanding one uniform residue.
    pub expand: f64,
    /// One residue of a fresh encryption of zero, of which a result takes one less than it has components.
    pub mask: f64,
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
        mask: 28.5,
        multiply: 0.095,
        ntt_layer: 0.040,
        convert: 0.19,
        stream: 1.08,
        byte: 0.25,
    };
}

/// Bytes that a residue of `prime_bits` bits takes in the byte kernels.
pub fn planes(prime_bits: u32) -> f64 {
    f64::from(prime_bits.div_ceil(8))
}
