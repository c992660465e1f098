//! A client's keys.

use anyhow::Result;
use cryptodl_client::{EncryptionKey, SecretKey};
use cryptodl_core::ckks::{ClientSpec, EncryptionKind, Params, PublicKey, Randomness, RelinKey};

/// All keys that a Program needs.
pub struct Keys {
    pub secret: SecretKey,
    pub public: PublicKey,
    /// None when the Program switches no keys.
    pub relin: Option<RelinKey>,
}

impl Keys {
    /// Fresh keys for a checked `spec`. The order in which randomness is drawn is fixed, so that a test seed gives the
    /// same keys to every command.
    pub fn generate(spec: &ClientSpec, params: &Params, rng: &mut Randomness) -> Result<Self> {
        let secret = SecretKey::generate(params, rng);
        let public = secret.public_key(rng)?;
        let relin = spec.relin.map(|layout| secret.relin_key(layout, rng)).transpose()?;
        Ok(Keys { secret, public, relin })
    }

    /// The one that encrypts images.
    pub fn encryption(&self, kind: EncryptionKind) -> EncryptionKey<'_> {
        match kind {
            EncryptionKind::Secret => EncryptionKey::Secret(&self.secret),
            EncryptionKind::Public => EncryptionKey::Public(&self.public),
        }
    }
}
