//! A wide discrete Gaussian, which drowns what a computation's noise says of the model (circuit privacy).
//!
//! A wide Gaussian is a convolution of narrow ones: where `x` and `y` are discrete Gaussians over the integers of deviation at
//! least [`BASE_STD`], `x + 2 y` is one, whose variance is that of `x` plus four times that of `y`, up to a negligible distance
//! (Micciancio and Walter, "Gaussian Sampling over the Integers: Efficient, Generic, Constant-Time", Crypto 2017, Corollary 4.1;
//! Micciancio and Peikert, "Hardness of SIS and LWE with Small Parameters", Crypto 2013, Theorem 3.3). Both ask for
//! `sqrt(2 pi) std >= sqrt(2) max(1, 2) eta`, where `eta <= sqrt(ln(2 + 2 / eps) / pi)` is the smoothing parameter of the
//! integers: 5.34 for `eps = 2^-128`. So one draw of a small table for each bit of the width is enough.

use zeroize::Zeroizing;

use super::{Params, Randomness, SecretStream};
use crate::backend::Shape;
use crate::parallel;
use crate::ring::Modulus;

/// Standard deviation of the narrow Gaussian: `sqrt(2 pi) 6.25 = 15.67 >= 2 sqrt(2) 5.34 = 15.09`.
pub const BASE_STD: f64 = 6.25;
/// Most times that the narrow Gaussian may be doubled.
pub const MAX_DOUBLINGS: u32 = 500;

/// Draws that one word of a coefficient holds: `82 (2^48 - 1) < 2^55`. Coefficient 0 holds twice as many, which stays below
/// 2^56 and so far within an `i64`.
const WORD_DRAWS: u32 = 48;

