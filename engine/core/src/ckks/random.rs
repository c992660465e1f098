//! Where randomness comes from. Secrets (keys, noise) and public seeds have separate sources, so that nothing public is ever
//! the output of the generator that made a secret.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

/// The operating system gave no randomness.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random generator failed: {reason}; no key or ciphertext can be made without it")]
pub struct RandomError {
    /// The system's words.
    pub reason: String,
}

/// A cryptographic random generator. Wiped on drop, and never printed.
pub struct Randomness {
    secrets: SecretStream,
    seeds: SeedSource,
}

enum SeedSource {
    OperatingSystem,
    Test(SecretStream),
}

impl Randomness {
    /// A generator whose secrets are expanded from 32 bytes of the operating system, and whose public seeds are each drawn
    /// from it.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn from_os() -> Result<Self, RandomError> {
        let key = Zeroizing::new(os_bytes()?);
        Ok(Randomness { secrets: SecretStream::new(&key, 0), seeds: SeedSource::OperatingSystem })
    }

    /// A generator whose secrets all follow from `secret`: 32 bytes of a cryptographic generator that serve this computation and
    /// no other one. An attempt that was interrupted can be repeated with the same bytes. Public seeds are each drawn from the
    /// operating system.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Randomness { secrets: SecretStream::new(secret, 0), seeds: SeedSource::OperatingSystem }
    }

    /// A generator that gives everybody the same "secrets", so that tests can be repeated. The streams of different purposes
    /// (`"keygen"`, `"encrypt"`, ...) under one seed are unrelated.
    pub fn insecure_from_seed_for_tests(seed: u64, purpose: &str) -> Self {
        let stream = |role: &[u8]| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"cryptodl insecure test randomness v1 ").update(role);
            hasher.update(&seed.to_le_bytes()).update(purpose.as_bytes());
            SecretStream::new(&hasher.finalize().into(), 0)
        };
        Randomness { secrets: stream(b"secrets"), seeds: SeedSource::Test(stream(b"seeds")) }
    }

    /// A fresh public seed. Every key and every call of `encrypt` takes its own.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn fresh_seed(&mut self) -> Result<[u8; 32], RandomError> {
        match &mut self.seeds {
            SeedSource::OperatingSystem => os_bytes(),
            SeedSource::Test(stream) => Ok(stream.bytes()),
        }
    }

    /// A fresh family of secret streams, for work that is shared among threads.
    pub fn streams(&mut self) -> SecretStreams {
        SecretStreams { key: Zeroizing::new(self.secrets.bytes()) }
    }
}

fn os_bytes() -> Result<[u8; 32], RandomError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| RandomError { reason: error.to_string() })?;
    Ok(bytes)
}

/// Secret streams under one fresh key, told apart by an index: what a stream yields depends neither on the number of threads
/// nor on the order in which they work. Wiped on drop.
pub struct SecretStreams {
    key: Zeroizing<[u8; 32]>,
}

impl SecretStreams {
    /// Stream number `index`, from its start.
    pub fn stream(&self, index: u64) -> SecretStream {
        SecretStream::new(&self.key, index)
    }
}

/// A ChaCha20 keystream of secret words, at most 256 GiB long. Wiped on drop.
pub struct SecretStream(ChaCha20);

impl SecretStream {
    fn new(key: &[u8; 32], index: u64) -> Self {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&index.to_le_bytes());
        SecretStream(ChaCha20::new(key.into(), &nonce.into()))
    }

    /// Replaces `words` by the next uniform words.
    pub fn fill(&mut self, words: &mut [u64]) {
        words.fill(0);
        self.0.apply_keystream(bytemuck::must_cast_slice_mut(words));
        // The same words on every machine.
        words.iter_mut().for_each(|word| *word = u64::from_le(*word));
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.apply_keystream(&mut bytes);
        bytes
    }
}
