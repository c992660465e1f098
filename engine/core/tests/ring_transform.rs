//! The transform against its definition, the ring's product, and constants of an independent program.

use cryptodl_core::ring::{Modulus, NttTable, RnsBasis, ntt_primes};
use proptest::prelude::*;

/// Dimensions and primes: the smallest possible, odd sizes, and just below `2^30`.
fn bases() -> Vec<RnsBasis> {
    let primes = |n, bits| ntt_primes(n, bits, 1).expect("a prime")[0];
    let pairs = [(16, 7681), (16, primes(16, 30)), (32, primes(32, 17)), (64, primes(64, 30)), (128, primes(128, 30))];
    pairs.into_iter().map(|(n, q)| RnsBasis::new(n, &[q]).expect("a basis")).collect()
}

/// A basis of one prime and polynomials with coefficients that are often 0 or q - 1.
fn polynomials<const COUNT: usize>() -> impl Strategy<Value = (RnsBasis, [Vec<u32>; COUNT])> {
    prop::sample::select(bases()).prop_flat_map(|basis| {
        let q = basis.modulus(0).value();
        let coefficient = prop_oneof![1 => Just(0), 1 => Just(q - 1), 4 => 0..q];
        let polynomial = prop::collection::vec(coefficient, basis.n());
        (Just(basis), std::array::from_fn(|_| polynomial.clone()))
    })
}

/// `a_0 + sum_j a_j (x^j + x^-j)`.
fn evaluate(m: Modulus, a: &[u32], x: u32) -> u32 {
    let (mut power, mut inverse_power) = (1, 1);
    let inverse = m.inv(x);
    a[1..].iter().fold(a[0], |sum, &a| {
        (power, inverse_power) = (m.mul(power, x), m.mul(inverse_power, inverse));
        m.add(sum, m.mul(a, m.add(power, inverse_power)))
    })
}

/// The transform by its definition: index t holds the value at psi^(4 bitrev(t) + 1).
fn definition(table: &NttTable, a: &[u32]) -> Vec<u32> {
    let (m, bits) = (table.modulus(), a.len().trailing_zeros());
    let point = |t: u32| m.pow(table.psi(), 4 * (t.reverse_bits() >> (32 - bits)) + 1);
    (0..a.len() as u32).map(|t| evaluate(m, a, point(t))).collect()
}

/// The product in the ring: with `Y_j = X^j + X^-j`, `Y_i Y_j = Y_(i+j) + Y_(i-j)`, where `Y_(-j) = Y_j`, `Y_0` counts 2, and
/// `Y_(2N-j) = -Y_j` since `X^(2N) = -1`.
fn product(m: Modulus, a: &[u32], b: &[u32]) -> Vec<u32> {
    let n = a.len();
    let mut out = vec![0; n];
    let mut add = |index: usize, value: u32| match index {
        0 => out[0] = m.add(out[0], m.add(value, value)),
        j if j < n => out[j] = m.add(out[j], value),
        j if j == n => (),
        j => out[2 * n - j] = m.sub(out[2 * n - j], value),
    };
    // a_0 is half of a Y_0 term.
    let half = m.inv(2);
    let weight = |x: &[u32], j: usize| if j == 0 { m.mul(half, x[0]) } else { x[j] };
    for i in 0..n {
        for j in 0..n {
            let value = m.mul(weight(a, i), weight(b, j));
            add(i + j, value);
            add(i.abs_diff(j), value);
        }
    }
    out
}

fn forward(basis: &RnsBasis, a: &[u32]) -> Vec<u32> {
    let mut values = a.to_vec();
    basis.table(0).forward(&mut values);
    values
}

fn inverse(basis: &RnsBasis, values: &[u32]) -> Vec<u32> {
    let mut a = values.to_vec();
    basis.table(0).inverse(&mut a);
    a
}

