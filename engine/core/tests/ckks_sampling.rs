//! The secret distributions, and the streams that they are drawn from.

use cryptodl_core::ckks::noise::ERROR_STD;
use cryptodl_core::ckks::sampling::{ERROR_ETA, SmallPolynomial};
use cryptodl_core::ckks::{Randomness, SecretStream};
use cryptodl_core::ring::Modulus;

const COUNT: usize = 1 << 20;

fn stream(seed: u64, purpose: &str) -> SecretStream {
    Randomness::insecure_from_seed_for_tests(seed, purpose).streams().stream(0)
}

fn histogram(coefficients: &[i8]) -> [usize; 43] {
    let mut histogram = [0; 43];
    coefficients.iter().for_each(|&c| histogram[(c + 21) as usize] += 1);
    histogram
}

/// `sum (observed - expected)^2 / expected` over the cells with at least five expected.
fn chi_square(observed: &[usize], share: impl Fn(usize) -> f64) -> f64 {
    let total: usize = observed.iter().sum();
    let cells = observed.iter().enumerate().map(|(i, &count)| (count as f64, share(i) * total as f64));
    cells.filter(|&(_, expected)| expected >= 5.0).map(|(count, expected)| (count - expected).powi(2) / expected).sum()
}

#[test]
fn ternary_is_uniform() {
    let sample = SmallPolynomial::ternary(COUNT, &mut stream(1, "ternary"));
    let counts = histogram(sample.coefficients());
    assert_eq!(counts[20..23].iter().sum::<usize>(), COUNT, "nothing but -1, 0 and 1");
    // Two degrees of freedom: exceeded once in 22,000 times.
    assert!(chi_square(&counts[20..23], |_| 1.0 / 3.0) < 20.0, "{counts:?}");
}

#[test]
fn error_is_centred_binomial() {
    let sample = SmallPolynomial::error(COUNT, &mut stream(1, "error"));
    let moment = |power| sample.coefficients().iter().map(|&c| f64::from(c).powi(power)).sum::<f64>() / COUNT as f64;
    assert!(moment(1).abs() < 5.0 * ERROR_STD / (COUNT as f64).sqrt(), "mean {}", moment(1));
    assert!((moment(2).sqrt() / ERROR_STD - 1.0).abs() < 0.004, "deviation {}", moment(2).sqrt());
    assert_eq!(ERROR_STD, (f64::from(ERROR_ETA) / 2.0).sqrt());
    // binomial(42, k) / 2^42, about 35 cells: exceeded less than once in 10,000 times.
    let binomial = |k: usize| (0..k).fold(0.5f64.powi(42), |share, i| share * (42 - i) as f64 / (i + 1) as f64);
    let deviation = chi_square(&histogram(sample.coefficients()), binomial);
    assert!(deviation < 75.0, "{deviation}");
}

#[test]
fn residues_are_those_of_the_coefficients() {
    let modulus = Modulus::new(12289).unwrap();
    let sample = SmallPolynomial::error(1000, &mut stream(2, "error"));
    let expected = sample.coefficients().iter().map(|&c| modulus.reduce_signed(c.into()));
    assert!(sample.residues(modulus).eq(expected));
}

fn words(stream: &mut SecretStream) -> [u64; 8] {
    let mut words = [0; 8];
    stream.fill(&mut words);
    words
}

#[test]
fn a_test_seed_repeats_and_purposes_differ() {
    assert_eq!(words(&mut stream(7, "keygen")), words(&mut stream(7, "keygen")));
    assert_ne!(words(&mut stream(7, "keygen")), words(&mut stream(7, "encrypt")));
    assert_ne!(words(&mut stream(7, "keygen")), words(&mut stream(8, "keygen")));

    let mut rng = Randomness::insecure_from_seed_for_tests(7, "keygen");
    let (first, second) = (rng.streams(), rng.streams());
    assert_ne!(words(&mut first.stream(0)), words(&mut second.stream(0)), "every family is fresh");
    assert_ne!(words(&mut first.stream(0)), words(&mut first.stream(1)), "streams of a family differ");
    assert_eq!(words(&mut first.stream(1)), words(&mut first.stream(1)), "a stream can be had again");
    assert_ne!(rng.fresh_seed().unwrap(), rng.fresh_seed().unwrap());
}

#[test]
fn the_operating_system_never_repeats() {
    let (mut one, mut other) = (Randomness::from_os().unwrap(), Randomness::from_os().unwrap());
    assert_ne!(words(&mut one.streams().stream(0)), words(&mut other.streams().stream(0)));
    assert_ne!(one.fresh_seed().unwrap(), one.fresh_seed().unwrap());
}
