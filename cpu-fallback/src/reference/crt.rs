//! The Chinese remainder theorem on big integers: the textbook formula, one coefficient at a time.

/// A natural number, 32 bits per entry, least significant first.
type Natural = Vec<u32>;

/// `cent(x mod D)` from the residues of `x`, `D` the product of the primes.
pub(super) struct Composer {
    primes: Vec<u32>,
    product: Natural,
    /// `D / q_i`.
    cofactors: Vec<Natural>,
    /// `(D / q_i)^-1 mod q_i`.
    inverses: Vec<u32>,
}

/// An integer with its sign.
pub(super) struct Integer {
    negative: bool,
    magnitude: Natural,
}

impl Composer {
    pub(super) fn new(primes: &[u32]) -> Self {
        // One spare entry, so that a sum of residues times cofactors fits.
        let product_of = |skip: Option<usize>| {
            let mut product = vec![0; primes.len() + 1];
            product[0] = 1;
            for (_, &q) in primes.iter().enumerate().filter(|&(i, _)| Some(i) != skip) {
                let zero = vec![0; product.len()];
                product = add_multiple(zero, &product, q);
            }
            product
        };
        let cofactors: Vec<Natural> = (0..primes.len()).map(|i| product_of(Some(i))).collect();
        let inverse = |(cofactor, &q): (&Natural, &u32)| {
            let (c, q) = (u64::from(remainder(cofactor, q)), u64::from(q));
            // Fermat, by repeated squaring from the top bit.
            (0..32).rev().fold(1, |power, bit| {
                let square = power * power % q;
                if (q - 2) >> bit & 1 == 1 { square * c % q } else { square }
            }) as u32
        };
        let inverses = cofactors.iter().zip(primes).map(inverse).collect();
        Composer { primes: primes.to_vec(), product: product_of(None), cofactors, inverses }
    }

    /// The representative in `(-D/2, D/2]` of the number with the given canonical residues.
    pub(super) fn compose(&self, residues: impl Iterator<Item = u32>) -> Integer {
        let mut x = vec![0; self.product.len()];
        for (i, residue) in residues.enumerate() {
            let digit = u64::from(residue) * u64::from(self.inverses[i]) % u64::from(self.primes[i]);
            x = add_multiple(x, &self.cofactors[i], digit as u32);
        }
        while !less(&x, &self.product) {
            x = subtract(&x, &self.product);
        }
        // D is odd: x <= D/2 exactly when x < D - x.
        let complement = subtract(&self.product, &x);
        let negative = less(&complement, &x);
        Integer { negative, magnitude: if negative { complement } else { x } }
    }
}

impl Integer {
    /// The canonical residue.
    pub(super) fn modulo(&self, q: u32) -> u32 {
        match remainder(&self.magnitude, q) {
            r if self.negative && r > 0 => q - r,
            r => r,
        }
    }
}

/// `x + factor y`, which must fit the length of `x`.
fn add_multiple(mut x: Natural, y: &[u32], factor: u32) -> Natural {
    let mut carry = 0;
    for (x, &y) in x.iter_mut().zip(y) {
        let sum = u64::from(*x) + u64::from(y) * u64::from(factor) + carry;
        (*x, carry) = (sum as u32, sum >> 32);
    }
    assert_eq!(carry, 0, "a number outgrew its length");
    x
}

/// `x - y`, for `y <= x`.
fn subtract(x: &[u32], y: &[u32]) -> Natural {
    let mut borrow = false;
    let entries = x.iter().zip(y).map(|(&x, &y)| {
        let (difference, first) = x.overflowing_sub(y);
        let (difference, second) = difference.overflowing_sub(borrow.into());
        borrow = first || second;
        difference
    });
    entries.collect()
}

fn less(x: &[u32], y: &[u32]) -> bool {
    x.iter().rev().lt(y.iter().rev())
}

fn remainder(x: &[u32], q: u32) -> u32 {
    x.iter().rev().fold(0, |r, &entry| (r << 32 | u64::from(entry)) % u64::from(q)) as u32
}
