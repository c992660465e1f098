//! The public keys: evaluation-domain residues, made by the client, used by the server.

use super::{Params, UniformPurpose};
use crate::backend::RelinLayout;
use crate::ring::UniformSource;

/// A public encryption key `(b, a)` with `b = e - a s` over the whole chain and the special primes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Seed of `a`.
    pub seed: [u8; 32],
    /// `b`, evaluation domain, `[limb][N]`, every limb of `Q P`, canonical.
    pub b: Vec<u32>,
}

impl PublicKey {
    /// `a`, evaluation domain, `[limb][N]`, every limb of `Q P`.
    pub fn expand_a(&self, params: &Params) -> Vec<u32> {
        let source = UniformPurpose::PublicKey.source(params, &self.seed);
        expand(&source, params, 0)
    }
}

/// A relinearisation key: for digit `g`, `(b_g, a_g)` with `b_g = e_g - a_g s + P s^2` in the digit's own limbs and without
/// the last term in the others, over the first `level` chain limbs and all special limbs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelinKey {
    /// Digits and level.
    pub layout: RelinLayout,
    /// Seed of all `a_g`.
    pub seed: [u8; 32],
    /// All `b_g`, evaluation domain, `[digit][limb][N]`; limbs: chain `0 .. level`, then special. Canonical.
    pub b: Vec<u32>,
}

impl RelinKey {
    /// The limbs that the key covers: chain `0 .. level`, then all special limbs.
    pub fn limbs(&self, params: &Params) -> Vec<usize> {
        params.chain(self.layout.level).into_iter().chain(params.special()).collect()
    }

    /// All `a_g`, evaluation domain, `[digit][limb][N]`, limbs as in [`Self::limbs`].
    pub fn expand_a(&self, params: &Params) -> Vec<u32> {
        let source = UniformPurpose::RelinKey.source(params, &self.seed);
        let digits = self.layout.digits(self.layout.level) as u32;
        let limbs = self.limbs(params);
        (0..digits).flat_map(|digit| expand_limbs(&source, params, digit, &limbs)).collect()
    }
}

fn expand(source: &UniformSource, params: &Params, object: u32) -> Vec<u32> {
    let limbs: Vec<usize> = (0..params.basis().len()).collect();
    expand_limbs(source, params, object, &limbs)
}

fn expand_limbs(source: &UniformSource, params: &Params, object: u32, limbs: &[usize]) -> Vec<u32> {
    let mut out = vec![0; limbs.len() * params.n()];
    for (row, &limb) in out.chunks_exact_mut(params.n()).zip(limbs) {
        source.fill(object, limb as u32, params.basis().modulus(limb), 0, row);
    }
    out
}
