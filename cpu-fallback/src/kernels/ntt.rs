//! The transform of the conjugate-invariant ring (see `cryptodl_core::ring::NttTable` for what it computes): several layers at
//! a time in registers, the last ones within pairs of vectors.
//!
//! Between layers the forward transform holds values in `[0, 4q)`, the inverse in `[0, 2q)`. Primes of at most 26 bits leave
//! room for all layers of the forward transform to add up without any reduction: 16 layers and folding reach `35q < 2^32`.

use cryptodl_core::ring::{Modulus, NttTable, Twiddle};

use super::reduce::{Factor, Prime};
use crate::simd::{Kernel, Simd, unrolled};

/// Tables of one prime in the order of use.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// For dimensions below [`MIN_N`].
    scalar: NttTable,
    n: usize,
    modulus: Modulus,
    iota: Twiddle,
    forward: Roots,
    inverse: Roots,
    /// `1 / N`.
    scale: Twiddle,
    /// `(1 + iota) / 4N` and `(1 - iota) / 4N`.
    unfold: [Twiddle; 2],
}

/// Factors and companions apart, so that neighbouring roots load as vectors.
#[derive(Clone, Debug)]
struct Roots {
    factors: Vec<u32>,
    companions: Vec<u32>,
}

/// Largest prime that needs no reductions between layers.
const LAZY_BITS: u32 = 26;

/// The least dimension that fills a block for vectors of any length.
const MIN_N: usize = 64;

impl Tables {
    pub(crate) fn new(table: &NttTable) -> Self {
        let (m, [scale, by_2n, iota_by_2n]) = (table.modulus(), table.inverse_scales());
        let half = m.inv(2);
        let halved = |x: u32| Twiddle::new(m, m.mul(x, half));
        Tables {
            scalar: table.clone(),
            n: table.n(),
            modulus: m,
            iota: table.iota(),
            forward: Roots::new(table.forward_twiddles()),
            inverse: Roots::new(table.inverse_twiddles()),
            scale,
            unfold: [halved(m.add(by_2n.factor, iota_by_2n.factor)), halved(m.sub(by_2n.factor, iota_by_2n.factor))],
        }
    }
}

impl Roots {
    fn new(twiddles: &[Twiddle]) -> Self {
        // A vector may start at the last root.
        let padded = |f: fn(&Twiddle) -> u32| twiddles.iter().map(f).chain([0; 16]).collect();
        Roots { factors: padded(|w| w.factor), companions: padded(|w| w.companion) }
    }

    /// Root `index` in every lane.
    #[inline(always)]
    fn one<S: Simd>(&self, s: S, index: usize) -> Factor<S> {
        Factor::in_pairs(s.splat(self.factors[index]), s.splat(self.companions[index]))
    }

    /// Root `first + (j >> bits)` in lane `j`.
    #[inline(always)]
    fn several<S: Simd>(&self, s: S, first: usize, bits: u32) -> Factor<S> {
        let factor = s.load(&S::arrays(&self.factors[first..][..S::LANES]).0[0]);
        let companion = s.load(&S::arrays(&self.companions[first..][..S::LANES]).0[0]);
        match bits {
            0 => Factor::by_lane(s, factor, companion),
            _ => Factor::in_pairs(s.repeat(factor, bits), s.repeat(companion, bits)),
        }
    }
}

/// One direction: how two values and a root become two values.
trait Direction<S: Simd>: Copy {
    fn butterfly(self, x: S::V, y: S::V, w: Factor<S>) -> (S::V, S::V);
}

/// Evaluation. `LAZY`: no reductions between layers.
struct Forward<S: Simd, const LAZY: bool>(S, Prime<S>);

/// Interpolation.
struct Inverse<S: Simd>(S, Prime<S>);

impl<S: Simd, const LAZY: bool> Clone for Forward<S, LAZY> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Simd, const LAZY: bool> Copy for Forward<S, LAZY> {}
impl<S: Simd> Clone for Inverse<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Simd> Copy for Inverse<S> {}

