//! The public keys: evaluation-domain residues, made by the client, used by the server.

use super::check::require;
use super::{Params, SpecError, UniformPurpose};
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

/// Most evaluation keys that a client gives away together.
pub const MAX_EVAL_KEYS: usize = 64;

/// What an evaluation key switches, and over which limbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EvalKeyLayout {
    /// From `s^2` to `s`, after a product.
    Relinearisation(RelinLayout),
}

impl EvalKeyLayout {
    /// The layout, if it is one of relinearisation keys.
    pub fn as_relin(self) -> Option<RelinLayout> {
        match self {
            EvalKeyLayout::Relinearisation(layout) => Some(layout),
        }
    }

    /// Checks that a key of this layout exists over `params`, as [`RelinLayout::check`] does.
    ///
    /// # Errors
    /// The field that is refused.
    pub fn check(&self, params: &Params) -> Result<(), SpecError> {
        match self {
            EvalKeyLayout::Relinearisation(layout) => layout.check(params),
        }
    }
}

impl std::fmt::Display for EvalKeyLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EvalKeyLayout::Relinearisation(RelinLayout { level, digit_primes }) => {
                write!(f, "a relinearisation key for level {level} with digits of {digit_primes} primes")
            }
        }
    }
}

/// One evaluation key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalKey {
    /// Switches from `s^2` to `s`.
    Relinearisation(RelinKey),
}

impl EvalKey {
    /// What it switches.
    pub fn layout(&self) -> EvalKeyLayout {
        match self {
            EvalKey::Relinearisation(key) => EvalKeyLayout::Relinearisation(key.layout),
        }
    }
}

/// The evaluation keys that a client gives away: at most [`MAX_EVAL_KEYS`], no two of the same
/// layout. They belong to parameters and to a secret key, and serve every Program whose layouts are
/// among theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvalKeys(Vec<EvalKey>);

impl EvalKeys {
    /// These keys.
    ///
    /// # Errors
    /// Too many keys, or two of the same layout.
    pub fn new(keys: Vec<EvalKey>) -> Result<Self, SpecError> {
        require(keys.len() <= MAX_EVAL_KEYS, "evaluation_keys", keys.len(), || format!("at most {MAX_EVAL_KEYS}"))?;
        for (i, key) in keys.iter().enumerate() {
            let twin = keys[..i].iter().any(|other| other.layout() == key.layout());
            require(!twin, "evaluation_keys", key.layout(), || "one key of every layout".into())?;
        }
        Ok(EvalKeys(keys))
    }

    /// The keys in the order in which they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &EvalKey> {
        self.0.iter()
    }

    /// Their layouts.
    pub fn layouts(&self) -> Vec<EvalKeyLayout> {
        self.iter().map(EvalKey::layout).collect()
    }

    /// The relinearisation key of exactly this layout.
    pub fn relin(&self, layout: RelinLayout) -> Option<&RelinKey> {
        self.iter().find_map(|key| match key {
            EvalKey::Relinearisation(key) => (key.layout == layout).then_some(key),
        })
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
