//! Arithmetic modulo one prime in vectors.

use cryptodl_core::ring::{Modulus, Twiddle};

use crate::simd::{Dot, Simd};

/// One prime `q < 2^30` with the constants of its reductions in registers.
#[derive(Clone, Copy)]
pub(crate) struct Prime<S: Simd> {
    s: S,
    q: S::V,
    q2: S::V,
    /// `ceil(log2 q) - 1`.
    shift: u32,
    /// `floor(2^(shift + 32) / q)`, below `2^32` since `q > 2^shift`.
    factor: S::V,
    /// `floor(2^32 / q)`.
    inverse: S::V,
}

/// A constant factor and its Shoup companion in registers.
#[derive(Clone, Copy)]
pub(crate) struct Factor<S: Simd> {
    factor: S::V,
    companion: S::V,
    /// The companions of odd lanes, in even ones.
    odd: S::V,
}

impl<S: Simd> Factor<S> {
    #[inline(always)]
    pub(crate) fn new(s: S, twiddle: Twiddle) -> Self {
        Self::in_pairs(s.splat(twiddle.factor), s.splat(twiddle.companion))
    }

    /// One factor for each pair of neighbouring lanes.
    #[inline(always)]
    pub(crate) fn in_pairs(factor: S::V, companion: S::V) -> Self {
        Factor { factor, companion, odd: companion }
    }

    /// One factor for each lane.
    #[inline(always)]
    pub(crate) fn by_lane(s: S, factor: S::V, companion: S::V) -> Self {
        Factor { factor, companion, odd: s.odd(companion) }
    }
}

impl<S: Simd> Prime<S> {
    #[inline(always)]
    pub(crate) fn new(s: S, modulus: Modulus) -> Self {
        let (q, shift) = (modulus.value(), modulus.bits() - 1);
        let factor = ((1u64 << (shift + 32)) / u64::from(q)) as u32;
        Prime { s, q: s.splat(q), q2: s.splat(2 * q), shift, factor: s.splat(factor), inverse: s.splat(u32::MAX / q) }
    }

    /// `2q` in every lane.
    #[inline(always)]
    pub(crate) fn twice(self) -> S::V {
        self.q2
    }

    /// `[0, 2q)` to `[0, q)`.
    #[inline(always)]
    pub(crate) fn canonical(self, x: S::V) -> S::V {
        self.s.reduce_once(x, self.q)
    }

    /// `[0, 4q)` to `[0, 2q)`.
    #[inline(always)]
    pub(crate) fn halve(self, x: S::V) -> S::V {
        self.s.reduce_once(x, self.q2)
    }

    /// `a + b`, canonical in and out.
    #[inline(always)]
    pub(crate) fn add(self, a: S::V, b: S::V) -> S::V {
        self.canonical(self.s.add(a, b))
    }

    /// The canonical residue of `x` in two's complement, of a magnitude below `q`.
    #[inline(always)]
    pub(crate) fn signed(self, x: S::V) -> S::V {
        self.s.add(x, self.s.and(self.q, self.s.shift_right_signed(x, 31)))
    }

    /// `-a`, canonical in and out.
    #[inline(always)]
    pub(crate) fn negate(self, a: S::V) -> S::V {
        self.canonical(self.s.sub(self.q, a))
    }

    /// `x factor` in `[0, 2q)`, any `x` (Harvey, "Faster arithmetic for number-theoretic transforms", section 3).
    #[inline(always)]
    pub(crate) fn mul_lazy(self, x: S::V, by: Factor<S>) -> S::V {
        self.s.mul_estimated(x, by.factor, by.companion, by.odd, self.q)
    }

    /// `[0, 2^32)` to `[0, 2q)`.
    #[inline(always)]
    pub(crate) fn reduce_lazy(self, x: S::V) -> S::V {
        let s = self.s;
        s.sub(x, s.mul_low(s.mul_high(x, self.inverse, self.inverse), self.q))
    }

    /// The canonical residue of `x <= 2 (q - 1)^2`.
    ///
    /// With `b` bits in `q`: `x >> (b - 1)` is below `2^(b + 2) <= 2^32`, and each of the two truncations and the final one
    /// loses less than 1 of the quotient, so the remainder is below `3q < 2^32` (Barrett).
    #[inline(always)]
    pub(crate) fn residue(self, x: S::Wide) -> S::V {
        let s = self.s;
        let estimate = s.mul_high(s.narrow(x, self.shift), self.factor, self.factor);
        self.canonical(self.halve(s.sub(s.low(x), s.mul_low(estimate, self.q))))
    }

    /// The canonical residue of any `x` of 64 bits; `word` is `2^32 mod q`.
    #[inline(always)]
    pub(crate) fn residue_full_range(self, x: S::Wide, word: Factor<S>) -> S::V {
        let s = self.s;
        let sum = s.add(self.mul_lazy(s.narrow(x, 32), word), self.reduce_lazy(s.low(x)));
        self.canonical(self.halve(sum))
    }

    /// `a b`, canonical in and out.
    #[inline(always)]
    pub(crate) fn mul(self, a: S::V, b: S::V) -> S::V {
        self.residue(self.s.mul_wide(a, b))
    }
}

/// What makes any sum of the highest digit positive.
const SUM_BIAS: u32 = 1 << 31;

/// Reduction of the sums of [`Dot`] modulo one prime.
pub(crate) struct SumReducer {
    pub(crate) modulus: Modulus,
    digit_bits: u32,
    /// The value of the highest digit's unit.
    top: Twiddle,
    /// What undoes the bias.
    correction: u32,
}

impl SumReducer {
    pub(crate) fn new<D: Dot>(modulus: Modulus) -> Self {
        let planes = D::planes(modulus.bits()) as u32;
        let top = modulus.reduce(1 << (D::DIGIT_BITS * (planes - 1)));
        SumReducer {
            modulus,
            digit_bits: D::DIGIT_BITS,
            top: Twiddle::new(modulus, top),
            correction: modulus.neg(modulus.mul(SUM_BIAS, top)),
        }
    }

    /// What [`Self::residue`] takes to add `constant`, canonical.
    pub(crate) fn offset(&self, constant: u32) -> u32 {
        self.modulus.add(constant, self.correction)
    }

    /// The canonical residue of `sum_p sums[p] 2^(p DIGIT_BITS) + c`, where `offset` is [`Self::offset`] of `c`.
    ///
    /// Carries are moved up until only the highest sum has more than a digit: a digit of the sum of the lower ones is below
    /// `q`, and the highest, with the carry, still fits. So the result before its reduction is below `q + 2q + q`.
    #[inline(always)]
    pub(crate) fn residue<S: Simd, const PLANES: usize>(&self, s: S, sums: [S::V; PLANES], offset: S::V) -> S::V {
        let (prime, mask) = (Prime::new(s, self.modulus), s.splat((1 << self.digit_bits) - 1));
        let mut low = offset;
        let mut carry = sums[0];
        for (plane, &sum) in sums.iter().enumerate().skip(1) {
            let digit = s.shift_left(s.and(carry, mask), self.digit_bits * (plane as u32 - 1));
            low = s.add(low, digit);
            carry = s.add(sum, s.shift_right_signed(carry, self.digit_bits));
        }
        let top = prime.mul_lazy(s.xor(carry, s.splat(SUM_BIAS)), Factor::new(s, self.top));
        prime.canonical(prime.halve(s.add(top, low)))
    }
}
