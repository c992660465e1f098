//! What is done per channel, against its definition on single residues: the reference and the
//! kernels of every family.

use std::sync::Arc;

use cryptodl_core::backend::{
    Backend, Horner, Maintenance, PatersonStockmeyer, Shape, SlotwiseOp, paterson_stockmeyer, slotwise_shape,
};
use cryptodl_core::ring::{RnsBasis, ntt_primes};
use cryptodl_cpu::{Cpu, Kernels, Reference};
use proptest::prelude::*;

const N: usize = 16;

fn basis() -> Arc<RnsBasis> {
    Arc::new(RnsBasis::new(N, &ntt_primes(N, 30, 4).expect("primes of a small ring")).expect("a basis"))
}

/// A residue from what proptest draws, often the largest.
fn residue(q: u32, drawn: u32) -> u32 {
    if drawn.is_multiple_of(5) { q - 1 } else { drawn % q }
}

fn residues(basis: &RnsBasis, shape: &Shape, drawn: &[u32]) -> Vec<u32> {
    let q = |index: usize| basis.modulus(shape.limbs[index / shape.limb_len()]).value();
    (0..shape.len()).map(|index| residue(q(index), drawn[index % drawn.len()].wrapping_mul(index as u32 | 1))).collect()
}

/// Runs a test of a backend on the reference and on every family of kernels.
macro_rules! on_every_backend {
    ($basis:expr, |$backend:ident, $name:ident| $test:block) => {{
        let ($backend, $name) = (Reference::new($basis.clone()), "reference");
        $test
        for kernels in Kernels::available() {
            let ($backend, $name) = (Cpu::with_kernels($basis.clone(), kernels), kernels.name());
            $test
        }
    }};
}

/// `c_(d-1), ..., c_0` or the like of a channel, from numbers `[number][channel]`.
fn of_channel(numbers: &[i64], channels: usize, channel: usize) -> Vec<i64> {
    numbers.iter().skip(channel).step_by(channels).copied().collect()
}

fn floats(numbers: &[i64]) -> Vec<f64> {
    numbers.iter().map(|&number| number as f64).collect()
}

/// `sign (((z + c_(d-1)) z + ...) z) + c_0` modulo `q`.
fn horner(q: i128, negate: bool, constants: &[i64], z: i128) -> i128 {
    let (last, first) = constants.split_last().expect("a constant");
    let u = first.iter().skip(1).fold(z + i128::from(first[0]), |u, &c| (u * z + i128::from(c)) % q) * z;
    (if negate { -u } else { u } + i128::from(*last)).rem_euclid(q)
}

