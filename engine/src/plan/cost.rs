//! The fixed cost table: what an operation costs on the machine that the planner has in mind.
//!
//! One core with 512-bit byte dot products, nanoseconds (design: kernels.md). The table ships with the planner so that a Program
//! never depends on the machine that plans it; only the ratios matter.

/// One byte plane of one residue times one weight.
pub const MULTIPLY_ADD_PLANE: f64 = 0.0025;
/// Unpacking or packing one residue.
pub const PACK: f64 = 0.15;
/// Expanding one uniform residue.
pub const EXPAND: f64 = 0.4;
/// One product of residues, modular.
pub const MULTIPLY: f64 = 0.25;
/// One coefficient in one layer of a transform: 5 us for N = 8192.
pub const NTT_LAYER: f64 = 0.047;
/// One residue converted from one prime to another.
pub const CONVERT: f64 = 0.4;
/// One byte sent or received, which also stands for the client's work on it.
pub const BYTE: f64 = 0.25;

/// Bytes that a residue of `prime_bits` bits takes in the byte kernels.
pub fn planes(prime_bits: u32) -> f64 {
    f64::from(prime_bits.div_ceil(8))
}
