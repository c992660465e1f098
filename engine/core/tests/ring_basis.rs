//! Primes, chains and exact conversions between their subsets.

use cryptodl_core::ring::{MAX_DIMENSION, MAX_MODULI, RingError, RnsBasis, is_prime, ntt_primes};
use proptest::prelude::*;

const N: usize = 64;

fn basis() -> RnsBasis {
    let mut primes = ntt_primes(N, 30, 4).expect("primes");
    primes.insert(1, ntt_primes(N, 13, 1).expect("a small prime")[0]);
    primes.insert(3, ntt_primes(N, 24, 1).expect("a prime")[0]);
    RnsBasis::new(N, &primes).expect("a basis")
}

#[test]
fn primality_agrees_with_trial_division() {
    let by_division = |n: u32| n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    for n in (0..5000).chain(1_073_740_000..1_073_741_824) {
        assert_eq!(is_prime(n), by_division(n), "{n}");
    }
    // Strong pseudoprimes to some of the bases, and the first to all.
    for composite in [2047, 3_215_031_751, 25_326_001, 1_373_653, 4_294_967_295] {
        assert!(!is_prime(composite), "{composite}");
    }
}

#[test]
fn ntt_primes_are_the_largest_in_order() {
    // By trial division in another language.
    assert_eq!(ntt_primes(1024, 30, 4).unwrap(), [1073692673, 1073668097, 1073655809, 1073651713]);
    assert_eq!(ntt_primes(8192, 30, 4).unwrap(), [1073643521, 1073479681, 1073184769, 1073053697]);
    assert_eq!(ntt_primes(65_536, 30, 4).unwrap(), [1073479681, 1068236801, 1062469633, 1056440321]);
    assert_eq!(ntt_primes(8192, 24, 4).unwrap(), [16580609, 16515073, 16384001, 16121857]);
    for (n, bits, available) in [(65_536, 30, 211), (8192, 24, 36), (8192, 30, 1583)] {
        let primes = ntt_primes(n, bits, available).unwrap();
        assert!(primes.iter().all(|&q| q as usize % (4 * n) == 1 && is_prime(q) && q >> (bits - 1) == 1));
        assert!(primes.is_sorted_by(|a, b| a > b));
        let error = RingError::TooFewPrimes { n, bits, wanted: available + 1, found: available };
        assert_eq!(ntt_primes(n, bits, available + 1), Err(error));
    }
}

#[test]
fn impossible_searches_are_refused() {
    for n in [0, 1, 8, 48, 2 * MAX_DIMENSION] {
        assert_eq!(ntt_primes(n, 30, 1), Err(RingError::Dimension { n }));
    }
    for bits in [0, 11, 31, 64] {
        assert_eq!(ntt_primes(N, bits, 1), Err(RingError::PrimeBits { bits }));
    }
    let error = RingError::TooFewPrimes { n: 65_536, bits: 12, wanted: 1, found: 0 };
    assert_eq!(ntt_primes(65_536, 12, 1), Err(error));
}

#[test]
fn unusable_chains_are_refused() {
    let refused = |n, primes: &[u32]| RnsBasis::new(n, primes).expect_err("a chain that must be refused");
    let [q, r] = ntt_primes(N, 30, 2).unwrap()[..] else { unreachable!() };
    assert_eq!(refused(48, &[q]), RingError::Dimension { n: 48 });
    assert_eq!(refused(N, &[]), RingError::ModulusCount { count: 0 });
    let many = ntt_primes(N, 30, MAX_MODULI + 1).unwrap();
    assert_eq!(refused(N, &many), RingError::ModulusCount { count: MAX_MODULI + 1 });
    assert_eq!(refused(N, &[q, r, q]), RingError::RepeatedPrime { q });
    // Composite, but 1 modulo 4N; prime, but not 1 modulo 4N; prime and 1 modulo 4N, but too large or too small.
    for bad in [257 * 257, 1_073_741_789, 0, 1, 257, 1_073_748_737, 4_294_962_689, u32::MAX] {
        assert_eq!(refused(N, &[q, bad]), RingError::NotNttPrime { q: bad, n: N }, "{bad}");
    }
}

#[test]
fn products_of_primes() {
    let basis = basis();
    let exact: f64 = basis.primes()[1..4].iter().map(|&q| f64::from(q)).product();
    assert!((basis.log2_product(1..4) - exact.log2()).abs() < 1e-9);
    let q = u128::from(basis.primes()[0]);
    let product: u128 = [1, 2, 4].iter().map(|&i: &usize| u128::from(basis.primes()[i])).product();
    assert_eq!(u128::from(basis.product_mod(&[1, 2, 4], 0)), product % q);
    assert_eq!(basis.product_mod(&[1, 0], 0), 0);
}

/// One to four distinct limbs in any order, and an integer in `(-D/2, D/2]` of their product, often near a border.
fn centred() -> impl Strategy<Value = (Vec<usize>, i128)> {
    let limbs = prop::sample::subsequence((0..6).collect::<Vec<_>>(), 1..=4).prop_shuffle();
    (limbs, any::<u128>(), 0..4).prop_map(|(limbs, random, kind)| {
        let half = limbs.iter().map(|&i| i128::from(basis().primes()[i])).product::<i128>() / 2;
        let near = (random % 3) as i128;
        let x = match kind {
            0 => half - near,
            1 => near - half,
            2 => near - 1,
            _ => (random % (2 * half as u128 + 1)) as i128 - half,
        };
        (limbs, x)
    })
}

proptest! {
    #[test]
    fn conversion_is_exact_and_centred((from, x) in centred()) {
        let basis = basis();
        let residue = |i: usize| x.rem_euclid(basis.primes()[i].into()) as u32;
        let to: Vec<usize> = (0..basis.len()).collect();
        let converter = basis.centred_converter(&from, &to);
        let residues: Vec<u32> = from.iter().map(|&i| residue(i)).collect();
        let mut digits = vec![0; from.len()];
        converter.digits(&residues, &mut digits);
        for (&digit, &i) in digits.iter().zip(&from) {
            prop_assert!(digit.unsigned_abs() <= basis.primes()[i] / 2);
        }
        for (target, &i) in to.iter().enumerate() {
            prop_assert_eq!(converter.residue(&digits, target), residue(i), "limb {} of {}", i, x);
        }
        let error = (converter.to_f64(&digits) - x as f64).abs();
        prop_assert!(error <= x.unsigned_abs() as f64 * 4.0 * f64::EPSILON);
    }

    #[test]
    fn conversion_does_not_depend_on_the_order((from, x) in centred(), turn in 0..4usize) {
        let basis = basis();
        let convert = |from: &[usize]| -> Vec<u32> {
            let converter = basis.centred_converter(from, &[0, 1, 2, 3, 4, 5]);
            let residues: Vec<u32> =
                from.iter().map(|&i| x.rem_euclid(basis.primes()[i].into()) as u32).collect();
            let mut digits = vec![0; from.len()];
            converter.digits(&residues, &mut digits);
            (0..6).map(|target| converter.residue(&digits, target)).collect()
        };
        let mut turned = from.clone();
        turned.rotate_left(turn % from.len());
        prop_assert_eq!(convert(&turned), convert(&from));
        turned.reverse();
        prop_assert_eq!(convert(&turned), convert(&from));
    }
}
