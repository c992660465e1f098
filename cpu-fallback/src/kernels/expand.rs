//! Uniform residues from ChaCha20 streams (`cryptodl_core::ring::UniformSource` defines them; RFC 8439 defines ChaCha20): as many
//! blocks at a time as a vector has lanes.

use cryptodl_core::ring::Modulus;

use crate::simd::{Kernel, Simd, unrolled};

/// Words of a block.
const BLOCK: usize = 16;

/// Residues `0 .. out.len()` of one polynomial.
pub(crate) struct Expand<'a> {
    pub(crate) key: &'a [u8; 32],
    pub(crate) object: u32,
    pub(crate) limb: u32,
    pub(crate) modulus: Modulus,
    pub(crate) out: &'a mut [u32],
}

impl<S: Simd> Kernel<S> for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: S) {
        let Expand { key, object, limb, modulus, out } = self;
        let mut words = [0; BLOCK];
        words[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        for (word, bytes) in words[4..12].iter_mut().zip(key.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        (words[13], words[14]) = (object, limb);
        let (q, mask) = (s.splat(modulus.value()), s.splat((1 << modulus.bits()) - 1));
        let mut residues = [S::Array::default(); BLOCK];
        for (batch, out) in out.chunks_mut(BLOCK * S::LANES).enumerate() {
            words[12] = (batch * S::LANES) as u32;
            words[15] = 0;
            // Word j of stream t counts where those of all earlier streams were not below q.
            let mut accepted = false;
            while !accepted {
                let drawn = blocks(s, &words);
                let mut below = s.splat(u32::MAX);
                for (residue, drawn) in residues.iter_mut().zip(drawn) {
                    let mut x = s.and(drawn, mask);
                    if words[15] > 0 {
                        // Lanes that are below q stay.
                        let held = s.load(residue);
                        let stays = s.shift_right_signed(s.sub(held, q), 31);
                        x = s.xor(x, s.and(s.xor(x, held), stays));
                    }
                    below = s.and(below, s.shift_right_signed(s.sub(x, q), 31));
                    s.store(x, residue);
                }
                let mut lanes = S::Array::default();
                s.store(below, &mut lanes);
                accepted = lanes.as_ref().iter().all(|&lane| lane == u32::MAX);
                words[15] += 1;
            }
            for (out, residue) in out.chunks_mut(S::LANES).zip(&residues) {
                out.copy_from_slice(&residue.as_ref()[..out.len()]);
            }
        }
    }
}

/// The keystream blocks of `LANES` successive counters, one after another.
#[inline(always)]
fn blocks<S: Simd>(s: S, words: &[u32; BLOCK]) -> [S::V; BLOCK] {
    let mut counters = S::Array::default();
    counters.as_mut().iter_mut().zip(0..).for_each(|(lane, counter)| *lane = counter);
    let mut start = [s.splat(0); BLOCK];
    unrolled!(i < BLOCK => { start[i] = s.splat(words[i]); });
    start[12] = s.add(start[12], s.load(&counters));
    let mut v = start;
    macro_rules! quarter_rounds {
        ($([$a:literal $b:literal $c:literal $d:literal])*) => {
            $(
                quarter_rounds!(@ $a $b $d 16);
                quarter_rounds!(@ $c $d $b 12);
                quarter_rounds!(@ $a $b $d 8);
                quarter_rounds!(@ $c $d $b 7);
            )*
        };
        (@ $to:literal $with:literal $turned:literal $bits:literal) => {
            v[$to] = s.add(v[$to], v[$with]);
            v[$turned] = s.rotate_left(s.xor(v[$turned], v[$to]), $bits);
        };
    }
    for _ in 0..10 {
        quarter_rounds!([0 4 8 12] [1 5 9 13] [2 6 10 14] [3 7 11 15]);
        quarter_rounds!([0 5 10 15] [1 6 11 12] [2 7 8 13] [3 4 9 14]);
    }
    unrolled!(i < BLOCK => { v[i] = s.add(v[i], start[i]); });
    // Lane and word trade places: four times, the highest bit of the word's number becomes the lowest of the lane's.
    for _ in 0..4 {
        let words = v;
        unrolled!(i < BLOCK / 2 => { (v[2 * i], v[2 * i + 1]) = s.zip(words[i], words[i + BLOCK / 2]); });
    }
    v
}
