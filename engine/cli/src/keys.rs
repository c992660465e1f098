//! A client's keys.

use anyhow::Result;
use cryptodl_client::{EncryptionKey, SecretKey};
use cryptodl_core::ckks::{ClientSpec, EncryptionKind, EvalKeys, Params, PublicKey, Randomness};

/// All keys that a Program needs.
pub struct Keys {
    pub secret: SecretKey,
    pub public: PublicKey,
    /// None when the Program switches no keys.
    pub eval: EvalKeys,
}

impl Keys {
    /// Fresh keys for a checked `spec`. The order in which randomness is drawn is fixed, so that a test seed gives the
    /// same keys to every command.
    pub fn generate(spec: &ClientSpec, params: &Params, rng: &mut Randomness) -> Result<Self> {
        let secret = SecretKey::generate(params, rng);
        let public = secret.public_key(rng)?;
        let eval = secret.eval_keys(&spec.evaluation_keys, rng)?;
        Ok(Keys { secret, public, eval })
    }

    /// The one that encrypts images.
    pub fn encryption(&self, kind: EncryptionKind) -> EncryptionKey<'_> {
        match kind {
            EncryptionKind::Secret => EncryptionKey::Secret(&self.secret),
            EncryptionKind::Public => EncryptionKey::Public(&self.public),
        }
    }
}