/// `2^127 P(|x| < k)` for `k = 1, 2, ...` and `x` a discrete Gaussian of deviation [`BASE_STD`], rounded down. What lies beyond the
/// table has a probability below 2^-125.
const BELOW: [u128; 82] = [
    0x082b9b43_c9072404_2e03986b_88dabcdc,
    0x184d9d98_e24238f6_a5114567_3635e349,
    0x27d409eb_202bb99c_83b40090_94d1ffb5,
    0x36641148_575cb638_2638a4ba_ea0c2b6f,
    0x43b497a7_49398823_c8751099_b635fe75,
    0x4f923a7e_7dfb78e2_676c4bc8_5fa783da,
    0x59e0e920_ee3536b0_ceb81ab6_8eb9ec74,
    0x629b1a43_ae3df053_174613a6_7ec12c0a,
    0x69ceff1d_a2880db0_2dc19b41_1b92a5d6,
    0x6f9a4fd1_87405378_7888a96d_59daf44d,
    0x742566aa_b61487ce_29a99dc4_a1ea702b,
    0x779e587a_9912e285_ac8197e5_0437cfdb,
    0x7a349715_2402825b_7142a3b5_2c675ce2,
    0x7c157a78_c795d623_1666f11a_26b8ade5,
    0x7d69d955_7a22de3c_b8c9399e_9e2ba03e,
    0x7e54ac31_8360c920_b460ab52_c900f14d,
    0x7ef2958b_0d43fba1_b1f46d0b_38baf78f,
    0x7f5a1738_49919050_37d493d9_c2fa0fc9,
    0x7f9c38b5_aa83129a_d75c0f54_599655ec,
    0x7fc567a7_f7e81afc_65242baa_00cce6d1,
    0x7fde6764_e7c575c4_0e5f9fea_5dce699a,
    0x7fed31f3_6528c081_e8fdd33a_b417f271,
    0x7ff5b9ba_eda45509_03d0bd48_e459b280,
    0x7ffa8553_468a3df1_22e36fe1_9bcbdd60,
    0x7ffd25f7_78c09e17_9520e751_88e390af,
    0x7ffe8d36_e70d7959_3738742b_f5afd94c,
    0x7fff483b_de3a08ce_d614cc36_f78eb545,
    0x7fffa721_fdeb1689_36ae96d4_482c53ab,
    0x7fffd611_efca2ae8_ed3e2ab4_71cb4949,
    0x7fffecb2_d85f7da6_378f6275_a49f4d54,
    0x7ffff755_077a97f4_207f86a8_710e8094,
    0x7ffffc33_e596e9db_31409679_7175eacc,
    0x7ffffe60_938ea90b_4982b56c_6e3caf59,
    0x7fffff52_d4c4ba02_48ba138e_392ed71a,
    0x7fffffb9_97290b79_0c3a41f9_8adbbda8,
    0x7fffffe4_13bdc86b_55bc1c26_da564cde,
    0x7ffffff5_3315e52b_8afbfba9_cf6a6118,
    0x7ffffffb_ecf51280_2fd13388_92a44886,
    0x7ffffffe_803ff0f9_e936212c_41f59928,
    0x7fffffff_764ec92d_294ea00a_6bf8a519,
    0x7fffffff_cfd1bb86_8c2e0744_cb3ec071,
    0x7fffffff_ef8f1658_956fb43c_e5204526,
    0x7fffffff_fa876a63_40e4242e_55eb0560,
    0x7fffffff_fe39831d_87b7e7d9_88392c44,
    0x7fffffff_ff702fb3_c4e31550_62ce6036,
    0x7fffffff_ffd3a017_e450ea1e_4753c4de,
    0x7fffffff_fff2a61b_5a8e78e3_dd07d2b8,
    0x7fffffff_fffc1545_1dc080aa_35995d91,
    0x7fffffff_fffee128_25ea4e5d_dd2ef026,
    0x7fffffff_ffffaffd_f2831638_5d6e7eee,
    0x7fffffff_ffffea3d_9e9cc795_0ca112c5,
    0x7fffffff_fffffa3a_e3db3ad2_e01b535a,
    0x7fffffff_fffffe82_19194e66_28a24b11,
    0x7fffffff_ffffff9f_ba8be389_53bc4bca,
    0x7fffffff_ffffffe8_56a61f97_6b599cc4,
    0x7fffffff_fffffffa_547939ed_47649252,
    0x7fffffff_fffffffe_ace02974_d43bd929,
    0x7fffffff_ffffffff_b2c0d026_0ccba46e,
    0x7fffffff_ffffffff_eed85e92_645b625e,
    0x7fffffff_ffffffff_fc49271d_3ad5e6e3,
    0x7fffffff_ffffffff_ff3749ea_68fee27a,
    0x7fffffff_ffffffff_ffd6b1da_74733fef,
    0x7fffffff_ffffffff_fff7b679_85e0a570,
    0x7fffffff_ffffffff_fffe6107_8e971634,
    0x7fffffff_ffffffff_ffffb0de_57996b59,
    0x7fffffff_ffffffff_fffff149_fd6e927b,
    0x7fffffff_ffffffff_fffffd55_748ba3e9,
    0x7fffffff_ffffffff_ffffff87_673c6d3f,
    0x7fffffff_ffffffff_ffffffeb_3a32adf8,
    0x7fffffff_ffffffff_fffffffc_8306c139,
    0x7fffffff_ffffffff_ffffffff_6dd185c0,
    0x7fffffff_ffffffff_ffffffff_e8abd5f8,
    0x7fffffff_ffffffff_ffffffff_fc5ee00b,
    0x7fffffff_ffffffff_ffffffff_ff7315bd,
    0x7fffffff_ffffffff_ffffffff_ffeb2a68,
    0x7fffffff_ffffffff_ffffffff_fffcff42,
    0x7fffffff_ffffffff_ffffffff_ffff93fc,
    0x7fffffff_ffffffff_ffffffff_fffff134,
    0x7fffffff_ffffffff_ffffffff_fffffe06,
    0x7fffffff_ffffffff_ffffffff_ffffffbe,
    0x7fffffff_ffffffff_ffffffff_fffffff7,
    0x7fffffff_ffffffff_ffffffff_fffffffe,
];

