//! Circuit privacy: what is asked for, and what the executor does for it (SECURITY.md, "Circuit privacy").

use serde::Serialize;

/// Most sets that a flood may be planned for.
pub const MAX_PRIVACY_SETS: u32 = 1 << 20;
/// Most bits of statistical distance. For ten scores the sampler's own distance from a Gaussian stays below 2^-70, also for
/// [`MAX_PRIVACY_SETS`] sets. It grows with the number of scores, and a network of thousands of classes can reach 2^-65.
pub const MAX_PRIVACY_BITS: u32 = 64;
/// What is asked for: the results of at most `sets` sets together are within a statistical distance of `2^-(bits + 1)` of what the
/// scores at the encoded images and a flood alone would give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PrivacyGoal {
    /// Number of ciphertext sets, 1 to 2^20.
    pub sets: u32,
    /// Bits, 1 to 64.
    pub bits: u32,
}

/// How a Program hides the computation's noise. The flood is added to component 0 of every score after the Program's steps, with the
/// fresh encryptions of zero; then the last primes are divided off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CircuitPrivacy {
    /// What was asked for.
    pub goal: PrivacyGoal,
    /// Width of the flood: how often the sampler's narrow Gaussian is doubled.
    pub doublings: u32,
    /// Chain primes that are divided off after the flood.
    pub drop: usize,
}

impl PrivacyGoal {
    /// `RHO = log2(scores N sets) / 2 + bits`: how many bits wider than the noise the flood is.
    pub fn rho(&self, n: usize, scores: usize) -> f64 {
        0.5 * libm::log2(scores as f64 * n as f64 * f64::from(self.sets)) + f64::from(self.bits)
    }

    /// Statistical distance of the phases of all sets: `sqrt(scores N sets) / 2 x 2^-RHO`.
    pub fn distance(&self) -> f64 {
        libm::ldexp(1.0, -(self.bits as i32) - 1)
    }
}
