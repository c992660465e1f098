//! Secret polynomials with small coefficients. Time and memory access do not depend on the coefficients.

use zeroize::Zeroizing;

use super::SecretStream;
use crate::ring::{Modulus, NttTable};

/// Parameter of the centred binomial error distribution: the difference of two sums of this many bits. Its deviation is
/// [`super::noise::ERROR_STD`].
pub const ERROR_ETA: u32 = 21;

/// Words drawn at a time.
const BLOCK: usize = 256;

/// A polynomial with coefficients in `[-21, 21]` that must stay secret. Wiped on drop, and never printed.
pub struct SmallPolynomial(Zeroizing<Vec<i8>>);

impl SmallPolynomial {
    /// Wraps coefficients in `[-21, 21]`.
    pub fn new(coefficients: Zeroizing<Vec<i8>>) -> Self {
        debug_assert!(coefficients.iter().all(|c| u32::from(c.unsigned_abs()) <= ERROR_ETA));
        SmallPolynomial(coefficients)
    }

    /// Uniform in {-1, 0, 1}, each up to a bias of 2^-64.
    pub fn ternary(n: usize, stream: &mut SecretStream) -> Self {
        Self::sample(n, stream, |word| ((u128::from(word) * 3) >> 64) as i8 - 1)
    }

    /// Centred binomial with eta = 21.
    pub fn error(n: usize, stream: &mut SecretStream) -> Self {
        const MASK: u64 = (1 << ERROR_ETA) - 1;
        Self::sample(n, stream, |word| (word & MASK).count_ones() as i8 - (word >> ERROR_ETA & MASK).count_ones() as i8)
    }

    fn sample(n: usize, stream: &mut SecretStream, map: impl Fn(u64) -> i8) -> Self {
        let mut coefficients = Zeroizing::new(vec![0; n]);
        let mut words = Zeroizing::new([0; BLOCK]);
        for block in coefficients.chunks_mut(BLOCK) {
            let words = &mut words[..block.len()];
            stream.fill(words);
            for (coefficient, &word) in block.iter_mut().zip(&*words) {
                *coefficient = map(word);
            }
        }
        SmallPolynomial(coefficients)
    }

    /// The coefficients, in `[-21, 21]`.
    pub fn coefficients(&self) -> &[i8] {
        &self.0
    }

    /// The coefficients as words, in two's complement.
    pub fn words(&self) -> Zeroizing<Vec<u32>> {
        Zeroizing::new(self.0.iter().map(|&c| i32::from(c).cast_unsigned()).collect())
    }

    /// Canonical residues in coefficient domain.
    pub fn residues(&self, modulus: Modulus) -> impl Iterator<Item = u32> {
        // Without a branch: q is added where the sign bit is set.
        let q = modulus.value();
        self.0.iter().map(move |&c| {
            let c = i32::from(c);
            (c as u32).wrapping_add(q & (c >> 31) as u32)
        })
    }

    /// Canonical residues in evaluation domain.
    pub fn transform(&self, table: &NttTable) -> Zeroizing<Vec<u32>> {
        let mut out: Zeroizing<Vec<u32>> = Zeroizing::new(self.residues(table.modulus()).collect());
        table.forward(&mut out);
        out
    }
}
