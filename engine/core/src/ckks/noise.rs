//! The noise estimator: standard deviations over slots, in units of the integer message (value times scale).
//!
//! docs/scheme.md, "Noise", derives every formula. An element with independent coefficients of
//! variance `v` has the variance `v (1 + 4 (N-1) / 2) = (2N - 1) v` in every slot, since slot k is
//! `a_0 + 2 sum_j a_j cos(...)`. The square roots in comments below take `2N - 1` for `2N`.

use super::MAX_COMPONENTS;

/// Standard deviation of the error distribution, the centred binomial with eta = 21: `sqrt(21 / 2)`.
pub const ERROR_STD: f64 = 3.240_370_349_203_93;

/// Variance of a rounding to the nearest integer.
const ROUNDING: f64 = 1.0 / 12.0;

/// Standard deviations of the worst slot of a ternary secret that is reckoned with: `|s_k| <= 4.5
/// sqrt(4N/3)`. A slot exceeds this with a probability of 6.8e-6.
const SECRET_BOUND: f64 = 4.5;

/// A noise in integer units: `rms` over all slots, `worst` over the slots of the worst place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Root mean square over slots.
    pub rms: f64,
    /// Standard deviation at the slot where it is largest.
    pub worst: f64,
    /// Variance at a slot as a polynomial in `S = s_k^2 / E[s_k^2]`, where `s_k` is the secret at that slot: entry `t` belongs to
    /// `S^t`. A slot of a ternary secret is nearly normal, so `S` has the chi-squared distribution with one degree of freedom.
    pub by_secret: [f64; MAX_COMPONENTS],
}

/// A node of a quadrature over slots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotNode {
    /// `S` as in [`Noise::by_secret`].
    pub secret: f64,
    /// The share of slots for which it stands.
    pub weight: f64,
}

/// The positive nodes of a Gauss and Hermite quadrature of 16 points: a mean over slots is
/// `sum_j w_j f(S_j)`, exact for polynomials in `S` up to degree 15.
///
/// Nodes and weights: Abramowitz and Stegun, Table 25.10, there for the weight `exp(-x^2)`; here `S = 2 x^2`, and the weights add up
/// to one.
pub const SLOTS: [SlotNode; 8] = [
    SlotNode { secret: 0.149_583_765_193_636_56, weight: 0.573_137_042_476_024 },
    SlotNode { secret: 1.354_498_175_298_578_3, weight: 0.316_676_745_501_899_4 },
    SlotNode { secret: 3.810_227_270_062_856_3, weight: 0.094_569_504_708_028_12 },
    SlotNode { secret: 7.618_952_722_969_813, weight: 0.014_533_875_202_369_5 },
    SlotNode { secret: 12.966_290_857_254_343, weight: 0.001_051_969_853_147_82 },
    SlotNode { secret: 20.186_647_350_442_684, weight: 3.060_006_432_497_464e-5 },
    SlotNode { secret: 29.945_254_176_852_79, weight: 2.618_946_432_573_634e-7 },
    SlotNode { secret: 43.968_545_681_925_306, weight: 2.995_629_446_323_682_6e-10 },
];

impl Noise {
    /// Noise with the same deviation at every slot.
    pub fn even(rms: f64) -> Self {
        let mut by_secret = [0.0; MAX_COMPONENTS];
        by_secret[0] = rms * rms;
        Noise { rms, worst: rms, by_secret }
    }

    /// The sum of independent noises.
    pub fn plus(self, other: Noise) -> Self {
        let mut by_secret = self.by_secret;
        by_secret.iter_mut().zip(other.by_secret).for_each(|(sum, other)| *sum += other);
        Noise { rms: libm::hypot(self.rms, other.rms), worst: libm::hypot(self.worst, other.worst), by_secret }
    }

    /// The noise times a factor.
    pub fn times(self, factor: f64) -> Self {
        let by_secret = self.by_secret.map(|variance| variance * factor * factor);
        Noise { rms: self.rms * factor, worst: self.worst * factor, by_secret }
    }

    /// Variance at slots where the secret has `s_k^2 = S E[s_k^2]`.
    pub fn variance_at(&self, secret: f64) -> f64 {
        self.by_secret.iter().rev().fold(0.0, |sum, variance| sum * secret + variance)
    }
}

fn slots(n: usize, coefficient_variance: f64) -> f64 {
    libm::sqrt((2 * n - 1) as f64 * coefficient_variance)
}

/// Standard deviation of a slot of a uniform ternary secret, `sqrt(4N/3)`.
fn secret_slot(n: usize) -> f64 {
    slots(n, 2.0 / 3.0)
}

