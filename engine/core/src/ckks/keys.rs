//! The public keys: evaluation-domain residues, made by the client, used by the server.

use super::check::require;
use super::{MAX_COMPONENTS, Params, SpecError, UniformPurpose};
use crate::backend::RelinLayout;
use crate::ring::{Automorphism, UniformSource};

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

/// Most evaluation keys that a client gives away together.
pub const MAX_EVAL_KEYS: usize = 64;

const RELINEARISATION: u32 = 1;
const AUTOMORPHISM: u32 = 2;
const POWER: u32 = 3;

/// What an evaluation key switches, and over which limbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EvalKeyLayout {
    /// From `s^2` to `s`, after a product.
    Relinearisation(RelinLayout),
    /// Before the automorphism `X -> X^element`: from the secret that this automorphism takes to `s`.
    Automorphism(AutomorphismLayout),
    /// From `s^power` to `s`, where powers beyond the second have been left standing.
    Power(PowerLayout),
}

/// A power of the secret beyond the second, and the digits of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerLayout {
    /// `t` of `s^t`, from 3 to one less than [`MAX_COMPONENTS`].
    pub power: u32,
    /// As in [`RelinLayout`].
    pub level: usize,
    /// As in [`RelinLayout`].
    pub digit_primes: usize,
    /// As in [`RelinLayout`].
    #[serde(default = "RelinLayout::whole", skip_serializing_if = "RelinLayout::is_whole")]
    pub prime_parts: usize,
}

/// An automorphism, and the digits of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutomorphismLayout {
    /// `g` of `X -> X^g`, below `4 N` and 1 modulo 4.
    pub element: u32,
    /// As in [`RelinLayout`].
    pub level: usize,
    /// As in [`RelinLayout`].
    pub digit_primes: usize,
    /// As in [`RelinLayout`].
    #[serde(default = "RelinLayout::whole", skip_serializing_if = "RelinLayout::is_whole")]
    pub prime_parts: usize,
}

impl EvalKeyLayout {
    /// Of the key for `X -> X^element` over these digits.
    pub fn automorphism(element: u32, digits: RelinLayout) -> Self {
        let RelinLayout { level, digit_primes, prime_parts } = digits;
        EvalKeyLayout::Automorphism(AutomorphismLayout { element, level, digit_primes, prime_parts })
    }

    /// Of the key for `s^power`, 2 or more, over these digits.
    pub fn power(power: u32, digits: RelinLayout) -> Self {
        let RelinLayout { level, digit_primes, prime_parts } = digits;
        match power {
            2 => EvalKeyLayout::Relinearisation(digits),
            _ => EvalKeyLayout::Power(PowerLayout { power, level, digit_primes, prime_parts }),
        }
    }

    /// The layout, if it is one of relinearisation keys.
    pub fn as_relin(self) -> Option<RelinLayout> {
        match self {
            EvalKeyLayout::Relinearisation(layout) => Some(layout),
            EvalKeyLayout::Automorphism(_) | EvalKeyLayout::Power(_) => None,
        }
    }

    /// The power of the secret that is switched: 1 before an automorphism.
    pub fn of_power(self) -> u32 {
        match self {
            EvalKeyLayout::Relinearisation(_) => 2,
            EvalKeyLayout::Automorphism(_) => 1,
            EvalKeyLayout::Power(layout) => layout.power,
        }
    }

    /// Whether both switch the same, over whatever digits.
    pub fn is_twin(self, other: Self) -> bool {
        (self.of_power(), self.element()) == (other.of_power(), other.element())
    }

    /// How the component that is switched is cut into digits.
    pub fn digits(self) -> RelinLayout {
        match self {
            EvalKeyLayout::Relinearisation(layout) => layout,
            EvalKeyLayout::Automorphism(AutomorphismLayout { level, digit_primes, prime_parts, .. }) => {
                RelinLayout { level, digit_primes, prime_parts }
            }
            EvalKeyLayout::Power(PowerLayout { level, digit_primes, prime_parts, .. }) => {
                RelinLayout { level, digit_primes, prime_parts }
            }
        }
    }

    /// `g` of `X -> X^g`; 0 of a key for a power of the secret.
    pub fn element(self) -> u32 {
        match self {
            EvalKeyLayout::Relinearisation(_) | EvalKeyLayout::Power(_) => 0,
            EvalKeyLayout::Automorphism(layout) => layout.element,
        }
    }

    /// The layout in files: kind (1 relinearisation, 2 automorphism, 3 power), element or power, level, and the digits: primes
    /// per digit, plus 65536 for every part of a prime beyond the first.
    pub fn fields(self) -> [u32; 4] {
        let (kind, element) = match self {
            EvalKeyLayout::Relinearisation(_) => (RELINEARISATION, 0),
            EvalKeyLayout::Automorphism(layout) => (AUTOMORPHISM, layout.element),
            EvalKeyLayout::Power(layout) => (POWER, layout.power),
        };
        let RelinLayout { level, digit_primes, prime_parts } = self.digits();
        [kind, element, level as u32, digit_primes as u32 | (prime_parts as u32 - 1) << 16]
    }

