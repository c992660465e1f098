//! Rows of residues, lane by lane.

use std::ops::Range;

use cryptodl_core::ring::{Modulus, PrimeDigit, Twiddle};

use super::reduce::{Factor, Prime};
use crate::simd::{Kernel, Simd, unrolled};

/// A copy of fewer than `LANES` residues as one vector, padded with zeros.
fn padded<S: Simd>(x: &[u32]) -> S::Array {
    let mut array = S::Array::default();
    array.as_mut()[..x.len()].copy_from_slice(x);
    array
}

/// Kernels that replace each vector of a row `$x`, given those of other rows `$y`, by an expression. The last vector may be
/// short.
macro_rules! lane_by_lane {
    ($(#[$about:meta])* $name:ident($x:ident $(, $y:ident)*) { $($field:ident: $type:ty),* }
        |$s:ident, $prime:ident| => $result:expr
    ) => {
        $(#[$about])*
        pub(crate) struct $name<'a> {
            pub(crate) modulus: Modulus,
            pub(crate) $x: &'a mut [u32],
            $(pub(crate) $y: &'a [u32],)*
            $(pub(crate) $field: $type,)*
        }

        impl<S: Simd> Kernel<S> for $name<'_> {
            type Output = ();

            #[inline(always)]
            fn compute(self, $s: S) {
                let $name { modulus, $x: row, $($y,)* $($field,)* } = self;
                let $prime = Prime::new($s, modulus);
                $(let $field = <$type as Constant<S>>::vector($field, $s);)*
                $(let $y = S::arrays($y);)*
                let (whole, rest) = S::arrays_mut(row);
                for index in 0..whole.len() {
                    let $x = $s.load(&whole[index]);
                    $(let $y = $s.load(&$y.0[index]);)*
                    $s.store($result, &mut whole[index]);
                }
                if !rest.is_empty() {
                    let mut last = padded::<S>(rest);
                    let $x = $s.load(&last);
                    $(let $y = $s.load(&padded::<S>($y.1));)*
                    $s.store($result, &mut last);
                    rest.copy_from_slice(&last.as_ref()[..rest.len()]);
                }
            }
        }
    };
}

/// A constant that kernels hold in registers.
trait Constant<S: Simd> {
    type InRegisters;
    fn vector(self, s: S) -> Self::InRegisters;
}

impl<S: Simd> Constant<S> for u32 {
    type InRegisters = S::V;
    #[inline(always)]
    fn vector(self, s: S) -> S::V {
        s.splat(self)
    }
}

impl<S: Simd> Constant<S> for Twiddle {
    type InRegisters = Factor<S>;
    #[inline(always)]
    fn vector(self, s: S) -> Factor<S> {
        Factor::new(s, self)
    }
}

lane_by_lane! {
    /// `x + constant`.
    AddConstant(x) { constant: u32 } |s, prime| => prime.add(x, constant)
}
lane_by_lane! {
    /// `x factor`.
    Scale(x) { factor: Twiddle } |s, prime| => prime.canonical(prime.mul_lazy(x, factor))
}
lane_by_lane! {
    /// `-x`.
    Negate(x) {} |s, prime| => prime.negate(x)
}
lane_by_lane! {
    /// `x + y`.
    Add(x, y) {} |s, prime| => prime.add(x, y)
}
lane_by_lane! {
    /// `(x - y) factor`. The product takes any u32, so the difference stays unreduced.
    SubtractScale(x, y) { factor: Twiddle } |s, prime| =>
        prime.canonical(prime.mul_lazy(s.add(x, s.sub(prime.twice(), y)), factor))
}
lane_by_lane! {
    /// `sums + x factor`: below 3q before its reduction.
    AddScaled(sums, x) { factor: Twiddle } |s, prime| =>
        prime.canonical(prime.halve(s.add(sums, prime.mul_lazy(x, factor))))
}
lane_by_lane! {
    /// `sums + a b`.
    AddProduct(sums, a, b) {} |s, prime| => prime.add(sums, prime.mul(a, b))
}
lane_by_lane! {
    /// `x - a b`.
    SubtractProduct(x, a, b) {} |s, prime| => prime.add(x, prime.negate(prime.mul(a, b)))
}
lane_by_lane! {
    /// `x a + b`.
    MultiplyAdd(x, a, b) {} |s, prime| => prime.add(prime.mul(x, a), b)
}
lane_by_lane! {
    /// The residue of `integer`, in two's complement and of a magnitude below that of the prime, in place.
    Signed(integer) {} |s, prime| => prime.signed(integer)
}
lane_by_lane! {
    /// `x + low low_factor + high high_factor + constant`, where `low` and `high` are any words: below 5q before the last
    /// reduction but one.
    AddWords(x, low, high) { low_factor: Twiddle, high_factor: Twiddle, constant: u32 } |s, prime| => {
        let product = prime.halve(s.add(prime.mul_lazy(low, low_factor), prime.mul_lazy(high, high_factor)));
        prime.canonical(prime.halve(s.add(product, prime.add(x, constant))))
    }
}

/// A digit of every residue of `x`, reduced modulo another prime.
pub(crate) struct ReducedDigit<'a> {
    pub(crate) digit: PrimeDigit,
    pub(crate) modulus: Modulus,
    pub(crate) x: &'a [u32],
    pub(crate) out: &'a mut [u32],
}

