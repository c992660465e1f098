//! Rows of a client: the vectors of every family give the bits of plain Rust.

use std::sync::Arc;

use cryptodl_core::ring::{Integers, Modulus, RnsBasis, RowKernels, ScalarRows, UniformSource, ntt_primes};
use cryptodl_cpu::{Kernels, Rows};
use proptest::prelude::*;

/// Rows of one length that a test changes and reads.
struct Operands {
    integers: Integers,
    small: Vec<u32>,
    row: Vec<u32>,
    a: Vec<u32>,
    b: Vec<u32>,
}

impl Operands {
    /// With the largest values first, and then all sizes.
    fn new(modulus: Modulus, n: usize, seed: u64) -> Self {
        let q = modulus.value();
        let word = |i: usize, salt: u64| {
            let x = (i as u64 + 1).wrapping_mul(seed.wrapping_add(salt) | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            x ^ x >> 29
        };
        let residues =
            |salt| (0..n).map(|i| if i < 2 { q - 1 } else { (word(i, salt) % u64::from(q)) as u32 }).collect();
        let integer = |i: usize| match i {
            0 => (1u64 << 51) as f64,
            1 => -((1u64 << 51) as f64),
            _ => ((word(i, 3) as i64) >> (12 + i % 50)) as f64,
        };
        let integers: Vec<f64> = (0..n).map(integer).collect();
        let small = (0..n).map(|i| ((word(i, 4) % 43) as i32 - 21).cast_unsigned()).collect();
        Operands { integers: Integers::new(&integers), small, row: residues(0), a: residues(1), b: residues(2) }
    }

    /// What each operation makes of the row.
    fn results(&self, rows: &dyn RowKernels, limb: usize, factor: u32) -> Vec<(&'static str, Vec<u32>)> {
        let Operands { integers, small, row, a, b } = self;
        let source = UniformSource::from_key([7; 32]);
        let of = |operation: &dyn Fn(&mut [u32])| {
            let mut row = row.clone();
            operation(&mut row);
            row
        };
        vec![
            ("forward", of(&|row| rows.forward(limb, row))),
            ("inverse", of(&|row| rows.inverse(limb, row))),
            ("expand", of(&|row| rows.expand(&source, 5, limb, row))),
            ("signed", of(&|row| rows.signed(limb, row, small))),
            ("add_integers", of(&|row| rows.add_integers(limb, row, integers, factor))),
            ("subtract_product", of(&|row| rows.subtract_product(limb, row, a, b))),
            ("multiply_add", of(&|row| rows.multiply_add(limb, row, a, b))),
        ]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_family_gives_the_bits_of_plain_rust(log_n in 4u32..13, bits in 20u32..=30, seed: u64) {
        let n = 1usize << log_n;
        let primes = ntt_primes(n, bits, 2).expect("two primes");
        let basis = Arc::new(RnsBasis::new(n, &primes).expect("a basis"));
        let scalar = ScalarRows(basis.clone());
        for limb in 0..2 {
            let modulus = basis.modulus(limb);
            let operands = Operands::new(modulus, n, seed);
            let factor = modulus.reduce(seed);
            let expected = operands.results(&scalar, limb, factor);
            for kernels in Kernels::available() {
                let rows = Rows::with_kernels(basis.clone(), kernels);
                for ((name, expected), (_, found)) in expected.iter().zip(operands.results(&rows, limb, factor)) {
                    prop_assert!(*expected == found, "{} of {}, N = {}, {} bits", name, kernels.name(), n, bits);
                }
            }
        }
    }
}

#[test]
fn integers_are_added_exactly() {
    let (n, bits) = (16, 30);
    let basis = Arc::new(RnsBasis::new(n, &ntt_primes(n, bits, 1).expect("a prime")).expect("a basis"));
    let modulus = basis.modulus(0);
    let integers: Vec<i64> =
        (0..n as u32).map(|i| (if i % 2 == 0 { 1 } else { -1 }) * ((1i64 << 51) >> (3 * i))).collect();
    let numbers: Vec<f64> = integers.iter().map(|&x| x as f64).collect();
    let mut row = vec![modulus.value() - 1; n];
    ScalarRows(basis).add_integers(0, &mut row, &Integers::new(&numbers), 12_345);
    for (&x, &found) in integers.iter().zip(&row) {
        let expected = (i128::from(x) * 12_345 - 1).rem_euclid(i128::from(modulus.value()));
        assert_eq!(i128::from(found), expected, "{x}");
    }
}
