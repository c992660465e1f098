//! Uniform residues expanded from a key, with random access.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

use super::Modulus;

/// Random access to uniform polynomials in evaluation domain.
///
/// `W_t = ChaCha20(key, nonce = (object, limb, t) as three little-endian u32, block counter from 0)` read as little-endian
/// u32 words. Residue `j` is the first of `W_0[j], W_1[j], ...` that, masked to `ceil(log2 q)` bits, is below `q`.
#[derive(Clone, Debug)]
pub struct UniformSource {
    key: [u8; 32],
}

impl UniformSource {
    /// The source of a key, which is public. `ckks::UniformPurpose::source` derives it from a seed.
    pub fn from_key(key: [u8; 32]) -> Self {
        UniformSource { key }
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
