//! What of encryption and decryption is worth a machine's vectors.

use std::fmt::Debug;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{RnsBasis, UniformSource};

/// Operations on rows: N residues modulo the prime of one limb of a basis, canonical in and out.
///
/// All implementations give the same bits, and take time and access memory independently of the residues (`expand`, whose
/// residues are public, is the exception). A client uses [`ScalarRows`], which is plain Rust and builds everywhere, unless it
/// is given others.
pub trait RowKernels: Debug + Send + Sync {
    /// Coefficient to evaluation domain.
    fn forward(&self, limb: usize, row: &mut [u32]);

    /// Evaluation to coefficient domain.
    fn inverse(&self, limb: usize, row: &mut [u32]);

    /// The uniform polynomial of `object`, in evaluation domain.
    fn expand(&self, source: &UniformSource, object: u32, limb: usize, row: &mut [u32]);

    /// The residues of `integers`, of magnitudes below the prime, in two's complement.
    fn signed(&self, limb: usize, row: &mut [u32], integers: &[u32]);

    /// `row + integers factor`, with `factor` below the prime.
    fn add_integers(&self, limb: usize, row: &mut [u32], integers: &Integers, factor: u32);

    /// `row - a b`.
    fn subtract_product(&self, limb: usize, row: &mut [u32], a: &[u32], b: &[u32]);

    /// `row a + b`.
    fn multiply_add(&self, limb: usize, row: &mut [u32], a: &[u32], b: &[u32]);
}

/// Integers `x` of magnitude at most `2^51` as `x + 2^51`, in two words. They are secret: wiped on drop.
pub struct Integers {
    /// Bits 0 to 31.
    pub low: Zeroizing<Vec<u32>>,
    /// Bits 32 to 52.
    pub high: Zeroizing<Vec<u32>>,
}

impl Integers {
    /// What [`Self::low`] and [`Self::high`] have too much.
    pub const OFFSET: u64 = 1 << 51;

    /// Of integers that are stored as floating point numbers.
    pub fn new(integers: &[f64]) -> Self {
        // In `1.5 x 2^52 + x` the last digit of the mantissa stands for one, so that its bits, read as an integer, are `x` more than
        // those of `1.5 x 2^52`. No branch and no conversion depends on `x`.
        const SHIFT: f64 = (3 * Integers::OFFSET) as f64;
        let mantissa = |x: f64| (x + SHIFT).to_bits() - (SHIFT.to_bits() - Integers::OFFSET);
        let low = integers.iter().map(|&x| mantissa(x) as u32).collect();
        let high = integers.iter().map(|&x| (mantissa(x) >> 32) as u32).collect();
        Integers { low: Zeroizing::new(low), high: Zeroizing::new(high) }
    }
}

/// [`RowKernels`] for every machine.
#[derive(Clone, Debug)]
pub struct ScalarRows(pub Arc<RnsBasis>);

impl RowKernels for ScalarRows {
    fn forward(&self, limb: usize, row: &mut [u32]) {
        self.0.table(limb).forward(row);
    }

    fn inverse(&self, limb: usize, row: &mut [u32]) {
        self.0.table(limb).inverse(row);
    }

    fn expand(&self, source: &UniformSource, object: u32, limb: usize, row: &mut [u32]) {
        source.fill(object, limb as u32, self.0.modulus(limb), 0, row);
    }

    fn signed(&self, limb: usize, row: &mut [u32], integers: &[u32]) {
        let q = self.0.modulus(limb).value();
        for (x, &integer) in row.iter_mut().zip(integers) {
            // Without a branch: q is added where the sign bit is set.
            *x = integer.wrapping_add(q & (integer.cast_signed() >> 31).cast_unsigned());
        }
    }

    fn add_integers(&self, limb: usize, row: &mut [u32], integers: &Integers, factor: u32) {
        let m = self.0.modulus(limb);
        let offset = m.mul(m.reduce(Integers::OFFSET), factor);
        for ((x, &low), &high) in row.iter_mut().zip(&*integers.low).zip(&*integers.high) {
            let residue = m.reduce(u64::from(high) << 32 | u64::from(low));
            *x = m.add(*x, m.sub(m.mul(residue, factor), offset));
        }
    }

    fn subtract_product(&self, limb: usize, row: &mut [u32], a: &[u32], b: &[u32]) {
        let m = self.0.modulus(limb);
        for ((x, &a), &b) in row.iter_mut().zip(a).zip(b) {
            *x = m.sub(*x, m.mul(a, b));
        }
    }

    fn multiply_add(&self, limb: usize, row: &mut [u32], a: &[u32], b: &[u32]) {
        let m = self.0.modulus(limb);
        for ((x, &a), &b) in row.iter_mut().zip(a).zip(b) {
            *x = m.add(m.mul(*x, a), b);
        }
    }
}
