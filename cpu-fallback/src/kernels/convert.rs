//! Centred conversion between sets of limbs, vector by vector.
//!
//! The balanced mixed-radix digits of [`CentredConverter`](cryptodl_core::ring::CentredConverter): `sum_j d_j w_j` with
//! `w_j = q_0 ... q_(j-1)` and `d_j` centred modulo `q_j`. A digit is kept as `r_j = d_j + h_j` in `[0, q_j)`, `h_j = (q_j -
//! 1) / 2`; the constants `sum_j h_j w_j` are taken off once per sum.

use cryptodl_core::ring::{MAX_MODULI, Modulus, RnsBasis, Twiddle};

use super::reduce::{Factor, Prime};
use crate::simd::{Kernel, Simd};

/// Constants of the conversion from some limbs to others.
pub(crate) struct Converter {
    digits: Vec<Digit>,
    targets: Vec<Sum>,
}

struct Digit {
    /// Minus the value of the lower digits.
    lower: Sum,
    /// `(q_0 ... q_(i-1))^-1`.
    inverse: Twiddle,
    /// `(q_i - 1) / 2`.
    half: u32,
}

/// `start + sum_j r_j weights[j]` modulo one prime.
struct Sum {
    modulus: Modulus,
    start: u32,
    weights: Vec<Twiddle>,
}

impl Converter {
    /// From limbs `from` to limbs `to` of `basis`.
    pub(crate) fn new(basis: &RnsBasis, from: &[usize], to: &[usize]) -> Self {
        let digits = (0..from.len()).map(|i| {
            let (below, limb) = (&from[..i], from[i]);
            let m = basis.modulus(limb);
            Digit {
                lower: Sum::new(basis, below, limb, true),
                inverse: Twiddle::new(m, m.inv(basis.product_mod(below, limb))),
                half: m.value() / 2,
            }
        });
        let targets = to.iter().map(|&limb| Sum::new(basis, from, limb, false));
        Converter { digits: digits.collect(), targets: targets.collect() }
    }

    /// Replaces rows of residues, one for each source limb, by digits.
    pub(crate) fn digits<S: Simd>(&self, s: S, rows: &mut [&mut [u32]]) {
        s.run(Digits { converter: self, rows });
    }

    /// Writes what the digits `rows` stand for modulo the prime of target `target` to `out`, canonical.
    pub(crate) fn residues<S: Simd>(&self, s: S, rows: &[&[u32]], target: usize, out: &mut [u32]) {
        s.run(Residues { sum: &self.targets[target], rows, out });
    }
}

impl Sum {
    fn new(basis: &RnsBasis, from: &[usize], limb: usize, negate: bool) -> Self {
        let m = basis.modulus(limb);
        let weights: Vec<u32> = (0..from.len())
            .map(|j| basis.product_mod(&from[..j], limb))
            .map(|weight| if negate { m.neg(weight) } else { weight })
            .collect();
        let halves = from.iter().zip(&weights).map(|(&j, &weight)| m.mul(basis.modulus(j).value() / 2, weight));
        let start = m.neg(halves.fold(0, |sum, half| m.add(sum, half)));
        Sum { modulus: m, start, weights: weights.into_iter().map(|weight| Twiddle::new(m, weight)).collect() }
    }

    /// In `[0, 2q)`.
    #[inline(always)]
    fn of<S: Simd>(&self, s: S, prime: Prime<S>, digits: &[S::V]) -> S::V {
        let mut sum = s.splat(self.start);
        for (&weight, &digit) in self.weights.iter().zip(digits) {
            sum = prime.halve(s.add(sum, prime.mul_lazy(digit, Factor::new(s, weight))));
        }
        sum
    }
}

struct Digits<'a, 'r> {
    converter: &'a Converter,
    rows: &'a mut [&'r mut [u32]],
}

impl<S: Simd> Kernel<S> for Digits<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: S) {
        let Digits { converter, rows } = self;
        let mut digits = [s.splat(0); MAX_MODULI];
        for first in (0..rows[0].len()).step_by(S::LANES) {
            for (i, (digit, row)) in converter.digits.iter().zip(rows.iter_mut()).enumerate() {
                let row = &mut S::arrays_mut(&mut row[first..][..S::LANES]).0[0];
                let prime = Prime::new(s, digit.lower.modulus);
                let x = s.add(s.load(row), digit.lower.of(s, prime, &digits[..i]));
                let x = prime.canonical(prime.mul_lazy(x, Factor::new(s, digit.inverse)));
                digits[i] = prime.add(x, s.splat(digit.half));
                s.store(digits[i], row);
            }
        }
    }
}

struct Residues<'a, 'r> {
    sum: &'a Sum,
    rows: &'a [&'r [u32]],
    out: &'a mut [u32],
}

impl<S: Simd> Kernel<S> for Residues<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: S) {
        let Residues { sum, rows, out } = self;
        let prime = Prime::new(s, sum.modulus);
        let mut digits = [s.splat(0); MAX_MODULI];
        for (vector, out) in S::arrays_mut(out).0.iter_mut().enumerate() {
            let first = vector * S::LANES;
            for (digit, row) in digits.iter_mut().zip(rows) {
                *digit = s.load(&S::arrays(&row[first..][..S::LANES]).0[0]);
            }
            s.store(prime.canonical(sum.of(s, prime, &digits[..rows.len()])), out);
        }
    }
}