impl<S: Simd, const LAZY: bool> Direction<S> for Forward<S, LAZY> {
    #[inline(always)]
    fn butterfly(self, x: S::V, y: S::V, w: Factor<S>) -> (S::V, S::V) {
        let Forward(s, prime) = self;
        let u = if LAZY { x } else { prime.halve(x) };
        let v = prime.mul_lazy(y, w);
        (s.add(u, v), s.add(u, s.sub(prime.twice(), v)))
    }
}

impl<S: Simd> Direction<S> for Inverse<S> {
    #[inline(always)]
    fn butterfly(self, x: S::V, y: S::V, w: Factor<S>) -> (S::V, S::V) {
        let Inverse(s, prime) = self;
        let difference = s.add(x, s.sub(prime.twice(), y));
        (prime.halve(s.add(x, y)), prime.mul_lazy(difference, w))
    }
}

/// Coefficient to evaluation domain, in place, canonical in and out.
pub(crate) struct ForwardNtt<'a>(pub(crate) &'a Tables, pub(crate) &'a mut [u32]);

/// Evaluation to coefficient domain, in place, canonical in and out.
pub(crate) struct InverseNtt<'a>(pub(crate) &'a Tables, pub(crate) &'a mut [u32]);

impl<S: Simd> Kernel<S> for ForwardNtt<'_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: S) {
        forward(s, self.0, self.1);
    }
}

impl<S: Simd> Kernel<S> for InverseNtt<'_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: S) {
        inverse(s, self.0, self.1);
    }
}

#[inline(always)]
fn forward<S: Simd>(s: S, t: &Tables, a: &mut [u32]) {
    assert_eq!(a.len(), t.n, "one polynomial of {} residues", t.n);
    if t.n < MIN_N {
        return t.scalar.forward(a);
    }
    fold(s, t, a);
    if t.modulus.bits() <= LAZY_BITS {
        forward_layers::<S, true>(s, t, a);
    } else {
        forward_layers::<S, false>(s, t, a);
    }
}

#[inline(always)]
fn inverse<S: Simd>(s: S, t: &Tables, a: &mut [u32]) {
    assert_eq!(a.len(), t.n, "one polynomial of {} residues", t.n);
    if t.n < MIN_N {
        return t.scalar.inverse(a);
    }
    let direction = Inverse(s, Prime::new(s, t.modulus));
    let passes = Passes::new::<S>(t.n);
    let len = t.n >> passes.layers[0];
    for (first, block) in a.chunks_exact_mut(len).enumerate() {
        let mut size = 2 * S::LANES;
        inverse_pairs(s, direction, &t.inverse, block, t.n / size + first * (len / size));
        for &layers in passes.layers[1..passes.count].iter().rev() {
            size <<= layers;
            for (i, part) in block.chunks_exact_mut(size).enumerate() {
                up(s, direction, layers, &t.inverse, part, t.n / size + first * (len / size) + i);
            }
        }
    }
    up(s, direction, passes.layers[0], &t.inverse, a, 1);
    unfold(s, t, a);
}

#[inline(always)]
fn forward_layers<S: Simd, const LAZY: bool>(s: S, t: &Tables, a: &mut [u32]) {
    let direction = Forward::<S, LAZY>(s, Prime::new(s, t.modulus));
    let passes = Passes::new::<S>(t.n);
    down(s, direction, passes.layers[0], &t.forward, a, 1);
    // After the first pass, blocks are finished one by one, so that large transforms stay in the first-level cache.
    let len = t.n >> passes.layers[0];
    for (first, block) in a.chunks_exact_mut(len).enumerate() {
        let mut size = len;
        for &layers in &passes.layers[1..passes.count] {
            for (i, part) in block.chunks_exact_mut(size).enumerate() {
                down(s, direction, layers, &t.forward, part, t.n / size + first * (len / size) + i);
            }
            size >>= layers;
        }
        forward_pairs(s, direction, &t.forward, block, t.n / size + first * (len / size));
    }
}

/// How the layers above pairs of vectors are cut into passes, the largest blocks first.
struct Passes {
    layers: [u32; 8],
    count: usize,
}

impl Passes {
    #[inline(always)]
    fn new<S: Simd>(n: usize) -> Self {
        let all = (n / (2 * S::LANES)).ilog2();
        let count = all.div_ceil(S::LAYERS);
        let mut layers = [0; 8];
        for pass in 0..count {
            layers[pass as usize] = (pass + 1) * all / count - pass * all / count;
        }
        Passes { layers, count: count as usize }
    }
}

