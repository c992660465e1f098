//! The secret key.

use cryptodl_core::ckks::sampling::SmallPolynomial;
use cryptodl_core::ckks::{Params, Randomness};
use zeroize::Zeroizing;

use crate::ClientError;

/// A uniform ternary secret, bound to its parameters. Wiped on drop, and never printed.
pub struct SecretKey {
    params: Params,
    secret: SmallPolynomial,
    /// Evaluation domain, `[limb][N]`, every limb of `Q P`, canonical.
    residues: Zeroizing<Vec<u32>>,
}

impl SecretKey {
    /// A fresh key.
    pub fn generate(params: &Params, rng: &mut Randomness) -> Self {
        Self::from_secret(params, SmallPolynomial::ternary(params.n(), &mut rng.streams().stream(0)))
    }

    /// The key with the given coefficients (see [`Self::coefficients`]).
    ///
    /// # Errors
    /// Unless there are N coefficients, each -1, 0 or 1.
    pub fn from_coefficients(params: &Params, coefficients: Zeroizing<Vec<i8>>) -> Result<Self, ClientError> {
        let error = |reason| ClientError::SecretKey { expected: params.n(), reason };
        if coefficients.len() != params.n() {
            return Err(error(format!("there are {}", coefficients.len())));
        }
        // Every coefficient is looked at, so that the time tells nothing but the outcome.
        let others = coefficients.iter().filter(|&&c| c.unsigned_abs() > 1).count();
        if others > 0 {
            return Err(error(format!("{others} are something else")));
        }
        Ok(Self::from_secret(params, SmallPolynomial::new(coefficients)))
    }

    fn from_secret(params: &Params, secret: SmallPolynomial) -> Self {
        let basis = params.basis();
        let mut residues = Zeroizing::new(vec![0; basis.len() * params.n()]);
        for (limb, row) in residues.chunks_exact_mut(params.n()).enumerate() {
            row.copy_from_slice(&secret.transform(basis.table(limb)));
        }
        SecretKey { params: params.clone(), secret, residues }
    }

    /// The coefficients, each -1, 0 or 1: the key itself.
    pub fn coefficients(&self) -> &[i8] {
        self.secret.coefficients()
    }

    /// The parameters that the key was made for.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The secret in evaluation domain modulo the prime of `limb`.
    pub(crate) fn row(&self, limb: usize) -> &[u32] {
        let n = self.params.n();
        &self.residues[limb * n..][..n]
    }

    /// Refuses to work with other parameters than its own.
    pub(crate) fn require(&self, params: &Params) -> Result<(), ClientError> {
        let same = self.params.digest() == params.digest();
        if same { Ok(()) } else { Err(ClientError::OtherParams { what: "the secret key" }) }
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretKey").field("n", &self.params.n()).finish_non_exhaustive()
    }
}
