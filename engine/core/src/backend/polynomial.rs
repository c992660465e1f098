//! Activation polynomials, monic, in the two arrangements that backends evaluate.

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

/// A monic polynomial of degree `d >= 3` with `ceil(d / 2)` products of ciphertexts instead of Horner's `d - 1`: the arrangement of
/// Paterson and Stockmeyer ("On the number of nonscalar multiplications necessary to evaluate polynomials", SIAM J. Comput. 2,
/// 1973) with the powers 1, z and w = z (z + shift).
///
/// `u = w + c_0` for even `d`, `u = z + c_0` for odd `d`; then `u = u w + b_i z + c_i` again and again, with the sign before the last
/// constant. The first product is `w`. Constants and multiples are integers: a constant at the scale of the place where it is
/// added, `b_i` such that `b_i z` has the scale of the product `u w`, to which it is added before that is divided.
#[derive(Clone, Debug, PartialEq)]
pub struct PatersonStockmeyer {
    negate: bool,
    odd: bool,
    limbs: usize,
    /// `[limb]`, canonical.
    shift: Vec<u32>,
    /// `[c_0, c_1, ...][limb]`, canonical.
    constants: Vec<u32>,
    /// `[b_1, b_2, ...][limb]`, canonical.
    multiples: Vec<u32>,
}

impl PatersonStockmeyer {
    /// From integer-valued numbers: the shift, `c_0, c_1, ...`, and `b_1, b_2, ...`.
    ///
    /// # Panics
    /// Unless there is one multiple at least and one constant more than multiples, all integers.
    pub fn new(basis: &RnsBasis, negate: bool, odd: bool, shift: f64, constants: &[f64], multiples: &[f64]) -> Self {
        assert!(!multiples.is_empty() && constants.len() == multiples.len() + 1, "a constant more than multiples");
        let residues = |&c: &f64| (0..basis.len()).map(move |limb| basis.modulus(limb).reduce_integer_f64(c));
        let all = |numbers: &[f64]| numbers.iter().flat_map(residues).collect();
        PatersonStockmeyer {
            negate,
            odd,
            limbs: basis.len(),
            shift: all(&[shift]),
            constants: all(constants),
            multiples: all(multiples),
        }
    }

    /// Products of ciphertexts, `ceil(d / 2)`.
    pub fn products(&self) -> usize {
        self.multiples.len() / self.limbs + 1
    }

    /// Whether `u` starts from `z` instead of `w`.
    pub fn is_odd(&self) -> bool {
        self.odd
    }

    /// Whether the monic part is negated before the last constant is added.
    pub fn negates(&self) -> bool {
        self.negate
    }

    /// The shift in `w = z (z + shift)`, for the given limbs.
    pub fn shift(&self, limbs: &[usize]) -> Vec<u32> {
        limbs.iter().map(|&limb| self.shift[limb]).collect()
    }

    /// The constant `c_i`, for the given limbs.
    pub fn constants(&self, i: usize, limbs: &[usize]) -> Vec<u32> {
        limbs.iter().map(|&limb| self.constants[i * self.limbs + limb]).collect()
    }

    /// The multiple `b_i` of `z`, `i >= 1`, for the given limbs.
    pub fn multiples(&self, i: usize, limbs: &[usize]) -> Vec<u32> {
        limbs.iter().map(|&limb| self.multiples[(i - 1) * self.limbs + limb]).collect()
    }
}