/// `layers` layers of a block whose first root is `root`, from the widest.
#[inline(always)]
fn down<S: Simd>(s: S, d: impl Direction<S>, layers: u32, roots: &Roots, block: &mut [u32], root: usize) {
    match layers {
        1 => pass::<S, _, 2, true>(s, d, roots, block, root),
        2 => pass::<S, _, 4, true>(s, d, roots, block, root),
        3 => pass::<S, _, 8, true>(s, d, roots, block, root),
        _ => pass::<S, _, 16, true>(s, d, roots, block, root),
    }
}

/// [`down`], from the narrowest.
#[inline(always)]
fn up<S: Simd>(s: S, d: impl Direction<S>, layers: u32, roots: &Roots, block: &mut [u32], root: usize) {
    match layers {
        1 => pass::<S, _, 2, false>(s, d, roots, block, root),
        2 => pass::<S, _, 4, false>(s, d, roots, block, root),
        3 => pass::<S, _, 8, false>(s, d, roots, block, root),
        _ => pass::<S, _, 16, false>(s, d, roots, block, root),
    }
}

/// `log2 VECTORS` layers in registers, one vector of each of `VECTORS` equal stripes of the block at a time.
#[inline(always)]
fn pass<S: Simd, D: Direction<S>, const VECTORS: usize, const DOWN: bool>(
    s: S,
    d: D,
    roots: &Roots,
    block: &mut [u32],
    root: usize,
) {
    let block = S::arrays_mut(block).0;
    let stripe = block.len() / VECTORS;
    for column in 0..stripe {
        let mut v = [s.splat(0); VECTORS];
        unrolled!(k < VECTORS => { v[k] = s.load(&block[k * stripe + column]); });
        if DOWN {
            layer::<S, D, VECTORS, 8>(s, d, roots, &mut v, root);
            layer::<S, D, VECTORS, 4>(s, d, roots, &mut v, root);
            layer::<S, D, VECTORS, 2>(s, d, roots, &mut v, root);
            layer::<S, D, VECTORS, 1>(s, d, roots, &mut v, root);
        } else {
            layer::<S, D, VECTORS, 1>(s, d, roots, &mut v, root);
            layer::<S, D, VECTORS, 2>(s, d, roots, &mut v, root);
            layer::<S, D, VECTORS, 4>(s, d, roots, &mut v, root);
            layer::<S, D, VECTORS, 8>(s, d, roots, &mut v, root);
        }
        unrolled!(k < VECTORS => { s.store(v[k], &mut block[k * stripe + column]); });
    }
}

/// Butterflies of vectors at distance `HALF`, nothing if there are none.
#[inline(always)]
fn layer<S: Simd, D: Direction<S>, const VECTORS: usize, const HALF: usize>(
    s: S,
    d: D,
    roots: &Roots,
    v: &mut [S::V; VECTORS],
    root: usize,
) {
    if 2 * HALF > VECTORS {
        return;
    }
    let blocks = VECTORS / (2 * HALF);
    unrolled!(block < VECTORS / (2 * HALF) => {
        let w = roots.one(s, root * blocks + block);
        unrolled!(k < HALF => {
            let (x, y) = (2 * HALF * block + k, 2 * HALF * block + k + HALF);
            (v[x], v[y]) = d.butterfly(v[x], v[y], w);
        });
    });
}

/// The last layers, within pairs of vectors, and the reduction to canonical values. `root` is the first pair's root.
#[inline(always)]
fn forward_pairs<S: Simd, const LAZY: bool>(s: S, d: Forward<S, LAZY>, roots: &Roots, block: &mut [u32], root: usize) {
    let (groups, rest) = S::arrays_mut(block).0.as_chunks_mut::<GROUP>();
    let after = root + groups.len() * GROUP / 2;
    for (group, vectors) in groups.iter_mut().enumerate() {
        forward_group(s, d, roots, vectors, root + group * GROUP / 2);
    }
    for (pair, vectors) in rest.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        forward_group(s, d, roots, vectors, after + pair);
    }
}

/// Vectors of several pairs that are computed side by side, so that none waits for its own last layer.
const GROUP: usize = 4;

