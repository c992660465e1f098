//! Every family's vectors against their definitions, lane by lane.

use cryptodl_core::ring::{Modulus, Twiddle};
use proptest::prelude::*;

use super::{Dot, Kernels, Simd, portable, with_simd};
use crate::kernels::reduce::{Factor, Prime, SumReducer};

/// A number, often at a border.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(u32::MAX), Just(1 << 31), any::<u32>()]
}

/// The same, with two halves of which each may be the least.
fn half() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0x8000_8000), Just(0x7fff_8000), word()]
}

fn words() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(word(), 16)
}

/// Odd moduli of all sizes; nothing here needs them to be prime.
fn moduli() -> impl Iterator<Item = Modulus> {
    [521, 12_289, 65_537, 8_380_417, 16_760_833, 33_292_289, 536_903_681, 1_073_692_673, (1 << 30) - 1]
        .into_iter()
        .map(|q| Modulus::new(q).expect("odd and in range"))
}

fn vector<S: Simd>(s: S, x: &[u32]) -> S::V {
    s.load(&S::arrays(&x[..S::LANES]).0[0])
}

fn lanes<S: Simd>(s: S, x: S::V) -> Vec<u32> {
    let mut array = S::Array::default();
    s.store(x, &mut array);
    array.as_ref().to_vec()
}

fn expected<S: Simd>(_: S, f: impl Fn(usize) -> u32) -> Vec<u32> {
    (0..S::LANES).map(f).collect()
}

fn arithmetic<S: Simd>(s: S, x: &[u32], y: &[u32]) {
    let (a, b) = (vector(s, x), vector(s, y));
    let wide = |i: usize| u64::from(x[i]) * u64::from(y[i]);
    assert_eq!(lanes(s, s.splat(x[3])), expected(s, |_| x[3]));
    assert_eq!(lanes(s, s.add(a, b)), expected(s, |i| x[i].wrapping_add(y[i])));
    assert_eq!(lanes(s, s.sub(a, b)), expected(s, |i| x[i].wrapping_sub(y[i])));
    assert_eq!(lanes(s, s.min(a, b)), expected(s, |i| x[i].min(y[i])));
    assert_eq!(lanes(s, s.and(a, b)), expected(s, |i| x[i] & y[i]));
    assert_eq!(lanes(s, s.xor(a, b)), expected(s, |i| x[i] ^ y[i]));
    assert_eq!(lanes(s, s.mul_low(a, b)), expected(s, |i| x[i].wrapping_mul(y[i])));
    assert_eq!(lanes(s, s.mul_high(a, b, s.odd(b))), expected(s, |i| (wide(i) >> 32) as u32));
    assert_eq!(
        lanes(s, s.mul_estimated(a, b, a, s.odd(a), b)),
        expected(s, |i| {
            let estimate = (u64::from(x[i]) * u64::from(x[i])) >> 32;
            wide(i).wrapping_sub(estimate * u64::from(y[i])) as u32
        })
    );
    let bounds: Vec<u32> = y.iter().map(|&y| y.clamp(1, 1 << 31)).collect();
    let below = |i: usize| (u64::from(x[i]) % (2 * u64::from(bounds[i]))) as u32;
    let twice: Vec<u32> = (0..x.len()).map(below).collect();
    let reduced = s.reduce_once(vector(s, &twice), vector(s, &bounds));
    assert_eq!(lanes(s, reduced), expected(s, |i| twice[i] % bounds[i]));
    for bits in [0, 1, 8, 15, 31] {
        assert_eq!(lanes(s, s.shift_left(a, bits)), expected(s, |i| x[i] << bits));
        assert_eq!(lanes(s, s.rotate_left(a, bits)), expected(s, |i| x[i].rotate_left(bits)));
        let signed = |i: usize| (x[i].cast_signed() >> bits).cast_unsigned();
        assert_eq!(lanes(s, s.shift_right_signed(a, bits)), expected(s, signed));
    }
    let sum = s.add_wide(s.mul_wide(a, b), s.mul_wide(b, a));
    let sums = |i: usize| wide(i).wrapping_mul(2);
    assert_eq!(lanes(s, s.low(sum)), expected(s, |i| sums(i) as u32));
    for bits in [1, 13, 29, 32] {
        assert_eq!(lanes(s, s.narrow(sum, bits)), expected(s, |i| (sums(i) >> bits) as u32));
    }
}

