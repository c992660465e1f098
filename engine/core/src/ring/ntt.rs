//! The number-theoretic transform of the conjugate-invariant ring.
//!
//! An element is `a_0 + sum_(0<j<N) a_j (X^j + X^-j)`. With `psi` a primitive 4N-th root of unity and `iota = psi^N`,
//! `g_0 = a_0, g_j = a_j - iota a_(N-j)` turns evaluation at `psi^(4k+1)` into evaluation of the ordinary polynomial
//! `g(X) mod X^N - iota` (docs/scheme.md, "Residues and the transform"; ring: Kim and Song, ePrint
//! 2018/952).

use super::Modulus;

/// A constant factor with its Shoup companion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twiddle {
    /// The factor, in `[0, q)`.
    pub factor: u32,
    /// `floor(factor 2^32 / q)`.
    pub companion: u32,
}

impl Twiddle {
    /// Precomputes the companion of `factor` in `[0, q)`.
    pub fn new(modulus: Modulus, factor: u32) -> Self {
        Twiddle { factor, companion: modulus.shoup(factor) }
    }

    /// `x factor mod q` in `[0, 2q)`, any `x`.
    #[inline(always)]
    pub fn mul_lazy(self, modulus: Modulus, x: u32) -> u32 {
        modulus.mul_shoup_lazy(x, self.factor, self.companion)
    }
}

/// Tables of the forward and inverse transform of dimension `n` modulo one prime.
#[derive(Clone, Debug)]
pub struct NttTable {
    n: usize,
    modulus: Modulus,
    psi: u32,
    iota: Twiddle,
    /// Entry `m + i` (`m` a power of two, `i < m`) is `psi^((N/2m)(4 bitrev_m(i) + 1))`, the square root used when block `i`
    /// of `m` is split; entry 0 is unused.
    forward: Vec<Twiddle>,
    /// Inverses of `forward`.
    inverse: Vec<Twiddle>,
    /// `1/N`, and `1/(2N)` and `iota/(2N)` for the unfolding layer.
    scale: [Twiddle; 3],
}

impl NttTable {
    /// Tables for dimension `n` (a power of two, at least 8) and a prime `q = 1 (mod 4n)`.
    ///
    /// `psi = x^((q-1)/4n)` for the least `x >= 2` that makes it a primitive 4n-th root of unity.
    pub(super) fn new(n: usize, modulus: Modulus) -> Self {
        let (q, order) = (modulus.value(), 4 * n as u32);
        let psi = (2..)
            .map(|x| modulus.pow(x, (q - 1) / order))
            .find(|&root| modulus.pow(root, order / 2) == q - 1)
            .expect("a prime q = 1 (mod 4n) has primitive 4n-th roots");
        let mut forward = vec![Twiddle { factor: 0, companion: 0 }; n];
        let mut inverse = forward.clone();
        let mut m = 1;
        while m < n {
            for i in 0..m {
                let reversed = if m == 1 { 0 } else { i.reverse_bits() >> (usize::BITS - m.trailing_zeros()) };
                let root = modulus.pow(psi, (n / (2 * m) * (4 * reversed + 1)) as u32);
                forward[m + i] = Twiddle::new(modulus, root);
                inverse[m + i] = Twiddle::new(modulus, modulus.inv(root));
            }
            m *= 2;
        }
        let iota = modulus.pow(psi, n as u32);
        let inverse_n = modulus.inv(n as u32);
        let inverse_2n = modulus.inv(2 * n as u32);
        let scale = [inverse_n, inverse_2n, modulus.mul(iota, inverse_2n)].map(|f| Twiddle::new(modulus, f));
        NttTable { n, modulus, psi, iota: Twiddle::new(modulus, iota), forward, inverse, scale }
    }

    /// Dimension.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The prime.
    pub fn modulus(&self) -> Modulus {
        self.modulus
    }

    /// The primitive 4N-th root of unity.
    pub fn psi(&self) -> u32 {
        self.psi
    }

    /// `psi^N`, a square root of -1, used by the folding layer.
    pub fn iota(&self) -> Twiddle {
        self.iota
    }

    /// Roots of the forward butterflies in the order used: entry `m + i` splits block `i` of `m`.
    pub fn forward_twiddles(&self) -> &[Twiddle] {
        &self.forward
    }

    /// Inverses of [`Self::forward_twiddles`].
    pub fn inverse_twiddles(&self) -> &[Twiddle] {
        &self.inverse
    }

    /// `1/N`, `1/(2N)` and `iota/(2N)`.
    pub fn inverse_scales(&self) -> [Twiddle; 3] {
        self.scale
    }

    /// Coefficient to evaluation domain, in place. Input and output canonical, in `[0, q)`; output index `t` holds the value
    /// at `psi^(4 bitrev(t) + 1)`. Time and memory access do not depend on the values.
    ///
    /// # Panics
    /// If `a` does not have `n` entries.
    pub fn forward(&self, a: &mut [u32]) {
        assert_eq!(a.len(), self.n, "one polynomial of {} residues", self.n);
        let (m, q2) = (self.modulus, 2 * self.modulus.value());
        self.fold(a);
        // Invariant: values in [0, 4q) between layers; x is brought to [0, 2q) first, the product is in [0, 2q).
        let butterfly = |x: u32, y: u32, w: Twiddle| {
            let (u, v) = (x.min(x.wrapping_sub(q2)), w.mul_lazy(m, y));
            (u + v, u + q2 - v)
        };
        let mut half = self.n / 2;
        while half > 0 {
            layer(a, half, &self.forward, butterfly);
            half /= 2;
        }
        for x in a {
            *x = canonical(*x, m.value());
        }
    }

