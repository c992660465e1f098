//! Ring arithmetic: NTT primes, residues, the transform, and the residue number system.

mod automorphism;
mod basis;
mod digit;
mod modulus;
mod ntt;
mod packing;
mod primes;
mod rows;
mod uniform;

pub use automorphism::Automorphism;
pub use basis::{CentredConverter, RnsBasis};
pub use digit::{MAX_PARTS, PrimeDigit};
pub use modulus::{MAX_MODULUS_BITS, Modulus};
pub use ntt::{NttTable, Twiddle};
pub use packing::{pack_row, packed_row_len, unpack_row};
pub use primes::{is_prime, largest_ntt_primes, ntt_primes};
pub use rows::{Integers, RowKernels, ScalarRows};
pub use uniform::UniformSource;

/// Why a ring cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The dimension is no supported power of two.
    #[error("ring dimension {n} is not allowed: it must be a power of two from {MIN_DIMENSION} to {MAX_DIMENSION}")]
    Dimension {
        /// The dimension asked for.
        n: usize,
    },
    /// The prime size is out of range.
    #[error("primes of {bits} bits are not allowed: 12 to {MAX_MODULUS_BITS} bits")]
    PrimeBits {
        /// The size asked for.
        bits: u32,
    },
    /// Not enough primes of the stated size.
    #[error("only {found} of {wanted} primes q = 1 (mod {}) have {bits} bits: use larger primes or a smaller ring", 4 * n)]
    TooFewPrimes {
        /// Ring dimension.
        n: usize,
        /// Size of the primes.
        bits: u32,
        /// How many were asked for.
        wanted: usize,
        /// How many exist.
        found: usize,
    },
    /// A modulus of the chain is unusable.
    #[error("modulus {q} is not allowed: it must be a prime q = 1 (mod {}) below 2^{MAX_MODULUS_BITS}", 4 * n)]
    NotNttPrime {
        /// The modulus.
        q: u32,
        /// Ring dimension.
        n: usize,
    },
    /// A modulus occurs twice.
    #[error("modulus {q} occurs twice: the primes of a chain must differ")]
    RepeatedPrime {
        /// The modulus.
        q: u32,
    },
    /// An empty or over-long chain.
    #[error("{count} moduli are not allowed: 1 to {MAX_MODULI}")]
    ModulusCount {
        /// How many were given.
        count: usize,
    },
}

/// Smallest ring dimension that the code supports (tests); security needs more.
pub const MIN_DIMENSION: usize = 16;
/// Largest ring dimension.
pub const MAX_DIMENSION: usize = 65536;
/// Largest number of moduli, special primes included; 128-bit security at N = 65536 allows 58 primes of 30 bits.
pub const MAX_MODULI: usize = 64;

fn check_dimension(n: usize) -> Result<(), RingError> {
    let allowed = n.is_power_of_two() && (MIN_DIMENSION..=MAX_DIMENSION).contains(&n);
    if allowed { Ok(()) } else { Err(RingError::Dimension { n }) }
}
