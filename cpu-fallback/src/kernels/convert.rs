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

    /// Number of source limbs.
    pub(crate) fn sources(&self) -> usize {
        self.digits.len()
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

/// Writes to every row of `targets` what the rows of `sources` stand for; canonical in and out. Rows are whole vectors.
pub(crate) struct Convert<'a, 'r> {
    pub(crate) converter: &'a Converter,
    pub(crate) sources: &'a [&'r [u32]],
    pub(crate) targets: &'a mut [&'r mut [u32]],
}

impl<S: Simd> Kernel<S> for Convert<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: S) {
        let Convert { converter, sources, targets } = self;
        let mut digits = [s.splat(0); MAX_MODULI];
        let vectors = targets.first().map_or(0, |row| row.len() / S::LANES);
        for vector in 0..vectors {
            for (i, digit) in converter.digits.iter().enumerate() {
                let prime = Prime::new(s, digit.lower.modulus);
                let lower = digit.lower.of(s, prime, &digits[..i]);
                let x = s.add(s.load(&S::arrays(sources[i]).0[vector]), lower);
                let x = prime.canonical(prime.mul_lazy(x, Factor::new(s, digit.inverse)));
                digits[i] = prime.add(x, s.splat(digit.half));
            }
            for (row, sum) in targets.iter_mut().zip(&converter.targets) {
                let prime = Prime::new(s, sum.modulus);
                let residue = prime.canonical(sum.of(s, prime, &digits[..converter.digits.len()]));
                s.store(residue, &mut S::arrays_mut(row).0[vector]);
            }
        }
    }
}
