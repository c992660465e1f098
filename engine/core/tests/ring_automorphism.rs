//! Automorphisms against their definition on coefficients, and digits of residues against their sum.

use cryptodl_core::ring::{Automorphism, MAX_PARTS, PrimeDigit, RnsBasis, ntt_primes};
use proptest::prelude::*;

fn basis(n: usize) -> RnsBasis {
    RnsBasis::new(n, &ntt_primes(n, 30, 1).expect("a prime")).expect("a basis")
}

/// A dimension, an element that is allowed in it, and a polynomial.
fn automorphisms() -> impl Strategy<Value = (Automorphism, Vec<u32>)> {
    prop::sample::select(vec![16usize, 32, 128]).prop_flat_map(|n| {
        let q = basis(n).modulus(0).value();
        let automorphism = (0..n as u32).prop_map(move |k| Automorphism::new(n, 4 * k + 1).expect("1 modulo 4"));
        (automorphism, prop::collection::vec(0..q, n))
    })
}

/// The image of coefficients by the definition.
fn image(automorphism: Automorphism, a: &[u32], q: u32) -> Vec<u32> {
    let mut out = vec![0; a.len()];
    for (j, &a) in a.iter().enumerate() {
        let (to, negative) = automorphism.coefficient(j);
        out[to] = if negative && a > 0 { q - a } else { a };
    }
    out
}

proptest! {
    #[test]
    fn lanes_move_as_coefficients_do((automorphism, a) in automorphisms()) {
        let basis = basis(automorphism.n());
        let (table, q) = (basis.table(0), basis.modulus(0).value());
        let mut expected = image(automorphism, &a, q);
        table.forward(&mut expected);
        let mut values = a;
        table.forward(&mut values);
        let moved: Vec<u32> = (0..values.len()).map(|lane| values[automorphism.source(lane)]).collect();
        prop_assert_eq!(moved, expected);
    }

    #[test]
    fn automorphisms_form_a_group((first, a) in automorphisms(), exponent in 0usize..40) {
        let n = first.n();
        let second = Automorphism::power(n, 5, exponent);
        let both = first.then(second);
        prop_assert_eq!(both, second.then(first));
        prop_assert_eq!(first.then(first.inverse()).element(), 1);
        prop_assert_eq!(Automorphism::power(n, 5, n).element(), 1);
        let q = basis(n).modulus(0).value();
        prop_assert_eq!(image(both, &a, q), image(second, &image(first, &a, q), q));
        // The lane that arrives by both is the first's lane of the second's.
        for lane in 0..n {
            prop_assert_eq!(both.source(lane), first.source(second.source(lane)));
        }
    }

    #[test]
    fn digits_add_up_to_the_centred_residue(
        bits in prop::sample::select(vec![13u32, 17, 22, 28, 30]),
        parts in 1..=MAX_PARTS,
        residue in any::<u32>(),
        special in 0usize..5,
    ) {
        let q = ntt_primes(16, bits, 1).expect("a prime")[0];
        let residue = [0, 1, q - 1, q / 2, q / 2 + 1].get(special).copied().unwrap_or(residue % q);
        let modulus = RnsBasis::new(16, &[q]).expect("a basis").modulus(0);
        let centred = i64::from(residue) - if residue > q / 2 { i64::from(q) } else { 0 };
        let mut sum = 0;
        for part in 0..parts {
            let digit = PrimeDigit::new(modulus, part, parts);
            let (d, half) = (i64::from(digit.of(residue)), 1i64 << (digit.width() - 1));
            let bounded = if digit.is_last() { d.abs() <= half + 1 } else { (-half..half).contains(&d) };
            prop_assert!(bounded);
            sum += d << digit.shift();
        }
        prop_assert_eq!(sum, centred);
    }
}

#[test]
fn only_elements_that_are_1_modulo_4_are_automorphisms() {
    for (n, element) in [(16, 3), (16, 0), (16, 65), (16, 2), (24, 5), (1, 1)] {
        assert_eq!(Automorphism::new(n, element), None, "{element} in dimension {n}");
    }
    assert_eq!(Automorphism::new(16, 61).map(Automorphism::element), Some(61));
}