    /// The inverse of [`Self::fields`]. Parameters may still refuse the layout ([`Self::check`]).
    ///
    /// # Errors
    /// A kind that is not known, or a relinearisation key with an element.
    pub fn from_fields([kind, element, level, digits]: [u32; 4]) -> Result<Self, SpecError> {
        let (level, digit_primes, prime_parts) =
            (level as usize, (digits & 0xffff) as usize, (digits >> 16) as usize + 1);
        let digits = RelinLayout { level, digit_primes, prime_parts };
        require((RELINEARISATION..=POWER).contains(&kind), "kind of an evaluation key", kind, || {
            "1 (relinearisation), 2 (automorphism) or 3 (power)".into()
        })?;
        match kind {
            AUTOMORPHISM => return Ok(EvalKeyLayout::automorphism(element, digits)),
            POWER => {
                check_power(element)?;
                return Ok(EvalKeyLayout::Power(PowerLayout { power: element, level, digit_primes, prime_parts }));
            }
            _ => {}
        }
        require(element == 0, "element of a relinearisation key", element, || "0".into())?;
        Ok(EvalKeyLayout::Relinearisation(digits))
    }

    /// The limbs that a key covers: chain `0 .. level`, then all special limbs.
    pub fn limbs(self, params: &Params) -> Vec<usize> {
        params.chain(self.digits().level).into_iter().chain(params.special()).collect()
    }

    /// Checks that a key of this layout exists over `params`, as [`RelinLayout::check`] does.
    ///
    /// # Errors
    /// The field that is refused.
    pub fn check(&self, params: &Params) -> Result<(), SpecError> {
        if let EvalKeyLayout::Automorphism(AutomorphismLayout { element, .. }) = *self {
            let n = params.n();
            let exists = element != 1 && Automorphism::new(n, element).is_some();
            require(exists, "evaluation_keys.element", element, || {
                format!("5, 9, 13, and so on: numbers that are 1 modulo 4, below {}", 4 * n)
            })?;
        }
        if let EvalKeyLayout::Power(PowerLayout { power, .. }) = *self {
            check_power(power)?;
        }
        self.digits().check(params)
    }
}

impl std::fmt::Display for EvalKeyLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RelinLayout { level, digit_primes, prime_parts } = self.digits();
        match self {
            EvalKeyLayout::Relinearisation(_) => write!(f, "a relinearisation key")?,
            EvalKeyLayout::Automorphism(layout) => write!(f, "a key for X -> X^{}", layout.element)?,
            EvalKeyLayout::Power(layout) => write!(f, "a key for s^{}", layout.power)?,
        }
        match prime_parts {
            1 => write!(f, " for level {level} with digits of {digit_primes} primes"),
            parts => write!(f, " for level {level} with {parts} digits for every prime"),
        }
    }
}

fn check_power(power: u32) -> Result<(), SpecError> {
    let most = MAX_COMPONENTS as u32 - 1;
    require((3..=most).contains(&power), "evaluation_keys.power", power, || format!("3 to {most}"))
}

/// One evaluation key: for digit `g` the pair `(b_g, a_g)` with `b_g = e_g - a_g t + P w_g f`, over the limbs of its layout.
///
/// It switches from a secret `f` to a secret `t`. For relinearisation `f = s^2` and `t = s`, and for another power `f` is that
/// power. Before an automorphism `f = s`, and the automorphism takes `t` to `s`: what is switched first is an encryption under
/// `s` again after it. `w_g` is 0 but in the digit's own limbs; there it is 1, or for part `h` of a prime that
/// is cut into digits of `w` bits `2^(w h)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalKey {
    /// What it switches, over which digits.
    pub layout: EvalKeyLayout,
    /// Seed of all `a_g`.
    pub seed: [u8; 32],
    /// All `b_g`, evaluation domain, `[digit][limb][N]`, limbs as in [`EvalKeyLayout::limbs`]. Canonical.
    pub b: Vec<u32>,
}

impl EvalKey {
    /// All `a_g`, evaluation domain, `[digit][limb][N]`, limbs as in [`EvalKeyLayout::limbs`].
    pub fn expand_a(&self, params: &Params) -> Vec<u32> {
        let purpose = match self.layout {
            EvalKeyLayout::Relinearisation(_) | EvalKeyLayout::Power(_) => UniformPurpose::RelinKey,
            EvalKeyLayout::Automorphism(_) => UniformPurpose::AutomorphismKey,
        };
        let source = purpose.source(params, &self.seed);
        let digits = self.layout.digits();
        let (digits, limbs) = (digits.digits(digits.level) as u32, self.layout.limbs(params));
        (0..digits).flat_map(|digit| expand_limbs(&source, params, digit, &limbs)).collect()
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
            let twin = keys[..i].iter().any(|other| other.layout == key.layout);
            require(!twin, "evaluation_keys", key.layout, || "one key of every layout".into())?;
        }
        Ok(EvalKeys(keys))
    }

    /// The keys in the order in which they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &EvalKey> {
        self.0.iter()
    }

    /// Their layouts.
    pub fn layouts(&self) -> Vec<EvalKeyLayout> {
        self.iter().map(|key| key.layout).collect()
    }

    /// The key of exactly this layout.
    pub fn get(&self, layout: EvalKeyLayout) -> Option<&EvalKey> {
        self.iter().find(|key| key.layout == layout)
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
