//! The transform of the conjugate-invariant ring (see `cryptodl_core::ring::NttTable` for what it computes) in few sweeps over
//! the polynomial: folding with the first layer ([`Fold`]), several layers at a time in registers ([`pass`]), and the last ones
//! of a block, also those within vectors, without leaving the registers ([`forward_block`]). The inverse goes the other way.
//!
//! Between layers the forward transform holds values in `[0, 4q)`, the inverse in `[0, 2q)`. Primes of at most 26 bits leave
//! room for all layers of the forward transform after the first to add up without any reduction: each adds `2q` to the bound, so
//! that 15 of them reach `34q < 2^32`.

use cryptodl_core::ring::{MAX_DIMENSION, Modulus, NttTable, Twiddle};

use super::reduce::{Factor, Prime};
use crate::memory::Memory;
use crate::simd::{Kernel, Simd, unrolled};

/// Tables of one prime in the order of use.
#[derive(Debug)]
pub(crate) struct Tables {
    /// For dimensions of less than two blocks of [`least_block`].
    scalar: NttTable,
    n: usize,
    modulus: Modulus,
    forward: RootTable,
    inverse: RootTable,
    iota: Twiddle,
    /// `w (1 - iota)`, with `w` the first layer's root: what folding and that layer make of `a_(N/2)`.
    fold_centre: Twiddle,
    /// `(1 + iota) / 4N` and `(1 - iota) / 4N`.
    unfold: [Twiddle; 2],
    /// `1 / N` and `1 / (N w (1 - iota))`, which give `a_0` and `a_(N/2)`.
    unfold_ends: [Twiddle; 2],
}

/// Roots of one direction: `twiddles` of the same index, at the start of a line of the cache, so that those of neighbouring
/// blocks load as vectors that never lie across two lines.
#[derive(Debug)]
struct RootTable {
    factors: Memory,
    companions: Memory,
}

/// A [`RootTable`] in use.
#[derive(Clone, Copy)]
struct Roots<'a> {
    factors: &'a [u32],
    companions: &'a [u32],
}

/// Largest prime that needs no reductions between layers.
const LAZY_BITS: u32 = 26;

// From 4q after the first layer, 2q for each of the others. Sums that large are too rare for tests to meet.
const _: () = assert!((4 + 2 * (MAX_DIMENSION.ilog2() as u64 - 1)) << LAZY_BITS <= 1 << 32);

impl Tables {
    pub(crate) fn new(table: &NttTable) -> Self {
        let (m, n, iota) = (table.modulus(), table.modulus().reduce(table.n() as u64), table.iota().factor);
        let centre = m.mul(table.forward_twiddles()[1].factor, m.sub(1, iota));
        let over = |x: u32, y: u32| Twiddle::new(m, m.mul(x, m.inv(m.mul(y, n))));
        Tables {
            scalar: table.clone(),
            n: table.n(),
            modulus: m,
            forward: RootTable::new(table.forward_twiddles()),
            inverse: RootTable::new(table.inverse_twiddles()),
            iota: table.iota(),
            fold_centre: Twiddle::new(m, centre),
            unfold: [over(m.add(1, iota), 4), over(m.sub(1, iota), 4)],
            unfold_ends: [over(1, 1), over(1, centre)],
        }
    }
}

impl RootTable {
    fn new(twiddles: &[Twiddle]) -> Self {
        let words = |f: fn(&Twiddle) -> u32| {
            let mut words = Memory::zeros(twiddles.len()).expect("memory for the roots of one prime");
            words.iter_mut().zip(twiddles).for_each(|(word, twiddle)| *word = f(twiddle));
            words
        };
        RootTable { factors: words(|w| w.factor), companions: words(|w| w.companion) }
    }

    fn roots(&self) -> Roots<'_> {
        Roots { factors: &self.factors, companions: &self.companions }
    }
}

impl<'a> Roots<'a> {
    /// `count` groups of `BLOCKS` roots, from group number `first` of the table on.
    #[inline(always)]
    fn of<const BLOCKS: usize>(self, first: usize, count: usize) -> Blocks<'a, BLOCKS> {
        let words = |words: &'a [u32]| words[first * BLOCKS..][..count * BLOCKS].as_chunks().0;
        Blocks { factors: words(self.factors), companions: words(self.companions) }
    }
}

/// Roots of one layer, in groups of `BLOCKS`.
#[derive(Clone, Copy)]
struct Blocks<'a, const BLOCKS: usize> {
    factors: &'a [[u32; BLOCKS]],
    companions: &'a [[u32; BLOCKS]],
}