/// What [`ReducedDigit`] needs of its primes, in every lane.
#[derive(Clone, Copy)]
struct Cut<S: Simd> {
    digit: PrimeDigit,
    q: S::V,
    half: S::V,
    offset: S::V,
    low: S::V,
    bias: S::V,
    prime: S::V,
}

impl<S: Simd> Cut<S> {
    #[inline(always)]
    fn new(s: S, digit: PrimeDigit, modulus: Modulus) -> Self {
        let (q, width) = (digit.prime(), digit.width());
        Cut {
            digit,
            q: s.splat(q),
            half: s.splat(q / 2),
            offset: s.splat(digit.offset()),
            low: s.splat((1 << width) - 1),
            bias: s.splat(1 << (width - 1)),
            prime: s.splat(modulus.value()),
        }
    }

    /// Not a closure, which would not be compiled for the processor's vectors.
    #[inline(always)]
    fn reduced(self, s: S, x: S::V) -> S::V {
        let above = s.shift_right_signed(s.sub(self.half, x), 31);
        let centred = s.sub(x, s.and(self.q, above));
        let shifted = s.shift_right_signed(s.add(centred, self.offset), self.digit.shift());
        let digit = if self.digit.is_last() { shifted } else { s.sub(s.and(shifted, self.low), self.bias) };
        // Below zero, a digit is large as an unsigned number, and smaller with the prime.
        s.min(digit, s.add(digit, self.prime))
    }
}

impl<S: Simd> Kernel<S> for ReducedDigit<'_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: S) {
        let cut = Cut::new(s, self.digit, self.modulus);
        let ((whole, rest), (x, x_rest)) = (S::arrays_mut(self.out), S::arrays(self.x));
        for (out, x) in whole.iter_mut().zip(x) {
            s.store(cut.reduced(s, s.load(x)), out);
        }
        if !rest.is_empty() {
            let mut last = S::Array::default();
            s.store(cut.reduced(s, s.load(&padded::<S>(x_rest))), &mut last);
            rest.copy_from_slice(&last.as_ref()[..rest.len()]);
        }
    }
}

/// `out[lane] = x[sources[lane]]`.
pub(crate) struct Permute<'a> {
    pub(crate) sources: &'a [u32],
    pub(crate) x: &'a [u32],
    pub(crate) out: &'a mut [u32],
}

impl<S: Simd> Kernel<S> for Permute<'_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: S) {
        let ((whole, rest), (sources, last)) = (S::arrays_mut(self.out), S::arrays(self.sources));
        for (out, sources) in whole.iter_mut().zip(sources) {
            s.store(s.gather(self.x, sources), out);
        }
        for (out, &source) in rest.iter_mut().zip(last) {
            *out = self.x[source as usize];
        }
    }
}

/// `out = sum_g digits[g] keys[g]`, plus `x factor` if there is a start; whole vectors.
pub(crate) struct InnerProduct<'a, 'r> {
    pub(crate) modulus: Modulus,
    pub(crate) start: Option<(&'a [u32], Twiddle)>,
    pub(crate) digits: &'a [&'r [u32]],
    pub(crate) keys: &'a [&'r [u32]],
    pub(crate) out: &'a mut [u32],
}

/// Products of residues below `2^30` whose sum stays below `2^64`.
const MAX_PRODUCTS: usize = 16;

