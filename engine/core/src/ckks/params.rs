//! Parameters in two stages: a [`ParamsSpec`] says what is wanted, [`Params`] is what was checked and built.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::SecurityLevel;
use crate::backend::conformance;
use crate::ring::{RingError, RnsBasis};

/// Largest number of special primes.
pub const MAX_SPECIAL_PRIMES: usize = 4;

/// Unchecked description of a ring and its modulus chain. It may come from a stranger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamsSpec {
    /// Ring dimension and number of real slots.
    pub n: usize,
    /// The chain `q_0 .. q_(L-1)`; the last is dropped first.
    pub primes: Vec<u32>,
    /// Special primes, whose product `P` is used in key switching and public-key encryption. May be empty.
    pub special_primes: Vec<u32>,
    /// The security level to enforce.
    pub security: SecurityLevel,
}

/// A checked ring with its transforms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Params {
    spec: Arc<ParamsSpec>,
    basis: Arc<RnsBasis>,
    digest: [u8; 32],
}

/// Why parameters are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParamsError {
    /// The ring cannot be built.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No prime in the chain.
    #[error("the modulus chain is empty: at least one prime is needed")]
    EmptyChain,
    /// More special primes than key switching supports.
    #[error("{count} special primes are not allowed: at most {MAX_SPECIAL_PRIMES}")]
    SpecialPrimes {
        /// How many were given.
        count: usize,
    },
    /// The modulus is too large for the ring dimension.
    #[error(
        "log2(QP) = {log_qp:.1} bits at N = {n} is not {bits}-bit secure: at most {allowed} bits are allowed; use a larger N or a smaller modulus"
    )]
    Insecure {
        /// Ring dimension.
        n: usize,
        /// Bits of the modulus.
        log_qp: f64,
        /// The level asked for.
        bits: u32,
        /// The limit of the table.
        allowed: u32,
    },
}

impl ParamsSpec {
    /// Checks everything (primes, distinctness, sizes, and the security table over `Q P`) and builds the transforms.
    ///
    /// # Errors
    /// See [`ParamsError`].
    pub fn build(self) -> Result<Params, ParamsError> {
        let params = self.build_insecure_for_tests()?;
        let (spec, log_qp) = (&params.spec, params.log_qp());
        let allowed = spec.security.max_log_qp(spec.n);
        if log_qp > f64::from(allowed) {
            return Err(ParamsError::Insecure { n: spec.n, log_qp, bits: spec.security.bits(), allowed });
        }
        Ok(params)
    }

    /// Like [`Self::build`], without the security table: for tests with small rings. Nothing encrypted so is secret.
    ///
    /// # Errors
    /// See [`ParamsError`].
    pub fn build_insecure_for_tests(self) -> Result<Params, ParamsError> {
        if self.primes.is_empty() {
            return Err(ParamsError::EmptyChain);
        }
        if self.special_primes.len() > MAX_SPECIAL_PRIMES {
            return Err(ParamsError::SpecialPrimes { count: self.special_primes.len() });
        }
        let basis = RnsBasis::new(self.n, &[&self.primes[..], &self.special_primes].concat())?;
        let digest = self.digest();
        Ok(Params { spec: Arc::new(self), basis: Arc::new(basis), digest })
    }

    /// BLAKE3 of `"cryptodl params v1"`, then as little-endian u32: N, chain length, chain, special length, special primes.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"cryptodl params v1");
        let mut word = |w: u32| {
            hasher.update(&w.to_le_bytes());
        };
        word(self.n as u32);
        for list in [&self.primes, &self.special_primes] {
            word(list.len() as u32);
            list.iter().for_each(|&q| word(q));
        }
        hasher.finalize().into()
    }
}

impl Params {
    /// Ring dimension, and number of slots.
    pub fn n(&self) -> usize {
        self.spec.n
    }

    /// What these parameters were built from.
    pub fn spec(&self) -> &ParamsSpec {
        &self.spec
    }

    /// The residue number system: the chain's limbs `0 .. L`, then the special limbs.
    pub fn basis(&self) -> &Arc<RnsBasis> {
        &self.basis
    }

    /// Number of primes in the chain, `L`.
    pub fn chain_len(&self) -> usize {
        self.spec.primes.len()
    }

    /// Indices of the first `level` limbs of the chain.
    pub fn chain(&self, level: usize) -> Vec<usize> {
        assert!(level <= self.chain_len(), "level {level} of a chain of {}", self.chain_len());
        (0..level).collect()
    }

    /// Indices of the special limbs.
    pub fn special(&self) -> Vec<usize> {
        (self.chain_len()..self.basis.len()).collect()
    }

    /// `log2 Q` of the first `level` limbs.
    pub fn log_q(&self, level: usize) -> f64 {
        self.basis.log2_product(0..level)
    }

    /// `log2 P`, 0 without special primes.
    pub fn log_p(&self) -> f64 {
        self.basis.log2_product(self.special())
    }

    /// `log2 (Q P)`, what the security table counts.
    pub fn log_qp(&self) -> f64 {
        self.basis.log2_product(0..self.basis.len())
    }

    /// BLAKE3 digest of ring and chain ([`ParamsSpec::digest`]).
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Parameters fit for [`conformance::compare`] in dimension `n`. Not secure.
///
/// # Errors
/// `n` is no supported dimension.
pub fn params_for_tests(n: usize) -> Result<Params, RingError> {
    let (primes, special_primes) = conformance::primes(n)?;
    let spec = ParamsSpec { n, primes, special_primes, security: SecurityLevel::Bits128 };
    Ok(spec.build_insecure_for_tests().expect("a prime chain was built"))
}