impl<const BLOCKS: usize> Blocks<'_, BLOCKS> {
    /// Root `block` of a group in every lane.
    #[inline(always)]
    fn one<S: Simd>(self, s: S, group: usize, block: usize) -> Factor<S> {
        Factor::in_pairs(s.splat(self.factors[group][block]), s.splat(self.companions[group][block]))
    }

    /// Root `j % BLOCKS` of a group in lane `j`; `BLOCKS` is even.
    #[inline(always)]
    fn cycle<S: Simd>(self, s: S, group: usize) -> Factor<S> {
        Factor::by_lane(s, s.cycle(&self.factors[group]), s.cycle(&self.companions[group]))
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
    if t.n < 2 * least_block::<S>() {
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
    if t.n < 2 * least_block::<S>() {
        return t.scalar.inverse(a);
    }
    let (direction, roots) = (Inverse(s, Prime::new(s, t.modulus)), t.inverse.roots());
    let (half, least, passes) = (t.n / 2, least_block::<S>(), Passes::new::<S>(t.n));
    let (wide, deep) = passes.split();
    let len = half >> wide;
    for (i, a) in a.chunks_exact_mut(half).enumerate() {
        for (start, block) in (t.n + i * half..).step_by(len).zip(a.chunks_exact_mut(len)) {
            let mut size = least;
            for (i, part) in block.chunks_exact_mut(size).enumerate() {
                inverse_block(s, direction, roots, part, start / size + i);
            }
            for &layers in deep.iter().rev() {
                size <<= layers;
                for (i, part) in block.chunks_exact_mut(size).enumerate() {
                    up(s, direction, layers, roots, part, start / size + i);
                }
            }
        }
        up(s, direction, wide, roots, a, 2 + i);
    }
    unfold(s, t, a);
}

/// All layers but the first, which [`fold`] has computed.
#[inline(always)]
fn forward_layers<S: Simd, const LAZY: bool>(s: S, t: &Tables, a: &mut [u32]) {
    let (direction, roots) = (Forward::<S, LAZY>(s, Prime::new(s, t.modulus)), t.forward.roots());
    let (half, least, passes) = (t.n / 2, least_block::<S>(), Passes::new::<S>(t.n));
    let (wide, deep) = passes.split();
    let len = half >> wide;
    for (i, a) in a.chunks_exact_mut(half).enumerate() {
        down(s, direction, wide, roots, a, 2 + i);
        // Then blocks are finished one by one, so that large transforms stay in the first-level cache. The root of the block of
        // `size` residues that starts at `at` is number `(N + at) / size`.
        for (start, block) in (t.n + i * half..).step_by(len).zip(a.chunks_exact_mut(len)) {
            let mut size = len;
            for &layers in deep {
                for (i, part) in block.chunks_exact_mut(size).enumerate() {
                    down(s, direction, layers, roots, part, start / size + i);
                }
                size >>= layers;
            }
            for (i, part) in block.chunks_exact_mut(least).enumerate() {
                forward_block(s, direction, roots, part, start / least + i);
            }
        }
    }
}

/// Residues of the blocks whose layers are all computed in registers.
const fn least_block<S: Simd>() -> usize {
    S::LANES << S::LAST_LAYERS
}

/// How the layers between the first one and those in registers are cut into passes, the largest blocks first.
struct Passes {
    layers: [u32; 8],
    count: usize,
}

impl Passes {
    #[inline(always)]
    fn new<S: Simd>(n: usize) -> Self {
        let all = (n / (2 * least_block::<S>())).ilog2();
        let count = all.div_ceil(S::LAYERS);
        let mut layers = [0; 8];
        for pass in 0..count {
            layers[pass as usize] = (pass + 1) * all / count - pass * all / count;
        }
        Passes { layers, count: count as usize }
    }

    /// Layers of the first pass, none if there is none, and of the others.
    #[inline(always)]
    fn split(&self) -> (u32, &[u32]) {
        (self.layers[0], &self.layers[self.count.min(1)..self.count])
    }
}

/// `layers` layers of a block whose first root is `root`, from the widest.
#[inline(always)]
fn down<S: Simd>(s: S, d: impl Direction<S>, layers: u32, roots: Roots<'_>, block: &mut [u32], root: usize) {
    match layers {
        0 => {}
        1 => pass::<S, _, 2, true>(s, d, roots, block, root),
        2 => pass::<S, _, 4, true>(s, d, roots, block, root),
        3 => pass::<S, _, 8, true>(s, d, roots, block, root),
        _ => pass::<S, _, 16, true>(s, d, roots, block, root),
    }
}

/// [`down`], from the narrowest.
#[inline(always)]
fn up<S: Simd>(s: S, d: impl Direction<S>, layers: u32, roots: Roots<'_>, block: &mut [u32], root: usize) {
    match layers {
        0 => {}
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
    roots: Roots<'_>,
    block: &mut [u32],
    root: usize,
) {
    let block = S::arrays_mut(block).0;
    let stripe = block.len() / VECTORS;
    let roots = LayerRoots::new::<VECTORS>(roots, root);
    for column in 0..stripe {
        let mut v = [s.splat(0); VECTORS];
        unrolled!(k < VECTORS => { v[k] = s.load(&block[k * stripe + column]); });
        if DOWN {
            roots.down(s, d, &mut v);
        } else {
            roots.up(s, d, &mut v);
        }
        unrolled!(k < VECTORS => { s.store(v[k], &mut block[k * stripe + column]); });
    }
}

/// Roots of up to four layers, the widest first.
#[derive(Clone, Copy)]
struct LayerRoots<'a>(Blocks<'a, 1>, Blocks<'a, 2>, Blocks<'a, 4>, Blocks<'a, 8>);

impl<'a> LayerRoots<'a> {
    /// Those of a block of `VECTORS` vectors (or stripes) whose first root is `root`.
    #[inline(always)]
    fn new<const VECTORS: usize>(roots: Roots<'a>, root: usize) -> Self {
        let groups = |blocks: usize| usize::from(2 * blocks <= VECTORS);
        LayerRoots(
            roots.of(root, groups(1)),
            roots.of(root, groups(2)),
            roots.of(root, groups(4)),
            roots.of(root, groups(8)),
        )
    }

    #[inline(always)]
    fn down<S: Simd, D: Direction<S>, const VECTORS: usize>(self, s: S, d: D, v: &mut [S::V; VECTORS]) {
        layer(s, d, self.0, v);
        layer(s, d, self.1, v);
        layer(s, d, self.2, v);
        layer(s, d, self.3, v);
    }

    #[inline(always)]
    fn up<S: Simd, D: Direction<S>, const VECTORS: usize>(self, s: S, d: D, v: &mut [S::V; VECTORS]) {
        layer(s, d, self.3, v);
        layer(s, d, self.2, v);
        layer(s, d, self.1, v);
        layer(s, d, self.0, v);
    }
}

/// Butterflies between the halves of each of `BLOCKS` blocks of vectors, nothing if a block has no halves.
#[inline(always)]
fn layer<S: Simd, D: Direction<S>, const VECTORS: usize, const BLOCKS: usize>(
    s: S,
    d: D,
    roots: Blocks<'_, BLOCKS>,
    v: &mut [S::V; VECTORS],
) {
    if 2 * BLOCKS > VECTORS {
        return;
    }
    let half = VECTORS / (2 * BLOCKS);
    unrolled!(block < BLOCKS => {
        let w = roots.one(s, 0, block);
        unrolled!(k < VECTORS / (2 * BLOCKS) => {
            let x = 2 * half * block + k;
            (v[x], v[x + half]) = d.butterfly(v[x], v[x + half], w);
        });
    });
}

/// The last layers of a block of [`least_block`] residues, and the reduction to canonical values.
#[inline(always)]
fn forward_block<S: Simd, const LAZY: bool>(
    s: S,
    d: Forward<S, LAZY>,
    roots: Roots<'_>,
    block: &mut [u32],
    root: usize,
) {
    match S::LAST_LAYERS {
        2 => forward_in_registers::<S, LAZY, 4>(s, d, roots, block, root),
        _ => forward_in_registers::<S, LAZY, 16>(s, d, roots, block, root),
    }
}

#[inline(always)]
fn forward_in_registers<S: Simd, const LAZY: bool, const VECTORS: usize>(
    s: S,
    d: Forward<S, LAZY>,
    roots: Roots<'_>,
    block: &mut [u32],
    root: usize,
) {
    let block: &mut [S::Array; VECTORS] = S::arrays_mut(block).0.try_into().expect("a whole block");
    let pairs = VECTORS / 2;
    let mut v = [s.splat(0); VECTORS];
    unrolled!(k < VECTORS => { v[k] = s.load(&block[k]); });
    LayerRoots::new::<VECTORS>(roots, root).down(s, d, &mut v);
    // Zipping turns the bits of the index: the highest one of the lane goes to the choice of vector, and that which the
    // butterflies have just used goes to the lowest place. So neighbouring lanes use neighbouring roots, again and again, and
    // the zip after the last layer restores the order.
    macro_rules! within {
        ($($blocks:literal)*) => {
            $(if $blocks <= S::LANES {
                let cycles = roots.of::<$blocks>(root * pairs, pairs);
                unrolled!(i < VECTORS / 2 => {
                    let (a, b) = s.zip(v[2 * i], v[2 * i + 1]);
                    (v[2 * i], v[2 * i + 1]) = d.butterfly(a, b, cycles.cycle(s, i));
                });
            })*
        };
    }
    within!(2 4 8 16);
    unrolled!(i < VECTORS / 2 => {
        let (a, b) = s.zip(d.canonical(v[2 * i]), d.canonical(v[2 * i + 1]));
        s.store(a, &mut block[2 * i]);
        s.store(b, &mut block[2 * i + 1]);
    });
}

impl<S: Simd, const LAZY: bool> Forward<S, LAZY> {
    #[inline(always)]
    fn canonical(self, x: S::V) -> S::V {
        let prime = self.1;
        prime.canonical(if LAZY { prime.reduce_lazy(x) } else { prime.halve(x) })
    }
}

/// The inverse of [`forward_block`], up to the factor and reductions.
#[inline(always)]
fn inverse_block<S: Simd>(s: S, d: Inverse<S>, roots: Roots<'_>, block: &mut [u32], root: usize) {
    match S::LAST_LAYERS {
        2 => inverse_in_registers::<S, 4>(s, d, roots, block, root),
        _ => inverse_in_registers::<S, 16>(s, d, roots, block, root),
    }
}

#[inline(always)]
fn inverse_in_registers<S: Simd, const VECTORS: usize>(
    s: S,
    d: Inverse<S>,
    roots: Roots<'_>,
    block: &mut [u32],
    root: usize,
) {
    let block: &mut [S::Array; VECTORS] = S::arrays_mut(block).0.try_into().expect("a whole block");
    let pairs = VECTORS / 2;
    let mut v = [s.splat(0); VECTORS];
    unrolled!(k < VECTORS => { v[k] = s.load(&block[k]); });
    macro_rules! within {
        ($($blocks:literal)*) => {
            $(if $blocks <= S::LANES {
                let cycles = roots.of::<$blocks>(root * pairs, pairs);
                unrolled!(i < VECTORS / 2 => {
                    let (a, b) = s.unzip(v[2 * i], v[2 * i + 1]);
                    (v[2 * i], v[2 * i + 1]) = d.butterfly(a, b, cycles.cycle(s, i));
                });
            })*
        };
    }
    within!(16 8 4 2);
    unrolled!(i < VECTORS / 2 => { (v[2 * i], v[2 * i + 1]) = s.unzip(v[2 * i], v[2 * i + 1]); });
    LayerRoots::new::<VECTORS>(roots, root).up(s, d, &mut v);
    unrolled!(k < VECTORS => { s.store(v[k], &mut block[k]); });
}

/// What a layer does to `a_j`, `a_(N/2-j)`, `a_(N/2+j)` and `a_(N-j)`.
trait Mirrored<S: Simd> {
    fn compute(&self, x: [S::V; 4]) -> [S::V; 4];
}

/// Applies `f` to all lanes, `0 < j <= N/4`.
#[inline(always)]
fn mirrored<S: Simd>(s: S, a: &mut [u32], f: impl Mirrored<S>) {
    let n = a.len();
    // What mirrors the first vectors does not lie together.
    let places = |j: usize| [j, n / 2 - j, n / 2 + j, n - j];
    let mut lanes = [S::Array::default(); 4];
    for j in 1..S::LANES {
        (0..4).for_each(|k| lanes[k].as_mut()[j] = a[places(j)[k]]);
    }
    // The least lane of the first vectors is free for the middle one.
    (0..4).for_each(|k| lanes[k].as_mut()[0] = a[places(n / 4)[k]]);
    let x = f.compute([s.load(&lanes[0]), s.load(&lanes[1]), s.load(&lanes[2]), s.load(&lanes[3])]);
    unrolled!(k < 4 => { s.store(x[k], &mut lanes[k]); });
    for j in 1..S::LANES {
        (0..4).for_each(|k| a[places(j)[k]] = lanes[k].as_ref()[j]);
    }
    (0..4).for_each(|k| a[places(n / 4)[k]] = lanes[k].as_ref()[0]);

    let (low, high) = a.split_at_mut(n / 2);
    let ((a, b), (c, d)) = (low.split_at_mut(n / 4), high.split_at_mut(n / 4));
    // b[n/4 - j] mirrors a[j], as d does c: vectors from LANES upwards mirror those that end at n/4 - LANES.
    let (a, c) = (S::arrays_mut(&mut a[S::LANES..]).0, S::arrays_mut(&mut c[S::LANES..]).0);
    let end = n / 4 - S::LANES + 1;
    let (b, d) = (S::arrays_mut(&mut b[1..end]).0, S::arrays_mut(&mut d[1..end]).0);
    for ((a, b), (c, d)) in a.iter_mut().zip(b.iter_mut().rev()).zip(c.iter_mut().zip(d.iter_mut().rev())) {
        let x = f.compute([s.load(a), s.reverse(s.load(b)), s.load(c), s.reverse(s.load(d))]);
        s.store(x[0], a);
        s.store(s.reverse(x[1]), b);
        s.store(x[2], c);
        s.store(s.reverse(x[3]), d);
    }
}

/// Folding, `g_j = a_j - iota a_(N-j)`, and the first layer: canonical in, `[0, 4q)` out.
struct Fold<S: Simd> {
    first: Forward<S, false>,
    root: Factor<S>,
    iota: Factor<S>,
}

impl<S: Simd> Fold<S> {
    /// `x - iota y`, below `3q`.
    #[inline(always)]
    fn fold(&self, x: S::V, y: S::V) -> S::V {
        let Forward(s, prime) = self.first;
        s.add(x, s.sub(prime.twice(), prime.mul_lazy(y, self.iota)))
    }
}

impl<S: Simd> Mirrored<S> for Fold<S> {
    #[inline(always)]
    fn compute(&self, [a, b, c, d]: [S::V; 4]) -> [S::V; 4] {
        let (x, z) = self.first.butterfly(self.fold(a, d), self.fold(c, b), self.root);
        let (y, t) = self.first.butterfly(self.fold(b, c), self.fold(d, a), self.root);
        [x, y, z, t]
    }
}

#[inline(always)]
fn fold<S: Simd>(s: S, t: &Tables, a: &mut [u32]) {
    let (m, prime) = (t.modulus, Prime::new(s, t.modulus));
    let centre = t.fold_centre.mul_lazy(m, a[t.n / 2]);
    (a[0], a[t.n / 2]) = (a[0] + centre, a[0] + 2 * m.value() - centre);
    let root = t.forward.roots().of::<1>(1, 1).one(s, 0, 0);
    mirrored(s, a, Fold { first: Forward(s, prime), root, iota: Factor::new(s, t.iota) });
}

/// The last layer and unfolding, `a_j = (g_j + iota g_(N-j)) / 2N`: `[0, 2q)` in, canonical out.
struct Unfold<S: Simd> {
    last: Inverse<S>,
    root: Factor<S>,
    factors: [Factor<S>; 2],
}

impl<S: Simd> Unfold<S> {
    /// `x + iota y` and `y + iota x`, divided by `2N`.
    ///
    /// With `e, f = (1 +- iota) / 4N` they are `e (x + y) +- f (x - y)`.
    #[inline(always)]
    fn unfold(&self, x: S::V, y: S::V) -> (S::V, S::V) {
        let (Inverse(s, prime), [e, f]) = (self.last, self.factors);
        let sum = prime.mul_lazy(s.add(x, y), e);
        let difference = prime.mul_lazy(s.add(x, s.sub(prime.twice(), y)), f);
        let (u, v) = (s.add(sum, difference), s.add(sum, s.sub(prime.twice(), difference)));
        (prime.canonical(prime.halve(u)), prime.canonical(prime.halve(v)))
    }
}

impl<S: Simd> Mirrored<S> for Unfold<S> {
    #[inline(always)]
    fn compute(&self, [a, b, c, d]: [S::V; 4]) -> [S::V; 4] {
        let ((a, c), (b, d)) = (self.last.butterfly(a, c, self.root), self.last.butterfly(b, d, self.root));
        let ((a, d), (b, c)) = (self.unfold(a, d), self.unfold(b, c));
        [a, b, c, d]
    }
}

#[inline(always)]
fn unfold<S: Simd>(s: S, t: &Tables, a: &mut [u32]) {
    let (m, prime) = (t.modulus, Prime::new(s, t.modulus));
    let (x, y) = (a[0], a[t.n / 2]);
    let ends = [t.unfold_ends[0].mul_lazy(m, x + y), t.unfold_ends[1].mul_lazy(m, x + 2 * m.value() - y)];
    let root = t.inverse.roots().of::<1>(1, 1).one(s, 0, 0);
    let factors = [Factor::new(s, t.unfold[0]), Factor::new(s, t.unfold[1])];
    mirrored(s, a, Unfold { last: Inverse(s, prime), root, factors });
    [a[0], a[t.n / 2]] = ends.map(|x| m.reduce(x.into()));
}