impl<S: Simd> Kernel<S> for InnerProduct<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: S) {
        let InnerProduct { modulus: m, start, digits, keys, out } = self;
        let prime = Prime::new(s, m);
        let word = Factor::new(s, Twiddle::new(m, m.reduce(1 << 32)));
        for (vector, out) in S::arrays_mut(out).0.iter_mut().enumerate() {
            let first = vector * S::LANES;
            let mut sum = match start {
                Some((x, factor)) => prime.canonical(prime.mul_lazy(load(s, &x[first..]), Factor::new(s, factor))),
                None => s.splat(0),
            };
            for (digits, keys) in digits.chunks(MAX_PRODUCTS).zip(keys.chunks(MAX_PRODUCTS)) {
                let mut products = s.mul_wide(s.splat(0), s.splat(0));
                for (digit, key) in digits.iter().zip(keys) {
                    let product = s.mul_wide(load(s, &digit[first..]), load(s, &key[first..]));
                    products = s.add_wide(products, product);
                }
                sum = prime.add(sum, prime.residue_full_range(products, word));
            }
            s.store(sum, out);
        }
    }
}

/// A product of ciphertexts: `a` and `b` hold components of `lanes` residues; component `t` of `out`, which has room for all,
/// becomes `sum_(i+j=t) a_i b_j`.
pub(crate) struct Multiply<'a> {
    pub(crate) modulus: Modulus,
    pub(crate) lanes: usize,
    pub(crate) a: &'a [u32],
    pub(crate) b: &'a [u32],
    pub(crate) out: &'a mut [u32],
}

impl<S: Simd> Kernel<S> for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: S) {
        let Multiply { modulus: m, lanes, a, b, out } = self;
        let prime = Prime::new(s, m);
        let components = (a.len() / lanes, b.len() / lanes);
        let whole = lanes / S::LANES * S::LANES;
        for first in (0..whole).step_by(S::LANES) {
            product(s, prime, components, lanes, &a[first..], &b[first..], &mut out[first..]);
        }
        for lane in whole..lanes {
            for t in 0..components.0 + components.1 - 1 {
                let terms = (t + 1).saturating_sub(components.1)..(t + 1).min(components.0);
                let product = |i: usize| m.mul(a[i * lanes + lane], b[(t - i) * lanes + lane]);
                out[t * lanes + lane] = terms.fold(0, |sum, i| m.add(sum, product(i)));
            }
        }
    }
}

/// The product of ciphertexts on the first vector of lanes of each component; component `i` is `i * stride` residues further
/// on.
#[inline(always)]
fn product<S: Simd>(
    s: S,
    prime: Prime<S>,
    components: (usize, usize),
    stride: usize,
    a: &[u32],
    b: &[u32],
    out: &mut [u32],
) {
    macro_rules! by_size {
        ($(($left:literal, $right:literal))*) => {
            match components {
                $(($left, $right) => product_in_registers::<S, $left, $right>(s, prime, stride, a, b, out),)*
                (left, right) => {
                    for t in 0..left + right - 1 {
                        let terms = (t + 1).saturating_sub(right)..(t + 1).min(left);
                        store(s, sum_of_products(s, prime, (a, b), stride, t, terms), &mut out[t * stride..]);
                    }
                }
            }
        };
    }
    by_size! { (2, 2) (3, 2) (4, 2) (5, 2) }
}

#[inline(always)]
fn product_in_registers<S: Simd, const LEFT: usize, const RIGHT: usize>(
    s: S,
    prime: Prime<S>,
    stride: usize,
    a: &[u32],
    b: &[u32],
    out: &mut [u32],
) {
    let (mut x, mut y) = ([s.splat(0); LEFT], [s.splat(0); RIGHT]);
    unrolled!(i < LEFT => { x[i] = load(s, &a[i * stride..]); });
    unrolled!(i < RIGHT => { y[i] = load(s, &b[i * stride..]); });
    unrolled!(t < LEFT + RIGHT - 1 => {
        // Pairs of products are reduced together.
        let mut sum = s.splat(0);
        let mut waiting = s.mul_wide(sum, sum);
        let mut count = 0;
        unrolled!(i < LEFT => {
            if i <= t && t - i < RIGHT {
                let next = s.mul_wide(x[i], y[t - i]);
                waiting = if count % 2 == 0 { next } else { s.add_wide(waiting, next) };
                count += 1;
                if count % 2 == 0 {
                    let residue = prime.residue(waiting);
                    sum = if count == 2 { residue } else { prime.add(sum, residue) };
                }
            }
        });
        if count % 2 == 1 {
            let residue = prime.residue(waiting);
            sum = if count == 1 { residue } else { prime.add(sum, residue) };
        }
        store(s, sum, &mut out[t * stride..]);
    });
}

