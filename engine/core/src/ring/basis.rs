//! The residue number system: a chain of NTT primes, and exact conversions between their subsets.

use super::{MAX_MODULI, Modulus, NttTable, RingError, check_dimension, is_prime};

/// A ring dimension with distinct NTT primes and their transforms. Limb `i` is arithmetic modulo prime `i`.
#[derive(Clone, Debug)]
pub struct RnsBasis {
    n: usize,
    tables: Vec<NttTable>,
}

impl RnsBasis {
    /// Checks the primes and builds all tables.
    ///
    /// # Errors
    /// `n` not a supported power of two; no or too many primes; a number that is not a prime `q = 1 (mod 4n)` below 2^30;
    /// a repeated prime.
    pub fn new(n: usize, primes: &[u32]) -> Result<Self, RingError> {
        check_dimension(n)?;
        if primes.is_empty() || primes.len() > MAX_MODULI {
            return Err(RingError::ModulusCount { count: primes.len() });
        }
        let mut tables = Vec::with_capacity(primes.len());
        for (i, &q) in primes.iter().enumerate() {
            let usable = u64::from(q) % (4 * n as u64) == 1 && is_prime(q);
            let modulus = Modulus::new(q).filter(|_| usable).ok_or(RingError::NotNttPrime { q, n })?;
            if primes[..i].contains(&q) {
                return Err(RingError::RepeatedPrime { q });
            }
            tables.push(NttTable::new(n, modulus));
        }
        Ok(RnsBasis { n, tables })
    }

    /// Ring dimension.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of limbs.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether there are no limbs (never, by construction).
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Modulus of limb `limb`.
    pub fn modulus(&self, limb: usize) -> Modulus {
        self.tables[limb].modulus()
    }

    /// Transform of limb `limb`.
    pub fn table(&self, limb: usize) -> &NttTable {
        &self.tables[limb]
    }

    /// All primes in order.
    pub fn primes(&self) -> Vec<u32> {
        self.tables.iter().map(|t| t.modulus().value()).collect()
    }

    /// `log2` of the product of the given limbs' primes.
    pub fn log2_product(&self, limbs: impl IntoIterator<Item = usize>) -> f64 {
        limbs.into_iter().fold(0.0, |sum, i| sum + libm::log2(self.modulus(i).value().into()))
    }

    /// `product of from's primes mod the prime of limb`.
    pub fn product_mod(&self, from: &[usize], limb: usize) -> u32 {
        let m = self.modulus(limb);
        from.iter().fold(1, |product, &i| m.mul(product, self.modulus(i).value()))
    }

    /// The exact centred conversion from limbs `from` to limbs `to`.
    pub fn centred_converter(&self, from: &[usize], to: &[usize]) -> CentredConverter {
        let from_moduli: Vec<Modulus> = from.iter().map(|&i| self.modulus(i)).collect();
        let inverses = (0..from.len())
            .map(|i| {
                let m = from_moduli[i];
                m.inv(from_moduli[..i].iter().fold(1, |product, p| m.mul(product, p.value())))
            })
            .collect();
        let weights = |m: Modulus| -> Vec<u32> {
            let powers = from_moduli.iter().scan(1, |product, p| {
                let weight = *product;
                *product = m.mul(weight, p.value());
                Some(weight)
            });
            powers.collect()
        };
        let within = from_moduli.iter().map(|&m| weights(m)).collect();
        let targets = to.iter().map(|&i| (self.modulus(i), weights(self.modulus(i)))).collect();
        CentredConverter { from: from_moduli, within, inverses, targets }
    }
}

/// Exact conversion of `cent(x mod D)`, `D` the product of some primes, to other primes or to `f64`.
///
/// `cent` is the representative in `(-D/2, D/2]`. It is found in balanced mixed radix, `d_0 + q_0 d_1 + q_0 q_1 d_2 + ...`
/// with `|d_i| <= (q_i - 1) / 2`; since every prime is odd, these sums are exactly the centred representatives, whatever the
/// order of the primes. Hence dividing by `P` and then by a chain prime equals one merged division by their product.
/// The time does not depend on the values.
#[derive(Clone, Debug)]
pub struct CentredConverter {
    from: Vec<Modulus>,
    /// `within[i][j] = q_0 ... q_(j-1) mod q_i`.
    within: Vec<Vec<u32>>,
    /// `(q_0 ... q_(i-1))^-1 mod q_i`.
    inverses: Vec<u32>,
    /// Per target: its modulus, and `q_0 ... q_(j-1)` modulo it.
    targets: Vec<(Modulus, Vec<u32>)>,
}

impl CentredConverter {
    /// Balanced mixed-radix digits of the residues `x` (one per source limb, canonical), written to `digits`.
    pub fn digits(&self, x: &[u32], digits: &mut [i32]) {
        for i in 0..self.from.len() {
            let m = self.from[i];
            let below = weighted_sum(m, &digits[..i], &self.within[i]);
            digits[i] = m.centre(m.mul(m.sub(x[i], below), self.inverses[i]));
        }
    }

    /// The residue of the centred representative modulo target `target`, from its digits.
    pub fn residue(&self, digits: &[i32], target: usize) -> u32 {
        let (m, weights) = &self.targets[target];
        weighted_sum(*m, digits, weights)
    }

    /// The centred representative as `f64`, from its digits: relative error below `2^-52` per digit.
    pub fn to_f64(&self, digits: &[i32]) -> f64 {
        let pairs = digits.iter().zip(&self.from).rev();
        pairs.fold(0.0, |value, (&d, m)| value * f64::from(m.value()) + f64::from(d))
    }
}

/// `sum_j digits[j] weights[j] mod q`.
fn weighted_sum(m: Modulus, digits: &[i32], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).fold(0, |sum, (&d, &w)| m.add(sum, m.reduce_signed(i64::from(d) * i64::from(w))))
}