fn permutations<S: Simd>(s: S, x: &[u32], y: &[u32]) {
    let (a, b) = (vector(s, x), vector(s, y));
    assert_eq!(lanes(s, s.cycle(&[x[0], x[1]])), expected(s, |i| x[i % 2]));
    assert_eq!(lanes(s, s.cycle(&[x[0], x[1], x[2], x[3]])), expected(s, |i| x[i % 4]));
    if S::LANES >= 8 {
        let words: &[u32; 8] = x.first_chunk().expect("16 words");
        assert_eq!(lanes(s, s.cycle(words)), expected(s, |i| x[i % 8]));
    }
    if S::LANES >= 16 {
        let words: &[u32; 16] = x.first_chunk().expect("16 words");
        assert_eq!(lanes(s, s.cycle(words)), expected(s, |i| x[i]));
    }
    let (first, second) = s.zip(a, b);
    let zipped = |i: usize| if i.is_multiple_of(2) { x[i / 2] } else { y[i / 2] };
    assert_eq!(lanes(s, first), expected(s, zipped));
    assert_eq!(lanes(s, second), expected(s, |i| zipped(i + S::LANES)));
    let (first, second) = s.unzip(first, second);
    assert_eq!((lanes(s, first), lanes(s, second)), (lanes(s, a), lanes(s, b)));
    assert_eq!(lanes(s, s.reverse(a)), expected(s, |i| x[S::LANES - 1 - i]));
}

fn reductions<S: Simd>(s: S, x: &[u32], y: &[u32]) {
    for m in moduli() {
        let (prime, q) = (Prime::new(s, m), m.value());
        let reduced = |x: &[u32], below: u64| x.iter().map(|&x| (u64::from(x) % below) as u32).collect::<Vec<_>>();
        let (x, y, words) = (reduced(x, q.into()), reduced(y, q.into()), x);
        let (a, b) = (vector(s, &x), vector(s, &y));
        assert_eq!(lanes(s, prime.add(a, b)), expected(s, |i| m.add(x[i], y[i])));
        assert_eq!(lanes(s, prime.negate(a)), expected(s, |i| m.neg(x[i])));
        assert_eq!(lanes(s, prime.mul(a, b)), expected(s, |i| m.mul(x[i], y[i])));
        let two = s.add_wide(s.mul_wide(a, b), s.mul_wide(b, b));
        assert_eq!(lanes(s, prime.residue(two)), expected(s, |i| m.add(m.mul(x[i], y[i]), m.mul(y[i], y[i]))));
        let word = Factor::new(s, Twiddle::new(m, m.reduce(1 << 32)));
        let all = s.mul_wide(vector(s, words), vector(s, words));
        assert_eq!(lanes(s, prime.residue_full_range(all, word)), expected(s, |i| m.mul(words[i], words[i])));
        let factor = Twiddle::new(m, y[0]);
        let product = prime.mul_lazy(vector(s, words), Factor::new(s, factor));
        assert_eq!(lanes(s, product), expected(s, |i| factor.mul_lazy(m, words[i])));
        let lazy = lanes(s, prime.reduce_lazy(vector(s, words)));
        assert!((0..S::LANES).all(|i| lazy[i] < 2 * q && lazy[i] % q == words[i] % q));
        let four = reduced(words, 4 * u64::from(q));
        let canonical = prime.canonical(prime.halve(vector(s, &four)));
        assert_eq!(lanes(s, canonical), expected(s, |i| four[i] % q));
    }
}