/// [`PatersonStockmeyer`] modulo `q`.
fn squares(q: i128, (negate, odd): (bool, bool), shift: i64, constants: &[i64], multiples: &[i64], z: i128) -> i128 {
    let w = z * (z + i128::from(shift)) % q;
    let mut u = if odd { z } else { w } + i128::from(constants[0]);
    for (i, (&b, &c)) in multiples.iter().zip(&constants[1..]).enumerate() {
        u = (u * w + i128::from(b) * z) % q;
        u = if negate && i + 1 == multiples.len() { -u } else { u } + i128::from(c);
    }
    u.rem_euclid(q)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Ciphertexts of one component are plain numbers, and products of them need no
    /// relinearisation.
    #[test]
    fn polynomials_take_the_constants_of_their_channel(
        (channels, positions) in (1..5usize, 1..4usize),
        degree in 2..7usize,
        signs: (bool, bool),
        numbers in prop::collection::vec(-(1i64 << 50)..1 << 50, 40),
        drawn in prop::collection::vec(any::<u32>(), 64),
    ) {
        let (basis, negate) = (basis(), signs.0);
        let values = channels * positions;
        let shape = Shape { limbs: vec![2, 0], values, components: 1, lanes: N };
        let z = residues(&basis, &shape, &drawn);
        let evaluated = |f: &dyn Fn(i128, usize, i128) -> i128| -> Vec<u32> {
            let at = |index: usize| (index / shape.limb_len(), index / N % values / positions);
            let one = |(index, &z): (usize, &u32)| {
                let (limb, channel) = at(index);
                f(basis.modulus(shape.limbs[limb]).value().into(), channel, z.into()) as u32
            };
            z.iter().enumerate().map(one).collect()
        };

        let constants = &numbers[..degree * channels];
        let polynomial = Horner::per_channel(&basis, negate, channels, &floats(constants));
        let expected = evaluated(&|q, c, z| horner(q, negate, &of_channel(constants, channels, c), z));
        let none = |products| vec![Maintenance::default(); products];
        on_every_backend!(basis, |backend, name| {
            let z = backend.upload(shape.clone(), &z).expect("memory");
            let whole = backend.activation(&polynomial, &none(degree - 1), None, &z).expect("memory");
            prop_assert_eq!(whole.residues(), &expected[..], "{}", name);
            let mut lazy = backend.zeros(shape.clone()).expect("memory");
            let op = [SlotwiseOp::Polynomial(&polynomial)];
            backend.slotwise(&op, &z, 0..5, &mut lazy).expect("memory");
            backend.slotwise(&op, &z, 5..N, &mut lazy).expect("memory");
            prop_assert_eq!(lazy.residues(), &expected[..], "{}", name);
        });

        let products = degree.max(3).div_ceil(2);
        let (shift, rest) = numbers.split_at(channels);
        let (constants, rest) = rest.split_at(products * channels);
        let multiples = &rest[..(products - 1) * channels];
        let polynomial = PatersonStockmeyer::per_channel(
            &basis, negate, signs.1, &floats(shift), &floats(constants), &floats(multiples),
        );
        let expected = evaluated(&|q, c, z| {
            let [constants, multiples] = [constants, multiples].map(|numbers| of_channel(numbers, channels, c));
            squares(q, signs, shift[c], &constants, &multiples, z)
        });
        on_every_backend!(basis, |backend, name| {
            let z = backend.upload(shape.clone(), &z).expect("memory");
            let whole = paterson_stockmeyer(&backend, &polynomial, &none(products), None, &z).expect("memory");
            prop_assert_eq!(whole.residues(), &expected[..], "{}", name);
        });
    }

    #[test]
    fn a_few_values_give_what_they_give_among_all(
        (channels, positions) in (1..5usize, 1..4usize),
        (first, count) in (0..12usize, 1..12usize),
        degree in 2..5usize,
        numbers in prop::collection::vec(-(1i64 << 50)..1 << 50, 16),
        drawn in prop::collection::vec(any::<u32>(), 64),
    ) {
        let basis = basis();
        let values = channels * positions;
        let part = first % values..(first % values + count).min(values);
        let shape = Shape { limbs: vec![0, 1, 3], values, components: 2, lanes: N };
        let (z, limbs) = (residues(&basis, &shape, &drawn), shape.limbs.len());
        let polynomial = Horner::per_channel(&basis, true, channels, &floats(&numbers[..degree * channels]));
        let lazy = vec![Maintenance::default(); degree - 1];
        // The rows of a value in each limb.
        let some = |all: &[u32]| -> Vec<u32> {
            let blocks = all.chunks_exact(all.len() / limbs);
            blocks.flat_map(|block| &block[part.start * block.len() / values..part.end * block.len() / values])
                .copied()
                .collect()
        };
        on_every_backend!(basis, |backend, name| {
            let whole = backend.upload(shape.clone(), &z).expect("memory");
            let whole = backend.activation(&polynomial, &lazy, None, &whole).expect("memory");
            let few = backend.upload(Shape { values: part.len(), ..shape.clone() }, &some(&z)).expect("memory");
            let of_values = polynomial.of_values(part.clone(), values);
            let few = backend.activation(&of_values, &lazy, None, &few).expect("memory");
            prop_assert_eq!(few.residues(), &some(whole.residues())[..], "{}", name);
        });
    }

    #[test]
    fn accumulate_adds_what_there_is(
        (channels, positions, lanes) in (1..5usize, 1..4usize, 1..40usize),
        (components, more) in (1..4usize, 0..3usize),
        limbs in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        sums in prop::sample::subsequence(vec![3, 1, 0, 2], 1..4),
        left_out in 0..4usize,
        drawn in prop::collection::vec(any::<u32>(), 64),
    ) {
        let basis = basis();
        // The operand has the limbs of the sum and all others but one, in another order.
        let limbs: Vec<usize> = limbs.into_iter().filter(|limb| sums.contains(limb) || *limb != left_out).collect();
        let values = channels * positions;
        let from = Shape { limbs, values, components, lanes };
        let to = Shape { limbs: sums, values, components: components + more, lanes };
        let x = residues(&basis, &from, &drawn);
        let before = residues(&basis, &to, &drawn[1..]);
        let factors = residues(&basis, &Shape { values: channels, components: 1, lanes: 1, ..to.clone() }, &drawn[2..]);
        let mut expected = before.clone();
        for (limb, &prime) in to.limbs.iter().enumerate() {
            let q = u64::from(basis.modulus(prime).value());
            let there = from.limbs.iter().position(|&l| l == prime).expect("the operand has every limb of the sum");
            for value in 0..values {
                let factor = u64::from(factors[limb * channels + value / positions]);
                for at in 0..components * lanes {
                    let term = factor * u64::from(x[(there * values + value) * components * lanes + at]);
                    let sum = &mut expected[(limb * values + value) * to.components * lanes + at];
                    *sum = ((u64::from(*sum) + term) % q) as u32;
                }
            }
        }
        on_every_backend!(basis, |backend, name| {
            let x = backend.upload(from.clone(), &x).expect("memory");
            let mut acc = backend.upload(to.clone(), &before).expect("memory");
            backend.accumulate(&mut acc, &x, &factors).expect("memory");
            prop_assert_eq!(acc.residues(), &expected[..], "{}", name);
        });
    }
}

fn accumulated(from: Shape, to: Shape, factors: usize) {
    let cpu = Cpu::new(basis());
    let (x, mut acc) = (cpu.zeros(from).expect("memory"), cpu.zeros(to).expect("memory"));
    cpu.accumulate(&mut acc, &x, &vec![1; factors]).expect("memory");
}

fn two_values(limbs: &[usize], components: usize) -> Shape {
    Shape { limbs: limbs.to_vec(), values: 2, components, lanes: 3 }
}

#[test]
#[should_panic(expected = "the operand has every limb")]
fn a_sum_over_a_limb_that_the_operand_lacks_panics() {
    accumulated(two_values(&[0, 2], 2), two_values(&[0, 1], 2), 2);
}

#[test]
#[should_panic(expected = "3 components to 2")]
fn an_operand_with_more_components_than_the_sum_panics() {
    accumulated(two_values(&[0], 3), two_values(&[0], 2), 1);
}

#[test]
#[should_panic(expected = "12 values in 5 channels")]
fn a_run_with_a_polynomial_for_other_channels_panics() {
    let polynomial = Horner::per_channel(&basis(), false, 5, &[1.0; 10]);
    let x = Shape { limbs: vec![0], values: 12, components: 2, lanes: 3 };
    slotwise_shape(&[SlotwiseOp::Polynomial(&polynomial)], &x);
}

#[test]
#[should_panic(expected = "2 values in 3 channels")]
fn factors_for_other_channels_panic() {
    accumulated(two_values(&[0], 2), two_values(&[0], 2), 3);
}
