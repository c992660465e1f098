//! Reductions modulo one prime in forms that vectorise with the instructions every machine has.

use cryptodl_core::ring::Modulus;

/// Reduction of exact `f64` sums.
#[derive(Clone, Copy)]
pub(super) struct SumReducer {
    q: f64,
    inverse: f64,
    modulus: Modulus,
}

/// Adding `1.5 * 2^52` rounds to an integer, which then stands in two's complement in the low bits.
const ROUND: f64 = (3u64 << 51) as f64;

impl SumReducer {
    pub(super) fn new(modulus: Modulus) -> Self {
        let q = f64::from(modulus.value());
        SumReducer { q, inverse: 1.0 / q, modulus }
    }

    /// The canonical residue of an integer `sum` with `|sum| <= 2^53 - q`.
    ///
    /// `sum / q` is below `2^44` and rounds to a neighbouring integer `e`; `e q` differs from `sum` by less than `q`, hence is
    /// exact, and so is their difference.
    #[inline(always)]
    pub(super) fn residue(self, sum: f64) -> u32 {
        let e = (sum * self.inverse + ROUND) - ROUND;
        let centred = (sum - e * self.q + ROUND).to_bits() as u32;
        centred.min(centred.wrapping_add(self.modulus.value()))
    }
}

/// Barrett reduction of products of residues, with 32-bit multiplications only.
#[derive(Clone, Copy)]
pub(super) struct ProductReducer {
    q: u32,
    shift: u32,
    /// `floor(2^(bits + 31) / q)`, below `2^32` since `q > 2^(bits - 1)`.
    factor: u64,
}

impl ProductReducer {
    pub(super) fn new(modulus: Modulus) -> Self {
        let (q, bits) = (modulus.value(), modulus.bits());
        ProductReducer { q, shift: bits - 1, factor: (1 << (bits + 31)) / u64::from(q) }
    }

    /// The canonical residue of `x <= 2 (q - 1)^2`.
    ///
    /// With `b` bits in `q`: `x >> (b - 1)` is below `2^(b + 2) <= 2^32`, and each of the two truncations and the final one
    /// loses less than 1 of the quotient, so the remainder is below `3q < 2^32`.
    #[inline(always)]
    pub(super) fn residue(self, x: u64) -> u32 {
        let estimate = (u64::from((x >> self.shift) as u32) * self.factor) >> 32;
        let r = (x - estimate * u64::from(self.q)) as u32;
        let r = r.min(r.wrapping_sub(2 * self.q));
        r.min(r.wrapping_sub(self.q))
    }

    /// `a + b mod q`, canonical in and out.
    #[inline(always)]
    fn add(self, a: u32, b: u32) -> u32 {
        let sum = a + b;
        sum.min(sum.wrapping_sub(self.q))
    }

    /// `out += a b`, lane by lane, canonical.
    pub(super) fn add_products(self, out: &mut [u32], a: &[u32], b: &[u32]) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *out = self.add(*out, self.residue(u64::from(a) * u64::from(b)));
        }
    }

    /// `out += a b + c d`, lane by lane, canonical.
    fn add_product_pairs(self, out: &mut [u32], [a, b]: [&[u32]; 2], [c, d]: [&[u32]; 2]) {
        for ((((out, &a), &b), &c), &d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *out = self.add(*out, self.residue(u64::from(a) * u64::from(b) + u64::from(c) * u64::from(d)));
        }
    }

    /// A product of ciphertexts: `a` and `b` hold components of `lanes` residues; component `t` of `out`, which has room for
    /// all, becomes `sum_(i+j=t) a_i b_j`.
    pub(super) fn multiply(self, a: &[u32], b: &[u32], lanes: usize, out: &mut [u32]) {
        let (left, right) = (a.len() / lanes, b.len() / lanes);
        for (t, out) in out.chunks_exact_mut(lanes).enumerate() {
            let factors = |i: usize| [&a[i * lanes..][..lanes], &b[(t - i) * lanes..][..lanes]];
            let (mut i, end) = ((t + 1).saturating_sub(right), (t + 1).min(left));
            out.fill(0);
            while i + 1 < end {
                self.add_product_pairs(out, factors(i), factors(i + 1));
                i += 2;
            }
            if i < end {
                let [a, b] = factors(i);
                self.add_products(out, a, b);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moduli() -> impl Iterator<Item = Modulus> {
        [521, 8_380_417, 12_289, 536_903_681, 1_073_692_673, (1 << 30) - 1]
            .into_iter()
            .map(|q| Modulus::new(q).unwrap())
    }

    #[test]
    fn products_reduce_to_canonical_residues() {
        for m in moduli() {
            let (q, reducer) = (u64::from(m.value()), ProductReducer::new(m));
            let most = 2 * (q - 1) * (q - 1);
            for near in [0, q, 2 * q, 3 * q, most / 3, most / q * q, most - 2] {
                for x in near.saturating_sub(2)..=(near + 2).min(most) {
                    assert_eq!(u64::from(reducer.residue(x)), x % q, "{x} mod {q}");
                }
            }
        }
    }

    #[test]
    fn sums_reduce_to_canonical_residues() {
        for m in moduli() {
            let (q, reducer) = (i64::from(m.value()), SumReducer::new(m));
            let most = (1 << 53) - q;
            for near in [0, q / 2, q, 3 * q / 2, most / 3, most / q * q - q, most / q * q - q / 2, most - 2] {
                for x in (near - 2..=near + 2).flat_map(|x| [x, -x]) {
                    assert_eq!(i64::from(reducer.residue(x as f64)), x.rem_euclid(q), "{x} mod {q}");
                }
            }
        }
    }
}