#[inline(always)]
fn forward_group<S: Simd, const LAZY: bool, const VECTORS: usize>(
    s: S,
    d: Forward<S, LAZY>,
    roots: &Roots,
    vectors: &mut [S::Array; VECTORS],
    root: usize,
) {
    let last = S::LANES.ilog2();
    let mut v = [s.splat(0); VECTORS];
    unrolled!(k < VECTORS => { v[k] = s.load(&vectors[k]); });
    unrolled!(pair < VECTORS / 2 => {
        (v[2 * pair], v[2 * pair + 1]) = d.butterfly(v[2 * pair], v[2 * pair + 1], roots.one(s, root + pair));
    });
    // Bit `bit` of the index moves to the choice of vector; the roots of neighbouring blocks are neighbours.
    macro_rules! within {
        ($($bit:literal)*) => {
            $(if $bit < last {
                unrolled!(pair < VECTORS / 2 => {
                    let (a, b) = s.swap_bit(v[2 * pair], v[2 * pair + 1], $bit);
                    let w = roots.several(s, (root + pair) << (last - $bit), $bit);
                    (v[2 * pair], v[2 * pair + 1]) = d.butterfly(a, b, w);
                });
            })*
        };
    }
    within!(3 2 1 0);
    unrolled!(pair < VECTORS / 2 => {
        let (a, b) = s.zip(d.canonical(v[2 * pair]), d.canonical(v[2 * pair + 1]));
        s.store(a, &mut vectors[2 * pair]);
        s.store(b, &mut vectors[2 * pair + 1]);
    });
}

impl<S: Simd, const LAZY: bool> Forward<S, LAZY> {
    #[inline(always)]
    fn canonical(self, x: S::V) -> S::V {
        let prime = self.1;
        prime.canonical(if LAZY { prime.reduce_lazy(x) } else { prime.halve(x) })
    }
}

/// The inverse of [`forward_pairs`], up to the factor and reductions.
#[inline(always)]
fn inverse_pairs<S: Simd>(s: S, d: Inverse<S>, roots: &Roots, block: &mut [u32], root: usize) {
    let (groups, rest) = S::arrays_mut(block).0.as_chunks_mut::<GROUP>();
    let after = root + groups.len() * GROUP / 2;
    for (group, vectors) in groups.iter_mut().enumerate() {
        inverse_group(s, d, roots, vectors, root + group * GROUP / 2);
    }
    for (pair, vectors) in rest.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        inverse_group(s, d, roots, vectors, after + pair);
    }
}

#[inline(always)]
fn inverse_group<S: Simd, const VECTORS: usize>(
    s: S,
    d: Inverse<S>,
    roots: &Roots,
    vectors: &mut [S::Array; VECTORS],
    root: usize,
) {
    let last = S::LANES.ilog2();
    let mut v = [s.splat(0); VECTORS];
    unrolled!(pair < VECTORS / 2 => {
        (v[2 * pair], v[2 * pair + 1]) = s.unzip(s.load(&vectors[2 * pair]), s.load(&vectors[2 * pair + 1]));
    });
    macro_rules! within {
        ($($bit:literal)*) => {
            $(if $bit < last {
                unrolled!(pair < VECTORS / 2 => {
                    let w = roots.several(s, (root + pair) << (last - $bit), $bit);
                    let (a, b) = d.butterfly(v[2 * pair], v[2 * pair + 1], w);
                    (v[2 * pair], v[2 * pair + 1]) = s.swap_bit(a, b, $bit);
                });
            })*
        };
    }
    within!(0 1 2 3);
    unrolled!(pair < VECTORS / 2 => {
        let (a, b) = d.butterfly(v[2 * pair], v[2 * pair + 1], roots.one(s, root + pair));
        s.store(a, &mut vectors[2 * pair]);
        s.store(b, &mut vectors[2 * pair + 1]);
    });
}

/// What a layer of mirrored pairs does to `a_j` and `a_(N-j)`.
trait Mirrored<S: Simd> {
    fn scalar(&self, x: u32, y: u32) -> (u32, u32);
    fn vector(&self, s: S, x: S::V, y: S::V) -> (S::V, S::V);
}