/// Fresh secret-key ciphertext: `sigma sqrt(2N)`, with the encoder's rounding.
pub fn fresh_secret(n: usize) -> Noise {
    Noise::even(slots(n, ERROR_STD * ERROR_STD + ROUNDING))
}

/// Fresh public-key ciphertext, encrypted over `Q P` and divided by `P` of `log_p` bits: the division's rounding
/// `N sqrt(2/9)`, the encoder's, and the encryption's noise over `P`.
pub fn fresh_public(n: usize, log_p: f64) -> Noise {
    let rounding = divide(n, 2);
    let encryption = public_key_zero(n).times(libm::exp2(-log_p));
    rounding.plus(encryption).plus(Noise::even(slots(n, ROUNDING)))
}

/// Encryption of zero with the public key, `b u + e, a u + e'`: `e_pk u + e + e' s`.
pub fn public_key_zero(n: usize) -> Noise {
    rerandomise(n, 2)
}

/// An exact division of `components` components by a dropped modulus, as for a rescale: rounding of component t times `s^t`,
/// `sqrt(N/6) sqrt((2t-1)!!) (4N/3)^(t/2)`; the worst slot has `|s_k|` at its bound.
pub fn divide(n: usize, components: usize) -> Noise {
    let rounding = slots(n, ROUNDING);
    let powers = (0..components).map(|t| secret_power(n, t).times(rounding));
    powers.fold(Noise::even(0.0), Noise::plus)
}

/// Root mean square and bound over slots of `|s_k|^t`.
fn secret_power(n: usize, t: usize) -> Noise {
    let double_factorial: f64 = (1..=t).map(|i| (2 * i - 1) as f64).product();
    let power = libm::pow(secret_slot(n), t as f64);
    let mut by_secret = [0.0; MAX_COMPONENTS];
    by_secret[t] = power * power;
    let (rms, worst) = (power * libm::sqrt(double_factorial), power * libm::pow(SECRET_BOUND, t as f64));
    Noise { rms, worst, by_secret }
}

/// Relinearisation with `digits` digits of at most `log_digit` bits and special product of `log_p` bits, before the division
/// by `P`'s own rounding ([`divide`]): `sigma N sqrt(L/3) D / P`.
pub fn relinearise(n: usize, digits: usize, log_digit: f64, log_p: f64) -> Noise {
    let digit = slots(n, libm::exp2(2.0 * log_digit) / 12.0);
    let error = slots(n, ERROR_STD * ERROR_STD);
    Noise::even(digit * error * libm::sqrt(digits as f64) * libm::exp2(-log_p))
}

/// `depth` rotations one after the other, 0 or more and a mean over ciphertexts: a key switch and its division each
/// ([`relinearise`], [`divide`]).
///
/// Only the last division meets the slot's own secret. Those before it met the secret of other slots, which are all over the ring.
pub fn rotations(n: usize, depth: f64, digits: usize, log_digit: f64, log_p: f64) -> Noise {
    if depth == 0.0 {
        return Noise::even(0.0);
    }
    let (switch, division) = (relinearise(n, digits, log_digit, log_p), divide(n, 2));
    let before = Noise::even(libm::hypot(switch.rms, division.rms)).times(libm::sqrt((depth - 1.0).max(0.0)));
    before.plus(switch.plus(division).times(libm::sqrt(depth.min(1.0))))
}

/// Re-randomisation of a result of `components` components: zeros `(b u_t + e, a u_t + e') s^t` for `t = 0 .. components - 2`.
///
/// Each decrypts to `e_pk u_t s^t + e s^t + e' s^(t+1)`. The mask `u_t` is distributed as `s` but independent of it, whereas
/// `e'` meets one more power of the same slot: `E[s^(2t+2)] = (2t+1) E[s^2] E[s^(2t)]`.
pub fn rerandomise(n: usize, components: usize) -> Noise {
    let (error, mask) = (slots(n, ERROR_STD * ERROR_STD), secret_power(n, 1));
    let terms = (0..components.saturating_sub(1)).flat_map(|t| {
        let power = secret_power(n, t);
        // At the worst slot `e_pk`, which is the same in all masks, is as large beside its deviation
        // as `s` is beside its own.
        let masked = Noise { worst: power.worst * mask.worst, ..power.times(mask.rms) };
        [masked, power, secret_power(n, t + 1)]
    });
    terms.map(|term| term.times(error)).fold(Noise::even(0.0), Noise::plus)
}