/// Standard deviation of a coefficient after `doublings` steps `y <- x + 2 y`: `6.25 sqrt((4^(doublings + 1) - 1) / 3)`.
pub fn flood_std(doublings: u32) -> f64 {
    let variances = (libm::ldexp(1.0, 2 * (doublings as i32 + 1)) - 1.0) / 3.0;
    BASE_STD * libm::sqrt(variances)
}

/// Standard deviation of every slot of a flood, in units of the integer message: `sqrt(2 N)` times [`flood_std`].
pub fn flood_slot_std(n: usize, doublings: u32) -> f64 {
    libm::sqrt(2.0 * n as f64) * flood_std(doublings)
}

/// The fewest doublings whose flood has at least the deviation `std` in every slot, none beyond [`MAX_DOUBLINGS`].
pub fn flood_doublings(n: usize, std: f64) -> Option<u32> {
    let (mut low, mut high) = (0, MAX_DOUBLINGS + 1);
    while low < high {
        let middle = (low + high) / 2;
        if flood_slot_std(n, middle) >= std { high = middle } else { low = middle + 1 }
    }
    (low <= MAX_DOUBLINGS).then_some(low)
}

/// A polynomial whose coefficients are independent wide discrete Gaussians. Time and memory access do not depend on them.
/// Coefficient 0 is the sum of two draws, so that the variance of every slot is exactly `2 N` times that of a draw and slots are
/// uncorrelated: `a_0` appears once in a slot, every other coefficient twice a cosine. Wiped on drop, and never printed.
pub struct WidePolynomial {
    n: usize,
    /// `[word][N]`, the most significant first: the value is the sum over words of `word 2^(48 later words)`.
    words: Zeroizing<Vec<i64>>,
}

impl WidePolynomial {
    /// Draws `n` coefficients.
    pub fn sample(n: usize, doublings: u32, stream: &mut SecretStream) -> Self {
        let draws = doublings + 1;
        let count = draws.div_ceil(WORD_DRAWS) as usize;
        let mut words = Zeroizing::new(vec![0i64; count * n]);
        // One coefficient more than there are, which joins coefficient 0.
        let mut random = Zeroizing::new(vec![0u64; 2 * (n + 1)]);
        for (index, word) in words.chunks_exact_mut(n).enumerate() {
            // Only the first word is not full.
            let full = (count - 1 - index) as u32 * WORD_DRAWS;
            let here = if index == 0 { draws - full } else { WORD_DRAWS };
            for _ in 0..here {
                stream.fill(&mut random);
                let (first, rest) = random.split_at(2);
                word.iter_mut().zip(rest.chunks_exact(2)).for_each(|(y, r)| *y = 2 * *y + narrow(r[0], r[1]));
                // The coefficient's own doubling is done: what is added here is doubled with it from now on.
                word[0] += narrow(first[0], first[1]);
            }
        }
        WidePolynomial { n, words }
    }

    /// Canonical residues in coefficient domain.
    pub fn residues(&self, modulus: Modulus) -> Zeroizing<Vec<u32>> {
        let step = modulus.reduce(1 << WORD_DRAWS);
        let mut out = Zeroizing::new(vec![0u32; self.n]);
        for word in self.words.chunks_exact(self.n) {
            for (sum, &word) in out.iter_mut().zip(word) {
                *sum = modulus.add(modulus.mul(*sum, step), modulus.reduce_signed(word));
            }
        }
        out
    }
}

/// One narrow draw from 128 random bits: a magnitude from 127 of them by comparing with the whole table, and a sign.
fn narrow(high: u64, low: u64) -> i64 {
    let random = u128::from(high >> 1) << 64 | u128::from(low);
    // Both are below 2^127, so that the top bit of the difference tells which is larger.
    let below: i64 = BELOW.iter().map(|&bound| (random.wrapping_sub(bound) >> 127) as i64).sum();
    let magnitude = BELOW.len() as i64 - below;
    let sign = -((high & 1) as i64);
    (magnitude ^ sign) - sign
}