/// `sum_k weights[k] x_k` for inputs that are given word by word.
fn weighted_sum<D: Dot, const PLANES: usize>(s: D, m: Modulus, inputs: &[Vec<u32>], weights: &[i16], c: u32) {
    let reducer = SumReducer::new::<D>(m);
    let mut sums = [s.splat(0); PLANES];
    for (inputs, weights) in inputs.chunks(D::TAPS).zip(weights.chunks(D::TAPS)) {
        let mut word = [s.splat(0); 4];
        (0..inputs.len()).for_each(|tap| word[tap] = vector(s, &inputs[tap]));
        let digits = s.digits(word);
        for plane in 0..PLANES {
            sums[plane] = s.dot(sums[plane], digits[plane], D::weight(weights));
        }
    }
    let residue = reducer.residue(s, sums, s.splat(reducer.offset(c)));
    let sum = |lane: usize| {
        let products = inputs.iter().zip(weights).map(|(x, &w)| i64::from(w) * i64::from(x[lane]));
        m.reduce_signed(i64::from(c) + products.sum::<i64>())
    };
    assert_eq!(lanes(s, residue), expected(s, sum), "modulo {}, {} taps", m.value(), weights.len());
}

fn dots<D: Dot>(s: D, m: Modulus, inputs: &[Vec<u32>], weights: &[i16], c: u32) {
    match D::planes(m.bits()) {
        1 => weighted_sum::<D, 1>(s, m, inputs, weights, c),
        2 => weighted_sum::<D, 2>(s, m, inputs, weights, c),
        3 => weighted_sum::<D, 3>(s, m, inputs, weights, c),
        _ => weighted_sum::<D, 4>(s, m, inputs, weights, c),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With an instruction of x86-64, and as other machines do it. The largest products alone wrap.
    #[test]
    fn products_of_halves_are_added(a in [half(), half(), half(), half()], w in half()) {
        let halves = |x: u32| [i64::from(x as i16), i64::from(x.cast_signed() >> 16)];
        let expected = a.map(|a| halves(a).iter().zip(halves(w)).map(|(a, w)| a * w).sum::<i64>() as u32);
        prop_assert_eq!(portable::Portable.dot([0; 4], a, w), expected);
        prop_assert_eq!(portable::multiply_halves_in_rust(a, [w; 4]), expected);
    }

    #[test]
    fn vectors_compute_what_they_say(x in words(), y in words()) {
        for kernels in Kernels::available() {
            with_simd!(kernels, s => {
                arithmetic(s, &x, &y);
                permutations(s, &x, &y);
                reductions(s, &x, &y);
            });
        }
    }

    #[test]
    fn weighted_sums_are_exact(
        x in prop::collection::vec(words(), 13),
        weights in prop::collection::vec(-127i16..=127, 13),
        c in word(),
    ) {
        for m in moduli() {
            let reduce = |x: &u32| x % m.value();
            let x: Vec<Vec<u32>> = x.iter().map(|x| x.iter().map(reduce).collect()).collect();
            for kernels in Kernels::available() {
                with_simd!(kernels, s => dots(s, m, &x, &weights, reduce(&c)));
            }
        }
    }
}

/// The longest sums of the largest products, of either sign, in one run of the kernel between reductions.
#[test]
fn the_largest_sums_are_exact() {
    fn largest<D: Dot>(s: D) {
        for m in moduli() {
            for x in [m.value() - 1, (1 << (m.bits() - 1)) - 1] {
                for signs in [[1, 1], [-1, -1], [1, -1]] {
                    let inputs = vec![vec![x; 16]; D::MAX_TAPS];
                    let weights: Vec<i16> = (0..D::MAX_TAPS).map(|tap| 127 * signs[tap % 2]).collect();
                    dots(s, m, &inputs, &weights, m.value() - 1);
                }
            }
        }
    }
    Kernels::available().into_iter().for_each(|kernels| with_simd!(kernels, s => largest(s)));
}

#[test]
fn families_have_names() {
    for kernels in Kernels::available() {
        assert!(Kernels::NAMES.contains(&kernels.name()));
        assert_eq!(Kernels::named(kernels.name()), Some(kernels));
    }
    assert_eq!(Kernels::named("no such kernels"), None);
    assert_eq!(Kernels::available().first(), Some(&Kernels::portable()));
}