    /// Evaluation to coefficient domain, in place; the inverse of [`Self::forward`], with the same conventions.
    ///
    /// # Panics
    /// If `a` does not have `n` entries.
    pub fn inverse(&self, a: &mut [u32]) {
        assert_eq!(a.len(), self.n, "one polynomial of {} residues", self.n);
        let (m, q2) = (self.modulus, 2 * self.modulus.value());
        // Invariant: values in [0, 2q) between layers.
        let butterfly = |x: u32, y: u32, w: Twiddle| {
            let sum = x + y;
            (sum.min(sum.wrapping_sub(q2)), w.mul_lazy(m, x + q2 - y))
        };
        let mut half = 1;
        while half < self.n {
            layer(a, half, &self.inverse, butterfly);
            half *= 2;
        }
        self.unfold(a);
    }

    /// `g_j = a_j - iota a_(N-j)`: canonical in, `[0, 4q)` out.
    fn fold(&self, a: &mut [u32]) {
        let (m, n, q2) = (self.modulus, self.n, 2 * self.modulus.value());
        let (low, high) = a.split_at_mut(n / 2);
        high[0] += q2 - self.iota.mul_lazy(m, high[0]);
        let fold = |x: u32, y: u32| x + q2 - self.iota.mul_lazy(m, y);
        mirrored(&mut low[1..], &mut high[1..], |x, y| (fold(x, y), fold(y, x)));
    }

    /// `a_j = (g_j + iota g_(N-j)) / 2` and the factor `1/N`: `[0, 2q)` in, canonical out.
    fn unfold(&self, a: &mut [u32]) {
        let (m, n, q) = (self.modulus, self.n, self.modulus.value());
        let [by_n, by_2n, iota_by_2n] = self.scale;
        let combine = |u: u32, v: u32| canonical(by_2n.mul_lazy(m, u) + iota_by_2n.mul_lazy(m, v), q);
        let (low, high) = a.split_at_mut(n / 2);
        low[0] = canonical(by_n.mul_lazy(m, low[0]), q);
        high[0] = combine(high[0], high[0]);
        mirrored(&mut low[1..], &mut high[1..], |x, y| (combine(x, y), combine(y, x)));
    }
}

/// One layer: `butterfly` on all pairs at distance `half`, with one of the table's roots for each block of `2 half`.
#[inline(always)]
fn layer(a: &mut [u32], half: usize, roots: &[Twiddle], butterfly: impl Fn(u32, u32, Twiddle) -> (u32, u32) + Copy) {
    let roots = &roots[a.len() / (2 * half)..];
    match half {
        1 => short_blocks::<1, 2>(a, roots, butterfly),
        2 => short_blocks::<2, 4>(a, roots, butterfly),
        4 => short_blocks::<4, 8>(a, roots, butterfly),
        _ => {
            for (block, &w) in a.chunks_exact_mut(2 * half).zip(roots) {
                let (low, high) = block.split_at_mut(half);
                long_block(low, high, w, butterfly);
            }
        }
    }
}

/// One block of a [`layer`]. Not inlined: only as arguments are the halves known not to overlap, and the loop vectorises
/// without a check that the surrounding loop would make fail.
#[inline(never)]
fn long_block(low: &mut [u32], high: &mut [u32], w: Twiddle, butterfly: impl Fn(u32, u32, Twiddle) -> (u32, u32)) {
    for (x, y) in low.iter_mut().zip(high) {
        (*x, *y) = butterfly(*x, *y, w);
    }
}

/// Applies `f` to the first of `low` and the last of `high`, and so on inwards. Not inlined, like [`long_block`].
#[inline(never)]
fn mirrored(low: &mut [u32], high: &mut [u32], f: impl Fn(u32, u32) -> (u32, u32)) {
    for (x, y) in low.iter_mut().zip(high.iter_mut().rev()) {
        (*x, *y) = f(*x, *y);
    }
}

/// A [`layer`] of short blocks, whose fixed length lets the compiler vectorise across blocks.
#[inline(always)]
fn short_blocks<const HALF: usize, const BLOCK: usize>(
    a: &mut [u32],
    roots: &[Twiddle],
    butterfly: impl Fn(u32, u32, Twiddle) -> (u32, u32),
) {
    for (block, &w) in a.as_chunks_mut::<BLOCK>().0.iter_mut().zip(roots) {
        for i in 0..HALF {
            (block[i], block[i + HALF]) = butterfly(block[i], block[i + HALF], w);
        }
    }
}

/// `[0, 4q)` to `[0, q)`.
#[inline(always)]
fn canonical(x: u32, q: u32) -> u32 {
    let x = x.min(x.wrapping_sub(2 * q));
    x.min(x.wrapping_sub(q))
}