/// Adds a flood to component 0 of `values` ciphertexts of `components` components: an independent [`WidePolynomial`] for every
/// value. `residues` are canonical, in evaluation domain, `[limb][value][component][N]` over the first `level` limbs. The result
/// depends on the state of `rng` and not on the number of threads. Deviation of a slot: [`flood_slot_std`].
///
/// # Panics
/// If the level is not in the chain, or `residues` are of another size.
pub fn add_flood(
    params: &Params,
    doublings: u32,
    residues: &mut [u32],
    values: usize,
    components: usize,
    level: usize,
    rng: &mut Randomness,
) {
    let n = params.n();
    assert!(level <= params.chain_len(), "level {level} of a chain of {}", params.chain_len());
    assert_eq!(residues.len(), level * values * components * n, "residues of {values} ciphertexts");
    let streams = rng.streams();
    let shape = Shape { limbs: params.chain(level), values, components, lanes: n };
    parallel::for_each(shape.values_mut(residues), |value, mut ciphertext| {
        let flood = WidePolynomial::sample(n, doublings, &mut streams.stream(value as u64));
        for (limb, ciphertext) in ciphertext.iter_mut().enumerate() {
            let table = params.basis().table(limb);
            let modulus = table.modulus();
            let mut residues = flood.residues(modulus);
            table.forward(&mut residues);
            for (c, &f) in ciphertext[..n].iter_mut().zip(&*residues) {
                *c = modulus.add(*c, f);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckks::{ParamsSpec, Randomness, SecurityLevel};

    /// `exp(-k^2 / (2 std^2))` to 192 bits after the point, as 32-bit digits from the lowest, by powers of one exponential.
    mod exact {
        pub const DIGITS: usize = 6;
        pub type Fixed = [u32; DIGITS + 1];

        pub fn multiply(a: &Fixed, b: &Fixed) -> Fixed {
            let mut sum = [0u64; 2 * DIGITS + 3];
            for (i, &x) in a.iter().enumerate() {
                for (j, &y) in b.iter().enumerate() {
                    let product = u64::from(x) * u64::from(y);
                    sum[i + j] += product & 0xffff_ffff;
                    sum[i + j + 1] += product >> 32;
                }
            }
            let mut carry = 0;
            for digit in &mut sum {
                *digit += carry;
                carry = *digit >> 32;
                *digit &= 0xffff_ffff;
            }
            std::array::from_fn(|i| sum[i + DIGITS] as u32)
        }

        pub fn over(a: &Fixed, divisor: u32) -> Fixed {
            let mut remainder = 0u64;
            let mut out = *a;
            for digit in out.iter_mut().rev() {
                let value = remainder << 32 | u64::from(*digit);
                *digit = (value / u64::from(divisor)) as u32;
                remainder = value % u64::from(divisor);
            }
            out
        }

        pub fn plus(a: &Fixed, b: &Fixed) -> Fixed {
            let mut carry = 0u64;
            std::array::from_fn(|i| {
                let sum = u64::from(a[i]) + u64::from(b[i]) + carry;
                carry = sum >> 32;
                sum as u32
            })
        }

        pub fn one() -> Fixed {
            std::array::from_fn(|i| u32::from(i == DIGITS))
        }

        /// `exp(-a)` for `a < 1`: the series of `exp(a)`, and Newton's iteration `y (2 - x y)` for its inverse.
        pub fn exp_minus(a: &Fixed) -> Fixed {
            let (mut term, mut sum) = (one(), one());
            for i in 1..60 {
                term = over(&multiply(&term, a), i);
                sum = plus(&sum, &term);
            }
            invert(&sum)
        }

        /// `1 / x` for `1 <= x < 2^31`.
        pub fn invert(x: &Fixed) -> Fixed {
            let approximate = x
                .iter()
                .rev()
                .take(3)
                .fold((0.0, 1.0), |(sum, unit), &digit| (sum + f64::from(digit) * unit, unit / 4_294_967_296.0));
            let start = 0.999_999_9 / approximate.0;
            let mut y = [0; DIGITS + 1];
            let mut rest = start;
            for digit in y.iter_mut().rev() {
                *digit = rest as u32;
                rest = (rest - f64::from(*digit)) * 4_294_967_296.0;
            }
            for _ in 0..6 {
                let product = multiply(x, &y);
                // 2 - product, in two's complement.
                let two = plus(&one(), &one());
                let complement: Fixed = std::array::from_fn(|i| !product[i]);
                let mut unit = [0; DIGITS + 1];
                unit[0] = 1;
                y = multiply(&y, &plus(&two, &plus(&complement, &unit)));
            }
            y
        }
    }

    /// The table against the exponential function computed to 192 bits.
    #[test]
    fn the_table_is_the_gaussian() {
        use exact::{exp_minus, invert, multiply, one, over, plus};
        // 1 / (2 * 6.25^2) = 8 / 625.
        let eight = (0..3).fold(one(), |x, _| plus(&x, &x));
        let unit = exp_minus(&over(&eight, 625));
        // Weights of |x| = k: exp(-k^2 / 78.125), twice where k > 0. k^2 is the sum of the first odd numbers.
        let square = multiply(&unit, &unit);
        let (mut weight, mut ratio) = (one(), unit);
        let mut weights = vec![one()];
        for _ in 0..120 {
            weight = multiply(&weight, &ratio);
            ratio = multiply(&ratio, &square);
            weights.push(plus(&weight, &weight));
        }
        let total = weights.iter().fold([0; exact::DIGITS + 1], |sum, w| plus(&sum, w));
        let scale = invert(&total);
        let mut below = [0; exact::DIGITS + 1];
        for (k, bound) in BELOW.iter().enumerate() {
            below = plus(&below, &weights[k]);
            let share = multiply(&below, &scale);
            // The 127 bits after the point.
            let found =
                share[2..exact::DIGITS].iter().rev().fold(0u128, |sum, &digit| sum << 32 | u128::from(digit)) >> 1;
            assert_eq!(found, *bound, "entry {k}");
        }
        assert!((1u128 << 127) - BELOW[81] <= 4);
    }

    #[test]
    fn narrow_draws_meet_the_table_at_its_bounds() {
        let draw = |random: u128, sign: u64| narrow((random >> 64) as u64 * 2 + sign, random as u64);
        assert_eq!(draw(0, 0), 0);
        for (k, &bound) in BELOW.iter().enumerate() {
            assert_eq!(draw(bound - 1, 0), k as i64);
            assert_eq!(draw(bound, 0), k as i64 + 1);
            assert_eq!(draw(bound, 1), -(k as i64) - 1);
        }
    }

    /// Mean, variance and fourth moment, at the base width and where the value has several words.
    #[test]
    fn moments_are_those_of_a_gaussian() {
        for doublings in [0, 1, 20, 47, 48, 130] {
            let mut rng = Randomness::insecure_from_seed_for_tests(5, "flood");
            let n = 1 << 15;
            let wide = WidePolynomial::sample(n, doublings, &mut rng.streams().stream(0));
            let value =
                |j: usize| wide.words.chunks_exact(n).fold(0.0, |sum, word| sum * 2f64.powi(48) + word[j] as f64);
            let unit = flood_std(doublings);
            let moment = |power: i32| (1..n).map(|j| (value(j) / unit).powi(power)).sum::<f64>() / (n - 1) as f64;
            assert!(moment(1).abs() < 0.025, "{doublings}: mean {}", moment(1));
            assert!((moment(2) - 1.0).abs() < 0.035, "{doublings}: variance {}", moment(2));
            assert!((moment(4) - 3.0).abs() < 0.3, "{doublings}: fourth moment {}", moment(4));
        }
    }

    /// Coefficient 0 has twice the variance of the others.
    #[test]
    fn the_first_coefficient_is_wider() {
        let mut rng = Randomness::insecure_from_seed_for_tests(6, "flood");
        let streams = rng.streams();
        let draws = 4000;
        let squares = (0..draws).map(|i| {
            let wide = WidePolynomial::sample(2, 30, &mut streams.stream(i));
            (wide.words[0] as f64 / flood_std(30)).powi(2)
        });
        let variance = squares.sum::<f64>() / draws as f64;
        assert!((variance - 2.0).abs() < 0.2, "{variance}");
    }

    /// Every residue of a value that spans three words, against the value itself.
    #[test]
    fn residues_are_those_of_the_value() {
        let mut rng = Randomness::insecure_from_seed_for_tests(7, "flood");
        let wide = WidePolynomial::sample(64, 60, &mut rng.streams().stream(0));
        let modulus = Modulus::new(998_244_353).unwrap();
        let q = i128::from(modulus.value());
        for (j, &residue) in wide.residues(modulus).iter().enumerate() {
            let value = wide.words.chunks_exact(64).fold(0i128, |sum, word| (sum << 48) + i128::from(word[j]));
            assert_eq!(i128::from(residue), value.rem_euclid(q));
        }
    }

    /// Every value of every call has a flood of its own, as wide as planned, which only component 0 gets: three values of three
    /// components, twice from one generator and once from another.
    #[test]
    fn floods_are_independent_and_only_in_component_0() {
        const DOUBLINGS: u32 = 12;
        let (n, values, components, level) = (4096, 3, 3, 2);
        let spec = ParamsSpec {
            n,
            primes: vec![998_244_353, 469_762_049],
            special_primes: Vec::new(),
            security: SecurityLevel::Bits128,
        };
        let params = spec.build_insecure_for_tests().unwrap();
        let before: Vec<u32> = (0..(level * values * components * n) as u32).map(|i| i * 1013 % 469_762_049).collect();
        let row = |residues: &[u32], limb: usize, value: usize, component: usize| {
            residues[((limb * values + value) * components + component) * n..][..n].to_vec()
        };
        let mut floods: Vec<Vec<f64>> = Vec::new();
        let mut call = |rng: &mut Randomness| {
            let mut after = before.clone();
            add_flood(&params, DOUBLINGS, &mut after, values, components, level, rng);
            for value in 0..values {
                let [first, second] = [0, 1].map(|limb| {
                    for component in 1..components {
                        let [before, after] = [&before, &after].map(|x| row(x, limb, value, component));
                        assert_eq!(before, after, "component {component} of value {value} is as it was");
                    }
                    let table = params.basis().table(limb);
                    let modulus = table.modulus();
                    let [mut flood, before] = [&after, &before].map(|x| row(x, limb, value, 0));
                    flood.iter_mut().zip(before).for_each(|(f, b)| *f = modulus.sub(*f, b));
                    table.inverse(&mut flood);
                    let q = i64::from(modulus.value());
                    flood.iter().map(|&f| i64::from(f)).map(|f| if f > q / 2 { f - q } else { f }).collect::<Vec<_>>()
                });
                assert_eq!(first, second, "every limb has the residues of one flood");
                floods.push(first.into_iter().map(|f| f as f64).collect());
            }
        };
        let mut rng = Randomness::insecure_from_seed_for_tests(8, "flood");
        call(&mut rng);
        call(&mut rng);
        call(&mut Randomness::insecure_from_seed_for_tests(9, "flood"));

        let most = 5.0 / (n as f64).sqrt();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for (i, flood) in floods.iter().enumerate() {
            let width = (dot(flood, flood) / n as f64).sqrt() / flood_std(DOUBLINGS);
            assert!((width - 1.0).abs() < most, "flood {i} is {width} times as wide as planned");
            for (j, other) in floods[..i].iter().enumerate() {
                let correlation = dot(flood, other) / (dot(flood, flood) * dot(other, other)).sqrt();
                assert!(correlation.abs() < most, "floods {j} and {i} have a correlation of {correlation}");
            }
        }
    }

    #[test]
    fn the_fewest_doublings_that_are_wide_enough() {
        for std in [1.0, 1e3, 2f64.powi(60), 1.7 * 2f64.powi(300)] {
            let doublings = flood_doublings(4096, std).unwrap();
            assert!(flood_slot_std(4096, doublings) >= std);
            assert!(doublings == 0 || flood_slot_std(4096, doublings - 1) < std);
        }
        assert_eq!(flood_doublings(4096, f64::INFINITY), None);
        assert_eq!(flood_doublings(4096, f64::NAN), None);
    }
}
