//! Centred conversion between sets of limbs, one polynomial per task, in loops over lanes that vectorise.
//!
//! The balanced mixed-radix digits of [`CentredConverter`](cryptodl_core::ring::CentredConverter): `sum_j d_j w_j` with
//! `w_j = q_0 ... q_(j-1)` and `d_j` centred modulo `q_j`. A digit is kept as its canonical residue `r`; `d = r - q_j` where
//! `r` exceeds half of `q_j`.

use cryptodl_core::ring::{Modulus, RnsBasis, Twiddle};
use rayon::prelude::*;

use super::canonical;
use crate::tensor::{CpuTensor, Place};

/// Writes to every limb of `out` what `x` stands for: see `Backend::convert_centred`.
pub(super) fn convert_centred(basis: &RnsBasis, x: &CpuTensor, out: &mut CpuTensor) {
    let from = x.shape();
    let digits: Vec<_> = (0..from.limbs.len())
        .map(|i| {
            let (below, limb) = (&from.limbs[..i], from.limbs[i]);
            let m = basis.modulus(limb);
            // x_i minus the lower digits, divided by q_0 ... q_(i-1).
            (Sum::new(basis, below, limb, true), Twiddle::new(m, m.inv(basis.product_mod(below, limb))))
        })
        .collect();
    let sums: Vec<_> = out.shape().limbs.iter().map(|&limb| Sum::new(basis, &from.limbs, limb, false)).collect();
    polynomials(out).into_par_iter().enumerate().for_each_init(Vec::new, |rows, (index, targets)| {
        let (value, component) = (index / from.components, index % from.components);
        rows.clear();
        for (limb, (lower, inverse)) in digits.iter().enumerate() {
            let done = rows.len();
            rows.extend_from_slice(x.row(Place { limb, value, component }));
            let (below, row) = rows.split_at_mut(done);
            lower.accumulate(below, row);
            row.iter_mut().for_each(|x| *x = canonical(lower.modulus, inverse.mul_lazy(lower.modulus, *x)));
        }
        for (target, sum) in targets.into_iter().zip(&sums) {
            target.fill(0);
            sum.accumulate(rows, target);
        }
    });
}

/// `sum_j d_j w_j` or its negative, modulo one prime.
struct Sum {
    modulus: Modulus,
    terms: Vec<Term>,
}

struct Term {
    /// `q_j / 2`, rounded down: larger residues stand for negative digits.
    half: u32,
    /// `w_j`, with the sum's sign.
    weight: Twiddle,
    /// `q_j w_j`, with the sum's sign.
    excess: u32,
}

impl Sum {
    fn new(basis: &RnsBasis, from: &[usize], limb: usize, negate: bool) -> Self {
        let modulus = basis.modulus(limb);
        let sign = |x: u32| if negate { modulus.neg(x) } else { x };
        let term = |j: usize| Term {
            half: basis.modulus(from[j]).value() / 2,
            weight: Twiddle::new(modulus, sign(basis.product_mod(&from[..j], limb))),
            excess: sign(basis.product_mod(&from[..=j], limb)),
        };
        Sum { modulus, terms: (0..from.len()).map(term).collect() }
    }

    /// Adds the sum to `row`; `digits` holds one row for each term.
    fn accumulate(&self, digits: &[u32], row: &mut [u32]) {
        let m = self.modulus;
        for (digits, term) in digits.chunks_exact(row.len()).zip(&self.terms) {
            for (x, &digit) in row.iter_mut().zip(digits) {
                let product = canonical(m, term.weight.mul_lazy(m, digit));
                let excess = term.excess & u32::from(digit > term.half).wrapping_neg();
                *x = m.sub(m.add(*x, product), excess);
            }
        }
    }
}

/// For every value and component, the polynomial's rows in all limbs.
fn polynomials(x: &mut CpuTensor) -> Vec<Vec<&mut [u32]>> {
    let shape = x.shape();
    let (limbs, rows, lanes, limb_len) =
        (shape.limbs.len(), shape.values * shape.components, shape.lanes, shape.limb_len());
    let mut polynomials: Vec<_> = (0..rows).map(|_| Vec::with_capacity(limbs)).collect();
    for block in x.residues_mut().chunks_exact_mut(limb_len.max(1)) {
        let rows = block.chunks_exact_mut(lanes);
        polynomials.iter_mut().zip(rows).for_each(|(polynomial, row)| polynomial.push(row));
    }
    polynomials
}