fn pointwise(f: impl Fn(u32, u32) -> u32, a: &[u32], b: &[u32]) -> Vec<u32> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn forward_is_evaluation((basis, [a]) in polynomials()) {
        prop_assert_eq!(forward(&basis, &a), definition(basis.table(0), &a));
    }

    #[test]
    fn inverse_undoes_forward_and_forward_inverse((basis, [a]) in polynomials()) {
        prop_assert_eq!(&inverse(&basis, &forward(&basis, &a)), &a);
        prop_assert_eq!(&forward(&basis, &inverse(&basis, &a)), &a);
    }

    #[test]
    fn transforms_are_linear((basis, [a, b]) in polynomials(), c: u32) {
        let m = basis.modulus(0);
        let combine = |a: u32, b: u32| m.add(m.mul(c, a), b);
        let values = pointwise(combine, &forward(&basis, &a), &forward(&basis, &b));
        prop_assert_eq!(forward(&basis, &pointwise(combine, &a, &b)), values);
    }

    #[test]
    fn products_of_values_are_products_in_the_ring((basis, [a, b]) in polynomials()) {
        let m = basis.modulus(0);
        let values = pointwise(|a, b| m.mul(a, b), &forward(&basis, &a), &forward(&basis, &b));
        prop_assert_eq!(inverse(&basis, &values), product(m, &a, &b));
    }
}

#[test]
fn constants_transform_to_constants() {
    for basis in bases() {
        let mut a = vec![0; basis.n()];
        a[0] = 5;
        assert_eq!(forward(&basis, &a), vec![5; basis.n()]);
    }
}

/// The largest coefficients drive the lazy butterflies to the ends of their ranges; overflow traps in this profile.
#[test]
fn the_largest_coefficients_stay_in_range() {
    for n in [16, 256, 4096, 65_536] {
        for bits in [21, 30] {
            let Ok(primes) = ntt_primes(n, bits, 1) else { continue };
            let basis = RnsBasis::new(n, &primes).expect("a basis");
            let q = primes[0];
            for a in [vec![q - 1; n], (0..n as u32).map(|j| (q - 1) * (j % 2)).collect()] {
                let (values, coefficients) = (forward(&basis, &a), inverse(&basis, &a));
                assert!(values.iter().chain(&coefficients).all(|&x| x < q), "canonical at n = {n}");
                assert_eq!(inverse(&basis, &values), a);
                assert_eq!(forward(&basis, &coefficients), a);
            }
            // -(1 + sum_j Y_j) at a few points of its definition.
            let table = basis.table(0);
            let values = forward(&basis, &vec![q - 1; n]);
            for t in [0, 1, n / 2 + 1, n - 1] {
                let exponent = 4 * (t.reverse_bits() >> (usize::BITS - n.trailing_zeros())) + 1;
                let point = table.modulus().pow(table.psi(), exponent as u32);
                assert_eq!(values[t], evaluate(table.modulus(), &vec![q - 1; n], point), "n = {n}, index {t}");
            }
        }
    }
}

/// Transforms of `a_j = 3^(j+1) mod q` by a program of its own (Python, sums over the definition).
const KNOWN: [(u32, u32, &[u32]); 3] = [
    (7681, 2645, &[7665, 3404, 1350, 2504, 5739, 2137, 5969, 5282, 5542, 2418, 2075, 4644, 60, 2976, 1769, 281]),
    (
        1_073_741_441,
        882_083_833,
        &[
            46279059, 834479745, 215610385, 433561597, 269348703, 60556886, 833032788, 37856402, 762781172, 794658040,
            559846255, 60595257, 909367576, 997879146, 323374833, 376962291,
        ],
    ),
    (
        1_073_741_441,
        293_845_527,
        &[
            245093564, 575592648, 353346289, 1052557031, 1069772158, 798477792, 474751776, 439869147, 318424200,
            885570021, 791638195, 605181493, 666397428, 183393717, 73154257, 811633251, 278397458, 501133466,
            150883738, 15854351, 712480607, 579571029, 140044861, 658670940, 876102380, 255148512, 743271224,
            819640024, 871206099, 559576319, 925062896, 821707722,
        ],
    ),
];

#[test]
fn known_answers() {
    for (q, psi, values) in KNOWN {
        let basis = RnsBasis::new(values.len(), &[q]).expect("a basis");
        let m = basis.modulus(0);
        let a: Vec<u32> = (1..=values.len() as u32).map(|j| m.pow(3, j)).collect();
        assert_eq!(basis.table(0).psi(), psi);
        assert_eq!(forward(&basis, &a), values);
        assert_eq!(inverse(&basis, values), a);
    }
}