/// The vector at the start of `x`.
#[inline(always)]
fn load<S: Simd>(s: S, x: &[u32]) -> S::V {
    s.load(&S::arrays(&x[..S::LANES]).0[0])
}

/// `sum a_i b_(t-i)` over a range of `i`, canonical, where component `i` of the first lanes of an operand is `i * stride`
/// further on. Two products are added before they are reduced.
#[inline(always)]
fn sum_of_products<S: Simd>(
    s: S,
    prime: Prime<S>,
    (a, b): (&[u32], &[u32]),
    stride: usize,
    t: usize,
    terms: Range<usize>,
) -> S::V {
    let mut sum = s.splat(0);
    let mut i = terms.start;
    while i < terms.end {
        let mut product = s.mul_wide(load(s, &a[i * stride..]), load(s, &b[(t - i) * stride..]));
        if i + 1 < terms.end {
            let next = s.mul_wide(load(s, &a[(i + 1) * stride..]), load(s, &b[(t - i - 1) * stride..]));
            product = s.add_wide(product, next);
        }
        let residue = prime.residue(product);
        sum = if i == terms.start { residue } else { prime.add(sum, residue) };
        i += 2;
    }
    sum
}

/// An activation on the first vector of lanes of each component: component `i` of `z` and of the result `out` is `i * stride`
/// residues further on. `constants` are `c_(d-1), ..., c_0` and follow the sign. `factor` has room
/// for the result.
#[inline(always)]
pub(crate) fn evaluate<S: Simd>(
    s: S,
    prime: Prime<S>,
    (negate, constants): (bool, &[u32]),
    stride: usize,
    z: &[u32],
    factor: &mut [u32],
    out: &mut [u32],
) {
    let components = z.len().div_ceil(stride);
    if components == 2 {
        match *constants {
            [a, b] => return evaluate_in_registers(s, prime, (negate, [a, b]), stride, z, out),
            [a, b, c] => return evaluate_in_registers(s, prime, (negate, [a, b, c]), stride, z, out),
            [a, b, c, d] => return evaluate_in_registers(s, prime, (negate, [a, b, c, d]), stride, z, out),
            _ => (),
        }
    }
    for i in 0..components {
        store(s, load(s, &z[i * stride..]), &mut out[i * stride..]);
    }
    let mut held = components;
    for (step, &constant) in constants.iter().enumerate() {
        if step > 0 {
            for i in 0..held {
                store(s, load(s, &out[i * stride..]), &mut factor[i * stride..]);
            }
            product(s, prime, (held, components), stride, factor, z, out);
            held += components - 1;
        }
        if negate && step + 1 == constants.len() {
            for i in 0..held {
                store(s, prime.negate(load(s, &out[i * stride..])), &mut out[i * stride..]);
            }
        }
        store(s, prime.add(load(s, out), s.splat(constant)), out);
    }
}

/// [`evaluate`] of fresh ciphertexts, of two components: the product with `(z_0, z_1)` adds one component at a time.
#[inline(always)]
fn evaluate_in_registers<S: Simd, const DEGREE: usize>(
    s: S,
    prime: Prime<S>,
    (negate, constants): (bool, [u32; DEGREE]),
    stride: usize,
    z: &[u32],
    out: &mut [u32],
) {
    let z = [load(s, z), load(s, &z[stride..])];
    let mut u = [s.splat(0); 17];
    (u[0], u[1]) = (prime.add(z[0], s.splat(constants[0])), z[1]);
    unrolled!(step < DEGREE => {
        if step > 0 {
            // From the highest component down, so that none is overwritten before its last use.
            unrolled!(down < step + 2 => {
                let t = step + 1 - down;
                let products = if t == 0 {
                    s.mul_wide(u[0], z[0])
                } else if t == step + 1 {
                    s.mul_wide(u[t - 1], z[1])
                } else {
                    s.add_wide(s.mul_wide(u[t], z[0]), s.mul_wide(u[t - 1], z[1]))
                };
                u[t] = prime.residue(products);
            });
            if negate && step + 1 == DEGREE {
                unrolled!(t < DEGREE + 1 => { u[t] = prime.negate(u[t]); });
            }
            u[0] = prime.add(u[0], s.splat(constants[step]));
        }
    });
    unrolled!(t < DEGREE + 1 => { store(s, u[t], &mut out[t * stride..]); });
}

/// Writes the vector at the start of `to`.
#[inline(always)]
fn store<S: Simd>(s: S, x: S::V, to: &mut [u32]) {
    s.store(x, &mut S::arrays_mut(&mut to[..S::LANES]).0[0]);
}
