//! Constants per channel: which value has which, in whole operands and in a few of their values.

use cryptodl_core::backend::{Channels, Horner, PatersonStockmeyer, Shape};
use cryptodl_core::ring::{RnsBasis, ntt_primes};
use proptest::prelude::*;

fn basis() -> RnsBasis {
    RnsBasis::new(16, &ntt_primes(16, 30, 3).expect("primes of a small ring")).expect("a basis")
}

/// Integers of either sign, some beyond 64 bits.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(-1.0), (-1e6..1e6).prop_map(f64::round), (-1e25..1e25).prop_map(f64::round)]
}

/// Channels, their positions, and the least number of integers for each that makes a polynomial.
fn shape() -> impl Strategy<Value = (usize, usize, usize)> {
    (1..6usize, 1..5usize, 2..6usize)
}

/// For every channel its own numbers, and all of them as `[number][channel]`.
fn by_channel(numbers: &[f64], channels: usize) -> Vec<Vec<f64>> {
    (0..channels).map(|channel| numbers.iter().skip(channel).step_by(channels).copied().collect()).collect()
}

/// Column `channel` of residues `[limb][channel]`.
fn column(residues: &[u32], channels: usize, channel: usize) -> Vec<u32> {
    residues.iter().skip(channel).step_by(channels).copied().collect()
}

proptest! {
    #[test]
    fn values_are_in_channel_order((channels, positions, _) in shape()) {
        let shared = Channels::new(channels, channels * positions);
        prop_assert_eq!((shared.count(), shared.positions()), (channels, positions));
        let listed: Vec<usize> = (0..channels).flat_map(|channel| vec![channel; positions]).collect();
        for (value, &channel) in listed.iter().enumerate() {
            prop_assert_eq!(shared.of_value(value), channel);
            prop_assert!(shared.values(channel).contains(&value));
            prop_assert_eq!(shared.index(2, value), 2 * channels + channel);
        }
        let x = Shape { limbs: vec![4, 0], values: channels * positions, components: 2, lanes: 3 };
        prop_assert_eq!(Channels::of(&vec![0; 2 * channels], &x), shared);
    }

    #[test]
    fn a_horner_polynomial_per_channel_is_one_for_each(
        (channels, positions, degree) in shape(),
        negate: bool,
        numbers in prop::collection::vec(number(), 25),
        part in (0..5usize, 1..5usize),
    ) {
        let (basis, limbs) = (basis(), [2, 0]);
        let numbers = &numbers[..degree * channels];
        let polynomial = Horner::per_channel(&basis, negate, channels, numbers);
        let each: Vec<Horner> =
            by_channel(numbers, channels).iter().map(|numbers| Horner::new(&basis, negate, numbers)).collect();
        prop_assert_eq!((polynomial.channels(), polynomial.degree(), polynomial.negates()), (channels, degree, negate));
        for (channel, alone) in each.iter().enumerate() {
            prop_assert_eq!(alone.channels(), 1);
            for products in 0..degree {
                let constants = column(&polynomial.constants(products, &limbs), channels, channel);
                prop_assert_eq!(&constants, &alone.constants(products, &limbs));
                let of_channel: Vec<u32> = limbs.iter().map(|&l| polynomial.of_channel(l, channel)[products]).collect();
                prop_assert_eq!(constants, of_channel);
            }
        }
        let total = channels * positions;
        let first = part.0 % total;
        let values = first..(first + part.1).min(total);
        let some = polynomial.of_values(values.clone(), total);
        if channels == 1 {
            prop_assert_eq!(some, polynomial);
        } else {
            prop_assert_eq!((some.channels(), some.degree(), some.negates()), (values.len(), degree, negate));
            for (index, value) in values.enumerate() {
                for limb in 0..basis.len() {
                    prop_assert_eq!(some.of_channel(limb, index), each[value / positions].of_channel(limb, 0));
                }
            }
        }
    }

    #[test]
    fn a_paterson_stockmeyer_polynomial_per_channel_is_one_for_each(
        (channels, positions, products) in shape(),
        (negate, odd) in any::<(bool, bool)>(),
        numbers in prop::collection::vec(number(), 60),
        part in (0..5usize, 1..5usize),
    ) {
        let (basis, limbs) = (basis(), [2, 0]);
        let (shift, rest) = numbers.split_at(channels);
        let (constants, multiples) = rest.split_at(products * channels);
        let multiples = &multiples[..(products - 1) * channels];
        let polynomial = PatersonStockmeyer::per_channel(&basis, negate, odd, shift, constants, multiples);
        let [shifts, constants, multiples] =
            [shift, constants, multiples].map(|numbers| by_channel(numbers, channels));
        let each: Vec<PatersonStockmeyer> = (0..channels)
            .map(|c| PatersonStockmeyer::new(&basis, negate, odd, shifts[c][0], &constants[c], &multiples[c]))
            .collect();
        let total = channels * positions;
        let first = part.0 % total;
        let values = first..(first + part.1).min(total);
        let some = polynomial.of_values(values.clone(), total);
        let whole = (0..channels).collect::<Vec<_>>();
        let chosen = values.clone().map(|value| value / positions).collect::<Vec<_>>();
        let chosen = if channels == 1 { whole.clone() } else { chosen };
        for (made, channels) in [(&polynomial, &whole), (&some, &chosen)] {
            prop_assert_eq!((made.channels(), made.products()), (channels.len(), products));
            prop_assert_eq!((made.is_odd(), made.negates()), (odd, negate));
            for (index, &channel) in channels.iter().enumerate() {
                let (alone, column) = (&each[channel], |all: Vec<u32>| column(&all, channels.len(), index));
                prop_assert_eq!(column(made.shift(&limbs)), alone.shift(&limbs));
                for i in 0..products {
                    prop_assert_eq!(column(made.constants(i, &limbs)), alone.constants(i, &limbs));
                }
                for i in 1..products {
                    prop_assert_eq!(column(made.multiples(i, &limbs)), alone.multiples(i, &limbs));
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "7 values in 2 channels")]
fn channels_of_different_sizes_panic() {
    Channels::new(2, 7);
}

#[test]
#[should_panic(expected = "5 constants for 2 limbs")]
fn constants_that_are_not_as_many_for_every_limb_panic() {
    Channels::of(&[0; 5], &Shape { limbs: vec![0, 1], values: 6, components: 2, lanes: 1 });
}

#[test]
#[should_panic(expected = "values 3..5 of 4")]
fn values_beyond_the_operand_panic() {
    Horner::new(&basis(), false, &[1.0, 2.0]).of_values(3..5, 4);
}

#[test]
#[should_panic(expected = "as many constants for every channel")]
fn channels_with_different_degrees_panic() {
    Horner::per_channel(&basis(), false, 2, &[1.0, 2.0, 3.0, 4.0, 5.0]);
}
