//! Public uniform polynomials expanded from a seed: the c1 of fresh ciphertexts and of keys never travel.

use super::Params;
use crate::ring::UniformSource;

/// What a seed is for; every purpose has its own stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniformPurpose {
    /// Component 1 of secret-key ciphertexts; object = (first set of the part + set) x values +
    /// value.
    Ciphertext,
    /// Component 1 of the public key; object 0.
    PublicKey,
    /// Component 1 of the relinearisation key; object = digit.
    RelinKey,
    /// Component 1 of a key for an automorphism; object = digit.
    AutomorphismKey,
}

impl UniformPurpose {
    /// The source under one seed: its key is `BLAKE3(tag || params digest || seed)`. Seeds are public and must be fresh for
    /// every use.
    pub fn source(self, params: &Params, seed: &[u8; 32]) -> UniformSource {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.tag()).update(params.digest()).update(seed);
        UniformSource::from_key(hasher.finalize().into())
    }

    fn tag(self) -> &'static [u8] {
        match self {
            UniformPurpose::Ciphertext => b"cryptodl uniform v1 ciphertext",
            UniformPurpose::PublicKey => b"cryptodl uniform v1 public key",
            UniformPurpose::RelinKey => b"cryptodl uniform v1 relinearisation key",
            UniformPurpose::AutomorphismKey => b"cryptodl uniform v1 automorphism key",
        }
    }
}
