//! Arithmetic modulo one NTT prime of at most 30 bits.

/// An odd prime `q` with `2^9 < q < 2^30`, and the constant of its Barrett reduction.
///
/// The upper bound leaves two spare bits in a `u32`, so that the lazy butterflies of [`super::NttTable`] may keep values in
/// `[0, 4q)` between reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modulus {
    q: u32,
    /// `floor(2^64 / q)`.
    barrett: u64,
}

/// Largest number of bits of a [`Modulus`].
pub const MAX_MODULUS_BITS: u32 = 30;

impl Modulus {
    /// Wraps `q`. Returns `None` unless `q` is odd and `2^9 < q < 2^30`. Primality is checked where chains are built
    /// ([`super::RnsBasis::new`]).
    pub fn new(q: u32) -> Option<Self> {
        let fits = q % 2 == 1 && q > 1 << 9 && q < 1 << MAX_MODULUS_BITS;
        fits.then(|| Modulus { q, barrett: u64::MAX / u64::from(q) })
    }

    /// The prime itself.
    pub fn value(self) -> u32 {
        self.q
    }

    /// `ceil(log2 q)`: bits of a packed residue.
    pub fn bits(self) -> u32 {
        32 - self.q.leading_zeros()
    }

    /// `x mod q` for any `x`.
    pub fn reduce(self, x: u64) -> u32 {
        // floor(x / q) is underestimated by at most 2, since barrett = floor((2^64 - 1) / q).
        let estimate = ((u128::from(x) * u128::from(self.barrett)) >> 64) as u64;
        let mut r = x - estimate * u64::from(self.q);
        r = r.min(r.wrapping_sub(u64::from(self.q)));
        r.min(r.wrapping_sub(u64::from(self.q))) as u32
    }

    /// `x mod q` in `[0, q)` for a signed `x` with `|x| < 2^62`.
    pub fn reduce_signed(self, x: i64) -> u32 {
        // Adding a multiple of q that exceeds 2^62 makes the sum non-negative without a branch on the sign.
        let offset = ((1u64 << 62) / u64::from(self.q) + 1) * u64::from(self.q);
        self.reduce(offset.wrapping_add_signed(x))
    }

    /// `x mod q` for an integer-valued finite `x` of any size (exact: an `f64` is a 53-bit integer times a power of two).
    ///
    /// # Panics
    /// If `x` is not an integer.
    pub fn reduce_integer_f64(self, x: f64) -> u32 {
        assert!(x.is_finite() && x.fract() == 0.0, "{x} is not an integer");
        let magnitude = x.abs();
        let residue = if magnitude < (1u64 << 53) as f64 {
            self.reduce(magnitude as u64)
        } else {
            let bits = magnitude.to_bits();
            let exponent = (bits >> 52) as u32 - 1075;
            let mantissa = (bits & ((1 << 52) - 1)) | 1 << 52;
            self.mul(self.reduce(mantissa), self.pow(2, exponent))
        };
        if x < 0.0 { self.neg(residue) } else { residue }
    }

    /// `a + b mod q` for `a, b` in `[0, q)`.
    pub fn add(self, a: u32, b: u32) -> u32 {
        let s = a + b;
        s.min(s.wrapping_sub(self.q))
    }

    /// `a - b mod q` for `a, b` in `[0, q)`.
    pub fn sub(self, a: u32, b: u32) -> u32 {
        let d = a.wrapping_sub(b);
        d.min(d.wrapping_add(self.q))
    }

    /// `-a mod q` for `a` in `[0, q)`.
    pub fn neg(self, a: u32) -> u32 {
        self.sub(0, a)
    }

    /// `a b mod q` for any `a, b`.
    pub fn mul(self, a: u32, b: u32) -> u32 {
        self.reduce(u64::from(a) * u64::from(b))
    }

    /// `a^exponent mod q`.
    pub fn pow(self, a: u32, mut exponent: u32) -> u32 {
        let (mut base, mut power) = (self.reduce(a.into()), 1);
        while exponent > 0 {
            if exponent & 1 == 1 {
                power = self.mul(power, base);
            }
            base = self.mul(base, base);
            exponent >>= 1;
        }
        power
    }

    /// The inverse of `a`, by Fermat; 0 for a multiple of `q`.
    pub fn inv(self, a: u32) -> u32 {
        self.pow(a, self.q - 2)
    }

    /// The representative of `x` in `(-q/2, q/2]`, for `x` in `[0, q)`; without a branch on `x`.
    pub fn centre(self, x: u32) -> i32 {
        let above = u32::from(x > self.q / 2).wrapping_neg();
        x.wrapping_sub(self.q & above) as i32
    }

    /// Shoup's companion `floor(w 2^32 / q)` of a constant factor `w` in `[0, q)`.
    pub fn shoup(self, w: u32) -> u32 {
        ((u64::from(w) << 32) / u64::from(self.q)) as u32
    }

    /// `x w mod q` in `[0, 2q)` for any `x`, with `w` in `[0, q)` and its companion (Harvey, "Faster arithmetic for
    /// number-theoretic transforms", section 3).
    #[inline(always)]
    pub fn mul_shoup_lazy(self, x: u32, w: u32, companion: u32) -> u32 {
        // In 64 bits throughout: vector units have 32 x 32 -> 64 products, but many have no 32-bit low product.
        let estimate = (u64::from(x) * u64::from(companion)) >> 32;
        (u64::from(x) * u64::from(w) - estimate * u64::from(self.q)) as u32
    }
}
