//! Public uniform polynomials expanded from a seed: the c1 of fresh ciphertexts and of keys never travel.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

use super::Params;
use crate::ring::Modulus;

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
}

impl UniformPurpose {
    fn tag(self) -> &'static [u8] {
        match self {
            UniformPurpose::Ciphertext => b"cryptodl uniform v1 ciphertext",
            UniformPurpose::PublicKey => b"cryptodl uniform v1 public key",
            UniformPurpose::RelinKey => b"cryptodl uniform v1 relinearisation key",
        }
    }
}

/// Random access to uniform polynomials in evaluation domain.
///
/// `W_t = ChaCha20(key = BLAKE3(tag || params digest || seed), nonce = (object, limb, t) as three little-endian u32, block
/// counter from 0)` read as little-endian u32 words. Residue `j` is the first of `W_0[j], W_1[j], ...` that, masked to
/// `ceil(log2 q)` bits, is below `q`.
#[derive(Clone, Debug)]
pub struct UniformSource {
    key: [u8; 32],
}

impl UniformSource {
    /// The source of one purpose under one seed. Seeds are public and must be fresh for every use.
    pub fn new(purpose: UniformPurpose, params: &Params, seed: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(purpose.tag()).update(params.digest()).update(seed);
        UniformSource { key: hasher.finalize().into() }
    }

    /// The ChaCha20 key, for backends that expand on the device.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Residues `first .. first + out.len()` of the polynomial of `object` in limb `limb` with prime `modulus`.
    pub fn fill(&self, object: u32, limb: u32, modulus: Modulus, first: usize, out: &mut [u32]) {
        let (q, mask) = (modulus.value(), (1u32 << modulus.bits()) - 1);
        self.words(object, limb, 0, first, out);
        let mut rejected: Vec<usize> = Vec::new();
        for (j, word) in out.iter_mut().enumerate() {
            *word &= mask;
            if *word >= q {
                rejected.push(j);
            }
        }
        // With primes just below a power of two a second round is rare, and only the few rejected words are drawn.
        for j in rejected {
            let mut t = 1;
            out[j] = loop {
                let mut word = [0];
                self.words(object, limb, t, first + j, &mut word);
                if word[0] & mask < q {
                    break word[0] & mask;
                }
                t += 1;
            };
        }
    }

    fn words(&self, object: u32, limb: u32, t: u32, first: usize, out: &mut [u32]) {
        let mut nonce = [0; 12];
        for (bytes, word) in nonce.chunks_exact_mut(4).zip([object, limb, t]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut cipher = ChaCha20::new(&self.key.into(), &nonce.into());
        cipher.seek(4 * first as u64);
        out.fill(0);
        cipher.apply_keystream(bytemuck::must_cast_slice_mut(out));
        out.iter_mut().for_each(|word| *word = u32::from_le(*word));
    }
}