/// Applies `f` to `a[j]` and `a[N - j]` for `0 < j < N/2`.
#[inline(always)]
fn mirrored<S: Simd>(s: S, a: &mut [u32], f: impl Mirrored<S>) {
    let n = a.len();
    for j in 1..S::LANES {
        (a[j], a[n - j]) = f.scalar(a[j], a[n - j]);
    }
    let (low, high) = a.split_at_mut(n / 2);
    // high[len - j] mirrors low[j]: vectors from LANES upwards mirror those that end at len - LANES.
    let len = high.len();
    let high = S::arrays_mut(&mut high[1..len - S::LANES + 1]).0;
    for (x, y) in S::arrays_mut(&mut low[S::LANES..]).0.iter_mut().zip(high.iter_mut().rev()) {
        let (u, v) = f.vector(s, s.load(x), s.reverse(s.load(y)));
        s.store(u, x);
        s.store(s.reverse(v), y);
    }
}

/// `g_j = a_j - iota a_(N-j)`: canonical in, below `3q` out.
struct Fold<'a, S: Simd>(&'a Tables, Prime<S>, Factor<S>);

impl<S: Simd> Mirrored<S> for Fold<'_, S> {
    #[inline(always)]
    fn scalar(&self, x: u32, y: u32) -> (u32, u32) {
        let (m, iota) = (self.0.modulus, self.0.iota);
        (x + 2 * m.value() - iota.mul_lazy(m, y), y + 2 * m.value() - iota.mul_lazy(m, x))
    }

    #[inline(always)]
    fn vector(&self, s: S, x: S::V, y: S::V) -> (S::V, S::V) {
        let Fold(_, prime, iota) = *self;
        let (u, v) = (prime.mul_lazy(y, iota), prime.mul_lazy(x, iota));
        (s.add(x, s.sub(prime.twice(), u)), s.add(y, s.sub(prime.twice(), v)))
    }
}

#[inline(always)]
fn fold<S: Simd>(s: S, t: &Tables, a: &mut [u32]) {
    let fold = Fold(t, Prime::new(s, t.modulus), Factor::new(s, t.iota));
    a[t.n / 2] = fold.scalar(a[t.n / 2], a[t.n / 2]).0;
    mirrored(s, a, fold);
}

/// `a_j = (g_j + iota g_(N-j)) / 2N`: `[0, 2q)` in, canonical out.
///
/// With `e, f = (1 +- iota) / 4N`: `a_j = e (g_j + g_(N-j)) + f (g_j - g_(N-j))`, and `a_(N-j)` is the difference.
struct Unfold<'a, S: Simd>(&'a Tables, Prime<S>, [Factor<S>; 2]);

impl<S: Simd> Mirrored<S> for Unfold<'_, S> {
    #[inline(always)]
    fn scalar(&self, x: u32, y: u32) -> (u32, u32) {
        let (m, [e, f]) = (self.0.modulus, self.0.unfold);
        let sum = m.reduce(e.mul_lazy(m, x + y).into());
        let difference = m.reduce(f.mul_lazy(m, x + 2 * m.value() - y).into());
        (m.add(sum, difference), m.sub(sum, difference))
    }

    #[inline(always)]
    fn vector(&self, s: S, x: S::V, y: S::V) -> (S::V, S::V) {
        let Unfold(_, prime, [e, f]) = *self;
        let sum = prime.mul_lazy(s.add(x, y), e);
        let difference = prime.mul_lazy(s.add(x, s.sub(prime.twice(), y)), f);
        let (u, v) = (s.add(sum, difference), s.add(sum, s.sub(prime.twice(), difference)));
        (prime.canonical(prime.halve(u)), prime.canonical(prime.halve(v)))
    }
}

#[inline(always)]
fn unfold<S: Simd>(s: S, t: &Tables, a: &mut [u32]) {
    let m = t.modulus;
    let unfold = Unfold(t, Prime::new(s, m), [Factor::new(s, t.unfold[0]), Factor::new(s, t.unfold[1])]);
    a[0] = m.reduce(t.scale.mul_lazy(m, a[0]).into());
    a[t.n / 2] = unfold.scalar(a[t.n / 2], a[t.n / 2]).0;
    mirrored(s, a, unfold);
}
