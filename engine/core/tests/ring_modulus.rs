//! Laws of residue arithmetic, for canonical, lazy and unreduced operands.

use cryptodl_core::ring::{MAX_MODULUS_BITS, Modulus, Twiddle};
use proptest::prelude::*;

/// Primes near both borders of the allowed range, of odd sizes in between, and next to powers of two.
const PRIMES: [u32; 9] = [521, 7681, 12_289, 65_537, 8_380_417, 16_580_609, 536_903_681, 1_073_692_673, 1_073_741_789];

fn moduli() -> impl Strategy<Value = Modulus> {
    prop::sample::select(&PRIMES[..]).prop_map(|q| Modulus::new(q).expect("an allowed modulus"))
}

/// A modulus and two residues, often at the borders.
fn residues() -> impl Strategy<Value = (Modulus, u32, u32)> {
    moduli().prop_flat_map(|m| {
        let q = m.value();
        let residue = || prop_oneof![1 => Just(0), 1 => Just(1), 1 => Just(q / 2), 1 => Just(q - 1), 4 => 0..q];
        (Just(m), residue(), residue())
    })
}

/// Any number of bits, so that small and large operands are equally likely.
fn words() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(x, shift)| x >> shift)
}

proptest! {
    #[test]
    fn sums_differences_and_products((m, a, b) in residues()) {
        let (q, x, y) = (u64::from(m.value()), u64::from(a), u64::from(b));
        prop_assert_eq!(u64::from(m.add(a, b)), (x + y) % q);
        prop_assert_eq!(u64::from(m.sub(a, b)), (x + q - y) % q);
        prop_assert_eq!(u64::from(m.neg(a)), (q - x) % q);
        prop_assert_eq!(u64::from(m.mul(a, b)), x * y % q);
    }

    #[test]
    fn products_of_unreduced_words(m in moduli(), a: u32, b: u32) {
        prop_assert_eq!(u64::from(m.mul(a, b)), u64::from(a) * u64::from(b) % u64::from(m.value()));
    }

    #[test]
    fn inverses((m, a, _) in residues()) {
        prop_assert_eq!(m.mul(a, m.inv(a)), u32::from(a != 0));
    }

    #[test]
    fn powers_add_up((m, a, _) in residues(), s in 0..u32::MAX / 2, t in 0..u32::MAX / 2) {
        prop_assert_eq!(m.mul(m.pow(a, s), m.pow(a, t)), m.pow(a, s + t));
        prop_assert_eq!(m.pow(a, 1), a);
    }

    #[test]
    fn reduction_of_any_word(m in moduli(), x in words(), multiple: u32, near in -2i64..=2) {
        let q = u64::from(m.value());
        prop_assert_eq!(u64::from(m.reduce(x)), x % q);
        let x = (u64::from(multiple) * q).wrapping_add_signed(near);
        prop_assert_eq!(u64::from(m.reduce(x)), x % q);
        prop_assert_eq!(u64::from(m.reduce(u64::MAX)), u64::MAX % q);
    }

    #[test]
    fn reduction_of_signed_words(m in moduli(), x in words(), negative: bool) {
        let magnitude = (x % (1 << 62)) as i64;
        let x = if negative { -magnitude } else { magnitude };
        prop_assert_eq!(i64::from(m.reduce_signed(x)), x.rem_euclid(m.value().into()));
    }

    #[test]
    fn reduction_of_integer_floats(m in moduli(), mantissa in -(1i64 << 53)..=1 << 53, exponent in 0..70u32) {
        let exact = i128::from(mantissa) << exponent;
        let residue = m.reduce_integer_f64(mantissa as f64 * f64::from(exponent).exp2());
        prop_assert_eq!(i128::from(residue), exact.rem_euclid(m.value().into()));
    }

    #[test]
    fn centred_representatives((m, a, _) in residues()) {
        let (q, c) = (i64::from(m.value()), i64::from(m.centre(a)));
        prop_assert!(-q < 2 * c && 2 * c <= q, "{} outside (-q/2, q/2]", c);
        prop_assert_eq!(c.rem_euclid(q), i64::from(a));
    }

    #[test]
    fn lazy_products_stay_below_twice_the_modulus((m, w, _) in residues(), x: u32) {
        let lazy = Twiddle::new(m, w).mul_lazy(m, x);
        prop_assert!(lazy < 2 * m.value());
        prop_assert_eq!(m.reduce(lazy.into()), m.mul(w, x));
        prop_assert_eq!(m.mul_shoup_lazy(x, w, m.shoup(w)), lazy);
    }
}

#[test]
fn the_largest_lazy_operands() {
    for q in PRIMES {
        let m = Modulus::new(q).expect("an allowed modulus");
        for x in [q - 1, 2 * q - 1, 4 * q - 1, u32::MAX] {
            for w in [0, 1, q / 2, q - 1] {
                let lazy = Twiddle::new(m, w).mul_lazy(m, x);
                assert!(lazy < 2 * q && m.reduce(lazy.into()) == m.mul(w, x), "{x} times {w} modulo {q}");
            }
        }
    }
}

#[test]
fn moduli_out_of_range_are_refused() {
    for q in [0, 1, 2, 511, 512, 1024, (1 << MAX_MODULUS_BITS) - 2, 1 << MAX_MODULUS_BITS, u32::MAX] {
        assert_eq!(Modulus::new(q), None, "{q}");
    }
    assert_eq!(Modulus::new(8_380_417).map(Modulus::bits), Some(23));
    assert_eq!(Modulus::new((1 << 29) + 11).map(Modulus::bits), Some(30));
}

#[test]
#[should_panic(expected = "is not an integer")]
fn fractions_are_not_reduced() {
    Modulus::new(7681).expect("an allowed modulus").reduce_integer_f64(0.5);
}
