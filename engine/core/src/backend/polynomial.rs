//! Activation polynomials in monic Horner form.

use crate::ring::RnsBasis;

/// `sign (((z + c_(d-1)) z + c_(d-2)) z + ... + c_1) z + c_0` with d - 1 products of ciphertexts and nothing else: adding a
/// constant is exact and free, so a monic polynomial needs no multiplication by a scalar.
///
/// The constants are integers at the scale of the place where they are added; `c_0` is added after the sign.
#[derive(Clone, Debug, PartialEq)]
pub struct Horner {
    negate: bool,
    limbs: usize,
    /// `[c_(d-1), ..., c_0][limb]`, canonical.
    constants: Vec<u32>,
}

impl Horner {
    /// From integer-valued constants `c_(d-1), ..., c_0`; the degree `d` is their number.
    ///
    /// # Panics
    /// If fewer than two constants are given, or one is no integer.
    pub fn new(basis: &RnsBasis, negate: bool, constants: &[f64]) -> Self {
        assert!(constants.len() >= 2, "an activation has degree 2 or more");
        let residues = |&c: &f64| (0..basis.len()).map(move |limb| basis.modulus(limb).reduce_integer_f64(c));
        Horner { negate, limbs: basis.len(), constants: constants.iter().flat_map(residues).collect() }
    }

    /// Degree `d`.
    pub fn degree(&self) -> usize {
        self.constants.len() / self.limbs
    }

    /// Whether the monic part is negated before `c_0` is added.
    pub fn negates(&self) -> bool {
        self.negate
    }

    /// Residue of the constant that is added after `products` products (0: before the first), modulo the prime of `limb`.
    pub fn constant(&self, products: usize, limb: usize) -> u32 {
        self.constants[products * self.limbs + limb]
    }

    /// [`Self::constant`] for several limbs.
    pub fn constants(&self, products: usize, limbs: &[usize]) -> Vec<u32> {
        limbs.iter().map(|&limb| self.constant(products, limb)).collect()
    }
}
